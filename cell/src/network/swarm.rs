//! The event loop: one task owns the swarm; everything else sends it commands.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport, connection_limits, identify, identity, mdns,
    memory_connection_limits, noise, ping, tcp, yamux,
};
use protocol::{CellId, Problem, ProblemKind};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::address::{self, cell_of, peer_id};
use super::calls::{self, Pipe, Side};
use super::direct::{self, HANDSHAKES_MAX, Keys, OPEN_TIMEOUT};
use super::{Command, Counters, Lane, NetworkSettings, PeerStatus, Shared};

/// The first pause before a lost peer is dialled again; doubles up to the longest.
const REDIAL_PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause between two dials of a lost peer.
const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a dial may take, handshakes included. What was sent into a cut is not waited for: the next dial is.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged. The system ends the connection then; a hang-up of ours would wait behind
/// what cannot be sent.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(6);
/// How long nothing may come on a QUIC connection: a process that was killed does not close it.
const QUIC_SILENCE_MAX: Duration = Duration::from_secs(4);
/// How often something is sent on one.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a connection without streams is kept: longer than any pause between messages matters.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// How often a connection is pinged.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long a ping may take. A connection that is slower is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// New connections are refused once the process uses so much memory.
const MEMORY_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
/// How long listening may take to start.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Peers met whose status is remembered.
const PEERS_MET_MAX: usize = 4_096;
/// Addresses remembered of one peer.
const ADDRESSES_MAX: usize = 16;

