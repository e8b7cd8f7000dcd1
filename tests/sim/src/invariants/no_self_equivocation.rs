//! A member that is honest and has a sound disk never sends two events of one epoch on one self-parent, however often it crashes.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let is_sound = |who: usize| world.plan.is_sound(who);
    let twins = world.sent.iter().find(|((who, ..), events)| is_sound(*who) && events.len() > 1);
    twins.map(|((who, ..), events)| format!("member {who} has sent {events:?} on one self-parent"))
}
