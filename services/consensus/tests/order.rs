//! From rounds to blocks: the same on every member. And where events are journaled.

mod kit;

use std::collections::{BTreeMap, BTreeSet};

use consensus::{BLOCK_TRANSACTIONS_MAX, Record};
use kit::*;
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::beacon::Drawn;
use protocol::block::{Block, BlockProof};
use protocol::consensus::{
    AdoptRequest, Answer, OrderedRound, RecordRequest, Recorded, RecordedRequest, Request, TxStatus,
};
use protocol::elected::ElectedRules;
use protocol::genesis::Genesis;
use protocol::shared::ListRequest;
use protocol::transaction::Transaction;
use protocol::{CellId, GenesisHash, Hash, TxId};

fn mine(sender: u8, nonce: u64) -> Transaction {
    tx_on(&four(), sender, nonce)
}

/// All blocks of a cell.
fn chain(bench: &mut Cell) -> Vec<Block> {
    (0..progress(bench).0).map(|index| block_of(bench, index).proof.block).collect()
}

fn ids(blocks: &[Block]) -> Vec<TxId> {
    blocks.iter().flat_map(|block| &block.transactions).map(Transaction::id).collect()
}

/// Gives one cell all rounds at once and another one by one, and a third one by one twice; gives the blocks, the same on all.
#[track_caller]
fn check(rounds: &[OrderedRound], expected: &[Transaction]) -> Vec<Block> {
    let mut at_once = bench_of(four());
    order_rounds(&mut at_once, 0, rounds.to_vec()).expect("orders");
    let blocks = chain(&mut at_once);
    assert_eq!(ids(&blocks), expected.iter().map(Transaction::id).collect::<Vec<_>>());
    for times in [1, 2] {
        let mut one_by_one = bench_of(four());
        for round in rounds {
            for _ in 0..times {
                order_rounds(&mut one_by_one, 0, vec![round.clone()]).expect("orders");
            }
        }
        assert_eq!(chain(&mut one_by_one), blocks);
    }
    blocks
}

#[test]
fn a_round_fills_a_block_that_follows_the_one_before() {
    let rounds = [round(3, 20, vec![mine(1, 1), mine(2, 1)]), round(4, 30, vec![mine(1, 2)])];
    let blocks = check(&rounds, &[mine(1, 1), mine(2, 1), mine(1, 2)]);
    let header = &blocks[1].header;
    assert_eq!((header.index.0, header.epoch, header.round, header.time_ms), (1, 0, 4, 30));
    assert_eq!(header.previous, blocks[0].header.hash());
    assert_eq!((header.genesis, header.members), (four().hash(), four().members_hash()));
    assert_eq!(header.transactions_root, Block::transactions_root(&blocks[1].transactions));
}

#[test]
fn a_transaction_is_in_one_block_however_often_it_comes() {
    let rounds = [
        round(1, 1, vec![mine(1, 1), mine(1, 1), mine(2, 5), mine(1, 1)]),
        round(2, 2, vec![mine(2, 5)]),
        round(3, 3, vec![mine(1, 1), mine(1, 2), mine(2, 5), mine(1, 2)]),
    ];
    let blocks = check(&rounds, &[mine(1, 1), mine(2, 5), mine(1, 2)]);
    assert_eq!(blocks.len(), 2, "a round with nothing new fills none");
}

/// Where it waits, coming twice does not make it a rejected one.
#[test]
fn what_comes_twice_in_one_round_is_not_left_out() {
    let mut bench = bench_of(four());
    admit(&mut bench, mine(1, 1)).expect("admits");
    let block = order(&mut bench, vec![mine(1, 1), mine(1, 1)]).pop().expect("a block");
    execute(&mut bench, &block);
    hear(&mut bench, vec![word(&block, 2, 7), word(&block, 3, 7)]);
    assert_eq!(status(&mut bench, &mine(1, 1)), Some(TxStatus::Finalised));
    assert!(!names(&bench).contains(&"consensus.rejected"));
}

