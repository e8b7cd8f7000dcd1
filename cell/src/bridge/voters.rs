//! The hosts that elect who leads: what the bridge carries for `quorum`, who of them votes, and what they have.
//!
//! A host that was invited to lead has the cell's key and a copy of every journal. An odd number of such hosts **votes**, the one that leads
//! among them: with one other there is nobody to decide between the two, so it waits. Where nobody but the lead votes, all is as if there was
//! no election.
//!
//! Rules:
//!
//! - What was released is on the disks of most voters (`acks`). Whoever is elected asks most of them, and goes on from the newest that any has
//!   ([`gathered`]): fork before length, since what was taken over later was gathered so as well.
//! - The lease is over before anybody else is elected, and without it nothing is released: so nothing is, that was not there to be gathered.
//! - Voters change one at a time, when most of the next ones have all that there is ([`covered`]), and not before every writer has heard of the
//!   last change: a lease's time.
//! - A term is the fork of Nucleus's journal, an epoch that of another one: no two that take over come to the same fork.
//!
//! The group commits nothing but who is of it: the journals are what the cell knows.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use journal::KeyPair;
use protocol::nucleus::{FirstHostRequest, GrantRequest, HostEntry};
use protocol::{HostId, Problem, ProblemKind, Service};

use super::lead::{Lead, garbled};
use super::wire::{Ask, Head, Held, Reply};
use super::{Bridge, acks, as_peer, place};
use crate::folder::keys_of;
use crate::keys::Keyring;
use crate::quorum::{Committed, LogPlace, Position, Quorum, Settings, StateMachine, Transport};
use crate::replication::Seal;

/// The most hosts that vote.
const VOTERS_MAX: usize = 5;
/// How often the lead says that it is there; each of these is longer than the room's own, for hosts that have much else to do.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// The shortest time without that after which another one wants to lead.
const ELECTION_MIN: Duration = Duration::from_millis(600);
/// The longest: the lease is an eighth less.
const ELECTION_MAX: Duration = Duration::from_millis(1_200);
/// How often what this host leads with is held for longer.
const HOLD_EVERY: Duration = Duration::from_millis(40);
/// The longest that it is held for at once, where nobody else could lead.
const HELD_MAX: Duration = Duration::from_secs(1);
/// How long a host may take to say what it has.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The pause before it is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// How long it may take until what is missing has come.
const GATHER_MAX: Duration = Duration::from_secs(10);
/// What the key of the log of votes derives from, besides the host's own.
const LOG_CONTEXT: &str = "celluler 2026 host vote log key 1";
const LOG_FOLDER: &str = "quorum";
const MARK_FILE: &str = "quorum.mark";

/// Carries the questions of the election.
struct Way(Weak<Bridge>);

impl Transport for Way {
    fn ask(&self, to: HostId, bytes: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Problem>> {
        let bridge = self.0.upgrade();
        Box::pin(async move {
            let bridge = bridge.ok_or_else(super::stopping)?;
            match bridge.ask(to, &Ask::Elect { question: bytes }).await? {
                Reply::Elected { answer } => Ok(answer),
                _ => Err(garbled()),
            }
        })
    }
}

/// There is nothing to be committed but who is of the group; this remembers how far that is.
struct Mark(PathBuf);

impl Mark {
    fn set(&self, at: Position) -> Result<(), Problem> {
        let write = || {
            let draft = self.0.with_extension("new");
            let mut file = std::fs::File::create(&draft)?;
            write!(file, "{} {}", at.term, at.index)?;
            file.sync_all()?;
            std::fs::rename(&draft, &self.0)?;
            std::fs::File::open(self.0.parent().unwrap_or(&self.0))?.sync_all()
        };
        write().map_err(|error: std::io::Error| {
            let cause = format!("{}: {error}", self.0.display());
            Problem::new(ProblemKind::Fault, "folder.unwritable", cause)
                .hint("check the permissions and the space on the disk")
        })
    }
}

impl StateMachine for Mark {
    fn applied(&self) -> Result<Option<Position>, Problem> {
        let Ok(text) = std::fs::read_to_string(&self.0) else { return Ok(None) };
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(term)), Some(Ok(index))) => Ok(Some(Position { term, index })),
            _ => {
                let cause = format!("{} does not read", self.0.display());
                Err(Problem::new(ProblemKind::Fault, "quorum.log", cause)
                    .hint("remove this host from the cell, and let it join anew in another folder"))
            }
        }
    }

    fn apply(&self, entries: &[Committed]) -> Result<(), Problem> {
        entries.last().map_or(Ok(()), |last| self.set(last.at))
    }

    fn snapshot(&self) -> Result<Vec<u8>, Problem> {
        Ok(Vec::new())
    }

    fn restore(&self, at: Position, _: &[u8]) -> Result<(), Problem> {
        self.set(at)
    }
}

