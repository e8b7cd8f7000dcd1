//! Answers that are given again while their service's view stays as it is.
//!
//! Only for actions that are declared `cached`. An answer is kept under its request with the version that
//! the view had before the request went and still had when the answer came; it is given again while the
//! version is that one. A service raises the version with each record that it takes in, before anybody
//! can be told of it: so whoever has heard of a change finds no answer from before it. What is given again
//! had left the service already, so it was durable.
//!
//! Bounds: [`ANSWERS_MAX`] answers an action.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::Action;
use quick_cache::sync::Cache;
use tracing::level_filters::LevelFilter;

use super::CallContext;
use super::build::{Handler, Way};
use crate::actor::Lease;

/// Answers kept for each action.
const ANSWERS_MAX: usize = 128;

/// The version of a service's view: another one after every change. And whether answers may be given from it.
#[derive(Clone, Debug, Default)]
pub struct ViewVersion(Arc<AtomicU64>, Lease);

impl ViewVersion {
    /// The view is about to be another one.
    pub fn changes(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Until when the service's grant may be used on this host.
    pub fn lease(&self) -> &Lease {
        &self.1
    }

    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The answers of one action.
pub(super) trait Memory<A: Action>: Send + Sync {
    /// The answer to this request on a view of this version, if it is known.
    fn recall(&self, version: u64, request: &A::Request) -> Option<A::Answer>;
    /// Keeps an answer.
    fn keep(&self, version: u64, request: A::Request, answer: A::Answer);
}

/// Keeps the answers that are asked for most.
pub(super) struct Remember<A: Action>(Cache<A::Request, (u64, A::Answer)>);

impl<A: Action<Request: Eq + Hash>> Default for Remember<A> {
    fn default() -> Self {
        Self(Cache::new(ANSWERS_MAX))
    }
}

impl<A: Action<Request: Eq + Hash>> Memory<A> for Remember<A> {
    fn recall(&self, version: u64, request: &A::Request) -> Option<A::Answer> {
        let (of, answer) = self.0.get(request)?;
        (of == version).then_some(answer)
    }

    fn keep(&self, version: u64, request: A::Request, answer: A::Answer) {
        self.0.insert(request, (version, answer));
    }
}

/// The answer from memory, where nobody wants to see more of the call than that it was answered: the same as on the long way, without a look at
/// the clock, which would take as long.
#[inline]
pub(super) fn recalled<A: Action>(
    handler: &Handler<A>,
    context: &CallContext,
    request: &A::Request,
) -> Option<A::Answer> {
    let (Some(memory), Way::Machine { route, .. }) = (&handler.memory, &handler.way) else { return None };
    let is_watched = context.trace.is_some() || LevelFilter::current() >= LevelFilter::DEBUG;
    if is_watched
        || context.cause.is_some()
        || context.anew
        || route.whereabouts.is_elsewhere()
        || !context.caller.may(A::INFO.access)
    {
        return None;
    }
    let answer = memory.recall(route.view().now(), request)?;
    // Who may not answer any more is refused on the long way.
    route.view().lease().may_answer().then(|| {
        handler.metrics.recalled();
        answer
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bus, BusLimits};
    use protocol::shared::Empty;
    use protocol::state::{Applied, Head, Nonce, NonceAnswer, NonceRequest};
    use protocol::{Access, BlockIndex, Caller, CellId, StateRoot};

    fn request(number: u64) -> NonceRequest {
        let mut cell = [0; 32];
        cell[..8].copy_from_slice(&number.to_le_bytes());
        NonceRequest { cell: protocol::CellId::from_bytes(cell) }
    }

    #[test]
    fn an_answer_is_given_again_for_its_version_only_and_memory_is_bounded() {
        let (memory, version) = (Remember::<Nonce>::default(), ViewVersion::default());
        let old = version.now();
        memory.keep(old, request(1), NonceAnswer { last: 7 });
        assert_eq!(memory.recall(old, &request(1)), Some(NonceAnswer { last: 7 }));
        assert_eq!(memory.recall(old, &request(2)), None);
        version.changes();
        assert_eq!(memory.recall(version.now(), &request(1)), None);
        for number in 0..10_000 {
            memory.keep(old, request(number), NonceAnswer { last: number });
        }
        assert!(memory.0.len() <= ANSWERS_MAX, "{} are kept", memory.0.len());
    }

    /// What is internal is in memory as well.
    #[test]
    fn an_answer_is_given_again_to_those_alone_that_may_ask() {
        let bus = Bus::new(BusLimits::default());
        let handler = bus.handler::<Head>();
        let (Some(memory), Way::Machine { route, .. }) = (&handler.memory, &handler.way) else {
            panic!("it is kept, and a service's")
        };
        let head =
            Applied { index: BlockIndex(1), root: StateRoot::from_bytes([1; 32]), receipts: Vec::new() };
        memory.keep(route.view().now(), Empty {}, head.clone());
        let asked = |context: CallContext| recalled(handler, &context, &Empty {});
        assert_eq!(asked(CallContext::internal()), Some(head));
        assert_eq!(asked(CallContext::internal().anew()), None, "who asks anew gets no old answer");
        let admin = Caller::Token { role: Access::Admin, name: "admin".into() };
        for caller in [admin, Caller::Cell(CellId::from_bytes([2; 32]))] {
            assert_eq!(asked(CallContext::of(caller)), None);
        }
        route.view().changes();
        assert_eq!(asked(CallContext::internal()), None);
    }
}
