//! Two real cells, as their operators use them.

use kit::{Cell, pair, until};
use serde_json::{Value, json};

#[test]
fn six_types_are_delivered_answered_and_build_trust() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (alice, bob) = pair(dir.path());
    let send = |kind: &str, body: &str, wait: &str| {
        alice.ok(&["message", "send", "--to", "bob", "--type", kind, "--body", body, "--wait", wait])
    };
    let put = r#"{"module":"kv","call":"put","args":{"key":"a","value":"b"}}"#;
    let cases = [
        ("CHAT", r#"{"text":"hello"}"#, "delivered", Value::Null),
        ("TX", put, "answered", json!("finalised")),
        ("POST", r#"{"content":[1,2],"tags":["t"]}"#, "answered", Value::Null),
        ("QUERY", r#"{"tag":"t"}"#, "answered", Value::Null),
        ("EXEC", r#"{"action":"state.get","args":{"key":"kv/a"}}"#, "answered", Value::Null),
    ];
    for (kind, body, wait, status) in cases {
        let answer = send(kind, body, wait);
        assert_eq!(answer["status"], "delivered", "{kind}: {answer}");
        let result = &answer["reply"]["result"];
        match kind {
            "TX" => assert_eq!(result["status"], status),
            "QUERY" => assert_eq!(result["items"][0]["content"], json!([1, 2])),
            "EXEC" => assert_eq!(result["value"], "b"),
            _ => {}
        }
    }
    send("AUTH", r#"{"step":"request"}"#, "answered");
    until("a session is open", || {
        !bob.ok(&["identity", "sessions"])["items"].as_array().expect("a list").is_empty()
    });
    let denied = send("EXEC", r#"{"action":"nucleus.shutdown"}"#, "answered");
    assert_eq!(denied["reply"]["error"]["code"], "message.exec_not_allowed");
    let sealed = alice.ok(&[
        "message",
        "send",
        "--to",
        "bob",
        "--type",
        "CHAT",
        "--body",
        r#"{"text":"secret"}"#,
        "--seal",
        "--wait",
        "delivered",
    ]);
    let id = sealed["id"].as_str().expect("an id");
    assert_eq!(bob.ok(&["message", "show", id])["body"]["text"], "secret");
    assert!(
        !bob.ok(&["journal", "cat", "message", "--limit", "1000"]).to_string().contains("secret"),
        "sealed at rest too"
    );
    until("trust has risen", || {
        send("CHAT", r#"{"text":"again"}"#, "delivered");
        bob.ok(&["identity", "trust", "alice"])["trust_ppm"].as_u64().is_some_and(|trust| trust > 0)
    });
    for cell in [&alice, &bob] {
        let journals = cell.ok(&["journal", "verify"]);
        assert!(journals["items"].as_array().expect("a list").iter().all(|journal| journal["ok"] == true));
    }
}

#[test]
fn a_message_waits_for_a_receiver_that_is_away() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (alice, mut bob) = pair(dir.path());
    bob.kill();
    let sent =
        alice.ok(&["message", "send", "--to", "bob", "--type", "CHAT", "--body", r#"{"text":"later"}"#]);
    assert_eq!(sent["status"], "queued");
    // It comes back on other ports: its own dial finds the way.
    bob.start();
    let id = sent["id"].as_str().expect("an id");
    until("it is delivered", || alice.ok(&["message", "show", id])["status"] == "delivered");
    let inbox = bob.ok(&["message", "list", "--from", "alice"]);
    assert_eq!(inbox["items"].as_array().expect("a list").len(), 1);
}

#[test]
fn proofs_check_offline_and_a_rebuild_gives_the_same_root() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    cell.start();
    let tx = cell.put("colour", "blue");
    assert_eq!((&tx["status"], &tx["block"]), (&json!("finalised"), &json!(0)));
    let rejected = cell.run(&[
        "tx",
        "submit",
        "--module",
        "prana",
        "--call",
        "transfer",
        "--args",
        &json!({ "to": cell.id(), "amount": "2000000000" }).to_string(),
        "--wait",
        "finalised",
    ]);
    assert_eq!(rejected.status.code(), Some(1));
    let proof = dir.path().join("proof.json");
    std::fs::write(&proof, cell.run(&["state", "prove", "kv/colour"]).stdout).expect("writes");
    let block = dir.path().join("block.json");
    std::fs::write(&block, cell.run(&["block", "show", "0"]).stdout).expect("writes");
    let root = cell.ok(&["state", "root"])["root"].clone();
    assert_eq!(cell.refused(&["rebuild"]), (6, "folder.running".to_owned()));
    cell.ok(&["stop"]);
    let genesis = cell.dir().join("genesis.json");
    let genesis = genesis.to_str().expect("a path");
    let verified = cell.ok(&["state", "verify", proof.to_str().expect("a path"), "--genesis", genesis]);
    assert_eq!((&verified["valid"], &verified["value"]), (&json!(true), &json!("blue")));
    assert_eq!(
        cell.ok(&["block", "verify", block.to_str().expect("a path"), "--genesis", genesis])["valid"],
        true
    );
    let forged = std::fs::read_to_string(&proof).expect("reads").replace("626c7565", "626c7566");
    std::fs::write(&proof, forged).expect("writes");
    assert_eq!(
        cell.refused(&["state", "verify", proof.to_str().expect("a path")]),
        (1, "state.bad_proof".to_owned())
    );
    assert_eq!(cell.ok(&["rebuild"])["root"], root);
    cell.start();
    assert_eq!(cell.ok(&["state", "root"])["root"], root);
}

#[test]
fn wrong_input_is_refused_with_a_code_and_the_cell_lives_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    assert_eq!(cell.refused(&["status"]), (3, "cli.not_running".to_owned()));
    assert_eq!(cell.refused(&["init"]), (6, "folder.exists".to_owned()));
    cell.start();
    let stranger = "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH";
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_100_000));
    let body = dir.path().join("body.json");
    std::fs::write(&body, long).expect("writes");
    let body = format!("@{}", body.display());
    let cases: [(&[&str], i32, &str); 10] = [
        (
            &["message", "send", "--to", stranger, "--type", "CHAT", "--body", r#"{"text":"x"}"#],
            1,
            "message.unknown_receiver",
        ),
        (
            &["message", "send", "--to", "nobody", "--type", "CHAT", "--body", r#"{"text":"x"}"#],
            1,
            "identity.unknown_contact",
        ),
        (&["message", "send", "--to", "self", "--type", "CHAT", "--body", "{}"], 1, "message.bad_body"),
        (&["message", "send", "--to", "self", "--type", "CHAT", "--body", "{"], 1, "cli.bad_json"),
        (
            &["message", "send", "--to", "self", "--type", "CHAT", "--body", &body],
            1,
            "message.body_too_large",
        ),
        (&["message", "send", "--to", "self", "--type", "SHOUT", "--body", "{}"], 1, "message.unknown_type"),
        (&["call", "nothing.here"], 1, "rpc.unknown_method"),
        (&["call", "message.enqueue"], 1, "rpc.unknown_method"),
        (&["peers", "add", "example.org"], 1, "network.bad_address"),
        (&["nonsense"], 2, "cli.usage"),
    ];
    for (arguments, exit, code) in cases {
        assert_eq!(cell.refused(arguments), (exit, code.to_owned()), "{arguments:?}");
    }
    let token = cell.ok(&["token", "create", "short", "--role", "read", "--ttl-s", "1"]);
    let token = token["token"].as_str().expect("a token").to_owned();
    let status = |token: &str| {
        kit::post(&cell.http, token, "/rpc", r#"{"jsonrpc":"2.0","id":1,"method":"state.root"}"#)
    };
    assert_eq!(status(&token).0, 200);
    until("the token has expired", || status(&token).0 == 401);
    assert!(status(&token).1.contains("nucleus.token_expired"));
    assert!(status("wrong").1.contains("nucleus.bad_token"));
    assert_eq!(status("").0, 401);
    assert!(kit::post(&cell.http, cell.token().trim(), "/rpc", "{").1.contains("rpc.malformed_json"));
    assert_eq!(cell.ok(&["status"])["readiness"]["state"], "synced");
    let mut other = Cell::init(dir.path(), "other");
    let port = cell.http.rsplit(':').next().expect("a port").to_owned();
    other.ok(&["config", "set", "http.port", &port]);
    assert_eq!(other.refused(&["start"]), (6, "http.port_in_use".to_owned()));
    std::fs::write(other.dir().join("cell.toml"), "[http]\nprot = 1\n").expect("writes");
    assert_eq!(other.refused(&["start"]), (1, "config.unknown_key".to_owned()));
    other.kill();
}

#[test]
fn events_resume_where_a_listener_left() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    cell.start();
    let chat = |text: &str| cell.chat("self", text);
    chat("one");
    let watch = |arguments: &[&str]| {
        let output = cell.run(&[&["watch", "message.received", "--timeout", "10"], arguments].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
            .collect::<Vec<_>>()
    };
    let first = watch(&["--since", "0", "--limit", "1"]);
    let id = first[0]["id"].as_str().expect("an id");
    let second = chat("two")["id"].clone();
    let rest = watch(&["--since", id, "--limit", "1"]);
    assert_eq!(rest[0]["data"]["id"], second, "what came meanwhile is not missed");
    assert_eq!(cell.refused(&["watch", "message.recieved"]).1, "event.unknown");
}

/// What an encrypted cell journals is in no file of its journals in plain; the cell reads it, stopped or not, and
/// whoever has no key checks it.
#[test]
fn encrypted_journals_serve_their_cell_and_show_nothing_to_others() {
    const SECRET: &str = "nobody but the owner reads this";
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::adopt(&dir.path().join("sealed"));
    cell.ok(&["init", "--http-port", "0", "--peer-port", "0", "--encrypt", "all"]);
    cell.start();
    cell.put("note", SECRET);
    let root = cell.ok(&["state", "root"])["root"].clone();
    let whole = cell.ok(&["journal", "cat", "state"]);
    cell.ok(&["stop"]);

    let listed = cell.ok(&["journal", "list"]);
    let listed = listed["items"].as_array().expect("a list");
    assert!(listed.len() == 6 && listed.iter().all(|journal| journal["encrypted"] == true), "{listed:?}");
    let holds = |cell: &Cell, secret: &[u8]| {
        let folders = std::fs::read_dir(cell.dir().join("journals")).expect("a folder");
        let files =
            folders.flat_map(|folder| std::fs::read_dir(folder.expect("one").path()).expect("a folder"));
        files
            .map(|file| std::fs::read(file.expect("a file").path()).expect("reads"))
            .any(|bytes| bytes.windows(secret.len()).any(|window| window == secret))
    };
    assert!(!holds(&cell, SECRET.as_bytes()));
    assert_eq!(cell.ok(&["journal", "cat", "state"]), whole);
    cell.ok(&["journal", "verify"]);
    assert_eq!(cell.ok(&["rebuild"])["root"], root);

    // Without the cell's key: checked, proven, copied, and not read.
    let key = cell.dir().join("identity.key");
    let aside = dir.path().join("aside");
    std::fs::rename(&key, &aside).expect("moves");
    cell.ok(&["journal", "verify"]);
    cell.ok(&["journal", "prove", "state", "0"]);
    let copies = ["copy", "with-key"].map(|name| dir.path().join(name));
    let copies = copies.each_ref().map(|copy| copy.to_str().expect("a path"));
    cell.ok(&["journal", "export", "state", copies[0]]);
    assert_eq!(cell.refused(&["journal", "cat", "state"]).1, "keys.missing");
    std::fs::rename(&aside, &key).expect("moves");
    cell.ok(&["journal", "export", "state", copies[1], "--with-encryption-key"]);
    let mut bytes = [0; 32];
    let given = std::fs::read_to_string(dir.path().join("with-key/encryption.key")).expect("reads");
    hex::decode_to_slice(given, &mut bytes).expect("hex");
    let copy = |number: usize, key: Option<&journal::EncryptionKey>| {
        journal::Reader::open_with(copies[number].as_ref(), key).expect("opens").get(0)
    };
    assert!(matches!(copy(0, None), Err(journal::Error::Encrypted)));
    assert!(copy(1, Some(&journal::EncryptionKey::from_bytes(&bytes))).is_ok());

    cell.start();
    assert_eq!(cell.ok(&["state", "get", "kv/note"])["value"], SECRET);
    assert_eq!(cell.ok(&["state", "root"])["root"], root);

    // The same without encryption is found, so the search finds what is there.
    let mut plain = Cell::init(dir.path(), "plain");
    plain.start();
    plain.put("note", SECRET);
    plain.ok(&["stop"]);
    assert!(holds(&plain, SECRET.as_bytes()));
    let refused = plain.refused(&["journal", "export", "state", copies[0], "--with-encryption-key"]);
    assert_eq!(refused.1, "journal.not_encrypted");
    assert_eq!(plain.refused(&["init", "--encrypt", "state,nothing"]).1, "id.bad_service");
}
