//! Clients that write to a cell, one thing after the other, and remember what was acknowledged: none of it may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::rpc::Client;
use crate::until;

/// How long a writer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long whoever counts what is there waits for a page.
const PAGE_MAX: Duration = Duration::from_secs(15);
/// The pause of a writer that was refused: whoever finds nobody does not ask a thousand times a second.
const PAUSE: Duration = Duration::from_millis(5);

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Contacts, which are Identity's.
    Contacts,
    /// Tokens, which are Nucleus's.
    Tokens,
}

impl What {
    /// The name of one, and the request that makes it.
    fn next(self, number: u64) -> (&'static str, String, Value) {
        match self {
            Self::Contacts => {
                let (name, asked) = contact(number);
                ("identity.add_contact", name, asked)
            }
            Self::Tokens => {
                let name = format!("t{number}");
                ("nucleus.create_token", name.clone(), json!({ "name": name, "role": "read" }))
            }
        }
    }

    /// The names of all that a cell has.
    ///
    /// # Panics
    ///
    /// If it does not tell.
    pub fn all(self, client: &Client) -> BTreeSet<String> {
        let action = match self {
            Self::Contacts => "identity.contacts",
            Self::Tokens => "nucleus.tokens",
        };
        let mut items = Vec::new();
        // Between two hosts that lead it may be a moment that nobody answers.
        until("it is listed", || match client.list(action, &json!({ "limit": 1000 }), PAGE_MAX) {
            Ok(all) => {
                items = all;
                true
            }
            Err(_) => false,
        });
        items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
    }
}

/// A cell that nobody has, and the name that it gets as a contact.
pub fn contact(number: u64) -> (String, Value) {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let name = format!("n{number}");
    let asked = json!({ "cell": protocol::CellId::from_bytes(bytes), "name": name });
    (name, asked)
}

/// What writers did.
#[derive(Default)]
pub struct Writers {
    acknowledged: Mutex<BTreeMap<What, BTreeSet<String>>>,
    /// How often each code was told.
    refused: Mutex<BTreeMap<String, u64>>,
    begun: AtomicU64,
    is_over: AtomicBool,
}

/// Ends the writers when dropped, however the test ends.
pub struct Over<'a>(&'a Writers);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!("refused meanwhile: {:?}", self.0.refused);
        }
    }
}

impl Writers {
    /// They end when this is dropped.
    pub fn until_dropped(&self) -> Over<'_> {
        Over(self)
    }

    fn acknowledged(&self) -> MutexGuard<'_, BTreeMap<What, BTreeSet<String>>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until it is over.
    pub fn write(&self, client: &Client, what: What) {
        while !self.is_over.load(Ordering::Relaxed) {
            let (action, name, asked) = what.next(self.begun.fetch_add(1, Ordering::Relaxed));
            match client.call(action, &asked, PATIENCE) {
                Ok(_) => drop(self.acknowledged().entry(what).or_default().insert(name)),
                Err(code) => {
                    *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() +=
                        1;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// How many were acknowledged.
    pub fn count(&self, what: What) -> usize {
        self.acknowledged().get(&what).map_or(0, BTreeSet::len)
    }

    /// Looks whether everything that was acknowledged is there.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check(&self, client: &Client) {
        for (what, acknowledged) in self.acknowledged().iter() {
            let there = what.all(client);
            let lost: Vec<_> = acknowledged.difference(&there).collect();
            let (few, many) = (lost.len(), acknowledged.len());
            assert!(lost.is_empty(), "{what:?}: {few} of {many} acknowledged are lost: {lost:?}");
        }
    }
}
