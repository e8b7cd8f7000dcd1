//! The tables of a bus, filled from the declared actions.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use protocol::action::ServiceWords;
use protocol::{Action, ActionInfo, MachineAction, Problem, ProblemKind, Service, StreamAction, Visitor};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::bulkhead::{Bulkhead, Kept};
use super::memory::{Memory, Remember};
use super::streams::Streams;
use super::{ActionMetrics, Bus, CallContext, Route, denied, remote};

pub(super) type Front<A> = dyn Fn(CallContext, <A as Action>::Request) -> BoxFuture<'static, Result<<A as Action>::Answer, Problem>>
    + Send
    + Sync;
pub(super) type WireHandle =
    dyn Fn(Bus, CallContext, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Problem>> + Send + Sync;
pub(super) type JsonHandle =
    dyn Fn(Bus, CallContext, Value) -> BoxFuture<'static, Result<Value, Problem>> + Send + Sync;

/// An action's request, as one of its service's words.
pub(super) type Wrap<A> = fn(<A as Action>::Request) -> <<A as Action>::Words as ServiceWords>::Request;
/// A service's answer, as the action's.
pub(super) type Unwrap<A> =
    fn(<<A as Action>::Words as ServiceWords>::Answer) -> Option<<A as Action>::Answer>;

/// Who answers an action.
pub(super) enum Way<A: Action> {
    /// Its service's machine.
    Machine { route: Arc<Route<A::Words>>, wrap: Wrap<A>, unwrap: Unwrap<A> },
    /// A front, once somebody has said which.
    Front(OnceLock<Box<Front<A>>>),
}

pub(super) struct Handler<A: Action> {
    pub(super) way: Way<A>,
    /// Its answers, where they may be given again.
    pub(super) memory: Option<Box<dyn Memory<A>>>,
    pub(super) metrics: Arc<ActionMetrics>,
}

/// Everything of one type each, under that type's id.
pub(super) type ByType<T> = HashMap<TypeId, T, TypeIdHasher>;

/// Fills the tables of a bus from the declarations.
pub(super) struct Build {
    in_flight_max: usize,
    pub(super) bulkheads: HashMap<Service, Arc<dyn Kept>>,
    pub(super) handlers: ByType<Box<dyn Any + Send + Sync>>,
    pub(super) json: HashMap<&'static str, Box<JsonHandle>>,
    pub(super) wire: HashMap<&'static str, Box<WireHandle>>,
    /// The actions that services answer.
    pub(super) of_services: HashSet<&'static str>,
    pub(super) routes: ByType<Arc<dyn Any + Send + Sync>>,
    pub(super) metrics: Vec<Arc<ActionMetrics>>,
    pub(super) streams: Streams,
}

impl Build {
    /// Nothing declared yet; so many calls of a service may be under way.
    pub(super) fn new(in_flight_max: usize) -> Self {
        Self {
            in_flight_max,
            bulkheads: HashMap::new(),
            handlers: ByType::default(),
            json: HashMap::new(),
            wire: HashMap::new(),
            of_services: HashSet::new(),
            routes: ByType::default(),
            metrics: Vec::new(),
            streams: Streams::default(),
        }
    }

    fn add<A: Action>(&mut self, way: Way<A>, memory: Option<Box<dyn Memory<A>>>) {
        let metrics = Arc::new(ActionMetrics::new(A::INFO.name));
        self.metrics.push(Arc::clone(&metrics));
        self.handlers.insert(TypeId::of::<A>(), Box::new(Handler { way, memory, metrics }));
        self.json.insert(
            A::INFO.name,
            Box::new(|bus, context, value| Box::pin(json_call::<A>(bus, context, value))),
        );
        self.wire.insert(
            A::INFO.name,
            Box::new(|bus, context, bytes| Box::pin(wire_call::<A>(bus, context, bytes))),
        );
    }

    fn add_machine<A: MachineAction>(&mut self, memory: Option<Box<dyn Memory<A>>>) {
        let Self { routes, bulkheads, in_flight_max, .. } = self;
        let new = || {
            let route = Arc::new(Route::<A::Words>::new(*in_flight_max));
            bulkheads.insert(A::INFO.service, Arc::<Bulkhead<_>>::clone(&route.bulkhead));
            route as Arc<dyn Any + Send + Sync>
        };
        let route = Arc::clone(routes.entry(TypeId::of::<A::Words>()).or_insert_with(new))
            .downcast::<Route<A::Words>>()
            .expect("a route is kept under the type of its words");
        self.of_services.insert(A::INFO.name);
        self.add::<A>(Way::Machine { route, wrap: A::wrap, unwrap: A::unwrap }, memory);
    }
}

impl Visitor for Build {
    fn machine<A: MachineAction>(&mut self) {
        self.add_machine::<A>(None);
    }

    fn cached<A: MachineAction>(&mut self)
    where
        A::Request: Eq + Hash,
    {
        self.add_machine::<A>(Some(Box::new(Remember::default())));
    }

    fn front<A: Action>(&mut self) {
        self.add::<A>(Way::Front(OnceLock::new()), None);
    }

    fn stream<A: StreamAction>(&mut self) {
        let metrics = Arc::new(ActionMetrics::new(A::INFO.name));
        self.metrics.push(Arc::clone(&metrics));
        self.streams.add::<A>(metrics);
    }
}

async fn json_call<A: Action>(bus: Bus, context: CallContext, value: Value) -> Result<Value, Problem> {
    let request = params::<A::Request>(&A::INFO, &context, value)?;
    let answer = bus.call::<A>(context, request).await?;
    serde_json::to_value(answer).map_err(|error| {
        Problem::new(ProblemKind::Fault, "rpc.unencodable", format!("{}: {error}", A::INFO.name))
    })
}

/// A request out of JSON.
pub(super) fn params<T: DeserializeOwned>(
    info: &ActionInfo,
    context: &CallContext,
    value: Value,
) -> Result<T, Problem> {
    // Access comes first: whoever may not call an action learns nothing of its shape.
    if !context.caller.may(info.access) {
        return Err(denied(info.name, &context.caller));
    }
    let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
    serde_json::from_value(value).map_err(|error| {
        Problem::new(ProblemKind::Invalid, "rpc.bad_params", format!("{}: {error}", info.name))
            .hint("GET /openapi.json has the schema of every request")
    })
}

/// A call that came over the bridge.
async fn wire_call<A: Action>(bus: Bus, context: CallContext, bytes: Vec<u8>) -> Result<Vec<u8>, Problem> {
    let request = remote::decode::<A::Request>(&bytes, A::INFO.name)?;
    let answer = bus.call::<A>(context, request).await?;
    remote::encode(&answer, A::INFO.name)
}

/// A `TypeId` is a hash already.
#[derive(Clone, Default)]
pub(super) struct TypeIdHasher;

impl std::hash::BuildHasher for TypeIdHasher {
    type Hasher = Passthrough;
    fn build_hasher(&self) -> Passthrough {
        Passthrough(0)
    }
}

pub(super) struct Passthrough(u64);

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
