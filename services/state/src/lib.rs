//! The State service: the replicated, versioned, provable key-value state. A pure machine.
//!
//! Rules:
//!
//! - It changes only by blocks, in order; a block's result is a write set, journaled, so a replay
//!   needs no module.
//! - A transaction that its module refuses changes nothing but its sender's nonce, and takes the fee where there is one (`fees`).
//! - Transactions that have nothing in common may be executed at the same time (`execute`), by [`Workers`] that are given;
//!   the result is that of one after the other.
//! - A block is executed by the modules of the version of the rules that its header names. One whose version this build lacks is refused as
//!   `state.upgrade_required`, and what was before can still be read (ADR 0022).
//! - After every block each module's invariants are checked; a broken one stops the service.
//! - Folding a write set has to give the journaled root, live and on replay; another one stops the
//!   service.
//! - The root is that of a Jellyfish Merkle tree (Gao, Hu, Wu 2021; the `jmt` crate) with SHA-256.
//!   Version 0 is the genesis, version i + 1 stands after block i.
//! - The state after a block can be read and proven until it is pruned, however many blocks follow it:
//!   looking back is a question, and changes nothing.
//! - A checkpoint replaces the state whole ([`checkpoint`], `reset`): what was before it is out of reach
//!   from one record to the next.
//!
//! Keys are `MODULE/KEY`. `nonce/DID` holds the last nonce of each sender, inside the tree; `fees/base` the base fee, where the network
//! has fees; `epoch/members` those who order blocks, where something depends on them and they are not the genesis's.
//!
//! Absent: the convergent contexts (a later issue); who attests a root, which Consensus knows.

pub mod checkpoint;
pub mod dataset;
pub mod elected;
mod execute;
mod fees;
mod generation;
mod groups;
pub mod kv;
mod light;
mod proof;
mod prune;
mod query;
mod record;
mod reset;
mod scratch;
mod tables;
mod term;
mod tree;
mod workers;

use std::sync::Arc;

use machine::module::RuleSets;
use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit, refuse};
use protocol::block::Block;
use protocol::genesis::Genesis;
use protocol::rules::FIRST;
use protocol::shared::Empty;
use protocol::state::{Answer, Applied, Request, Words};
use protocol::{Amount, BlockHash, BlockIndex, Event, StateRoot};
use serde_json::json;

pub use checkpoint::verify_chunk;
use generation::{Within, WithinMut};
pub use light::LightClient;
pub use proof::{verify_datasets, verify_key_proof, verify_key_proof_under, verify_state_proof};
pub use prune::PRUNE_ROWS_MAX;
pub use record::{Record, WriteSet};
use tables::{BASE, BLOCKS, CURRENT, HASHED, HEAD, HISTORY, Head, LIVE, NAMES, STALE, Stale, Superseded};
pub use tree::Memo;
pub use workers::{InTurn, Job, Workers};

protocol::refusals! {
    /// What State refuses.
    pub enum Refusal {
        NotInitialised => Unavailable, "state.not_initialised",
            ("the state has no genesis yet"), "start the cell again";
        Gap { index: u64, next: u64 } => Conflict, "state.gap",
            ("block {index} came, block {next} is next"), "apply the blocks in order";
        WrongNetwork => Invalid, "state.wrong_network",
            ("the block belongs to another network"), "apply blocks of this cell's network";
        WrongParent => Conflict, "state.wrong_parent",
            ("the block does not follow the last one that was applied"), "apply the blocks in order";
        BadBlock => Invalid, "state.bad_block",
            ("the transactions are not the ones the header commits to"), "fetch the block again";
        UnknownRules { rules: u64 } => Unavailable, "state.upgrade_required",
            ("the block is executed under rules version {rules}, which this build does not have"),
            "install a newer version and start the cell again: it goes on where it stands";
        FeeTooLow { fee: Amount, max_fee: Amount } => Invalid, "state.fee_too_low",
            ("the fee is {fee}, the sender pays {max_fee} at most"),
            "sign it again with a higher --max-fee, or for another lane; cell tx fees shows what they cost";
        UndeclaredAccess { key: String } => Invalid, "state.undeclared_access",
            ("the call touches the key {key:?}, which its module does not name for such a call"),
            "a fault of the module: tell its author";
        BadKey { key: String } => Invalid, "state.bad_key",
            ("{key:?} is not a key"), "a key is MODULE/KEY, as in kv/colour; at most 512 bytes";
        NoSuchBlock { index: u64 } => NotFound, "state.no_such_block",
            ("block {index} has not been applied here"), "cell state root shows the newest one";
        NoBlocks => NotFound, "state.no_blocks",
            ("no block has been applied yet"), "submit a transaction: cell tx submit";
        BadCursor => Invalid, "state.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
        Pruned { oldest: u64 } => NotFound, "state.pruned",
            ("older states are no longer kept here; the oldest one stands after block {oldest}"),
            "ask for a newer one, or a cell that keeps more";
        KeepsNothing => Invalid, "state.keeps_nothing",
            ("the newest state cannot be given up"), "keep_blocks is at least 1";
        NoReset => Conflict, "state.no_reset",
            ("no reset is under way"), "begin one: state.reset";
        Resetting { index: u64 } => Unavailable, "state.resetting",
            ("the state is being replaced by the one after block {index}"), "bring the chunks that are missing: state.reset says which is next";
        OtherChunk => Conflict, "state.other_chunk",
            ("another chunk is next"), "state.reset says which";
        BadChunk { why: &'static str } => Invalid, "state.bad_chunk",
            ("the chunk does not hold: {why}"), "fetch it from another cell";
        BadProof { why: &'static str } => Invalid, "state.bad_proof",
            ("the proof does not hold: {why}"), "make it again: cell state prove KEY";
    }
}

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The State machine of one network.
#[derive(Clone)]
pub struct StateMachine {
    /// The network.
    pub genesis: Arc<Genesis>,
    /// The versions of the rules that this build has, with their modules.
    pub rules: RuleSets,
    /// Who executes transactions that have nothing in common.
    pub workers: Arc<dyn Workers>,
    /// What was computed and read for the last blocks, so that it is not again.
    pub memo: Memo,
}

type Decided = Result<DecisionOf<StateMachine>, Fault>;

impl Machine for StateMachine {
    type Words = Words;
    type Record = Record;
    type Effect = std::convert::Infallible;

