//! The bus: how services, HTTP and effects call an action.
//!
//! Callers name an action's type and get its typed answer; nobody builds an envelope. Every call goes
//! through the same middleware, in one fixed order:
//!
//! 1. **trace**: a span, if the call's trace is recorded, which what it calls is part of (`telemetry`);
//! 2. **access**: the caller's level against the action's;
//! 3. **deadline**: a missed one is `bus.deadline` for a query, `bus.unknown_outcome` for a command;
//! 4. **memory**: where an action is declared `cached`, its last answer while the view is the same; a call whose trace is not recorded gets it at once;
//! 5. **bulkhead**: calls under way per service are bounded, one more is `bus.busy` at once;
//! 6. **breaker**: a service that keeps failing is left alone for a while (`bus.circuit_open`);
//! 7. **retry**: queries only, on `busy` and `unavailable`, twice, with a pause that chance makes longer or shorter;
//! 8. **metrics**: calls, refusals and a latency histogram for each action;
//! 9. **fallback**: a query that names an answer of its own ([`Bus::call_or`]) gets that where its service cannot be had.
//!
//! A service that runs on another host of the cell is called there, over the bridge (`remote`): both hosts run their middleware, with the
//! same deadline. While a service moves, calls wait for it; one that came too late for the old host goes to the new one.
//!
//! A stream (`streams`) is opened in the same way, on the host that leads, and has no deadline from then on.
//!
//! Invariants: no queue here is unbounded; a full mailbox is a refusal, not a wait; the same handler
//! serves a call from inside, from HTTP, from another host and from another cell; a call goes over one bridge at most.

mod breaker;
mod build;
mod bulkhead;
mod caller;
mod context;
mod memory;
mod metrics;
mod remote;
mod route;
mod spans;
mod streams;
mod tries;

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::action::{Kind, ServiceWords};
use protocol::{Action, Caller, MachineAction, Problem, ProblemKind, Service, StreamAction, Visitor};
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

use build::{Build, ByType, Handler, JsonHandle, Way, WireHandle};
use bulkhead::{Heard, Keeper, Kept, Place};
use memory::recalled;
use remote::Whereabouts;
use route::{Answered, busy, not_running};
use spans::{span, span_kind, who};
use streams::Streams;
use tries::{Sent, Tries, rest};

use crate::actor::Lease;
use crate::telemetry::Tracer;

pub use crate::telemetry::TraceParent;
pub use breaker::Breaker;
pub use bulkhead::Reply;
pub use caller::BusCaller;
pub use context::{CallContext, DEADLINE_DEFAULT};
use context::{WAIT_MARGIN, WAIT_MS_MAX};
pub use memory::ViewVersion;
pub use metrics::{ActionMetrics, BUCKETS_US, Measured};
pub use remote::{Place as ServicePlace, Remote, RemoteCall};
pub use route::{Ask, Route};
pub use streams::Items;

/// How long a call waits for word of where its service has gone.
const MOVE_PATIENCE: Duration = Duration::from_secs(1);

/// Bounds of the bus.
#[derive(Clone, Copy, Debug)]
pub struct BusLimits {
    /// Calls under way per service.
    pub in_flight_max: usize,
    /// Failures in a row that open a service's circuit.
    pub breaker_failures_max: u32,
    /// How long an open circuit stays open.
    pub breaker_pause: Duration,
}

impl Default for BusLimits {
    fn default() -> Self {
        Self { in_flight_max: 4_096, breaker_failures_max: 20, breaker_pause: Duration::from_secs(1) }
    }
}

struct Inner {
    handlers: ByType<Box<dyn Any + Send + Sync>>,
    json: HashMap<&'static str, Box<JsonHandle>>,
    wire: HashMap<&'static str, Box<WireHandle>>,
    of_services: HashSet<&'static str>,
    fronts: Whereabouts,
    routes: ByType<Arc<dyn Any + Send + Sync>>,
    bulkheads: HashMap<Service, Arc<dyn Kept>>,
    keeper: Keeper,
    breakers: [Breaker; 6],
    metrics: Vec<Arc<ActionMetrics>>,
    streams: Streams,
    tracer: Tracer,
}

