//! A host that is removed was given the keys of the journals that it wrote: other keys sign those from then on, and nothing else changes
//! (DESIGN §9, rule 9).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kit::hosts::service;
use kit::rpc::Client;
use kit::writers::{What, Writers};
use kit::{Cell, HostProcess, until, until_within};
use serde_json::{Value, json};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take until hosts that may lead have everything.
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// The journals that lie in a folder: their public keys, and how many entries they have.
fn journals(cell: &Cell) -> BTreeMap<String, (String, u64)> {
    let listed = cell.ok(&["journal", "list"])["items"].as_array().expect("a list").clone();
    let one = |item: Value| {
        let text = |field: &str| item[field].as_str().expect("a text").to_owned();
        (text("name"), (text("key"), item["entries"].as_u64().expect("a number")))
    };
    listed.into_iter().map(one).collect()
}

fn key(cell: &Cell, name: &str) -> String {
    journals(cell).remove(name).map(|(key, _)| key).unwrap_or_default()
}

/// Those of two lists that are signed by another key now.
fn changed(before: &BTreeMap<String, (String, u64)>, after: &BTreeMap<String, (String, u64)>) -> Vec<String> {
    let differs = |name: &&String| before[*name].0 != after[*name].0;
    before.keys().filter(differs).cloned().collect()
}

fn all_hold(cell: &Cell) {
    let verified = cell.ok(&["journal", "verify"])["items"].as_array().expect("a list").clone();
    assert!(!verified.is_empty() && verified.iter().all(|item| item["ok"] == true), "{verified:?}");
}

fn runs_at(cell: &Cell, name: &str, host: &str) {
    until("it runs where it should", || service(cell, name) == (host.to_owned(), "running".to_owned()));
}

fn join(cell: &Cell, dir: &Path, services: &str) -> HostProcess {
    let mut host = HostProcess::join(cell, dir, services);
    host.start();
    let name = dir.file_name().expect("a name").to_string_lossy();
    services.split(',').for_each(|one| runs_at(cell, one, &name));
    host
}

fn list(value: &Value) -> Vec<String> {
    let items = value.as_array().expect("a list").iter();
    items.map(|item| item.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn what_a_removed_host_could_have_signed_other_keys_sign_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init_with(dir.path(), "a", &["--encrypt", "state"]);
    cell.start_first();
    let b = join(&cell, &dir.path().join("b"), "state,identity");
    let c = join(&cell, &dir.path().join("c"), "market");
    // What it has written before it may write as well: its key went with the grant.
    cell.ok(&["service", "move", "identity", "--to", "c"]);
    cell.put("a", "1");
    let before = journals(&cell);
    let manifest = |cell: &Cell| cell.ok(&["call", "nucleus.manifest"])["journals"].clone();
    let client = Client::new(&cell.http, &cell.token());
    let writers = Writers::default();
    let removed = std::thread::scope(|scope| {
        scope.spawn(|| writers.write(&client, What::Contacts));
        let _over = writers.until_dropped();
        until("it writes", || writers.count(What::Contacts) > 10);
        let removed = cell.ok(&["host", "remove", "b"]);
        let there = writers.count(What::Contacts);
        until("it goes on", || writers.count(What::Contacts) > there + 10);
        removed
    });
    assert_eq!(list(&removed["rekeyed"]), ["identity", "state"], "{removed}");
    assert_eq!(removed["lost"], json!([]));
    // What the other host runs it runs again, and its journal is that of everybody.
    runs_at(&cell, "identity", "c");
    runs_at(&cell, "state", "first");
    writers.check(&client);
    cell.put("b", "2");
    let after = journals(&cell);
    assert_eq!(changed(&before, &after), ["identity", "state"]);
    assert!(before.iter().all(|(name, (_, entries))| *entries <= after[name].1), "{before:?} {after:?}");
    until("the other host has it by its new key", || key(&c.as_cell(), "identity") == after["identity"].0);
    all_hold(&cell);
    all_hold(&c.as_cell());
    for journal in manifest(&cell).as_array().expect("a list") {
        let name = journal["service"].as_str().expect("a name");
        assert_eq!(journal["key"], after[name].0, "the manifest names the key that signs {name}");
    }
    let grants = cell.ok(&["call", "nucleus.roster"])["grants"].clone();
    for grant in grants.as_array().expect("a list") {
        let number = u64::from(["identity", "state"].contains(&grant["service"].as_str().expect("a name")));
        assert_eq!(grant["key_number"], number, "{grant}");
    }
    // Encrypted as before, and readable to its cell alone.
    let entries = cell.ok(&["journal", "cat", "state", "--limit", "3"])["items"].as_array().map(Vec::len);
    assert_eq!(entries, Some(3));
    drop(b);
    // All of it is found again by a start, a rebuild and a restore.
    cell.kill_first();
    cell.start_first();
    let has_both =
        |cell: &Cell| ["a", "b"].map(|key| cell.ok(&["state", "get", &format!("kv/{key}")])["value"].clone());
    runs_at(&cell, "identity", "c");
    assert_eq!(has_both(&cell), ["1", "2"]);
    cell.put("c", "3");
    assert_eq!(changed(&after, &journals(&cell)), Vec::<String>::new(), "it is done once");
    let backup = dir.path().join("backup");
    cell.ok(&["backup", backup.to_str().expect("a path")]);
    cell.kill_first();
    cell.ok(&["rebuild"]);
    let mut restored = Cell::adopt(&dir.path().join("restored"));
    restored.ok(&["restore", backup.to_str().expect("a path")]);
    all_hold(&restored);
    restored.ok(&["config", "set", "http.port", "0"]);
    restored.start_first();
    assert_eq!(has_both(&restored), ["1", "2"]);
    drop(c);
}

#[test]
fn a_lost_host_that_is_removed_can_sign_nothing_either() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.start_first();
    let mut b = join(&cell, &dir.path().join("b"), "state,market");
    cell.put("a", "1");
    let before = journals(&cell);
    b.kill();
    until("it is missed", || service(&cell, "state").1 != "running");
    let removed = cell.ok(&["host", "remove", "b", "--force"]);
    assert_eq!(list(&removed["rekeyed"]), ["state", "market"], "{removed}");
    let after = journals(&cell);
    assert_eq!(changed(&before, &after), ["market", "state"]);
    all_hold(&cell);
    cell.put("b", "2");
    // It was the last other host: the cell goes on alone.
    cell.kill_first();
    cell.start_first();
    assert_eq!(cell.ok(&["state", "get", "kv/b"])["value"], "2");
    assert_eq!(changed(&after, &journals(&cell)), Vec::<String>::new());
}

