//! Out of the outbox: one task for each receiver that something waits for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use protocol::messages::{RecordReceiptRequest, RecordRefusalRequest, WaitingMessage, WaitingRequest};
use protocol::shared::Empty;
use protocol::{CellId, MessageId, Problem, ProblemKind, codec};
use tokio::sync::Notify;

use super::gate;
use super::wire::{BATCH_MAX, Batch, BatchAnswer};
use crate::node::World;

/// The first pause after a failure; doubles up to the setting.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long an idle link's task stays about.
const IDLE: Duration = Duration::from_secs(30);

/// The links that are alive.
#[derive(Default)]
pub struct Links {
    alive: Mutex<HashMap<CellId, Arc<Notify>>>,
}

/// Something waits for a receiver: its link is woken, or started.
pub fn poke(world: &Arc<World>, receiver: CellId) {
    let mut alive = world.links.alive.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(link) = alive.get(&receiver) {
        link.notify_one();
        return;
    }
    let notify = Arc::new(Notify::new());
    notify.notify_one();
    alive.insert(receiver, Arc::clone(&notify));
    drop(alive);
    world.edge.spawn(run(Arc::clone(world), receiver, notify));
}

/// Wakes the links of all receivers that something waits for.
pub async fn poke_all(world: &Arc<World>) {
    if let Ok(receivers) = world.bus.internal().message().receivers(Empty {}).await {
        receivers.items.into_iter().for_each(|receiver| poke(world, receiver));
    }
}

/// The effect of an enqueued message comes by itself; this only spares it the way around.
pub(crate) fn deliver_now(world: &Arc<World>, receiver: CellId) {
    poke(world, receiver);
}

async fn run(world: Arc<World>, receiver: CellId, notify: Arc<Notify>) {
    let mut changes = world.network().changes();
    let mut pause = RETRY_PAUSE;
    loop {
        if tokio::time::timeout(IDLE, notify.notified()).await.is_err() {
            let mut alive = world.links.alive.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever pokes holds the lock: a wake that came meanwhile has left its mark.
            if Arc::strong_count(&notify) <= 2 && !has_permit(&notify) {
                alive.remove(&receiver);
                return;
            }
            notify.notify_one();
            continue;
        }
        match carry(&world, receiver).await {
            Ok(()) => pause = RETRY_PAUSE,
            Err(problem) => {
                tracing::debug!(%receiver, %problem, "delivery failed; it is tried again");
                notify.notify_one();
                pause = (pause * 2).min(Duration::from_millis(world.settings.message.retry_ms_max));
                changes.mark_unchanged();
                // A peer that comes back is served at once; and after the pause we try anyway.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = changes.changed() => pause = RETRY_PAUSE,
                }
            }
        }
    }
}

fn has_permit(notify: &Notify) -> bool {
    use futures_util::FutureExt;
    notify.notified().now_or_never().is_some()
}

/// Carries over all that waits, several batches at once.
async fn carry(world: &Arc<World>, receiver: CellId) -> Result<(), Problem> {
    let limit = world.settings.message.batch_max.min(BATCH_MAX as u32);
    let in_flight_max = world.settings.message.batches_in_flight_max as usize;
    let mut after = None;
    let mut under_way = FuturesUnordered::new();
    let mut failed = None;
    loop {
        while failed.is_none() && under_way.len() < in_flight_max {
            let request = WaitingRequest { receiver, after, limit };
            let waiting = world.bus.internal().message().waiting(request).await?.items;
            let Some(last) = waiting.last() else { break };
            after = Some(last.index);
            under_way.push(batch(world, receiver, waiting));
        }
        match under_way.next().await {
            Some(Ok(())) => {}
            Some(Err(problem)) => failed = Some(problem),
            None => return failed.map_or(Ok(()), Err),
        }
    }
}

async fn batch(world: &Arc<World>, receiver: CellId, waiting: Vec<WaitingMessage>) -> Result<(), Problem> {
    let messages: Vec<_> = waiting.into_iter().map(|waiting| waiting.message).collect();
    let ids: Vec<MessageId> = messages.iter().map(|message| message.id()).collect();
    let bytes = codec::encode(&Batch { messages });
    // A message to oneself goes the same way, without the network.
    let answer = if receiver == world.cell {
        gate::take(world, receiver, &bytes).await
    } else {
        codec::decode(&world.network().request(receiver, bytes).await?)?
    };
    match answer {
        BatchAnswer::Refused { problem } => Err(problem),
        BatchAnswer::Taken { receipt, outcomes } => record(world, receiver, &ids, receipt, outcomes).await,
    }
}

async fn record(
    world: &Arc<World>,
    receiver: CellId,
    ids: &[MessageId],
    receipt: Option<protocol::receipt::ReceiptHead>,
    outcomes: Vec<Option<Problem>>,
) -> Result<(), Problem> {
    if outcomes.len() != ids.len() {
        return Err(garbled("it has another number of outcomes"));
    }
    let message = world.bus.internal();
    let taken: Vec<MessageId> =
        ids.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none()).map(|(id, _)| *id).collect();
    if !taken.is_empty() {
        let head = receipt.ok_or_else(|| garbled("its receipt is missing"))?;
        if head.receiver != receiver || head.sender != world.cell || !head.signature_holds() {
            return Err(garbled("its receipt does not hold"));
        }
        message.message().record_receipt(RecordReceiptRequest { head, ids: taken.clone() }).await?;
        world.shared_with(&receiver, &taken);
        world.waiters.delivered(&taken);
    }
    let mut busy = None;
    for (id, problem) in ids.iter().zip(outcomes) {
        match problem {
            None => {}
            // A receiver that has no room now may have it later.
            Some(problem) if problem.kind == ProblemKind::Busy => busy = Some(problem),
            Some(problem) => {
                message.message().record_refusal(RecordRefusalRequest { id: *id, problem }).await?;
                world.waiters.wake([id]);
            }
        }
    }
    busy.map_or(Ok(()), Err)
}

fn garbled(why: &str) -> Problem {
    Problem::new(
        ProblemKind::Unreachable,
        "delivery.garbled",
        format!("the receiver's answer does not fit: {why}"),
    )
}
