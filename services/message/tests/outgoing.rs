//! Outgoing messages: queued once, delivered by a receipt, dead in other ways.
#![allow(clippy::unwrap_used)]

mod kit;

use kit::*;
use message::limits::{RECEIVERS_MAX, ROWS_PER_CALL_MAX};
use message::{Effect, Record};
use protocol::message::{BODY_BYTES_MAX, LIFETIME_MS_MAX, Message, MessageType};
use protocol::messages::Status;
use protocol::{CellId, MessageId};

#[test]
fn a_request_id_gives_the_same_message_and_no_other() {
    let mut one = bench(1);
    let first = enqueue(&mut one, chat(1, 2, 0), Some("r")).unwrap();
    let again = Message { timestamp_ms: NOW_MS + 5, ..chat(1, 2, 0) };
    assert_eq!(
        enqueue(&mut one, again.clone(), Some("r")).unwrap(),
        first,
        "a fresh timestamp is no difference"
    );
    assert_eq!(one.journal.len(), 1);
    let others = [
        chat(1, 2, 9),
        chat(1, 3, 0),
        Message { kind: MessageType::Query, body: b"{}".to_vec(), ..chat(1, 2, 0) },
        Message { in_reply_to: Some(first.0), ..chat(1, 2, 0) },
    ];
    for other in others {
        assert_eq!(refused(enqueue(&mut one, other, Some("r"))), "message.request_id_reused");
    }
    one.now_ms += LIFE_MS + 1;
    sweep(&mut one);
    assert_eq!(enqueue(&mut one, again, Some("r")).unwrap(), (first.0, Status::Expired), "however late");
    for bad in ["", &"x".repeat(65)] {
        assert_eq!(refused(enqueue(&mut one, chat(1, 2, 1), Some(bad))), "message.bad_request_id");
    }
}

#[test]
fn two_sealed_bodies_under_one_request_id_are_told_apart_by_their_length() {
    let mut one = bench(1);
    let sealed = |body: &[u8]| Message { sealed: true, body: body.to_vec(), ..chat(1, 2, 0) };
    let first = enqueue(&mut one, sealed(b"abc"), Some("r")).unwrap();
    assert_eq!(enqueue(&mut one, sealed(b"xyz"), Some("r")).unwrap(), first, "sealing is randomised");
    assert_eq!(refused(enqueue(&mut one, sealed(b"abcd"), Some("r"))), "message.request_id_reused");
}

#[test]
fn the_same_message_twice_is_queued_once() {
    let mut one = bench(1);
    let first = enqueue(&mut one, chat(1, 2, 0), None).unwrap();
    let carried = Some(Box::new((chat(1, 2, 0).id(), chat(1, 2, 0))));
    assert_eq!(one.take_effects(), [Effect::Deliver { receiver: cell(2), message: carried }]);
    assert_eq!(enqueue(&mut one, chat(1, 2, 0), None).unwrap(), first);
    assert_eq!((one.journal.len(), one.take_effects().len(), outbox(&mut one)), (1, 0, 1));
}

#[test]
fn what_cannot_be_sent_is_refused_and_not_journaled() {
    let mut one = bench(1);
    let cases = [
        (chat(3, 2, 0), "message.not_mine"),
        (Message { expires_ms: NOW_MS, ..chat(1, 2, 0) }, "message.bad_lifetime"),
        (Message { expires_ms: NOW_MS + LIFETIME_MS_MAX + 1, ..chat(1, 2, 0) }, "message.bad_lifetime"),
        (Message { body: vec![b' '; BODY_BYTES_MAX + 1], ..chat(1, 2, 0) }, "message.body_too_large"),
        (
            Message { body: vec![b' '; BODY_BYTES_MAX + 1], sealed: true, ..chat(1, 2, 0) },
            "message.body_too_large",
        ),
        (Message { body: b"{".to_vec(), ..chat(1, 2, 0) }, "message.bad_body"),
        (Message { proof: vec![MessageId::ZERO; 6], ..chat(1, 2, 0) }, "message.bad_proof"),
    ];
    for (message, expected) in cases {
        assert_eq!(refused(enqueue(&mut one, message, None)), expected);
    }
    assert!(one.journal.is_empty());
}

