//! The services of this process: each started with its machine, its grant and its keys, and stopped when it goes elsewhere.
//!
//! They live on the arbiter's thread. Whoever starts or stops one from another thread does so by its [`Control`].

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::shared::Empty;
use protocol::{Problem, ProblemKind, Service};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::Host;
use super::launch::{Launch, Place, Supervisor};
use super::workers::Threads;
use crate::actor::{
    EffectSender, Effects, FaultReport, Grant, effect_queue, effect_queue_without_gaps, fold_copy,
};
use crate::bus::ServicePlace;
use crate::folder;
use crate::keys::{JournalKeys, Keyring};
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
    // The pool takes the last transaction that came for the last that was taken in.
    let (consensus, blocks) = effect_queue_without_gaps();
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
    /// By which it was written before, where this host may sign it anew.
    pub(crate) before: Vec<JournalKeys>,
    /// How many entries of it somebody else has seen.
    pub(crate) witnessed: u64,
    /// The fork that it ends with, where that is known: a copy of an empty one does not have it.
    pub(crate) fork: u64,
}

impl Appointment {
    /// By a host that has the cell's keys: the journal is signed by that of this number, whichever signed it before.
    pub(crate) fn by(keyring: &Keyring, grant: Grant, key_number: u32, witnessed: u64) -> Self {
        let service = grant.service();
        let before = keyring.journal_keys_before(service, key_number);
        Self { grant, keys: keyring.journal_keys(service, key_number), before, witnessed, fork: 0 }
    }
}

enum Order {
    Start { appointment: Appointment, done: oneshot::Sender<Result<bool, Problem>> },
    Stop { service: Service, done: oneshot::Sender<Result<(), Problem>> },
    Owe { service: Service },
}

/// Starts and stops services of this process, from any thread.
#[derive(Clone)]
pub(crate) struct Control {
    orders: mpsc::Sender<Order>,
    /// Until the services have stopped: whoever ends the process after that must not find views that are open.
    store: Arc<std::sync::Mutex<Option<Store>>>,
}

impl Control {
    /// Starts a service; one that runs under this grant already stays as it is. Says whether it did not run before.
    pub(crate) async fn start(&self, appointment: Appointment) -> Result<bool, Problem> {
        let (done, started) = oneshot::channel();
        self.orders.send(Order::Start { appointment, done }).await.map_err(|_| stopping())?;
        started.await.map_err(|_| stopping())?
    }

    /// Stops a service, if it runs.
    ///
    /// # Errors
    ///
    /// `service.still_stopping`: it goes on stopping, and its files are open until it has.
    pub(crate) async fn stop(&self, service: Service) -> Result<(), Problem> {
        let (done, stopped) = oneshot::channel();
        self.orders.send(Order::Stop { service, done }).await.map_err(|_| stopping())?;
        stopped.await.map_err(|_| stopping())?
    }

