//! What must hold at the end of a run, a file each.

mod agreement;
mod bounded_memory;
mod evidence;
mod liveness;
mod membership;
mod no_self_equivocation;
mod refusal;
mod replay;
mod same_root;
mod start;
mod validity;

use crate::world::World;

/// What was broken, if something was.
pub type Broken = Option<String>;

/// Looks for what was broken.
pub type Check = fn(&World) -> Broken;

/// All of them, by name.
pub const ALL: [(&str, Check); 11] = [
    ("agreement", agreement::check),
    ("validity", validity::check),
    ("same root", same_root::check),
    ("membership", membership::check),
    ("replay", replay::check),
    ("start", start::check),
    ("no self-equivocation", no_self_equivocation::check),
    ("evidence", evidence::check),
    ("refusal", refusal::check),
    ("bounded memory", bounded_memory::check),
    ("liveness", liveness::check),
];

/// What was seen to be broken while it ran.
fn on_the_way(world: &World, name: &str) -> Broken {
    world.broken.iter().find(|(of, _)| *of == name).map(|(_, why)| why.clone())
}
