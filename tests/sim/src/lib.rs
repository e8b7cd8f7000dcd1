//! A network of members under faults: one thread, no clock, one seed gives everything.
//!
//! Each honest member is the real [`consensus::gossip::Gossip`] with the real hashgraph, and the real machines of Consensus and State with
//! the modules `kv` and `members`, each on a journal that loses what is not synced; a clock that is off and set now and then; and what
//! glues them together as `cell/src/gossip` does ([`World`]). So rounds become blocks, blocks are executed, attested and final, epochs
//! end and begin with the members that the state names, and who has fallen behind or is no member takes final blocks over. What is
//! simulated is the network, the disk, and the signatures of events (a number in their place, so that forging one is possible and
//! is found). Liars run the same code with a driver that lies.
//!
//! A seed's run has a safety phase with all its faults, and then heals; see [`Plan`]. What must hold then stands in
//! [`invariants`], a file each. A link loses, doubles, delays and turns round what is on it, and only an answer to what a process asked
//! before it crashed does not come through: on a real link it cannot.
//!
//! Absent: bytes on the wire, lanes and fees, the beacon, checkpoints, a network of one. Each has tests of its own.

mod agenda;
mod cells;
pub mod invariants;
mod lies;
mod life;
mod member;
mod plan;
mod random;
mod service;
mod signing;
mod words;
mod world;

pub use cells::Epoch;
pub use member::{GOSSIP, Member};
pub use plan::{Crash, Cut, Jump, Lie, Plan};
pub use random::Random;
pub use signing::Digest;
pub use words::Word;
pub use world::{Ask, Made, World};
