//! A client that trusts a genesis and nobody else.
//!
//! It knows the members that may finalise the next block. The genesis names the first ones; each [`Handoff`] that holds names those that follow:
//! the members it trusts attest a state root, and under that root stands the new set. So proofs that begin at the genesis
//! need no connection, and one that has followed a network for a while needs only the changes since.

use protocol::block::{BlockProof, TxProof};
use protocol::genesis::Genesis;
use protocol::members::{Handoff, MemberSet, SET_KEY};
use protocol::{GenesisHash, Problem, ProblemKind, StateRoot};

use crate::proof::verify_key_proof_under;

/// What a client trusts.
#[derive(Clone, Debug)]
pub struct LightClient {
    genesis: GenesisHash,
    members: MemberSet,
    /// The first block that the members may have ordered.
    base: u64,
}

impl LightClient {
    /// A client that trusts a genesis.
    ///
    /// # Errors
    ///
    /// `genesis.invalid`.
    pub fn new(genesis: &Genesis) -> Result<Self, Problem> {
        genesis.check()?;
        Ok(Self { genesis: genesis.hash(), members: genesis.member_set(), base: 0 })
    }

    /// The members that it trusts now.
    pub fn members(&self) -> &MemberSet {
        &self.members
    }

    /// Goes on to the members that follow from those it trusts.
    ///
    /// # Errors
    ///
    /// `block.not_proven` or `state.bad_proof` with what does not hold; it trusts whom it trusted before then.
    pub fn follow(&mut self, handoff: &Handoff) -> Result<(), Problem> {
        let Handoff { header, attestations, proof } = handoff;
        let fail = |why: &str| {
            Err(Problem::new(ProblemKind::Invalid, "block.not_proven", format!("a change of members: {why}"))
                .hint("fetch the proof again from a cell you trust"))
        };
        if header.genesis != self.genesis {
            return fail("it belongs to another network");
        }
        if header.index.0 < self.base {
            return fail("it goes back");
        }
        let root = self.members.attested(header, attestations)?;
        verify_key_proof_under(proof, &root)?;
        if proof.key != SET_KEY || proof.index != Some(header.index) {
            return fail("it proves another key, or after another block");
        }
        let Some(value) = proof.value.as_ref().and_then(|value| hex::decode(value).ok()) else {
            return fail("it names no members");
        };
        self.members = MemberSet::from_state(&value)?;
        self.base = header.index.0 + 1;
        Ok(())
    }

    /// Checks that a block is final, and gives the state root after it.
    ///
    /// # Errors
    ///
    /// `block.not_proven` or `state.bad_proof` with what does not hold.
    pub fn block(&self, proof: &BlockProof) -> Result<StateRoot, Problem> {
        self.after(&proof.handoffs, proof.block.header.index.0)
            .and_then(|client| proof.check(&client.genesis, &client.members))
    }

    /// Checks that a transaction is in a final block, and gives the state root after that block.
    ///
    /// # Errors
    ///
    /// `block.not_proven` or `state.bad_proof` with what does not hold.
    pub fn transaction(&self, proof: &TxProof) -> Result<StateRoot, Problem> {
        self.after(&proof.handoffs, proof.header.index.0)
            .and_then(|client| proof.check(&client.genesis, &client.members))
    }

    /// The client that has followed the changes that it has not followed yet.
    fn after(&self, handoffs: &[Handoff], block: u64) -> Result<Self, Problem> {
        let mut client = self.clone();
        for handoff in handoffs.iter().filter(|handoff| handoff.header.index.0 >= self.base) {
            client.follow(handoff)?;
        }
        if block < client.base {
            let cause = "the block is older than the members that it is to be checked by";
            return Err(
                Problem::new(ProblemKind::Invalid, "block.not_proven", cause).hint("check it by the genesis")
            );
        }
        Ok(client)
    }
}