#[derive(NetworkBehaviour)]
struct Behaviour {
    connections: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    streams: libp2p_stream::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// A peer to stay connected to.
struct Kept {
    addresses: Vec<Multiaddr>,
    pause: Duration,
    next_dial: Instant,
    /// Whether the addresses are news: they are dialled beside a dial of the old ones.
    is_news: bool,
    /// Dials since it was lost.
    dials: u32,
}

impl Kept {
    /// What to dial now, and whether nothing else: plain TCP alone first and every other time, where there is an address of that kind. It tells at
    /// once that a process has ended, and costs the least.
    fn next_addresses(&mut self) -> (Vec<Multiaddr>, bool) {
        let is_plain = |address: &&Multiaddr| {
            let has = |what: fn(&Protocol<'_>) -> bool| address.iter().any(|part| what(&part));
            has(|part| matches!(part, Protocol::Tcp(_)))
                && !has(|part| matches!(part, Protocol::Ws(_) | Protocol::Wss(_)))
        };
        let plain: Vec<Multiaddr> = self.addresses.iter().filter(is_plain).cloned().collect();
        let alone = self.dials.is_multiple_of(2) && !plain.is_empty();
        self.dials = self.dials.wrapping_add(1);
        (if alone { plain } else { self.addresses.clone() }, alone)
    }
}

/// What a connected peer has said of itself.
#[derive(Default)]
struct Met {
    hello: Option<Vec<u8>>,
    addresses: Vec<String>,
}

struct EventLoop {
    swarm: Swarm<Behaviour>,
    side: Arc<Side>,
    shared: Arc<Shared>,
    changed: watch::Sender<u64>,
    kept: BTreeMap<PeerId, Kept>,
    met: HashMap<PeerId, Met>,
}

pub(super) async fn run(
    side: Side,
    mut inbox: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    changed: watch::Sender<u64>,
    ready: oneshot::Sender<Result<(), Problem>>,
) {
    let (handed_over, mut accepted) = mpsc::channel(HANDSHAKES_MAX);
    let built = async {
        let mut swarm = build(&side.settings, handed_over, &shared).await?;
        let mut accept = |lane: Lane| {
            let streams = swarm.behaviour_mut().streams.new_control().accept(lane.protocol());
            streams.map_err(|error| cannot_start(&error))
        };
        let streams = side.settings.lanes.iter().map(|lane| accept(*lane).map(|streams| (*lane, streams)));
        let streams: Vec<_> = streams.collect::<Result<_, _>>()?;
        let mut control = swarm.behaviour().streams.new_control();
        let bytes = control.accept(super::BYTES).map_err(|error| cannot_start(&error))?;
        let _ = shared.control.set(control);
        listen(&mut swarm, &side.settings, &shared).await?;
        Ok::<_, Problem>((swarm, streams, bytes))
    };
    let (swarm, streams, mut bytes) = match built.await {
        Ok(built) => built,
        Err(problem) => {
            let _ = ready.send(Err(problem));
            return;
        }
    };
    if ready.send(Ok(())).is_err() {
        return;
    }
    let side = Arc::new(side);
    let serve = |(lane, streams)| calls::serve(streams, lane, Arc::clone(&side));
    let mut serving: FuturesUnordered<_> = streams.into_iter().map(serve).collect();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut this = EventLoop { swarm, side, shared, changed, kept: BTreeMap::new(), met: HashMap::new() };
    loop {
        let redial = this.next_redial();
        tokio::select! {
            event = this.swarm.select_next_some() => this.on_event(event),
            _ = serving.next() => return,
            Some((peer, stream)) = bytes.next() => if let Some(from) = cell_of(&peer) {
                this.side.inbound.stream(from, stream.into());
            },
            Some(socket) = accepted.recv() => if let Ok(place) = Arc::clone(&handshakes).try_acquire_owned() {
                let (side, shared, changes) = (Arc::clone(&this.side), Arc::clone(&this.shared), this.changed.subscribe());
                tokio::spawn(async move {
                    let _place = place;
                    greet(&side, &shared, changes, socket).await;
                });
            },
            command = inbox.recv() => match command {
                Some(Command::Stop { done }) => {
                    this.shared.pipes().clear();
                    this.shared.directs.close_all();
                    drop(this);
                    let _ = done.send(());
                    return;
                }
                Some(command) => this.on_command(command),
                None => return,
            },
            () = tokio::time::sleep_until(redial.unwrap_or_else(Instant::now)), if redial.is_some() => this.redial(),
        }
    }
}

/// Takes a connection of its own, of a peer that is connected, or is about to be.
async fn greet(side: &Side, shared: &Shared, mut changes: watch::Receiver<u64>, socket: TcpStream) {
    let Some(keys) = shared.keys.get() else { return };
    let greeted = async {
        let (peer, reader) = direct::accept(keys, socket).await.ok()?;
        let from = cell_of(&peer)?;
        while !shared.stands_beside(&from, &reader) {
            changes.changed().await.ok()?;
        }
        Some((from, reader))
    };
    match tokio::time::timeout(OPEN_TIMEOUT, greeted).await {
        Ok(Some((from, reader))) => side.inbound.stream(from, reader.into()),
        _ => Counters::count(&side.counters.refused_connections),
    }
}

async fn build(
    settings: &NetworkSettings,
    handed_over: mpsc::Sender<TcpStream>,
    shared: &Arc<Shared>,
) -> Result<Swarm<Behaviour>, Problem> {
    let mut seed = settings.seed.clone();
    let key = identity::Keypair::ed25519_from_bytes(&mut *seed).map_err(|error| cannot_start(&error))?;
    if settings.direct {
        let keys = Keys::new(&key).map_err(|error| cannot_start(&error))?;
        let _ = shared.keys.set(Arc::new(keys));
    }
    let front =
        Front { handed_over: settings.direct.then_some(handed_over), counters: Arc::clone(&shared.counters) };
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_established(Some(settings.connections_max))
        .with_max_pending_incoming(Some(settings.connections_max.min(128)))
        .with_max_established_per_peer(Some(settings.connections_per_peer_max));
    let discovery = if settings.mdns {
        let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), key.public().to_peer_id());
        Some(behaviour.map_err(|error| cannot_start(&error))?)
    } else {
        None
    };
    let public = key.public();
    let swarm = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_quic_config(|mut config| {
            config.max_idle_timeout = u32::try_from(QUIC_SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
            config.keep_alive_interval = QUIC_KEEP_ALIVE;
            config
        })
        .with_other_transport(|key| tcp(key, front))
        .map_err(|error| cannot_start(&error))?
        .with_dns()
        .map_err(|error| cannot_start(&error))?
        .with_websocket(noise::Config::new, yamux::Config::default)
        .await
        .map_err(|error| cannot_start(&error))?
        .with_behaviour(|_| Behaviour {
            connections: connection_limits::Behaviour::new(limits),
            memory: memory_connection_limits::Behaviour::with_max_bytes(MEMORY_BYTES_MAX),
            streams: libp2p_stream::Behaviour::new(),
            identify: identify::Behaviour::new(
                identify::Config::new("/celluler/1".to_owned(), public).with_agent_version("cell".to_owned()),
            ),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT),
            ),
            mdns: discovery.into(),
        })
        .map_err(|error| cannot_start(&error))?
        .with_swarm_config(|config| {
            // Each stream speaks one protocol: its name goes out with the first bytes, not a round trip
            // ahead of them.
            config
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
        })
        .with_connection_timeout(DIAL_TIMEOUT)
        .build();
    Ok(swarm)
}

