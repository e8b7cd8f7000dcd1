//! Three honest cells, as processes, and a fourth member that lies: the same code under a hostile driver.
//!
//! What is promised with fewer than a third faulty: everything that was acknowledged is in exactly one block on all honest
//! cells, which come to the same roots; nobody honest is taken for diverged; what no honest member would send is refused and
//! counted; who has signed two histories is found out, with evidence that anybody can check, and is no member any more.

mod liar;

use std::collections::BTreeMap;

use kit::{Cell, until};
use liar::{Hostile, Malice};
use protocol::CellId;
use protocol::block::BlockProof;
use protocol::genesis::Genesis;
use protocol::gossip::ForkProof;
use serde_json::{Value, json};

/// Three cells that run, and the liar in place of the fourth.
fn up(dir: &std::path::Path, malice: Malice) -> (Vec<Cell>, Hostile) {
    let mut cells = kit::network(dir, 4);
    let last = cells.pop().expect("four cells");
    cells.iter_mut().for_each(Cell::start);
    let known = |cell: &Cell| (cell.id().parse::<CellId>().expect("an id"), cell.peer.clone());
    let others: Vec<(CellId, String)> = cells.iter().map(known).collect();
    let hostile = Hostile::in_place_of(last.dir(), &others, malice);
    until("the honest ones are synced", || cells.iter().all(Cell::is_synced));
    until("the liar takes part", || {
        put(&cells[0], "first", "1");
        hostile.rounds() > 20
    });
    (cells, hostile)
}

/// The id of a transaction that is final. A key is its first writer's, so each cell has its own.
fn put(cell: &Cell, key: &str, value: &str) -> String {
    let done = cell.put(&format!("{key}/{}", cell.peer), value);
    assert_eq!(done["status"], "finalised", "{done}");
    done["id"].as_str().expect("an id").to_owned()
}

fn block(cell: &Cell, index: u64) -> BlockProof {
    let block = cell.ok(&["block", "show", &index.to_string()]);
    serde_json::from_value(block["proof"].clone()).expect("a block")
}

fn finalised(cell: &Cell) -> u64 {
    cell.ok(&["call", "consensus.gossip", "{}"])["blocks"]["finalised"].as_u64().expect("a number")
}

/// Each transaction is in one block, the same on all; and the roots are the same.
fn all_agree(cells: &[Cell], acknowledged: &[String]) {
    let last = cells.iter().map(finalised).max().expect("cells") - 1;
    until("all have come as far", || cells.iter().all(|cell| finalised(cell) > last));
    let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for index in 0..=last {
        let blocks: Vec<BlockProof> = cells.iter().map(|cell| block(cell, index)).collect();
        assert!(blocks.iter().all(|other| other.block == blocks[0].block), "block {index}");
        for transaction in &blocks[0].block.transactions {
            places.entry(transaction.id().to_string()).or_default().push(index);
        }
    }
    for id in acknowledged {
        assert_eq!(places.get(id).map(Vec::len), Some(1), "{id} is in {:?}", places.get(id));
    }
    let roots = cells.iter().map(|cell| cell.ok(&["state", "root", "--at", &last.to_string()]));
    let roots: Vec<Value> = roots.collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    // None is diverged: there would be no way back.
    until("all are in step", || cells.iter().all(Cell::is_synced));
}

/// Frames with events that were refused.
fn refused(cell: &Cell) -> u64 {
    let (_, metrics) = cell.get("/metrics");
    let lines = metrics.lines().filter(|line| line.contains("refused") && line.contains("\"events\""));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn noise_forgeries_and_wrong_roots_of_one_of_four_change_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let malice = Malice { wrong_roots: true, noise: true, ..Malice::default() };
    let (cells, hostile) = up(dir.path(), malice);
    let mut acknowledged = Vec::new();
    for number in 0..30 {
        let cell = &cells[number % cells.len()];
        acknowledged.push(put(cell, "key", &number.to_string()));
        hostile.lie_about(block(cell, finalised(cell) - 1).block.header);
        if number == 15 {
            hostile.lie(Malice { withholds: true, ..malice });
        }
    }
    all_agree(&cells, &acknowledged);
    let words = |index: u64| block(&cells[0], index).attestations;
    let last = finalised(&cells[0]);
    assert!((0..last).all(|index| words(index).iter().all(|word| word.member != hostile.cell())));
    assert!(cells.iter().all(|cell| refused(cell) > 0), "what it forged was refused and counted");
    let evidence = cells[0].ok(&["call", "consensus.evidence", "{}"]);
    assert_eq!(evidence["items"], json!([]), "it lied, and did not sign two histories");
}

#[test]
fn events_with_what_nobody_has_signed_are_not_taken() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cells, hostile) = up(dir.path(), Malice::default());
    hostile.lie(Malice { forged_transactions: true, ..Malice::default() });
    let acknowledged: Vec<String> = (0..12).map(|number| put(&cells[number % 3], "key", "1")).collect();
    until("its events are refused", || cells.iter().all(|cell| refused(cell) > 0));
    all_agree(&cells, &acknowledged);
    assert_eq!(cells[0].ok(&["state", "get", "kv/liar"])["value"], Value::Null);
}

#[test]
fn who_signs_two_histories_is_proven_to_have_and_is_no_member_any_more() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cells, hostile) = up(dir.path(), Malice::default());
    let mut acknowledged: Vec<String> = (0..5).map(|number| put(&cells[number % 3], "key", "1")).collect();
    hostile.lie(Malice { two_lives: true, ..Malice::default() });
    let members = |cell: &Cell| cell.ok(&["consensus", "members"])["items"].as_array().map_or(0, Vec::len);
    until("it is evicted", || {
        acknowledged.push(put(&cells[acknowledged.len() % 3], "key", "2"));
        cells.iter().all(|cell| members(cell) == 3)
    });
    let genesis = std::fs::read(cells[0].dir().join("genesis.json")).expect("a genesis");
    let genesis: Genesis = serde_json::from_slice(&genesis).expect("a genesis");
    let evidence = cells[0].ok(&["call", "consensus.evidence", "{}"]);
    let proof: ForkProof = serde_json::from_value(evidence["items"][0]["proof"].clone()).expect("a proof");
    let checked = proof.check(&genesis.hash(), &hostile.cell());
    assert_eq!(checked.expect("anybody can check it"), hostile.cell());
    // The three go on, and one of them may be away no more.
    acknowledged.extend((0..10).map(|number| put(&cells[number % 3], "after", "3")));
    all_agree(&cells, &acknowledged);
}
