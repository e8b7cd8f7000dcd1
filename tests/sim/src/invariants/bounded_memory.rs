//! Memory is bounded, whatever liars send: what is in the graph somebody has made, what waits for parents is little, and of what
//! events carry little more is in memory than what has to be.

use super::Broken;
use crate::member::GOSSIP;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let made = world.made.len();
    let waiting_max = GOSSIP.waiting_max * world.members.len();
    let honest = world.members.iter().enumerate().filter(|(_, member)| member.is_honest());
    honest.into_iter().find_map(|(who, member)| {
        let (events, waiting, bytes) = member.memory_max;
        if events > made {
            return Some(format!("member {who} had {events} events, and {made} were made"));
        }
        if waiting > waiting_max {
            return Some(format!("at member {who} {waiting} events waited"));
        }
        (bytes > GOSSIP.payload_bytes_max).then(|| format!("member {who} had {bytes} bytes in memory"))
    })
}
