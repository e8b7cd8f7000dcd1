//! Versions of the rules that blocks are executed under: modules, tree, fees, guest runtime.
//!
//! A network begins under version [`FIRST`]. Its members vote for the next one (module `members`, call `activate`); what is carried stands in the
//! state under [`RULES_KEY`], and is in force from the next epoch on, as members are. Where nothing stands there, the first is in force.
//! Which versions a build has is known to its machines (`machine::module::RuleSets`).

use serde::{Deserialize, Serialize};

use crate::{Problem, ProblemKind};

/// The version that a network begins under.
pub const FIRST: u64 = 1;
/// Where the state holds the version that is in force from the next epoch on.
pub const RULES_KEY: &str = "members/rules";

/// What the state holds under [`RULES_KEY`], as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activated {
    /// The version.
    pub version: u64,
    /// The epoch in which the votes for it carried: it is in force from the next one on.
    pub epoch: u64,
}

/// The version that is in force from the next epoch on, by what the state holds under [`RULES_KEY`].
///
/// # Errors
///
/// `rules.unreadable`.
pub fn version_in(value: Option<&[u8]>) -> Result<u64, Problem> {
    let Some(value) = value else { return Ok(FIRST) };
    let activated: Activated = serde_json::from_slice(value).map_err(|error| {
        Problem::new(
            ProblemKind::Fault,
            "rules.unreadable",
            format!("the rules version in the state: {error}"),
        )
    })?;
    Ok(activated.version)
}
