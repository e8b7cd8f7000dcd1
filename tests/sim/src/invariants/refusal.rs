//! What honest members make is refused by nobody: where nobody forges or floods, nothing is.

use super::Broken;
use crate::plan::Lie;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let lies = |lie: &Option<Lie>| matches!(lie, Some(Lie::Forging | Lie::Flooding));
    if world.plan.lies.iter().any(lies) {
        return None;
    }
    let refused = world.members.iter().enumerate().find(|(_, member)| member.refused + member.unsigned > 0);
    refused
        .map(|(who, member)| format!("member {who} has refused {} events", member.refused + member.unsigned))
}
