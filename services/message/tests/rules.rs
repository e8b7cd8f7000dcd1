//! The rules of Message: exactly once, who may send what, proofs, receipts.

use machine::testing::Bench;
use message::{Effect, MessageMachine, Record};
use protocol::identity::Admission;
use protocol::message::{Message, MessageType};
use protocol::messages::{
    Answer, CountersignRequest, EnqueueRequest, MessageRef, ReceiveRequest, RecordReceiptRequest, Request, SharedRequest, Status,
};
use protocol::receipt::{ReceiptHead, batch_root};
use protocol::shared::Empty;
use protocol::signing::Signature;
use protocol::{CellId, MessageId, Problem};
use proptest::prelude::*;

const NOW_MS: u64 = 1_000_000;

fn cell(number: u8) -> CellId {
    CellId::from_bytes([number; 32])
}

fn bench(number: u8) -> Bench<MessageMachine> {
    Bench::new(MessageMachine { cell: cell(number) })
}

fn chat(from: u8, to: u8, number: u64) -> Message {
    Message {
        timestamp_ms: NOW_MS,
        expires_ms: NOW_MS + 1000,
        sender: cell(from),
        receiver: cell(to),
        kind: MessageType::Chat,
        sealed: false,
        in_reply_to: None,
        body: format!(r#"{{"text":"{number}"}}"#).into_bytes(),
        proof: Vec::new(),
        signature: Signature::from_bytes([0; 64]),
    }
}

fn head(receiver: u8, sender: u8, ids: &[MessageId]) -> ReceiptHead {
    let (receiver, sender) = (cell(receiver), cell(sender));
    let signature = Signature::from_bytes([0; 64]);
    ReceiptHead { receiver, sender, time_ms: NOW_MS, count: ids.len() as u64, root: batch_root(ids), signature }
}

fn receive(bench: &mut Bench<MessageMachine>, from: u8, may: &[MessageType], messages: Vec<Message>) -> Vec<Option<Problem>> {
    let admission = Admission { contact: !may.is_empty(), may: may.to_vec(), exec: Vec::new() };
    match bench.ask(Request::Receive(ReceiveRequest { from: cell(from), admission, messages })) {
        Ok(Answer::Receive(answer)) => answer.outcomes,
        other => panic!("{other:?}"),
    }
}

fn status(bench: &mut Bench<MessageMachine>, id: MessageId) -> Status {
    match bench.ask(Request::Lookup(MessageRef { id })) {
        Ok(Answer::Lookup(view)) => view.status,
        other => panic!("{other:?}"),
    }
}

fn code(outcome: &Option<Problem>) -> &str {
    outcome.as_ref().map_or("ok", |problem| &problem.code)
}

#[test]
fn a_sent_message_waits_until_its_receipt_is_there() {
    let mut bench = bench(1);
    let message = chat(1, 2, 0);
    let id = message.id();
    let enqueue = Request::Enqueue(EnqueueRequest { message, request_id: Some("r".into()) });
    bench.ask(enqueue.clone()).expect("enqueues");
    assert_eq!(bench.take_effects(), [Effect::Deliver(cell(2))]);
    bench.ask(enqueue).expect("the same again");
    assert_eq!(bench.journal.len(), 1, "journaled once");
    assert_eq!(bench.owed().len(), 1, "after a restart it is still to be delivered");
    let other = Request::Enqueue(EnqueueRequest { message: chat(1, 2, 9), request_id: Some("r".into()) });
    assert_eq!(bench.ask(other).expect_err("reused").code, "message.request_id_reused");
    assert_eq!(status(&mut bench, id), Status::Queued);
    let forged = RecordReceiptRequest { head: head(3, 1, &[id]), ids: vec![id] };
    assert_eq!(bench.ask(Request::RecordReceipt(forged)).expect_err("another cell's").code, "message.wrong_receipt");
    let receipt = RecordReceiptRequest { head: head(2, 1, &[id]), ids: vec![id] };
    bench.ask(Request::RecordReceipt(receipt.clone())).expect("records");
    bench.ask(Request::RecordReceipt(receipt)).expect("the same again");
    assert_eq!((status(&mut bench, id), bench.journal.len(), bench.owed().len()), (Status::Delivered, 2, 0));
    assert_eq!(bench.ask(Request::Cancel(MessageRef { id })).expect_err("delivered").code, "message.not_cancellable");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn an_undelivered_message_expires_and_is_a_dead_letter() {
    let mut bench = bench(1);
    let message = chat(1, 2, 0);
    let id = message.id();
    bench.ask(Request::Enqueue(EnqueueRequest { message, request_id: None })).expect("enqueues");
    bench.ask(Request::Sweep(Empty {})).expect("nothing to do");
    assert_eq!(status(&mut bench, id), Status::Queued);
    bench.now_ms += 1000;
    bench.ask(Request::Sweep(Empty {})).expect("sweeps");
    assert_eq!((status(&mut bench, id), bench.owed().len()), (Status::Expired, 0));
}

#[test]
fn what_a_sender_may_not_send_is_refused_and_not_journaled() {
    let mut bench = bench(2);
    let post = Message { kind: MessageType::Post, body: br#"{"content":1}"#.to_vec(), ..chat(1, 2, 0) };
    assert_eq!(code(&receive(&mut bench, 1, &[MessageType::Chat], vec![post.clone()])[0]), "message.not_allowed");
    assert_eq!(code(&receive(&mut bench, 1, &[], vec![post])[0]), "message.not_allowed");
    let cases = [
        (Message { receiver: cell(9), ..chat(1, 2, 0) }, "message.not_for_me"),
        (Message { sender: cell(9), ..chat(1, 2, 0) }, "message.not_for_me"),
        (Message { timestamp_ms: NOW_MS + 200_000, ..chat(1, 2, 0) }, "message.clock_skew"),
        (Message { expires_ms: 1, ..chat(1, 2, 0) }, "message.expired"),
        (Message { body: b"{}".to_vec(), ..chat(1, 2, 0) }, "message.bad_body"),
        (Message { body: vec![b' '; 1024 * 1024 + 1], ..chat(1, 2, 0) }, "message.body_too_large"),
        (Message { proof: vec![MessageId::ZERO; 6], ..chat(1, 2, 0) }, "message.bad_proof"),
    ];
    for (message, expected) in cases {
        assert_eq!(code(&receive(&mut bench, 1, &MessageType::ALL, vec![message])[0]), expected);
    }
    assert!(bench.journal.is_empty());
}

#[test]
fn a_stranger_may_introduce_itself_five_times() {
    let mut bench = bench(2);
    let codes: Vec<String> =
        (0..7).map(|number| code(&receive(&mut bench, 1, &[], vec![chat(1, 2, number)])[0]).to_owned()).collect();
    assert_eq!(codes[..5], ["ok"; 5]);
    assert_eq!(codes[5..], ["message.introductions_used_up"; 2]);
    assert_eq!(bench.journal.len(), 5);
}

#[test]
fn a_proof_matches_what_both_cells_hold_with_a_receipt() {
    let mut bench = bench(2);
    let shared: Vec<Message> = (0..5).map(|number| chat(1, 2, number)).collect();
    let ids: Vec<MessageId> = shared.iter().map(Message::id).collect();
    receive(&mut bench, 1, &[MessageType::Chat], shared);
    let matching = |bench: &mut Bench<MessageMachine>, number: u64, proof: Vec<MessageId>| {
        let message = Message { proof, ..chat(1, 2, number) };
        receive(bench, 1, &[MessageType::Chat], vec![message]);
        let entry = machine::Entry::<Record>::decode(bench.journal.last().expect("journaled")).expect("decodes");
        match entry.record {
            Record::Incoming { shown, matching, .. } => (shown, matching),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(matching(&mut bench, 10, ids.clone()), (5, 0), "no receipt yet");
    bench.ask(Request::Countersign(CountersignRequest { head: head(2, 1, &ids), ids: ids.clone() })).expect("signs");
    assert_eq!(matching(&mut bench, 11, ids.clone()), (5, 5));
    let mut forged = ids.clone();
    forged[0] = MessageId::from_bytes([1; 32]);
    forged[1] = ids[2];
    assert_eq!(matching(&mut bench, 12, forged), (5, 3), "a forged one and a repeated one do not count");
    match bench.ask(Request::GetShared(SharedRequest { with: cell(1) })) {
        Ok(Answer::GetShared(shared)) => assert_eq!((shared.count, shared.latest.len()), (5, 5)),
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// However a peer repeats and reorders its batches, each message is journaled once.
    #[test]
    fn exactly_once(batches in prop::collection::vec(prop::collection::vec(0u64..12, 0..6), 0..12)) {
        let mut bench = bench(2);
        let mut sent = std::collections::BTreeSet::new();
        for batch in batches {
            sent.extend(batch.iter().copied());
            let messages = batch.into_iter().map(|number| chat(1, 2, number)).collect();
            let outcomes = receive(&mut bench, 1, &[MessageType::Chat], messages);
            prop_assert!(outcomes.iter().all(Option::is_none));
        }
        prop_assert_eq!(bench.journal.len(), sent.len());
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
    }
}
