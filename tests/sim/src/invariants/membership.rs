//! Every honest cell has the same members for the same epoch, from the same block on, and begins it when all blocks before are final
//! there; who is no member signs nothing in it, and no word of a stranger makes a block final. Of whoever a sound member has found to have forked, the last epoch has none.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    super::on_the_way(world, "membership").or_else(|| {
        let (number, epoch) = world.epochs.last_key_value()?;
        let sound = world.members.iter().enumerate().filter(|(who, _)| world.plan.is_sound(*who));
        // Who is no member any more accuses nobody.
        let accusers = sound.filter(|(who, _)| epoch.cells().contains(who));
        let mut found = accusers.flat_map(|(_, member)| &member.forks).filter(|(.., holds)| *holds);
        let stays = found.find(|(cell, ..)| epoch.cells().contains(cell));
        stays.map(|(cell, forked, _)| {
            format!("member {cell} has forked in epoch {forked}, and is in epoch {number}")
        })
    })
}
