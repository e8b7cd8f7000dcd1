//! The State service: the replicated, versioned, provable key-value state. A pure machine.
//!
//! Rules:
//!
//! - It changes only by blocks, in order; a block's result is a write set, journaled, so a replay
//!   needs no module.
//! - A transaction that its module refuses changes nothing but its sender's nonce.
//! - After every block each module's invariants are checked; a broken one stops the service.
//! - Folding a write set has to give the journaled root, live and on replay; another one stops the
//!   service.
//! - The root is that of a Jellyfish Merkle tree (Gao, Hu, Wu 2021; the `jmt` crate) with SHA-256.
//!   Version 0 is the genesis, version i + 1 stands after block i.
//! - The state after a block can be read, listed and proven however many blocks follow it: looking back is a
//!   question, and changes nothing.
//!
//! Keys are `MODULE/KEY`. `nonce/DID` holds the last nonce of each sender, inside the tree.
//!
//! Absent: pruning of old versions (every version stays readable and provable), checkpoints and resets,
//! the convergent contexts (later issues).

pub mod dataset;
mod execute;
pub mod kv;
mod proof;
mod query;
mod record;
mod tables;
mod tree;

use std::sync::Arc;

use machine::module::Module;
use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit, refuse};
use protocol::block::{Block, RULES_VERSION};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{Answer, Applied, Request, Words};
use protocol::{BlockHash, BlockIndex, Event, StateRoot};
use serde_json::json;

pub use proof::{verify_key_proof, verify_key_proof_under, verify_state_proof};
pub use record::{Record, WriteSet};
use tables::{BLOCKS, CURRENT, HEAD, HISTORY, Head, NAMES};

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
            ("the block is executed under rules version {rules}, which this build does not have"), "install a newer version";
        BadKey { key: String } => Invalid, "state.bad_key",
            ("{key:?} is not a key"), "a key is MODULE/KEY, as in kv/colour; at most 512 bytes";
        NoSuchBlock { index: u64 } => NotFound, "state.no_such_block",
            ("block {index} has not been applied here"), "cell state root shows the newest one";
        NoBlocks => NotFound, "state.no_blocks",
            ("no block has been applied yet"), "submit a transaction: cell tx submit";
        BadCursor => Invalid, "state.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
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
    /// The modules of the rules in force.
    pub modules: Arc<[Arc<dyn Module>]>,
}

type Decided = Result<DecisionOf<StateMachine>, Fault>;

impl Machine for StateMachine {
    type Words = Words;
    type Record = Record;
    type Effect = std::convert::Infallible;

    fn decide(&self, view: &dyn Read, _: &Context, request: Request) -> Decided {
        let Some(head) = HEAD.get(view, &())? else {
            return match request {
                Request::Initialise(Empty {}) => {
                    commit(vec![self.genesis_record()?], Answer::Initialise(Empty {}))
                }
                _ => refuse(Refusal::NotInitialised),
            };
        };
        match request {
            Request::Initialise(Empty {}) => answer(Answer::Initialise(Empty {})),
            Request::Apply(asked) => self.apply_block(view, &head, &asked.block),
            Request::Get(asked) => query::get(view, &head, &asked),
            Request::List(asked) => query::list(view, &head, &asked),
            Request::Datasets(asked) => dataset::list(view, &head, &asked),
            Request::History(asked) => query::history(view, &asked),
            Request::Root(asked) => query::root(view, &head, asked.at),
            Request::ProveKey(asked) => query::prove(view, &head, &asked),
            Request::Nonce(asked) => query::nonce(view, &asked.cell),
            Request::Head(Empty {}) => match head.last_block() {
                Some(index) => match BLOCKS.get(view, &index)? {
                    Some((applied, _)) => answer(Answer::Head(applied)),
                    None => refuse(Refusal::NoBlocks),
                },
                None => refuse(Refusal::NoBlocks),
            },
        }
    }

    fn apply(&self, view: &mut dyn Write, _: At, record: &Record) -> Result<Vec<Self::Effect>, Fault> {
        match record {
            Record::Genesis { writes, root } => fold(view, 0, writes, root)?,
            Record::Applied { applied, hash, writes } => {
                fold(view, applied.index.0 + 1, writes, &applied.root)?;
                BLOCKS.put(view, &applied.index.0, &(applied.clone(), *hash));
            }
        }
        Ok(Vec::new())
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        match record {
            Record::Genesis { .. } => Vec::new(),
            Record::Applied { applied, .. } => vec![Event {
                event: "state.applied".to_owned(),
                service: protocol::Service::State,
                index: at.index,
                time_ms: at.time_ms,
                data: json!({ "index": applied.index, "root": applied.root, "transactions": applied.receipts.len() }),
            }],
        }
    }

    fn owed(&self, _: &dyn Read) -> Result<Vec<Owed<Self::Effect>>, Fault> {
        Ok(Vec::new())
    }
}

impl StateMachine {
    /// The record that a new network's State journal begins with.
    fn genesis_record(&self) -> Result<Record, Fault> {
        let empty = machine::MemoryStore::default();
        let writes = execute::genesis(&self.genesis, &self.modules);
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
        if header.rules != RULES_VERSION {
            return refuse(Refusal::UnknownRules { rules: header.rules });
        }
        if index != head.version {
            return refuse(Refusal::Gap { index, next: head.version });
        }
        let parent = match head.last_block() {
            Some(last) => BLOCKS.get(view, &last)?.map(|(_, hash)| hash),
            None => Some(BlockHash::ZERO),
        };
        if parent != Some(header.previous) {
            return refuse(Refusal::WrongParent);
        }
        if Block::transactions_root(&block.transactions) != header.transactions_root {
            return refuse(Refusal::BadBlock);
        }
        let (writes, receipts) = execute::block(view, &self.modules, block)?;
        let (root, _) = tree::root_after(view, index + 1, &writes)?;
        let applied = Applied { index: BlockIndex(index), root, receipts };
        let record = Record::Applied { applied: applied.clone(), hash: header.hash(), writes };
        commit(vec![record], Answer::Apply(applied))
    }
}

/// Folds a write set into tree, history and current values; the root has to come out as journaled.
fn fold(view: &mut dyn Write, version: u64, writes: &WriteSet, expected: &StateRoot) -> Result<(), Fault> {
    let (root, nodes) = tree::root_after(view, version, writes)?;
    if root != *expected {
        return Err(Fault(format!("version {version} folds to root {root}, journaled was {expected}")));
    }
    tree::store(view, nodes)?;
    for (key, value) in &writes.0 {
        HISTORY.put(view, &(tree::key_hash(key), u64::MAX - version), &value.clone().map(Into::into));
        let Some(value) = value else {
            CURRENT.delete(view, key);
            continue;
        };
        if CURRENT.get(view, key)?.is_none() {
            NAMES.put(view, key, &());
        }
        CURRENT.put(view, key, &(value.clone().into(), version));
    }
    HEAD.put(view, &(), &Head { version, root });
    Ok(())
}
