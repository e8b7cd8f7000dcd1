//! The module `elected`: calls of apps that a committee carries out for all (DESIGN §9 rule 10, ADR 0023).
//!
//! Calls, in networks whose genesis has elected execution:
//!
//! - `request {app, call, args}`: asks for a call of an app. The transaction's id is the call's.
//! - `apply {call, app, reads, writes, words}`: what a call comes to ([`Execution`]), by anybody who has the words.
//!
//! # The life of a call
//!
//! 1. It **waits** until a block tells a value of the beacon that a later round than the call's has fixed, or one of a later epoch: the first such value. When
//!    the call was asked for, nobody knew it; so nobody chooses a call for a committee.
//! 2. That value draws its committee among the members who ordered that block ([`protocol::committee`]), of as few seats as make a faulty
//!    quorum as unlikely as 2⁻⁴⁰. Where the network does not allow so many, the call is executed by order. All this as the
//!    block begins, and it stands in the state: whoever reads `elected/call/ID` with its proof can draw the committee again.
//! 3. It is **applied** once: if words of a quorum of the seats hold, and all that was read is as it was.
//! 4. What is not applied `serve_blocks` blocks after the one that asked is executed by order from then on. It may be asked for anew, as another call.
//!    Once other members order blocks than those it was drawn among, it is not applied any more either.
//! 5. [`KEPT_BLOCKS`] later it is forgotten.
//!
//! # Keys
//!
//! `rules` as the genesis has them; `call/ID` a call ([`CallRecord`]); `asked/BLOCK` the calls of a block; `waits` the blocks whose calls wait
//! for a value; `size` how many seats it takes among the present members. What apps keep lies under `app/NAME/…`, which this module may touch.
//!
//! # Invariant
//!
//! A call that was applied stays so until it is forgotten.
//!
//! Absent: running apps, which is for whoever has a runtime; calls that read ranges of keys (what was read is told key by key); what a call
//! answers, other than by what it writes.

mod apply;
mod calls;

use machine::module::{Access, BlockContext, Change, Module, ModuleState, Outcome, TxContext};
use machine::{Calls, Fault};
use protocol::elected::{CallRecord, Execution, Path, bad_app, is_app};
use protocol::genesis::Genesis;
use protocol::{Problem, ProblemKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Calls that wait for a value at once.
pub const WAITING_MAX: u64 = 256;
/// Blocks for which a call is remembered once it can be applied no more.
pub const KEPT_BLOCKS: u64 = 4_096;
/// The longest name of a call, in bytes.
const CALL_BYTES_MAX: usize = 64;
/// What the module says where a call does not fit.
const CALLS: Calls = Calls {
    module: "elected",
    bad_args: "elected.bad_args",
    unknown: "elected.unknown_call",
    names: "request, apply",
    shapes: r#"request takes {"app":"…","call":"…","args":{…}}, apply takes {"call":"…","app":"…","reads":[…],"writes":[…],"words":[…]}"#,
};

/// The module.
#[derive(Clone, Copy, Debug)]
pub struct Elected;

/// What is asked of an app.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    app: String,
    call: String,
    /// The committee takes them out of the transaction, which the call's id stands for.
    #[serde(rename = "args")]
    _args: Value,
}

enum Call {
    Request(Asked),
    Apply(Box<Execution>),
}

impl Module for Elected {
    fn name(&self) -> &'static str {
        "elected"
    }

    fn genesis(&self, genesis: &Genesis, state: &mut dyn ModuleState) {
        if let Some(rules) = &genesis.elected {
            write(state, "rules", rules);
        }
    }

    fn check(&self, call: &str, args: &Value) -> Outcome {
        parse(call, args).map(|_| ())
    }

    /// Calls that ask have their list in common. Those that are applied have in common what they read and write.
    fn access(&self, context: &TxContext, call: &str, args: &Value) -> Option<Vec<Access>> {
        Some(match parse(call, args) {
            Ok(Call::Request(_)) => calls::access(context),
            Ok(Call::Apply(execution)) => apply::access(&execution),
            Err(_) => Vec::new(),
        })
    }

    fn touches_apps(&self) -> bool {
        true
    }

    fn begin(&self, block: &BlockContext<'_>, state: &mut dyn ModuleState) -> Result<(), Fault> {
        calls::begin(block, state)
    }

    fn execute(
        &self,
        context: &TxContext,
        call: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        match parse(call, args) {
            Ok(Call::Request(Asked { app, call, .. })) => calls::ask(context, app, call, state),
            Ok(Call::Apply(execution)) => apply::apply(context, &execution, state),
            Err(problem) => Ok(Err(problem)),
        }
    }

    fn check_invariants(&self, changes: &[Change]) -> Result<(), String> {
        let is_applied = |value: &[u8]| -> Result<bool, String> {
            let record: CallRecord = serde_json::from_slice(value).map_err(|error| error.to_string())?;
            Ok(matches!(record.path, Path::Applied { .. }))
        };
        for change in changes.iter().filter(|change| change.key.starts_with("call/")) {
            if let (Some(before), Some(after)) = (&change.before, &change.after)
                && is_applied(before)?
                && before != after
            {
                return Err(format!("{} was applied, and is something else now", change.key));
            }
        }
        Ok(())
    }
}

fn parse(call: &str, args: &Value) -> Result<Call, Problem> {
    match call {
        "request" => {
            let asked: Asked = CALLS.arguments(args)?;
            if !is_app(&asked.app) {
                return Err(bad_app(&asked.app));
            }
            if asked.call.is_empty() || asked.call.len() > CALL_BYTES_MAX {
                let cause = "the name of the call is empty, or longer than 64 bytes";
                return Err(Problem::new(ProblemKind::Invalid, "elected.bad_args", cause)
                    .hint("name a call of the app"));
            }
            Ok(Call::Request(asked))
        }
        "apply" => {
            let execution: Execution = CALLS.arguments(args)?;
            execution.check()?;
            Ok(Call::Apply(Box::new(execution)))
        }
        _ => Err(CALLS.no_such(call)),
    }
}

fn read<T: DeserializeOwned>(state: &dyn ModuleState, key: &str) -> Result<Option<T>, Fault> {
    let Some(value) = state.get(key)? else { return Ok(None) };
    let value = serde_json::from_slice(&value);
    value.map(Some).map_err(|error| Fault(format!("elected/{key} cannot be read: {error}")))
}

fn write<T: Serialize>(state: &mut dyn ModuleState, key: &str, value: &T) {
    // Structs of strings and numbers: they can always be written.
    state.put(key, serde_json::to_vec(value).unwrap_or_default());
}
