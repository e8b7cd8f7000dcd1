//! A streamed answer of the other host beside a plain TLS socket, and what it does to other calls meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cell::node::World;

use super::{calls, tls};
use crate::limits::median;
use crate::table::{Table, time};

/// Bytes of the answer.
const BYTES: u64 = 64 * 1024 * 1024;
/// Measurements of each, in turns; the median counts.
const ROUNDS: usize = 5;
/// How long other calls are watched.
const SPAN: Duration = Duration::from_secs(3);

/// THE PLACE OF THE STREAMED ANSWER. Asks the other host for one of [`BYTES`] bytes and reads it to its end; gives how many bytes came.
/// There is no action that streams yet, so there is none.
async fn streamed(_: &World) -> Option<u64> {
    None
}

pub(super) async fn measure(table: &mut Table, world: &Arc<World>) {
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    // The first of each is a warm-up.
    for round in 0..=ROUNDS {
        let plainly = tls::carry(BYTES);
        let start = Instant::now();
        let came = streamed(world).await;
        if round == 0 {
            continue;
        }
        plain.push(mib_per_s(plainly));
        if let Some(bytes) = came {
            assert_eq!(bytes, BYTES, "the whole answer");
            ours.push(mib_per_s(start.elapsed()));
        }
    }
    let plain = median(&mut plain);
    let ours = if ours.is_empty() { None } else { Some(median(&mut ours)) };
    table.line(
        "a streamed answer of 64 MiB of the other host",
        ours.map_or_else(|| "there is none yet".to_owned(), |ours| format!("{ours:.0} MiB/s")),
        format!("a plain TLS 1.3 socket between two threads: {plain:.0} MiB/s"),
        ours.map_or_else(String::new, |ours| format!("{:.2} ×", ours / plain)),
        "0.5 × (aim 0.8 ×)",
    );
    if ours.is_some() {
        others(table, world).await;
    }
}

/// One caller, alone and beside streamed answers that follow each other.
async fn others(table: &mut Table, world: &Arc<World>) {
    let call = calls::echo(world, calls::MANY);
    let alone = calls::p99(calls::times(SPAN, call.clone()).await);
    let streams = Arc::clone(world);
    let streams = actix_rt::spawn(async move { while streamed(&streams).await.is_some() {} });
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
