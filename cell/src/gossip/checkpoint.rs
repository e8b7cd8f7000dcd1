//! Checkpoints taken from others: by a cell that is new or far behind, and by one that has diverged and is to go on.
//!
//! The block is proven from the genesis on, before anything else is asked for; its root then proves each chunk of the state by itself. So whoever
//! is asked can waste time, and nothing else; several chunks come at once, each from another cell ([`ahead`](super::ahead)). State holds what came so far: after a crash the same checkpoint goes on where it stood.
//!
//! A checkpoint stands after the last block of a round, with another one behind it: so nobody has to fill up a round of which it has not the first
//! blocks.

use std::sync::Arc;
use std::time::Duration;

use protocol::consensus::{BlockRef, JumpRequest, LastNonce};
use protocol::shared::ListRequest;
use protocol::state::{
    Checkpoint, CheckpointRequest, Chunk, ChunkRequest, ListKeys, ResetAnswer, ResetChunkRequest, RootRequest,
};
use protocol::{BlockHash, BlockIndex, CellId, Hash, Problem, ProblemKind, codec};
use tokio::task::JoinSet;

use super::ahead::{Ahead, Start};
use super::wire::{Answer, Ask};
use crate::network::Lane;
use crate::node::World;

/// The newest blocks among which one is looked for that ends its round.
const NEWEST_MAX: u32 = 256;
/// Chunks on their way at once, each from another cell, where there are so many; two from one, so that one comes while another is taken in.
const AHEAD_MAX: usize = 4;
/// See [`AHEAD_MAX`].
const AHEAD_MIN: usize = 2;
/// The pause before all are asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// A checkpoint, with what makes its root one to trust.
pub(super) type Offer = (Checkpoint, protocol::block::BlockProof);

/// Takes the newest checkpoint beyond the blocks that are ordered here, and goes on from it.
///
/// # Errors
///
/// `checkpoint.none` if nobody has one that holds; those of State and Consensus.
pub(super) async fn take(world: &Arc<World>, ordered: u64) -> Result<(), Problem> {
    let taken = take_newest(world, ordered).await;
    // Cut short or not: none is being taken any more.
    world.set_taking(None);
    taken
}

async fn take_newest(world: &Arc<World>, ordered: u64) -> Result<(), Problem> {
    let sources = world.network().connected_peers();
    let (checkpoint, proof) = newest(world, &sources, ordered).await.ok_or_else(|| {
        Problem::new(
            ProblemKind::Unavailable,
            "checkpoint.none",
            "no connected cell has a checkpoint that holds",
        )
        .hint("it is asked again by itself; cell peers shows the connections")
    })?;
    tracing::info!(block = checkpoint.index.0, keys = checkpoint.keys, "a checkpoint is taken");
    let bus = world.bus.internal();
    let mut at: ResetAnswer = bus.state().reset(checkpoint.clone()).await?;
    let mut ahead: Ahead<Chunk> = Ahead::new(sources.len().clamp(AHEAD_MIN, AHEAD_MAX));
    let (mut fetches, mut turn, mut keys) = (JoinSet::new(), 0, 0);
    while !at.done {
        while let Some(start) = ahead.next(at.after) {
            turn += 1;
            let fetch = fetch(Arc::clone(world), sources.clone(), checkpoint.clone(), start, turn);
            fetches.spawn_on(async move { (start, fetch.await) }, &world.edge);
        }
        if let Some((after, chunk)) = ahead.take(at.after) {
            keys += chunk.pairs.len() as u64;
            at = bus.state().reset_chunk(ResetChunkRequest { after, chunk }).await?;
            world.set_taking(Some((checkpoint.index.0, keys.min(checkpoint.keys), checkpoint.keys)));
            continue;
        }
        let broken_off =
            |why: &str| Problem::new(ProblemKind::Fault, "checkpoint.broken_off", why.to_owned());
        let came = fetches.join_next().await.ok_or_else(|| broken_off("no chunk is on its way"))?;
        match came.map_err(|error| broken_off(&format!("a fetch broke off: {error}")))? {
            (start, Ok((chunk, last))) => ahead.came(start, last, chunk),
            // It was a guess: nobody waits for it yet.
            (start, Err(_)) if start > at.after => ahead.failed(start),
            (_, Err(problem)) => return Err(problem),
        }
    }
    let nonces = nonces(world, checkpoint.index).await?;
    bus.consensus().jump(JumpRequest { proof, nonces }).await?;
    tracing::info!(block = checkpoint.index.0, "this cell goes on from the checkpoint");
    Ok(())
}