/// The bus. Clones are handles to the same one; it may be used from any thread with a tokio runtime.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

impl Bus {
    /// A bus with every declared action; fronts are added by [`Bus::front`], services by [`Bus::route`]. It traces nothing.
    pub fn new(limits: BusLimits) -> Self {
        Self::traced(limits, Tracer::off())
    }

    /// The same, traced.
    pub fn traced(limits: BusLimits, tracer: Tracer) -> Self {
        let mut build = Build::new(limits.in_flight_max);
        protocol::visit_actions(&mut build);
        let breaker = |_| Breaker::new(limits.breaker_failures_max, limits.breaker_pause);
        let breakers: [Breaker; 6] = std::array::from_fn(breaker);
        Self(Arc::new(Inner {
            handlers: build.handlers,
            json: build.json,
            wire: build.wire,
            of_services: build.of_services,
            fronts: Whereabouts::default(),
            routes: build.routes,
            keeper: Keeper::new(build.bulkheads.values().map(Arc::clone).collect()),
            bulkheads: build.bulkheads,
            breakers,
            metrics: build.metrics,
            streams: build.streams,
            tracer,
        }))
    }

    /// The route to a service.
    pub fn route<W: ServiceWords>(&self) -> Arc<Route<W>> {
        self.0
            .routes
            .get(&TypeId::of::<W>())
            .and_then(|route| Arc::clone(route).downcast::<Route<W>>().ok())
            .expect("every service with an action has a route")
    }

