//! Interaction proofs: what both cells hold with a receipt.
#![allow(clippy::unwrap_used)]

mod kit;

use kit::*;
use message::limits::OBSERVE_EVERY_MS;
use message::{Effect, Record};
use protocol::MessageId;
use protocol::message::{Message, MessageType};
use protocol::receipt::InteractionProof;

const CHAT: &[MessageType] = &[MessageType::Chat];

/// A cell that holds five messages of cell 1, with its own receipt for all.
fn acquainted() -> (Cell, Vec<MessageId>) {
    let mut two = bench(2);
    let messages: Vec<_> = (0..5).map(|number| chat(1, 2, number)).collect();
    let ids = ids(&messages);
    receive(&mut two, 1, CHAT, messages);
    countersign(&mut two, head(2, 1, &ids), &ids).unwrap();
    (two, ids)
}

/// Shown and matching, as journaled for a message with that proof.
fn check(two: &mut Cell, from: u8, proof: Vec<MessageId>) -> (u32, u32) {
    assert_eq!(receive_one(two, from, CHAT, Message { proof, ..chat(from, 2, 1_000 + two.now_ms) }), "ok");
    two.now_ms += 1;
    match last_record(two) {
        Record::Incoming { proof_shown, proof_matching, .. } => (proof_shown, proof_matching),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_proof_counts_what_is_here_with_a_receipt_each_once() {
    let (mut two, ids) = acquainted();
    let unknown = MessageId::from_bytes([1; 32]);
    assert_eq!(check(&mut two, 1, ids.clone()), (5, 5));
    assert_eq!(
        check(&mut two, 1, vec![unknown, ids[1], ids[2], ids[3], MessageId::ZERO]),
        (5, 3),
        "two forged"
    );
    assert_eq!(check(&mut two, 1, vec![ids[0]; 5]), (5, 1), "one five times");
    assert_eq!(check(&mut two, 3, ids.clone()), (5, 0), "another cell's");
    assert_eq!(check(&mut two, 1, Vec::new()), (0, 0));
    receive(&mut two, 1, CHAT, vec![chat(1, 2, 50)]);
    assert_eq!(check(&mut two, 1, vec![chat(1, 2, 50).id()]), (1, 0), "no receipt yet");
}

#[test]
fn both_ways_count_as_shared_newest_first() {
    let (mut two, ids) = acquainted();
    let sent = chat(2, 1, 0);
    let id = sent.id();
    enqueue(&mut two, sent, None).unwrap();
    assert_eq!(shared(&mut two, 1).count, 5, "not before its receipt");
    receipt(&mut two, head(1, 2, &[id]), &[id]).unwrap();
    let shared = shared(&mut two, 1);
    let latest: Vec<_> = shared.latest.iter().map(|item| item.id).collect();
    assert_eq!((shared.count, latest), (6, vec![id, ids[4], ids[3], ids[2], ids[1]]));
    let proof = InteractionProof { prover: cell(2), with: cell(1), shown: shared.latest };
    assert_eq!(proof.matching(), 5, "each receipt holds by itself, for anyone");
    assert_eq!(check(&mut two, 1, vec![id]), (1, 1));
    check_replay(&mut two);
}

#[test]
fn a_receipt_of_ones_own_is_for_what_came_from_that_sender() {
    let (mut two, ids) = acquainted();
    countersign(&mut two, head(2, 1, &ids), &ids).unwrap();
    assert_eq!((two.journal.len(), shared(&mut two, 1).count), (6, 5), "signed again is no news");
    for wrong in [head(3, 1, &ids), head(2, 3, &ids), head(2, 1, &ids[1..])] {
        assert_eq!(refused(countersign(&mut two, wrong, &ids)), "message.wrong_receipt");
    }
    let unknown = [MessageId::ZERO];
    assert_eq!(refused(countersign(&mut two, head(2, 1, &unknown), &unknown)), "message.not_found");
}

#[test]
fn a_peer_is_observed_once_a_second_at_most() {
    let mut two = bench(2);
    let mut observed = |now_ms: u64, from: u8| {
        two.now_ms = now_ms;
        receive(&mut two, from, CHAT, (0..3).map(|number| chat(from, 2, now_ms * 10 + number)).collect());
        two.take_effects().iter().filter(|effect| matches!(effect, Effect::Observe { .. })).count()
    };
    assert_eq!(observed(NOW_MS, 1), 1);
    assert_eq!(observed(NOW_MS + OBSERVE_EVERY_MS - 1, 1), 0);
    assert_eq!(observed(NOW_MS + OBSERVE_EVERY_MS - 1, 3), 1, "another peer");
    assert_eq!(observed(NOW_MS + OBSERVE_EVERY_MS, 1), 1);
    assert_eq!(observed(NOW_MS + 2 * OBSERVE_EVERY_MS, 2), 0, "oneself");
}

#[test]
fn every_message_of_a_large_batch_has_its_own_receipt() {
    let mut two = bench(2);
    let messages: Vec<_> = (0..23).map(|number| chat(1, 2, number)).collect();
    let ids = ids(&messages);
    receive(&mut two, 1, CHAT, messages);
    countersign(&mut two, head(2, 1, &ids), &ids).unwrap();
    for id in &ids {
        assert!(lookup(&mut two, *id).unwrap().receipt.unwrap().holds_for(id));
    }
    for view in list(&mut two, Default::default()).unwrap().items {
        assert!(view.receipt.unwrap().holds_for(&view.id));
    }
}