#[test]
fn the_outbox_is_bounded() {
    let mut one = bench(1);
    for number in 0..RECEIVERS_MAX {
        let mut receiver = [0; 32];
        receiver[..8].copy_from_slice(&number.to_le_bytes());
        enqueue(&mut one, Message { receiver: CellId::from_bytes(receiver), ..chat(1, 2, 0) }, None).unwrap();
    }
    assert_eq!(refused(enqueue(&mut one, chat(1, 2, 0), None)), "message.outbox_full");
    let known = Message { receiver: CellId::from_bytes([0; 32]), ..chat(1, 2, 1) };
    enqueue(&mut one, known, None).expect("a receiver that is waited for already");
    assert_eq!(outbox(&mut one), RECEIVERS_MAX + 1);
    assert_eq!(one.owed().len() as u64, RECEIVERS_MAX);
}

#[test]
fn a_receipt_delivers_its_batch_once() {
    let mut one = bench(1);
    let sent: Vec<Message> = (0..3).map(|number| chat(1, 2, number)).collect();
    let sent_ids = ids(&sent);
    for message in sent {
        enqueue(&mut one, message, None).unwrap();
    }
    assert_eq!(waiting(&mut one, 2, None), sent_ids);
    assert_eq!(waiting(&mut one, 2, Some(0)), sent_ids[1..]);
    receipt(&mut one, head(2, 1, &sent_ids[..1]), &sent_ids[..1]).unwrap();
    // The batch that comes next repeats the first, and has one that this cell never sent.
    let batch = [sent_ids[0], MessageId::from_bytes([9; 32]), sent_ids[1], sent_ids[2]];
    receipt(&mut one, head(2, 1, &batch), &batch).unwrap();
    receipt(&mut one, head(2, 1, &batch), &batch).unwrap();
    assert_eq!((one.journal.len(), outbox(&mut one), shared(&mut one, 2).count), (5, 0, 3));
    let delivered: Vec<_> = one.events.iter().filter(|event| event.event == "message.delivered").collect();
    assert_eq!(delivered.len(), 3, "one event a message");
    for id in &sent_ids {
        let view = lookup(&mut one, *id).unwrap();
        assert_eq!(view.status, Status::Delivered);
        assert!(view.receipt.unwrap().holds_for(id));
    }
    assert_eq!(refused(cancel(&mut one, sent_ids[0])), "message.not_cancellable");
    check_replay(&mut one);
    assert!(one.owed().is_empty());
}

#[test]
fn a_receipt_of_another_cell_or_for_other_ids_changes_nothing() {
    let mut one = bench(1);
    let (two, three) = (chat(1, 2, 0), chat(1, 3, 0));
    let both = [two.id(), three.id()];
    enqueue(&mut one, two, None).unwrap();
    enqueue(&mut one, three, None).unwrap();
    let cases = [
        (head(3, 1, &both[..1]), &both[..1]),
        (head(2, 1, &both), &both[..]),
        (head(2, 5, &both[..1]), &both[..1]),
        (head(2, 1, &both[1..]), &both[..1]),
    ];
    for (head, ids) in cases {
        assert_eq!(refused(receipt(&mut one, head, ids)), "message.wrong_receipt");
    }
    let many = vec![both[0]; message::limits::BATCH_MESSAGES_MAX + 1];
    assert_eq!(refused(receipt(&mut one, head(2, 1, &many), &many)), "message.batch_too_large");
    assert_eq!((one.journal.len(), outbox(&mut one)), (2, 2));
}

#[test]
fn an_undelivered_message_expires() {
    let mut one = bench(1);
    let (id, _) = enqueue(&mut one, chat(1, 2, 0), None).unwrap();
    one.now_ms += LIFE_MS - 1;
    sweep(&mut one);
    assert_eq!((status(&mut one, id), waiting(&mut one, 2, None)), (Status::Queued, vec![id]));
    one.now_ms += 1;
    assert!(waiting(&mut one, 2, None).is_empty(), "no longer delivered, swept or not");
    sweep(&mut one);
    sweep(&mut one);
    assert_eq!((status(&mut one, id), dead(&mut one), one.journal.len()), (Status::Expired, vec![id], 2));
    assert_eq!((outbox(&mut one), one.owed().len()), (0, 0));
    check_replay(&mut one);
}

