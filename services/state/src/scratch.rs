//! What a module sees of the state while a transaction runs: layers above the view, and what it may touch of them.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use machine::module::{Module, ModuleState};
use machine::{Fault, Read};

use crate::groups::Declared;
use crate::tables::CURRENT;

/// What apps keep begins so.
const APPS: &str = "app/";

/// Changes of keys: `None` removes one.
pub(crate) type Layer = BTreeMap<String, Option<Vec<u8>>>;

/// What lies below a transaction: layers, the upper one first, and the view. Without a view the layers hold all that there is
/// to see.
#[derive(Clone, Copy)]
pub(crate) struct Below<'a> {
    pub(crate) view: Option<&'a dyn Read>,
    pub(crate) layers: [&'a Layer; 2],
}

impl Below<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        match (self.layers.iter().find_map(|layer| layer.get(key)), self.view) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(view)) => current(view, key),
            (None, None) => Ok(None),
        }
    }
}

/// The value of a key in the view.
pub(crate) fn current(view: &dyn Read, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    Ok(CURRENT.get(view, &key.to_owned())?.map(|(value, _)| value.into()))
}

/// Whose keys are named without a name before them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    name: &'a str,
    touches_apps: bool,
}

impl<'a> Owner<'a> {
    pub(crate) fn of(module: &'a dyn Module) -> Self {
        Self { name: module.name(), touches_apps: module.touches_apps() }
    }

    /// The key with its owner's name.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.touches_apps && key.starts_with(APPS) {
            key.to_owned()
        } else {
            format!("{}/{key}", self.name)
        }
    }
}

impl<'a> From<&'a str> for Owner<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, touches_apps: false }
    }
}

/// One module's view of the state.
///
/// Of what is not declared nothing is shown and nothing is changed, whatever else runs meanwhile.
pub(crate) struct Scratch<'a> {
    below: Below<'a>,
    writes: &'a mut Layer,
    owner: Owner<'a>,
    declared: Option<&'a Declared>,
    undeclared: OnceCell<String>,
}

impl<'a> Scratch<'a> {
    /// `declared` is all that may be touched; everything of the module's, without it.
    pub(crate) fn new(
        below: Below<'a>,
        writes: &'a mut Layer,
        owner: impl Into<Owner<'a>>,
        declared: Option<&'a Declared>,
    ) -> Self {
        Self { below, writes, owner: owner.into(), declared, undeclared: OnceCell::new() }
    }

    /// The first key that was touched and not declared.
    pub(crate) fn undeclared(self) -> Option<String> {
        self.undeclared.into_inner()
    }

    /// The key with the module's name, if it may be touched so.
    fn allowed(&self, key: &str, may: impl Fn(&Declared, &str) -> bool) -> Option<String> {
        let key = self.owner.key(key);
        if self.declared.is_none_or(|declared| may(declared, &key)) {
            return Some(key);
        }
        self.undeclared.get_or_init(|| key);
        None
    }

    fn set(&mut self, key: &str, value: Option<Vec<u8>>) {
        if let Some(key) = self.allowed(key, Declared::may_write) {
            self.writes.insert(key, value);
        }
    }
}

impl ModuleState for Scratch<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        let Some(key) = self.allowed(key, Declared::may_read) else { return Ok(None) };
        match self.writes.get(&key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(&key),
        }
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.set(key, Some(value));
    }

    fn delete(&mut self, key: &str) {
        self.set(key, None);
    }
}
