//! Transactions that are brought to members.

use std::sync::Arc;

use consensus::hashgraph::Fork;
use protocol::consensus::{AdmitRequest, Answer, NextNonceRequest, Request};
use protocol::gossip::ForkProof;
use protocol::transaction::{Intent, Transaction};
use serde_json::{Value, json};

use super::World;
use crate::cells::{self, Epoch};
use crate::signing::as_proof;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A value in the state.
    Put,
    /// A cell that is no member, to be one. Brought to any member.
    Join(usize),
    /// A member's vote to let one in.
    Accept(usize),
    /// The member, to be none any more.
    Leave,
    /// A member's vote against one.
    Evict(usize),
}

impl World {
    /// Brings a transaction to a member, in its name or in that of a cell that wants to be one.
    pub(super) fn submit(&mut self, who: usize, ask: &Ask) {
        let number = self.submitted.len();
        let (signer, module, call, args) = match *ask {
            Ask::Put => {
                let key = format!("k{}", self.random.below(8));
                (who, "kv", "put", json!({ "key": key, "value": number.to_string() }))
            }
            Ask::Join(cell) => (cell, "members", "join", json!({})),
            Ask::Accept(cell) => (who, "members", "accept", json!({ "cell": cells::id(cell) })),
            Ask::Leave => (who, "members", "leave", json!({})),
            Ask::Evict(cell) => (who, "members", "evict", json!({ "cell": cells::id(cell) })),
        };
        let life = number % self.members[who].lives.len();
        self.admit(who, life, signer, module, call, args);
    }

    fn admit(&mut self, who: usize, life: usize, signer: usize, module: &str, call: &str, args: Value) {
        let (now, clock) = (self.now_us, self.members[who].clock(self.now_us));
        if !self.members[who].is_up {
            return;
        }
        let at = &mut self.members[who].lives[life];
        let asked = NextNonceRequest { cell: cells::id(signer) };
        let Ok(Answer::GetNextNonce(next)) = at.consensus.ask(Request::GetNextNonce(asked), now, clock)
        else {
            return;
        };
        let (module, call) = (module.to_owned(), call.to_owned());
        let intent = Intent { module, call, args, ..Intent::default() };
        let transaction = Transaction::sign(cells::key(signer), self.genesis.hash(), &intent, next.nonce);
        let word = self.words.transaction(&transaction);
        let at = &mut self.members[who].lives[life];
        match at.consensus.ask(Request::Admit(AdmitRequest { transaction }), now, clock) {
            Ok(_) => {
                self.submitted.insert(word, who);
                // Another member may take in another one of the same sender with the same nonce.
                if signer == who {
                    at.admitted.push((at.consensus.length(), word));
                }
            }
            Err(problem) => self.break_at(who, "validity", || format!("it takes nothing in: {problem}")),
        }
    }

    /// Keeps the proof of a fork, and brings it before all.
    pub(super) fn accuse(&mut self, who: usize, life: usize, epoch: &Arc<Epoch>, fork: &Fork) {
        let (now, clock) = (self.now_us, self.members[who].clock(self.now_us));
        let event = |id| as_proof(&self.genesis, epoch, &self.made.get(&id)?.said);
        let [Some(one), Some(other)] = fork.events.map(event) else { return };
        let proof = ForkProof { one, other };
        let args = json!({ "proof": proof });
        let consensus = &mut self.members[who].lives[life].consensus;
        if let Err(problem) = consensus.ask(Request::Accuse(proof.clone()), now, clock) {
            self.break_at(who, "evidence", || problem.to_string());
        }
        let at = &self.members[who].lives[life];
        let is_member = |part: &crate::life::Part| part.epoch.members.contains(&proof.one.creator);
        if at.part.as_ref().is_some_and(is_member) {
            self.admit(who, life, who, "members", "accuse", args);
        }
    }
}
