//! Message fronts: sealing and signing before a message is enqueued, opening before one is shown.

use std::sync::Arc;

use machine::module::Module;
use protocol::identity::Contact;
use protocol::message::{BODY_BYTES_MAX, LIFETIME_MS_MAX, Message, MessageType, PostBody, TxBody};
use protocol::messages::{
    Direction, EnqueueRequest, Get, MessageRef, MessageView, Send, SendAnswer, SendRequest, SharedRequest,
    Status, Wait,
};
use protocol::signing::Signature;
use protocol::transaction::{Intent, Transaction};
use protocol::{CellId, GenesisHash, MessageId, Problem, ProblemKind};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{front, not_draining};
use crate::actor::now_ms;
use crate::bus::{CallContext, TraceParent};
use crate::delivery::Waiter;
use crate::node::World;

/// How long a send waits unless told.
const WAIT_MS: u64 = 10_000;

pub(super) fn install(world: &Arc<World>) {
    front::<Send, _, _>(
        world,
        |world, context, request| async move { send(&world, &context, request).await },
    );
    front::<Get, _, _>(world, |world, context, request| async move { get(&world, &context, request).await });
}

/// A message before it is signed.
pub(crate) struct Outgoing {
    pub(crate) to: CellId,
    pub(crate) kind: MessageType,
    pub(crate) body: Value,
    pub(crate) seal: bool,
    pub(crate) in_reply_to: Option<MessageId>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) request_id: Option<String>,
    /// In which trace it is sent, if in one.
    pub(crate) trace: Option<TraceParent>,
}

async fn send(
    world: &Arc<World>,
    context: &CallContext,
    request: SendRequest,
) -> Result<SendAnswer, Problem> {
    not_draining(world)?;
    let to = world.resolve(&request.to).await?;
    let contact = known(world, context, &to).await?;
    let body = match request.kind {
        MessageType::Tx if request.in_reply_to.is_none() => {
            sign_intent(world, context, &to, contact.as_deref(), request.body).await?
        }
        MessageType::Post if request.body["register"] == true => {
            register(world, context, &to, contact.as_deref(), request.body).await?
        }
        _ => request.body,
    };
    let outgoing = Outgoing {
        to,
        kind: request.kind,
        body,
        seal: request.seal,
        in_reply_to: request.in_reply_to,
        ttl_ms: request.ttl_ms,
        request_id: request.request_id,
        trace: context.trace,
    };
    let deadline = context.wait_until(request.wait_ms.unwrap_or(WAIT_MS)).into();
    if request.wait == Wait::Queued {
        return post(world, outgoing).await;
    }
    let (id, message) = sign(world, &outgoing).await?;
    let waiter = world.waiters.register(id);
    let answer = enqueue(world, id, message, outgoing.request_id, outgoing.trace).await?;
    if answer.id == id && answer.status == Status::Queued {
        // Whatever comes rings the bell: there is nothing to look up before it does.
        return match tokio::time::timeout_at(deadline, waiter.news()).await {
            Ok(()) => await_news(world, context, answer, request.wait, &waiter, deadline).await,
            Err(_) => Ok(answer),
        };
    }
    // The request id stands for an earlier message.
    let waiter = world.waiters.register(answer.id);
    await_news(world, context, answer, request.wait, &waiter, deadline).await
}

/// A receiver has to be a contact, this cell itself, or a cell that has introduced itself.
async fn known(
    world: &Arc<World>,
    context: &CallContext,
    to: &CellId,
) -> Result<Option<Arc<Contact>>, Problem> {
    if *to == world.cell {
        return Ok(None);
    }
    match world.contact(to).await {
        Ok(contact) => Ok(Some(contact)),
        Err(problem) if problem.kind == ProblemKind::NotFound => {
            let shared =
                world.bus.with(context.inner()).message().shared(SharedRequest { with: *to }).await?;
            if shared.count > 0 {
                return Ok(None);
            }
            Err(Problem::new(
                ProblemKind::NotFound,
                "message.unknown_receiver",
                format!("{to} is not known to this cell"),
            )
            .hint("make it a contact: cell peers add MULTIADDR"))
        }
        Err(problem) => Err(problem),
    }
}

