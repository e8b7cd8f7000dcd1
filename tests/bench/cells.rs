//! A whole cell: how fast it starts, and what it costs when idle.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::in_process::InProcess;
use kit::Cell;
use protocol::message::MessageType;
use protocol::messages::{SendRequest, Wait};
use serde_json::json;

use crate::limits;
use crate::table::{Table, time};

/// Messages in the journals.
const MESSAGES: usize = 100_000;
/// Senders that put them there.
const SENDERS: usize = 512;
/// How long the idle cell is watched.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) fn measure() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("A cell on its own");
    let mut empty = Cell::init(dir.path(), "empty");
    let small = starts(&mut empty);
    empty.kill();
    let crashed = dir.path().join("crashed");
    actix_rt::System::new().block_on(fill(&dir.path().join("full"), &crashed));
    let mut crashed = Cell::adopt(&crashed);
    let after_crash = starts(&mut crashed);
    crashed.kill();
    let mut full = Cell::adopt(&dir.path().join("full"));
    let times = starts(&mut full);
    let messages = full.ok(&["journal", "verify", "message"])["items"][0]["entries"].clone();
    table.line(
        "start to ready with 100 000 messages",
        time(times),
        format!("with none: {}; message journal has {messages} entries", time(small)),
        format!("{:.1} : 1", times.as_secs_f64() / small.as_secs_f64()),
        "1 s",
    );
    table.line(
        "the same, killed while it was written to: what views have lost is folded again",
        time(after_crash),
        format!("stopped in peace: {}", time(times)),
        format!("{:.1} : 1", after_crash.as_secs_f64() / times.as_secs_f64()),
        "1 s",
    );
    // What was read at the start has settled; then it is watched.
    std::thread::sleep(Duration::from_secs(2));
    let before = full.cpu_ticks();
    let start = Instant::now();
    std::thread::sleep(IDLE);
    let ticks = full.cpu_ticks() - before;
    let percent = ticks as f64 / kit::TICKS_PER_SECOND / start.elapsed().as_secs_f64() * 100.0;
    table.line(
        "idle CPU, 100 000 messages",
        format!("{percent:.2} %"),
        "one core".into(),
        String::new(),
        "1 %",
    );
    let memory = full.memory_kib();
    table.line(
        "idle memory (RSS), 100 000 messages",
        format!("{:.0} MiB", memory as f64 / 1024.0),
        String::new(),
        String::new(),
        "120 MiB",
    );
    table
}

/// The median of five starts, each after a kill (so what a view has lost stays lost).
fn starts(cell: &mut Cell) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            cell.kill();
            let start = Instant::now();
            cell.start();
            start.elapsed()
        })
        .collect();
    limits::median(&mut times)
}

/// Makes a cell with messages, and a copy of its folder from before it was stopped: what a kill leaves.
async fn fill(dir: &Path, crashed: &Path) {
    let node = InProcess::start(dir).await;
    let world = Arc::clone(node.world());
    let left = Arc::new(AtomicUsize::new(MESSAGES));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (world, left) = (Arc::clone(&world), Arc::clone(&left));
            world.edge.clone().spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let request = SendRequest {
                        to: "self".to_owned(),
                        kind: MessageType::Chat,
                        body: json!({ "text": "x".repeat(100) }),
                        seal: false,
                        in_reply_to: None,
                        ttl_ms: None,
                        request_id: None,
                        wait: Wait::Delivered,
                        wait_ms: None,
                    };
                    world.bus.with(kit::in_process::operator()).message().send(request).await.expect("sent");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender ends well");
    }
    // The store may take a file away while it is copied: then once more.
    let copied = (0..5).any(|_| {
        let _ = std::fs::remove_dir_all(crashed);
        Command::new("cp").arg("-r").args([dir, crashed]).status().is_ok_and(|status| status.success())
    });
    assert!(copied, "the folder is copied");
    node.stop().await;
}
