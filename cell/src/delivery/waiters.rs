//! Callers that wait for a receipt or a reply. A waiter that goes away leaves nothing behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::MessageId;
use tokio::sync::Notify;

/// How many callers wait at once; beyond this they find out at their deadline.
const WAITERS_MAX: usize = 100_000;

type Map = Mutex<HashMap<MessageId, Vec<Arc<Notify>>>>;

/// Callers that wait for news of a message.
#[derive(Default)]
pub struct Waiters {
    map: Arc<Map>,
}

/// A caller's place; it is given up when dropped.
pub struct Waiter {
    id: MessageId,
    notify: Arc<Notify>,
    map: Arc<Map>,
}

impl Waiters {
    /// Waits from now on for news of a message: its receipt, its end, or a reply to it.
    pub fn register(&self, id: MessageId) -> Waiter {
        let notify = Arc::new(Notify::new());
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() < WAITERS_MAX {
            map.entry(id).or_default().push(Arc::clone(&notify));
        }
        Waiter { id, notify, map: Arc::clone(&self.map) }
    }

    /// There is news of these messages.
    pub fn wake<'a>(&self, ids: impl IntoIterator<Item = &'a MessageId>) {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.is_empty() {
            return;
        }
        for id in ids {
            for notify in map.get(id).into_iter().flatten() {
                notify.notify_one();
            }
        }
    }
}

impl Waiter {
    /// Waits for the next news.
    pub async fn news(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = map.get_mut(&self.id) {
            waiting.retain(|notify| !Arc::ptr_eq(notify, &self.notify));
            if waiting.is_empty() {
                map.remove(&self.id);
            }
        }
    }
}
