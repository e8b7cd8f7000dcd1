//! A member that is honest and has a sound disk never sends two events on one self-parent, however often it crashes.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let twins = world.sent.iter().find(|((who, _), events)| world.plan.is_sound(*who) && events.len() > 1);
    twins.map(|((who, _), events)| format!("member {who} has sent {events:?} on one self-parent"))
}
