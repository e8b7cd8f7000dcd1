//! Blocks: the agreed order of transactions, and what members say of its result.
//!
//! Header text: `"celluler/block/2\0" || genesis || u64 index || u64 time_ms || previous ||
//! transactions root || member-set hash || u64 rules || u64 epoch || u64 round`; of a block with a value of the beacon
//! `"celluler/block/3\0"`, the same, `|| u64 draw || value`; if the value tells the round that fixed it, `"celluler/block/4\0"` and
//! `|| u64 fixed` behind that. Attestation text:
//! `"celluler/attest/1\0" || genesis || u64 index || block hash || state root || member`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::beacon::Drawn;
use crate::id::{BlockHash, BlockIndex, CellId, GenesisHash, Hash, StateRoot, TxId};
use crate::members::{Handoff, MemberSet, not_proven};
use crate::signing::{self, Signature, Signed, SignedText};
use crate::transaction::Transaction;
use crate::{Problem, merkle};

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
    /// The version of the [rules](crate::rules) it is executed under.
    #[n(6)]
    pub rules: u64,
    /// The epoch of the hashgraph that ordered it.
    #[n(7)]
    pub epoch: u64,
    /// The round of that epoch which received its transactions. A round may fill several blocks.
    #[n(8)]
    pub round: u64,
    /// The newest value that the beacon has drawn in its epoch since the block before.
    #[n(9)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Drawn>,
}

