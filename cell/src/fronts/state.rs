//! State fronts: a key's proof, together with the block that attests its root.

use std::sync::Arc;

use protocol::Problem;
use protocol::consensus::BlockRef;
use protocol::state::{GetRequest, Prove, StateProof};

use super::front;
use crate::node::World;

pub(super) fn install(world: &Arc<World>) {
    front::<Prove, _, _>(world, |world, _, request| async move { prove(&world, request).await });
}

async fn prove(world: &Arc<World>, mut request: GetRequest) -> Result<StateProof, Problem> {
    let bus = world.bus.internal();
    if request.at.is_none() {
        // The newest finalised block: a block that is applied here may not be attested yet.
        request.at = bus.consensus().status(protocol::shared::Empty {}).await?.finalised;
    }
    let proof = bus.state().prove_key(request).await?;
    let block = match proof.index {
        Some(index) => Some(bus.consensus().block(BlockRef { index }).await?.proof),
        None => None,
    };
    Ok(StateProof { proof, block })
}
