//! Calls of the other host, one at a time and many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cell::bus::Bus;
use futures_util::future::BoxFuture;
use protocol::state::GetRequest;

use crate::limits::median;

/// Bytes of what is asked, and of what is answered.
pub(super) const BODY_BYTES: usize = 512;
/// More different questions than the bus of the other host remembers answers: nearly all go to its service.
pub(super) const MANY: u64 = 8_192;

/// A caller of State with so many different questions, in turns. The key that is asked for comes back, so that as many bytes go as come, and
/// there is nothing under it.
pub(super) fn echo(
    bus: &Bus,
    questions: u64,
) -> impl Fn() -> BoxFuture<'static, ()> + AsyncFn() + Clone + Send + Sync + use<> {
    let key = |number| format!("kv/{number:0>width$}", width = BODY_BYTES - "kv/".len());
    let keys: Arc<[String]> = (0..questions).map(key).collect();
    let (caller, next) = (bus.internal(), Arc::new(AtomicUsize::new(0)));
    move || {
        let key = keys[next.fetch_add(1, Ordering::Relaxed) % keys.len()].clone();
        let caller = caller.clone();
        Box::pin(async move {
            let answer = caller.state().get(GetRequest { key, at: None }).await.expect("answered");
            assert_eq!(answer.key.len(), BODY_BYTES, "another answer");
        })
    }
}

/// How long each call of one caller took.
pub(super) async fn times(span: Duration, call: impl Fn() -> BoxFuture<'static, ()>) -> Vec<Duration> {
    let (mut times, start) = (Vec::new(), Instant::now());
    while start.elapsed() < span {
        let asked = Instant::now();
        call().await;
        times.push(asked.elapsed());
    }
    times
}

/// The median of them.
pub(super) async fn p50(span: Duration, call: impl Fn() -> BoxFuture<'static, ()>) -> Duration {
    median(&mut times(span, call).await)
}

/// What 99 of 100 were below.
pub(super) fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
