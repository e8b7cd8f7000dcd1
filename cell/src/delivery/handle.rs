//! Carrying out what an incoming message asks for, and answering it.
//!
//! A message may be handled more than once after a crash: its reply carries a request id made of its
//! id, so that there is one reply, and everything else here is idempotent by the message's id or the
//! transaction's.

use std::sync::Arc;
use std::time::Duration;

use message::body::{self, Body};
use protocol::consensus::{SubmitRequest, TxStatus};
use protocol::identity::{ChallengeRequest, OpenSessionRequest};
use protocol::message::{AuthBody, FindBody, Message, MessageType, PostBody, ReplyBody};
use protocol::messages::SettleRequest;
use protocol::trace::SpanKind;
use protocol::transaction::Transaction;
use protocol::{Access, Caller, Hash, MessageId, Problem, ProblemKind};
use serde_json::{Value, json};

use crate::bus::CallContext;
use crate::fronts::{Outgoing, find_datasets, post};
use crate::node::{World, blocking};

/// How long an EXEC may run here.
const EXEC_MAX: Duration = Duration::from_secs(10);
/// How long a TX is waited for before its state is told.
const TX_WAIT_MS: u64 = 5_000;

/// Carries out a message's request, replies, and settles it.
pub async fn handle(world: &Arc<World>, message: Message) {
    let id = message.id();
    let tracer = world.bus.tracer();
    let mut trace = tracer.received.forget(&id);
    let mut span = tracer.follow(&mut trace, "handle", || SpanKind::Internal);
    if let Some(span) = &mut span {
        span.rename(format!("handle {}", message.kind));
    }
    let context = CallContext::internal().traced(trace);
    let (reply, problem) = match carry_out(world, &context, &message).await {
        Ok(reply) => (reply, None),
        Err(problem) => (Some(Reply::of(&ReplyBody::Error(problem.clone()))), Some(problem)),
    };
    if let Some(reply) = reply {
        let reply =
            if message.kind == MessageType::Auth && problem.is_some() { failed(&problem) } else { reply };
        if let Err(refused) = answer(world, &context, &message, id, reply).await {
            tracing::debug!(%id, problem = %refused, "no reply was sent");
        }
    }
    let code = problem.as_ref().map(|problem| problem.code.clone());
    if let Err(refused) = world.bus.with(context).message().settle(SettleRequest { id, problem }).await {
        tracing::warn!(%id, problem = %refused, "a message was carried out but not settled; it comes again");
    }
    if let Some(span) = span {
        span.finish(code.as_deref());
    }
}

struct Reply {
    body: Value,
    seal: bool,
}

impl Reply {
    fn of<T: serde::Serialize>(body: &T) -> Self {
        Self { body: serde_json::to_value(body).unwrap_or_default(), seal: false }
    }
}

fn failed(problem: &Option<Problem>) -> Reply {
    Reply::of(&AuthBody::Failed { why: problem.as_ref().map(ToString::to_string).unwrap_or_default() })
}

async fn answer(
    world: &Arc<World>,
    context: &CallContext,
    asked: &Message,
    id: MessageId,
    reply: Reply,
) -> Result<(), Problem> {
    let outgoing = Outgoing {
        to: asked.sender,
        kind: asked.kind,
        body: reply.body,
        seal: reply.seal || asked.sealed,
        in_reply_to: Some(id),
        ttl_ms: None,
        // The id in hex is as long as a request id may be.
        request_id: Some(id.to_string()),
        trace: context.trace,
    };
    post(world, outgoing).await.map(|_| ())
}

async fn carry_out(
    world: &Arc<World>,
    context: &CallContext,
    message: &Message,
) -> Result<Option<Reply>, Problem> {
    let bytes = if message.sealed {
        let aad = identity::seal::message_aad(&message.sender, &message.receiver, message.kind);
        identity::seal::open(world.keyring.signing_key(), &aad, &message.body)?
    } else {
        message.body.clone()
    };
    match body::parse(message.kind, message.in_reply_to.is_some(), &bytes)? {
        Body::Chat(_) | Body::Reply(_) => Ok(None),
        Body::Auth(step) => auth(world, context, message, step).await,
        Body::Tx(transaction) => tx(world, context, *transaction).await.map(Some),
        Body::Post(_) if message.sealed => Err(Problem::new(
            ProblemKind::Invalid,
            "message.sealed_post",
            "a post is public: it cannot be sealed",
        )
        .hint("send it without sealing")),
        Body::Post(post) => publish(world, context, message, *post).await.map(Some),
        Body::Find(FindBody { datasets }) => {
            let found = find_datasets(world, datasets).await?;
            Ok(Some(Reply::of(&ReplyBody::Result(serde_json::to_value(found).unwrap_or_default()))))
        }
        Body::Query(query) => {
            let page = world.bus.with(context.clone()).message().posts(query).await?;
            Ok(Some(Reply::of(&ReplyBody::Result(serde_json::to_value(page).unwrap_or_default()))))
        }
        Body::Exec(exec) => {
            let admission = world.admission(&message.sender).await?;
            let own = message.sender == world.cell;
            if !own && !message::may_exec(&admission, &exec.action) {
                let cause = format!("{} may not run {} here", message.sender, exec.action);
                return Err(Problem::new(ProblemKind::Denied, "message.exec_not_allowed", cause)
                    .hint("the receiver's operator can allow it: cell identity access CELL --may EXEC --exec ACTION"));
            }
            let caller = if own {
                Caller::Token { role: Access::Write, name: "self".into() }
            } else {
                Caller::Cell(message.sender)
            };
            let context = CallContext::of(caller).within(EXEC_MAX).traced(context.trace);
            let result = world.bus.call_json(context, &exec.action, exec.args).await?;
            Ok(Some(Reply::of(&ReplyBody::Result(result))))
        }
    }
}

