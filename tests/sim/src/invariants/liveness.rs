//! After all has healed, everything acknowledged is in a final block at every honest cell, restored or not, a member or not, and then
//! they rest. Nothing waits for a parent then, unless somebody forges or has lost what others wait for.
//!
//! Left out is what waits at a member that is none any more: it has nobody to say it to.

use std::collections::BTreeSet;

use super::Broken;
use crate::plan::Lie;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    let forges = world.plan.lies.iter().any(|lie| matches!(lie, Some(Lie::Forging | Lie::Flooding)));
    let has_lost = (0..world.members.len()).any(|member| world.plan.is_restored(member));
    let (_, last) = world.epochs.last_key_value()?;
    let is_said = |word: &&u64| world.submitted.get(word).is_some_and(|by| last.cells().contains(by));
    let promised: BTreeSet<_> = world.acknowledged.iter().filter(is_said).copied().collect();
    world.members.iter().enumerate().filter(|(_, member)| member.is_honest()).find_map(|(who, member)| {
        let done: BTreeSet<_> = member.words.iter().map(|(word, _)| *word).collect();
        let missing: Vec<_> = promised.difference(&done).collect();
        if !missing.is_empty() {
            let of = promised.len();
            let one = missing.first().map_or(String::new(), |word| world.show_word(**word));
            return Some(format!(
                "at member {who}, {} of {of} words are in no final block: {one}",
                missing.len()
            ));
        }
        if !member.is_at_rest() {
            return Some(format!("member {who} is not at rest"));
        }
        let waiting = member.waiting_for_parents();
        (waiting > 0 && !forges && !has_lost).then(|| format!("at member {who} {waiting} events still wait"))
    })
}