#[test]
fn hosts_that_may_lead_sign_their_copies_anew_and_take_over_from_them() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.ok(&["config", "set", "journal.durability", "replica"]);
    cell.start_first();
    let mut others: Vec<HostProcess> =
        ["d", "e"].map(|name| HostProcess::join_to_lead(&cell, &dir.path().join(name), &[])).into();
    others.iter_mut().for_each(HostProcess::start);
    let b = join(&cell, &dir.path().join("b"), "identity");
    let client = |number: usize| Client::new(&others[number].http, &cell.token());
    let (d, e) = (client(0), client(1));
    let votes = |client: &Client| {
        let hosts = client.list("nucleus.hosts", &json!({}), PATIENCE).unwrap_or_default();
        hosts.iter().filter(|host| host["votes"] == true).count()
    };
    until_within(SETTLED_MAX, "three hosts vote", || votes(&d) == 3);
    let before = key(&cell, "identity");
    let writers = Writers::default();
    let count = || writers.count(What::Contacts);
    std::thread::scope(|scope| {
        scope.spawn(|| writers.write(&d, What::Contacts));
        scope.spawn(|| writers.write(&e, What::Contacts));
        let _over = writers.until_dropped();
        until("they write", || count() > 20);
        let removed = cell.ok(&["host", "remove", "b"]);
        assert_eq!(list(&removed["rekeyed"]), ["identity"], "{removed}");
        let there = count();
        until("they go on", || count() > there + 20);
        let now = key(&cell, "identity");
        assert_ne!(now, before);
        for other in &others {
            until("its copy is signed by the same key", || key(&other.as_cell(), "identity") == now);
            let aside = std::fs::read_dir(other.dir().join("journals")).expect("a folder");
            let names: Vec<_> = aside.map(|entry| entry.expect("an entry").file_name()).collect();
            assert_eq!(names.len(), 6, "what it had it has, and not twice: {names:?}");
        }
        // Whoever comes to lead goes on with it.
        cell.kill_first();
        let there = count();
        until_within(SETTLED_MAX, "they go on under another lead", || count() > there + 20);
    });
    writers.check(&d);
    writers.check(&e);
    cell.start_first();
    let first = Client::new(&cell.http, &cell.token());
    until_within(SETTLED_MAX, "it is back", || votes(&first) == 3);
    writers.check(&first);
    others.iter().for_each(|other| all_hold(&other.as_cell()));
    drop(b);
}

/// Whoever runs the service is away: the host is refused at once, and the keys follow as soon as they can.
#[test]
fn what_cannot_be_signed_anew_now_is_when_it_can_be() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.start_first();
    let b = join(&cell, &dir.path().join("b"), "identity");
    let mut c = join(&cell, &dir.path().join("c"), "market");
    cell.ok(&["service", "move", "identity", "--to", "c"]);
    let before = journals(&cell);
    c.kill();
    until("it is missed", || service(&cell, "identity").1 != "running");
    let removed = cell.ok(&["host", "remove", "b"]);
    assert_eq!(list(&removed["rekeyed"]), Vec::<String>::new(), "{removed}");
    assert!(!b.as_cell().run(&["identity", "contacts"]).status.success(), "it is refused at once");
    // What is not done yet is known to whoever comes after a crash as well.
    cell.kill_first();
    cell.start_first();
    assert_eq!(changed(&before, &journals(&cell)), Vec::<String>::new());
    c.start();
    until_within(SETTLED_MAX, "another key signs it", || {
        changed(&before, &journals(&cell)) == ["identity"]
            && service(&cell, "identity") == ("c".to_owned(), "running".to_owned())
    });
    until("the other host has it", || key(&c.as_cell(), "identity") == key(&cell, "identity"));
    all_hold(&cell);
    all_hold(&c.as_cell());
}
