//! The Message service: every message in and out, and what became of it. A pure machine.
//!
//! Rules:
//!
//! - A message is known by its id. One that is known already is acknowledged again and journaled
//!   once: ids are kept for ever, in the same table that finds a message, so nothing has to be
//!   forgotten and a late duplicate is never taken for news.
//! - What a sender may send is decided here, by the access list that comes with a batch; a stranger
//!   has a small quota for introductions, and nothing else is journaled for it.
//! - A message counts as shared between two cells once its receipt is journaled.
//! - Signatures are checked at the edge before a batch comes here; bodies that are sealed are checked
//!   when they are opened.
//!
//! Absent on purpose: the network. `Deliver` asks the world to fetch what waits and carry it over.

mod apply;
pub mod body;
mod lists;
mod outgoing;
mod receive;
mod record;
mod tables;

use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit};
use protocol::message::{Message, MessageType};
use protocol::messages::{Answer, OutboxCount, Request, Words};
use protocol::shared::Empty;
use protocol::{CellId, Event, MessageId};

pub use record::Record;
pub use receive::may_exec;
use tables::{MESSAGES, OUTBOX, TOTALS, UNSETTLED};

protocol::refusals! {
    /// What Message refuses.
    pub enum Refusal {
        BodyTooLarge { bytes: usize, bytes_max: usize } => TooLarge, "message.body_too_large",
            ("the body has {bytes} bytes, {bytes_max} are allowed"), "send less, or a POST with a link to the content";
        BadBody { kind: MessageType, why: String, example: &'static str } => Invalid, "message.bad_body",
            ("not a body of a {kind} message: {why}; one looks like {example}"), "GET /openapi.json has the schema of every body";
        NotMine => Invalid, "message.not_mine",
            ("the message was made by another cell"), "send it from its sender";
        NotForMe => Invalid, "message.not_for_me",
            ("the message is for another cell"), "send it to its receiver";
        Expired => Invalid, "message.expired",
            ("the message has expired"), "send it again, with a later expiry";
        ClockSkew { off_ms: u64 } => Invalid, "message.clock_skew",
            ("the message is from {off_ms} ms in the future"), "set the sender's clock";
        BadLifetime => Invalid, "message.bad_lifetime",
            ("a message lives from 1 ms to 30 days"), "choose another ttl_ms";
        OutboxFull => Busy, "message.outbox_full",
            ("too many messages wait for delivery"), "wait until the receiver is back, or cancel some: cell message cancel ID";
        RequestIdReused => Conflict, "message.request_id_reused",
            ("the request id was used for another message"), "use a fresh request id for each message";
        BadRequestId => Invalid, "message.bad_request_id",
            ("a request id has 1 to 64 bytes"), "use a UUID";
        NotAllowed { kind: MessageType } => Denied, "message.not_allowed",
            ("the receiver does not take {kind} messages from this cell"), "its operator can allow them: cell identity access CELL --may TYPE";
        TooManyIntroductions => Denied, "message.introductions_used_up",
            ("a cell that is no contact may send 5 messages"), "its operator can add this cell: cell peers add MULTIADDR";
        TooManyStrangers => Busy, "message.too_many_strangers",
            ("the receiver has as many introductions as it can take"), "try again later";
        BadProof => Invalid, "message.bad_proof",
            ("a proof shows at most 5 messages"), "send a newer version's proof";
        UnknownMessage => NotFound, "message.not_found",
            ("there is no such message here"), "cell message list shows them";
        NotCancellable => Conflict, "message.not_cancellable",
            ("only a queued outgoing message can be cancelled"), "cell message show ID tells its status";
        WrongReceipt => Invalid, "message.wrong_receipt",
            ("the receipt is not the receiver's for these messages"), "the receiver has to sign it anew";
        BadCursor => Invalid, "message.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
        Unsupported { what: &'static str } => Invalid, "message.unsupported",
            ("{what}"), "GET /openapi.json has the schema of every body";
    }
}

/// What Message asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something waits for this receiver.
    Deliver(CellId),
    /// An incoming message asks for something: carry it out, then settle it.
    Handle(MessageId, Box<Message>),
    /// A peer's messages came with a proof: fold it into the trust in it.
    Observe {
        /// Whose.
        cell: CellId,
        /// Messages shown.
        shown: u32,
        /// Those of them that are here with a receipt.
        matching: u32,
        /// Messages the two share.
        shared: u64,
    },
}

/// Whether an incoming message asks for something to be done.
pub fn asks(message: &Message) -> bool {
    match message.kind {
        MessageType::Chat => false,
        MessageType::Auth => true,
        MessageType::Tx | MessageType::Post | MessageType::Query | MessageType::Exec => message.in_reply_to.is_none(),
    }
}

/// The Message machine of one cell.
#[derive(Clone, Copy, Debug)]
pub struct MessageMachine {
    /// Whose.
    pub cell: CellId,
}

type Decided = Result<DecisionOf<MessageMachine>, Fault>;

impl Machine for MessageMachine {
    type Words = Words;
    type Record = Record;
    type Effect = Effect;

