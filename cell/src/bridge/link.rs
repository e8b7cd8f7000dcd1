//! The way to call another host: a connection for calls, kept open while the two are connected, and one for streams from the first of them on.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::action::Kind;
use protocol::nucleus::HostEntry;
use protocol::{HostId, Problem, ProblemKind};
use tokio::sync::{oneshot, watch};

use super::frames::{Asker, BODY_BYTES_MAX, Bodies, Down, Reader, Up, put};
use super::incoming::{STREAMS_MAX, Streams, WIDE_WINDOW_BYTES, WINDOW_BYTES};
use super::outbox::{self, Cut, Outbox};
use super::{Bridge, as_peer};
use crate::bus::{Items, Remote, RemoteCall};
use crate::network::{ByteStream, Carries};

/// The first pause before a stream that ended is opened anew; doubles up to the longest.
const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause.
const REOPEN_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a call waits for the stream to a host that is connected.
const OPENING_MAX: Duration = Duration::from_secs(1);

struct Pending {
    kind: Kind,
    action: &'static str,
    reply: oneshot::Sender<Result<Vec<u8>, Problem>>,
}

/// The way to call one other host. Its stream ends with it.
pub(super) struct Link {
    me: Weak<Self>,
    key: HostId,
    name: String,
    last_number: AtomicU64,
    /// Calls since the start.
    asked: Arc<AtomicU64>,
    under_way: Mutex<HashMap<u64, Pending>>,
    /// Whether the other host knows streams.
    knows_streams: AtomicBool,
    /// Whether calls have a connection of their own.
    is_direct: AtomicBool,
    calls: Way,
    /// For streams alone, where calls have a connection of their own.
    bulk: Way,
    /// One opens it.
    opening_bulk: tokio::sync::Mutex<()>,
    bridge: Weak<Bridge>,
}

/// A connection, while there is one, and the streams on it.
struct Way {
    streams: Arc<Streams>,
    outbox: watch::Sender<Option<Outbox>>,
}

impl Way {
    fn new(widest: usize, calls: &Arc<AtomicU64>) -> Self {
        Self { streams: Arc::new(Streams::new(widest, calls)), outbox: watch::Sender::default() }
    }

    fn now(&self) -> Option<Outbox> {
        self.outbox.borrow().clone()
    }

