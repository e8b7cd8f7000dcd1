//! Fees: taken before the call, kept whatever becomes of it, never more than there is or than the sender wants; and the base fee.

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;

use kit::*;
use machine::module::{Change, Ledger, Module, ModuleState, Outcome, RuleSets, TxContext};
use machine::testing::Bench;
use machine::{Fault, Machine};
use market::prana::Prana;
use proptest::prelude::*;
use protocol::block::Block;
use protocol::fees::{FeeRules, TRANSACTION_UNITS};
use protocol::genesis::{Allocation, Genesis};
use protocol::members::MemberSet;
use protocol::shared::Empty;
use protocol::state::{Answer, Applied, ApplyRequest, FeesAnswer, ListKeys, Request};
use protocol::transaction::{Intent, Lane, Transaction};
use protocol::{Amount, CellId};
use serde_json::{Value, json};
use state::StateMachine;
use state::kv::Kv;

const BASE: u128 = 1_000;

/// Cells 1 to 4 with so many atoms each; a block of two small transactions is about what leaves the base fee as it is.
fn network(atoms: u128) -> Genesis {
    let allocation = |number| Allocation { cell: cell(number), amount: Amount(atoms) };
    let fees =
        FeeRules { base_min: Amount(BASE), target_units: Some(2 * TRANSACTION_UNITS), share_blocks: None };
    Genesis { allocations: (1..5).map(allocation).collect(), fees: Some(fees), ..genesis() }
}

fn begin(genesis: &Genesis) -> (Bench<StateMachine>, Chain) {
    let modules: Vec<Arc<dyn Module>> = vec![Arc::new(Kv), Arc::new(Prana)];
    let machine = StateMachine::new(Arc::new(genesis.clone()), RuleSets::first(modules));
    let mut bench = Bench::new(machine);
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    (bench, Chain::of(genesis))
}

fn on_terms(
    signer: u8,
    nonce: u64,
    (module, call, args): (&str, &str, Value),
    lane: Option<Lane>,
    max_fee: Option<u128>,
) -> Transaction {
    let (module, call, max_fee) = (module.into(), call.into(), max_fee.map(Amount));
    signed(signer, nonce, &Intent { module, call, args, nonce: None, lane, max_fee })
}

fn transfer(to: u8, atoms: u128) -> (&'static str, &'static str, Value) {
    ("prana", "transfer", json!({ "to": cell(to), "amount": Amount(atoms) }))
}

fn fees(applied: &Applied) -> Vec<Option<u128>> {
    applied.receipts.iter().map(|receipt| receipt.fee.map(|fee| fee.0)).collect()
}

/// All accounts in atoms by their key, that of fees and the supply among them.
fn accounts(bench: &mut Bench<StateMachine>) -> BTreeMap<String, u128> {
    let asked = ListKeys { prefix: "prana/".into(), limit: Some(100), cursor: None, at: None };
    let Ok(Answer::List(page)) = bench.ask(Request::List(asked)) else { panic!("no page") };
    let row = |row: protocol::state::GetAnswer| {
        let value = row.value.expect("a value").parse().expect("an amount that is not negative");
        (row.key["prana/".len()..].to_owned(), value)
    };
    page.items.into_iter().map(row).collect()
}

fn balance(bench: &mut Bench<StateMachine>, number: u8) -> u128 {
    accounts(bench)[&cell(number).to_string()]
}

