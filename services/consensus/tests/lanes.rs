//! Lanes: what is paid for comes first, in the same order on every member; and fees that nobody will take.

mod kit;

use std::collections::BTreeMap;

use consensus::BLOCK_TRANSACTIONS_MAX;
use kit::*;
use proptest::prelude::*;
use protocol::Amount;
use protocol::block::{Block, BlockProof};
use protocol::consensus::{AdoptRequest, OrderedRound, Request, TxStatus};
use protocol::fees::FeeRules;
use protocol::genesis::Genesis;
use protocol::transaction::{Intent, Lane, Transaction};

fn with_fees() -> Genesis {
    Genesis {
        fees: Some(FeeRules { base_min: Amount(1_000), target_units: None, share_blocks: None }),
        ..four()
    }
}

fn mine(sender: u8, nonce: u64, lane: Lane) -> Transaction {
    tx_in(&with_fees(), sender, nonce, lane, 0)
}

fn chain(bench: &mut Cell) -> Vec<Block> {
    (0..progress(bench).0).map(|index| block_of(bench, index).proof.block).collect()
}

/// Sender and nonce of all that is in blocks.
fn places(blocks: &[Block]) -> Vec<(u8, u64)> {
    let sender = |transaction: &Transaction| {
        (1..=9).find(|number| cell(*number) == transaction.sender).expect("one of the test's")
    };
    blocks.iter().flat_map(|block| &block.transactions).map(|tx| (sender(tx), tx.nonce)).collect()
}

fn adopt(bench: &mut Cell, blocks: &[Block]) {
    let words = |block: &Block| [2, 3, 4].map(|member| word(block, member, 7)).to_vec();
    let proof =
        |block: &Block| BlockProof { block: block.clone(), attestations: words(block), handoffs: Vec::new() };
    bench
        .ask(Request::Adopt(AdoptRequest { proofs: blocks.iter().map(proof).collect() }))
        .expect("takes over");
}

#[track_caller]
fn check(genesis: &Genesis, transactions: Vec<Transaction>, expected: &[(u8, u64)]) {
    let mut bench = bench_of(genesis.clone());
    order_rounds(&mut bench, 0, vec![round(1, 1, transactions)]).expect("orders");
    assert_eq!(places(&chain(&mut bench)), expected);
}