/// Where State stands at a checkpoint that Consensus has not heard of, the cell having stopped in between, the rest is done.
pub(super) async fn finish(world: &Arc<World>) -> Result<(), Problem> {
    let bus = world.bus.internal();
    let ordered = bus.consensus().epoch(protocol::shared::Empty {}).await?.progress.ordered;
    let stands = bus.state().root(RootRequest::default()).await?;
    let Some(index) = stands.index.filter(|index| index.0 >= ordered) else { return Ok(()) };
    tracing::info!(block = index.0, "the state is at a checkpoint; its block is looked for");
    loop {
        for cell in world.network().connected_peers() {
            let Ok(Answer::Blocks { proofs, .. }) = ask(world, cell, &Ask::Blocks { from: index.0 }).await
            else {
                continue;
            };
            // Without the changes of members, which are left out there: only the members that are known count.
            let Some(proof) = proofs.into_iter().next() else { continue };
            let members = bus.consensus().epoch(protocol::shared::Empty {}).await?.members;
            if proof.check(&world.genesis.hash(), &members).is_ok_and(|root| root == stands.root) {
                let nonces = nonces(world, index).await?;
                bus.consensus().jump(JumpRequest { proof, nonces }).await?;
                world.set_stuck(None);
                return Ok(());
            }
        }
        match take(world, ordered).await {
            Ok(()) => break,
            Err(problem) => world.set_stuck(Some(problem)),
        }
        tokio::time::sleep(PAUSE).await;
    }
    world.set_stuck(None);
    Ok(())
}

/// The newest checkpoint that is offered and holds.
async fn newest(world: &Arc<World>, sources: &[CellId], ordered: u64) -> Option<Offer> {
    let client = state::LightClient::new(&world.genesis).ok()?;
    let mut best: Option<Offer> = None;
    for cell in sources {
        let Ok(Answer::Checkpoint { checkpoint, proof }) = ask(world, *cell, &Ask::Checkpoint).await else {
            continue;
        };
        let index = proof.block.header.index;
        let is_better = best.as_ref().is_none_or(|(known, _)| known.index < index);
        if index.0 + 1 < ordered || !is_better {
            continue;
        }
        let header: BlockHash = proof.block.header.hash();
        let says_so = checkpoint.index == index && checkpoint.block == header;
        match client.block(&proof) {
            Ok(root) if says_so && root == checkpoint.root => best = Some((checkpoint, *proof)),
            Ok(_) => tracing::warn!(%cell, "a checkpoint is not that of its block"),
            Err(problem) => tracing::warn!(%cell, %problem, "a checkpoint is not proven"),
        }
    }
    best
}

/// A chunk that holds, with its last key's hash, from one source or the next.
async fn fetch(
    world: Arc<World>,
    sources: Vec<CellId>,
    checkpoint: Checkpoint,
    after: Start,
    turn: usize,
) -> Result<(Chunk, Start), Problem> {
    let mut last = None;
    for turn in turn..turn + sources.len() * 2 {
        let cell = sources[turn % sources.len()];
        match ask(&world, cell, &Ask::Chunk { at: checkpoint.index, after }).await {
            Ok(Answer::Chunk { chunk }) => {
                match state::verify_chunk(&checkpoint.root, after.as_ref(), &chunk) {
                    Ok(through) => return Ok((chunk, through)),
                    Err(problem) => {
                        tracing::warn!(%cell, %problem, "a part of a checkpoint does not hold");
                        last = Some(problem);
                    }
                }
            }
            Ok(Answer::Refused { problem }) | Err(problem) => last = Some(problem),
            Ok(_) => {}
        }
    }
    Err(last
        .unwrap_or_else(|| Problem::new(ProblemKind::Unavailable, "checkpoint.none", "nobody is connected")))
}

/// The last nonces of all senders, as the state has them after a block.
async fn nonces(world: &World, at: BlockIndex) -> Result<Vec<LastNonce>, Problem> {
    let (mut nonces, mut cursor) = (Vec::new(), None);
    loop {
        let asked = ListKeys { prefix: "nonce/".to_owned(), limit: Some(1_000), cursor, at: Some(at) };
        let page = world.bus.internal().state().list(asked).await?;
        for item in page.items {
            let cell = item.key.strip_prefix("nonce/").and_then(|cell| cell.parse().ok());
            let nonce = item.value.and_then(|value| value.parse().ok());
            if let (Some(cell), Some(nonce)) = (cell, nonce) {
                nonces.push(LastNonce { cell, nonce });
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(nonces),
        }
    }
}

async fn ask(world: &World, cell: CellId, what: &Ask) -> Result<Answer, Problem> {
    let bytes = world.network().request(Lane::Events, cell, codec::encode(what)).await?;
    codec::decode(&bytes)
}

/// The newest checkpoint that can be had here.
pub(super) async fn offer(world: &World) -> Result<Answer, Problem> {
    let bus = world.bus.internal();
    let list = ListRequest { limit: Some(NEWEST_MAX), cursor: None };
    let newest = bus.consensus().blocks(list).await?.items;
    let ends = newest.windows(2).find(|pair| {
        let [next, block] = pair else { return false };
        block.finalised && (block.epoch, block.round) != (next.epoch, next.round)
    });
    let Some([_, block]) = ends else {
        return Err(Problem::new(ProblemKind::Unavailable, "checkpoint.none", "no round has ended here yet"));
    };
    let index = block.index;
    let checkpoint = bus.state().checkpoint(CheckpointRequest { at: Some(index) }).await?;
    let proof = bus.consensus().block(BlockRef { index }).await?.proof;
    Ok(Answer::Checkpoint { checkpoint, proof: Box::new(proof) })
}

/// A part of the state after a block.
pub(super) async fn part(world: &World, at: BlockIndex, after: Option<Hash>) -> Result<Answer, Problem> {
    let asked = ChunkRequest { at, after, bytes_max: None };
    let chunk = world.bus.internal().state().chunk(asked).await?;
    Ok(Answer::Chunk { chunk })
}
