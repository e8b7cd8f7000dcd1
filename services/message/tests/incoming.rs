//! Incoming messages: who may send what, exactly once, carried out once.
#![allow(clippy::unwrap_used)]

mod kit;

use kit::*;
use message::limits::{
    BATCH_MESSAGES_MAX, INTRODUCTION_BYTES_MAX, INTRODUCTION_PENDING_MS_MAX, INTRODUCTIONS_PER_STRANGER_MAX,
    REPLIES_PER_MESSAGE_MAX, STRANGERS_MAX, UNSETTLED_PER_PEER_MAX,
};
use message::{Effect, may_exec};
use proptest::prelude::*;
use protocol::MessageId;
use protocol::identity::Admission;
use protocol::message::{BODY_BYTES_MAX, CLOCK_SKEW_MS_MAX, LIFETIME_MS_MAX, Message, MessageType};
use protocol::messages::Status;

const CHAT: &[MessageType] = &[MessageType::Chat];

#[test]
fn what_does_not_belong_here_is_refused_and_not_journaled() {
    let mut two = bench(2);
    let cases = [
        (Message { receiver: cell(9), ..chat(1, 2, 0) }, "message.not_for_me"),
        (Message { sender: cell(9), ..chat(1, 2, 0) }, "message.not_for_me"),
        (Message { timestamp_ms: NOW_MS + CLOCK_SKEW_MS_MAX + 1, ..chat(1, 2, 0) }, "message.clock_skew"),
        (
            Message { timestamp_ms: 0, expires_ms: NOW_MS - CLOCK_SKEW_MS_MAX - 1, ..chat(1, 2, 0) },
            "message.expired",
        ),
        (Message { expires_ms: NOW_MS + LIFETIME_MS_MAX + 1, ..chat(1, 2, 0) }, "message.bad_lifetime"),
        (Message { expires_ms: NOW_MS, ..chat(1, 2, 0) }, "message.bad_lifetime"),
        (Message { body: b"{}".to_vec(), ..chat(1, 2, 0) }, "message.bad_body"),
        (Message { body: vec![b' '; BODY_BYTES_MAX + 1], ..chat(1, 2, 0) }, "message.body_too_large"),
        (Message { proof: vec![MessageId::ZERO; 6], ..chat(1, 2, 0) }, "message.bad_proof"),
    ];
    for (message, expected) in cases {
        assert_eq!(receive_one(&mut two, 1, &MessageType::ALL, message), expected);
    }
    let many = vec![chat(1, 2, 0); BATCH_MESSAGES_MAX + 1];
    assert_eq!(refused(receive_as(&mut two, 1, true, CHAT, many)), "message.batch_too_large");
    assert!(two.journal.is_empty());
}