/// Whether a folder's host has ever been of a group.
pub(crate) fn has_voted(folder: &std::path::Path) -> bool {
    folder.join(LOG_FOLDER).is_dir()
}

impl Bridge {
    /// This host's part in the election, if there is one.
    pub(super) fn quorum(&self) -> Option<&Arc<Quorum>> {
        self.quorum.get()
    }

    /// Takes part in the election.
    ///
    /// # Errors
    ///
    /// `quorum.…`: its log does not read.
    pub(crate) async fn elect(self: &Arc<Self>) -> Result<Arc<Quorum>, Problem> {
        if let Some(quorum) = self.quorum() {
            return Ok(Arc::clone(quorum));
        }
        let host = self.host()?;
        let folder = host.folder.path();
        let seed = blake3::derive_key(LOG_CONTEXT, &*place::key(folder)?);
        let log = LogPlace {
            folder: folder.join(LOG_FOLDER),
            key_pair: KeyPair::from_seed(&seed),
            encryption_key: None,
        };
        let (way, mark) = (Arc::new(Way(Arc::downgrade(self))), Arc::new(Mark(folder.join(MARK_FILE))));
        let me = self.key;
        // On the threads of the edge: its tasks stay where it is started.
        let settings = Settings {
            heartbeat: HEARTBEAT,
            election_min: ELECTION_MIN,
            election_max: ELECTION_MAX,
            ..Settings::default()
        };
        let started = host.edge.spawn(Quorum::start(me, settings, log, way, mark)).await;
        let quorum = started.map_err(|error| {
            Problem::new(ProblemKind::Fault, "node.panicked", format!("a task ended early: {error}"))
        })??;
        Ok(Arc::clone(self.quorum.get_or_init(|| Arc::new(quorum))))
    }

    /// The hosts that have to have most of what is released; the lead alone where nobody votes.
    pub(super) fn voters(&self) -> Vec<HostId> {
        let known = self.known();
        match self.quorum().filter(|quorum| quorum.leadership().borrow().is_me) {
            Some(quorum) => {
                quorum.members().into_iter().filter(|member| member.votes).map(|member| member.host).collect()
            }
            None if known.voters.is_empty() => known.lead.into_iter().collect(),
            None => known.voters,
        }
    }

    /// The lead says who votes.
    pub(super) fn hear_voters(&self, voters: Vec<HostId>) {
        {
            let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            if known.voters == voters {
                return;
            }
            known.voters = voters;
        }
        Service::ALL.into_iter().for_each(|service| acks::settle(self, service));
    }

    /// Whether others vote besides the lead.
    pub(crate) fn other_voters(&self) -> bool {
        self.quorum().is_some() && self.voters().len() > 1
    }

    /// Whether what this host does as the one that leads still counts.
    ///
    /// # Errors
    ///
    /// `bridge.lease_lapsed`.
    pub(super) fn may_lead_on(&self) -> Result<(), Problem> {
        match self.quorum().filter(|_| self.leads()) {
            Some(quorum) if !quorum.holds_lease() => Err(Problem::new(
                ProblemKind::Unavailable,
                "bridge.lease_lapsed",
                "this host leads no more, or has not heard from most of the others for too long",
            )
            .hint("cell hosts shows who leads; ask again in a moment")),
            _ => Ok(()),
        }
    }

    /// The names of those.
    pub(crate) fn other_voters_named(&self) -> Vec<String> {
        let others = self.voters().into_iter().filter(|voter| *voter != self.key);
        others.filter_map(|voter| self.entry(&voter).map(|host| host.name)).collect()
    }

    /// Whether another host leads by election, and has told what it knows.
    pub(crate) fn is_led(&self) -> bool {
        let known = self.known();
        known.term > 0 && known.lead.is_some_and(|lead| lead != self.key) && known.told_by == known.lead
    }

    /// Copies a journal no longer: it is to be written here.
    ///
    /// # Errors
    ///
    /// `bridge.still_copying`.
    pub(crate) async fn end_copy(&self, service: Service) -> Result<(), Problem> {
        self.copies.stop(service).await
    }

