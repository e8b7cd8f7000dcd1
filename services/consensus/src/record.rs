//! What Consensus journals.

use machine::At;
use minicbor::{Decode, Encode};
use protocol::block::{Attestation, Block};
use protocol::state::Applied;
use protocol::transaction::Transaction;
use protocol::{Event, Service, TxId};
use serde_json::{Value, json};

/// A step of the order.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// A transaction was taken in.
    #[n(0)]
    Accepted {
        /// The transaction.
        #[n(0)]
        transaction: Transaction,
    },
    /// A block was ordered.
    #[n(1)]
    Ordered {
        /// The block.
        #[n(0)]
        block: Block,
    },
    /// A block was executed and attested by more than two thirds.
    #[n(2)]
    Finalised {
        /// Its result.
        #[n(0)]
        applied: Applied,
        /// The attestations.
        #[n(1)]
        attestations: Vec<Attestation>,
    },
}

impl Record {
    pub(crate) fn events(&self, at: At) -> Vec<Event> {
        let event = |name: &str, data: Value| Event {
            event: name.to_owned(),
            service: Service::Consensus,
            index: at.index,
            time_ms: at.time_ms,
            data,
        };
        match self {
            Self::Accepted { transaction } => {
                let data = json!({ "id": transaction.id(), "sender": transaction.sender, "module": transaction.module });
                vec![event("consensus.accepted", data)]
            }
            Self::Ordered { block } => {
                let ids: Vec<TxId> = block.transactions.iter().map(Transaction::id).collect();
                vec![event("consensus.ordered", json!({ "block": block.header.index, "transactions": ids }))]
            }
            Self::Finalised { applied, attestations } => {
                let ids: Vec<TxId> = applied.receipts.iter().map(|receipt| receipt.id).collect();
                let data = json!({
                    "block": applied.index, "root": applied.root, "transactions": ids,
                    "attestations": attestations.len(),
                });
                let mut events = vec![event("consensus.finalised", data)];
                for receipt in applied.receipts.iter().filter(|receipt| !receipt.ok) {
                    let data = json!({
                        "id": receipt.id, "block": applied.index, "root": applied.root, "problem": receipt.error,
                    });
                    events.push(event("consensus.rejected", data));
                }
                events
            }
        }
    }
}

impl machine::Record for Record {
    fn describe(&self) -> Value {
        match self {
            Self::Accepted { transaction } => {
                json!({ "accepted": { "id": transaction.id(), "transaction": transaction } })
            }
            Self::Ordered { block } => {
                let ids: Vec<TxId> = block.transactions.iter().map(Transaction::id).collect();
                json!({ "ordered": { "header": block.header, "hash": block.header.hash(), "transactions": ids } })
            }
            Self::Finalised { applied, attestations } => {
                json!({ "finalised": { "applied": applied, "attestations": attestations } })
            }
        }
    }
}
