//! A machine run by hand: what the actor does, without a thread, a socket or a clock. And what a module run by hand writes to.
//!
//! Used by the services' tests; it is the shortest full description of how a machine is driven.

use std::collections::BTreeMap;

use protocol::{Caller, Event, Problem};

use crate::effect::Owed;
use crate::module::ModuleState;
use crate::record::{At, Entry};
use crate::view::{MemoryStore, Overlay, View};
use crate::{AnswerOf, Context, Decision, Fault, Machine, RequestOf};

/// A machine with its journal and view in memory.
pub struct Bench<M: Machine> {
    /// The machine.
    pub machine: M,
    /// The time it is told.
    pub now_ms: u64,
    /// Who it is told is asking.
    pub caller: Caller,
    /// The journal's entries.
    pub journal: Vec<Vec<u8>>,
    /// The view.
    pub view: MemoryStore,
    /// Effects released and not yet taken.
    pub effects: Vec<Owed<M::Effect>>,
    /// Events published so far.
    pub events: Vec<Event>,
    entropy: u8,
}

impl<M: Machine> Bench<M> {
    /// A machine with nothing journaled, at time 1 000 000.
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            now_ms: 1_000_000,
            caller: Caller::Internal,
            journal: Vec::new(),
            view: MemoryStore::default(),
            effects: Vec::new(),
            events: Vec::new(),
            entropy: 0,
        }
    }

    /// Asks, journals, applies, releases.
    ///
    /// # Errors
    ///
    /// The machine's refusal.
    ///
    /// # Panics
    ///
    /// If the machine faults, or commits nothing.
    pub fn ask(&mut self, request: RequestOf<M>) -> Result<AnswerOf<M>, Problem> {
        self.entropy = self.entropy.wrapping_add(1);
        let context =
            Context { now_ms: self.now_ms, entropy: [self.entropy; 32], caller: self.caller.clone() };
        let mut top = Overlay::default();
        let view = View::new(&self.view, None, &mut top);
        match self.machine.decide(&view, &context, request).expect("the view in memory is readable") {
            Decision::Answer(answer) => Ok(answer),
            Decision::Refuse(problem) => Err(problem),
            Decision::Commit { records, answer } => {
                assert!(!records.is_empty(), "a commit has at least one record");
                for record in records {
                    let entry = Entry { time_ms: self.now_ms, epoch: 1, cause: None, record };
                    let bytes = entry.encode();
                    assert_eq!(
                        Entry::<M::Record>::decode(&bytes).map(|back| back.encode()),
                        Ok(bytes.clone())
                    );
                    self.fold(bytes, true);
                }
                Ok(answer)
            }
        }
    }

    /// The effects released since the last call.
    pub fn take_effects(&mut self) -> Vec<M::Effect> {
        std::mem::take(&mut self.effects).into_iter().map(|owed| owed.effect).collect()
    }

    /// Drops the view and folds the journal again; gives the new view beside the old one.
    ///
    /// # Panics
    ///
    /// If the machine faults.
    pub fn replay(&mut self) -> (MemoryStore, MemoryStore) {
        let before = std::mem::take(&mut self.view);
        for bytes in std::mem::take(&mut self.journal) {
            self.fold(bytes, false);
        }
        (self.view.clone(), before)
    }

    /// The effects this view still owes.
    ///
    /// # Panics
    ///
    /// If the machine faults.
    pub fn owed(&self) -> Vec<Owed<M::Effect>> {
        self.machine.owed(&self.view).expect("the view in memory is readable")
    }

    fn fold(&mut self, bytes: Vec<u8>, live: bool) {
        let entry = Entry::<M::Record>::decode(&bytes).expect("written by this bench");
        let at = At { index: self.journal.len() as u64, time_ms: entry.time_ms };
        let mut top = Overlay::default();
        let mut view = View::new(&self.view, None, &mut top);
        let effects =
            self.machine.apply(&mut view, at, &entry.record).expect("the view in memory is readable");
        if live {
            let owed = effects.into_iter().enumerate();
            self.effects.extend(owed.map(|(ordinal, effect)| Owed {
                index: at.index,
                ordinal: ordinal as u32,
                effect,
            }));
            self.events.extend(M::events(at, &entry.record));
        }
        self.view.absorb(&top);
        self.journal.push(bytes);
    }
}

/// What one module has written, alone: its keys without its name, and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(pub BTreeMap<String, Vec<u8>>);

impl ModuleState for Keys {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.0.insert(key.to_owned(), value);
    }

    fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }
}