    /// Copies every journal that lies here, from whoever has it: what others wrote since, and what this host alone has written is not to stay.
    pub(crate) async fn follow_all(&self, keyring: &Keyring) {
        let Ok(host) = self.host() else { return };
        self.copies.may_sign(keyring);
        for service in Service::ALL {
            // By the key that signs what lies here: the host that leads says when that is another one.
            let Ok(reader) = journal::Reader::open(&host.folder.journal(service)) else { continue };
            let key = keys_of(keyring, service, &reader).encryption_key();
            let seal = Seal { is_used: reader.is_encrypted(), key };
            let public = protocol::Hash::from_bytes(*reader.key().as_bytes());
            drop(reader);
            if let Err(problem) =
                self.copies.follow(self.network(), self.key, service, public, Some(seal)).await
            {
                tracing::warn!(%service, %problem, "a journal is not copied here yet");
            }
        }
    }

    /// How far a journal is here.
    ///
    /// # Errors
    ///
    /// `bridge.copying` while that is being found out.
    fn held_here(&self, service: Service) -> Result<Head, Problem> {
        let copying = || {
            let cause = format!("it is not known yet how far the {service} journal is here");
            Problem::new(ProblemKind::Busy, "bridge.copying", cause).hint("it is tried again by itself")
        };
        if let Some(progress) = self.copies.progress(service) {
            let head = Head { fork: progress.fork, length: progress.have };
            return progress.is_open.then_some(head).ok_or_else(copying);
        }
        let reader = self.host()?.service(service).gauges.reader().ok_or_else(copying)?;
        let (fork, length) = reader.head();
        Ok(Head { fork, length })
    }

    /// How far every journal is here; of a host that does not vote, those that are.
    ///
    /// # Errors
    ///
    /// As [`Bridge::held_here`].
    pub(super) fn all_held_here(&self) -> Result<Vec<Held>, Problem> {
        let held = |service| {
            let Head { fork, length } = self.held_here(service)?;
            Ok(Held { service, fork, length })
        };
        let all = Service::ALL.into_iter().map(held);
        match self.quorum() {
            Some(_) => all.collect(),
            None => Ok(all.filter_map(Result::ok).collect()),
        }
    }

    /// How far every journal is on a host.
    async fn held_by(&self, key: HostId) -> Result<BTreeMap<Service, Head>, Problem> {
        let journals = if key == self.key {
            self.all_held_here()?
        } else {
            let asked = tokio::time::timeout(ANSWER_MAX, self.ask(key, &Ask::Held));
            match asked.await.map_err(|_| unsaid(1))?? {
                Reply::Held { journals } => journals,
                _ => return Err(garbled()),
            }
        };
        let head = |Held { service, fork, length }| (service, Head { fork, length });
        Ok(journals.into_iter().map(head).collect())
    }

    /// What those of some hosts have that answer.
    async fn held_by_all(&self, keys: &[HostId]) -> BTreeMap<HostId, BTreeMap<Service, Head>> {
        let answers = join_all(keys.iter().map(|key| self.held_by(*key))).await;
        let heard = keys.iter().zip(answers).filter_map(|(key, answer)| match answer {
            Ok(held) => Some((*key, held)),
            Err(problem) => {
                tracing::debug!(%key, %problem, "a host does not say what it has");
                None
            }
        });
        heard.collect()
    }
}

fn unsaid(missing: usize) -> Problem {
    let cause = format!("{missing} more of the hosts that vote would have to say what they have");
    Problem::new(ProblemKind::Unavailable, "bridge.too_few_voters", cause)
        .hint("cell hosts shows the connections; it is tried again by itself")
}

/// The newest that any of most voters has of a journal, and what is here: whatever was released is no newer. None where nobody votes.
///
/// # Errors
///
/// `bridge.too_few_voters`.
async fn newest(bridge: &Bridge, service: Service) -> Result<Option<Head>, Problem> {
    let voters = bridge.voters();
    if bridge.quorum().is_none() || voters.len() < 2 {
        return Ok(None);
    }
    let most = voters.len() / 2 + 1;
    let asked = voters.iter().map(|voter| async { bridge.held_by(*voter).await });
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut heads = Vec::new();
    // One that hangs is not waited for.
    while let Some(answer) = answers.next().await {
        match answer.map(|held| held.get(&service).copied()) {
            Ok(head) => heads.extend(head),
            Err(problem) => tracing::debug!(%service, %problem, "a host does not say what it has"),
        }
        if heads.len() >= most {
            return Ok(heads.into_iter().max());
        }
    }
    Err(unsaid(most - heads.len()))
}