#[test]
fn times_never_go_back_and_a_round_without_blocks_does_not_move_them() {
    let rounds = [
        round(1, 50, vec![mine(1, 1)]),
        round(2, 40, vec![mine(1, 2)]),
        round(3, 90, vec![mine(1, 2)]),
        round(4, 60, vec![mine(1, 3)]),
    ];
    let blocks = check(&rounds, &[mine(1, 1), mine(1, 2), mine(1, 3)]);
    assert_eq!(blocks.iter().map(|block| block.header.time_ms).collect::<Vec<_>>(), [50, 50, 60]);
}

fn changed(nonce: u64, change: impl FnOnce(&mut Transaction)) -> Transaction {
    let mut transaction = mine(3, nonce);
    change(&mut transaction);
    transaction
}

/// What no honest member would have put into its event.
fn lies(nonce: u64) -> [Transaction; 5] {
    [
        changed(nonce, |tx| tx.genesis = GenesisHash::ZERO),
        changed(nonce, |tx| tx.module = "none".into()),
        changed(nonce, |tx| tx.call = "get".into()),
        changed(nonce, |tx| tx.args = "{".into()),
        changed(nonce, |tx| tx.nonce = u64::MAX),
    ]
}

#[test]
fn what_no_honest_member_says_is_left_out_and_leaves_no_trace() {
    let mut all = lies(5).to_vec();
    all.insert(2, mine(1, 2));
    all.extend([mine(1, 1), mine(1, 2), mine(3, 0), mine(3, 1)]);
    check(&[round(1, 1, all.clone()), round(2, 2, all)], &[mine(1, 2), mine(3, 1)]);
    let mut bench = bench_of(four());
    assert!(order(&mut bench, lies(5).to_vec()).is_empty());
    assert!(bench.journal.is_empty() && bench.events.is_empty());
}

