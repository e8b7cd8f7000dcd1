//! Into the inbox: batches of other cells. What is asked of journals goes on to `replication`, of data to `data`.

use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use protocol::identity::LearnRequest;
use protocol::message::Message;
use protocol::messages::{CountersignRequest, ReceiveRequest};
use protocol::receipt::{ReceiptHead, batch_root};
use protocol::signing::{self, Signature, Signed};
use protocol::{CellId, MessageId, Problem, ProblemKind, codec};

use super::traces;
use super::wire::{BATCH_MAX, Batch, BatchAnswer, Hello, VERSION};
use crate::actor::now_ms;
use crate::bus::CallContext;
use crate::data;
use crate::gossip;
use crate::network::{Counters, Inbound, Lane};
use crate::node::World;
use crate::replication;

/// Takes what other cells send.
pub struct Gate {
    /// Weak: the network holds the gate, and the world the network.
    world: Weak<World>,
}

impl Gate {
    /// The gate of a cell.
    pub fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::downgrade(world) }
    }
}

impl Inbound for Gate {
    fn request(&self, lane: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let world = self.world.clone();
        Box::pin(async move {
            match (lane, world.upgrade()) {
                (Lane::Cells, Some(world)) => codec::encode(&take(&world, from, &bytes).await),
                (Lane::Cells, None) => codec::encode(&BatchAnswer::Refused { problem: stopping() }),
                (Lane::Journals, Some(world)) => {
                    codec::encode(&replication::serve(&world, from, &bytes).await)
                }
                (Lane::Events, Some(world)) => gossip::serve_blocks(&world, &bytes).await,
                (Lane::Data, Some(world)) => data::serve(&world, from, &bytes).await,
                // Hosts have a network of their own.
                (Lane::Events | Lane::Data, None) | (Lane::Hosts, _) => Vec::new(),
                (Lane::Journals, None) => codec::encode(&replication::Reply::Refused { problem: stopping() }),
            }
        })
    }

    fn push(&self, lane: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        let world = self.world.clone();
        Box::pin(async move {
            let Some((world, gossip)) =
                world.upgrade().and_then(|world| world.gossip().map(|gossip| (world, gossip)))
            else {
                return;
            };
            if lane != Lane::Events {
                return Counters::count(&world.network().counters().refused_malformed);
            }
            if let Err(problem) = gossip.push(from, bytes).await {
                Counters::count(&world.network().counters().refused_events);
                tracing::debug!(%from, %problem, "events were refused");
            }
        })
    }

    fn hello(&self, from: CellId, payload: Vec<u8>, addresses: Vec<String>) {
        let Some(world) = self.world.upgrade() else { return };
        let Ok(hello) = codec::decode::<Hello>(&payload) else {
            tracing::debug!(%from, "a hello that cannot be read");
            return;
        };
        if hello.version != VERSION {
            tracing::info!(%from, version = hello.version, "a peer of another version");
        }
        world.edge.clone().spawn(async move {
            let request = LearnRequest { cell: from, genesis: hello.genesis, addresses };
            if let Err(problem) = world.bus.internal().identity().learn(request).await {
                tracing::debug!(%from, %problem, "what the hello said was not learnt");
            }
        });
    }
}

/// Takes a batch: what is acknowledged is durable here.
pub(super) async fn take(world: &Arc<World>, from: CellId, bytes: &[u8]) -> BatchAnswer {
    match try_take(world, from, bytes).await {
        Ok((receipt, outcomes)) => BatchAnswer::Taken { receipt, outcomes },
        Err(problem) => BatchAnswer::Refused { problem },
    }
}

type Taken = (Option<ReceiptHead>, Vec<Option<Problem>>);

