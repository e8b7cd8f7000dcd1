//! The six services, and the order in which they depend on each other.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{Problem, ProblemKind};

/// One of the six services of a cell.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The cell's manifest, grants, tokens, configuration, health.
    #[n(0)]
    Nucleus,
    /// Contacts, access lists, sessions, trust.
    #[n(1)]
    Identity,
    /// Every message in and out.
    #[n(2)]
    Message,
    /// The replicated state machine's applied blocks.
    #[n(3)]
    State,
    /// The order of transactions.
    #[n(4)]
    Consensus,
    /// Balances, offers, leases.
    #[n(5)]
    Market,
}

impl Service {
    /// All six, in start order: each comes after those it depends on. Stop order is the reverse.
    pub const ALL: [Self; 6] =
        [Self::Nucleus, Self::Identity, Self::State, Self::Consensus, Self::Market, Self::Message];

    /// Lower-case name: the journal's folder and the first half of its actions' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nucleus => "nucleus",
            Self::Identity => "identity",
            Self::Message => "message",
            Self::State => "state",
            Self::Consensus => "consensus",
            Self::Market => "market",
        }
    }

    /// What has to run before this one can.
    pub const fn depends_on(self) -> &'static [Self] {
        match self {
            Self::Nucleus => &[],
            Self::Identity => &[Self::Nucleus],
            Self::State => &[Self::Nucleus],
            Self::Consensus => &[Self::Nucleus, Self::State],
            Self::Market => &[Self::Nucleus, Self::State],
            Self::Message => &[Self::Nucleus, Self::Identity, Self::Consensus, Self::State],
        }
    }

    /// A dense number, 0 to 5, for tables indexed by service.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|service| service.name() == text).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            Problem::new(ProblemKind::Invalid, "id.bad_service", format!("there is no service {shown:?}"))
                .hint("one of nucleus, identity, message, state, consensus, market")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_order_respects_every_dependency() {
        for (position, service) in Service::ALL.iter().enumerate() {
            for needed in service.depends_on() {
                assert!(Service::ALL[..position].contains(needed), "{service} starts before {needed}");
            }
        }
    }
}
