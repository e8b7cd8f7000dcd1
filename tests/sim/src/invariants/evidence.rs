//! Whoever is found to have forked has, with two events on one self-parent to show for it, and no member is that is honest and has a
//! sound disk. Who holds both events has found it, and whoever has found one keeps a proof that anybody can check.

use std::collections::BTreeSet;

use super::Broken;
use crate::member::Member;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let mut honest = world.members.iter().enumerate().filter(|(_, member)| member.is_honest());
    honest.find_map(|(who, member)| at(world, who, member)).or_else(|| super::on_the_way(world, "evidence"))
}

fn at(world: &World, who: usize, member: &Member) -> Broken {
    let proven: BTreeSet<usize> = member.evidence().collect();
    let found: BTreeSet<usize> = member.forks.iter().map(|(cell, ..)| *cell).collect();
    let wrong = member.forks.iter().find(|(cell, _, holds)| world.plan.is_sound(*cell) || !holds);
    if let Some((cell, ..)) = wrong {
        return Some(format!("member {who} has wrong evidence against {cell}"));
    }
    if let Some(cell) = proven.iter().find(|cell| world.plan.is_sound(**cell)) {
        return Some(format!("member {who} keeps a proof against {cell}, which is sound"));
    }
    // A disk that was restored may have lost it.
    if let Some(cell) = found.iter().find(|cell| world.plan.is_sound(who) && !proven.contains(cell)) {
        return Some(format!("member {who} has found that {cell} has forked, and keeps no proof"));
    }
    let missed = world.forkers_in_graph_of(who).into_iter().find(|cell| !found.contains(cell));
    missed
        .map(|cell| format!("member {who} has two events of {cell} on one self-parent, and has not found it"))
}