/// Where TCP connections come in.
#[derive(Clone)]
struct Front {
    /// Who takes those that are not libp2p's, where somebody does.
    handed_over: Option<mpsc::Sender<TcpStream>>,
    counters: Arc<Counters>,
}

impl Front {
    /// Keeps what is for libp2p. What is not is handed over, and ends here.
    async fn sort(
        self,
        stream: tcp::tokio::TcpStream,
        point: ConnectedPoint,
    ) -> io::Result<tcp::tokio::TcpStream> {
        watch(&stream.0);
        match &self.handed_over {
            Some(handed_over) if point.is_listener() && direct::is_direct(&stream.0).await => {
                if handed_over.try_send(stream.0).is_ok() {
                    Counters::count(&self.counters.handed_over);
                }
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => Ok(stream),
        }
    }
}

/// Has a connection end when nothing gets through any more: by itself TCP would find out after minutes, and be as slow to notice that the way is open
/// again.
pub(super) fn watch(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)) {
        tracing::debug!(%error, "a dead connection will be found by pings alone");
    }
}

/// TCP with Noise and Yamux.
fn tcp(
    key: &identity::Keypair,
    front: Front,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(|stream, point| front.sort(stream, point))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Abrupt(Some(muxer)))))
        .boxed())
}

/// A connection that ends at once when this side hangs up, with all its streams. Yamux (0.14) would flush first, which takes for ever where nothing gets
/// through, and it tells nobody who reads from a stream or waits for room on one: they would wait for ever as well, and keep their places.
struct Abrupt<M>(Option<M>);

impl<M: StreamMuxer + Unpin> StreamMuxer for Abrupt<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.get_mut().0.as_mut().map_or(Poll::Pending, |muxer| Pin::new(muxer).poll_inbound(cx))
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.get_mut().0.as_mut().map_or(Poll::Pending, |muxer| Pin::new(muxer).poll_outbound(cx))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Dropped, it wakes all its streams, and the system closes the socket.
        self.get_mut().0 = None;
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.get_mut().0.as_mut().map_or(Poll::Pending, |muxer| Pin::new(muxer).poll(cx))
    }
}

fn cannot_start(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Fault, "network.cannot_start", format!("the network cannot start: {error}"))
        .hint("check the system's network settings (/etc/resolv.conf, certificates)")
}

