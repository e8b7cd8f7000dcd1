//! Somebody who speaks libp2p, shares no code with the cell's network, and can send anything.

use std::time::Duration;

use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identity, noise, tcp, yamux};
use libp2p_stream::{Behaviour, Control};

/// How long one exchange may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A frame's length, the number of its request, and its tag.
pub const HEAD_BYTES: usize = 4 + 8 + 1;
/// The tag of a hello.
pub const HELLO: u8 = 0;
/// The tag of a request.
pub const REQUEST: u8 = 1;
/// The tag of a reply.
pub const REPLY: u8 = 2;

/// A connection of theirs.
pub struct Stranger {
    connection: actix_rt::task::JoinHandle<()>,
    control: Control,
    peer: PeerId,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Stranger {
    /// Connects with a key of its own.
    ///
    /// # Panics
    ///
    /// If nobody is there.
    pub async fn connect(seed: [u8; 32], address: &str) -> Self {
        let key = identity::Keypair::ed25519_from_bytes(seed).expect("a key");
        let mut swarm: Swarm<Behaviour> = libp2p::SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| Behaviour::new())
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build();
        let control = swarm.behaviour().new_control();
        swarm.dial(address.parse::<Multiaddr>().expect("an address")).expect("dials");
        let connected = async {
            loop {
                if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
                    return peer_id;
                }
            }
        };
        let peer = tokio::time::timeout(PATIENCE, connected).await.expect("connects");
        let connection = actix_rt::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { connection, control, peer }
    }

    /// Sends bytes as they are on a stream of their own; the reply's bytes, if there is one.
    ///
    /// # Panics
    ///
    /// If it is neither answered nor refused in time.
    pub async fn send(&mut self, protocol: &'static str, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let exchange = async {
            let protocol = StreamProtocol::new(protocol);
            let mut stream = self.control.open_stream(self.peer, protocol).await.ok()?;
            stream.write_all(&bytes).await.ok()?;
            stream.close().await.ok()?;
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply).await.ok()?;
            (!reply.is_empty()).then_some(reply)
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("answered or refused, not left hanging")
    }
}

/// A body in a proper frame.
pub fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = (8 + 1 + body.len() as u32).to_le_bytes();
    [length.as_slice(), &7u64.to_le_bytes(), &[tag], body].concat()
}

/// The body of a reply to what was framed.
///
/// # Panics
///
/// If it is none.
pub fn replied(reply: &[u8]) -> &[u8] {
    assert_eq!(reply[4..HEAD_BYTES], [7, 0, 0, 0, 0, 0, 0, 0, REPLY], "an answer, not a busy");
    &reply[HEAD_BYTES..]
}
