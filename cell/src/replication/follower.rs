//! Keeps one copy up, on a thread of its own: what it does to the disk waits for nobody else.
//!
//! Every connected peer is asked whether it has the journal, its writer first; those that have it, by the
//! same key, are sources. One whose answer does not hold is not asked again for a while. A copy that cannot be
//! opened is set aside and begun anew; one that can be is checked first, and what is damaged is fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use journal::replica::{self, Answer, Failed, Mirror, Replica, Request, Took};
use journal::{EncryptionKey, Error, Reader};
use protocol::nucleus::{CopyState, CopyView};
use protocol::{CellId, Hash, Problem, ProblemKind};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::place::{About, Place};
use super::wire::{Ask, Reply, garbled};
use super::{ask, find, public_key};
use crate::actor::journal_problem;
use crate::network::Network;

/// How long a source is asked to wait for growth.
const GROWTH_WAIT_MS: u32 = 5_000;
/// How often a peer that is no source is asked whether it has become one.
const KNOCK_EVERY: Duration = Duration::from_secs(2);
/// How soon a peer that was busy is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How long a source whose answer did not hold is not asked again.
const BANNED: Duration = Duration::from_secs(600);
/// The most sources at once.
const SOURCES_MAX: usize = 16;
/// The pause before a copy that met a disk's error is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(5);

/// What a follower needs.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) network: Network,
    pub(crate) me: CellId,
    pub(crate) about: About,
    pub(crate) place: Place,
    /// The shortest time between two questions of growth to one source.
    pub(crate) growth_pause: Duration,
    /// What the journal is encrypted with, if it can be read here.
    pub(crate) seal: Option<Seal>,
}

/// What a journal that can be read here is encrypted with.
#[derive(Clone)]
pub(crate) struct Seal {
    pub(crate) key: EncryptionKey,
    /// Whether it is encrypted at all: a copy that is begun anew says so as well.
    pub(crate) is_used: bool,
}

/// Where a copy's reader is put, once it is open.
type Slot = Arc<Mutex<Option<Reader>>>;

/// Sources that are not to be waited for.
type Given = Arc<Mutex<BTreeSet<CellId>>>;

/// A follower at work.
pub(crate) struct Follower {
    about: About,
    view: watch::Receiver<CopyView>,
    reader: Slot,
    have: Arc<AtomicU64>,
    look: Arc<Notify>,
    given_up: Given,
    stop: watch::Sender<bool>,
    done: Option<oneshot::Receiver<()>>,
}

impl Follower {
    pub(crate) fn start(orders: Orders, edge: &tokio::runtime::Handle) -> Self {
        let about = orders.about.clone();
        let first = CopyView {
            cell: about.cell,
            journal: about.journal,
            key: about.key,
            state: CopyState::Opening,
            fork: 0,
            length: 0,
            have: 0,
            healed: 0,
            sources: 0,
            problem: None,
            folder: orders.place.folder().display().to_string(),
        };
        let (view_sender, view) = watch::channel(first);
        let (stop, stopped) = watch::channel(false);
        let (finished, done) = oneshot::channel();
        let reader = Arc::new(Mutex::new(None));
        let have = Arc::new(AtomicU64::new(0));
        let look = Arc::new(Notify::new());
        let given_up = Given::default();
        let mut work = Work {
            orders,
            view: view_sender,
            reader: Arc::clone(&reader),
            have: Arc::clone(&have),
            look: Arc::clone(&look),
            given_up: Arc::clone(&given_up),
            stop: stopped,
        };
        let edge = edge.clone();
        let name = format!("follow-{}", about.journal);
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            edge.block_on(work.run());
            let _ = finished.send(());
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to follow a journal");
        }
        Self { about, view, reader, have, look, given_up, stop, done: Some(done) }
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    pub(crate) fn view(&self) -> CopyView {
        self.view.borrow().clone()
    }

