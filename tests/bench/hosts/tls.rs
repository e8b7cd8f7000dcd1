//! What a plain TLS socket carries: bytes from one thread to another, over loopback, and nothing else done with them.
//!
//! TLS 1.3 by rustls with ring, in the way of its own examples: a blocking socket, written a piece at a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const NAME: &str = "localhost";
/// Bytes of one write, and of one read.
const PIECE_BYTES: usize = 64 * 1024;

/// How long it takes from a question of one byte until the answer of so many is here. The handshake is before it.
///
/// # Panics
///
/// If the sockets fail.
pub(super) fn carry(bytes: u64) -> Duration {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it has one");
    let (server, client) = configs();
    std::thread::scope(|scope| {
        scope.spawn(move || answer(&listener, server, bytes));
        let socket = connected(TcpStream::connect(address));
        let name = ServerName::try_from(NAME).expect("a name");
        let session = ClientConnection::new(client, name).expect("it is set up");
        let mut stream = StreamOwned::new(session, socket);
        // The first byte comes when both sides have ended the handshake.
        ask(&mut stream, 1);
        let start = Instant::now();
        ask(&mut stream, bytes);
        start.elapsed()
    })
}

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("it reads back");
    // Named: others of the tree bring another provider, and then there is no default.
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has it")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is the certificate's");
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has it")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn connected(socket: std::io::Result<TcpStream>) -> TcpStream {
    let socket = socket.expect("connected");
    socket.set_nodelay(true).expect("set");
    socket
}

fn answer(listener: &TcpListener, config: Arc<ServerConfig>, bytes: u64) {
    let socket = connected(listener.accept().map(|(socket, _)| socket));
    let mut stream = StreamOwned::new(ServerConnection::new(config).expect("it is set up"), socket);
    for bytes in [1, bytes] {
        let mut question = [0];
        stream.read_exact(&mut question).expect("a question");
        let (piece, mut left) = (vec![7; PIECE_BYTES], bytes);
        while left > 0 {
            let now = left.min(PIECE_BYTES as u64);
            stream.write_all(&piece[..now as usize]).expect("written");
            left -= now;
        }
        stream.flush().expect("written");
    }
}

fn ask(stream: &mut StreamOwned<ClientConnection, TcpStream>, bytes: u64) {
    stream.write_all(&[1]).and_then(|()| stream.flush()).expect("asked");
    let (mut piece, mut left) = (vec![0; PIECE_BYTES], bytes);
    while left > 0 {
        let read = stream.read(&mut piece).expect("an answer");
        assert!(read > 0, "{left} bytes are missing");
        left = left.checked_sub(read as u64).expect("no more than was asked for");
    }
}