/// Signs what a TX asks for, for the receiver's network.
async fn sign_intent(
    world: &Arc<World>,
    context: &CallContext,
    to: &CellId,
    contact: Option<&Contact>,
    body: Value,
) -> Result<Value, Problem> {
    let bad = |why: String| {
        Problem::new(ProblemKind::Invalid, "message.bad_body", format!("not a body of a TX message: {why}"))
            .hint(r#"one looks like {"module":"kv","call":"put","args":{"key":"colour","value":"blue"}}"#)
    };
    if body.get("transaction").is_some() {
        return Ok(body);
    }
    let intent: Intent = serde_json::from_value(body).map_err(|error| bad(error.to_string()))?;
    let transaction = sign_for(world, context, genesis_of(world, to, contact)?, &intent).await?;
    serde_json::to_value(TxBody::Signed { transaction }).map_err(|error| bad(error.to_string()))
}

/// Keeps what is to be posted, and signs what registers it on the receiver's network as a data set of this cell's.
async fn register(
    world: &Arc<World>,
    context: &CallContext,
    to: &CellId,
    contact: Option<&Contact>,
    body: Value,
) -> Result<Value, Problem> {
    let bad = |error: serde_json::Error| {
        let cause = format!("not a body of a POST message: {error}");
        Problem::new(ProblemKind::Invalid, "message.bad_body", cause)
            .hint(r#"one looks like {"content":{"title":"first"},"tags":["news"],"register":true}"#)
    };
    let mut post: PostBody = serde_json::from_value(body).map_err(bad)?;
    let data = post.data();
    let args = json!({ "hash": protocol::Hash::of(&data), "size": data.len(), "tags": post.tags });
    Module::check(&state::dataset::Dataset, "register", &args)?;
    let intent =
        Intent { module: "dataset".to_owned(), call: "register".to_owned(), args, ..Intent::default() };
    let genesis = genesis_of(world, to, contact)?;
    let store = world.data.clone();
    crate::node::blocking(move || store.add(data.as_slice())).await??;
    post.register = false;
    post.registration = Some(sign_for(world, context, genesis, &intent).await?);
    serde_json::to_value(post).map_err(bad)
}

/// The receiver's network.
fn genesis_of(world: &World, to: &CellId, contact: Option<&Contact>) -> Result<GenesisHash, Problem> {
    let known = if *to == world.cell {
        Some(world.genesis.hash())
    } else {
        contact.and_then(|contact| contact.genesis)
    };
    known.ok_or_else(|| {
        let cause = format!("the network of {to} is not known yet: it is learnt when the two connect");
        Problem::new(ProblemKind::Unavailable, "message.genesis_unknown", cause)
            .hint("send it again once cell peers shows the connection")
    })
}

/// On this cell's own network the next nonce is known; on another's the time serves: nonces only have
/// to rise.
async fn sign_for(
    world: &Arc<World>,
    context: &CallContext,
    genesis: GenesisHash,
    intent: &Intent,
) -> Result<Transaction, Problem> {
    if genesis == world.genesis.hash() {
        return super::consensus::sign(world, context, intent).await;
    }
    let nonce = world.rising_nonce(now_ms());
    Ok(Transaction::sign(world.keyring.signing_key(), genesis, intent, nonce))
}

/// Signs a message and puts it into the outbox; answers when it is durable.
pub(crate) async fn post(world: &Arc<World>, outgoing: Outgoing) -> Result<SendAnswer, Problem> {
    let (id, message) = sign(world, &outgoing).await?;
    enqueue(world, id, message, outgoing.request_id, outgoing.trace).await
}

async fn enqueue(
    world: &Arc<World>,
    id: MessageId,
    message: Message,
    request_id: Option<String>,
    trace: Option<TraceParent>,
) -> Result<SendAnswer, Problem> {
    // Before it is durable: its delivery begins with that.
    world.bus.tracer().sent.remember(id, trace);
    let context = CallContext::internal().traced(trace);
    let request = EnqueueRequest { id, message, request_id };
    let answer = world.bus.with(context).message().enqueue(request).await;
    if !answer.as_ref().is_ok_and(|answer| answer.id == id) {
        world.bus.tracer().sent.forget(&id);
    }
    answer
}

async fn sign(world: &Arc<World>, outgoing: &Outgoing) -> Result<(MessageId, Message), Problem> {
    let timestamp_ms = now_ms();
    let ttl_ms = outgoing.ttl_ms.unwrap_or(world.settings.message.ttl_ms).min(LIFETIME_MS_MAX);
    let plain = outgoing.body.to_string().into_bytes();
    if plain.len() > BODY_BYTES_MAX {
        return Err(message::Refusal::BodyTooLarge { bytes: plain.len(), bytes_max: BODY_BYTES_MAX }.into());
    }
    message::body::parse(outgoing.kind, outgoing.in_reply_to.is_some(), &plain)?;
    let body = if outgoing.seal {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy)
            .map_err(|error| Problem::new(ProblemKind::Fault, "keys.no_entropy", error.to_string()))?;
        let aad = identity::seal::message_aad(&world.cell, &outgoing.to, outgoing.kind);
        identity::seal::seal(&outgoing.to, &aad, &plain, entropy)?
    } else {
        plain
    };
    let mut message = Message {
        timestamp_ms,
        expires_ms: timestamp_ms + ttl_ms,
        sender: world.cell,
        receiver: outgoing.to,
        kind: outgoing.kind,
        sealed: outgoing.seal,
        in_reply_to: outgoing.in_reply_to,
        body,
        proof: if outgoing.to == world.cell { Vec::new() } else { world.proof_for(&outgoing.to).await? },
        signature: Signature::from_bytes([0; 64]),
        nonce: world.next_message_nonce(),
        together: None,
    };
    let text = message.signed_text();
    let id = Message::id_of(&text);
    (message.signature, message.together) = world.signer.sign(&world.keyring, outgoing.to, id, &text).await;
    Ok((id, message))
}

/// Waits for the receipt, or the reply.
async fn await_news(
    world: &Arc<World>,
    context: &CallContext,
    mut answer: SendAnswer,
    wait: Wait,
    waiter: &Waiter,
    deadline: Instant,
) -> Result<SendAnswer, Problem> {
    loop {
        // The common case needs no second look.
        if wait == Wait::Delivered && waiter.delivered() {
            answer.status = Status::Delivered;
            return Ok(answer);
        }
        let view = world.bus.with(context.inner()).message().lookup(MessageRef { id: answer.id }).await?;
        // A message to oneself is shown as it was received.
        let status = if view.direction == Direction::In { Status::Delivered } else { view.status };
        answer.status = status;
        answer.problem = view.problem;
        let replied = view.replies.first().copied();
        match (wait, status) {
            (_, Status::Refused | Status::Expired | Status::Cancelled) | (Wait::Queued, _) => {
                return Ok(answer);
            }
            (Wait::Delivered, Status::Queued) => {}
            (Wait::Delivered, _) => return Ok(answer),
            (Wait::Answered, _) => {
                if let Some(id) = replied {
                    answer.reply = get(world, context, MessageRef { id }).await?.body;
                    return Ok(answer);
                }
            }
        }
        if tokio::time::timeout_at(deadline, waiter.news()).await.is_err() {
            return Ok(answer);
        }
    }
}

async fn get(world: &Arc<World>, context: &CallContext, request: MessageRef) -> Result<MessageView, Problem> {
    let mut view = *world.bus.with(context.inner()).message().lookup(request).await?;
    if let Some(sealed) = &view.sealed
        && view.receiver == world.cell
        && let Ok(sealed) = hex::decode(sealed)
    {
        let aad = identity::seal::message_aad(&view.sender, &view.receiver, view.kind);
        let plain = identity::seal::open(world.keyring.signing_key(), &aad, &sealed)?;
        view.body = serde_json::from_slice(&plain).ok();
    }
    Ok(view)
}
