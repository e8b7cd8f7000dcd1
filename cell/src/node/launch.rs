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
use protocol::{Problem, ProblemKind, Service};
use tokio::sync::{Mutex, mpsc, oneshot};

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
    pub(super) before: Vec<JournalKeys>,
    pub(super) witnessed: u64,
    /// The fork that its journal ends with, where that is known.
    pub(super) fork: u64,
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
        let Place { service, folder, keyspace, grant, keys, before, witnessed, fork, faults, host } =
            self.place.clone();
        let state = host.service(service);
        state.set_health(Health::Starting);
        state.set_epoch(grant.epoch());
        let backend = host.settings.journal.backend;
        let lease = host.bus.lease(service);
        let journal = JournalPlace { folder, backend, keys, before, witnessed, fork, lease };
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
    /// Held while it is started anew or stopped; tells it from a later one of the same service.
    turn: Rc<Mutex<()>>,
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
        let handles =
            start().await.inspect_err(|_| self.host.service(service).set_health(Health::Stopped))?;
        let (restarts, turn) = (VecDeque::new(), Rc::default());
        self.running.borrow_mut().push(Running { service, start, handles, restarts, turn });
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
    pub(super) async fn owe(&self, service: Service) {
        let is_it = |running: &&Running| running.service == service;
        let found = self.running.borrow().iter().find(is_it).map(|running| running.handles.owe.clone());
        if let Some(owe) = found {
            // Who is gone owes them when it is started again.
            let _ = owe.send(Owe).await;
        }
    }

    /// Stops one service, which finishes what it has taken in. It runs no more, and its files are closed, when this returns well.
    ///
    /// # Errors
    ///
    /// `service.still_stopping`: it goes on stopping.
    pub(super) async fn stop_one(&self, service: Service, patience: Duration) -> Result<(), Problem> {
        let find = |running: &Running| (Rc::clone(&running.turn), running.handles.clone());
        let is_it = |running: &&Running| running.service == service;
        let Some((turn, _)) = self.running.borrow().iter().find(is_it).map(find) else { return Ok(()) };
        let stopped = tokio::time::timeout(patience, async {
            // A restart that is under way comes to its end first.
            let _turn = turn.lock().await;
            let Some((_, handles)) = self.running.borrow().iter().find(is_it).map(find) else { return };
            let (done, stopped) = oneshot::channel();
            // Sent when there is room behind what was asked before. Who is gone without an answer has stopped as well.
            let _ = handles.stop.send(Stop { done }).await;
            let _ = stopped.await;
            self.running.borrow_mut().retain(|running| !Rc::ptr_eq(&running.turn, &turn));
        });
        if stopped.await.is_err() {
            tracing::warn!(%service, "did not stop in time; what it acknowledged is durable");
            return Err(still_stopping(service));
        }
        self.host.bus.lease(service).fence();
        self.host.service(service).set_health(Health::Stopped);
        Ok(())
    }

    /// The services that run, the last one started first.
    pub(super) fn services(&self) -> Vec<Service> {
        self.running.borrow().iter().rev().map(|running| running.service).collect()
    }
}

fn still_stopping(service: Service) -> Problem {
    let cause = format!("the {service} service has not finished what it took in");
    Problem::new(ProblemKind::Busy, "service.still_stopping", cause).hint("try again in a moment")
}

async fn restart(running: &Rc<RefCell<Vec<Running>>>, host: &Arc<Host>, service: Service, problem: &Problem) {
    let settings = &host.settings.service;
    let window = Duration::from_secs(settings.restart_window_s);
    let (start, count, turn) = {
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
        (Rc::clone(&this.start), this.restarts.len() as u32, Rc::clone(&this.turn))
    };
    tokio::time::sleep(RESTART_PAUSE * 2u32.saturating_pow(count - 1)).await;
    let started = {
        let _turn = turn.lock().await;
        // It may have been stopped meanwhile, and have gone to another host.
        if !running.borrow().iter().any(|running| Rc::ptr_eq(&running.turn, &turn)) {
            return;
        }
        host.service(service).count_restart();
        let started = start().await;
        if let Ok(handles) = &started
            && let Some(this) =
                running.borrow_mut().iter_mut().find(|running| Rc::ptr_eq(&running.turn, &turn))
        {
            this.handles = handles.clone();
        }
        started
    };
    match started {
        Ok(_) => tracing::warn!(%service, %problem, "restarted after a fault"),
        Err(again) => {
            tracing::error!(%service, problem = %again, "could not be restarted");
            host.service(service).set_health(Health::Faulted);
            Box::pin(restart(running, host, service, &again)).await;
        }
    }
}