    /// Says how a front action is carried out. The first word stands.
    pub fn front<A, F, Fut>(&self, front: F)
    where
        A: Action,
        F: Fn(CallContext, A::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A::Answer, Problem>> + Send + 'static,
    {
        let stood = match &self.handler::<A>().way {
            Way::Front(place) => {
                place.set(Box::new(move |context, request| Box::pin(front(context, request))))
            }
            Way::Machine { .. } => unreachable!("{} is its machine's", A::INFO.name),
        };
        debug_assert!(stood.is_ok(), "{} has two fronts", A::INFO.name);
    }

    /// The front actions and streams that nobody has said how to carry out: none, once a cell has started.
    pub fn missing_fronts(&self) -> Vec<&'static str> {
        struct Missing<'a>(&'a Bus, Vec<&'static str>);
        impl Visitor for Missing<'_> {
            fn machine<A: MachineAction>(&mut self) {}
            fn front<A: Action>(&mut self) {
                if let Way::Front(place) = &self.0.handler::<A>().way
                    && place.get().is_none()
                {
                    self.1.push(A::INFO.name);
                }
            }
            fn stream<A: StreamAction>(&mut self) {
                if !self.0.0.streams.has_producer::<A>() {
                    self.1.push(A::INFO.name);
                }
            }
        }
        let mut missing = Missing(self, Vec::new());
        protocol::visit_actions(&mut missing);
        missing.1
    }

    /// Calls an action.
    ///
    /// # Errors
    ///
    /// The service's refusals and those of the middleware (`bus.…`).
    pub async fn call<A: Action>(
        &self,
        context: CallContext,
        request: A::Request,
    ) -> Result<A::Answer, Problem> {
        let handler = self.handler::<A>();
        match recalled(handler, &context, &request) {
            Some(answer) => Ok(answer),
            None => Box::pin(self.call_measured::<A>(handler, context, request)).await,
        }
    }

    /// The same, of a caller that keeps its context for the next call.
    async fn call_by<A: Action>(
        &self,
        context: &CallContext,
        request: A::Request,
    ) -> Result<A::Answer, Problem> {
        let handler = self.handler::<A>();
        // The long way in a box: its future is large, and whoever is answered from memory would carry it about for nothing.
        match recalled(handler, context, &request) {
            Some(answer) => Ok(answer),
            None => Box::pin(self.call_measured::<A>(handler, context.clone(), request)).await,
        }
    }

    /// Calls an action whose answer is not at hand: traced, measured, until its deadline.
    async fn call_measured<A: Action>(
        &self,
        handler: &Handler<A>,
        mut context: CallContext,
        request: A::Request,
    ) -> Result<A::Answer, Problem> {
        let began = Instant::now();
        context.deadline.get_or_insert(began + context.patience);
        let came_over = context.came_over.is_some();
        let kind = || span_kind(came_over, self.is_elsewhere(handler));
        let mut recording = self.0.tracer.follow(&mut context.trace, A::INFO.name, kind);
        if let Some(recording) = &mut recording
            && let Some(caller) = who(&context.caller)
        {
            recording.note("caller", caller);
        }
        // Who does not look pays for one comparison.
        let traced = LevelFilter::current() >= LevelFilter::DEBUG;
        let span = if traced { span(A::INFO.name, &context) } else { Span::none() };
        let call = pin!(self.guarded::<A>(handler, &context, request, began));
        let result = if traced { call.instrument(span.clone()).await } else { call.await };
        handler.metrics.since(began).finish(&result);
        let code = result.as_ref().err().map(|problem| &*problem.code);
        if let Some(recording) = recording {
            recording.finish(code);
        }
        tracing::debug!(parent: &span, code, "answered");
        result
    }

    /// Calls a query; where its service cannot be had, or has too much to do, the answer is this one. What the service itself refuses stays
    /// refused.
    ///
    /// # Errors
    ///
    /// The service's refusals, and `bus.denied`.
    pub async fn call_or<A: Action>(
        &self,
        context: CallContext,
        request: A::Request,
        fallback: impl FnOnce(&Problem) -> A::Answer,
    ) -> Result<A::Answer, Problem> {
        let result = self.call::<A>(context, request).await;
        match result {
            Err(problem) if A::INFO.kind == Kind::Query && cannot_be_had(&problem) => {
                self.handler::<A>().metrics.fell_back();
                Ok(fallback(&problem))
            }
            result => result,
        }
    }

    /// Calls an action by name, with its request as JSON.
    ///
    /// # Errors
    ///
    /// `rpc.unknown_method`, `rpc.bad_params`, and those of [`Bus::call`].
    pub async fn call_json(
        &self,
        mut context: CallContext,
        action: &str,
        request: Value,
    ) -> Result<Value, Problem> {
        // Who says how long it waits for an outcome is not cut short before.
        if let Some(wait_ms) = request.get("wait_ms").and_then(Value::as_u64) {
            let wait = Duration::from_millis(wait_ms.min(WAIT_MS_MAX)) + WAIT_MARGIN;
            context.patience = context.patience.max(wait);
        }
        match self.0.json.get(action) {
            Some(handle) => handle(self.clone(), context, request).await,
            None if self.0.streams.knows(action) => Err(streams::is_a_stream(action)),
            None => Err(unknown_action(action)),
        }
    }

    /// Calls an action by name for another host, which the context names, with its request as it came over the bridge.
    ///
    /// # Errors
    ///
    /// `rpc.unknown_method`, `bus.undecodable`, `bus.not_here`, and those of [`Bus::call`].
    pub async fn call_wire(
        &self,
        context: CallContext,
        action: &str,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, Problem> {
        match self.0.wire.get(action) {
            Some(handle) => handle(self.clone(), context, request).await,
            None => Err(unknown_action(action)),
        }
    }

    /// Whether an action is answered by a service, and not by a front.
    pub(crate) fn is_of_a_service(&self, action: &str) -> bool {
        self.0.of_services.contains(action)
    }

    /// Says where the fronts are.
    pub fn place_fronts(&self, place: ServicePlace) {
        self.0.fronts.set(place);
    }

    /// Says where a service is. What failed where it was says nothing about there.
    pub fn place(&self, service: Service, place: ServicePlace) {
        self.0.breakers[service.index()].forget();
        match service {
            Service::Nucleus => self.route::<protocol::nucleus::Words>().place(place),
            Service::Identity => self.route::<protocol::identity::Words>().place(place),
            Service::Message => self.route::<protocol::messages::Words>().place(place),
            Service::State => self.route::<protocol::state::Words>().place(place),
            Service::Consensus => self.route::<protocol::consensus::Words>().place(place),
            Service::Market => self.route::<protocol::market::Words>().place(place),
        }
    }

    /// A service that was away is back where it was: what failed meanwhile says nothing about it, and what waits for word of it tries again.
    pub(crate) fn is_back(&self, service: Service) {
        self.0.breakers[service.index()].forget();
        match service {
            Service::Nucleus => self.route::<protocol::nucleus::Words>().whereabouts.is_back(),
            Service::Identity => self.route::<protocol::identity::Words>().whereabouts.is_back(),
            Service::Message => self.route::<protocol::messages::Words>().whereabouts.is_back(),
            Service::State => self.route::<protocol::state::Words>().whereabouts.is_back(),
            Service::Consensus => self.route::<protocol::consensus::Words>().whereabouts.is_back(),
            Service::Market => self.route::<protocol::market::Words>().whereabouts.is_back(),
        }
    }

    /// Until when a service's grant may be used on this host.
    pub(crate) fn lease(&self, service: Service) -> Lease {
        let view = match service {
            Service::Nucleus => self.route::<protocol::nucleus::Words>().view().clone(),
            Service::Identity => self.route::<protocol::identity::Words>().view().clone(),
            Service::Message => self.route::<protocol::messages::Words>().view().clone(),
            Service::State => self.route::<protocol::state::Words>().view().clone(),
            Service::Consensus => self.route::<protocol::consensus::Words>().view().clone(),
            Service::Market => self.route::<protocol::market::Words>().view().clone(),
        };
        view.lease().clone()
    }

    /// A caller with a context of its own: the typed clients of `protocol` run over it.
    pub fn with(&self, context: CallContext) -> BusCaller {
        BusCaller { bus: self.clone(), context }
    }

    /// The cell calling itself, with the default deadline.
    pub fn internal(&self) -> BusCaller {
        self.with(CallContext::internal())
    }

    /// The metrics of every action, in the order of `protocol::actions`.
    pub fn metrics(&self) -> &[Arc<ActionMetrics>] {
        &self.0.metrics
    }

    /// What traces its calls.
    pub fn tracer(&self) -> &Tracer {
        &self.0.tracer
    }

    /// Whether an action is answered on another host.
    fn is_elsewhere<A: Action>(&self, handler: &Handler<A>) -> bool {
        self.whereabouts(handler).is_elsewhere()
    }

    /// Calls under way to a service.
    pub fn in_flight(&self, service: Service) -> usize {
        self.0.bulkheads.get(&service).map_or(0, |bulkhead| bulkhead.taken())
    }

    fn handler<A: Action>(&self) -> &Handler<A> {
        self.0
            .handlers
            .get(&TypeId::of::<A>())
            .and_then(|handler| handler.downcast_ref::<Handler<A>>())
            .expect("every declared action has a handler")
    }

    /// Calls, and again where what was called has moved meanwhile and says that it did nothing.
    async fn guarded<A: Action>(
        &self,
        handler: &Handler<A>,
        context: &CallContext,
        request: A::Request,
        began: Instant,
    ) -> Result<A::Answer, Problem> {
        if !context.caller.may(A::INFO.access) {
            return Err(denied(A::INFO.name, &context.caller));
        }
        let deadline = context.deadline.unwrap_or(began + context.patience);
        let whereabouts = self.whereabouts(handler);
        // A call that came over goes back: who called looks where the service is now.
        if !whereabouts.may_move() || context.came_over.is_some() {
            return self.once::<A>(handler, context, &mut Sent::last(request), deadline).await;
        }
        let (mut sent, patient_until) = (Sent::kept(request), deadline.min(began + MOVE_PATIENCE));
        loop {
            let changes = whereabouts.changes();
            match self.once::<A>(handler, context, &mut sent, deadline).await {
                Err(problem) if nothing_was_done(&problem) => {
                    if !Box::pin(whereabouts.change_after(changes, patient_until)).await {
                        return Err(problem);
                    }
                }
                result => return result,
            }
        }
    }

    /// Where what answers an action is.
    fn whereabouts<'a, A: Action>(&'a self, handler: &'a Handler<A>) -> &'a Whereabouts {
        match &handler.way {
            Way::Machine { route, .. } => &route.whereabouts,
            Way::Front(_) => &self.0.fronts,
        }
    }

    async fn once<A: Action>(
        &self,
        handler: &Handler<A>,
        context: &CallContext,
        sent: &mut Sent<A::Request>,
        deadline: Instant,
    ) -> Result<A::Answer, Problem> {
        let service = A::INFO.service;
        match &handler.way {
            Way::Machine { route, .. } if route.whereabouts.is_elsewhere() => {
                let _place = self.0.keeper.take(&route.bulkhead, deadline).ok_or_else(|| busy(service))?;
                Box::pin(self.elsewhere::<A>(&route.whereabouts, context, sent, deadline)).await
            }
            Way::Front(_) if self.0.fronts.is_elsewhere() => {
                Box::pin(self.elsewhere::<A>(&self.0.fronts, context, sent, deadline)).await
            }
            Way::Machine { route, wrap, unwrap } => {
                // An effect's request is not answered from memory: its receiver looks whether it was done.
                let memory = handler.memory.as_ref().filter(|_| context.cause.is_none() && !context.anew);
                let version = route.view().now();
                if let Some(memory) = memory {
                    sent.is_kept = true;
                    if let Some(answer) = memory.recall(version, sent.request()?) {
                        if !route.view().lease().may_answer() {
                            return Err(crate::actor::lapsed(service));
                        }
                        handler.metrics.given_again();
                        return Ok(answer);
                    }
                }
                let place = self.0.keeper.take(&route.bulkhead, deadline).ok_or_else(|| busy(service))?;
                let mut tries = self.tries::<A>();
                let result = loop {
                    tries.begin()?;
                    let request = || Ok(wrap(sent.take(tries.is_last())?));
                    let heard = ask(route, &place, A::INFO.kind, context, request).await;
                    let result = heard.and_then(|heard| match heard {
                        Heard::Answer(answer) => unwrap(answer?).ok_or_else(|| wrong_answer(A::INFO.name)),
                        Heard::Gone => Err(not_running(service)),
                        Heard::Late => Err(late(A::INFO.name, A::INFO.kind)),
                    });
                    match tries.pause_after(&result) {
                        Some(pause) => rest(pause).await,
                        None => break result,
                    }
                };
                if let (Some(memory), Ok(answer)) = (memory, &result)
                    && route.view().now() == version
                {
                    memory.keep(version, sent.request()?.clone(), answer.clone());
                }
                result
            }
            // Fronts call other actions, of their own service too: if they took places as well, a
            // bulkhead could fill with calls that wait for room in it.
            Way::Front(front) => {
                let Some(front) = front.get() else { return Err(not_running(service)) };
                let mut tries = self.tries::<A>();
                loop {
                    tries.begin()?;
                    let work = front(context.clone(), sent.take(tries.is_last())?);
                    let work = Box::pin(tokio::time::timeout_at(deadline.into(), work));
                    let result = work.await.unwrap_or_else(|_| Err(late(A::INFO.name, A::INFO.kind)));
                    match tries.pause_after(&result) {
                        Some(pause) => rest(pause).await,
                        None => return result,
                    }
                }
            }
        }
    }

    /// A call of what is not here, or was not a moment ago.
    async fn elsewhere<A: Action>(
        &self,
        whereabouts: &Whereabouts,
        context: &CallContext,
        sent: &mut Sent<A::Request>,
        deadline: Instant,
    ) -> Result<A::Answer, Problem> {
        let (name, kind) = (A::INFO.name, A::INFO.kind);
        let late = || late(name, kind);
        let place = whereabouts.settled(deadline).await.ok_or_else(late)?;
        let ServicePlace::There(_) = place else {
            // It has come here while the call waited.
            let handler = self.handler::<A>();
            return Box::pin(self.once::<A>(handler, context, sent, deadline)).await;
        };
        if context.came_over.is_some() {
            return Err(remote::not_here(A::INFO.service));
        }
        let body = Arc::new(remote::encode(sent.request()?, name)?);
        let mut tries = self.tries::<A>();
        loop {
            tries.begin()?;
            let work = async {
                let Some(ServicePlace::There(remote)) = whereabouts.settled(deadline).await else {
                    return Err(not_running(A::INFO.service));
                };
                let patience = deadline.saturating_duration_since(Instant::now());
                let call = remote::call_of(name, kind, context, patience, Arc::clone(&body));
                remote::decode::<A::Answer>(&remote.call(call).await?, name)
            };
            let result = tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(late()));
            match tries.pause_after(&result) {
                Some(pause) => rest(pause).await,
                None => return result,
            }
        }
    }

    /// Breaker and retry around a call.
    fn tries<A: Action>(&self) -> Tries<'_> {
        Tries::new(&self.0.breakers[A::INFO.service.index()], &A::INFO)
    }
}

