//! Somebody who speaks libp2p, shares no code with the cell's network, and can send anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identity, noise, tcp, yamux};
use libp2p_stream::{Behaviour, Control};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

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
    key: identity::Keypair,
    address: Multiaddr,
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
        let address: Multiaddr = address.parse().expect("an address");
        let mut swarm: Swarm<Behaviour> = libp2p::SwarmBuilder::with_existing_identity(key.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| Behaviour::new())
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build();
        let control = swarm.behaviour().new_control();
        swarm.dial(address.clone()).expect("dials");
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
        Self { connection, control, peer, key, address }
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

    /// Sends bytes as they are on a connection of their own beside libp2p's, named so; the reply's first bytes, if there is one.
    ///
    /// # Panics
    ///
    /// If the other side is not who it was, or neither answers nor hangs up in time.
    pub async fn send_direct(&self, name: &str, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let mut config = libp2p::tls::make_client_config(&self.key, Some(self.peer)).expect("a certificate");
        config.alpn_protocols = vec![name.as_bytes().to_vec()];
        let (mut ip, mut port) = (None, None);
        for part in &self.address {
            match part {
                Protocol::Ip4(address) => ip = Some(address),
                Protocol::Tcp(number) => port = Some(number),
                _ => {}
            }
        }
        let address = (ip.expect("IPv4"), port.expect("TCP"));
        let exchange = move || {
            let mut socket = TcpStream::connect(address).expect("somebody listens");
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let nobody = ServerName::from(std::net::IpAddr::from(address.0));
            let mut tls = ClientConnection::new(Arc::new(config), nobody).expect("begins");
            while tls.is_handshaking() {
                tls.complete_io(&mut socket).expect("it is who it was");
            }
            let mut stream = StreamOwned::new(tls, socket);
            stream.write_all(&bytes).and_then(|()| stream.flush()).ok()?;
            let mut reply = vec![0; 1_024];
            match stream.read(&mut reply) {
                Ok(0) => None,
                Ok(read) => Some(reply[..read].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("left hanging"),
                Err(_) => None,
            }
        };
        tokio::task::spawn_blocking(exchange).await.expect("it ends")
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
