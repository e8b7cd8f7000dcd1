//! Consensus: the order of transactions.

use super::shared::{Empty, ListRequest, Page};
use super::state::Applied;
use crate::amount::Amount;
use crate::beacon::Drawn;
use crate::block::{Attestation, Block, BlockProof, TxProof};
use crate::genesis::Member;
use crate::gossip::ForkProof;
use crate::id::{BlockHash, BlockIndex, CellId, GenesisHash, Hash, StateRoot, TxId};
use crate::members::MemberSet;
use crate::problem::Problem;
use crate::state::KeyProof;
use crate::transaction::{Intent, Transaction};

/// Rounds of the graph that are shown unless told.
pub const GRAPH_ROUNDS: u64 = 8;
/// The most rounds of the graph that are shown.
pub const GRAPH_ROUNDS_MAX: u64 = 64;
/// The most transactions that are submitted together.
pub const SUBMIT_ALL_MAX: usize = 1_000;
/// The most events that are shown; of more, those of the newest rounds.
pub const GRAPH_EVENTS_MAX: usize = 4_096;

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
        /// Executed here; the root is known.
        #[n(2)]
        Applied,
        /// Attested by more than two thirds.
        #[n(3)]
        Finalised,
        /// Refused: by its module when it was executed, or left out of the order because another one of its sender came first.
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

    /// Transactions that were signed elsewhere, to submit together.
    #[serde(deny_unknown_fields)]
    pub struct SubmitAllRequest {
        /// The transactions, at most [`SUBMIT_ALL_MAX`]; those of one sender in the order of their nonces.
        pub transactions: Vec<Transaction>,
        /// How far to wait for all of them before answering; `accepted` unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wait: Option<TxStatus>,
        /// The longest wait, in milliseconds; 10 000 unless told, 60 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wait_ms: Option<u64>,
    }

    /// What became of one of them.
    #[derive(Eq)]
    pub struct Submitted {
        /// Its id.
        pub id: TxId,
        /// How far it has come; nothing if it was not taken in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub status: Option<TxStatus>,
        /// The block it is in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub block: Option<BlockIndex>,
        /// Why it was not taken in, or was rejected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub problem: Option<Problem>,
    }

    /// What became of transactions that were submitted together.
    #[derive(Eq)]
    pub struct SubmittedAll {
        /// One each, in the order of the request.
        pub items: Vec<Submitted>,
    }

    /// Checked transactions to take in together.
    pub struct AdmitAllRequest {
        /// The transactions; their signatures were checked.
        pub transactions: Vec<Transaction>,
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
        /// What its sender paid, once it was executed here, where the network has fees.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub fee: Option<Amount>,
        /// When each step was taken here.
        pub life: TxLife,
        /// The transaction.
        pub transaction: Transaction,
    }

    /// When a transaction took each of its steps at a cell, by that cell's clock, in milliseconds since 1970 (UTC).
    #[derive(Copy, Default, Eq)]
    pub struct TxLife {
        /// Taken in, with a block of others if not before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub accepted_ms: Option<u64>,
        /// Put into a block.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub ordered_ms: Option<u64>,
        /// Executed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub applied_ms: Option<u64>,
        /// Attested by more than two thirds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub finalised_ms: Option<u64>,
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
        /// The epoch of the hashgraph that ordered it.
        pub epoch: u64,
        /// The round of that epoch which received it.
        pub round: u64,
    }

    /// A block in full, with what proves it.
    pub struct BlockAnswer {
        /// The short form.
        pub summary: BlockView,
        /// Block and attestations: what `cell block verify` checks.
        pub proof: BlockProof,
    }

    /// Events of the hashgraph, to be durable before anybody else hears of them.
    pub struct RecordRequest {
        /// The epoch they belong to.
        pub epoch: u64,
        /// How many events of the epoch were recorded before.
        pub first: u64,
        /// The events, as [`EventBytes`](crate::gossip::EventBytes) in CBOR; checked.
        #[serde(with = "crate::codec::byte_lists")]
        #[schemars(with = "Vec<String>")]
        pub events: Vec<Vec<u8>>,
    }

    /// What a round of the hashgraph received.
    pub struct OrderedRound {
        /// Which.
        pub round: u64,
        /// The latest consensus timestamp in it, in microseconds since 1970 (UTC).
        pub time_us: u64,
        /// Its transactions in their order; signatures checked.
        pub transactions: Vec<Transaction>,
        /// The newest value of the beacon that it has opened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub drawn: Option<Drawn>,
    }

    /// Rounds that were decided.
    pub struct OrderRequest {
        /// The epoch they belong to.
        pub epoch: u64,
        /// The rounds, in order.
        pub rounds: Vec<OrderedRound>,
    }

    /// A block that was executed, with this cell's word for it.
    pub struct ExecutedRequest {
        /// The result.
        pub applied: Applied,
        /// This cell's word, by the key that the block's members name for it; none of a cell that only follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub attestation: Option<Attestation>,
    }

    /// What other members say of blocks.
    pub struct AttestedRequest {
        /// The epoch in whose events they came, and by whose members' keys they were checked.
        pub epoch: u64,
        /// Their words; signatures checked.
        pub attestations: Vec<Attestation>,
    }

    /// Blocks that are final elsewhere, for a cell that has fallen behind.
    pub struct AdoptRequest {
        /// Blocks and attestations, in order, beginning with the first that is not final here; checked against the genesis.
        pub proofs: Vec<BlockProof>,
    }

    /// How far blocks have come here. Counts are of blocks from 0: also the index of the next one.
    #[derive(Copy, Eq)]
    pub struct Progress {
        /// Blocks ordered.
        pub ordered: u64,
        /// Of those, executed here.
        pub executed: u64,
        /// Of those, final.
        pub finalised: u64,
    }

    /// An epoch begins with other members or rules than the one before, all of whose blocks are final here.
    pub struct EnterRequest {
        /// Which.
        pub epoch: u64,
        /// Its members.
        pub members: MemberSet,
        /// That the state names them after the last block.
        pub proof: KeyProof,
        /// What the state holds after it under [`RULES_KEY`](crate::rules::RULES_KEY), if anything.
        pub rules: KeyProof,
    }

    /// A final block whose state is here, taken from others.
    pub struct JumpRequest {
        /// The block, proven from the genesis on; the last one of its round.
        pub proof: BlockProof,
        /// The last nonces of all senders in that state.
        pub nonces: Vec<LastNonce>,
    }

    /// The last nonce that a sender has used.
    #[derive(Copy, Eq)]
    pub struct LastNonce {
        /// The sender.
        pub cell: CellId,
        /// Its nonce.
        pub nonce: u64,
    }

    /// Where the hashgraph stands in the journal.
    #[derive(Eq)]
    pub struct EpochView {
        /// The epoch.
        pub epoch: u64,
        /// The first block that it may fill.
        pub base: u64,
        /// The last round of it that filled a block.
        pub round: u64,
        /// How many events of it are recorded.
        pub events: u64,
        /// The journal entry of the first of them.
        pub entry: Option<u64>,
        /// How far blocks have come.
        pub progress: Progress,
        /// Its members.
        pub members: MemberSet,
        /// The version of the rules that its blocks are executed under.
        pub rules: u64,
        /// Whether this cell has diverged and is to go on from what the others have.
        pub rejoins: bool,
    }

    /// Asks where events are journaled.
    #[derive(Copy, Eq)]
    pub struct RecordedRequest {
        /// The epoch.
        pub epoch: u64,
        /// The event's number in it.
        pub number: u64,
    }

    /// Where an event is journaled.
    #[derive(Copy, Eq)]
    pub struct Recorded {
        /// The journal entry.
        pub entry: u64,
        /// Its place in that entry.
        pub place: u64,
    }

    /// A transaction that waits for its place.
    #[derive(Eq, minicbor::Encode, minicbor::Decode)]
    pub struct Waiting {
        /// The journal entry it was taken in with.
        #[n(0)]
        pub entry: u64,
        /// The transaction.
        #[n(1)]
        pub transaction: Transaction,
    }

    /// A member that has forked, with the proof.
    pub struct EvidenceView {
        /// Who.
        pub member: CellId,
        /// Two events that anybody can check who knows the members of their epoch.
        pub proof: ForkProof,
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
        /// The epoch of the hashgraph.
        pub epoch: u64,
        /// The version of the rules that its blocks are executed under.
        pub rules: u64,
        /// The last round of it that filled a block.
        pub round: u64,
        /// Why this cell's state is not the network's, if it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub diverged: Option<String>,
        /// Transactions that wait for their place.
        pub pending: u64,
    }

    /// How much of the graph.
    #[derive(Copy, Default, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct GraphRequest {
        /// The last so many rounds: 1 to 64, 8 unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub rounds: Option<u64>,
    }

    /// What is known of a witness's fame.
    #[derive(Copy, Eq)]
    #[serde(rename_all = "snake_case")]
    pub enum Fame {
        /// The votes that are known decide nothing yet.
        Undecided,
        /// Most members saw it early.
        Famous,
        /// They did not.
        NotFamous,
    }

    /// An event of the hashgraph with what is known of it here.
    #[derive(Eq)]
    pub struct GraphEvent {
        /// Its id.
        pub id: Hash,
        /// Who made it.
        pub creator: CellId,
        /// Its creator's event before it; none of the first one.
        pub self_parent: Option<Hash>,
        /// Events of others that it was made on.
        pub other_parents: Vec<Hash>,
        /// Its creator's clock, in microseconds since 1970 (UTC).
        pub time_us: u64,
        /// The round it was created in.
        pub round: u64,
        /// Whether it is a witness.
        pub witness: bool,
        /// A witness's fame.
        pub fame: Option<Fame>,
        /// Whether it is a judge of its round, which is decided.
        pub judge: bool,
        /// The round that has received it.
        pub received: Option<u64>,
        /// What it carries, in bytes; null if only the journal has it any more.
        pub bytes: Option<u64>,
        /// Whether transactions are in it; null if only the journal has it any more.
        pub transactions: Option<bool>,
    }

    /// A member as this cell sees it.
    #[derive(Eq)]
    pub struct MemberView {
        /// Who.
        pub cell: CellId,
        /// The name it has here.
        pub name: Option<String>,
        /// Its weight in votes.
        pub weight: u64,
        /// Whether it is connected; this cell is.
        pub connected: bool,
        /// The round in which its newest event was created.
        pub round: Option<u64>,
        /// Whether it is known to have forked.
        pub forked: bool,
    }

    /// The last rounds of the hashgraph, as far as they have come here.
    #[derive(Eq)]
    pub struct GraphView {
        /// The cell that tells.
        pub cell: CellId,
        /// The epoch.
        pub epoch: u64,
        /// The first round that is not decided.
        pub pending_round: u64,
        /// The members, in their order.
        pub members: Vec<MemberView>,
        /// Events, parents before children. None in a network of one, which needs no graph.
        pub events: Vec<GraphEvent>,
    }

    /// A checkpoint that is being taken from others.
    #[derive(Copy, Eq)]
    pub struct TakingView {
        /// Its block.
        pub block: BlockIndex,
        /// Keys that are here.
        pub keys: u64,
        /// Keys that it is said to have.
        pub of: u64,
    }

    /// All about consensus that an operator asks, as it is at this cell.
    #[derive(Eq)]
    pub struct GossipView {
        /// The network.
        pub genesis: GenesisHash,
        /// The cell that tells.
        pub cell: CellId,
        /// The epoch of the hashgraph.
        pub epoch: u64,
        /// Rounds of an epoch.
        pub epoch_rounds: u64,
        /// The first round that is not decided.
        pub pending_round: u64,
        /// How far blocks have come.
        pub blocks: Progress,
        /// The state root after the last executed block.
        pub root: StateRoot,
        /// Events of the epoch.
        pub events: u64,
        /// Those that no round has received.
        pub undetermined: u64,
        /// Events that wait for their parents.
        pub waiting: u64,
        /// Events that no honest member would have made.
        pub refused: u64,
        /// Transactions that wait for their place.
        pub pool: u64,
        /// Whether this cell and the members it is connected with are more than two thirds.
        pub quorum: bool,
        /// Their weight.
        pub weight_connected: u64,
        /// All weight.
        pub weight_total: u64,
        /// Whether this cell has heard enough from the others to take part.
        pub started: bool,
        /// Whether others know events of this cell that it does not have: its folder is a copy of an older one.
        pub rolled_back: bool,
        /// Why this cell's state is not the network's, if it is not.
        pub diverged: Option<String>,
        /// Why blocks do not advance here, if they do not.
        pub stuck: Option<String>,
        /// How many blocks others have, while this cell takes them over.
        pub target: Option<u64>,
        /// The checkpoint that this cell takes, while it does.
        pub checkpoint: Option<TakingView>,
        /// The members, in their order.
        pub members: Vec<MemberView>,
    }

    /// A value that the beacon has drawn.
    #[derive(Copy, Eq)]
    pub struct DrawView {
        /// The epoch.
        pub epoch: u64,
        /// Which draw of it, from 1.
        pub draw: u64,
        /// The round that has opened it; for who has the blocks alone, that of the block which tells it.
        pub round: u64,
        /// The value.
        pub value: Hash,
    }

    /// Asks for members.
    #[derive(Default, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct MembersRequest {
        /// At most so many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u32>,
        /// The "next" of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
        /// Those that ordered this block; of the present epoch unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub at: Option<BlockIndex>,
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

    /// A block that waits for its execution.
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
        /// Takes in transactions, each as if it came alone after those before it.
        AdmitAll admit_all(AdmitAllRequest) -> SubmittedAll, Command, Internal;
        /// Makes events of the hashgraph durable.
        Record record(RecordRequest) -> Empty, Command, Internal;
        /// Takes what decided rounds have received into blocks.
        Order order(OrderRequest) -> Progress, Command, Internal;
        /// Records what a block came to here, with this cell's word for it.
        Executed executed(ExecutedRequest) -> Progress, Command, Internal;
        /// Records what other members say of blocks.
        Attested attested(AttestedRequest) -> Progress, Command, Internal;
        /// Takes blocks over that are final elsewhere.
        Adopt adopt(AdoptRequest) -> Progress, Command, Internal;
        /// Goes on from a checkpoint.
        Jump jump(JumpRequest) -> Empty, Command, Internal;
        /// Lets a cell that has diverged go on from a checkpoint of the others.
        Rejoin rejoin(Empty) -> Empty, Command, Internal;
        /// Begins an epoch with other members.
        Enter enter(EnterRequest) -> Empty, Command, Internal;
        /// Records that a member has forked.
        Accuse accuse(ForkProof) -> Empty, Command, Internal;
        /// Blocks that are ordered and not executed here, oldest first; the first few.
        Open open(Empty) -> Page<OpenBlock>, Query, Internal;
        /// This cell's words for blocks that are not final yet.
        OwnWords own_words(Empty) -> Page<Attestation>, Query, Internal;
        /// Transactions that wait for their place, oldest first; the cursor is a journal entry.
        Waits waits(ListRequest) -> Page<Waiting>, Query, Internal;
        /// Where the hashgraph stands in the journal.
        GetEpoch epoch(Empty) -> EpochView, Query, Internal;
        /// Where an event is journaled.
        FindRecorded recorded(RecordedRequest) -> Recorded, Query, Internal;
        /// Members that have forked, with proofs that anybody can check.
        ListEvidence evidence(ListRequest) -> Page<EvidenceView>, Query, Read;
        /// What the beacon has drawn, newest first.
        Draws beacon(ListRequest) -> Page<DrawView>, Query, Read;
        /// The next free nonce of a sender.
        GetNextNonce next_nonce(NextNonceRequest) -> NextNonce, Query, Read;
        /// One transaction and how far it has come.
        Tx tx(TxRef) -> TxView, Query, Read;
        /// Transactions, newest first.
        Txs txs(ListRequest) -> Page<TxView>, Query, Read;
        /// That a transaction is in a final block, checkable offline.
        ProveTx prove(TxRef) -> TxProof, Query, Read;
        /// One block with its proof.
        GetBlock block(BlockRef) -> BlockAnswer, Query, Read;
        /// Blocks, newest first.
        Blocks blocks(ListRequest) -> Page<BlockView>, Query, Read;
        /// Where consensus stands.
        Status status(Empty) -> ConsensusStatus, Query, Read;
        /// The members and their weights, now or at a block.
        Members members(MembersRequest) -> Page<Member>, Query, Read;
    }
    front {
        /// Signs (if need be), checks and submits a transaction.
        Submit submit(SubmitRequest) -> TxView, Command, Write;
        /// Checks and submits transactions that were signed elsewhere, many at once; each has an outcome of its own.
        SubmitAll submit_all(SubmitAllRequest) -> SubmittedAll, Command, Write;
        /// The last rounds of the hashgraph: events, witnesses, fame.
        Graph graph(GraphRequest) -> GraphView, Query, Read;
        /// How consensus goes here: rounds, blocks, events, members, quorum.
        GetGossip gossip(Empty) -> GossipView, Query, Read;
    }
}
