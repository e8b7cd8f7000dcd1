//! What the rooms that face other cells share, on the host that leads.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use ed25519_dalek::SigningKey;
use protocol::identity::{Admission, AdmissionRequest, Contact, Who};
use protocol::members::MemberSet;
use protocol::message::PROOF_ITEMS_MAX;
use protocol::messages::SharedRequest;
use protocol::{CellId, MessageId, Problem, signing};

use super::Host;
use crate::bridge::Lead;
use crate::data::Store;
use crate::delivery::{Links, Waiters};
use crate::gossip;
use crate::keys::{Keyring, Signer};
use crate::network::Network;
use crate::replication::Copies;
use crate::signals::Signals;

/// Contacts and proofs remembered; beyond this the caches begin anew.
const CACHED_MAX: usize = 10_000;

/// Contacts as they were last looked up.
#[derive(Default)]
struct Contacts {
    by_cell: HashMap<CellId, Arc<Contact>>,
    by_name: HashMap<String, CellId>,
    admissions: HashMap<CellId, Admission>,
    /// Rises when contacts change: what was looked up before is not remembered.
    generation: u64,
}

impl Contacts {
    fn remember(&mut self, contact: &Arc<Contact>) {
        if self.by_cell.len() >= CACHED_MAX {
            self.by_cell.clear();
            self.by_name.clear();
        }
        if let Some(name) = &contact.name {
            self.by_name.insert(name.clone(), contact.cell);
        }
        self.by_cell.insert(contact.cell, Arc::clone(contact));
    }
}

/// What the rooms that face other cells share. What every host has is reached through it.
pub struct World {
    /// The host that it runs on.
    pub host: Arc<Host>,
    /// What it does for the other hosts.
    pub(crate) lead: Arc<Lead>,
    /// The cell's key.
    pub keyring: Keyring,
    /// Signs messages with it.
    pub signer: Signer,
    /// Deliveries, one link a receiver.
    pub links: Links,
    /// Copies of other cells' journals.
    pub copies: Copies,
    /// Data that lies here.
    pub data: Store,
    /// Who listens for signals.
    pub signals: Signals,
    /// Who waits for a receipt or a reply.
    pub waiters: Waiters,
    /// What waits to be put into this cell's next event.
    pub pool: gossip::Pool,
    /// Told when something came into the pool of a network of one.
    pub to_say: tokio::sync::Notify,
    /// One transaction of this cell gets its nonce at a time.
    pub nonces: tokio::sync::Mutex<()>,
    network: OnceLock<Network>,
    contacts: RwLock<Contacts>,
    last_nonce: AtomicU64,
    message_nonce: AtomicU64,
    recent: Mutex<HashMap<CellId, VecDeque<MessageId>>>,
    stuck: Mutex<Option<Problem>>,
    gossip: RwLock<Option<gossip::Handle>>,
    members: RwLock<Arc<gossip::Members>>,
    /// Whether those are the ones that this cell's journal names, and no more the genesis's.
    knows_members: AtomicBool,
    is_stalled: AtomicBool,
    taking: Mutex<Option<(u64, u64, u64)>>,
    target: Mutex<Option<u64>>,
    /// What others say to have.
    pub(crate) claims: gossip::Claims,
}

impl std::ops::Deref for World {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl World {
    pub(super) fn new(host: Arc<Host>, keyring: Keyring, lead: Arc<Lead>) -> Self {
        let (data, replicas) = (host.folder.data(), host.folder.replicas());
        Self {
            lead,
            keyring,
            signer: Signer::default(),
            members: RwLock::new(Arc::new(gossip::Members::new(host.genesis.member_set()))),
            data: Store::new(data, host.settings.data.bytes_max),
            links: Links::default(),
            copies: Copies::new(replicas),
            signals: Signals::default(),
            waiters: Waiters::default(),
            pool: gossip::Pool::default(),
            to_say: tokio::sync::Notify::new(),
            nonces: tokio::sync::Mutex::new(()),
            network: OnceLock::new(),
            contacts: RwLock::default(),
            last_nonce: AtomicU64::new(0),
            // A cell that starts again within a millisecond goes on elsewhere.
            message_nonce: AtomicU64::new(u64::from(std::process::id()) << 32),
            recent: Mutex::default(),
            stuck: Mutex::default(),
            gossip: RwLock::default(),
            knows_members: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
            taking: Mutex::default(),
            target: Mutex::default(),
            claims: gossip::Claims::default(),
            host,
        }
    }

