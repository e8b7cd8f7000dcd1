//! Transactions: signed requests to change the replicated state.
//!
//! Signed text: `"celluler/tx/1\0" || genesis || sender || u64 nonce || hash(module) || hash(call) ||
//! hash(args as sent)`. Nonces of one sender rise strictly; gaps are allowed. So each transaction is
//! applied at most once, on one network only.
//!
//! One that names a lane or the most it pays signs `"celluler/tx/2\0" || the same || u8 lane || u8 bound || u64 low || u64 high`:
//! the lane is 0 for none, 1 priority, 2 normal, 3 bulk; the bound is 1 and the halves of its atoms, or three times 0. One that
//! names neither is as it ever was.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::fees::TRANSACTION_UNITS;
use crate::id::{CellId, GenesisHash, TxId};
use crate::signing::{Signature, SignedText};

/// The largest `args`, in bytes of JSON text.
pub const ARGS_BYTES_MAX: usize = 256 * 1024;
/// The longest module or call name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Which way a transaction takes into the order. Has a meaning where the network has fees; elsewhere all lanes are one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
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
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Before the others, for four times the fee.
    #[n(0)]
    Priority,
    /// The usual one.
    #[n(1)]
    #[default]
    Normal,
    /// Behind the others, for a quarter of the fee.
    #[n(2)]
    Bulk,
}

impl Lane {
    /// All of them, the first one first.
    pub const ALL: [Self; 3] = [Self::Priority, Self::Normal, Self::Bulk];
}

/// What somebody wants done, before it is signed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The module: `kv`, `prana`.
    pub module: String,
    /// Its call: `put`, `transfer`.
    pub call: String,
    /// The call's arguments: an object.
    #[serde(default)]
    pub args: serde_json::Value,
    /// Above every nonce the sender has used; chosen by the cell when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
    /// Its lane; normal unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// The most that it may cost its sender; whatever it costs, unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fee: Option<Amount>,
}

/// A signed transaction. Its JSON form is what `cell tx sign` prints and `cell tx submit` takes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// The network it is for.
    #[n(0)]
    pub genesis: GenesisHash,
    /// Who signs.
    #[n(1)]
    pub sender: CellId,
    /// Above every nonce this sender has used.
    #[n(2)]
    pub nonce: u64,
    /// The module.
    #[n(3)]
    pub module: String,
    /// Its call.
    #[n(4)]
    pub call: String,
    /// The arguments as JSON text, as it was signed.
    #[n(5)]
    pub args: String,
    /// Over [`Transaction::signed_text`].
    #[n(6)]
    pub signature: Signature,
    /// Its lane; normal unless told.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// The most that the sender pays; what is due, unless told.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fee: Option<Amount>,
}

impl Transaction {
    /// The bytes that the signature covers.
    pub fn signed_text(&self) -> Vec<u8> {
        let has_terms = self.lane.is_some() || self.max_fee.is_some();
        let text = SignedText::new(if has_terms { "celluler/tx/2" } else { "celluler/tx/1" })
            .bytes32(self.genesis.as_bytes())
            .bytes32(self.sender.as_bytes())
            .u64(self.nonce)
            .hash_of(self.module.as_bytes())
            .hash_of(self.call.as_bytes())
            .hash_of(self.args.as_bytes());
        if !has_terms {
            return text.finish();
        }
        let lane = match self.lane {
            None => 0,
            Some(Lane::Priority) => 1,
            Some(Lane::Normal) => 2,
            Some(Lane::Bulk) => 3,
        };
        let atoms = self.max_fee.unwrap_or_default().0;
        text.u8(lane)
            .u8(u8::from(self.max_fee.is_some()))
            .u64((atoms & u128::from(u64::MAX)) as u64)
            .u64((atoms >> 64) as u64)
            .finish()
    }

    /// The lane in force.
    pub fn lane(&self) -> Lane {
        self.lane.unwrap_or_default()
    }

    /// What it counts where places are scarce: its names and arguments in bytes, and [`TRANSACTION_UNITS`].
    pub fn units(&self) -> u64 {
        TRANSACTION_UNITS + (self.module.len() + self.call.len() + self.args.len()) as u64
    }

    /// The hash of the signed text.
    pub fn id(&self) -> TxId {
        TxId::from_bytes(*blake3::hash(&self.signed_text()).as_bytes())
    }

    /// The signature to check, for [`signing::verify_all`](crate::signing::verify_all).
    pub fn to_check(&self) -> crate::signing::Signed {
        crate::signing::Signed { signer: self.sender, bytes: self.signed_text(), signature: self.signature }
    }

    /// Whether the signature is the sender's over this very transaction.
    pub fn signature_holds(&self) -> bool {
        crate::signing::verify(&self.sender, &self.signed_text(), &self.signature)
    }

    /// Signs an intent. `nonce` is used unless the intent names one.
    pub fn sign(key: &ed25519_dalek::SigningKey, genesis: GenesisHash, intent: &Intent, nonce: u64) -> Self {
        let mut transaction = Self {
            genesis,
            sender: crate::signing::cell_id(key),
            nonce: intent.nonce.unwrap_or(nonce),
            module: intent.module.clone(),
            call: intent.call.clone(),
            args: if intent.args.is_null() { "{}".to_owned() } else { intent.args.to_string() },
            signature: Signature::from_bytes([0; 64]),
            lane: intent.lane,
            max_fee: intent.max_fee,
        };
        transaction.signature = crate::signing::sign(key, &transaction.signed_text());
        transaction
    }
}

/// What became of an applied transaction.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct TxReceipt {
    /// Which transaction.
    #[n(0)]
    pub id: TxId,
    /// Whether the module carried it out; a failed one changes nothing but the sender's nonce, and its account by the fee.
    #[n(1)]
    pub ok: bool,
    /// The refusal, if it was not carried out.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::Problem>,
    /// What the sender paid, where the network has fees.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee: Option<Amount>,
}
