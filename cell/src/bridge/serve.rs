//! Answers the calls of another host.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::AsyncReadExt;
use protocol::{HostId, Problem, ProblemKind};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::Bridge;
use super::frames::{self, BODY_BYTES_MAX, Down, Outgoing, Reader, Up};
use crate::bus::{Bus, CallContext, TraceParent};
use crate::network::ByteStream;

/// Calls of one stream under way; more are refused as busy.
const CALLS_MAX: usize = 4_096;
/// The longest that a caller may wait.
const PATIENCE_MAX: Duration = Duration::from_secs(120);

type UnderWay = Arc<Mutex<HashMap<u64, AbortHandle>>>;

/// Serves a stream until it ends.
pub(super) async fn run(bridge: Arc<Bridge>, from: HostId, stream: ByteStream) {
    let Ok(host) = bridge.host() else { return };
    let (bus, incarnation) = (host.bus.clone(), bridge.incarnation);
    drop((host, bridge));
    let under_way = UnderWay::default();
    let ended = answer(&bus, incarnation, stream, &under_way).await;
    tracing::debug!(%from, ?ended, "a stream of another host has ended");
    // Nobody hears their answers.
    for (_, call) in under_way.lock().unwrap_or_else(PoisonError::into_inner).drain() {
        call.abort();
    }
}

async fn answer(bus: &Bus, incarnation: u64, stream: ByteStream, under_way: &UnderWay) -> io::Result<()> {
    let (reader, writer) = stream.split();
    let (outbox, inbox) = frames::outbox();
    let welcome = Outgoing::one(&Up::Welcome { incarnation });
    outbox.send(welcome).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    let read = read(bus, Reader::new(reader), outbox, under_way);
    tokio::try_join!(read, frames::write(writer, inbox)).map(|_| ())
}

async fn read(
    bus: &Bus,
    mut reader: Reader,
    outbox: mpsc::Sender<Outgoing>,
    under_way: &UnderWay,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CALLS_MAX));
    while let Some(down) = reader.next::<Down>().await? {
        match down {
            Down::Piece { number, bytes } => reader.piece(number, &bytes)?,
            Down::Cancel { number } => {
                reader.drop_pieces(number);
                let call = under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                call.iter().for_each(AbortHandle::abort);
            }
            Down::Call { number, action, asker, patience_us, cause, trace, body } => {
                let body = reader.body(number, body);
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    let refused = Outgoing::one(&Up::Refused { number, problem: busy() });
                    outbox.send(refused).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                    continue;
                };
                let patience = Duration::from_micros(patience_us).min(PATIENCE_MAX);
                let context = CallContext {
                    cause,
                    trace: trace.as_deref().and_then(TraceParent::parse),
                    deadline: Some(Instant::now() + patience),
                    ..CallContext::of(asker.into()).within(patience)
                };
                let (bus, outbox, mine) = (bus.clone(), outbox.clone(), Arc::clone(under_way));
                // Held until the call is entered, so that it is not taken out before.
                let mut entries = under_way.lock().unwrap_or_else(PoisonError::into_inner);
                let call = tokio::spawn(async move {
                    let outgoing = match bus.call_wire(context, &action, body).await {
                        Ok(body) if body.len() > BODY_BYTES_MAX => {
                            Outgoing::one(&Up::Refused { number, problem: too_large(&action, body.len()) })
                        }
                        Ok(body) => Outgoing::with_body(
                            body,
                            |bytes| Up::Piece { number, bytes },
                            |body| Up::Answer { number, body },
                        ),
                        Err(problem) => Outgoing::one(&Up::Refused { number, problem }),
                    };
                    mine.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                    let _ = outbox.send(outgoing).await;
                    drop(place);
                });
                entries.insert(number, call.abort_handle());
            }
        }
    }
    Ok(())
}

fn too_large(action: &str, bytes: usize) -> Problem {
    let cause = format!("the answer to {action} has {bytes} bytes, {BODY_BYTES_MAX} cross at most");
    Problem::new(ProblemKind::TooLarge, "bus.too_large", cause).hint("ask for less of it, or a smaller page")
}

fn busy() -> Problem {
    Problem::new(ProblemKind::Busy, "bus.busy", "the host has too much to do").hint("ask again in a moment")
}