    /// Awaited for a moment, where it is about to be greeted.
    async fn soon(&self) -> Option<Outbox> {
        let mut changes = self.outbox.subscribe();
        let opened = tokio::time::timeout(OPENING_MAX, changes.wait_for(Option::is_some));
        opened.await.ok().and_then(|opened| opened.ok().and_then(|outbox| outbox.clone()))
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Calls,
    Bulk,
}

impl Link {
    /// Opens a stream whenever the host is connected.
    pub(super) fn open(bridge: &Arc<Bridge>, entry: &HostEntry) -> Arc<Self> {
        let asked = Arc::default();
        let this = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            key: entry.key,
            name: entry.name.clone(),
            last_number: AtomicU64::new(0),
            asked: Arc::clone(&asked),
            under_way: Mutex::default(),
            knows_streams: AtomicBool::new(false),
            is_direct: AtomicBool::new(false),
            calls: Way::new(WINDOW_BYTES, &asked),
            bulk: Way::new(WIDE_WINDOW_BYTES, &asked),
            opening_bulk: tokio::sync::Mutex::default(),
            bridge: Arc::downgrade(bridge),
        });
        if let Ok(host) = bridge.host() {
            host.edge.spawn(keep_open(Arc::downgrade(bridge), Arc::downgrade(&this)));
        }
        this
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, what: For) -> &Way {
        match what {
            For::Calls => &self.calls,
            For::Bulk => &self.bulk,
        }
    }

    /// Whether calls can go.
    pub(super) fn is_open(&self) -> bool {
        self.calls.outbox.borrow().is_some()
    }

    /// The way for calls; awaited for a moment where the host is connected.
    async fn opened(&self) -> Result<Outbox, Problem> {
        if let Some(outbox) = self.calls.now() {
            return Ok(outbox);
        }
        let is_near = |bridge: Arc<Bridge>| bridge.network().peer(&as_peer(self.key)).connected;
        if !self.bridge.upgrade().is_some_and(is_near) {
            return Err(self.unreachable());
        }
        self.calls.soon().await.ok_or_else(|| self.unreachable())
    }

    /// The way for a stream: that of calls, where no other can be had.
    async fn opened_for_streams(&self) -> Result<(&Way, Outbox), Problem> {
        let of_calls = self.opened().await?;
        if !self.knows_streams.load(Ordering::Relaxed) {
            return Err(self.too_old());
        }
        if !self.is_direct.load(Ordering::Relaxed) {
            return Ok((&self.calls, of_calls));
        }
        let _turn = self.opening_bulk.lock().await;
        if let Some(outbox) = self.bulk.now() {
            return Ok((&self.bulk, outbox));
        }
        let bridge = self.bridge.upgrade().ok_or_else(super::stopping)?;
        let Ok(stream) = bridge.network().open_direct(&as_peer(self.key), Carries::Streams).await else {
            return Ok((&self.calls, of_calls));
        };
        let link = self.me.clone();
        bridge.spawn(async move {
            let ended = run(&link, stream, For::Bulk).await;
            tracing::debug!(?ended, "the connection for streams of another host has ended");
        });
        Ok(self.bulk.soon().await.map_or((&self.calls, of_calls), |outbox| (&self.bulk, outbox)))
    }

    fn unreachable(&self) -> Problem {
        let cause = format!("the host {} cannot be reached", self.name);
        Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", cause)
            .hint("cell hosts shows the connections; it is dialled again by itself")
    }

    fn too_old(&self) -> Problem {
        let cause = format!("the host {} runs a version that gives no streams", self.name);
        Problem::new(ProblemKind::Unavailable, "bus.no_streams", cause)
            .hint("cell hosts shows the versions; bring it to this one")
    }

    /// What was under way has failed, or nobody knows.
    pub(super) fn fail_all(&self) {
        self.calls.streams.fail_all();
        self.bulk.streams.fail_all();
        self.fail_calls();
    }

    fn fail_calls(&self) {
        let all = std::mem::take(&mut *self.under_way());
        for pending in all.into_values() {
            let problem = match pending.kind {
                Kind::Query => self.unreachable(),
                Kind::Command => Problem::new(
                    ProblemKind::UnknownOutcome,
                    "bus.unknown_outcome",
                    format!("the host {} was lost while {} was under way", self.name, pending.action),
                )
                .hint("ask again with the same request id, or look first"),
            };
            let _ = pending.reply.send(Err(problem));
        }
    }

    /// The other host has said something.
    fn hear(&self, up: Up<'_>, streams: &Streams, bodies: &mut Bodies) -> io::Result<()> {
        match up {
            Up::Welcome { .. } => {}
            Up::Open { number } => streams.opened(number),
            Up::Item { number, bytes } => streams.piece(number, bytes, true)?,
            Up::End { number } => streams.end(number, Ok(())),
            Up::Piece { number, bytes } if streams.has(number) => {
                streams.piece(number, bytes, false)?;
            }
            Up::Piece { number, bytes } if self.under_way().contains_key(&number) => {
                bodies.piece(number, bytes)?;
            }
            // Nobody wants it any more.
            Up::Piece { number, .. } => bodies.forget(number),
            Up::Answer { number, body } => self.answered(number, Ok(bodies.whole(number, body))),
            Up::Refused { number, problem } if streams.has(number) => {
                streams.end(number, Err(problem));
            }
            Up::Refused { number, problem } => {
                bodies.forget(number);
                self.answered(number, Err(problem));
            }
        }
        Ok(())
    }

    fn answered(&self, number: u64, answer: Result<Vec<u8>, Problem>) {
        let pending = self.under_way().remove(&number);
        if let Some(pending) = pending {
            let _ = pending.reply.send(answer);
        }
    }

    async fn ask(&self, call: RemoteCall) -> Result<Vec<u8>, Problem> {
        fits(&call)?;
        // What a host asks that has lost the lead may be of the past.
        self.bridge.upgrade().ok_or_else(super::stopping)?.may_lead_on()?;
        let outbox = self.opened().await?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let number = self.next_number();
        let (reply, answer) = oneshot::channel();
        let RemoteCall { action, kind, caller, cause, trace, patience, body } = call;
        let trace = trace.map(|trace| trace.to_string());
        let cut = Call { number, action, asker: caller.into(), patience_us: as_us(patience), cause, trace };
        self.under_way().insert(number, Pending { kind, action, reply });
        let mut waiting = Waiting { link: self, number, outbox: Some(outbox.clone()) };
        match outbox.send_body(body, cut).await {
            Ok(true) => {}
            Ok(false) => return Err(busy()),
            Err(outbox::Gone) => return Err(self.unreachable()),
        }
        let answer = answer.await.unwrap_or_else(|_| Err(self.unreachable()));
        waiting.outbox = None;
        answer
    }

    async fn open_stream(&self, call: RemoteCall) -> Result<Items, Problem> {
        fits(&call)?;
        let (way, outbox) = self.opened_for_streams().await?;
        let number = self.next_number();
        let entered = way.streams.enter(number, outbox.clone(), self.unreachable());
        let (incoming, is_open) = entered.ok_or_else(too_many_streams)?;
        let RemoteCall { action, caller, trace, patience, body, .. } = call;
        let trace = trace.map(|trace| trace.to_string());
        let (asker, credit) = (caller.into(), WINDOW_BYTES as u64);
        let cut = Opening { number, action, asker, patience_us: as_us(patience), trace, credit };
        match outbox.send_body(body, cut).await {
            Ok(true) => {}
            Ok(false) => return Err(busy()),
            Err(outbox::Gone) => return Err(self.unreachable()),
        }
        is_open.await.unwrap_or_else(|_| Err(self.unreachable()))?;
        Ok(incoming.items())
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn as_us(patience: Duration) -> u64 {
    u64::try_from(patience.as_micros()).unwrap_or(u64::MAX)
}

fn fits(call: &RemoteCall) -> Result<(), Problem> {
    if call.body.len() <= BODY_BYTES_MAX {
        return Ok(());
    }
    let cause = format!("a request of {} bytes is over the bound", call.body.len());
    Err(Problem::new(ProblemKind::TooLarge, "bus.too_large", cause))
}

fn busy() -> Problem {
    Problem::new(ProblemKind::Busy, "bus.busy", "too many large requests wait for another host")
        .hint("ask again in a moment")
}

fn too_many_streams() -> Problem {
    let cause = format!("{STREAMS_MAX} streams of another host are open");
    Problem::new(ProblemKind::Busy, "bus.busy", cause).hint("close one of them")
}

/// A call in frames.
struct Call {
    number: u64,
    action: &'static str,
    asker: Asker,
    patience_us: u64,
    cause: Option<machine::EffectId>,
    trace: Option<String>,
}

impl Cut for Call {
    fn piece(&self, bytes: &[u8], buffer: &mut Vec<u8>) {
        put(&Down::Piece { number: self.number, bytes }, buffer);
    }

    fn last(&self, body: &[u8], buffer: &mut Vec<u8>) {
        let Self { number, action, patience_us, cause, .. } = *self;
        let (asker, trace) = (self.asker.clone(), self.trace.clone());
        put(&Down::Call { number, action, asker, patience_us, cause, trace, body }, buffer);
    }
}

/// The opening of a stream in frames.
struct Opening {
    number: u64,
    action: &'static str,
    asker: Asker,
    patience_us: u64,
    trace: Option<String>,
    credit: u64,
}

impl Cut for Opening {
    fn piece(&self, bytes: &[u8], buffer: &mut Vec<u8>) {
        put(&Down::Piece { number: self.number, bytes }, buffer);
    }

    fn last(&self, body: &[u8], buffer: &mut Vec<u8>) {
        let Self { number, action, patience_us, credit, .. } = *self;
        let (asker, trace) = (self.asker.clone(), self.trace.clone());
        put(&Down::Stream { number, action, asker, patience_us, trace, body, credit }, buffer);
    }
}

/// A call under way: who does not wait for it any more says so.
struct Waiting<'a> {
    link: &'a Link,
    number: u64,
    outbox: Option<Outbox>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(outbox) = self.outbox.take()
            && self.link.under_way().remove(&self.number).is_some()
        {
            // Where there is no room for it, the other host answers for nobody.
            let _ = outbox.try_send(&Down::Cancel { number: self.number });
        }
    }
}

