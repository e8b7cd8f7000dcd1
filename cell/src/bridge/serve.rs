//! Answers the calls of another host.
//!
//! A connection of its own for calls is read where services run: so between a call and its service, and between the answer and the connection, no
//! thread has to wake another. What is long, and what fronts answer, runs on the edge.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use protocol::action::Kind;
use protocol::{HostId, Problem, ProblemKind};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::Bridge;
use super::frames::{
    Asker, BODY_BYTES_MAX, Bodies, Down, PIECE_BYTES, Reader, Up, WORDS, cost, malformed, put,
};
use super::incoming::STREAMS_MAX;
use super::outbox::{self, Cut, Gone, Outbox};
use crate::bus::{Bus, CallContext, Items, TraceParent};
use crate::network::ByteStream;

/// Calls of one stream under way; more are refused as busy.
const CALLS_MAX: usize = 4_096;
/// Requests of more bytes are read on the edge: what runs where services run is short.
const READ_HERE_BYTES_MAX: usize = 64 * 1024;
/// The longest that a caller may wait.
const PATIENCE_MAX: Duration = Duration::from_secs(120);
/// The most credit that a stream may have: what it may have here, written and not taken.
const CREDIT_MAX: usize = 1024 * 1024;

/// Serves a stream until it ends.
pub(super) async fn run(bridge: Arc<Bridge>, from: HostId, stream: ByteStream) {
    let Ok(host) = bridge.host() else { return };
    let (bus, edge, incarnation) = (host.bus.clone(), host.edge.clone(), bridge.incarnation);
    drop((host, bridge));
    let under_way = UnderWay::default();
    let ended = answer(&bus, edge, (from, incarnation), stream, &under_way).await;
    tracing::debug!(%from, ?ended, "a stream of another host has ended");
    // Nobody hears their answers.
    for (_, entry) in under_way.entries().drain() {
        entry.task.abort();
    }
}

async fn answer(
    bus: &Bus,
    edge: Handle,
    (from, incarnation): (HostId, u64),
    stream: ByteStream,
    under_way: &UnderWay,
) -> io::Result<()> {
    let (reader, writer) = stream.split();
    let (outbox, inbox) = outbox::outbox(writer.beside());
    outbox.send(&Up::Welcome { incarnation, words: Some(WORDS) }).await.map_err(broken)?;
    let server = Server {
        bus: bus.clone(),
        from,
        here: Handle::current(),
        edge,
        outbox,
        under_way: under_way.clone(),
        calls: Arc::new(Semaphore::new(CALLS_MAX)),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    };
    // Streams that are open hold the outbox: they are not waited for once the other host has gone.
    tokio::select! {
        ended = read(server, Reader::new(reader)) => ended,
        ended = inbox.write(writer) => ended,
    }
}

async fn read(server: Server, mut reader: Reader) -> io::Result<()> {
    let mut bodies = Bodies::default();
    while let Some(down) = reader.next::<Down<'_>>().await? {
        match down {
            Down::Piece { number, bytes } => bodies.piece(number, bytes)?,
            Down::Cancel { number } => {
                bodies.forget(number);
                let entry = server.under_way.entries().remove(&number);
                entry.inspect(|entry| entry.task.abort());
            }
            Down::Credit { number, bytes } => server.credit(number, bytes)?,
            Down::Call { number, action, asker, patience_us, cause, trace, body } => {
                let body = bodies.whole(number, body);
                let Ok(place) = Arc::clone(&server.calls).try_acquire_owned() else {
                    server.refuse(number, busy()).await.map_err(broken)?;
                    continue;
                };
                let context = CallContext { cause, ..server.context(asker, patience_us, trace.as_deref()) };
                server.call(number, context, action.to_owned(), body, place);
            }
            Down::Stream { number, action, asker, patience_us, trace, body, credit } => {
                let body = bodies.whole(number, body);
                let Ok(place) = Arc::clone(&server.streams).try_acquire_owned() else {
                    server.refuse(number, busy()).await.map_err(broken)?;
                    continue;
                };
                let context = server.context(asker, patience_us, trace.as_deref());
                server.stream(number, context, action.to_owned(), body, place, credit)?;
            }
        }
    }
    Ok(())
}

/// What is being answered.
struct Entry {
    task: AbortHandle,
    /// What a stream may still send.
    credit: Option<Arc<Semaphore>>,
}

#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<HashMap<u64, Entry>>>);

impl UnderWay {
    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts work under a number. It is entered before the work can take it out.
    fn enter(
        &self,
        number: u64,
        credit: Option<Arc<Semaphore>>,
        runtime: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut entries = self.entries();
        let task = runtime.spawn(work).abort_handle();
        entries.insert(number, Entry { task, credit });
    }
}

