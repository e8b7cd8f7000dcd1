//! Until when each host may write what was granted to it.
//!
//! A host asks the one that leads again and again; what it is told counts from when it asked ([`crate::actor::Lease`]). The lead counts from when
//! it was asked, and waits a tenth longer: so a lease has ended on the host before it ends for the lead, as long as their clocks run at a like
//! speed. Once the lead has let one lapse it promises nothing more about that service until somebody else holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::nucleus::{GrantView, Roster};
use protocol::{HostId, Problem, Service};

use super::wire::{Ask, Reply};
use super::{Bridge, orders};

/// Times in a lease that it is asked for anew.
const ASKED_TIMES: u32 = 5;

/// What the host that leads has promised.
pub(super) struct Leases {
    lease: Duration,
    promised: Mutex<Promised>,
}

struct Promised {
    /// When it was begun to count for hosts that have not been heard.
    since: Instant,
    heard: BTreeMap<HostId, Instant>,
    /// The hosts that ask: one of a version from before there were leases does not, and is never taken for lost.
    asking: BTreeSet<HostId>,
    /// Hosts that are being removed: they are promised nothing.
    refused: BTreeSet<HostId>,
    /// Services that are being taken over: nobody is promised anything about them.
    lapsed: BTreeSet<Service>,
    /// The host that led before by election: what it held, it held as long as it led.
    ended: Option<HostId>,
}

