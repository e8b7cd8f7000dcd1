//! Streams: what grows, and what is too large for one answer.

use std::sync::Arc;
use std::task::Poll;

use futures_util::{Stream, StreamExt, TryStreamExt};
use protocol::nucleus::{JournalEntry, Listen, ReadJournal, ReadJournalRequest, Watch};
use protocol::state::{DataRef, GetData};
use protocol::{Problem, ProblemKind, StreamAction};

use crate::actor::{describe_entry, journal_problem};
use crate::bus::{CallContext, Items};
use crate::data::Reading;
use crate::feed;
use crate::node::{World, blocking};

/// Items of data that are read at once.
const DATA_ITEMS: usize = 8;
/// Bytes of entries that are read at once, and one entry more.
const ENTRIES_BYTES: usize = 128 * 1024;

pub(super) fn install(world: &Arc<World>) {
    producer::<Watch, _, _>(world, |world, _, request| async move { feed::watch(&world.feed, &request) });
    producer::<Listen, _, _>(world, |world, context, request| async move {
        world.signals.listen(request, context.came_over)
    });
    producer::<ReadJournal, _, _>(world, |world, _, request| async move { journal(&world, request) });
    producer::<GetData, _, _>(world, |world, _, request| async move { data(&world, request).await });
}

/// Gives the items of `A`: a function of the world, who asks, and the request.
fn producer<A, F, Fut>(world: &Arc<World>, producer: F)
where
    A: StreamAction,
    F: Fn(Arc<World>, CallContext, A::Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Items, Problem>> + Send + 'static,
{
    // Weak: the world holds the bus, which holds the producers.
    let weak = Arc::downgrade(world);
    world.bus.producer::<A, _, _>(move |context, request| {
        let work = weak.upgrade().map(|world| producer(world, context, request));
        async move { work.ok_or_else(super::stopping)?.await }
    });
}

/// Entries of a journal, a line each.
fn journal(world: &World, request: ReadJournalRequest) -> Result<Items, Problem> {
    let ReadJournalRequest { journal: service, from, limit } = request;
    let reader = world.service(service).gauges.reader().ok_or_else(|| not_here(service))?;
    let end = world.feed.length(service).min(from.saturating_add(limit.unwrap_or(u64::MAX)));
    // Each step reads on its own, and says where the next one does.
    let step = move |from: u64| {
        let reader = reader.clone();
        async move {
            if from >= end {
                return None;
            }
            let read = blocking(move || {
                let (mut lines, mut next) = (Vec::new(), from);
                for bytes in reader.range(from, end) {
                    let bytes = bytes.map_err(|error| journal_problem(service, &error))?;
                    let (time_ms, epoch, record) = describe_entry(service, &bytes)?;
                    let entry =
                        JournalEntry { index: next, time_ms, epoch, bytes: bytes.len() as u64, record };
                    serde_json::to_writer(&mut lines, &entry).expect("an entry is JSON");
                    lines.push(b'\n');
                    next += 1;
                    if lines.len() >= ENTRIES_BYTES {
                        break;
                    }
                }
                Ok::<_, Problem>((lines, next))
            });
            match read.await.and_then(std::convert::identity) {
                Ok((lines, next)) => Some((Ok(lines), next)),
                Err(problem) => Some((Err(problem), end)),
            }
        }
    };
    Ok(futures_util::stream::unfold(from, step).boxed())
}

fn not_here(service: protocol::Service) -> Problem {
    let cause = format!("the {service} journal is not open here yet");
    Problem::new(ProblemKind::Unavailable, "journal.not_here", cause).hint("ask again in a moment")
}

/// Data, checked on the way.
async fn data(world: &World, request: DataRef) -> Result<Items, Problem> {
    let (store, hash) = (world.data.clone(), request.hash);
    let reading = blocking(move || store.reader(&hash)).await??;
    let more = async |reading| {
        let more = more_data(reading).await;
        more.map(|more| more.map(|(items, reading)| (given(items), reading)))
    };
    Ok(futures_util::stream::try_unfold(reading, more).try_flatten().boxed())
}

fn given(items: Vec<Vec<u8>>) -> impl Stream<Item = Result<Vec<u8>, Problem>> {
    futures_util::stream::iter(items.into_iter().map(Ok))
}

/// Reads on; nothing at the end.
async fn more_data(mut reading: Reading) -> Result<Option<(Vec<Vec<u8>>, Reading)>, Problem> {
    // What is in memory is read here: another thread would have to be woken, and the bytes go from its cache to this one's.
    match reading.next_at_hand() {
        Poll::Ready(None) => return Ok(None),
        Poll::Ready(Some(item)) => return Ok(Some((vec![item?], reading))),
        Poll::Pending => {}
    }
    let read = blocking(move || {
        let items: Result<Vec<_>, Problem> = reading.by_ref().take(DATA_ITEMS).collect();
        items.map(|items| (items, reading))
    });
    let (items, reading) = read.await??;
    Ok((!items.is_empty()).then_some((items, reading)))
}
