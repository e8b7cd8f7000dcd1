//! The bridge: one cell over several hosts.
//!
//! - The host that **leads** runs Nucleus and what faces other cells: network, gossip, deliveries, fronts. The others run services for it. It is
//!   the one that the cell was made on, or the one that those elect that may lead.
//! - `frames`, `outbox`, `link`, `serve`: calls. Each host keeps one stream open to each other host and asks on it; many calls are under way at
//!   once, and a large body goes in pieces between the others.
//! - `incoming`: streamed answers, by credit.
//! - `wire`: what hosts ask of each other besides calls; `orders` answers it; `lead`, `moves` and `keeper` ask it.
//! - `leases`: until when each host may write what was granted to it; `keeper`: has every service run that was granted, and takes over what
//!   lost hosts ran.
//! - `drain`: a host is emptied before it is stopped, and one that leads hands that over.
//! - `voters`: the hosts that elect who leads, where there are some; `acks`: what a writer waits for.
//! - `registry`: what each host says of itself, several times a second.
//! - `copies`: the journals that are written on other hosts, copied and checked here. The lead has one of each.
//! - `effects`: what services on other hosts ask of the world, brought to the lead.
//! - `traces`: what the other hosts have recorded of traces.
//! - `ticket`, `join`, `place`: how a host becomes one, and what it remembers.
//!
//! Rules:
//!
//! - A host is known by its key, which Nucleus admitted by a ticket. From whoever is not admitted nothing is taken but the wish to join.
//! - A journal is written by the one host that Nucleus granted it to. The keys of a journal go to that host alone, and stay in its memory.
//! - A call goes to the process that the stream was opened to. When that ends, what was under way has failed, or its outcome is not known; it
//!   is never given to another process.
//! - Effects come in order, each batch until the lead has it; a lead that begins another life has the service asked for all that it owes.
//!
//! Bounds: hosts (Nucleus), calls under way (the bus's bulkheads, and `CALLS_MAX` a stream), bytes of a body (`BODY_BYTES_MAX`), copies (one a
//! service), effects of one request (`effects::BATCH_MAX`).

mod acks;
mod copies;
mod drain;
mod effects;
mod frames;
#[cfg(test)]
mod golden;
mod incoming;
mod join;
mod keeper;
mod lead;
mod leases;
mod link;
mod moves;
mod orders;
mod outbox;
mod place;
mod registry;
mod serve;
mod ticket;
mod traces;
mod voters;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::nucleus::{GrantView, HostEntry, HostView, Roster};
use protocol::{CellId, HostId, Problem, ProblemKind, Service, codec};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::bus::ServicePlace;
use crate::network::{ByteStream, Carries, Inbound, Lane, Network, NetworkSettings};
use crate::node::Host;
use crate::quorum::Quorum;
use copies::Copies;
use link::Link;
use registry::Registry;
use wire::{Ask, Head, Hello, Reply, Said};

pub(crate) use effects::forward as forward_effects;
pub use join::{JoinOptions, JoinReport, join};
pub use lead::Lead;
pub(crate) use lead::is_known_outside;
pub use place::{Joined, KnownHosts, joined, key as host_key, known_hosts};
pub(crate) use traces::{latest as latest_traces, spans as spans_of};
pub(crate) use voters::{gathered, has_voted, hold, hold_once};

/// How long a question between hosts may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once.
const CONNECTIONS_MAX: u32 = 256;
/// Questions of one host under way.
const ASKS_MAX: usize = 64;
/// Bytes of one question or answer between hosts.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the bridge knows of the cell's hosts.
#[derive(Clone, Debug)]
struct Known {
    roster: Roster,
    /// Who leads, as far as is known.
    lead: Option<HostId>,
    /// In which term, where leading is by election.
    term: u64,
    /// Who has told of the roster.
    told_by: Option<HostId>,
    /// The hosts that vote, as the lead says; none where nobody but it does.
    voters: Vec<HostId>,
}

