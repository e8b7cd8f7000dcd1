//! Running effects: what durable records ask of the world.
//!
//! Effects are at-least-once; whatever they lead to deduplicates, by message id, block index,
//! transaction id, or the effect's own id. When a queue overflowed, what is owed comes again with the
//! next start of the service; deliveries are looked for at each sweep as well.

use std::sync::Arc;

use protocol::ProblemKind;
use protocol::identity::{ObserveRequest, Who};
use tokio::sync::Semaphore;

use super::blocks;
use super::services::Queues;
use super::world::World;
use crate::actor::Effects;
use crate::bus::CallContext;

/// Effects taken from a queue at once.
const TAKE_MAX: usize = 256;
/// Incoming messages being carried out at once.
const HANDLING_MAX: usize = 64;

/// Starts a runner for each queue of effects.
pub(super) fn run(world: &Arc<World>, queues: Queues) {
    world.edge.spawn(run_identity(Arc::clone(world), queues.identity));
    world.edge.spawn(blocks::run(Arc::clone(world), queues.consensus));
    world.edge.spawn(run_message(Arc::clone(world), queues.message));
}

/// Contacts come and go: dial, or hang up.
async fn run_identity(world: Arc<World>, mut effects: Effects<identity::Effect>) {
    while let Some(batch) = effects.next(TAKE_MAX).await {
        world.contacts_changed();
        for (_, identity::Effect::ContactChanged(cell)) in batch {
            match world.bus.internal().identity().resolve(Who { who: cell.to_string() }).await {
                Ok(contact) => world.network().keep(cell, contact.addresses).await,
                Err(problem) if problem.kind == ProblemKind::NotFound => world.network().forget(cell).await,
                Err(problem) => tracing::warn!(%cell, %problem, "a contact could not be looked up"),
            }
        }
    }
}

/// Messages are delivered and carried out.
async fn run_message(world: Arc<World>, mut effects: Effects<message::Effect>) {
    let handling = Arc::new(Semaphore::new(HANDLING_MAX));
    while let Some(batch) = effects.next(TAKE_MAX).await {
        for (id, effect) in batch {
            match effect {
                message::Effect::Deliver { receiver, message } => {
                    crate::delivery::deliver(&world, receiver, message.map(|message| *message));
                }
                message::Effect::Handle(_, message) => {
                    // How many wait for a place is bounded where they are taken in.
                    let (world, handling) = (Arc::clone(&world), Arc::clone(&handling));
                    tokio::spawn(async move {
                        if let Ok(_place) = handling.acquire().await {
                            crate::delivery::handle(&world, *message).await;
                        }
                    });
                }
                message::Effect::Observe { cell, shown, matching, shared } => {
                    let request = ObserveRequest { cell, shown, matching, shared };
                    let context = CallContext::internal().caused_by(id);
                    if let Err(problem) = world.bus.with(context).identity().observe(request).await {
                        tracing::debug!(%problem, "an observation was not recorded");
                    }
                }
            }
        }
        if effects.take_missed() {
            crate::delivery::deliver_all(&world).await;
        }
    }
}
