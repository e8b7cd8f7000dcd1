//! What the host that leads does for the others: invites and admits them, has them run services, moves services between them.
//!
//! One change at a time. A service moves in this order, and calls wait for it from the second step on:
//!
//! 1. its journal is copied to where it goes, while it goes on;
//! 2. it stops where it is, having finished what it took in;
//! 3. the copy has every entry of the journal;
//! 4. Nucleus grants the journal to the other host, under a higher epoch;
//! 5. it starts there.
//!
//! What fails before the fourth step leaves the service where it was. After it, the service is the other host's: it is started there as soon as
//! it can be, and nowhere else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nucleus::FIRST_HOST;
use protocol::nucleus::{
    AdmitHostRequest, AuditRequest, CreateTokenRequest, FirstHostRequest, GrantRequest, GrantView, Health,
    HostEntry, HostName, HostTicket, InvitationRequest, Roster, ServiceStatus, TokenName,
};
use protocol::shared::Empty;
use protocol::{Access, Hash, HostId, Problem, ProblemKind, Service};
use tokio::sync::MutexGuard;

use super::ticket::{Ticket, hash_of};
use super::wire::{Ask, Granted, Reply};
use super::{Bridge, Start, orders, place};
use crate::bus::ServicePlace;
use crate::keys::{self, Keyring};
use crate::node::{Host, Senders};
use crate::replication::Seal;

/// How long a ticket may be used unless told, in seconds.
const TICKET_TTL_S: u64 = 900;
/// How long the copying of a journal that is to move may take.
const COPY_MAX: Duration = Duration::from_secs(300);
/// How long calls wait for a service that moves, from its stop on.
const MOVE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked how far a copy is.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The pause before a host that could not be set up is tried again.
const GREET_PAUSE: Duration = Duration::from_millis(300);
/// A copy is near enough to its journal for the service to stop when it lacks no more than so many entries.
const NEAR_ENTRIES: u64 = 1_000;

/// What the host that leads has and the others have not.
pub struct Lead {
    keyring: Keyring,
    senders: Senders,
    /// Held by whoever changes who the hosts are or what they run.
    turn: tokio::sync::Mutex<()>,
    /// Hosts that are being set up, by their incarnations.
    greeting: Mutex<BTreeSet<(HostId, u64)>>,
}

impl Lead {
    /// Leads with the cell's keys; effects of services on other hosts go to the senders.
    pub(crate) fn new(keyring: Keyring, senders: Senders) -> Arc<Self> {
        Arc::new(Self { keyring, senders, turn: tokio::sync::Mutex::default(), greeting: Mutex::default() })
    }

    pub(super) fn senders(&self) -> &Senders {
        &self.senders
    }

    async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn journal_key(&self, service: Service) -> Hash {
        Hash::from_bytes(*self.keyring.journal_key(service).public().as_bytes())
    }

    /// The bridge; started when there is none yet. Services of other hosts are copied here.
    ///
    /// # Errors
    ///
    /// Those of listening.
    pub(crate) async fn open(self: &Arc<Self>, host: &Arc<Host>) -> Result<Arc<Bridge>, Problem> {
        let _turn = self.turn().await;
        if let Some(bridge) = host.bridge() {
            return Ok(Arc::clone(bridge));
        }
        let seed = place::key(host.folder.path())?;
        let mut roster = host.bus.internal().nucleus().roster(Empty {}).await?;
        // This host as it was: in a restored folder it has another key now.
        roster.hosts.retain(|host| host.name != FIRST_HOST);
        let lead = Some(Arc::clone(self));
        let bridge = Bridge::start(host, Start { seed, roster, led_by: None, lead }).await?;
        let me = HostEntry {
            name: FIRST_HOST.to_owned(),
            key: bridge.key(),
            addresses: bridge.addresses(),
            services: Vec::new(),
        };
        host.bus.internal().nucleus().first_host(FirstHostRequest { host: me }).await?;
        let roster = learn_anew(host, &bridge).await?;
        for grant in roster.grants.iter().filter(|grant| grant.host != FIRST_HOST) {
            self.follow(&bridge, grant.service);
        }
        host.set_bridge(Arc::clone(&bridge));
        Ok(bridge)
    }

    fn follow(&self, bridge: &Bridge, service: Service) {
        let key = self.keyring.encryption_key(service);
        let seal = Seal { key, is_used: is_encrypted(bridge, service) };
        bridge.copies.follow(bridge.network(), bridge.key, service, self.journal_key(service), Some(seal));
    }

