//! No two honest members order differently: what one has is a beginning of what the other has, events and times.

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let honest: Vec<_> = world.members.iter().enumerate().filter(|(_, member)| member.is_honest()).collect();
    let (longest, most) = honest.iter().max_by_key(|(_, member)| member.rounds.len())?;
    let different = honest.iter().find(|(_, member)| !most.rounds.starts_with(&member.rounds));
    let Some((other, member)) = different else { return super::on_the_way(world, "agreement") };
    let round = most.rounds.iter().zip(&member.rounds).take_while(|(one, two)| one == two).count() + 1;
    Some(format!("members {longest} and {other} have ordered round {round} differently"))
}
