//! Checking proofs offline: nothing but the proof, and a root or a genesis to trust.

use jmt::proof::SparseMerkleProof;
use jmt::{KeyHash, RootHash};
use protocol::genesis::Genesis;
use protocol::state::{KeyProof, StateProof};
use protocol::{Problem, StateRoot};
use sha2::Sha256;

use crate::tree::key_hash;
use crate::{KEY_BYTES_MAX, Refusal, StateMachine};

/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 64 * 1024;

/// Checks that a key has the proof's value (or none) under the proof's root.
///
/// # Errors
///
/// `state.bad_proof` with what does not hold.
pub fn verify_key_proof(proof: &KeyProof) -> Result<(), Problem> {
    let bad = |why| Problem::from(Refusal::BadProof { why });
    if proof.key.len() > KEY_BYTES_MAX || proof.path.len() > 2 * PATH_BYTES_MAX {
        return Err(bad("it is too large"));
    }
    let bytes = hex::decode(&proof.path).map_err(|_| bad("its path is not hex"))?;
    let path: SparseMerkleProof<Sha256> = borsh::from_slice(&bytes).map_err(|_| bad("its path cannot be read"))?;
    let value = proof.value.as_ref().map(hex::decode).transpose().map_err(|_| bad("its value is not hex"))?;
    let root = RootHash(*proof.root.as_bytes());
    path.verify(root, KeyHash(*key_hash(&proof.key).as_bytes()), value)
        .map_err(|_| bad("key and value do not lead to the root"))
}

/// Checks a proof against a genesis: the root must be attested by more than two thirds of its
/// members, or be the genesis's own where the proof stands before the first block.
///
/// # Errors
///
/// `state.bad_proof`, or `block.not_proven` when the block behind the root is not.
pub fn verify_state_proof(proof: &StateProof, machine: &StateMachine) -> Result<StateRoot, Problem> {
    verify_key_proof(&proof.proof)?;
    let genesis: &Genesis = &machine.genesis;
    let attested = match (&proof.block, proof.proof.index) {
        (Some(block), Some(index)) if block.block.header.index == index => block.check(genesis)?,
        (None, None) => match machine.genesis_record() {
            Ok(crate::Record::Genesis { root, .. }) => root,
            _ => return Err(Refusal::BadProof { why: "the genesis cannot be executed" }.into()),
        },
        _ => return Err(Refusal::BadProof { why: "it does not come with the block that it stands after" }.into()),
    };
    if attested != proof.proof.root {
        return Err(Refusal::BadProof { why: "the members attest another root" }.into());
    }
    Ok(attested)
}
