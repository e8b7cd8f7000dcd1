//! Beginning at a checkpoint: what is ordered after it is what everybody orders.

mod kit;

use consensus::Record;
use kit::{
    Cell, admit, bench_of, block_of, code, epoch, executed, four, hear, names, order, order_one,
    order_rounds, progress, records, result, round, status, tx_on, view_of, word,
};
use protocol::block::BlockProof;
use protocol::consensus::{Answer, BlockRef, JumpRequest, LastNonce, MembersRequest, Request, TxStatus};
use protocol::shared::Empty;
use protocol::{BlockIndex, Problem};

/// Cell 1 of four after three final blocks of senders 8 and 9, each with its nonces so far; sender 6 is in the first one alone.
fn ahead() -> Cell {
    let mut bench = bench_of(four());
    for nonce in 1..=3 {
        let mut transactions = vec![tx_on(&four(), 8, nonce), tx_on(&four(), 9, nonce * 10)];
        transactions.extend((nonce == 1).then(|| tx_on(&four(), 6, 5)));
        let block = order(&mut bench, transactions).remove(0);
        executed(&mut bench, result(&block, 1, true, 7)).expect("executes");
        hear(&mut bench, [2, 3].map(|member| word(&block, member, 7)).to_vec());
    }
    assert_eq!(progress(&mut bench), (3, 3, 3));
    bench
}

fn nonces() -> Vec<LastNonce> {
    [(6, 5), (8, 3), (9, 30)].map(|(sender, nonce)| LastNonce { cell: kit::cell(sender), nonce }).to_vec()
}

