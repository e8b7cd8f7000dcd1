//! Calls that are answered on another host of the cell: what the bus hands to the bridge, and takes from it.
//!
//! Requests and answers cross as CBOR that names its fields: a host of another version leaves out what it does not know of an answer, and a
//! field that is new in a request is left out while it is not used (ADR 0026).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use machine::EffectId;
use protocol::action::Kind;
use protocol::{Caller, Problem, ProblemKind, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{CallContext, Items, TraceParent};

/// A call on its way to another host.
#[derive(Clone, Debug)]
pub struct RemoteCall {
    /// The action's name.
    pub action: &'static str,
    /// Whether it may change anything.
    pub kind: Kind,
    /// Who asks.
    pub caller: Caller,
    /// On behalf of which effect, if of one.
    pub cause: Option<EffectId>,
    /// In which trace, if in one.
    pub trace: Option<TraceParent>,
    /// How long the caller still waits.
    pub patience: Duration,
    /// The request.
    pub body: Arc<Vec<u8>>,
}

/// Another host, as the bus sees it.
pub trait Remote: Send + Sync {
    /// Asks, and waits for the answer.
    fn call(&self, call: RemoteCall) -> BoxFuture<'_, Result<Vec<u8>, Problem>>;

    /// Opens a stream; its items come as they are taken.
    fn stream(&self, call: RemoteCall) -> BoxFuture<'_, Result<Items, Problem>>;
}

/// Where what is called is, if it is not here.
#[derive(Clone, Default)]
pub enum Place {
    /// Here.
    #[default]
    Here,
    /// On another host.
    There(Arc<dyn Remote>),
    /// On its way from one to another: calls wait.
    Moving,
}

/// Where a service, or the fronts, are. Asking whether that is here costs one load.
pub(super) struct Whereabouts {
    is_elsewhere: AtomicBool,
    /// Whether it was ever anywhere but here.
    may_move: AtomicBool,
    place: RwLock<Place>,
    /// How often a place was named, or what was away there was back.
    changes: AtomicU64,
    /// Tells who waits that [`Self::changes`] has changed.
    changed: watch::Sender<()>,
}

impl Default for Whereabouts {
    fn default() -> Self {
        Self {
            is_elsewhere: AtomicBool::new(false),
            may_move: AtomicBool::new(false),
            place: RwLock::default(),
            changes: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        }
    }
}

impl Whereabouts {
    pub(super) fn set(&self, place: Place) {
        let is_elsewhere = !matches!(place, Place::Here);
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = place;
        if is_elsewhere {
            self.may_move.store(true, Ordering::Release);
        }
        self.is_elsewhere.store(is_elsewhere, Ordering::Release);
        self.is_back();
    }

    /// What waits for word of it looks again.
    pub(super) fn is_back(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.changed.send_replace(());
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere.load(Ordering::Acquire)
    }

    /// Whether it may go elsewhere, or come back.
    pub(super) fn may_move(&self) -> bool {
        self.may_move.load(Ordering::Acquire)
    }

    /// How often a place was named, or what was away there was back.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Waits for more changes than so many; false where none comes until then.
    pub(super) async fn change_after(&self, changes: u64, until: Instant) -> bool {
        let mut changed = self.changed.subscribe();
        let change = changed.wait_for(|()| self.changes() != changes);
        tokio::time::timeout_at(until.into(), change).await.is_ok()
    }

    fn now(&self) -> Place {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The place, once nothing is on its way; none where that takes longer than until then.
    pub(super) async fn settled(&self, until: Instant) -> Option<Place> {
        let mut place = self.now();
        if matches!(place, Place::Moving) {
            let mut changed = self.changed.subscribe();
            place = self.now();
            while matches!(place, Place::Moving) {
                // The sender is here.
                tokio::time::timeout_at(until.into(), changed.changed()).await.ok()?.ok()?;
                place = self.now();
            }
        }
        Some(place)
    }
}

/// A request or an answer in bytes.
///
/// # Errors
///
/// `bus.unencodable`: a defect.
pub(super) fn encode<T: Serialize>(value: &T, action: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut serializer = minicbor_serde::Serializer::new(&mut bytes);
    // Else a null in JSON would come out as an empty list.
    serializer.serialize_unit_as_null(true);
    value
        .serialize(&mut serializer)
        .map_err(|error| Problem::new(ProblemKind::Fault, "bus.unencodable", format!("{action}: {error}")))?;
    Ok(bytes)
}

/// Out of bytes.
///
/// # Errors
///
/// `bus.undecodable`: the other host speaks another version.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], action: &str) -> Result<T, Problem> {
    minicbor_serde::from_slice(bytes).map_err(|error| {
        Problem::new(ProblemKind::Unavailable, "bus.undecodable", format!("{action}: {error}"))
            .hint("hosts of one cell run versions that fit: cell hosts shows them")
    })
}

/// What a call still has of its caller's patience.
pub(super) fn call_of(
    action: &'static str,
    kind: Kind,
    context: &CallContext,
    patience: Duration,
    body: Arc<Vec<u8>>,
) -> RemoteCall {
    let CallContext { caller, cause, trace, .. } = context.clone();
    RemoteCall { action, kind, caller, cause, trace, patience, body }
}

/// The refusal of a call that came over the bridge for what is not here: it goes over one bridge, not over two.
pub(super) fn not_here(service: Service) -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "bus.not_here",
        format!("the {service} service is on another host"),
    )
    .hint("it has just moved; ask again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bus, BusLimits};
    use futures_util::FutureExt;
    use protocol::consensus::RecordRequest;
    use protocol::messages::{Outbox, OutboxCount, Sweep};
    use protocol::shared::Empty;
    use protocol::{Amount, CellId};
    use serde_json::json;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    fn crosses<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = encode(value, "test.it").expect("it is written");
        assert_eq!(&decode::<T>(&bytes, "test.it").expect("it is read"), value);
    }

    #[test]
    fn what_crosses_reads_back() {
        crosses(&(CellId::from_bytes([7; 32]), Amount(u128::MAX)));
        crosses(&json!({ "n": -1, "big": u64::MAX, "f": 0.25, "s": "\u{1f600}", "l": [null, true, {}] }));
        crosses(&json!({ "long": "x".repeat(100_000), "empty": "", "deep": [[["a"]]], "ü": "ß" }));
        let events = vec![vec![0, 255, 7], vec![]];
        crosses(&RecordRequest { epoch: 1, first: 2, events });
    }

    /// Another host: answers as it was told to, and counts.
    struct Other {
        refusal: Mutex<Option<fn() -> Problem>>,
        calls: AtomicUsize,
    }

    impl Other {
        fn new(refusal: Option<fn() -> Problem>) -> Arc<Self> {
            Arc::new(Self { refusal: Mutex::new(refusal), calls: AtomicUsize::new(0) })
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::Relaxed)
        }
    }

    impl Remote for Other {
        fn call(&self, _: RemoteCall) -> BoxFuture<'_, Result<Vec<u8>, Problem>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let refusal = *self.refusal.lock().expect("nobody has failed");
            let answer = refusal.map_or_else(|| encode(&Empty {}, "message.sweep"), |refusal| Err(refusal()));
            std::future::ready(answer).boxed()
        }

        fn stream(&self, _: RemoteCall) -> BoxFuture<'_, Result<Items, Problem>> {
            std::future::ready(Err(not_here(Service::Message))).boxed()
        }
    }

    fn placed(bus: &Bus, other: &Arc<Other>) {
        bus.place(Service::Message, Place::There(Arc::clone(other) as Arc<dyn Remote>));
    }

    fn sweep(bus: &Bus) -> tokio::task::JoinHandle<Result<Empty, Problem>> {
        let bus = bus.clone();
        tokio::spawn(async move { bus.call::<Sweep>(CallContext::internal(), Empty {}).await })
    }

    #[tokio::test]
    async fn a_command_that_came_too_late_for_one_host_goes_to_the_next() {
        let too_late = || not_here(Service::Message);
        for first in [too_late, || crate::bus::route::not_running(Service::Message)] {
            let (bus, old, new) = (Bus::new(BusLimits::default()), Other::new(Some(first)), Other::new(None));
            placed(&bus, &old);
            let called = sweep(&bus);
            while old.calls() == 0 {
                tokio::task::yield_now().await;
            }
            placed(&bus, &new);
            assert_eq!(called.await.expect("it ends"), Ok(Empty {}));
            assert_eq!((old.calls(), new.calls()), (1, 1));
        }
    }

    #[tokio::test]
    async fn a_command_that_may_have_been_done_is_never_sent_again() {
        let lost =
            || Problem::new(ProblemKind::UnknownOutcome, "bus.unknown_outcome", "the connection broke");
        let (bus, old, new) = (Bus::new(BusLimits::default()), Other::new(Some(lost)), Other::new(None));
        placed(&bus, &old);
        let called = sweep(&bus);
        while old.calls() == 0 {
            tokio::task::yield_now().await;
        }
        placed(&bus, &new);
        assert_eq!(called.await.expect("it ends").expect_err("unknown").code, "bus.unknown_outcome");
        assert_eq!((old.calls(), new.calls()), (1, 0));
    }

    #[tokio::test]
    async fn a_command_waits_for_word_of_its_service_and_not_for_ever() {
        let (bus, old) = (Bus::new(BusLimits::default()), Other::new(Some(|| not_here(Service::Message))));
        placed(&bus, &old);
        assert_eq!(sweep(&bus).await.expect("it ends").expect_err("nobody").code, "bus.not_here");
        assert_eq!(old.calls(), 1);
    }

    /// A host that is started again runs what it ran: no other place is named.
    #[tokio::test]
    async fn a_command_goes_to_its_service_when_that_is_back_where_it_was() {
        let not_running = || crate::bus::route::not_running(Service::Message);
        let (bus, other) = (Bus::new(BusLimits::default()), Other::new(Some(not_running)));
        placed(&bus, &other);
        let called = sweep(&bus);
        while other.calls() == 0 {
            tokio::task::yield_now().await;
        }
        *other.refusal.lock().expect("nobody has failed") = None;
        bus.is_back(Service::Message);
        assert_eq!(called.await.expect("it ends"), Ok(Empty {}));
        assert_eq!(other.calls(), 2);
    }

    #[tokio::test]
    async fn a_query_is_tried_again_where_nobody_was_there_and_a_command_is_not() {
        let away = || Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", "away");
        let refused = || Problem::new(ProblemKind::Denied, "test.refused", "no");
        let (bus, other) = (Bus::new(BusLimits::default()), Other::new(Some(away)));
        placed(&bus, &other);
        let asked = async || bus.call::<Outbox>(CallContext::internal(), Empty {}).await;
        assert_eq!(asked().await.expect_err("away").code, "bus.host_unreachable");
        assert_eq!(other.calls(), 3);
        *other.refusal.lock().expect("nobody has failed") = Some(refused);
        assert_eq!(asked().await.expect_err("it says no").code, "test.refused");
        assert_eq!(other.calls(), 4, "who has said no is not asked again");
        *other.refusal.lock().expect("nobody has failed") = Some(away);
        assert_eq!(sweep(&bus).await.expect("it ends").expect_err("away").code, "bus.host_unreachable");
        assert_eq!(other.calls(), 5, "nobody knows what became of it");
    }

    #[tokio::test]
    async fn a_query_falls_back_where_its_service_cannot_be_had_and_on_nothing_else() {
        let refused = || Problem::new(ProblemKind::Denied, "test.refused", "no");
        let away = || Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", "away");
        let bus = Bus::new(BusLimits::default());
        let outbox = |other: Arc<Other>| {
            placed(&bus, &other);
            bus.call_or::<Outbox>(CallContext::internal(), Empty {}, |_| OutboxCount { waiting: 7 })
        };
        assert_eq!(outbox(Other::new(Some(away))).await, Ok(OutboxCount { waiting: 7 }));
        assert_eq!(outbox(Other::new(Some(refused))).await.expect_err("it says no").code, "test.refused");
        let swept = |other: Arc<Other>| {
            placed(&bus, &other);
            bus.call_or::<Sweep>(CallContext::internal(), Empty {}, |_| Empty {})
        };
        let swept = swept(Other::new(Some(away))).await;
        assert_eq!(swept.expect_err("a command was not done").code, "bus.host_unreachable");
        let of_outbox = bus.metrics().iter().find(|metrics| metrics.action == "message.outbox");
        assert_eq!(of_outbox.expect("there").fallbacks.load(Ordering::Relaxed), 1);
    }
}
