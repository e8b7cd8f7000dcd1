//! What a module says where a call does not fit it: the same words for all modules.

use protocol::{Problem, ProblemKind};
use serde::Deserialize;
use serde_json::Value;

/// How much of an error's words is kept, in characters: they may repeat what a stranger sent, and stand in a receipt.
const CAUSE_CHARS_MAX: usize = 200;
/// How much of a name that nobody knows is shown, in characters.
const NAME_CHARS_MAX: usize = 40;

/// The calls of a module, as it tells of them.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// The module.
    pub module: &'static str,
    /// The code where the arguments do not fit: `MODULE.bad_args`.
    pub bad_args: &'static str,
    /// The code where there is no such call: `MODULE.unknown_call`.
    pub unknown: &'static str,
    /// Their names, as in `put, delete`.
    pub names: &'static str,
    /// What each takes.
    pub shapes: &'static str,
}

impl Calls {
    /// Reads a call's arguments.
    ///
    /// # Errors
    ///
    /// [`Self::bad_args`] with what does not fit, and what would.
    pub fn arguments<T: for<'a> Deserialize<'a>>(&self, args: &Value) -> Result<T, Problem> {
        T::deserialize(args).map_err(|error| {
            let brief: String = error.to_string().chars().take(CAUSE_CHARS_MAX).collect();
            let cause = format!("not arguments of this call: {brief}");
            Problem::new(ProblemKind::Invalid, self.bad_args, cause).hint(self.shapes)
        })
    }

    /// That there is no such call, and which there are.
    pub fn no_such(&self, call: &str) -> Problem {
        let shown: String = call.chars().take(NAME_CHARS_MAX).collect();
        let cause = format!("{} has no call {shown:?}", self.module);
        Problem::new(ProblemKind::NotFound, self.unknown, cause).hint(format!("one of {}", self.names))
    }
}
