//! The bus: how services, HTTP and effects call an action.
//!
//! Callers name an action's type and get its typed answer; nobody builds an envelope. Every call goes
//! through the same middleware, in one fixed order:
//!
//! 1. **trace**: a span, and the W3C trace context that travels with the call;
//! 2. **access**: the caller's level against the action's;
//! 3. **deadline**: a missed one is `bus.deadline` for a query, `bus.unknown_outcome` for a command;
//! 4. **bulkhead**: calls under way per service are bounded, one more is `bus.busy` at once;
//! 5. **breaker**: a service that keeps failing is left alone for a while (`bus.circuit_open`);
//! 6. **retry**: queries only, on `busy` and `unavailable`, twice, with a pause;
//! 7. **metrics**: calls, refusals and a latency histogram for each action.
//!
//! Invariants: no queue here is unbounded; a full mailbox is a refusal, not a wait; the same handler
//! serves a call from inside, from HTTP and from another cell.

mod breaker;
mod context;
mod metrics;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use machine::EffectId;
use protocol::action::{Call, Kind, ServiceWords};
use protocol::{Action, Caller, MachineAction, Problem, ProblemKind, Service, Visitor};
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::Instrument;

pub use breaker::Breaker;
pub use context::{CallContext, DEADLINE_DEFAULT, TraceParent};
pub use metrics::{ActionMetrics, BUCKETS_US, Measured};

/// Times a query is tried again.
const RETRIES_MAX: u32 = 2;
/// Pause before the first retry; the second waits twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// A request on its way to a service's actor.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct Ask<W: ServiceWords> {
    /// What is asked.
    pub request: W::Request,
    /// Query or command.
    pub kind: Kind,
    /// Who asks.
    pub caller: Caller,
    /// The effect that asks, if one does: the receiver journals it as its source's high-water mark.
    pub cause: Option<EffectId>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<W::Answer, Problem>>,
}

/// The way to a service's actor; the supervisor changes it when it starts the actor anew.
pub struct Route<W: ServiceWords> {
    recipient: RwLock<Option<actix::Recipient<Ask<W>>>>,
}

impl<W: ServiceWords> Default for Route<W> {
    fn default() -> Self {
        Self { recipient: RwLock::new(None) }
    }
}

impl<W: ServiceWords> Route<W> {
    /// Points the route at an actor, or at none.
    pub fn set(&self, recipient: Option<actix::Recipient<Ask<W>>>) {
        *self.recipient.write().unwrap_or_else(std::sync::PoisonError::into_inner) = recipient;
    }

    fn try_send(&self, ask: Ask<W>) -> Result<(), Problem> {
        let recipient = self.recipient.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(recipient) = recipient.as_ref() else {
            return Err(not_running(W::SERVICE));
        };
        recipient.try_send(ask).map_err(|error| match error {
            actix::prelude::SendError::Full(_) => busy(W::SERVICE),
            actix::prelude::SendError::Closed(_) => not_running(W::SERVICE),
        })
    }
}

fn not_running(service: Service) -> Problem {
    Problem::new(ProblemKind::Unavailable, "bus.not_running", format!("the {service} service is not running"))
        .hint("cell status shows the services; ask again once it runs")
}

fn busy(service: Service) -> Problem {
    Problem::new(ProblemKind::Busy, "bus.busy", format!("the {service} service has too much to do"))
        .hint("ask again in a moment")
}

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

type Handle<A> = dyn Fn(CallContext, <A as Action>::Request) -> BoxFuture<'static, Result<<A as Action>::Answer, Problem>>
    + Send
    + Sync;
type JsonHandle = dyn Fn(Bus, CallContext, Value) -> BoxFuture<'static, Result<Value, Problem>> + Send + Sync;

struct Handler<A: Action> {
    handle: OnceLock<Box<Handle<A>>>,
    metrics: Arc<ActionMetrics>,
}

/// What guards one service: bulkhead and breaker.
struct Guard {
    in_flight: AtomicUsize,
    breaker: Breaker,
}

struct Inner {
    handlers: HashMap<TypeId, Box<dyn Any + Send + Sync>, TypeIdHasher>,
    json: HashMap<&'static str, Box<JsonHandle>>,
    routes: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    guards: [Guard; 6],
    metrics: Vec<Arc<ActionMetrics>>,
    limits: BusLimits,
}

/// The bus. Clones are handles to the same one; it may be used from any thread with a tokio runtime.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

