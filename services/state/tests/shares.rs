//! What was paid is shared among the members: by weight, whole atoms, the same at every member, and the supply is what it was.

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;

use kit::*;
use machine::Machine;
use machine::module::{Module, RuleSets};
use machine::testing::Bench;
use market::prana::Prana;
use proptest::prelude::*;
use protocol::block::Block;
use protocol::fees::{FeeRules, TRANSACTION_UNITS};
use protocol::genesis::{Allocation, Genesis, Member};
use protocol::members::MemberSet;
use protocol::shared::Empty;
use protocol::state::{Answer, ApplyRequest, ListKeys, Request};
use protocol::transaction::Transaction;
use protocol::{Amount, Hash};
use serde_json::json;
use state::StateMachine;

const SUPPLY: u128 = 4_000_000_000;

/// Members by number and weight.
fn set(weights: &[(u8, u64)]) -> MemberSet {
    let member = |(number, weight): &(u8, u64)| Member::new(cell(*number), *weight);
    MemberSet::new(weights.iter().map(member).collect())
}

/// Cells 1 to 4 have a quarter of the supply each, 5 to 8 are members who have nothing.
fn network(members: &[(u8, u64)], share_blocks: Option<u64>) -> Genesis {
    let allocation = |number| Allocation { cell: cell(number), amount: Amount(SUPPLY / 4) };
    let fees = FeeRules { base_min: Amount(100), target_units: Some(2 * TRANSACTION_UNITS), share_blocks };
    Genesis {
        members: set(members).all().to_vec(),
        allocations: (1..5).map(allocation).collect(),
        fees: Some(fees),
        ..genesis()
    }
}

