//! A running cell: services under their supervisor, the network, HTTP, and how they start and stop.
//!
//! Start: lock the folder; settings, key, genesis; views; services in dependency order, Nucleus first,
//! each other one with its grant; fronts; network; effect runners; HTTP; then it is ready. Stop is the
//! reverse: HTTP takes no more, services finish what they took in, journals and views are closed.

mod blocks;
mod effects;
mod launch;
mod rebuild;
mod workers;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::shared::Empty;
use protocol::{Caller, CellId, Hash, Problem, ProblemKind, Service};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::actor::{FaultReport, Grant, effect_queue};
use crate::bus::{Bus, BusLimits};
use crate::delivery::Gate;
use crate::feed::Feed;
use crate::folder::{self, Folder};
use crate::gossip;
use crate::http::{self, Server};
use crate::keys;
use crate::network::{Network, NetworkSettings};
use crate::replication;
use crate::settings::Settings;
use crate::store::Store;
use launch::{Launch, Supervisor};
use workers::Threads;

pub use rebuild::{RebuildReport, introduce, rebuild};
pub use world::{ServiceState, World};

/// How long a graceful stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How often expired messages are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Reports of faults that wait for the supervisor: a service reports once before it is started anew.
const FAULTS_MAX: usize = 2 * Service::ALL.len();

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

/// A running cell.
pub struct Node {
    world: Arc<World>,
    supervisor: Supervisor,
    server: Server,
    store: Store,
    _edge: Edge,
    folder: Folder,
    _lock: std::fs::File,
}

impl Node {
    /// Starts the cell of a folder, within an actix system.
    ///
    /// # Errors
    ///
    /// Whatever stands in its way, with the next thing to try.
    pub async fn start(dir: &Path, settings: Settings, passphrase: Option<String>) -> Result<Self, Problem> {
        let folder = Folder::open(dir)?;
        let lock = folder.lock()?;
        let keyring = keys::open(dir, passphrase.as_deref())?;
        let genesis = Arc::new(folder.genesis()?);
        let (views, memory_mib) = (folder.views(), settings.store.memory_mib);
        let store = blocking(move || Store::open(&views, memory_mib)).await??;
        let edge = Edge::start(settings.network.threads)?;
        let limits = BusLimits { in_flight_max: settings.service.in_flight_max, ..BusLimits::default() };
        let (bus, feed) = (Bus::new(limits), Feed::default());
        let world = Arc::new(World::new(bus, feed, keyring, genesis, settings, edge.handle(), &folder));
        world.data.tidy();
        let (faults, reports) = mpsc::channel(FAULTS_MAX);
        let mut supervisor = Supervisor::new(reports, Arc::clone(&world));
        let server = match start_rooms(&folder, &store, &world, &mut supervisor, &faults).await {
            Ok(server) => server,
            Err(problem) => {
                // What did start is writing: it ends before the process does.
                supervisor.stop(DRAIN_MAX).await;
                return Err(problem);
            }
        };
        let this = Self { world, supervisor, server, store, _edge: edge, folder, _lock: lock };
        this.write_run_files()?;
        Ok(this)
    }

    /// What a ready cell says.
    pub fn ready(&self) -> Ready {
        let peers = self.world.network().addresses();
        let peer = peers.first().cloned().unwrap_or_default();
        Ready { event: "ready", cell: self.world.cell, http: self.server.url(), peer, peers }
    }

    /// The cell's inside, for benchmarks and tests in process.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Waits for SIGTERM, SIGINT or `nucleus.shutdown`.
    pub async fn until_asked_to_stop(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut asked = self.world.stop.subscribe();
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
        self.world.draining.store(true, Ordering::Relaxed);
        tracing::info!("stopping: requests under way are finished, journals and views are closed");
        self.server.stop(DRAIN_MAX).await;
        self.world.copies.stop().await;
        self.world.network().stop().await;
        self.supervisor.stop(DRAIN_MAX).await;
        let store = self.store.clone();
        if let Ok(Err(problem)) = blocking(move || store.flush()).await {
            tracing::warn!(%problem, "the views were not flushed; the next start folds more");
        }
        for file in ["http", "pid"] {
            let _ = std::fs::remove_file(self.folder.path().join("run").join(file));
        }
    }

