//! This cell's statement: each block once, newest first, nobody else's lines.

use machine::testing::Bench;
use market::MarketMachine;
use protocol::market::{Answer, ObserveBlockRequest, Request, StatementLine};
use protocol::shared::ListRequest;
use protocol::{Amount, BlockIndex, CellId, TxId};

fn cell(number: u8) -> CellId {
    CellId::from_bytes([number; 32])
}

fn bench() -> Bench<MarketMachine> {
    Bench::new(MarketMachine { cell: cell(0) })
}

fn line(index: u64, tx: u8, from: u8, to: u8) -> StatementLine {
    let (from, to) = (cell(from), cell(to));
    StatementLine {
        tx: TxId::from_bytes([tx; 32]),
        index: BlockIndex(index),
        from,
        to,
        amount: Amount(u128::from(tx)),
    }
}

fn observe(bench: &mut Bench<MarketMachine>, index: u64, lines: Vec<StatementLine>) -> Result<(), String> {
    let request = ObserveBlockRequest { index: BlockIndex(index), lines };
    bench.ask(Request::ObserveBlock(request)).map(|_| ()).map_err(|problem| problem.code.into_owned())
}

/// The amounts of all pages, newest first.
fn statement(bench: &mut Bench<MarketMachine>, limit: u32) -> Vec<u128> {
    let (mut cursor, mut amounts) = (None, Vec::new());
    loop {
        let Ok(Answer::Statement(page)) =
            bench.ask(Request::Statement(ListRequest { limit: Some(limit), cursor }))
        else {
            panic!("no page")
        };
        assert!(page.items.len() <= limit as usize);
        amounts.extend(page.items.iter().map(|line| line.amount.0));
        cursor = page.next;
        if cursor.is_none() {
            return amounts;
        }
    }
}

#[test]
fn each_block_is_entered_once_and_shown_newest_first() {
    let mut bench = bench();
    observe(&mut bench, 3, vec![line(3, 1, 0, 5), line(3, 2, 5, 0)]).expect("enters");
    observe(&mut bench, 4, vec![]).expect("nothing to enter");
    observe(&mut bench, 3, vec![line(3, 1, 0, 5), line(3, 2, 5, 0)]).expect("the same again");
    assert_eq!(bench.journal.len(), 1, "no record for nothing, none for the same");
    observe(&mut bench, 5, vec![line(5, 3, 0, 0)]).expect("enters");
    for limit in [1, 2, 9] {
        assert_eq!(statement(&mut bench, limit), [3, 2, 1]);
    }
    assert_eq!(bench.events.len(), 3);
    assert_eq!(bench.events[2].data["index"], 5);
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn lines_of_others_or_of_another_block_are_refused() {
    let mut bench = bench();
    for wrong in [line(1, 1, 7, 8), line(2, 1, 0, 8)] {
        let lines = vec![line(1, 2, 0, 8), wrong];
        assert_eq!(observe(&mut bench, 1, lines).expect_err("foreign"), "market.foreign_line");
    }
    assert!(bench.journal.is_empty());
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    for cursor in ["", "1", "1.x", "a.b"] {
        let request = Request::Statement(ListRequest { limit: None, cursor: Some(cursor.to_owned()) });
        assert_eq!(bench().ask(request).expect_err("no cursor").code, "market.bad_cursor");
    }
}
