//! What waits for parents is bounded, whatever liars send.

use super::Broken;
use crate::world::World;

/// See `waiting_max` in the settings: of each member.
const WAITING_MAX: usize = 200;

pub(super) fn check(world: &World) -> Broken {
    let most = WAITING_MAX * world.members.len();
    let over = world.members.iter().enumerate().find(|(_, member)| member.memory_max.1 > most);
    over.map(|(who, member)| format!("at member {who} {} events waited", member.memory_max.1))
}
