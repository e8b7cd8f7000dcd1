//! Calls from being asked for to being drawn, and what becomes of those that are late. The work at the beginning of a block is bounded by
//! [`WAITING_MAX`] calls drawn, and the calls of one block each that are late and forgotten.

use machine::Fault;
use machine::module::{Access, BlockContext, ModuleState, Outcome, TxContext};
use protocol::beacon::Drawn;
use protocol::committee::{draw, seats_needed};
use protocol::elected::{CallRecord, ElectedRules, Fallback, Path};
use protocol::{BlockIndex, Hash, Problem, ProblemKind, TxId};
use serde::{Deserialize, Serialize};

use super::{KEPT_BLOCKS, WAITING_MAX, read, write};

/// A block whose calls wait for a value.
#[derive(Serialize, Deserialize)]
struct Waits {
    block: BlockIndex,
    calls: u64,
    epoch: u64,
    round: u64,
}

/// How many seats it takes.
#[derive(Serialize, Deserialize)]
struct Size {
    /// Among these members.
    members: Hash,
    /// None if no committee that is allowed will do.
    seats: Option<u64>,
}

pub(super) fn call_key(call: &TxId) -> String {
    format!("call/{call}")
}

fn asked_key(block: BlockIndex) -> String {
    format!("asked/{block}")
}

pub(super) fn access(context: &TxContext) -> Vec<Access> {
    vec![
        Access::Read("rules".to_owned()),
        Access::Write("waits".to_owned()),
        Access::Write(asked_key(context.index)),
        Access::Write(call_key(&context.id)),
    ]
}

/// Takes a call in.
pub(super) fn ask(
    context: &TxContext,
    app: String,
    call: String,
    state: &mut dyn ModuleState,
) -> Result<Outcome, Fault> {
    if read::<ElectedRules>(state, "rules")?.is_none() {
        let cause = "this network has no elected execution";
        return Ok(Err(Problem::new(ProblemKind::Unavailable, "elected.off", cause)
            .hint("its genesis would say so; calls are executed by order")));
    }
    let mut waits: Vec<Waits> = read(state, "waits")?.unwrap_or_default();
    if waits.iter().map(|waits| waits.calls).sum::<u64>() >= WAITING_MAX {
        let cause = format!("{WAITING_MAX} calls wait for a committee already");
        return Ok(Err(Problem::new(ProblemKind::Busy, "elected.busy", cause)
            .hint("ask again in a few blocks, or have it executed by order")));
    }
    match waits.last_mut().filter(|waits| waits.block == context.index) {
        Some(waits) => waits.calls += 1,
        None => {
            let TxContext { index: block, epoch, round, .. } = *context;
            waits.push(Waits { block, calls: 1, epoch, round });
        }
    }
    write(state, "waits", &waits);
    let key = asked_key(context.index);
    let mut asked: Vec<TxId> = read(state, &key)?.unwrap_or_default();
    asked.push(context.id);
    write(state, &key, &asked);
    let (asked, sender) = (context.index, context.sender);
    write(state, &call_key(&context.id), &CallRecord { app, asked, call, sender, path: Path::Waits });
    Ok(Ok(()))
}

/// What the beginning of a block does to the calls of those before it.
pub(super) fn begin(block: &BlockContext<'_>, state: &mut dyn ModuleState) -> Result<(), Fault> {
    let Some(rules) = read::<ElectedRules>(state, "rules")? else { return Ok(()) };
    let late = block.index.0.checked_sub(rules.serve_blocks.saturating_add(1));
    let forgotten = late.and_then(|late| late.checked_sub(KEPT_BLOCKS));
    if let Some(late) = late {
        let why = Fallback::Late;
        change(state, BlockIndex(late), |_, path| {
            matches!(path, Path::Waits | Path::Elected { .. }).then_some(Path::Ordered { why })
        })?;
    }
    if let Some(forgotten) = forgotten {
        forget(state, BlockIndex(forgotten))?;
    }
    let Some(waits) = read::<Vec<Waits>>(state, "waits")? else { return Ok(()) };
    let (count, mut left) = (waits.len(), Vec::new());
    for one in waits {
        if late.is_some_and(|late| one.block.0 <= late) {
            continue;
        }
        let seats = size(block, &rules, state)?;
        match (seats, block.beacon.filter(|drawn| is_after(&one, block.epoch, drawn))) {
            (None, _) => {
                let why = Fallback::CommitteeTooSmall;
                change(state, one.block, |_, _| Some(Path::Ordered { why }))?;
            }
            (Some(seats), Some(drawn)) => {
                let (epoch, members) = (block.epoch, block.members.hash());
                change(state, one.block, |call, _| {
                    let committee = draw(&drawn.value, call, block.members, seats);
                    Some(Path::Elected { epoch, drawn, members, committee })
                })?;
            }
            (Some(_), None) => left.push(one),
        }
    }
    if left.is_empty() {
        state.delete("waits");
    } else if left.len() < count {
        write(state, "waits", &left);
    }
    Ok(())
}

/// Whether nobody knew the value when the round of these calls was over.
fn is_after(waits: &Waits, epoch: u64, drawn: &Drawn) -> bool {
    epoch > waits.epoch || epoch == waits.epoch && drawn.fixed.is_some_and(|fixed| fixed > waits.round)
}

/// How many seats it takes now; counted once for each set of members.
fn size(
    block: &BlockContext<'_>,
    rules: &ElectedRules,
    state: &mut dyn ModuleState,
) -> Result<Option<u64>, Fault> {
    let members = block.members.hash();
    if let Some(size) = read::<Size>(state, "size")?.filter(|size| size.members == members) {
        return Ok(size.seats);
    }
    let seats = seats_needed(block.members, rules.seats_max());
    write(state, "size", &Size { members, seats });
    Ok(seats)
}

/// Sets the calls of a block on another path, those for which one is given.
fn change(
    state: &mut dyn ModuleState,
    block: BlockIndex,
    path: impl Fn(&TxId, &Path) -> Option<Path>,
) -> Result<(), Fault> {
    for call in read::<Vec<TxId>>(state, &asked_key(block))?.unwrap_or_default() {
        let key = call_key(&call);
        let Some(record) = read::<CallRecord>(state, &key)? else {
            return Err(Fault(format!("the call {call} is listed and not there")));
        };
        if let Some(path) = path(&call, &record.path) {
            write(state, &key, &CallRecord { path, ..record });
        }
    }
    Ok(())
}

/// Removes the calls of a block.
fn forget(state: &mut dyn ModuleState, block: BlockIndex) -> Result<(), Fault> {
    let key = asked_key(block);
    let Some(calls) = read::<Vec<TxId>>(state, &key)? else { return Ok(()) };
    for call in calls {
        state.delete(&call_key(&call));
    }
    state.delete(&key);
    Ok(())
}
