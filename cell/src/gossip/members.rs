//! The members of an epoch, by cell and by place.

use std::collections::HashMap;

use consensus::hashgraph::MemberIndex;
use protocol::CellId;
use protocol::members::MemberSet;

/// The members of an epoch.
#[derive(Clone, Debug)]
pub struct Members {
    set: MemberSet,
    places: HashMap<CellId, MemberIndex>,
}

impl Members {
    /// Members in the order of their set.
    pub fn new(set: MemberSet) -> Self {
        let places =
            (0u16..).zip(set.all()).map(|(place, member)| (member.cell, MemberIndex(place))).collect();
        Self { set, places }
    }

    /// Who they are.
    pub fn set(&self) -> &MemberSet {
        &self.set
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.set.all().len()
    }

    /// Their weights.
    pub fn weights(&self) -> Vec<u64> {
        self.set.all().iter().map(|member| member.weight).collect()
    }

    /// The place of a cell; none of a stranger's.
    pub fn place(&self, cell: &CellId) -> Option<MemberIndex> {
        self.places.get(cell).copied()
    }

    /// Whether a cell is one of them.
    pub fn contains(&self, cell: &CellId) -> bool {
        self.places.contains_key(cell)
    }

    /// The cell of a place.
    pub fn cell(&self, place: MemberIndex) -> Option<CellId> {
        self.set.all().get(usize::from(place.0)).map(|member| member.cell)
    }

    /// The weight of so many cells together, each counted once by whoever asks.
    pub fn weight<'a>(&self, cells: impl IntoIterator<Item = &'a CellId>) -> u64 {
        let weight =
            |place: &MemberIndex| self.set.all().get(usize::from(place.0)).map_or(0, |member| member.weight);
        cells.into_iter().filter_map(|cell| self.places.get(cell)).map(weight).sum()
    }
}