impl Remote for Link {
    fn call(&self, call: RemoteCall) -> BoxFuture<'_, Result<Vec<u8>, Problem>> {
        Box::pin(self.ask(call))
    }

    fn stream(&self, call: RemoteCall) -> BoxFuture<'_, Result<Items, Problem>> {
        Box::pin(self.open_stream(call))
    }
}

async fn keep_open(bridge: Weak<Bridge>, link: Weak<Link>) {
    let mut pause = REOPEN_PAUSE_MIN;
    loop {
        let (Some(bridge), Some(link)) = (bridge.upgrade(), link.upgrade()) else { return };
        if *bridge.stopping.borrow() {
            return;
        }
        let mut changes = bridge.network().changes();
        match bridge.network().open(&as_peer(link.key)).await {
            Ok(stream) => {
                drop(bridge);
                let name = link.name.clone();
                let weak = Arc::downgrade(&link);
                drop(link);
                let ended = run(&weak, stream, For::Calls).await;
                match ended {
                    // It has not heard of this host yet, or not any more.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        tracing::debug!(host = name, "another host does not take calls of this one");
                        pause = (pause * 2).min(REOPEN_PAUSE_MAX);
                    }
                    ended => {
                        let why = ended.err().map(|error| error.to_string());
                        tracing::warn!(
                            host = name,
                            why,
                            "the stream to another host has ended; it is opened again"
                        );
                        pause = REOPEN_PAUSE_MIN;
                    }
                }
            }
            Err(_) => {
                drop((bridge, link));
                pause = (pause * 2).min(REOPEN_PAUSE_MAX);
            }
        }
        let _ = tokio::time::timeout(pause, changes.changed()).await;
    }
}

