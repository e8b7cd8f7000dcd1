//! A running host of a cell: services under their supervisor, the network, HTTP, and how they start and stop.
//!
//! Start of the host that leads: lock the folder; settings, key, genesis; views; Nucleus; the bridge, if there are other hosts; the services
//! that are granted to this host, in dependency order; fronts; network; effect runners; HTTP; then it is ready. Another host starts its bridge
//! and its HTTP, and the services when the lead says so; one that may lead, its part in the election too (`role`). Stop is the reverse: HTTP takes no more, services finish what they took in, journals
//! and views are closed.

mod blocks;
mod effects;
mod host;
mod launch;
mod rebuild;
mod role;
mod services;
mod workers;
mod world;

use std::cell::OnceCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nucleus::FIRST_HOST;
use protocol::nucleus::{GrantRequest, Roster};
use protocol::shared::Empty;
use protocol::{Caller, CellId, Hash, Problem, ProblemKind, Service};
use zeroize::Zeroizing;

use crate::actor::Grant;
use crate::bridge::{self, Bridge, Lead};
use crate::delivery::Gate;
use crate::folder::Folder;
use crate::gossip;
use crate::http::{self, Server};
use crate::keys;
use crate::network::{Lane, Network, NetworkSettings};
use crate::replication;
use crate::settings::Settings;
use crate::store::Store;
use services::{Services, effect_queues};

pub use host::{Host, ServiceState};
pub use rebuild::{RebuildReport, introduce, rebuild};
pub(crate) use services::{Appointment, Queues, Senders};
pub use world::World;

/// How long a graceful stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long the collector of traces may take to get the last of them.
const TRACES_MAX: Duration = Duration::from_secs(2);
/// How often expired messages are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What a ready cell says.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: &'static str,
    /// The cell.
    pub cell: CellId,
    /// Where HTTP listens.
    pub http: String,
    /// Where peers reach it: the first address.
    pub peer: String,
    /// Where peers reach it: all of them.
    pub peers: Vec<String>,
}

/// A running host of a cell.
pub struct Node {
    host: Arc<Host>,
    /// Where it leads.
    world: Rc<OnceCell<Arc<World>>>,
    services: Rc<Services>,
    server: Server,
    store: Store,
    _edge: Edge,
    _lock: std::fs::File,
}

impl Node {
    /// Starts the cell of a folder, or the host of one, within an actix system.
    ///
    /// # Errors
    ///
    /// Whatever stands in its way, with the next thing to try.
    pub async fn start(dir: &Path, settings: Settings, passphrase: Option<String>) -> Result<Self, Problem> {
        let folder = Folder::open(dir)?;
        let lock = folder.lock()?;
        let joined = bridge::joined(dir)?;
        // A host that has joined has the cell's key if it may lead.
        let keyring = match &joined {
            Some(_) if !keys::is_there(dir) => None,
            _ => Some(keys::open(dir, passphrase.as_deref())?),
        };
        let is_candidate = keyring.is_some() && (joined.is_some() || bridge::has_voted(dir));
        let genesis = Arc::new(folder.genesis()?);
        let (views, memory_mib) = (folder.views(), settings.store.memory_mib);
        let store = blocking(move || Store::open(&views, memory_mib)).await??;
        let edge = Edge::start(settings.network.threads)?;
        let (name, cell) = match (&joined, &keyring) {
            (Some(joined), _) => (joined.name.clone(), joined.cell),
            (None, Some(keyring)) => (FIRST_HOST.to_owned(), keyring.cell()),
            (None, None) => {
                return Err(Problem::new(ProblemKind::NotFound, "keys.missing", "there is no key"));
            }
        };
        let host = Arc::new(Host::new(name, cell, genesis, settings, folder, edge.handle()));
        let (senders, queues) = effect_queues();
        let services = Services::new(&host, store.clone(), senders.clone(), DRAIN_MAX);
        let world = Rc::new(OnceCell::new());
        let started = match keyring {
            Some(keyring) if is_candidate => {
                let candidate =
                    role::Candidate { host: Arc::clone(&host), keyring, world: Rc::clone(&world) };
                candidate.start(joined, queues).await
            }
            Some(keyring) => {
                let lease = Duration::from_millis(host.settings.bridge.lease_ms);
                let lead = Lead::new(keyring.clone(), senders, lease);
                let world = world.get_or_init(|| Arc::new(World::new(Arc::clone(&host), keyring, lead)));
                start_lead(world, &services, queues).await
            }
            None => start_joined(&host, joined, queues).await,
        };
        let server = match started {
            Ok(server) => server,
            Err(problem) => {
                // What did start is writing: it ends before the process does.
                services.stop().await;
                return Err(problem);
            }
        };
        let this = Self { host, world, services, server, store, _edge: edge, _lock: lock };
        this.write_run_files()?;
        Ok(this)
    }

