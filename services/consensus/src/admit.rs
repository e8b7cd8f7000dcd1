//! Taking transactions in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use machine::module::Module;
use machine::{At, Fault, Read, Write, answer, commit, refuse};
use protocol::consensus::{Answer, Submitted, SubmittedAll, TxLife, TxStatus, TxView, Waiting};
use protocol::fees::due;
use protocol::genesis::Genesis;
use protocol::transaction::{ARGS_BYTES_MAX, NAME_BYTES_MAX, Transaction};
use protocol::{CellId, GenesisHash, Problem, TxId};

use crate::tables::{BY_INDEX, Head, NONCES, TXS, TxRow, WAITING};
use crate::{ConsensusMachine, Decided, Effect, Record, Refusal, query};

/// The highest nonce: the one after it still fits its type.
const NONCE_MAX: u64 = u64::MAX / 2;
/// The most transactions that wait for their place.
pub const WAITING_MAX: u64 = 10_000;

pub(crate) fn admit(
    machine: &ConsensusMachine,
    view: &dyn Read,
    now_ms: u64,
    transaction: Transaction,
) -> Decided {
    let id = transaction.id();
    if let Some(row) = TXS.get(view, &id)? {
        return answer(Answer::Admit(query::view_of(view, id, row)?));
    }
    if let Err(problem) = Door::new(machine, view)?.open(view, &transaction)? {
        return refuse(problem);
    }
    let accepted = TxView {
        id,
        status: TxStatus::Accepted,
        block: None,
        root: None,
        problem: None,
        fee: None,
        life: TxLife { accepted_ms: Some(now_ms), ..TxLife::default() },
        transaction: transaction.clone(),
    };
    commit(vec![Record::Accepted { transaction }], Answer::Admit(accepted))
}

pub(crate) fn admit_all(
    machine: &ConsensusMachine,
    view: &dyn Read,
    transactions: Vec<Transaction>,
) -> Decided {
    let mut door = Door::new(machine, view)?;
    let mut items: Vec<Submitted> = Vec::with_capacity(transactions.len());
    let (mut records, mut taken) = (Vec::new(), BTreeSet::new());
    for transaction in transactions {
        let id = transaction.id();
        let known = TXS.get(view, &id)?.map(|row| query::view_of(view, id, row)).transpose()?;
        items.push(match known {
            Some(TxView { status, block, problem, .. }) => {
                Submitted { id, status: Some(status), block, problem }
            }
            None if taken.contains(&id) => accepted(id),
            None => match door.open(view, &transaction)? {
                Ok(()) => {
                    taken.insert(id);
                    records.push(Record::Accepted { transaction });
                    accepted(id)
                }
                Err(problem) => Submitted { id, status: None, block: None, problem: Some(problem) },
            },
        });
    }
    let answered = Answer::AdmitAll(SubmittedAll { items });
    if records.is_empty() { answer(answered) } else { commit(records, answered) }
}

const fn accepted(id: TxId) -> Submitted {
    Submitted { id, status: Some(TxStatus::Accepted), block: None, problem: None }
}

/// What stands between a new transaction and those that wait, with what has come in by the same request.
struct Door<'a> {
    head: Head,
    terms: Result<Terms<'a>, Problem>,
    nonces: BTreeMap<CellId, u64>,
}

impl<'a> Door<'a> {
    fn new(machine: &'a ConsensusMachine, view: &dyn Read) -> Result<Self, Fault> {
        let head = Head::read(view)?;
        let terms = Terms::of(machine, &head).map_err(Problem::from);
        Ok(Self { head, terms, nonces: BTreeMap::new() })
    }

    fn open(&mut self, view: &dyn Read, transaction: &Transaction) -> Result<Result<(), Problem>, Fault> {
        let checked = self.terms.as_ref().map_err(Clone::clone).and_then(|terms| terms.check(transaction));
        if let Err(problem) = checked {
            return Ok(Err(problem));
        }
        let Transaction { sender, nonce, .. } = *transaction;
        let last = match self.nonces.get(&sender) {
            Some(last) => *last,
            None => NONCES.get(view, &sender)?.unwrap_or(0),
        };
        if nonce <= last {
            return Ok(Err(Refusal::NonceUsed { nonce, last }.into()));
        }
        if let Some(index) = self.head.diverged {
            return Ok(Err(Refusal::Diverged { index }.into()));
        }
        if self.head.waiting >= WAITING_MAX {
            return Ok(Err(Refusal::Full.into()));
        }
        self.head.waiting += 1;
        self.nonces.insert(sender, nonce);
        Ok(Ok(()))
    }
}

/// What a transaction has to be, whoever brings it. A function of the transaction and of the rules in force alone, so that all members
/// say the same.
pub(crate) struct Terms<'a> {
    genesis: &'a Genesis,
    network: GenesisHash,
    modules: &'a [Arc<dyn Module>],
}

impl<'a> Terms<'a> {
    /// Those of the present epoch, if this build has its rules.
    pub(crate) fn of(machine: &'a ConsensusMachine, head: &Head) -> Result<Self, Refusal> {
        let modules = machine.modules(head)?;
        Ok(Self { genesis: &machine.genesis, network: machine.genesis.hash(), modules })
    }

    pub(crate) fn check(&self, transaction: &Transaction) -> Result<(), Problem> {
        if transaction.genesis != self.network {
            return Err(Refusal::WrongNetwork.into());
        }
        if transaction.module.len() > NAME_BYTES_MAX || transaction.call.len() > NAME_BYTES_MAX {
            return Err(Refusal::BadShape { why: "a name is longer than 64 bytes" }.into());
        }
        if transaction.args.len() > ARGS_BYTES_MAX {
            return Err(Refusal::BadShape { why: "the arguments are longer than 256 KiB" }.into());
        }
        if transaction.nonce > NONCE_MAX {
            return Err(Refusal::BadShape { why: "the nonce is above 2^63 - 1" }.into());
        }
        if let (Some(rules), Some(max_fee)) = (&self.genesis.fees, transaction.max_fee) {
            // What it costs when it is executed nobody knows yet; never less than this.
            let fee_min = due(rules.base_min, transaction.lane(), transaction.units());
            if max_fee < fee_min {
                return Err(Refusal::FeeTooLow { max_fee, fee_min }.into());
            }
        }
        let args = serde_json::from_str(&transaction.args)
            .map_err(|_| Refusal::BadShape { why: "the arguments are not JSON" })?;
        let Some(module) = self.modules.iter().find(|module| module.name() == transaction.module) else {
            return Err(Refusal::UnknownModule { module: transaction.module.clone() }.into());
        };
        module.check(&transaction.call, &args)
    }
}

pub(crate) fn take_in(view: &mut dyn Write, head: &mut Head, at: At, transaction: &Transaction) -> Effect {
    let id = transaction.id();
    TXS.put(
        view,
        &id,
        &TxRow { transaction: transaction.clone(), index: at.index, time_ms: Some(at.time_ms) },
    );
    BY_INDEX.put(view, &at.index, &vec![id]);
    WAITING.put(view, &at.index, &id);
    NONCES.put(view, &transaction.sender, &transaction.nonce);
    head.waiting += 1;
    Effect::Say(Arc::new(Waiting { entry: at.index, transaction: transaction.clone() }))
}
