//! A cell within the test's own process: what benchmarks call without a client in between.

use std::path::Path;
use std::sync::Arc;

use cell::bridge::{self, JoinOptions};
use cell::bus::CallContext;
use cell::folder::{InitOptions, init};
use cell::node::{self, Node, World};
use cell::settings;
use protocol::identity::AddPeerRequest;
use tokio::runtime::Handle;

/// A running cell of this process. Needs an actix system around it.
pub(crate) struct InProcess {
    node: Node,
}

impl InProcess {
    /// Makes a cell and starts it, on free ports.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub(crate) async fn start(dir: &Path) -> Self {
        let options = InitOptions {
            dir: dir.to_owned(),
            http_port: Some(0),
            peer_port: Some(0),
            ..InitOptions::default()
        };
        // Making a cell writes files: not on the arbiter.
        let made = actix_rt::task::spawn_blocking(move || init(options)).await.expect("no panic");
        made.expect("a cell is made");
        Self::open(dir).await
    }

    /// Makes another host of a cell by a ticket, without services, and starts it.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub(crate) async fn join(dir: &Path, ticket: &str) -> Self {
        let options = JoinOptions {
            ticket: ticket.to_owned(),
            dir: dir.to_owned(),
            name: None,
            services: Vec::new(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            http_port: 0,
            peer_listen: Vec::new(),
            passphrase: None,
        };
        bridge::join(options, &Handle::current()).await.expect("it is let in");
        Self::open(dir).await
    }

    async fn open(dir: &Path) -> Self {
        let settings = settings::load(dir, &[]).expect("its settings load").settings;
        Self { node: Node::start(dir, settings, None).await.expect("it starts") }
    }

    /// Its inside.
    pub(crate) fn world(&self) -> &Arc<World> {
        self.node.world()
    }

    /// The running cell.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Makes a contact and waits until it is connected.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub(crate) async fn add_peer(&self, address: &str, name: &str) {
        let request = AddPeerRequest { address: address.to_owned(), name: Some(name.to_owned()) };
        self.world().bus.with(operator()).identity().add_peer(request).await.expect("a contact");
        let mut changes = self.world().network().changes();
        while self.world().network().connected() == 0 {
            changes.changed().await.expect("the network runs");
        }
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        self.node.stop().await;
    }
}

/// The cell's own operator.
pub(crate) fn operator() -> CallContext {
    CallContext::of(node::operator())
}
