//! After a crash, a member gives out again, at once and alike, every round that it gave out before; if it was restored from
//! an older disk, those that it still has, and the others later alike.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    super::on_the_way(world, "replay")
}