    /// What a ready cell says.
    pub fn ready(&self) -> Ready {
        let peers = match (self.world.get(), self.host.bridge()) {
            (Some(world), _) => world.network().addresses(),
            (None, Some(bridge)) => bridge.addresses(),
            (None, None) => Vec::new(),
        };
        let peer = peers.first().cloned().unwrap_or_default();
        Ready { event: "ready", cell: self.host.cell, http: self.server.url(), peer, peers }
    }

    /// What every host has, for benchmarks and tests in process.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The cell's inside, for benchmarks and tests in process.
    ///
    /// # Panics
    ///
    /// On a host that does not lead.
    pub fn world(&self) -> &Arc<World> {
        self.world.get().expect("it leads")
    }

    /// Waits for SIGTERM, SIGINT or `nucleus.shutdown`.
    pub async fn until_asked_to_stop(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut asked = self.host.stop.subscribe();
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            let _ = asked.wait_for(|asked| *asked).await;
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = asked.wait_for(|asked| *asked) => {}
        }
    }

    /// Drains and stops: what was acknowledged is durable long before; this makes the next start fast.
    pub async fn stop(self) {
        self.host.draining.store(true, Ordering::Relaxed);
        tracing::info!("stopping: requests under way are finished, journals and views are closed");
        self.server.stop(DRAIN_MAX).await;
        if let Some(world) = self.world.get() {
            world.copies.stop().await;
            world.network().stop().await;
        }
        self.services.stop().await;
        if let Some(bridge) = self.host.bridge() {
            bridge.give_up_lead().await;
            bridge.stop().await;
        }
        let bus = self.host.bus.clone();
        let _ = blocking(move || bus.tracer().flush(TRACES_MAX)).await;
        let store = self.store.clone();
        if let Ok(Err(problem)) = blocking(move || store.flush()).await {
            tracing::warn!(%problem, "the views were not flushed; the next start folds more");
        }
        for file in ["http", "pid"] {
            let _ = std::fs::remove_file(self.host.folder.path().join("run").join(file));
        }
    }

    fn write_run_files(&self) -> Result<(), Problem> {
        let run = self.host.folder.path().join("run");
        let write = |name: &str, text: String| std::fs::write(run.join(name), text);
        write("http", self.server.url()).and_then(|()| write("pid", std::process::id().to_string())).map_err(
            |error| {
                Problem::new(ProblemKind::Fault, "folder.unwritable", format!("{}: {error}", run.display()))
            },
        )
    }
}

/// The threads of the edge. They may be dropped within a task, so whoever ends them does not wait.
struct Edge(Option<tokio::runtime::Runtime>);

impl Edge {
    /// With `threads` threads, or half of the cores: a second one on two cores was woken for nothing at
    /// each turn of the first, and took from the actors what it gave (`docs/benchmarks.md`).
    fn start(threads: usize) -> Result<Self, Problem> {
        let half = || std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let threads = if threads == 0 { half() } else { threads };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("edge")
            .enable_all()
            .build()
            .map_err(|error| Problem::new(ProblemKind::Fault, "node.no_threads", error.to_string()))?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().map_or_else(tokio::runtime::Handle::current, |edge| edge.handle().clone())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(edge) = self.0.take() {
            edge.shutdown_background();
        }
    }
}

/// Nucleus, bridge, services, fronts, network, effects, HTTP: in this order.
async fn start_lead(world: &Arc<World>, services: &Services, queues: Queues) -> Result<Server, Problem> {
    start_services(world, services).await?;
    crate::fronts::install(world);
    debug_assert!(world.bus.missing_fronts().is_empty(), "{:?}", world.bus.missing_fronts());
    world.set_network(start_network(world).await?);
    world.host.set_world(world);
    face_others(world, queues).await?;
    let server = http::Server::start(&world.host).await?;
    world.host.set_http(server.url());
    Ok(server)
}

