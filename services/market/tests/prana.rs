//! The ledger: conserved, never negative, refusals change nothing.

use machine::module::{Access, Change, Ledger, Module, ModuleState, TxContext};
use machine::testing::Keys;
use market::prana::{Prana, read, statement};
use proptest::prelude::*;
use protocol::block::{Block, BlockHeader};
use protocol::genesis::Genesis;
use protocol::signing::Signature;
use protocol::transaction::{Transaction, TxReceipt};
use protocol::{Amount, BlockHash, BlockIndex, CellId, GenesisHash, Hash, Problem, ProblemKind, TxId};
use serde_json::json;

fn cell(number: u8) -> CellId {
    CellId::from_bytes([number; 32])
}

fn genesis() -> Keys {
    let mut state = Keys::default();
    Prana.genesis(&Genesis::solo("test", 1, cell(0)), &mut state);
    state
}

fn context_of(sender: u8) -> TxContext {
    TxContext {
        genesis: GenesisHash::ZERO,
        id: TxId::ZERO,
        sender: cell(sender),
        time_ms: 0,
        index: BlockIndex(0),
        epoch: 0,
        round: 1,
        members: Hash::ZERO,
    }
}

fn transfer(state: &mut Keys, from: u8, to: u8, amount: &str) -> Result<(), String> {
    let context = context_of(from);
    let args = json!({ "to": cell(to), "amount": amount });
    let before = state.clone();
    let outcome =
        Prana.execute(&context, "transfer", &args, state).expect("readable").map_err(|p| p.code.to_string());
    if outcome.is_err() {
        assert_eq!(state.0, before.0);
    }
    outcome
}

fn changes(before: &Keys, after: &Keys) -> Vec<Change> {
    let keys: std::collections::BTreeSet<_> = before.0.keys().chain(after.0.keys()).collect();
    let change = |key: &&String| Change {
        key: (*key).clone(),
        before: before.0.get(*key).cloned(),
        after: after.0.get(*key).cloned(),
    };
    keys.iter().map(change).filter(|change| change.before != change.after).collect()
}

fn balance(state: &Keys, number: u8) -> Amount {
    read(state.0.get(&cell(number).to_string()).cloned()).expect("a number")
}

#[test]
fn a_transfer_moves_and_a_bad_one_does_nothing() {
    let mut state = genesis();
    transfer(&mut state, 0, 1, "1.5").expect("transfers");
    assert_eq!(balance(&state, 1), "1.5".parse().expect("an amount"));
    transfer(&mut state, 1, 1, "1").expect("to oneself");
    assert_eq!(balance(&state, 1), "1.5".parse().expect("an amount"));
    let cases = [
        (1, 2, "2", "prana.insufficient"),
        (1, 1, "2", "prana.insufficient"),
        (9, 1, "0.000000000000000001", "prana.insufficient"),
        (1, 2, "0", "prana.zero_amount"),
        (1, 2, "-1", "prana.bad_args"),
        (1, 2, "1.0000000000000000001", "prana.bad_args"),
        (1, 2, "340282366920938463464", "prana.bad_args"),
    ];
    for (from, to, amount, code) in cases {
        assert_eq!(transfer(&mut state, from, to, amount), Err(code.to_owned()));
    }
    transfer(&mut state, 1, 2, "1.5").expect("to the last atom");
    assert_eq!(balance(&state, 1), Amount::ZERO);
}

#[test]
fn calls_of_another_shape_are_refused() {
    let to = cell(1);
    let cases = [
        ("mint", json!({}), "prana.unknown_call"),
        ("transfer", json!({ "to": to, "amount": 1.5 }), "prana.bad_args"),
        ("transfer", json!({ "to": "bob", "amount": "1" }), "prana.bad_args"),
        ("transfer", json!({ "to": to }), "prana.bad_args"),
        ("transfer", json!({ "to": to, "amount": "1", "memo": "x" }), "prana.bad_args"),
        ("transfer", json!({ "to": to, "amount": "1", "m".repeat(9_999): "x" }), "prana.bad_args"),
        ("transfer", json!(null), "prana.bad_args"),
    ];
    for (call, args, code) in cases {
        let problem = Prana.check(call, &args).expect_err(code);
        assert_eq!(problem.code, code);
        assert!(problem.cause.len() < 1_000, "the cause does not repeat all that was sent");
    }
}

#[test]
fn a_fee_is_taken_to_the_last_atom_and_put_down_where_no_cell_is() {
    let mut state = genesis();
    transfer(&mut state, 0, 1, "5").expect("transfers");
    let before = state.clone();
    let five: Amount = "5".parse().expect("an amount");
    let more = Amount(five.0 + 1);
    let charge = |state: &mut Keys, fee| Prana.charge(&cell(1), fee, state).expect("readable");
    let problem = charge(&mut state, more).expect_err("an atom too much");
    assert_eq!((problem.code.as_ref(), &state.0), ("prana.fee_not_covered", &before.0));
    charge(&mut state, Amount(1)).expect("covered");
    charge(&mut state, Amount(five.0 - 1)).expect("covered");
    assert_eq!(balance(&state, 1), Amount::ZERO);
    Prana.check_invariants(&changes(&before, &state)).expect_err("taken, and not put down");
    Prana.collect(Amount(1), &mut state).expect("readable");
    Prana.collect(Amount(five.0 - 1), &mut state).expect("readable");
    Prana.check_invariants(&changes(&before, &state)).expect("put down");
    assert_eq!(read(state.0.get("@fees").cloned()), Ok(five));
    let to_the_fees = Prana.check("transfer", &json!({ "to": "@fees", "amount": "1" }));
    assert_eq!(to_the_fees.expect_err("no cell").code, "prana.bad_args");
}

