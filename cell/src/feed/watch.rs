//! Events as a stream: from a cursor on, and then as they become durable.

use std::collections::VecDeque;

use futures_util::StreamExt;
use protocol::event::{Cursor, NAMES};
use protocol::nucleus::{WatchRequest, Watched};
use protocol::{Event, Problem, ProblemKind};
use tokio::sync::watch::Receiver;

use super::Feed;
use crate::bus::Items;
use crate::node::blocking;

/// How many entries of each journal are read at once.
const READ_ENTRIES: u64 = 256;

/// The events that are asked for, each with the cursor behind it, a line each. The first line has no event: where the stream begins.
///
/// # Errors
///
/// `event.unknown`, `event.bad_cursor`.
pub fn watch(feed: &Feed, request: &WatchRequest) -> Result<Items, Problem> {
    let filter = Filter::parse(request.names.as_deref())?;
    let cursor = match request.since.as_deref().map(str::trim) {
        None | Some("") => feed.head(),
        Some("0") => Cursor::default(),
        Some(text) => text.parse()?,
    };
    let lines = VecDeque::from([line(cursor, None)]);
    let watcher = Watcher { feed: feed.clone(), changes: feed.changes(), filter, cursor, lines, more: true };
    let next = async |mut this: Watcher| this.next().await.map(|line| (line, this));
    Ok(futures_util::stream::unfold(watcher, next).boxed())
}

fn line(cursor: Cursor, event: Option<Event>) -> Vec<u8> {
    let watched = Watched { cursor: cursor.to_string(), event };
    let mut line = serde_json::to_vec(&watched).expect("an event is JSON");
    line.push(b'\n');
    line
}

struct Watcher {
    feed: Feed,
    changes: Receiver<u64>,
    filter: Filter,
    cursor: Cursor,
    lines: VecDeque<Vec<u8>>,
    /// Whether there is something to read already.
    more: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Vec<u8>, Problem>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(line));
            }
            if !self.more {
                self.changes.changed().await.ok()?;
            }
            if let Err(problem) = self.read().await {
                return Some(Err(problem));
            }
        }
    }

    async fn read(&mut self) -> Result<(), Problem> {
        self.changes.mark_unchanged();
        let (feed, cursor, filter) = (self.feed.clone(), self.cursor, self.filter.clone());
        let read = move || {
            let batch = feed.read(cursor, READ_ENTRIES)?;
            let wanted = batch.events.into_iter().filter(|(_, event)| filter.wants(event));
            let lines: VecDeque<_> = wanted.map(|(place, event)| line(place, Some(event))).collect();
            Ok::<_, Problem>((lines, batch.next, batch.more))
        };
        (self.lines, self.cursor, self.more) = blocking(read).await??;
        Ok(())
    }
}

/// Which events a listener asked for.
#[derive(Clone, Debug, Default)]
struct Filter(Vec<String>);

impl Filter {
    /// Reads a comma-separated list of names; `service.*` and `*` stand for many.
    fn parse(names: Option<&str>) -> Result<Self, Problem> {
        let names: Vec<String> = names
            .unwrap_or_default()
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty() && name != "*")
            .collect();
        for name in &names {
            let service =
                name.strip_suffix(".*").is_some_and(|service| service.parse::<protocol::Service>().is_ok());
            if !service && !NAMES.iter().any(|(known, _)| known == name) {
                let shown: String = name.chars().take(80).collect();
                let nearest = NAMES.iter().max_by(|a, b| {
                    strsim::jaro_winkler(a.0, &shown).total_cmp(&strsim::jaro_winkler(b.0, &shown))
                });
                let cause = format!("there is no event {shown:?}");
                return Err(Problem::new(ProblemKind::Invalid, "event.unknown", cause).hint(format!(
                    "did you mean {}? A service's events are SERVICE.*",
                    nearest.map_or("", |n| n.0)
                )));
            }
        }
        Ok(Self(names))
    }

    fn wants(&self, event: &Event) -> bool {
        let service = |name: &String| name.strip_suffix(".*") == Some(event.service.name());
        self.0.is_empty() || self.0.iter().any(|name| *name == event.event || service(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Service;
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A journal of which every entry is an event.
    struct Counted(AtomicU64);

    impl super::super::Source for Counted {
        fn length(&self) -> u64 {
            self.0.load(Ordering::Acquire)
        }

        fn events(&self, from: u64, limit: u64) -> Result<Vec<Event>, Problem> {
            let event = |index| Event {
                event: "state.applied".to_owned(),
                service: Service::State,
                index,
                time_ms: index,
                data: json!({ "index": index }),
            };
            Ok((from..from + limit).map(event).collect())
        }
    }

    fn feed(length: u64) -> (Feed, Arc<Counted>) {
        let (feed, source) = (Feed::default(), Arc::new(Counted(AtomicU64::new(length))));
        feed.attach(Service::State, source.clone());
        (feed, source)
    }

    async fn take(items: &mut Items) -> Watched {
        let line = items.next().await.expect("it goes on").expect("a line");
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(&line).expect("JSON")
    }

    fn asked(names: &str, since: Option<&str>) -> WatchRequest {
        WatchRequest { names: Some(names.to_owned()), since: since.map(str::to_owned) }
    }

    #[tokio::test]
    async fn it_begins_where_it_says_and_goes_on_with_what_becomes_durable() {
        let (feed, source) = feed(600);
        let mut all = watch(&feed, &asked("", Some("0"))).expect("opens");
        assert_eq!(take(&mut all).await, Watched { cursor: "0.0.0.0.0.0".to_owned(), event: None });
        for index in 0..600 {
            let watched = take(&mut all).await;
            assert_eq!(watched.event.expect("an event").index, index);
        }
        let mut now = watch(&feed, &WatchRequest::default()).expect("opens");
        let begin = take(&mut now).await;
        source.0.fetch_add(1, Ordering::AcqRel);
        feed.grew();
        let (here, there) = (take(&mut all).await, take(&mut now).await);
        assert_eq!(here, there);
        assert_eq!(here.event.expect("an event").index, 600);
        // Resumed where the other began, it says the same.
        let mut again = watch(&feed, &asked("state.*", Some(&begin.cursor))).expect("opens");
        assert_eq!(take(&mut again).await, begin);
        assert_eq!(take(&mut again).await, there);
    }

    #[test]
    fn what_nobody_can_publish_and_what_is_no_cursor_is_refused() {
        let (feed, _) = feed(0);
        let code = |request| watch(&feed, &request).err().map(|problem| problem.code.into_owned());
        assert_eq!(code(asked("state.aplied", None)).as_deref(), Some("event.unknown"));
        assert_eq!(code(asked("", Some("1.2"))).as_deref(), Some("event.bad_cursor"));
        assert_eq!(code(asked("state.applied, message.*", None)), None);
    }
}
