//! Fees as blocks are executed: what is due, who pays, and what the next block's base fee is.
//!
//! Rules (what they come to in numbers: [`protocol::fees`]):
//!
//! - The base fee stands under `fees/base`, in atoms; a block's transactions pay by the one that stood before it.
//! - A fee is taken before the call, and is kept whatever becomes of it. A sender who cannot pay, or does not want to pay so much, pays
//!   nothing, and the call is not carried out; the nonce is used.
//! - What is taken is put into the ledger's account of fees once, at the end of the block.
//! - Where the genesis says after how many blocks, that account is then shared among the members who ordered the block (`term`). Where others
//!   take over, those before them are given theirs first, before anything of the new ones' first block is carried out.

use std::sync::Arc;

use machine::module::{Access, Ledger, Module, ModuleState};
use machine::{Fault, Read};
use protocol::block::Block;
use protocol::fees::{FeeRules, TRANSACTION_UNITS, due};
use protocol::genesis::Genesis;
use protocol::state::{Answer, FeesAnswer, LaneFee};
use protocol::transaction::{Lane, Transaction, TxReceipt};
use protocol::{Amount, BlockIndex, Problem};

use crate::groups::Declared;
use crate::scratch::{Below, Layer, Scratch, current};
use crate::tables::Head;
use crate::term::Term;
use crate::{Decided, Refusal};

/// The keys of fees, as if they were a module's.
const NAME: &str = "fees";
const BASE: &str = "base";

/// What a block's transactions pay, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Fees<'a> {
    rules: &'a FeeRules,
    base: Amount,
    ledger: &'a dyn Ledger,
}

impl<'a> Fees<'a> {
    /// The fees that the next block is executed under, if the network has any.
    pub(crate) fn read(
        view: &dyn Read,
        genesis: &'a Genesis,
        modules: &'a [Arc<dyn Module>],
    ) -> Result<Option<Self>, Fault> {
        let Some(rules) = &genesis.fees else { return Ok(None) };
        let ledger = modules.iter().find_map(|module| module.ledger());
        let ledger =
            ledger.ok_or_else(|| Fault("the network has fees, and no module is a ledger".to_owned()))?;
        Ok(Some(Self { rules, base: base(view, rules)?, ledger }))
    }

    /// The ledger's name, and the key of a sender's account in it.
    pub(crate) fn account(&self, transaction: &Transaction) -> (&str, String) {
        (self.ledger.name(), self.ledger.account(&transaction.sender))
    }

    /// Takes what is due; gives how much it was. `kept` has the change.
    pub(crate) fn charge(
        &self,
        below: Below<'_>,
        transaction: &Transaction,
        kept: &mut Layer,
    ) -> Result<Result<Amount, Problem>, Fault> {
        let fee = due(self.base, transaction.lane(), transaction.units());
        if let Some(max_fee) = transaction.max_fee.filter(|max_fee| *max_fee < fee) {
            return Ok(Err(Refusal::FeeTooLow { fee, max_fee }.into()));
        }
        // The account alone, so that two senders' fees have nothing in common.
        let mut account = Declared::default();
        account.add(self.ledger.name(), &[Access::Write(self.ledger.account(&transaction.sender))]);
        let mut accounts = Scratch::new(below, kept, self.ledger.name(), Some(&account));
        let outcome = self.ledger.charge(&transaction.sender, fee, &mut accounts);
        match accounts.undeclared() {
            Some(key) => Err(Fault(format!("the ledger touches {key} for a fee, and no account"))),
            None => Ok(outcome?.map(|()| fee)),
        }
    }

    /// What the beginning of a block writes: the shares of the members before, where others take over with it.
    pub(crate) fn open(
        &self,
        below: Below<'_>,
        term: Option<&Term>,
        writes: &mut Layer,
    ) -> Result<(), Fault> {
        match term.and_then(|term| term.before.as_ref()) {
            Some(before) if self.rules.share_blocks.is_some() => {
                self.ledger.share(before, &mut Scratch::new(below, writes, self.ledger.name(), None))
            }
            _ => Ok(()),
        }
    }

    /// What the end of a block writes: the fees that were taken, the members' shares if they are due, and the next base fee.
    pub(crate) fn close(
        &self,
        below: Below<'_>,
        block: &Block,
        receipts: &[TxReceipt],
        term: Option<&Term>,
    ) -> Result<Layer, Fault> {
        let mut writes = Layer::new();
        let taken = receipts
            .iter()
            .filter_map(|receipt| receipt.fee)
            .try_fold(Amount::ZERO, Amount::checked_add)
            .ok_or_else(|| Fault("the fees overflow".to_owned()))?;
        if taken > Amount::ZERO {
            let mut accounts = Scratch::new(below, &mut writes, self.ledger.name(), None);
            self.ledger.collect(taken, &mut accounts)?;
        }
        if let Some(term) = term.filter(|_| self.rules.is_share_due(block.header.index)) {
            let mut accounts = Scratch::new(below, &mut writes, self.ledger.name(), None);
            self.ledger.share(&term.members, &mut accounts)?;
        }
        let next = self.rules.next_base(self.base, block.transactions.iter().map(Transaction::units).sum());
        if next != self.base {
            Scratch::new(below, &mut writes, NAME, None).put(BASE, text(next));
        }
        Ok(writes)
    }
}

/// The first base fee, where a network has fees.
pub(crate) fn genesis(below: Below<'_>, genesis: &Genesis, writes: &mut Layer) {
    if let Some(rules) = &genesis.fees {
        Scratch::new(below, writes, NAME, None).put(BASE, text(rules.base_min));
    }
}

/// What transactions cost now.
pub(crate) fn show(view: &dyn Read, head: &Head, genesis: &Genesis) -> Decided {
    let index = head.last_block().map(BlockIndex);
    let Some(rules) = &genesis.fees else {
        return machine::answer(Answer::GetFees(FeesAnswer {
            base: None,
            base_min: None,
            target_units: None,
            lanes: Vec::new(),
            index,
        }));
    };
    let base = base(view, rules)?;
    let lane = |lane: Lane| LaneFee { lane, fee: due(base, lane, TRANSACTION_UNITS) };
    machine::answer(Answer::GetFees(FeesAnswer {
        base: Some(base),
        base_min: Some(rules.base_min),
        target_units: Some(rules.target_units()),
        lanes: Lane::ALL.map(lane).to_vec(),
        index,
    }))
}

fn base(view: &dyn Read, rules: &FeeRules) -> Result<Amount, Fault> {
    let Some(value) = current(view, &format!("{NAME}/{BASE}"))? else { return Ok(rules.base_min) };
    let text = std::str::from_utf8(&value).ok();
    let atoms = text.and_then(|text| text.parse().ok());
    atoms.map(Amount).ok_or_else(|| Fault("the base fee is no number".to_owned()))
}

fn text(base: Amount) -> Vec<u8> {
    base.0.to_string().into_bytes()
}