impl BlockHeader {
    /// The hash of the header's fixed-layout text.
    pub fn hash(&self) -> BlockHash {
        let tag = match &self.beacon {
            None => "celluler/block/2",
            Some(Drawn { fixed: None, .. }) => "celluler/block/3",
            Some(Drawn { fixed: Some(_), .. }) => "celluler/block/4",
        };
        let text = SignedText::new(tag)
            .bytes32(self.genesis.as_bytes())
            .u64(self.index.0)
            .u64(self.time_ms)
            .bytes32(self.previous.as_bytes())
            .bytes32(self.transactions_root.as_bytes())
            .bytes32(self.members.as_bytes())
            .u64(self.rules)
            .u64(self.epoch)
            .u64(self.round);
        let text = match &self.beacon {
            Some(drawn) => text.u64(drawn.draw).bytes32(drawn.value.as_bytes()),
            None => text,
        };
        let text = match self.beacon.and_then(|drawn| drawn.fixed) {
            Some(fixed) => text.u64(fixed),
            None => text,
        };
        let text = text.finish();
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
    /// The word of a member that signs with its cell's own key, for what a block came to.
    pub fn sign(key: &ed25519_dalek::SigningKey, header: &BlockHeader, root: StateRoot) -> Self {
        Self::sign_as(crate::signing::cell_id(key), key, header, root)
    }

    /// A member's word for what a block came to, by the key that its set names for it.
    pub fn sign_as(
        member: CellId,
        key: &ed25519_dalek::SigningKey,
        header: &BlockHeader,
        root: StateRoot,
    ) -> Self {
        let mut attestation = Self {
            member,
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

    /// What is to be checked about the signature, on this network; `signer` is the member's in the block's epoch.
    pub fn to_check(&self, genesis: &GenesisHash, signer: CellId) -> Signed {
        Signed { signer, bytes: self.signed_text(genesis), signature: self.signature }
    }

    /// Whether the signature is the member's, on this network; `signer` is the member's in the block's epoch.
    pub fn signature_holds(&self, genesis: &GenesisHash, signer: &CellId) -> bool {
        crate::signing::verify(signer, &self.signed_text(genesis), &self.signature)
    }

    /// Whether it is the member's word for this very block; `signer` is the member's in the block's epoch.
    pub fn holds_for(&self, header: &BlockHeader, signer: &CellId) -> bool {
        self.index == header.index
            && self.block == header.hash()
            && self.signature_holds(&header.genesis, signer)
    }
}

/// A block with the attestations that finalise it, and with what leads from the genesis to the members that gave them: checkable offline
/// with nothing but the genesis (`state::LightClient`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct BlockProof {
    /// The block.
    #[n(0)]
    pub block: Block,
    /// Members' attestations.
    #[n(1)]
    pub attestations: Vec<Attestation>,
    /// Each change of members between the genesis and the block, oldest first; none while the genesis's members order.
    #[n(2)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handoffs: Vec<Handoff>,
}

impl BlockProof {
    /// Checks the block against its network and the members that ordered it, and gives the state root that they attest. How those
    /// members came to be is not looked at.
    ///
    /// # Errors
    ///
    /// `block.not_proven` with what failed: another network, transactions that the header does not
    /// commit to, a signature that does not hold, or too few attestations for one root.
    pub fn check(&self, genesis: &GenesisHash, members: &MemberSet) -> Result<StateRoot, Problem> {
        let header = &self.block.header;
        if header.genesis != *genesis {
            return Err(not_proven("the block belongs to another network"));
        }
        if Block::transactions_root(&self.block.transactions) != header.transactions_root {
            return Err(not_proven("the transactions are not the ones the header commits to"));
        }
        let signed: Vec<Signed> = self.block.transactions.iter().map(Transaction::to_check).collect();
        if self.block.transactions.iter().any(|tx| tx.genesis != header.genesis)
            || signing::verify_all(&signed).contains(&false)
        {
            return Err(not_proven("a transaction's signature does not hold"));
        }
        members.attested(header, &self.attestations)
    }
}

/// That a transaction has its place in a final block, without the block's other transactions. It says nothing of what the transaction came to: what it
/// changed is proven by the keys it changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TxProof {
    /// The transaction.
    #[n(0)]
    pub transaction: Transaction,
    /// Its place in the block, from 0.
    #[n(1)]
    pub place: u64,
    /// How many transactions the block has.
    #[n(2)]
    pub transactions: u64,
    /// The hashes beside its way up to the header's root of transactions, lowest first.
    #[n(3)]
    pub path: Vec<Hash>,
    /// The block's header.
    #[n(4)]
    pub header: BlockHeader,
    /// Members' attestations of the block.
    #[n(5)]
    pub attestations: Vec<Attestation>,
    /// As in [`BlockProof`].
    #[n(6)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handoffs: Vec<Handoff>,
}

impl TxProof {
    /// The proof of one transaction out of a block's; none if it is not in the block.
    pub fn out_of(proof: BlockProof, id: &TxId) -> Option<Self> {
        let BlockProof { block, attestations, handoffs } = proof;
        let place = block.transactions.iter().position(|transaction| transaction.id() == *id)?;
        let leaves: Vec<Hash> =
            block.transactions.iter().map(|tx| merkle::leaf(tx.id().as_bytes())).collect();
        let path = merkle::paths(&leaves).1.swap_remove(place);
        let transactions = block.transactions.len() as u64;
        let transaction = block.transactions.into_iter().nth(place)?;
        Some(Self {
            transaction,
            place: place as u64,
            transactions,
            path,
            header: block.header,
            attestations,
            handoffs,
        })
    }

    /// As [`BlockProof::check`], for the one transaction.
    ///
    /// # Errors
    ///
    /// `block.not_proven` with what failed.
    pub fn check(&self, genesis: &GenesisHash, members: &MemberSet) -> Result<StateRoot, Problem> {
        let Self { transaction, header, .. } = self;
        if header.genesis != *genesis || transaction.genesis != *genesis {
            return Err(not_proven("the transaction belongs to another network"));
        }
        if !transaction.signature_holds() {
            return Err(not_proven("the transaction's signature does not hold"));
        }
        let leaf = merkle::leaf(transaction.id().as_bytes());
        if merkle::root_of(leaf, self.place, self.transactions, &self.path) != Some(header.transactions_root)
        {
            return Err(not_proven("the header does not commit to the transaction at this place"));
        }
        members.attested(header, &self.attestations)
    }
}
