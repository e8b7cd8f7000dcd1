//! Checkpoints: the state after a block, in chunks that are each proven under its root.
//!
//! A chunk holds all keys of one range of key hashes, from where it was asked for (not included) to its
//! last pair, or to the end. The tree is binary as it is hashed: no keys give the placeholder, one key its
//! leaf, more split on the next bit of the key hash. So every node is inside the range, outside of it, or
//! on one of the two paths that lead to the range's edges. The proof tells those on the paths, and the
//! hashes of those outside that hang on them; what is inside follows from the pairs. If that comes to the
//! root, the range holds these pairs and no others.
//!
//! Chunks that follow one another, each asked for after the last pair of the one before, are the whole
//! state: none can be left out, and none needs another to be checked.
//!
//! Rules: a chunk has one spelling. Pairs ascend; only the last chunk says that it is the end, and it has
//! to say so; the proof has no node too many.

use jmt::proof::{INTERNAL_DOMAIN_SEPARATOR, LEAF_DOMAIN_SEPARATOR};
use machine::{Read, answer, refuse};
use protocol::state::{Answer, Around, Checkpoint, CheckpointRequest, Chunk, ChunkRequest, Pair};
use protocol::{BlockIndex, Hash, Problem, StateRoot};
use sha2::{Digest, Sha256};

use crate::query::place_at;
use crate::tables::{HASHED, Head};
use crate::tree::{self, Edge, PLACEHOLDER, key_hash, value_at};
use crate::{Decided, Refusal};

/// The most bytes of keys and values in a chunk of more than one pair.
pub const CHUNK_BYTES_MAX: u64 = 1024 * 1024;
/// The most pairs of a chunk.
pub const CHUNK_PAIRS_MAX: usize = 8192;

/// A leaf of the tree: the hashes of a key and of its value.
type Leaf = (Hash, [u8; 32]);

pub(crate) fn checkpoint(view: &dyn Read, head: &Head, asked: &CheckpointRequest) -> Decided {
    let version = match place_at(head, asked.at) {
        Ok(0) => return refuse(Refusal::NoBlocks),
        Ok(version) => version,
        Err(refusal) => return refuse(refusal),
    };
    let index = BlockIndex(version - 1);
    match crate::block_at(view, index)? {
        Some((root, block)) => {
            let keys = tree::leaves(view, version)?;
            answer(Answer::GetCheckpoint(Checkpoint { index, block, root, keys }))
        }
        None => refuse(Refusal::NoSuchBlock { index: index.0 }),
    }
}

pub(crate) fn chunk(view: &dyn Read, head: &Head, asked: &ChunkRequest) -> Decided {
    let version = match place_at(head, Some(asked.at)) {
        Ok(version) => version,
        Err(refusal) => return refuse(refusal),
    };
    let bytes_max = asked.bytes_max.unwrap_or(u64::MAX).min(CHUNK_BYTES_MAX);
    let (mut pairs, mut bytes, mut end) = (Vec::new(), 0u64, true);
    let mut last = None;
    for row in HASHED.scan(view, &(), asked.after.as_ref(), false) {
        let (hash, key) = row?;
        let Some((_, Some(value))) = value_at(view, &hash, version)? else { continue };
        let size = (key.len() + value.len()) as u64;
        if !pairs.is_empty() && (bytes + size > bytes_max || pairs.len() == CHUNK_PAIRS_MAX) {
            end = false;
            break;
        }
        bytes += size;
        last = Some(hash);
        pairs.push(Pair { key, value });
    }
    let after = asked.after.map(|hash| tree::edge(view, version, hash)).transpose()?;
    let last = last.filter(|_| !end).map(|hash| tree::edge(view, version, hash)).transpose()?;
    let mut proof = Vec::new();
    around(0, after.as_ref(), last.as_ref(), &mut proof);
    answer(Answer::GetChunk(Chunk { pairs, end, proof }))
}

/// Tells the nodes from one on that lies on the path to an edge, or to both.
fn around(depth: usize, after: Option<&Edge>, last: Option<&Edge>, proof: &mut Vec<Around>) {
    let Some(edge) = after.or(last) else { return };
    let Some(_) = edge.siblings.get(depth) else {
        let range = Range { after: after.map(|edge| edge.key), last: last.map(|edge| edge.key) };
        return proof.push(match edge.leaf {
            Some((key, value)) if !range.holds(&key) => Around::Leaf { key, value },
            _ => Around::Ends,
        });
    };
    proof.push(Around::Split);
    for right in [false, true] {
        let on = |edge: &&Edge| bit(&edge.key, depth) == right;
        let outside = match (after, last) {
            (Some(after), _) if !right && !on(&after) => Some(after),
            (_, Some(last)) if right && !on(&last) => Some(last),
            _ => None,
        };
        match outside {
            Some(edge) => proof.extend(edge.siblings.get(depth).copied().map(Around::Hash)),
            None => around(depth + 1, after.filter(on), last.filter(on), proof),
        }
    }
}

/// A range of key hashes: above the first edge, up to and with the last one. An edge that is not there
/// is as far out as can be.
#[derive(Clone, Copy)]
struct Range {
    after: Option<Hash>,
    last: Option<Hash>,
}

impl Range {
    fn holds(&self, key: &Hash) -> bool {
        self.after.is_none_or(|after| after < *key) && self.last.is_none_or(|last| *key <= last)
    }
}