async fn auth(
    world: &Arc<World>,
    context: &CallContext,
    message: &Message,
    step: AuthBody,
) -> Result<Option<Reply>, Problem> {
    let bus = world.bus.with(context.clone());
    let cell = message.sender;
    match (step, message.in_reply_to) {
        (AuthBody::Request {}, None) => {
            let challenge = bus.identity().challenge(ChallengeRequest { cell }).await?;
            Ok(Some(Reply::of(&AuthBody::Challenge { nonce: challenge.nonce.to_string() })))
        }
        // The reply's own signature, which covers the nonce, is the proof that the key is there.
        (AuthBody::Challenge { nonce }, Some(_)) => Ok(Some(Reply::of(&AuthBody::Response { nonce }))),
        (AuthBody::Response { nonce }, Some(_)) => {
            let nonce: Hash = nonce.parse()?;
            let opened = bus.identity().open_session(OpenSessionRequest { cell, nonce }).await?;
            let session = AuthBody::Session { bearer: opened.bearer, expires_ms: opened.expires_ms };
            Ok(Some(Reply { seal: true, ..Reply::of(&session) }))
        }
        (AuthBody::Session { .. } | AuthBody::Failed { .. }, Some(_)) => Ok(None),
        _ => Err(Problem::new(
            ProblemKind::Invalid,
            "message.auth_out_of_step",
            "the AUTH step does not follow the one before",
        )
        .hint("begin anew: cell message send --type AUTH")),
    }
}

/// A post; one that the network is to know is kept, and its registration goes into the order.
async fn publish(
    world: &Arc<World>,
    context: &CallContext,
    message: &Message,
    post: PostBody,
) -> Result<Reply, Problem> {
    let data = post.data();
    let content_hash = Hash::of(&data);
    let mut told = json!({ "id": message.id(), "content_hash": content_hash });
    let Some(registration) = post.registration else { return Ok(Reply::of(&ReplyBody::Result(told))) };
    if registration.sender != message.sender || !registers(&registration, &content_hash, data.len()) {
        let cause = "the transaction does not register the content of the post for its sender";
        return Err(Problem::new(ProblemKind::Invalid, "message.bad_registration", cause)
            .hint(r#"let the cell make it: {"content":…,"tags":[…],"register":true}"#));
    }
    let may_tx = world.admission(&message.sender).await?.may.contains(&MessageType::Tx);
    if message.sender != world.cell && !may_tx {
        return Err(message::Refusal::NotAllowed { kind: MessageType::Tx }.into());
    }
    let store = world.data.clone();
    blocking(move || store.add(data.as_slice())).await??;
    if let ReplyBody::Result(outcome) = tx_outcome(world, context, registration).await? {
        told["registration"] = outcome;
    }
    Ok(Reply::of(&ReplyBody::Result(told)))
}

/// Whether a transaction registers this very content.
fn registers(transaction: &Transaction, hash: &Hash, size: usize) -> bool {
    let args: Value = serde_json::from_str(&transaction.args).unwrap_or_default();
    transaction.module == "dataset"
        && transaction.call == "register"
        && args["hash"] == hash.to_string()
        && args["size"] == size
}

async fn tx(world: &Arc<World>, context: &CallContext, transaction: Transaction) -> Result<Reply, Problem> {
    tx_outcome(world, context, transaction).await.map(|outcome| Reply::of(&outcome))
}

async fn tx_outcome(
    world: &Arc<World>,
    context: &CallContext,
    transaction: Transaction,
) -> Result<ReplyBody, Problem> {
    let request = SubmitRequest {
        intent: None,
        transaction: Some(transaction),
        wait: Some(TxStatus::Finalised),
        wait_ms: Some(TX_WAIT_MS),
    };
    let view = world.bus.with(context.clone()).consensus().submit(request).await?;
    Ok(ReplyBody::Result(json!({
        "id": view.id, "status": view.status, "block": view.block, "root": view.root, "problem": view.problem,
    })))
}
