//! The rules of Consensus about transactions: checked before taken in, then to their end; and about lists.

mod kit;

use std::collections::BTreeMap;

use consensus::{EXECUTION_LAG_BLOCKS_MAX, Effect, Record, WAITING_MAX};
use kit::*;
use proptest::prelude::*;
use protocol::consensus::{
    AdmitAllRequest, Answer, ConsensusStatus, MembersRequest, NextNonceRequest, RecordRequest, Request,
    Submitted, SubmittedAll, TxStatus,
};
use protocol::shared::{Empty, ListRequest};
use protocol::transaction::Transaction;
use protocol::{BlockIndex, GenesisHash};

fn changed(change: impl FnOnce(&mut Transaction)) -> Transaction {
    let mut transaction = tx(5);
    change(&mut transaction);
    transaction
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_taken_in() {
    let mut bench = bench();
    let cases = [
        (changed(|tx| tx.genesis = GenesisHash::ZERO), "consensus.wrong_network"),
        (changed(|tx| tx.module = "none".into()), "consensus.unknown_module"),
        (changed(|tx| tx.module = "n".repeat(65)), "consensus.bad_transaction"),
        (changed(|tx| tx.call = "get".into()), "kv.unknown_call"),
        (changed(|tx| tx.args = "{".into()), "consensus.bad_transaction"),
        (changed(|tx| tx.args = format!("\"{}\"", "x".repeat(256 * 1024))), "consensus.bad_transaction"),
        (changed(|tx| tx.nonce = u64::MAX), "consensus.bad_transaction"),
        (changed(|tx| tx.nonce = 0), "consensus.nonce_used"),
    ];
    for (transaction, expected) in cases {
        assert_eq!(code(admit(&mut bench, transaction)), expected);
    }
    assert!(bench.journal.is_empty());
}

fn next_nonce(bench: &mut Cell) -> u64 {
    match bench.ask(Request::GetNextNonce(NextNonceRequest { cell: cell(2) })) {
        Ok(Answer::GetNextNonce(next)) => next.nonce,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_transaction_is_taken_in_once_and_an_older_nonce_not_at_all() {
    let mut bench = bench();
    let accepted = admit(&mut bench, tx(5)).expect("admits");
    assert_eq!(admit(&mut bench, tx(5)), Ok(accepted));
    let problem = admit(&mut bench, tx(4)).expect_err("older");
    assert_eq!(problem.code, "consensus.nonce_used");
    assert!(problem.cause.contains("above 5"), "the cause names the last nonce: {problem}");
    assert_eq!(bench.journal.len(), 1);
    assert_eq!(next_nonce(&mut bench), 6, "waiting transactions count");
    let effects = bench.take_effects();
    run(&mut bench, effects);
    assert_eq!(admit(&mut bench, tx(5)).expect("still the same").status, TxStatus::Finalised);
    assert_eq!(admit(&mut bench, tx(5)).expect("and again").block, Some(BlockIndex(0)));
}

#[test]
fn of_many_at_once_each_has_the_outcome_it_would_have_alone() {
    let mut bench = bench();
    admit(&mut bench, tx(2)).expect("admits");
    let bad = changed(|tx| (tx.nonce, tx.call) = (9, "get".into()));
    let transactions = vec![tx(2), tx(5), bad, tx(4), tx(5), tx(6)];
    let all = bench.ask(Request::AdmitAll(AdmitAllRequest { transactions }));
    let Ok(Answer::AdmitAll(SubmittedAll { items })) = all else { panic!("{all:?}") };
    let outcome = |item: &Submitted| match &item.problem {
        None => format!("{:?}", item.status.expect("it is known")),
        Some(problem) => problem.code.to_string(),
    };
    let outcomes: Vec<String> = items.iter().map(outcome).collect();
    let accepted = "Accepted";
    assert_eq!(
        outcomes,
        [accepted, accepted, "kv.unknown_call", "consensus.nonce_used", accepted, accepted],
        "one that is here, new ones, one that no module takes, an older one, one that came twice"
    );
    assert_eq!(bench.journal.len(), 3, "what is new is journaled, once");
    assert_eq!(next_nonce(&mut bench), 7);
}

#[test]
fn many_at_once_do_not_come_in_beyond_the_bound() {
    let mut bench = bench();
    let transactions: Vec<Transaction> = (1..=WAITING_MAX + 2).map(tx).collect();
    let all = bench.ask(Request::AdmitAll(AdmitAllRequest { transactions }));
    let Ok(Answer::AdmitAll(SubmittedAll { items })) = all else { panic!("{all:?}") };
    let refused: Vec<&Submitted> = items.iter().filter(|item| item.problem.is_some()).collect();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].problem.as_ref().expect("why").code, "consensus.busy");
}

#[test]
fn what_was_ordered_from_elsewhere_counts_as_taken_in() {
    let mut bench = bench();
    admit(&mut bench, tx(5)).expect("admits");
    order(&mut bench, vec![tx(3)]);
    assert_eq!(next_nonce(&mut bench), 6, "an older one does not turn it back");
    order(&mut bench, vec![tx(7)]);
    assert_eq!(next_nonce(&mut bench), 8);
    assert_eq!(code(admit(&mut bench, tx(6))), "consensus.nonce_used");
    let length = bench.journal.len();
    assert_eq!(admit(&mut bench, tx(7)).expect("it is here").status, TxStatus::Ordered);
    assert_eq!(bench.journal.len(), length);
    order(&mut bench, vec![tx(6)]);
    assert_eq!(status(&mut bench, &tx(6)), None, "left out, and never here");
    assert_eq!(next_nonce(&mut bench), 8);
}

#[test]
fn too_many_waiting_transactions_are_refused_as_busy() {
    let mut bench = bench();
    for nonce in 1..=WAITING_MAX {
        admit(&mut bench, tx(nonce)).expect("there is room");
    }
    assert_eq!(code(admit(&mut bench, tx(WAITING_MAX + 1))), "consensus.busy");
    order(&mut bench, vec![tx(1)]);
    admit(&mut bench, tx(WAITING_MAX + 1)).expect("there is room for one");
    assert_eq!(code(admit(&mut bench, tx(WAITING_MAX + 2))), "consensus.busy");
    order(&mut bench, vec![tx(9), tx(8)]);
    for nonce in [2, 3] {
        admit(&mut bench, tx(WAITING_MAX + nonce)).expect("what was ordered and what was left out made room");
    }
    assert_eq!(code(admit(&mut bench, tx(WAITING_MAX + 4))), "consensus.busy");
}

#[test]
fn a_transaction_goes_from_accepted_to_finalised() {
    let mut bench = bench();
    let state = |bench: &mut Cell, nonce| status(bench, &tx(nonce));
    assert_eq!(state(&mut bench, 1), None);
    for nonce in [1, 2] {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    assert_eq!(state(&mut bench, 1), Some(TxStatus::Accepted));
    let first = order(&mut bench, vec![tx(1), tx(2)]).pop().expect("a block");
    assert_eq!((first.transactions.len(), first.header.index), (2, BlockIndex(0)));
    assert_eq!(state(&mut bench, 1), Some(TxStatus::Ordered));
    let length = bench.journal.len();
    assert_eq!((order(&mut bench, vec![]).len(), bench.journal.len()), (0, length), "an empty round");
    admit(&mut bench, tx(3)).expect("admits");
    bench.now_ms -= 500;
    let second = order_one(&mut bench, tx(3));
    assert_eq!(second.header.previous, first.header.hash());
    assert_eq!(second.header.time_ms, first.header.time_ms, "a clock set back does not turn time back");
    execute(&mut bench, &first);
    executed(&mut bench, result(&second, 1, false, 8)).expect("executes");
    assert_eq!(state(&mut bench, 1), Some(TxStatus::Finalised));
    assert_eq!(state(&mut bench, 3), Some(TxStatus::Rejected));
    let (accepted, ordered, finalised) = ("consensus.accepted", "consensus.ordered", "consensus.finalised");
    assert_eq!(
        names(&bench),
        [accepted, accepted, ordered, accepted, ordered, finalised, "consensus.rejected", finalised]
    );
    let rejected = &bench.events[6].data;
    assert_eq!(
        (&rejected["id"], &rejected["block"]),
        (&serde_json::json!(tx(3).id()), &serde_json::json!(1))
    );
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

/// In a network of four there is a time between a result and its finality.
#[test]
fn what_a_module_refuses_is_rejected_once_its_block_is_final() {
    let mut bench = bench_of(four());
    let transaction = tx_on(&four(), 2, 1);
    let block = order_one(&mut bench, transaction.clone());
    executed(&mut bench, result(&block, 1, false, 7)).expect("executes");
    assert_eq!(status(&mut bench, &transaction), Some(TxStatus::Applied));
    hear(&mut bench, vec![word(&block, 2, 7), word(&block, 3, 7)]);
    let view = view_of(&mut bench, &transaction).expect("it is here");
    assert_eq!(view.status, TxStatus::Rejected);
    assert_eq!(view.problem.expect("why").code, "kv.no");
    assert_eq!((view.block, view.root), (Some(BlockIndex(0)), Some(root(7))));
}

/// Transactions come with their own entry or with a block; the cursor names the entry and the place in it.
#[test]
fn transactions_are_listed_newest_first_in_pages() {
    let mut bench = bench();
    let four: Vec<_> = (1..=4).map(|nonce| tx_on(&genesis(), 3, nonce)).collect();
    admit(&mut bench, tx(1)).expect("entry 0");
    order(&mut bench, vec![four[0].clone(), four[1].clone(), tx(1), four[2].clone(), four[3].clone()]);
    for nonce in [2, 3] {
        admit(&mut bench, tx(nonce)).expect("entries 2 and 3");
    }
    let (items, cursors) = all(|list| match bench.ask(Request::Txs(list)) {
        Ok(Answer::Txs(page)) => (page.items, page.next),
        other => panic!("{other:?}"),
    });
    let shown: Vec<_> = items.iter().map(|view| (view.transaction.clone(), view.status)).collect();
    let (accepted, ordered) = (TxStatus::Accepted, TxStatus::Ordered);
    let mut expected = vec![(tx(3), accepted), (tx(2), accepted)];
    expected.extend(four.into_iter().rev().map(|tx| (tx, ordered)));
    expected.push((tx(1), ordered));
    assert_eq!(shown, expected);
    assert_eq!(cursors, ["2.0", "1.2", "1.0"]);
}

#[test]
fn what_waits_is_listed_oldest_first_in_pages() {
    let mut bench = bench();
    for nonce in 1..=6 {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    order(&mut bench, vec![tx(1)]);
    let (items, cursors) = all(|list| match bench.ask(Request::Waits(list)) {
        Ok(Answer::Waits(page)) => (page.items, page.next),
        other => panic!("{other:?}"),
    });
    let shown: Vec<_> = items.iter().map(|waiting| (waiting.entry, waiting.transaction.nonce)).collect();
    assert_eq!(shown, [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]);
    assert_eq!(cursors, ["2", "4"]);
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    let mut bench = bench();
    let list = |cursor: &str| ListRequest { limit: None, cursor: Some(cursor.to_owned()) };
    for cursor in ["", "x", "5", "5.", ".5", "5.x", "5.1.2", "-1.0"] {
        assert_eq!(code(bench.ask(Request::Txs(list(cursor)))), "consensus.bad_cursor", "{cursor:?}");
    }
    type Ask = fn(ListRequest) -> Request;
    let members = |list: ListRequest| {
        Request::Members(MembersRequest { cursor: list.cursor, ..MembersRequest::default() })
    };
    let asks: [Ask; 4] = [Request::Blocks, members, Request::Waits, Request::ListEvidence];
    for ask in asks {
        for cursor in ["", "x", "5.1"] {
            assert_eq!(code(bench.ask(ask(list(cursor)))), "consensus.bad_cursor", "{cursor:?}");
        }
    }
}

#[test]
fn a_burst_fills_as_many_blocks_as_it_takes_and_none_is_left_waiting() {
    let mut bench = bench();
    for nonce in 1..=2_500 {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    let effects = bench.take_effects();
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Say(_))));
    let sizes: Vec<_> = run(&mut bench, effects).iter().map(|block| block.transactions.len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    assert!(bench.owed().is_empty());
    let rounds: Vec<_> = (0..3).map(|index| block_of(&mut bench, index).summary.round).collect();
    assert_eq!(rounds, [1, 1, 1]);
}

/// The order does not wait for execution; who adds to it does, by what [`Request::GetEpoch`] says.
#[test]
fn blocks_stay_open_until_they_are_executed_however_many() {
    let mut bench = bench();
    let count = 2 * EXECUTION_LAG_BLOCKS_MAX + 8;
    for nonce in 1..=count {
        order_one(&mut bench, tx(nonce));
    }
    assert_eq!(progress(&mut bench), (count, 0, 0));
    match bench.ask(Request::Open(Empty {})) {
        Ok(Answer::Open(page)) => {
            let indices: Vec<_> = page.items.iter().map(|open| open.block.header.index.0).collect();
            assert_eq!(indices, (0..16).collect::<Vec<_>>(), "the first few");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(resume(&mut bench).len() as u64, count);
    assert_eq!(progress(&mut bench), (count, count, count));
}

#[test]
fn the_status_says_where_consensus_stands() {
    let status = |bench: &mut Cell| match bench.ask(Request::Status(Empty {})) {
        Ok(Answer::Status(status)) => status,
        other => panic!("{other:?}"),
    };
    let mut bench = bench_of(four());
    let mut expected = ConsensusStatus {
        genesis: four().hash(),
        members: 4,
        ordered: None,
        finalised: None,
        epoch: 0,
        rules: 1,
        round: 0,
        diverged: None,
        pending: 0,
    };
    assert_eq!(status(&mut bench), expected);
    for nonce in [1, 2] {
        admit(&mut bench, tx_on(&four(), 2, nonce)).expect("admits");
    }
    let rounds = vec![round(5, 1, vec![tx_on(&four(), 2, 1)]), round(6, 2, vec![tx_on(&four(), 3, 1)])];
    order_rounds(&mut bench, 2, rounds).expect("orders");
    let block = block_of(&mut bench, 0).proof.block;
    execute(&mut bench, &block);
    hear(&mut bench, vec![word(&block, 2, 7), word(&block, 3, 7)]);
    expected.pending = 1;
    expected.ordered = Some(BlockIndex(1));
    expected.finalised = Some(BlockIndex(0));
    (expected.epoch, expected.round) = (2, 6);
    assert_eq!(status(&mut bench), expected);
}

/// What may happen to a network of one, a step at a time.
#[derive(Clone, Debug)]
enum Step {
    /// Senders 2 and 3 submit here.
    Admit { sender: u8 },
    /// A round is decided: of what waits, those at these places; and something that nobody submitted here.
    Order { places: Vec<prop::sample::Index>, foreign: bool },
    /// Blocks that are open are executed.
    Execute { count: usize },
    /// Events are journaled.
    Record,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (2u8..4).prop_map(|sender| Step::Admit { sender }),
        2 => (prop::collection::vec(any::<prop::sample::Index>(), 0..4), any::<bool>())
            .prop_map(|(places, foreign)| Step::Order { places, foreign }),
        2 => (1usize..3).prop_map(|count| Step::Execute { count }),
        1 => Just(Step::Record),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Wherever it stops: a replay gives the same view, and what is owed brings everything to its end.
    #[test]
    fn everything_comes_to_its_end(steps in prop::collection::vec(step(), 0..40)) {
        let mut bench = bench();
        let (mut nonces, mut admitted, mut foreign_nonce) = (BTreeMap::new(), Vec::new(), 0);
        // What is to be in blocks, in order, and the last nonces in them.
        let (mut ordered, mut last) = (Vec::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Admit { sender } => {
                    let nonce = nonces.entry(sender).and_modify(|nonce| *nonce += 1).or_insert(1);
                    let transaction = tx_on(&genesis(), sender, *nonce);
                    admit(&mut bench, transaction.clone()).expect("admits");
                    admitted.push(transaction);
                }
                Step::Order { places, foreign } => {
                    let waiting = waiting(&mut bench);
                    let mut all: Vec<Transaction> =
                        places.iter().filter(|_| !waiting.is_empty()).map(|place| place.get(&waiting).transaction.clone()).collect();
                    if foreign {
                        foreign_nonce += 1;
                        all.push(tx_on(&genesis(), 4, foreign_nonce));
                    }
                    for transaction in &all {
                        let last = last.entry(transaction.sender).or_insert(0);
                        if transaction.nonce > *last {
                            *last = transaction.nonce;
                            ordered.push(transaction.id());
                        }
                    }
                    order(&mut bench, all);
                }
                Step::Execute { count } => {
                    let Ok(Answer::Open(page)) = bench.ask(Request::Open(Empty {})) else { panic!("a page") };
                    for open in page.items.iter().take(count) {
                        execute(&mut bench, &open.block);
                    }
                }
                Step::Record => {
                    let now = epoch(&mut bench);
                    let events = vec![vec![1], vec![2]];
                    let request = RecordRequest { epoch: now.epoch, first: now.events, events };
                    bench.ask(Request::Record(request)).expect("records");
                }
            }
        }
        bench.take_effects();
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
        // What waits is said in the order it came.
        for waiting in waiting(&mut bench) {
            let (sender, nonce) = (waiting.transaction.sender, waiting.transaction.nonce);
            if nonce > last.get(&sender).copied().unwrap_or(0) {
                last.insert(sender, nonce);
                ordered.push(waiting.transaction.id());
            }
        }
        resume(&mut bench);
        let blocks: Vec<_> =
            (0..progress(&mut bench).0).map(|index| block_of(&mut bench, index)).collect();
        let ids: Vec<_> =
            blocks.iter().flat_map(|block| &block.proof.block.transactions).map(Transaction::id).collect();
        prop_assert_eq!(&ids, &ordered);
        for pair in blocks.windows(2) {
            prop_assert_eq!(pair[1].proof.block.header.previous, pair[0].summary.hash);
        }
        for block in &blocks {
            prop_assert_eq!(block.proof.check(&genesis().hash(), &genesis().member_set()), Ok(root(7)));
        }
        for transaction in &admitted {
            let view = view_of(&mut bench, transaction).expect("it is here");
            if ordered.contains(&transaction.id()) {
                prop_assert_eq!(view.status, TxStatus::Finalised);
            } else {
                prop_assert_eq!(view.status, TxStatus::Rejected);
                prop_assert_eq!(view.problem.expect("why").code, "consensus.nonce_used");
            }
        }
        prop_assert!(waiting(&mut bench).is_empty());
        let left_out = records(&bench).iter().filter_map(|record| match record {
            Record::LeftOut { items } => Some(items.len()),
            _ => None,
        }).sum::<usize>();
        prop_assert_eq!(left_out, admitted.iter().filter(|tx| !ordered.contains(&tx.id())).count());
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
    }
}
