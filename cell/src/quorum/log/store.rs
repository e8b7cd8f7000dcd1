//! The log as openraft asks for it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures_util::Stream;
use futures_util::stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::record::Record;
use super::state::{Place, Slot};
use super::writer::Work;
use super::{Log, closed};
use crate::quorum::types::{Entry, LogId, Types, Vote};
use crate::quorum::wire::{self, ENTRIES_BYTES_MAX};

/// Entries read at once where they are handed on one by one.
const STREAM_STEP: u64 = 256;
/// How often a range is read that is being purged meanwhile.
const READ_TRIES_MAX: u32 = 8;

impl Log {
    /// Entries from `from` up to `to` (excluded), as far as there are any; no more than fit into so many bytes, but one.
    async fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let this = self.clone();
        let read = move || {
            for _ in 0..READ_TRIES_MAX {
                if let Some(entries) = this.read_here(from, to, bytes_max)? {
                    return Ok(entries);
                }
            }
            Err(io::Error::other("what is read is purged all the time"))
        };
        spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// `None` if what was to be read has gone meanwhile.
    fn read_here(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Option<Vec<Entry>>> {
        let slots: Vec<Place> = match from < to {
            true => self.state().entries.range(from..to).map(|(_, slot)| slot.at.clone()).collect(),
            false => Vec::new(),
        };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for place in slots {
            let entry = match place {
                Place::Waiting(entry) => entry,
                Place::Written(index) => match self.0.reader.get(index) {
                    Ok(record) => entry_of(&record)?,
                    Err(journal::Error::Absent { .. }) => return Ok(None),
                    Err(error) => return Err(io::Error::other(error)),
                },
            };
            bytes += payload_bytes(&entry);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(Some(entries))
    }
}

fn entry_of(record: &[u8]) -> io::Result<Entry> {
    match wire::decode(record).map_err(io::Error::other)? {
        Record::Entry(entry) => Ok(entry),
        _ => Err(io::Error::other("the log's record is of another kind")),
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(payload) => payload.0.len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 0,
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        self.read(from, to, ENTRIES_BYTES_MAX).await
    }

    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let steps = stream::try_unfold((self.clone(), from), move |(log, from)| async move {
            let until = to.min(from.saturating_add(STREAM_STEP));
            let entries = log.read(from, until, ENTRIES_BYTES_MAX).await?;
            let next = entries.last().map(|last| last.log_id.index + 1);
            Ok::<_, io::Error>(next.map(|next| (stream::iter(entries.into_iter().map(Ok)), (log, next))))
        });
        Box::pin(futures_util::TryStreamExt::try_flatten(steps))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write(Record::Vote(*vote)).await
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        // They can be read from now on; they count when they are synced.
        {
            let mut state = self.state();
            for entry in &entries {
                let slot = Slot { id: entry.log_id, at: Place::Waiting(entry.clone()) };
                state.entries.insert(entry.log_id.index, slot);
            }
        }
        self.0.writer.give(Work::Append(entries, flushed)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.state().cut(last);
        self.write(Record::Cut(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let (told, done) = oneshot::channel();
        self.0.writer.give(Work::Purge(upto, told)).await?;
        done.await.map_err(|_| closed())?
    }
}
