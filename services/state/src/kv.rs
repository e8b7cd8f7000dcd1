//! The module `kv`: strings by key. Whoever writes a key first owns it.
//!
//! Calls: `put {key, value}`, `delete {key}`. Only the owner may overwrite or delete; a deleted key is
//! anybody's. The value is kept as it was given, the owner's did beside it as `@KEY`; so no key begins
//! with `@`.

use machine::module::{Access, Change, Module, ModuleState, Outcome, TxContext};
use machine::{Calls, Fault};
use protocol::genesis::Genesis;
use protocol::{Problem, ProblemKind};
use serde::Deserialize;
use serde_json::Value;

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// What it says where a call does not fit.
const CALLS: Calls = Calls {
    module: "kv",
    bad_args: "kv.bad_args",
    unknown: "kv.unknown_call",
    names: "put, delete",
    shapes: r#"put takes {"key":"…","value":"…"}, delete takes {"key":"…"}; all strings"#,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    key: String,
}

enum Call {
    Put(Put),
    Delete(Delete),
}

/// The module.
#[derive(Clone, Copy, Debug)]
pub struct Kv;

impl Module for Kv {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn genesis(&self, _: &Genesis, _: &mut dyn ModuleState) {}

    fn check(&self, call: &str, args: &Value) -> Outcome {
        parse(call, args).map(|_| ())
    }

    /// The key and its owner; nothing where the arguments are none.
    fn access(&self, _: &TxContext, call: &str, args: &Value) -> Option<Vec<Access>> {
        let keys = |call: Call| {
            let (Call::Put(Put { key, .. }) | Call::Delete(Delete { key })) = call;
            vec![Access::Write(format!("@{key}")), Access::Write(key)]
        };
        Some(parse(call, args).map(keys).unwrap_or_default())
    }

    fn execute(
        &self,
        context: &TxContext,
        call: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        let call = match parse(call, args) {
            Ok(call) => call,
            Err(problem) => return Ok(Err(problem)),
        };
        let (Call::Put(Put { key, .. }) | Call::Delete(Delete { key })) = &call;
        let owner_key = format!("@{key}");
        let sender = context.sender.to_string().into_bytes();
        let owner = state.get(&owner_key)?;
        if owner.as_ref().is_some_and(|owner| *owner != sender) {
            return Ok(Err(Problem::new(
                ProblemKind::Denied,
                "kv.not_owner",
                format!("the key {key:?} belongs to another cell"),
            )
            .hint("choose another key")));
        }
        match call {
            Call::Put(put) => {
                state.put(&put.key, put.value.into_bytes());
                state.put(&owner_key, sender);
            }
            Call::Delete(delete) if owner.is_none() => {
                return Ok(Err(Problem::new(
                    ProblemKind::NotFound,
                    "kv.no_such_key",
                    format!("there is no key {:?}", delete.key),
                )
                .hint("cell state list --prefix kv/ shows the keys")));
            }
            Call::Delete(delete) => {
                state.delete(&delete.key);
                state.delete(&owner_key);
            }
        }
        Ok(Ok(()))
    }

    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

fn parse(call: &str, args: &Value) -> Result<Call, Problem> {
    let call = match call {
        "put" => Call::Put(CALLS.arguments(args)?),
        "delete" => Call::Delete(CALLS.arguments(args)?),
        _ => return Err(CALLS.no_such(call)),
    };
    let (Call::Put(Put { key, .. }) | Call::Delete(Delete { key })) = &call;
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.starts_with('@') {
        return Err(Problem::new(ProblemKind::Invalid, "kv.bad_key", "the key cannot be used".to_owned())
            .hint("1 to 256 bytes, not beginning with '@'"));
    }
    if let Call::Put(put) = &call
        && put.value.len() > VALUE_BYTES_MAX
    {
        return Err(Problem::new(
            ProblemKind::TooLarge,
            "kv.value_too_large",
            "the value is too large".to_owned(),
        )
        .hint("at most 65536 bytes"));
    }
    Ok(call)
}
