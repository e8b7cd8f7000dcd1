//! Messages from cell to cell: signed, durable on both sides, with the receiver's receipt back.
//!
//! The sender runs in this process, so that 64 senders are 64 tasks and not 64 HTTP clients on the
//! same two cores; the receiver is a process of its own. One line goes over HTTP as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::in_process::InProcess;
use cell::node::World;
use kit::{Cell, until};
use protocol::message::MessageType;
use protocol::messages::{SendRequest, Status, Wait};
use serde_json::json;

use crate::limits;
use crate::table::{Table, per_second, time};

/// Senders at once.
const SENDERS: usize = 64;
/// How long each measurement takes.
const SPAN: Duration = Duration::from_secs(1);
/// How long the machine rests before each.
const REST: Duration = Duration::from_secs(3);
/// How often the two rates are measured in turn.
const ROUNDS: usize = 5;
/// Messages of the one sender.
const SINGLE: usize = 500;

pub(crate) fn measure() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("Messages from cell to cell");
    let mut bob = Cell::init(dir.path(), "bob");
    bob.start();
    let alice_dir = dir.path().join("alice");
    actix_rt::System::new().block_on(async {
        let alice = InProcess::start(&alice_dir).await;
        let world = Arc::clone(alice.world());
        let peer = alice.node().ready().peer;
        bob.ok(&["peers", "add", &peer, "--name", "alice"]);
        alice.add_peer(&bob.peer, "bob").await;
        let one = single(&world).await;
        let syncs = limits::two_syncs(dir.path());
        table.line(
            "one sender, time until the receipt is durable here, p50",
            time(one),
            format!("two syncs: {}", time(syncs)),
            format!("{:.1} : 1", one.as_secs_f64() / syncs.as_secs_f64()),
            "5 ms",
        );
        let body = json!({ "text": "x".repeat(100) });
        let mut rounds: Vec<(f64, f64)> = Vec::new();
        for _ in 0..ROUNDS {
            // In turns: what else the machine does hits both. Rested: a host that gives its guests a
            // budget of processor time would take from the second what the first has used up.
            tokio::time::sleep(REST).await;
            let many = many(&world, &body).await;
            tokio::time::sleep(REST).await;
            let limit = limits::sign_and_verify_rate(body.to_string().as_bytes(), SPAN);
            rounds.push((many, limit));
        }
        rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (many, limit) = rounds[ROUNDS / 2];
        table.line(
            "64 senders, 100 byte CHAT, receipt back (the median of five rounds)",
            per_second(many),
            format!("sign + verify alone: {}", per_second(limit)),
            format!("{:.0} %", 100.0 * many / limit),
            "40 %",
        );
        alice.stop().await;
    });
    until("the receiver is well", || bob.ok(&["status"])["readiness"]["state"] == "synced");
    table
}

async fn send(world: &Arc<World>, body: serde_json::Value) {
    let request = SendRequest {
        to: "bob".to_owned(),
        kind: MessageType::Chat,
        body,
        seal: false,
        in_reply_to: None,
        ttl_ms: None,
        request_id: None,
        wait: Wait::Delivered,
        wait_ms: None,
    };
    let answer = world.bus.with(kit::in_process::operator()).message().send(request).await.expect("sent");
    assert_eq!(answer.status, Status::Delivered);
}

async fn single(world: &Arc<World>) -> Duration {
    let world = Arc::clone(world);
    let times = world.edge.clone().spawn(async move {
        let mut times = Vec::with_capacity(SINGLE);
        for _ in 0..SINGLE {
            let start = Instant::now();
            send(&world, json!({ "text": "hello" })).await;
            times.push(start.elapsed());
        }
        times
    });
    limits::median(&mut times.await.expect("the sender ends well"))
}

async fn many(world: &Arc<World>, body: &serde_json::Value) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (world, count, body) = (Arc::clone(world), Arc::clone(&count), body.clone());
            world.edge.clone().spawn(async move {
                while start.elapsed() < SPAN {
                    send(&world, body.clone()).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender ends well");
    }
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}
