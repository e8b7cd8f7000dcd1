//! Executing blocks through modules, in layers: the view, the block's writes, a group's writes, one transaction's writes.
//!
//! Rules:
//!
//! - The result is that of one transaction after the other, in the block's order.
//! - Modules tell which keys a call may touch. Transactions of which that is known, as many as follow each other in the block, may be
//!   carried out in groups that have nothing in common (`groups`), each on its own layer, if the
//!   [`Workers`](crate::Workers) find it worth while. One of which it is not known is carried out alone, between them.
//! - A group sees the keys that its transactions declared, read before, and nothing else of the state. So what comes out cannot
//!   depend on when it runs.
//! - In a network with fees, a transaction pays before its call is carried out (`fees`). What was paid is put down once, when
//!   all of the block is done, so it is nothing that transactions have in common.
//! - Modules may write as a block begins, before its first transaction (`begin`): in networks that keep the members in force.
//! - A transaction whose call touches what it did not declare is refused, with or without other groups beside it.

use std::sync::Arc;

use machine::module::{Access, BlockContext, Change, Module, ModuleState, TxContext};
use machine::{Fault, Read};
use protocol::block::{Block, BlockHeader};
use protocol::genesis::Genesis;
use protocol::transaction::{Transaction, TxReceipt};
use protocol::{Amount, Problem, ProblemKind, TxId};
use serde_json::Value;

use crate::fees::{self, Fees};
use crate::groups::{self, Declared};
use crate::record::WriteSet;
use crate::scratch::{Below, Layer, Owner, Scratch, current};
use crate::term::Term;
use crate::workers::{Workers, each};
use crate::{Refusal, StateMachine};

/// The keys a network begins with.
pub(crate) fn genesis(genesis: &Genesis, modules: &[Arc<dyn Module>]) -> WriteSet {
    let (nothing, mut writes) = (Layer::new(), Layer::new());
    let below = Below { view: None, layers: [&nothing; 2] };
    for module in modules {
        module.genesis(genesis, &mut Scratch::new(below, &mut writes, module.name(), None));
    }
    fees::genesis(below, genesis, &mut writes);
    WriteSet(writes)
}

/// Executes a block by the modules of its rules: its writes, and a receipt for each transaction.
pub(crate) fn block(
    machine: &StateMachine,
    modules: &[Arc<dyn Module>],
    view: &dyn Read,
    block: &Block,
) -> Result<(WriteSet, Vec<TxReceipt>), Fault> {
    let fees = Fees::read(view, &machine.genesis, modules)?;
    let term = Term::read(view, &machine.genesis, &block.header)?;
    let rules = Rules { modules, fees, block };
    let calls = each(&*machine.workers, block.transactions.iter().collect(), |tx| rules.read(tx))?;
    let mut writes = open(&rules, view, term.as_ref())?;
    let mut receipts = Vec::with_capacity(calls.len());
    for stretch in calls.chunk_by(|one, next| one.declared.is_some() && next.declared.is_some()) {
        if stretch.len() > 1 && machine.workers.are_worth(stretch.len()) {
            receipts.extend(in_groups(&rules, &*machine.workers, view, &mut writes, stretch)?);
            continue;
        }
        for call in stretch {
            let nothing = Layer::new();
            let ran = rules.run(Below { view: Some(view), layers: [&writes, &nothing] }, call)?;
            writes.extend(ran.writes);
            receipts.push(ran.receipt);
        }
    }
    if let Some(fees) = fees {
        let nothing = Layer::new();
        let below = Below { view: Some(view), layers: [&writes, &nothing] };
        let closing = fees.close(below, block, &receipts, term.as_ref())?;
        writes.extend(closing);
    }
    check_invariants(view, modules, &writes)?;
    Ok((WriteSet(writes), receipts))
}

/// What a block writes before its first transaction is carried out.
fn open(rules: &Rules<'_>, view: &dyn Read, term: Option<&Term>) -> Result<Layer, Fault> {
    let (nothing, mut writes) = (Layer::new(), Layer::new());
    let below = Below { view: Some(view), layers: [&nothing; 2] };
    if let Some(fees) = &rules.fees {
        fees.open(below, term, &mut writes)?;
    }
    if let Some(term) = term {
        term.open(below, &mut writes);
        let BlockHeader { index, epoch, beacon, .. } = rules.block.header;
        let context = BlockContext { index, epoch, members: &term.members, beacon };
        for module in rules.modules {
            module.begin(&context, &mut Scratch::new(below, &mut writes, Owner::of(&**module), None))?;
        }
    }
    Ok(writes)
}

/// Carries out transactions of which it is known what they touch; gives their receipts, and adds what they write.
fn in_groups(
    rules: &Rules<'_>,
    workers: &dyn Workers,
    view: &dyn Read,
    writes: &mut Layer,
    calls: &[Call<'_>],
) -> Result<Vec<TxReceipt>, Fault> {
    let declared: Vec<&Declared> = calls.iter().filter_map(|call| call.declared.as_ref()).collect();
    let mut seen = Layer::new();
    for key in declared.iter().flat_map(|declared| declared.keys()) {
        if !seen.contains_key(key) {
            let value = match writes.get(key) {
                Some(value) => value.clone(),
                None => current(view, key)?,
            };
            seen.insert(key.to_owned(), value);
        }
    }
    let groups = each(workers, groups::split(&declared), |places| {
        let (mut layer, mut receipts) = (Layer::new(), Vec::with_capacity(places.len()));
        for place in places {
            let ran = rules.run(Below { view: None, layers: [&layer, &seen] }, &calls[place])?;
            layer.extend(ran.writes);
            receipts.push((place, ran.receipt));
        }
        Ok::<_, Fault>((layer, receipts))
    })?;
    let mut receipts = Vec::with_capacity(calls.len());
    for group in groups {
        let (layer, of_group) = group?;
        writes.extend(layer);
        receipts.extend(of_group);
    }
    receipts.sort_by_key(|(place, _)| *place);
    Ok(receipts.into_iter().map(|(_, receipt)| receipt).collect())
}

/// A transaction with its arguments read, and what it may touch, if that is known.
struct Call<'a> {
    transaction: &'a Transaction,
    id: TxId,
    /// Under which its sender's nonce stands.
    sender: String,
    module: Option<&'a dyn Module>,
    args: Value,
    declared: Option<Declared>,
}

