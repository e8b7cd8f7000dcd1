//! Checking proofs offline: nothing but the proof, and a root or a genesis to trust.

use jmt::proof::SparseMerkleProof;
use jmt::{KeyHash, RootHash};
use protocol::block::BlockProof;
use protocol::state::{KeyProof, ProvenDataset, ProvenDatasets, StateProof};
use protocol::{BlockIndex, Problem, StateRoot};
use sha2::Sha256;

use crate::tree::key_hash;
use crate::{KEY_BYTES_MAX, LightClient, Refusal, StateMachine, dataset};

/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 64 * 1024;

/// Checks that a key has the proof's value (or none) under the proof's root. It says nothing about the
/// root itself, nor about the block that it stands after.
///
/// Each statement has one spelling: hex is lower-case.
///
/// # Errors
///
/// `state.bad_proof` with what does not hold.
pub fn verify_key_proof(proof: &KeyProof) -> Result<(), Problem> {
    let bad = |why| Problem::from(Refusal::BadProof { why });
    if proof.key.len() > KEY_BYTES_MAX || proof.path.len() > 2 * PATH_BYTES_MAX {
        return Err(bad("it is too large"));
    }
    let bytes = unhex(&proof.path).ok_or_else(|| bad("its path is not lower-case hex"))?;
    let path: SparseMerkleProof<Sha256> =
        borsh::from_slice(&bytes).map_err(|_| bad("its path cannot be read"))?;
    let value = match &proof.value {
        Some(value) => Some(unhex(value).ok_or_else(|| bad("its value is not lower-case hex"))?),
        None => None,
    };
    let root = RootHash(*proof.root.as_bytes());
    path.verify(root, KeyHash(*key_hash(&proof.key).as_bytes()), value)
        .map_err(|_| bad("key and value do not lead to the root"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = hex::decode(text).ok()?;
    (hex::encode(&bytes) == text).then_some(bytes)
}

/// Checks a key's proof against a root that is trusted already.
///
/// # Errors
///
/// `state.bad_proof` with what does not hold.
pub fn verify_key_proof_under(proof: &KeyProof, trusted: &StateRoot) -> Result<(), Problem> {
    if proof.root != *trusted {
        return Err(Refusal::BadProof { why: "it is made under another root than the trusted one" }.into());
    }
    verify_key_proof(proof)
}

/// Checks data sets with their proofs against a genesis: each is what the record says that its proof leads to. That there are no others is not
/// shown.
///
/// # Errors
///
/// `state.bad_proof`, `block.not_proven` when the block behind the root is not, or `genesis.invalid`.
pub fn verify_datasets(proven: &ProvenDatasets, machine: &StateMachine) -> Result<(), Problem> {
    let Some(first) = proven.items.first() else { return Ok(()) };
    let attested = attested(proven.block.as_ref(), first.proof.index, machine)?;
    for ProvenDataset { dataset, proof } in &proven.items {
        verify_key_proof_under(proof, &attested)?;
        if proof.index != first.proof.index || !dataset::is_record(dataset, proof) {
            return Err(Refusal::BadProof { why: "a data set is not what its proof proves" }.into());
        }
    }
    Ok(())
}

/// Checks a proof against a genesis: the root must be attested by more than two thirds of the
/// members that follow from it, or be the genesis's own where the proof stands before the first block.
///
/// # Errors
///
/// `state.bad_proof`, `block.not_proven` when the block behind the root is not, or `genesis.invalid`.
pub fn verify_state_proof(proof: &StateProof, machine: &StateMachine) -> Result<StateRoot, Problem> {
    verify_key_proof(&proof.proof)?;
    let attested = attested(proof.block.as_ref(), proof.proof.index, machine)?;
    if attested != proof.proof.root {
        return Err(Refusal::BadProof { why: "the members attest another root" }.into());
    }
    Ok(attested)
}

/// The root after a block, as its members attest it; that of the genesis before the first.
fn attested(
    block: Option<&BlockProof>,
    index: Option<BlockIndex>,
    machine: &StateMachine,
) -> Result<StateRoot, Problem> {
    match (block, index) {
        (Some(block), Some(index)) if block.block.header.index == index => {
            LightClient::new(&machine.genesis)?.block(block)
        }
        (None, None) => match machine.genesis_record() {
            Ok(crate::Record::Genesis { root, .. }) => Ok(root),
            _ => Err(Refusal::BadProof { why: "the genesis cannot be executed" }.into()),
        },
        _ => Err(Refusal::BadProof { why: "it does not come with the block that it stands after" }.into()),
    }
}