/// The way to the other hosts.
pub struct Bridge {
    host: Weak<Host>,
    key: HostId,
    incarnation: u64,
    network: OnceLock<Network>,
    known: RwLock<Known>,
    links: Mutex<BTreeMap<HostId, Arc<Link>>>,
    /// The services that are on their way. Held by whoever points the bus at where services are.
    moving: Mutex<BTreeSet<Service>>,
    registry: Registry,
    copies: Copies,
    lead: OnceLock<Arc<Lead>>,
    quorum: OnceLock<Arc<Quorum>>,
    acks: acks::Acks,
    stopping: watch::Sender<bool>,
}

/// A service on its way. Calls go where it is when this is dropped.
struct Moving(Arc<Bridge>, Service);

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.moving.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
        self.0.place_all();
    }
}

/// What a bridge begins with.
pub(crate) struct Start {
    /// The seed of this host's key.
    pub(crate) seed: Zeroizing<[u8; 32]>,
    /// The hosts that it knows of.
    pub(crate) roster: Roster,
    /// Who leads, where that is another one, as far as is known.
    pub(crate) led_by: Option<HostEntry>,
    /// What it leads with, where it does.
    pub(crate) lead: Option<Arc<Lead>>,
}

impl Bridge {
    /// Listens, and stays connected to the hosts that it knows of.
    ///
    /// # Errors
    ///
    /// `network.bad_address`, `network.port_in_use`, `network.cannot_listen`.
    pub(crate) async fn start(host: &Arc<Host>, start: Start) -> Result<Arc<Self>, Problem> {
        let key = place::id_of(&start.seed);
        let lead = match (&start.led_by, &start.lead) {
            (Some(other), _) => Some(other.key),
            (None, Some(_)) => Some(key),
            (None, None) => None,
        };
        let incarnation = place::next_incarnation(&host.folder)?;
        let this = Arc::new(Self {
            host: Arc::downgrade(host),
            key,
            incarnation,
            network: OnceLock::new(),
            known: RwLock::new(Known {
                roster: start.roster,
                lead,
                term: 0,
                told_by: None,
                voters: Vec::new(),
            }),
            links: Mutex::default(),
            moving: Mutex::default(),
            registry: Registry::default(),
            copies: Copies::new(Arc::downgrade(host)),
            lead: OnceLock::new(),
            quorum: OnceLock::new(),
            acks: acks::Acks::default(),
            stopping: watch::Sender::new(false),
        });
        let hello = Hello {
            cell: host.cell,
            name: host.name.clone(),
            incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let settings =
            network_settings(start.seed, host.settings.bridge.listen.clone(), codec::encode(&hello));
        let gate = Arc::new(Gate(Arc::downgrade(&this)));
        let network = Network::start(settings, gate, &host.edge).await?;
        let _ = this.network.set(network);
        if let Some(lead) = start.lead {
            let _ = this.lead.set(lead);
        }
        if let Some(lead) = start.led_by {
            this.network().keep(as_peer(lead.key), lead.addresses.clone()).await;
        }
        this.place_all();
        this.meet().await;
        host.edge.spawn(registry::tell(Arc::clone(&this)));
        match this.leads() {
            true => host.edge.spawn(keeper::run(Arc::clone(&this))),
            false => host.edge.spawn(leases::keep(Arc::clone(&this))),
        };
        Ok(this)
    }

    fn host(&self) -> Result<Arc<Host>, Problem> {
        self.host.upgrade().ok_or_else(stopping)
    }

    fn network(&self) -> &Network {
        self.network.get().expect("the network is there before anything is asked of the bridge")
    }

    /// This host's key.
    pub fn key(&self) -> HostId {
        self.key
    }

    /// Where other hosts reach this one.
    pub fn addresses(&self) -> Vec<String> {
        self.network().addresses()
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<HostId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a key is that of a host of this cell.
    fn is_admitted(&self, key: &HostId) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.lead == Some(*key) || known.roster.hosts.iter().any(|host| host.key == *key)
    }

    fn entry(&self, key: &HostId) -> Option<HostEntry> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.roster.hosts.iter().find(|host| host.key == *key).cloned()
    }

