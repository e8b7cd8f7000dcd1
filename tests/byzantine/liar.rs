//! A member that runs the code of a cell with a hostile driver: its own host under the real gossip engine, over the real network.
//!
//! It keeps up with the graph, since a liar that nobody builds on harms nobody. What it does beside that is in its [`Malice`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cell::gossip::{
    Contents, DecidedRound, Driver, Ended, Frame, GossipSettings, Handle, Host, Input, Members, Start,
    Target, engine_settings,
};
use cell::network::{Inbound, Lane, Network, NetworkSettings};
use cell::{keys, settings};
use consensus::members::asks_for_change;
use ed25519_dalek::SigningKey;
use futures_util::future::BoxFuture;
use protocol::beacon::Drawn;
use protocol::block::{Attestation, BlockHeader};
use protocol::consensus::Progress;
use protocol::genesis::Genesis;
use protocol::gossip::{EventBytes, Payload};
use protocol::signing::{self, Signature};
use protocol::transaction::{Intent, Transaction};
use protocol::{CellId, Hash, Problem, ProblemKind, StateRoot, codec};

/// What it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Malice {
    /// It gives its word for a root that no block has come to.
    pub(crate) wrong_roots: bool,
    /// It pushes noise, events with signatures that do not hold, events in others' names, and old frames again.
    pub(crate) noise: bool,
    /// It puts transactions into its events that their senders have not signed.
    pub(crate) forged_transactions: bool,
    /// It sends its events to half of the others alone.
    pub(crate) withholds: bool,
    /// It shows half of the others another event on the same parent.
    pub(crate) two_lives: bool,
}

struct Liar {
    key: SigningKey,
    cell: CellId,
    genesis: Genesis,
    members: Arc<Members>,
    malice: Mutex<Malice>,
    /// What it has sworn to keep.
    events: Mutex<Vec<Vec<u8>>>,
    /// A block that it may lie about.
    header: Mutex<Option<BlockHeader>>,
    network: OnceLock<Network>,
    handle: OnceLock<Handle>,
    frames: AtomicU64,
    last_frame: Mutex<Vec<u8>>,
    rounds: AtomicU64,
}

impl Liar {
    fn malice(&self) -> Malice {
        *self.malice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs an event of its own once more, with something else in it.
    fn twin(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let EventBytes { mut event, .. } = EventBytes::read(bytes).ok()?;
        if event.creator != self.cell {
            return None;
        }
        let payload =
            codec::encode(&Payload { transactions: vec![self.transaction(7)], ..Payload::default() });
        event.payload = Hash::of(&payload);
        let event = event.sign(&self.key, &self.genesis.hash());
        Some(codec::encode(&EventBytes { event, payload }))
    }

    fn transaction(&self, nonce: u64) -> Transaction {
        let args = serde_json::json!({ "key": "liar", "value": nonce.to_string() });
        let intent = Intent { module: "kv".into(), call: "put".into(), args, ..Intent::default() };
        Transaction::sign(&self.key, self.genesis.hash(), &intent, nonce)
    }

    /// A frame with events that nobody should take.
    fn bad_frame(&self, number: u64, frame: &[u8], epoch: u64) -> Vec<u8> {
        let genesis = self.genesis.hash();
        let own = self.events.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
        let Some(Ok(EventBytes { mut event, payload })) = own.map(|bytes| EventBytes::read(&bytes)) else {
            return vec![0xff; 64];
        };
        match number % 5 {
            0 => return vec![(number % 251) as u8; 200],
            1 => return self.last_frame.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            2 => event.signature = Signature::from_bytes([7; 64]),
            3 => {
                // In the name of another.
                event.creator = self.members.set().all()[0].cell;
                event = event.sign(&self.key, &genesis);
            }
            _ => return frame[..frame.len() / 2].to_vec(),
        }
        codec::encode(&Frame::Events {
            epoch,
            events: vec![codec::encode(&EventBytes { event, payload }).into()],
        })
    }
}

impl Host for Liar {
    fn has_to_say(&self, _: bool) -> bool {
        self.malice().wrong_roots || self.malice().forged_transactions
    }

