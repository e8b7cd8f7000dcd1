//! Whoever is found to have forked has, with two events on one self-parent to show for it; and no member is that is honest and
//! has a sound disk.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    world.members.iter().enumerate().filter(|(_, member)| member.is_honest()).find_map(|(who, member)| {
        let wrong = member.forks.iter().find(|fork| {
            let liar = usize::from(fork.member.0);
            let made = fork.events.map(|event| world.made.get(&event));
            let is_true = match made {
                [Some(one), Some(two)] => {
                    one.by == liar && two.by == liar && one.self_parent == two.self_parent
                }
                _ => false,
            };
            world.plan.is_sound(liar) || fork.events[0] == fork.events[1] || !is_true
        });
        wrong.map(|fork| format!("member {who} has wrong evidence against {}", fork.member.0))
    })
}
