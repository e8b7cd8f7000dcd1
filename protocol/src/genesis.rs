//! A network's beginning: its members and first balances. Everything on a network signs its hash.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::elected::ElectedRules;
use crate::fees::FeeRules;
use crate::id::{CellId, GenesisHash, Hash, MemberKey};
use crate::members::MemberSet;

/// PRANA in a network's genesis, whole units.
pub const SUPPLY_PRANA: u64 = 1_000_000_000;
/// The most members a genesis may name.
pub const MEMBERS_MAX: usize = 1_000;
/// Rounds of an epoch unless the genesis says otherwise.
pub const EPOCH_ROUNDS: u64 = 8_192;
/// The fewest rounds an epoch may have.
pub const EPOCH_ROUNDS_MIN: u64 = 16;

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
    /// The key of its events, attestations and words for the beacon; the cell's own unless told.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<MemberKey>,
}

impl Member {
    /// A member that signs with its cell's own key.
    pub const fn new(cell: CellId, weight: u64) -> Self {
        Self { cell, weight, key: None }
    }

    /// The public key that its events, attestations and words for the beacon are checked by, as signatures name signers.
    pub fn signer(&self) -> CellId {
        self.key.map_or(self.cell, |key| CellId::from_bytes(*key.as_bytes()))
    }
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
    /// Rounds after which the hashgraph begins anew with an empty graph; [`EPOCH_ROUNDS`] unless told.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_rounds: Option<u64>,
    /// What transactions pay; nothing unless told.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fees: Option<FeeRules>,
    /// Rounds between two draws of the beacon, at least; no beacon unless told.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon_rounds: Option<u64>,
    /// How calls of apps are executed by committees; by order alone unless told. It takes a beacon.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elected: Option<ElectedRules>,
    /// Who decides on cells that ask to join; a vote unless told.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinPolicy>,
}

/// Who decides whether a cell that asks to join becomes a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum JoinPolicy {
    /// Members of more than two thirds of the weight.
    #[default]
    #[n(0)]
    Vote,
    /// Any one member. So each of them can bring in as many as it likes, liars too: for members of one operator.
    #[n(1)]
    Sponsor,
    /// Nobody: nobody joins.
    #[n(2)]
    Closed,
}

impl Genesis {
    /// A network of one, which owns the whole supply.
    pub fn solo(name: &str, created_ms: u64, cell: CellId) -> Self {
        Self {
            name: name.to_owned(),
            created_ms,
            members: vec![Member::new(cell, 1)],
            allocations: vec![Allocation { cell, amount: Amount::from_prana(SUPPLY_PRANA) }],
            epoch_rounds: None,
            beacon_rounds: None,
            fees: None,
            elected: None,
            join: None,
        }
    }

    /// A network of equals, who share the supply equally; the first has what does not divide.
    pub fn of_equals(name: &str, created_ms: u64, cells: &[CellId]) -> Self {
        let share = SUPPLY_PRANA.checked_div(cells.len() as u64).unwrap_or(0);
        let rest = SUPPLY_PRANA - share * cells.len() as u64;
        let allocation = |(place, cell): (usize, &CellId)| Allocation {
            cell: *cell,
            amount: Amount::from_prana(if place == 0 { share + rest } else { share }),
        };
        Self {
            name: name.to_owned(),
            created_ms,
            members: cells.iter().map(|cell| Member::new(*cell, 1)).collect(),
            allocations: cells.iter().enumerate().map(allocation).collect(),
            epoch_rounds: None,
            beacon_rounds: None,
            fees: None,
            elected: None,
            join: None,
        }
    }

    /// Rounds after which the hashgraph begins anew with an empty graph.
    pub fn epoch_rounds(&self) -> u64 {
        self.epoch_rounds.unwrap_or(EPOCH_ROUNDS)
    }

    /// Whether the state keeps who orders its blocks: where something depends on it.
    pub fn keeps_members(&self) -> bool {
        self.elected.is_some() || self.fees.as_ref().is_some_and(|fees| fees.share_blocks.is_some())
    }

    /// The members of the first epoch.
    pub fn member_set(&self) -> MemberSet {
        MemberSet::new(self.members.clone())
    }

    /// BLAKE3 over the genesis's CBOR.
    pub fn hash(&self) -> GenesisHash {
        GenesisHash::from_bytes(*blake3::hash(&crate::codec::encode(self)).as_bytes())
    }

    /// BLAKE3 over the members' CBOR.
    pub fn members_hash(&self) -> Hash {
        self.member_set().hash()
    }

    /// The supply: the sum of all allocations; `None` if it overflows.
    pub fn supply(&self) -> Option<Amount> {
        self.allocations.iter().try_fold(Amount::ZERO, |sum, entry| sum.checked_add(entry.amount))
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
        if self.beacon_rounds == Some(0) {
            return fail("a beacon draws every round at most".to_owned());
        }
        if self.epoch_rounds() < EPOCH_ROUNDS_MIN {
            return fail(format!("an epoch has at least {EPOCH_ROUNDS_MIN} rounds"));
        }
        if let Some(Err(why)) = self.fees.as_ref().map(FeeRules::check) {
            return fail(why);
        }
        if let Some(Err(why)) = self.elected.as_ref().map(ElectedRules::check) {
            return fail(why);
        }
        if self.elected.is_some() && self.beacon_rounds.is_none() {
            return fail("committees are drawn by a beacon, and it has none: beacon_rounds".to_owned());
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
        if let Some(why) = self.member_set().bad_key() {
            return fail(why);
        }
        match self.supply() {
            Some(_) => Ok(()),
            None => fail("the allocations overflow".to_owned()),
        }
    }
}
