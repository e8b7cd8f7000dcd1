//! Resets: the state of a checkpoint takes the place of this cell's own.
//!
//! A cell that joins has none, one that fell far behind an old one, one that diverged a wrong one: it is
//! all the same, and the checkpoint may stand before or after. The new state grows in a generation of its
//! own, one journaled chunk after the other; each was verified under the root, and begins where the one
//! before it ended, or before: what is there is left out. With the last chunk the generation becomes the live one, in the same commit. Until then
//! the old state answers as before, and takes no block.
//!
//! The same checkpoint asked for again goes on where it stands, after a crash too; another one begins anew.
//! That the root is attested is for the caller to check.
//!
//! The values of a checkpoint stand as version 0: who wrote them when is not part of the tree.

use machine::{At, Fault, Read, Write, answer, commit, refuse};
use protocol::state::{Answer, Checkpoint, ResetAnswer, ResetChunkRequest};

use crate::checkpoint::check_chunk;
use crate::generation::{Within, WithinMut};
use crate::record::WriteSet;
use crate::tables::{BASE, CURRENT, GARBAGE, HASHED, HEAD, HISTORY, Head, LIVE, NAMES, RESET, Unfinished};
use crate::{Decided, Record, Refusal, tree};

/// Whether two name the same state; how many keys it has is hearsay.
fn same(one: &Checkpoint, other: &Checkpoint) -> bool {
    (one.index, one.block, one.root) == (other.index, other.block, other.root)
}

/// The version that stands after a checkpoint's block; none if no state can stand there.
fn version_of(checkpoint: &Checkpoint) -> Option<u64> {
    checkpoint.index.0.checked_add(1).filter(|version| *version < u64::MAX)
}

/// What is told to those who would change the state while a reset is under way.
pub(crate) fn under_way(view: &dyn Read) -> Result<Option<Refusal>, Fault> {
    let unfinished = RESET.get(view, &())?;
    Ok(unfinished.map(|unfinished| Refusal::Resetting { index: unfinished.checkpoint.index.0 }))
}

pub(crate) fn begin(view: &dyn Read, asked: Checkpoint) -> Decided {
    let Some(version) = version_of(&asked) else {
        return refuse(Refusal::NoSuchBlock { index: asked.index.0 });
    };
    let live = crate::live(view)?;
    let unfinished = RESET.get(view, &())?;
    if let Some(unfinished) = &unfinished
        && same(&unfinished.checkpoint, &asked)
    {
        return answer(Answer::Reset(ResetAnswer { after: unfinished.after, done: false }));
    }
    let state = Within(view, live);
    let stands = crate::head(&state)?.is_some_and(|head| head.version == version)
        && crate::block_at(&state, asked.index)? == Some((asked.root, asked.block));
    if stands && unfinished.is_none() {
        return answer(Answer::Reset(ResetAnswer { after: None, done: true }));
    }
    let newest = GARBAGE.scan(view, &(), None, true).next().transpose()?.map_or(0, |(number, ())| number);
    let newest = newest.max(live).max(unfinished.map_or(0, |unfinished| unfinished.generation));
    let generation = newest.checked_add(1).ok_or_else(|| Fault("there were too many resets".to_owned()))?;
    let record = Record::ResetBegun { generation, checkpoint: asked };
    commit(vec![record], Answer::Reset(ResetAnswer { after: None, done: false }))
}

pub(crate) fn chunk(view: &dyn Read, asked: ResetChunkRequest) -> Decided {
    let Some(Unfinished { generation, checkpoint, after, begun }) = RESET.get(view, &())? else {
        return refuse(Refusal::NoReset);
    };
    // Nothing lies between what is here and the chunk.
    if asked.after > after {
        return refuse(Refusal::OtherChunk);
    }
    let through = match check_chunk(&checkpoint.root, asked.after.as_ref(), &asked.chunk) {
        Ok(through) => through,
        Err(why) => return refuse(Refusal::BadChunk { why }),
    };
    if through.is_some() && through <= after {
        return refuse(Refusal::OtherChunk);
    }
    let is_new = |key: &str| Some(tree::key_hash(key)) > after;
    let new = asked.chunk.pairs.into_iter().filter(|pair| is_new(&pair.key));
    let writes = WriteSet(new.map(|pair| (pair.key, Some(pair.value))).collect());
    let done = through.is_none();
    let mut records = Vec::with_capacity(2);
    if done {
        let version = version_of(&checkpoint).ok_or_else(|| Fault("a reset has no version".to_owned()))?;
        let (root, _) = tree::root_grown(&Within(view, generation), version, &writes)?;
        if root != checkpoint.root {
            return Err(Fault(format!("verified chunks came to root {root}, not to {}", checkpoint.root)));
        }
        records.push(Record::ResetEnded { begun, checkpoint });
    }
    records.insert(0, Record::ResetChunk { writes, through });
    commit(records, Answer::ResetChunk(ResetAnswer { after: through, done }))
}

/// Folds the beginning of a reset.
pub(crate) fn begun(
    view: &mut dyn Write,
    at: At,
    generation: u32,
    checkpoint: &Checkpoint,
) -> Result<(), Fault> {
    if let Some(unfinished) = RESET.get(view, &())? {
        GARBAGE.put(view, &unfinished.generation, &());
    }
    let checkpoint = checkpoint.clone();
    RESET.put(view, &(), &Unfinished { generation, checkpoint, after: None, begun: at.index });
    Ok(())
}

/// Folds a chunk into tree, history and current values of the new generation.
pub(crate) fn grow(
    view: &mut dyn Write,
    writes: &WriteSet,
    through: Option<protocol::Hash>,
) -> Result<(), Fault> {
    let nothing = || Fault("a chunk belongs to no reset".to_owned());
    let mut unfinished = RESET.get(view, &())?.ok_or_else(nothing)?;
    let version = version_of(&unfinished.checkpoint).ok_or_else(nothing)?;
    let mut state = WithinMut(view, unfinished.generation);
    let (_, nodes) = tree::root_grown(&state, version, writes)?;
    tree::store(&mut state, &nodes)?;
    for (key, value) in &writes.0 {
        let Some(value) = value else { continue };
        let hash = tree::key_hash(key);
        HISTORY.put(&mut state, &(hash, u64::MAX), &Some(value.clone().into()));
        NAMES.put(&mut state, key, &());
        HASHED.put(&mut state, &hash, key);
        CURRENT.put(&mut state, key, &(value.clone().into(), 0));
    }
    unfinished.after = through;
    RESET.put(view, &(), &unfinished);
    Ok(())
}

/// Folds the end of a reset: the new generation is the live one.
pub(crate) fn ended(view: &mut dyn Write, checkpoint: &Checkpoint) -> Result<(), Fault> {
    let nothing = || Fault("the end of a reset that was not begun".to_owned());
    let unfinished = RESET.get(view, &())?.ok_or_else(nothing)?;
    let version = version_of(checkpoint).ok_or_else(nothing)?;
    let root = tree::root_of(&Within(view, unfinished.generation), version)?;
    if root != Some(checkpoint.root) {
        let came = root.map_or("none".to_owned(), |root| root.to_string());
        return Err(Fault(format!("a reset came to root {came}, journaled was {}", checkpoint.root)));
    }
    let mut state = WithinMut(view, unfinished.generation);
    HEAD.put(&mut state, &(), &Head { version, root: checkpoint.root, oldest: version });
    BASE.put(&mut state, &(), checkpoint);
    let before = crate::live(view)?;
    GARBAGE.put(view, &before, &());
    LIVE.put(view, &(), &unfinished.generation);
    RESET.delete(view, &());
    Ok(())
}
