//! From committed entries to the caller's state machine.
//!
//! - Entries of the group itself (a leader's first one, changes of the members) are not handed over. So the position that openraft has applied may
//!   be past the state machine's own. After a restart such entries are applied again, which does nothing.
//! - Members are recorded in the log *before* anything after them is applied: who is ahead of what it applied is told the rest by the log, who
//!   was behind would never hear of a change.
//! - A snapshot is asked of the state machine when a host needs one. Compaction needs none: what is applied is durable.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use protocol::Problem;
use tokio::task::spawn_blocking;

use super::log::Log;
use super::problems;
use super::types::{LogId, Members, Snapshot, SnapshotBytes, SnapshotMeta, Types, log_id};

/// Entries handed over at once.
const BATCH_MAX: usize = 256;
/// Bytes of entries handed over at once, beyond which it is one entry.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The entry's index. Indexes rise; some are of entries that the group has for itself.
    pub index: u64,
}

impl Position {
    const fn of(id: &LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

/// An entry that a majority has synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place.
    pub at: Position,
    /// What was proposed.
    pub payload: Arc<[u8]>,
}

/// What committed entries are applied to. It is called from one thread at a time, which may block.
///
/// An error stops this host's part in the group until it is started again.
pub trait StateMachine: Send + Sync + 'static {
    /// The place of the last entry that was applied, or of the snapshot that was restored, whichever is later; as it is on disk.
    ///
    /// # Errors
    ///
    /// Any: the start fails with it.
    fn applied(&self) -> Result<Option<Position>, Problem>;

    /// Applies entries, in order. All of it is durable when it returns, with the place of the last one. A host that is stopped in between is
    /// handed all that came after what [`StateMachine::applied`] tells.
    ///
    /// # Errors
    ///
    /// Any: a fault.
    fn apply(&self, entries: &[Committed]) -> Result<(), Problem>;

    /// All of the state, for a host that lacks entries which are no longer kept.
    ///
    /// # Errors
    ///
    /// Any: that host stays behind, and it is tried again.
    fn snapshot(&self) -> Result<Vec<u8>, Problem>;

    /// Puts a snapshot in the place of all state. It is durable when it returns, with `at` as what was applied: all of it, or nothing.
    ///
    /// # Errors
    ///
    /// Any: a fault.
    fn restore(&self, at: Position, snapshot: &[u8]) -> Result<(), Problem>;
}

/// What openraft applies to.
pub(super) struct Machine {
    inner: Arc<dyn StateMachine>,
    log: Log,
    applied: Option<LogId>,
    members: Members,
    snapshot_bytes_max: usize,
    /// Whether openraft is past its start, which asks for a snapshot that it does not need.
    ready: Arc<AtomicBool>,
}

impl Machine {
    pub(super) async fn open(
        inner: Arc<dyn StateMachine>,
        log: Log,
        snapshot_bytes_max: usize,
        ready: Arc<AtomicBool>,
    ) -> Result<Self, Problem> {
        let applied = call(&inner, |inner| inner.applied()).await?;
        let applied = applied.map(|at| log_id(at.term, at.index));
        log.check(applied)?;
        log.handed(applied);
        // What is no longer in the log was applied.
        let applied = applied.max(log.purged());
        Ok(Self { inner, members: log.members(), log, applied, snapshot_bytes_max, ready })
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.members.clone() }
    }

    /// Entries up to a bound, taken out of the stream; `None` at its end.
    async fn next_batch<S>(&mut self, entries: &mut S) -> io::Result<Option<Batch>>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin,
    {
        let mut batch = Batch::default();
        while batch.entries.len() < BATCH_MAX && batch.bytes < BATCH_BYTES_MAX {
            let Some((entry, responder)) = entries.try_next().await? else { break };
            batch.last = Some(entry.log_id);
            batch.responders.extend(responder);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(payload) => {
                    batch.bytes += payload.0.len();
                    batch.last_handed = Some(entry.log_id);
                    batch.entries.push(Committed { at: Position::of(&entry.log_id), payload: payload.0 });
                }
                EntryPayload::Membership(members) => {
                    self.members = Members::new(Some(entry.log_id), members);
                    self.log.record_members(self.members.clone()).await?;
                }
            }
        }
        Ok(batch.last.is_some().then_some(batch))
    }
}

#[derive(Default)]
struct Batch {
    entries: Vec<Committed>,
    bytes: usize,
    last: Option<LogId>,
    last_handed: Option<LogId>,
    responders: Vec<openraft::storage::ApplyResponder<Types>>,
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotBytes;
    type SnapshotBuilder = Mark;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Members)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(batch) = self.next_batch(&mut entries).await? {
            if !batch.entries.is_empty() {
                let committed = batch.entries;
                call(&self.inner, move |inner| inner.apply(&committed)).await.map_err(io::Error::other)?;
                self.log.handed(batch.last_handed);
            }
            self.applied = batch.last;
            batch.responders.into_iter().for_each(|responder| responder.send(()));
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Mark {
        Mark(self.meta())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotBytes) -> io::Result<()> {
        let (Ok(snapshot), Some(last)) = (snapshot, meta.last_log_id) else {
            return Err(io::Error::other("a snapshot of nothing"));
        };
        self.log.record_restore(last, meta.last_membership.clone()).await?;
        let at = Position::of(&last);
        call(&self.inner, move |inner| inner.restore(at, &snapshot)).await.map_err(io::Error::other)?;
        self.log.handed(Some(last));
        self.applied = Some(last);
        self.members = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if self.applied.is_none() || !self.ready.load(Ordering::Acquire) {
            return Ok(None);
        }
        let bytes_max = self.snapshot_bytes_max;
        let snapshot = call(&self.inner, |inner| inner.snapshot()).await.and_then(|snapshot| {
            match snapshot.len() <= bytes_max {
                true => Ok(snapshot),
                false => Err(problems::too_large(snapshot.len(), bytes_max)),
            }
        });
        Ok(Some(Snapshot { meta: self.meta(), snapshot }))
    }
}

/// Where the log may be compacted to. It is all that openraft asks of a snapshot that is not sent.
pub(super) struct Mark(SnapshotMeta);

impl RaftSnapshotBuilder<Types> for Mark {
    type SnapshotData = SnapshotBytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: Ok(Vec::new()) })
    }
}

/// Calls what may block, off the threads that drive futures.
async fn call<T: Send + 'static>(
    inner: &Arc<dyn StateMachine>,
    ask: impl FnOnce(&dyn StateMachine) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let inner = Arc::clone(inner);
    spawn_blocking(move || ask(&*inner)).await.unwrap_or_else(|error| Err(problems::log(&error)))
}
