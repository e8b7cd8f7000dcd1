//! Whoever is found to have forked has, with two events to show for it; and no honest member is.

use super::Broken;
use crate::plan::Lie;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    world.members.iter().enumerate().filter(|(_, member)| member.is_honest()).find_map(|(who, member)| {
        let wrong = member.forks.iter().find(|fork| {
            let liar = usize::from(fork.member.0);
            let mut of_liar = world.sent.iter().filter(|((creator, _), _)| *creator == liar);
            let sent = of_liar.any(|(_, events)| fork.events.iter().all(|event| events.contains(event)));
            // What a forger sends beside its own may be signed by it.
            let is_true = sent || world.plan.lies[liar] == Some(Lie::Forging);
            world.members[liar].is_honest() || fork.events[0] == fork.events[1] || !is_true
        });
        wrong.map(|fork| format!("member {who} has wrong evidence against {}", fork.member.0))
    })
}
