//! Starting services and starting them again after a fault, a bounded number of times.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use machine::{AnswerOf, Machine, RequestOf};
use protocol::nucleus::Health;
use protocol::{Problem, Service};
use tokio::sync::{mpsc, oneshot};

use super::Host;
use crate::actor::{EffectSender, FaultReport, Grant, JournalPlace, Owe, ServiceActor, Stop, open_service};
use crate::keys::JournalKeys;
use crate::store::Keyspace;

/// The pause before the first restart; doubles with each further one.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Where a service runs.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) service: Service,
    pub(super) folder: PathBuf,
    pub(super) keyspace: Keyspace,
    pub(super) grant: Grant,
    pub(super) keys: JournalKeys,
    pub(super) witnessed: u64,
    pub(super) faults: FaultReport,
    pub(super) host: Arc<Host>,
}

/// A service that can be started, and started again.
pub(super) struct Launch<M: Machine> {
    machine: M,
    effects: EffectSender<M::Effect>,
    place: Place,
}

impl<M> Launch<M>
where
    M: Machine + Clone + Unpin,
    M::Effect: Unpin,
    RequestOf<M>: Unpin,
    AnswerOf<M>: Unpin,
{
    pub(super) fn new(machine: M, effects: EffectSender<M::Effect>, place: Place) -> Self {
        Self { machine, effects, place }
    }

    /// Opens journal and view off the arbiter, starts the actor, points the bus at it.
    async fn launch(&self) -> Result<Handles, Problem> {
        let Place { service, folder, keyspace, grant, keys, witnessed, faults, host } = self.place.clone();
        let state = host.service(service);
        state.set_health(Health::Starting);
        state.set_epoch(grant.epoch());
        let backend = host.settings.journal.backend;
        let journal = JournalPlace { folder, backend, keys, witnessed };
        let (machine, gauges, feed) = (self.machine.clone(), Arc::clone(&state.gauges), host.feed.clone());
        let opened =
            super::blocking(move || open_service(machine, journal, keyspace, grant, gauges, &feed)).await??;
        let route = host.bus.route::<M::Words>();
        let (version, mailbox_max) = (route.view().clone(), host.settings.service.mailbox_max);
        let actor = ServiceActor::new(opened, version, self.effects.clone(), faults, mailbox_max).start();
        route.set(Some(actor.clone().recipient()));
        state.set_health(Health::Running);
        Ok(Handles { stop: actor.clone().recipient(), owe: actor.recipient() })
    }
}

/// What else than questions a running actor takes.
#[derive(Clone)]
struct Handles {
    stop: Recipient<Stop>,
    owe: Recipient<Owe>,
}

type Start = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Handles, Problem>>>>>;

struct Running {
    service: Service,
    start: Start,
    handles: Handles,
    restarts: VecDeque<Instant>,
}

/// The services that run in this process, in start order.
pub(super) struct Supervisor {
    running: Rc<RefCell<Vec<Running>>>,
    host: Arc<Host>,
}

impl Supervisor {
    pub(super) fn new(reports: mpsc::Receiver<(Service, Problem)>, host: Arc<Host>) -> Self {
        let this = Self { running: Rc::default(), host };
        this.watch(reports);
        this
    }

    pub(super) async fn start<M>(&self, launch: Launch<M>) -> Result<(), Problem>
    where
        M: Machine + Clone + Unpin,
        M::Effect: Unpin,
        RequestOf<M>: Unpin,
        AnswerOf<M>: Unpin,
    {
        let service = launch.place.service;
        let launch = Rc::new(launch);
        let start: Start = Rc::new(move || {
            let launch = Rc::clone(&launch);
            Box::pin(async move { launch.launch().await })
        });
        let handles = start().await?;
        self.running.borrow_mut().push(Running { service, start, handles, restarts: VecDeque::new() });
        Ok(())
    }

    /// Starts faulted services again, as often as the settings allow.
    fn watch(&self, mut reports: mpsc::Receiver<(Service, Problem)>) {
        let (running, host) = (Rc::clone(&self.running), Arc::clone(&self.host));
        actix_rt::spawn(async move {
            while let Some((service, problem)) = reports.recv().await {
                host.service(service).set_health(Health::Faulted);
                restart(&running, &host, service, &problem).await;
            }
        });
    }

    /// Whether a service runs here.
    pub(super) fn runs(&self, service: Service) -> bool {
        self.running.borrow().iter().any(|running| running.service == service)
    }

    /// Asks a service for the effects that it owes.
    pub(super) fn owe(&self, service: Service) {
        if let Some(running) = self.running.borrow().iter().find(|running| running.service == service) {
            running.handles.owe.do_send(Owe);
        }
    }

    /// Stops one service, which finishes what it has taken in.
    pub(super) async fn stop_one(&self, service: Service, patience: Duration) {
        let place = self.running.borrow().iter().position(|running| running.service == service);
        let Some(place) = place else { return };
        let running = self.running.borrow_mut().remove(place);
        let (done, stopped) = oneshot::channel();
        if running.handles.stop.try_send(Stop { done }).is_ok()
            && tokio::time::timeout(patience, stopped).await.is_err()
        {
            tracing::warn!(%service, "did not stop in time; what it acknowledged is durable");
        }
        self.host.service(service).set_health(Health::Stopped);
    }

    /// Stops the services in reverse start order; each finishes what it has taken in.
    pub(super) async fn stop(&self, patience: Duration) {
        let services: Vec<Service> =
            self.running.borrow().iter().rev().map(|running| running.service).collect();
        for service in services {
            self.stop_one(service, patience).await;
        }
    }
}

async fn restart(running: &Rc<RefCell<Vec<Running>>>, host: &Arc<Host>, service: Service, problem: &Problem) {
    let settings = &host.settings.service;
    let window = Duration::from_secs(settings.restart_window_s);
    let (start, count) = {
        let mut running = running.borrow_mut();
        let Some(this) = running.iter_mut().find(|running| running.service == service) else { return };
        while this.restarts.front().is_some_and(|at| at.elapsed() > window) {
            this.restarts.pop_front();
        }
        if this.restarts.len() as u32 >= settings.restarts_max {
            tracing::error!(%service, %problem, "restarted too often: it stays faulted and readable; cell doctor tells more");
            return;
        }
        this.restarts.push_back(Instant::now());
        (Rc::clone(&this.start), this.restarts.len() as u32)
    };
    tokio::time::sleep(RESTART_PAUSE * 2u32.saturating_pow(count - 1)).await;
    host.service(service).count_restart();
    match start().await {
        Ok(handles) => {
            tracing::warn!(%service, %problem, "restarted after a fault");
            if let Some(this) = running.borrow_mut().iter_mut().find(|running| running.service == service) {
                this.handles = handles;
            }
        }
        Err(again) => {
            tracing::error!(%service, problem = %again, "could not be restarted");
            host.service(service).set_health(Health::Faulted);
            Box::pin(restart(running, host, service, &again)).await;
        }
    }
}
