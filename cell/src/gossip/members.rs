//! Who the members are, by cell and by place.

use std::collections::HashMap;

use consensus::hashgraph::MemberIndex;
use protocol::CellId;
use protocol::genesis::Member;

/// The members of an epoch.
#[derive(Clone, Debug)]
pub struct Members {
    all: Vec<Member>,
    places: HashMap<CellId, MemberIndex>,
}

impl Members {
    /// Members in the order of their list.
    pub fn new(all: &[Member]) -> Self {
        let places = (0u16..).zip(all).map(|(place, member)| (member.cell, MemberIndex(place))).collect();
        Self { all: all.to_vec(), places }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Their weights.
    pub fn weights(&self) -> Vec<u64> {
        self.all.iter().map(|member| member.weight).collect()
    }

    /// The place of a cell; none of a stranger's.
    pub fn place(&self, cell: &CellId) -> Option<MemberIndex> {
        self.places.get(cell).copied()
    }

    /// The cell of a place.
    pub fn cell(&self, place: MemberIndex) -> Option<CellId> {
        self.all.get(usize::from(place.0)).map(|member| member.cell)
    }

    /// The weight of so many cells together, each counted once.
    pub fn weight<'a>(&self, cells: impl IntoIterator<Item = &'a CellId>) -> u64 {
        let weight =
            |place: &MemberIndex| self.all.get(usize::from(place.0)).map_or(0, |member| member.weight);
        cells.into_iter().filter_map(|cell| self.places.get(cell)).map(weight).sum()
    }

    /// All weight.
    pub fn weight_total(&self) -> u64 {
        self.all.iter().map(|member| member.weight).sum()
    }

    /// Whether so much weight is more than two thirds.
    pub fn is_supermajority(&self, weight: u64) -> bool {
        u128::from(weight) * 3 > u128::from(self.weight_total()) * 2
    }

    /// Whether so much weight is more than a third: not all of it can be faulty.
    pub fn has_honest(&self, weight: u64) -> bool {
        u128::from(weight) * 3 > u128::from(self.weight_total())
    }
}
