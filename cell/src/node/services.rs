//! The services of this process: each started with its machine, its grant and its keys, and stopped when it goes elsewhere.
//!
//! They live on the arbiter's thread. Whoever starts or stops one from another thread does so by its [`Control`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use protocol::shared::Empty;
use protocol::{Problem, ProblemKind, Service};
use tokio::sync::{mpsc, oneshot};

use super::Host;
use super::launch::{Launch, Place, Supervisor};
use super::workers::Threads;
use crate::actor::{EffectSender, Effects, FaultReport, Grant, effect_queue};
use crate::bus::ServicePlace;
use crate::folder;
use crate::keys::JournalKeys;
use crate::store::Store;

/// Reports of faults that wait for the supervisor: a service reports once before it is started anew.
const FAULTS_MAX: usize = 2 * Service::ALL.len();
/// Orders that wait.
const ORDERS_MAX: usize = 64;

/// Where the effects of services go, whichever host runs them.
#[derive(Clone)]
pub(crate) struct Senders {
    pub(crate) identity: EffectSender<identity::Effect>,
    pub(crate) consensus: EffectSender<consensus::Effect>,
    pub(crate) message: EffectSender<message::Effect>,
}

/// Where they come from, for whoever carries them out.
pub(crate) struct Queues {
    pub(crate) identity: Effects<identity::Effect>,
    pub(crate) consensus: Effects<consensus::Effect>,
    pub(crate) message: Effects<message::Effect>,
}

/// Queues of effects.
pub(super) fn effect_queues() -> (Senders, Queues) {
    let (identity, identities) = effect_queue();
    let (consensus, blocks) = effect_queue();
    let (message, messages) = effect_queue();
    let queues = Queues { identity: identities, consensus: blocks, message: messages };
    (Senders { identity, consensus, message }, queues)
}

/// The right to run a service here, and what it takes.
#[derive(Clone, Debug)]
pub(crate) struct Appointment {
    /// Of its journal.
    pub(crate) grant: Grant,
    /// To write it.
    pub(crate) keys: JournalKeys,
    /// How many entries of it somebody else has seen.
    pub(crate) witnessed: u64,
}

enum Order {
    Start { appointment: Appointment, done: oneshot::Sender<Result<bool, Problem>> },
    Stop { service: Service, done: oneshot::Sender<()> },
    Owe { service: Service },
}

/// Starts and stops services of this process, from any thread.
#[derive(Clone)]
pub(crate) struct Control(mpsc::Sender<Order>);

impl Control {
    /// Starts a service; one that runs already stays as it is. Says whether it did not run before.
    pub(crate) async fn start(&self, appointment: Appointment) -> Result<bool, Problem> {
        let (done, started) = oneshot::channel();
        self.0.send(Order::Start { appointment, done }).await.map_err(|_| stopping())?;
        started.await.map_err(|_| stopping())?
    }

    /// Stops a service, if it runs.
    pub(crate) async fn stop(&self, service: Service) {
        let (done, stopped) = oneshot::channel();
        if self.0.send(Order::Stop { service, done }).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Asks a service for the effects that it owes.
    pub(crate) async fn owe(&self, service: Service) {
        let _ = self.0.send(Order::Owe { service }).await;
    }
}

fn stopping() -> Problem {
    Problem::new(ProblemKind::Unavailable, "service.stopping", "the host is stopping")
}

/// The services of this process.
pub(super) struct Services {
    host: Arc<Host>,
    store: Store,
    senders: Senders,
    faults: FaultReport,
    supervisor: Supervisor,
    patience: Duration,
}

impl Services {
    /// None runs yet. Orders are taken from now on.
    pub(super) fn new(host: &Arc<Host>, store: Store, senders: Senders, patience: Duration) -> Rc<Self> {
        let (faults, reports) = mpsc::channel(FAULTS_MAX);
        let supervisor = Supervisor::new(reports, Arc::clone(host));
        let this = Rc::new(Self { host: Arc::clone(host), store, senders, faults, supervisor, patience });
        let (orders, mut inbox) = mpsc::channel(ORDERS_MAX);
        host.set_control(Control(orders));
        let weak = Rc::downgrade(&this);
        actix_rt::spawn(async move {
            while let Some(order) = inbox.recv().await {
                let Some(this) = weak.upgrade() else { return };
                match order {
                    Order::Start { appointment, done } => drop(done.send(this.start(appointment).await)),
                    Order::Stop { service, done } => {
                        this.supervisor.stop_one(service, this.patience).await;
                        let _ = done.send(());
                    }
                    Order::Owe { service } => this.supervisor.owe(service),
                }
            }
        });
        this
    }

    /// Starts a service; one that runs already stays as it is. Says whether it did not run before.
    pub(super) async fn start(&self, appointment: Appointment) -> Result<bool, Problem> {
        let Appointment { grant, keys, witnessed } = appointment;
        let (host, service) = (&self.host, grant.service());
        if self.supervisor.runs(service) {
            return Ok(false);
        }
        let place = Place {
            service,
            folder: host.folder.journal(service),
            keyspace: self.store.keyspace(service),
            grant,
            keys,
            witnessed,
            faults: self.faults.clone(),
            host: Arc::clone(host),
        };
        let (cell, settings) = (host.cell, &host.settings);
        match service {
            Service::Nucleus => {
                let (nothing, _) = effect_queue();
                self.supervisor.start(Launch::new(nucleus::NucleusMachine, nothing, place)).await?;
            }
            Service::Identity => {
                let settings = identity::Settings {
                    half_life_ms: settings.identity.trust_half_life_days * 24 * 3600 * 1000,
                    shared_min: settings.identity.shared_min,
                    session_ttl_ms: settings.identity.session_ttl_s * 1000,
                    ..identity::Settings::default()
                };
                let machine = identity::IdentityMachine { cell, settings };
                self.supervisor.start(Launch::new(machine, self.senders.identity.clone(), place)).await?;
            }
            Service::State => {
                let (nothing, _) = effect_queue();
                let machine = state::StateMachine {
                    workers: Arc::new(Threads::all()),
                    ..state::StateMachine::new(Arc::clone(&host.genesis), folder::rules())
                };
                self.supervisor.start(Launch::new(machine, nothing, place)).await?;
                host.bus.place(service, ServicePlace::Here);
                host.bus.internal().state().initialise(Empty {}).await?;
            }
            Service::Consensus => {
                let machine = consensus::ConsensusMachine {
                    genesis: Arc::clone(&host.genesis),
                    rules: folder::rules(),
                };
                self.supervisor.start(Launch::new(machine, self.senders.consensus.clone(), place)).await?;
            }
            Service::Market => {
                let (nothing, _) = effect_queue();
                self.supervisor.start(Launch::new(market::MarketMachine { cell }, nothing, place)).await?;
            }
            Service::Message => {
                let machine = message::MessageMachine { cell };
                self.supervisor.start(Launch::new(machine, self.senders.message.clone(), place)).await?;
            }
        }
        host.bus.place(service, ServicePlace::Here);
        Ok(true)
    }

    /// Stops all; each finishes what it has taken in.
    pub(super) async fn stop(&self) {
        self.supervisor.stop(self.patience).await;
    }
}
