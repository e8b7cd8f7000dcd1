//! The rules of Consensus: checked before taken in, ordered once, final when attested.

mod kit;

use consensus::{ConsensusMachine, EXECUTION_LAG_BLOCKS_MAX, Effect, WAITING_MAX};
use kit::*;
use machine::testing::Bench;
use proptest::prelude::*;
use protocol::block::Block;
use protocol::consensus::{Answer, BlockAnswer, BlockRef, NextNonceRequest, Request, TxRef, TxStatus};
use protocol::genesis::{Genesis, Member};
use protocol::shared::{Empty, ListRequest};
use protocol::transaction::Transaction;
use protocol::{BlockIndex, GenesisHash, TxId};

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
    for (transaction, code) in cases {
        assert_eq!(admit(&mut bench, transaction).expect_err(code).code, code);
    }
    assert!(bench.journal.is_empty());
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
    let cell = tx(5).sender;
    match bench.ask(Request::GetNextNonce(NextNonceRequest { cell })) {
        Ok(Answer::GetNextNonce(next)) => assert_eq!(next.nonce, 6, "waiting transactions count"),
        other => panic!("{other:?}"),
    }
    let block = order(&mut bench).expect("a block");
    finalise(&mut bench, &block, &key(1), true).expect("finalises");
    assert_eq!(admit(&mut bench, tx(5)).expect("still the same").status, TxStatus::Finalised);
    assert_eq!(admit(&mut bench, tx(5)).expect("and again").block, Some(BlockIndex(0)));
}

#[test]
fn too_many_waiting_transactions_are_refused_as_busy() {
    let mut bench = bench();
    for nonce in 1..=WAITING_MAX {
        admit(&mut bench, tx(nonce)).expect("there is room");
    }
    assert_eq!(admit(&mut bench, tx(WAITING_MAX + 1)).expect_err("full").code, "consensus.busy");
    order(&mut bench).expect("a block");
    admit(&mut bench, tx(WAITING_MAX + 1)).expect("there is room again");
}