/// Tries to find that out until it is known, for a while.
pub(super) async fn newest_known(bridge: &Bridge, service: Service) -> Result<Option<Head>, Problem> {
    let began = Instant::now();
    loop {
        match newest(bridge, service).await {
            Err(problem) if began.elapsed() > GATHER_MAX => return Err(problem),
            Err(_) => tokio::time::sleep(ASK_PAUSE).await,
            newest => return newest,
        }
    }
}

/// Waits until the copy of a journal here has all that was ever released of it.
///
/// # Errors
///
/// `bridge.too_few_voters`; `bridge.copying` if it takes too long.
pub(crate) async fn gathered(bridge: &Bridge, service: Service) -> Result<(), Problem> {
    let began = Instant::now();
    while let Some(newest) = newest_known(bridge, service).await? {
        if bridge.held_here(service).is_ok_and(|mine| mine.is_as_new_as(newest)) {
            return Ok(());
        }
        if began.elapsed() > GATHER_MAX {
            let cause = format!("the newest entries of {service} have not come from another host");
            return Err(Problem::new(ProblemKind::Unavailable, "bridge.copying", cause)
                .hint("look at the connections between the hosts (cell hosts); it is tried again"));
        }
        if let Ok(lead) = bridge.lead() {
            // Whoever led before may have been lost between the grant of another key and the last copy that it signs.
            lead.have_signed(bridge, service).await;
        }
        bridge.copies.look(service);
        tokio::time::sleep(ASK_PAUSE).await;
    }
    Ok(())
}

