//! A streamed answer of the other host beside a plain TLS socket, and what it does to other calls meanwhile.
//!
//! Here the other host leads, a process of its own, and the one in this process has joined: what is streamed is data that the other one
//! keeps, read from its disk and checked against its hash on the way, and other calls go to State there, so that their answers come behind
//! the stream's on one connection.

use std::path::Path;
use std::time::{Duration, Instant};

use cell::bus::{Bus, CallContext};
use futures_util::StreamExt;
use kit::Cell;
use protocol::Hash;
use protocol::state::{DataRef, GetData, RootRequest};

use super::{calls, tls};
use crate::in_process::InProcess;
use crate::limits::median;
use crate::table::{Table, time};

/// Bytes of the answer.
const BYTES: u64 = 64 * 1024 * 1024;
/// Measurements of each, in turns; the median counts. One more before them is a warm-up.
const ROUNDS: usize = 5;
/// How long other calls are watched.
const SPAN: Duration = Duration::from_secs(3);
/// How long the other host may take to be called.
const READY_MAX: Duration = Duration::from_secs(20);

pub(super) fn measure(table: &mut Table, dir: &Path) {
    let mut lead = Cell::init(dir, "lead");
    let file = dir.join("data");
    std::fs::write(&file, bytes()).expect("a file");
    let added = lead.ok(&["data", "add", &file.display().to_string()]);
    let hash: Hash = added["hash"].as_str().and_then(|text| text.parse().ok()).expect("a hash");
    lead.start_first();
    let ticket = lead.ok(&["host", "invite"])["ticket"].as_str().expect("a ticket").to_owned();
    actix_rt::System::new().block_on(async {
        let joined = InProcess::join(&dir.join("joined"), &ticket).await;
        let bus = joined.node().host().bus.clone();
        until_called(&bus).await;
        alone(table, &bus, hash).await;
        others(table, &bus, hash).await;
        joined.stop().await;
    });
    lead.kill();
}

/// No two pieces of it are the same.
fn bytes() -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(BYTES).expect("it fits")];
    bytes.chunks_exact_mut(8).enumerate().for_each(|(place, eight)| {
        eight.copy_from_slice(&(place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    });
    bytes
}

async fn until_called(bus: &Bus) {
    let deadline = Instant::now() + READY_MAX;
    while bus.internal().state().root(RootRequest::default()).await.is_err() {
        assert!(Instant::now() < deadline, "the other host is never called");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks the other host for the data and reads it to its end.
async fn streamed(bus: &Bus, hash: Hash) {
    let asked = bus.stream::<GetData>(CallContext::internal(), DataRef { hash }).await;
    let (mut items, mut came) = (asked.expect("it opens"), 0);
    while let Some(item) = items.next().await {
        came += item.expect("an item").len() as u64;
    }
    assert_eq!(came, BYTES, "the whole answer");
}

async fn alone(table: &mut Table, bus: &Bus, hash: Hash) {
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let plainly = tls::carry(BYTES);
        let start = Instant::now();
        streamed(bus, hash).await;
        let took = start.elapsed();
        if round > 0 {
            plain.push(mib_per_s(plainly));
            ours.push(mib_per_s(took));
        }
    }
    let (plain, ours) = (median(&mut plain), median(&mut ours));
    table.line(
        "a streamed answer of 64 MiB of the other host",
        format!("{ours:.0} MiB/s"),
        format!("a plain TLS 1.3 socket between two threads: {plain:.0} MiB/s"),
        format!("{:.2} ×", ours / plain),
        "0.5 × (aim 0.8 ×)",
    );
}

/// One caller, alone and beside streamed answers that follow each other.
async fn others(table: &mut Table, bus: &Bus, hash: Hash) {
    let call = calls::echo(bus, calls::MANY);
    let alone = calls::p99(calls::times(SPAN, call.clone()).await);
    let streams = bus.clone();
    let streams = actix_rt::spawn(async move {
        loop {
            streamed(&streams, hash).await;
        }
    });
    let beside = calls::p99(calls::times(SPAN, call).await);
    streams.abort();
    table.line(
        "another caller meanwhile, p99",
        time(beside),
        format!("the same without the streamed answer: {}", time(alone)),
        format!("{:.1} : 1", beside.as_secs_f64() / alone.as_secs_f64()),
        "at most 2 : 1",
    );
}

fn mib_per_s(took: Duration) -> f64 {
    BYTES as f64 / f64::from(1 << 20) / took.as_secs_f64()
}
