//! The ledger: conserved, never negative, refusals change nothing.

use std::collections::BTreeMap;

use machine::Fault;
use machine::module::{Change, Module, ModuleState, TxContext};
use market::prana::{Prana, read};
use proptest::prelude::*;
use protocol::genesis::Genesis;
use protocol::{Amount, BlockIndex, CellId};
use serde_json::json;

#[derive(Clone, Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl ModuleState for Memory {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.0.get(key).cloned())
    }
    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.0.insert(key.to_owned(), value);
    }
    fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }
}

fn cell(number: u8) -> CellId {
    CellId::from_bytes([number; 32])
}

fn genesis() -> Memory {
    let mut state = Memory::default();
    Prana.genesis(&Genesis::solo("test", 1, cell(0)), &mut state);
    state
}

fn transfer(state: &mut Memory, from: u8, to: u8, amount: &str) -> Result<(), String> {
    let context = TxContext { sender: cell(from), time_ms: 0, index: BlockIndex(0) };
    let args = json!({ "to": cell(to), "amount": amount });
    let before = state.clone();
    let outcome = Prana.execute(&context, "transfer", &args, state).expect("readable").map_err(|p| p.code.to_string());
    if outcome.is_err() {
        assert_eq!(state.0, before.0);
    }
    outcome
}

fn changes(before: &Memory, after: &Memory) -> Vec<Change> {
    let keys: std::collections::BTreeSet<_> = before.0.keys().chain(after.0.keys()).collect();
    let change =
        |key: &&String| Change { key: (*key).clone(), before: before.0.get(*key).cloned(), after: after.0.get(*key).cloned() };
    keys.iter().map(change).filter(|change| change.before != change.after).collect()
}

fn balance(state: &Memory, number: u8) -> Amount {
    read(state.0.get(&cell(number).to_string()).cloned()).expect("a number")
}

#[test]
fn a_transfer_moves_and_a_bad_one_does_nothing() {
    let mut state = genesis();
    transfer(&mut state, 0, 1, "1.5").expect("transfers");
    assert_eq!(balance(&state, 1), "1.5".parse().expect("an amount"));
    transfer(&mut state, 1, 1, "1").expect("to oneself");
    assert_eq!(balance(&state, 1), "1.5".parse().expect("an amount"));
    for (from, amount, code) in [(1, "2", "prana.insufficient"), (1, "0", "prana.zero_amount"), (1, "-1", "prana.bad_args")] {
        assert_eq!(transfer(&mut state, from, 2, amount), Err(code.to_owned()));
    }
    assert_eq!(Prana.check("mint", &json!({})).expect_err("no such call").code, "prana.unknown_call");
}

#[test]
fn a_block_that_makes_prana_is_caught() {
    let before = genesis();
    let mut after = before.clone();
    after.put(&cell(7).to_string(), b"1".to_vec());
    Prana.check_invariants(&changes(&before, &after)).expect_err("made of nothing");
    let mut after = before.clone();
    after.put("supply", b"1".to_vec());
    Prana.check_invariants(&changes(&before, &after)).expect_err("another supply");
}

proptest! {
    #[test]
    fn the_supply_is_conserved(moves in prop::collection::vec((0u8..4, 0u8..4, 0u64..2_000_000_000), 0..40)) {
        let before = genesis();
        let mut state = before.clone();
        for (from, to, prana) in moves {
            let _ = transfer(&mut state, from, to, &prana.to_string());
        }
        prop_assert_eq!(Prana.check_invariants(&changes(&before, &state)), Ok(()));
        let sum = (0..4).fold(Amount::ZERO, |sum, number| sum.checked_add(balance(&state, number)).expect("fits"));
        prop_assert_eq!(sum, Amount::from_prana(protocol::genesis::SUPPLY_PRANA));
    }
}