    fn next_payload(&self, _: usize) -> (Vec<u8>, Contents) {
        let malice = self.malice();
        let mut payload = Payload::default();
        if malice.wrong_roots
            && let Some(header) = self.header.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            payload.attestations.push(Attestation::sign(
                &self.key,
                &header,
                StateRoot::from_bytes([0xbd; 32]),
            ));
        }
        if malice.forged_transactions {
            let mut stolen = self.transaction(1);
            stolen.sender = self.members.set().all()[0].cell;
            payload.transactions.push(stolen);
        }
        let orders = !payload.transactions.is_empty();
        let bytes = if payload == Payload::default() { Vec::new() } else { codec::encode(&payload) };
        (bytes, Contents { orders, changes: false })
    }

    fn say_again(&self, _: &[u8]) {}

    fn check(&self, event: &EventBytes, members: &Members) -> Result<Contents, Problem> {
        Ok(self.look(event, members))
    }

    fn look(&self, event: &EventBytes, members: &Members) -> Contents {
        let payload: Payload = codec::decode(&event.payload).unwrap_or_default();
        let changes =
            |transaction: &Transaction| asks_for_change(transaction, members.contains(&transaction.sender));
        Contents {
            orders: !payload.transactions.is_empty() || payload.openings.is_some(),
            changes: payload.transactions.iter().any(changes),
        }
    }

    fn heard(&self, _: u64, _: &[u8]) {}

    fn signs_in(&self, members: &Members) -> bool {
        members.contains(&self.cell)
    }

    fn sign(&self, text: &[u8]) -> Signature {
        signing::sign(&self.key, text)
    }

    fn record(&self, _: u64, _: u64, events: Vec<Vec<u8>>) -> BoxFuture<'static, Result<(), Problem>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
        Box::pin(std::future::ready(Ok(())))
    }

    fn read(&self, _: u64, number: u64) -> BoxFuture<'static, Result<Vec<u8>, Problem>> {
        let found = self.events.lock().unwrap_or_else(PoisonError::into_inner).get(number as usize).cloned();
        Box::pin(std::future::ready(found.ok_or_else(|| failed("it is not kept"))))
    }

    fn order(&self, _: u64, rounds: Vec<DecidedRound>) -> BoxFuture<'static, Result<Progress, Problem>> {
        let all = self.rounds.fetch_add(rounds.len() as u64, Ordering::Relaxed) + rounds.len() as u64;
        let progress = Progress { ordered: all, executed: all, finalised: all };
        Box::pin(std::future::ready(Ok(progress)))
    }

    fn send(&self, to: &CellId, frame: Vec<u8>) {
        let Some(network) = self.network.get() else { return };
        let malice = self.malice();
        let is_far = self.members.place(to).is_some_and(|place| place.0 % 2 == 1);
        let number = self.frames.fetch_add(1, Ordering::Relaxed);
        let mut sent = frame.clone();
        if let Ok(Frame::Events { epoch, events }) = codec::decode::<Frame>(&frame) {
            if malice.withholds && is_far {
                return;
            }
            if malice.two_lives && is_far {
                let twin = |bytes: &minicbor::bytes::ByteVec| {
                    self.twin(bytes).map_or_else(|| bytes.clone(), Into::into)
                };
                sent = codec::encode(&Frame::Events { epoch, events: events.iter().map(twin).collect() });
            }
            if malice.noise {
                network.push(Lane::Events, to, self.bad_frame(number, &frame, epoch));
            }
        }
        *self.last_frame.lock().unwrap_or_else(PoisonError::into_inner) = frame;
        network.push(Lane::Events, to, sent);
    }

    fn connected(&self) -> Vec<CellId> {
        self.network.get().map(Network::connected_peers).unwrap_or_default()
    }

    fn epoch_begins(&self, _: u64, _: &Members) {}

    fn decided(&self, _: u64, _: u64, _: &[&[u8]]) -> Option<Drawn> {
        None
    }

    fn next_epoch(&self, _: u64, _: u64) -> BoxFuture<'static, Result<Arc<Members>, Problem>> {
        // It clings to the members that it had.
        let members = Arc::clone(&self.members);
        Box::pin(std::future::ready(Ok(members)))
    }

    fn forked(&self, _: EventBytes, _: EventBytes) {}

    fn fall_behind(&self, _: Target) {}
}

fn failed(why: &str) -> Problem {
    Problem::new(ProblemKind::Fault, "liar.failed", why.to_owned())
}