    fn decide(&self, view: &dyn Read, _: &Context, request: Request) -> Decided {
        let state = &Within(view, live(view)?);
        match (request, head(state)?) {
            (Request::Reset(checkpoint), _) => reset::begin(view, checkpoint),
            (Request::ResetChunk(asked), _) => reset::chunk(view, asked),
            (Request::Initialise(Empty {}), None) => {
                commit(vec![self.genesis_record()?], Answer::Initialise(Empty {}))
            }
            (_, None) => refuse(Refusal::NotInitialised),
            (Request::Initialise(Empty {}), Some(_)) => answer(Answer::Initialise(Empty {})),
            (Request::Apply(asked), Some(head)) => match reset::under_way(view)? {
                Some(refusal) => refuse(refusal),
                None => self.apply_block(state, &head, &asked.block),
            },
            (Request::Prune(asked), Some(head)) => match reset::under_way(view)? {
                Some(refusal) => refuse(refusal),
                None => prune::decide(view, &head, asked),
            },
            (Request::Get(asked), Some(head)) => query::get(state, &head, &asked),
            (Request::List(asked), Some(head)) => query::list(state, &head, &asked),
            (Request::Datasets(asked), Some(head)) => dataset::list(state, &head, &asked),
            (Request::History(asked), Some(head)) => query::history(state, &head, &asked),
            (Request::Root(asked), Some(head)) => query::root(state, &head, asked.at),
            (Request::ProveKey(asked), Some(head)) => query::prove(state, &head, &asked),
            (Request::Nonce(asked), Some(_)) => query::nonce(state, &asked.cell),
            (Request::GetFees(Empty {}), Some(head)) => fees::show(state, &head, &self.genesis),
            (Request::Head(Empty {}), Some(head)) => query::newest(state, &head),
            (Request::GetCheckpoint(asked), Some(head)) => checkpoint::checkpoint(state, &head, &asked),
            (Request::GetChunk(asked), Some(head)) => checkpoint::chunk(state, &head, &asked),
        }
    }

    fn apply(&self, view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Self::Effect>, Fault> {
        match record {
            Record::Genesis { writes, root } => {
                let live = live(view)?;
                fold(&self.memo, &mut WithinMut(view, live), 0, writes, root)?;
            }
            Record::Applied { applied, hash, writes } => {
                let live = live(view)?;
                let state = &mut WithinMut(view, live);
                fold(&self.memo, state, applied.index.0 + 1, writes, &applied.root)?;
                BLOCKS.put(state, &applied.index.0, &(applied.clone(), *hash));
            }
            Record::ResetBegun { generation, checkpoint } => {
                self.memo.forget();
                reset::begun(view, at, *generation, checkpoint)?;
            }
            Record::ResetChunk { writes, through } => reset::grow(view, writes, *through)?,
            Record::ResetEnded { checkpoint, .. } => {
                self.memo.forget();
                reset::ended(view, checkpoint)?;
            }
            Record::Pruned { oldest, rows_max } => drop(prune::prune(view, *oldest, *rows_max)?),
        }
        Ok(Vec::new())
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        let (event, data) = match record {
            Record::Applied { applied, .. } => (
                "state.applied",
                json!({ "index": applied.index, "root": applied.root, "transactions": applied.receipts.len() }),
            ),
            Record::ResetEnded { checkpoint, .. } => {
                ("state.reset", json!({ "index": checkpoint.index, "root": checkpoint.root }))
            }
            Record::Genesis { .. }
            | Record::ResetBegun { .. }
            | Record::ResetChunk { .. }
            | Record::Pruned { .. } => return Vec::new(),
        };
        let (service, index, time_ms) = (protocol::Service::State, at.index, at.time_ms);
        vec![Event { event: event.to_owned(), service, index, time_ms, data }]
    }

    fn owed(&self, _: &dyn Read) -> Result<Vec<Owed<Self::Effect>>, Fault> {
        Ok(Vec::new())
    }
}

impl StateMachine {
    /// The machine of a network, that executes one transaction after the other.
    pub fn new(genesis: Arc<Genesis>, rules: RuleSets) -> Self {
        Self { genesis, rules, workers: Arc::new(InTurn), memo: Memo::default() }
    }