fn jump(bench: &mut Cell, proof: BlockProof) -> Result<(), Problem> {
    bench.ask(Request::Jump(JumpRequest { proof, nonces: nonces() })).map(|answer| match answer {
        Answer::Jump(Empty {}) => {
            bench.take_effects();
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn who_begins_at_a_checkpoint_orders_as_everybody() {
    let (mut ahead, mut new) = (ahead(), bench_of(four()));
    let proof = block_of(&mut ahead, 2).proof;
    jump(&mut new, proof.clone()).expect("jumps");
    assert_eq!(progress(&mut new), (3, 3, 3));
    assert_eq!(epoch(&mut new).round, epoch(&mut ahead).round);
    assert!(names(&new).contains(&"consensus.jumped"));
    // A nonce that is used up there is left out here too.
    let next = [(6, 5), (8, 3), (9, 30), (8, 4), (9, 29)]
        .map(|(sender, nonce)| tx_on(&four(), sender, nonce))
        .to_vec();
    for bench in [&mut ahead, &mut new] {
        order_rounds(bench, 0, vec![round(9, 9, next.clone())]).expect("orders");
        bench.take_effects();
    }
    let blocks = [&mut ahead, &mut new].map(|bench| block_of(bench, 3).proof.block);
    assert_eq!(blocks[0], blocks[1]);
    assert_eq!(blocks[0].transactions, [tx_on(&four(), 8, 4)]);
    // The block itself is here and proven, those before are not, and nobody is told anything else of them.
    assert_eq!(block_of(&mut new, 2).proof, proof);
    for ask in [
        Request::GetBlock(BlockRef { index: BlockIndex(1) }),
        Request::Members(MembersRequest { at: Some(BlockIndex(1)), ..MembersRequest::default() }),
    ] {
        assert_eq!(code(new.ask(ask)), "consensus.unknown_block");
    }
    let older = block_of(&mut ahead, 1).proof;
    assert_eq!(
        code(new.ask(Request::Adopt(protocol::consensus::AdoptRequest { proofs: vec![older] }))),
        "consensus.unknown_block"
    );
    let (replayed, before) = new.replay();
    assert_eq!(replayed, before);
    // Again, it is the same; back, it is not to be had.
    let length = new.journal.len();
    let back = block_of(&mut ahead, 1).proof;
    assert_eq!(code(jump(&mut new, back)), "consensus.not_next");
    assert_eq!(new.journal.len(), length);
}

#[test]
fn only_a_proven_block_of_this_network_beyond_what_is_here_is_jumped_to() {
    let mut ahead = ahead();
    let proof = block_of(&mut ahead, 2).proof;
    let mut new = bench_of(four());
    let unproven = BlockProof { attestations: Vec::new(), ..proof.clone() };
    assert_eq!(code(jump(&mut new, unproven)), "consensus.not_final");
    let mut foreign = proof.clone();
    foreign.block.header.genesis = protocol::GenesisHash::ZERO;
    assert_eq!(code(jump(&mut new, foreign)), "consensus.wrong_network");
    // Another block of that index is here.
    let mut other = bench_of(four());
    for nonce in 1..=3 {
        order_one(&mut other, tx_on(&four(), 7, nonce));
    }
    assert_eq!(code(jump(&mut other, proof)), "consensus.other_block");
}

#[test]
fn what_waits_and_is_overtaken_has_an_end_that_is_not_known() {
    let mut ahead = ahead();
    let mut behind = bench_of(four());
    let (old, new) = (tx_on(&four(), 8, 2), tx_on(&four(), 8, 5));
    for transaction in [&old, &new] {
        admit(&mut behind, transaction.clone()).expect("admits");
    }
    jump(&mut behind, block_of(&mut ahead, 2).proof).expect("jumps");
    let view = view_of(&mut behind, &old).expect("known");
    assert_eq!(
        (view.status, &*view.problem.expect("told").code),
        (TxStatus::Rejected, "consensus.outcome_unknown")
    );
    assert_eq!(status(&mut behind, &new), Some(TxStatus::Accepted));
    // One that is in the block itself is final.
    let mut behind = bench_of(four());
    admit(&mut behind, tx_on(&four(), 8, 3)).expect("admits");
    jump(&mut behind, block_of(&mut ahead, 2).proof).expect("jumps");
    assert_eq!(status(&mut behind, &tx_on(&four(), 8, 3)), Some(TxStatus::Finalised));
    assert!(kit::waiting(&mut behind).is_empty());
}

/// The operator says so first; then the checkpoint takes the place of what came out here.
#[test]
fn one_that_has_diverged_goes_on_from_a_checkpoint() {
    let mut ahead = ahead();
    let mut bench = bench_of(four());
    let first = order(&mut bench, vec![tx_on(&four(), 8, 1), tx_on(&four(), 9, 10)]).remove(0);
    executed(&mut bench, result(&first, 1, true, 5)).expect("executes");
    hear(&mut bench, [2, 3, 4].map(|member| word(&first, member, 7)).to_vec());
    assert!(names(&bench).contains(&"consensus.diverged"));
    assert!(!epoch(&mut bench).rejoins);
    for _ in 0..2 {
        bench.ask(Request::Rejoin(Empty {})).expect("rejoins");
    }
    assert!(epoch(&mut bench).rejoins);
    let rejoins = |record: &&Record| matches!(record, Record::Rejoins { .. });
    assert_eq!(records(&bench).iter().filter(rejoins).count(), 1);
    let refused = order_rounds(&mut bench, 0, vec![round(5, 5, vec![tx_on(&four(), 8, 9)])]);
    assert_eq!(code(refused), "consensus.diverged", "until it has the checkpoint");
    jump(&mut bench, block_of(&mut ahead, 2).proof).expect("jumps");
    assert!(!epoch(&mut bench).rejoins);
    assert_eq!(progress(&mut bench), (3, 3, 3));
    let next = order_one(&mut bench, tx_on(&four(), 8, 4));
    executed(&mut bench, result(&next, 1, true, 7)).expect("executes");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
    // One that has not diverged has nothing to rejoin.
    ahead.ask(Request::Rejoin(Empty {})).expect("nothing to do");
    assert!(!epoch(&mut ahead).rejoins);
}