#[test]
fn a_transaction_goes_from_accepted_to_finalised() {
    let mut bench = bench();
    assert_eq!(status(&mut bench, 1), None);
    for nonce in [1, 2] {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    assert_eq!(status(&mut bench, 1), Some(TxStatus::Accepted));
    let first = order(&mut bench).expect("a block");
    assert_eq!((first.transactions.len(), first.header.index), (2, BlockIndex(0)));
    assert_eq!(status(&mut bench, 1), Some(TxStatus::Ordered));
    let length = bench.journal.len();
    assert_eq!((order(&mut bench), bench.journal.len()), (None, length), "nothing waits: no record");
    admit(&mut bench, tx(3)).expect("admits");
    bench.now_ms -= 500;
    let second = order(&mut bench).expect("a block");
    assert_eq!(second.header.previous, first.header.hash());
    assert_eq!(second.header.time_ms, first.header.time_ms, "a clock set back does not turn time back");
    finalise(&mut bench, &first, &key(1), true).expect("finalises");
    finalise(&mut bench, &second, &key(1), false).expect("finalises");
    assert_eq!(status(&mut bench, 1), Some(TxStatus::Finalised));
    assert_eq!(status(&mut bench, 3), Some(TxStatus::Rejected));
    let names: Vec<_> = bench.events.iter().map(|event| event.event.as_str()).collect();
    let accepted = "consensus.accepted";
    assert_eq!(
        names,
        [
            accepted,
            accepted,
            "consensus.ordered",
            accepted,
            "consensus.ordered",
            "consensus.finalised",
            "consensus.finalised",
            "consensus.rejected",
        ]
    );
    let rejected = &bench.events.last().expect("there is one").data;
    assert_eq!(
        (&rejected["id"], &rejected["block"]),
        (&serde_json::json!(tx(3).id()), &serde_json::json!(1))
    );
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn a_block_is_final_once_in_order_by_a_members_word_alone() {
    let mut bench = bench();
    let [first, second] = [1, 2].map(|nonce| {
        admit(&mut bench, tx(nonce)).expect("admits");
        order(&mut bench).expect("a block")
    });
    let code = |result: Result<(), protocol::Problem>| result.expect_err("refused").code.into_owned();
    assert_eq!(code(finalise(&mut bench, &second, &key(1), true)), "consensus.not_next");
    assert_eq!(code(finalise(&mut bench, &first, &key(9), true)), "consensus.bad_attestation");
    let good = finalisation(&first, &key(1), true, 7);
    let mut other_root = good.clone();
    other_root.applied.root = protocol::StateRoot::ZERO;
    let mut other_block = good.clone();
    other_block.attestation = finalisation(&second, &key(1), true, 7).attestation;
    let mut none = good.clone();
    none.applied.receipts.clear();
    let mut more = good.clone();
    more.applied.receipts.extend(good.applied.receipts.clone());
    let mut foreign = good.clone();
    foreign.applied.receipts[0].id = TxId::ZERO;
    for (request, expected) in [
        (other_root, "consensus.bad_attestation"),
        (other_block, "consensus.bad_attestation"),
        (none, "consensus.bad_receipts"),
        (more, "consensus.bad_receipts"),
        (foreign, "consensus.bad_receipts"),
    ] {
        assert_eq!(code(bench.ask(Request::Finalise(request)).map(|_| ())), expected);
    }
    let length = bench.journal.len();
    bench.ask(Request::Finalise(good.clone())).expect("finalises");
    bench.ask(Request::Finalise(good)).expect("the same again");
    assert_eq!(bench.journal.len(), length + 1);
    let other = finalisation(&first, &key(1), true, 8);
    assert_eq!(code(bench.ask(Request::Finalise(other)).map(|_| ())), "consensus.diverged");
}

#[test]
fn one_of_three_members_makes_nothing_final() {
    let member = |number| Member { cell: tx_sender(number), weight: 1 };
    let members: Vec<Member> = [1, 2, 3].map(member).to_vec();
    let mut bench = Bench::new(ConsensusMachine {
        genesis: std::sync::Arc::new(Genesis { members, ..genesis() }),
        modules: modules(),
    });
    let genesis = bench.machine.genesis.hash();
    let transaction = Transaction { genesis, ..tx(1) };
    admit(&mut bench, transaction).expect("admits");
    let block = order(&mut bench).expect("a block");
    let length = bench.journal.len();
    finalise(&mut bench, &block, &key(1), true).expect("heard");
    assert_eq!(bench.journal.len(), length);
    assert_eq!(bench.owed().len(), 1);
}

fn block_of(bench: &mut Bench<ConsensusMachine>, index: u64) -> BlockAnswer {
    match bench.ask(Request::GetBlock(BlockRef { index: BlockIndex(index) })) {
        Ok(Answer::GetBlock(block)) => block,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_block_is_proven_by_the_genesis_alone() {
    let mut bench = bench();
    for nonce in [1, 2] {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    let block = order(&mut bench).expect("a block");
    block_of(&mut bench, 0).proof.check(&genesis()).expect_err("not attested yet");
    finalise(&mut bench, &block, &key(1), true).expect("finalises");
    let answer = block_of(&mut bench, 0);
    assert_eq!(answer.proof.block, block, "as it was ordered");
    assert_eq!((answer.summary.transactions, answer.summary.finalised), (2, true));
    assert_eq!(Some(answer.proof.check(&genesis()).expect("checks")), answer.summary.root);
    let mut forged = answer.proof.clone();
    forged.block.transactions.pop();
    forged.check(&genesis()).expect_err("a transaction is missing");
    answer.proof.check(&Genesis { created_ms: 2, ..genesis() }).expect_err("another network");
}

#[test]
fn lists_are_newest_first_in_pages() {
    let mut bench = bench();
    for nonce in 1..=5 {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    let mut list = ListRequest { limit: Some(2), cursor: None };
    let mut nonces = Vec::new();
    loop {
        let Ok(Answer::Txs(page)) = bench.ask(Request::Txs(list.clone())) else { panic!("no page") };
        nonces.extend(page.items.iter().map(|view| view.transaction.nonce));
        list.cursor = page.next;
        if list.cursor.is_none() {
            break;
        }
    }
    assert_eq!(nonces, [5, 4, 3, 2, 1]);
    list.cursor = Some("x".to_owned());
    for request in [Request::Txs(list.clone()), Request::Blocks(list.clone()), Request::Members(list)] {
        assert_eq!(bench.ask(request).expect_err("no cursor").code, "consensus.bad_cursor");
    }
}

/// Runs released effects like the shell does, one after the other; gives the blocks it executed.
fn run_effects(bench: &mut Bench<ConsensusMachine>, effects: Vec<Effect>) -> Vec<Block> {
    let mut queue = std::collections::VecDeque::from(effects);
    let mut blocks = Vec::new();
    while let Some(effect) = queue.pop_front() {
        match effect {
            Effect::Order => drop(bench.ask(Request::Order(Empty {})).expect("orders")),
            Effect::Execute(block) => {
                finalise(bench, &block, &key(1), true).expect("finalises");
                blocks.push(*block);
            }
        }
        queue.extend(bench.take_effects());
    }
    blocks
}

#[test]
fn a_burst_releases_one_order_and_none_is_left_waiting() {
    let mut bench = bench();
    for nonce in 1..=2_500 {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    let effects = bench.take_effects();
    assert_eq!(effects, [Effect::Order]);
    let sizes: Vec<_> =
        run_effects(&mut bench, effects).iter().map(|block| block.transactions.len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    assert!(bench.owed().is_empty());
    admit(&mut bench, tx(2_501)).expect("admits");
    assert_eq!(bench.take_effects(), [Effect::Order], "and the next one asks again");
}

#[test]
fn ordering_pauses_when_execution_lags_and_goes_on_by_itself() {
    let mut bench = bench();
    let mut open: Vec<Block> = Vec::new();
    for nonce in 1..=EXECUTION_LAG_BLOCKS_MAX {
        admit(&mut bench, tx(nonce)).expect("admits");
        open.extend(order(&mut bench));
    }
    let next = EXECUTION_LAG_BLOCKS_MAX + 1;
    admit(&mut bench, tx(next)).expect("admits");
    assert!(bench.take_effects().is_empty(), "no order is asked for: it could not be given");
    assert_eq!(order(&mut bench), None);
    assert_eq!(bench.owed().len() as u64, EXECUTION_LAG_BLOCKS_MAX);
    finalise(&mut bench, &open[0], &key(1), true).expect("finalises");
    assert_eq!(bench.take_effects(), [Effect::Order]);
    assert_eq!(order(&mut bench).expect("a block").transactions, [tx(next)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whenever the cell stops, with effects lost, what is owed at the next start brings every
    /// transaction to its end, once, in its order; and a replay gives the same view.
    #[test]
    fn what_is_owed_finishes_what_was_begun(steps in prop::collection::vec(0u8..4, 1..40)) {
        let mut bench = bench();
        let (mut taken, mut blocks, mut open) = (0, Vec::new(), std::collections::VecDeque::new());
        for step in steps {
            match step {
                0 | 1 => {
                    taken += 1;
                    admit(&mut bench, tx(taken)).expect("admits");
                }
                2 => open.extend(order(&mut bench)),
                _ => if let Some(block) = open.pop_front() {
                    finalise(&mut bench, &block, &key(1), true).expect("finalises");
                    blocks.push(block);
                },
            }
        }
        bench.take_effects();
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
        let owed = bench.owed().into_iter().map(|owed| owed.effect).collect();
        blocks.extend(run_effects(&mut bench, owed));
        let nonces: Vec<u64> = blocks.iter().flat_map(|block| &block.transactions).map(|tx| tx.nonce).collect();
        prop_assert_eq!(nonces, (1..=taken).collect::<Vec<_>>());
        for pair in blocks.windows(2) {
            prop_assert_eq!(pair[1].header.previous, pair[0].header.hash());
        }
        for nonce in 1..=taken {
            prop_assert_eq!(status(&mut bench, nonce), Some(TxStatus::Finalised));
        }
        prop_assert!(bench.owed().is_empty());
    }
}

fn status(bench: &mut Bench<ConsensusMachine>, nonce: u64) -> Option<TxStatus> {
    match bench.ask(Request::Tx(TxRef { id: tx(nonce).id() })) {
        Ok(Answer::Tx(view)) => Some(view.status),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => {
            assert_eq!(problem.code, "consensus.unknown_tx");
            None
        }
    }
}
