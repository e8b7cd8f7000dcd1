//! What every host of a cell has: one process, with some of the six services.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use protocol::genesis::Genesis;
use protocol::nucleus::{Health, ServiceStatus};
use protocol::{CellId, Service};
use tokio::sync::watch;

use super::World;
use super::services::Control;
use crate::actor::Gauges;
use crate::bridge::Bridge;
use crate::bus::{Bus, BusLimits};
use crate::feed::Feed;
use crate::folder::Folder;
use crate::settings::Settings;
use crate::telemetry::{Place, Tracer};

/// One service as the supervisor sees it.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// What its journal has.
    pub gauges: Arc<Gauges>,
    health: AtomicU8,
    restarts: AtomicU32,
    epoch: AtomicU64,
}

impl ServiceState {
    pub(crate) fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// How it is.
    pub fn health(&self) -> Health {
        Health::of(self.health.load(Ordering::Relaxed))
    }

    /// Takes over what the host that runs it says.
    pub(crate) fn told(&self, line: &ServiceStatus) {
        self.set_health(line.health);
        self.set_epoch(line.epoch);
        self.restarts.store(line.restarts, Ordering::Relaxed);
        self.gauges.entries.store(line.entries, Ordering::Relaxed);
        self.gauges.bytes.store(line.bytes, Ordering::Relaxed);
    }

    /// How it is, for people and clients.
    pub fn status(&self, service: Service, host: &str) -> ServiceStatus {
        ServiceStatus {
            host: host.to_owned(),
            service,
            health: self.health(),
            entries: self.gauges.entries.load(Ordering::Relaxed),
            bytes: self.gauges.bytes.load(Ordering::Relaxed),
            epoch: self.epoch.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            depends_on: service.depends_on().to_vec(),
            standby: None,
        }
    }
}

/// A process of a cell.
pub struct Host {
    /// Its name among the cell's hosts.
    pub name: String,
    /// How to call an action, wherever it is answered.
    pub bus: Bus,
    /// Events of all services whose journals lie here.
    pub feed: Feed,
    /// The cell.
    pub cell: CellId,
    /// The network.
    pub genesis: Arc<Genesis>,
    /// The settings in force.
    pub settings: Settings,
    /// Its folder.
    pub folder: Folder,
    /// Where work runs that is neither a service's nor HTTP's.
    pub edge: tokio::runtime::Handle,
    /// Where its services run.
    pub services_run: tokio::runtime::Handle,
    /// Set while it takes no new work.
    pub draining: AtomicBool,
    /// Set when it is to stop.
    pub stop: watch::Sender<bool>,
    /// Set when it is to begin another life at once: it leads no more.
    anew: AtomicBool,
    /// When it started.
    pub started: Instant,
    services: [ServiceState; 6],
    http: OnceLock<String>,
    control: OnceLock<Control>,
    bridge: OnceLock<Arc<Bridge>>,
    world: OnceLock<Weak<World>>,
}

impl Host {
    pub(super) fn new(
        name: String,
        cell: CellId,
        genesis: Arc<Genesis>,
        settings: Settings,
        folder: Folder,
        edge: tokio::runtime::Handle,
    ) -> Self {
        let limits = BusLimits { in_flight_max: settings.service.in_flight_max, ..BusLimits::default() };
        let place = Place { cell, name: settings.cell.name.clone(), host: name.clone() };
        let tracer = Tracer::new(place, &settings.trace);
        Self {
            name,
            bus: Bus::traced(limits, tracer),
            feed: Feed::default(),
            cell,
            genesis,
            settings,
            folder,
            edge,
            services_run: tokio::runtime::Handle::current(),
            draining: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            anew: AtomicBool::new(false),
            world: OnceLock::new(),
            started: Instant::now(),
            services: std::array::from_fn(|_| ServiceState::default()),
            http: OnceLock::new(),
            control: OnceLock::new(),
            bridge: OnceLock::new(),
        }
    }

    /// One service as the supervisor sees it.
    pub fn service(&self, service: Service) -> &ServiceState {
        &self.services[service.index()]
    }

    /// Where HTTP listens; empty until it does.
    pub fn http(&self) -> String {
        self.http.get().cloned().unwrap_or_default()
    }

    /// Whether all that it starts with has been started, and it does not end yet.
    pub(crate) fn is_started(&self) -> bool {
        self.http.get().is_some() && !self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn set_http(&self, url: String) {
        let _ = self.http.set(url);
    }

    /// Starts and stops services of this process.
    pub(crate) fn control(&self) -> &Control {
        self.control.get().expect("the services' control is there before the bridge is")
    }

    pub(super) fn set_control(&self, control: Control) {
        let _ = self.control.set(control);
    }

    /// What faces other cells, where this host leads.
    pub(crate) fn world(&self) -> Option<Arc<World>> {
        self.world.get().and_then(Weak::upgrade)
    }

    pub(super) fn set_world(&self, world: &Arc<World>) {
        let _ = self.world.set(Arc::downgrade(world));
    }

    /// Ends this life: nothing is written or released in it any more. What was acknowledged is where it has to be.
    pub(crate) fn begin_anew(&self) {
        Service::ALL.into_iter().for_each(|service| self.bus.lease(service).fence());
        self.draining.store(true, Ordering::Relaxed);
        self.anew.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
    }

    /// Whether another life is to begin at once.
    pub(crate) fn begins_anew(&self) -> bool {
        self.anew.load(Ordering::Relaxed)
    }

    /// The way to the other hosts, once there are some.
    pub fn bridge(&self) -> Option<&Arc<Bridge>> {
        self.bridge.get()
    }

    pub(crate) fn set_bridge(&self, bridge: Arc<Bridge>) {
        let _ = self.bridge.set(bridge);
    }
}
