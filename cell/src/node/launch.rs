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

use super::world::World;
use crate::actor::{
    EffectSender, Effects, FaultReport, Grant, JournalPlace, ServiceActor, Stop, open_service,
};
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
    pub(super) faults: FaultReport,
    pub(super) world: Arc<World>,
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
    async fn launch(&self) -> Result<Recipient<Stop>, Problem> {
        let Place { service, folder, keyspace, grant, faults, world } = self.place.clone();
        let state = world.service(service);
        state.set_health(Health::Starting);
        state.set_epoch(grant.epoch());
        let journal = JournalPlace {
            folder,
            backend: world.settings.journal.backend,
            key_pair: world.keyring.journal_key(service),
            encryption_key: world.keyring.encryption_key(service),
            generation: world.keyring.generation(),
        };
        let (machine, gauges, feed) = (self.machine.clone(), Arc::clone(&state.gauges), world.feed.clone());
        let opened =
            super::blocking(move || open_service(machine, journal, keyspace, grant, gauges, &feed)).await??;
        let route = world.bus.route::<M::Words>();
        let (version, mailbox_max) = (route.view().clone(), world.settings.service.mailbox_max);
        let actor = ServiceActor::new(opened, version, self.effects.clone(), faults, mailbox_max).start();
        route.set(Some(actor.clone().recipient()));
        state.set_health(Health::Running);
        Ok(actor.recipient())
    }
}

type Start = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Recipient<Stop>, Problem>>>>>;

struct Running {
    service: Service,
    start: Start,
    stop: Recipient<Stop>,
    restarts: VecDeque<Instant>,
}

/// The running services of a cell, in start order.
pub(super) struct Supervisor {
    running: Rc<RefCell<Vec<Running>>>,
    reports: Option<mpsc::Receiver<(Service, Problem)>>,
    world: Arc<World>,
    pub(super) identity: Option<Effects<identity::Effect>>,
    pub(super) consensus: Option<Effects<consensus::Effect>>,
    pub(super) message: Option<Effects<message::Effect>>,
}

impl Supervisor {
    pub(super) fn new(reports: mpsc::Receiver<(Service, Problem)>, world: Arc<World>) -> Self {
        Self {
            running: Rc::default(),
            reports: Some(reports),
            world,
            identity: None,
            consensus: None,
            message: None,
        }
    }

    pub(super) async fn start<M>(&mut self, launch: Launch<M>) -> Result<(), Problem>
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
        let stop = start().await?;
        self.running.borrow_mut().push(Running { service, start, stop, restarts: VecDeque::new() });
        Ok(())
    }

    /// Starts faulted services again, as often as the settings allow.
    pub(super) fn watch(&mut self) {
        let (Some(mut reports), running, world) =
            (self.reports.take(), Rc::clone(&self.running), Arc::clone(&self.world))
        else {
            return;
        };
        actix_rt::spawn(async move {
            while let Some((service, problem)) = reports.recv().await {
                world.service(service).set_health(Health::Faulted);
                restart(&running, &world, service, &problem).await;
            }
        });
    }

    /// Stops the services in reverse start order; each finishes what it has taken in.
    pub(super) async fn stop(&self, patience: Duration) {
        let stops: Vec<(Service, Recipient<Stop>)> = self
            .running
            .borrow()
            .iter()
            .rev()
            .map(|running| (running.service, running.stop.clone()))
            .collect();
        for (service, stop) in stops {
            let (done, stopped) = oneshot::channel();
            if stop.try_send(Stop { done }).is_ok() && tokio::time::timeout(patience, stopped).await.is_err()
            {
                tracing::warn!(%service, "did not stop in time; what it acknowledged is durable");
            }
            self.world.service(service).set_health(Health::Stopped);
        }
    }
}

async fn restart(
    running: &Rc<RefCell<Vec<Running>>>,
    world: &Arc<World>,
    service: Service,
    problem: &Problem,
) {
    let settings = &world.settings.service;
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
    world.service(service).count_restart();
    match start().await {
        Ok(stop) => {
            tracing::warn!(%service, %problem, "restarted after a fault");
            if let Some(this) = running.borrow_mut().iter_mut().find(|running| running.service == service) {
                this.stop = stop;
            }
        }
        Err(again) => {
            tracing::error!(%service, problem = %again, "could not be restarted");
            world.service(service).set_health(Health::Faulted);
            Box::pin(restart(running, world, service, &again)).await;
        }
    }
}
