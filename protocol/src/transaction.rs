//! Transactions: signed requests to change the replicated state.
//!
//! Signed text: `"celluler/tx/1\0" || genesis || sender || u64 nonce || hash(module) || hash(call) ||
//! hash(args as sent)`. Nonces of one sender rise strictly; gaps are allowed. So each transaction is
//! applied at most once, on one network only.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{CellId, GenesisHash, TxId};
use crate::signing::{Signature, SignedText};

/// The largest `args`, in bytes of JSON text.
pub const ARGS_BYTES_MAX: usize = 256 * 1024;
/// The longest module or call name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What somebody wants done, before it is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
}

impl Transaction {
    /// The bytes that the signature covers.
    pub fn signed_text(&self) -> Vec<u8> {
        SignedText::new("celluler/tx/1")
            .bytes32(self.genesis.as_bytes())
            .bytes32(self.sender.as_bytes())
            .u64(self.nonce)
            .hash_of(self.module.as_bytes())
            .hash_of(self.call.as_bytes())
            .hash_of(self.args.as_bytes())
            .finish()
    }

    /// The hash of the signed text.
    pub fn id(&self) -> TxId {
        TxId::from_bytes(*blake3::hash(&self.signed_text()).as_bytes())
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
    /// Whether the module carried it out; a failed one changes nothing but the sender's nonce.
    #[n(1)]
    pub ok: bool,
    /// The refusal, if it was not carried out.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::Problem>,
}