async fn try_take(world: &Arc<World>, from: CellId, bytes: &[u8]) -> Result<Taken, Problem> {
    let counters = world.network().counters();
    let Batch { messages, traces: told } =
        codec::decode(bytes).inspect_err(|_| Counters::count(&counters.refused_malformed))?;
    if messages.len() > BATCH_MAX {
        return Err(Problem::new(
            ProblemKind::TooLarge,
            "delivery.batch_too_large",
            "a batch has at most 1000 messages",
        ));
    }
    let texts: Vec<Vec<u8>> = messages.iter().map(Message::signed_text).collect();
    let ids: Vec<MessageId> = texts.iter().map(|text| Message::id_of(text)).collect();
    let forged = forged(&messages, texts);
    let replied: Vec<MessageId> = messages.iter().filter_map(|message| message.in_reply_to).collect();
    let messages: Vec<(MessageId, Message)> = ids
        .iter()
        .copied()
        .zip(messages)
        .zip(&forged)
        .filter_map(|(message, forged)| (!forged).then_some(message))
        .collect();
    let told = traces::told(told, &ids);
    let genuine: Vec<MessageId> = messages.iter().map(|(id, _)| *id).collect();
    let admission = world.admission(&from).await?;
    // Signed beforehand, so that it is journaled together with the messages: one sync instead of two.
    let head = (!genuine.is_empty()).then(|| sign_receipt(world, from, &genuine));
    let arrivals = traces::arrive(world.bus.tracer(), &messages, &told, &admission, from == world.cell);
    let context = CallContext::internal().traced(arrivals.context());
    let request = ReceiveRequest { from, admission, messages, receipt: head.clone() };
    let received = world.bus.with(context).message().receive(request).await?;
    let head = head.filter(|_| received.receipted);
    let mut received = received.outcomes.into_iter();
    let outcomes: Vec<Option<Problem>> = forged
        .iter()
        .map(|forged| if *forged { Some(bad_signature()) } else { received.next().flatten() })
        .collect();
    arrivals.finish(&ids, &outcomes);
    for (forged, outcome) in forged.iter().zip(&outcomes) {
        match outcome {
            Some(_) if *forged => Counters::count(&counters.refused_forged),
            Some(_) => Counters::count(&counters.refused_messages),
            None => {}
        }
    }
    let taken: Vec<MessageId> =
        ids.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none()).map(|(id, _)| *id).collect();
    world.waiters.wake(&replied);
    if taken.is_empty() {
        return Ok((None, outcomes));
    }
    let head = match head {
        Some(head) => head,
        None => {
            // Some were refused: a receipt for the others. Journaled before it goes out, so that what
            // the sender can show, this cell knows.
            let head = sign_receipt(world, from, &taken);
            let request = CountersignRequest { head: head.clone(), ids: taken.clone() };
            world.bus.internal().message().countersign(request).await?;
            head
        }
    };
    if from != world.cell {
        world.shared_with(&from, &taken);
    }
    Ok((Some(head), outcomes))
}

/// Which messages are not signed by their senders.
fn forged(messages: &[Message], texts: Vec<Vec<u8>>) -> Vec<bool> {
    let covered: Vec<Option<Vec<u8>>> =
        messages.iter().zip(texts).map(|(message, text)| message.covered_text(text)).collect();
    let well_formed: Vec<bool> = covered.iter().map(Option::is_some).collect();
    let signed: Vec<Signed> = messages
        .iter()
        .zip(covered)
        .filter_map(|(message, covered)| {
            covered.map(|bytes| Signed { signer: message.sender, bytes, signature: message.signature })
        })
        .collect();
    let mut hold = signing::verify_all(&signed).into_iter();
    well_formed.into_iter().map(|well_formed| !(well_formed && hold.next() == Some(true))).collect()
}

fn sign_receipt(world: &World, sender: CellId, ids: &[MessageId]) -> ReceiptHead {
    let mut head = ReceiptHead {
        receiver: world.cell,
        sender,
        time_ms: now_ms(),
        count: ids.len() as u64,
        root: batch_root(ids),
        signature: Signature::from_bytes([0; 64]),
    };
    head.signature = world.keyring.sign(&head.signed_text());
    head
}

fn bad_signature() -> Problem {
    Problem::new(ProblemKind::Invalid, "message.bad_signature", "the signature is not the sender's")
        .hint("sign the message with the key of its sender")
}

fn stopping() -> Problem {
    Problem::new(ProblemKind::Busy, "delivery.stopping", "the cell is stopping")
        .hint("it is tried again by itself")
}
