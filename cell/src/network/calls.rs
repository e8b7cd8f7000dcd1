//! Requests and replies, over one long-lived stream each way.
//!
//! Whoever asks or pushes opens the stream (in the cells' lane as soon as the two are connected, saying hello on it; in
//! the others when there is something to ask); whoever is asked
//! answers on the same stream, in the order in which the answers come. A stream that ends is opened anew
//! while the connection lives; what was under way on it has failed, and it is not known how far it got.
//!
//! Bounds: requests under way of one peer (over all its streams, those that have ended included), streams of
//! one peer, bytes of a frame and of a hello, and the time between a frame's length and its end. Answers that a peer does not read stop its requests from being read.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream};
use libp2p_stream::{Control, IncomingStreams};
use protocol::{CellId, Problem, ProblemKind};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::address::cell_of;
use super::frame::{self, Frame, Tag};
use super::{Command, Counters, Inbound, Lane, NetworkSettings};

/// Requests that wait to be written.
const WAITING_MAX: usize = 64;
/// Streams of one peer that are served at once: one, and those that a lost connection has left behind.
const STREAMS_PER_PEER_MAX: usize = 4;
/// The longest hello.
const HELLO_BYTES_MAX: usize = 4 * 1024;
/// The first pause before a stream that ended is opened anew; doubles up to the longest.
const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Requests under way beyond which those are forgotten that nobody waits for any more.
const FORGET_FROM: usize = 64;

type Answered = Result<Vec<u8>, Problem>;

struct Request {
    body: Vec<u8>,
    /// Who waits for the reply; nobody for a push.
    reply: Option<oneshot::Sender<Answered>>,
}

/// The way to ask one connected peer. Dropping all of them ends the stream.
#[derive(Clone)]
pub(super) struct Pipe {
    peer: CellId,
    requests: mpsc::Sender<Request>,
    timeout: Duration,
}

impl Pipe {
    /// Opens a stream to a connected peer and keeps it open.
    pub(super) fn open(cell: CellId, peer: PeerId, lane: Lane, control: Control, side: &Arc<Side>) -> Self {
        let (requests, inbox) = mpsc::channel(WAITING_MAX);
        tokio::spawn(keep_open(cell, peer, lane, control, Arc::clone(side), inbox));
        Self { peer: cell, requests, timeout: side.settings.request_timeout }
    }

    /// Asks, and waits for the reply.
    pub(super) async fn ask(&self, body: Vec<u8>) -> Answered {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(Request { body, reply: Some(reply) }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer.unwrap_or_else(|| Err(unreachable(&self.peer, "the connection was lost"))),
            Err(_) => Err(unreachable(&self.peer, "it did not answer in time")),
        }
    }

    /// Sends without a reply, if there is room.
    pub(super) fn push(&self, body: Vec<u8>) -> bool {
        self.requests.try_send(Request { body, reply: None }).is_ok()
    }
}

/// What both sides of the streams need.
pub(super) struct Side {
    pub(super) settings: NetworkSettings,
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) counters: Arc<Counters>,
    pub(super) commands: mpsc::WeakSender<Command>,
}

