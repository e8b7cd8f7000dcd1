//! Opening: from files to the state they hold, without changing a byte.
//!
//! The header gives the state at the last checkpoint; the live oplog entries after it are replayed in
//! order. An entry counts only if its data is there and hashes to the leaves it names: from the first
//! that does not, the tail is torn. What was torn is reported, and whoever holds a witness of a longer
//! log decides (see [`crate::Journal::open`]).

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::hash;
use crate::key::PublicKey;
use crate::nodes::read_node;
use crate::oplog::{BitfieldUpdate, ENTRIES_AT, HINTS_MAX, Header, OplogEntry, SlotPayload, Slots, entries};
use crate::storage::{File, ReadStorage};
use crate::tree::{self, NODE_BYTES, Node};

/// What opening found at the end of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of the oplog that belong to no whole batch.
    pub torn_bytes: u64,
    /// Batches whose data is missing or damaged: dropped from the first such one on.
    pub dropped_batches: u64,
    /// Whether the log's end rests on nobody's word but its own: something was torn or dropped, and
    /// no witness says that it had been acknowledged.
    pub tail_unproven: bool,
}

/// The state that files hold.
pub(crate) struct Loaded {
    pub(crate) slots: Slots,
    pub(crate) key: PublicKey,
    pub(crate) hints: Vec<[u64; 3]>,
    /// Entries present from the first on without a gap, as far as is known.
    pub(crate) contiguous: u64,
    /// Whether the oplog holds a truncation or a clearing that no checkpoint has taken in.
    pub(crate) shrunk: bool,
    pub(crate) state: State,
    /// Where the next oplog entry goes.
    pub(crate) oplog_end: u64,
    pub(crate) recovery: Recovery,
    /// Entries that came or went since the checkpoint.
    pub(crate) bitfield: Vec<BitfieldUpdate>,
}

/// A log at one length.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) fork: u64,
    pub(crate) length: u64,
    pub(crate) byte_length: u64,
    pub(crate) roots: Vec<Node>,
    pub(crate) signature: Option<[u8; 64]>,
    /// Nodes that are not in the `tree` file yet.
    pub(crate) nodes: BTreeMap<u64, Node>,
    /// What came and went since the checkpoint, where anything went.
    pub(crate) went: Vec<BitfieldUpdate>,
}

impl State {
    pub(crate) fn tree_hash(&self) -> hash::Digest {
        hash::tree(&self.roots)
    }
}

/// Loads what the files hold.
pub(crate) fn load(storage: &mut dyn ReadStorage) -> Result<Loaded> {
    let oplog_length = storage.len(File::Oplog).map_err(Error::io("looking at the oplog"))?;
    if oplog_length < ENTRIES_AT {
        return Err(Error::NotCreated);
    }
    let oplog = storage.read(File::Oplog, 0, oplog_length).map_err(Error::io("reading the oplog"))?;
    let (slots, payload) = Slots::read(&oplog)?;
    let header = match payload {
        SlotPayload::InPlace(header) => header,
        SlotPayload::External { start, length } => external(storage, start, length)?,
    };
    if header.signer != Some(header.key) {
        return Err(Error::Unsupported("a core whose key is not its one signer's"));
    }
    let mut loaded = Loaded {
        slots,
        key: header.key,
        // More would not fit into the slot of the next header.
        hints: header.hints[header.hints.len().saturating_sub(HINTS_MAX)..].to_vec(),
        contiguous: header.contiguous,
        shrunk: false,
        state: checkpointed(storage, &header)?,
        oplog_end: ENTRIES_AT,
        recovery: Recovery::default(),
        bitfield: Vec::new(),
    };
    replay(storage, &mut loaded, entries(&oplog, slots.current()))?;
    let rest = &oplog[usize::try_from(loaded.oplog_end).unwrap_or(usize::MAX).min(oplog.len())..];
    // A zero tail is preallocated space, not a torn write.
    if rest.iter().any(|byte| *byte != 0) {
        loaded.recovery.torn_bytes = rest.len() as u64;
    }
    loaded.recovery.tail_unproven = loaded.recovery.torn_bytes > 0 || loaded.recovery.dropped_batches > 0;
    check_signature(&loaded)?;
    Ok(loaded)
}

