//! Members come, go and are evicted, while the network goes on: real cells.

use std::path::Path;

use kit::{Cell, network, until};
use serde_json::{Value, json};

/// Who takes part in the present epoch, as a cell tells.
fn members(cell: &Cell) -> Vec<String> {
    let listed = cell.ok(&["consensus", "members"]);
    let items = listed["items"].as_array().expect("a list").iter();
    items.map(|member| member["cell"].as_str().expect("an id").to_owned()).collect()
}

fn until_members_are(cells: &[&Cell], expected: &[&Cell]) {
    let expected: Vec<String> = expected.iter().map(|cell| cell.id()).collect();
    for cell in cells {
        until("the members have changed", || members(cell) == expected && cell.is_synced());
    }
}

fn until_equal(cells: &[&Cell]) {
    until("all have the same final state", || {
        let status = |cell: &&Cell| cell.ok(&["call", "consensus.status", "{}"])["finalised"].clone();
        let root = |cell: &&Cell| cell.ok(&["state", "root"]);
        cells.iter().all(|cell| status(cell) == status(&cells[0]) && root(cell) == root(&cells[0]))
    });
}

fn written(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let file = dir.join(name);
    std::fs::write(&file, bytes).expect("writes");
    file.display().to_string()
}

/// Another cell of a network, which is none of its members.
fn newcomer(dir: &Path, genesis: &str, known: &Cell) -> Cell {
    let cell = Cell::init_with(dir, "newcomer", &["--network", genesis]);
    started(cell, known)
}

/// It runs, and knows one of the members.
fn started(mut cell: Cell, known: &Cell) -> Cell {
    cell.start();
    cell.ok(&["peers", "add", &known.peer, "--name", "known"]);
    cell
}

#[test]
fn a_cell_joins_a_network_that_goes_on_and_one_leaves_and_one_is_evicted() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cells = network(dir.path(), 4);
    cells.iter_mut().for_each(Cell::start);
    for cell in &cells {
        until("it is synced", || cell.is_synced());
    }
    cells[0].put("a", "1");
    // A cell that is no member follows, and cannot submit.
    let genesis = cells[0].dir().join("genesis.json").display().to_string();
    let mut new = newcomer(dir.path(), &genesis, &cells[0]);
    until("it follows", || new.is_synced() && new.ok(&["state", "get", "kv/a"])["value"] == "1");
    let submit = ["tx", "submit", "--module", "kv", "--call", "put", "--args", r#"{"key":"b","value":"1"}"#];
    assert_eq!(new.refused(&submit), (4, "consensus.no_member".to_owned()));
    // It asks, a member passes it on, three of four accept.
    let request = written(dir.path(), "join.json", &new.run(&["consensus", "join"]).stdout);
    let asked = cells[1].ok(&["tx", "submit", "--signed", &request, "--wait", "finalised"]);
    assert_eq!(asked["status"], "finalised", "{asked}");
    assert!(cells[2].ok(&["consensus", "requests"])["joins"].get(new.id()).is_some());
    for cell in &cells[..3] {
        assert_eq!(cell.ok(&["consensus", "accept", &new.id()])["status"], "finalised");
    }
    let [first, second, third, fourth] = &mut cells[..] else { panic!("four cells") };
    until_members_are(&[first, second, third, fourth, &new], &[first, second, third, fourth, &new]);
    new.put("of-new", "1");
    first.put("of-old", "1");
    until_equal(&[first, second, third, fourth, &new]);
    // Four of five are enough, with the new one among them.
    fourth.kill();
    second.put("of-second", "2");
    new.put("of-new", "2");
    // One that is away is evicted by four of five.
    let gone = fourth.id();
    for cell in [&*first, &*second, &*third] {
        cell.ok(&["consensus", "evict", &gone]);
    }
    new.ok(&["consensus", "evict", &gone]);
    until_members_are(&[first, second, third, &new], &[first, second, third, &new]);
    // One leaves, and follows from then on.
    second.ok(&["consensus", "leave"]);
    until_members_are(&[first, second, third, &new], &[first, third, &new]);
    third.put("a3", "3");
    until_equal(&[first, second, third, &new]);
    assert_eq!(second.refused(&submit), (4, "consensus.no_member".to_owned()));
    // The one that was evicted while it was away finds out and follows, too.
    fourth.start();
    until_members_are(&[fourth], &[first, third, &new]);
    until_equal(&[first, fourth]);
    // All of it survives a restart of everybody.
    let block = new.put("last", "1");
    for cell in [&mut *first, &mut *third, &mut new] {
        cell.kill();
    }
    for cell in [&mut new, &mut *third, &mut *first] {
        cell.start();
    }
    until_members_are(&[first, third, &new], &[first, third, &new]);
    first.put("after", "1");
    is_proven_by_the_genesis_alone(dir.path(), &new, &genesis, &block);
    let then = first.ok(&["consensus", "members", "--at", "0"]);
    assert_eq!(then["items"].as_array().expect("a list").len(), 4, "those of the first block");
}

