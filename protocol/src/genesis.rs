//! A network's beginning: its members and first balances. Everything on a network signs its hash.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::id::{CellId, GenesisHash, Hash};

/// PRANA in a network's genesis, whole units.
pub const SUPPLY_PRANA: u64 = 1_000_000_000;
/// The most members a genesis may name.
pub const MEMBERS_MAX: usize = 1_000;

/// One member and its weight in votes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The member.
    #[n(0)]
    pub cell: CellId,
    /// Its weight, at least 1 and at most 1 000 000.
    #[n(1)]
    pub weight: u64,
}

/// One account's first balance.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// Whose.
    #[n(0)]
    pub cell: CellId,
    /// How much PRANA.
    #[n(1)]
    pub amount: Amount,
}

/// A genesis: the content of `genesis.json`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// A name for people; part of the hash.
    #[n(0)]
    pub name: String,
    /// When it was made, in milliseconds since 1970 (UTC); makes two networks of one name differ.
    #[n(1)]
    pub created_ms: u64,
    /// The members, each once.
    #[n(2)]
    pub members: Vec<Member>,
    /// First balances, each account once; together they are the supply.
    #[n(3)]
    pub allocations: Vec<Allocation>,
}

impl Genesis {
    /// A network of one, which owns the whole supply.
    pub fn solo(name: &str, created_ms: u64, cell: CellId) -> Self {
        Self {
            name: name.to_owned(),
            created_ms,
            members: vec![Member { cell, weight: 1 }],
            allocations: vec![Allocation { cell, amount: Amount::from_prana(SUPPLY_PRANA) }],
        }
    }

    /// BLAKE3 over the genesis's CBOR.
    pub fn hash(&self) -> GenesisHash {
        GenesisHash::from_bytes(*blake3::hash(&crate::codec::encode(self)).as_bytes())
    }

    /// BLAKE3 over the members' CBOR.
    pub fn members_hash(&self) -> Hash {
        Hash::of(&crate::codec::encode(&self.members))
    }

    /// The supply: the sum of all allocations; `None` if it overflows.
    pub fn supply(&self) -> Option<Amount> {
        self.allocations.iter().try_fold(Amount::ZERO, |sum, entry| sum.checked_add(entry.amount))
    }

    /// A cell's weight; 0 for a stranger.
    pub fn weight_of(&self, cell: &CellId) -> u64 {
        self.members.iter().find(|member| member.cell == *cell).map_or(0, |member| member.weight)
    }

    /// The sum of all weights.
    pub fn weight_total(&self) -> u64 {
        self.members.iter().map(|member| member.weight).sum()
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// `genesis.invalid` with the reason.
    pub fn check(&self) -> Result<(), crate::Problem> {
        let fail = |why: String| {
            Err(crate::Problem::new(crate::ProblemKind::Invalid, "genesis.invalid", why)
                .hint("compare it with the genesis.json of another cell of this network"))
        };
        if self.members.is_empty() || self.members.len() > MEMBERS_MAX {
            return fail(format!(
                "a network has 1 to {MEMBERS_MAX} members, this one {}",
                self.members.len()
            ));
        }
        if let Some(bad) = self.members.iter().find(|member| !(1..=1_000_000).contains(&member.weight)) {
            return fail(format!("the weight of {} is {}", bad.cell, bad.weight));
        }
        let once = |mut cells: Vec<CellId>| {
            let count = cells.len();
            cells.sort_unstable();
            cells.dedup();
            cells.len() == count
        };
        if !once(self.members.iter().map(|member| member.cell).collect())
            || !once(self.allocations.iter().map(|entry| entry.cell).collect())
        {
            return fail("a cell is named twice".to_owned());
        }
        match self.supply() {
            Some(_) => Ok(()),
            None => fail("the allocations overflow".to_owned()),
        }
    }
}
