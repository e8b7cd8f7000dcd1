//! After all has healed, everything acknowledged is ordered, by every honest member, restored or not, and then they rest. Nothing
//! waits for a parent then, unless somebody forges or has lost what others wait for.

use std::collections::BTreeSet;

use super::Broken;
use crate::plan::Lie;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let forges = world.plan.lies.iter().any(|lie| matches!(lie, Some(Lie::Forging | Lie::Flooding)));
    let has_lost = (0..world.members.len()).any(|member| world.plan.is_restored(member));
    world.members.iter().enumerate().filter(|(_, member)| member.is_honest()).find_map(|(who, member)| {
        let ordered: BTreeSet<_> = member.words.iter().map(|(word, _)| *word).collect();
        let missing: Vec<_> = world.acknowledged.difference(&ordered).collect();
        if !missing.is_empty() {
            let of = world.acknowledged.len();
            return Some(format!("member {who} has not ordered {} of {of} words", missing.len()));
        }
        if !member.is_at_rest() {
            return Some(format!("member {who} is not at rest"));
        }
        let waiting = member.waiting_for_parents();
        (waiting > 0 && !forges && !has_lost).then(|| format!("at member {who} {waiting} events still wait"))
    })
}
