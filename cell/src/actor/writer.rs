//! The writer thread of one journal: append, sync, wait for a replica where there is one in the path, release, then the store.
//!
//! One thread a journal, because an append blocks on the disk. It takes one batch at a time: the
//! actor fills the next one meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, mpsc};

use journal::{Journal, Reader};
use machine::{Machine, Overlay};
use protocol::action::ServiceWords;
use protocol::{Problem, ProblemKind};
use tokio::sync::oneshot;

use crate::actor::grant::Grant;
use crate::actor::lease::Lease;
use crate::feed::Feed;
use crate::store::{Keyspace, Position};

/// What a journal has that is durable, for status and metrics.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Entries.
    pub entries: AtomicU64,
    /// Bytes of those entries.
    pub bytes: AtomicU64,
    /// Batches synced since the start.
    pub batches: AtomicU64,
    reader: RwLock<Option<Reader>>,
}

impl Gauges {
    /// Shows what a journal has: one that is written here, or a copy of one that is written on another host.
    pub(crate) fn show(&self, reader: Reader) {
        self.entries.store(reader.length(), Ordering::Relaxed);
        self.bytes.store(reader.byte_length(), Ordering::Relaxed);
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// A handle for reading the journal; none before it was opened.
    pub fn reader(&self) -> Option<Reader> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Called on the writer's thread once a batch is durable, or has failed.
type Release = Box<dyn FnOnce(&Result<(), Problem>) + Send>;

struct Job {
    entries: Vec<Vec<u8>>,
    overlay: Arc<Overlay>,
    release: Release,
    done: oneshot::Sender<Result<(), Problem>>,
}

enum Order {
    Write(Job),
    Close(oneshot::Sender<()>),
}

/// The actor's handle to its journal's writer thread. Dropping it closes the journal.
pub struct Writer {
    orders: mpsc::SyncSender<Order>,
}

impl Writer {
    /// Starts the thread. Only the holder of a grant can.
    ///
    /// # Errors
    ///
    /// `journal.no_grant` when the grant is for another service, `service.no_thread` when the system
    /// gives no thread.
    pub fn start<M: Machine>(
        right: (Grant, Lease),
        journal: Journal,
        keyspace: Keyspace,
        gauges: Arc<Gauges>,
        feed: Feed,
    ) -> Result<Self, Problem> {
        let service = M::Words::SERVICE;
        if right.0.service() != service {
            return Err(Problem::new(
                ProblemKind::Denied,
                "journal.no_grant",
                format!("the grant is for {}, not for {service}", right.0.service()),
            ));
        }
        gauges.show(journal.reader());
        // One batch is under way at most, and a close: two orders never wait.
        let (orders, inbox) = mpsc::sync_channel(2);
        std::thread::Builder::new()
            .name(format!("journal-{service}"))
            .spawn(move || run::<M>(&inbox, &right, journal, keyspace, &gauges, &feed))
            .map_err(|error| Problem::new(ProblemKind::Fault, "service.no_thread", error.to_string()))?;
        Ok(Self { orders })
    }

    /// Appends a batch, calls `release` once it is durable, and then writes its overlay to the store:
    /// whoever waits for the batch waits neither for the store nor for the actor.
    pub fn write(
        &self,
        entries: Vec<Vec<u8>>,
        overlay: Arc<Overlay>,
        release: impl FnOnce(&Result<(), Problem>) + Send + 'static,
    ) -> impl Future<Output = Result<(), Problem>> + 'static {
        let (done, result) = oneshot::channel();
        let sent = self.orders.send(Order::Write(Job { entries, overlay, release: Box::new(release), done }));
        async move {
            match sent {
                Ok(()) => result.await.unwrap_or_else(|_| Err(gone())),
                Err(_) => Err(gone()),
            }
        }
    }

    /// Checkpoints and closes the journal.
    pub fn close(self) -> impl Future<Output = ()> + 'static {
        let (done, closed) = oneshot::channel();
        let sent = self.orders.send(Order::Close(done));
        async move {
            if sent.is_ok() {
                let _ = closed.await;
            }
        }
    }
}

fn gone() -> Problem {
    Problem::new(ProblemKind::Fault, "journal.fault", "the journal's writer has stopped")
}

fn run<M: Machine>(
    inbox: &mpsc::Receiver<Order>,
    (grant, lease): &(Grant, Lease),
    mut journal: Journal,
    keyspace: Keyspace,
    gauges: &Gauges,
    feed: &Feed,
) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Write(job) => {
                let appended = lease.wait_to_write(grant).and_then(|()| append(&mut journal, &job.entries));
                if appended.is_ok() {
                    // Whoever copies the journal is to have it before anybody is answered.
                    measure(gauges, &journal);
                    feed.grew();
                }
                let appended = appended.and_then(|()| lease.wait_for_replica(grant, journal.length()));
                if appended.is_err() {
                    // The journal is closed before anybody learns of a fault, so that it can be opened anew.
                    drop(journal);
                    (job.release)(&appended);
                    let _ = job.done.send(appended);
                    return;
                }
                gauges.batches.fetch_add(1, Ordering::Relaxed);
                (job.release)(&appended);
                feed.grew();
                // Nobody waits for this: the actor reads through the overlay until it is told.
                let stored = store(&keyspace, &job.overlay, &position(&journal, M::LAYOUT));
                if stored.is_err() {
                    drop(journal);
                    let _ = job.done.send(stored);
                    return;
                }
                let _ = job.done.send(stored);
            }
            Order::Close(done) => {
                if let Err(error) = journal.close() {
                    tracing::warn!(%error, "the journal was closed without a checkpoint; its entries are safe");
                }
                // Whoever ends the process after this must not find a view that is being closed.
                drop(keyspace);
                let _ = done.send(());
                return;
            }
        }
    }
}

fn append(journal: &mut Journal, entries: &[Vec<u8>]) -> Result<(), Problem> {
    journal.append(entries).map(|_| ()).map_err(|error| {
        Problem::new(
            ProblemKind::Fault,
            "journal.fault",
            format!("the journal could not be written: {error}"),
        )
        .hint("check the disk (space, health); the service is restarted a bounded number of times")
    })
}

fn store(keyspace: &Keyspace, overlay: &Overlay, position: &Position) -> Result<(), Problem> {
    keyspace.write(overlay, position).map_err(|fault| {
        Problem::new(ProblemKind::Fault, "store.fault", fault.to_string())
            .hint("check the disk; cell rebuild makes the views anew from the journals")
    })
}

/// The position of a journal's end.
fn position(journal: &Journal, layout: u32) -> Position {
    Position {
        key: *journal.key().as_bytes(),
        fork: journal.fork(),
        length: journal.length(),
        tree_hash: journal.tree_hash(),
        layout,
    }
}

fn measure(gauges: &Gauges, journal: &Journal) {
    gauges.entries.store(journal.length(), Ordering::Relaxed);
    gauges.bytes.store(journal.byte_length(), Ordering::Relaxed);
}