    /// Makes a ticket.
    ///
    /// # Errors
    ///
    /// `nucleus.bad_ttl`, `nucleus.too_many_hosts`, and those of [`Lead::open`].
    pub(crate) async fn invite(
        self: &Arc<Self>,
        host: &Arc<Host>,
        ttl_s: Option<u64>,
    ) -> Result<HostTicket, Problem> {
        let bridge = self.open(host).await?;
        let secret = *keys::new_seed()?;
        let request =
            InvitationRequest { secret_hash: hash_of(&secret), ttl_s: ttl_s.unwrap_or(TICKET_TTL_S) };
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
        let _turn = self.turn().await;
        let host = bridge.host()?;
        let nucleus = host.bus.internal();
        let asked = AdmitHostRequest { secret_hash: hash_of(secret), host: entry.clone() };
        let admitted = nucleus.nucleus().admit_host(asked).await;
        let outcome = admitted.as_ref().err().map_or("ok", |problem| &problem.code).to_owned();
        let caller = format!("host:{}:{}", entry.name, entry.key);
        let audit = AuditRequest { caller, action: "nucleus.admit_host".to_owned(), outcome };
        nucleus.nucleus().audit(audit).await?;
        admitted?;
        let roster = learn_anew(&host, bridge).await?;
        tracing::info!(host = entry.name, key = %entry.key, "a host has joined");
        let lead =
            roster.hosts.into_iter().find(|host| host.key == bridge.key).ok_or_else(super::stopping)?;
        Ok(Reply::Joined {
            cell: host.cell,
            genesis: serde_json::to_string_pretty(&*host.genesis).unwrap_or_default(),
            settings: host.settings.to_json().to_string(),
            lead,
            token: host_token(&host, &entry.name).await?,
        })
    }

    /// Moves a service.
    ///
    /// # Errors
    ///
    /// `nucleus.cannot_move`, `nucleus.unknown_host`, `bus.host_unreachable`, `bridge.copying` when the copy took too long,
    /// `journal.…` and `service.…` when it does not start there.
    pub(crate) async fn move_service(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        to: &str,
    ) -> Result<ServiceStatus, Problem> {
        let _turn = self.turn().await;
        self.move_in_turn(bridge, service, to).await
    }

    async fn move_in_turn(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        to: &str,
    ) -> Result<ServiceStatus, Problem> {
        let host = bridge.host()?;
        if service == Service::Nucleus {
            let cause = "Nucleus runs on the host that leads";
            return Err(Problem::new(ProblemKind::Invalid, "nucleus.cannot_move", cause)
                .hint("move the other services: cell service move SERVICE --to HOST"));
        }
        let to = bridge.entry_named(to).ok_or_else(|| {
            let shown: String = to.chars().take(64).collect();
            Problem::from(nucleus::Refusal::UnknownHost { name: shown })
        })?;
        let from = bridge.holder(service).and_then(|holder| bridge.entry_named(&holder));
        let from = from.ok_or_else(super::stopping)?;
        if from.key == to.key {
            return Ok(host.service(service).status(service, &to.name));
        }
        self.copied(bridge, service, &to, COPY_MAX, None).await?;
        let before = bridge.known().roster.grants.into_iter().find(|grant| grant.service == service);
        host.bus.place(service, ServicePlace::Moving);
        let moved = self.hand_over(bridge, service, &from, &to).await;
        if let Err(problem) = &moved
            && let Some(before) = before
            && self.still_holds(&host, &before).await
        {
            tracing::warn!(%service, %problem, "a service stays where it was");
            if let Err(problem) = self.start_at(bridge, &from, &before).await {
                tracing::error!(%service, %problem, "it could not be started again; it is tried when its host connects");
            }
        }
        let learnt = learn_anew(&host, bridge).await;
        moved?;
        learnt?;
        tracing::info!(%service, from = from.name, to = to.name, "a service has moved");
        Ok(host.service(service).status(service, &to.name))
    }

    /// Whether a grant is the one that Nucleus has: what failed may have been the answer alone.
    async fn still_holds(&self, host: &Host, grant: &GrantView) -> bool {
        let roster = host.bus.internal().nucleus().roster(Empty {}).await;
        roster.is_ok_and(|roster| roster.grants.contains(grant))
    }

    /// From the stop to the start elsewhere.
    async fn hand_over(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        from: &HostEntry,
        to: &HostEntry,
    ) -> Result<(), Problem> {
        let host = bridge.host()?;
        let length = if from.key == bridge.key {
            orders::stop(bridge, service).await?
        } else {
            match bridge.ask(from.key, &Ask::Stop { service }).await? {
                Reply::Ends { length } => length,
                _ => return Err(garbled()),
            }
        };
        self.copied(bridge, service, to, MOVE_MAX, Some(length)).await?;
        let asked = GrantRequest { service, host: to.name.clone() };
        let granted = host.bus.internal().nucleus().grant(asked).await?;
        let roster = host.bus.internal().nucleus().roster(Empty {}).await?;
        // From here on it is the other host's, whatever comes.
        bridge.known.write().unwrap_or_else(PoisonError::into_inner).roster = roster;
        let grant = GrantView { service, host: to.name.clone(), epoch: granted.epoch };
        self.start_at(bridge, to, &grant).await
    }

