//! After all has healed, everything acknowledged is ordered, by every honest member, and then they rest.

use std::collections::BTreeSet;

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    world.members.iter().enumerate().filter(|(_, member)| member.is_honest()).find_map(|(who, member)| {
        let ordered: BTreeSet<_> = member.words.iter().copied().collect();
        let missing: Vec<_> = world.acknowledged.difference(&ordered).collect();
        if !missing.is_empty() {
            let of = world.acknowledged.len();
            return Some(format!("member {who} has not ordered {} of {of} words", missing.len()));
        }
        (!member.is_at_rest()).then(|| format!("member {who} is not at rest"))
    })
}