impl Side {
    async fn tell(&self, command: Command) {
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.send(command).await;
        }
    }

    /// The next frame; none where the stream ends between two.
    async fn next(&self, io: &mut (impl futures_util::AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
        let Some(length) = frame::read_length(io, self.settings.frame_bytes_max, &self.counters).await?
        else {
            return Ok(None);
        };
        let rest = frame::read_frame(io, length, &self.counters);
        match tokio::time::timeout(self.settings.request_timeout, rest).await {
            Ok(frame) => frame.map(Some),
            Err(_) => {
                Counters::count(&self.counters.refused_malformed);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn frame(&self, number: u64, tag: Tag, body: &[u8]) -> Option<Vec<u8>> {
        frame::encode(number, tag, body, self.settings.frame_bytes_max)
    }
}

async fn keep_open(
    cell: CellId,
    peer: PeerId,
    lane: Lane,
    mut control: Control,
    side: Arc<Side>,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut pause = REOPEN_PAUSE_MIN;
    while !requests.is_closed() {
        // What is seldom asked gets its stream when it is.
        let first = if lane.greets() {
            None
        } else {
            let Some(first) = requests.recv().await else { return };
            Some(first)
        };
        if let Ok(stream) = control.open_stream(peer, lane.protocol()).await {
            let under_way = UnderWay::default();
            match asking(stream, lane, &side, first, &mut requests, &under_way).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%cell, %error, "the stream to a peer has ended"),
            }
            if under_way.fail(&unreachable(&cell, "the stream has ended")) {
                pause = REOPEN_PAUSE_MIN;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REOPEN_PAUSE_MAX);
    }
}

/// Requests by their numbers.
#[derive(Default)]
struct UnderWay(Mutex<(u64, HashMap<u64, oneshot::Sender<Answered>>)>);

impl UnderWay {
    fn add(&self, reply: oneshot::Sender<Answered>) -> u64 {
        let (last, replies) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if replies.len() >= FORGET_FROM {
            replies.retain(|_, reply| !reply.is_closed());
        }
        *last += 1;
        replies.insert(*last, reply);
        *last
    }

    /// A push went out: nothing is under way, but the stream was of use.
    fn count(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
    }

    fn take(&self, number: u64) -> Option<oneshot::Sender<Answered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number)
    }

    /// Fails all; says whether there has ever been one.
    fn fail(self, problem: &Problem) -> bool {
        let (last, replies) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for reply in replies.into_values() {
            let _ = reply.send(Err(problem.clone()));
        }
        last > 0
    }
}

/// Writes requests and reads replies until the stream ends, or nobody can ask any more.
async fn asking(
    stream: Stream,
    lane: Lane,
    side: &Side,
    mut first: Option<Request>,
    requests: &mut mpsc::Receiver<Request>,
    under_way: &UnderWay,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        if lane.greets() {
            let hello = side.frame(0, Tag::Hello, &side.settings.hello).ok_or(io::ErrorKind::InvalidInput)?;
            writer.write_all(&hello).await?;
            writer.flush().await?;
        }
        loop {
            // What waits already shares a flush.
            let request = match first.take().map_or_else(|| requests.try_recv(), Ok) {
                Ok(request) => Some(request),
                Err(_) => {
                    writer.flush().await?;
                    requests.recv().await
                }
            };
            let Some(Request { body, reply }) = request else { break };
            let Some(reply) = reply else {
                if let Some(bytes) = side.frame(0, Tag::Push, &body) {
                    under_way.count();
                    Counters::count(&side.counters.pushes_out);
                    writer.write_all(&bytes).await?;
                }
                continue;
            };
            let number = under_way.add(reply);
            let Some(bytes) = side.frame(number, Tag::Request, &body) else {
                let cause = format!("a request of {} bytes is over the bound", body.len());
                let problem = Problem::new(ProblemKind::TooLarge, "network.too_large", cause);
                under_way.take(number).into_iter().for_each(|reply| drop(reply.send(Err(problem.clone()))));
                continue;
            };
            Counters::count(&side.counters.requests_out);
            writer.write_all(&bytes).await?;
        }
        writer.close().await
    };
    let read = async {
        while let Some(Frame { number, tag, body }) = side.next(&mut reader).await? {
            let Some(reply) = under_way.take(number) else { continue };
            let answer = match tag {
                Some(Tag::Reply) => Ok(body),
                Some(Tag::Busy) => Err(busy()),
                _ => Err(garbled()),
            };
            let _ = reply.send(answer);
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    tokio::select! {
        done = write => done,
        ended = read => ended,
    }
}

/// Serves the streams that peers open.
pub(super) async fn serve(mut streams: IncomingStreams, lane: Lane, side: Arc<Side>) {
    let mut peers = Peers::default();
    while let Some((peer, stream)) = streams.next().await {
        let Some(cell) = cell_of(&peer) else { continue };
        let places = peers.places(peer, side.settings.requests_per_peer_max);
        let Ok(place) = Arc::clone(&places.streams).try_acquire_owned() else {
            Counters::count(&side.counters.refused_busy);
            continue;
        };
        let side = Arc::clone(&side);
        tokio::spawn(async move {
            if let Err(error) = answering(cell, stream, lane, &side, &places).await {
                tracing::debug!(%cell, %error, "a peer's stream has ended");
                if error.kind() == io::ErrorKind::Unsupported {
                    side.tell(Command::HangUp { peer }).await;
                }
            }
            drop(place);
        });
    }
}

/// What one peer may have under way here.
struct Places {
    streams: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

impl Places {
    fn new(requests: usize) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(STREAMS_PER_PEER_MAX)),
            requests: Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))),
        }
    }
}

