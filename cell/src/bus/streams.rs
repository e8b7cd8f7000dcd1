//! Answers that come as many items, one after the other, for as long as somebody takes them.
//!
//! A stream is opened like a call: trace, access, deadline, metrics. Once it is open it has no deadline, and who gives the items works no
//! faster than somebody takes them: here because a stream does nothing until it is polled, from another host because the bridge gives
//! credits. Dropping it ends the work at both ends.
//!
//! Bound: streams that are open ([`STREAMS_MAX`]); one more is `bus.busy`.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use protocol::action::Kind;
use protocol::{Problem, ProblemKind, StreamAction};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::build::{ByType, params};
use super::remote::{self, Place};
use super::route::{busy, not_running};
use super::spans::span_kind;
use super::{ActionMetrics, Bus, CallContext, denied, late, unknown_action};

/// Streams that are open at once.
const STREAMS_MAX: usize = 1_024;

/// The items of a stream: after a problem there are no more.
pub type Items = BoxStream<'static, Result<Vec<u8>, Problem>>;

type Opening = BoxFuture<'static, Result<Items, Problem>>;
type Producer<A> = dyn Fn(CallContext, <A as StreamAction>::Request) -> Opening + Send + Sync;
type JsonOpen = dyn Fn(Bus, CallContext, Value) -> Opening + Send + Sync;
type WireOpen = dyn Fn(Bus, CallContext, Vec<u8>) -> Opening + Send + Sync;

struct Source<A: StreamAction> {
    /// Who gives the items, once somebody has said who.
    producer: OnceLock<Box<Producer<A>>>,
    metrics: Arc<ActionMetrics>,
}

/// The streams of a bus.
pub(super) struct Streams {
    sources: ByType<Box<dyn Any + Send + Sync>>,
    json: HashMap<&'static str, Box<JsonOpen>>,
    wire: HashMap<&'static str, Box<WireOpen>>,
    places: Arc<Semaphore>,
}

impl Default for Streams {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { sources: ByType::default(), json: HashMap::new(), wire: HashMap::new(), places }
    }
}

impl Streams {
    pub(super) fn add<A: StreamAction>(&mut self, metrics: Arc<ActionMetrics>) {
        let source = Source::<A> { producer: OnceLock::new(), metrics };
        self.sources.insert(TypeId::of::<A>(), Box::new(source));
        let json = |bus: Bus, context: CallContext, value| -> Opening {
            Box::pin(async move {
                let request = params(&A::INFO, &context, value)?;
                bus.stream::<A>(context, request).await
            })
        };
        let wire = |bus: Bus, context, bytes: Vec<u8>| -> Opening {
            Box::pin(async move {
                let request = remote::decode(&bytes, A::INFO.name)?;
                bus.stream::<A>(context, request).await
            })
        };
        self.json.insert(A::INFO.name, Box::new(json));
        self.wire.insert(A::INFO.name, Box::new(wire));
    }

    /// Whether there is a stream of this name.
    pub(super) fn knows(&self, action: &str) -> bool {
        self.json.contains_key(action)
    }

    pub(super) fn has_producer<A: StreamAction>(&self) -> bool {
        self.source::<A>().producer.get().is_some()
    }

    fn source<A: StreamAction>(&self) -> &Source<A> {
        let source = self.sources.get(&TypeId::of::<A>()).and_then(|source| source.downcast_ref());
        source.expect("every declared stream has a source")
    }
}

