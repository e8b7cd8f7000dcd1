//! What a call comes to is put down, if a quorum of its committee says so and all that it read is as it was.
//!
//! Signatures are checked last, and no further than to the first that does not hold: what could not be applied anyway costs the members little.

use std::collections::BTreeSet;

use machine::Fault;
use machine::module::{Access, ModuleState, Outcome, TxContext};
use protocol::committee::{Seat, quorum};
use protocol::elected::{CallRecord, Execution, Fallback, Path, version};
use protocol::{Hash, Problem, ProblemKind, signing};

use super::calls::call_key;
use super::{read, write};

pub(super) fn access(execution: &Execution) -> Vec<Access> {
    let reads = execution.reads.iter().map(|read| Access::Read(read.key.clone()));
    let writes = execution.writes.iter().map(|write| Access::Write(write.key.clone()));
    let call = Access::Write(call_key(&execution.call));
    std::iter::once(call).chain(reads).chain(writes).collect()
}

pub(super) fn apply(
    context: &TxContext,
    execution: &Execution,
    state: &mut dyn ModuleState,
) -> Result<Outcome, Fault> {
    let key = call_key(&execution.call);
    let Some(record) = read::<CallRecord>(state, &key)? else { return Ok(Err(no_such_call())) };
    if record.app != execution.app {
        return Ok(Err(other_app(&record.app)));
    }
    let committee = match &record.path {
        Path::Elected { members, committee, .. } if *members == context.members => committee,
        Path::Elected { .. } => return Ok(Err(members_changed())),
        other => return Ok(Err(not_elected(other))),
    };
    for read in &execution.reads {
        let now = state.get(&read.key)?.map(|value| version(&value));
        if now != read.version {
            return Ok(Err(stale(&read.key, now)));
        }
    }
    if let Err(problem) = check_words(context, execution, committee) {
        return Ok(Err(problem));
    }
    for write in &execution.writes {
        match &write.value {
            Some(value) => state.put(&write.key, value.0.clone()),
            None => state.delete(&write.key),
        }
    }
    write(state, &key, &CallRecord { path: Path::Applied { block: context.index }, ..record });
    Ok(Ok(()))
}

/// Whether a quorum of the seats says so: each word a member's of the committee, each member's once, and all of them hold.
fn check_words(context: &TxContext, execution: &Execution, committee: &[Seat]) -> Result<(), Problem> {
    let (mut seen, mut said) = (BTreeSet::new(), 0);
    for word in &execution.words {
        match committee.iter().find(|seat| seat.member == word.member) {
            Some(seat) if seen.insert(word.member) => said += seat.seats,
            _ => return Err(bad_word(&format!("{} has no seat, or has said so before", word.member))),
        }
    }
    let quorum = quorum(committee.iter().map(|seat| seat.seats).sum());
    if said < quorum {
        let cause = format!("words for {said} seats were given, {quorum} are a quorum");
        return Err(Problem::new(ProblemKind::Denied, "elected.no_quorum", cause)
            .hint("gather more of the committee's words"));
    }
    let text = execution.signed_text(&context.genesis);
    match execution.words.iter().find(|word| !signing::verify(&word.member, &text, &word.signature)) {
        Some(word) => Err(bad_word(&format!("the signature of {} does not hold", word.member))),
        None => Ok(()),
    }
}

fn no_such_call() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "elected.no_such_call",
        "no such call was asked for, or it was forgotten",
    )
    .hint("ask for it: elected.request")
}

fn other_app(app: &str) -> Problem {
    Problem::new(ProblemKind::Denied, "elected.not_its_keys", format!("the call is one of the app {app}"))
        .hint(format!("an app's keys begin with app/{app}/"))
}

fn members_changed() -> Problem {
    let cause = "the committee was drawn among members that are no longer those in force";
    Problem::new(ProblemKind::Conflict, "elected.members_changed", cause)
        .hint("ask for the call anew, or have it executed by order")
}

fn not_elected(path: &Path) -> Problem {
    let problem = |code, cause: &str| Problem::new(ProblemKind::Conflict, code, cause);
    match path {
        Path::Applied { block } => problem("elected.applied", &format!("it was applied in block {block}")),
        Path::Ordered { why: Fallback::CommitteeTooSmall } => {
            problem("elected.committee_too_small", "no committee that the network allows is safe enough")
                .hint("it is executed by order")
        }
        Path::Ordered { why: Fallback::Late } => problem("elected.late", "it was not served in time")
            .hint("it is executed by order, or asked for anew"),
        Path::Waits | Path::Elected { .. } => problem("elected.not_drawn", "its committee is not drawn yet")
            .hint("wait for a block with a value of the beacon"),
    }
}

fn stale(key: &str, now: Option<Hash>) -> Problem {
    let now = now.map_or_else(|| "has no value".to_owned(), |now| format!("has the version {now}"));
    Problem::new(ProblemKind::Conflict, "elected.stale_read", format!("{key:?} was read and {now} by now"))
        .hint("the committee may carry the call out again")
}

fn bad_word(cause: &str) -> Problem {
    Problem::new(ProblemKind::Denied, "elected.bad_word", cause).hint("leave it out, and gather another one")
}
