//! Cell to cell: opaque requests and replies over libp2p. Knows nothing of messages.
//!
//! Transports: TCP and WebSocket (Noise, Yamux) and QUIC; whichever the listen addresses name. Every
//! peer is identified by its cell's ed25519 key. Right after a connection each side opens one stream to
//! the other, says hello on it, and asks on it from then on (`calls`).
//!
//! What is asked goes by lanes ([`Lane`]), a stream each, so that a journal that is copied does not hold up
//! messages. What needs no reply is pushed on the same streams: it is read in order, one after the other.
//!
//! What hosts of one cell ask all the time goes on connections of its own (`direct`), where they can be had.
//!
//! Bounds: connections, connections and streams per peer, requests under way per peer both ways, bytes of
//! a frame (checked before anything is allocated), commands that wait for the event loop. What is over a
//! bound is refused and counted.
//!
//! The only room that names libp2p.

mod address;
mod bytes;
mod calls;
mod direct;
mod frame;
mod swarm;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::{CellId, Problem, ProblemKind};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use calls::{Pipe, Side, unreachable};
use direct::{DirectReader, Directs, Keys};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

pub use address::{cell_of, parse_peer_address, peer_id_of};
pub use bytes::{Beside, ByteReader, ByteStream, ByteWriter, Carries, WriteBeside};

/// Commands that wait for the event loop.
const COMMANDS_MAX: usize = 1_024;
/// How often a peer that does not answer in time is dialled for a connection of its own, before a stream of libp2p's has to do.
const DIRECT_TRIES: u32 = 3;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Messages between cells.
    Cells,
    /// Journals that are copied.
    Journals,
    /// Events of the hashgraph, and final blocks.
    Events,
    /// The data of data sets.
    Data,
    /// What hosts of one cell ask of each other, besides calls.
    Hosts,
}

impl Lane {
    /// The lanes between cells.
    pub const BETWEEN_CELLS: &[Self] = &[Self::Cells, Self::Journals, Self::Events, Self::Data];
    /// The lanes between the hosts of one cell.
    pub const BETWEEN_HOSTS: &[Self] = &[Self::Hosts, Self::Journals];

    /// Whether a hello is said on it, so that it is opened as soon as two are connected.
    const fn greets(self) -> bool {
        matches!(self, Self::Cells | Self::Hosts)
    }

    /// Its name on the wire.
    const fn protocol(self) -> StreamProtocol {
        match self {
            Self::Cells => StreamProtocol::new("/celluler/cell/1"),
            Self::Journals => StreamProtocol::new("/celluler/journal/1"),
            Self::Events => StreamProtocol::new("/celluler/events/1"),
            Self::Data => StreamProtocol::new("/celluler/data/1"),
            Self::Hosts => StreamProtocol::new("/celluler/hosts/1"),
        }
    }
}

/// The name of streams that are read and written as bytes.
const BYTES: StreamProtocol = StreamProtocol::new("/celluler/bridge/1");

/// Settings of the network.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// The seed of the cell's key: the peer id derives from it.
    pub seed: Zeroizing<[u8; 32]>,
    /// Multiaddresses to listen on; port 0 takes a free one.
    pub listen: Vec<String>,
    /// What is asked by.
    pub lanes: &'static [Lane],
    /// What this cell says in its hello.
    pub hello: Vec<u8>,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Connections at once.
    pub connections_max: u32,
    /// Connections at once with one peer.
    pub connections_per_peer_max: u32,
    /// Requests of one peer under way here.
    pub requests_per_peer_max: usize,
    /// Bytes of one request or reply.
    pub frame_bytes_max: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// Whether streams of bytes are given connections of their own.
    pub direct: bool,
}