impl Bus {
    /// A bus with every declared action; fronts are added by [`Bus::front`], services by [`Bus::route`].
    pub fn new(limits: BusLimits) -> Self {
        let mut build = Build::default();
        protocol::visit_actions(&mut build);
        let guard = || Guard {
            in_flight: AtomicUsize::new(0),
            breaker: Breaker::new(limits.breaker_failures_max, limits.breaker_pause),
        };
        Self(Arc::new(Inner {
            handlers: build.handlers,
            json: build.json,
            routes: build.routes,
            guards: std::array::from_fn(|_| guard()),
            metrics: build.metrics,
            limits,
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
        let stood = self
            .handler::<A>()
            .handle
            .set(Box::new(move |context, request| Box::pin(front(context, request))));
        debug_assert!(stood.is_ok(), "{} has two fronts", A::INFO.name);
    }

    /// The front actions that nobody has said how to carry out: none, once a cell has started.
    pub fn missing_fronts(&self) -> Vec<&'static str> {
        struct Missing<'a>(&'a Bus, Vec<&'static str>);
        impl Visitor for Missing<'_> {
            fn machine<A: MachineAction>(&mut self) {}
            fn front<A: Action>(&mut self) {
                if self.0.handler::<A>().handle.get().is_none() {
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
        let measured = handler.metrics.since(context.began().into_std());
        let span = span(A::INFO.name, &context);
        let call = self.guarded::<A>(handler, context, request);
        // Who does not look pays for one comparison.
        let result = if span.is_disabled() { call.await } else { call.instrument(span.clone()).await };
        measured.finish(&result);
        tracing::debug!(parent: &span, code = result.as_ref().err().map(|problem| &*problem.code), "answered");
        result
    }

    /// Calls an action by name, with its request as JSON.
    ///
    /// # Errors
    ///
    /// `rpc.unknown_method`, `rpc.bad_params`, and those of [`Bus::call`].
    pub async fn call_json(
        &self,
        context: CallContext,
        action: &str,
        request: Value,
    ) -> Result<Value, Problem> {
        match self.0.json.get(action) {
            Some(handle) => handle(self.clone(), context, request).await,
            None => Err(unknown_action(action)),
        }
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

    /// Calls under way to a service.
    pub fn in_flight(&self, service: Service) -> usize {
        self.0.guards[service.index()].in_flight.load(Ordering::Relaxed)
    }

    fn handler<A: Action>(&self) -> &Handler<A> {
        self.0
            .handlers
            .get(&TypeId::of::<A>())
            .and_then(|handler| handler.downcast_ref::<Handler<A>>())
            .expect("every declared action has a handler")
    }

    async fn guarded<A: Action>(
        &self,
        handler: &Handler<A>,
        context: CallContext,
        request: A::Request,
    ) -> Result<A::Answer, Problem> {
        if !context.caller.may(A::INFO.access) {
            return Err(denied(A::INFO.name, &context.caller));
        }
        let deadline = context.deadline;
        let work = self.behind_bulkhead::<A>(handler, context, request);
        match tokio::time::timeout_at(deadline, work).await {
            Ok(result) => result,
            Err(_) => {
                self.0.guards[A::INFO.service.index()].breaker.failed();
                Err(late(A::INFO.name, A::INFO.kind))
            }
        }
    }

    async fn behind_bulkhead<A: Action>(
        &self,
        handler: &Handler<A>,
        context: CallContext,
        request: A::Request,
    ) -> Result<A::Answer, Problem> {
        let guard = &self.0.guards[A::INFO.service.index()];
        // Fronts call other actions, of their own service too: counting them as well could fill a
        // bulkhead with calls that wait for room in it.
        let _place = match A::INFO.handler {
            protocol::Handler::Machine => {
                Some(Place::take(&guard.in_flight, self.0.limits.in_flight_max, A::INFO.service)?)
            }
            protocol::Handler::Front => None,
        };
        let Some(handle) = handler.handle.get() else {
            return Err(not_running(A::INFO.service));
        };
        if A::INFO.kind == Kind::Command {
            guard.breaker.check(A::INFO.service)?;
            let result = handle(context, request).await;
            guard.breaker.saw(&result);
            return result;
        }
        let mut tries = 0;
        loop {
            guard.breaker.check(A::INFO.service)?;
            let result = handle(context.clone(), request.clone()).await;
            guard.breaker.saw(&result);
            match &result {
                Err(problem) if tries < RETRIES_MAX && worth_a_retry(problem) => {
                    tries += 1;
                    tokio::time::sleep(RETRY_PAUSE * tries).await;
                }
                _ => return result,
            }
        }
    }
}

/// The span of a call, under the trace that it came with.
fn span(action: &'static str, context: &CallContext) -> tracing::Span {
    let span = tracing::debug_span!("call", action, caller = %context.caller, trace = tracing::field::Empty);
    if let Some(trace) = &context.trace
        && !span.is_disabled()
    {
        span.record("trace", tracing::field::display(trace));
    }
    span
}

/// A place behind the bulkhead, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(in_flight: &'a AtomicUsize, max: usize, service: Service) -> Result<Self, Problem> {
        if in_flight.fetch_add(1, Ordering::Relaxed) >= max {
            in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(busy(service));
        }
        Ok(Self(in_flight))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn worth_a_retry(problem: &Problem) -> bool {
    problem.code == "bus.busy" || problem.code == "bus.not_running"
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

/// The bus with a call context: what typed clients run over.
#[derive(Clone)]
pub struct BusCaller {
    bus: Bus,
    context: CallContext,
}

impl BusCaller {
    /// The Nucleus actions.
    pub fn nucleus(&self) -> protocol::nucleus::Client<'_, Self> {
        protocol::nucleus::Client(self)
    }
    /// The Identity actions.
    pub fn identity(&self) -> protocol::identity::Client<'_, Self> {
        protocol::identity::Client(self)
    }
    /// The Message actions.
    pub fn message(&self) -> protocol::messages::Client<'_, Self> {
        protocol::messages::Client(self)
    }
    /// The State actions.
    pub fn state(&self) -> protocol::state::Client<'_, Self> {
        protocol::state::Client(self)
    }
    /// The Consensus actions.
    pub fn consensus(&self) -> protocol::consensus::Client<'_, Self> {
        protocol::consensus::Client(self)
    }
    /// The Market actions.
    pub fn market(&self) -> protocol::market::Client<'_, Self> {
        protocol::market::Client(self)
    }
}