struct Gate(OnceLock<Handle>);

impl Inbound for Gate {
    fn request(&self, _: Lane, _: CellId, _: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        // Noise, whatever is asked.
        Box::pin(std::future::ready(vec![0xa5; 40]))
    }

    fn push(&self, _: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        let handle = self.0.get().cloned();
        Box::pin(async move {
            if let Some(handle) = handle {
                let _ = handle.push(from, bytes).await;
            }
        })
    }

    fn hello(&self, _: CellId, _: Vec<u8>, _: Vec<String>) {}
}

/// A liar that runs, in this process.
pub(crate) struct Hostile {
    liar: Arc<Liar>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Hostile {
    /// Takes the place of a cell that does not run: its key, its address, its seat among the members.
    pub(crate) fn in_place_of(dir: &Path, others: &[(CellId, String)], malice: Malice) -> Self {
        let keyring = keys::open(dir, None).expect("its key");
        let genesis = std::fs::read(dir.join("genesis.json")).expect("a genesis");
        let genesis: Genesis = serde_json::from_slice(&genesis).expect("a genesis");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let members = Arc::new(Members::new(genesis.member_set()));
        let liar = Arc::new(Liar {
            key: SigningKey::from_bytes(&keyring.seed()),
            cell: keyring.cell(),
            genesis,
            members: Arc::clone(&members),
            malice: Mutex::new(malice),
            events: Mutex::default(),
            header: Mutex::default(),
            network: OnceLock::new(),
            handle: OnceLock::new(),
            frames: AtomicU64::new(0),
            last_frame: Mutex::default(),
            rounds: AtomicU64::new(0),
        });
        let gate = Arc::new(Gate(OnceLock::new()));
        let about = NetworkSettings {
            seed: keyring.seed(),
            listen: settings::load(dir, &[]).expect("its settings").settings.network.listen,
            lanes: Lane::BETWEEN_CELLS,
            hello: Vec::new(),
            mdns: false,
            connections_max: 64,
            connections_per_peer_max: 4,
            requests_per_peer_max: 64,
            frame_bytes_max: 8 * 1024 * 1024,
            request_timeout: Duration::from_secs(10),
            direct: false,
        };
        let inbound: Arc<dyn Inbound> = Arc::<Gate>::clone(&gate);
        let network = runtime.block_on(Network::start(about, inbound, runtime.handle())).expect("a network");
        for (cell, address) in others {
            runtime.block_on(network.keep(*cell, vec![address.clone()]));
        }
        assert!(liar.network.set(network.clone()).is_ok());
        let defaults = settings::Consensus::default();
        let settings = GossipSettings {
            genesis: liar.genesis.hash(),
            epoch_rounds: liar.genesis.epoch_rounds(),
            engine: engine_settings(defaults.event_interval_us, defaults.patience_us),
        };
        let host: Arc<dyn Host> = Arc::<Liar>::clone(&liar);
        let (driver, handle) =
            Driver::new(host, members, liar.cell, settings, Start::default()).expect("a member");
        assert!(gate.0.set(handle.clone()).is_ok() && liar.handle.set(handle.clone()).is_ok());
        runtime.spawn(async move {
            let ended: Result<Ended, Problem> = driver.run().await;
            eprintln!("the liar's driver has ended: {:?}", ended.map(|_| ()));
        });
        runtime.spawn(async move {
            let mut changes = network.changes();
            while changes.changed().await.is_ok() {
                handle.tell(Input::Peers).await;
            }
        });
        Self { liar, runtime: Some(runtime) }
    }

    /// From now on it lies like this.
    pub(crate) fn lie(&self, malice: Malice) {
        *self.liar.malice.lock().unwrap_or_else(PoisonError::into_inner) = malice;
        self.stir();
    }

    /// A block that it gives a wrong word for with its next event.
    pub(crate) fn lie_about(&self, header: BlockHeader) {
        *self.liar.header.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
        self.stir();
    }

    fn stir(&self) {
        if let Some(handle) = self.liar.handle.get() {
            handle.to_say();
        }
    }

    /// Rounds that it has seen decided.
    pub(crate) fn rounds(&self) -> u64 {
        self.liar.rounds.load(Ordering::Relaxed)
    }

    /// Its cell.
    pub(crate) fn cell(&self) -> CellId {
        self.liar.cell
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
