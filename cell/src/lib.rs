//! Everything of a cell that touches the world: actors, bus, network, store, HTTP, CLI, configuration.
//!
//! The rooms: [`actor`] runs the pure machines, [`bus`] carries calls, [`store`] keeps views,
//! [`network`] and [`delivery`] talk to other cells, [`http`] and [`cli`] to people and programs,
//! [`data`] keeps and fetches data sets, [`signals`] tells those who listen, [`telemetry`] traces requests, [`fronts`] are the actions that need the world, [`node`] puts it all together. Each foreign
//! framework is named in one room only: actix in `actor` and `bus`, libp2p in `network`, actix-web in
//! `http`, RocksDB in `store`, openraft in `quorum`.

pub mod actor;
pub mod bridge;
pub mod bus;
pub mod cli;
pub mod data;
pub mod delivery;
pub mod feed;
pub mod folder;
pub mod fronts;
pub mod gossip;
pub mod http;
pub mod keys;
pub mod network;
pub mod node;
pub mod offline;
pub mod quorum;
pub mod replication;
pub mod settings;
pub mod signals;
pub mod store;
pub mod telemetry;
