//! Opening: from files to the state they hold, without changing a byte.
//!
//! The header gives the state at the last checkpoint; the live oplog entries after it are replayed in
//! order. An entry counts only if its data is there and hashes to the leaves it names: from the first
//! that does not, the tail is torn. What was torn is reported, and whoever holds a witness of a longer
//! log decides (see [`crate::Journal::open`]).

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::external::Place;
use crate::hash;
use crate::key::PublicKey;
use crate::nodes::read_node;
use crate::oplog::{
    BitfieldUpdate, ENTRIES_AT, HINTS_MAX, Header, OplogEntry, SlotPayload, Slots, Upgrade, entries,
};
use crate::pending::Pending;
use crate::storage::{File, ReadStorage};
use crate::tree::{self, LENGTH_MAX, NODE_BYTES, Node};
use crate::user_data::UserData;

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
    /// Where the header lies, if not in its slot.
    pub(crate) external: Option<Place>,
    pub(crate) key: PublicKey,
    pub(crate) user_data: UserData,
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
    pub(crate) nodes: Pending,
    /// Whether entries came in other ways than at the end, or went, since the checkpoint.
    pub(crate) sparse: bool,
    /// If so, what came and went since then.
    pub(crate) changes: Vec<BitfieldUpdate>,
}

impl State {
    /// All but what is not checkpointed: cheap at any length.
    pub(crate) fn without_nodes(&self) -> Self {
        Self { nodes: Pending::default(), changes: Vec::new(), roots: self.roots.clone(), ..*self }
    }

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
    let (header, external) = match payload {
        SlotPayload::InPlace(header) => (*header, None),
        SlotPayload::External { start, length } => {
            (external(storage, start, length)?, Some(Place { start, length }))
        }
    };
    if header.signer != Some(header.key) {
        return Err(Error::Unsupported("a core whose key is not its one signer's"));
    }
    let mut loaded = Loaded {
        slots,
        external,
        key: header.key,
        user_data: header.user_data.clone(),
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
        SlotPayload::InPlace(header) => Ok(*header),
        SlotPayload::External { .. } => Err(Error::corrupt("an external header points on")),
    }
}