    fn entry_named(&self, name: &str) -> Option<HostEntry> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.roster.hosts.iter().find(|host| host.name == name).cloned()
    }

    /// The host that somebody names.
    ///
    /// # Errors
    ///
    /// `nucleus.unknown_host`.
    fn host_named(&self, name: &str) -> Result<HostEntry, Problem> {
        self.entry_named(name).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            Problem::from(nucleus::Refusal::UnknownHost { name: shown })
        })
    }

    /// Whether this host leads.
    fn leads(&self) -> bool {
        self.lead.get().is_some()
    }

    /// Another host leads than before, or in another term; what was known of an earlier one says nothing against it.
    pub(crate) async fn led_by(self: &Arc<Self>, lead: HostId, term: u64) {
        let before = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if term < known.term || (term, Some(lead)) == (known.term, known.lead) {
                return;
            }
            known.term = term;
            known.lead.replace(lead)
        };
        tracing::info!(%lead, term, "a host leads the cell");
        self.remember();
        self.place_all();
        if lead == self.key
            && !self.leads()
            && let Ok(host) = self.host()
        {
            // Calls wait until it is ready.
            host.bus.place(Service::Nucleus, ServicePlace::Moving);
            host.bus.place_fronts(ServicePlace::Moving);
        }
        if let Some(before) = before.filter(|before| *before != lead) {
            self.give_up_on(&before);
        }
        self.meet().await;
    }

    /// Whoever waits for a host that was taken over from is not to wait any longer: it may be frozen, and its connections open.
    fn give_up_on(&self, key: &HostId) {
        let link = self.links().get(key).cloned();
        if let Some(link) = link {
            link.fail_all();
        }
        self.copies.give_up_on(*key);
    }

    /// Leads from now on, as it was elected to: keeps what was granted, and sets the other hosts up.
    pub(crate) async fn begin_to_lead(self: &Arc<Self>, lead: &Arc<Lead>, term: u64) -> Result<(), Problem> {
        let host = self.host()?;
        let _ = self.lead.set(Arc::clone(lead));
        self.led_by(self.key, term).await;
        let roster = lead::learn_anew(&host, self).await?;
        self.place_all();
        let elsewhere = |grant: &&GrantView| grant.service != Service::Nucleus && grant.host != host.name;
        for grant in roster.grants.iter().filter(elsewhere) {
            lead.follow(self, grant.service).await;
        }
        host.edge.spawn(keeper::run(Arc::clone(self)));
        for (key, incarnation) in self.registry.connected(self) {
            host.edge.spawn(lead::greet(Arc::clone(self), key, incarnation));
        }
        Ok(())
    }

    /// Remembers who the hosts are and who leads, for the next start: a hint, where hosts elect.
    fn remember(&self) {
        let (known, Ok(host)) = (self.known(), self.host()) else { return };
        let dir = host.folder.path();
        if self.quorum().is_none() && known.term == 0 {
            return;
        }
        if let Err(error) = place::remember_hosts(dir, known.lead, &known.roster.hosts) {
            tracing::warn!(%error, "who the hosts are could not be remembered");
        }
    }

    /// The way to call another host; made when first needed, and kept while the host is admitted.
    fn link(self: &Arc<Self>, entry: &HostEntry) -> Arc<Link> {
        let mut links = self.links();
        Arc::clone(links.entry(entry.key).or_insert_with(|| Link::open(self, entry)))
    }

    /// Whether a host can be called now.
    fn can_call(&self, key: &HostId) -> bool {
        self.links().get(key).is_some_and(|link| link.is_open())
    }

    /// Remembers who the hosts are and what each may write; says what it knew before, unless that is as new.
    fn know(&self, roster: Roster) -> Option<Roster> {
        let before = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // What is told by several ways may come in any order.
            let is_newer = known.roster.number <= roster.number;
            // Whoever led before may have granted what it could not tell to most: that is not so.
            let is_told_anew = known.term > 0 && known.told_by != known.lead;
            known.told_by = known.lead;
            (is_newer || is_told_anew).then(|| std::mem::replace(&mut known.roster, roster))?
        };
        self.remember();
        Some(before)
    }

    /// Takes over who the hosts are and what each may write: removed ones are hung up on, calls go where services are now, and what is
    /// another host's to write stops here.
    async fn learn(self: &Arc<Self>, roster: Roster) {
        let stays: Vec<HostId> = roster.hosts.iter().map(|host| host.key).collect();
        let taken_over: Vec<GrantView> =
            roster.grants.iter().filter(|grant| grant.takeover).cloned().collect();
        let Some(before) = self.know(roster) else { return };
        for key in before.hosts.iter().map(|host| host.key).filter(|key| !stays.contains(key)) {
            self.links().remove(&key);
            self.registry.forget(&key);
            self.network().forget(as_peer(key)).await;
        }
        self.place_all();
        for grant in &taken_over {
            let old = before.grants.iter().find(|old| old.service == grant.service && old.host != grant.host);
            if let Some(key) = old.and_then(|old| self.entry_named(&old.host)).map(|host| host.key) {
                self.give_up_on(&key);
            }
        }
        leases::stop_what_is_not_mine(self);
        self.meet().await;
    }

    /// Has calls of a service wait until it is where it goes, or stays.
    fn begin_move(self: &Arc<Self>, service: Service) -> Moving {
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        moving.insert(service);
        if let Ok(host) = self.host() {
            host.bus.place(service, ServicePlace::Moving);
        }
        Moving(Arc::clone(self), service)
    }

    /// Points the bus at where each service is.
    fn place_all(self: &Arc<Self>) {
        let Ok(host) = self.host() else { return };
        // What is known is read while nobody else places: the last one knows the most.
        let moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known();
        let there = |key: &HostId| {
            let entry = known.roster.hosts.iter().find(|host| host.key == *key)?;
            Some(ServicePlace::There(self.link(entry)))
        };
        for grant in &known.roster.grants {
            if grant.service == Service::Nucleus || moving.contains(&grant.service) {
                continue;
            }
            let holder = known.roster.hosts.iter().find(|host| host.name == grant.host);
            match holder.filter(|holder| holder.key != self.key) {
                Some(holder) => host.bus.place(grant.service, ServicePlace::There(self.link(holder))),
                None => host.bus.place(grant.service, ServicePlace::Here),
            }
        }
        let lead = known.lead.filter(|lead| *lead != self.key);
        if let Some(place) = lead.as_ref().and_then(there) {
            host.bus.place(Service::Nucleus, place.clone());
            host.bus.place_fronts(place);
        } else if known.term > 0 && self.leads() {
            host.bus.place(Service::Nucleus, ServicePlace::Here);
            host.bus.place_fronts(ServicePlace::Here);
        }
    }

    /// Stays connected to every host.
    async fn meet(&self) {
        for host in self.known().roster.hosts {
            if host.key != self.key {
                self.network().keep(as_peer(host.key), host.addresses).await;
            }
        }
    }

    /// Who may write a service's journal, and on which terms.
    pub fn grant(&self, service: Service) -> Option<GrantView> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.roster.grants.iter().find(|grant| grant.service == service).cloned()
    }

    /// The name of the host that may write a service's journal.
    pub fn holder(&self, service: Service) -> Option<String> {
        self.grant(service).map(|grant| grant.host)
    }

    /// All hosts as this one knows them.
    pub fn hosts(&self) -> Vec<HostView> {
        registry::hosts(self)
    }

    /// The last round trips to the hosts that are connected, in microseconds.
    pub(crate) fn round_trips_us(&self) -> BTreeMap<HostId, u64> {
        registry::round_trips_us(self)
    }

    /// What it leads with.
    ///
    /// # Errors
    ///
    /// `bridge.not_leading`.
    pub fn lead(&self) -> Result<&Arc<Lead>, Problem> {
        self.lead.get().ok_or_else(|| {
            Problem::new(ProblemKind::Unavailable, "bridge.not_leading", "another host leads this cell")
                .hint("cell hosts shows which")
        })
    }

    /// Asks another host.
    async fn ask(&self, key: HostId, ask: &Ask) -> Result<Reply, Problem> {
        let bytes = self.network().request(Lane::Hosts, as_peer(key), codec::encode(ask)).await.map_err(
            |problem| {
                Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", problem.cause)
                    .hint("cell hosts shows the connections; it is dialled again by itself")
            },
        )?;
        match codec::decode::<Reply>(&bytes)? {
            Reply::Refused { problem } => Err(problem),
            reply => Ok(reply),
        }
    }

    /// Runs something beside what is under way.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(host) = self.host() {
            host.edge.spawn(work);
        }
    }

    /// Hangs up everywhere.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        self.copies.stop_all().await;
        if let Some(quorum) = self.quorum() {
            quorum.stop().await;
        }
        self.network().stop().await;
        self.links().clear();
    }
}

