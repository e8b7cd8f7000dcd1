//! No two honest members order differently: a round of an epoch has the same events and times at all that decide it, and nobody leaves
//! one out.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    super::on_the_way(world, "agreement")
}