/// Checks a chunk that was asked for `after` a key hash against a root that is trusted. It gives the
/// `after` of the chunk that follows; none behind the last one.
///
/// # Errors
///
/// `state.bad_chunk` with what does not hold.
pub fn verify_chunk(root: &StateRoot, after: Option<&Hash>, chunk: &Chunk) -> Result<Option<Hash>, Problem> {
    check_chunk(root, after, chunk).map_err(|why| Refusal::BadChunk { why }.into())
}

pub(crate) fn check_chunk(
    root: &StateRoot,
    after: Option<&Hash>,
    chunk: &Chunk,
) -> Result<Option<Hash>, &'static str> {
    let bytes: u64 = chunk.pairs.iter().map(|pair| (pair.key.len() + pair.value.len()) as u64).sum();
    if chunk.pairs.len() > CHUNK_PAIRS_MAX || chunk.pairs.len() > 1 && bytes > CHUNK_BYTES_MAX {
        return Err("it is too large");
    }
    let mut leaves: Vec<Leaf> = Vec::with_capacity(chunk.pairs.len());
    for pair in &chunk.pairs {
        let key = key_hash(&pair.key);
        if leaves.last().map(|(last, _)| last).or(after).is_some_and(|before| *before >= key) {
            return Err("its keys are not in their order");
        }
        leaves.push((key, Sha256::digest(&pair.value).into()));
    }
    let last = match (leaves.last(), chunk.end) {
        (_, true) => None,
        (Some((last, _)), false) => Some(*last),
        (None, false) => return Err("it is empty and not the end"),
    };
    let range = Range { after: after.copied(), last };
    let mut walk = Walk { range, proof: chunk.proof.iter(), more: false };
    let hash = walk.node(0, &leaves, after, last.as_ref())?;
    if walk.proof.next().is_some() {
        return Err("its proof goes on behind the tree");
    }
    if StateRoot::from_bytes(hash) != *root {
        return Err("its pairs do not lead to the root");
    }
    if !chunk.end && !walk.more {
        return Err("it is the end and does not say so");
    }
    Ok(last)
}

/// The way through a proof.
struct Walk<'a> {
    range: Range,
    proof: std::slice::Iter<'a, Around>,
    /// Whether something lies behind the range.
    more: bool,
}

impl Walk<'_> {
    /// The hash of a node, given the edges whose paths it lies on and the leaves of the range below it.
    fn node(
        &mut self,
        depth: usize,
        leaves: &[Leaf],
        after: Option<&Hash>,
        last: Option<&Hash>,
    ) -> Result<[u8; 32], &'static str> {
        if after.is_none() && last.is_none() {
            return Ok(subtree(leaves, depth));
        }
        match (self.proof.next(), leaves) {
            (Some(Around::Split), _) if depth < 256 => {
                let (left, right) = leaves.split_at(leaves.partition_point(|(key, _)| !bit(key, depth)));
                let left = self.child(depth, left, after, last, false)?;
                let right = self.child(depth, right, after, last, true)?;
                Ok(internal(&left, &right))
            }
            (Some(Around::Ends), []) => Ok(PLACEHOLDER),
            (Some(Around::Ends), [(key, value)]) => Ok(leaf(key, value)),
            (Some(Around::Leaf { key, value }), []) if !self.range.holds(key) => {
                self.more |= self.range.last.is_some_and(|last| last < *key);
                Ok(leaf(key, value.as_bytes()))
            }
            _ => Err("its proof is not one of this range"),
        }
    }

    fn child(
        &mut self,
        depth: usize,
        leaves: &[Leaf],
        after: Option<&Hash>,
        last: Option<&Hash>,
        right: bool,
    ) -> Result<[u8; 32], &'static str> {
        let on = |edge: &&Hash| bit(edge, depth) == right;
        let before_range = !right && after.is_some_and(|edge| !on(&edge));
        let behind_range = right && last.is_some_and(|edge| !on(&edge));
        if !before_range && !behind_range {
            return self.node(depth + 1, leaves, after.filter(on), last.filter(on));
        }
        match (self.proof.next(), leaves) {
            (Some(Around::Hash(hash)), []) => {
                self.more |= behind_range && *hash.as_bytes() != PLACEHOLDER;
                Ok(*hash.as_bytes())
            }
            _ => Err("its proof is not one of this range"),
        }
    }
}

/// The hash of a subtree that is known whole.
fn subtree(leaves: &[Leaf], depth: usize) -> [u8; 32] {
    match leaves {
        [] => PLACEHOLDER,
        [(key, value)] => leaf(key, value),
        _ => {
            let (left, right) = leaves.split_at(leaves.partition_point(|(key, _)| !bit(key, depth)));
            internal(&subtree(left, depth + 1), &subtree(right, depth + 1))
        }
    }
}

fn bit(key: &Hash, depth: usize) -> bool {
    key.as_bytes()[depth / 8] >> (7 - depth % 8) & 1 == 1
}

pub(crate) fn leaf(key: &Hash, value: &[u8; 32]) -> [u8; 32] {
    hash_of(LEAF_DOMAIN_SEPARATOR, key.as_bytes(), value)
}

pub(crate) fn internal(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    hash_of(INTERNAL_DOMAIN_SEPARATOR, left, right)
}

fn hash_of(domain: &[u8], first: &[u8; 32], second: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(domain).chain_update(first).chain_update(second).finalize().into()
}