fn external(storage: &mut dyn ReadStorage, start: u64, length: u64) -> Result<Header> {
    let payload =
        storage.read(File::Header, start, length).map_err(Error::io("reading the external header"))?;
    match Header::decode(&payload)? {
        SlotPayload::InPlace(header) => Ok(header),
        SlotPayload::External { .. } => Err(Error::corrupt("an external header points on")),
    }
}

/// The state of the last checkpoint: its roots are read from the `tree` file.
fn checkpointed(storage: &mut dyn ReadStorage, header: &Header) -> Result<State> {
    if header.length >= 1 << 40 {
        return Err(Error::corrupt("the header names more entries than there can be"));
    }
    let mut roots = Vec::new();
    for index in tree::roots_of(header.length) {
        let root = read_node(storage, index)?
            .ok_or_else(|| Error::corrupt(format!("the root {index} of the tree is missing")))?;
        roots.push(root);
    }
    let byte_length = bytes_below(&roots)?;
    let state = State {
        fork: header.fork,
        length: header.length,
        byte_length,
        roots,
        signature: header.signature,
        nodes: BTreeMap::new(),
        went: Vec::new(),
    };
    if header.length > 0 && header.tree_hash != Some(state.tree_hash()) {
        return Err(Error::corrupt("the roots of the tree are not the ones the header names"));
    }
    Ok(state)
}

/// Bytes of the entries below nodes: no more than a file can have.
pub(crate) fn bytes_below(nodes: &[Node]) -> Result<u64> {
    nodes
        .iter()
        .try_fold(0u64, |sum, node| sum.checked_add(node.size))
        .filter(|sum| i64::try_from(*sum).is_ok())
        .ok_or_else(|| Error::corrupt("the sizes of the tree overflow"))
}

fn replay(storage: &mut dyn ReadStorage, loaded: &mut Loaded, found: Vec<(u64, OplogEntry)>) -> Result<()> {
    let drops: Vec<(usize, BitfieldUpdate)> = (0..)
        .zip(&found)
        .filter_map(|(number, (_, entry))| Some((number, entry.bitfield.filter(|update| update.drop)?)))
        .collect();
    for (number, (end, entry)) in found.iter().enumerate() {
        let goes_later = |index| drops.iter().any(|(of, update)| *of > number && update.holds(index));
        if !apply(storage, loaded, entry, &goes_later)? {
            loaded.recovery.dropped_batches = (found.len() - number) as u64;
            break;
        }
        loaded.oplog_end = *end;
    }
    loaded.shrunk = loaded.bitfield.iter().any(|update| update.drop);
    if loaded.shrunk {
        loaded.state.went.clone_from(&loaded.bitfield);
    }
    Ok(())
}

/// Applies one oplog entry; false if its data is not there. The data of an entry that goes later may be
/// gone already.
fn apply(
    storage: &mut dyn ReadStorage,
    loaded: &mut Loaded,
    entry: &OplogEntry,
    goes_later: &dyn Fn(u64) -> bool,
) -> Result<bool> {
    let longest = loaded.state.length;
    if let Some(upgrade) = &entry.upgrade {
        let before = loaded.state.length;
        if upgrade.ancestors > before || upgrade.length < upgrade.ancestors {
            return Err(Error::corrupt("an oplog entry does not follow its predecessor"));
        }
        let whole = loaded.contiguous >= before;
        let mut base = loaded.state.clone();
        if upgrade.ancestors < before {
            cut(storage, &mut base, upgrade.ancestors)?;
        }
        let Some(next) = grown(storage, base, entry, upgrade, goes_later)? else { return Ok(false) };
        if upgrade.ancestors < before {
            loaded.hints.push([loaded.state.fork, upgrade.fork, upgrade.ancestors]);
        }
        loaded.contiguous = if whole { next.length } else { loaded.contiguous.min(next.length) };
        loaded.state = next;
    }
    if let Some(update) = entry.bitfield {
        check_update(storage, &update, entry, longest.max(loaded.state.length))?;
        if update.drop {
            loaded.contiguous = loaded.contiguous.min(update.start);
        }
        loaded.bitfield.push(update);
    }
    Ok(true)
}

