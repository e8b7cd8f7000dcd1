//! The cell as host of its gossip: its journal by the bus, its network, its key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use consensus::Record;
use futures_util::future::BoxFuture;
use machine::Entry;
use protocol::beacon::Drawn;
use protocol::block::Attestation;
use protocol::consensus::{
    AttestedRequest, EpochView, OrderRequest, OrderedRound, Progress, RecordRequest, RecordedRequest,
};
use protocol::gossip::{EventBytes, ForkProof, Payload};
use protocol::shared::{Empty, ListRequest};
use protocol::signing::{self, Signature, Signed};
use protocol::transaction::Transaction;
use protocol::{CellId, Problem, ProblemKind, Service, TxId, codec};
use tokio::sync::Notify;

use super::beacon::{self, Draws};
use super::pool::{self, LookUp};
use super::{Contents, DecidedRound, Host, Members, Target, behind, part};
use crate::actor::journal_problem;
use crate::network::Lane;
use crate::node::World;

/// The pause before a busy journal is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// Words that wait to be journaled; more are looked for again.
const WORDS_MAX: usize = 65_536;

/// Puts what waits in Consensus's view into the pool: effects were missed.
pub async fn fill_pool(world: &World) -> Result<(), Problem> {
    look_up(world, world.pool.look_up().await).await
}

/// Forgets what waits in the pool, and puts what waits in Consensus's view into it, but for what is in events already.
pub(super) async fn fill_anew(
    world: &World,
    said: BTreeSet<TxId>,
    progress: Progress,
) -> Result<(), Problem> {
    look_up(world, world.pool.begin_anew(said, progress).await).await
}

async fn look_up(world: &World, look_up: LookUp<'_>) -> Result<(), Problem> {
    let consensus = world.bus.internal();
    loop {
        let cursor = look_up.known().map(|entry| entry.to_string());
        let page = consensus.consensus().waits(ListRequest { cursor, limit: Some(1_000) }).await?;
        look_up.found(page.items);
        if page.next.is_none() && look_up.is_done() {
            break;
        }
    }
    for word in consensus.consensus().own_words(Empty {}).await?.items {
        world.pool.attest(word);
    }
    Ok(())
}

/// Journals what other members say of blocks, all that has come together.
pub(super) async fn enter_words(world: Arc<World>, seat: Arc<Seat>) {
    loop {
        seat.has_words.notified().await;
        let words = std::mem::take(&mut *seat.words.lock().unwrap_or_else(PoisonError::into_inner));
        for (epoch, attestations) in words {
            let request = AttestedRequest { epoch, attestations };
            let entered = patiently(|| {
                let (bus, request) = (world.bus.internal(), request.clone());
                Box::pin(async move { bus.consensus().attested(request).await })
            });
            if let Err(problem) = entered.await {
                tracing::warn!(%problem, "members' words were not journaled; they come again with what is missing");
            }
        }
    }
}

/// Asks again while the service is busy.
async fn patiently<'a, T>(ask: impl Fn() -> BoxFuture<'a, Result<T, Problem>>) -> Result<T, Problem> {
    loop {
        match ask().await {
            Err(problem) if problem.kind == ProblemKind::Busy => tokio::time::sleep(BUSY_PAUSE).await,
            done => return done,
        }
    }
}

pub(super) fn journal(world: &World) -> Result<journal::Reader, Problem> {
    world.service(Service::Consensus).gauges.reader().ok_or_else(|| {
        Problem::new(ProblemKind::Unavailable, "gossip.no_journal", "the consensus journal is not open")
    })
}

/// An epoch, and events of it in bytes.
type Batch = (u64, Vec<Vec<u8>>);

/// The events of a journal entry, if it holds some.
fn events_of(reader: &journal::Reader, index: u64) -> Result<Option<Batch>, Problem> {
    let bytes = reader.get(index).map_err(|error| journal_problem(Service::Consensus, &error))?;
    Ok(match Entry::<Record>::decode(&bytes)?.record {
        Record::Events { epoch, events, .. } => Some((epoch, events.into_iter().map(Into::into).collect())),
        _ => None,
    })
}

/// The events of the present epoch, in the order in which they were recorded.
pub(super) fn read_events(reader: &journal::Reader, epoch: &EpochView) -> Result<Vec<EventBytes>, Problem> {
    let mut found = Vec::new();
    let Some(first) = epoch.entry else { return Ok(found) };
    for index in first..reader.length() {
        if let Some((of, events)) = events_of(reader, index)?
            && of == epoch.epoch
        {
            for bytes in events {
                found.push(EventBytes::read(&bytes)?);
            }
        }
    }
    Ok(found)
}