#[test]
fn what_is_left_out_and_waits_is_rejected() {
    let mut bench = bench_of(four());
    for nonce in 1..=4 {
        admit(&mut bench, mine(1, nonce)).expect("admits");
    }
    let rounds = vec![round(1, 1, vec![mine(1, 3), mine(1, 2), mine(1, 2)])];
    order_rounds(&mut bench, 0, rounds.clone()).expect("orders");
    let view = view_of(&mut bench, &mine(1, 2)).expect("it is here");
    assert_eq!((view.status, view.block, view.root), (TxStatus::Rejected, None, None));
    let problem = view.problem.expect("why");
    assert_eq!(problem.code, "consensus.nonce_used");
    assert!(problem.cause.contains("nonce 2 is not above 3"), "{problem}");
    assert_eq!(
        waiting(&mut bench).iter().map(|waiting| waiting.transaction.nonce).collect::<Vec<_>>(),
        [1, 4]
    );
    assert_eq!(status(&mut bench, &mine(1, 1)), Some(TxStatus::Accepted), "nobody has said it yet");
    let rejected: Vec<_> = bench
        .events
        .iter()
        .filter(|event| event.event == "consensus.rejected")
        .map(|event| &event.data)
        .collect();
    assert_eq!(rejected, [&serde_json::json!({ "id": mine(1, 2).id(), "block": null, "problem": problem })]);
    let length = bench.journal.len();
    order_rounds(&mut bench, 0, rounds).expect("the same again");
    order(&mut bench, vec![mine(1, 2), mine(1, 2)]);
    assert_eq!(bench.journal.len(), length, "it came to its end once");
    assert_eq!(admit(&mut bench, mine(1, 2)).expect("it is here").status, TxStatus::Rejected);
    order(&mut bench, vec![mine(1, 4), mine(1, 1)]);
    assert!(waiting(&mut bench).is_empty() && status(&mut bench, &mine(1, 1)) == Some(TxStatus::Rejected));
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn rounds_that_were_ordered_and_epochs_that_are_over_are_passed_by() {
    let mut bench = bench_of(four());
    order_rounds(&mut bench, 0, vec![round(4, 1, vec![mine(1, 1)])]).expect("orders");
    order_rounds(&mut bench, 0, vec![round(3, 1, vec![mine(1, 2)])]).expect("an older round");
    assert_eq!(progress(&mut bench).0, 1);
    order_rounds(&mut bench, 1, vec![round(1, 2, vec![mine(1, 2)])]).expect("rounds begin anew");
    order_rounds(&mut bench, 0, vec![round(9, 2, vec![mine(1, 3)])]).expect("an older epoch");
    assert_eq!(progress(&mut bench).0, 2);
    let now = epoch(&mut bench);
    assert_eq!((now.epoch, now.base, now.round, now.events), (1, 1, 1, 0));
}

fn proofs(blocks: &[Block]) -> Request {
    let words = |block: &Block| [2, 3, 4].map(|member| word(block, member, 7)).to_vec();
    let proof =
        |block: &Block| BlockProof { block: block.clone(), attestations: words(block), handoffs: Vec::new() };
    Request::Adopt(AdoptRequest { proofs: blocks.iter().map(proof).collect() })
}

/// The others' words may have made only the first blocks of a round final yet.
#[test]
fn a_round_that_was_taken_over_in_part_fills_the_rest() {
    let many = (1..=2 * BLOCK_TRANSACTIONS_MAX as u64 + 1).map(|nonce| mine(2, nonce));
    let mut all: Vec<_> = many.collect();
    all.insert(1, mine(1, 3));
    all.insert(1_500, mine(1, 2));
    all.insert(2_000, mine(1, 4));
    let rounds = vec![round(1, 7, all), round(2, 5, vec![mine(4, 1)])];
    let mut ahead = bench_of(four());
    order_rounds(&mut ahead, 0, rounds.clone()).expect("orders");
    let blocks = chain(&mut ahead);
    assert_eq!(blocks.iter().map(|block| block.transactions.len()).collect::<Vec<_>>(), [1_000, 1_000, 3, 1]);
    for count in 0..=4 {
        let mut behind = bench_of(four());
        behind.ask(proofs(&blocks[..count])).expect("takes over");
        order_rounds(&mut behind, 0, rounds.clone()).expect("orders");
        assert_eq!(chain(&mut behind), blocks, "{count} blocks taken over");
    }
}

#[test]
fn a_block_of_an_epoch_that_is_over_hides_no_round_of_the_present_one() {
    let mut ahead = bench_of(four());
    order_rounds(&mut ahead, 0, vec![round(9, 1, vec![mine(1, 1)])]).expect("orders");
    order_rounds(&mut ahead, 1, vec![round(2, 2, vec![mine(1, 2)])]).expect("orders");
    let blocks = chain(&mut ahead);
    let mut behind = bench_of(four());
    record(&mut behind, 1, 0, 1).expect("it hears of the epoch first");
    behind.ask(proofs(&blocks[..1])).expect("takes over");
    assert_eq!((epoch(&mut behind).epoch, epoch(&mut behind).round, epoch(&mut behind).events), (1, 0, 1));
    order_rounds(&mut behind, 1, vec![round(2, 2, vec![mine(1, 2)])]).expect("orders");
    assert_eq!(chain(&mut behind), blocks);
}

/// What comes with rounds: mostly good, some of it stale or lies.
fn transactions() -> impl Strategy<Value = Vec<Transaction>> {
    let one = prop_oneof![
        8 => (1u8..4, 1u64..12).prop_map(|(sender, nonce)| mine(sender, nonce)),
        1 => (0usize..5, 1u64..12).prop_map(|(lie, nonce)| lies(nonce)[lie].clone()),
    ];
    prop::collection::vec(one, 0..5)
}

/// Rounds of two epochs, some missing since nothing was in them, with any times.
fn epochs() -> impl Strategy<Value = [Vec<OrderedRound>; 2]> {
    let rounds = || {
        prop::collection::vec((1u64..3, 0u64..50, transactions()), 0..8).prop_map(|rounds| {
            let number = |number: &mut u64, (more, time_ms, transactions)| {
                *number += more;
                Some(round(*number, time_ms, transactions))
            };
            rounds.into_iter().scan(0, number).collect::<Vec<_>>()
        })
    };
    (rounds(), rounds()).prop_map(|(one, other)| [one, other])
}

/// How one cell comes by its rounds: after each request so many more, some given again before them, and what is
/// submitted here.
type Way = Vec<(usize, usize, Vec<(u8, u64)>)>;

fn way() -> impl Strategy<Value = Way> {
    prop::collection::vec((1usize..4, 0usize..4, prop::collection::vec((1u8..4, 1u64..12), 0..4)), 1..6)
}

/// What the members are to agree on, by definition: blocks as their transactions and time.
#[derive(Debug, Default, PartialEq)]
struct Model {
    blocks: Vec<(Vec<TxId>, u64)>,
    ordered: BTreeSet<TxId>,
    last: BTreeMap<CellId, u64>,
}

impl Model {
    /// A round; gives what was left out.
    fn take(&mut self, round: &OrderedRound) -> BTreeSet<TxId> {
        let (mut block, mut left_out) = (Vec::new(), BTreeSet::new());
        for transaction in &round.transactions {
            let (id, last) = (transaction.id(), self.last.entry(transaction.sender).or_insert(0));
            if self.ordered.contains(&id) {
                continue;
            }
            // Lies are made of good ones after they were signed.
            let is_good = transaction.signature_holds();
            if is_good && transaction.nonce > *last {
                *last = transaction.nonce;
                self.ordered.insert(id);
                block.push(id);
            } else {
                left_out.insert(id);
            }
        }
        if !block.is_empty() {
            let before = self.blocks.last().map_or(0, |(_, time_ms)| *time_ms);
            self.blocks.push((block, before.max(round.time_us / 1_000)));
        }
        left_out
    }
}

/// A cell that goes its way through the rounds. Each transaction that it took in has to be where the model has it.
fn go(epochs: &[Vec<OrderedRound>; 2], way: &Way) -> Result<(Cell, Model), TestCaseError> {
    let (mut bench, mut model) = (bench_of(four()), Model::default());
    let (mut waits, mut rejected) = (BTreeMap::new(), BTreeSet::new());
    let mut turns = way.iter().cycle();
    for (epoch, rounds) in (0..).zip(epochs) {
        let mut given = 0;
        while given < rounds.len() {
            let (more, again, submitted) = turns.next().expect("it is endless");
            for (sender, nonce) in submitted {
                let transaction = mine(*sender, *nonce);
                let known = view_of(&mut bench, &transaction).is_some();
                if admit(&mut bench, transaction.clone()).is_ok() && !known {
                    prop_assert!(!model.ordered.contains(&transaction.id()));
                    waits.insert(transaction.id(), transaction);
                }
            }
            let (from, to) = (given.saturating_sub(*again), rounds.len().min(given + more));
            order_rounds(&mut bench, epoch, rounds[from..to].to_vec()).expect("orders");
            for round in &rounds[given..to] {
                let left_out = model.take(round);
                rejected.extend(left_out.into_iter().filter(|id| waits.remove(id).is_some()));
                waits.retain(|id, _| !model.ordered.contains(id));
            }
            given = to;
            let still: BTreeSet<_> =
                waiting(&mut bench).iter().map(|waiting| waiting.transaction.id()).collect();
            prop_assert_eq!(still, waits.keys().copied().collect::<BTreeSet<_>>());
        }
    }
    let ends: BTreeSet<_> = records(&bench)
        .into_iter()
        .filter_map(|record| match record {
            Record::LeftOut { items } => Some(items),
            _ => None,
        })
        .flatten()
        .map(|(id, _)| id)
        .collect();
    prop_assert_eq!(ends, rejected);
    let (replayed, before) = bench.replay();
    prop_assert_eq!(replayed, before);
    Ok((bench, model))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However two members come by the same rounds, and whatever is submitted to them meanwhile.
    #[test]
    fn members_make_the_same_blocks(epochs in epochs(), ways in [way(), way()]) {
        let [(mut one, model), (mut other, _)] = [go(&epochs, &ways[0])?, go(&epochs, &ways[1])?];
        let blocks = chain(&mut one);
        let hashes = |blocks: &[Block]| blocks.iter().map(|block| block.header.hash()).collect::<Vec<_>>();
        prop_assert_eq!(hashes(&blocks), hashes(&chain(&mut other)));
        let made: Vec<_> = blocks
            .iter()
            .map(|block| (block.transactions.iter().map(Transaction::id).collect::<Vec<_>>(), block.header.time_ms))
            .collect();
        prop_assert_eq!(made, model.blocks);
        for pair in blocks.windows(2) {
            prop_assert_eq!(pair[1].header.previous, pair[0].header.hash());
            prop_assert!((pair[0].header.epoch, pair[0].header.round) < (pair[1].header.epoch, pair[1].header.round));
        }
    }

    /// A member that takes some of the blocks over makes the others as everybody does.
    #[test]
    fn a_member_that_was_behind_goes_on_with_the_same_blocks(
        epochs in epochs(), way in way(), count in any::<Index>(),
    ) {
        let (mut ahead, _) = go(&epochs, &way)?;
        let blocks = chain(&mut ahead);
        let mut behind = bench_of(four());
        behind.ask(proofs(&blocks[..count.index(blocks.len() + 1)])).expect("takes over");
        for (epoch, rounds) in (0..).zip(epochs) {
            order_rounds(&mut behind, epoch, rounds).expect("orders");
        }
        prop_assert_eq!(chain(&mut behind), blocks);
    }
}

fn record(bench: &mut Cell, epoch: u64, first: u64, count: u8) -> Result<(), String> {
    let events = (0..count).map(|number| vec![number]).collect();
    let request = Request::Record(RecordRequest { epoch, first, events });
    bench.ask(request).map(|_| ()).map_err(|problem| problem.code.into_owned())
}

fn find(bench: &mut Cell, epoch: u64, number: u64) -> Option<(u64, u64)> {
    match bench.ask(Request::FindRecorded(RecordedRequest { epoch, number })) {
        Ok(Answer::FindRecorded(Recorded { entry, place })) => Some((entry, place)),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => {
            assert_eq!(problem.code, "consensus.unknown_event");
            None
        }
    }
}

#[test]
fn events_are_recorded_in_order_without_a_gap() {
    let mut bench = bench_of(four());
    let not_next = Err("consensus.not_next_event".to_owned());
    assert_eq!(record(&mut bench, 0, 1, 1), not_next);
    record(&mut bench, 0, 0, 3).expect("the first");
    for first in [0, 2, 4, u64::MAX] {
        assert_eq!(record(&mut bench, 0, first, 1), not_next, "{first}");
        assert_eq!(record(&mut bench, 0, first, 0), not_next, "{first}");
    }
    record(&mut bench, 0, 3, 0).expect("nothing");
    assert_eq!(bench.journal.len(), 1);
    record(&mut bench, 0, 3, 1).expect("the next");
    assert_eq!(record(&mut bench, 1, 4, 1), not_next, "an epoch begins with 0");
    record(&mut bench, 1, 0, 1).expect("an epoch begins");
    for first in [0, 1, 4] {
        assert_eq!(record(&mut bench, 0, first, 1), not_next, "that one is over");
    }
    let now = epoch(&mut bench);
    assert_eq!((now.epoch, now.events, now.entry), (1, 1, Some(2)));
    assert!(bench.take_effects().is_empty() && bench.events.is_empty());
}

#[test]
fn events_of_this_epoch_and_the_one_before_are_found() {
    let mut bench = bench_of(four());
    assert_eq!(epoch(&mut bench).entry, None);
    for (number, epoch) in [3, 4, 5].into_iter().enumerate() {
        record(&mut bench, epoch, 0, 2).expect("records");
        record(&mut bench, epoch, 2, 1).expect("records");
        admit(&mut bench, mine(1, number as u64 + 1)).expect("an entry between");
        record(&mut bench, epoch, 3, 3).expect("records");
    }
    for (epoch, entry) in [(4, 4), (5, 8)] {
        let places = [(0, 0), (0, 1), (1, 0), (3, 0), (3, 1), (3, 2)];
        for (number, (more, place)) in (0..).zip(places) {
            assert_eq!(find(&mut bench, epoch, number), Some((entry + more, place)), "{number} of {epoch}");
            let Record::Events { epoch: of, first, events } = &records(&bench)[(entry + more) as usize]
            else {
                panic!("events");
            };
            assert_eq!((*of, first + place), (epoch, number));
            assert!((place as usize) < events.len());
        }
        assert_eq!(find(&mut bench, epoch, 6), None);
        assert_eq!(find(&mut bench, epoch, u64::MAX), None);
    }
    for number in [0, 2, 5] {
        assert_eq!(find(&mut bench, 3, number), None, "two epochs ago");
        assert_eq!(find(&mut bench, 6, number), None, "not begun");
    }
    assert_eq!(epoch(&mut bench).entry, Some(8));
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

/// An epoch may begin with a block that was taken over, before any of its events came.
#[test]
fn events_are_forgotten_whichever_way_an_epoch_began() {
    let mut ahead = bench_of(four());
    order_rounds(&mut ahead, 2, vec![round(1, 1, vec![mine(1, 1)])]).expect("orders");
    let blocks = chain(&mut ahead);
    let mut bench = bench_of(four());
    record(&mut bench, 0, 0, 1).expect("records");
    bench.ask(proofs(&blocks)).expect("takes over");
    let now = epoch(&mut bench);
    assert_eq!((now.epoch, now.events, now.entry), (2, 0, None));
    record(&mut bench, 2, 0, 1).expect("records");
    assert_eq!(find(&mut bench, 0, 0), None);
    assert!(find(&mut bench, 2, 0).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However events are cut into requests, each is found where it is journaled.
    #[test]
    fn every_event_is_found(sizes in prop::collection::vec(0usize..5, 0..20), entries_between in 0u64..3) {
        let mut bench = bench_of(four());
        let mut next = 0u64;
        for (turn, size) in (0u64..).zip(sizes) {
            let events = (next..next + size as u64).map(|number| number.to_be_bytes().to_vec()).collect();
            bench.ask(Request::Record(RecordRequest { epoch: 0, first: next, events })).expect("records");
            next += size as u64;
            for entry in 0..entries_between {
                admit(&mut bench, mine(1, turn * 3 + entry + 1)).expect("admits");
            }
        }
        let records = records(&bench);
        for number in 0..next {
            let (entry, place) = find(&mut bench, 0, number).expect("it is recorded");
            let Record::Events { events, .. } = &records[entry as usize] else { panic!("events") };
            prop_assert_eq!(&**events[place as usize], &number.to_be_bytes());
        }
        prop_assert_eq!(find(&mut bench, 0, next), None);
    }
}

/// A round with these transactions and this draw.
fn drawing(number: u64, transactions: Vec<Transaction>, draw: Option<u64>) -> OrderedRound {
    let drawn = draw.map(|draw| Drawn { draw, value: Hash::of(&draw.to_le_bytes()), fixed: Some(number) });
    OrderedRound { drawn, ..round(number, number, transactions) }
}

#[test]
fn a_value_tells_the_round_that_fixed_it_where_the_network_elects() {
    let elected = Some(ElectedRules { serve_blocks: 8, seats_max: None });
    for (elected, fixed) in [(elected, Some(1)), (None, None)] {
        let genesis = Genesis { elected, beacon_rounds: Some(1), ..four() };
        let mut bench = bench_of(genesis.clone());
        let rounds = vec![drawing(1, Vec::new(), Some(1)), drawing(2, vec![tx_on(&genesis, 1, 1)], None)];
        order_rounds(&mut bench, 0, rounds).expect("orders");
        let drawn = block_of(&mut bench, 0).proof.block.header.beacon.expect("a value");
        assert_eq!((drawn.draw, drawn.fixed), (1, fixed));
        let (replayed, before) = bench.replay();
        assert_eq!(replayed, before);
    }
}

/// The draws that the blocks have.
fn in_blocks(bench: &mut Cell) -> Vec<Option<u64>> {
    let blocks = progress(bench).0;
    (0..blocks)
        .map(|index| block_of(bench, index).proof.block.header.beacon.map(|drawn| drawn.draw))
        .collect()
}

#[test]
fn the_first_block_of_a_round_has_what_was_drawn_since_the_block_before() {
    let many = |from: u64| (from..from + 1_001).map(|nonce| mine(1, nonce)).collect();
    let rounds = vec![
        drawing(1, vec![mine(1, 1)], None),
        drawing(2, Vec::new(), Some(1)),
        drawing(3, Vec::new(), Some(2)),
        drawing(4, many(2), Some(3)),
        drawing(5, vec![mine(1, 2_000)], None),
        drawing(6, vec![mine(1, 2_001)], Some(4)),
        drawing(7, Vec::new(), Some(5)),
    ];
    let expected = [None, Some(3), None, None, Some(4)];
    let mut at_once = bench_of(four());
    order_rounds(&mut at_once, 0, rounds.clone()).expect("orders");
    assert_eq!(in_blocks(&mut at_once), expected);
    // Round by round, with each one given again, and the journal replayed in between.
    let mut one_by_one = bench_of(four());
    for upto in 1..=rounds.len() {
        order_rounds(&mut one_by_one, 0, rounds[upto.saturating_sub(2)..upto].to_vec()).expect("orders");
        let (replayed, before) = one_by_one.replay();
        assert_eq!(replayed, before);
    }
    let blocks =
        |bench: &mut Cell| -> Vec<Block> { (0..5).map(|index| block_of(bench, index).proof.block).collect() };
    assert_eq!(blocks(&mut one_by_one), blocks(&mut at_once));
    // All draws are listed, newest first; of one who has the blocks alone, those in them.
    let listed = |bench: &mut Cell| match bench
        .ask(Request::Draws(ListRequest { limit: Some(2), cursor: None }))
    {
        Ok(Answer::Draws(page)) => page.items.iter().map(|view| (view.draw, view.round)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(listed(&mut at_once), [(5, 7), (4, 6)]);
    let words = |block: &Block| [1, 2, 3].map(|member| word(block, member, 7)).to_vec();
    let proof = |block: Block| BlockProof { attestations: words(&block), block, handoffs: Vec::new() };
    let proofs = blocks(&mut at_once).into_iter().map(proof).collect();
    let mut behind = bench_of(four());
    behind.ask(Request::Adopt(AdoptRequest { proofs })).expect("adopts");
    assert_eq!(listed(&mut behind), [(4, 6), (3, 4)]);
    // It goes on as the others do: what came before the last block is no news.
    for bench in [&mut at_once, &mut behind] {
        order_rounds(bench, 0, rounds[4..].to_vec()).expect("orders");
        order_rounds(bench, 0, vec![drawing(8, vec![mine(1, 3_000)], None)]).expect("orders");
    }
    assert_eq!(block_of(&mut behind, 5).proof.block, block_of(&mut at_once, 5).proof.block);
    assert_eq!(in_blocks(&mut behind).last(), Some(&Some(5)));
    // Another epoch begins with none.
    order_rounds(
        &mut at_once,
        1,
        vec![drawing(1, Vec::new(), Some(1)), drawing(2, vec![mine(1, 3_001)], None)],
    )
    .expect("orders");
    assert_eq!(in_blocks(&mut at_once).last(), Some(&Some(1)));
}