/// Who answers requests of other cells.
pub trait Inbound: Send + Sync + 'static {
    /// Answers a request.
    fn request(&self, lane: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, Vec<u8>>;
    /// Takes what was pushed and has no reply. The peer's next push waits for it.
    fn push(&self, lane: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, ()>;
    /// A peer said hello.
    fn hello(&self, from: CellId, payload: Vec<u8>, addresses: Vec<String>);
    /// Takes a stream of bytes that a peer has opened ([`Network::open`]). Nobody opens one to a cell.
    fn stream(&self, _from: CellId, _stream: ByteStream) {}
}

/// One peer as it is now.
#[derive(Clone, Debug, Default)]
pub struct PeerStatus {
    /// Whether it is connected.
    pub connected: bool,
    /// The last ping's round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// Why the last dial failed.
    pub last_error: Option<String>,
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests of other cells that were answered.
    pub requests_in: AtomicU64,
    /// Requests to other cells.
    pub requests_out: AtomicU64,
    /// Pushes to other cells.
    pub pushes_out: AtomicU64,
    /// Pushes of other cells.
    pub pushes_in: AtomicU64,
    /// Pushes to other cells that found no room, or no connection.
    pub pushes_dropped: AtomicU64,
    /// Frames refused because they were over the bound.
    pub refused_oversized: AtomicU64,
    /// Requests refused because too many of that peer were under way.
    pub refused_busy: AtomicU64,
    /// Streams that ended in the middle of a frame, or spoke no protocol of ours.
    pub refused_malformed: AtomicU64,
    /// Connections that were handed over and have not ended for libp2p yet.
    handed_over: AtomicU64,
    /// Connections refused by a limit or a failed handshake.
    pub refused_connections: AtomicU64,
    /// Messages whose signature is not their sender's. Counted by whoever reads the requests.
    pub refused_forged: AtomicU64,
    /// Events of the hashgraph that no honest member makes, or that come from a stranger. Counted by whoever reads them.
    pub refused_events: AtomicU64,
    /// Questions about journals that the access list refused. Counted by whoever reads the requests.
    pub refused_journals: AtomicU64,
    /// Messages refused for another reason. Counted by whoever reads the requests.
    pub refused_messages: AtomicU64,
}

impl Counters {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Shared {
    peers: Mutex<BTreeMap<CellId, PeerStatus>>,
    addresses: Mutex<Vec<String>>,
    /// The way to ask each connected peer.
    pipes: Mutex<HashMap<(CellId, Lane), Pipe>>,
    /// Opens streams.
    control: OnceLock<libp2p_stream::Control>,
    /// Opens connections of their own, where they are wanted.
    keys: OnceLock<Arc<Keys>>,
    /// Where peers that are connected may be dialled, the likeliest first.
    ways: Mutex<HashMap<CellId, Vec<Multiaddr>>>,
    directs: Directs,
    counters: Arc<Counters>,
}

impl Shared {
    fn ways(&self) -> MutexGuard<'_, HashMap<CellId, Vec<Multiaddr>>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_connected(&self, cell: &CellId) -> bool {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(cell).is_some_and(|peer| peer.connected)
    }

    /// Whether libp2p has connected a peer, so that a connection of its own may stand beside that; it ends with it then.
    fn stands_beside(&self, peer: &CellId, reader: &DirectReader) -> bool {
        if !self.is_connected(peer) {
            return false;
        }
        self.directs.enter(*peer, reader);
        // Where it was lost meanwhile, nobody else would end this one.
        let stands = self.is_connected(peer);
        if !stands {
            self.directs.close(peer);
        }
        stands
    }

    fn pipes(&self) -> MutexGuard<'_, HashMap<(CellId, Lane), Pipe>> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Command {
    Keep {
        peer: CellId,
        addresses: Vec<String>,
    },
    Forget {
        peer: CellId,
    },
    /// A peer has said hello.
    Hello {
        from: CellId,
        payload: Vec<u8>,
    },
    /// A peer speaks what nobody understands.
    HangUp {
        peer: PeerId,
    },
    Stop {
        done: oneshot::Sender<()>,
    },
}

/// The network of a cell. Clones are handles to the same one.
#[derive(Clone)]
pub struct Network {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
}

impl Network {
    /// Starts listening; the event loop runs on the given runtime.
    ///
    /// # Errors
    ///
    /// `network.bad_address`, `network.port_in_use`, `network.cannot_listen`.
    pub async fn start(
        settings: NetworkSettings,
        inbound: Arc<dyn Inbound>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, Problem> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (changed, changes) = watch::channel(0);
        let shared = Arc::new(Shared::default());
        let (ready, listening) = oneshot::channel();
        let counters = Arc::clone(&shared.counters);
        let side = Side { settings, inbound, counters, commands: commands.downgrade() };
        let event_loop = swarm::run(side, inbox, Arc::clone(&shared), changed, ready);
        runtime.spawn(event_loop);
        listening.await.map_err(|_| stopped())??;
        Ok(Self { commands, shared, changes })
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    ///
    /// `network.unreachable`, `network.busy`, `network.too_large`. After a failure it is not known
    /// whether the peer has seen the request.
    pub async fn request(&self, lane: Lane, to: CellId, bytes: Vec<u8>) -> Result<Vec<u8>, Problem> {
        let pipe = self.shared.pipes().get(&(to, lane)).cloned();
        match pipe {
            Some(pipe) => pipe.ask(bytes).await,
            None => Err(unreachable(&to, "it is not connected")),
        }
    }

    /// Sends what needs no reply; says whether there was room for it. Nobody is told whether it arrives.
    pub fn push(&self, lane: Lane, to: &CellId, bytes: Vec<u8>) -> bool {
        let pipe = self.shared.pipes().get(&(*to, lane)).cloned();
        let is_sent = pipe.is_some_and(|pipe| pipe.push(bytes));
        if !is_sent {
            Counters::count(&self.shared.counters.pushes_dropped);
        }
        is_sent
    }

    /// Opens a stream of bytes to a connected peer: a connection of its own, or one of libp2p's streams where that cannot be had.
    ///
    /// # Errors
    ///
    /// `network.unreachable`.
    pub async fn open(&self, to: &CellId) -> Result<ByteStream, Problem> {
        // A stream's opening would dial, and its failure tell of a change: whoever opens it again with each change would never pause.
        if !self.peer(to).connected {
            return Err(unreachable(to, "it is not connected"));
        }
        for _ in 0..DIRECT_TRIES {
            match self.dial_direct(to, Carries::Calls).await {
                Ok(stream) => return Ok(stream),
                // Who has none refuses at once; who is busy does not for ever, and a stream of libp2p's would stay.
                Err(error) => {
                    tracing::debug!(%error, "no connection of its own to a peer");
                    if error.kind() != io::ErrorKind::TimedOut {
                        break;
                    }
                }
            }
        }
        let (control, peer) = (self.shared.control.get().cloned(), address::peer_id(to));
        let (Some(mut control), Some(peer)) = (control, peer) else { return Err(stopped()) };
        let opened = control.open_stream(peer, BYTES).await;
        opened.map(ByteStream::from).map_err(|error| unreachable(to, &error.to_string()))
    }

    /// Opens a connection of its own to a connected peer.
    ///
    /// # Errors
    ///
    /// `network.unreachable`.
    pub async fn open_direct(&self, to: &CellId, carries: Carries) -> Result<ByteStream, Problem> {
        self.dial_direct(to, carries).await.map_err(|error| unreachable(to, &error.to_string()))
    }

    async fn dial_direct(&self, to: &CellId, carries: Carries) -> io::Result<ByteStream> {
        let (keys, peer) = (self.shared.keys.get(), address::peer_id(to));
        let (Some(keys), Some(peer)) = (keys, peer) else { return Err(io::ErrorKind::NotConnected.into()) };
        let ways = self.shared.ways().get(to).cloned().unwrap_or_default();
        let reader = direct::dial(keys, peer, &ways, carries).await?;
        match self.shared.stands_beside(to, &reader) {
            true => Ok(reader.into()),
            false => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Stays connected to a peer: dials it now, and again whenever the connection is lost.
    pub async fn keep(&self, peer: CellId, addresses: Vec<String>) {
        let _ = self.commands.send(Command::Keep { peer, addresses }).await;
    }

    /// Hangs up, and stops dialling.
    pub async fn forget(&self, peer: CellId) {
        let _ = self.commands.send(Command::Forget { peer }).await;
    }

    /// The peers that are connected.
    pub fn connected_peers(&self) -> Vec<CellId> {
        let peers = self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().filter(|(_, peer)| peer.connected).map(|(cell, _)| *cell).collect()
    }

    /// A peer as it is now.
    pub fn peer(&self, cell: &CellId) -> PeerStatus {
        self.peers().get(cell).cloned().unwrap_or_default()
    }

    /// All peers met since the start.
    pub fn peers(&self) -> BTreeMap<CellId, PeerStatus> {
        self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many peers are connected.
    pub fn connected(&self) -> usize {
        let peers = self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.values().filter(|peer| peer.connected).count()
    }

    /// Where this cell listens, with its peer id.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever a peer connects or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Hangs up everywhere and stops listening.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { done }).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

fn stopped() -> Problem {
    Problem::new(ProblemKind::Unavailable, "network.stopped", "the network has stopped")
}
