//! The keys that members sign with, beside their cells' own (ADR 0021).
//!
//! Rules:
//!
//! - A member rotates to a key that has signed for it ([`prove_key`](protocol::members::prove_key)), and that is nobody else's: no
//!   member's key, no member's or applicant's own, and none that it had before.
//! - The key stands in the set, so it is that of the next epoch on: until then the one before it is in force.
//! - Which key was in force until which epoch is remembered under `keys/DID`, for a fork is proven by the key of its own epoch. So
//!   one that was given up still convicts for the epochs in which it was in force, and whoever has stolen it cannot convict for others.
//!   Of each cell the last [`KEYS_MAX`] are remembered; for epochs before those nothing is proven any more.

use machine::Fault;
use machine::module::{ModuleState, Outcome, TxContext};
use protocol::genesis::Member;
use protocol::members::key_is_proven;
use protocol::signing::{self, Signature};
use protocol::{CellId, MemberKey, Problem, ProblemKind};
use serde::{Deserialize, Serialize};

use super::{Requests, no_member, read, write};

/// Keys of a cell that are remembered, beside the one that it has.
const KEYS_MAX: usize = 16;

/// The arguments of `rotate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    key: MemberKey,
    proof: Signature,
}

/// A key that is in force no more, with the epochs in which it was, both included.
#[derive(Serialize, Deserialize)]
struct Past {
    key: MemberKey,
    from: u64,
    until: u64,
}

fn name(cell: &CellId) -> String {
    format!("keys/{cell}")
}

/// The sender signs with another key from the next epoch on.
pub(super) fn rotate(
    context: &TxContext,
    state: &mut dyn ModuleState,
    set: &mut [Member],
    asked: &Rotate,
) -> Result<Outcome, Fault> {
    let Some(place) = set.iter().position(|member| member.cell == context.sender) else {
        return Ok(Err(no_member(&context.sender)));
    };
    let signer = CellId::from_bytes(*asked.key.as_bytes());
    if !signing::is_key(&signer) {
        let cause = format!("{} is no key that can sign", asked.key);
        return Ok(Err(Problem::new(ProblemKind::Invalid, "members.bad_key", cause)
            .hint("name the public key of an ed25519 key pair")));
    }
    let past: Vec<Past> = read(state, &name(&context.sender))?;
    let joins: Requests = read(state, "joins")?;
    if stands_for_a_member(set, &signer)
        || set.iter().any(|member| member.cell == signer)
        || joins.contains_key(&signer)
        || past.iter().any(|past| past.key == asked.key)
    {
        return Ok(Err(in_use(&signer)));
    }
    if !key_is_proven(&asked.key, &asked.proof, &context.genesis, &context.sender) {
        let cause = "the key has not signed that it is the sender's";
        return Ok(Err(Problem::new(ProblemKind::Invalid, "members.key_not_proven", cause)
            .hint("sign with the new key for this network and this cell")));
    }
    retire(state, &set[place], context.epoch)?;
    set[place].key = Some(asked.key);
    write(state, "set", set);
    Ok(Ok(()))
}

/// Whether a member signs with this key.
pub(super) fn stands_for_a_member(set: &[Member], signer: &CellId) -> bool {
    set.iter().any(|member| member.signer() == *signer)
}

pub(super) fn in_use(signer: &CellId) -> Problem {
    let key = MemberKey::from_bytes(*signer.as_bytes());
    Problem::new(
        ProblemKind::Conflict,
        "members.key_in_use",
        format!("the key {key} stands for a cell already, or did"),
    )
    .hint("make a new key: each stands for one member, and none is used twice")
}

/// A member's key is in force until the end of this epoch. One that never was, having been rotated to in this epoch, leaves no trace.
pub(super) fn retire(state: &mut dyn ModuleState, member: &Member, epoch: u64) -> Result<(), Fault> {
    let mut past: Vec<Past> = read(state, &name(&member.cell))?;
    let from = past.last().map_or(0, |last| last.until.saturating_add(1));
    if from > epoch {
        return Ok(());
    }
    past.push(Past { key: MemberKey::from_bytes(*member.signer().as_bytes()), from, until: epoch });
    if past.len() > KEYS_MAX {
        past.remove(0);
    }
    write(state, &name(&member.cell), &past);
    Ok(())
}

/// The public key that a member had in an epoch, as far as is remembered.
pub(super) fn signer_in(
    state: &dyn ModuleState,
    member: &Member,
    epoch: u64,
) -> Result<Option<CellId>, Fault> {
    let past: Vec<Past> = read(state, &name(&member.cell))?;
    if past.last().is_none_or(|last| last.until < epoch) {
        return Ok(Some(member.signer()));
    }
    let then = past.iter().find(|past| (past.from..=past.until).contains(&epoch));
    Ok(then.map(|past| CellId::from_bytes(*past.key.as_bytes())))
}
