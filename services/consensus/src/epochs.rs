//! The members of each epoch, and the version of the rules.
//!
//! Rules:
//!
//! - The genesis's members are those of the first epoch, and of each after it until a change is recorded.
//! - The version of the rules is handed on the same way: a change of it is recorded as a change of members is, though they may stay. It
//!   stands in the head, since nothing is ordered in an epoch that is over.
//! - A change is recorded between two epochs alone: every block of the epoch before is final here by then, so its last state
//!   says who comes next. No vote and no word is ever counted by two sets.
//! - Words that are kept when a change is recorded are dropped: they were checked by the keys of the set before, and none of them is for
//!   a block before.
//! - With a change its proof is kept: a client that trusts the genesis alone learns each set from the one before.

use machine::{Fault, Read, Write, answer, commit, refuse};
use protocol::consensus::{Answer, EnterRequest};
use protocol::genesis::MEMBERS_MAX;
use protocol::members::{Handoff, MemberSet, SET_KEY};
use protocol::rules::{FIRST, RULES_KEY, version_in};
use protocol::shared::Empty;
use protocol::state::KeyProof;

use crate::tables::{self, EPOCHS, EpochRow, Head};
use crate::{ConsensusMachine, Decided, Record, Refusal, finality};

/// The members that an epoch has or, where it has not begun here, would have without another change.
pub(crate) fn members_of(
    machine: &ConsensusMachine,
    view: &dyn Read,
    epoch: u64,
) -> Result<MemberSet, Fault> {
    let before = epoch.saturating_add(1);
    match EPOCHS.scan(view, &(), Some(&before), true).next().transpose()? {
        Some((_, row)) => Ok(row.members),
        None => Ok(machine.genesis.member_set()),
    }
}

/// The members that ordered a block, or would order one that is not here yet.
pub(crate) fn members_at(
    machine: &ConsensusMachine,
    view: &dyn Read,
    head: &Head,
    block: u64,
) -> Result<MemberSet, Fault> {
    let epoch = if block < head.ordered { tables::block(view, block)?.header.epoch } else { head.epoch };
    members_of(machine, view, epoch)
}

/// What leads from the genesis's members to those of an epoch.
pub(crate) fn handoffs(view: &dyn Read, epoch: u64) -> Result<Vec<Handoff>, Fault> {
    let rows = EPOCHS.scan(view, &(), None, false);
    let until = rows.take_while(|row| row.as_ref().is_ok_and(|(of, _)| *of <= epoch));
    until.map(|row| row.map(|(_, row)| row.handoff)).collect()
}

pub(crate) fn enter(machine: &ConsensusMachine, view: &dyn Read, asked: EnterRequest) -> Decided {
    let EnterRequest { epoch, members, proof, rules } = asked;
    let head = Head::read(view)?;
    if let Some(index) = head.diverged {
        return refuse(Refusal::Diverged { index });
    }
    let Some(version) = version_of(&rules).filter(|version| *version >= head.rules()) else {
        return refuse(Refusal::BadRules);
    };
    let is_present = members == members_of(machine, view, head.epoch)? && version == head.rules();
    if epoch <= head.epoch || is_present {
        return if is_present {
            answer(Answer::Enter(Empty {}))
        } else {
            refuse(Refusal::EpochBegun { epoch })
        };
    }
    if head.finalised < head.ordered || head.ordered == 0 {
        return refuse(Refusal::EpochOpen { epoch: head.epoch });
    }
    let last = tables::block(view, head.ordered - 1)?;
    let stands = |proof: &KeyProof, key: &str| {
        Some(proof.root) == last.root && proof.index == Some(last.header.index) && proof.key == key
    };
    let named = Some(hex::encode(members.to_state()));
    let are_members = stands(&proof, SET_KEY) && proof.value == named;
    if !are_members || !(1..=MEMBERS_MAX).contains(&members.all().len()) {
        return refuse(Refusal::BadMembers);
    }
    if !stands(&rules, RULES_KEY) {
        return refuse(Refusal::BadRules);
    }
    let handoff = Handoff { header: last.header, attestations: last.attestations, proof };
    let rules = Some(version).filter(|version| *version != FIRST);
    commit(vec![Record::Epoch { epoch, members, handoff, rules }], Answer::Enter(Empty {}))
}

/// The version of the rules that the state names.
fn version_of(proof: &KeyProof) -> Option<u64> {
    let value = proof.value.as_ref().map(hex::decode).transpose().ok()?;
    version_in(value.as_deref()).ok()
}

pub(crate) fn take_epoch(
    view: &mut dyn Write,
    head: &mut Head,
    epoch: u64,
    members: &MemberSet,
    handoff: &Handoff,
) -> Result<(), Fault> {
    head.enter(epoch, head.ordered);
    EPOCHS.put(view, &epoch, &EpochRow { members: members.clone(), handoff: handoff.clone() });
    finality::drop_words(view, None)
}
