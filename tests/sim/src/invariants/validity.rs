//! What is ordered was said, and is ordered once.

use std::collections::BTreeSet;

use super::Broken;
use crate::world::World;

pub(super) fn check(world: &World) -> Broken {
    world.members.iter().enumerate().filter(|(_, member)| member.is_honest()).find_map(|(who, member)| {
        let mut seen = BTreeSet::new();
        let twice = member.words.iter().find(|word| !seen.insert(**word))?;
        Some(format!("member {who} has ordered word {twice} twice"))
    })
}
