//! Callers that wait for a receipt or a reply. A waiter that goes away leaves nothing behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::MessageId;
use tokio::sync::Notify;

/// How many callers wait at once; beyond this they find out at their deadline.
const WAITERS_MAX: usize = 100_000;

type Map = Mutex<HashMap<MessageId, Vec<Arc<Bell>>>>;

#[derive(Default)]
struct Bell {
    news: Notify,
    delivered: AtomicBool,
}

/// Callers that wait for news of a message.
#[derive(Default)]
pub struct Waiters {
    map: Arc<Map>,
}

/// A caller's place; it is given up when dropped.
pub struct Waiter {
    id: MessageId,
    bell: Arc<Bell>,
    map: Arc<Map>,
}

impl Waiters {
    /// Waits from now on for news of a message: its receipt, its end, or a reply to it.
    pub fn register(&self, id: MessageId) -> Waiter {
        let bell = Arc::new(Bell::default());
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() < WAITERS_MAX {
            map.entry(id).or_default().push(Arc::clone(&bell));
        }
        Waiter { id, bell, map: Arc::clone(&self.map) }
    }

    /// The receipts of these messages are durable.
    pub fn delivered<'a>(&self, ids: impl IntoIterator<Item = &'a MessageId>) {
        self.ring(ids, true);
    }

    /// There is other news of these messages: an end, or a reply.
    pub fn wake<'a>(&self, ids: impl IntoIterator<Item = &'a MessageId>) {
        self.ring(ids, false);
    }

    fn ring<'a>(&self, ids: impl IntoIterator<Item = &'a MessageId>, delivered: bool) {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.is_empty() {
            return;
        }
        for id in ids {
            for bell in map.get(id).into_iter().flatten() {
                bell.delivered.fetch_or(delivered, Ordering::Relaxed);
                bell.news.notify_one();
            }
        }
    }
}

impl Waiter {
    /// Waits for the next news.
    pub async fn news(&self) {
        self.bell.news.notified().await;
    }

    /// Whether the receipt has come since the waiter was registered.
    pub fn delivered(&self) -> bool {
        self.bell.delivered.load(Ordering::Relaxed)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = map.get_mut(&self.id) {
            waiting.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if waiting.is_empty() {
                map.remove(&self.id);
            }
        }
    }
}