    /// Has it ask all peers anew whether they have the journal: one may have just got it.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// Has it wait for nothing that it asked of a peer, which may be frozen: others are asked.
    pub(crate) fn give_up_on(&self, peer: CellId) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        self.look.notify_one();
    }

    pub(crate) fn changes(&self) -> watch::Receiver<CopyView> {
        self.view.clone()
    }

    pub(super) fn reader(&self) -> Option<Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of the journal's first entries are here.
    pub(crate) fn have(&self) -> u64 {
        self.have.load(Ordering::Acquire)
    }

    /// What counts them.
    pub(crate) fn have_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.have)
    }

    /// Gives its reader, once there is one.
    pub(crate) fn to_reader(&self) -> impl Fn() -> Option<Reader> + Send + 'static + use<> {
        let reader = Arc::clone(&self.reader);
        move || reader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it; says whether its files are closed.
    pub(crate) async fn stop(&mut self, patience: Duration) -> bool {
        self.stop.send_replace(true);
        if let Some(done) = &mut self.done
            && tokio::time::timeout(patience, done).await.is_ok()
        {
            self.done = None;
        }
        self.done.is_none()
    }
}

struct Work {
    orders: Orders,
    view: watch::Sender<CopyView>,
    reader: Slot,
    have: Arc<AtomicU64>,
    look: Arc<Notify>,
    given_up: Given,
    stop: watch::Receiver<bool>,
}

impl Work {
    async fn run(&mut self) {
        while !*self.stop.borrow() {
            let ended = match self.open() {
                Ok((replica, healed)) => {
                    *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(replica.reader());
                    Round::new(self, replica, healed).run().await
                }
                Err(problem) => Err(problem),
            };
            let Err(problem) = ended else { return };
            let stopped = problem.code == "replica.contradiction";
            tracing::warn!(%problem, journal = %self.orders.about.journal, cell = %self.orders.about.cell, "a copy cannot go on");
            self.view.send_modify(|view| {
                view.state = CopyState::Stopped;
                view.problem = Some(problem);
            });
            let mut stop = self.stop.clone();
            let asked = stop.wait_for(|stop| *stop);
            if stopped {
                let _ = asked.await;
            } else {
                let _ = tokio::time::timeout(REOPEN_PAUSE, asked).await;
            }
        }
    }

    /// The copy, checked; with how many damaged entries were dropped.
    fn open(&self) -> Result<(Replica, u64), Problem> {
        let Orders { about, place, seal, .. } = &self.orders;
        let (folder, key) = (place.folder(), public_key(&about.key));
        let create = || match seal.as_ref().filter(|seal| seal.is_used) {
            Some(seal) => Replica::create_encrypted(folder, key, &seal.key),
            None => Replica::create(folder, key),
        };
        let problem = |error: Error| journal_problem(about.journal, &error);
        let mut replica = match Replica::open_with(folder, key, seal.as_ref().map(|seal| &seal.key)) {
            Ok(replica) => replica,
            Err(Error::NotCreated) => create().map_err(problem)?,
            Err(error @ (Error::Corrupt(_) | Error::WrongKey | Error::Unsupported(_))) => {
                let aside = place.set_aside()?;
                tracing::warn!(%error, aside = %aside.display(), "a copy that cannot be opened is begun anew");
                create().map_err(problem)?
            }
            Err(error) => return Err(problem(error)),
        };
        let damaged = replica.drop_damaged(&mut |_, _| {}).map_err(problem)?;
        if damaged > 0 {
            tracing::warn!(damaged, journal = %about.journal, cell = %about.cell, "damaged entries of a copy are fetched again");
        }
        Ok((replica, damaged))
    }
}

type Answered = (u64, CellId, bool, Instant, Result<Answer, Problem>);

/// One life of an open copy.
struct Round<'a> {
    work: &'a Work,
    mirror: Mirror<CellId>,
    asked: FuturesUnordered<BoxFuture<'static, Answered>>,
    knocked: FuturesUnordered<BoxFuture<'static, (CellId, Result<Hash, Problem>)>>,
    knocking: BTreeSet<CellId>,
    /// The sources that have said how long the log is: from then on they are asked to wait for growth.
    heard: BTreeSet<CellId>,
    /// When a source is asked again how the log has grown.
    wake_at: BTreeMap<CellId, Instant>,
    banned: BTreeMap<CellId, Instant>,
    next_knock: Instant,
    healed: u64,
    /// What the journal's own cell last said to a knock.
    refusal: Option<Problem>,
}

