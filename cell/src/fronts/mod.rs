//! Fronts: actions that need the world before a machine can decide. One file a service, and one for what is answered by streams.

mod consensus;
mod identity;
mod market;
mod message;
mod nucleus;
mod signals;
mod state;
mod streams;
mod trace;

pub use consensus::evict;

use std::sync::Arc;

use protocol::Action;
use protocol::Problem;

use crate::bus::CallContext;
use crate::node::World;

pub(crate) use message::{Outgoing, post};
pub(crate) use state::find as find_datasets;

/// Tells the bus how every front action is carried out.
pub fn install(world: &Arc<World>) {
    nucleus::install(world);
    identity::install(world);
    message::install(world);
    state::install(world);
    consensus::install(world);
    market::install(world);
    trace::install(world);
    signals::install(world);
    streams::install(world);
}

/// A front of `A`: an async function of the world, the call and the request.
fn front<A, F, Fut>(world: &Arc<World>, front: F)
where
    A: Action,
    F: Fn(Arc<World>, CallContext, A::Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A::Answer, Problem>> + Send + 'static,
{
    // Weak: the world holds the bus, which holds the fronts.
    let weak = Arc::downgrade(world);
    world.bus.front::<A, _, _>(move |context, request| {
        let work = weak.upgrade().map(|world| front(world, context, request));
        async move {
            match work {
                Some(work) => work.await,
                None => Err(stopping()),
            }
        }
    });
}

fn stopping() -> Problem {
    Problem::new(protocol::ProblemKind::Unavailable, "service.stopping", "the cell is stopping")
}

/// Refuses new work while the cell drains.
fn not_draining(world: &World) -> Result<(), Problem> {
    if world.draining.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Problem::new(
            protocol::ProblemKind::Unavailable,
            "nucleus.draining",
            "the cell takes no new work",
        )
        .hint("it is about to stop; ask again once it has started anew"));
    }
    Ok(())
}
