//! Copies of this cell's journals that are written on other hosts.
//!
//! A copy lies where the journal itself would: when its service comes here, it is opened for writing. Every byte is checked against what the
//! journal's key has signed, whichever host it came from (`journal::replica`).
//!
//! Where a journal is granted so that nothing leaves its service before the lead has it, the copy here is a standby: its writer is told how far
//! it is ([`tell_writer`]), and the view is kept up with it, so that a takeover has little to fold.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use journal::PublicKey;
use protocol::nucleus::CopyState;
use protocol::{Hash, HostId, Problem, ProblemKind, Service, codec};
use tokio::task::JoinHandle;

use super::wire::{Head, Said};
use super::{Bridge, as_peer};
use crate::actor::copy_source;
use crate::feed::Source;
use crate::folder::rekey;
use crate::keys::Keyring;
use crate::network::{Lane, Network};
use crate::node::Host;
use crate::replication::{self, About, Follower, Orders, Place, Seal};

/// The shortest time between two questions of growth to one host: they are near, and calls wait for what they bring.
const GROWTH_PAUSE: Duration = Duration::from_millis(1);
/// How long a stop waits for a follower.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The shortest time between two folds of a standby's view.
const FOLD_PAUSE: Duration = Duration::from_millis(250);

/// The copies that this host keeps.
pub(super) struct Copies {
    host: Weak<Host>,
    kept: Mutex<BTreeMap<Service, Kept>>,
    /// Held by whoever begins a copy.
    beginning: tokio::sync::Mutex<()>,
    /// The cell's keys, on a host that leads or may: it signs its copies anew when their journals are.
    keyring: OnceLock<Keyring>,
}

/// One copy, and who keeps its view up.
struct Kept {
    follower: Follower,
    view: JoinHandle<()>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Entries that are here, from the first on.
    pub(super) have: u64,
    /// Its fork.
    pub(super) fork: u64,
    /// Entries that the journal is known to have.
    pub(super) length: u64,
    /// Whether it has all that its sources have, one at least.
    pub(super) is_settled: bool,
    /// Whether its files are open, and it is known what is in them.
    pub(super) is_open: bool,
}

impl Progress {
    /// Whether it has every entry of a journal that ends so.
    pub(super) fn reaches(&self, head: Head) -> bool {
        Head { fork: self.fork, length: self.have }.reaches(head)
    }
}