impl Leases {
    pub(super) fn new(lease: Duration) -> Self {
        let (since, heard) = (Instant::now(), BTreeMap::new());
        let (asking, refused, lapsed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let promised = Promised { since, heard, asking, refused, lapsed, ended: None };
        Self { lease, promised: Mutex::new(promised) }
    }

    fn promised(&self) -> MutexGuard<'_, Promised> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host that led before this one was elected holds nothing any more: nobody is elected before its lease is over.
    pub(super) fn have_ended(&self, key: HostId) {
        self.promised().ended = Some(key);
    }

    /// From now on the time of every host is counted anew: this process did not run for a while, and heard nobody.
    pub(super) fn count_anew(&self) {
        let mut promised = self.promised();
        promised.since = Instant::now();
        promised.heard.clear();
    }

    /// A host asks whether it may go on.
    pub(super) fn renew(&self, key: HostId, roster: Roster, voters: Vec<HostId>) -> Result<Reply, Problem> {
        let mut promised = self.promised();
        if promised.refused.contains(&key) {
            return Err(orders::not_admitted(&key));
        }
        promised.heard.insert(key, Instant::now());
        promised.ended.take_if(|ended| *ended == key);
        promised.asking.insert(key);
        let except = promised.lapsed.iter().copied().collect();
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        Ok(Reply::Renewed { roster, except, lease_ms, voters })
    }

    /// How long it takes until the lease of a host has certainly ended, if it asks no more.
    fn left(&self, promised: &Promised, key: &HostId) -> Duration {
        if promised.ended == Some(*key) {
            return Duration::ZERO;
        }
        let heard = promised.heard.get(key).copied().unwrap_or(promised.since).max(promised.since);
        (self.lease + self.lease / 10).saturating_sub(heard.elapsed())
    }

    /// Whether a host knows of leases.
    pub(super) fn asks(&self, key: &HostId) -> bool {
        self.promised().asking.contains(key)
    }

    /// Whether the lease of a host has ended.
    pub(super) fn has_ended(&self, key: &HostId) -> bool {
        self.left(&self.promised(), key).is_zero()
    }

    /// If the lease of a host has ended: promises it nothing more about a service. Says whether that is so.
    pub(super) fn let_lapse(&self, key: &HostId, service: Service) -> bool {
        let mut promised = self.promised();
        let has_ended = self.left(&promised, key).is_zero();
        if has_ended {
            promised.lapsed.insert(service);
        }
        has_ended
    }

    /// Somebody holds a service again.
    pub(super) fn is_held(&self, service: Service) {
        self.promised().lapsed.remove(&service);
    }

    /// Promises a host nothing more; gives how long to wait until what it was promised has ended.
    pub(super) fn refuse(&self, key: HostId) -> Duration {
        let mut promised = self.promised();
        promised.refused.insert(key);
        self.left(&promised, &key)
    }

    /// A host is not removed after all.
    pub(super) fn allow(&self, key: &HostId) {
        self.promised().refused.remove(key);
    }
}

/// Asks the host that leads whether what was granted here still is, until the bridge is gone.
pub(super) async fn keep(bridge: Arc<Bridge>) {
    let mut stopping = bridge.stopping.subscribe();
    let weak = Arc::downgrade(&bridge);
    let Ok(host) = bridge.host() else { return };
    let mut lease = Duration::from_millis(host.settings.bridge.lease_ms);
    drop((bridge, host));
    let (told, mut lease_told) = tokio::sync::watch::channel(lease);
    let told = Arc::new(told);
    loop {
        {
            let Some(bridge) = weak.upgrade() else { return };
            let Ok(host) = bridge.host() else { return };
            if bridge.leads() {
                return;
            }
            let told = Arc::clone(&told);
            // One that hangs holds up no other one.
            host.edge.spawn(async move {
                match tokio::time::timeout(lease, renew(&bridge)).await {
                    Ok(Ok(lease)) => drop(told.send_replace(lease)),
                    Ok(Err(problem)) => tracing::debug!(%problem, "no word from the host that leads"),
                    Err(_) => tracing::debug!("no word from the host that leads in time"),
                }
            });
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(lease / ASKED_TIMES) => {}
        }
        lease = *lease_told.borrow_and_update();
    }
}

/// Asks once; gives how long a lease is.
pub(super) async fn renew(bridge: &Arc<Bridge>) -> Result<Duration, Problem> {
    let lead = bridge.known().lead.ok_or_else(super::stopping)?;
    let asked = Instant::now();
    let (roster, except, lease_ms, voters) = match bridge.ask(lead, &Ask::Renew).await {
        Ok(Reply::Renewed { roster, except, lease_ms, voters }) => (roster, except, lease_ms, voters),
        // It is of before leases, and takes nothing over: what it granted holds for as long as it is like that.
        Err(problem) if problem.code == "codec.malformed" => {
            let known = bridge.known();
            (known.roster, Vec::new(), bridge.host()?.settings.bridge.lease_ms, known.voters)
        }
        Ok(_) => return Err(super::lead::garbled()),
        Err(problem) => return Err(problem),
    };
    // What another one has promised that led before is over when it does no more.
    if bridge.leads() || bridge.known().lead != Some(lead) {
        return Err(super::stopping());
    }
    bridge.hear_voters(voters);
    let (host, lease) = (bridge.host()?, Duration::from_millis(lease_ms));
    for grant in
        roster.grants.iter().filter(|grant| grant.host == host.name && !except.contains(&grant.service))
    {
        host.bus.lease(grant.service).extend(grant.epoch, asked + lease);
    }
    let known = bridge.known();
    if roster.number != known.roster.number || known.told_by != known.lead {
        bridge.learn(roster).await;
    }
    Ok(lease)
}

/// Stops what runs here and was granted to another host, or anew: nothing is written under the grant before.
pub(super) fn stop_what_is_not_mine(bridge: &Arc<Bridge>) {
    let Ok(host) = bridge.host() else { return };
    for grant in bridge.known().roster.grants {
        let GrantView { service, epoch, .. } = grant;
        let lease = host.bus.lease(service);
        if service == Service::Nucleus || lease.epoch().is_none_or(|mine| mine >= epoch) {
            continue;
        }
        tracing::warn!(%service, host = grant.host, epoch, "the journal was granted anew: it is written here no more");
        lease.fence();
        let host = Arc::clone(&host);
        bridge.spawn(async move {
            if let Err(problem) = host.control().stop(service).await {
                tracing::warn!(%service, %problem, "a service of another host");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(100);

    fn renewed(leases: &Leases, key: HostId) -> Vec<Service> {
        match leases.renew(key, Roster { hosts: vec![], grants: vec![], number: 1 }, vec![]) {
            Ok(Reply::Renewed { except, .. }) => except,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lease_ends_for_the_lead_after_it_has_ended_on_the_host() {
        let (leases, key) = (Leases::new(LEASE), HostId::from_bytes([1; 32]));
        assert!(!leases.let_lapse(&key, Service::State), "nobody knows what was promised before the start");
        let asked = Instant::now();
        assert_eq!(renewed(&leases, key), []);
        while !leases.has_ended(&key) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(asked.elapsed() > LEASE, "the host's own count has ended before");
        assert!(leases.let_lapse(&key, Service::State));
        assert_eq!(renewed(&leases, key), [Service::State], "it is promised nothing about that one any more");
        leases.is_held(Service::State);
        assert_eq!(renewed(&leases, key), []);
    }

    #[test]
    fn who_is_removed_is_promised_nothing() {
        let (leases, key) = (Leases::new(LEASE), HostId::from_bytes([1; 32]));
        renewed(&leases, key);
        assert!(leases.refuse(key) > LEASE / 2);
        let roster = Roster { hosts: vec![], grants: vec![], number: 1 };
        assert_eq!(leases.renew(key, roster, vec![]).expect_err("refused").code, "bridge.not_admitted");
        leases.allow(&key);
        assert_eq!(renewed(&leases, key), []);
    }

    /// A lead that was frozen has heard nobody, and nobody was lost for that.
    #[test]
    fn a_lead_that_slept_counts_anew() {
        let (leases, key) = (Leases::new(LEASE), HostId::from_bytes([1; 32]));
        std::thread::sleep(2 * LEASE);
        assert!(leases.has_ended(&key));
        leases.count_anew();
        assert!(!leases.has_ended(&key));
    }
}
