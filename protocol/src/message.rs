//! Messages between cells: what travels, what is signed, what each type's body means.
//!
//! A message's id is the BLAKE3 hash of its signed text:
//! `"celluler/message/1\0" || u64 timestamp_ms || u64 expires_ms || u64 nonce || sender || receiver || u8 type ||
//! u8 flags || in_reply_to or zeros || hash(body as sent) || hash(proof)`, numbers little endian.
//! The body travels as bytes (JSON text, or its HPKE ciphertext when sealed), so what is hashed is
//! what was sent.
//!
//! A signature covers that text, or several messages to one receiver at once ([`Together`]):
//! `"celluler/messages/1\0" || sender || u64 count || Merkle root over their ids`. Each of them carries its
//! way up to the root, so each can be shown and checked by itself.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{CellId, Hash, MessageId};
use crate::merkle;
use crate::signing::{Signature, SignedText};

/// The largest body, in bytes as sent.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How many shared messages a proof shows at most (Celluler's *k*).
pub const PROOF_ITEMS_MAX: usize = 5;
/// How far a sender's clock may be off from the receiver's.
pub const CLOCK_SKEW_MS_MAX: u64 = 2 * 60 * 1000;
/// How many messages one signature covers at most.
pub const TOGETHER_MAX: usize = 256;
/// The longest time a message may wait for its delivery.
pub const LIFETIME_MS_MAX: u64 = 30 * 24 * 3600 * 1000;

/// The six types.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "UPPERCASE")]
pub enum MessageType {
    /// Human-readable text, to the receiver's inbox.
    #[n(0)]
    Chat,
    /// Challenge and response that end in a session.
    #[n(1)]
    Auth,
    /// A transaction for the receiver's consensus.
    #[n(2)]
    Tx,
    /// Content published to the receiver's data set.
    #[n(3)]
    Post,
    /// A question about the receiver's published data.
    #[n(4)]
    Query,
    /// A named action to run at the receiver.
    #[n(5)]
    Exec,
}

impl MessageType {
    /// All six.
    pub const ALL: [Self; 6] = [Self::Chat, Self::Auth, Self::Tx, Self::Post, Self::Query, Self::Exec];

    /// Its name in capitals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "CHAT",
            Self::Auth => "AUTH",
            Self::Tx => "TX",
            Self::Post => "POST",
            Self::Query => "QUERY",
            Self::Exec => "EXEC",
        }
    }
}

impl std::fmt::Display for MessageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for MessageType {
    type Err = crate::Problem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            crate::Problem::new(
                crate::ProblemKind::Invalid,
                "message.unknown_type",
                format!("there is no message type {shown:?}"),
            )
            .hint("one of CHAT, AUTH, TX, POST, QUERY, EXEC")
        })
    }
}

/// A signed message as it travels and as it is journaled.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// When the sender made it, in milliseconds since 1970 (UTC).
    #[n(0)]
    pub timestamp_ms: u64,
    /// After this it is neither delivered nor accepted.
    #[n(1)]
    pub expires_ms: u64,
    /// Who signs.
    #[n(2)]
    pub sender: CellId,
    /// For whom.
    #[n(3)]
    pub receiver: CellId,
    /// What it asks for.
    #[n(4)]
    pub kind: MessageType,
    /// Whether `body` is HPKE ciphertext for the receiver.
    #[n(5)]
    pub sealed: bool,
    /// The message that this one answers.
    #[n(6)]
    pub in_reply_to: Option<MessageId>,
    /// JSON text in UTF-8, or its ciphertext.
    #[cbor(n(7), with = "minicbor::bytes")]
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub body: Vec<u8>,
    /// The interaction proof: the latest messages that both cells hold with a receipt, newest first.
    #[n(8)]
    pub proof: Vec<MessageId>,
    /// The sender's, over [`Message::covered_text`].
    #[n(9)]
    pub signature: Signature,
    /// Chosen by the sender: two messages that are equal otherwise, of one millisecond, are still two.
    #[n(10)]
    pub nonce: u64,
    /// Where the message stands among those that were signed together; none if it was signed alone.
    #[n(11)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<Together>,
}

/// A message's place under a signature that covers several messages of one sender to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct Together {
    /// Its place among them.
    #[n(0)]
    pub place: u64,
    /// How many they are; at most [`TOGETHER_MAX`].
    #[n(1)]
    pub count: u64,
    /// Sibling hashes on the way up to the Merkle root over their ids, bottom first.
    #[n(2)]
    pub path: Vec<Hash>,
}

impl Together {
    /// The text that one signature over these messages covers, and each one's place under it.
    pub fn of(sender: &CellId, ids: &[MessageId]) -> (Vec<u8>, Vec<Self>) {
        let leaves: Vec<Hash> = ids.iter().map(|id| merkle::leaf(id.as_bytes())).collect();
        let (root, paths) = merkle::paths(&leaves);
        let count = ids.len() as u64;
        let places = (0u64..).zip(paths).map(|(place, path)| Self { place, count, path }).collect();
        (together_text(sender, count, &root), places)
    }
}

