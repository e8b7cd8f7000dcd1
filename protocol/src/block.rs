//! Blocks: the agreed order of transactions, and what members say of its result.
//!
//! Header text: `"celluler/block/2\0" || genesis || u64 index || u64 time_ms || previous ||
//! transactions root || member-set hash || u64 rules || u64 epoch || u64 round`. Attestation text:
//! `"celluler/attest/1\0" || genesis || u64 index || block hash || state root || member`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::genesis::Genesis;
use crate::id::{BlockHash, BlockIndex, CellId, GenesisHash, Hash, StateRoot};
use crate::merkle;
use crate::signing::{Signature, SignedText};
use crate::transaction::Transaction;

/// The version of the rules blocks are executed under: modules, tree, fees.
pub const RULES_VERSION: u64 = 1;

/// A block's header.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct BlockHeader {
    /// The network.
    #[n(0)]
    pub genesis: GenesisHash,
    /// Its place in the order.
    #[n(1)]
    pub index: BlockIndex,
    /// Agreed time, in milliseconds since 1970 (UTC); never below the previous block's.
    #[n(2)]
    pub time_ms: u64,
    /// The previous block's hash; zeros for the first.
    #[n(3)]
    pub previous: BlockHash,
    /// Merkle root over the transactions' ids.
    #[n(4)]
    pub transactions_root: Hash,
    /// Hash of the member set that ordered it.
    #[n(5)]
    pub members: Hash,
    /// The rules version it is executed under.
    #[n(6)]
    pub rules: u64,
    /// The epoch of the hashgraph that ordered it.
    #[n(7)]
    pub epoch: u64,
    /// The round of that epoch which received its transactions. A round may fill several blocks.
    #[n(8)]
    pub round: u64,
}

impl BlockHeader {
    /// The hash of the header's fixed-layout text.
    pub fn hash(&self) -> BlockHash {
        let text = SignedText::new("celluler/block/2")
            .bytes32(self.genesis.as_bytes())
            .u64(self.index.0)
            .u64(self.time_ms)
            .bytes32(self.previous.as_bytes())
            .bytes32(self.transactions_root.as_bytes())
            .bytes32(self.members.as_bytes())
            .u64(self.rules)
            .u64(self.epoch)
            .u64(self.round)
            .finish();
        BlockHash::from_bytes(*blake3::hash(&text).as_bytes())
    }
}

/// A block: header and transactions in order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct Block {
    /// The header, which commits to the transactions.
    #[n(0)]
    pub header: BlockHeader,
    /// In the order they are applied.
    #[n(1)]
    pub transactions: Vec<Transaction>,
}

impl Block {
    /// Merkle root over transaction ids.
    pub fn transactions_root(transactions: &[Transaction]) -> Hash {
        let leaves: Vec<Hash> = transactions.iter().map(|tx| merkle::leaf(tx.id().as_bytes())).collect();
        merkle::root(&leaves)
    }
}

/// A member's signed word that a block gives a state root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct Attestation {
    /// Who says so.
    #[n(0)]
    pub member: CellId,
    /// The block's place in the order.
    #[n(1)]
    pub index: BlockIndex,
    /// Which block it is.
    #[n(2)]
    pub block: BlockHash,
    /// The root after it.
    #[n(3)]
    pub root: StateRoot,
    /// Over the network and all of the above.
    #[n(4)]
    pub signature: Signature,
}

impl Attestation {
    /// A member's word for what a block came to.
    pub fn sign(key: &ed25519_dalek::SigningKey, header: &BlockHeader, root: StateRoot) -> Self {
        let mut attestation = Self {
            member: crate::signing::cell_id(key),
            index: header.index,
            block: header.hash(),
            root,
            signature: Signature::from_bytes([0; 64]),
        };
        attestation.signature = crate::signing::sign(key, &attestation.signed_text(&header.genesis));
        attestation
    }

    /// The bytes that the signature covers.
    pub fn signed_text(&self, genesis: &GenesisHash) -> Vec<u8> {
        SignedText::new("celluler/attest/1")
            .bytes32(genesis.as_bytes())
            .u64(self.index.0)
            .bytes32(self.block.as_bytes())
            .bytes32(self.root.as_bytes())
            .bytes32(self.member.as_bytes())
            .finish()
    }

    /// Whether the signature is the member's, on this network.
    pub fn signature_holds(&self, genesis: &GenesisHash) -> bool {
        crate::signing::verify(&self.member, &self.signed_text(genesis), &self.signature)
    }

    /// Whether it is the member's word for this very block.
    pub fn holds_for(&self, header: &BlockHeader) -> bool {
        self.index == header.index && self.block == header.hash() && self.signature_holds(&header.genesis)
    }
}

/// A block with the attestations that finalise it: checkable offline with nothing but the genesis.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct BlockProof {
    /// The block.
    #[n(0)]
    pub block: Block,
    /// Members' attestations.
    #[n(1)]
    pub attestations: Vec<Attestation>,
}

impl BlockProof {
    /// Checks the proof against a genesis and gives the attested state root.
    ///
    /// # Errors
    ///
    /// `block.not_proven` with what failed: another network, transactions that the header does not
    /// commit to, a signature that does not hold, or too few attestations for one root.
    pub fn check(&self, genesis: &Genesis) -> Result<StateRoot, crate::Problem> {
        let fail = |why: &str| {
            Err(crate::Problem::new(crate::ProblemKind::Invalid, "block.not_proven", why.to_owned())
                .hint("fetch the block again from a cell you trust: cell block show INDEX --output json"))
        };
        let header = &self.block.header;
        if header.genesis != genesis.hash() {
            return fail("the block belongs to another network");
        }
        if header.members != genesis.members_hash() {
            return fail("the block was ordered by another member set");
        }
        if Block::transactions_root(&self.block.transactions) != header.transactions_root {
            return fail("the transactions are not the ones the header commits to");
        }
        if self.block.transactions.iter().any(|tx| tx.genesis != header.genesis || !tx.signature_holds()) {
            return fail("a transaction's signature does not hold");
        }
        let Some(root) = self.attestations.first().map(|attestation| attestation.root) else {
            return fail("nobody attests the block");
        };
        let mut members = Vec::new();
        for attestation in &self.attestations {
            if attestation.root != root || !attestation.holds_for(header) {
                return fail("an attestation does not hold");
            }
            members.push(attestation.member);
        }
        members.sort_unstable();
        members.dedup();
        let weight: u64 = members.iter().map(|member| genesis.weight_of(member)).sum();
        if !genesis.is_supermajority(weight) {
            return fail("the attestations are not from more than two thirds of the members");
        }
        Ok(root)
    }
}
