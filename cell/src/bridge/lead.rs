//! What the host that leads has and the others have not: it invites hosts, admits and removes them, and gives them what they were invited for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nucleus::FIRST_HOST;
use protocol::nucleus::{
    AdmitHostRequest, AuditRequest, CreateTokenRequest, FirstHostRequest, GrantView, HostEntry, HostName,
    HostTicket, InvitationRequest, InviteHostRequest, LostEntries, RemoveHostRequest, RemovedHost, Roster,
    TokenName,
};
use protocol::shared::Empty;
use protocol::{Access, Hash, HostId, Problem, ProblemKind, Service};
use tokio::sync::MutexGuard;

use super::leases::Leases;
use super::ticket::{Ticket, hash_of};
use super::wire::{Ask, CellKeys, Reply, Secret, Token};
use super::{Bridge, Start, place};
use crate::keys::{self, Keyring};
use crate::node::{Host, Senders};

/// How long a ticket may be used unless told, in seconds.
const TICKET_TTL_S: u64 = 900;
/// The pause before a host that could not be set up is tried again.
const GREET_PAUSE: Duration = Duration::from_millis(300);
/// How many refused wishes to join are in the audit for each [`REFUSED_WINDOW`]; more are logged only.
const REFUSED_MAX: usize = 20;
/// See [`REFUSED_MAX`].
const REFUSED_WINDOW: Duration = Duration::from_secs(60);

/// What the host that leads has and the others have not.
pub struct Lead {
    keyring: Keyring,
    senders: Senders,
    leases: Leases,
    /// Held by whoever opens the bridge or admits a host.
    admission: tokio::sync::Mutex<()>,
    /// Held by whoever changes where a service runs, or on which terms.
    turns: [tokio::sync::Mutex<()>; 6],
    /// Held by whoever has journals signed by other keys.
    rekeying: tokio::sync::Mutex<()>,
    /// Hosts that are being set up, by their incarnations.
    greeting: Mutex<BTreeSet<(HostId, u64)>>,
    /// When wishes to join were refused.
    refused: Mutex<Vec<Instant>>,
}

impl Lead {
    /// Leads with the cell's keys; effects of services on other hosts go to the senders.
    pub(crate) fn new(keyring: Keyring, senders: Senders, lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            keyring,
            senders,
            leases: Leases::new(lease),
            admission: tokio::sync::Mutex::default(),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            rekeying: tokio::sync::Mutex::default(),
            greeting: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    pub(super) fn senders(&self) -> &Senders {
        &self.senders
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Who led before this host was elected: what it held, it holds no more.
    pub(crate) fn comes_after(&self, host: HostId) {
        self.leases.have_ended(host);
    }

    pub(super) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The turn to change where a service runs.
    pub(super) async fn turn(&self, service: Service) -> MutexGuard<'_, ()> {
        self.turns[service.index()].lock().await
    }

    /// The turn to have journals signed by other keys.
    pub(super) async fn rekeying(&self) -> MutexGuard<'_, ()> {
        self.rekeying.lock().await
    }

    /// Whether somebody has that turn.
    pub(super) fn is_rekeying(&self) -> bool {
        self.rekeying.try_lock().is_err()
    }

    /// Whether somebody changes where a service runs.
    pub(super) fn is_changing(&self, service: Service) -> bool {
        self.turns[service.index()].try_lock().is_err()
    }

    /// A journal's public key of some number.
    pub(super) fn journal_key(&self, service: Service, number: u32) -> Hash {
        Hash::from_bytes(*self.keyring.journal_keys(service, number).key_pair().public().as_bytes())
    }

    /// The bridge; started when there is none yet. Services of other hosts are copied here.
    ///
    /// # Errors
    ///
    /// Those of listening.
    pub(crate) async fn open(self: &Arc<Self>, host: &Arc<Host>) -> Result<Arc<Bridge>, Problem> {
        let _turn = self.admission.lock().await;
        if let Some(bridge) = host.bridge() {
            return Ok(Arc::clone(bridge));
        }
        let seed = place::key(host.folder.path())?;
        let mut roster = host.bus.internal().nucleus().roster(Empty {}).await?;
        // This host as it was: in a restored folder it has another key now.
        roster.hosts.retain(|host| host.name != FIRST_HOST);
        let lead = Some(Arc::clone(self));
        let bridge = Bridge::start(host, Start { seed, roster, led_by: None, lead }).await?;
        bridge.copies.may_sign(&self.keyring);
        let me = HostEntry {
            name: FIRST_HOST.to_owned(),
            key: bridge.key(),
            addresses: bridge.addresses(),
            services: Vec::new(),
            may_lead: false,
        };
        host.bus.internal().nucleus().first_host(FirstHostRequest { host: me }).await?;
        let roster = learn_anew(host, &bridge).await?;
        for grant in roster.grants.iter().filter(|grant| grant.host != FIRST_HOST) {
            self.follow(&bridge, grant.service).await;
        }
        host.set_bridge(Arc::clone(&bridge));
        Ok(bridge)
    }

