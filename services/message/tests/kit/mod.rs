//! Small helpers: cells, messages, receipts, and questions to a bench.
#![allow(dead_code, clippy::unwrap_used)]

use machine::testing::Bench;
use machine::{Entry, MemoryStore};
use message::{MessageMachine, Record};
use protocol::identity::Admission;
use protocol::message::{Message, MessageType};
use protocol::messages::{
    Answer, CountersignRequest, EnqueueRequest, ListMessages, MessageRef, MessageView, ReceiveRequest,
    RecordReceiptRequest, RecordRefusalRequest, Request, SettleRequest, Shared, SharedRequest, Status,
    WaitingMessage, WaitingRequest,
};
use protocol::receipt::{ReceiptHead, batch_root};
use protocol::shared::{Empty, Page};
use protocol::signing::{self, Signature};
use protocol::{CellId, MessageId, Problem, ProblemKind};

pub(crate) const NOW_MS: u64 = 1_000_000;
pub(crate) const LIFE_MS: u64 = 10_000;

pub(crate) type Cell = Bench<MessageMachine>;

fn key(number: u8) -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn cell(number: u8) -> CellId {
    signing::cell_id(&key(number))
}

pub(crate) fn bench(number: u8) -> Cell {
    Bench::new(MessageMachine { cell: cell(number) })
}