    /// Waits until a host has a copy of a journal: of so many entries, or of nearly all.
    async fn copied(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        to: &HostEntry,
        longest: Duration,
        length: Option<u64>,
    ) -> Result<(), Problem> {
        let began = Instant::now();
        loop {
            let (have, known, is_settled) = if to.key == bridge.key {
                self.follow(bridge, service);
                let progress = bridge.copies.progress(service);
                progress
                    .map_or((0, 0, false), |progress| (progress.have, progress.length, progress.is_settled))
            } else {
                let keys = self.keyring.journal_keys(service);
                let encryption = is_encrypted(bridge, service).then_some(*keys.encryption);
                let ask = Ask::Copy { service, key: self.journal_key(service), encryption };
                match bridge.ask(to.key, &ask).await? {
                    Reply::Copied { have, length, is_settled } => (have, length, is_settled),
                    _ => return Err(garbled()),
                }
            };
            let is_near = is_settled || known > NEAR_ENTRIES && have + NEAR_ENTRIES >= known;
            if length.map_or(is_near, |length| have >= length) {
                return Ok(());
            }
            if began.elapsed() > longest {
                let cause = format!("the host {} has {have} of {known} entries of {service}", to.name);
                return Err(Problem::new(ProblemKind::Unavailable, "bridge.copying", cause)
                    .hint("look at the connection between the hosts (cell hosts), and try again"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Starts a service on the host that it is granted to; has its journal copied here, if that is another one.
    async fn start_at(&self, bridge: &Arc<Bridge>, to: &HostEntry, grant: &GrantView) -> Result<(), Problem> {
        let service = grant.service;
        let keys = self.keyring.journal_keys(service);
        let seen = bridge.copies.progress(service).map_or(0, |progress| progress.have);
        let granted = Granted::new(service, grant.epoch, &keys, seen);
        if to.key == bridge.key {
            bridge.copies.stop(service).await;
            return bridge.host()?.control().start(granted.appointment()).await.map(|_| ());
        }
        bridge.ask(to.key, &Ask::Start { granted }).await?;
        self.follow(bridge, service);
        let host = bridge.host()?;
        host.service(service).set_health(Health::Running);
        host.service(service).set_epoch(grant.epoch);
        Ok(())
    }

    /// Removes a host; what it runs comes to this one.
    ///
    /// # Errors
    ///
    /// `nucleus.unknown_host`, and those of [`Lead::move_service`].
    pub(crate) async fn remove(&self, bridge: &Arc<Bridge>, name: &str) -> Result<HostEntry, Problem> {
        let _turn = self.turn().await;
        let host = bridge.host()?;
        for service in Service::ALL {
            if name != FIRST_HOST && bridge.holder(service).is_some_and(|holder| holder == name) {
                self.move_in_turn(bridge, service, FIRST_HOST).await?;
            }
        }
        let removed = host.bus.internal().nucleus().drop_host(HostName { host: name.to_owned() }).await?;
        learn_anew(&host, bridge).await?;
        let token = TokenName { name: token_name(name) };
        if let Err(problem) = host.bus.internal().nucleus().revoke_token(token).await {
            tracing::debug!(%problem, "the host had no token");
        }
        Ok(removed)
    }

    /// Has a host run what it was granted, and gives it what it was invited for.
    async fn set_up(&self, bridge: &Arc<Bridge>, key: HostId) -> Result<(), Problem> {
        let _turn = self.turn().await;
        let Some(entry) = bridge.entry(&key) else { return Ok(()) };
        let roster = bridge.known().roster;
        bridge.ask(key, &Ask::Roster { roster: roster.clone() }).await?;
        for grant in roster.grants.iter().filter(|grant| grant.host == entry.name) {
            self.start_at(bridge, &entry, grant).await?;
        }
        if entry.services.is_empty() {
            return Ok(());
        }
        for service in &entry.services {
            self.move_in_turn(bridge, *service, &entry.name).await?;
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

/// Takes over what Nucleus says of the hosts, and tells them.
async fn learn_anew(host: &Host, bridge: &Arc<Bridge>) -> Result<Roster, Problem> {
    let roster = host.bus.internal().nucleus().roster(Empty {}).await?;
    bridge.learn(roster.clone()).await;
    for entry in roster.hosts.iter().filter(|entry| entry.key != bridge.key) {
        // Who is not there hears it when it comes.
        let told = bridge.ask(entry.key, &Ask::Roster { roster: roster.clone() }).await;
        if let Err(problem) = told {
            tracing::debug!(host = entry.name, %problem, "a host did not hear of a change");
        }
    }
    Ok(roster)
}

/// Whether a journal of this cell is encrypted, as far as it can be seen here.
fn is_encrypted(bridge: &Bridge, service: Service) -> bool {
    let reader = bridge.host().ok().and_then(|host| host.service(service).gauges.reader());
    reader.is_some_and(|reader| reader.is_encrypted())
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

fn garbled() -> Problem {
    Problem::new(ProblemKind::Unavailable, "bridge.garbled", "a host answered what was not asked")
        .hint("hosts of one cell run versions that fit: cell hosts shows them")
}
