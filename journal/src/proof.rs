//! Proofs: that entries are in a log, and that a log has grown out of a shorter one. Checkable with
//! nothing but the log's key.
//!
//! A proof holds the entries it is about and, of the tree, the fewest nodes from which the roots can be
//! computed: from each root down, a node is given where nothing below it is asked for, and computed from
//! its children where something is. Both sides walk the same way, so a proof has one form, and one node
//! too many or too few is refused.
//!
//! Sizes are bound too, though a node's hash binds only the sum of its children's: of each pair on the way
//! from an entry up, one is computed from below and so is known, and the sum gives the other. In a proof of
//! growth alone the shorter log's roots take that place, once their tree hash was compared.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hash::{self, Digest};
use crate::key::PublicKey;
use crate::reader::Reader;
use crate::tree::{self, LENGTH_MAX, Node};

/// An entry's bytes: hex in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct EntryBytes(
    #[serde(with = "hex")]
    #[cbor(with = "minicbor::bytes")]
    pub Vec<u8>,
);

/// A node of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct ProofNode {
    /// Its place in the flat tree.
    #[n(0)]
    pub index: u64,
    /// Bytes of the entries below it.
    #[n(1)]
    pub size: u64,
    /// Its hash.
    #[n(2)]
    #[serde(with = "hex")]
    #[cbor(with = "minicbor::bytes")]
    pub hash: Digest,
}

/// A proof about a log as it was at one signed length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The log's key.
    #[n(0)]
    #[serde(with = "hex")]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// The log's fork when it was signed.
    #[n(1)]
    pub fork: u64,
    /// The log's length when it was signed.
    #[n(2)]
    pub length: u64,
    /// The signature over the tree.
    #[n(3)]
    #[serde(with = "hex")]
    #[cbor(with = "minicbor::bytes")]
    pub signature: [u8; 64],
    /// The index of the first of the entries.
    #[n(4)]
    pub first: u64,
    /// The entries that are shown to be there, in order; may be none. Those of an encrypted journal are as
    /// they are stored: [`crate::EntryCipher::decrypt`] reads them.
    #[n(5)]
    pub entries: Vec<EntryBytes>,
    /// The shorter log that this one is shown to have grown out of, by its length.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The nodes of the tree that are not computed, from the left.
    #[n(7)]
    pub nodes: Vec<ProofNode>,
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Bytes of the whole log.
    pub byte_length: u64,
    /// The tree hash of the whole log.
    pub tree_hash: Digest,
    /// The tree hash it had at the length `since`: compare it with the one you know.
    pub tree_hash_since: Option<Digest>,
}

/// What a proof is about.
#[derive(Clone, Copy)]
pub(crate) struct Scope {
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) since: u64,
}

impl Scope {
    /// Whether nothing below a node matters.
    fn closed(self, index: u64) -> bool {
        let (from, to) = tree::span(index);
        let apart = self.first == self.end || to <= self.first || from >= self.end;
        apart && (to <= self.since || from >= self.since)
    }
}

/// Makes a proof of the entries from `first` up to `end` (excluded), and of the growth since a length.
pub(crate) fn prove(reader: &Reader, first: u64, end: u64, since: Option<u64>) -> Result<Proof> {
    let state = reader.state();
    let length = state.length;
    // The first entry that is asked for and not there.
    let missing = if end > length { Some(first.max(length)) } else { since.filter(|since| *since > length) };
    if let Some(index) = missing.or((first > end).then_some(first)) {
        return Err(Error::NoEntry { index, length });
    }
    let signature = state.signature.ok_or(Error::NoEntry { index: first, length })?;
    let scope = Scope { first, end, since: since.unwrap_or(0) };
    // The entries first: a log may claim more of them than can be walked.
    let entries = reader.stored_range(first, end).map(|entry| entry.map(EntryBytes));
    let entries = entries.collect::<Result<Vec<_>>>()?;
    let mut nodes = Vec::new();
    for root in &state.roots {
        cover(reader, root.index, scope, &mut nodes)?;
    }
    let key = *reader.key().as_bytes();
    Ok(Proof { key, fork: state.fork, length, signature, first, entries, since, nodes })
}

/// The nodes that whoever checks cannot compute, from the left.
pub(crate) fn cover(reader: &Reader, index: u64, scope: Scope, nodes: &mut Vec<ProofNode>) -> Result<()> {
    if scope.closed(index) {
        let Node { index, size, hash } = reader.node(index)?;
        nodes.push(ProofNode { index, size, hash });
    } else if tree::level(index) > 0 {
        let (left, right) = tree::children(index);
        cover(reader, left, scope, nodes)?;
        cover(reader, right, scope, nodes)?;
    }
    Ok(())
}

