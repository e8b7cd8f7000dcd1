//! Taking transactions in.

use std::sync::Arc;

use machine::{At, Read, Write, answer, commit, refuse};
use protocol::Problem;
use protocol::consensus::{Answer, TxLife, TxStatus, TxView, Waiting};
use protocol::fees::due;
use protocol::transaction::{ARGS_BYTES_MAX, NAME_BYTES_MAX, Transaction};

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
    if let Err(problem) = check(machine, &transaction) {
        return refuse(problem);
    }
    let last = NONCES.get(view, &transaction.sender)?.unwrap_or(0);
    if transaction.nonce <= last {
        return refuse(Refusal::NonceUsed { nonce: transaction.nonce, last });
    }
    let head = Head::read(view)?;
    if let Some(index) = head.diverged {
        return refuse(Refusal::Diverged { index });
    }
    if head.waiting >= WAITING_MAX {
        return refuse(Refusal::Full);
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

/// What a transaction has to be, whoever brings it. A function of the transaction and of the rules in force alone, so that all members
/// say the same.
pub(crate) fn check(machine: &ConsensusMachine, transaction: &Transaction) -> Result<(), Problem> {
    if transaction.genesis != machine.genesis.hash() {
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
    if let (Some(rules), Some(max_fee)) = (&machine.genesis.fees, transaction.max_fee) {
        // What it costs when it is executed nobody knows yet; never less than this.
        let fee_min = due(rules.base_min, transaction.lane(), transaction.units());
        if max_fee < fee_min {
            return Err(Refusal::FeeTooLow { max_fee, fee_min }.into());
        }
    }
    let args = serde_json::from_str(&transaction.args)
        .map_err(|_| Refusal::BadShape { why: "the arguments are not JSON" })?;
    let Some(module) = machine.modules.iter().find(|module| module.name() == transaction.module) else {
        return Err(Refusal::UnknownModule { module: transaction.module.clone() }.into());
    };
    module.check(&transaction.call, &args)
}

pub(crate) fn take_in(view: &mut dyn Write, head: &mut Head, at: At, transaction: &Transaction) -> Effect {
    let id = transaction.id();
    TXS.put(
        view,
        &id,
        &TxRow { transaction: transaction.clone(), index: at.index, time_ms: Some(at.time_ms) },
    );
    BY_INDEX.put(view, &(at.index, 0), &id);
    WAITING.put(view, &at.index, &id);
    NONCES.put(view, &transaction.sender, &transaction.nonce);
    head.waiting += 1;
    Effect::Say(Arc::new(Waiting { entry: at.index, transaction: transaction.clone() }))
}
