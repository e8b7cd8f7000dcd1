//! Copies of another cell's journals, as operators make, check, damage and heal them.

use std::fs;
use std::path::{Path, PathBuf};

use kit::{Cell, pair, until};
use serde_json::{Value, json};

fn journal_of(cell: &Cell, name: &str) -> Value {
    let journals = cell.ok(&["journal", "list"]);
    let journals = journals["items"].as_array().expect("a list");
    journals.iter().find(|journal| journal["name"] == name).expect("listed").clone()
}

fn copy_at(cell: &Cell, of: &Cell, name: &str) -> Value {
    let copies = cell.ok(&["journal", "followed"]);
    let copies = copies["items"].as_array().expect("a list");
    let this = copies.iter().find(|copy| copy["cell"] == of.id() && copy["journal"] == name);
    this.cloned().unwrap_or(Value::Null)
}

fn send(from: &Cell, count: usize) {
    for number in 0..count {
        from.chat("bob", &format!("number {number}"));
    }
}

/// Whether the copy is as long as the journal, and verifies to the same tree.
fn is_whole(copier: &Cell, of: &Cell, name: &str) -> bool {
    let journal = journal_of(of, name);
    let verified = copier.run(&["journal", "verify", &format!("{}/{name}", of.id())]);
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap_or_default();
    let item = &verified["items"][0];
    item["ok"] == true && item["absent"] == 0 && item["tree_hash"] == journal["tree_hash"]
}

fn allow(owner: &Cell, who: &str, journals: &str) {
    owner.ok(&["identity", "access", who, "--may", "CHAT", "--journals", journals]);
}

#[test]
fn a_journal_is_followed_if_the_access_list_lets_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut alice, mut bob) = pair(dir.path());
    send(&alice, 5);
    let follow = ["journal", "follow", "alice", "message", "--once"];
    assert_eq!(bob.refused(&follow), (4, "journal.denied".to_owned()));
    assert_eq!(copy_at(&bob, &alice, "message"), Value::Null, "a refusal is not remembered");
    allow(&alice, "bob", "message,state");
    let key = journal_of(&alice, "message")["key"].as_str().expect("a key").to_owned();
    let other = ["journal", "follow", "alice", "message", "--once", "--key", &"7".repeat(64)];
    assert_eq!(bob.refused(&other), (6, "journal.other_key".to_owned()));
    let copy = bob.ok(&["journal", "follow", "alice", "message", "--once", "--key", &key]);
    assert_eq!(
        (&copy["state"], &copy["have"], &copy["key"]),
        (&json!("following"), &copy["length"], &json!(key))
    );
    assert!(is_whole(&bob, &alice, "message"), "{copy}");
    // What is in it is what was written, and it can be proven from the copy.
    let (name, mine) = (format!("{}/message", alice.id()), |cell: &Cell, name: &str| {
        cell.ok(&["journal", "cat", name, "--limit", "1000"])["items"].clone()
    });
    assert_eq!(mine(&bob, &name), mine(&alice, "message"));
    assert_eq!(bob.ok(&["journal", "prove", &name, "0"])["proof"]["key"], key);
    // New entries come as they are written.
    send(&alice, 3);
    until("the copy has grown", || is_whole(&bob, &alice, "message"));
    // The copy is followed on after a restart of either, and after a crash.
    bob.kill();
    send_only(&alice);
    bob.start();
    until("the copy goes on", || is_whole(&bob, &alice, "message"));
    alice.kill();
    until("nobody has the journal", || copy_at(&bob, &alice, "message")["state"] == "waiting");
    assert_eq!(bob.ok(&["journal", "verify", &name])["items"][0]["ok"], true);
    alice.start();
    until("it is followed on", || copy_at(&bob, &alice, "message")["state"] == "following");
    // Access that is taken back ends it.
    allow(&alice, "bob", "state");
    send_only(&alice);
    until("it is denied", || copy_at(&bob, &alice, "message")["state"] == "denied");
    let ended = bob.ok(&["journal", "unfollow", "alice", "message", "--delete"]);
    assert_eq!(ended["state"], "ended");
    assert_eq!(
        bob.refused(&["journal", "unfollow", "alice", "message"]),
        (1, "replica.not_followed".to_owned())
    );
    assert_eq!(bob.refused(&["journal", "cat", &name]), (1, "replica.missing".to_owned()));
    let own = bob.id();
    assert_eq!(bob.refused(&["journal", "follow", &own, "state"]), (1, "replica.own_journal".to_owned()));
}