/// An update of the bitfield is about entries there are, and says of no more that they are there than
/// there are leaves to check them by: what it costs is bounded by the files.
fn check_update(
    storage: &mut dyn ReadStorage,
    update: &BitfieldUpdate,
    entry: &OplogEntry,
    longest: u64,
) -> Result<()> {
    let within = update.start.checked_add(update.length).is_some_and(|end| end <= longest);
    let mut leaves = entry.nodes.len() as u64;
    if !update.drop && update.length > leaves {
        leaves += storage.len(File::Tree).map_err(Error::io("looking at the tree"))? / NODE_BYTES;
    }
    if within && (update.drop || update.length <= leaves) {
        return Ok(());
    }
    Err(Error::corrupt("an oplog entry is about more entries than there are"))
}

/// Takes the entries from `length` on away.
fn cut(storage: &mut dyn ReadStorage, state: &mut State, length: u64) -> Result<()> {
    let mut roots = Vec::new();
    for index in tree::roots_of(length) {
        let root = match state.nodes.get(&index) {
            Some(node) => Some(*node),
            None => read_node(storage, index)?,
        };
        roots.push(root.ok_or_else(|| Error::corrupt(format!("the root {index} of the tree is missing")))?);
    }
    state.byte_length = bytes_below(&roots)?;
    state.nodes.retain(|index, _| tree::span(*index).1 <= length);
    state.roots = roots;
    state.length = length;
    Ok(())
}

/// The state after a batch, rebuilt from its data; `None` if the data does not hash to its leaves.
fn grown(
    storage: &mut dyn ReadStorage,
    mut next: State,
    entry: &OplogEntry,
    upgrade: &crate::oplog::Upgrade,
    goes_later: &dyn Fn(u64) -> bool,
) -> Result<Option<State>> {
    let named: BTreeMap<u64, &Node> = entry.nodes.iter().map(|node| (node.index, node)).collect();
    for index in upgrade.ancestors..upgrade.length {
        let Some(leaf) = named.get(&(index * 2)) else {
            return Err(Error::corrupt(format!("an oplog entry lacks the leaf of entry {index}")));
        };
        let there = match storage.read(File::Data, next.byte_length, leaf.size) {
            Ok(bytes) => hash::leaf(&bytes) == leaf.hash,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(Error::io("reading entries")(error)),
        };
        if !there && !goes_later(index) {
            return Ok(None);
        }
        let end = next.byte_length.checked_add(leaf.size).filter(|end| i64::try_from(*end).is_ok());
        next.byte_length = end.ok_or_else(|| Error::corrupt("the sizes of the tree overflow"))?;
        let State { roots, nodes, .. } = &mut next;
        tree::push(roots, **leaf, |node| {
            nodes.insert(node.index, node);
        });
    }
    next.length = upgrade.length;
    next.fork = upgrade.fork;
    next.signature = upgrade.signature;
    Ok(Some(next))
}

fn check_signature(loaded: &Loaded) -> Result<()> {
    let state = &loaded.state;
    if state.length == 0 {
        return Ok(());
    }
    let message = hash::signable(&state.tree_hash(), state.length, state.fork);
    match &state.signature {
        Some(signature) if loaded.key.verify(&message, signature) => Ok(()),
        _ => Err(Error::corrupt("the signature over the tree does not hold")),
    }
}