    /// The network. Set before anything can ask for it.
    pub fn network(&self) -> &Network {
        self.network.get().expect("the network is started before effects, HTTP and fronts run")
    }

    pub(super) fn set_network(&self, network: Network) {
        let _ = self.network.set(network);
    }

    /// Why blocks do not advance, if they do not.
    pub fn stuck(&self) -> Option<Problem> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_stuck(&self, why: Option<Problem>) {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The gossip of a member of several, once it runs.
    pub fn gossip(&self) -> Option<gossip::Handle> {
        self.gossip.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_gossip(&self, handle: Option<gossip::Handle>) {
        *self.gossip.write().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    /// The members of the present epoch.
    pub fn members(&self) -> Arc<gossip::Members> {
        Arc::clone(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is known who they are: Consensus may run on another host, and be asked for it after the start.
    pub fn knows_members(&self) -> bool {
        self.knows_members.load(Ordering::Relaxed)
    }

    pub(crate) fn set_members(&self, members: Arc<gossip::Members>) {
        self.knows_members.store(true, Ordering::Relaxed);
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// The key that this cell signs events, attestations and words for the beacon with, as a member (ADR 0021).
    pub fn member_key(&self) -> &SigningKey {
        self.key_in(self.members().set())
    }

    /// That of its newest life; an older one does where it is the only member: there is nobody who could rotate its key, and nobody
    /// before whom it could fork.
    fn key_in(&self, members: &MemberSet) -> &SigningKey {
        let keys = self.keyring.member_keys();
        let named = members.signer_of(&self.cell);
        let is_named = |key: &&SigningKey| Some(signing::cell_id(key)) == named;
        let alone = (members.all().len() == 1).then(|| keys.iter().rev().find(is_named)).flatten();
        alone.or(keys.last()).unwrap_or_else(|| self.keyring.signing_key())
    }

    /// Whether a set names this cell with the key that it holds: else it only follows, and signs nothing as a member.
    pub fn signs_in(&self, members: &MemberSet) -> bool {
        members.signer_of(&self.cell) == Some(signing::cell_id(self.key_in(members)))
    }

    /// Whether this cell takes part in the present epoch: it is a member, by the key that it holds.
    pub fn is_member(&self) -> bool {
        self.signs_in(self.members().set())
    }

    /// The checkpoint that is being taken: its block, how many of its keys are here, and how many it is said to have.
    pub fn taking(&self) -> Option<(u64, u64, u64)> {
        *self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_taking(&self, taking: Option<(u64, u64, u64)>) {
        *self.taking.lock().unwrap_or_else(PoisonError::into_inner) = taking;
    }

    /// Whether blocks have been ordered and not final for a while.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// How many blocks others have, while this cell takes them over.
    pub fn target(&self) -> Option<u64> {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_target(&self, blocks: Option<u64>) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = blocks;
    }

    /// What came into the pool is to be said.
    pub fn say(&self) {
        self.to_say.notify_one();
        if let Some(gossip) = self.gossip() {
            gossip.to_say();
        }
    }

    /// What makes the next message differ from any other of its millisecond.
    pub fn next_message_nonce(&self) -> u64 {
        self.message_nonce.fetch_add(1, Ordering::Relaxed)
    }

    /// A nonce for a network whose last one is not known here: microseconds of the time, always rising.
    pub fn rising_nonce(&self, now_ms: u64) -> u64 {
        let now = now_ms * 1_000;
        self.last_nonce.fetch_max(now, Ordering::Relaxed);
        self.last_nonce.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A contact, remembered until contacts change.
    ///
    /// # Errors
    ///
    /// `identity.unknown_contact`.
    pub async fn contact(&self, cell: &CellId) -> Result<Arc<Contact>, Problem> {
        if let Some(contact) = self.contacts.read().unwrap_or_else(PoisonError::into_inner).by_cell.get(cell)
        {
            return Ok(Arc::clone(contact));
        }
        self.look_up(&cell.to_string()).await
    }

    /// What the access list says of a sender, remembered until contacts change.
    ///
    /// # Errors
    ///
    /// Those of the bus.
    pub async fn admission(&self, cell: &CellId) -> Result<Admission, Problem> {
        let before = {
            let contacts = self.contacts.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(admission) = contacts.admissions.get(cell) {
                return Ok(admission.clone());
            }
            contacts.generation
        };
        let admission = self.bus.internal().identity().admit(AdmissionRequest { cell: *cell }).await?;
        let mut contacts = self.contacts.write().unwrap_or_else(PoisonError::into_inner);
        if contacts.generation == before {
            if contacts.admissions.len() >= CACHED_MAX {
                contacts.admissions.clear();
            }
            contacts.admissions.insert(*cell, admission.clone());
        }
        Ok(admission)
    }

    /// A cell by id, known or not, or by a contact's name.
    ///
    /// # Errors
    ///
    /// `identity.unknown_contact` for a name nobody has.
    pub async fn resolve(&self, who: &str) -> Result<CellId, Problem> {
        if who == "self" || who == self.settings.cell.name {
            return Ok(self.cell);
        }
        if let Some(cell) = self.contacts.read().unwrap_or_else(PoisonError::into_inner).by_name.get(who) {
            return Ok(*cell);
        }
        match who.parse::<CellId>() {
            Ok(cell) => Ok(cell),
            Err(_) => self.look_up(who).await.map(|contact| contact.cell),
        }
    }

    async fn look_up(&self, who: &str) -> Result<Arc<Contact>, Problem> {
        let before = self.contacts.read().unwrap_or_else(PoisonError::into_inner).generation;
        let contact = Arc::new(self.bus.internal().identity().resolve(Who { who: who.to_owned() }).await?);
        let mut contacts = self.contacts.write().unwrap_or_else(PoisonError::into_inner);
        if contacts.generation == before {
            contacts.remember(&contact);
        }
        Ok(contact)
    }

    /// Forgets remembered contacts: one has changed.
    pub fn contacts_changed(&self) {
        let mut contacts = self.contacts.write().unwrap_or_else(PoisonError::into_inner);
        *contacts = Contacts { generation: contacts.generation + 1, ..Contacts::default() };
    }

    /// The latest messages shared with a cell, newest first: what a message shows as its proof.
    ///
    /// # Errors
    ///
    /// Those of `message.shared`.
    pub async fn proof_for(&self, cell: &CellId) -> Result<Vec<MessageId>, Problem> {
        if let Some(recent) = self.recent().get(cell) {
            return Ok(recent.iter().copied().collect());
        }
        let shared = self.bus.internal().message().shared(SharedRequest { with: *cell }).await?;
        let latest: VecDeque<MessageId> = shared.latest.iter().map(|shown| shown.id).collect();
        let mut recent = self.recent();
        if recent.len() >= CACHED_MAX {
            recent.clear();
        }
        Ok(recent.entry(*cell).or_insert(latest).iter().copied().collect())
    }

    /// Messages became shared with a cell: their receipts are durable.
    pub fn shared_with(&self, cell: &CellId, ids: &[MessageId]) {
        if let Some(recent) = self.recent().get_mut(cell) {
            for id in ids {
                recent.push_front(*id);
            }
            recent.truncate(PROOF_ITEMS_MAX);
        }
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, HashMap<CellId, VecDeque<MessageId>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