    /// Makes a ticket.
    ///
    /// # Errors
    ///
    /// `nucleus.bad_ttl`, `nucleus.too_many_hosts`, and those of [`Lead::open`].
    pub(crate) async fn invite(
        self: &Arc<Self>,
        host: &Arc<Host>,
        asked: InviteHostRequest,
    ) -> Result<HostTicket, Problem> {
        let InviteHostRequest { ttl_s, may_lead } = asked;
        let bridge = self.open(host).await?;
        let secret = *keys::new_seed()?;
        let request = InvitationRequest {
            secret_hash: hash_of(&secret),
            ttl_s: ttl_s.unwrap_or(TICKET_TTL_S),
            may_lead,
        };
        let invitation = host.bus.internal().nucleus().invite(request).await?;
        let ticket = Ticket { lead: bridge.key(), addresses: bridge.addresses(), secret };
        Ok(HostTicket { ticket: ticket.to_text(), expires_ms: invitation.expires_ms })
    }

    /// Admits whoever shows a ticket's secret; whatever comes of it is in the audit.
    pub(super) async fn admit(
        &self,
        bridge: &Arc<Bridge>,
        secret: &[u8; 32],
        entry: HostEntry,
    ) -> Result<Reply, Problem> {
        let _turn = self.admission.lock().await;
        let host = bridge.host()?;
        let nucleus = host.bus.internal();
        let asked = AdmitHostRequest { secret_hash: hash_of(secret), host: entry.clone() };
        let admitted = nucleus.nucleus().admit_host(asked).await;
        let outcome = admitted.as_ref().err().map_or("ok", |problem| &problem.code).to_owned();
        let caller = format!("host:{}:{}", entry.name, entry.key);
        if admitted.is_ok() || self.may_audit_refusal() {
            let audit = AuditRequest { caller, action: "nucleus.admit_host".to_owned(), outcome };
            nucleus.nucleus().audit(audit).await?;
        } else {
            tracing::warn!(
                caller,
                outcome,
                "too many wishes to join are refused; this one is not in the audit"
            );
        }
        let admitted = admitted?;
        let roster = learn_anew(&host, bridge).await?;
        tracing::info!(host = entry.name, key = %entry.key, "a host has joined");
        let lead =
            roster.hosts.into_iter().find(|host| host.key == bridge.key).ok_or_else(super::stopping)?;
        let lives = serde_json::to_string(self.keyring.lives()).unwrap_or_default();
        let keys = CellKeys { seed: Secret(*self.keyring.seed()), lives };
        Ok(Reply::Joined {
            keys: admitted.may_lead.then_some(keys),
            cell: host.cell,
            genesis: serde_json::to_string_pretty(&*host.genesis).unwrap_or_default(),
            settings: host.settings.to_json().to_string(),
            lead,
            token: Token(host_token(&host, &entry.name).await?),
        })
    }