impl Copies {
    pub(super) fn new(host: Weak<Host>) -> Self {
        Self {
            host,
            kept: Mutex::default(),
            beginning: tokio::sync::Mutex::default(),
            keyring: OnceLock::new(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Service, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This host has the cell's keys.
    pub(super) fn may_sign(&self, keyring: &Keyring) {
        let _ = self.keyring.set(keyring.clone());
    }

    /// Copies a journal from whoever has it, from now on; shows it as this cell's. A copy that another key signs is signed anew where this host has
    /// the cell's keys: what it has counts all the time. Elsewhere it is begun anew.
    ///
    /// # Errors
    ///
    /// `bridge.still_copying`, `journal.…`: it is to be tried again.
    pub(super) async fn follow(
        &self,
        network: &Network,
        me: HostId,
        service: Service,
        key: Hash,
        seal: Option<Seal>,
    ) -> Result<(), Problem> {
        let _turn = self.beginning.lock().await;
        let Some(host) = self.host.upgrade() else { return Ok(()) };
        let kept = self.kept().get(&service).map(|kept| kept.follower.about().key);
        if kept == Some(key) {
            return Ok(());
        }
        if let Some(keyring) = self.keyring.get().cloned() {
            let folder = host.folder.journal(service);
            if let Some(numbers) = numbers(&keyring, service, &folder, &key) {
                if numbers.asked < numbers.here {
                    return Err(signed_already(service, numbers));
                }
                self.stop(service).await?;
                let signed = move || sign_anew(&keyring, service, &folder, numbers.asked);
                crate::node::blocking(signed).await??;
            }
        }
        self.stop(service).await?;
        let mut kept = self.kept();
        let orders = Orders {
            network: network.clone(),
            me: as_peer(me),
            about: About { cell: host.cell, journal: service, key },
            place: Place::at(host.folder.journal(service)),
            growth_pause: GROWTH_PAUSE,
            seal,
        };
        let follower = Follower::start(orders, &host.edge);
        host.edge.spawn(show(Arc::downgrade(&host), service, &follower));
        let view = host.edge.spawn(keep_view(Arc::downgrade(&host), service, &follower));
        kept.insert(service, Kept { follower, view });
        Ok(())
    }

    /// How far a copy is; none if the journal is not copied.
    pub(super) fn progress(&self, service: Service) -> Option<Progress> {
        let kept = self.kept();
        let follower = &kept.get(&service)?.follower;
        let view = follower.view();
        let is_settled = view.state == CopyState::Following;
        let is_open = !matches!(view.state, CopyState::Opening | CopyState::Stopped);
        Some(Progress { have: follower.have(), fork: view.fork, length: view.length, is_settled, is_open })
    }

    /// A journal has just come to another host: the copy looks for it there.
    pub(super) fn look(&self, service: Service) {
        if let Some(kept) = self.kept().get(&service) {
            kept.follower.look();
        }
    }

    /// Nothing that was asked of a host is waited for.
    pub(super) fn give_up_on(&self, key: HostId) {
        self.kept().values().for_each(|kept| kept.follower.give_up_on(as_peer(key)));
    }

    /// Copies a journal no longer; its files are closed when it returns well.
    ///
    /// # Errors
    ///
    /// `bridge.still_copying`: it goes on ending.
    pub(super) async fn stop(&self, service: Service) -> Result<(), Problem> {
        let Some(mut kept) = self.kept().remove(&service) else { return Ok(()) };
        if !kept.follower.stop(STOP_MAX).await
            || tokio::time::timeout(STOP_MAX, &mut kept.view).await.is_err()
        {
            self.kept().insert(service, kept);
            let cause = format!("the copy of {service} has not been closed yet");
            return Err(
                Problem::new(ProblemKind::Busy, "bridge.still_copying", cause).hint("try again in a moment")
            );
        }
        Ok(())
    }

    pub(super) async fn stop_all(&self) {
        for service in Service::ALL {
            if let Err(problem) = self.stop(service).await {
                tracing::warn!(%problem, "the process ends before it");
            }
        }
    }
}

/// Which key is to sign a copy, and which one does.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    asked: u32,
    here: u32,
}

/// Those numbers; none where either is not a key of this cell's present life, or nothing lies here.
fn numbers(keyring: &Keyring, service: Service, folder: &Path, key: &Hash) -> Option<Numbers> {
    let here = journal::Reader::open(folder).map(|reader| reader.key());
    let public = PublicKey::from_bytes(*key.as_bytes());
    let asked = keyring.key_number_of(service, &public)?;
    let here = match here {
        Ok(here) if here == public => asked,
        Ok(here) => keyring.key_number_of(service, &here)?,
        // It may have been put away for the next one.
        Err(_) => 0,
    };
    Some(Numbers { asked, here })
}

/// Has a copy signed by the key of that number, if one before it does. Blocks on files.
fn sign_anew(keyring: &Keyring, service: Service, folder: &Path, number: u32) -> Result<(), Problem> {
    if number == 0 {
        return Ok(());
    }
    let (before, keys) =
        (keyring.journal_keys_before(service, number), keyring.journal_keys(service, number));
    rekey(service, folder, &before, &keys, 0).map(|_| ())
}

/// Whoever asks for an older key leads no more, or does not know the present one yet: nothing is set aside for that.
fn signed_already(service: Service, Numbers { asked, here }: Numbers) -> Problem {
    let cause = format!("the copy of {service} is signed by key {here} already, and not by {asked}");
    Problem::new(ProblemKind::Conflict, "bridge.older_key", cause).hint("it is asked again by itself")
}

/// Tells the writer of a journal how far the copy here is, where it waits for that.
pub(super) fn tell_writer(bridge: &Bridge, service: Service) {
    let Some((writer, epoch)) = writer_of(bridge, service).filter(|(writer, _)| *writer != bridge.key) else {
        return;
    };
    let Some(progress) = bridge.copies.progress(service) else { return };
    let Progress { have, fork, .. } = progress;
    let have = Said::Have { service, epoch, fork, length: have };
    bridge.network().push(Lane::Hosts, &as_peer(writer), codec::encode(&have));
}

/// Who writes a journal and waits for the copy here, and under which epoch: what whoever leads now has told.
fn writer_of(bridge: &Bridge, service: Service) -> Option<(HostId, u64)> {
    let known = bridge.known();
    let votes = bridge.quorum().is_some();
    if service == Service::Nucleus {
        return Some((known.lead.filter(|_| votes)?, known.term));
    }
    let is_told = bridge.leads() || votes && known.told_by == known.lead;
    let grant = known.roster.grants.iter().find(|grant| grant.service == service)?;
    let writer = known.roster.hosts.iter().find(|host| host.name == grant.host)?;
    (grant.replicated && is_told).then_some((writer.key, grant.epoch))
}

/// Keeps the view of a standby up with its copy.
fn keep_view(
    host: Weak<Host>,
    service: Service,
    follower: &Follower,
) -> impl Future<Output = ()> + Send + 'static + use<> {
    let (mut changes, have, reader) = (follower.changes(), follower.have_counter(), follower.to_reader());
    async move {
        let mut has_grown = false;
        while has_grown || changes.changed().await.is_ok() {
            {
                let Some(host) = host.upgrade() else { return };
                let is_standby =
                    |bridge: &Arc<Bridge>| bridge.grant(service).is_some_and(|grant| grant.replicated);
                if let Some(reader) = reader().filter(|_| host.bridge().is_some_and(is_standby)) {
                    let have = have.load(Ordering::Acquire);
                    let fold = move || host.control().fold_copy(&host, service, &reader, have);
                    if let Ok(Err(fault)) = crate::node::blocking(fold).await {
                        // Whoever takes the journal over builds it anew.
                        tracing::warn!(%service, %fault, "the view of a standby is not kept up");
                        return;
                    }
                }
            }
            // Whoever stops the copy waits for this: it is not to sleep then.
            has_grown = false;
            let mut pause = pin!(tokio::time::sleep(FOLD_PAUSE));
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    changed = changes.changed() => match changed {
                        Ok(()) => has_grown = true,
                        Err(_) => return,
                    }
                }
            }
        }
    }
}