fn send_only(from: &Cell) {
    from.ok(&["message", "send", "--to", "bob", "--type", "CHAT", "--body", r#"{"text":"alone"}"#]);
}

fn file(copier: &Cell, of: &Cell, name: &str) -> PathBuf {
    let id = of.id();
    let cell = id.rsplit(':').next().expect("an id");
    copier.dir().join("replicas").join(cell).join("message").join(name)
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[place] ^= 0x40;
    fs::write(path, bytes).expect("writes");
}

#[test]
fn a_damaged_copy_heals_from_its_source() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (alice, mut bob) = pair(dir.path());
    send(&alice, 8);
    allow(&alice, "bob", "message");
    bob.ok(&["journal", "follow", "alice", "message", "--once"]);
    let name = format!("{}/message", alice.id());
    bob.ok(&["stop"]);
    flip(&file(&bob, &alice, "data"), 300);
    let report = bob.run(&["journal", "verify", &name]);
    assert_eq!(report.status.code(), Some(5), "the damage is found");
    bob.start();
    until("it is healed", || is_whole(&bob, &alice, "message"));
    assert!(copy_at(&bob, &alice, "message")["healed"].as_u64() > Some(0));
    // Where not even its header can be read, it is set aside and made anew.
    bob.ok(&["stop"]);
    let oplog = file(&bob, &alice, "oplog");
    flip(&oplog, 40);
    flip(&oplog, 4_096 + 40);
    bob.start();
    until("it is made anew", || is_whole(&bob, &alice, "message"));
    let aside = oplog.parent().expect("a folder").with_extension("damaged-0");
    assert!(aside.join("data").exists(), "nothing was deleted");
}

#[test]
fn a_copy_goes_on_from_another_copy() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut alice, bob) = pair(dir.path());
    let mut carol = Cell::init(dir.path(), "carol");
    carol.start();
    for peer in [&alice, &bob] {
        let peer = peer.run(&["status"]);
        let status: Value = serde_json::from_slice(&peer.stdout).expect("JSON");
        carol.ok(&[
            "peers",
            "add",
            status["peer_addresses"][0].as_str().expect("an address"),
            "--name",
            status["name"].as_str().expect("a name"),
        ]);
    }
    let id = carol.id();
    for owner in [&alice, &bob] {
        owner.ok(&["call", "identity.add_contact", &json!({ "cell": id, "name": "carol" }).to_string()]);
        allow(owner, "carol", "message");
    }
    allow(&alice, "bob", "message");
    send(&alice, 4);
    bob.ok(&["journal", "follow", "alice", "message", "--once"]);
    let known = carol.ok(&["journal", "follow", "alice", "message", "--once"])["length"].clone();
    until("both are sources", || copy_at(&carol, &alice, "message")["sources"] == 2);
    // Carol is away while the journal grows, and its cell is gone when she comes back.
    carol.kill();
    send(&alice, 4);
    let grown = journal_of(&alice, "message");
    until("the other copy has it all", || is_whole(&bob, &alice, "message"));
    alice.kill();
    carol.start();
    until("it came from the other copy", || {
        let copy = copy_at(&carol, &alice, "message");
        copy["have"] == grown["entries"] && copy["state"] == "following"
    });
    assert!(grown["entries"].as_u64() > known.as_u64());
    assert!(is_whole(&carol, &alice, "message"));
}