pub(crate) fn chat(from: u8, to: u8, number: u64) -> Message {
    typed(from, to, MessageType::Chat, &format!(r#"{{"text":"{number}"}}"#))
}

pub(crate) fn typed(from: u8, to: u8, kind: MessageType, body: &str) -> Message {
    Message {
        timestamp_ms: NOW_MS,
        expires_ms: NOW_MS + LIFE_MS,
        sender: cell(from),
        receiver: cell(to),
        kind,
        sealed: false,
        in_reply_to: None,
        body: body.as_bytes().to_vec(),
        proof: Vec::new(),
        signature: Signature::from_bytes([0; 64]),
        nonce: 0,
        together: None,
    }
}

pub(crate) fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(Message::id).collect()
}

fn with_ids(messages: Vec<Message>) -> Vec<(MessageId, Message)> {
    messages.into_iter().map(|message| (message.id(), message)).collect()
}

/// The receiver's signed head.
pub(crate) fn head(receiver: u8, sender: u8, ids: &[MessageId]) -> ReceiptHead {
    let signature = Signature::from_bytes([0; 64]);
    let (count, root) = (ids.len() as u64, batch_root(ids));
    let mut head = ReceiptHead {
        receiver: cell(receiver),
        sender: cell(sender),
        time_ms: NOW_MS,
        count,
        root,
        signature,
    };
    head.signature = signing::sign(&key(receiver), &head.signed_text());
    head
}

pub(crate) fn code(outcome: &Option<Problem>) -> &str {
    outcome.as_ref().map_or("ok", |problem| &problem.code)
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
    let problem = result.expect_err("should be refused");
    assert!(problem.hint.is_some(), "every refusal has advice");
    problem.code.into_owned()
}

/// Asks, and takes the answer apart.
macro_rules! ask {
    ($cell:expr, $variant:ident, $request:expr) => {
        match $cell.ask(Request::$variant($request)) {
            Ok(Answer::$variant(answer)) => Ok(answer),
            Ok(other) => panic!("another answer: {other:?}"),
            Err(problem) => Err(problem),
        }
    };
}

pub(crate) fn enqueue(
    cell: &mut Cell,
    message: Message,
    request_id: Option<&str>,
) -> Result<(MessageId, Status), Problem> {
    let request = EnqueueRequest { id: message.id(), message, request_id: request_id.map(str::to_owned) };
    ask!(cell, Enqueue, request).map(|sent| (sent.id, sent.status))
}

/// Receives as from a contact that may send `may`; from a stranger if that is empty.
pub(crate) fn receive(
    cell: &mut Cell,
    from: u8,
    may: &[MessageType],
    messages: Vec<Message>,
) -> Vec<Option<Problem>> {
    receive_as(cell, from, !may.is_empty(), may, messages).unwrap().to_vec()
}

pub(crate) fn receive_as(
    bench: &mut Cell,
    from: u8,
    contact: bool,
    may: &[MessageType],
    messages: Vec<Message>,
) -> Result<Vec<Option<Problem>>, Problem> {
    let admission = Admission { contact, may: may.to_vec(), exec: Vec::new(), journals: Vec::new() };
    let messages = with_ids(messages);
    ask!(bench, Receive, ReceiveRequest { from: cell(from), admission, messages, receipt: None })
        .map(|answer| answer.outcomes)
}

/// Receives CHATs as from a contact, with a receipt for them; says whether it stands.
pub(crate) fn receive_with_receipt(
    bench: &mut Cell,
    head: ReceiptHead,
    from: u8,
    messages: Vec<Message>,
) -> Result<bool, Problem> {
    let admission =
        Admission { contact: true, may: vec![MessageType::Chat], exec: Vec::new(), journals: Vec::new() };
    let messages = with_ids(messages);
    let request = ReceiveRequest { from: cell(from), admission, messages, receipt: Some(head) };
    ask!(bench, Receive, request).map(|answer| answer.receipted)
}

pub(crate) fn receive_one(cell: &mut Cell, from: u8, may: &[MessageType], message: Message) -> String {
    code(&receive(cell, from, may, vec![message])[0]).to_owned()
}

pub(crate) fn receipt(cell: &mut Cell, head: ReceiptHead, ids: &[MessageId]) -> Result<Empty, Problem> {
    ask!(cell, RecordReceipt, RecordReceiptRequest { head, ids: ids.to_vec() })
}

pub(crate) fn countersign(cell: &mut Cell, head: ReceiptHead, ids: &[MessageId]) -> Result<Empty, Problem> {
    ask!(cell, Countersign, CountersignRequest { head, ids: ids.to_vec() })
}

pub(crate) fn refusal(cell: &mut Cell, id: MessageId) -> Result<Empty, Problem> {
    let problem = Problem::new(ProblemKind::Denied, "test.refused", "no").hint("nothing");
    ask!(cell, RecordRefusal, RecordRefusalRequest { id, problem })
}

pub(crate) fn settle(cell: &mut Cell, id: MessageId) -> Result<Empty, Problem> {
    ask!(cell, Settle, SettleRequest { id, problem: None })
}

pub(crate) fn cancel(cell: &mut Cell, id: MessageId) -> Result<Status, Problem> {
    ask!(cell, Cancel, MessageRef { id }).map(|answer| answer.status)
}

pub(crate) fn sweep(cell: &mut Cell) {
    ask!(cell, Sweep, Empty {}).unwrap();
}

pub(crate) fn lookup(cell: &mut Cell, id: MessageId) -> Result<MessageView, Problem> {
    ask!(cell, Lookup, MessageRef { id }).map(|view| *view)
}

pub(crate) fn status(cell: &mut Cell, id: MessageId) -> Status {
    lookup(cell, id).unwrap().status
}

pub(crate) fn list(cell: &mut Cell, asked: ListMessages) -> Result<Page<MessageView>, Problem> {
    ask!(cell, List, asked)
}

pub(crate) fn dead(cell: &mut Cell) -> Vec<MessageId> {
    ask!(cell, Dead, Default::default()).unwrap().items.into_iter().map(|view| view.id).collect()
}

pub(crate) fn shared(bench: &mut Cell, with: u8) -> Shared {
    ask!(bench, GetShared, SharedRequest { with: cell(with) }).unwrap()
}

pub(crate) fn posts(cell: &mut Cell, query: protocol::message::QueryBody) -> Vec<MessageId> {
    ask!(cell, Posts, query).unwrap().items.into_iter().map(|view| view.id).collect()
}

pub(crate) fn waiting_page(bench: &mut Cell, receiver: u8, after: Option<u64>) -> Page<WaitingMessage> {
    let request = WaitingRequest { receiver: cell(receiver), after, limit: 100 };
    ask!(bench, Waiting, request).unwrap()
}

pub(crate) fn waiting(bench: &mut Cell, receiver: u8, after: Option<u64>) -> Vec<MessageId> {
    let page = waiting_page(bench, receiver, after);
    page.items.into_iter().map(|item| item.message.id()).collect()
}

pub(crate) fn outbox(cell: &mut Cell) -> u64 {
    ask!(cell, Outbox, Empty {}).unwrap().waiting
}

pub(crate) fn last_record(cell: &Cell) -> Record {
    Entry::<Record>::decode(cell.journal.last().unwrap()).unwrap().record
}

/// Drops the view and folds the journal again: the same bytes, the same debts.
pub(crate) fn check_replay(cell: &mut Cell) -> MemoryStore {
    let owed = cell.owed();
    let (after, before) = cell.replay();
    assert!(after == before, "replay gives another view");
    assert_eq!(cell.owed(), owed);
    after
}