#[test]
fn a_transfer_touches_the_two_accounts_and_what_is_none_touches_nothing() {
    let context = context_of(1);
    let access = |args| Prana.access(&context, "transfer", &args).expect("it is told");
    let accounts = [1, 2].map(|number| Access::Write(cell(number).to_string()));
    assert_eq!(access(json!({ "to": cell(2), "amount": "1" })), accounts);
    assert_eq!(access(json!({ "to": cell(2) })), []);
}

#[test]
fn a_block_that_makes_or_loses_prana_is_caught() {
    let mut before = genesis();
    transfer(&mut before, 0, 1, "5").expect("transfers");
    type Case = (&'static str, fn(&mut Keys));
    let broken: [Case; 6] = [
        ("made of nothing", |state| state.put(&cell(7).to_string(), b"1".to_vec())),
        ("lost", |state| state.delete(&cell(1).to_string())),
        ("an atom less", |state| state.put(&cell(1).to_string(), b"4999999999999999999".to_vec())),
        ("a negative balance", |state| state.put(&cell(1).to_string(), b"-1".to_vec())),
        ("another supply", |state| state.put("supply", b"1".to_vec())),
        ("another supply, and the balance that goes with it", |state| {
            state.put("supply", b"1000000000000000000000000001".to_vec());
            state.put(&cell(7).to_string(), b"1".to_vec());
        }),
    ];
    for (what, change) in broken {
        let mut after = before.clone();
        change(&mut after);
        Prana.check_invariants(&changes(&before, &after)).expect_err(what);
    }
    let mut after = before.clone();
    transfer(&mut after, 1, 7, "5").expect("transfers");
    Prana.check_invariants(&changes(&before, &after)).expect("a transfer conserves");
}

#[test]
fn a_statement_has_the_transfers_that_were_carried_out_and_touch_the_cell() {
    let transaction = |nonce: u64, module: &str, from: u8, to: u8| Transaction {
        genesis: GenesisHash::ZERO,
        sender: cell(from),
        nonce,
        module: module.to_owned(),
        call: "transfer".to_owned(),
        args: json!({ "to": cell(to), "amount": "2.5" }).to_string(),
        signature: Signature::from_bytes([0; 64]),
        lane: None,
        max_fee: None,
    };
    let transactions = vec![
        transaction(1, "prana", 0, 1),
        transaction(2, "prana", 2, 0),
        transaction(3, "prana", 1, 2),
        transaction(4, "prana", 0, 1),
        transaction(5, "kv", 0, 1),
        transaction(6, "prana", 0, 0),
    ];
    let refused = Problem::new(ProblemKind::Invalid, "prana.insufficient", "no");
    let receipt = |(place, tx): (usize, &Transaction)| {
        let error = (place == 3).then(|| refused.clone());
        TxReceipt { id: tx.id(), ok: error.is_none(), error, fee: None }
    };
    let receipts: Vec<TxReceipt> = transactions.iter().enumerate().map(receipt).collect();
    let header = BlockHeader {
        genesis: GenesisHash::ZERO,
        index: BlockIndex(4),
        time_ms: 0,
        previous: BlockHash::ZERO,
        transactions_root: Block::transactions_root(&transactions),
        members: Hash::ZERO,
        rules: 1,
        epoch: 0,
        round: 1,
        beacon: None,
    };
    let lines = statement(&cell(0), &Block { header, transactions }, &receipts);
    let places: Vec<_> = lines
        .iter()
        .map(|line| receipts.iter().position(|receipt| receipt.id == line.tx).expect("one of them"))
        .collect();
    assert_eq!(places, [0, 1, 5]);
    assert_eq!((lines[1].from, lines[1].to, lines[1].index), (cell(2), cell(0), BlockIndex(4)));
    assert!(lines.iter().all(|line| line.amount.to_string() == "2.5"));
}

proptest! {
    #[test]
    fn the_supply_is_conserved(moves in prop::collection::vec((0u8..4, 0u8..4, any::<u128>(), 0u32..120), 0..40)) {
        let before = genesis();
        let mut state = before.clone();
        for (from, to, atoms, shift) in moves {
            let was = (balance(&state, from), balance(&state, to));
            let moved = transfer(&mut state, from, to, &Amount(atoms >> shift).to_string());
            let now = (balance(&state, from), balance(&state, to));
            prop_assert_eq!(was == now, moved.is_err() || from == to);
        }
        prop_assert_eq!(Prana.check_invariants(&changes(&before, &state)), Ok(()));
        let sum = (0..4).fold(Amount::ZERO, |sum, number| sum.checked_add(balance(&state, number)).expect("fits"));
        prop_assert_eq!(sum, Amount::from_prana(protocol::genesis::SUPPLY_PRANA));
        prop_assert_eq!(read(state.0.get("supply").cloned()), Ok(sum));
    }
}
