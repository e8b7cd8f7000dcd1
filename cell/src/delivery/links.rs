//! Out of the outbox: one task for each receiver that something waits for.
//!
//! A message that has just become durable comes to its link by itself and stays in memory until it is
//! under way. Whatever is not in memory (it is large, too much waits, a delivery has failed, the cell has
//! started anew) is in the outbox, and the link knows that it is *behind*: then it fetches from there.
//! So memory is bounded, and nothing that is lost here is lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use protocol::message::Message;
use protocol::messages::{RecordReceiptRequest, RecordRefusalRequest, WaitingMessage, WaitingRequest};
use protocol::shared::Empty;
use protocol::{CellId, MessageId, Problem, ProblemKind, codec};
use tokio::sync::Notify;

use super::wire::{BATCH_MAX, Batch, BatchAnswer};
use super::{gate, traces};
use crate::actor::now_ms;
use crate::network::Lane;
use crate::node::World;

/// The first pause after a failure; doubles up to the setting.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long an idle link's task stays about.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of bodies that wait in memory for one receiver; the rest waits in the outbox.
const FRESH_BYTES_MAX: usize = 1024 * 1024;
/// Messages that wait in memory for one receiver.
const FRESH_MAX: usize = 4 * BATCH_MAX;

/// The links that are alive.
#[derive(Default)]
pub struct Links {
    alive: Mutex<HashMap<CellId, Arc<Link>>>,
}

/// One receiver's link.
#[derive(Default)]
struct Link {
    load: Mutex<Load>,
    wake: Notify,
}

/// A message and its id.
type Fresh = (MessageId, Message);

/// What a link has to carry.
#[derive(Default)]
struct Load {
    /// Durable, and not under way yet; in order.
    fresh: VecDeque<Fresh>,
    fresh_bytes: usize,
    /// Whether the outbox may hold what is neither here nor under way.
    behind: bool,
}

impl Load {
    fn fall_behind(&mut self) {
        *self = Self { behind: true, ..Self::default() };
    }

    fn put(&mut self, fresh: Option<Fresh>) {
        match fresh {
            // What is behind comes out of the outbox, this one included.
            Some(_) if self.behind => {}
            Some(fresh)
                if self.fresh.len() < FRESH_MAX
                    && self.fresh_bytes + fresh.1.body.len() <= FRESH_BYTES_MAX =>
            {
                self.fresh_bytes += fresh.1.body.len();
                self.fresh.push_back(fresh);
            }
            _ => self.fall_behind(),
        }
    }

    fn take(&mut self, limit: usize) -> Vec<Fresh> {
        let taken: Vec<Fresh> = self.fresh.drain(..limit.min(self.fresh.len())).collect();
        self.fresh_bytes -= taken.iter().map(|(_, message)| message.body.len()).sum::<usize>();
        taken
    }
}