/// Block, transaction and key of an epoch whose members are not the genesis's.
fn is_proven_by_the_genesis_alone(dir: &Path, cell: &Cell, genesis: &str, submitted: &Value) {
    let index = submitted["block"].to_string();
    let block = written(dir, "block.json", &cell.run(&["block", "show", &index]).stdout);
    let verified = cell.ok(&["block", "verify", &block, "--genesis", genesis]);
    assert_eq!((&verified["valid"], &verified["index"]), (&json!(true), &submitted["block"]), "{verified}");
    let id = submitted["id"].as_str().expect("an id");
    let proof = cell.run(&["tx", "prove", id]).stdout;
    let file = written(dir, "tx.json", &proof);
    let verified = cell.ok(&["tx", "verify", &file, "--genesis", genesis]);
    assert_eq!((&verified["valid"], &verified["id"]), (&json!(true), &submitted["id"]), "{verified}");
    let mut other: Value = serde_json::from_slice(&proof).expect("JSON");
    assert!(!other["handoffs"].as_array().expect("a list").is_empty(), "members have changed");
    other["place"] = json!(other["place"].as_u64().expect("a number") + 1);
    let file = written(dir, "other.json", other.to_string().as_bytes());
    assert_eq!(cell.refused(&["tx", "verify", &file, "--genesis", genesis]).1, "block.not_proven");
    let state = written(dir, "state.json", &cell.run(&["state", "prove", "kv/last"]).stdout);
    let verified = cell.ok(&["state", "verify", &state, "--genesis", genesis]);
    assert_eq!((&verified["valid"], &verified["value"]), (&json!(true), &json!("1")), "{verified}");
}

#[test]
fn a_network_of_one_becomes_one_of_two_and_one_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut one = Cell::init(dir.path(), "one");
    one.start();
    one.put("a", "1");
    let genesis = one.dir().join("genesis.json").display().to_string();
    let two = newcomer(dir.path(), &genesis, &one);
    one.ok(&["peers", "add", &two.peer, "--name", "two"]);
    until("it follows", || two.is_synced() && two.ok(&["state", "get", "kv/a"])["value"] == "1");
    let request = written(dir.path(), "join.json", &two.run(&["consensus", "join"]).stdout);
    one.ok(&["tx", "submit", "--signed", &request, "--wait", "finalised"]);
    one.ok(&["consensus", "accept", "two"]);
    until_members_are(&[&one, &two], &[&one, &two]);
    two.put("b", "1");
    one.put("c", "1");
    until_equal(&[&one, &two]);
    one.ok(&["consensus", "leave"]);
    until_members_are(&[&one, &two], &[&two]);
    two.put("d", "1");
    until_equal(&[&one, &two]);
    let refused = two.run(&["consensus", "leave"]);
    let refused: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(refused["problem"]["code"], "members.last", "{refused}");
}

#[test]
fn a_cell_that_comes_late_begins_at_a_checkpoint() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cells = network(dir.path(), 4);
    cells.iter_mut().for_each(Cell::start);
    for cell in &cells {
        until("it is synced", || cell.is_synced());
    }
    // More than two mebibytes: several chunks.
    let value = |turn: usize| format!("{turn} {}", "x".repeat(60_000));
    for turn in 0..40 {
        cells[turn % 4].put(&format!("key{turn}"), &value(turn));
    }
    let genesis = cells[0].dir().join("genesis.json").display().to_string();
    let mut new = Cell::init_with(dir.path(), "late", &["--network", &genesis]);
    new.ok(&["config", "set", "consensus.checkpoint_blocks", "4"]);
    new.start();
    // Both at once: of a single one it would take over block after block, for as long as it knows no other.
    std::thread::scope(|scope| {
        for known in &cells[..2] {
            scope.spawn(|| new.ok(&["peers", "add", &known.peer]));
        }
    });
    until("it is where the others are", || {
        new.is_synced() && new.ok(&["state", "root"]) == cells[0].ok(&["state", "root"])
    });
    assert_eq!(new.refused(&["block", "show", "0"]).1, "consensus.unknown_block", "it began later");
    assert_eq!(new.ok(&["state", "get", "kv/key3"])["value"], json!(value(3)));
    // It goes on from there, through restarts, and without its views.
    cells[0].put("after", "1");
    until_equal(&[&new, &cells[0]]);
    new.kill();
    cells[0].put("after", "2");
    let rebuilt = new.ok(&["rebuild"]);
    assert_eq!(rebuilt["rejoins"], false, "{rebuilt}");
    new.start();
    until_equal(&[&new, &cells[0]]);
    // What it tells is proven by the genesis, though it has not seen the beginning.
    let proof = written(dir.path(), "state.json", &new.run(&["state", "prove", "kv/after"]).stdout);
    assert_eq!(new.ok(&["state", "verify", &proof, "--genesis", &genesis])["value"], "2");
    // It becomes a member as any other, and orders by the same rules.
    let request = written(dir.path(), "join.json", &new.run(&["consensus", "join"]).stdout);
    cells[1].ok(&["tx", "submit", "--signed", &request, "--wait", "finalised"]);
    for cell in &cells[..3] {
        cell.ok(&["consensus", "accept", &new.id()]);
    }
    until("it is a member", || members(&new).contains(&new.id()) && new.is_synced());
    new.put("of-late", "1");
    cells[2].put("of-2", "1");
    until_equal(&[&new, &cells[0], &cells[1], &cells[2], &cells[3]]);
}
