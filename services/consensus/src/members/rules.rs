//! Votes for the next version of the rules (ADR 0022).
//!
//! Rules:
//!
//! - Versions rise by one. Once members of more than two thirds of the weight have voted for the next, it is in force from the next epoch on.
//! - Until that epoch has begun, nobody votes for the one after: no version is passed over.
//!
//! A cell votes only for what its own build has; the module cannot know, the cell refuses ([`activates`]).

use machine::Fault;
use machine::module::{ModuleState, Outcome, TxContext};
use protocol::genesis::Member;
use protocol::rules::{Activated, FIRST};
use protocol::transaction::Transaction;
use protocol::{CellId, Problem, ProblemKind};
use serde::Deserialize;

use super::{NAME, is_carried, may_vote, read, write};

/// The arguments of `activate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Activate {
    pub(super) rules: u64,
}

/// The version of the rules that a transaction votes for, if it does.
pub fn activates(transaction: &Transaction) -> Option<u64> {
    let is_vote = transaction.module == NAME && transaction.call == "activate";
    let asked: Option<Activate> = is_vote.then(|| serde_json::from_str(&transaction.args).ok()).flatten();
    asked.map(|asked| asked.rules)
}

pub(super) fn activate(
    context: &TxContext,
    state: &mut dyn ModuleState,
    set: &[Member],
    asked: u64,
) -> Result<Outcome, Fault> {
    if let Err(problem) = may_vote(set, &context.sender) {
        return Ok(Err(problem));
    }
    let now: Option<Activated> = read(state, "rules")?;
    if let Some(now) = now.filter(|now| now.epoch >= context.epoch) {
        let cause = format!("version {} is in force from the next epoch on", now.version);
        return Ok(Err(Problem::new(ProblemKind::Conflict, "members.rules_changing", cause)
            .hint("vote for the one after it when that epoch has begun")));
    }
    let next = now.map_or(FIRST, |now| now.version).saturating_add(1);
    if asked != next {
        let cause = format!("the next version of the rules is {next}");
        return Ok(Err(Problem::new(ProblemKind::Conflict, "members.other_rules", cause).hint(
            "versions are activated one after the other: cell consensus tells which one is in force",
        )));
    }
    let mut votes: Vec<CellId> = read(state, "activation")?;
    if !votes.contains(&context.sender) {
        votes.push(context.sender);
    }
    if is_carried(set, &votes) {
        write(state, "rules", &Activated { version: next, epoch: context.epoch });
        state.delete("activation");
    } else {
        write(state, "activation", &votes);
    }
    Ok(Ok(()))
}

/// Versions rise by one.
pub(super) fn check(before: Option<&[u8]>, after: Option<&[u8]>) -> Result<(), String> {
    let version = |value| protocol::rules::version_in(value).map_err(|problem| problem.to_string());
    let (before, after) = (version(before)?, version(after)?);
    if after == before.saturating_add(1) {
        Ok(())
    } else {
        Err(format!("the rules go from version {before} to {after}"))
    }
}