#[test]
fn a_round_goes_by_lane_and_within_a_lane_as_it_came() {
    use Lane::{Bulk, Normal, Priority};
    let all = vec![
        mine(1, 1, Bulk),
        mine(2, 1, Normal),
        mine(3, 1, Priority),
        tx_on(&with_fees(), 4, 1),
        mine(5, 1, Bulk),
        mine(3, 2, Priority),
        mine(6, 1, Priority),
    ];
    check(&with_fees(), all, &[(3, 1), (3, 2), (6, 1), (2, 1), (4, 1), (1, 1), (5, 1)]);
    let without = |sender, lane| tx_in(&four(), sender, 1, lane, 0);
    let all = vec![without(1, Bulk), without(2, Priority), without(3, Normal)];
    check(&four(), all, &[(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn none_overtakes_an_earlier_one_of_its_sender() {
    use Lane::{Bulk, Normal, Priority};
    let all = vec![
        mine(1, 1, Normal),
        mine(2, 1, Bulk),
        mine(2, 2, Priority),
        mine(1, 2, Priority),
        mine(3, 1, Normal),
        mine(4, 1, Priority),
        mine(1, 3, Bulk),
        mine(1, 4, Normal),
    ];
    check(&with_fees(), all, &[(4, 1), (1, 1), (1, 2), (3, 1), (2, 1), (2, 2), (1, 3), (1, 4)]);
}

/// What somebody says again of an earlier round, or what is no good, holds nobody up.
#[test]
fn what_is_left_out_slows_nobody() {
    use Lane::{Bulk, Normal, Priority};
    let mut lie = mine(1, 3, Bulk);
    lie.args = "{".into();
    let rounds = vec![
        round(1, 1, vec![mine(1, 1, Bulk), mine(2, 1, Normal)]),
        round(2, 2, vec![mine(2, 2, Normal), mine(1, 1, Bulk), lie, mine(1, 2, Priority)]),
    ];
    let mut at_once = bench_of(with_fees());
    order_rounds(&mut at_once, 0, rounds.clone()).expect("orders");
    let blocks = chain(&mut at_once);
    assert_eq!(places(&blocks), [(2, 1), (1, 1), (1, 2), (2, 2)]);
    let mut one_by_one = bench_of(with_fees());
    for round in rounds {
        order_rounds(&mut one_by_one, 0, vec![round]).expect("orders");
    }
    assert_eq!(chain(&mut one_by_one), blocks);
}

/// The last of sender 1's priority is behind its bulk, which is in the first block that was taken over, or not.
#[test]
fn a_round_that_was_taken_over_in_part_keeps_its_lanes() {
    let half = BLOCK_TRANSACTIONS_MAX as u64 / 2;
    let mut all = vec![mine(1, 1, Lane::Bulk)];
    all.extend((1..half).map(|nonce| mine(2, nonce, Lane::Normal)));
    all.extend((1..=half).map(|nonce| mine(3, nonce, Lane::Bulk)));
    all.extend((1..=half).map(|nonce| mine(4, nonce, Lane::Bulk)));
    all.extend([mine(1, 2, Lane::Priority), mine(4, half + 1, Lane::Priority), mine(2, half, Lane::Bulk)]);
    let rounds = vec![round(1, 7, all), round(2, 9, vec![mine(1, 3, Lane::Priority)])];
    let mut ahead = bench_of(with_fees());
    order_rounds(&mut ahead, 0, rounds.clone()).expect("orders");
    let blocks = chain(&mut ahead);
    assert_eq!(blocks.iter().map(|block| block.transactions.len()).collect::<Vec<_>>(), [1_000, 503, 1]);
    let order = places(&blocks);
    assert_eq!(order[order.len() - 4..], [(1, 2), (4, half + 1), (2, half), (1, 3)]);
    for count in 0..=blocks.len() {
        let mut behind = bench_of(with_fees());
        adopt(&mut behind, &blocks[..count]);
        order_rounds(&mut behind, 0, rounds.clone()).expect("orders");
        assert_eq!(chain(&mut behind), blocks, "{count} blocks taken over");
    }
}

/// Two rounds, large enough that one fills several blocks; most nonces rise, as they came.
fn rounds() -> impl Strategy<Value = Vec<OrderedRound>> {
    let lane = prop::sample::select(Lane::ALL.to_vec());
    let one = (1u8..4, lane, prop::bool::weighted(0.7), prop::option::weighted(0.1, 1u64..64));
    prop::collection::vec(prop::collection::vec(one, 0..56), 2).prop_map(|rounds| {
        let mut next = 0;
        let mut transaction = |(sender, lane, is_large, stale): (u8, Lane, bool, Option<u64>)| {
            next += 1;
            let bytes = if is_large { 250_000 } else { 0 };
            tx_in(&with_fees(), sender, stale.unwrap_or(next), lane, bytes)
        };
        let rounds = rounds.into_iter().map(|all| all.into_iter().map(&mut transaction).collect());
        (1..).zip(rounds).map(|(number, all)| round(number, number, all)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// However members come by the same rounds, their blocks are the same; each sender's nonces rise; and in a round a
    /// transaction is behind a slower one only if one of its sender, as slow, is before it.
    #[test]
    fn members_make_the_same_blocks(rounds in rounds(), some in any::<prop::sample::Index>()) {
        let mut ahead = bench_of(with_fees());
        order_rounds(&mut ahead, 0, rounds.clone()).expect("orders");
        let blocks = chain(&mut ahead);
        let mut last = BTreeMap::new();
        let mut slowest: BTreeMap<(u64, u8), Lane> = BTreeMap::new();
        let mut reached: BTreeMap<u64, Lane> = BTreeMap::new();
        for block in &blocks {
            for ((sender, nonce), transaction) in places(std::slice::from_ref(block)).into_iter().zip(&block.transactions) {
                prop_assert!(last.insert(sender, nonce).is_none_or(|last| last < nonce));
                let round = block.header.round;
                let lane = slowest.entry((round, sender)).or_insert(Lane::Priority);
                *lane = (*lane).max(transaction.lane());
                let before = reached.insert(round, *lane);
                prop_assert!(before.is_none_or(|before| before <= *lane));
            }
        }
        let mut behind = bench_of(with_fees());
        adopt(&mut behind, &blocks[..some.index(blocks.len() + 1)]);
        for round in rounds {
            order_rounds(&mut behind, 0, vec![round]).expect("orders");
        }
        prop_assert_eq!(chain(&mut behind), blocks);
    }
}

fn paying(genesis: &Genesis, nonce: u64, lane: Lane, max_fee: u128) -> Transaction {
    let (module, call, max_fee) = ("kv".into(), "put".into(), Some(Amount(max_fee)));
    let args = serde_json::json!({});
    let intent = Intent { module, call, args, nonce: None, lane: Some(lane), max_fee };
    Transaction::sign(&key(2), genesis.hash(), &intent, nonce)
}

#[test]
fn what_will_never_pay_enough_is_not_taken_in() {
    // kv, put, {}: 7 bytes.
    let normal = (4_096 + 7) * 1_000;
    let genesis = with_fees();
    let mut bench = bench_of(genesis.clone());
    let cases = [(Lane::Priority, 4 * normal), (Lane::Normal, normal), (Lane::Bulk, normal / 4)];
    for (nonce, (lane, due)) in (1..).zip(cases) {
        let too_low = paying(&genesis, nonce, lane, due - 1);
        assert_eq!(code(admit(&mut bench, too_low.clone())), "consensus.fee_too_low");
        assert!(order(&mut bench, vec![too_low]).is_empty(), "nor from another member");
        let enough = paying(&genesis, nonce, lane, due);
        assert_eq!(admit(&mut bench, enough.clone()).expect("admits").status, TxStatus::Accepted);
        assert_eq!(order(&mut bench, vec![enough]).len(), 1);
    }
    admit(&mut bench, tx_on(&genesis, 2, 9)).expect("one that names no bound pays what is due");
    let mut without = bench_of(four());
    admit(&mut without, paying(&four(), 1, Lane::Priority, 0)).expect("nothing is due");
}