impl Call for BusCaller {
    fn call<A: Action>(
        &self,
        request: A::Request,
    ) -> impl Future<Output = Result<A::Answer, Problem>> + Send {
        let (bus, context) = (self.bus.clone(), self.context.renewed());
        async move { bus.call::<A>(context, request).await }
    }
}

/// Fills the tables of a bus from the declarations.
#[derive(Default)]
struct Build {
    handlers: HashMap<TypeId, Box<dyn Any + Send + Sync>, TypeIdHasher>,
    json: HashMap<&'static str, Box<JsonHandle>>,
    routes: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    metrics: Vec<Arc<ActionMetrics>>,
}

impl Build {
    fn add<A: Action>(&mut self, handle: OnceLock<Box<Handle<A>>>) {
        let metrics = Arc::new(ActionMetrics::new(A::INFO.name));
        self.metrics.push(Arc::clone(&metrics));
        self.handlers.insert(TypeId::of::<A>(), Box::new(Handler::<A> { handle, metrics }));
        self.json.insert(
            A::INFO.name,
            Box::new(|bus, context, value| Box::pin(json_call::<A>(bus, context, value))),
        );
    }
}

async fn json_call<A: Action>(bus: Bus, context: CallContext, value: Value) -> Result<Value, Problem> {
    // Access comes first: whoever may not call an action learns nothing of its shape.
    if !context.caller.may(A::INFO.access) {
        return Err(denied(A::INFO.name, &context.caller));
    }
    let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
    let request = serde_json::from_value::<A::Request>(value).map_err(|error| {
        Problem::new(ProblemKind::Invalid, "rpc.bad_params", format!("{}: {error}", A::INFO.name))
            .hint("GET /openapi.json has the schema of every request")
    })?;
    let answer = bus.call::<A>(context, request).await?;
    serde_json::to_value(answer).map_err(|error| {
        Problem::new(ProblemKind::Fault, "rpc.unencodable", format!("{}: {error}", A::INFO.name))
    })
}

impl Visitor for Build {
    fn machine<A: MachineAction>(&mut self) {
        let route = self
            .routes
            .entry(TypeId::of::<A::Words>())
            .or_insert_with(|| Arc::new(Route::<A::Words>::default()))
            .clone()
            .downcast::<Route<A::Words>>()
            .expect("a route is kept under the type of its words");
        let handle: Box<Handle<A>> = Box::new(move |context, request| {
            let (reply, answer) = oneshot::channel();
            let ask = Ask {
                request: A::wrap(request),
                kind: A::INFO.kind,
                caller: context.caller,
                cause: context.cause,
                reply,
            };
            let sent = route.try_send(ask);
            Box::pin(async move {
                sent?;
                let answer = answer.await.map_err(|_| not_running(A::INFO.service))??;
                A::unwrap(answer).ok_or_else(|| {
                    Problem::new(
                        ProblemKind::Fault,
                        "bus.wrong_answer",
                        format!("{} was answered with another action's answer", A::INFO.name),
                    )
                })
            })
        });
        self.add::<A>(OnceLock::from(handle));
    }

    fn front<A: Action>(&mut self) {
        self.add::<A>(OnceLock::new());
    }
}

/// A `TypeId` is a hash already.
#[derive(Clone, Default)]
struct TypeIdHasher;

impl std::hash::BuildHasher for TypeIdHasher {
    type Hasher = Passthrough;
    fn build_hasher(&self) -> Passthrough {
        Passthrough(0)
    }
}

struct Passthrough(u64);

impl std::hash::Hasher for Passthrough {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
