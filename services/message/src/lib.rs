//! The Message service: every message in and out, and what became of it. A pure machine.
//!
//! Rules:
//!
//! - A message is known by its id, and journaled once. One that is known already is acknowledged
//!   again. Ids are kept for ever, in the row that a message's status needs anyway, so nothing has to
//!   be forgotten and a late duplicate is never taken for news.
//! - What a sender may send is decided here, by the access list that comes with a batch. A stranger
//!   has a small quota for introductions, and may answer what it was asked; nothing else is journaled
//!   for it.
//! - A message counts as shared between two cells once its receipt is journaled: the receiver's for an
//!   outgoing one, this cell's own for an incoming one. A message to oneself is shared with nobody.
//! - A receipt is the last word on a delivery: it also turns a message that had expired, or was
//!   cancelled while under way, into a delivered one.
//! - Signatures are checked at the edge before a batch comes here; bodies that are sealed are checked
//!   when they are opened, with [`parse_body`].
//! - Every queue and store is bounded: see [`limits`].
//!
//! Absent on purpose: the network ([`Effect::Deliver`] asks the world to carry over what waits), keys,
//! and retries (the world asks again; receivers deduplicate).

mod admit;
mod apply;
pub mod body;
mod effect;
pub mod limits;
mod lists;
mod outgoing;
mod receive;
mod record;
mod refusal;
mod shown;
mod tables;

use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit};
use protocol::messages::{Answer, OutboxCount, Request, Words};
use protocol::shared::Empty;
use protocol::{CellId, Event};

pub use admit::may_exec;
pub use body::{Body, parse_body};
pub use effect::{Effect, asks};
pub use record::Record;
pub use refusal::Refusal;

use tables::{BODIES, IN, TOTALS, UNSETTLED, lane, receivers_waiting};

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
            Request::Countersign(asked) => receive::countersign(self, view, asked),
            Request::RecordReceipt(asked) => outgoing::record_receipt(self, view, asked),
            Request::RecordRefusal(asked) => outgoing::record_refusal(view, asked),
            Request::Settle(asked) => receive::settle(view, asked),
            Request::Sweep(Empty {}) => outgoing::sweep(view, context),
            Request::Cancel(asked) => outgoing::cancel(view, &asked.id),
            Request::Lookup(asked) => lists::lookup(view, &asked.id),
            Request::List(asked) => lists::list(self, view, &asked),
            Request::Dead(asked) => lists::dead(view, &asked),
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
        apply::apply(&self.cell, view, at, record)
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        record.events(at)
    }

    fn owed(&self, view: &dyn Read) -> Result<Vec<Owed<Effect>>, Fault> {
        // One delivery a receiver is enough: named by the first entry that waits for it.
        let mut owed: Vec<Owed<Effect>> = receivers_waiting(view)?
            .into_iter()
            .map(|(receiver, index)| Owed { index, ordinal: 0, effect: Effect::look_again(receiver) })
            .collect();
        for row in UNSETTLED.scan(view, &(), None, false) {
            let (index, unsettled) = row?;
            if let Some(message) = BODIES.get(view, &(lane(IN, unsettled.kind), index))? {
                let effect = Effect::Handle(unsettled.id, Box::new(message));
                owed.push(Owed { index, ordinal: 0, effect });
            }
        }
        owed.sort_by_key(|owed| owed.index);
        Ok(owed)
    }
}

/// Records and the answer, or the answer alone when there is nothing to record.
fn commit_or_answer(records: Vec<Record>, answered: Answer) -> Decided {
    if records.is_empty() { answer(answered) } else { commit(records, answered) }
}
