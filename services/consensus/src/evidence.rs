//! Proof that members have forked.
//!
//! Rules:
//!
//! - Evidence is of members alone, one proof each: so it is bounded.
//! - Whoever finds a fork tells its own Consensus, and accuses the member in the order. Who did not find it itself takes the proof from there,
//!   so that every cell has it whatever it was sent: checked as if it had found it, whether or not the accusation changes anything any more.

use std::collections::BTreeSet;

use machine::{Fault, Read, answer, commit, refuse};
use protocol::CellId;
use protocol::block::Block;
use protocol::consensus::Answer;
use protocol::gossip::ForkProof;
use protocol::shared::Empty;

use crate::tables::EVIDENCE;
use crate::{ConsensusMachine, Decided, Record, epochs, members};

/// Accusations of one request that are looked at: each costs two signatures, and anybody can bring some that prove nothing.
const ACCUSATIONS_MAX: usize = 64;

pub(crate) fn accuse(machine: &ConsensusMachine, view: &dyn Read, proof: ForkProof) -> Decided {
    let Some(signer) = unproven(machine, view, &proof)? else { return answer(Answer::Accuse(Empty {})) };
    if let Err(problem) = proof.check(&machine.genesis.hash(), &signer) {
        return refuse(problem);
    }
    commit(vec![Record::Forked { proof }], Answer::Accuse(Empty {}))
}

/// The proofs in blocks that are about to be taken in, of whom nothing is proven here yet.
pub(crate) fn within<'a>(
    machine: &ConsensusMachine,
    view: &dyn Read,
    blocks: impl Iterator<Item = &'a Block>,
) -> Result<Vec<Record>, Fault> {
    let (mut found, mut records) = (BTreeSet::new(), Vec::new());
    let accusations = blocks.flat_map(|block| &block.transactions).filter_map(members::accusation);
    for proof in accusations.take(ACCUSATIONS_MAX) {
        let holds = |signer: CellId| proof.check(&machine.genesis.hash(), &signer).is_ok();
        if !found.contains(&proof.one.creator) && unproven(machine, view, &proof)?.is_some_and(holds) {
            found.insert(proof.one.creator);
            records.push(Record::Forked { proof });
        }
    }
    Ok(records)
}

/// The key that a member had in the epoch of a proof against it, if it is one and nothing is proven of it yet.
fn unproven(machine: &ConsensusMachine, view: &dyn Read, proof: &ForkProof) -> Result<Option<CellId>, Fault> {
    let member = &proof.one.creator;
    let signer = epochs::members_of(machine, view, proof.one.epoch)?.signer_of(member);
    Ok(if EVIDENCE.get(view, member)?.is_none() { signer } else { None })
}