/// Shows a copy as the service's journal, and tells listeners when it has grown.
fn show(
    host: Weak<Host>,
    service: Service,
    follower: &Follower,
) -> impl Future<Output = ()> + Send + 'static + use<> {
    let (mut changes, have, reader) = (follower.changes(), follower.have_counter(), follower.to_reader());
    async move {
        let mut shown = false;
        loop {
            {
                let Some(host) = host.upgrade() else { return };
                if let Some(reader) = reader().filter(|_| !shown) {
                    shown = true;
                    host.service(service).gauges.show(reader.clone());
                    host.feed.attach(service, source_of(service, reader, Arc::clone(&have)));
                }
                host.feed.grew();
                if let Some(bridge) = host.bridge() {
                    tell_writer(bridge, service);
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn source_of(
    service: Service,
    reader: journal::Reader,
    have: Arc<std::sync::atomic::AtomicU64>,
) -> Arc<dyn Source> {
    match service {
        Service::Nucleus => copy_source::<nucleus::NucleusMachine>(reader, have),
        Service::Identity => copy_source::<identity::IdentityMachine>(reader, have),
        Service::Message => copy_source::<message::MessageMachine>(reader, have),
        Service::State => copy_source::<state::StateMachine>(reader, have),
        Service::Consensus => copy_source::<consensus::ConsensusMachine>(reader, have),
        Service::Market => copy_source::<market::MarketMachine>(reader, have),
    }
}

/// Answers what another host asks of the journals that lie here.
pub(super) async fn serve(bridge: &Bridge, from: HostId, bytes: &[u8]) -> Vec<u8> {
    let served = async {
        if !bridge.is_admitted(&from) {
            return Err(super::orders::not_admitted(&from));
        }
        let host = bridge.host()?;
        let find = |cell, journal| {
            let reader = host.service(journal).gauges.reader().filter(|_| cell == host.cell);
            let reader = reader.ok_or_else(|| not_here(journal))?;
            Ok((reader, replication::Grown::Feed(host.feed.changes())))
        };
        let longest = super::ASK_TIMEOUT / 2;
        replication::answer(bytes, longest, &host.draining, |cell, journal| {
            std::future::ready(find(cell, journal))
        })
        .await
    };
    let reply = served.await.unwrap_or_else(|problem| replication::Reply::Refused { problem });
    codec::encode(&reply)
}

fn not_here(journal: Service) -> Problem {
    let cause = format!("the {journal} journal does not lie on this host");
    Problem::new(ProblemKind::Busy, "journal.not_here", cause).hint("it is tried again by itself")
}