/// The places of each peer, for as long as one of its streams or requests is under way: a peer that comes
/// back finds what it had begun before still counted.
#[derive(Default)]
struct Peers(HashMap<PeerId, Weak<Places>>);

impl Peers {
    fn places(&mut self, peer: PeerId, requests_max: usize) -> Arc<Places> {
        if let Some(places) = self.0.get(&peer).and_then(Weak::upgrade) {
            return places;
        }
        self.0.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Places::new(requests_max));
        self.0.insert(peer, Arc::downgrade(&places));
        places
    }
}

/// Reads requests and writes replies until the peer has closed its side and has all its answers.
async fn answering(
    cell: CellId,
    stream: Stream,
    lane: Lane,
    side: &Arc<Side>,
    places: &Arc<Places>,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut greeted = false;
    let (replies, mut to_write) = mpsc::channel::<Vec<u8>>(side.settings.requests_per_peer_max.max(1));
    let read = async move {
        while let Some(Frame { number, tag, body }) = side.next(&mut reader).await? {
            match tag {
                Some(Tag::Hello) if lane.greets() && !greeted && body.len() <= HELLO_BYTES_MAX => {
                    greeted = true;
                    side.tell(Command::Hello { from: cell, payload: body }).await;
                }
                Some(Tag::Push) => {
                    Counters::count(&side.counters.pushes_in);
                    side.inbound.push(lane, cell, body).await;
                }
                Some(Tag::Request) => {
                    let Ok(place) = Arc::clone(&places.requests).try_acquire_owned() else {
                        Counters::count(&side.counters.refused_busy);
                        if let Some(frame) = side.frame(number, Tag::Busy, &[]) {
                            let _ = replies.send(frame).await;
                        }
                        continue;
                    };
                    Counters::count(&side.counters.requests_in);
                    let work = side.inbound.request(lane, cell, body);
                    let (side, replies, places) = (Arc::clone(side), replies.clone(), Arc::clone(places));
                    // A task of its own, so that several requests are worked on at once.
                    tokio::spawn(async move {
                        let answer = work.await;
                        // An answer over the bound would end the stream for all: its asker times out.
                        if let Some(frame) = side.frame(number, Tag::Reply, &answer) {
                            let _ = replies.send(frame).await;
                        }
                        drop((place, places));
                    });
                }
                _ => {
                    Counters::count(&side.counters.refused_malformed);
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "a frame that has no place here"));
                }
            }
        }
        Ok(())
    };
    let write = async {
        while let Some(bytes) = to_write.recv().await {
            writer.write_all(&bytes).await?;
            writer.flush().await?;
        }
        writer.close().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

fn busy() -> Problem {
    Problem::new(ProblemKind::Busy, "network.busy", "the peer has too much to do")
        .hint("it is tried again by itself")
}

fn garbled() -> Problem {
    Problem::new(ProblemKind::Unreachable, "network.garbled", "the peer's reply cannot be read")
}

/// The refusal of what was meant for a cell that is not there.
pub(super) fn unreachable(cell: &CellId, why: &str) -> Problem {
    Problem::new(ProblemKind::Unreachable, "network.unreachable", format!("{cell} cannot be reached: {why}"))
        .hint("cell peers shows the connections; messages wait in the outbox meanwhile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_has_under_way_counts_when_it_comes_back() {
        let mut peers = Peers::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let places = peers.places(one, 2);
        let request = Arc::clone(&places.requests).try_acquire_owned().expect("room");
        let of_request = Arc::clone(&places);
        drop(places);
        assert_eq!(
            peers.places(one, 2).requests.available_permits(),
            1,
            "its stream is gone, its request not"
        );
        drop((request, of_request));
        peers.places(other, 2);
        assert!(!peers.0.contains_key(&one), "nothing of it is kept");
        assert_eq!(peers.places(one, 2).requests.available_permits(), 2);
    }
}
