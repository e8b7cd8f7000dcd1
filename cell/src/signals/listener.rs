//! One listener: its queue, and what it did not have room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::HostId;
use protocol::signal::{Heard, Signal};
use tokio::sync::mpsc;

use super::Signals;
use super::names::Names;

/// Signals that wait for a listener.
pub(super) const QUEUE: usize = 64;

pub(super) struct Listener {
    pub(super) number: u64,
    pub(super) group: Option<String>,
    /// Where it listens; none is the host that leads.
    pub(super) host: Option<HostId>,
    names: Names,
    queue: mpsc::Sender<Arc<Signal>>,
    missed: AtomicU64,
}

impl Listener {
    pub(super) fn new(
        number: u64,
        names: Names,
        group: Option<String>,
        host: Option<HostId>,
    ) -> (Arc<Self>, mpsc::Receiver<Arc<Signal>>) {
        let (queue, heard) = mpsc::channel(QUEUE);
        (Arc::new(Self { number, group, host, names, queue, missed: AtomicU64::new(0) }), heard)
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Signals that wait for it.
    pub(super) fn waiting(&self) -> usize {
        QUEUE - self.queue.capacity()
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.capacity() > 0
    }

    /// Which of a group's listeners a key belongs to: the one with the greatest weight. When one comes or goes, only its own keys move.
    pub(super) fn weight(&self, key: &str) -> [u8; 32] {
        *blake3::Hasher::new().update(&self.number.to_le_bytes()).update(key.as_bytes()).finalize().as_bytes()
    }

    /// Tells it, if it has room; whether it will hear it.
    pub(super) fn tell(&self, signal: &Arc<Signal>) -> bool {
        let heard = self.queue.try_send(Arc::clone(signal)).is_ok();
        if !heard {
            self.misses();
        }
        heard
    }

    /// It has missed one.
    pub(super) fn misses(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A listener's stream; it listens no more when this is dropped.
pub(super) struct Listening {
    signals: Signals,
    listener: Arc<Listener>,
    queue: mpsc::Receiver<Arc<Signal>>,
    has_begun: bool,
}

impl Listening {
    pub(super) fn new(signals: Signals, listener: Arc<Listener>, queue: mpsc::Receiver<Arc<Signal>>) -> Self {
        Self { signals, listener, queue, has_begun: false }
    }

    /// The next line.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let signal = if std::mem::replace(&mut self.has_begun, true) {
            // The list holds the sender as long as this listens.
            Some(Arc::unwrap_or_clone(self.queue.recv().await?))
        } else {
            None
        };
        let heard = Heard { missed: self.listener.missed.swap(0, Ordering::Relaxed), signal };
        let mut line = serde_json::to_vec(&heard).expect("a signal is JSON");
        line.push(b'\n');
        Some(line)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.signals.forget(self.listener.number);
    }
}
