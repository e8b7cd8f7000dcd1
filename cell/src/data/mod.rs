//! Data sets: bytes that are known by their BLAKE3 hash. The state says who stands for which (module `dataset`); here is the data
//! itself, where a cell has it, and how it gets it from those that do.
//!
//! - `store` keeps data in files named by their hash, each beside the tree of hashes over it; `checked` reads it fast.
//! - `serve` gives slices of it to members of the network and to contacts who may QUERY.
//! - `fetch` takes data from all connected cells that have it, in parts, several at once.
//!
//! Rules:
//!
//! - Nobody is believed: each part comes with the hashes that lead from it to the hash that was asked for (Bao, the verified streaming of BLAKE3), and is
//!   checked before it is written. A cell that gave a wrong one is not asked again for this data.
//! - What lies here was whole and synced before it had its name. It is checked as it is read, so a flipped bit is found, not
//!   passed on.
//! - A command that reads or adds data works beside a running cell: names appear and go whole.
//!
//! Bounds: bytes of all data (`data.bytes_max`), parts under way, cells that are asked.

mod checked;
mod fetch;
mod serve;
mod store;
mod wire;

pub use fetch::fetch;
pub use serve::serve;
pub use store::{Kept, Reading, Store};