    fn write_run_files(&self) -> Result<(), Problem> {
        let run = self.folder.path().join("run");
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

/// Services, fronts, network, effects, HTTP: in this order.
async fn start_rooms(
    folder: &Folder,
    store: &Store,
    world: &Arc<World>,
    supervisor: &mut Supervisor,
    faults: &FaultReport,
) -> Result<Server, Problem> {
    start_services(folder, store, world, supervisor, faults).await?;
    crate::fronts::install(world);
    debug_assert!(world.bus.missing_fronts().is_empty(), "{:?}", world.bus.missing_fronts());
    remember_settings(world).await?;
    world.set_network(start_network(world).await?);
    replication::resume(world);
    supervisor.run_effects(world);
    gossip::start(world);
    world.edge.spawn(sweep(Arc::clone(world)));
    world.edge.spawn(blocks::prune(Arc::clone(world)));
    let server = http::Server::start(world).await?;
    world.set_http(server.url());
    Ok(server)
}

async fn start_services(
    folder: &Folder,
    store: &Store,
    world: &Arc<World>,
    supervisor: &mut Supervisor,
    faults: &FaultReport,
) -> Result<(), Problem> {
    let settings = &world.settings;
    let launch = |service: Service, grant: Grant| launch::Place {
        service,
        folder: folder.journal(service),
        keyspace: store.keyspace(service),
        grant,
        faults: faults.clone(),
        world: Arc::clone(world),
    };
    let (nothing, _) = effect_queue();
    let nucleus =
        Launch::new(nucleus::NucleusMachine, nothing, launch(Service::Nucleus, Grant::of_nucleus()));
    supervisor.start(nucleus).await?;
    for service in Service::ALL.into_iter().skip(1) {
        let asked = protocol::nucleus::GrantRequest { service, host: "local".to_owned() };
        let grant = world.bus.internal().nucleus().grant(asked).await?;
        let place = launch(service, Grant::by_nucleus(&grant));
        match service {
            Service::Nucleus => {}
            Service::Identity => {
                let settings = identity::Settings {
                    half_life_ms: settings.identity.trust_half_life_days * 24 * 3600 * 1000,
                    shared_min: settings.identity.shared_min,
                    session_ttl_ms: settings.identity.session_ttl_s * 1000,
                    ..identity::Settings::default()
                };
                let (sender, effects) = effect_queue();
                supervisor.identity = Some(effects);
                let machine = identity::IdentityMachine { cell: world.cell, settings };
                supervisor.start(Launch::new(machine, sender, place)).await?;
            }
            Service::State => {
                let (nothing, _) = effect_queue();
                let machine = state::StateMachine {
                    workers: Arc::new(Threads::all()),
                    ..state::StateMachine::new(Arc::clone(&world.genesis), folder::rules())
                };
                supervisor.start(Launch::new(machine, nothing, place)).await?;
                world.bus.internal().state().initialise(Empty {}).await?;
            }
            Service::Consensus => {
                let (sender, effects) = effect_queue();
                supervisor.consensus = Some(effects);
                let machine = consensus::ConsensusMachine {
                    genesis: Arc::clone(&world.genesis),
                    rules: folder::rules(),
                };
                supervisor.start(Launch::new(machine, sender, place)).await?;
            }
            Service::Market => {
                let (nothing, _) = effect_queue();
                supervisor
                    .start(Launch::new(market::MarketMachine { cell: world.cell }, nothing, place))
                    .await?;
            }
            Service::Message => {
                let (sender, effects) = effect_queue();
                supervisor.message = Some(effects);
                supervisor
                    .start(Launch::new(message::MessageMachine { cell: world.cell }, sender, place))
                    .await?;
            }
        }
    }
    supervisor.watch();
    Ok(())
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
        hello: crate::delivery::hello(&world.genesis.hash()),
        mdns: settings.mdns,
        connections_max: settings.connections_max,
        connections_per_peer_max: settings.connections_per_peer_max,
        requests_per_peer_max: settings.requests_per_peer_max,
        frame_bytes_max: settings.frame_bytes_max,
        request_timeout: Duration::from_millis(settings.request_timeout_ms),
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
