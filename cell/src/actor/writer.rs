//! The writer thread of one journal: append, sync, then the store.
//!
//! One thread a journal, because an append blocks on the disk. It takes one batch at a time: the
//! actor fills the next one meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use journal::Journal;
use machine::Overlay;
use protocol::{Problem, ProblemKind, Service};
use tokio::sync::oneshot;

use crate::actor::grant::Grant;
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
}

struct Job {
    entries: Vec<Vec<u8>>,
    overlay: Arc<Overlay>,
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
    pub fn start(
        grant: &Grant,
        service: Service,
        journal: Journal,
        keyspace: Keyspace,
        gauges: Arc<Gauges>,
        feed: Feed,
    ) -> Result<Self, Problem> {
        if grant.service() != service {
            return Err(Problem::new(
                ProblemKind::Denied,
                "journal.no_grant",
                format!("the grant is for {}, not for {service}", grant.service()),
            ));
        }
        measure(&gauges, &journal);
        // One batch is under way at most, and a close: two orders never wait.
        let (orders, inbox) = mpsc::sync_channel(2);
        std::thread::Builder::new()
            .name(format!("journal-{service}"))
            .spawn(move || run(&inbox, journal, &keyspace, &gauges, &feed))
            .map_err(|error| Problem::new(ProblemKind::Fault, "service.no_thread", error.to_string()))?;
        Ok(Self { orders })
    }

    /// Appends a batch and, once it is durable, writes its overlay to the store.
    pub fn write(
        &self,
        entries: Vec<Vec<u8>>,
        overlay: Arc<Overlay>,
    ) -> impl Future<Output = Result<(), Problem>> + 'static {
        let (done, result) = oneshot::channel();
        let sent = self.orders.send(Order::Write(Job { entries, overlay, done }));
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

fn run(
    inbox: &mpsc::Receiver<Order>,
    mut journal: Journal,
    keyspace: &Keyspace,
    gauges: &Gauges,
    feed: &Feed,
) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Write(job) => {
                let result = write(&mut journal, keyspace, &job);
                let failed = result.is_err();
                if !failed {
                    measure(gauges, &journal);
                    gauges.batches.fetch_add(1, Ordering::Relaxed);
                    feed.grew();
                }
                // The journal is closed before anybody learns of a fault, so that it can be opened anew.
                if failed {
                    drop(journal);
                    let _ = job.done.send(result);
                    return;
                }
                let _ = job.done.send(result);
            }
            Order::Close(done) => {
                if let Err(error) = journal.close() {
                    tracing::warn!(%error, "the journal was closed without a checkpoint; its entries are safe");
                }
                let _ = done.send(());
                return;
            }
        }
    }
}

/// Journal first, and synced; only then the store.
fn write(journal: &mut Journal, keyspace: &Keyspace, job: &Job) -> Result<(), Problem> {
    journal.append(&job.entries).map_err(|error| {
        Problem::new(
            ProblemKind::Fault,
            "journal.fault",
            format!("the journal could not be written: {error}"),
        )
        .hint("check the disk (space, health); the service is restarted a bounded number of times")
    })?;
    keyspace.write(&job.overlay, &position(journal)).map_err(|fault| {
        Problem::new(ProblemKind::Fault, "store.fault", fault.to_string())
            .hint("check the disk; cell rebuild makes the views anew from the journals")
    })
}

/// The position of a journal's end.
pub(super) fn position(journal: &Journal) -> Position {
    Position {
        key: *journal.key().as_bytes(),
        fork: journal.fork(),
        length: journal.length(),
        tree_hash: journal.tree_hash(),
    }
}

fn measure(gauges: &Gauges, journal: &Journal) {
    gauges.entries.store(journal.length(), Ordering::Relaxed);
    gauges.bytes.store(journal.byte_length(), Ordering::Relaxed);
}
