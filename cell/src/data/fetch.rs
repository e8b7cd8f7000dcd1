//! Takes data from those that have it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use protocol::{CellId, Hash, Problem, ProblemKind, codec};
use tokio::time::Instant;

use super::store::{Kept, open_slice, proven_size};
use super::wire::{Ask, PART_BYTES, Reply};
use crate::network::Lane;
use crate::node::{World, blocking};

/// Cells that are asked whether they have it, at most.
const ASKED_MAX: usize = 64;
/// How long each of them is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Parts that one cell is asked for at once.
const PARTS_PER_CELL: usize = 2;
/// Parts under way, at most: what they take in memory.
const PARTS_MAX: usize = 16;

/// Takes data from connected cells, unless it lies here; what lies here then, and who gave parts of it.
///
/// # Errors
///
/// `data.not_found` where no connected cell has it, `data.gone` where those that had it stopped giving it, `data.timeout`, `data.full`.
pub async fn fetch(
    world: &Arc<World>,
    hash: Hash,
    from: Option<CellId>,
    deadline: Instant,
) -> Result<(Kept, Vec<CellId>), Problem> {
    let store = world.data.clone();
    if let Some(kept) = blocking(move || store.find(&hash)).await?? {
        return Ok((kept, Vec::new()));
    }
    let timeout = || {
        Problem::new(ProblemKind::Unavailable, "data.timeout", format!("{hash} did not come in time"))
            .hint("ask again, with a longer --wait-ms")
    };
    tokio::time::timeout_at(deadline, take(world, hash, from)).await.map_err(|_| timeout())?
}

async fn take(world: &Arc<World>, hash: Hash, from: Option<CellId>) -> Result<(Kept, Vec<CellId>), Problem> {
    let asked = from.map_or_else(|| world.network().connected_peers(), |cell| vec![cell]);
    let mut answers: FuturesUnordered<_> = asked
        .iter()
        .take(ASKED_MAX)
        .map(|cell| async move { (*cell, size_at(world, *cell, &hash).await) })
        .collect();
    let (mut holders, mut size, mut refusal) = (Vec::new(), None, None);
    while let Some((cell, answer)) = answers.next().await {
        match answer {
            Ok(proven) => {
                size = Some(proven);
                holders.push(cell);
            }
            Err(problem) => refusal = Some((cell, problem)),
        }
    }
    let Some(size) = size else {
        let why = match refusal {
            Some((cell, problem)) => format!("; {cell} said: {}", problem.cause),
            None => String::new(),
        };
        let cause = format!("none of {} connected cells has {hash}{why}", asked.len());
        return Err(Problem::new(ProblemKind::NotFound, "data.not_found", cause)
            .hint("cell state datasets names its author: cell peers add the author's address"));
    };
    let store = world.data.clone();
    let mut draft = blocking(move || store.draft_of(size)).await??;
    let mut parts = Parts {
        world,
        hash,
        size,
        next: 0,
        again: Vec::new(),
        holders,
        turn: 0,
        under_way: FuturesUnordered::new(),
    };
    let mut givers = Vec::new();
    parts.ask_on();
    while let Some((cell, from, answer)) = parts.under_way.next().await {
        match answer {
            Ok(bytes) => {
                if !givers.contains(&cell) {
                    givers.push(cell);
                }
                draft = blocking(move || draft.write(from, &bytes).map(|()| draft)).await??;
            }
            Err(problem) => {
                tracing::info!(%cell, %hash, %problem, "a cell gave no part of some data, and is asked no more");
                parts.holders.retain(|holder| *holder != cell);
                parts.again.push(from);
            }
        }
        parts.ask_on();
    }
    if parts.is_open() {
        let cause = format!("nobody who is connected gives the rest of {hash} any more");
        return Err(Problem::new(ProblemKind::Unavailable, "data.gone", cause)
            .hint("ask again when more cells are connected: cell peers"));
    }
    let store = world.data.clone();
    let kept = blocking(move || store.finish(draft, Some(&hash))).await??;
    Ok((kept, givers))
}

type Part = (CellId, u64, Result<Vec<u8>, Problem>);

/// The parts that are still to come.
struct Parts<'a> {
    world: &'a Arc<World>,
    hash: Hash,
    size: u64,
    /// Where the first part begins that nobody was asked for yet.
    next: u64,
    /// Parts that did not come.
    again: Vec<u64>,
    holders: Vec<CellId>,
    turn: usize,
    under_way: FuturesUnordered<futures_util::future::BoxFuture<'a, Part>>,
}

impl Parts<'_> {
    fn is_open(&self) -> bool {
        self.next < self.size || !self.again.is_empty()
    }

    /// Asks for as many parts as may be under way, of each cell in turn.
    fn ask_on(&mut self) {
        let room = (self.holders.len() * PARTS_PER_CELL).min(PARTS_MAX);
        while self.under_way.len() < room && self.is_open() {
            let from = self.again.pop().unwrap_or_else(|| {
                let from = self.next;
                self.next += PART_BYTES;
                from
            });
            let cell = self.holders[self.turn % self.holders.len()];
            self.turn += 1;
            let (world, hash, length) = (self.world, self.hash, PART_BYTES.min(self.size - from));
            self.under_way
                .push(Box::pin(async move { (cell, from, part(world, cell, &hash, from, length).await) }));
        }
    }
}

async fn part(
    world: &Arc<World>,
    cell: CellId,
    hash: &Hash,
    from: u64,
    length: u64,
) -> Result<Vec<u8>, Problem> {
    let slice = ask(world, cell, Ask { hash: *hash, from, length }).await?;
    let hash = *hash;
    let bytes = blocking(move || open_slice(&slice, &hash, from, length)).await?;
    bytes.ok().filter(|bytes| bytes.len() as u64 == length).ok_or_else(|| wrong(&cell))
}

/// How much there is of it, proven.
async fn size_at(world: &Arc<World>, cell: CellId, hash: &Hash) -> Result<u64, Problem> {
    let asked = ask(world, cell, Ask { hash: *hash, from: u64::MAX, length: 1 });
    let slice = tokio::time::timeout(ANSWER_MAX, asked).await.map_err(|_| {
        Problem::new(ProblemKind::Unavailable, "data.timeout", format!("{cell} did not answer"))
    })??;
    proven_size(&slice, hash).map_err(|_| wrong(&cell))
}

async fn ask(world: &Arc<World>, cell: CellId, ask: Ask) -> Result<Vec<u8>, Problem> {
    let bytes = world.network().request(Lane::Data, cell, codec::encode(&ask)).await?;
    match codec::decode(&bytes)? {
        Reply::Slice { slice } => Ok(slice),
        Reply::Refused { problem } => Err(problem),
    }
}

fn wrong(cell: &CellId) -> Problem {
    let cause = format!("what {cell} gave does not belong to the hash");
    Problem::new(ProblemKind::Invalid, "data.forged", cause)
}
