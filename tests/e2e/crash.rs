//! Acknowledged means durable: cells are killed at random moments under load, and every message that
//! was acknowledged is there exactly once on both sides.
//!
//! SIGKILL leaves the page cache alive, so the journals here lie on the backend `lossy`: what is not
//! synced dies with the process. Without the sync before release this test is red, as it is with the
//! release before the append.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kit::random::{Random, number};
use kit::{Cell, pair, until};
use serde_json::{Value, json};

/// Kills of one run, both cells together; `CRASH_KILLS` sets another number.
const KILLS: u32 = 40;
/// Senders at once.
const SENDERS: usize = 8;

#[test]
fn what_was_acknowledged_survives_kills_exactly_once_on_both_sides() {
    let seed = number("CRASH_SEED", u64::from(std::process::id()) + 1);
    eprintln!("repeat with CRASH_SEED={seed}");
    let kills = number("CRASH_KILLS", u64::from(KILLS));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut alice, mut bob) = pair(dir.path());
    for cell in [&mut alice, &mut bob] {
        cell.environment.push(("CELL__JOURNAL__BACKEND", "lossy"));
        cell.kill();
        cell.start();
    }
    let token = alice.token();
    let alice = Arc::new(Mutex::new(alice));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (stop, acknowledged, alice, token) =
                (stop.clone(), acknowledged.clone(), alice.clone(), token.clone());
            std::thread::spawn(move || send_until_stopped(sender, &stop, &acknowledged, &alice, &token))
        })
        .collect();
    let mut random = Random::new(seed);
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(20 + random.below(180)));
        if kill % 2 == 0 {
            let mut alice = alice.lock().expect("no sender panics with it");
            alice.kill();
            alice.start();
        } else {
            bob.kill();
            bob.start();
        }
    }
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().expect("a sender ends well"));
    let alice = alice.lock().expect("nobody else");
    until("the outbox is empty", || alice.ok(&["call", "message.outbox"])["waiting"] == 0);
    let acknowledged = acknowledged.lock().expect("nobody else");
    assert!(acknowledged.len() as u64 > kills, "too few messages to show anything: {}", acknowledged.len());
    let (sent, received) = (ids(&alice, "out"), ids(&bob, "in"));
    for (what, there) in [("sender", &sent), ("receiver", &received)] {
        let once: BTreeSet<&String> = there.iter().collect();
        assert_eq!(once.len(), there.len(), "the {what} has a message twice (seed {seed})");
        let lost: Vec<_> = acknowledged.iter().filter(|id| !once.contains(id)).collect();
        assert!(lost.is_empty(), "the {what} lost {lost:?} of {} (seed {seed})", acknowledged.len());
    }
    for cell in [&*alice, &bob] {
        let journals = cell.ok(&["journal", "verify"]);
        assert!(
            journals["items"].as_array().expect("a list").iter().all(|journal| journal["ok"] == true),
            "{journals}"
        );
    }
    eprintln!("{} messages acknowledged over {kills} kills", acknowledged.len());
}

fn send_until_stopped(
    sender: usize,
    stop: &AtomicBool,
    acknowledged: &Mutex<BTreeSet<String>>,
    alice: &Mutex<Cell>,
    token: &str,
) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let http = alice.lock().expect("no panic with it").http.clone();
        let params = json!({ "to": "bob", "type": "CHAT", "body": { "text": format!("{sender}.{number}") } });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "message.send", "params": params });
        let answer = agent
            .post(format!("{http}/rpc"))
            .header("authorization", format!("Bearer {token}"))
            .send(call.to_string());
        // A call that was cut off may or may not have happened: only an answer counts.
        let answer = answer.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
        let answer: Value = answer.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        if let Some(id) = answer["result"]["id"].as_str() {
            acknowledged.lock().expect("no panic with it").insert(id.to_owned());
            number += 1;
        }
    }
}

/// All message ids of one direction, page by page.
fn ids(cell: &Cell, direction: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut arguments =
            vec!["message", "list", "--type", "CHAT", "--direction", direction, "--limit", "1000"];
        if let Some(cursor) = &cursor {
            arguments.extend(["--cursor", cursor.as_str()]);
        }
        let page = cell.ok(&arguments);
        let items = page["items"].as_array().expect("a list");
        ids.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return ids,
        }
    }
}