impl Link {
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something waits for a receiver: its link is woken, or started. Without the message itself the link
/// looks into the outbox.
pub fn deliver(world: &Arc<World>, receiver: CellId, message: Option<(MessageId, Message)>) {
    let mut alive = world.links.alive.lock().unwrap_or_else(PoisonError::into_inner);
    let link = match alive.get(&receiver) {
        Some(link) => Arc::clone(link),
        None => {
            let link = Arc::new(Link::default());
            alive.insert(receiver, Arc::clone(&link));
            world.edge.spawn(run(Arc::clone(world), receiver, Arc::clone(&link)));
            link
        }
    };
    // Under the lock, so that a link that is about to end sees it.
    link.load().put(message);
    drop(alive);
    link.wake.notify_one();
}

/// Wakes the links of all receivers that something waits for.
pub async fn deliver_all(world: &Arc<World>) {
    if let Ok(receivers) = world.bus.internal().message().receivers(Empty {}).await {
        receivers.items.into_iter().for_each(|receiver| deliver(world, receiver, None));
    }
}

async fn run(world: Arc<World>, receiver: CellId, link: Arc<Link>) {
    let mut changes = world.network().changes();
    let mut pause = RETRY_PAUSE;
    loop {
        if tokio::time::timeout(IDLE, link.wake.notified()).await.is_err() {
            let mut alive = world.links.alive.lock().unwrap_or_else(PoisonError::into_inner);
            let load = link.load();
            if load.fresh.is_empty() && !load.behind {
                alive.remove(&receiver);
                return;
            }
        }
        match carry(&world, receiver, &link).await {
            Ok(()) => pause = RETRY_PAUSE,
            Err(problem) => {
                tracing::debug!(%receiver, %problem, "delivery failed; it is tried again");
                link.load().fall_behind();
                link.wake.notify_one();
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

/// Carries over all that waits, several batches at once.
async fn carry(world: &Arc<World>, receiver: CellId, link: &Link) -> Result<(), Problem> {
    let in_flight_max = world.settings.message.batches_in_flight_max as usize;
    let mut outbox = Outbox { world, receiver, link, after: None, last: 0 };
    let mut under_way = FuturesUnordered::new();
    let mut failed = None;
    loop {
        while failed.is_none() && under_way.len() < in_flight_max {
            let messages = outbox.next(under_way.is_empty()).await?;
            if messages.is_empty() {
                break;
            }
            under_way.push(batch(world, receiver, messages));
        }
        let room = failed.is_none() && under_way.len() < in_flight_max;
        tokio::select! {
            done = under_way.next() => match done {
                Some(Ok(())) => {}
                Some(Err(problem)) => failed = Some(problem),
                None => return failed.map_or(Ok(()), Err),
            },
            () = link.wake.notified(), if room && !under_way.is_empty() => {}
        }
    }
}

/// What waits for one receiver, batch by batch.
struct Outbox<'a> {
    world: &'a Arc<World>,
    receiver: CellId,
    link: &'a Link,
    /// While it catches up: the journal index to go on after, or the beginning.
    after: Option<Option<u64>>,
    /// How many messages the last batch had.
    last: usize,
}

impl Outbox<'_> {
    /// The next batch; empty if nothing waits. While others are under way it may also be empty because
    /// the outbox does not know what is under way, or because a larger batch is worth a short wait.
    async fn next(&mut self, alone: bool) -> Result<Vec<Fresh>, Problem> {
        let limit = self.world.settings.message.batch_max.min(BATCH_MAX as u32);
        if self.after.is_none() && self.link.load().behind {
            if !alone {
                return Ok(Vec::new());
            }
            self.after = Some(None);
        }
        while let Some(after) = self.after {
            // What becomes durable from here on may come twice; the receiver knows it by its id.
            self.link.load().behind = false;
            let request = WaitingRequest { receiver: self.receiver, after, limit };
            let page = self.world.bus.internal().message().waiting(request).await?;
            self.after = page.next.and_then(|index| index.parse().ok()).map(Some);
            if !page.items.is_empty() {
                let with_id = |waiting: WaitingMessage| (waiting.message.id(), waiting.message);
                return Ok(page.items.into_iter().map(with_id).collect());
            }
        }
        if !alone && self.link.load().fresh.len() < self.last {
            return Ok(Vec::new());
        }
        let (now_ms, mut messages) = (now_ms(), self.link.load().take(limit as usize));
        self.last = messages.len();
        // The sweep will expire it; a receiver would refuse it.
        messages.retain(|(_, message)| message.expires_ms > now_ms);
        Ok(messages)
    }
}

async fn batch(world: &Arc<World>, receiver: CellId, messages: Vec<Fresh>) -> Result<(), Problem> {
    let (deliveries, traces) = traces::leave(world.bus.tracer(), &messages);
    let (ids, messages): (Vec<MessageId>, Vec<Message>) = messages.into_iter().unzip();
    let bytes = codec::encode(&Batch { messages, traces });
    let answer = carry_over(world, receiver, bytes).await;
    deliveries.finish(&answer);
    match answer? {
        BatchAnswer::Refused { problem } => Err(problem),
        BatchAnswer::Taken { receipt, outcomes } => record(world, receiver, &ids, receipt, outcomes).await,
    }
}

async fn carry_over(world: &Arc<World>, receiver: CellId, bytes: Vec<u8>) -> Result<BatchAnswer, Problem> {
    // A message to oneself goes the same way, without the network.
    if receiver == world.cell {
        return Ok(gate::take(world, receiver, &bytes).await);
    }
    codec::decode(&world.network().request(Lane::Cells, receiver, bytes).await?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::message::MessageType;
    use protocol::signing::Signature;

    fn fresh(number: u64, body_bytes: usize) -> Fresh {
        let cell = CellId::from_bytes([1; 32]);
        let message = Message {
            timestamp_ms: number,
            expires_ms: number + 1,
            sender: cell,
            receiver: cell,
            kind: MessageType::Chat,
            sealed: false,
            in_reply_to: None,
            body: vec![b'x'; body_bytes],
            proof: Vec::new(),
            signature: Signature::from_bytes([0; 64]),
            nonce: number,
            together: None,
        };
        (message.id(), message)
    }

    fn numbers(taken: &[Fresh]) -> Vec<u64> {
        taken.iter().map(|(_, message)| message.nonce).collect()
    }

    #[test]
    fn what_is_fresh_leaves_in_order_and_its_bytes_with_it() {
        let mut load = Load::default();
        (0..5).for_each(|number| load.put(Some(fresh(number, 100))));
        assert_eq!(numbers(&load.take(3)), [0, 1, 2]);
        assert_eq!(load.fresh_bytes, 200);
        assert_eq!(numbers(&load.take(3)), [3, 4]);
        assert_eq!((load.fresh_bytes, load.behind), (0, false));
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_outbox_as_a_whole() {
        let many =
            |load: &mut Load| (0..=FRESH_MAX as u64).for_each(|number| load.put(Some(fresh(number, 1))));
        let large =
            |load: &mut Load| (0..3).for_each(|number| load.put(Some(fresh(number, FRESH_BYTES_MAX / 2))));
        let unseen = |load: &mut Load| {
            load.put(Some(fresh(0, 1)));
            load.put(None);
        };
        for fill in [many as fn(&mut Load), large, unseen] {
            let mut load = Load::default();
            fill(&mut load);
            assert!(load.behind && load.fresh.is_empty() && load.fresh_bytes == 0);
            load.put(Some(fresh(7, 1)));
            assert!(load.take(10).is_empty(), "behind, the outbox has that as well");
            load.behind = false;
            load.put(Some(fresh(8, 1)));
            assert_eq!(numbers(&load.take(10)), [8]);
        }
    }
}
