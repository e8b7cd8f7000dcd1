//! Signals: something is told to whoever listens now, on whichever host, and is kept nowhere.
//!
//! `emit` reaches one listener of each group, `broadcast` reaches all. What has to arrive is a message, and what happened to a journal is an
//! event; a signal is for work that is handed out and for news that are stale in a second.
//!
//! Listeners are streams (`nucleus.listen`), and streams are answered on the host that leads: so all listeners of a cell are in this one list,
//! whichever host they asked, and whoever emits chooses among all of them.
//!
//! Invariants: nobody waits for a listener; what finds no room in a listener's queue goes to the next one of its group, and where there is none
//! the listener is told how many it missed. A listener hears the signals of one teller in their order.

mod listener;
mod names;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use protocol::signal::{Balance, ListenRequest, Signal, Told};
use protocol::{HostId, Problem, ProblemKind};

use crate::bus::Items;
use listener::{Listener, Listening};
use names::Names;

/// The largest body, as JSON.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Who listens. Clones are handles to the same list.
#[derive(Clone, Default)]
pub struct Signals(Arc<Mutex<List>>);

/// How the listener of a group is chosen where no key says it.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// By what.
    pub balance: Balance,
    /// The host that the teller has asked; none is this one.
    pub from: Option<HostId>,
    /// The last round trips to other hosts, in microseconds.
    pub rtt_us: BTreeMap<HostId, u64>,
}

impl From<Balance> for Choice {
    fn from(balance: Balance) -> Self {
        Self { balance, ..Self::default() }
    }
}

impl Choice {
    /// Sorts listeners that are in the order of their turns: the one that is to hear it first.
    fn sort(&self, members: &mut [&Listener]) {
        match self.balance {
            Balance::RoundRobin => {}
            Balance::LeastLoad => members.sort_by_key(|member| member.waiting()),
            Balance::LeastLatency => {
                members.sort_by_key(|member| (self.rtt_us(member.host), member.waiting()))
            }
            Balance::PreferLocal => {
                members.sort_by_key(|member| (member.host != self.from, member.waiting()))
            }
        }
    }

    fn rtt_us(&self, host: Option<HostId>) -> u64 {
        host.map_or(0, |host| self.rtt_us.get(&host).copied().unwrap_or(u64::MAX))
    }
}

#[derive(Default)]
struct List {
    listeners: Vec<Arc<Listener>>,
    last_number: u64,
    /// Whose turn it is in each group that has listeners.
    turns: HashMap<String, usize>,
}

impl Signals {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens from now on: on another host, if one is named.
    ///
    /// # Errors
    ///
    /// `signal.bad_name`, `signal.bad_group`.
    pub fn listen(&self, request: ListenRequest, host: Option<HostId>) -> Result<Items, Problem> {
        let names = Names::parse(request.names.as_deref())?;
        let group = request.group.map(|group| names::group(&group).map(|()| group)).transpose()?;
        let mut list = self.list();
        list.last_number += 1;
        let (listener, queue) = Listener::new(list.last_number, names, group, host);
        list.listeners.push(Arc::clone(&listener));
        drop(list);
        let listening = Listening::new(self.clone(), listener, queue);
        let next = async |mut this: Listening| this.next().await.map(|line| (Ok(line), this));
        Ok(futures_util::stream::unfold(listening, next).boxed())
    }

    /// Tells one listener of each group.
    ///
    /// # Errors
    ///
    /// `signal.bad_name`, `signal.bad_key`, `signal.too_large`.
    pub fn emit(&self, signal: Signal, choice: impl Into<Choice>) -> Result<Told, Problem> {
        check(&signal)?;
        let choice = choice.into();
        let (signal, mut told) = (Arc::new(signal), Told::default());
        let mut list = self.list();
        let List { listeners, turns, .. } = &mut *list;
        let mut groups: BTreeMap<&str, Vec<&Listener>> = BTreeMap::new();
        for listener in listeners.iter().filter(|listener| listener.wants(&signal.name)) {
            match &listener.group {
                Some(group) => groups.entry(group).or_default().push(listener),
                None => count(&mut told, listener.tell(&signal)),
            }
        }
        for (group, mut members) in groups {
            let turn = turns.entry(group.to_owned()).or_default();
            let first = *turn % members.len();
            *turn = turn.wrapping_add(1);
            members.rotate_left(first);
            match &signal.key {
                Some(key) => members.sort_by_key(|member| Reverse(member.weight(key))),
                None => choice.sort(&mut members),
            }
            let heard = members.iter().any(|member| member.has_room() && member.tell(&signal));
            if !heard {
                members[0].misses();
            }
            count(&mut told, heard);
        }
        Ok(told)
    }

    /// Tells every listener.
    ///
    /// # Errors
    ///
    /// `signal.bad_name`, `signal.too_large`.
    pub fn broadcast(&self, signal: Signal) -> Result<Told, Problem> {
        check(&signal)?;
        let (signal, mut told) = (Arc::new(signal), Told::default());
        for listener in self.list().listeners.iter().filter(|listener| listener.wants(&signal.name)) {
            count(&mut told, listener.tell(&signal));
        }
        Ok(told)
    }

    /// A listener has gone.
    fn forget(&self, number: u64) {
        let mut list = self.list();
        list.listeners.retain(|listener| listener.number != number);
        let List { listeners, turns, .. } = &mut *list;
        turns.retain(|group, _| listeners.iter().any(|listener| listener.group.as_ref() == Some(group)));
    }
}

fn count(told: &mut Told, heard: bool) {
    let counter = if heard { &mut told.listeners } else { &mut told.missed };
    *counter += 1;
}

fn check(signal: &Signal) -> Result<(), Problem> {
    names::name(&signal.name)?;
    if let Some(key) = signal.key.as_ref().filter(|key| key.len() > KEY_BYTES_MAX) {
        let cause = format!("a key of {} bytes", key.len());
        return Err(Problem::new(ProblemKind::Invalid, "signal.bad_key", cause)
            .hint(format!("a key has {KEY_BYTES_MAX} bytes at most")));
    }
    let bytes = signal.body.to_string().len();
    if bytes > BODY_BYTES_MAX {
        let cause = format!("the body has {bytes} bytes, {BODY_BYTES_MAX} at most are told");
        return Err(Problem::new(ProblemKind::TooLarge, "signal.too_large", cause)
            .hint("keep the data elsewhere (cell data add), and tell its hash"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