/// Writes calls and reads answers until the connection ends.
async fn run(link: &Weak<Link>, stream: ByteStream, what: For) -> io::Result<()> {
    let is_direct = stream.carries().is_some();
    let (reader, writer) = stream.split();
    let (outbox, inbox) = outbox::outbox(writer.beside());
    let ended = tokio::select! {
        ended = inbox.write(writer) => ended,
        ended = read(link, Reader::new(reader), outbox, what, is_direct) => ended,
    };
    if let Some(link) = link.upgrade() {
        let way = link.way(what);
        way.outbox.send_replace(None);
        way.streams.fail_all();
        if what == For::Calls {
            link.fail_calls();
        }
    }
    ended
}

async fn read(
    link: &Weak<Link>,
    mut reader: Reader,
    outbox: Outbox,
    what: For,
    is_direct: bool,
) -> io::Result<()> {
    // Who is not welcome hears nothing.
    let Some(Up::Welcome { words, .. }) = reader.next::<Up<'_>>().await? else {
        return Err(io::ErrorKind::ConnectionRefused.into());
    };
    let opened = link.upgrade().ok_or(io::ErrorKind::NotConnected)?;
    if what == For::Calls {
        opened.knows_streams.store(words >= Some(1), Ordering::Relaxed);
        opened.is_direct.store(is_direct, Ordering::Relaxed);
    }
    let streams = Arc::clone(&opened.way(what).streams);
    opened.way(what).outbox.send_replace(Some(outbox));
    drop(opened);
    let mut bodies = Bodies::default();
    while let Some(up) = reader.next::<Up<'_>>().await? {
        let Some(link) = link.upgrade() else { break };
        link.hear(up, &streams, &mut bodies)?;
    }
    Ok(())
}
