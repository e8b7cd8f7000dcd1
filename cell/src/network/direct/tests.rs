//! Two networks on loopback, and connections of their own between them.

use super::super::{
    Beside, ByteReader, ByteStream, ByteWriter, Carries, Inbound, Lane, Network, NetworkSettings,
};
use super::*;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// How long anything here may take.
const LONGEST: Duration = Duration::from_secs(20);

/// Puts streams where a test has them.
struct Streams(mpsc::UnboundedSender<(CellId, ByteStream)>);

impl Inbound for Streams {
    fn request(&self, _: Lane, _: CellId, bytes: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        Box::pin(std::future::ready(bytes))
    }
    fn push(&self, _: Lane, _: CellId, _: Vec<u8>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    fn hello(&self, _: CellId, _: Vec<u8>, _: Vec<String>) {}
    fn stream(&self, from: CellId, stream: ByteStream) {
        let _ = self.0.send((from, stream));
    }
}

struct Peer {
    key: CellId,
    network: Network,
    streams: mpsc::UnboundedReceiver<(CellId, ByteStream)>,
}

impl Peer {
    async fn start(seed: u8, direct: bool) -> Self {
        let settings = NetworkSettings {
            seed: [seed; 32].into(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            lanes: Lane::BETWEEN_HOSTS,
            hello: Vec::new(),
            mdns: false,
            connections_max: 16,
            connections_per_peer_max: 4,
            requests_per_peer_max: 16,
            frame_bytes_max: 1024 * 1024,
            request_timeout: LONGEST,
            direct,
        };
        let (sender, streams) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        let network = Network::start(settings, Arc::new(Streams(sender)), &runtime).await.expect("listens");
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
        Self { key: CellId::from_bytes(key.to_bytes()), network, streams }
    }

    /// Is connected to another one, by libp2p.
    async fn meet(&self, other: &Self) {
        self.network.keep(other.key, other.network.addresses()).await;
        for (one, another) in [(self, other), (other, self)] {
            let mut changes = one.network.changes();
            while !one.network.peer(&another.key).connected {
                within(changes.changed()).await.expect("it goes on");
            }
        }
    }

    async fn taken(&mut self) -> (CellId, ByteStream) {
        within(self.streams.recv()).await.expect("a stream")
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONGEST, work).await.expect("in time")
}

async fn pair(direct: bool) -> (Peer, Peer) {
    let (here, there) = (Peer::start(1, true).await, Peer::start(2, direct).await);
    here.meet(&there).await;
    (here, there)
}

/// Bytes that are not the same anywhere.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).flat_map(u32::to_le_bytes).take(count).collect()
}

async fn read_all(reader: &mut ByteReader, count: usize) -> Vec<u8> {
    let (mut came, mut part) = (Vec::new(), vec![0; 10_000]);
    while came.len() < count {
        let read = within(reader.read(&mut part)).await.expect("reads");
        assert!(read > 0, "it ended after {} bytes", came.len());
        came.extend_from_slice(&part[..read]);
    }
    came
}

async fn ends(reader: &mut ByteReader) {
    let mut part = [0; 1];
    assert!(matches!(within(reader.read(&mut part)).await, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_written_comes_in_order_both_ways() {
    let (here, mut there) = pair(true).await;
    for carries in [Carries::Calls, Carries::Streams] {
        let stream = here.network.open_direct(&there.key, carries).await.expect("opens");
        let (from, taken) = there.taken().await;
        assert_eq!((from, taken.carries(), stream.carries()), (here.key, Some(carries), Some(carries)));
        let ((mut ours, our_writer), (mut theirs, their_writer)) = (stream.split(), taken.split());
        let much = bytes(5_000_000);
        let write = async |mut writer: ByteWriter, much: &[u8]| {
            writer.write_all(much).await.expect("writes");
            writer
        };
        let (_ours, _theirs, came, back) = within(async {
            tokio::join!(
                write(our_writer, &much),
                write(their_writer, &much),
                read_all(&mut theirs, much.len()),
                read_all(&mut ours, much.len()),
            )
        })
        .await;
        assert!(came == much && back == much, "as it was written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_beside_never_comes_into_the_middle_of_anything() {
    let (here, mut there) = pair(true).await;
    let stream = here.network.open(&there.key).await.expect("opens");
    let (_reader, mut writer) = stream.split();
    let (mut reader, _kept) = there.taken().await.1.split();
    let beside = writer.beside().expect("a connection of its own");
    // Parts of one byte each, all of a part alike; the large ones are written a part at a time.
    let large = 3 * WRITE_BYTES + 5;
    let written_beside = tokio::task::spawn_blocking(move || {
        let mut taken = 0;
        while taken < 300 {
            match beside.write_now(&[7; 100]).expect("it is open") {
                Beside::NotTaken => std::thread::yield_now(),
                Beside::Written | Beside::Waits => taken += 1,
            }
        }
    });
    let write = async {
        for _ in 0..40 {
            writer.write_all(&vec![1; large]).await.expect("writes");
            tokio::task::yield_now().await;
        }
        written_beside.await.expect("it ends");
        writer.flush().await.expect("writes");
    };
    let ((), came) =
        within(async { tokio::join!(write, read_all(&mut reader, 40 * large + 300 * 100)) }).await;
    for run in came.chunk_by(|one, next| one == next) {
        let part = if run[0] == 1 { large } else { 100 };
        assert_eq!(run.len() % part, 0, "something came between");
    }
}

#[tokio::test]
async fn it_ends_with_the_connection_that_it_stands_beside() {
    let (here, mut there) = pair(true).await;
    let (mut ours, _writer) = here.network.open(&there.key).await.expect("opens").split();
    let (mut theirs, _their_writer) = there.taken().await.1.split();
    here.network.forget(there.key).await;
    ends(&mut ours).await;
    ends(&mut theirs).await;
    here.network.open_direct(&there.key, Carries::Calls).await.err().expect("nobody is connected");
}

#[tokio::test]
async fn who_libp2p_has_not_connected_is_not_given_a_stream() {
    let (stranger, mut there) = (Peer::start(3, true).await, Peer::start(4, true).await);
    let identity = libp2p::identity::Keypair::ed25519_from_bytes([3; 32]).expect("a key");
    let keys = Keys::new(&identity).expect("a certificate");
    let peer = super::super::address::peer_id(&there.key).expect("a peer");
    let ways: Vec<Multiaddr> =
        there.network.addresses().iter().map(|address| address.parse().expect("an address")).collect();
    let (mut reader, _writer) =
        ByteStream::from(dial(&keys, peer, &ways, Carries::Calls).await.expect("shakes hands")).split();
    ends(&mut reader).await;
    assert!(there.streams.try_recv().is_err(), "it was given to nobody");
    assert_eq!(there.network.counters().refused_connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    stranger.network.stop().await;
}

#[tokio::test]
async fn where_the_other_side_has_none_a_stream_of_libp2ps_will_do() {
    let (here, mut there) = pair(false).await;
    let stream = here.network.open(&there.key).await.expect("opens");
    assert_eq!(stream.carries(), None);
    let (_reader, mut writer) = stream.split();
    writer.write_all(b"as before").await.expect("writes");
    writer.flush().await.expect("writes");
    let (mut reader, _kept) = there.taken().await.1.split();
    assert_eq!(read_all(&mut reader, 9).await, b"as before");
}