    /// The record that a new network's State journal begins with.
    fn genesis_record(&self) -> Result<Record, Fault> {
        let empty = machine::MemoryStore::default();
        // Every build has the first version.
        let modules = self.rules.modules(FIRST).unwrap_or_default();
        let writes = execute::genesis(&self.genesis, modules);
        let root = tree::root_after(&empty, 0, &writes)?.0;
        Ok(Record::Genesis { writes, root })
    }

    fn apply_block(&self, view: &dyn Read, head: &Head, block: &Block) -> Decided {
        let header = &block.header;
        let index = header.index.0;
        if let Some((applied, hash)) = BLOCKS.get(view, &index)? {
            return if hash == header.hash() {
                answer(Answer::Apply(applied))
            } else {
                refuse(Refusal::WrongParent)
            };
        }
        if header.genesis != self.genesis.hash() {
            return refuse(Refusal::WrongNetwork);
        }
        let Some(modules) = self.rules.modules(header.rules) else {
            return refuse(Refusal::UnknownRules { rules: header.rules });
        };
        if index < head.version {
            return refuse(head.pruned());
        }
        if index > head.version {
            return refuse(Refusal::Gap { index, next: head.version });
        }
        let parent = match head.last_block() {
            Some(last) => block_at(view, BlockIndex(last))?.map(|(_, hash)| hash),
            None => Some(BlockHash::ZERO),
        };
        if parent != Some(header.previous) {
            return refuse(Refusal::WrongParent);
        }
        if Block::transactions_root(&block.transactions) != header.transactions_root {
            return refuse(Refusal::BadBlock);
        }
        let (writes, receipts) = execute::block(self, modules, view, block)?;
        let root = self.memo.decide(view, &head.root, index + 1, &writes)?;
        let applied = Applied { index: BlockIndex(index), root, receipts };
        let record = Record::Applied { applied: applied.clone(), hash: header.hash(), writes };
        commit(vec![record], Answer::Apply(applied))
    }
}

/// Which generation is the live one.
fn live(view: &dyn Read) -> Result<u32, Fault> {
    Ok(LIVE.get(view, &())?.unwrap_or_default())
}

/// Where a generation stands, if it stands anywhere.
fn head(state: &dyn Read) -> Result<Option<Head>, Fault> {
    HEAD.get(state, &()).map_err(|fault| {
        Fault(format!("{}; if an older build made the view, cell rebuild makes it anew", fault.0))
    })
}

/// Root and hash of a block that was applied, or that the state began with.
fn block_at(state: &dyn Read, index: BlockIndex) -> Result<Option<(StateRoot, BlockHash)>, Fault> {
    if let Some((applied, hash)) = BLOCKS.get(state, &index.0)? {
        return Ok(Some((applied.root, hash)));
    }
    let base = BASE.get(state, &())?.filter(|base| base.index == index);
    Ok(base.map(|base| (base.root, base.block)))
}

/// Folds a write set into tree, history and current values; the root has to come out as journaled.
fn fold(
    memo: &Memo,
    view: &mut dyn Write,
    version: u64,
    writes: &WriteSet,
    expected: &StateRoot,
) -> Result<(), Fault> {
    let batch = match memo.take(version, expected) {
        Some(batch) => batch,
        None => {
            let (root, batch) = tree::root_after(view, version, writes)?;
            if root != *expected {
                return Err(Fault(format!(
                    "version {version} folds to root {root}, journaled was {expected}"
                )));
            }
            batch
        }
    };
    tree::store(view, &batch.node_batch)?;
    let nodes = tree::stale_nodes(version, &batch.stale_node_index_batch)?;
    let mut stale = Stale { nodes, keys: Vec::new() };
    for (key, value) in &writes.0 {
        let hash = tree::key_hash(key);
        let previous = CURRENT.get(view, key)?.map(|(_, version)| version);
        HISTORY.put(view, &(hash, u64::MAX - version), &value.clone().map(Into::into));
        if previous.is_some() || value.is_none() {
            stale.keys.push(Superseded { key: hash, previous, gone: value.is_none() });
        }
        let Some(value) = value else {
            CURRENT.delete(view, key);
            continue;
        };
        if previous.is_none() {
            NAMES.put(view, key, &());
            HASHED.put(view, &hash, key);
        }
        CURRENT.put(view, key, &(value.clone().into(), version));
    }
    if stale != Stale::default() {
        STALE.put(view, &version, &stale);
    }
    let oldest = head(view)?.map_or(version, |head| head.oldest);
    HEAD.put(view, &(), &Head { version, root: *expected, oldest });
    Ok(())
}