/// Asks a service's actor.
async fn ask<W: ServiceWords>(
    route: &Route<W>,
    place: &Place<'_, Answered<W>>,
    kind: Kind,
    context: &CallContext,
    request: impl FnOnce() -> Result<W::Request, Problem>,
) -> Result<Heard<Answered<W>>, Problem> {
    let send = |reply| {
        let (caller, cause) = (context.caller.clone(), context.cause);
        route.try_send(Ask { request: request()?, kind, caller, cause, reply })
    };
    place.ask(send).await
}

fn wrong_answer(action: &str) -> Problem {
    let cause = format!("{action} was answered with another action's answer");
    Problem::new(ProblemKind::Fault, "bus.wrong_answer", cause)
}

fn cannot_be_had(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemKind::Unavailable | ProblemKind::Busy)
}

/// Whether a refusal says that the call came where its service had been, or would be, and was not carried out. In an actor that has stopped
/// in order what it took in is done and answered, and what it had not is dropped.
fn nothing_was_done(problem: &Problem) -> bool {
    ["bus.not_running", "bus.not_here", "service.stopping", "service.lease_lapsed"].contains(&&*problem.code)
}

fn denied(action: &str, caller: &Caller) -> Problem {
    Problem::new(ProblemKind::Denied, "bus.denied", format!("{caller} may not call {action}"))
        .hint("use a token with a higher role: cell token create NAME --role admin")
}

fn late(action: &str, kind: Kind) -> Problem {
    match kind {
        Kind::Query => Problem::new(
            ProblemKind::Unavailable,
            "bus.deadline",
            format!("{action} was not answered within the deadline"),
        )
        .hint("ask again, or with a later deadline"),
        Kind::Command => Problem::new(
            ProblemKind::UnknownOutcome,
            "bus.unknown_outcome",
            format!("{action} was not answered within the deadline; it may or may not have happened"),
        )
        .hint("ask again with the same request id, or look first"),
    }
}

/// The refusal of an action nobody declared, with the nearest name.
pub fn unknown_action(action: &str) -> Problem {
    let shown: String = action.chars().take(80).collect();
    let nearest = protocol::actions()
        .into_iter()
        .filter(|info| info.access != protocol::Access::Internal)
        .map(|info| (strsim::jaro_winkler(info.name, &shown), info.name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
        .unwrap_or_default();
    Problem::new(ProblemKind::NotFound, "rpc.unknown_method", format!("there is no action {shown:?}"))
        .hint(format!("did you mean {nearest}? GET /openapi.json lists them all"))
}
