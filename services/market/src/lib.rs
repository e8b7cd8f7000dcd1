//! The Market service: this cell's account statement; and the module `prana`, the ledger of PRANA.
//!
//! Rules:
//!
//! - Balances live in the replicated state, under the module [`prana`]. This service journals what
//!   finalised blocks did to its own cell's account.
//! - Each block is entered once, in order: a block below the newest that was entered changes nothing,
//!   so whoever observes may ask again. A block that did nothing to this cell's account needs no record.
//!
//! Absent: offers, orders and leases (they come with the markets).

pub mod prana;
mod record;

use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Table, Write, answer, commit, refuse};
use protocol::market::{Answer, Request, StatementLine, Words};
use protocol::shared::Empty;
use protocol::{CellId, Event};
use serde_json::json;

pub use record::Record;

protocol::refusals! {
    /// What Market refuses.
    pub enum Refusal {
        ForeignLine => Invalid, "market.foreign_line",
            ("a line is not of that block, or does not touch this cell"), "give the lines of market::prana::statement";
        BadCursor => Invalid, "market.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
    }
}

/// By journal index and place in the record.
const LINES: Table<(u64, u64), StatementLine> = Table::new(0x10);
/// One past the last block that was entered.
const NEXT_BLOCK: Table<(), u64> = Table::new(0x11);

/// The Market machine of one cell.
#[derive(Clone, Copy, Debug)]
pub struct MarketMachine {
    /// Whose.
    pub cell: CellId,
}

type Decided = Result<DecisionOf<MarketMachine>, Fault>;

impl Machine for MarketMachine {
    type Words = Words;
    type Record = Record;
    type Effect = std::convert::Infallible;

    fn decide(&self, view: &dyn Read, _: &Context, request: Request) -> Decided {
        match request {
            Request::ObserveBlock(asked) => {
                let next = NEXT_BLOCK.get(view, &())?.unwrap_or(0);
                if asked.index.0 < next || asked.lines.is_empty() {
                    return answer(Answer::ObserveBlock(Empty {}));
                }
                let ours = |line: &StatementLine| line.from == self.cell || line.to == self.cell;
                if asked.lines.iter().any(|line| line.index != asked.index || !ours(line)) {
                    return refuse(Refusal::ForeignLine);
                }
                let record = Record::Observed { index: asked.index, lines: asked.lines };
                commit(vec![record], Answer::ObserveBlock(Empty {}))
            }
            Request::Statement(list) => {
                let after = match list.cursor.as_deref().map(read_cursor) {
                    Some(None) => return refuse(Refusal::BadCursor),
                    Some(after) => after,
                    None => None,
                };
                let rows = LINES.scan(view, &(), after.as_ref(), true);
                let page = machine::page::collect(rows, list.limit(), |((index, place), line)| {
                    (line, format!("{index}.{place}"))
                })?;
                answer(Answer::Statement(page))
            }
        }
    }

    fn apply(&self, view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Self::Effect>, Fault> {
        let Record::Observed { index, lines } = record;
        for (place, line) in (0u64..).zip(lines) {
            LINES.put(view, &(at.index, place), line);
        }
        NEXT_BLOCK.put(view, &(), &(index.0 + 1));
        Ok(Vec::new())
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        let Record::Observed { lines, .. } = record;
        let event = |line: &StatementLine| Event {
            event: "market.observed".to_owned(),
            service: protocol::Service::Market,
            index: at.index,
            time_ms: at.time_ms,
            data: json!(line),
        };
        lines.iter().map(event).collect()
    }

    fn owed(&self, _: &dyn Read) -> Result<Vec<Owed<Self::Effect>>, Fault> {
        Ok(Vec::new())
    }
}

fn read_cursor(text: &str) -> Option<(u64, u64)> {
    let (index, place) = text.split_once('.')?;
    Some((index.parse().ok()?, place.parse().ok()?))
}