/// What goes on on the host that leads, once Nucleus answers and there is a network.
async fn face_others(world: &Arc<World>, queues: Queues) -> Result<(), Problem> {
    world.data.tidy();
    remember_settings(world).await?;
    replication::resume(world);
    effects::run(world, queues);
    gossip::start(world);
    world.edge.spawn(sweep(Arc::clone(world)));
    world.edge.spawn(blocks::prune(Arc::clone(world)));
    Ok(())
}

/// Nucleus first; then what is granted to this host, or to nobody yet. The others are where they are.
async fn start_services(world: &Arc<World>, services: &Services) -> Result<(), Problem> {
    let appoint = |grant, key_number| Appointment::by(&world.keyring, grant, key_number, 0);
    services.start(appoint(Grant::of_nucleus(), 0)).await?;
    let nucleus = world.bus.internal();
    let roster = nucleus.nucleus().roster(Empty {}).await?;
    let is_known_outside = |grant| bridge::is_known_outside(grant, &roster.hosts);
    if roster.hosts.iter().any(|host| host.name != FIRST_HOST) || roster.grants.iter().any(is_known_outside) {
        world.lead.open(&world.host).await?;
    }
    for service in Service::ALL.into_iter().skip(1) {
        let holder = roster.grants.iter().find(|grant| grant.service == service);
        if holder.is_none_or(|holder| holder.host == FIRST_HOST) {
            // What was taken over stays so: the grant is given again as it is.
            let asked = GrantRequest {
                service,
                host: FIRST_HOST.to_owned(),
                replicated: false,
                takeover: false,
                new_key: None,
            };
            let grant = nucleus.nucleus().grant(asked).await?;
            services.start(appoint(Grant::by_nucleus(&grant), grant.key_number)).await?;
        }
    }
    Ok(())
}

/// Bridge and HTTP; the lead says which services run here.
async fn start_joined(
    host: &Arc<Host>,
    joined: Option<bridge::Joined>,
    queues: Queues,
) -> Result<Server, Problem> {
    let seed = bridge::host_key(host.folder.path())?;
    let lead = joined.map(|joined| joined.lead);
    let roster = Roster { hosts: lead.iter().cloned().collect(), grants: Vec::new(), number: 0 };
    let bridge = Bridge::start(host, bridge::Start { seed, roster, led_by: lead, lead: None }).await?;
    host.set_bridge(bridge);
    bridge::forward_effects(host, queues);
    let server = http::Server::start(host).await?;
    host.set_http(server.url());
    Ok(server)
}

/// Records the settings in force as a configuration version.
async fn remember_settings(world: &Arc<World>) -> Result<(), Problem> {
    let settings = world.settings.to_json();
    let hash = Hash::of(settings.to_string().as_bytes());
    let request = protocol::nucleus::ConfigureRequest { hash, settings };
    world.bus.internal().nucleus().configure(request).await.map(|_| ())
}

async fn start_network(world: &Arc<World>) -> Result<Network, Problem> {
    let settings = &world.settings.network;
    let settings = NetworkSettings {
        seed: Zeroizing::new(*world.keyring.seed()),
        listen: settings.listen.clone(),
        lanes: Lane::BETWEEN_CELLS,
        hello: crate::delivery::hello(&world.genesis.hash()),
        mdns: settings.mdns,
        connections_max: settings.connections_max,
        connections_per_peer_max: settings.connections_per_peer_max,
        requests_per_peer_max: settings.requests_per_peer_max,
        frame_bytes_max: settings.frame_bytes_max,
        request_timeout: Duration::from_millis(settings.request_timeout_ms),
        direct: false,
    };
    Network::start(settings, Arc::new(Gate::new(world)), &world.edge).await
}

async fn sweep(world: Arc<World>) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if let Err(problem) = world.bus.internal().message().sweep(Empty {}).await {
            tracing::debug!(%problem, "no sweep");
        }
    }
}

/// Runs blocking work off the arbiter.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Problem::new(ProblemKind::Fault, "node.panicked", format!("a task ended early: {error}"))
    })
}

/// A caller that is the cell's own operator, for tools in process.
pub fn operator() -> Caller {
    Caller::Token { role: protocol::Access::Admin, name: "operator".to_owned() }
}