fn together_text(sender: &CellId, count: u64, root: &Hash) -> Vec<u8> {
    SignedText::new("celluler/messages/1")
        .bytes32(sender.as_bytes())
        .u64(count)
        .bytes32(root.as_bytes())
        .finish()
}

impl Message {
    /// What is signed of this message: every field but the signature and its company.
    pub fn signed_text(&self) -> Vec<u8> {
        let proof: Vec<u8> = self.proof.iter().flat_map(|id| *id.as_bytes()).collect();
        SignedText::new("celluler/message/1")
            .u64(self.timestamp_ms)
            .u64(self.expires_ms)
            .u64(self.nonce)
            .bytes32(self.sender.as_bytes())
            .bytes32(self.receiver.as_bytes())
            .u8(self.kind as u8)
            .u8(u8::from(self.sealed) | u8::from(self.in_reply_to.is_some()) << 1)
            .bytes32(self.in_reply_to.unwrap_or_default().as_bytes())
            .hash_of(&self.body)
            .hash_of(&proof)
            .finish()
    }

    /// The hash of the signed text.
    pub fn id(&self) -> MessageId {
        Self::id_of(&self.signed_text())
    }

    /// The id of the message with this signed text: for whoever has worked that out already.
    pub fn id_of(signed_text: &[u8]) -> MessageId {
        MessageId::from_bytes(*blake3::hash(signed_text).as_bytes())
    }

    /// The bytes that the signature covers, given the message's own signed text: that text, or the root
    /// over all messages that were signed together; none if the way to that root is malformed.
    pub fn covered_text(&self, signed_text: Vec<u8>) -> Option<Vec<u8>> {
        let Some(Together { place, count, path }) = &self.together else { return Some(signed_text) };
        let leaf = merkle::leaf(Self::id_of(&signed_text).as_bytes());
        let root = merkle::root_of(leaf, *place, *count, path).filter(|_| *count <= TOGETHER_MAX as u64)?;
        Some(together_text(&self.sender, *count, &root))
    }

    /// Whether the signature is the sender's over this very message.
    pub fn signature_holds(&self) -> bool {
        self.covered_text(self.signed_text())
            .is_some_and(|text| crate::signing::verify(&self.sender, &text, &self.signature))
    }
}

/// Body of a CHAT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatBody {
    /// What is said.
    pub text: String,
}

/// Body of an AUTH. A person sends `request`; the cells send the rest by themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "step", rename_all = "lowercase", deny_unknown_fields)]
pub enum AuthBody {
    /// Asks for a session.
    Request {},
    /// The receiver's fresh challenge.
    Challenge {
        /// 64 hex digits, used once.
        nonce: String,
    },
    /// The challenge, signed back (the message's own signature covers it).
    Response {
        /// The challenge's nonce.
        nonce: String,
    },
    /// The session that was opened; always sealed.
    Session {
        /// A bearer token for the sender's HTTP interface, with role `read`.
        bearer: String,
        /// When it ends.
        expires_ms: u64,
    },
    /// The exchange failed.
    Failed {
        /// Why.
        why: String,
    },
}

/// Body of a TX: either what to do, which the sender's cell signs for the receiver's network, or a
/// transaction that was signed elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TxBody {
    /// A signed transaction.
    Signed {
        /// The transaction.
        transaction: crate::transaction::Transaction,
    },
    /// What the sender wants done; never travels in this form.
    Intent(crate::transaction::Intent),
    /// The receiver's reply.
    Reply {
        /// What became of it.
        outcome: serde_json::Value,
    },
}

/// Body of a POST.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostBody {
    /// What is published: any JSON.
    pub content: serde_json::Value,
    /// Words to find it by; at most 16, of at most 64 bytes each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether the network is to know it as a data set of the sender's, who signs that. Never travels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub register: bool,
    /// The sender's transaction that registers it, for the receiver's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<crate::transaction::Transaction>,
}

impl PostBody {
    /// The bytes that are registered: the content as compact JSON, with the keys of objects in the order in which they came.
    pub fn data(&self) -> Vec<u8> {
        self.content.to_string().into_bytes()
    }
}

/// Body of a QUERY for data sets that the receiver's network knows; the answer is proven.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindBody {
    /// Which.
    pub datasets: crate::state::DatasetsRequest,
}

/// Body of a QUERY: which published posts to show. An empty object asks for the newest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryBody {
    /// Only posts with this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only posts of this author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<CellId>,
    /// At most so many, newest first; 20 unless told, 100 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Body of an EXEC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecBody {
    /// The action's name, as in `state.get`.
    pub action: String,
    /// Its request; an empty object unless told.
    #[serde(default)]
    pub args: serde_json::Value,
}

/// Body of the reply to a TX, POST, QUERY or EXEC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplyBody {
    /// It was done; this is what came of it.
    Result(serde_json::Value),
    /// It was refused.
    Error(crate::Problem),
}
