//! Everything of a cell that touches the world: actors, bus, network, store, HTTP, CLI, configuration.
//!
//! The rooms: [`actor`] runs the pure machines, [`bus`] carries calls, [`store`] keeps views,
//! [`network`] talks to other cells, [`http`] and [`cli`] to people and programs, [`fronts`] and
//! [`node`] put them together. Each foreign framework is named in one room only: actix in `actor` and
//! `bus`, libp2p in `network`, actix-web in `http`, RocksDB in `store`.

pub mod actor;
pub mod bus;
pub mod feed;
pub mod folder;
pub mod keys;
pub mod network;
pub mod offline;
pub mod settings;
pub mod store;
