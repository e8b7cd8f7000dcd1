//! What must hold at the end of a run, a file each.

mod agreement;
mod bounded_memory;
mod evidence;
mod liveness;
mod no_self_equivocation;
mod validity;

use crate::world::World;

/// What was broken, if something was.
pub type Broken = Option<String>;

/// Looks for what was broken.
pub type Check = fn(&World) -> Broken;

/// All of them, by name.
pub const ALL: [(&str, Check); 6] = [
    ("agreement", agreement::check),
    ("validity", validity::check),
    ("liveness", liveness::check),
    ("no self-equivocation", no_self_equivocation::check),
    ("evidence", evidence::check),
    ("bounded memory", bounded_memory::check),
];