impl Bus {
    /// Says who gives the items of a stream. The first word stands.
    pub fn producer<A, F, Fut>(&self, producer: F)
    where
        A: StreamAction,
        F: Fn(CallContext, A::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Items, Problem>> + Send + 'static,
    {
        let boxed = move |context, request| -> Opening { Box::pin(producer(context, request)) };
        let stood = self.0.streams.source::<A>().producer.set(Box::new(boxed));
        debug_assert!(stood.is_ok(), "{} has two producers", A::INFO.name);
    }

    /// Opens a stream: on the host that leads, wherever that is. The context's patience is for the opening alone.
    ///
    /// # Errors
    ///
    /// The producer's refusals and those of the middleware (`bus.…`). Where a stream breaks off later, its last item is the problem.
    pub async fn stream<A: StreamAction>(
        &self,
        mut context: CallContext,
        request: A::Request,
    ) -> Result<Items, Problem> {
        let began = Instant::now();
        let deadline = *context.deadline.get_or_insert(began + context.patience);
        let kind = || span_kind(context.came_over.is_some(), self.0.fronts.is_elsewhere());
        let recording = self.0.tracer.follow(&mut context.trace, A::INFO.name, kind);
        let opening = tokio::time::timeout_at(deadline.into(), self.open::<A>(context, request, deadline));
        let opened = opening.await.unwrap_or_else(|_| Err(late(A::INFO.name, A::INFO.kind)));
        self.0.streams.source::<A>().metrics.since(began).finish(&opened);
        if let Some(recording) = recording {
            recording.finish(opened.as_ref().err().map(|problem| &*problem.code));
        }
        opened
    }

    /// Opens a stream by name, with its request as JSON.
    ///
    /// # Errors
    ///
    /// `rpc.unknown_method`, `rpc.bad_params`, and those of [`Bus::stream`].
    pub async fn stream_json(
        &self,
        context: CallContext,
        action: &str,
        request: Value,
    ) -> Result<Items, Problem> {
        match self.0.streams.json.get(action) {
            Some(open) => open(self.clone(), context, request).await,
            None => Err(unknown_action(action)),
        }
    }

    /// Opens a stream by name for another host, which the context names, with its request as it came over the bridge.
    ///
    /// # Errors
    ///
    /// `rpc.unknown_method`, `bus.undecodable`, `bus.not_here`, and those of [`Bus::stream`].
    pub async fn stream_wire(
        &self,
        context: CallContext,
        action: &str,
        request: Vec<u8>,
    ) -> Result<Items, Problem> {
        match self.0.streams.wire.get(action) {
            Some(open) => open(self.clone(), context, request).await,
            None => Err(unknown_action(action)),
        }
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        STREAMS_MAX - self.0.streams.places.available_permits()
    }

    async fn open<A: StreamAction>(
        &self,
        context: CallContext,
        request: A::Request,
        deadline: Instant,
    ) -> Result<Items, Problem> {
        if !context.caller.may(A::INFO.access) {
            return Err(denied(A::INFO.name, &context.caller));
        }
        let service = A::INFO.service;
        let place = Arc::clone(&self.0.streams.places).try_acquire_owned().map_err(|_| busy(service))?;
        let late = || super::late(A::INFO.name, Kind::Query);
        let items = match self.0.fronts.settled(deadline).await.ok_or_else(late)? {
            Place::There(_) if context.came_over.is_some() => return Err(remote::not_here(service)),
            Place::There(remote) => {
                let body = Arc::new(remote::encode(&request, A::INFO.name)?);
                let patience = deadline.saturating_duration_since(Instant::now());
                remote.stream(remote::call_of(A::INFO.name, Kind::Query, &context, patience, body)).await?
            }
            Place::Here | Place::Moving => {
                let Some(producer) = self.0.streams.source::<A>().producer.get() else {
                    return Err(not_running(service));
                };
                producer(context, request).await?
            }
        };
        let held = move |item| {
            let _place = &place;
            item
        };
        Ok(items.map(held).boxed())
    }
}

/// The refusal of a stream where one answer was asked for.
pub(super) fn is_a_stream(action: &str) -> Problem {
    let cause = format!("{action} is answered by a stream");
    let path = action.replace('.', "/");
    Problem::new(ProblemKind::Invalid, "rpc.is_a_stream", cause).hint(format!("GET /api/v1/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::BusLimits;
    use protocol::nucleus::{ReadJournal, ReadJournalRequest, Watch, WatchRequest};
    use protocol::{Access, Caller, Service};

    fn items(bus: &Bus, context: CallContext) -> impl Future<Output = Result<Items, Problem>> {
        let (bus, request) = (bus.clone(), WatchRequest::default());
        async move { bus.stream::<Watch>(context, request).await }
    }

    fn code(opened: Result<Items, Problem>) -> String {
        opened.err().map(|problem| problem.code.into_owned()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_stream_is_opened_by_type_by_json_and_from_another_host() {
        let bus = Bus::new(BusLimits::default());
        assert!(bus.missing_fronts().contains(&"nucleus.watch"));
        assert_eq!(code(items(&bus, CallContext::internal()).await), "bus.not_running");
        bus.producer::<Watch, _, _>(|_, request: WatchRequest| async move {
            let names = request.names.unwrap_or_default().into_bytes();
            Ok(futures_util::stream::iter([Ok(names), Ok(vec![1])]).boxed())
        });
        assert!(!bus.missing_fronts().contains(&"nucleus.watch"));
        let context = CallContext::internal;
        let named = WatchRequest { names: Some("ab".to_owned()), since: None };
        let wire = remote::encode(&named, "nucleus.watch").expect("encodes");
        let json = serde_json::json!({ "names": "ab" });
        for opened in [
            bus.stream::<Watch>(context(), named).await,
            bus.stream_json(context(), "nucleus.watch", json).await,
            bus.stream_wire(context(), "nucleus.watch", wire).await,
        ] {
            let all: Vec<_> = opened.expect("opens").map(|item| item.expect("an item")).collect().await;
            assert_eq!(all, [b"ab".to_vec(), vec![1]]);
        }
        let bad = bus.stream_json(context(), "nucleus.watch", serde_json::json!({ "name": 1 })).await;
        assert_eq!(code(bad), "rpc.bad_params");
        assert_eq!(
            code(bus.stream_json(context(), "nucleus.nothing", Value::Null).await),
            "rpc.unknown_method"
        );
        let called = bus.call_json(context(), "nucleus.watch", Value::Null).await;
        assert_eq!(called.expect_err("not by a call").code, "rpc.is_a_stream");
        let reader = Caller::Token { role: Access::Read, name: "reader".to_owned() };
        let request = ReadJournalRequest { journal: Service::State, from: 0, limit: None };
        assert_eq!(code(bus.stream::<ReadJournal>(CallContext::of(reader), request).await), "bus.denied");
    }

    #[tokio::test]
    async fn open_streams_are_bounded_and_a_dropped_one_gives_its_place_back() {
        let bus = Bus::new(BusLimits::default());
        bus.producer::<Watch, _, _>(|_, _| async { Ok(futures_util::stream::pending().boxed()) });
        let mut open = Vec::new();
        for _ in 0..STREAMS_MAX {
            open.push(items(&bus, CallContext::internal()).await.expect("room"));
        }
        assert_eq!(code(items(&bus, CallContext::internal()).await), "bus.busy");
        assert_eq!(bus.open_streams(), STREAMS_MAX);
        open.pop();
        assert!(items(&bus, CallContext::internal()).await.is_ok());
    }
}
