//! Bodies: what each type's JSON has to be.

use protocol::message::{
    AuthBody, BODY_BYTES_MAX, ChatBody, ExecBody, Message, MessageType, PostBody, QueryBody, ReplyBody, TxBody,
};
use protocol::transaction::Transaction;
use serde::de::DeserializeOwned;

use crate::Refusal;

/// The most tags of a post.
const TAGS_MAX: usize = 16;
/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 64;

/// A body that was checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Text.
    Chat(ChatBody),
    /// A step of an AUTH exchange.
    Auth(AuthBody),
    /// A transaction for the receiver's consensus.
    Tx(Box<Transaction>),
    /// Content to publish.
    Post(PostBody),
    /// Which posts to show.
    Query(QueryBody),
    /// An action to run.
    Exec(ExecBody),
    /// What came of a TX, POST, QUERY or EXEC.
    Reply(ReplyBody),
}

/// Reads a message's opened body.
///
/// # Errors
///
/// [`Refusal::BadBody`] with what is wrong and what a right one looks like, [`Refusal::BodyTooLarge`].
pub fn parse(kind: MessageType, is_reply: bool, bytes: &[u8]) -> Result<Body, Refusal> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Refusal::BodyTooLarge { bytes: bytes.len(), bytes_max: BODY_BYTES_MAX });
    }
    let replied = is_reply && !matches!(kind, MessageType::Chat | MessageType::Auth);
    if replied {
        return read(kind, bytes).map(Body::Reply);
    }
    match kind {
        MessageType::Chat => read(kind, bytes).map(Body::Chat),
        MessageType::Auth => read(kind, bytes).map(Body::Auth),
        MessageType::Tx => match read(kind, bytes)? {
            TxBody::Signed { transaction } => Ok(Body::Tx(Box::new(transaction))),
            _ => Err(bad(kind, "the transaction is not signed")),
        },
        MessageType::Post => {
            let post: PostBody = read(kind, bytes)?;
            if post.tags.len() > TAGS_MAX || post.tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG_BYTES_MAX) {
                return Err(bad(kind, "at most 16 tags, of 1 to 64 bytes each"));
            }
            Ok(Body::Post(post))
        }
        MessageType::Query => read(kind, bytes).map(Body::Query),
        MessageType::Exec => read(kind, bytes).map(Body::Exec),
    }
}

/// Checks a message's body, unless it is sealed.
pub(crate) fn check(message: &Message) -> Result<(), Refusal> {
    if message.sealed {
        // Encapsulated key and tag come on top.
        let bytes_max = BODY_BYTES_MAX + 64;
        let bytes = message.body.len();
        return if bytes > bytes_max { Err(Refusal::BodyTooLarge { bytes, bytes_max }) } else { Ok(()) };
    }
    parse(message.kind, message.in_reply_to.is_some(), &message.body).map(|_| ())
}

fn read<T: DeserializeOwned>(kind: MessageType, bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| bad(kind, &error.to_string()))
}

fn bad(kind: MessageType, why: &str) -> Refusal {
    Refusal::BadBody { kind, why: why.chars().take(200).collect(), example: example(kind) }
}

/// A right body of a type.
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