fn contents(payload: &Payload, members: &Members) -> Contents {
    let changes = |transaction: &Transaction| {
        consensus::members::asks_for_change(transaction, members.contains(&transaction.sender))
    };
    Contents {
        orders: !payload.transactions.is_empty() || payload.openings.is_some(),
        changes: payload.transactions.iter().any(changes),
    }
}

/// The cell as host.
pub(super) struct Seat {
    /// Weak: the world holds the handle, and the driver the seat.
    world: Weak<World>,
    /// By the epoch in whose events they came.
    words: Mutex<BTreeMap<u64, Vec<Attestation>>>,
    has_words: Notify,
    draws: Draws,
}

impl Seat {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::downgrade(world),
            words: Mutex::default(),
            has_words: Notify::new(),
            draws: Draws::default(),
        }
    }

    fn world(&self) -> Result<Arc<World>, Problem> {
        let stopped = || Problem::new(ProblemKind::Unavailable, "gossip.stopped", "the cell is stopping");
        self.world.upgrade().ok_or_else(stopped)
    }
}

impl Host for Seat {
    fn has_to_say(&self, may_order: bool) -> bool {
        self.draws.has_to_say() || self.world().is_ok_and(|world| world.pool.has_to_say(may_order))
    }

    fn next_payload(&self, bytes_max: usize) -> (Vec<u8>, Contents) {
        let Ok(world) = self.world() else { return (Vec::new(), Contents { orders: false, changes: false }) };
        let (dealings, openings) = self.draws.say(world.member_key(), world.pool.has_to_say(true));
        let (dealings, openings) = (Some(dealings), Some(openings));
        let room = bytes_max.saturating_sub(codec::encode(&(&dealings, &openings)).len());
        let mut payload = world.pool.take(room);
        payload.dealings = dealings.filter(|dealings| !dealings.is_empty());
        payload.openings = openings.filter(|openings| !openings.is_empty());
        (pool::write(&payload), contents(&payload, &world.members()))
    }

    fn say_again(&self, payload: &[u8]) {
        if let Ok(world) = self.world() {
            world.pool.again(payload);
        }
    }

    fn check(&self, event: &EventBytes, members: &Members) -> Result<Contents, Problem> {
        let world = self.world()?;
        let payload = pool::read(&event.payload)?;
        let genesis = world.genesis.hash();
        if payload.attestations.iter().any(|word| word.member != event.event.creator) {
            let cause = "an event carries another member's word";
            return Err(Problem::new(ProblemKind::Invalid, "event.foreign_word", cause));
        }
        beacon::check(event, &payload)?;
        let transactions = payload.transactions.iter().map(Transaction::to_check);
        let signer = members.set().signer_of(&event.event.creator).unwrap_or(event.event.creator);
        let words = payload.attestations.iter().map(|word| word.to_check(&genesis, signer));
        let to_check: Vec<Signed> = transactions.chain(words).collect();
        if signing::verify_all(&to_check).contains(&false) {
            let cause = "a signature in what an event carries does not hold";
            return Err(Problem::new(ProblemKind::Invalid, "event.bad_contents", cause));
        }
        Ok(contents(&payload, members))
    }

    fn look(&self, event: &EventBytes, members: &Members) -> Contents {
        contents(&pool::read(&event.payload).unwrap_or_default(), members)
    }

    fn heard(&self, epoch: u64, payload: &[u8]) {
        let (Ok(world), Ok(payload)) = (self.world(), pool::read(payload)) else { return };
        self.draws.hear(&payload);
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let news = payload.attestations.into_iter().filter(|word| word.member != world.cell);
        let room = WORDS_MAX.saturating_sub(words.values().map(Vec::len).sum());
        let news: Vec<Attestation> = news.take(room).collect();
        if !news.is_empty() {
            words.entry(epoch).or_default().extend(news);
            self.has_words.notify_one();
        }
    }

    fn sign(&self, text: &[u8]) -> Signature {
        self.world().map_or(Signature::from_bytes([0; 64]), |world| signing::sign(world.member_key(), text))
    }

    fn signs_in(&self, members: &Members) -> bool {
        self.world().is_ok_and(|world| world.signs_in(members.set()))
    }