impl<'a> Round<'a> {
    fn new(work: &'a Work, replica: Replica, healed: u64) -> Self {
        Self {
            work,
            mirror: Mirror::new(replica),
            asked: FuturesUnordered::new(),
            knocked: FuturesUnordered::new(),
            knocking: BTreeSet::new(),
            heard: BTreeSet::new(),
            wake_at: BTreeMap::new(),
            banned: BTreeMap::new(),
            next_knock: Instant::now(),
            healed,
            refusal: None,
        }
    }

    async fn run(mut self) -> Result<(), Problem> {
        let mut changes = self.work.orders.network.changes();
        let mut stop = self.work.stop.clone();
        loop {
            self.ask_all()?;
            self.publish();
            let wake = self.wake_at.values().min().copied();
            let next = wake.map_or(self.next_knock, |wake| wake.min(self.next_knock));
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {
                    let closed = self.mirror.into_replica().close();
                    return closed.map_err(|error| journal_problem(self.work.orders.about.journal, &error));
                }
                Some(answered) = self.asked.next() => self.take(answered)?,
                Some((peer, found)) = self.knocked.next() => self.found(peer, found),
                Ok(()) = changes.changed() => self.next_knock = Instant::now(),
                () = self.work.look.notified() => {
                    self.next_knock = Instant::now();
                    let given_up = std::mem::take(&mut *self.work.given_up.lock().unwrap_or_else(PoisonError::into_inner));
                    given_up.iter().for_each(|peer| self.mirror.leave(peer));
                }
                () = tokio::time::sleep_until(next) => {}
            }
            self.wake();
            self.knock();
        }
    }

    fn ask_all(&mut self) -> Result<(), Problem> {
        let about = &self.work.orders.about;
        while let Some((ticket, peer, request)) =
            self.mirror.ask().map_err(|error| journal_problem(about.journal, &error))?
        {
            let (network, growth) =
                (self.work.orders.network.clone(), matches!(request, Request::Grow { .. }));
            let read = Ask::Read {
                cell: about.cell,
                journal: about.journal,
                key: about.key,
                wait_ms: if growth && self.heard.contains(&peer) { GROWTH_WAIT_MS } else { 0 },
                question: replica::encode(&request),
            };
            self.asked.push(Box::pin(async move {
                let asked_at = Instant::now();
                let answer = match ask(&network, peer, &read).await {
                    Ok(Reply::Answer { answer }) => replica::decode(&answer).map_err(|_| garbled()),
                    Ok(Reply::Refused { problem }) | Err(problem) => Err(problem),
                    Ok(Reply::Found { .. }) => Err(garbled()),
                };
                (ticket, peer, growth, asked_at, answer)
            }));
        }
        Ok(())
    }

    fn take(&mut self, (ticket, peer, growth, asked_at, answer): Answered) -> Result<(), Problem> {
        if growth {
            self.wake_at.insert(peer, asked_at + self.work.orders.growth_pause);
        }
        let answer = match answer {
            Ok(answer) => {
                self.heard.insert(peer);
                answer
            }
            Err(problem) => {
                tracing::debug!(%peer, %problem, "a source did not answer");
                self.heard.remove(&peer);
                let gone = problem.kind != ProblemKind::Busy;
                if self.mirror.failed(ticket) || gone {
                    self.mirror.leave(&peer);
                }
                if peer == self.work.orders.about.cell {
                    self.refusal = Some(problem);
                }
                return Ok(());
            }
        };
        match self.mirror.answered(ticket, &answer) {
            Ok(Took::Reforked(kept)) => {
                let about = &self.work.orders.about;
                tracing::warn!(kept, journal = %about.journal, cell = %about.cell, "the writer has begun a newer fork");
            }
            Ok(_) => {}
            Err(Failed::Lied(peer, error)) => {
                tracing::warn!(%peer, %error, "a source's answer does not hold; it is asked no more");
                self.banned.insert(peer, Instant::now() + BANNED);
            }
            Err(Failed::Stop(error @ Error::Contradiction { .. })) => {
                return Err(Problem::new(ProblemKind::Fault, "replica.contradiction", error.to_string()).hint(
                    "the journal's writer has signed two histories: trust it no more; the copy is kept as it was",
                ));
            }
            Err(Failed::Stop(error)) => {
                return Err(journal_problem(self.work.orders.about.journal, &error));
            }
        }
        Ok(())
    }

    fn wake(&mut self) {
        let now = Instant::now();
        for (peer, _) in self.wake_at.extract_if(.., |_, at| *at <= now) {
            self.mirror.wake(&peer);
        }
    }

    /// Asks connected peers that are no sources whether they have the journal.
    fn knock(&mut self) {
        let now = Instant::now();
        if now < self.next_knock {
            return;
        }
        self.next_knock = now + KNOCK_EVERY;
        self.banned.retain(|_, until| *until > now);
        let Orders { network, me, about, .. } = &self.work.orders;
        let connected = network.connected_peers();
        let left: Vec<CellId> =
            self.mirror.sources().filter(|source| !connected.contains(source)).copied().collect();
        left.iter().for_each(|source| self.mirror.leave(source));
        let sources: BTreeSet<CellId> = self.mirror.sources().copied().collect();
        let room = SOURCES_MAX.saturating_sub(sources.len() + self.knocking.len());
        let free = |peer: &CellId| {
            peer != me
                && !sources.contains(peer)
                && !self.knocking.contains(peer)
                && !self.banned.contains_key(peer)
        };
        let (mut first, others): (Vec<_>, Vec<_>) =
            connected.into_iter().filter(free).partition(|peer| *peer == about.cell);
        first.extend(others);
        for peer in first.into_iter().take(room) {
            self.knocking.insert(peer);
            let (network, cell, journal) = (network.clone(), about.cell, about.journal);
            self.knocked.push(Box::pin(async move { (peer, find(&network, peer, cell, journal).await) }));
        }
    }

    fn found(&mut self, peer: CellId, found: Result<Hash, Problem>) {
        self.knocking.remove(&peer);
        let about = &self.work.orders.about;
        let found = found.and_then(|key| match key == about.key {
            true => Ok(()),
            false => Err(super::other_key(&about.key, &key)),
        });
        match &found {
            Ok(()) => self.mirror.join(peer),
            // It may have it in a moment.
            Err(problem) if problem.kind == ProblemKind::Busy => {
                self.next_knock = self.next_knock.min(Instant::now() + BUSY_PAUSE);
            }
            Err(_) => {}
        }
        if peer == about.cell {
            self.refusal = found.err();
        }
    }

    fn publish(&self) {
        let replica = self.mirror.replica();
        let (fork, length) = replica.reader().head();
        let first = replica.missing().iter().next().map_or(length, |range| range.start);
        self.work.have.store(first.min(length), Ordering::Release);
        let missing: u64 = replica.missing().iter().map(|range| range.end - range.start).sum();
        let sources = self.mirror.sources().count() as u64;
        let state = match (sources, self.mirror.is_settled(), &self.refusal) {
            (0, _, Some(problem)) if problem.kind == ProblemKind::Denied => CopyState::Denied,
            (0, ..) => CopyState::Waiting,
            (_, true, _) => CopyState::Following,
            (_, false, _) if missing == 0 && length > 0 => CopyState::Following,
            _ => CopyState::Copying,
        };
        self.work.view.send_if_modified(|view| {
            let next = CopyView {
                state,
                fork,
                length,
                have: length - missing,
                healed: self.healed,
                sources,
                problem: if sources == 0 { self.refusal.clone() } else { None },
                ..view.clone()
            };
            let changed = *view != next;
            *view = next;
            changed
        });
    }
}
