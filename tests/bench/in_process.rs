//! A cell within the test's own process: what benchmarks call without a client in between.

use std::path::Path;
use std::sync::Arc;

use cell::bus::CallContext;
use cell::folder::{InitOptions, init};
use cell::node::{self, Node, World};
use cell::settings;
use protocol::identity::AddPeerRequest;

/// A running cell of this process. Needs an actix system around it.
pub struct InProcess {
    node: Node,
}

impl InProcess {
    /// Makes a cell and starts it, on free ports.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start(dir: &Path) -> Self {
        let options = InitOptions {
            dir: dir.to_owned(),
            http_port: Some(0),
            peer_port: Some(0),
            ..InitOptions::default()
        };
        // Making a cell writes files: not on the arbiter.
        let made = actix_rt::task::spawn_blocking(move || init(options)).await.expect("no panic");
        made.expect("a cell is made");
        let settings = settings::load(dir, &[]).expect("its settings load").settings;
        Self { node: Node::start(dir, settings, None).await.expect("it starts") }
    }

    /// Its inside.
    pub fn world(&self) -> &Arc<World> {
        self.node.world()
    }

    /// The running cell.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Makes a contact and waits until it is connected.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub async fn add_peer(&self, address: &str, name: &str) {
        let request = AddPeerRequest { address: address.to_owned(), name: Some(name.to_owned()) };
        self.world().bus.with(operator()).identity().add_peer(request).await.expect("a contact");
        let mut changes = self.world().network().changes();
        while self.world().network().connected() == 0 {
            changes.changed().await.expect("the network runs");
        }
    }

    /// Stops it.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}

/// The cell's own operator.
pub fn operator() -> CallContext {
    CallContext::of(node::operator())
}