    fn record(
        &self,
        epoch: u64,
        first: u64,
        events: Vec<Vec<u8>>,
    ) -> BoxFuture<'static, Result<(), Problem>> {
        let world = self.world();
        Box::pin(async move {
            let bus = world?.bus.internal();
            let request = RecordRequest { epoch, first, events };
            patiently(|| {
                let (bus, request) = (bus.clone(), request.clone());
                Box::pin(async move { bus.consensus().record(request).await })
            })
            .await
            .map(|_| ())
        })
    }

    fn read(&self, epoch: u64, number: u64) -> BoxFuture<'static, Result<Vec<u8>, Problem>> {
        let world = self.world();
        Box::pin(async move {
            let world = world?;
            let found = world.bus.internal().consensus().recorded(RecordedRequest { epoch, number }).await?;
            let reader = journal(&world)?;
            let events = crate::node::blocking(move || events_of(&reader, found.entry)).await??;
            let event =
                events.and_then(|(_, events)| events.into_iter().nth(usize::try_from(found.place).ok()?));
            event.ok_or_else(|| {
                Problem::new(
                    ProblemKind::Fault,
                    "gossip.bad_journal",
                    "an event is not where it was recorded",
                )
            })
        })
    }

    fn order(&self, epoch: u64, rounds: Vec<DecidedRound>) -> BoxFuture<'static, Result<Progress, Problem>> {
        let world = self.world();
        Box::pin(async move {
            let world = world?;
            let read = |payload: &Vec<u8>| {
                pool::read(payload).map(|payload| payload.transactions).unwrap_or_default()
            };
            let in_words = |DecidedRound { round, time_us, payloads, drawn }| {
                let transactions = payloads.iter().flat_map(read).collect();
                OrderedRound { round, time_us, transactions, drawn }
            };
            let rounds = rounds.into_iter().map(in_words);
            let request = OrderRequest { epoch, rounds: rounds.collect() };
            let progress = patiently(|| {
                let (bus, request) = (world.bus.internal(), request.clone());
                Box::pin(async move { bus.consensus().order(request).await })
            })
            .await?;
            world.pool.advance(progress);
            Ok(progress)
        })
    }

    fn send(&self, to: &CellId, frame: Vec<u8>) {
        if let Ok(world) = self.world() {
            world.network().push(Lane::Events, to, frame);
        }
    }

    fn connected(&self) -> Vec<CellId> {
        self.world().map(|world| world.network().connected_peers()).unwrap_or_default()
    }

    fn epoch_begins(&self, epoch: u64, members: &Members) {
        if let Ok(world) = self.world() {
            self.draws.begin(&world.genesis, epoch, members, world.cell);
        }
    }

    fn decided(&self, epoch: u64, round: u64, payloads: &[&[u8]]) -> Option<Drawn> {
        let read = |payload: &&[u8]| pool::read(payload).unwrap_or_default();
        self.draws.order(epoch, round, &payloads.iter().map(read).collect::<Vec<_>>())
    }

    fn next_epoch(&self, epoch: u64, base: u64) -> BoxFuture<'static, Result<Arc<Members>, Problem>> {
        let world = self.world();
        Box::pin(async move {
            tracing::debug!(epoch, base, "all blocks before the next epoch are final");
            let world = world?;
            if world.bus.internal().consensus().epoch(Empty {}).await?.epoch >= epoch {
                // Blocks of it were taken over, and the state is that after them: the part begins anew where Consensus stands.
                let cause = format!("epoch {epoch} has begun here with blocks that were taken over");
                return Err(Problem::new(ProblemKind::Conflict, "gossip.epoch_begun", cause));
            }
            part::next_epoch(&world, epoch).await
        })
    }

    fn forked(&self, one: EventBytes, other: EventBytes) {
        let Ok(world) = self.world() else { return };
        let proof = ForkProof { one: one.event, other: other.event };
        tracing::warn!(member = %proof.one.creator, "a member has forked; cell call consensus.evidence shows the proof");
        world.edge.clone().spawn(async move {
            if let Err(problem) = world.bus.internal().consensus().accuse(proof.clone()).await {
                tracing::warn!(%problem, "the evidence of a fork was not journaled");
            }
            if let Err(problem) = crate::fronts::evict(&world, &proof).await {
                tracing::warn!(%problem, "a member that has forked could not be accused");
            }
        });
    }

    fn fall_behind(&self, target: Target) {
        if let Ok(world) = self.world() {
            world.edge.clone().spawn(behind::catch_up(world, target));
        }
    }
}
