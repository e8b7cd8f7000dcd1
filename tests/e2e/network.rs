//! Four real cells of one network: one order, one state, and what happens when members go and come back.

use kit::{Cell, network, until};
use serde_json::{Value, json};

/// Submits `kv.put` at a cell; the transaction's id.
fn start_all(cells: &mut [Cell]) {
    cells.iter_mut().for_each(Cell::start);
    for cell in cells.iter() {
        until("it is synced", || cell.is_synced());
    }
}

/// Block hashes up to a block, as a cell tells them.
fn chain(cell: &Cell, blocks: u64) -> Vec<Value> {
    let block = |index: u64| cell.ok(&["block", "show", &index.to_string()])["summary"].clone();
    (0..blocks).map(block).collect()
}

/// Waits until all cells have the same final blocks and roots; how many blocks.
fn agree(cells: &[Cell]) -> u64 {
    let status = |cell: &Cell| cell.ok(&["call", "consensus.status", "{}"]);
    until("all have finalised the same blocks", || {
        let all: Vec<Value> = cells.iter().map(status).collect();
        all.iter().all(|one| one["finalised"] == all[0]["finalised"] && one["finalised"] == one["ordered"])
    });
    let blocks = status(&cells[0])["finalised"].as_u64().map_or(0, |index| index + 1);
    let first = chain(&cells[0], blocks);
    for cell in &cells[1..] {
        let other = chain(cell, blocks);
        assert_eq!(other, first, "the same blocks, with the same roots");
    }
    let root = cells[0].ok(&["state", "root"]);
    assert!(cells.iter().all(|cell| cell.ok(&["state", "root"]) == root));
    blocks
}

#[test]
fn four_cells_agree_on_one_order_and_one_state() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cells = network(dir.path(), 4);
    start_all(&mut cells);
    // Each at its own cell, at the same time, some of them to the same key.
    std::thread::scope(|scope| {
        for (number, cell) in cells.iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..5 {
                    cell.put_until(&format!("of-{number}"), &turn.to_string(), "accepted");
                    // The first one owns it; the others are refused, on all cells alike.
                    let args = json!({ "key": "shared", "value": turn.to_string() }).to_string();
                    cell.run(&[
                        "tx",
                        "submit",
                        "--module",
                        "kv",
                        "--call",
                        "put",
                        "--args",
                        &args,
                        "--wait",
                        "finalised",
                    ]);
                }
            });
        }
    });
    assert!(agree(&cells) > 0);
    let value = |cell: &Cell, key: &str| cell.ok(&["state", "get", key])["value"].clone();
    let shared = value(&cells[0], "kv/shared");
    for cell in &cells {
        assert_eq!(value(cell, "kv/shared"), shared);
        for number in 0..4 {
            assert_eq!(value(cell, &format!("kv/of-{number}")), "4");
        }
    }
    // The proof of a block, made by one, checks with the genesis file of another.
    let file = dir.path().join("block.json");
    std::fs::write(&file, cells[0].run(&["block", "show", "0"]).stdout).expect("writes");
    let genesis = cells[3].dir().join("genesis.json").display().to_string();
    let file = file.display().to_string();
    let verified = cells[3].ok(&["block", "verify", &file, "--genesis", &genesis]);
    assert_eq!(verified["valid"], true, "{verified}");
    shows_its_graph(&cells[1], dir.path());
    draw_the_same(&cells);
}

/// The beacon has drawn, the same everywhere, and the blocks tell it; then all are silent.
fn draw_the_same(cells: &[Cell]) {
    let draws = |cell: &Cell| cell.ok(&["consensus", "beacon"])["items"].clone();
    until("a value was drawn", || {
        cells[0].put("more", "x");
        !draws(&cells[0])[0].is_null()
    });
    cells[1].put("of-1", "4");
    let events = || cells.iter().map(|cell| cell.ok(&["consensus"])["events"].clone()).collect::<Vec<_>>();
    let (mut before, mut looks) = (events(), 0);
    until("nobody makes an event any more, in five looks", || {
        let now = events();
        looks = if now == before { looks + 1 } else { 0 };
        before = now;
        looks == 5
    });
    let drawn = draws(&cells[0]);
    for cell in cells {
        assert_eq!(draws(cell), drawn);
    }
    let values: Vec<&Value> = drawn.as_array().expect("a list").iter().map(|draw| &draw["value"]).collect();
    let blocks = cells[0].ok(&["call", "consensus.status", "{}"])["ordered"].as_u64().expect("a number");
    let told = (0..=blocks).filter_map(|index| {
        let block = cells[2].ok(&["block", "show", &index.to_string()]);
        let beacon = &block["proof"]["block"]["header"]["beacon"];
        beacon.is_object().then(|| beacon["value"].clone())
    });
    let told: Vec<Value> = told.collect();
    assert!(!told.is_empty() && told.iter().all(|value| values.contains(&value)), "{told:?} of {values:?}");
}

