//! Whoever is found to have forked has, with two events on one self-parent to show for it, and no member is that is honest and has a
//! sound disk. Who holds both events has found it, and keeps a proof that anybody can check.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let honest = world.members.iter().enumerate().filter(|(_, member)| member.is_honest());
    honest
        .into_iter()
        .find_map(|(who, member)| {
            let wrong = member.forks.iter().find(|(cell, _, holds)| world.plan.is_sound(*cell) || !holds);
            if let Some((cell, ..)) = wrong {
                return Some(format!("member {who} has wrong evidence against {cell}"));
            }
            let innocent = member.evidence().find(|cell| world.plan.is_sound(*cell));
            if let Some(cell) = innocent {
                return Some(format!("member {who} keeps a proof against {cell}, which is sound"));
            }
            let missed = world.forkers_in_graph_of(who).into_iter().find(|cell| {
                let is_found = member.forks.iter().any(|(of, ..)| of == cell);
                !is_found || !member.evidence().any(|of| of == *cell)
            });
            missed.map(|cell| {
                format!("member {who} has two events of {cell} on one self-parent, and no evidence")
            })
        })
        .or_else(|| super::on_the_way(world, "evidence"))
}