#[test]
fn no_clock_makes_it_panic() {
    for now_ms in [0, u64::MAX] {
        let mut two = bench(2);
        two.now_ms = now_ms;
        for (timestamp_ms, expires_ms) in [(0, 0), (0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
            let message = Message { timestamp_ms, expires_ms, ..chat(1, 2, 0) };
            assert_ne!(receive_one(&mut two, 1, CHAT, message), "ok");
        }
    }
}

#[test]
fn a_third_cell_cannot_bring_a_known_message() {
    let mut two = bench(2);
    assert_eq!(receive_one(&mut two, 1, CHAT, chat(1, 2, 0)), "ok");
    assert_eq!(receive_one(&mut two, 3, CHAT, chat(1, 2, 0)), "message.not_for_me");
}

#[test]
fn the_access_list_decides_by_type() {
    let mut two = bench(2);
    let post = typed(1, 2, MessageType::Post, r#"{"content":1}"#);
    assert_eq!(receive_one(&mut two, 1, CHAT, post.clone()), "message.not_allowed");
    assert_eq!(receive_one(&mut two, 1, &[], post.clone()), "message.not_allowed");
    assert_eq!(receive_one(&mut two, 1, &[MessageType::Query], chat(1, 2, 0)), "message.not_allowed");
    assert_eq!(receive_one(&mut two, 1, &[MessageType::Post], post), "ok");
    assert_eq!(receive_one(&mut two, 2, &[], typed(2, 2, MessageType::Query, "{}")), "ok", "to oneself");
    assert_eq!(two.journal.len(), 2);
}

#[test]
fn actions_are_allowed_by_name() {
    let admission = |may: &[MessageType]| Admission {
        contact: true,
        may: may.to_vec(),
        exec: vec!["state.get".into()],
        journals: Vec::new(),
    };
    assert!(may_exec(&admission(&[MessageType::Exec]), "state.get"));
    assert!(!may_exec(&admission(&[MessageType::Exec]), "state.list"));
    assert!(!may_exec(&admission(CHAT), "state.get"));
}

#[test]
fn a_stranger_introduces_itself_a_few_times_in_small() {
    let mut two = bench(2);
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(INTRODUCTION_BYTES_MAX));
    assert_eq!(
        receive_one(&mut two, 1, &[], typed(1, 2, MessageType::Chat, &large)),
        "message.body_too_large"
    );
    let max = INTRODUCTIONS_PER_STRANGER_MAX as usize;
    let batch: Vec<_> = (0..max as u64 + 2).map(|number| chat(1, 2, number)).collect();
    let outcomes = receive(&mut two, 1, &[], batch.clone());
    let codes: Vec<_> = outcomes.iter().map(code).collect();
    assert_eq!(codes[..max], vec!["ok"; max]);
    assert_eq!(codes[max..], ["message.introductions_used_up"; 2]);
    assert_eq!(receive_one(&mut two, 1, &[], batch[0].clone()), "ok", "acknowledged again");
    assert_eq!(receive_one(&mut two, 1, &[], chat(1, 2, 99)), "message.introductions_used_up");
    assert_eq!(receive_one(&mut two, 1, CHAT, chat(1, 2, 99)), "ok", "a contact by now");
    assert_eq!(two.journal.len(), max + 1);
    check_replay(&mut two);
}

/// Fills every place for strangers with cells 100 and up.
fn crowd(two: &mut Cell) {
    for number in 0..STRANGERS_MAX {
        let from = 100 + u8::try_from(number).unwrap();
        assert_eq!(receive_one(two, from, &[], chat(from, 2, number)), "ok");
    }
    assert_eq!(receive_one(two, 1, &[], chat(1, 2, 0)), "message.too_many_strangers");
}

#[test]
fn one_who_becomes_a_contact_makes_room_for_a_stranger() {
    let mut two = bench(2);
    crowd(&mut two);
    assert_eq!(receive_one(&mut two, 100, CHAT, chat(100, 2, 7)), "ok");
    assert_eq!(receive_one(&mut two, 1, &[], chat(1, 2, 0)), "ok");
    assert_eq!(receive_one(&mut two, 3, &[], chat(3, 2, 0)), "message.too_many_strangers");
    check_replay(&mut two);
}

#[test]
fn an_old_introduction_makes_room_for_a_new_one() {
    let mut two = bench(2);
    crowd(&mut two);
    two.now_ms += INTRODUCTION_PENDING_MS_MAX + 1;
    let late = |from: u8| Message { timestamp_ms: NOW_MS + INTRODUCTION_PENDING_MS_MAX, ..chat(from, 2, 0) };
    let late = |from: u8| Message { expires_ms: late(from).timestamp_ms + LIFE_MS, ..late(from) };
    assert_eq!(receive_one(&mut two, 1, &[], late(1)), "ok");
    assert_eq!(receive_one(&mut two, 3, &[], late(3)), "ok");
    check_replay(&mut two);
}

#[test]
fn a_stranger_may_answer_what_it_was_asked_and_not_for_ever() {
    let mut two = bench(2);
    let question = typed(2, 1, MessageType::Query, "{}");
    let id = question.id();
    let asked = Some(id);
    let answer = |number: usize| {
        let body = format!(r#"{{"result":{number}}}"#);
        Message { in_reply_to: asked, ..typed(1, 2, MessageType::Query, &body) }
    };
    assert_eq!(receive_one(&mut two, 1, &[], answer(0)), "message.not_allowed", "before it was asked");
    enqueue(&mut two, question, None).unwrap();
    let other = Message { in_reply_to: asked, ..typed(3, 2, MessageType::Query, r#"{"result":0}"#) };
    assert_eq!(receive_one(&mut two, 3, &[], other), "message.not_allowed", "another was asked");
    let kind = Message { in_reply_to: asked, ..typed(1, 2, MessageType::Exec, r#"{"result":0}"#) };
    assert_eq!(receive_one(&mut two, 1, &[], kind), "message.not_allowed", "something else was asked");
    let outcomes = receive(&mut two, 1, &[], (0..=REPLIES_PER_MESSAGE_MAX).map(answer).collect());
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), REPLIES_PER_MESSAGE_MAX);
    assert_eq!(code(outcomes.last().unwrap()), "message.replies_used_up");
    assert_eq!(receive_one(&mut two, 1, &[], answer(99)), "message.replies_used_up");
    assert_eq!(lookup(&mut two, id).unwrap().replies.len(), REPLIES_PER_MESSAGE_MAX);
    assert_eq!(two.owed().len(), 1, "replies ask for nothing; the question still waits");
}

#[test]
fn what_is_kept_of_a_stranger_is_bounded_in_bytes() {
    let mut two = bench(2);
    let question = typed(2, 1, MessageType::Query, "{}");
    let id = question.id();
    let asked = Some(id);
    enqueue(&mut two, question, None).unwrap();
    let fill = "x".repeat(BODY_BYTES_MAX - 1_000);
    let answer = |number: u32| {
        let body = format!(r#"{{"result":"{number}{fill}"}}"#);
        Message { in_reply_to: asked, ..typed(1, 2, MessageType::Query, &body) }
    };
    let codes: Vec<_> = (0..5).map(|number| receive_one(&mut two, 1, &[], answer(number))).collect();
    assert_eq!(codes, ["ok", "ok", "ok", "ok", "message.quota_full"]);
}

#[test]
fn what_waits_to_be_carried_out_is_bounded() {
    let mut two = bench(2);
    let query = |number: u64| typed(1, 2, MessageType::Query, &format!(r#"{{"tag":"{number}"}}"#));
    let may = &[MessageType::Chat, MessageType::Query];
    let max = UNSETTLED_PER_PEER_MAX;
    let outcomes = receive(&mut two, 1, may, (0..=max).map(query).collect());
    assert_eq!(code(outcomes.last().unwrap()), "message.overloaded");
    assert_eq!(two.owed().len() as u64, max);
    assert_eq!(receive_one(&mut two, 1, may, chat(1, 2, 0)), "ok", "a CHAT asks for nothing");
    settle(&mut two, query(0).id()).unwrap();
    assert_eq!(receive_one(&mut two, 1, may, query(max)), "ok");
}

#[test]
fn what_asks_for_something_is_handled_until_it_is_settled() {
    let mut two = bench(2);
    let query = typed(1, 2, MessageType::Query, "{}");
    let id = query.id();
    receive(&mut two, 1, &MessageType::ALL, vec![chat(1, 2, 0), query.clone()]);
    let handle = Effect::Handle(id, Box::new(query));
    assert!(two.take_effects().contains(&handle));
    check_replay(&mut two);
    assert_eq!(two.owed().into_iter().map(|owed| owed.effect).collect::<Vec<_>>(), [handle]);
    settle(&mut two, id).unwrap();
    settle(&mut two, id).unwrap();
    settle(&mut two, chat(1, 2, 0).id()).unwrap();
    assert_eq!((two.journal.len(), two.owed().len()), (3, 0), "settled once; a CHAT needs no settling");
    assert_eq!(
        (status(&mut two, id), status(&mut two, chat(1, 2, 0).id())),
        (Status::Handled, Status::Received)
    );
    assert_eq!(refused(settle(&mut two, MessageId::ZERO)), "message.not_found");
    check_replay(&mut two);
}

#[test]
fn a_receipt_is_journaled_with_the_messages_it_is_for_or_not_at_all() {
    let mut two = bench(2);
    let sent: Vec<_> = (0..3).map(|number| chat(1, 2, number)).collect();
    let known = ids(&sent);
    let stands = |two: &mut Cell, receipt, messages: &[Message]| {
        receive_with_receipt(two, receipt, 1, messages.to_vec())
    };
    for wrong in [head(2, 3, &known), head(1, 2, &known), head(2, 1, &known[1..])] {
        assert_eq!(refused(stands(&mut two, wrong, &sent)), "message.wrong_receipt");
    }
    assert!(two.journal.is_empty(), "nothing of a batch whose receipt is wrong");
    let mut one_refused = sent.clone();
    one_refused.push(typed(1, 2, MessageType::Query, "{}"));
    assert!(!stands(&mut two, head(2, 1, &ids(&one_refused)), &one_refused).unwrap());
    assert_eq!((two.journal.len(), shared(&mut two, 1).count), (3, 0), "taken, and not receipted yet");
    assert!(stands(&mut two, head(2, 1, &known), &sent).unwrap());
    assert_eq!((two.journal.len(), shared(&mut two, 1).count), (4, 3));
    let again: Vec<_> = (1..5).map(|number| chat(1, 2, number)).collect();
    assert!(stands(&mut two, head(2, 1, &ids(&again)), &again).unwrap());
    assert_eq!((two.journal.len(), shared(&mut two, 1).count), (7, 5), "each is shared once");
    assert!(stands(&mut two, head(2, 1, &ids(&again)), &again).unwrap());
    assert_eq!(two.journal.len(), 7, "nothing new");
    check_replay(&mut two);
}

#[test]
fn a_message_to_oneself_goes_both_ways_and_is_shared_with_nobody() {
    let mut two = bench(2);
    let (id, _) = enqueue(&mut two, chat(2, 2, 0), None).unwrap();
    assert_eq!(receive_one(&mut two, 2, &[], chat(2, 2, 0)), "ok");
    countersign(&mut two, head(2, 2, &[id]), &[id]).unwrap();
    receipt(&mut two, head(2, 2, &[id]), &[id]).unwrap();
    assert_eq!((shared(&mut two, 2).count, outbox(&mut two), status(&mut two, id)), (0, 0, Status::Received));
    assert_eq!(list(&mut two, Default::default()).unwrap().items.len(), 2);
    check_replay(&mut two);
}

proptest! {
    /// However a peer repeats, reorders and cuts its batches, each message is journaled once, and what
    /// it asks for is handled once.
    #[test]
    fn exactly_once(
        batches in prop::collection::vec(prop::collection::vec(0u64..12, 0..6), 0..12),
        replay_after in 0usize..12,
    ) {
        let mut two = bench(2);
        let mut sent = std::collections::BTreeSet::new();
        let may = [MessageType::Chat, MessageType::Query];
        for (number, batch) in batches.into_iter().enumerate() {
            sent.extend(batch.iter().copied());
            let message = |number: u64| match number % 2 {
                0 => chat(1, 2, number),
                _ => typed(1, 2, MessageType::Query, &format!(r#"{{"tag":"{number}"}}"#)),
            };
            let outcomes = receive(&mut two, 1, &may, batch.into_iter().map(message).collect());
            prop_assert!(outcomes.iter().all(Option::is_none));
            if number == replay_after {
                check_replay(&mut two);
            }
        }
        let handled = two.take_effects().iter().filter(|effect| matches!(effect, Effect::Handle(..))).count();
        let asking = sent.iter().filter(|number| *number % 2 == 1).count();
        prop_assert_eq!((two.journal.len(), handled), (sent.len(), asking));
        check_replay(&mut two);
    }
}
