//! Receipts: the receiver's signed word that messages are durable in its journal.
//!
//! A receipt is worked out while its batch is taken in, and journaled in the same sync: nobody sees it
//! before the messages are durable, and what a sender can show, the receiver knows.
//!
//! One signature covers a whole batch by the Merkle root over the message ids, and each message keeps
//! its own path: so a receipt of one message can be shown alone, to anyone, at 32 bytes a level.
//! Signed text: `"celluler/receipt/1\0" || receiver || sender || u64 time_ms || u64 count || root`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{CellId, Hash, MessageId};
use crate::merkle;
use crate::signing::{Signature, SignedText};

/// The signed part, shared by every message of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptHead {
    /// Who received, and signs.
    #[n(0)]
    pub receiver: CellId,
    /// Who had sent.
    #[n(1)]
    pub sender: CellId,
    /// When the batch was taken in, in milliseconds since 1970 (UTC), by the receiver's clock.
    #[n(2)]
    pub time_ms: u64,
    /// How many messages the batch had.
    #[n(3)]
    pub count: u64,
    /// Merkle root over their ids.
    #[n(4)]
    pub root: Hash,
    /// Over [`ReceiptHead::signed_text`].
    #[n(5)]
    pub signature: Signature,
}

impl ReceiptHead {
    /// The bytes that the signature covers.
    pub fn signed_text(&self) -> Vec<u8> {
        SignedText::new("celluler/receipt/1")
            .bytes32(self.receiver.as_bytes())
            .bytes32(self.sender.as_bytes())
            .u64(self.time_ms)
            .u64(self.count)
            .bytes32(self.root.as_bytes())
            .finish()
    }

    /// Whether the signature is the receiver's.
    pub fn signature_holds(&self) -> bool {
        crate::signing::verify(&self.receiver, &self.signed_text(), &self.signature)
    }
}

/// The root over a batch of message ids.
pub fn batch_root(ids: &[MessageId]) -> Hash {
    merkle::root(&leaves(ids))
}

fn leaves(ids: &[MessageId]) -> Vec<Hash> {
    ids.iter().map(|id| merkle::leaf(id.as_bytes())).collect()
}

/// The receipt of one message: the batch's signed head, and the message's way up to its root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// The signed part.
    #[n(0)]
    pub head: ReceiptHead,
    /// The message's place in the batch.
    #[n(1)]
    pub place: u64,
    /// Sibling hashes, bottom first.
    #[n(2)]
    pub path: Vec<Hash>,
}

impl Receipt {
    /// The receipt of the message at `place` in the batch `ids`; `None` past the end.
    pub fn of(head: &ReceiptHead, ids: &[MessageId], place: usize) -> Option<Self> {
        let (_, mut paths) = merkle::paths(&leaves(ids));
        let path = (place < paths.len()).then(|| paths.swap_remove(place))?;
        Some(Self { head: head.clone(), place: place as u64, path })
    }

    /// Whether this is the receiver's signed receipt for that very message.
    pub fn holds_for(&self, id: &MessageId) -> bool {
        let leaf = merkle::leaf(id.as_bytes());
        merkle::root_of(leaf, self.place, self.head.count, &self.path) == Some(self.head.root)
            && self.head.signature_holds()
    }
}

/// One message both cells hold, shown with its counter-signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct ShownMessage {
    /// The message.
    #[n(0)]
    pub id: MessageId,
    /// The receipt of whichever of the two received it.
    #[n(1)]
    pub receipt: Receipt,
}

/// An interaction proof: `prover` shows the latest messages it shares with `with`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct InteractionProof {
    /// Whose proof it is.
    #[n(0)]
    pub prover: CellId,
    /// The other cell of every shown message.
    #[n(1)]
    pub with: CellId,
    /// Newest first, at most [`crate::message::PROOF_ITEMS_MAX`].
    #[n(2)]
    pub shown: Vec<ShownMessage>,
}

impl InteractionProof {
    /// How many of the shown messages carry a receipt that holds, is between these two cells, and was
    /// not shown twice. The receipts are signed by the receiver of each message, so a prover alone
    /// can only make those of messages it received.
    pub fn matching(&self) -> u32 {
        let mut seen = Vec::new();
        let mut matching = 0;
        for item in self.shown.iter().take(crate::message::PROOF_ITEMS_MAX) {
            let head = &item.receipt.head;
            let between = (head.sender == self.prover && head.receiver == self.with)
                || (head.sender == self.with && head.receiver == self.prover);
            if between && !seen.contains(&item.id) && item.receipt.holds_for(&item.id) {
                matching += 1;
            }
            seen.push(item.id);
        }
        matching
    }
}
