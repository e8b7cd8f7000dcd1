//! Bodies: what each type's JSON has to be, and how a reply is written.
//!
//! A reply to a TX, POST, QUERY or EXEC is `{"result":…}` or `{"error":…}`; a reply to a CHAT is a
//! CHAT; every step of an AUTH exchange but its request answers the step before.

use protocol::message::{
    AuthBody, BODY_BYTES_MAX, ChatBody, ExecBody, FindBody, Message, MessageType, PROOF_ITEMS_MAX, PostBody,
    QueryBody, ReplyBody,
};
use protocol::transaction::Transaction;
use protocol::{Problem, ProblemKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Refusal;

/// The most tags of a post.
pub const TAGS_MAX: usize = 16;
/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 64;
/// The longest explanation of a bad body, in characters.
const WHY_CHARS_MAX: usize = 200;

/// A body that was checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Text.
    Chat(ChatBody),
    /// A step of an AUTH exchange.
    Auth(AuthBody),
    /// A transaction for the receiver's consensus. Its signature is not checked here.
    Tx(Box<Transaction>),
    /// Content to publish.
    Post(Box<PostBody>),
    /// Which posts to show.
    Query(QueryBody),
    /// Which data sets of the network to show.
    Find(FindBody),
    /// An action to run.
    Exec(ExecBody),
    /// What came of a TX, POST, QUERY or EXEC.
    Reply(ReplyBody),
}

/// The form in which a TX travels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    transaction: Transaction,
}

/// Reads a message's opened body, as a value that stands for one that was checked.
///
/// # Errors
///
/// `message.bad_body` with what is wrong and what a right one looks like, `message.body_too_large`.
pub fn parse_body(kind: MessageType, is_reply: bool, bytes: &[u8]) -> Result<Body, Problem> {
    parse(kind, is_reply, bytes).map_err(Problem::from)
}

/// Reads a message's opened body.
///
/// # Errors
///
/// [`Refusal::BadBody`] with what is wrong and what a right one looks like, [`Refusal::BodyTooLarge`].
pub fn parse(kind: MessageType, is_reply: bool, bytes: &[u8]) -> Result<Body, Refusal> {
    check_size(bytes)?;
    match kind {
        MessageType::Chat => read(kind, bytes).map(Body::Chat),
        MessageType::Auth => auth(is_reply, bytes),
        _ if is_reply => read(kind, bytes).map(Body::Reply),
        MessageType::Tx => read::<Signed>(kind, bytes).map(|signed| Body::Tx(Box::new(signed.transaction))),
        MessageType::Post => post(bytes),
        MessageType::Query => query(bytes),
        MessageType::Exec => read(kind, bytes).map(Body::Exec),
    }
}

/// Checks size and proof of a message, and its body unless it is sealed.
pub(crate) fn check(message: &Message) -> Result<(), Refusal> {
    check_size(&message.body)?;
    if message.proof.len() > PROOF_ITEMS_MAX {
        return Err(Refusal::BadProof);
    }
    if message.sealed {
        return Ok(());
    }
    parse(message.kind, message.in_reply_to.is_some(), &message.body).map(|_| ())
}

fn check_size(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Refusal::BodyTooLarge { bytes: bytes.len(), bytes_max: BODY_BYTES_MAX });
    }
    Ok(())
}

fn auth(is_reply: bool, bytes: &[u8]) -> Result<Body, Refusal> {
    let body: AuthBody = read(MessageType::Auth, bytes)?;
    match (matches!(body, AuthBody::Request {}), is_reply) {
        (true, true) => Err(bad(MessageType::Auth, "a request answers nothing")),
        (false, false) => Err(bad(MessageType::Auth, "only a request can begin an exchange")),
        _ => Ok(Body::Auth(body)),
    }
}

/// A query names data sets, or asks for posts.
fn query(bytes: &[u8]) -> Result<Body, Refusal> {
    let kind = MessageType::Query;
    let value: serde_json::Value = read(kind, bytes)?;
    if value.get("datasets").is_some() {
        return read(kind, bytes).map(Body::Find);
    }
    read(kind, bytes).map(Body::Query)
}

fn post(bytes: &[u8]) -> Result<Body, Refusal> {
    let post: PostBody = read(MessageType::Post, bytes)?;
    if post.tags.len() > TAGS_MAX || post.tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG_BYTES_MAX) {
        return Err(bad(MessageType::Post, "at most 16 tags, of 1 to 64 bytes each"));
    }
    Ok(Body::Post(Box::new(post)))
}

fn read<T: DeserializeOwned>(kind: MessageType, bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| bad(kind, &error.to_string()))
}

fn bad(kind: MessageType, why: &str) -> Refusal {
    Refusal::BadBody { kind, why: why.chars().take(WHY_CHARS_MAX).collect(), example: example(kind) }
}

/// A right body of a type, as a person sends it (a TX is signed by the sender's cell).
pub const fn example(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Chat => r#"{"text":"hello"}"#,
        MessageType::Auth => r#"{"step":"request"}"#,
        MessageType::Tx => r#"{"module":"kv","call":"put","args":{"key":"colour","value":"blue"}}"#,
        MessageType::Post => r#"{"content":{"title":"first"},"tags":["news"]}"#,
        MessageType::Query => r#"{"tag":"news","limit":10}"#,
        MessageType::Exec => r#"{"action":"state.get","args":{"key":"kv/colour"}}"#,
    }
}

/// The body of a reply to a TX, POST, QUERY or EXEC: what came of it, or why nothing did. A result too
/// large for a message becomes the error `message.reply_too_large`.
pub fn reply(outcome: Result<serde_json::Value, Problem>) -> Vec<u8> {
    let body = text(&outcome.map_or_else(ReplyBody::Error, ReplyBody::Result));
    if body.len() <= BODY_BYTES_MAX {
        return body;
    }
    let cause = format!("the reply has {} bytes, {BODY_BYTES_MAX} are allowed", body.len());
    let problem = Problem::new(ProblemKind::TooLarge, "message.reply_too_large", cause);
    text(&ReplyBody::Error(problem.hint("ask for less, with a limit or a cursor")))
}

fn text(body: &ReplyBody) -> Vec<u8> {
    serde_json::to_vec(body).expect("string keys only: writing JSON into a Vec cannot fail")
}