    /// Whether a refused wish to join goes into the audit: strangers can ask as often as they like.
    fn may_audit_refusal(&self) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|at| at.elapsed() < REFUSED_WINDOW);
        let may = refused.len() < REFUSED_MAX;
        if may {
            refused.push(Instant::now());
        }
        may
    }

    /// Removes a host; what it runs comes to this one. From a lost one it is taken over, by what was copied of its journals. The journals that it could
    /// have signed are signed by other keys then (DESIGN §9, rule 9).
    ///
    /// # Errors
    ///
    /// `nucleus.unknown_host`, and those of [`Lead::move_service`].
    pub(crate) async fn remove(
        &self,
        bridge: &Arc<Bridge>,
        asked: RemoveHostRequest,
    ) -> Result<RemovedHost, Problem> {
        let RemoveHostRequest { host: name, force } = asked;
        let (host, entry) = (bridge.host()?, bridge.entry_named(&name));
        let held = |service: &Service| bridge.holder(*service).is_some_and(|holder| holder == name);
        let held = Service::ALL.into_iter().filter(held);
        let held: Vec<Service> =
            held.filter(|service| name != host.name && *service != Service::Nucleus).collect();
        let mut lost = Vec::new();
        if force && let Some(entry) = entry.filter(|entry| entry.key != bridge.key) {
            // It may be alive where nobody sees it: it is waited for until it writes no more.
            tokio::time::sleep(self.leases.refuse(entry.key)).await;
            for service in held {
                let _turn = self.turn(service).await;
                let said = bridge.registry.entries(&entry.key, service).unwrap_or(0);
                if let Err(problem) = self.go_on_here(bridge, service).await {
                    self.leases.allow(&entry.key);
                    return Err(problem);
                }
                let entries = host.service(service).gauges.reader().map_or(0, |reader| reader.length());
                lost.push(LostEntries { service, entries, said: said.max(entries) });
            }
        } else {
            for service in held {
                self.move_service(bridge, service, &host.name).await?;
            }
        }
        let removed = host.bus.internal().nucleus().drop_host(HostName { host: name.clone() }).await?;
        let roster = learn_anew(&host, bridge).await?;
        let token = TokenName { name: token_name(&name) };
        if let Err(problem) = host.bus.internal().nucleus().revoke_token(token).await {
            tracing::debug!(%problem, "the host had no token");
        }
        let mut rekeyed = Vec::new();
        for grant in roster.grants.iter().filter(|grant| grant.known_to.contains(&removed.key)) {
            match self.rekey(bridge, grant.service).await {
                Ok(()) => rekeyed.push(grant.service),
                Err(problem) => tracing::warn!(service = %grant.service, %problem,
                    "a key that a removed host was given still signs a journal; it is tried again"),
            }
        }
        Ok(RemovedHost { host: removed, lost, rekeyed })
    }

    /// Has a host run what it was granted, and gives it what it was invited for.
    async fn set_up(&self, bridge: &Arc<Bridge>, key: HostId) -> Result<(), Problem> {
        let Some(entry) = bridge.entry(&key) else { return Ok(()) };
        let known = bridge.known();
        if known.term > 0 {
            bridge.ask(key, &Ask::Lead { term: known.term }).await?;
        }
        let roster = known.roster;
        bridge.ask(key, &Ask::Roster { roster: roster.clone() }).await?;
        let its = |grant: &&GrantView| grant.host == entry.name && grant.service != Service::Nucleus;
        for grant in roster.grants.iter().filter(its) {
            let _turn = self.turn(grant.service).await;
            if bridge.grant(grant.service).as_ref() == Some(grant) {
                self.start_at(bridge, &entry, grant, None).await?;
            }
        }
        if entry.services.is_empty() {
            return Ok(());
        }
        for service in &entry.services {
            self.move_service(bridge, *service, &entry.name).await?;
        }
        let host = bridge.host()?;
        host.bus.internal().nucleus().settle_host(HostName { host: entry.name }).await?;
        learn_anew(&host, bridge).await.map(|_| ())
    }
}

/// A host has connected: it is set up, however often that takes while it stays.
pub(super) async fn greet(bridge: Arc<Bridge>, key: HostId, incarnation: u64) {
    let Ok(lead) = bridge.lead().map(Arc::clone) else { return };
    let greeting = || lead.greeting.lock().unwrap_or_else(PoisonError::into_inner);
    if !greeting().insert((key, incarnation)) {
        return;
    }
    while !*bridge.stopping.borrow() && bridge.network().peer(&super::as_peer(key)).connected {
        match lead.set_up(&bridge, key).await {
            Ok(()) => break,
            Err(problem) => tracing::warn!(%key, %problem, "a host is not set up yet; it is tried again"),
        }
        tokio::time::sleep(GREET_PAUSE).await;
    }
    greeting().remove(&(key, incarnation));
}

/// Takes over what Nucleus says of the hosts, and has them told: who is not there hears it when it asks for its lease.
pub(super) async fn learn_anew(host: &Host, bridge: &Arc<Bridge>) -> Result<Roster, Problem> {
    let roster = host.bus.internal().nucleus().roster(Empty {}).await?;
    bridge.learn(roster.clone()).await;
    for entry in roster.hosts.iter().filter(|entry| entry.key != bridge.key) {
        let (owner, entry, roster) = (Arc::clone(bridge), entry.clone(), roster.clone());
        bridge.spawn(async move {
            let term = owner.known().term;
            if term > 0
                && let Err(problem) = owner.ask(entry.key, &Ask::Lead { term }).await
            {
                tracing::debug!(host = entry.name, %problem, "a host did not hear who leads");
            }
            if let Err(problem) = owner.ask(entry.key, &Ask::Roster { roster }).await {
                tracing::debug!(host = entry.name, %problem, "a host did not hear of a change");
            }
        });
    }
    Ok(roster)
}

/// Whether somebody was given the key that signs a journal who is no host any more.
pub(crate) fn is_known_outside(grant: &GrantView, hosts: &[HostEntry]) -> bool {
    grant.known_to.iter().any(|key| hosts.iter().all(|host| host.key != *key))
}

fn token_name(host: &str) -> String {
    let name: String = host.chars().take(59).collect();
    format!("host-{name}")
}

/// A token that may read, for the command line of a host.
async fn host_token(host: &Host, name: &str) -> Result<String, Problem> {
    let (bus, name) = (host.bus.internal(), token_name(name));
    let _ = bus.nucleus().revoke_token(TokenName { name: name.clone() }).await;
    let request = CreateTokenRequest { name, role: Access::Read, ttl_s: None };
    bus.nucleus().create_token(request).await.map(|created| created.token)
}

pub(super) fn garbled() -> Problem {
    Problem::new(ProblemKind::Unavailable, "bridge.garbled", "a host answered what was not asked")
        .hint("hosts of one cell run versions that fit: cell hosts shows them")
}
