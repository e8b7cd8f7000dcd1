//! The feed: events of all services, read from their journals.
//!
//! Live and resumed listeners use the same way: they hold a [`Cursor`], wait until some journal has
//! grown, and read what follows. So a listener that was away misses nothing, a slow one costs no
//! memory, and an event is seen only after its record is durable.
//!
//! `watch` is the feed as a stream, which other hosts of the cell read as well.

mod watch;

use std::sync::{Arc, RwLock};

use protocol::event::Cursor;
use protocol::{Event, Problem, Service};
use tokio::sync::watch::{Receiver, Sender};

pub use watch::watch;

/// One service's durable records, as events.
pub trait Source: Send + Sync + 'static {
    /// Durable entries.
    fn length(&self) -> u64;
    /// The events of the entries from `from`, at most `limit` entries, with each entry's index.
    /// Blocks on file reads.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    fn events(&self, from: u64, limit: u64) -> Result<Vec<Event>, Problem>;
}

/// The feed of a cell. Clones are handles to the same one.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    sources: RwLock<[Option<Arc<dyn Source>>; 6]>,
    grown: Sender<u64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Inner { sources: RwLock::default(), grown: Sender::new(0) }))
    }
}

/// What a read gave.
pub struct Batch {
    /// Events, each with the cursor that stands right behind it.
    pub events: Vec<(Cursor, Event)>,
    /// Where to read on. It may be ahead of the last event: not every record publishes one.
    pub next: Cursor,
    /// Whether there is more to read at once.
    pub more: bool,
}

impl Feed {
    /// Puts a service's journal behind the feed.
    pub fn attach(&self, service: Service, source: Arc<dyn Source>) {
        self.0.sources.write().unwrap_or_else(std::sync::PoisonError::into_inner)[service.index()] =
            Some(source);
        self.grew();
    }

    /// Tells listeners that some journal has grown.
    pub fn grew(&self) {
        self.0.grown.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever some journal has grown.
    pub fn changes(&self) -> Receiver<u64> {
        self.0.grown.subscribe()
    }

    /// How many entries of a service's journal are durable here.
    pub fn length(&self, service: Service) -> u64 {
        self.head().0[service.index()]
    }

    /// The cursor behind everything that is durable now.
    pub fn head(&self) -> Cursor {
        let sources = self.0.sources.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Cursor(std::array::from_fn(|index| sources[index].as_ref().map_or(0, |source| source.length())))
    }

    /// Reads what follows a cursor: at most `limit` entries of each service. Blocks on file reads:
    /// call it from a blocking thread. Entries of one service come in their order; between services
    /// they are sorted by time.
    ///
    /// # Errors
    ///
    /// When a journal cannot be read.
    pub fn read(&self, cursor: Cursor, limit: u64) -> Result<Batch, Problem> {
        let sources = self.0.sources.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut next = cursor;
        let mut more = false;
        let mut events = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let Some(source) = source else { continue };
            let from = cursor.0[index];
            let length = source.length();
            if from < length {
                let to = length.min(from.saturating_add(limit));
                events.extend(source.events(from, to - from)?);
                next.0[index] = to;
                more |= to < length;
            }
        }
        events.sort_by_key(|event| (event.time_ms, event.service, event.index));
        let mut place = cursor;
        let events = events
            .into_iter()
            .map(|event| {
                place.0[event.service.index()] = event.index + 1;
                (place, event)
            })
            .collect();
        Ok(Batch { events, next, more })
    }
}