/// Waits until most of the next voters have all that there is now, of one journal or of all.
///
/// # Errors
///
/// `bridge.too_few_voters`; `bridge.copying`.
pub(super) async fn covered(bridge: &Bridge, next: &[HostId], only: Option<Service>) -> Result<(), Problem> {
    let (now, roster) = (bridge.voters(), bridge.known().roster);
    let everybody: Vec<HostId> = roster.hosts.iter().map(|host| host.key).collect();
    let began = Instant::now();
    let mut goal = None;
    loop {
        let held = bridge.held_by_all(&everybody).await;
        let heard = now.iter().filter(|voter| held.contains_key(voter)).count();
        let of = |service| held.values().filter_map(|held| held.get(&service)).max().copied();
        let services = || Service::ALL.into_iter().filter(|service| only.is_none_or(|only| only == *service));
        if goal.is_none() && heard > now.len() / 2 {
            goal = Some(services().filter_map(|service| Some((service, of(service)?))).collect::<Vec<_>>());
        }
        if let Some(goal) = &goal {
            let has = |voter: &HostId, service: &Service, head: &Head| {
                held.get(voter)
                    .and_then(|held| held.get(service))
                    .is_some_and(|mine| mine.is_as_new_as(*head))
            };
            let is_covered = |(service, head): &(Service, Head)| {
                next.iter().filter(|voter| has(voter, service, head)).count() > next.len() / 2
            };
            if goal.iter().all(is_covered) {
                return Ok(());
            }
        }
        if began.elapsed() > GATHER_MAX {
            return Err(unsaid((now.len() / 2 + 1).saturating_sub(heard).max(1)));
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// Holds what this host leads with as long as it leads. When it does no more, it begins another life.
pub(crate) async fn hold(bridge: Arc<Bridge>, term: u64) {
    let Some(quorum) = bridge.quorum().map(Arc::clone) else { return };
    let (mut stopping, weak) = (bridge.stopping.subscribe(), Arc::downgrade(&bridge));
    drop(bridge);
    let mut leadership = quorum.leadership();
    loop {
        {
            let Some(bridge) = weak.upgrade() else { return };
            let Ok(host) = bridge.host() else { return };
            let now = leadership.borrow_and_update().clone();
            if !now.is_me || now.term != term {
                tracing::warn!(term, "this host leads no more");
                host.begin_anew();
                return;
            }
            hold_once(&bridge);
        }
        let is_gone = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            changed = leadership.changed() => changed.is_err(),
            () = tokio::time::sleep(HOLD_EVERY) => false,
        };
        if is_gone {
            tokio::time::sleep(HOLD_EVERY).await;
        }
    }
}

/// Holds it once for as long as that is certain.
pub(crate) fn hold_once(bridge: &Bridge) {
    let (Some(quorum), Ok(host)) = (bridge.quorum(), bridge.host()) else { return };
    let asked = Instant::now();
    let others = bridge.voters().len() > 1;
    if let Some(left) = quorum.lease_left() {
        let until = asked + left.min(HELD_MAX);
        Service::ALL.into_iter().for_each(|service| host.bus.lease(service).bind(until));
    }
    if others {
        host.bus.lease(Service::Nucleus).tighten();
    }
    Service::ALL.into_iter().for_each(|service| acks::settle(bridge, service));
}

/// Has the hosts that may lead copy all there is, and as many of them vote as are of use. On the host that leads.
pub(super) async fn tend(bridge: &Arc<Bridge>, lead: &Lead) -> Result<(), Problem> {
    let roster = bridge.known().roster;
    let others = roster.hosts.iter().filter(|host| host.key != bridge.key);
    let may_lead: Vec<&HostEntry> = others.filter(|host| host.may_lead).collect();
    if may_lead.is_empty() && bridge.quorum().is_none() {
        return Ok(());
    }
    let mut ready = Vec::new();
    for host in may_lead {
        let is_there = bridge.network().peer(&as_peer(host.key)).connected && lead.leases().asks(&host.key);
        if !is_there {
            continue;
        }
        match lead.has_copies(bridge, host).await {
            Ok(true) => ready.push(host.key),
            Ok(false) => {}
            Err(problem) => tracing::debug!(host = host.name, %problem, "a host that may lead is not ready"),
        }
    }
    if bridge.quorum().is_none() {
        if ready.len() < 2 {
            return Ok(());
        }
        begin(bridge).await?;
    }
    let quorum = bridge.quorum().ok_or_else(super::stopping)?;
    let voters = bridge.voters();
    let is_host = |key: &HostId| roster.hosts.iter().any(|host| host.key == *key);
    let fresh: Vec<HostId> = ready.into_iter().filter(|key| !voters.contains(key)).collect();
    let is_odd = voters.len() % 2 == 1;
    if let Some(gone) = quorum.members().into_iter().find(|member| !is_host(&member.host)) {
        return change(bridge, &voters, Change::Remove(gone.host)).await;
    }
    match fresh.first() {
        Some(next) if !is_odd || fresh.len() > 1 && voters.len() < VOTERS_MAX => {
            change(bridge, &voters, Change::Admit(*next)).await
        }
        None if !is_odd => match voters.iter().find(|voter| **voter != bridge.key) {
            Some(last) => change(bridge, &voters, Change::Remove(*last)).await,
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

enum Change {
    Admit(HostId),
    Remove(HostId),
}

/// Changes the voters by one.
async fn change(bridge: &Arc<Bridge>, voters: &[HostId], change: Change) -> Result<(), Problem> {
    let quorum = bridge.quorum().ok_or_else(super::stopping)?;
    let mut next = voters.to_vec();
    match &change {
        Change::Admit(host) => next.push(*host),
        Change::Remove(host) => next.retain(|voter| voter != host),
    }
    covered(bridge, &next, None).await?;
    let changed = match change {
        Change::Admit(host) => quorum.admit(host).await,
        Change::Remove(host) => quorum.remove(host).await,
    };
    // Whether or not that is known: a writer that waits for the voters before has heard of these ones, or holds no lease.
    let lease_ms = bridge.host()?.settings.bridge.lease_ms;
    tokio::time::sleep(Duration::from_millis(lease_ms)).await;
    let voters = bridge.voters().len();
    tracing::info!(voters, "the hosts that vote have changed");
    changed
}

/// From now on this host leads by election, of itself alone.
async fn begin(bridge: &Arc<Bridge>) -> Result<(), Problem> {
    let host = bridge.host()?;
    let me = bridge.entry(&bridge.key).ok_or_else(super::stopping)?;
    host.bus
        .internal()
        .nucleus()
        .first_host(FirstHostRequest { host: HostEntry { may_lead: true, ..me } })
        .await?;
    let quorum = bridge.elect().await?;
    if quorum.members().is_empty() {
        quorum.begin().await?;
    }
    let term = quorum.leadership().borrow().term;
    bridge.led_by(bridge.key, term).await;
    hold_once(bridge);
    bridge.spawn(hold(Arc::clone(bridge), term));
    let (service, host_name) = (Service::Nucleus, host.name.clone());
    let leads = GrantRequest { service, host: host_name, replicated: true, takeover: true, new_key: None };
    host.bus.internal().nucleus().grant(leads).await?;
    super::lead::learn_anew(&host, bridge).await.map(|_| ())
}