fn shown(bench: &mut Bench<StateMachine>) -> FeesAnswer {
    match bench.ask(Request::GetFees(Empty {})) {
        Ok(Answer::GetFees(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fee_is_taken_by_bytes_and_lane_whatever_becomes_of_the_call() {
    let (mut bench, mut chain) = begin(&network(1_000_000_000));
    let put = ("kv", "put", json!({ "key": "a", "value": "b" }));
    // kv, put, and 23 bytes of arguments.
    let normal = (4_096 + 5 + 23) * BASE;
    let block = chain.block(vec![
        on_terms(1, 1, put.clone(), None, None),
        on_terms(2, 1, put.clone(), Some(Lane::Normal), Some(normal)),
        on_terms(1, 2, put.clone(), Some(Lane::Priority), Some(u128::MAX)),
        on_terms(1, 3, put.clone(), Some(Lane::Bulk), Some(normal / 4)),
        on_terms(3, 1, ("none", "put", json!({})), None, None),
        on_terms(1, 3, put, None, None),
    ]);
    let applied = apply(&mut bench, block);
    assert_eq!(
        codes(&applied),
        ["ok", "kv.not_owner", "ok", "ok", "state.unknown_module", "state.nonce_used"]
    );
    let paid = [normal, normal, 4 * normal, normal / 4, (4_096 + 9) * BASE];
    let expected: Vec<_> = paid.iter().copied().map(Some).chain([None]).collect();
    assert_eq!(fees(&applied), expected);
    let accounts = accounts(&mut bench);
    assert_eq!(accounts["@fees"], paid.iter().sum::<u128>());
    let left = [1u8, 2, 3, 4].map(|number| accounts[&cell(number).to_string()]);
    let spent = [paid[0] + paid[2] + paid[3], paid[1], paid[4], 0];
    assert_eq!(left, spent.map(|spent| 1_000_000_000 - spent));
    assert_eq!(accounts["supply"], 4_000_000_000);
}

#[test]
fn who_cannot_or_will_not_pay_changes_nothing_but_the_nonce() {
    let (mut bench, mut chain) = begin(&network(9_000_000));
    let before = accounts(&mut bench);
    let due = u128::from(on_terms(1, 1, transfer(2, 1), None, None).units()) * BASE;
    let block = chain.block(vec![
        on_terms(1, 1, transfer(2, 1), None, Some(due - 1)),
        on_terms(1, 2, transfer(2, 1), Some(Lane::Priority), Some(due)),
        on_terms(2, 1, transfer(1, 1), Some(Lane::Priority), None),
        on_terms(9, 1, transfer(1, 1), None, None),
        on_terms(1, 2, transfer(2, 1), None, None),
    ]);
    let applied = apply(&mut bench, block);
    let codes_expected = [
        "state.fee_too_low",
        "state.fee_too_low",
        "prana.fee_not_covered",
        "prana.fee_not_covered",
        "state.nonce_used",
    ];
    assert_eq!(codes(&applied), codes_expected);
    assert_eq!(fees(&applied), [None; 5]);
    assert_eq!(accounts(&mut bench), before, "no account of fees either");
    for (number, nonce) in [(1, "2"), (2, "1"), (9, "1")] {
        assert_eq!(get(&mut bench, &format!("nonce/{}", cell(number)), None).as_deref(), Some(nonce));
    }
}

#[test]
fn a_call_sees_what_the_fee_has_left() {
    let (mut bench, mut chain) = begin(&network(9_000_000));
    let due = |atoms| u128::from(on_terms(1, 1, transfer(2, atoms), None, None).units()) * BASE;
    // The amount's digits are paid for as well.
    let all = (0..3).fold(4_999_000, |atoms, _| 9_000_000 - due(atoms));
    let block = chain.block(vec![
        on_terms(1, 1, transfer(2, 9_000_000), None, None),
        on_terms(3, 1, transfer(2, all), None, None),
        on_terms(3, 2, transfer(2, 1), None, None),
    ]);
    let applied = apply(&mut bench, block);
    assert_eq!(codes(&applied), ["prana.insufficient", "ok", "prana.fee_not_covered"]);
    let left = [1, 2, 3].map(|number| balance(&mut bench, number));
    assert_eq!(left, [9_000_000 - due(9_000_000), 9_000_000 + all, 0]);
}

#[test]
fn the_base_fee_stands_in_the_state_and_follows_the_blocks() {
    let genesis = network(10_000_000_000);
    let rules = genesis.fees.clone().expect("fees");
    let (mut bench, mut chain) = begin(&genesis);
    assert_eq!(get(&mut bench, "fees/base", None).as_deref(), Some("1000"));
    let first = shown(&mut bench);
    assert_eq!((first.base, first.base_min, first.index), (Some(Amount(BASE)), Some(Amount(BASE)), None));
    assert_eq!(first.target_units, Some(2 * TRANSACTION_UNITS));
    let lanes: Vec<_> = first.lanes.iter().map(|lane| (lane.lane, lane.fee.0)).collect();
    let small = BASE * u128::from(TRANSACTION_UNITS);
    assert_eq!(lanes, [(Lane::Priority, 4 * small), (Lane::Normal, small), (Lane::Bulk, small / 4)]);
    let (mut nonce, mut base) = (0, rules.base_min);
    for (index, count) in [4, 4, 1, 9, 0, 0, 2].into_iter().enumerate() {
        let transactions: Vec<_> = (0..count)
            .map(|_| {
                nonce += 1;
                on_terms(1, nonce, transfer(2, 1), None, None)
            })
            .collect();
        let due = transactions.first().map(|transaction| base.0 * u128::from(transaction.units()));
        let units = transactions.iter().map(Transaction::units).sum();
        let applied = apply(&mut bench, chain.block(transactions));
        assert!(fees(&applied).iter().all(|fee| *fee == due), "all pay by the base fee from before");
        base = rules.next_base(base, units);
        assert_eq!(get(&mut bench, "fees/base", None), Some(base.0.to_string()));
        assert_eq!(
            (shown(&mut bench).base, shown(&mut bench).index.map(|at| at.0)),
            (Some(base), Some(index as u64))
        );
    }
    let after_full = [0, 1].map(|at| get(&mut bench, "fees/base", Some(at)).expect("a number"));
    assert_eq!(after_full, ["1125", "1265"], "an eighth up each");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn a_network_without_fees_takes_none_whatever_is_offered() {
    let (mut bench, mut chain) = begin(&Genesis { fees: None, ..network(5) });
    let applied =
        apply(&mut bench, chain.block(vec![on_terms(1, 1, transfer(2, 5), Some(Lane::Priority), Some(0))]));
    assert_eq!((codes(&applied), fees(&applied)), (vec!["ok".to_owned()], vec![None]));
    assert_eq!(get(&mut bench, "fees/base", None), None);
    assert!(!accounts(&mut bench).contains_key("@fees"));
    let answer = shown(&mut bench);
    assert_eq!((answer.base, answer.lanes.len()), (None, 0));
}

/// A ledger that puts each fee down at once: no two could be taken at the same time.
struct Hasty;

impl Module for Hasty {
    fn name(&self) -> &'static str {
        "hasty"
    }
    fn genesis(&self, _: &Genesis, _: &mut dyn ModuleState) {}
    fn check(&self, _: &str, _: &Value) -> Outcome {
        Ok(())
    }
    fn ledger(&self) -> Option<&dyn Ledger> {
        Some(self)
    }
    fn execute(&self, _: &TxContext, _: &str, _: &Value, _: &mut dyn ModuleState) -> Result<Outcome, Fault> {
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

impl Ledger for Hasty {
    fn account(&self, cell: &CellId) -> String {
        cell.to_string()
    }
    fn charge(&self, _: &CellId, fee: Amount, state: &mut dyn ModuleState) -> Result<Outcome, Fault> {
        self.collect(fee, state).map(Ok)
    }
    fn collect(&self, fees: Amount, state: &mut dyn ModuleState) -> Result<(), Fault> {
        state.put("fees", fees.0.to_string().into_bytes());
        Ok(())
    }
    fn share(&self, _: &MemberSet, _: &mut dyn ModuleState) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn fees_without_a_ledger_or_with_one_that_has_no_accounts_stop_the_service() {
    let genesis = network(5);
    let cases: [(Arc<dyn Module>, &str); 2] =
        [(Arc::new(Kv), "no module is a ledger"), (Arc::new(Hasty), "touches hasty/fees")];
    for (module, why) in cases {
        let mut bench =
            Bench::new(StateMachine::new(Arc::new(genesis.clone()), RuleSets::first(vec![module])));
        bench.ask(Request::Initialise(Empty {})).expect("initialises");
        let block: Block = Chain::of(&genesis).block(vec![put(1, 1, "a", "b")]);
        let context = machine::Context { now_ms: 0, entropy: [0; 32], caller: protocol::Caller::Internal };
        let request = Request::Apply(ApplyRequest { block });
        let fault = bench.machine.decide(&bench.view, &context, request).expect_err("a fault");
        assert!(fault.0.contains(why), "{fault}");
    }
}

/// Sender, receiver, nonce's step back, amount, lane, bound in eighths of what is due.
type Step = (u8, u8, bool, u128, Option<Lane>, Option<u128>);

fn step() -> impl Strategy<Value = Step> {
    let lane = prop_oneof![Just(None), prop::sample::select(Lane::ALL.to_vec()).prop_map(Some)];
    let bound = prop::option::weighted(0.3, 6u128..12);
    (1u8..6, 1u8..6, prop::bool::weighted(0.1), 0u128..20_000_000, lane, bound)
}

/// The rules in a few lines: balances, what was collected, the base fee, each transaction's code and fee.
struct Model {
    balances: BTreeMap<u8, u128>,
    nonces: BTreeMap<u8, u64>,
    collected: u128,
    base: u128,
}

impl Model {
    fn transaction(
        &mut self,
        transaction: &Transaction,
        (from, to, _, amount, ..): &Step,
    ) -> (&'static str, Option<u128>) {
        let last = self.nonces.entry(*from).or_insert(0);
        if transaction.nonce <= *last {
            return ("state.nonce_used", None);
        }
        *last = transaction.nonce;
        let normal = self.base * u128::from(transaction.units());
        let due = match transaction.lane.unwrap_or(Lane::Normal) {
            Lane::Priority => normal * 4,
            Lane::Normal => normal,
            Lane::Bulk => normal / 4 + u128::from(!normal.is_multiple_of(4)),
        };
        if transaction.max_fee.is_some_and(|max_fee| max_fee.0 < due) {
            return ("state.fee_too_low", None);
        }
        let balance = self.balances.entry(*from).or_insert(0);
        if *balance < due {
            return ("prana.fee_not_covered", None);
        }
        *balance -= due;
        self.collected += due;
        if *amount == 0 {
            return ("prana.zero_amount", Some(due));
        }
        if *balance < *amount {
            return ("prana.insufficient", Some(due));
        }
        *balance -= amount;
        *self.balances.entry(*to).or_insert(0) += amount;
        ("ok", Some(due))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done: the accounts add up to the supply, none is negative, and each is what the rules say.
    #[test]
    fn fees_are_conserved(blocks in prop::collection::vec(prop::collection::vec(step(), 0..10), 1..6)) {
        let genesis = network(60_000_000);
        let rules = genesis.fees.clone().expect("fees");
        let (mut bench, mut chain) = begin(&genesis);
        let balances = (1..5).map(|number| (number, 60_000_000)).collect();
        let mut model = Model { balances, nonces: BTreeMap::new(), collected: 0, base: BASE };
        let mut nonce = 1;
        for steps in blocks {
            let (mut transactions, mut expected) = (Vec::new(), Vec::new());
            for step in &steps {
                let (from, to, back, amount, lane, eighths) = *step;
                nonce += 1;
                let nonce = if back { 1 } else { nonce };
                let max_fee = eighths.map(|eighths| {
                    let free = on_terms(from, nonce, transfer(to, amount), lane, Some(0));
                    protocol::fees::due(Amount(model.base), free.lane(), free.units()).0 * eighths / 8
                });
                let transaction = on_terms(from, nonce, transfer(to, amount), lane, max_fee);
                expected.push(model.transaction(&transaction, step));
                transactions.push(transaction);
            }
            model.base = rules.next_base(Amount(model.base), transactions.iter().map(Transaction::units).sum()).0;
            let applied = apply(&mut bench, chain.block(transactions));
            let came: Vec<_> = codes(&applied).into_iter().zip(fees(&applied)).collect();
            prop_assert_eq!(came, expected.into_iter().map(|(code, fee)| (code.to_owned(), fee)).collect::<Vec<_>>());
            let accounts = accounts(&mut bench);
            let sum: u128 = accounts.iter().filter(|(key, _)| *key != "supply").map(|(_, atoms)| atoms).sum();
            prop_assert_eq!((sum, accounts["supply"]), (240_000_000, 240_000_000));
            prop_assert_eq!(accounts.get("@fees").copied().unwrap_or(0), model.collected);
            for (number, atoms) in &model.balances {
                prop_assert_eq!(accounts.get(&cell(*number).to_string()).copied().unwrap_or(0), *atoms);
            }
            prop_assert_eq!(get(&mut bench, "fees/base", None), Some(model.base.to_string()));
        }
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
    }
}
