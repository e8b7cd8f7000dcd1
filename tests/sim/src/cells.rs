//! The cells of all networks: each has a number and a key that follows from it. And who of them is in an epoch.

use std::sync::LazyLock;

use consensus::hashgraph::MemberIndex;
use ed25519_dalek::SigningKey;
use protocol::members::MemberSet;
use protocol::{CellId, signing};

/// More than any network has.
const CELLS_MAX: u8 = 24;

/// Making a key costs as much as a signature, and there are many seeds.
static KEYS: LazyLock<Vec<(SigningKey, CellId)>> = LazyLock::new(|| {
    let key = |number: u8| SigningKey::from_bytes(&[number; 32]);
    (1..=CELLS_MAX).map(key).map(|key| (key.clone(), signing::cell_id(&key))).collect()
});

/// A cell's key.
pub(crate) fn key(cell: usize) -> &'static SigningKey {
    &KEYS[cell].0
}

/// A cell's id.
pub(crate) fn id(cell: usize) -> CellId {
    KEYS[cell].1
}

/// The number of a cell.
pub(crate) fn number(id: &CellId) -> Option<usize> {
    KEYS.iter().position(|(_, of)| of == id)
}

/// The members of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Which epoch.
    pub number: u64,
    /// The first block that it may fill.
    pub base: u64,
    /// Who they are.
    pub members: MemberSet,
    cells: Vec<usize>,
}

impl Epoch {
    pub(crate) fn new(number: u64, base: u64, members: MemberSet) -> Self {
        let cells = members.all().iter().filter_map(|member| self::number(&member.cell)).collect();
        Self { number, base, members, cells }
    }

    /// The cells, in the order of their places.
    pub fn cells(&self) -> &[usize] {
        &self.cells
    }

    /// The place of a cell.
    pub(crate) fn place(&self, cell: usize) -> Option<MemberIndex> {
        self.cells.iter().position(|of| *of == cell).map(|place| MemberIndex(place as u16))
    }

    /// The cell of a place.
    pub(crate) fn cell(&self, place: MemberIndex) -> Option<usize> {
        self.cells.get(usize::from(place.0)).copied()
    }
}
