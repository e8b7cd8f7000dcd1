//! Data sets between real cells: registered for all, found with proofs, fetched by hash from whoever has them, and checked.

use kit::{Cell, until};
use serde_json::{Value, json};

fn up(dir: &std::path::Path, cells: u16) -> Vec<Cell> {
    let mut cells = kit::network(dir, cells);
    cells.iter_mut().for_each(Cell::start);
    until("all are synced", || cells.iter().all(Cell::is_synced));
    cells
}

fn write(cell: &Cell, name: &str, bytes: &[u8]) -> String {
    let path = cell.dir().join(name);
    std::fs::write(&path, bytes).expect("a file");
    path.display().to_string()
}

fn many(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place * 31 % 253) as u8).collect()
}

#[test]
fn data_is_fetched_from_those_that_have_it_and_from_no_liar() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cells = up(dir.path(), 4);
    // More than one part, and not a whole number of them.
    let bytes = many(3 * 512 * 1024 + 77);
    let file = write(&cells[0], "weather.csv", &bytes);
    let added = cells[0].ok(&["data", "add", &file, "--register", "--tag", "climate"]);
    assert_eq!(added["status"], "finalised", "{added}");
    let hash = added["hash"].as_str().expect("a hash").to_owned();
    let found = cells[1].ok(&["state", "datasets", "--tag", "climate", "--author", "cell-0"]);
    assert_eq!(found["items"][0]["hash"], hash.as_str(), "{found}");
    assert_eq!(found["items"][0]["size"], bytes.len());

    let out = cells[1].dir().join("copy.csv").display().to_string();
    let got = cells[1].ok(&["data", "get", &hash, "--out", &out]);
    assert_eq!(got["from"], json!([cells[0].id()]), "one cell has it: {got}");
    assert_eq!(std::fs::read(&out).expect("a file"), bytes);

    // A holder whose disk has turned a bit is found out; what it gave is not taken.
    let damaged = cells[0].dir().join("data").join(&hash);
    let mut wrong = bytes.clone();
    wrong[700_000] ^= 1;
    std::fs::write(&damaged, wrong).expect("a file");
    let got = cells[2].ok(&["data", "get", &hash]);
    let from = got["from"].as_array().expect("a list");
    assert!(from.contains(&json!(cells[1].id())), "the sound one gave the rest: {got}");
    let (status, part) = cells[2].post(
        "/rpc",
        &json!({ "jsonrpc": "2.0", "id": 1, "method": "state.read",
            "params": { "hash": hash, "offset": 700_000, "length": 3 } })
        .to_string(),
    );
    let part: Value = serde_json::from_str(&part).expect("JSON");
    assert_eq!((status, &part["result"]["content"]), (200, &json!(hex(&bytes[700_000..700_003]))), "{part}");
    assert_eq!(cells[3].refused(&["data", "get", &hash, "--from", "cell-0"]).1, "data.gone");
    assert_eq!(cells[0].refused(&["data", "get", &hash, "--out", &out]).1, "data.damaged");

    let unknown = "0".repeat(64);
    assert_eq!(cells[3].refused(&["data", "get", &unknown]), (1, "data.not_found".to_owned()));
    assert_eq!(cells[3].refused(&["data", "remove", &unknown]), (1, "data.not_here".to_owned()));
    assert_eq!(cells[3].refused(&["data", "get", "xyz"]).0, 1);
    let again = cells[1].run(&["data", "add", &file, "--register"]);
    assert_eq!(again.status.code(), Some(1), "it is registered already");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn who_is_neither_a_member_nor_a_contact_that_may_query_gets_no_data() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut alice, mut bob) = (Cell::init(dir.path(), "alice"), Cell::init(dir.path(), "bob"));
    alice.start();
    bob.start();
    alice.ok(&["peers", "add", &bob.peer, "--name", "bob"]);
    bob.ok(&["peers", "add", &alice.peer, "--name", "alice"]);
    until("the two are connected", || alice.ok(&["peers"])["items"][0]["connected"] == true);
    let file = write(&alice, "small", b"some bytes");
    let hash = alice.ok(&["data", "add", &file])["hash"].as_str().expect("a hash").to_owned();
    let output = bob.run(&["data", "get", &hash]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(said["code"], "data.not_found", "{said}");
    assert!(said["cause"].as_str().expect("a cause").contains("may not have data"), "{said}");
    alice.ok(&["identity", "access", "bob", "--may", "CHAT,QUERY"]);
    until("it may now", || bob.run(&["data", "get", &hash]).status.success());
    assert_eq!(bob.ok(&["data", "list"])["items"][0]["size"], 10);
}

#[test]
fn a_post_registers_its_content_for_all_and_a_query_finds_it_with_proofs() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cells = up(dir.path(), 4);
    let body = json!({ "content": { "title": "first", "n": 1 }, "tags": ["news"], "register": true });
    let sent = [
        "message",
        "send",
        "--to",
        "cell-1",
        "--type",
        "POST",
        "--body",
        &body.to_string(),
        "--wait",
        "answered",
    ];
    let sent = cells[0].ok(&sent);
    let reply = &sent["reply"]["result"];
    assert_eq!(reply["registration"]["status"], "finalised", "{sent}");
    let hash = reply["content_hash"].as_str().expect("a hash").to_owned();

    let query = json!({ "datasets": { "tags": ["news"] } }).to_string();
    let asked =
        ["message", "send", "--to", "cell-2", "--type", "QUERY", "--body", &query, "--wait", "answered"];
    let answer = cells[3].ok(&asked);
    let found = &answer["reply"]["result"];
    assert_eq!(found["items"][0]["dataset"]["hash"], hash.as_str(), "{answer}");
    let proof = write(&cells[3], "found.json", found.to_string().as_bytes());
    let genesis = cells[3].dir().join("genesis.json").display().to_string();
    let checked = cells[3].ok(&["state", "verify", &proof, "--genesis", &genesis]);
    assert_eq!(checked["items"][0]["author"], json!(cells[0].id()), "{checked}");
    let forged = found.to_string().replace("\"news\"", "\"olds\"");
    let forged = write(&cells[3], "forged.json", forged.as_bytes());
    assert_eq!(cells[3].refused(&["state", "verify", &forged, "--genesis", &genesis]).1, "state.bad_proof");

    // Sender and receiver both have the content; anybody gets it.
    let out = cells[3].dir().join("post.json").display().to_string();
    cells[3].ok(&["data", "get", &hash, "--out", &out]);
    assert_eq!(std::fs::read_to_string(&out).expect("a file"), body["content"].to_string());
    let proven = cells[2].ok(&["state", "datasets", "--tag", "news", "--prove"]);
    let proven = write(&cells[2], "proven.json", proven.to_string().as_bytes());
    cells[2].ok(&["state", "verify", &proven]);
    // Content and registration have to fit each other.
    let bad = json!({ "content": 1, "registration": {} });
    let bad = ["message", "send", "--to", "cell-1", "--type", "POST", "--body", &bad.to_string()];
    assert_eq!(cells[0].refused(&bad).1, "message.bad_body");
}
