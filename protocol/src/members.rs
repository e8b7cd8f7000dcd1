//! The members of an epoch, and how one set of them hands over to the next.
//!
//! A set is chosen by the replicated state: its key [`SET_KEY`] holds, as JSON, the members that the next epoch begins with. So
//! whoever trusts one set can learn the next without trusting anybody else: the old members attest a state root,
//! and a Merkle path leads from that root to the new set. That is a [`Handoff`]; a chain of them begins at the genesis.
//!
//! A member's events, attestations and words for the beacon are signed with the key that the set names for it, in the epochs of that set:
//! the cell's own, or one that it has rotated to (ADR 0021). No key stands for two members: [`MemberSet::bad_key`].
//!
//! The text by which a new key says whose it is: `"celluler/member-key/1\0" || genesis || cell || key`.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::block::{Attestation, BlockHeader};
use crate::genesis::Member;
use crate::id::{CellId, GenesisHash, Hash, MemberKey, StateRoot};
use crate::signing::{self, Signature, SignedText};
use crate::state::KeyProof;
use crate::{Problem, ProblemKind, codec};

/// Where the state holds the members of the next epoch.
pub const SET_KEY: &str = "members/set";
/// Rounds from the one that received a change of members to the last one of its epoch.
pub const CHANGE_ROUNDS: u64 = 4;

/// Members with their weights, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct MemberSet(#[n(0)] Vec<Member>);

impl MemberSet {
    /// Members in the order of their places.
    pub const fn new(members: Vec<Member>) -> Self {
        Self(members)
    }

    /// The members, in their order.
    pub fn all(&self) -> &[Member] {
        &self.0
    }

    /// BLAKE3 over the members' CBOR.
    pub fn hash(&self) -> Hash {
        Hash::of(&codec::encode(&self.0))
    }

    /// A cell's weight; 0 for a stranger.
    pub fn weight_of(&self, cell: &CellId) -> u64 {
        self.0.iter().find(|member| member.cell == *cell).map_or(0, |member| member.weight)
    }

    /// The weight of so many cells together, each counted once.
    pub fn weight_of_all(&self, mut cells: Vec<CellId>) -> u64 {
        cells.sort_unstable();
        cells.dedup();
        cells.iter().map(|cell| self.weight_of(cell)).sum()
    }

    /// The public key that a member's events, attestations and words for the beacon are checked by; none of a stranger's.
    pub fn signer_of(&self, cell: &CellId) -> Option<CellId> {
        self.0.iter().find(|member| member.cell == *cell).map(Member::signer)
    }

    /// What is wrong with the keys, if something is: one that nobody can sign with, or that stands for two.
    pub fn bad_key(&self) -> Option<String> {
        let mut taken: BTreeSet<CellId> = self.0.iter().map(|member| member.cell).collect();
        for member in &self.0 {
            let Some(key) = member.key else { continue };
            if !signing::is_key(&member.signer()) {
                return Some(format!("{key} is no key"));
            }
            if !taken.insert(member.signer()) {
                return Some(format!("the key {key} stands for two, or is a cell's own"));
            }
        }
        None
    }

    /// Whether a cell is one of them.
    pub fn contains(&self, cell: &CellId) -> bool {
        self.weight_of(cell) > 0
    }

    /// The sum of all weights.
    pub fn weight_total(&self) -> u64 {
        self.0.iter().map(|member| member.weight).sum()
    }

    /// Whether so much weight is more than two thirds of all.
    pub fn is_supermajority(&self, weight: u64) -> bool {
        u128::from(weight) * 3 > u128::from(self.weight_total()) * 2
    }

    /// Whether so much weight is more than a third of all: not all of it can be faulty.
    pub fn has_honest(&self, weight: u64) -> bool {
        u128::from(weight) * 3 > u128::from(self.weight_total())
    }

    /// Reads what the state holds under [`SET_KEY`].
    ///
    /// # Errors
    ///
    /// `members.unreadable`.
    pub fn from_state(value: &[u8]) -> Result<Self, Problem> {
        let members: Vec<Member> = serde_json::from_slice(value).map_err(|error| {
            Problem::new(
                ProblemKind::Fault,
                "members.unreadable",
                format!("the members in the state: {error}"),
            )
        })?;
        Ok(Self(members))
    }

    /// What the state holds under [`SET_KEY`].
    pub fn to_state(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    /// The root that more than two thirds of the members give their word for, as that which a block came to.
    ///
    /// # Errors
    ///
    /// `block.not_proven` with what failed: the members are not those that ordered the block, a signature that does not hold, or too
    /// few attestations for one root.
    pub fn attested(&self, header: &BlockHeader, attestations: &[Attestation]) -> Result<StateRoot, Problem> {
        let fail = |why: &str| Err(not_proven(why));
        if header.members != self.hash() {
            return fail("the block was ordered by another member set");
        }
        let Some(root) = attestations.first().map(|attestation| attestation.root) else {
            return fail("nobody attests the block");
        };
        let mut members = Vec::with_capacity(attestations.len());
        for attestation in attestations {
            let signer = self.signer_of(&attestation.member);
            if attestation.root != root
                || !signer.is_some_and(|signer| attestation.holds_for(header, &signer))
            {
                return fail("an attestation does not hold");
            }
            members.push(attestation.member);
        }
        if !self.is_supermajority(self.weight_of_all(members)) {
            return fail("the attestations are not from more than two thirds of the members");
        }
        Ok(root)
    }
}

impl FromIterator<(CellId, u64)> for MemberSet {
    /// Members by weight, each with its cell's own key.
    fn from_iter<I: IntoIterator<Item = (CellId, u64)>>(members: I) -> Self {
        Self(members.into_iter().map(|(cell, weight)| Member::new(cell, weight)).collect())
    }
}

/// A member's new key says whose it is: so nobody can name one that is not theirs.
pub fn prove_key(key: &SigningKey, genesis: &GenesisHash, cell: &CellId) -> Signature {
    let public = MemberKey::from_bytes(key.verifying_key().to_bytes());
    signing::sign(key, &key_text(genesis, cell, &public))
}

/// Whether a key has said that it is a cell's.
pub fn key_is_proven(key: &MemberKey, proof: &Signature, genesis: &GenesisHash, cell: &CellId) -> bool {
    signing::verify(&CellId::from_bytes(*key.as_bytes()), &key_text(genesis, cell, key), proof)
}

fn key_text(genesis: &GenesisHash, cell: &CellId, key: &MemberKey) -> Vec<u8> {
    SignedText::new("celluler/member-key/1")
        .bytes32(genesis.as_bytes())
        .bytes32(cell.as_bytes())
        .bytes32(key.as_bytes())
        .finish()
}

/// How a set of members follows from the one before: the last block that the old ones ordered, their words for it, and the new set in
/// the state after it. Checked by `state::LightClient`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// The last block of the old members.
    #[n(0)]
    pub header: BlockHeader,
    /// Their words for it.
    #[n(1)]
    pub attestations: Vec<Attestation>,
    /// The key [`SET_KEY`] under the root that they attest.
    #[n(2)]
    pub proof: KeyProof,
}

pub(crate) fn not_proven(why: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, "block.not_proven", why.to_owned())
        .hint("fetch the block again from a cell you trust: cell block show INDEX --output json")
}
