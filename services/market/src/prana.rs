//! The module `prana`: the ledger.
//!
//! A balance is decimal text of atoms under the owner's did; `supply` holds their sum. The one call,
//! `transfer {to, amount}`, moves an amount; one to oneself changes nothing, and still has to be covered.
//! No floats, no negative balances: amounts are unsigned and checked.
//!
//! It is the ledger that fees are paid out of, where the network has fees. They are kept in the account `@fees`, which is no cell's: no
//! transaction can name it, and nothing is paid out of it but the members' shares, where the network shares its fees.
//!
//! Invariant: the balances, that of fees among them, add up to the supply. It holds in the genesis, and after every block it is
//! checked by what the block changed: the balances that changed add up to what they added up to before,
//! and the supply is the same. By induction over blocks this is exact, and costs no scan of all accounts.
//!
//! Absent: minting, burning, accounts that expire.

use machine::module::{Access, Change, Ledger, Module, ModuleState, Outcome, TxContext};
use machine::{Calls, Fault};
use protocol::block::Block;
use protocol::fees::FeeRules;
use protocol::genesis::Genesis;
use protocol::market::StatementLine;
use protocol::members::MemberSet;
use protocol::transaction::{Transaction, TxReceipt};
use protocol::{Amount, CellId, Problem, ProblemKind};
use serde::Deserialize;
use serde_json::Value;

const SUPPLY_KEY: &str = "supply";
/// The account that fees are paid into.
const FEES_KEY: &str = "@fees";
/// What the module says where a call does not fit.
const CALLS: Calls = Calls {
    module: "prana",
    bad_args: "prana.bad_args",
    unknown: "prana.unknown_call",
    names: "transfer",
    shapes: r#"transfer takes {"to":"did:key:…","amount":"1.5"}; the amount is a string"#,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: CellId,
    amount: Amount,
}

/// The module.
#[derive(Clone, Copy, Debug)]
pub struct Prana;

impl Module for Prana {
    fn name(&self) -> &'static str {
        "prana"
    }

    fn genesis(&self, genesis: &Genesis, state: &mut dyn ModuleState) {
        for allocation in &genesis.allocations {
            write(state, &allocation.cell.to_string(), allocation.amount);
        }
        write(state, SUPPLY_KEY, genesis.supply().unwrap_or_default());
    }

    fn check(&self, call: &str, args: &Value) -> Outcome {
        parse(call, args).map(|_| ())
    }

    /// The two accounts; nothing where the arguments are none.
    fn access(&self, context: &TxContext, call: &str, args: &Value) -> Option<Vec<Access>> {
        let accounts = |transfer: Transfer| {
            [context.sender, transfer.to].map(|cell| Access::Write(cell.to_string())).to_vec()
        };
        Some(parse(call, args).map(accounts).unwrap_or_default())
    }

    fn ledger(&self) -> Option<&dyn Ledger> {
        Some(self)
    }

    fn execute(
        &self,
        context: &TxContext,
        call: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        let transfer = match parse(call, args) {
            Ok(transfer) => transfer,
            Err(problem) => return Ok(Err(problem)),
        };
        let (payer, payee) = (context.sender.to_string(), transfer.to.to_string());
        let balance = read(state.get(&payer)?)?;
        let Some(left) = balance.checked_sub(transfer.amount) else {
            let cause = format!("the balance is {balance}, {} was to be transferred", transfer.amount);
            return Ok(Err(Problem::new(ProblemKind::Invalid, "prana.insufficient", cause)
                .hint("cell market balance shows what there is")));
        };
        write(state, &payer, left);
        // Read after the payer was written: a transfer to oneself then changes nothing.
        let before = read(state.get(&payee)?)?;
        let after =
            before.checked_add(transfer.amount).ok_or_else(|| Fault("a balance overflows".to_owned()))?;
        write(state, &payee, after);
        Ok(Ok(()))
    }

    fn check_invariants(&self, changes: &[Change]) -> Result<(), String> {
        let (mut before, mut after) = (Amount::ZERO, Amount::ZERO);
        for change in changes {
            if change.key == SUPPLY_KEY {
                if change.before != change.after {
                    return Err("the supply changed".to_owned());
                }
                continue;
            }
            let sum = |sum: Amount, value: &Option<Vec<u8>>| {
                let value = read(value.clone()).map_err(|fault| fault.0)?;
                sum.checked_add(value).ok_or_else(|| "the balances overflow".to_owned())
            };
            before = sum(before, &change.before)?;
            after = sum(after, &change.after)?;
        }
        if before == after {
            Ok(())
        } else {
            Err(format!("balances added up to {before} and now to {after}"))
        }
    }
}

