//! The words of Celluler: ids, messages, transactions, blocks, actions, events, errors, codec.
//!
//! Purpose: everything that crosses a room of the house is a word of this crate, declared once.
//! Rules:
//!
//! - No I/O, no clock, no entropy. A function here gives the same answer on every machine.
//! - A signature covers bytes, never an object: a domain tag, fixed-layout fields, the hash of the
//!   body as it was sent (see [`signing`]).
//! - Numbers in anything hashed are integers.
//! - An [`Action`] is declared once, with [`actions!`], and is then reachable on the bus, over HTTP
//!   and from the command line.
//!
//! Absent on purpose: any notion of a service's state. What a service keeps lives in its crate.

pub mod action;
pub mod amount;
pub mod beacon;
pub mod block;
pub mod codec;
pub mod committee;
pub mod elected;
pub mod event;
pub mod fees;
pub mod genesis;
pub mod gossip;
pub mod id;
pub mod members;
pub mod merkle;
pub mod message;
mod natural;
pub mod problem;
pub mod receipt;
pub mod rules;
pub mod service;
pub mod signing;
pub mod transaction;
mod words;

pub use action::{
    Access, Action, ActionInfo, Caller, Handler, Kind, MachineAction, ServiceWords, StreamAction, Visitor,
};
pub use amount::Amount;
pub use event::Event;
pub use id::{
    BlockHash, BlockIndex, CellId, GenesisHash, Hash, HostId, MemberKey, MessageId, StateRoot, TxId,
};
pub use problem::{Problem, ProblemKind};
pub use service::Service;
/// The actions, requests and answers of the Message service.
pub use words::message as messages;
pub use words::{consensus, identity, market, nucleus, shared, signal, state, trace};

/// Calls `visitor` once for each declared action, service by service.
pub fn visit_actions<V: Visitor>(visitor: &mut V) {
    nucleus::visit(visitor);
    identity::visit(visitor);
    messages::visit(visitor);
    state::visit(visitor);
    consensus::visit(visitor);
    market::visit(visitor);
}

/// Every declared action, in a stable order: the one list from which HTTP, CLI and docs are made.
pub fn actions() -> Vec<&'static ActionInfo> {
    struct List(Vec<&'static ActionInfo>);
    impl Visitor for List {
        fn machine<A: MachineAction>(&mut self) {
            self.0.push(&A::INFO);
        }
        fn front<A: Action>(&mut self) {
            self.0.push(&A::INFO);
        }
        fn stream<A: StreamAction>(&mut self) {
            self.0.push(&A::INFO);
        }
    }
    let mut list = List(Vec::new());
    visit_actions(&mut list);
    list.0
}
