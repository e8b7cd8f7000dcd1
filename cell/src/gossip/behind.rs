//! Final blocks taken over from others: by a member whose epoch is over elsewhere or who lacks words for a block, and by a cell that is no
//! member.
//!
//! Every block is checked against the genesis before it is taken: its transactions, its place after the one before, and the words of more
//! than two thirds. So it does not matter who is asked; whoever answers wrongly is asked last.

use std::sync::Arc;
use std::time::Duration;

use protocol::consensus::{AdoptRequest, BlockRef, Progress};
use protocol::shared::Empty;
use protocol::{BlockIndex, CellId, Problem, ProblemKind, codec};

use super::wire::{AskBlocks, Blocks};
use super::{Input, Members, Target};
use crate::network::Lane;
use crate::node::World;

/// Bytes of blocks in one answer; its first block fits in any case.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Blocks of one answer.
const ANSWER_BLOCKS_MAX: u64 = 256;
/// The pause before all are asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// A block that is open for so long is asked for.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// How often one who is no member looks for new blocks.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// Takes blocks over up to the beginning of an epoch, and tells the driver.
pub(super) async fn catch_up(world: Arc<World>, target: Target) {
    tracing::info!(
        epoch = target.epoch,
        blocks = target.base,
        "others have gone on; their final blocks are taken over"
    );
    loop {
        match progress(&world).await {
            Ok(progress) if progress.finalised >= target.base => {
                world.set_target(None);
                if let Some(gossip) = world.gossip() {
                    gossip.tell(Input::CaughtUp(target, progress)).await;
                }
                return;
            }
            Ok(progress) if progress.ordered < target.base => {
                world.set_target(Some(target.base));
                if !take_over(&world, progress).await {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // They are being executed.
            _ => tokio::time::sleep(PAUSE / 10).await,
        }
    }
}

/// Looks whether a block stays open though others have it final: words were lost on the way, or the order they stand in is not
/// to be had. Its proof is taken over then.
pub(super) async fn watch(world: Arc<World>) {
    let mut before = None;
    loop {
        tokio::time::sleep(STUCK_AFTER).await;
        let Ok(now) = progress(&world).await else { continue };
        if now.finalised < now.ordered && before == Some(now.finalised) {
            take_over(&world, now).await;
        }
        before = Some(now.finalised);
    }
}

/// Follows the network without being a member of it.
pub(super) async fn observe(world: Arc<World>, members: Arc<Members>) {
    tracing::info!(members = members.count(), "this cell is no member of its network: it follows its blocks");
    loop {
        let more = match progress(&world).await {
            Ok(progress) => take_over(&world, progress).await,
            Err(_) => false,
        };
        if !more {
            tokio::time::sleep(OBSERVE_EVERY).await;
        }
    }
}

async fn progress(world: &World) -> Result<Progress, Problem> {
    world.bus.internal().consensus().epoch(Empty {}).await.map(|epoch| epoch.progress)
}

/// Asks one connected member after the other for the next blocks, until one has some.
async fn take_over(world: &World, progress: Progress) -> bool {
    for cell in world.network().connected_peers() {
        if world.genesis.weight_of(&cell) == 0 {
            continue;
        }
        match take_from(world, cell, progress).await {
            Ok(true) => return true,
            Ok(false) => {}
            Err(problem) => tracing::warn!(%cell, %problem, "final blocks could not be taken over"),
        }
    }
    false
}

async fn take_from(world: &World, cell: CellId, before: Progress) -> Result<bool, Problem> {
    let ask = AskBlocks { from: before.finalised };
    let bytes = world.network().request(Lane::Events, cell, codec::encode(&ask)).await?;
    let proofs = match codec::decode(&bytes)? {
        Blocks::Here { proofs, finalised } => {
            world.set_target(Some(finalised).filter(|finalised| *finalised > before.ordered));
            proofs
        }
        Blocks::Refused { problem } => return Err(problem),
    };
    if proofs.is_empty() {
        return Ok(false);
    }
    let genesis = Arc::clone(&world.genesis);
    let checked = crate::node::blocking(move || {
        proofs.iter().try_for_each(|proof| proof.check(&genesis).map(|_| ())).map(|()| proofs)
    });
    let proofs = checked.await??;
    let after = world.bus.internal().consensus().adopt(AdoptRequest { proofs }).await?;
    world.pool.advance(after);
    Ok((after.ordered, after.finalised) > (before.ordered, before.finalised))
}

/// Answers a question for final blocks.
pub async fn serve(world: &World, bytes: &[u8]) -> Vec<u8> {
    let answer = match try_serve(world, bytes).await {
        Ok(answer) => answer,
        Err(problem) => Blocks::Refused { problem },
    };
    codec::encode(&answer)
}

async fn try_serve(world: &World, bytes: &[u8]) -> Result<Blocks, Problem> {
    let AskBlocks { from } = codec::decode(bytes)?;
    let finalised = progress(world).await?.finalised;
    let (mut proofs, mut size) = (Vec::new(), 0);
    for index in from..finalised.min(from.saturating_add(ANSWER_BLOCKS_MAX)) {
        let block = world.bus.internal().consensus().block(BlockRef { index: BlockIndex(index) }).await?;
        if !block.summary.finalised {
            let cause = format!("block {index} is not final here");
            return Err(Problem::new(ProblemKind::Unavailable, "gossip.not_final", cause));
        }
        size += block
            .proof
            .block
            .transactions
            .iter()
            .map(|transaction| transaction.args.len() + 256)
            .sum::<usize>();
        if size > ANSWER_BYTES_MAX && !proofs.is_empty() {
            break;
        }
        proofs.push(block.proof);
    }
    Ok(Blocks::Here { proofs, finalised })
}
