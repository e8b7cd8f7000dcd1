//! From an ordered block to this cell's word for it: execute, journal, attest; one block after the other, behind the order.
//!
//! State may be behind Consensus (its journal lost a tail that nobody else had, or it was rebuilt from
//! an older one): blocks it has not applied are taken from Consensus's journal, in order, before the
//! next one. Whatever stands in the way is kept as [`World::stuck`], where readiness shows it, and
//! tried again with growing pauses; a root that differs from the attested one is `diverged`.

use std::sync::Arc;
use std::time::Duration;

use protocol::block::{Attestation, Block};
use protocol::consensus::{BlockRef, EpochView, ExecutedRequest};
use protocol::market::ObserveBlockRequest;
use protocol::shared::Empty;
use protocol::state::{Applied, ApplyRequest, PruneRequest, RootRequest};
use protocol::{BlockIndex, Problem, ProblemKind};
use tokio::sync::mpsc;

use super::world::World;
use crate::actor::Effects;
use crate::gossip::{self, Input};

/// Effects taken from the queue at once.
const TAKE_MAX: usize = 256;
/// Blocks that wait to be executed; more are looked up.
const BLOCKS_MAX: usize = 64;
/// The pause before what failed is tried again; doubles up to the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often old states are given up, and the pause between two parts of that.
const PRUNE_EVERY: Duration = Duration::from_secs(10);
/// See [`PRUNE_EVERY`].
const PRUNE_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two tries: a host that was missed may be back by then, and who waits for a block waits for this.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Carries out what Consensus asks for until its actor is gone.
pub(super) async fn run(world: Arc<World>, mut effects: Effects<consensus::Effect>) {
    let (blocks, to_execute) = mpsc::channel(BLOCKS_MAX);
    world.edge.spawn(execute_all(Arc::clone(&world), to_execute));
    while let Some(batch) = effects.next(TAKE_MAX).await {
        let (mut says, mut last) = (false, None);
        for (_, effect) in batch {
            match effect {
                consensus::Effect::Say(waiting) => {
                    says = true;
                    world.pool.add(waiting);
                }
                consensus::Effect::Attest(word) => {
                    says = true;
                    world.pool.attest(*word);
                }
                // What finds no room is looked up when the others are done.
                consensus::Effect::Execute(block) => drop(blocks.try_send(Some(block))),
                consensus::Effect::Final(index) => last = Some(index.0 + 1),
            }
        }
        if effects.take_missed() {
            // What comes is set aside until this is done.
            while let Err(problem) = gossip::fill_pool(&world).await {
                tracing::warn!(%problem, "what waits could not be looked up; it is tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            // There may be blocks among what was missed. Where there is no room for the word of it, they are looked up anyway.
            drop(blocks.try_send(None));
        }
        if let Some(count) = last {
            world.pool.finalised(count);
            if let Some(gossip) = world.gossip() {
                gossip.tell(Input::Final(count)).await;
            }
        }
        if says || last.is_some() {
            world.say();
        }
    }
}

/// Gives up the states of old blocks, if that is set.
pub(super) async fn prune(world: Arc<World>) {
    let keep_blocks = world.settings.state.keep_blocks;
    if keep_blocks == 0 {
        return;
    }
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        loop {
            match world.bus.internal().state().prune(PruneRequest { keep_blocks }).await {
                Ok(pruned) if pruned.more => tokio::time::sleep(PRUNE_PAUSE).await,
                Ok(_) => break,
                Err(problem) => {
                    tracing::debug!(%problem, "old states were not given up; it is tried again");
                    break;
                }
            }
        }
    }
}

/// Executes blocks in order, and what is open when there is no other.
async fn execute_all(world: Arc<World>, mut blocks: mpsc::Receiver<Option<Arc<Block>>>) {
    until_done(&world, || catch_up(&world)).await;
    while let Some(block) = blocks.recv().await {
        if let Some(block) = block {
            until_done(&world, || execute(&world, &block)).await;
        }
        if blocks.is_empty() {
            until_done(&world, || execute_open(&world)).await;
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

/// Executes what is open, whether or not its effect came through.
async fn execute_open(world: &World) -> Result<(), Problem> {
    loop {
        let open = world.bus.internal().consensus().open(Empty {}).await?.items;
        if open.is_empty() {
            return Ok(());
        }
        for open in open {
            execute(world, &open.block).await?;
        }
    }
}

/// Executes a block, enters the statement, and gives this cell's word for the root.
async fn execute(world: &World, block: &Block) -> Result<(), Problem> {
    let bus = world.bus.internal();
    let EpochView { members, progress, .. } = bus.consensus().epoch(Empty {}).await?;
    let executed = progress.executed;
    if block.header.index.0 < executed {
        return Ok(());
    }
    if block.header.index.0 > executed {
        // One before it found no room in the queue.
        return Box::pin(execute_open(world)).await;
    }
    let applied = match apply(world, block).await {
        Err(problem) if problem.code == "state.gap" => {
            catch_up(world).await?;
            apply(world, block).await?
        }
        applied => applied?,
    };
    // Who only follows gives no word. A block that is executed here is of the present members.
    let word = || Attestation::sign_as(world.cell, world.member_key(), &block.header, applied.root);
    let attestation = world.signs_in(&members).then(word);
    // The statement first: once the block is executed nothing of it is owed any more.
    observe(world, block, &applied).await?;
    bus.consensus().executed(ExecutedRequest { applied, attestation }).await?;
    Ok(())
}

/// Applies the executed blocks that State does not have; each root has to be the one it had.
async fn catch_up(world: &World) -> Result<(), Problem> {
    let bus = world.bus.internal();
    let target = bus.consensus().epoch(Empty {}).await?.progress.executed;
    let have = bus.state().root(RootRequest::default()).await?.index.map_or(0, |index| index.0 + 1);
    for index in have..target {
        let answer = bus.consensus().block(BlockRef { index: BlockIndex(index) }).await?;
        let applied = apply(world, &answer.proof.block).await?;
        observe(world, &answer.proof.block, &applied).await?;
        if let Some(before) = answer.summary.root.filter(|before| *before != applied.root) {
            let Applied { root, .. } = applied;
            let cause = format!("block {index} came out at root {root}, before it was {before}");
            return Err(Problem::new(ProblemKind::Conflict, "state.diverged", cause)
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
    // A block that moves nothing of this cell's does not wait for Market, which may be away.
    if lines.is_empty() {
        return Ok(());
    }
    let request = ObserveBlockRequest { index: applied.index, lines };
    world.bus.internal().market().observe_block(request).await.map(|_| ())
}
