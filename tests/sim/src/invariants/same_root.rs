//! No two honest members have another final block, or another root, at one index; and none of them ever finds that it has diverged.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let mut honest = world.members.iter().enumerate().filter(|(_, member)| member.is_honest());
    let diverged = honest.find(|(_, member)| member.is_diverged());
    let diverged = diverged.map(|(who, _)| format!("member {who} has diverged"));
    super::on_the_way(world, "same root").or(diverged)
}