#[test]
fn a_sweep_expires_a_bounded_number() {
    let mut one = bench(1);
    for number in 0..1_200 {
        enqueue(&mut one, chat(1, 2, number), None).unwrap();
    }
    one.now_ms += LIFE_MS;
    sweep(&mut one);
    assert_eq!(outbox(&mut one), 200);
    sweep(&mut one);
    assert_eq!(outbox(&mut one), 0);
}

#[test]
fn only_a_queued_message_is_cancelled_or_refused() {
    let mut one = bench(1);
    let (cancelled, _) = enqueue(&mut one, chat(1, 2, 0), None).unwrap();
    let (refused_, _) = enqueue(&mut one, chat(1, 2, 1), None).unwrap();
    assert_eq!(cancel(&mut one, cancelled).unwrap(), Status::Cancelled);
    refusal(&mut one, refused_).unwrap();
    refusal(&mut one, refused_).unwrap();
    refusal(&mut one, cancelled).unwrap();
    assert_eq!(one.journal.len(), 4, "the second refusal, and one after the end, are no news");
    assert_eq!(
        (status(&mut one, cancelled), status(&mut one, refused_)),
        (Status::Cancelled, Status::Refused)
    );
    assert_eq!(lookup(&mut one, refused_).unwrap().problem.unwrap().code, "test.refused");
    assert_eq!(dead(&mut one), [refused_, cancelled]);
    assert_eq!(refused(cancel(&mut one, refused_)), "message.not_cancellable");
    let unknown = MessageId::ZERO;
    assert_eq!(refused(cancel(&mut one, unknown)), "message.not_found");
    assert_eq!(refused(refusal(&mut one, unknown)), "message.not_found");
    assert_eq!(refused(lookup(&mut one, unknown)), "message.not_found");
    check_replay(&mut one);
}

#[test]
fn a_link_that_holds_a_message_is_told_of_its_cancellation() {
    let mut one = bench(1);
    let (id, _) = enqueue(&mut one, chat(1, 2, 0), None).unwrap();
    one.take_effects();
    cancel(&mut one, id).unwrap();
    assert_eq!(one.take_effects(), [Effect::Deliver { receiver: cell(2), message: None }]);
    assert!(waiting(&mut one, 2, None).is_empty());
}

#[test]
fn what_lives_behind_many_expired_ones_is_found() {
    let mut one = bench(1);
    let expired = 2 * ROWS_PER_CALL_MAX as u64;
    for number in 0..expired {
        enqueue(&mut one, chat(1, 2, number), None).unwrap();
    }
    one.now_ms += LIFE_MS;
    let late = Message { timestamp_ms: one.now_ms, expires_ms: one.now_ms + LIFE_MS, ..chat(1, 2, expired) };
    let (id, _) = enqueue(&mut one, late, None).unwrap();
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = waiting_page(&mut one, 2, after);
        found.extend(page.items.iter().map(|waiting| waiting.message.id()));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!((found, pages), (vec![id], 3));
}

#[test]
fn a_receipt_is_the_last_word() {
    let mut one = bench(1);
    let (id, _) = enqueue(&mut one, chat(1, 2, 0), None).unwrap();
    cancel(&mut one, id).unwrap();
    receipt(&mut one, head(2, 1, &[id]), &[id]).unwrap();
    assert_eq!((status(&mut one, id), dead(&mut one), outbox(&mut one)), (Status::Delivered, vec![], 0));
    assert!(matches!(last_record(&one), Record::Receipted { .. }));
    check_replay(&mut one);
}

#[test]
fn after_a_restart_each_receiver_is_delivered_to_once() {
    let mut one = bench(1);
    for (to, number) in [(3, 0), (2, 1), (3, 2), (1, 3)] {
        enqueue(&mut one, chat(1, to, number), None).unwrap();
    }
    check_replay(&mut one);
    let owed: Vec<_> = one.owed().into_iter().map(|owed| (owed.index, owed.effect)).collect();
    let expected = [(0, 3), (1, 2), (3, 1)]
        .map(|(index, to)| (index, Effect::Deliver { receiver: cell(to), message: None }));
    assert_eq!(owed, expected, "in journal order, each under the entry that waits first");
}
