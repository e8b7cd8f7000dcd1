//! Consensus: the order of transactions.

use super::shared::{Empty, ListRequest, Page};
use super::state::Applied;
use crate::block::{Attestation, Block, BlockProof};
use crate::genesis::Member;
use crate::id::{BlockHash, BlockIndex, CellId, GenesisHash, StateRoot, TxId};
use crate::problem::Problem;
use crate::transaction::{Intent, Transaction};

words! {
    /// How far a transaction has come.
    #[derive(Copy, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
    #[cbor(index_only)]
    #[serde(rename_all = "lowercase")]
    pub enum TxStatus {
        /// Durable here, waiting for its place.
        #[n(0)]
        Accepted,
        /// In a block.
        #[n(1)]
        Ordered,
        /// Executed; the root is known here.
        #[n(2)]
        Applied,
        /// Attested by more than two thirds.
        #[n(3)]
        Finalised,
        /// Ordered and executed, but its module refused it.
        #[n(4)]
        Rejected,
    }

    /// A transaction to submit: an intent that this cell signs, or one signed elsewhere.
    #[serde(deny_unknown_fields)]
    pub struct SubmitRequest {
        /// What to do, signed by this cell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub intent: Option<Intent>,
        /// Or: a transaction signed elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub transaction: Option<Transaction>,
        /// How far to wait before answering; `accepted` unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wait: Option<TxStatus>,
        /// The longest wait, in milliseconds; 10 000 unless told, 60 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wait_ms: Option<u64>,
    }

    /// A checked transaction to take in.
    pub struct AdmitRequest {
        /// The transaction; its signature was checked.
        pub transaction: Transaction,
    }

    /// A transaction and how far it has come.
    pub struct TxView {
        /// Its id.
        pub id: TxId,
        /// How far it has come.
        pub status: TxStatus,
        /// The block it is in.
        pub block: Option<BlockIndex>,
        /// The root after that block.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub root: Option<StateRoot>,
        /// Why it was rejected, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub problem: Option<Problem>,
        /// The transaction.
        pub transaction: Transaction,
    }

    /// Names a transaction.
    #[derive(Copy, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct TxRef {
        /// Its id.
        pub id: TxId,
    }

    /// Names a block.
    #[derive(Copy, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct BlockRef {
        /// Its index.
        pub index: BlockIndex,
    }

    /// A block as people and clients see it.
    pub struct BlockView {
        /// Its index.
        pub index: BlockIndex,
        /// Its hash.
        pub hash: BlockHash,
        /// Agreed time.
        pub time_ms: u64,
        /// How many transactions.
        pub transactions: u64,
        /// The root after it, once applied.
        pub root: Option<StateRoot>,
        /// Whether it is final.
        pub finalised: bool,
    }

    /// A block in full, with what proves it.
    pub struct BlockAnswer {
        /// The short form.
        pub summary: BlockView,
        /// Block and attestations: what `cell block verify` checks.
        pub proof: BlockProof,
    }

    /// A block that was executed, with this cell's attestation.
    pub struct FinaliseRequest {
        /// The result.
        pub applied: Applied,
        /// This cell's word for it; its signature was checked.
        pub attestation: Attestation,
    }

    /// Where consensus stands.
    pub struct ConsensusStatus {
        /// The network.
        pub genesis: GenesisHash,
        /// How many members.
        pub members: u64,
        /// The newest ordered block.
        pub ordered: Option<BlockIndex>,
        /// The newest finalised block.
        pub finalised: Option<BlockIndex>,
        /// Transactions that wait for their place.
        pub pending: u64,
    }

    /// Whose next nonce.
    #[derive(Copy, Eq)]
    pub struct NextNonceRequest {
        /// Which sender.
        pub cell: CellId,
    }

    /// A nonce no transaction of that sender has used here, waiting ones included.
    #[derive(Copy, Eq)]
    pub struct NextNonce {
        /// The nonce.
        pub nonce: u64,
    }

    /// A block that waits for its execution or attestation.
    pub struct OpenBlock {
        /// The block.
        pub block: Block,
    }
}

crate::actions! {
    service Consensus;
    machine {
        /// Takes in a transaction; the same one again gives the same answer.
        Admit admit(AdmitRequest) -> TxView, Command, Internal;
        /// Orders what waits into the next block, if anything does.
        Order order(Empty) -> Empty, Command, Internal;
        /// Records a block's execution and attestation.
        Finalise finalise(FinaliseRequest) -> Empty, Command, Internal;
        /// Blocks that are ordered and not yet finalised, oldest first.
        Open open(Empty) -> Page<OpenBlock>, Query, Internal;
        /// The next free nonce of a sender.
        GetNextNonce next_nonce(NextNonceRequest) -> NextNonce, Query, Read;
        /// One transaction and how far it has come.
        Tx tx(TxRef) -> TxView, Query, Read;
        /// Transactions, newest first.
        Txs txs(ListRequest) -> Page<TxView>, Query, Read;
        /// One block with its proof.
        GetBlock block(BlockRef) -> BlockAnswer, Query, Read;
        /// Blocks, newest first.
        Blocks blocks(ListRequest) -> Page<BlockView>, Query, Read;
        /// Where consensus stands.
        Status status(Empty) -> ConsensusStatus, Query, Read;
        /// The members and their weights.
        Members members(ListRequest) -> Page<Member>, Query, Read;
    }
    front {
        /// Signs (if need be), checks and submits a transaction.
        Submit submit(SubmitRequest) -> TxView, Command, Write;
    }
}