    fn decide(&self, view: &dyn Read, context: &Context, request: Request) -> Decided {
        match request {
            Request::Enqueue(asked) => outgoing::enqueue(self, view, context, asked),
            Request::Receive(asked) => receive::receive(self, view, context, asked),
            Request::Countersign(asked) => receive::countersign(view, asked),
            Request::RecordReceipt(asked) => outgoing::record_receipt(view, asked),
            Request::RecordRefusal(asked) => outgoing::record_refusal(view, asked),
            Request::Settle(asked) => receive::settle(view, asked),
            Request::Sweep(Empty {}) => outgoing::sweep(view, context),
            Request::Cancel(asked) => outgoing::cancel(view, &asked.id),
            Request::Lookup(asked) => lists::lookup(view, &asked.id),
            Request::List(list) => lists::list(view, &list),
            Request::Dead(list) => lists::dead(view, &list),
            Request::Posts(query) => lists::posts(view, &query),
            Request::GetShared(asked) => lists::shared(view, &asked.with),
            Request::Receivers(Empty {}) => lists::receivers(view),
            Request::Waiting(asked) => lists::waiting(view, context, &asked),
            Request::Outbox(Empty {}) => {
                let waiting = TOTALS.get(view, &())?.map_or(0, |totals| totals.waiting);
                answer(Answer::Outbox(OutboxCount { waiting }))
            }
        }
    }

    fn apply(&self, view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Effect>, Fault> {
        apply::apply(view, at, record)
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        record.events(at)
    }

    fn owed(&self, view: &dyn Read) -> Result<Vec<Owed<Effect>>, Fault> {
        let mut owed = Vec::new();
        for receiver in lists::receivers_waiting(view)? {
            owed.push(Owed { index: 0, ordinal: 0, effect: Effect::Deliver(receiver) });
        }
        for row in UNSETTLED.scan(view, &(), None, false) {
            let (index, ()) = row?;
            if let Some(stored) = MESSAGES.get(view, &index)? {
                let effect = Effect::Handle(stored.message.id(), Box::new(stored.message));
                owed.push(Owed { index, ordinal: 0, effect });
            }
        }
        Ok(owed)
    }
}

/// The first message that waits for a receiver.
fn first_waiting(view: &dyn Read, receiver: &CellId) -> Result<Option<u64>, Fault> {
    let first = OUTBOX.scan(view, receiver, None, false).next().transpose()?;
    Ok(first.map(|((_, index), _)| index))
}

/// Records and the answer, or the answer alone when there is nothing to record.
fn commit_or_answer(records: Vec<Record>, answered: Answer) -> Decided {
    if records.is_empty() { answer(answered) } else { commit(records, answered) }
}
