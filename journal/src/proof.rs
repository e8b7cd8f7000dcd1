//! A proof that an entry is in a log: checkable with nothing but the log's key.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hash;
use crate::key::PublicKey;
use crate::recover::State;
use crate::tree::{self, Node};

/// A node of a proof, with its hash in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofNode {
    /// Its place in the flat tree.
    pub index: u64,
    /// Bytes of the entries below it.
    pub size: u64,
    /// Its hash, 64 hex digits.
    pub hash: String,
}

/// An entry's way up to the signed tree hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The log's key, 64 hex digits.
    pub key: String,
    /// The entry.
    pub index: u64,
    /// The log's length when it was signed.
    pub length: u64,
    /// The log's fork when it was signed.
    pub fork: u64,
    /// Siblings on the way up to the entry's root, bottom first.
    pub siblings: Vec<ProofNode>,
    /// The other roots.
    pub roots: Vec<ProofNode>,
    /// The signature over the tree, 128 hex digits.
    pub signature: String,
}

impl Proof {
    pub(crate) fn new(
        key: PublicKey,
        index: u64,
        state: &State,
        siblings: Vec<Node>,
        signature: [u8; 64],
    ) -> Self {
        let others = state.roots.iter().filter(|root| {
            let (first, end) = tree::span(root.index);
            !(first..end).contains(&index)
        });
        Self {
            key: key.to_string(),
            index,
            length: state.length,
            fork: state.fork,
            siblings: siblings.iter().map(shown).collect(),
            roots: others.map(shown).collect(),
            signature: hex::encode(signature),
        }
    }

    /// Checks that `entry` is the entry at this proof's index in the log of `key`.
    ///
    /// # Errors
    ///
    /// [`Error::WrongKey`], [`Error::Damaged`] or [`Error::Corrupt`] with what does not hold.
    pub fn verify(&self, key: &PublicKey, entry: &[u8]) -> Result<()> {
        if self.key != key.to_string() {
            return Err(Error::WrongKey);
        }
        if self.index >= self.length
            || self.length >= 1 << 40
            || self.siblings.len() > 64
            || self.roots.len() > 64
        {
            return Err(Error::corrupt("the proof has an impossible shape"));
        }
        let mut node = Node::of_entry(self.index, entry);
        for sibling in &self.siblings {
            let sibling = read(sibling)?;
            if tree::level(sibling.index) != tree::level(node.index) || sibling.index == node.index {
                return Err(Error::corrupt("a sibling of the proof is on another level"));
            }
            let (left, right) = if sibling.index < node.index { (sibling, node) } else { (node, sibling) };
            node = Node::parent_of(&left, &right);
        }
        let mut roots: Vec<Node> = self.roots.iter().map(read).collect::<Result<_>>()?;
        roots.push(node);
        roots.sort_by_key(|root| root.index);
        if roots.iter().map(|root| root.index).collect::<Vec<_>>() != tree::roots_of(self.length) {
            return Err(Error::corrupt("the proof's roots are not those of its length"));
        }
        let mut signature = [0; 64];
        hex::decode_to_slice(&self.signature, &mut signature)
            .map_err(|_| Error::corrupt("the proof's signature is not hex"))?;
        let message = hash::signable(&hash::tree(&roots), self.length, self.fork);
        if key.verify(&message, &signature) { Ok(()) } else { Err(Error::Damaged { index: self.index }) }
    }
}

fn shown(node: &Node) -> ProofNode {
    ProofNode { index: node.index, size: node.size, hash: hex::encode(node.hash) }
}

fn read(node: &ProofNode) -> Result<Node> {
    let mut hash = [0; 32];
    hex::decode_to_slice(&node.hash, &mut hash)
        .map_err(|_| Error::corrupt("a hash of the proof is not hex"))?;
    Ok(Node { index: node.index, size: node.size, hash })
}
