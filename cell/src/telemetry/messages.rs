//! Which trace a message belongs to, while it is under way. In memory alone, and bounded: a trace that is lost costs nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::MessageId;

use super::TraceParent;

/// Messages that are remembered; one more and the oldest is forgotten.
const MESSAGES_MAX: usize = 1_024;
/// How long a message is remembered: a receiver may be away for longer.
const AGE_MAX: Duration = Duration::from_secs(600);

#[derive(Default)]
struct Table {
    traces: HashMap<MessageId, (TraceParent, Instant)>,
    /// In the order in which they came; some may be forgotten already.
    order: VecDeque<MessageId>,
}

/// The traces of messages. Asking costs one load while there are none.
#[derive(Default)]
pub struct Messages {
    count: AtomicUsize,
    table: Mutex<Table>,
}

impl Messages {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the trace of a message, if that is recorded.
    pub fn remember(&self, id: MessageId, trace: Option<TraceParent>) {
        let Some(trace) = trace.filter(|trace| trace.sampled) else { return };
        let mut table = self.table();
        while table.order.len() >= MESSAGES_MAX {
            if let Some(oldest) = table.order.pop_front() {
                table.traces.remove(&oldest);
            }
        }
        if table.traces.insert(id, (trace, Instant::now())).is_none() {
            table.order.push_back(id);
        }
        self.count.store(table.traces.len(), Ordering::Release);
    }

    /// The trace of a message.
    pub fn of(&self, id: &MessageId) -> Option<TraceParent> {
        if self.is_empty() {
            return None;
        }
        let table = self.table();
        table.traces.get(id).filter(|(_, since)| since.elapsed() < AGE_MAX).map(|(trace, _)| *trace)
    }

    /// Forgets a message; the trace that it had.
    pub fn forget(&self, id: &MessageId) -> Option<TraceParent> {
        if self.is_empty() {
            return None;
        }
        let mut table = self.table();
        let forgotten = table.traces.remove(id);
        if table.traces.is_empty() {
            table.order.clear();
        }
        self.count.store(table.traces.len(), Ordering::Release);
        forgotten.filter(|(_, since)| since.elapsed() < AGE_MAX).map(|(trace, _)| trace)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MessageId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        MessageId::from_bytes(bytes)
    }

    #[test]
    fn a_message_is_remembered_until_it_is_forgotten() {
        let messages = Messages::default();
        let trace = TraceParent::begin();
        assert_eq!(messages.of(&id(1)), None);
        messages.remember(id(1), Some(trace));
        messages.remember(id(2), None);
        messages.remember(id(3), Some(TraceParent { sampled: false, ..trace }));
        assert_eq!(
            (messages.of(&id(1)), messages.of(&id(2)), messages.of(&id(3))),
            (Some(trace), None, None)
        );
        assert_eq!(messages.forget(&id(1)), Some(trace));
        assert_eq!((messages.forget(&id(1)), messages.is_empty()), (None, true));
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let messages = Messages::default();
        let trace = TraceParent::begin();
        for number in 0..10 * MESSAGES_MAX as u64 {
            messages.remember(id(number), Some(trace));
            if number % 3 == 0 {
                messages.forget(&id(number));
            }
        }
        let table = messages.table();
        assert!(table.traces.len() <= MESSAGES_MAX && table.order.len() <= MESSAGES_MAX);
        drop(table);
        assert_eq!(messages.of(&id(10 * MESSAGES_MAX as u64 - 2)), Some(trace));
        assert_eq!(messages.of(&id(1)), None);
    }
}