fn network_settings(seed: Zeroizing<[u8; 32]>, listen: Vec<String>, hello: Vec<u8>) -> NetworkSettings {
    NetworkSettings {
        seed,
        listen,
        lanes: Lane::BETWEEN_HOSTS,
        hello,
        mdns: false,
        connections_max: CONNECTIONS_MAX,
        connections_per_peer_max: 4,
        requests_per_peer_max: ASKS_MAX,
        frame_bytes_max: FRAME_BYTES_MAX,
        request_timeout: ASK_TIMEOUT,
        direct: true,
    }
}

/// A host's key where the network asks for a peer's.
const fn as_peer(key: HostId) -> CellId {
    CellId::from_bytes(*key.as_bytes())
}

const fn as_host(peer: CellId) -> HostId {
    HostId::from_bytes(*peer.as_bytes())
}

fn stopping() -> Problem {
    Problem::new(ProblemKind::Unavailable, "service.stopping", "the host is stopping")
}

/// Takes what other hosts send.
struct Gate(Weak<Bridge>);

impl Inbound for Gate {
    fn request(&self, lane: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let bridge = self.0.upgrade();
        Box::pin(async move {
            let Some(bridge) = bridge else { return codec::encode(&Reply::Refused { problem: stopping() }) };
            match lane {
                Lane::Journals => copies::serve(&bridge, as_host(from), &bytes).await,
                _ => codec::encode(&orders::serve(&bridge, as_host(from), &bytes).await),
            }
        })
    }

