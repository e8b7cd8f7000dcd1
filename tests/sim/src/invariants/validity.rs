//! What is acknowledged and what is in final blocks was submitted, and is there once, as it was said.

use std::collections::BTreeSet;

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    if let Some(word) = world.acknowledged.iter().find(|word| !world.submitted.contains_key(word)) {
        return Some(format!("word {word} is acknowledged, and nobody has submitted it"));
    }
    let honest = world.members.iter().enumerate().filter(|(_, member)| member.is_honest());
    let wrong = honest.into_iter().find_map(|(who, member)| {
        let mut seen = BTreeSet::new();
        let of = |word: &u64| world.submitted.contains_key(word);
        let wrong = member.words.iter().find(|(word, _)| !of(word) || !seen.insert(*word))?.0;
        Some(format!("member {who} has word {wrong} in final blocks twice, or nobody has submitted it"))
    });
    wrong.or_else(|| super::on_the_way(world, "validity"))
}
