//! From an ordered block to a final one: execute, attest, finalise; one block after the other.
//!
//! State may be behind Consensus (its journal lost a tail that nobody else had, or it was rebuilt from
//! an older one): blocks it has not applied are taken from Consensus's journal, in order, before the
//! next one. Whatever stands in the way is kept as [`World::stuck`], where readiness shows it, and
//! tried again with growing pauses; a root that differs from the attested one is `diverged`.

use std::sync::Arc;
use std::time::Duration;

use protocol::block::{Attestation, Block};
use protocol::consensus::{BlockRef, FinaliseRequest};
use protocol::market::ObserveBlockRequest;
use protocol::shared::Empty;
use protocol::state::{Applied, ApplyRequest, RootRequest};
use protocol::{BlockIndex, Problem};

use super::world::World;
use crate::actor::Effects;

/// Effects taken from the queue at once.
const TAKE_MAX: usize = 256;
/// The pause before what failed is tried again; doubles up to the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two tries.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Carries out what Consensus asks for until its actor is gone.
pub(super) async fn run(world: Arc<World>, mut effects: Effects<consensus::Effect>) {
    until_done(&world, || catch_up(&world)).await;
    while let Some(batch) = effects.next(TAKE_MAX).await {
        let mut ordered = false;
        for (_, effect) in batch {
            match effect {
                // However many transactions came, one order takes them all.
                consensus::Effect::Order if ordered => {}
                consensus::Effect::Order => {
                    ordered = true;
                    until_done(&world, || order(&world)).await;
                }
                consensus::Effect::Execute(block) => {
                    until_done(&world, || finalise(&world, &block)).await;
                }
            }
        }
        if effects.take_missed() {
            until_done(&world, || finish_open(&world)).await;
        }
    }
}

/// Tries until it is done: the order of blocks leaves no other way on.
async fn until_done<F: Future<Output = Result<(), Problem>>>(world: &World, mut effect: impl FnMut() -> F) {
    let mut pause = RETRY_PAUSE;
    while let Err(problem) = effect().await {
        if world.stuck().as_ref() != Some(&problem) {
            tracing::error!(%problem, "blocks do not advance; it is tried again");
        }
        world.set_stuck(Some(problem));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
    world.set_stuck(None);
}

async fn order(world: &World) -> Result<(), Problem> {
    world.bus.internal().consensus().order(Empty {}).await.map(|_| ())
}

/// Effects were dropped: asks the view for what is owed.
async fn finish_open(world: &World) -> Result<(), Problem> {
    for open in world.bus.internal().consensus().open(Empty {}).await?.items {
        finalise(world, &open.block).await?;
    }
    order(world).await
}

/// Executes a block, attests the root, enters the statement, and finalises.
async fn finalise(world: &World, block: &Block) -> Result<(), Problem> {
    let bus = world.bus.internal();
    let applied = match apply(world, block).await {
        Err(problem) if problem.code == "state.gap" => {
            catch_up(world).await?;
            apply(world, block).await?
        }
        applied => applied?,
    };
    let text = Attestation::signed_text(&block.header, &applied.root, &world.cell);
    let attestation =
        Attestation { member: world.cell, root: applied.root, signature: world.keyring.sign(&text) };
    // The statement first: once the block is final nothing is owed any more.
    observe(world, block, &applied).await?;
    bus.consensus().finalise(FinaliseRequest { applied, attestation }).await?;
    Ok(())
}

/// Applies the final blocks that State does not have; each root has to be the attested one.
async fn catch_up(world: &World) -> Result<(), Problem> {
    let bus = world.bus.internal();
    let target = bus.consensus().status(Empty {}).await?.finalised.map_or(0, |index| index.0 + 1);
    let have = bus.state().root(RootRequest::default()).await?.index.map_or(0, |index| index.0 + 1);
    for index in have..target {
        let proof = bus.consensus().block(BlockRef { index: BlockIndex(index) }).await?.proof;
        let applied = apply(world, &proof.block).await?;
        observe(world, &proof.block, &applied).await?;
        if let Some(attested) = proof.attestations.first().filter(|attested| attested.root != applied.root) {
            let Applied { root, .. } = applied;
            let cause = format!("block {index} came out at root {root}, attested is {}", attested.root);
            return Err(Problem::new(protocol::ProblemKind::Conflict, "state.diverged", cause)
                .hint("stop the cell and run cell rebuild"));
        }
    }
    Ok(())
}

async fn apply(world: &World, block: &Block) -> Result<Applied, Problem> {
    world.bus.internal().state().apply(ApplyRequest { block: block.clone() }).await
}

async fn observe(world: &World, block: &Block, applied: &Applied) -> Result<(), Problem> {
    let lines = market::prana::statement(&world.cell, block, &applied.receipts);
    let request = ObserveBlockRequest { index: applied.index, lines };
    world.bus.internal().market().observe_block(request).await.map(|_| ())
}