/// What one transaction came to.
struct Ran {
    writes: Layer,
    receipt: TxReceipt,
}

/// What the transactions of a block are executed under.
struct Rules<'a> {
    modules: &'a [Arc<dyn Module>],
    fees: Option<Fees<'a>>,
    block: &'a Block,
}

impl<'a> Rules<'a> {
    fn context(&self, id: TxId, transaction: &Transaction) -> TxContext {
        let header = &self.block.header;
        TxContext {
            genesis: header.genesis,
            id,
            sender: transaction.sender,
            time_ms: header.time_ms,
            index: header.index,
            epoch: header.epoch,
            round: header.round,
            members: header.members,
        }
    }

    fn read(&self, transaction: &'a Transaction) -> Call<'a> {
        let module =
            self.modules.iter().find(|module| module.name() == transaction.module).map(|module| &**module);
        let args = serde_json::from_str(&transaction.args).unwrap_or_default();
        let id = transaction.id();
        let accesses = match module {
            Some(module) => module.access(&self.context(id, transaction), &transaction.call, &args),
            None => Some(Vec::new()),
        };
        let sender = transaction.sender.to_string();
        let declared = accesses.map(|accesses| {
            let mut declared = Declared::default();
            declared.add("nonce", &[Access::Write(sender.clone())]);
            if let Some((ledger, account)) = self.fees.as_ref().map(|fees| fees.account(transaction)) {
                declared.add(ledger, &[Access::Write(account)]);
            }
            declared.add(module.map_or(transaction.module.as_str().into(), Owner::of), &accesses);
            declared
        });
        Call { transaction, id, sender, module, args, declared }
    }

    fn run(&self, below: Below<'_>, call: &Call<'_>) -> Result<Ran, Fault> {
        let mut kept = Layer::new();
        let (writes, fee, error) = match self.enter(below, call, &mut kept)? {
            Err(problem) => (kept, None, Some(problem)),
            Ok(fee) => match self.execute(below, call, &kept)? {
                Ok(writes) => (writes, fee, None),
                Err(problem) => (kept, fee, Some(problem)),
            },
        };
        Ok(Ran { writes, receipt: TxReceipt { id: call.id, ok: error.is_none(), error, fee } })
    }

    /// What stands whatever becomes of the call: the nonce, and the fee, if one was due and paid.
    fn enter(
        &self,
        below: Below<'_>,
        call: &Call<'_>,
        kept: &mut Layer,
    ) -> Result<Result<Option<Amount>, Problem>, Fault> {
        let transaction = call.transaction;
        let mut nonces = Scratch::new(below, kept, "nonce", None);
        let last = read_number(nonces.get(&call.sender)?)?;
        if transaction.nonce <= last {
            let problem = Problem::new(
                ProblemKind::Conflict,
                "state.nonce_used",
                format!("nonce {} is not above {last}, the last one of its sender", transaction.nonce),
            )
            .hint("sign it again with a higher nonce");
            return Ok(Err(problem));
        }
        nonces.put(&call.sender, transaction.nonce.to_string().into_bytes());
        match &self.fees {
            Some(fees) => Ok(fees.charge(below, transaction, kept)?.map(Some)),
            None => Ok(Ok(None)),
        }
    }

    /// The call itself, above what is kept in any case; gives all that the transaction writes.
    fn execute(
        &self,
        below: Below<'_>,
        call: &Call<'_>,
        kept: &Layer,
    ) -> Result<Result<Layer, Problem>, Fault> {
        let transaction = call.transaction;
        let Some(module) = call.module else {
            return Ok(Err(Problem::new(
                ProblemKind::NotFound,
                "state.unknown_module",
                format!("there is no module {:?}", transaction.module),
            )));
        };
        let mut writes = kept.clone();
        let mut state = Scratch::new(below, &mut writes, Owner::of(module), call.declared.as_ref());
        let outcome =
            module.execute(&self.context(call.id, transaction), &transaction.call, &call.args, &mut state);
        // Whatever the module made of it: it has not seen what it asked for.
        if let Some(key) = state.undeclared() {
            return Ok(Err(Refusal::UndeclaredAccess { key: key.chars().take(80).collect() }.into()));
        }
        Ok(outcome?.map(|()| writes))
    }
}

/// A number kept as decimal text; 0 where there is none.
pub(crate) fn read_number(value: Option<Vec<u8>>) -> Result<u64, Fault> {
    let Some(value) = value else { return Ok(0) };
    let text = std::str::from_utf8(&value).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Fault("a nonce is no number".to_owned()))
}

fn check_invariants(view: &dyn Read, modules: &[Arc<dyn Module>], writes: &Layer) -> Result<(), Fault> {
    for module in modules {
        let prefix = format!("{}/", module.name());
        let mut changes = Vec::new();
        for (key, after) in writes.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
            let before = current(view, key)?;
            changes.push(Change { key: key[prefix.len()..].to_owned(), before, after: after.clone() });
        }
        module.check_invariants(&changes).map_err(|broken| {
            Fault(format!("an invariant of the module {} is broken: {broken}", module.name()))
        })?;
    }
    Ok(())
}