    fn push(&self, _: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        let bridge = self.0.upgrade();
        Box::pin(async move {
            let Some(bridge) = bridge.filter(|bridge| bridge.is_admitted(&as_host(from))) else { return };
            match codec::decode::<Said>(&bytes) {
                Ok(Said::Status(status)) => registry::hear(&bridge, as_host(from), status),
                Ok(Said::Have { service, epoch, fork, length }) => {
                    acks::hear(&bridge, as_host(from), service, epoch, Head { fork, length });
                }
                // Of an earlier version, which says nothing else; or of a later one.
                Err(_) => {
                    if let Ok(status) = codec::decode(&bytes) {
                        registry::hear(&bridge, as_host(from), status);
                    }
                }
            }
        })
    }

    fn hello(&self, from: CellId, payload: Vec<u8>, addresses: Vec<String>) {
        let Some(bridge) = self.0.upgrade() else { return };
        let (Ok(hello), Ok(host)) = (codec::decode::<Hello>(&payload), bridge.host()) else { return };
        let key = as_host(from);
        // Who is not admitted may ask to be, and nothing else.
        if hello.cell != host.cell || !bridge.is_admitted(&key) {
            return;
        }
        bridge.registry.met(key, &hello, addresses);
        if bridge.leads() {
            host.edge.spawn(lead::greet(bridge, key, hello.incarnation));
        }
    }

    fn stream(&self, from: CellId, stream: ByteStream) {
        let Some(bridge) = self.0.upgrade() else { return };
        let Ok(host) = bridge.host() else { return };
        if !bridge.is_admitted(&as_host(from)) {
            return;
        }
        let is_for_calls = stream.carries() == Some(Carries::Calls);
        let serve = serve::run(bridge, as_host(from), stream);
        match is_for_calls {
            true => drop(host.services_run.spawn(serve)),
            false => drop(host.edge.spawn(serve)),
        }
    }
}
