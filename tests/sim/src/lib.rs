//! A network of members under faults: one thread, no clock, one seed gives everything.
//!
//! Each honest member is the real [`consensus::gossip::Gossip`] with the real hashgraph, a disk that loses what is not synced, and a
//! clock that is off. What is simulated is the network, the disk and the signatures (a hash in their place, so
//! that forging one is possible and is found). Liars run the same code with a driver that lies.
//!
//! A seed's run has a safety phase with all its faults, and then heals; see [`Plan`]. What must hold then stands in
//! [`invariants`], a file each. `window_rounds` is so long here that nobody falls out of it: catching up
//! by checkpoints is not built yet.

pub mod invariants;
mod plan;
mod random;
mod world;

pub use plan::{Crash, Cut, ENDS_US, HEALS_US, Lie, Plan};
pub use random::Random;
pub use world::{Member, World};
