//! The way to call another host: one stream, kept open while the two are connected.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::AsyncReadExt;
use futures_util::future::BoxFuture;
use protocol::action::Kind;
use protocol::nucleus::HostEntry;
use protocol::{HostId, Problem, ProblemKind};
use tokio::sync::{mpsc, oneshot, watch};

use super::frames::{self, BODY_BYTES_MAX, Down, Outgoing, Reader, Up};
use super::{Bridge, as_peer};
use crate::bus::{Remote, RemoteCall};
use crate::network::ByteStream;

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
    key: HostId,
    name: String,
    last_number: AtomicU64,
    under_way: Mutex<HashMap<u64, Pending>>,
    /// While a stream is open.
    outbox: watch::Sender<Option<mpsc::Sender<Outgoing>>>,
    bridge: Weak<Bridge>,
}

impl Link {
    /// Opens a stream whenever the host is connected.
    pub(super) fn open(bridge: &Arc<Bridge>, entry: &HostEntry) -> Arc<Self> {
        let this = Arc::new(Self {
            key: entry.key,
            name: entry.name.clone(),
            last_number: AtomicU64::new(0),
            under_way: Mutex::default(),
            outbox: watch::Sender::default(),
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

    fn set_outbox(&self, outbox: Option<mpsc::Sender<Outgoing>>) {
        self.outbox.send_replace(outbox);
    }

    /// Whether calls can go.
    pub(super) fn is_open(&self) -> bool {
        self.outbox.borrow().is_some()
    }

    /// The stream; awaited for a moment where the host is connected, and so about to be greeted.
    async fn opened(&self) -> Result<mpsc::Sender<Outgoing>, Problem> {
        if let Some(outbox) = self.outbox.borrow().clone() {
            return Ok(outbox);
        }
        let is_near = |bridge: Arc<Bridge>| bridge.network().peer(&as_peer(self.key)).connected;
        if !self.bridge.upgrade().is_some_and(is_near) {
            return Err(self.unreachable());
        }
        let mut changes = self.outbox.subscribe();
        let opened = tokio::time::timeout(OPENING_MAX, changes.wait_for(Option::is_some));
        let opened = opened.await.ok().and_then(|opened| opened.ok().and_then(|outbox| outbox.clone()));
        opened.ok_or_else(|| self.unreachable())
    }

    fn unreachable(&self) -> Problem {
        let cause = format!("the host {} cannot be reached", self.name);
        Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", cause)
            .hint("cell hosts shows the connections; it is dialled again by itself")
    }

    /// What was under way has failed, or nobody knows.
    fn fail_all(&self) {
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

    async fn ask(&self, call: RemoteCall) -> Result<Vec<u8>, Problem> {
        if call.body.len() > BODY_BYTES_MAX {
            let cause = format!("a request of {} bytes is over the bound", call.body.len());
            return Err(Problem::new(ProblemKind::TooLarge, "bus.too_large", cause));
        }
        let outbox = self.opened().await?;
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let (reply, answer) = oneshot::channel();
        let RemoteCall { action, kind, caller, cause, trace, patience, body } = call;
        let outgoing = Outgoing::with_body(
            body.to_vec(),
            |bytes| Down::Piece { number, bytes },
            |body| Down::Call {
                number,
                action: action.to_owned(),
                asker: caller.into(),
                patience_us: u64::try_from(patience.as_micros()).unwrap_or(u64::MAX),
                cause,
                trace: trace.map(|trace| trace.to_string()),
                body,
            },
        );
        self.under_way().insert(number, Pending { kind, action, reply });
        let mut waiting = Waiting { link: self, number, outbox: Some(outbox.clone()) };
        if outbox.send(outgoing).await.is_err() {
            return Err(self.unreachable());
        }
        let answer = answer.await.unwrap_or_else(|_| Err(self.unreachable()));
        waiting.outbox = None;
        answer
    }
}

/// A call under way: who does not wait for it any more says so.
struct Waiting<'a> {
    link: &'a Link,
    number: u64,
    outbox: Option<mpsc::Sender<Outgoing>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(outbox) = self.outbox.take()
            && self.link.under_way().remove(&self.number).is_some()
        {
            // Where there is no room for it, the other host answers for nobody.
            let _ = outbox.try_send(Outgoing::one(&Down::Cancel { number: self.number }));
        }
    }
}

impl Remote for Link {
    fn call(&self, call: RemoteCall) -> BoxFuture<'_, Result<Vec<u8>, Problem>> {
        Box::pin(self.ask(call))
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
                let ended = run(&weak, stream).await;
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

/// Writes calls and reads answers until the stream ends.
async fn run(link: &Weak<Link>, stream: ByteStream) -> io::Result<()> {
    let (reader, writer) = stream.split();
    let mut reader = Reader::new(reader);
    let (outbox, inbox) = frames::outbox();
    let write = frames::write(writer, inbox);
    let read = async {
        // Who is not welcome hears nothing.
        match reader.next::<Up>().await? {
            Some(Up::Welcome { .. }) => {}
            _ => return Err(io::ErrorKind::ConnectionRefused.into()),
        }
        link.upgrade().ok_or(io::ErrorKind::NotConnected)?.set_outbox(Some(outbox));
        while let Some(up) = reader.next::<Up>().await? {
            let Some(link) = link.upgrade() else { break };
            let (number, answer) = match up {
                Up::Piece { number, bytes } => {
                    reader.piece(number, &bytes)?;
                    continue;
                }
                Up::Answer { number, body } => (number, Ok(reader.body(number, body))),
                Up::Refused { number, problem } => (number, Err(problem)),
                Up::Welcome { .. } => continue,
            };
            let pending = link.under_way().remove(&number);
            if let Some(pending) = pending {
                let _ = pending.reply.send(answer);
            }
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = write => ended,
        ended = read => ended,
    };
    if let Some(link) = link.upgrade() {
        link.set_outbox(None);
        link.fail_all();
    }
    ended
}
