//! What the records say: the votes and entries that count.

use std::collections::BTreeMap;
use std::fmt::Display;

use journal::Reader;
use protocol::Problem;

use super::record::Record;
use crate::quorum::types::{Entry, LogId, Members, Vote};
use crate::quorum::wire;

/// What counts now.
#[derive(Default)]
pub(super) struct State {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    /// Entries after `purged`, without a gap.
    pub(super) entries: BTreeMap<u64, Slot>,
    /// The members as of the last change that was applied.
    pub(super) members: Members,
    /// The last entry of the latest snapshot that may have been restored.
    pub(super) restored: Option<LogId>,
    /// The last entry that the state machine has on disk, as far as is known here.
    pub(super) handed: Option<LogId>,
    /// The first journal entry that is not cleared.
    pub(super) first_place: u64,
}

/// An entry of the log.
pub(super) struct Slot {
    pub(super) id: LogId,
    pub(super) at: Place,
}

/// Where an entry is.
#[derive(Clone)]
pub(super) enum Place {
    /// In memory, until it is written.
    Waiting(Entry),
    /// In the journal, under this index.
    Written(u64),
}

impl State {
    /// The last entry, or the last one that is no longer kept.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, slot)| slot.id).or(self.purged)
    }

    /// Takes in a record that is in the journal under an index.
    pub(super) fn take(&mut self, record: Record, index: u64) {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entry(entry) => {
                self.entries.insert(entry.log_id.index, Slot { id: entry.log_id, at: Place::Written(index) });
            }
            Record::Cut(after) => self.cut(after),
            Record::Members(members) => self.members = members,
            Record::Restore { at, members } => {
                self.restored = Some(at);
                self.members = members;
            }
            Record::Purge { upto, vote, members, restored, handed } => {
                self.purge(upto);
                self.vote = vote;
                self.members = members;
                self.restored = restored;
                self.handed = handed;
            }
        }
    }

    pub(super) fn cut(&mut self, after: Option<LogId>) {
        let first = after.map_or(0, |after| after.index + 1);
        drop(self.entries.split_off(&first));
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        self.entries = self.entries.split_off(&(upto.index + 1));
        self.purged = self.purged.max(Some(upto));
    }

    /// The record that says, of all that came before the entries which are kept, what is still needed.
    pub(super) fn purge_record(&self, upto: LogId) -> Record {
        let (members, restored, handed) = (self.members.clone(), self.restored, self.handed);
        Record::Purge { upto, vote: self.vote, members, restored, handed }
    }

    /// The first journal entry that is still needed, of a journal of so many.
    pub(super) fn first_needed(&self, length: u64) -> u64 {
        let written = |slot: &Slot| match slot.at {
            Place::Written(index) => Some(index),
            Place::Waiting(_) => None,
        };
        self.entries.values().find_map(written).unwrap_or(length)
    }
}

/// Reads all records that are kept.
pub(super) fn replay(reader: &Reader) -> Result<State, Problem> {
    let first_place = first_kept(reader)?;
    let mut state = State { first_place, ..State::default() };
    for (index, bytes) in (first_place..).zip(reader.range(first_place, reader.length())) {
        state.take(wire::decode(&bytes.map_err(|error| broken(&error))?)?, index);
    }
    let indexes = state.entries.keys().copied();
    let expected = state.entries.keys().next().copied().unwrap_or(0)..;
    let follows = |first: u64| state.purged.is_none_or(|purged| first == purged.index + 1);
    match indexes.zip(expected).all(|(index, expected)| index == expected)
        && state.entries.keys().next().is_none_or(|first| follows(*first))
    {
        true => Ok(state),
        false => Err(broken(&"entries are missing")),
    }
}

/// The first journal entry that was not cleared. Clearing goes from the front, so what is kept begins somewhere and has no gap.
fn first_kept(reader: &Reader) -> Result<u64, Problem> {
    let (mut cleared, mut kept) = (0, reader.length());
    while cleared < kept {
        let middle = cleared + (kept - cleared) / 2;
        match reader.get(middle) {
            Ok(_) => kept = middle,
            Err(journal::Error::Absent { .. }) => cleared = middle + 1,
            Err(error) => return Err(broken(&error)),
        }
    }
    Ok(kept)
}

fn broken(why: &dyn Display) -> Problem {
    crate::quorum::problems::log(why)
}
