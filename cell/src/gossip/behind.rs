//! Final blocks taken over from others: by a member whose epoch is over elsewhere or who lacks words for a block, and by a cell that is no
//! member.
//!
//! A block that waits for its execution here is open as well, and is nothing to ask for.
//!
//! Every block is checked before it is taken: its transactions, its place after the one before, and the words of more
//! than two thirds of its epoch's members, who follow from the genesis by the state here. So it does not matter who is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::block::{BlockHeader, BlockProof};
use protocol::consensus::{AdoptRequest, BlockRef, EpochView, Progress};
use protocol::members::{MemberSet, SET_KEY};
use protocol::rules::{RULES_KEY, version_in};
use protocol::shared::Empty;
use protocol::state::GetRequest;
use protocol::{BlockIndex, CellId, Problem, ProblemKind, codec};

use super::driver::Ended;
use super::wire::{Answer, Ask};
use super::{Input, Target, checkpoint, part};
use crate::network::Lane;
use crate::node::World;

/// Bytes of blocks in one answer; its first block fits in any case.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Blocks of one answer.
const ANSWER_BLOCKS_MAX: u64 = 256;
/// The pause before all are asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// A block that is open for so long is asked for.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How long a question for blocks may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long those who say how many blocks they have are waited for.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);
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
                match part::next_epoch(&world, target.epoch).await {
                    Ok(members) => {
                        if let Some(gossip) = world.gossip() {
                            gossip.tell(Input::CaughtUp(target, progress, members)).await;
                        }
                        return;
                    }
                    Err(problem) if problem.code == "consensus.upgrade_required" => {
                        if let Some(gossip) = world.gossip() {
                            gossip.tell(Input::Anew).await;
                        }
                        return;
                    }
                    Err(problem) => {
                        tracing::warn!(%problem, "the members of the epoch are not known yet");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            Ok(progress) if progress.ordered < target.base => {
                world.set_target(Some(target.base));
                match take_over(&world, progress).await {
                    Step::Taken => {}
                    Step::Nothing => tokio::time::sleep(PAUSE).await,
                    Step::Far => {
                        if take_checkpoint(&world, progress).await
                            && let Some(gossip) = world.gossip()
                        {
                            return gossip.tell(Input::Anew).await;
                        }
                    }
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
    let mut before: Option<Progress> = None;
    loop {
        tokio::time::sleep(STUCK_AFTER).await;
        let Ok(mut now) = progress(&world).await else { continue };
        // What is not executed yet lacks no words.
        let due = before.map_or(0, |before| before.executed);
        while now.finalised < due && take_over(&world, now).await == Step::Taken {
            let Ok(next) = progress(&world).await else { break };
            now = next;
        }
        world.set_stalled(now.finalised < due);
        before = Some(now);
        let has_started = world.gossip().is_none_or(|gossip| gossip.status().has_started);
        if !has_started && let Some(target) = gone_on(&world).await {
            catch_up(Arc::clone(&world), target).await;
        }
    }
}

/// The epoch that the others are in, where this cell finds nobody to begin its own with.
async fn gone_on(world: &Arc<World>) -> Option<Target> {
    let now = world.bus.internal().consensus().epoch(Empty {}).await.ok()?;
    let later = believed(world, now.progress.finalised).await.into_iter();
    later.filter(|target| target.epoch > now.epoch).max()
}

/// Follows the network without being a member of it, until it is one.
pub(super) async fn observe(world: &Arc<World>) -> Result<Ended, Problem> {
    let members = world.members();
    tracing::info!(
        members = members.count(),
        "this cell is no member of its network, or not by the key that it holds: it follows its blocks"
    );
    loop {
        let now = world.bus.internal().consensus().epoch(Empty {}).await?;
        if world.is_member() || part::lacks(now.rules) {
            return Ok(Ended::OtherPart);
        }
        match take_over(world, now.progress).await {
            Step::Taken => continue,
            Step::Far => {
                take_checkpoint(world, now.progress).await;
                continue;
            }
            Step::Nothing => {}
        }
        if let Some(next) = next_target(world, &now).await {
            // All that is said before it is here, final, so the state tells who is in it.
            part::next_epoch(world, next.epoch).await?;
            continue;
        }
        tokio::time::sleep(OBSERVE_EVERY).await;
    }
}

/// The epoch that the members say to be in, if it begins where this cell stands with another set or other rules than its own: its blocks before are
/// all final here.
async fn next_target(world: &Arc<World>, now: &EpochView) -> Option<Target> {
    let Progress { ordered, finalised, .. } = now.progress;
    let present = (now.members.clone(), now.rules);
    if finalised < ordered || named(world).await.is_none_or(|named| named == present) {
        return None;
    }
    let is_next = |target: &Target| target.epoch > now.epoch && target.base == finalised;
    believed(world, finalised).await.into_iter().find(is_next)
}

/// Where members of more than a third of the weight say to be: one of them is honest.
async fn believed(world: &World, finalised: u64) -> Vec<Target> {
    let members = world.members();
    let mut claims: BTreeMap<Target, u64> = BTreeMap::new();
    for cell in world.network().connected_peers() {
        if let Ok(Answer::Blocks { epoch, base, .. }) = ask(world, cell, finalised).await {
            *claims.entry(Target { epoch, base }).or_default() += members.set().weight_of(&cell);
        }
    }
    let believed = claims.into_iter().filter(|(_, weight)| members.set().has_honest(*weight));
    believed.map(|(target, _)| target).collect()
}

/// The members that the state here names, and the version of the rules.
async fn named(world: &World) -> Option<(MemberSet, u64)> {
    let (members, rules) = (value_of(world, SET_KEY).await??, value_of(world, RULES_KEY).await?);
    let rules = version_in(rules.as_ref().map(String::as_bytes)).ok()?;
    Some((MemberSet::from_state(members.as_bytes()).ok()?, rules))
}

/// What the state holds under a key, if it can be asked.
async fn value_of(world: &World, key: &str) -> Option<Option<String>> {
    let asked = GetRequest { key: key.to_owned(), at: None };
    world.bus.internal().state().get(asked).await.ok().map(|found| found.value)
}

async fn progress(world: &World) -> Result<Progress, Problem> {
    world.bus.internal().consensus().epoch(Empty {}).await.map(|epoch| epoch.progress)
}

/// Begins anew at a checkpoint; says whether it does.
async fn take_checkpoint(world: &Arc<World>, progress: Progress) -> bool {
    match checkpoint::take(world, progress.ordered).await {
        Ok(()) => true,
        Err(problem) => {
            tracing::warn!(%problem, "no checkpoint was taken yet");
            tokio::time::sleep(PAUSE).await;
            false
        }
    }
}

/// What came of asking for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Some were taken over.
    Taken,
    /// There are none, or none that could be taken yet.
    Nothing,
    /// There are so many that a checkpoint is the shorter way, or they are not to be had any more.
    Far,
}

/// Asks one connected cell after the other for the next blocks, until one has some.
async fn take_over(world: &World, progress: Progress) -> Step {
    let mut is_far = false;
    let mut peers = world.network().connected_peers();
    // Of what they have, no block: that many nobody has.
    let due = world.claims.due(&peers, Instant::now());
    let asked = due.into_iter().map(|cell| tokio::time::timeout(CLAIM_TIMEOUT, ask(world, cell, u64::MAX)));
    futures_util::future::join_all(asked).await;
    // Not always the same one first.
    if !peers.is_empty() {
        let turn = world.claims.turn() % peers.len();
        peers.rotate_left(turn);
    }
    for cell in peers {
        match take_from(world, cell, progress).await {
            Ok(Step::Taken) => return Step::Taken,
            Ok(Step::Nothing) => {}
            Ok(Step::Far) => is_far = true,
            // It has begun at a checkpoint itself.
            Err(problem) if problem.code == "consensus.unknown_block" => is_far = true,
            Err(problem) => tracing::warn!(%cell, %problem, "final blocks could not be taken over"),
        }
    }
    if is_far { Step::Far } else { Step::Nothing }
}

async fn ask(world: &World, cell: CellId, from: u64) -> Result<Answer, Problem> {
    let asked = world.network().request(Lane::Events, cell, codec::encode(&Ask::Blocks { from }));
    // One whose connection has just died must not hold up asking the others.
    let bytes = tokio::time::timeout(ASK_TIMEOUT, asked).await.map_err(|_| {
        Problem::new(ProblemKind::Unreachable, "gossip.no_answer", format!("{cell} did not answer in time"))
    })??;
    let answer = codec::decode(&bytes)?;
    if let Answer::Blocks { finalised, .. } = answer {
        world.claims.hear(cell, finalised);
    }
    Ok(answer)
}

async fn take_from(world: &World, cell: CellId, before: Progress) -> Result<Step, Problem> {
    let mut proofs = match ask(world, cell, before.finalised).await? {
        Answer::Blocks { proofs, .. } => {
            let believed = world.claims.believed(world.members().set(), &world.network().connected_peers());
            let finalised = believed.unwrap_or(0);
            let far = world.settings.consensus.checkpoint_blocks;
            if finalised.saturating_sub(before.ordered) >= far && before.ordered == before.finalised {
                return Ok(Step::Far);
            }
            world.set_target(Some(finalised).filter(|finalised| *finalised > before.ordered));
            proofs
        }
        Answer::Refused { problem } => return Err(problem),
        Answer::Checkpoint { .. } | Answer::Chunk { .. } => return Ok(Step::Nothing),
    };
    // Those of the next members are checked once the state here names them.
    let present = world.bus.internal().consensus().epoch(Empty {}).await?;
    let of_present = |proof: &BlockProof| {
        let header = &proof.block.header;
        (header.members, header.rules) == (present.members.hash(), present.rules)
    };
    let known = proofs.iter().take_while(|proof| of_present(proof)).count();
    let next = proofs.get(known).map(|proof| proof.block.header.clone());
    proofs.truncate(known);
    if proofs.is_empty() {
        let is_next =
            |header: &BlockHeader| header.epoch > present.epoch && header.index.0 == before.finalised;
        return match next.filter(is_next) {
            Some(header) if before.finalised == before.ordered => {
                let members = part::next_epoch(world, header.epoch).await?;
                let is_begun = members.set().hash() == header.members;
                Ok(if is_begun { Step::Taken } else { Step::Nothing })
            }
            _ => Ok(Step::Nothing),
        };
    }
    let genesis = world.genesis.hash();
    let checked = crate::node::blocking(move || {
        let check = |proof: &BlockProof| proof.check(&genesis, &present.members).map(|_| ());
        proofs.iter().try_for_each(check).map(|()| proofs)
    });
    let proofs = checked.await??;
    let after = world.bus.internal().consensus().adopt(AdoptRequest { proofs }).await?;
    world.pool.advance(after);
    let is_more = (after.ordered, after.finalised) > (before.ordered, before.finalised);
    Ok(if is_more { Step::Taken } else { Step::Nothing })
}

/// Answers a question for final blocks, or for a checkpoint.
pub async fn serve(world: &World, bytes: &[u8]) -> Vec<u8> {
    let answer = match codec::decode(bytes) {
        Ok(Ask::Blocks { from }) => blocks(world, from).await,
        Ok(Ask::Checkpoint) => checkpoint::offer(world).await,
        Ok(Ask::Chunk { at, after }) => checkpoint::part(world, at, after).await,
        Err(problem) => Err(problem),
    };
    codec::encode(&answer.unwrap_or_else(|problem| Answer::Refused { problem }))
}

async fn blocks(world: &World, from: u64) -> Result<Answer, Problem> {
    let EpochView { epoch, base, progress, .. } = world.bus.internal().consensus().epoch(Empty {}).await?;
    let finalised = progress.finalised;
    let (mut proofs, mut size) = (Vec::new(), 0);
    for index in from..finalised.min(from.saturating_add(ANSWER_BLOCKS_MAX)) {
        let mut block = world.bus.internal().consensus().block(BlockRef { index: BlockIndex(index) }).await?;
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
        // Who asks has followed the changes of members before.
        block.proof.handoffs.clear();
        proofs.push(block.proof);
    }
    Ok(Answer::Blocks { proofs, finalised, epoch, base })
}
