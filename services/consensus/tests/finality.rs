//! From an ordered block to a final one: members' words, divergence, and blocks that are taken over.

mod kit;

use consensus::{Effect, Record};
use kit::*;
use proptest::prelude::*;
use protocol::block::{Attestation, Block, BlockProof};
use protocol::consensus::{AdoptRequest, Answer, Progress, Request, TxStatus};
use protocol::genesis::Genesis;
use protocol::shared::{Empty, ListRequest, Page};
use protocol::transaction::Transaction;
use protocol::{Amount, BlockHash, BlockIndex, Problem, TxId};

fn mine(nonce: u64) -> Transaction {
    tx_on(&four(), 2, nonce)
}

/// A cell of four members with blocks that it has not executed.
fn with_blocks(count: u64) -> (Cell, Vec<Block>) {
    let mut bench = bench_of(four());
    let blocks = (1..=count).map(|nonce| order_one(&mut bench, mine(nonce))).collect();
    (bench, blocks)
}

fn finalised(bench: &mut Cell) -> u64 {
    progress(bench).2
}

/// Members' words for a block, for root 7.
fn words(block: &Block, members: &[u8]) -> Vec<Attestation> {
    members.iter().map(|member| word(block, *member, 7)).collect()
}

#[test]
fn three_of_four_words_make_a_block_final_and_two_do_not() {
    let (mut bench, blocks) = with_blocks(1);
    assert_eq!(execute(&mut bench, &blocks[0]), Progress { ordered: 1, executed: 1, finalised: 0 });
    hear(&mut bench, words(&blocks[0], &[3]));
    assert_eq!(finalised(&mut bench), 0);
    assert_eq!(status(&mut bench, &mine(1)), Some(TxStatus::Applied));
    bench.take_effects();
    let now = hear(&mut bench, words(&blocks[0], &[4]));
    assert_eq!(now, Progress { ordered: 1, executed: 1, finalised: 1 });
    assert_eq!(bench.take_effects(), [Effect::Final(BlockIndex(0))]);
    assert_eq!(status(&mut bench, &mine(1)), Some(TxStatus::Finalised));
    let event = bench.events.last().expect("one");
    assert_eq!(event.event, "consensus.finalised");
    assert_eq!(event.data, serde_json::json!({ "block": 0, "root": root(7), "attestations": 3 }));
    let length = bench.journal.len();
    hear(&mut bench, words(&blocks[0], &[2]));
    assert_eq!(bench.journal.len(), length, "a word for what is final is no news");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

/// Words, who they come from and when, and whether they make the first of two blocks final here: cell 1 comes to root 7.
#[track_caller]
fn check(early: &[Attestation], late: &[Attestation], is_final: bool) {
    // Before the block is ordered, before it is executed, and after.
    for (before_order, before_execution) in [(true, true), (false, true), (false, false)] {
        let mut bench = bench_of(four());
        if before_order {
            hear(&mut bench, early.to_vec());
        }
        let blocks = [1, 2].map(|nonce| order_one(&mut bench, mine(nonce)));
        if before_execution && !before_order {
            hear(&mut bench, early.to_vec());
        }
        assert_eq!(finalised(&mut bench), 0, "nothing is final before it is executed here");
        execute(&mut bench, &blocks[0]);
        if !before_execution {
            hear(&mut bench, early.to_vec());
        }
        for late in late {
            hear(&mut bench, vec![late.clone()]);
        }
        assert_eq!(finalised(&mut bench), u64::from(is_final));
        assert!(!names(&bench).contains(&"consensus.diverged"));
        execute(&mut bench, &blocks[1]);
        let (replayed, before) = bench.replay();
        assert_eq!(replayed, before);
    }
}

#[test]
fn words_count_whenever_they_come_and_only_those_that_count() {
    let (_, blocks) = with_blocks(2);
    let [block, other] = [&blocks[0], &blocks[1]];
    let w = |member| word(block, member, 7);
    let elsewhere = |member| Attestation { index: BlockIndex(0), ..word(other, member, 7) };
    let misplaced = |member| Attestation { index: BlockIndex(1), ..w(member) };
    check(&[w(2), w(3)], &[], true);
    check(&[w(2)], &[w(4)], true);
    check(&[w(2), w(3), w(4)], &[], true);
    check(&[w(2)], &[], false);
    check(&[w(2), w(2)], &[w(2)], false);
    check(&[w(2)], &[w(1)], false);
    check(&[w(2), w(9)], &[w(8)], false);
    check(&[w(2), word(block, 3, 8)], &[], false);
    check(&[w(2), word(other, 3, 7)], &[word(other, 4, 7)], false);
    check(&[w(2), elsewhere(3)], &[elsewhere(4)], false);
    check(&[w(2), misplaced(3)], &[misplaced(4)], false);
    // The first word of a member counts.
    check(&[w(2), word(block, 3, 8)], &[w(3)], false);
    check(&[w(2), word(block, 3, 8), w(3)], &[], false);
    check(&[w(2), elsewhere(3)], &[w(3)], false);
    check(&[w(2), word(block, 3, 8)], &[w(3), w(4)], true);
    // Two liars.
    check(&[word(block, 2, 8), word(block, 3, 8)], &[w(4)], false);
    check(&[elsewhere(2), elsewhere(3)], &[w(4)], false);
}

/// The fees that the blocks' first transactions tell.
fn fees_shown(bench: &mut Cell, blocks: &[Block]) -> Vec<Option<serde_json::Value>> {
    let views = blocks.iter().map(|block| view_of(bench, &block.transactions[0]).expect("is known"));
    views.map(|view| serde_json::to_value(view).expect("JSON").get("fee").cloned()).collect()
}

#[test]
fn a_transaction_tells_what_was_paid_for_it_once_it_is_executed() {
    let (mut bench, blocks) = with_blocks(2);
    assert_eq!(fees_shown(&mut bench, &blocks), [None, None]);
    for (block, fee) in blocks.iter().zip([Some(Amount(7)), None]) {
        let mut result = result(block, 1, false, 9);
        result.applied.receipts[0].fee = fee;
        executed(&mut bench, result).expect("is the next block");
    }
    let paid = Some(serde_json::json!("0.000000000000000007"));
    assert_eq!(fees_shown(&mut bench, &blocks), [paid.clone(), None]);
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
    assert_eq!(fees_shown(&mut bench, &blocks), [paid, None]);
}

#[test]
fn weights_count_and_not_heads() {
    let genesis = network(&[1, 1, 1, 5]);
    let final_with = |members: &[u8]| {
        let mut bench = bench_of(genesis.clone());
        let block = order_one(&mut bench, tx_on(&genesis, 2, 1));
        execute(&mut bench, &block);
        hear(&mut bench, words(&block, members));
        finalised(&mut bench) == 1
    };
    assert!(!final_with(&[2, 3]), "3 of 8");
    assert!(final_with(&[4]), "6 of 8");
    let genesis = network(&[1, 2, 3]);
    let final_with = |members: &[u8]| {
        let mut bench = bench_of(genesis.clone());
        let block = order_one(&mut bench, tx_on(&genesis, 2, 1));
        execute(&mut bench, &block);
        hear(&mut bench, words(&block, members));
        finalised(&mut bench) == 1
    };
    assert!(!final_with(&[3]), "4 of 6 is two thirds, and not more");
    assert!(final_with(&[2, 3]));
}

#[test]
fn blocks_become_final_in_order_and_in_one_go() {
    let (mut bench, blocks) = with_blocks(5);
    for block in &blocks[..4] {
        execute(&mut bench, block);
    }
    bench.take_effects();
    for block in [&blocks[4], &blocks[2], &blocks[1]] {
        hear(&mut bench, words(block, &[2, 3]));
        assert_eq!(finalised(&mut bench), 0, "the first is missing");
    }
    assert!(bench.take_effects().is_empty());
    let now = hear(&mut bench, words(&blocks[0], &[2, 4]));
    assert_eq!(now, Progress { ordered: 5, executed: 4, finalised: 3 });
    assert_eq!(bench.take_effects(), [0, 1, 2].map(|index| Effect::Final(BlockIndex(index))));
    hear(&mut bench, words(&blocks[3], &[2, 3]));
    assert_eq!(finalised(&mut bench), 4, "the last is not executed");
    let now = execute(&mut bench, &blocks[4]);
    assert_eq!(now, Progress { ordered: 5, executed: 5, finalised: 5 });
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

/// A word for a block that may never come; it is not this word that could be kept for ever.
fn far(member: u8, index: u64) -> Attestation {
    Attestation { index: BlockIndex(index), ..word(&with_blocks(1).1[0], member, 7) }
}

#[test]
fn words_for_blocks_too_far_ahead_and_of_strangers_are_not_kept() {
    let (mut bench, _) = with_blocks(2);
    let length = bench.journal.len();
    for word in [far(2, 1_026), far(2, u64::MAX), far(9, 1), far(9, 1_025)] {
        hear(&mut bench, vec![word]);
    }
    assert_eq!(bench.journal.len(), length);
    hear(&mut bench, vec![far(2, 1_025)]);
    assert_eq!(bench.journal.len(), length + 1, "as far as that they are");
    hear(&mut bench, vec![far(2, 1_025), far(2, 1_025)]);
    assert_eq!(bench.journal.len(), length + 1, "and once");
}

#[test]
fn a_cells_own_word_is_owed_until_its_block_is_final_and_is_no_news_when_it_comes_back() {
    let (mut bench, blocks) = with_blocks(2);
    let own_words = |bench: &mut Cell| match bench.ask(Request::OwnWords(Empty {})) {
        Ok(Answer::OwnWords(Page { items, next: None })) => items,
        other => panic!("{other:?}"),
    };
    for block in &blocks {
        execute(&mut bench, block);
    }
    let own = blocks.iter().map(|block| word(block, 1, 7)).collect::<Vec<_>>();
    let attest = |word: &Attestation| Effect::Attest(Box::new(word.clone()));
    assert_eq!(bench.take_effects(), own.iter().map(attest).collect::<Vec<_>>());
    assert_eq!(own_words(&mut bench), own);
    let owed = |bench: &Cell| bench.owed().into_iter().map(|owed| owed.effect).collect::<Vec<_>>();
    assert_eq!(owed(&bench), own.iter().map(attest).collect::<Vec<_>>());
    let length = bench.journal.len();
    hear(&mut bench, own.clone());
    assert_eq!(bench.journal.len(), length);
    hear(&mut bench, words(&blocks[0], &[2, 3]));
    assert_eq!(own_words(&mut bench), own[1..]);
    assert_eq!(owed(&bench), [attest(&own[1])]);
}

#[test]
fn a_result_is_of_the_next_block_and_of_all_of_it() {
    let mut bench = bench_of(four());
    let first = order(&mut bench, vec![mine(1), mine(2)]).pop().expect("a block");
    let second = order_one(&mut bench, mine(3));
    let good = result(&first, 1, true, 7);
    assert_eq!(code(executed(&mut bench, result(&second, 1, true, 7))), "consensus.not_next");
    let mut unknown = good.clone();
    unknown.applied.index = BlockIndex(2);
    assert_eq!(code(executed(&mut bench, unknown)), "consensus.not_next");
    let with = |change: &dyn Fn(&mut protocol::consensus::ExecutedRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let cases = [
        (with(&|it| it.applied.root = root(8)), "consensus.bad_attestation"),
        (with(&|it| it.attestation.as_mut().expect("a word").root = root(8)), "consensus.bad_attestation"),
        (with(&|it| it.attestation = Some(word(&second, 1, 7))), "consensus.bad_attestation"),
        (with(&|it| it.attestation.as_mut().expect("a word").member = cell(2)), "consensus.bad_attestation"),
        (with(&|it| it.applied.receipts.clear()), "consensus.bad_receipts"),
        (with(&|it| it.applied.receipts.truncate(1)), "consensus.bad_receipts"),
        (with(&|it| it.applied.receipts.reverse()), "consensus.bad_receipts"),
        (with(&|it| it.applied.receipts.extend(good.applied.receipts.clone())), "consensus.bad_receipts"),
        (with(&|it| it.applied.receipts[0].id = TxId::ZERO), "consensus.bad_receipts"),
        (with(&|it| it.applied.receipts[1].ok = false), "consensus.bad_receipts"),
    ];
    let length = bench.journal.len();
    for (request, expected) in cases {
        assert_eq!(code(executed(&mut bench, request)), expected);
    }
    assert_eq!(bench.journal.len(), length);
    executed(&mut bench, good.clone()).expect("executes");
    executed(&mut bench, good).expect("the same again");
    assert_eq!(bench.journal.len(), length + 1);
    assert_eq!(code(executed(&mut bench, result(&first, 1, true, 8))), "consensus.diverged");
    assert_eq!(bench.journal.len(), length + 1);
}

#[test]
fn a_cell_that_is_no_member_follows_and_its_word_makes_nothing_final() {
    let mut bench = bench_of(network(&[1, 1, 1]));
    let block = order_one(&mut bench, tx_on(&network(&[1, 1, 1]), 2, 1));
    executed(&mut bench, result(&block, 9, true, 7)).expect("executes");
    hear(&mut bench, words(&block, &[1, 2]));
    assert_eq!(finalised(&mut bench), 0);
    hear(&mut bench, words(&block, &[3]));
    assert_eq!(finalised(&mut bench), 1);
    block_of(&mut bench, 0)
        .proof
        .check(&network(&[1, 1, 1]).hash(), &network(&[1, 1, 1]).member_set())
        .expect("three members prove it");
}

#[test]
fn a_block_is_proven_by_the_genesis_alone() {
    let mut bench = bench_of(four());
    let block = order(&mut bench, vec![mine(1), mine(2)]).pop().expect("a block");
    execute(&mut bench, &block);
    hear(&mut bench, vec![word(&block, 2, 8), word(&block, 3, 7)]);
    block_of(&mut bench, 0).proof.check(&four().hash(), &four().member_set()).expect_err("not final yet");
    hear(&mut bench, words(&block, &[4]));
    let answer = block_of(&mut bench, 0);
    assert_eq!(answer.proof.block, block, "as it was ordered");
    assert_eq!((answer.summary.transactions, answer.summary.finalised), (2, true));
    assert_eq!(
        Some(answer.proof.check(&four().hash(), &four().member_set()).expect("checks")),
        answer.summary.root
    );
    let mut members: Vec<_> = answer.proof.attestations.iter().map(|word| word.member).collect();
    members.sort_unstable();
    let mut expected = [1, 3, 4].map(cell);
    expected.sort_unstable();
    assert_eq!(members, expected, "who said otherwise is no part of it");
    for missing in 0..3 {
        let mut less = answer.proof.clone();
        less.attestations.remove(missing);
        assert_eq!(code(less.check(&four().hash(), &four().member_set())), "block.not_proven");
        less.attestations.push(less.attestations[0].clone());
        assert_eq!(
            code(less.check(&four().hash(), &four().member_set())),
            "block.not_proven",
            "a word counts once"
        );
        less.attestations[2] = word(&block, 9, 7);
        assert_eq!(
            code(less.check(&four().hash(), &four().member_set())),
            "block.not_proven",
            "a stranger's does not count"
        );
    }
    let mut forged = answer.proof.clone();
    forged.block.transactions.pop();
    forged.check(&four().hash(), &four().member_set()).expect_err("a transaction is missing");
    let mut forged = answer.proof.clone();
    forged.block.header.round += 1;
    forged.check(&four().hash(), &four().member_set()).expect_err("another header");
    answer
        .proof
        .check(&Genesis { created_ms: 2, ..four() }.hash(), &four().member_set())
        .expect_err("another network");
}

#[test]
fn block_lists_say_what_is_final() {
    let (mut bench, blocks) = with_blocks(3);
    execute(&mut bench, &blocks[0]);
    execute(&mut bench, &blocks[1]);
    hear(&mut bench, words(&blocks[0], &[2, 3]));
    let Ok(Answer::Blocks(page)) = bench.ask(Request::Blocks(ListRequest::default())) else {
        panic!("no page")
    };
    let shown: Vec<_> =
        page.items.iter().map(|view| (view.index.0, view.round, view.root, view.finalised)).collect();
    let seven = Some(root(7));
    assert_eq!(shown, [(2, 3, None, false), (1, 2, seven, false), (0, 1, seven, true)]);
    assert_eq!(
        code(bench.ask(Request::GetBlock(protocol::consensus::BlockRef { index: BlockIndex(3) }))),
        "consensus.unknown_block"
    );
}

/// A cell whose block 1 came to another root than three members say; one block after it is executed, one is open.
fn diverged(words_first: bool) -> (Cell, Vec<Block>) {
    let (mut bench, blocks) = with_blocks(4);
    admit(&mut bench, mine(9)).expect("admits");
    execute(&mut bench, &blocks[0]);
    hear(&mut bench, words(&blocks[0], &[2, 3]));
    let lies = [2, 3, 4].map(|member| word(&blocks[1], member, 8));
    bench.take_effects();
    if words_first {
        hear(&mut bench, lies.to_vec());
        execute(&mut bench, &blocks[1]);
    } else {
        execute(&mut bench, &blocks[1]);
        execute(&mut bench, &blocks[2]);
        for lie in lies {
            hear(&mut bench, vec![lie]);
        }
    }
    (bench, blocks)
}

fn refusals(bench: &mut Cell, blocks: &[Block]) -> [Result<(), Problem>; 4] {
    let proof = BlockProof {
        block: blocks[3].clone(),
        attestations: words(&blocks[3], &[2, 3, 4]),
        handoffs: Vec::new(),
    };
    [
        admit(bench, mine(10)).map(|_| ()),
        order_rounds(bench, 0, vec![round(9, 1, vec![mine(10)])]).map(|_| ()),
        executed(bench, result(&blocks[3], 1, true, 7)).map(|_| ()),
        bench.ask(Request::Adopt(AdoptRequest { proofs: vec![proof] })).map(|_| ()),
    ]
}

#[test]
fn a_cell_that_is_contradicted_by_more_than_two_thirds_has_diverged() {
    for words_first in [false, true] {
        let (mut bench, blocks) = diverged(words_first);
        let evidence: Vec<_> = records(&bench)
            .into_iter()
            .filter_map(|record| match record {
                Record::Diverged { index, root, attestations } => Some((index, root, attestations)),
                _ => None,
            })
            .collect();
        let [(BlockIndex(1), own, attestations)] = evidence.as_slice() else { panic!("{evidence:?}") };
        assert_eq!((*own, attestations.len()), (root(7), 3));
        let holds = |word: &Attestation| word.holds_for(&blocks[1].header, &word.member);
        assert!(attestations.iter().all(|word| word.root == root(8) && holds(word)));
        let event = bench.events.iter().find(|event| event.event == "consensus.diverged").expect("one");
        assert_eq!(event.data, serde_json::json!({ "block": 1, "root": root(7), "attested": root(8) }));
        let length = bench.journal.len();
        for refusal in refusals(&mut bench, &blocks) {
            assert_eq!(code(refusal), "consensus.diverged");
        }
        hear(&mut bench, words(&blocks[2], &[2, 3, 4]));
        hear(&mut bench, words(&blocks[1], &[2, 3, 4]));
        assert_eq!(bench.journal.len(), length, "nothing is taken any more");
        assert_eq!(finalised(&mut bench), 1, "what was final stays so");
        let Ok(Answer::Status(status)) = bench.ask(Request::Status(Empty {})) else { panic!("a status") };
        assert!(status.diverged.expect("why").contains("block 1"));
        let Ok(Answer::Open(open)) = bench.ask(Request::Open(Empty {})) else { panic!("a page") };
        assert!(open.items.is_empty());
        assert!(!bench.owed().iter().any(|owed| matches!(owed.effect, Effect::Execute(_))));
        assert_eq!(admit(&mut bench, mine(9)).expect("it is here").status, TxStatus::Accepted);
        let (replayed, before) = bench.replay();
        assert_eq!(replayed, before);
    }
}

#[test]
fn two_liars_of_four_make_no_cell_diverge() {
    for liars in [&[2][..], &[2, 3]] {
        for late in [false, true] {
            let (mut bench, blocks) = with_blocks(4);
            let lies: Vec<_> = liars.iter().map(|member| word(&blocks[0], *member, 8)).collect();
            if late {
                execute(&mut bench, &blocks[0]);
            }
            hear(&mut bench, lies);
            if !late {
                execute(&mut bench, &blocks[0]);
            }
            hear(&mut bench, words(&blocks[0], &[4]));
            assert_eq!(finalised(&mut bench), 0);
            assert!(!names(&bench).contains(&"consensus.diverged"));
            if let [2] = liars {
                hear(&mut bench, words(&blocks[0], &[3]));
                assert_eq!(finalised(&mut bench), 1, "one liar does not stop it");
            }
            execute(&mut bench, &blocks[1]);
            execute(&mut bench, &blocks[2]);
            for outcome in refusals(&mut bench, &blocks) {
                outcome.expect("it goes on");
            }
        }
    }
}

/// Final blocks, as the first cell has them: with the words of cells 1, 2 and 3.
fn final_blocks(count: u64) -> Vec<BlockProof> {
    let (mut bench, blocks) = with_blocks(count);
    for block in &blocks {
        execute(&mut bench, block);
        hear(&mut bench, words(block, &[2, 3]));
    }
    let proofs: Vec<_> = (0..count).map(|index| block_of(&mut bench, index).proof).collect();
    for proof in &proofs {
        assert_eq!(proof.check(&four().hash(), &four().member_set()), Ok(root(7)));
    }
    proofs
}

#[test]
fn a_cell_that_has_fallen_behind_takes_blocks_over_and_is_final_with_the_same_proof() {
    let proofs = final_blocks(3);
    let mut behind = bench_of(four());
    admit(&mut behind, mine(2)).expect("admits");
    assert_eq!(order_one(&mut behind, mine(1)), proofs[0].block);
    behind.take_effects();
    let now = adopt(&mut behind, proofs.clone()).expect("takes over");
    assert_eq!(
        now,
        Progress { ordered: 3, executed: 0, finalised: 0 },
        "nothing is final before it is executed"
    );
    let execute_them: Vec<_> =
        proofs[1..].iter().map(|proof| Effect::Execute(proof.block.clone().into())).collect();
    assert_eq!(behind.take_effects(), execute_them);
    assert_eq!(status(&mut behind, &mine(2)), Some(TxStatus::Ordered));
    assert!(waiting(&mut behind).is_empty());
    let length = behind.journal.len();
    adopt(&mut behind, proofs.clone()).expect("the same again");
    assert_eq!(behind.journal.len(), length);
    for (proof, count) in proofs.iter().zip(1..) {
        let now = executed(&mut behind, result(&proof.block, 4, true, 7)).expect("executes");
        assert_eq!(now, Progress { ordered: 3, executed: count, finalised: count });
    }
    for (proof, index) in proofs.iter().zip(0..) {
        let mut here = block_of(&mut behind, index).proof;
        assert_eq!(here.check(&four().hash(), &four().member_set()), Ok(root(7)));
        // This cell was the fourth.
        here.attestations.retain(|word| word.member != cell(4));
        assert_eq!(here, *proof);
    }
    let length = behind.journal.len();
    adopt(&mut behind, proofs).expect("they are final here");
    assert_eq!(behind.journal.len(), length);
    let (replayed, before) = behind.replay();
    assert_eq!(replayed, before);
}

#[test]
fn what_is_taken_over_makes_final_what_was_executed_here_before() {
    let proofs = final_blocks(2);
    let (mut behind, blocks) = with_blocks(2);
    for block in &blocks {
        executed(&mut behind, result(block, 4, true, 7)).expect("executes");
    }
    behind.take_effects();
    let now = adopt(&mut behind, proofs).expect("takes over");
    assert_eq!(now, Progress { ordered: 2, executed: 2, finalised: 2 });
    assert_eq!(behind.take_effects(), [0, 1].map(|index| Effect::Final(BlockIndex(index))));
}

#[test]
fn what_was_proven_elsewhere_and_is_not_so_here_is_divergence() {
    let proofs = final_blocks(2);
    for executed_first in [false, true] {
        let (mut bench, blocks) = with_blocks(1);
        if !executed_first {
            adopt(&mut bench, proofs.clone()).expect("takes over");
        }
        executed(&mut bench, result(&blocks[0], 4, true, 9)).expect("executes");
        if executed_first {
            adopt(&mut bench, proofs.clone()).expect("takes over");
        }
        assert!(names(&bench).contains(&"consensus.diverged"));
        assert_eq!(code(adopt(&mut bench, proofs.clone())), "consensus.diverged");
    }
}

/// A liar that told this cell something else first cannot keep it from what was proven to it.
#[test]
fn the_words_of_a_proof_stand_in_for_what_liars_said_before() {
    let proofs = final_blocks(1);
    for executed_first in [false, true] {
        let (mut bench, blocks) = with_blocks(1);
        hear(&mut bench, vec![word(&blocks[0], 2, 8), word(&blocks[0], 3, 9)]);
        if executed_first {
            executed(&mut bench, result(&blocks[0], 4, true, 7)).expect("executes");
            assert_eq!(finalised(&mut bench), 0);
        }
        adopt(&mut bench, proofs.clone()).expect("takes over");
        if !executed_first {
            executed(&mut bench, result(&blocks[0], 4, true, 7)).expect("executes");
        }
        assert_eq!(finalised(&mut bench), 1);
        block_of(&mut bench, 0).proof.check(&four().hash(), &four().member_set()).expect("proven");
        let (replayed, before) = bench.replay();
        assert_eq!(replayed, before);
    }
}

/// Blocks of another history of the same network.
fn other_history(count: u64) -> Vec<BlockProof> {
    let mut bench = bench_of(four());
    let blocks: Vec<_> = (1..=count).map(|nonce| order_one(&mut bench, tx_on(&four(), 3, nonce))).collect();
    blocks
        .into_iter()
        .map(|block| BlockProof { attestations: words(&block, &[1, 2, 3]), block, handoffs: Vec::new() })
        .collect()
}

#[test]
fn blocks_that_do_not_follow_are_not_taken_over() {
    let (proofs, others) = (final_blocks(3), other_history(3));
    let mut unrelated = proofs[2].clone();
    unrelated.block.header.previous = BlockHash::ZERO;
    let with_all = |last: &BlockProof| vec![proofs[0].clone(), proofs[1].clone(), last.clone()];
    let cases = [
        (vec![proofs[2].clone()], "consensus.not_next"),
        (vec![proofs[0].clone(), proofs[2].clone()], "consensus.not_next"),
        (vec![others[0].clone()], "consensus.other_block"),
        (vec![proofs[0].clone(), others[1].clone()], "consensus.other_block"),
        (with_all(&others[2]), "consensus.other_block"),
        (with_all(&others[1]), "consensus.other_block"),
        (with_all(&unrelated), "consensus.other_block"),
    ];
    let (mut bench, _) = with_blocks(1);
    bench.take_effects();
    let (length, view) = (bench.journal.len(), bench.view.clone());
    for (place, (proofs, expected)) in cases.into_iter().enumerate() {
        assert_eq!(code(adopt(&mut bench, proofs)), expected, "case {place}");
        assert!(bench.journal.len() == length && bench.view == view && bench.effects.is_empty());
    }
    assert_eq!(adopt(&mut bench, vec![]).expect("nothing").ordered, 1);
    let twice = vec![proofs[1].clone(), proofs[1].clone(), proofs[0].clone(), proofs[2].clone()];
    assert_eq!(adopt(&mut bench, twice).expect("what is there is there").ordered, 3);
}

/// What may come to a cell of four whose three others all say root 7 in the end.
#[derive(Clone, Debug)]
enum Step {
    Execute,
    Word { index: u64, member: u8 },
    Lie { index: u64 },
    Adopt { from: u64, count: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Execute),
        6 => (0u64..4, 2u8..4).prop_map(|(index, member)| Step::Word { index, member }),
        1 => (0u64..4).prop_map(|index| Step::Lie { index }),
        1 => (0u64..4, 1u64..3).prop_map(|(from, count)| Step::Adopt { from, count }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However words and blocks come: a block is final once it is executed here and three words for it are known, and all
    /// are at the end. Cell 4 lies.
    #[test]
    fn finality_does_not_depend_on_how_words_come(steps in prop::collection::vec(step(), 0..40)) {
        let proofs = final_blocks(4);
        let (mut bench, _) = with_blocks(2);
        // Whether the words of cells 2 and 3 are known.
        let mut known = [[false; 2]; 4];
        let (mut ordered, mut done) = (2, 0);
        for step in steps {
            match step {
                Step::Execute if done < ordered => {
                    execute(&mut bench, &proofs[done as usize].block);
                    done += 1;
                }
                Step::Execute => {}
                Step::Word { index, member } => {
                    hear(&mut bench, words(&proofs[index as usize].block, &[member]));
                    known[index as usize][usize::from(member - 2)] = true;
                }
                Step::Lie { index } => {
                    hear(&mut bench, vec![word(&proofs[index as usize].block, 4, 8)]);
                }
                Step::Adopt { from, count } => {
                    let to = (from + count).min(4);
                    let given = proofs[from as usize..to as usize].to_vec();
                    let outcome = adopt(&mut bench, given);
                    prop_assert_eq!(outcome.is_ok(), from <= ordered);
                    if from <= ordered {
                        ordered = ordered.max(to);
                        known[from as usize..to as usize].fill([true; 2]);
                    }
                }
            }
            let is_final = |index: &u64| *index < done && known[*index as usize] == [true; 2];
            let expected = (0..4).take_while(is_final).count() as u64;
            prop_assert_eq!(progress(&mut bench), (ordered, done, expected));
        }
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
        let open = finalised(&mut bench) as usize;
        adopt(&mut bench, proofs[open..].to_vec()).expect("takes over");
        for proof in &proofs[done as usize..] {
            execute(&mut bench, &proof.block);
        }
        prop_assert_eq!(progress(&mut bench), (4, 4, 4));
        for index in 0..4 {
            prop_assert_eq!(block_of(&mut bench, index).proof.check(&four().hash(), &four().member_set()), Ok(root(7)));
        }
        prop_assert!(bench.owed().is_empty());
    }
}

#[test]
fn a_transaction_tells_when_it_took_each_step() {
    let mut bench = bench_of(four());
    let transaction = tx_on(&four(), 9, 1);
    let life = |bench: &mut Cell| {
        let life = view_of(bench, &transaction).expect("known").life;
        [life.accepted_ms, life.ordered_ms, life.applied_ms, life.finalised_ms]
    };
    bench.now_ms = 1_000;
    let accepted = admit(&mut bench, transaction.clone()).expect("admits");
    assert_eq!(accepted.life.accepted_ms, Some(1_000));
    assert_eq!(life(&mut bench), [Some(1_000), None, None, None]);
    bench.now_ms = 2_000;
    let block = order_one(&mut bench, transaction.clone());
    assert_eq!(life(&mut bench), [Some(1_000), Some(2_000), None, None]);
    bench.now_ms = 3_000;
    execute(&mut bench, &block);
    bench.now_ms = 4_000;
    hear(&mut bench, [2, 3].map(|member| word(&block, member, 7)).to_vec());
    assert_eq!(life(&mut bench), [Some(1_000), Some(2_000), Some(3_000), Some(4_000)]);
}
