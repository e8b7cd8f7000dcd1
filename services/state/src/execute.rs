//! Executing blocks through modules, in layers: the view, the block's writes, one transaction's writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use machine::module::{Change, Module, ModuleState, TxContext};
use machine::{Fault, Read};
use protocol::block::Block;
use protocol::genesis::Genesis;
use protocol::transaction::{Transaction, TxReceipt};
use protocol::{Problem, ProblemKind};

use crate::record::WriteSet;
use crate::tables::CURRENT;

type Layer = BTreeMap<String, Option<Vec<u8>>>;

/// One module's view of the state while a transaction runs.
struct Scratch<'a> {
    view: Option<&'a dyn Read>,
    block: &'a Layer,
    writes: &'a mut Layer,
    module: &'a str,
}

impl Scratch<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}/{key}", self.module)
    }
}

impl ModuleState for Scratch<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        let key = self.full(key);
        match self.writes.get(&key).or_else(|| self.block.get(&key)) {
            Some(value) => Ok(value.clone()),
            None => current(self.view, &key),
        }
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        let key = self.full(key);
        self.writes.insert(key, Some(value));
    }

    fn delete(&mut self, key: &str) {
        let key = self.full(key);
        self.writes.insert(key, None);
    }
}

fn current(view: Option<&dyn Read>, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    let Some(view) = view else { return Ok(None) };
    Ok(CURRENT.get(view, &key.to_owned())?.map(|(value, _)| value.into()))
}

/// The keys a network begins with.
pub(crate) fn genesis(genesis: &Genesis, modules: &[Arc<dyn Module>]) -> WriteSet {
    let mut writes = Layer::new();
    for module in modules {
        let nothing = Layer::new();
        let mut state = Scratch { view: None, block: &nothing, writes: &mut writes, module: module.name() };
        module.genesis(genesis, &mut state);
    }
    WriteSet(writes)
}

/// Executes a block: its writes, and a receipt for each transaction.
pub(crate) fn block(
    view: &dyn Read,
    modules: &[Arc<dyn Module>],
    block: &Block,
) -> Result<(WriteSet, Vec<TxReceipt>), Fault> {
    let mut writes = Layer::new();
    let mut receipts = Vec::with_capacity(block.transactions.len());
    for transaction in &block.transactions {
        let outcome = execute(view, modules, block, &writes, transaction)?;
        let (tx_writes, error) = match outcome {
            Ok(tx_writes) => (tx_writes, None),
            Err((tx_writes, problem)) => (tx_writes, Some(problem)),
        };
        writes.extend(tx_writes);
        receipts.push(TxReceipt { id: transaction.id(), ok: error.is_none(), error });
    }
    check_invariants(view, modules, &writes)?;
    Ok((WriteSet(writes), receipts))
}

type Executed = Result<Layer, (Layer, Problem)>;

fn execute(
    view: &dyn Read,
    modules: &[Arc<dyn Module>],
    block: &Block,
    written: &Layer,
    transaction: &Transaction,
) -> Result<Executed, Fault> {
    let mut nonces = Layer::new();
    let mut state = Scratch { view: Some(view), block: written, writes: &mut nonces, module: "nonce" };
    let sender = transaction.sender.to_string();
    let last = read_number(state.get(&sender)?)?;
    if transaction.nonce <= last {
        let problem = Problem::new(
            ProblemKind::Conflict,
            "state.nonce_used",
            format!("nonce {} is not above {last}, the last one of its sender", transaction.nonce),
        )
        .hint("sign it again with a higher nonce");
        return Ok(Err((Layer::new(), problem)));
    }
    state.put(&sender, transaction.nonce.to_string().into_bytes());
    let Some(module) = modules.iter().find(|module| module.name() == transaction.module) else {
        let problem = Problem::new(
            ProblemKind::NotFound,
            "state.unknown_module",
            format!("there is no module {:?}", transaction.module),
        );
        return Ok(Err((nonces, problem)));
    };
    let args = serde_json::from_str(&transaction.args).unwrap_or_default();
    let context = TxContext {
        genesis: block.header.genesis,
        sender: transaction.sender,
        time_ms: block.header.time_ms,
        index: block.header.index,
    };
    let mut writes = nonces.clone();
    let mut state = Scratch { view: Some(view), block: written, writes: &mut writes, module: module.name() };
    Ok(match module.execute(&context, &transaction.call, &args, &mut state)? {
        Ok(()) => Ok(writes),
        Err(problem) => Err((nonces, problem)),
    })
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
            let before = current(Some(view), key)?;
            changes.push(Change { key: key[prefix.len()..].to_owned(), before, after: after.clone() });
        }
        module.check_invariants(&changes).map_err(|broken| {
            Fault(format!("an invariant of the module {} is broken: {broken}", module.name()))
        })?;
    }
    Ok(())
}