impl Proof {
    /// Checks the proof against the key of the log it should be about.
    ///
    /// # Errors
    ///
    /// [`Error::WrongKey`] for another log; [`Error::BadProof`] with what does not hold.
    pub fn verify(&self, key: &PublicKey) -> Result<Proven> {
        let checked = self.check(key)?;
        Ok(Proven {
            byte_length: checked.byte_length,
            tree_hash: hash::tree(&checked.roots),
            tree_hash_since: self.since.map(|_| hash::tree(&checked.roots_since)),
        })
    }

    pub(crate) fn check(&self, key: &PublicKey) -> Result<Checked> {
        if self.key != *key.as_bytes() {
            return Err(Error::WrongKey);
        }
        let since = self.since.unwrap_or(0);
        let end = self.first.checked_add(self.entries.len() as u64);
        let end = end.filter(|end| *end <= self.length && since <= self.length && self.length < LENGTH_MAX);
        let end = end.ok_or(Error::BadProof("it is about more than its log has"))?;
        let scope = Scope { first: self.first, end, since };
        let mut walk = Walk::new(scope, &self.entries, &self.nodes);
        let roots = tree::roots_of(self.length).into_iter();
        let roots = roots.map(|index| walk.node(index)).collect::<Result<Vec<_>>>()?;
        let (nodes, roots_since) = walk.end()?;
        if !key.verify(&hash::signable(&hash::tree(&roots), self.length, self.fork), &self.signature) {
            return Err(Error::BadProof("it leads to a tree that its key has not signed"));
        }
        let byte_length = roots.iter().map(|root| root.size).try_fold(0u64, u64::checked_add);
        let byte_length = byte_length.filter(|bytes| i64::try_from(*bytes).is_ok());
        let byte_length = byte_length.ok_or(Error::BadProof("its sizes overflow"))?;
        Ok(Checked { byte_length, roots, roots_since, nodes })
    }

    /// The proof as CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        minicbor::to_vec(self).unwrap_or_else(|never: minicbor::encode::Error<std::convert::Infallible>| {
            unreachable!("memory takes everything: {never}")
        })
    }

    /// Reads a proof back from CBOR; nothing may follow it.
    ///
    /// # Errors
    ///
    /// [`Error::BadProof`].
    pub fn from_cbor(bytes: &[u8]) -> Result<Self> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let proof = decoder.decode().map_err(|_| Error::BadProof("it is not CBOR of this shape"))?;
        if decoder.position() < bytes.len() {
            return Err(Error::BadProof("something follows it"));
        }
        Ok(proof)
    }
}

/// What a proof was found to lead to.
pub(crate) struct Checked {
    pub(crate) byte_length: u64,
    pub(crate) roots: Vec<Node>,
    /// The roots of the shorter log.
    pub(crate) roots_since: Vec<Node>,
    /// Every node that was met.
    pub(crate) nodes: Vec<Node>,
}

/// The way down from a node: given nodes are taken in their order, the others are computed.
pub(crate) struct Walk<'a> {
    scope: Scope,
    entries: &'a [EntryBytes],
    given: std::slice::Iter<'a, ProofNode>,
    since_roots: Vec<u64>,
    /// The roots of the shorter log, as they were met.
    found: Vec<Node>,
    met: Vec<Node>,
}

impl<'a> Walk<'a> {
    /// `entries` are those from the scope's first on.
    pub(crate) fn new(scope: Scope, entries: &'a [EntryBytes], given: &'a [ProofNode]) -> Self {
        let since_roots = tree::roots_of(scope.since);
        Self { scope, entries, given: given.iter(), since_roots, found: Vec::new(), met: Vec::new() }
    }

    pub(crate) fn node(&mut self, index: u64) -> Result<Node> {
        let node = if self.scope.closed(index) {
            let given = self.given.next().filter(|node| node.index == index);
            let given = given.ok_or(Error::BadProof("it lacks a node that it needs"))?;
            Node { index, size: given.size, hash: given.hash }
        } else if tree::level(index) == 0 {
            // Below an open leaf lies one of the entries: the scope was made of them.
            let place = usize::try_from(index / 2 - self.scope.first).unwrap_or(usize::MAX);
            let entry = self.entries.get(place).ok_or(Error::BadProof("it lacks an entry"))?;
            Node::of_entry(index / 2, &entry.0)
        } else {
            let (left, right) = tree::children(index);
            let (left, right) = (self.node(left)?, self.node(right)?);
            left.size.checked_add(right.size).ok_or(Error::BadProof("its sizes overflow"))?;
            Node::parent_of(&left, &right)
        };
        if self.since_roots.contains(&index) {
            self.found.push(node);
        }
        self.met.push(node);
        Ok(node)
    }

    /// Every node that was met, and the roots of the shorter log; nothing may be left over.
    pub(crate) fn end(mut self) -> Result<(Vec<Node>, Vec<Node>)> {
        match self.given.next() {
            Some(_) => Err(Error::BadProof("it has nodes that it does not need")),
            None => Ok((self.met, self.found)),
        }
    }
}