/// One stream of calls.
struct Server {
    bus: Bus,
    /// Who asks.
    from: HostId,
    /// Where it is read, and services are asked.
    here: Handle,
    edge: Handle,
    outbox: Outbox,
    under_way: UnderWay,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Server {
    fn context(&self, asker: Asker, patience_us: u64, trace: Option<&str>) -> CallContext {
        let patience = Duration::from_micros(patience_us).min(PATIENCE_MAX);
        CallContext {
            trace: trace.and_then(TraceParent::parse),
            deadline: Some(Instant::now() + patience),
            came_over: Some(self.from),
            ..CallContext::of(asker.into()).within(patience)
        }
    }

    async fn refuse(&self, number: u64, problem: Problem) -> Result<(), Gone> {
        self.outbox.send(&Up::Refused { number, problem }).await
    }

    fn call(
        &self,
        number: u64,
        context: CallContext,
        action: String,
        body: Vec<u8>,
        place: OwnedSemaphorePermit,
    ) {
        let (bus, outbox, mine) = (self.bus.clone(), self.outbox.clone(), self.under_way.clone());
        let is_short = body.len() <= READ_HERE_BYTES_MAX && bus.is_of_a_service(&action);
        let runtime = if is_short { &self.here } else { &self.edge };
        let work = async move {
            let answered = bus.call_wire(context, &action, body).await;
            let _ = give(&outbox, number, &action, answered).await;
            mine.entries().remove(&number);
            drop(place);
        };
        self.under_way.enter(number, None, runtime, work);
    }

    fn stream(
        &self,
        number: u64,
        context: CallContext,
        action: String,
        body: Vec<u8>,
        place: OwnedSemaphorePermit,
        credit: u64,
    ) -> io::Result<()> {
        let (bus, outbox, mine) = (self.bus.clone(), self.outbox.clone(), self.under_way.clone());
        let granted = Arc::new(Semaphore::new(0));
        grant(&granted, credit)?;
        let credit = Arc::clone(&granted);
        let work = async move {
            let opened = bus.stream_wire(context, &action, body).await;
            let _ = give_items(&outbox, number, opened, &credit).await;
            mine.entries().remove(&number);
            drop(place);
        };
        self.under_way.enter(number, Some(granted), &self.edge, work);
        Ok(())
    }

    /// Whoever takes a stream's items takes more of them.
    fn credit(&self, number: u64, bytes: u64) -> io::Result<()> {
        // It may have ended meanwhile.
        match self.under_way.entries().get(&number).and_then(|entry| entry.credit.as_ref()) {
            Some(credit) => grant(credit, bytes),
            None => Ok(()),
        }
    }
}

fn grant(credit: &Semaphore, bytes: u64) -> io::Result<()> {
    let more = usize::try_from(bytes).unwrap_or(usize::MAX);
    if more > CREDIT_MAX.saturating_sub(credit.available_permits()) {
        return Err(malformed("a stream has more credit than it may"));
    }
    credit.add_permits(more);
    Ok(())
}

/// Gives an answer, or why there is none.
async fn give(
    outbox: &Outbox,
    number: u64,
    action: &str,
    answered: Result<Vec<u8>, Problem>,
) -> Result<(), Gone> {
    let problem = match answered {
        Ok(body) if body.len() > BODY_BYTES_MAX => too_large(action, body.len()),
        Ok(body) => match outbox.send_body(Arc::new(body), Answer(number)).await? {
            true => return Ok(()),
            false => slow_reader(action),
        },
        Err(problem) => problem,
    };
    outbox.send(&Up::Refused { number, problem }).await
}

/// Gives the items of a stream as far as there is credit, and how it ends.
async fn give_items(
    outbox: &Outbox,
    number: u64,
    opened: Result<Items, Problem>,
    credit: &Semaphore,
) -> Result<(), Gone> {
    let mut items = match opened {
        Ok(items) => items,
        Err(problem) => return outbox.send(&Up::Refused { number, problem }).await,
    };
    outbox.send_in_turn(move |buffer| put(&Up::Open { number }, buffer)).await?;
    while let Some(item) = items.next().await {
        match item {
            Ok(item) => give_item(outbox, number, Arc::new(item), credit).await?,
            Err(problem) => {
                let broken_off = move |buffer: &mut Vec<u8>| put(&Up::Refused { number, problem }, buffer);
                return outbox.send_in_turn(broken_off).await;
            }
        }
    }
    outbox.send_in_turn(move |buffer| put(&Up::End { number }, buffer)).await
}

async fn give_item(outbox: &Outbox, number: u64, item: Arc<Vec<u8>>, credit: &Semaphore) -> Result<(), Gone> {
    let mut from = 0;
    loop {
        let range = from..item.len().min(from + PIECE_BYTES);
        let taken = u32::try_from(cost(range.len())).expect("a piece is short");
        credit.acquire_many(taken).await.map_err(|_| Gone)?.forget();
        from = range.end;
        outbox.send_piece(number, Arc::clone(&item), range).await?;
        if from == item.len() {
            return Ok(());
        }
    }
}

/// An answer in frames.
pub(super) struct Answer(pub(super) u64);

impl Cut for Answer {
    fn piece(&self, bytes: &[u8], buffer: &mut Vec<u8>) {
        put(&Up::Piece { number: self.0, bytes }, buffer);
    }

    fn last(&self, body: &[u8], buffer: &mut Vec<u8>) {
        put(&Up::Answer { number: self.0, body }, buffer);
    }
}

fn broken(_: Gone) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn too_large(action: &str, bytes: usize) -> Problem {
    let cause = format!("the answer to {action} has {bytes} bytes, {BODY_BYTES_MAX} cross at most");
    Problem::new(ProblemKind::TooLarge, "bus.too_large", cause).hint("ask for less of it, or a smaller page")
}

/// The answer is there and finds no room. What a command did is done.
fn slow_reader(action: &str) -> Problem {
    let info = protocol::actions().into_iter().find(|info| info.name == action);
    let cause = format!("the answer to {action} is large, and so are too many others on their way");
    match info.map(|info| info.kind) {
        Some(Kind::Command) => Problem::new(ProblemKind::UnknownOutcome, "bus.unknown_outcome", cause)
            .hint("ask again with the same request id, or look first"),
        _ => Problem::new(ProblemKind::Busy, "bus.busy", cause).hint("ask again in a moment"),
    }
}

fn busy() -> Problem {
    Problem::new(ProblemKind::Busy, "bus.busy", "the host has too much to do").hint("ask again in a moment")
}
