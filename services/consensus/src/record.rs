//! What Consensus journals.

use machine::At;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::beacon::Drawn;
use protocol::block::{Attestation, Block, BlockProof};
use protocol::gossip::{EventBytes, ForkProof};
use protocol::members::{Handoff, MemberSet};
use protocol::rules::FIRST;
use protocol::state::Applied;
use protocol::transaction::Transaction;
use protocol::{BlockIndex, CellId, Event, Problem, Service, StateRoot, TxId};
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
    /// More than two thirds gave their word for the root that a block came to here.
    #[n(2)]
    Finalised {
        /// Which block.
        #[n(0)]
        index: BlockIndex,
        /// The root.
        #[n(1)]
        root: StateRoot,
        /// Their words.
        #[n(2)]
        attestations: Vec<Attestation>,
    },
    /// Events of the hashgraph, this cell's and others'.
    #[n(3)]
    Events {
        /// Their epoch.
        #[n(0)]
        epoch: u64,
        /// How many events of the epoch were journaled before.
        #[n(1)]
        first: u64,
        /// The events, as [`EventBytes`].
        #[n(2)]
        events: Vec<ByteVec>,
    },
    /// Transactions that came with ordered events and have no place in the order.
    #[n(4)]
    LeftOut {
        /// Which, and why.
        #[n(0)]
        items: Vec<(TxId, Problem)>,
    },
    /// A block was executed here.
    #[n(5)]
    Executed {
        /// What it came to.
        #[n(0)]
        applied: Applied,
        /// This cell's word for it; none of a cell that only follows.
        #[n(1)]
        attestation: Option<Attestation>,
    },
    /// Other members gave their word for blocks.
    #[n(6)]
    Attested {
        /// Their words.
        #[n(0)]
        attestations: Vec<Attestation>,
    },
    /// More than two thirds gave their word for another root than a block came to here.
    #[n(7)]
    Diverged {
        /// Which block.
        #[n(0)]
        index: BlockIndex,
        /// The root here.
        #[n(1)]
        root: StateRoot,
        /// Their words.
        #[n(2)]
        attestations: Vec<Attestation>,
    },
    /// A member has forked.
    #[n(8)]
    Forked {
        /// The proof, for anybody.
        #[n(0)]
        proof: ForkProof,
    },
    /// An epoch begins with other members or rules than the one before.
    #[n(9)]
    Epoch {
        /// Which.
        #[n(0)]
        epoch: u64,
        /// Its members.
        #[n(1)]
        members: MemberSet,
        /// How they follow from those before.
        #[n(2)]
        handoff: Handoff,
        /// The version of the rules that it is executed under; the first unless told.
        #[n(3)]
        rules: Option<u64>,
    },
    /// The last nonces that some senders have in the state that is begun with.
    #[n(10)]
    Nonces {
        /// Senders with their nonces.
        #[n(0)]
        items: Vec<(CellId, u64)>,
    },
    /// This cell has the state after a final block from others, and goes on from there.
    #[n(11)]
    Jumped {
        /// The block.
        #[n(0)]
        proof: BlockProof,
    },
    /// This cell has diverged, and is to go on from what the others have.
    #[n(12)]
    Rejoins {
        /// Where it has diverged.
        #[n(0)]
        index: BlockIndex,
    },
    /// A decided round has opened a draw of the beacon.
    #[n(13)]
    Drawn {
        /// The epoch.
        #[n(0)]
        epoch: u64,
        /// The round.
        #[n(1)]
        round: u64,
        /// Draw and value.
        #[n(2)]
        drawn: Drawn,
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
            Self::Executed { applied, .. } => {
                let rejected = |id: &TxId, problem: &Problem| {
                    let data =
                        json!({ "id": id, "block": applied.index, "root": applied.root, "problem": problem });
                    event("consensus.rejected", data)
                };
                let refused = applied
                    .receipts
                    .iter()
                    .filter_map(|receipt| Some((&receipt.id, receipt.error.as_ref()?)));
                refused.map(|(id, problem)| rejected(id, problem)).collect()
            }
            Self::Finalised { index, root, attestations } => {
                let data = json!({ "block": index, "root": root, "attestations": attestations.len() });
                vec![event("consensus.finalised", data)]
            }
            Self::LeftOut { items } => {
                let rejected = |(id, problem): &(TxId, Problem)| {
                    event("consensus.rejected", json!({ "id": id, "block": null, "problem": problem }))
                };
                items.iter().map(rejected).collect()
            }
            Self::Diverged { index, root, attestations } => {
                let theirs = attestations.first().map(|word| word.root);
                vec![event("consensus.diverged", json!({ "block": index, "root": root, "attested": theirs }))]
            }
            Self::Forked { proof } => vec![event("consensus.forked", json!({ "member": proof.one.creator }))],
            Self::Epoch { epoch, members, handoff, rules } => {
                let (base, rules) = (handoff.header.index.0 + 1, rules.unwrap_or(FIRST));
                let data = json!({ "epoch": epoch, "block": base, "members": members, "rules": rules });
                vec![event("consensus.epoch", data)]
            }
            Self::Jumped { proof } => {
                let header = &proof.block.header;
                vec![event("consensus.jumped", json!({ "block": header.index, "epoch": header.epoch }))]
            }
            Self::Drawn { epoch, round, drawn } => {
                let data =
                    json!({ "epoch": epoch, "round": round, "draw": drawn.draw, "value": drawn.value });
                vec![event("consensus.drawn", data)]
            }
            Self::Events { .. } | Self::Attested { .. } | Self::Nonces { .. } | Self::Rejoins { .. } => {
                Vec::new()
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
            Self::Finalised { index, root, attestations } => {
                json!({ "finalised": { "index": index, "root": root, "attestations": attestations } })
            }
            Self::Events { epoch, first, events } => {
                let event = |bytes: &ByteVec| match EventBytes::read(bytes) {
                    Ok(EventBytes { event, payload }) => {
                        json!({ "event": event, "payload_bytes": payload.len() })
                    }
                    Err(problem) => json!({ "unreadable": problem }),
                };
                let events: Vec<Value> = events.iter().map(event).collect();
                json!({ "events": { "epoch": epoch, "first": first, "events": events } })
            }
            Self::LeftOut { items } => json!({ "left_out": items }),
            Self::Executed { applied, attestation } => {
                json!({ "executed": { "applied": applied, "attestation": attestation } })
            }
            Self::Attested { attestations } => json!({ "attested": attestations }),
            Self::Diverged { index, root, attestations } => {
                json!({ "diverged": { "index": index, "root": root, "attestations": attestations } })
            }
            Self::Forked { proof } => json!({ "forked": proof }),
            Self::Nonces { items } => json!({ "nonces": items }),
            Self::Jumped { proof } => json!({ "jumped": proof }),
            Self::Drawn { epoch, round, drawn } => {
                json!({ "drawn": { "epoch": epoch, "round": round, "draw": drawn.draw, "value": drawn.value } })
            }
            Self::Rejoins { index } => json!({ "rejoins": index }),
            Self::Epoch { epoch, members, handoff, rules } => {
                let rules = rules.unwrap_or(FIRST);
                json!({ "epoch": { "epoch": epoch, "members": members, "handoff": handoff, "rules": rules } })
            }
        }
    }
}
