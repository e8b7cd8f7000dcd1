//! A host that may lead: it follows whoever does, until it is elected.
//!
//! Coming to lead happens once in the life of a process, while its services, its HTTP and its way to the other hosts go on. In this order:
//!
//! 1. the copy of Nucleus's journal gets the newest that any of most voters has; it is opened under a fork of this term;
//! 2. Nucleus records who leads, which most voters have before anything else is done;
//! 3. the network between cells, the fronts, what is owed; what the host before ran is taken over (`bridge::keeper`).
//!
//! Ceasing to lead ends that life: nothing of it may linger, and nothing of it is needed. The process begins anew in its place (`cli::run`).

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::nucleus::{FirstHostRequest, GrantRequest, HostEntry, Roster};
use protocol::shared::Empty;
use protocol::{Problem, ProblemKind, Service};

use super::services::{Appointment, Queues, effect_queues};
use super::{Host, World};
use crate::actor::Grant;
use crate::bridge::{self, Bridge, Joined, Lead};
use crate::http::Server;
use crate::keys::Keyring;

/// How long a start waits until somebody leads; without, it is ready all the same.
const SETTLED_MAX: Duration = Duration::from_secs(3);
/// How often that is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long Nucleus may take until it answers on a host that was elected.
const NUCLEUS_MAX: Duration = Duration::from_secs(10);
/// The pause before a host that could not come to lead begins anew: another one may be luckier.
const FAILED_PAUSE: Duration = Duration::from_millis(500);

/// A host that may lead, and the world where it does.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) host: Arc<Host>,
    pub(super) keyring: Keyring,
    pub(super) world: Rc<OnceCell<Arc<World>>>,
}

impl Candidate {
    /// Bridge, copies, election, HTTP; it leads or is led when this returns, unless there are too few of the others.
    pub(super) async fn start(self, joined: Option<Joined>, queues: Queues) -> Result<Server, Problem> {
        let (host, dir) = (&self.host, self.host.folder.path());
        let seed = bridge::host_key(dir)?;
        let known = bridge::known_hosts(dir).unwrap_or_default();
        let invited_by = joined.map(|joined| joined.lead);
        let last = known.hosts.iter().find(|host| known.lead == Some(host.key)).cloned();
        let led_by = last.or_else(|| invited_by.clone()).filter(|lead| lead.name != host.name);
        let hosts = match known.hosts.is_empty() {
            true => invited_by.into_iter().collect(),
            false => known.hosts,
        };
        let roster = Roster { hosts, grants: Vec::new(), number: 0 };
        let bridge = Bridge::start(host, bridge::Start { seed, roster, led_by, lead: None }).await?;
        host.set_bridge(Arc::clone(&bridge));
        bridge.follow_all(&self.keyring).await;
        bridge::forward_effects(host, queues);
        bridge.elect().await?;
        let server = Server::start(host).await?;
        host.set_http(server.url());
        let began = Instant::now();
        actix_rt::spawn(self.clone().attend(Arc::clone(&bridge)));
        while !self.is_settled(&bridge) && began.elapsed() < SETTLED_MAX {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(server)
    }

    /// Whether it leads, or is led by another host.
    fn is_settled(&self, bridge: &Bridge) -> bool {
        self.world.get().is_some() || bridge.is_led()
    }

    /// Follows whoever is elected, until that is this host.
    async fn attend(self, bridge: Arc<Bridge>) {
        let Ok(quorum) = bridge.elect().await else { return };
        let mut leadership = quorum.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            if now.is_me {
                if let Err(problem) = self.lead(&bridge, now.term).await {
                    tracing::error!(%problem, term = now.term, "this host was elected, and cannot lead: it begins anew");
                    tokio::time::sleep(FAILED_PAUSE).await;
                    self.host.begin_anew();
                }
                return;
            }
            if let Some(leader) = now.leader.filter(|leader| *leader != bridge.key()) {
                bridge.led_by(leader, now.term).await;
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    /// Comes to lead.
    async fn lead(&self, bridge: &Arc<Bridge>, term: u64) -> Result<(), Problem> {
        let host = &self.host;
        let began = Instant::now();
        tracing::info!(term, "this host is elected to lead");
        bridge.led_by(bridge.key(), term).await;
        host.edge.spawn(bridge::hold(Arc::clone(bridge), term));
        let (senders, queues) = effect_queues();
        let lead =
            Lead::new(self.keyring.clone(), senders, Duration::from_millis(host.settings.bridge.lease_ms));
        let before = self.start_nucleus(bridge, term).await?;
        if let Some(before) = before.filter(|before| before.key != bridge.key()) {
            lead.comes_after(before.key);
        }
        let world = Arc::new(World::new(Arc::clone(host), self.keyring.clone(), Arc::clone(&lead)));
        world.set_network(super::start_network(&world).await?);
        crate::fronts::install(&world);
        bridge.begin_to_lead(&lead, term).await?;
        host.set_world(&world);
        super::face_others(&world, queues).await?;
        let _ = self.world.set(world);
        // What its services had asked of the host before may not have been done.
        for service in Service::ALL {
            host.control().owe(service).await;
        }
        tracing::info!(term, took = ?began.elapsed(), "this host leads");
        Ok(())
    }

    /// Goes on with Nucleus's journal, and records who leads; gives the host that did before.
    async fn start_nucleus(&self, bridge: &Arc<Bridge>, term: u64) -> Result<Option<HostEntry>, Problem> {
        let host = &self.host;
        bridge::gathered(bridge, Service::Nucleus).await?;
        bridge.end_copy(Service::Nucleus).await?;
        let grant = Grant::of_term(term, bridge.other_voters());
        // Its keys are known to no host that may not lead: the first ones stay.
        host.control().start(Appointment::by(&self.keyring, grant, 0, 0)).await?;
        bridge::hold_once(bridge);
        host.bus.is_back(Service::Nucleus);
        let nucleus = host.bus.internal();
        let roster = patiently(async || nucleus.nucleus().roster(Empty {}).await).await?;
        let of_nucleus = roster.grants.iter().find(|grant| grant.service == Service::Nucleus);
        let before = of_nucleus.and_then(|grant| roster.hosts.iter().find(|host| host.name == grant.host));
        let me = || GrantRequest {
            service: Service::Nucleus,
            host: host.name.clone(),
            replicated: true,
            takeover: true,
            new_key: None,
        };
        patiently(async || nucleus.nucleus().grant(me()).await).await?;
        if let Some(entry) = roster.hosts.iter().find(|entry| entry.key == bridge.key()) {
            let here = HostEntry { addresses: bridge.addresses(), ..entry.clone() };
            let asked = || FirstHostRequest { host: here.clone() };
            patiently(async || nucleus.nucleus().first_host(asked()).await).await?;
        }
        Ok(before.cloned())
    }
}

/// Asks until the lease holds: a machine that has much to do may be late to say so.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Problem>) -> Result<T, Problem> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(problem) if problem.kind == ProblemKind::Unavailable && began.elapsed() < NUCLEUS_MAX => {
                tracing::debug!(%problem, "Nucleus does not answer yet");
            }
            answered => return answered,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