fn begin(genesis: &Genesis) -> (Bench<StateMachine>, Chain) {
    let modules: [Arc<dyn Module>; 2] = [Arc::new(Chosen), Arc::new(Prana)];
    let mut bench = Bench::new(StateMachine::new(Arc::new(genesis.clone()), RuleSets::first(modules)));
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    (bench, Chain::of(genesis))
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

/// What these cells have, then what is in the pool.
fn held(bench: &mut Bench<StateMachine>, cells: &[u8]) -> Vec<u128> {
    let accounts = accounts(bench);
    let keys = cells.iter().map(|number| cell(*number).to_string()).chain(["@fees".to_owned()]);
    keys.map(|key| accounts.get(&key).copied().unwrap_or(0)).collect()
}

fn pay(signer: u8, nonce: u64) -> Transaction {
    call_of("prana", signer, nonce, "transfer", json!({ "to": cell(signer), "amount": Amount(1) }))
}

fn choose(signer: u8, nonce: u64, members: &MemberSet) -> Transaction {
    call_of("members", signer, nonce, "choose", serde_json::to_value(members).expect("JSON"))
}

/// A block that these members ordered, applied; what was paid in it.
fn paid_in(
    bench: &mut Bench<StateMachine>,
    chain: &mut Chain,
    members: &MemberSet,
    transactions: Vec<Transaction>,
) -> u128 {
    let block = chain.block_with(transactions, |header| header.members = members.hash());
    apply(bench, block).receipts.iter().filter_map(|receipt| receipt.fee).map(|fee| fee.0).sum()
}

#[test]
fn every_so_many_blocks_the_pool_is_shared_by_weight() {
    let weights = [(5, 3), (6, 2), (7, 8)];
    let (mut bench, mut chain) = begin(&network(&weights, Some(3)));
    let members = set(&weights);
    let mut pool = 0;
    for nonce in 1..3 {
        pool += paid_in(&mut bench, &mut chain, &members, vec![pay(1, nonce), pay(2, nonce)]);
        assert_eq!(held(&mut bench, &[5, 6, 7]), [0, 0, 0, pool]);
    }
    pool += paid_in(&mut bench, &mut chain, &members, vec![pay(1, 3)]);
    let parts = [3, 2, 8].map(|weight| pool * weight / 13);
    let rest = pool - parts.iter().sum::<u128>();
    assert!(rest > 0, "choose amounts that do not divide");
    assert_eq!(
        held(&mut bench, &[5, 6, 7]),
        [parts[0], parts[1], parts[2], rest],
        "the third block's own too"
    );
    assert_eq!(accounts(&mut bench)["supply"], SUPPLY);
    // Blocks without transactions count as any, and find no more than the rest.
    for _ in 0..3 {
        paid_in(&mut bench, &mut chain, &members, Vec::new());
    }
    let (more, left) = ([3, 2, 8].map(|weight| rest * weight / 13), held(&mut bench, &[5, 6, 7]));
    assert_eq!(left[..3], [0, 1, 2].map(|place| parts[place] + more[place]));
    assert_eq!(get(&mut bench, "epoch/members", None), None, "the genesis says who they are");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn who_ordered_the_blocks_is_paid_for_them_and_who_comes_later_is_not() {
    let (old, new) = ([(5, 1), (6, 1)], [(6, 3), (8, 1)]);
    let (mut bench, mut chain) = begin(&network(&old, Some(1_000)));
    let (old, new) = (set(&old), set(&new));
    let mut pool = paid_in(&mut bench, &mut chain, &old, vec![pay(1, 1), choose(2, 1, &new)]);
    // The old ones order some blocks more, though the state names the new ones.
    pool += paid_in(&mut bench, &mut chain, &old, vec![pay(1, 2)]);
    assert_eq!(held(&mut bench, &[5, 6, 8]), [0, 0, 0, pool]);
    let (half, odd) = (pool / 2, pool % 2);
    let first = paid_in(&mut bench, &mut chain, &new, vec![pay(1, 3)]);
    assert_eq!(held(&mut bench, &[5, 6, 8]), [half, half, 0, odd + first]);
    assert_eq!(get(&mut bench, "epoch/members", None).map(String::into_bytes), Some(new.to_state()));
    // The old ones are chosen again: the new ones are paid when they go.
    let again = paid_in(&mut bench, &mut chain, &new, vec![choose(2, 2, &old)]);
    let pool = odd + first + again;
    let last = paid_in(&mut bench, &mut chain, &old, vec![pay(1, 4)]);
    let parts = [pool * 3 / 4, pool / 4];
    let rest = pool - parts[0] - parts[1] + last;
    assert_eq!(held(&mut bench, &[5, 6, 8]), [half, half + parts[0], parts[1], rest]);
    assert_eq!(accounts(&mut bench)["supply"], SUPPLY);
}

#[test]
fn a_block_of_members_that_nobody_has_chosen_stops_the_service() {
    let genesis = network(&[(5, 1)], Some(2));
    let context = machine::Context { now_ms: 0, entropy: [0; 32], caller: protocol::Caller::Internal };
    let stranger = |chain: &mut Chain| -> Block {
        chain.block_with(vec![pay(1, 1)], |header| header.members = Hash::of(b"strangers"))
    };
    let (bench, mut chain) = begin(&genesis);
    let request = Request::Apply(ApplyRequest { block: stranger(&mut chain) });
    let fault = bench.machine.decide(&bench.view, &context, request).expect_err("a fault");
    assert!(fault.0.contains("members that the state does not know"), "{fault}");
    // Where nothing depends on them nobody asks.
    let kept = network(&[(5, 1)], None);
    let (mut bench, mut chain) = begin(&kept);
    assert!(stranger(&mut Chain::of(&kept)).header.members != kept.members_hash());
    assert_eq!(codes(&apply(&mut bench, stranger(&mut chain))), ["ok"]);
}

#[test]
fn what_is_not_to_be_shared_is_kept() {
    let (mut bench, mut chain) = begin(&network(&[(5, 1)], None));
    let members = set(&[(5, 1)]);
    let pool: u128 = (1..9).map(|nonce| paid_in(&mut bench, &mut chain, &members, vec![pay(1, nonce)])).sum();
    assert_eq!(held(&mut bench, &[5]), [0, pool]);
}

#[test]
fn who_comes_by_a_checkpoint_shares_as_the_others_do() {
    let (old, new) = (set(&[(5, 1), (6, 1)]), set(&[(6, 3), (8, 1)]));
    let genesis = network(&[(5, 1), (6, 1)], Some(3));
    let (mut bench, mut chain) = begin(&genesis);
    paid_in(&mut bench, &mut chain, &old, vec![pay(1, 1), choose(2, 1, &new)]);
    paid_in(&mut bench, &mut chain, &new, vec![pay(1, 2)]);
    let (mut joiner, _) = begin(&genesis);
    reset(&mut joiner, &mut bench, None, None);
    for nonce in 3..6 {
        let block = chain.block_with(vec![pay(1, nonce)], |header| header.members = new.hash());
        assert_eq!(apply(&mut joiner, block.clone()), apply(&mut bench, block));
    }
    assert!(held(&mut joiner, &[8])[0] > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever pays, joins and leaves, and whoever carries it out: the accounts add up to the supply after every block, each is what the rules say, and
    /// nobody is paid out of anything but the pool.
    #[test]
    fn sharing_conserves_the_supply(
        blocks in prop::collection::vec((prop::collection::vec((1u8..5, 1u8..9, 0u128..90_000), 0..6), any::<bool>(), 0usize..4), 1..12),
        share_blocks in 1u64..5,
    ) {
        let sets = [set(&[(5, 1), (6, 1)]), set(&[(5, 7), (1, 2), (7, 1)]), set(&[(8, 1_000_000)]), set(&[(6, 3), (7, 3), (8, 1)])];
        let genesis = network(&[(5, 1), (6, 1)], Some(share_blocks));
        let (mut bench, mut chain) = begin(&genesis);
        let (mut threads, _) = begin(&genesis);
        threads.machine.workers = Arc::new(Threads);
        let mut model: BTreeMap<u8, u128> = (1..5).map(|number| (number, SUPPLY / 4)).collect();
        let (mut pool, mut nonce, mut in_force, mut chosen) = (0, 0, sets[0].clone(), sets[0].clone());
        let share = |model: &mut BTreeMap<u8, u128>, pool: &mut u128, members: &MemberSet| {
            let all = *pool;
            let total = u128::from(members.weight_total());
            for number in 1..9 {
                let part = all * u128::from(members.weight_of(&cell(number))) / total;
                *model.entry(number).or_insert(0) += part;
                *pool -= part;
            }
        };
        for (index, (transfers, hands_over, choice)) in (1..).zip(blocks) {
            if hands_over && in_force != chosen {
                share(&mut model, &mut pool, &in_force);
                in_force = chosen.clone();
            }
            let mut transactions = Vec::new();
            for (from, to, amount) in &transfers {
                nonce += 1;
                let args = json!({ "to": cell(*to), "amount": Amount(*amount) });
                transactions.push(call_of("prana", *from, nonce, "transfer", args));
            }
            if choice > 0 {
                nonce += 1;
                chosen = sets[choice].clone();
                transactions.push(choose(1, nonce, &chosen));
            }
            let block = chain.block_with(transactions, |header| header.members = in_force.hash());
            let applied = apply(&mut bench, block.clone());
            prop_assert_eq!(&apply(&mut threads, block), &applied);
            for (place, receipt) in applied.receipts.iter().enumerate() {
                let fee = receipt.fee.map_or(0, |fee| fee.0);
                let (from, to, amount) = transfers.get(place).copied().unwrap_or((1, 1, 0));
                *model.get_mut(&from).expect("a payer") -= fee;
                pool += fee;
                if receipt.ok {
                    *model.get_mut(&from).expect("a payer") -= amount;
                    *model.entry(to).or_insert(0) += amount;
                }
            }
            if index % share_blocks == 0 {
                share(&mut model, &mut pool, &in_force);
            }
            let accounts = accounts(&mut bench);
            let sum: u128 = accounts.iter().filter(|(key, _)| *key != "supply").map(|(_, atoms)| atoms).sum();
            prop_assert_eq!((sum, accounts["supply"]), (SUPPLY, SUPPLY));
            prop_assert_eq!(accounts.get("@fees").copied().unwrap_or(0), pool);
            for (number, atoms) in &model {
                prop_assert_eq!(accounts.get(&cell(*number).to_string()).copied().unwrap_or(0), *atoms, "cell {}", number);
            }
        }
        prop_assert_eq!(&bench.view, &threads.view);
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
    }
}