/// All of its members are there, and its last rounds: in words, and as a picture.
fn shows_its_graph(cell: &Cell, dir: &std::path::Path) {
    let how = cell.ok(&["consensus"]);
    assert_eq!(
        (&how["quorum"], &how["weight_connected"], &how["diverged"]),
        (&json!(true), &json!(4), &Value::Null)
    );
    assert_eq!(how["blocks"]["finalised"], how["blocks"]["ordered"]);
    assert_eq!(how["root"], cell.ok(&["state", "root"])["root"]);
    let members = how["members"].as_array().expect("a list");
    assert_eq!(members.len(), 4);
    assert!(members.iter().all(|member| member["connected"] == true && member["round"].is_u64()), "{how}");
    let view = cell.ok(&["graph", "--rounds", "64"]);
    let events = view["events"].as_array().expect("a list");
    assert!(events.iter().any(|event| event["judge"] == true), "a round was decided");
    assert!(events.iter().any(|event| event["transactions"] == true), "something was ordered");
    let mut known = Vec::new();
    for event in events {
        let parents =
            event["other_parents"].as_array().expect("a list").iter().chain([&event["self_parent"]]);
        let mut parents = parents.filter(|parent| !parent.is_null());
        // So few rounds that all are shown.
        assert!(parents.all(|parent| known.contains(&parent)), "parents come first");
        known.push(&event["id"]);
    }
    let last = cell.ok(&["graph", "--rounds", "1"]);
    assert!(last["events"].as_array().expect("a list").len() < events.len());
    let file = dir.join("graph.svg").display().to_string();
    let drawn = cell.ok(&["graph", "--out", &file]);
    assert!(drawn["events"].as_u64() > Some(0), "{drawn}");
    let picture = std::fs::read_to_string(&file).expect("written");
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
}

#[test]
fn without_two_thirds_nothing_is_taken_and_it_goes_on_by_itself() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cells = network(dir.path(), 4);
    start_all(&mut cells);
    cells[0].put("a", "1");
    cells[3].kill();
    cells[0].put("a", "2");
    cells[2].kill();
    until("it notices", || cells[0].get("/readyz").0 == 503);
    let args = json!({ "key": "a", "value": "3" }).to_string();
    let submit = ["tx", "submit", "--module", "kv", "--call", "put", "--args", &args];
    let (code, problem) = cells[0].refused(&submit);
    assert_eq!((code, problem.as_str()), (5, "consensus.no_quorum"));
    assert_eq!(cells[0].ok(&["state", "get", "kv/a"])["value"], "2", "reads go on");
    cells[2].start();
    until("it goes on", || cells[0].is_synced());
    cells[0].put("a", "4");
    // All of them, in whatever order.
    for cell in &mut cells {
        cell.kill();
    }
    for place in [2, 0, 3, 1] {
        cells[place].start();
    }
    for cell in &cells {
        until("it is synced", || cell.is_synced());
    }
    cells[0].put("a", "5");
    agree(&cells);
    assert_eq!(cells[3].ok(&["state", "get", "kv/a"])["value"], "5");
}

/// A data set that one registers is found on another, with a proof, and as of a block before it is not there.
#[test]
fn a_data_set_is_found_everywhere_and_proven() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cells = network(dir.path(), 4);
    start_all(&mut cells);
    cells[0].put("before", "1");
    let hash = "1f".repeat(32);
    let args = json!({ "hash": hash, "size": 5120, "tags": ["lang:en", "text"] }).to_string();
    let register =
        ["tx", "submit", "--module", "dataset", "--call", "register", "--args", &args, "--wait", "finalised"];
    let registered = cells[1].ok(&register);
    assert_eq!(registered["status"], "finalised", "{registered}");
    agree(&cells);
    for cell in &cells {
        let found = cell.ok(&["state", "datasets", "--tag", "text", "--tag", "lang:en"]);
        assert_eq!((&found["items"][0]["hash"], &found["items"][1]), (&json!(hash), &Value::Null), "{found}");
        assert_eq!(found["items"][0]["author"], cells[1].id());
    }
    let none = cells[2].ok(&["state", "datasets", "--tag", "lang:fr"]);
    assert_eq!(none["items"], json!([]));
    let then = cells[2].ok(&["state", "datasets", "--tag", "text", "--at", "0"]);
    assert_eq!(then["items"], json!([]), "it was not there yet");
    // Somebody else cannot take it, and is told so.
    let taken = cells[2].run(&register);
    let taken: Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert_eq!(taken["problem"]["code"], "dataset.exists", "{taken}");
    let file = dir.path().join("proof.json").display().to_string();
    std::fs::write(&file, cells[3].run(&["state", "prove", &format!("dataset/{hash}")]).stdout)
        .expect("writes");
    let genesis = cells[0].dir().join("genesis.json").display().to_string();
    let verified = cells[0].ok(&["state", "verify", &file, "--genesis", &genesis]);
    assert_eq!(verified["valid"], true, "{verified}");
    assert!(verified["value"].as_str().is_some_and(|value| value.contains("5120")), "{verified}");
    // The life of a transaction, step by step.
    let life = &cells[1].ok(&["tx", "show", registered["id"].as_str().expect("an id")])["life"];
    let step = |name: &str| life[name].as_u64().expect("a time");
    assert!(step("accepted_ms") <= step("ordered_ms") && step("ordered_ms") <= step("applied_ms"), "{life}");
    assert!(step("applied_ms") <= step("finalised_ms"), "{life}");
}
