//! Every command as a stranger would try it: with `--output json` standard output holds one JSON
//! document, for an answer and for a refusal alike, and the exit code is the documented one.

use kit::{Cell, pair};
use serde_json::Value;

/// Commands that work on a running cell with a contact `bob`, in this order.
const RUNNING: &[&[&str]] = &[
    &["status"],
    &["doctor"],
    &["version"],
    &["trace"],
    &["trace", "--limit", "3"],
    &["peers"],
    &["peers", "list"],
    &["call", "state.root"],
    &["call", "market.balance", "{}"],
    &[
        "message",
        "send",
        "--to",
        "bob",
        "--type",
        "CHAT",
        "--body",
        r#"{"text":"hi"}"#,
        "--wait",
        "delivered",
    ],
    &["message", "send", "--to", "bob", "--type", "CHAT", "--body", r#"{"text":"hi"}"#, "--seal"],
    &["message", "send", "--to", "bob", "--type", "QUERY", "--body", r#"{"tag":"x"}"#, "--wait", "answered"],
    &["message", "list"],
    &["message", "list", "--type", "CHAT", "--direction", "out", "--limit", "1"],
    &["message", "dead"],
    &["message", "posts"],
    &["journal", "list"],
    &["journal", "cat", "message", "--limit", "3"],
    &["journal", "verify"],
    &["journal", "verify", "nucleus"],
    &["journal", "followed"],
    &["journal", "prove", "nucleus", "0"],
    &["journal", "prove", "nucleus", "0", "--to", "2", "--since", "1"],
    &["journal", "prove", "nucleus", "--since", "1"],
    &[
        "tx",
        "submit",
        "--module",
        "kv",
        "--call",
        "put",
        "--args",
        r#"{"key":"a","value":"1"}"#,
        "--wait",
        "finalised",
    ],
    &["tx", "list"],
    &["state", "get", "kv/a"],
    &["state", "list"],
    &["state", "prove", "kv/a"],
    &["state", "history", "kv/a"],
    &["state", "root"],
    &["state", "root", "--at", "0"],
    &["state", "datasets", "--author", "bob", "--prove"],
    &["data", "list"],
    &["tx", "fees"],
    &["block", "show", "0"],
    &["block", "list"],
    &["consensus"],
    &["consensus", "status"],
    &["consensus", "members"],
    &["graph"],
    &["graph", "--rounds", "3"],
    &["identity", "show"],
    &["identity", "sign", "hello"],
    &["identity", "contacts"],
    &["identity", "trust"],
    &["identity", "trust", "bob"],
    &["identity", "prove", "bob"],
    &["identity", "access", "bob", "--may", "CHAT,QUERY"],
    &["identity", "attest", "bob", r#"{"note":"a good cell"}"#],
    &["identity", "attestations"],
    &["identity", "seal", "bob", "a secret"],
    &["identity", "sessions"],
    &["market", "balance"],
    &["market", "balance", "bob"],
    &["market", "transfer", "--to", "bob", "--amount", "1.5", "--wait", "finalised"],
    &["market", "statement"],
    &["market", "supply"],
    &["signal", "emit", "job.done", r#"{"n":1}"#, "--key", "a"],
    &["signal", "broadcast", "news"],
    &["token", "create", "reader"],
    &["token", "list"],
    &["token", "revoke", "reader"],
    &["config", "show"],
    &["config", "get", "http.port"],
    &["config", "check"],
    &["peers", "remove", "bob"],
];

/// A proof is checked by whoever has the journal's key, with no cell and no journal; nothing else passes.
#[test]
fn a_journals_proof_is_checked_anywhere() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(&dir.path().join("alice"), "alice");
    cell.start();
    let journals = cell.ok(&["journal", "list"]);
    let key = |name: &str| {
        let journals = journals["items"].as_array().expect("a list");
        let journal = journals.iter().find(|journal| journal["name"] == name).expect("listed");
        journal["key"].as_str().expect("a key").to_owned()
    };
    let (file, cbor) = (dir.path().join("proof.json"), dir.path().join("proof.cbor"));
    let (file, cbor) = (file.display().to_string(), cbor.display().to_string());
    let asked = ["journal", "prove", "nucleus", "0", "--to", "2", "--since", "1"];
    let mut proof = cell.ok(&asked);
    std::fs::write(&file, proof.to_string()).expect("written");
    cell.ok(&[&asked[..], &["--out", &cbor]].concat());
    // A folder that holds no cell.
    let nobody = Cell::adopt(&dir.path().join("nobody"));
    for of in [&file, &cbor] {
        let shown = nobody.ok(&["journal", "verify", "--proof", of, "--key", &key("nucleus")]);
        assert_eq!(shown["ok"], true);
        assert_eq!(shown["entries"].as_array().map(Vec::len), Some(2));
        assert_eq!(shown["since"]["length"], 1);
        let (exit, code) = nobody.refused(&["journal", "verify", "--proof", of, "--key", &key("state")]);
        assert_eq!((exit, code.as_str()), (1, "journal.bad_proof"));
    }
    let entry = proof["proof"]["entries"][1].as_str().expect("hex").to_owned();
    proof["proof"]["entries"][1] = format!("{entry}00").into();
    std::fs::write(&file, proof.to_string()).expect("written");
    let (exit, code) = nobody.refused(&["journal", "verify", "--proof", &file, "--key", &key("nucleus")]);
    assert_eq!((exit, code.as_str()), (1, "journal.bad_proof"));
}

/// One wrong input for each group of commands: exit code and the code's room.
const WRONG: &[(&[&str], i32, &str)] = &[
    (&["peers", "add", "nonsense"], 1, "network.bad_address"),
    (&["data", "add", "/no/such/file"], 1, "cli.unreadable"),
    (&["data", "get", "short"], 1, ""),
    (&["tx", "submit-all", "/no/such/file"], 1, "cli.unreadable"),
    (&["peers", "remove", "nobody"], 1, "identity.unknown_contact"),
    (&["call", "state.get", r#"{"key":"x"}"#], 1, "state.bad_key"),
    (&["call", "state.get", "{"], 1, "cli.bad_json"),
    (&["call", "state.got", "{}"], 1, "rpc.unknown_method"),
    (&["watch", "no.such.event"], 1, "event.unknown"),
    (&["message", "show", "00"], 1, "rpc.bad_params"),
    (&["message", "cancel", ZEROS], 1, "message.not_found"),
    (&["message", "list", "--from", "nobody"], 1, "identity.unknown_contact"),
    (&["message", "list", "--cursor", "x"], 1, "message.bad_cursor"),
    (&["journal", "cat", "nothing"], 1, "id.bad_service"),
    (&["journal", "verify", "nothing"], 1, "id.bad_service"),
    (&["journal", "prove", "nucleus", "999999"], 1, "journal.no_entry"),
    (&["journal", "prove", "nucleus", "0", "--to", "99999"], 1, "journal.proof_too_long"),
    (&["journal", "prove", "nucleus"], 2, "cli.usage"),
    (&["journal", "cat", "nobody/message"], 1, "id.bad_cell"),
    (&["journal", "follow", "nobody", "message"], 1, "identity.unknown_contact"),
    (&["journal", "follow", "nobody", "nothing"], 1, "id.bad_service"),
    (&["journal", "unfollow", "nobody", "message"], 1, "identity.unknown_contact"),
    (&["journal", "export", "nothing", "/nowhere"], 1, "id.bad_service"),
    (&["journal", "verify", "--proof", "/nowhere", "--key", ZEROS], 1, "cli.unreadable"),
    (&["journal", "verify", "--proof", "/nowhere", "--key", "zz"], 1, "journal.bad_key"),
    (&["journal", "verify", "--proof", "/dev/null", "--key", ZEROS], 1, "journal.bad_proof"),
    (&["state", "get", "nokey"], 1, "state.bad_key"),
    (&["state", "root", "--at", "999"], 1, "state.no_such_block"),
    (&["state", "verify", "/nowhere", "--root", ZEROS], 1, "cli.unreadable"),
    (&["tx", "submit", "--module", "none", "--call", "x"], 1, "consensus."),
    (&["tx", "submit", "--module", "kv", "--call", "put", "--args", "{}"], 1, ""),
    (&["tx", "submit", "--signed", "/nowhere"], 1, "cli."),
    (&["tx", "show", ZEROS], 1, "consensus."),
    (&["block", "show", "999"], 1, "consensus."),
    (&["block", "verify", "/nowhere", "--genesis", "/nowhere"], 1, "cli."),
    (&["consensus", "members", "--cursor", "x"], 1, "consensus.bad_cursor"),
    (&["consensus", "state"], 2, "cli.usage"),
    (&["graph", "--rounds", "65"], 2, "cli.usage"),
    (&["graph", "--out", "/nowhere/graph.svg"], 1, "cli.unwritable"),
    (&["call", "consensus.graph", r#"{"rounds":0}"#], 1, "consensus.bad_rounds"),
    (&["identity", "trust", "nobody"], 1, "identity.unknown_contact"),
    (&["identity", "open", "zz"], 1, ""),
    (&["market", "balance", "nobody"], 1, "identity.unknown_contact"),
    (&["market", "transfer", "--to", "self", "--amount", "-1"], 2, "cli.usage"),
    (&["market", "transfer", "--to", "self", "--amount", "much"], 1, "rpc.bad_params"),
    (&["token", "revoke", "nobody"], 1, "nucleus."),
    (&["token", "create", "x", "--role", "king"], 1, ""),
    (&["config", "get", "http.prot"], 1, "config.unknown_key"),
    (&["config", "set", "http.port", "many"], 1, "config.bad_value"),
    (&["completion", "csh"], 2, "cli.usage"),
    (&["init"], 6, "folder.exists"),
    (&["start"], 6, "folder.running"),
    (&["rebuild"], 6, "folder.running"),
    (&["testnet", "up"], 1, "testnet."),
    (&["message"], 2, "cli.usage"),
    (&["massage", "list"], 2, "cli.usage"),
];

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn every_command_answers_in_json() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (alice, _bob) = pair(dir.path());
    for arguments in RUNNING {
        // `ok` asserts the exit code and that there is one document.
        alice.ok(arguments);
    }
    let watched = alice.run(&["watch", "message.*", "--since", "0", "--limit", "2", "--timeout", "5"]);
    let lines = String::from_utf8(watched.stdout).expect("text");
    assert_eq!(lines.lines().count(), 2, "{lines}");
    lines.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect("a document a line")));
}

#[test]
fn every_command_refuses_in_json_with_its_code() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (alice, _bob) = pair(dir.path());
    let mut wrong = Vec::new();
    for (arguments, exit, code) in WRONG {
        let (was_exit, was_code) = alice.refused(arguments);
        if was_exit != *exit || !was_code.starts_with(code) {
            wrong.push(format!("{arguments:?}: {was_exit} {was_code}, expected {exit} {code}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(alice.ok(&["status"])["readiness"]["state"], "synced", "it lives on");
}

#[test]
fn what_needs_no_running_cell_works_on_a_stopped_one() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    cell.start();
    cell.put("a", "1");
    let proof = cell.ok(&["state", "prove", "kv/a"]);
    let block = cell.ok(&["block", "show", "0"]);
    let root = cell.ok(&["state", "root"])["root"].as_str().expect("a root").to_owned();
    cell.ok(&["stop"]);
    let file = |name: &str, value: &Value| {
        let path = dir.path().join(name);
        std::fs::write(&path, value.to_string()).expect("written");
        path.display().to_string()
    };
    let (proof, block) = (file("proof.json", &proof), file("block.json", &block));
    let copies = ["copy", "with-key"].map(|name| dir.path().join(name).display().to_string());
    let genesis = cell.dir().join("genesis.json").display().to_string();
    let stopped: &[&[&str]] = &[
        &["journal", "list"],
        &["journal", "cat", "state"],
        &["journal", "verify"],
        &["journal", "prove", "state", "0"],
        &["journal", "export", "state", &copies[0]],
        &["journal", "export", "state", &copies[1], "--with-secret-key"],
        &["state", "verify", &proof, "--root", &root],
        &["state", "verify", &proof, "--genesis", &genesis],
        &["block", "verify", &block, "--genesis", &genesis],
        &["config", "show"],
        &["config", "set", "log.format", "json"],
        &["identity", "show"],
        &["rebuild"],
        &["doctor"],
    ];
    for arguments in stopped {
        cell.ok(arguments);
    }
    let genuine: Value =
        serde_json::from_str(&std::fs::read_to_string(&proof).expect("there")).expect("JSON");
    let mut forged = genuine.clone();
    forged["proof"]["value"] = "32".into();
    let forged = file("forged.json", &forged);
    assert_ne!(cell.run(&["state", "verify", &forged, "--root", &root]).status.code(), Some(0));
    let mut noted = genuine;
    noted["value"] = "2".into();
    let noted = file("noted.json", &noted);
    assert_eq!(
        cell.refused(&["state", "verify", &noted, "--root", &root]).0,
        1,
        "what is no part of a proof"
    );
    let zeros = ["state", "verify", &proof, "--root", ZEROS];
    assert_ne!(cell.run(&zeros).status.code(), Some(0), "a root nobody trusts");
    cell.start();
    assert_eq!(cell.ok(&["state", "root"])["root"], *root);
    assert_eq!(cell.ok(&["state", "get", "kv/a"])["value"], "1");
}

#[test]
fn a_test_network_has_fixed_distinct_ports_and_stops_as_one() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let net = dir.path().join("net");
    let net = net.to_str().expect("text");
    let cell = |arguments: &[&str]| {
        std::process::Command::new(kit::program())
            .args(arguments)
            .args(["--output", "json"])
            .output()
            .expect("runs")
    };
    let made = cell(&["testnet", "init", "--cells", "3", "--dir", net, "--base-port", "17800"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    drop(serde_json::from_slice::<Value>(&made.stdout).expect("one document"));
    let settings: Vec<_> = (0..3)
        .map(|n| std::fs::read_to_string(format!("{net}/cell-{n}/cell.toml")).expect("there"))
        .collect();
    assert!(!std::path::Path::new(&format!("{net}/cell-3")).exists());
    assert!(settings.windows(2).all(|pair| pair[0] != pair[1]));
    let mut up = std::process::Command::new(kit::program())
        .args(["testnet", "up", "--dir", net, "--output", "json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("runs");
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(up.stdout.take().expect("ours"));
    std::io::BufRead::read_line(&mut reader, &mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("one document");
    assert_eq!(ready["event"], "ready", "{ready}");
    kit::until("its cells have found each other", || {
        cell(&["status", "--dir", &format!("{net}/cell-2")]).status.success()
    });
    let _ = std::process::Command::new("kill").args(["-TERM", &up.id().to_string()]).status();
    kit::until("it has stopped", || up.try_wait().expect("ours").is_some());
    let status = cell(&["status", "--dir", &format!("{net}/cell-2")]);
    assert_eq!(status.status.code(), Some(3), "its cells have stopped with it");
}

#[test]
fn a_network_for_several_hosts_names_each_of_them() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let nobody = Cell::adopt(&dir.path().join("net"));
    let hosts = ["--host", "a.example", "--host", "10.0.0.2"];
    let init = ["testnet", "init", "--cells", "2", "--base-port", "7500"];
    assert_eq!(nobody.refused(&[&init, &hosts[..2]].concat()).1, "testnet.bad_hosts");
    assert_eq!(
        nobody.refused(&[&init, &["--host", "a b", "--host", "c"][..]].concat()).1,
        "testnet.bad_hosts"
    );
    let made = nobody.ok(&[&init, &hosts[..]].concat());
    assert_eq!(made["items"][1]["peer_port"], 7501, "the same ports on each machine");
    let mut second = Cell::adopt(&dir.path().join("net").join("cell-1"));
    let listens = second.ok(&["config", "get", "network.listen"])["value"][0].clone();
    assert_eq!(listens, "/ip4/0.0.0.0/tcp/7501");
    // Here it listens elsewhere; what counts is where it looks for the other.
    second.ok(&["config", "set", "http.port", "0"]);
    second.ok(&["config", "set", "network.listen", r#"["/ip4/127.0.0.1/tcp/0"]"#]);
    second.start();
    let contacts = second.ok(&["identity", "contacts"]);
    assert!(contacts.to_string().contains("/dns4/a.example/tcp/7501/p2p/"), "{contacts}");
}