/// The state of the last checkpoint: its roots are read from the `tree` file.
fn checkpointed(storage: &mut dyn ReadStorage, header: &Header) -> Result<State> {
    if header.length >= LENGTH_MAX {
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
        nodes: Pending::default(),
        sparse: false,
        changes: Vec::new(),
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
    loaded.state.sparse |= loaded.shrunk;
    if loaded.state.sparse {
        loaded.state.changes.clone_from(&loaded.bitfield);
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
    let before = loaded.state.without_nodes();
    let grown = entry.upgrade.as_ref().map_or(0, |upgrade| upgrade.length);
    if let Some(update) = &entry.bitfield {
        check_update(storage, update, entry, before.length.max(grown))?;
    }
    let mut next = std::mem::replace(&mut loaded.state, before);
    let kept = entry.upgrade.as_ref().filter(|upgrade| upgrade.ancestors < next.length).map(|_| next.clone());
    if !change(storage, &mut next, entry, goes_later)? {
        let length = loaded.state.length;
        loaded.state.nodes = kept.unwrap_or(next).nodes;
        loaded.state.nodes.retain(|index| tree::span(index).1 <= length);
        return Ok(false);
    }
    if let (Some(upgrade), Some(_)) = (&entry.upgrade, kept) {
        loaded.hints.push([loaded.state.fork, upgrade.fork, upgrade.ancestors]);
        loaded.contiguous = loaded.contiguous.min(upgrade.ancestors);
    }
    if let Some(update) = entry.bitfield {
        let end = update.start.saturating_add(update.length);
        match update.drop {
            true => loaded.contiguous = loaded.contiguous.min(update.start),
            false if loaded.contiguous >= update.start => loaded.contiguous = loaded.contiguous.max(end),
            false => {}
        }
        loaded.bitfield.push(update);
    }
    if let Some((name, value)) = &entry.user_data {
        loaded.user_data.set(name, value);
    }
    loaded.state = next;
    Ok(true)
}

/// The state after one oplog entry; false if its data is not there.
fn change(
    storage: &mut dyn ReadStorage,
    state: &mut State,
    entry: &OplogEntry,
    goes_later: &dyn Fn(u64) -> bool,
) -> Result<bool> {
    let added = entry.bitfield.filter(|update| !update.drop);
    let Some(upgrade) = &entry.upgrade else {
        let Some(added) = added else { return Ok(true) };
        state.sparse = true;
        state.nodes.extend(entry.nodes.iter().copied());
        return is_there(storage, state, added, goes_later);
    };
    if upgrade.ancestors > state.length || upgrade.length < upgrade.ancestors {
        return Err(Error::corrupt("an oplog entry does not follow its predecessor"));
    }
    if upgrade.ancestors < state.length {
        cut(storage, state, upgrade.ancestors)?;
    }
    let appended =
        BitfieldUpdate { drop: false, start: upgrade.ancestors, length: upgrade.length - upgrade.ancestors };
    if appended.length == 0 || added == Some(appended) {
        if !grow(storage, state, entry, upgrade, goes_later)? {
            return Ok(false);
        }
    } else {
        grow_sparse(storage, state, entry, upgrade)?;
        if let Some(added) = added {
            return is_there(storage, state, added, goes_later);
        }
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

/// A node that is among those not checkpointed, or in the file.
fn node(storage: &mut dyn ReadStorage, state: &State, index: u64) -> Result<Node> {
    let node = match state.nodes.get(index) {
        Some(node) => Some(node),
        None => read_node(storage, index)?,
    };
    node.ok_or_else(|| Error::corrupt(format!("the node {index} of the tree is missing")))
}

/// Takes the entries from `length` on away.
fn cut(storage: &mut dyn ReadStorage, state: &mut State, length: u64) -> Result<()> {
    let roots = tree::roots_of(length).into_iter().map(|index| node(storage, state, index));
    state.roots = roots.collect::<Result<_>>()?;
    state.byte_length = bytes_below(&state.roots)?;
    state.nodes.retain(|index| tree::span(index).1 <= length);
    state.length = length;
    Ok(())
}

/// The state of a replica that knows that the log has grown and has none of what came.
fn grow_sparse(
    storage: &mut dyn ReadStorage,
    state: &mut State,
    entry: &OplogEntry,
    upgrade: &Upgrade,
) -> Result<()> {
    if upgrade.length >= LENGTH_MAX {
        return Err(Error::corrupt("an oplog entry names more entries than there can be"));
    }
    state.nodes.extend(entry.nodes.iter().copied());
    let roots = tree::roots_of(upgrade.length).into_iter().map(|index| node(storage, state, index));
    state.roots = roots.collect::<Result<Vec<_>>>()?;
    state.byte_length = bytes_below(&state.roots)?;
    state.length = upgrade.length;
    state.fork = upgrade.fork;
    state.signature = upgrade.signature;
    state.sparse = true;
    Ok(())
}

/// Whether the data of entries that came is there, and is theirs.
fn is_there(
    storage: &mut dyn ReadStorage,
    state: &State,
    added: BitfieldUpdate,
    goes_later: &dyn Fn(u64) -> bool,
) -> Result<bool> {
    if added.start.checked_add(added.length).is_none_or(|end| end > state.length) {
        return Err(Error::corrupt("an oplog entry names entries past the end"));
    }
    let mut offset = tree::offset(&state.roots, added.start, |index| node(storage, state, index))?
        .ok_or_else(|| Error::corrupt("the sizes of the tree overflow"))?;
    for index in added.start..added.start + added.length {
        let leaf = node(storage, state, index * 2)?;
        if !is_entry(storage, offset, &leaf)? && !goes_later(index) {
            return Ok(false);
        }
        offset = offset.saturating_add(leaf.size);
    }
    Ok(true)
}

/// Whether the bytes at an offset are the ones a leaf was made of.
fn is_entry(storage: &mut dyn ReadStorage, offset: u64, leaf: &Node) -> Result<bool> {
    match storage.read(File::Data, offset, leaf.size) {
        Ok(bytes) => Ok(hash::leaf(&bytes) == leaf.hash),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io("reading entries")(error)),
    }
}

/// The state after a batch, rebuilt from its data; false if the data does not hash to its leaves.
fn grow(
    storage: &mut dyn ReadStorage,
    state: &mut State,
    entry: &OplogEntry,
    upgrade: &Upgrade,
    goes_later: &dyn Fn(u64) -> bool,
) -> Result<bool> {
    let named: BTreeMap<u64, &Node> = entry.nodes.iter().map(|node| (node.index, node)).collect();
    for index in upgrade.ancestors..upgrade.length {
        let Some(leaf) = named.get(&(index * 2)) else {
            return Err(Error::corrupt(format!("an oplog entry lacks the leaf of entry {index}")));
        };
        if !is_entry(storage, state.byte_length, leaf)? && !goes_later(index) {
            return Ok(false);
        }
        let end = state.byte_length.checked_add(leaf.size).filter(|end| i64::try_from(*end).is_ok());
        state.byte_length = end.ok_or_else(|| Error::corrupt("the sizes of the tree overflow"))?;
        let State { roots, nodes, .. } = state;
        tree::push(roots, **leaf, |node| nodes.insert(node));
    }
    state.length = upgrade.length;
    state.fork = upgrade.fork;
    state.signature = upgrade.signature;
    Ok(true)
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