    /// Lets go of the views.
    fn close(&self) {
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Brings the view of a copy up to its first entries, for whoever takes the journal over. Blocks on files.
    pub(crate) fn fold_copy(
        &self,
        host: &Host,
        service: Service,
        reader: &journal::Reader,
        have: u64,
    ) -> Result<(), machine::Fault> {
        let store = self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let store = store.ok_or_else(|| machine::Fault("the views are closed".to_owned()))?;
        let keyspace = store.keyspace(service);
        match service {
            Service::Nucleus => fold_copy(&nucleus::NucleusMachine, reader, have, &keyspace),
            Service::Identity => fold_copy(&identity_machine(host), reader, have, &keyspace),
            Service::Message => fold_copy(&message_machine(host), reader, have, &keyspace),
            Service::State => fold_copy(&state_machine(host), reader, have, &keyspace),
            Service::Consensus => fold_copy(&consensus_machine(host), reader, have, &keyspace),
            Service::Market => fold_copy(&market_machine(host), reader, have, &keyspace),
        }
    }

    /// Asks a service for the effects that it owes.
    pub(crate) async fn owe(&self, service: Service) {
        let _ = self.orders.send(Order::Owe { service }).await;
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
    /// Held by whoever starts or stops a service: one at a time for each.
    turns: [Mutex<()>; 6],
}

impl Services {
    /// None runs yet. Orders are taken from now on.
    pub(super) fn new(host: &Arc<Host>, store: Store, senders: Senders, patience: Duration) -> Rc<Self> {
        let (faults, reports) = mpsc::channel(FAULTS_MAX);
        let supervisor = Supervisor::new(reports, Arc::clone(host));
        let turns = std::array::from_fn(|_| Mutex::default());
        let (orders, mut inbox) = mpsc::channel(ORDERS_MAX);
        host.set_control(Control { orders, store: Arc::new(std::sync::Mutex::new(Some(store.clone()))) });
        let this =
            Rc::new(Self { host: Arc::clone(host), store, senders, faults, supervisor, patience, turns });
        let weak = Rc::downgrade(&this);
        actix_rt::spawn(async move {
            while let Some(order) = inbox.recv().await {
                let Some(this) = weak.upgrade() else { return };
                // What takes long with one service holds up no other one.
                actix_rt::spawn(async move {
                    match order {
                        Order::Start { appointment, done } => {
                            drop(done.send(this.start(appointment).await));
                        }
                        Order::Stop { service, done } => drop(done.send(this.stop_one(service).await)),
                        Order::Owe { service } => this.supervisor.owe(service).await,
                    }
                });
            }
        });
        this
    }

    async fn stop_one(&self, service: Service) -> Result<(), Problem> {
        let _turn = self.turns[service.index()].lock().await;
        self.supervisor.stop_one(service, self.patience).await
    }

    /// Starts a service; one that runs under this grant already stays as it is. Says whether it did not run before.
    pub(super) async fn start(&self, appointment: Appointment) -> Result<bool, Problem> {
        let Appointment { grant, keys, before, witnessed, fork } = appointment;
        let (host, service) = (&self.host, grant.service());
        let _turn = self.turns[service.index()].lock().await;
        if self.supervisor.runs(service) {
            if host.bus.lease(service).epoch() == Some(grant.epoch()) {
                return Ok(false);
            }
            // Under another grant, which is no more.
            host.bus.lease(service).fence();
            self.supervisor.stop_one(service, self.patience).await?;
        }
        let place = Place {
            service,
            folder: host.folder.journal(service),
            keyspace: self.store.keyspace(service),
            grant,
            keys,
            before,
            witnessed,
            fork,
            faults: self.faults.clone(),
            host: Arc::clone(host),
        };
        match service {
            Service::Nucleus => {
                let (nothing, _) = effect_queue();
                self.supervisor.start(Launch::new(nucleus::NucleusMachine, nothing, place)).await?;
            }
            Service::Identity => {
                let effects = self.senders.identity.clone();
                self.supervisor.start(Launch::new(identity_machine(host), effects, place)).await?;
            }
            Service::State => {
                let (nothing, _) = effect_queue();
                let machine =
                    state::StateMachine { workers: Arc::new(Threads::all()), ..state_machine(host) };
                self.supervisor.start(Launch::new(machine, nothing, place)).await?;
                host.bus.place(service, ServicePlace::Here);
                // Where it was begun, there is nothing to do; and a host that has just got it may not answer yet.
                if host.service(service).gauges.entries.load(Ordering::Relaxed) == 0 {
                    host.bus.internal().state().initialise(Empty {}).await?;
                }
            }
            Service::Consensus => {
                let effects = self.senders.consensus.clone();
                self.supervisor.start(Launch::new(consensus_machine(host), effects, place)).await?;
            }
            Service::Market => {
                let (nothing, _) = effect_queue();
                self.supervisor.start(Launch::new(market_machine(host), nothing, place)).await?;
            }
            Service::Message => {
                let effects = self.senders.message.clone();
                self.supervisor.start(Launch::new(message_machine(host), effects, place)).await?;
            }
        }
        host.bus.place(service, ServicePlace::Here);
        Ok(true)
    }

    /// Stops all, the last one started first; each finishes what it has taken in.
    pub(super) async fn stop(&self) {
        for service in self.supervisor.services() {
            if let Err(problem) = self.stop_one(service).await {
                tracing::warn!(%problem, "the process ends before it");
            }
        }
        self.host.control().close();
    }
}

fn identity_machine(host: &Host) -> identity::IdentityMachine {
    let asked = &host.settings.identity;
    let settings = identity::Settings {
        half_life_ms: asked.trust_half_life_days * 24 * 3600 * 1000,
        shared_min: asked.shared_min,
        session_ttl_ms: asked.session_ttl_s * 1000,
        ..identity::Settings::default()
    };
    identity::IdentityMachine { cell: host.cell, settings }
}

fn state_machine(host: &Host) -> state::StateMachine {
    state::StateMachine::new(Arc::clone(&host.genesis), folder::rules())
}

fn consensus_machine(host: &Host) -> consensus::ConsensusMachine {
    consensus::ConsensusMachine { genesis: Arc::clone(&host.genesis), rules: folder::rules() }
}

fn market_machine(host: &Host) -> market::MarketMachine {
    market::MarketMachine { cell: host.cell }
}

fn message_machine(host: &Host) -> message::MessageMachine {
    message::MessageMachine { cell: host.cell }
}
