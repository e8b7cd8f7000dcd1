//! Nobody makes an event before members who, with itself, are a supermajority have told it all that they know; and in its place
//! no honest one of them had another event.
//!
//! So a member that was restored from an older disk signs no second event on a self-parent if the first was, when they
//! answered, in the graph of an honest member among those who told it all since it is back. More does not hold: if the first was
//! known only to members that were not reached, the second is made, and the member has forked.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    super::on_the_way(world, "start")
}