/// Listens everywhere it should, and waits until it does.
async fn listen(
    swarm: &mut Swarm<Behaviour>,
    settings: &NetworkSettings,
    shared: &Shared,
) -> Result<(), Problem> {
    let mut waiting = HashMap::new();
    for text in &settings.listen {
        let id = swarm
            .listen_on(address::parse(text)?)
            .map_err(|error| cannot_listen(text, &error.to_string()))?;
        waiting.insert(id, text.clone());
    }
    let deadline = Instant::now() + LISTEN_TIMEOUT;
    while let Some(text) = waiting.values().next().cloned() {
        let event = tokio::time::timeout_at(deadline, swarm.select_next_some());
        match event.await.map_err(|_| cannot_listen(&text, "nothing happened"))? {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.remove(&listener_id);
                listens(swarm, shared, address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                let text = waiting.remove(&listener_id).unwrap_or_default();
                return Err(cannot_listen(&text, &format!("{reason:?}")));
            }
            SwarmEvent::ListenerError { listener_id, error } => {
                let text = waiting.remove(&listener_id).unwrap_or_default();
                return Err(cannot_listen(&text, &error.to_string()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn listens(swarm: &Swarm<Behaviour>, shared: &Shared, address: Multiaddr) {
    let address = address.with(Protocol::P2p(*swarm.local_peer_id())).to_string();
    let mut addresses = shared.addresses.lock().unwrap_or_else(PoisonError::into_inner);
    addresses.push(address);
    // Plain TCP first: what everybody speaks. The others follow in a stable order.
    addresses.sort_by_key(|address| (address.contains("/quic"), address.contains("/ws"), address.clone()));
}

fn cannot_listen(address: &str, why: &str) -> Problem {
    if why.contains("in use") || why.contains("AddrInUse") {
        let cause = format!("another process listens on {address}");
        return Problem::new(ProblemKind::Conflict, "network.port_in_use", cause).hint(
            "stop that process, or choose other ports: network.listen in cell.toml (port 0 takes a free one)",
        );
    }
    Problem::new(ProblemKind::Invalid, "network.cannot_listen", format!("cannot listen on {address}: {why}"))
        .hint("check network.listen in cell.toml")
}

impl EventLoop {
    fn on_command(&mut self, command: Command) {
        match command {
            Command::Hello { from, payload } => self.said_hello(&from, payload),
            Command::HangUp { peer } => {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::Keep { peer, addresses } => self.keep(&peer, &addresses),
            Command::Forget { peer } => {
                if let Some(peer) = peer_id(&peer) {
                    self.kept.remove(&peer);
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            Command::Stop { .. } => {}
        }
    }

    fn keep(&mut self, cell: &CellId, addresses: &[String]) {
        let Some(peer) = peer_id(cell).filter(|peer| peer != self.swarm.local_peer_id()) else { return };
        let addresses: Vec<Multiaddr> =
            addresses.iter().filter_map(|text| text.parse().ok()).take(ADDRESSES_MAX).collect();
        let kept = self.kept.entry(peer).or_insert_with(|| Kept {
            addresses: Vec::new(),
            pause: REDIAL_PAUSE_MIN,
            next_dial: Instant::now(),
            is_news: true,
            dials: 0,
        });
        if addresses.iter().any(|address| !kept.addresses.contains(address)) {
            kept.addresses = addresses;
            kept.pause = REDIAL_PAUSE_MIN;
            kept.next_dial = Instant::now();
            kept.is_news = true;
        }
    }

    fn next_redial(&self) -> Option<Instant> {
        let lost = self.kept.iter().filter(|(peer, _)| !self.swarm.is_connected(peer));
        lost.map(|(_, kept)| kept.next_dial).min()
    }

    fn redial(&mut self) {
        let now = Instant::now();
        for (peer, kept) in &mut self.kept {
            if self.swarm.is_connected(peer) || kept.next_dial > now {
                continue;
            }
            kept.pause = (kept.pause * 2).min(REDIAL_PAUSE_MAX);
            // Two cells that lost each other must not dial in step for ever.
            let spread =
                kept.pause.mul_f64(f64::from(peer.as_ref().digest().last().copied().unwrap_or(0)) / 1024.0);
            kept.next_dial = now + kept.pause + spread;
            let condition = if std::mem::take(&mut kept.is_news) {
                PeerCondition::Disconnected
            } else {
                PeerCondition::DisconnectedAndNotDialing
            };
            let (addresses, alone) = kept.next_addresses();
            let options = DialOpts::peer_id(*peer).condition(condition).addresses(addresses);
            let options = if alone { options } else { options.extend_addresses_through_behaviour() };
            let _ = self.swarm.dial(options.build());
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                self.learn(peer_id, info.listen_addrs);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. })) => {
                let rtt_us = u64::try_from(rtt.as_micros()).ok();
                self.update(&peer, |status| status.rtt_us = rtt_us);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(ping::Failure::Timeout),
                ..
            })) => {
                tracing::info!(%connection, "a connection is ended: nothing came back in time");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    self.learn(peer, vec![address]);
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, num_established, endpoint, .. } => {
                match cell_of(&peer_id) {
                    Some(cell) if num_established.get() == 1 => {
                        if endpoint.is_dialer() {
                            self.shared.ways().insert(cell, vec![endpoint.get_remote_address().clone()]);
                        }
                        self.on_connected(cell, peer_id);
                    }
                    Some(_) => {}
                    None => drop(self.swarm.disconnect_peer_id(peer_id)),
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.update(&peer_id, |status| status.connected = false);
                self.met.remove(&peer_id);
                if let Some(cell) = cell_of(&peer_id) {
                    self.shared.pipes().retain(|(peer, _), _| *peer != cell);
                    self.shared.ways().remove(&cell);
                    self.shared.directs.close(&cell);
                }
                if let Some(kept) = self.kept.get_mut(&peer_id) {
                    (kept.pause, kept.dials) = (REDIAL_PAUSE_MIN, 0);
                    kept.next_dial = Instant::now() + REDIAL_PAUSE_MIN;
                }
                self.changed.send_modify(|count| *count += 1);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                let why: String = error.to_string().chars().take(300).collect();
                self.update(&peer, |status| status.last_error = Some(why));
            }
            SwarmEvent::IncomingConnectionError { .. } => {
                // One that was handed over ends for libp2p, and is no error.
                let less = |count: u64| count.checked_sub(1);
                let handed_over = &self.side.counters.handed_over;
                if handed_over.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
                    Counters::count(&self.side.counters.refused_connections);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => listens(&self.swarm, &self.shared, address),
            _ => {}
        }
    }

    fn on_connected(&mut self, cell: CellId, peer: PeerId) {
        if let Some(kept) = self.kept.get_mut(&peer) {
            kept.pause = REDIAL_PAUSE_MIN;
        }
        self.met.insert(peer, Met::default());
        self.update(&peer, |status| *status = PeerStatus { connected: true, ..PeerStatus::default() });
        for lane in self.side.settings.lanes.iter().copied() {
            let control = self.swarm.behaviour().streams.new_control();
            let pipe = Pipe::open(cell, peer, lane, control, &self.side);
            self.shared.pipes().insert((cell, lane), pipe);
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// A peer tells where it listens: the way to it when its address has changed.
    fn learn(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let with_id = |address: Multiaddr| match address.iter().last() {
            Some(Protocol::P2p(_)) => address,
            _ => address.with(Protocol::P2p(peer)),
        };
        let addresses: Vec<Multiaddr> = addresses.into_iter().take(ADDRESSES_MAX).map(with_id).collect();
        if let Some(kept) = self.kept.get_mut(&peer) {
            if addresses.iter().any(|address| !kept.addresses.contains(address)) {
                kept.next_dial = Instant::now();
                kept.is_news = true;
            }
            // What it says now first; what was known before may still be a way.
            let before = kept.addresses.drain(..).filter(|address| !addresses.contains(address));
            kept.addresses = addresses.iter().cloned().chain(before.collect::<Vec<_>>()).collect();
            kept.addresses.truncate(ADDRESSES_MAX);
        }
        if let (Some(cell), true) = (cell_of(&peer), self.met.contains_key(&peer)) {
            let mut ways = self.shared.ways();
            let known = ways.entry(cell).or_default();
            known.extend(
                addresses.iter().filter(|address| !known.contains(address)).cloned().collect::<Vec<_>>(),
            );
            known.truncate(ADDRESSES_MAX);
        }
        if let Some(met) = self.met.get_mut(&peer) {
            met.addresses = addresses.iter().map(Multiaddr::to_string).collect();
            self.introduce(&peer);
        }
    }

    fn said_hello(&mut self, cell: &CellId, payload: Vec<u8>) {
        let Some(peer) = peer_id(cell) else { return };
        if let Some(met) = self.met.get_mut(&peer) {
            met.hello = Some(payload);
            self.introduce(&peer);
        }
    }

    /// Tells what is known of a connected peer: the hello and the addresses come in either order.
    fn introduce(&self, peer: &PeerId) {
        if let (Some(cell), Some(Met { hello: Some(hello), addresses })) = (cell_of(peer), self.met.get(peer))
        {
            self.side.inbound.hello(cell, hello.clone(), addresses.clone());
        }
    }

    fn update(&self, peer: &PeerId, change: impl FnOnce(&mut PeerStatus)) {
        let Some(cell) = cell_of(peer) else { return };
        let mut peers = self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_MET_MAX && !peers.contains_key(&cell) {
            let gone = peers.iter().find(|(_, status)| !status.connected).map(|(cell, _)| *cell);
            let Some(gone) = gone else { return };
            peers.remove(&gone);
        }
        change(peers.entry(cell).or_default());
    }
}