impl Ledger for Prana {
    fn account(&self, cell: &CellId) -> String {
        cell.to_string()
    }

    fn charge(&self, payer: &CellId, fee: Amount, state: &mut dyn ModuleState) -> Result<Outcome, Fault> {
        let account = self.account(payer);
        let balance = read(state.get(&account)?)?;
        let Some(left) = balance.checked_sub(fee) else {
            let cause = format!("the balance is {balance}, the fee {fee}");
            return Ok(Err(Problem::new(ProblemKind::Invalid, "prana.fee_not_covered", cause)
                .hint("cell tx fees shows what transactions cost, cell market balance what there is")));
        };
        write(state, &account, left);
        Ok(Ok(()))
    }

    fn collect(&self, fees: Amount, state: &mut dyn ModuleState) -> Result<(), Fault> {
        let before = read(state.get(FEES_KEY)?)?;
        let after = before.checked_add(fees).ok_or_else(|| Fault("the fees overflow".to_owned()))?;
        write(state, FEES_KEY, after);
        Ok(())
    }

    fn share(&self, members: &MemberSet, state: &mut dyn ModuleState) -> Result<(), Fault> {
        let mut pool = read(state.get(FEES_KEY)?)?;
        let shares = FeeRules::shares(pool, members).into_iter().filter(|(_, share)| *share > Amount::ZERO);
        for (cell, share) in shares {
            let account = self.account(&cell);
            let after = read(state.get(&account)?)?.checked_add(share);
            write(state, &account, after.ok_or_else(|| Fault("a balance overflows".to_owned()))?);
            pool = pool.checked_sub(share).ok_or_else(|| Fault("more is shared than there is".to_owned()))?;
            write(state, FEES_KEY, pool);
        }
        Ok(())
    }
}

fn parse(call: &str, args: &Value) -> Result<Transfer, Problem> {
    if call != "transfer" {
        return Err(CALLS.no_such(call));
    }
    let transfer: Transfer = CALLS.arguments(args)?;
    if transfer.amount == Amount::ZERO {
        return Err(Problem::new(ProblemKind::Invalid, "prana.zero_amount", "nothing would be transferred")
            .hint("name an amount above zero"));
    }
    Ok(transfer)
}

fn write(state: &mut dyn ModuleState, key: &str, amount: Amount) {
    state.put(key, amount.0.to_string().into_bytes());
}

/// A balance as it is kept: atoms in decimal text; zero where there is none.
///
/// # Errors
///
/// A [`Fault`] if it is something else.
pub fn read(value: Option<Vec<u8>>) -> Result<Amount, Fault> {
    let Some(value) = value else { return Ok(Amount::ZERO) };
    let text = std::str::from_utf8(&value).ok();
    text.and_then(|text| text.parse().ok())
        .map(Amount)
        .ok_or_else(|| Fault("a balance is no number".to_owned()))
}

/// What a block's successful transfers did to a cell's account.
pub fn statement(cell: &CellId, block: &Block, receipts: &[TxReceipt]) -> Vec<StatementLine> {
    let did = cell.to_string();
    let line = |(transaction, receipt): (&Transaction, &TxReceipt)| {
        // Most are others', and their arguments need not be read. Text with an escape in it may be written otherwise.
        let args = &transaction.args;
        let may_concern = transaction.sender == *cell || args.contains(&did) || args.contains('\\');
        if !receipt.ok || transaction.module != "prana" || !may_concern {
            return None;
        }
        let args = serde_json::from_str(&transaction.args).ok()?;
        let transfer = parse(&transaction.call, &args).ok()?;
        (transaction.sender == *cell || transfer.to == *cell).then_some(StatementLine {
            tx: receipt.id,
            index: block.header.index,
            from: transaction.sender,
            to: transfer.to,
            amount: transfer.amount,
        })
    };
    block.transactions.iter().zip(receipts).filter_map(line).collect()
}
