//! Pruning: versions that nobody asks for any more are given up.
//!
//! The oldest version that is kept only ever rises, at once; what the versions before it alone needed goes
//! little by little, in one order, so that a replay removes the same rows. Every version has a list of what
//! it made needless: tree nodes that it replaced and values that it wrote over. Once it is itself the
//! oldest, or older, nothing reads them. So the newest version never loses anything, and the work is that
//! of what goes, not of what stays.
//!
//! Generations that a reset has replaced go first.

use machine::{Fault, Overlay, Read, View, Write, answer, commit, refuse};
use protocol::state::{Answer, PruneAnswer, PruneRequest};

use crate::generation::{WithinMut, sweep};
use crate::query::block_of;
use crate::tables::{BLOCKS, GARBAGE, HASHED, HEAD, HISTORY, Head, NAMES, NODES, STALE, Superseded};
use crate::{Decided, Record, Refusal};

/// The most rows that one call removes; the last block's list that it begins is removed to its end.
pub const PRUNE_ROWS_MAX: u64 = 10_000;

pub(crate) fn decide(view: &dyn Read, head: &Head, asked: PruneRequest) -> Decided {
    let Some(back) = asked.keep_blocks.checked_sub(1) else { return refuse(Refusal::KeepsNothing) };
    let oldest = head.version.saturating_sub(back).max(head.oldest);
    // Tried on a layer that is thrown away: the record says what to do, its fold does it.
    let mut layer = Overlay::default();
    let removed = prune(&mut View::new(view, None, &mut layer), oldest, PRUNE_ROWS_MAX)?;
    let more = removed >= PRUNE_ROWS_MAX;
    let pruned = Answer::Prune(PruneAnswer { oldest: block_of(oldest), removed, more });
    if removed == 0 && oldest == head.oldest {
        return answer(pruned);
    }
    commit(vec![Record::Pruned { oldest, rows_max: PRUNE_ROWS_MAX }], pruned)
}

/// Folds a record of pruning. Gives how many rows went.
pub(crate) fn prune(view: &mut dyn Write, oldest: u64, rows_max: u64) -> Result<u64, Fault> {
    let mut removed = 0;
    let garbage: Vec<_> = GARBAGE.scan(view, &(), None, false).collect::<Result<_, _>>()?;
    for (generation, ()) in garbage {
        let room = rows_max - removed;
        let swept = sweep(view, generation, room)?;
        if swept < room {
            GARBAGE.delete(view, &generation);
        }
        removed += swept;
    }
    let live = crate::live(view)?;
    let mut state = WithinMut(view, live);
    if let Some(head) = crate::head(&state)? {
        HEAD.put(&mut state, &(), &Head { oldest, ..head });
    }
    removed += needless(&mut state, oldest, rows_max.saturating_sub(removed))?;
    removed += results(&mut state, oldest, rows_max.saturating_sub(removed))?;
    Ok(removed)
}

/// Removes what the oldest version and those before it have made needless.
fn needless(view: &mut dyn Write, oldest: u64, rows_max: u64) -> Result<u64, Fault> {
    let (mut lists, mut removed) = (Vec::new(), 0);
    for row in STALE.scan(view, &(), None, false) {
        let (version, stale) = row?;
        if version > oldest || removed >= rows_max {
            break;
        }
        removed += 1 + (stale.nodes.len() + stale.keys.len()) as u64;
        lists.push((version, stale));
    }
    for (version, stale) in lists {
        for key in stale.nodes {
            NODES.delete(view, &key.into());
        }
        for superseded in &stale.keys {
            forget(view, version, superseded)?;
        }
        STALE.delete(view, &version);
    }
    Ok(removed)
}

/// Removes the value that a version wrote over, and after a deletion all that is left of the key.
fn forget(view: &mut dyn Write, version: u64, superseded: &Superseded) -> Result<(), Fault> {
    let Superseded { key, previous, gone } = *superseded;
    if let Some(previous) = previous {
        HISTORY.delete(view, &(key, u64::MAX - previous));
    }
    if !gone {
        return Ok(());
    }
    HISTORY.delete(view, &(key, u64::MAX - version));
    let left = HISTORY.scan(view, &key, None, false).next().transpose()?;
    if left.is_none()
        && let Some(name) = HASHED.get(view, &key)?
    {
        HASHED.delete(view, &key);
        NAMES.delete(view, &name);
    }
    Ok(())
}

/// Removes the results of blocks before the one that the oldest version stands after.
fn results(view: &mut dyn Write, oldest: u64, rows_max: u64) -> Result<u64, Fault> {
    let mut indexes = Vec::new();
    for row in BLOCKS.scan(view, &(), None, false) {
        let (index, _) = row?;
        if index.saturating_add(1) >= oldest || indexes.len() as u64 == rows_max {
            break;
        }
        indexes.push(index);
    }
    for index in &indexes {
        BLOCKS.delete(view, index);
    }
    Ok(indexes.len() as u64)
}
