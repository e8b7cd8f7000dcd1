//! Has every service run that was granted, and takes over what lost hosts ran.
//!
//! On the host that leads. It looks all the time: whatever was granted and does not run where it was granted to is started there, however often
//! that takes. Where a host has been silent until its lease has ended, what it ran under `durability = "replica"` goes on here: the copy of the
//! journal here has every entry that was acknowledged, because nothing left the service before it had (DESIGN §9, rule 8). In this order:
//!
//! 1. the host is promised nothing more about that service: were it to wake now, it would neither write nor answer;
//! 2. where hosts vote, the copy gets the newest that any of most of them has; then it is closed: from then on nothing is acknowledged by it;
//! 3. Nucleus grants the journal to this host, under a higher epoch, as taken over;
//! 4. it is opened here under a newer fork, and the service starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::nucleus::{GrantRequest, GrantView, HostEntry};
use protocol::shared::Empty;
use protocol::{HostId, Problem, ProblemKind, Service};

use super::lead::{Lead, is_known_outside, learn_anew};
use super::{Bridge, as_peer, voters};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// It did not run for a while when so much time has gone by between two looks.
const SLEPT: Duration = Duration::from_secs(1);
/// The pause before something is tried again.
const TRY_PAUSE: Duration = Duration::from_secs(1);

/// Looks until the bridge is gone.
pub(super) async fn run(bridge: Arc<Bridge>) {
    let mut stopping = bridge.stopping.subscribe();
    let weak = Arc::downgrade(&bridge);
    drop(bridge);
    let (mut last, mut tried) = (Instant::now(), BTreeMap::new());
    let tending = Arc::new(tokio::sync::Mutex::new(()));
    let mut tended = Instant::now();
    loop {
        {
            let Some(bridge) = weak.upgrade() else { return };
            let Ok(lead) = bridge.lead().map(Arc::clone) else { return };
            if last.elapsed() > SLEPT {
                lead.leases().count_anew();
            }
            last = Instant::now();
            look(&bridge, &lead, &mut tried);
            if tended.elapsed() >= TRY_PAUSE
                && let Ok(turn) = Arc::clone(&tending).try_lock_owned()
            {
                tended = Instant::now();
                let owner = Arc::clone(&bridge);
                bridge.spawn(async move {
                    let _turn = turn;
                    if let Err(problem) = voters::tend(&owner, &lead).await {
                        tracing::warn!(%problem, "the hosts that vote are not those they should be yet; it is tried again");
                    }
                });
            }
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// What is to be done about a service.
enum Task {
    Start(HostEntry),
    TakeOver(HostId),
    /// On the terms that the settings ask for.
    GrantAnew(HostEntry),
    /// Somebody who is no host any more was given the key of its journal.
    Rekey,
}

fn look(bridge: &Arc<Bridge>, lead: &Arc<Lead>, tried: &mut BTreeMap<Service, Instant>) {
    for grant in bridge.known().roster.grants {
        let service = grant.service;
        if service == Service::Nucleus
            || lead.is_changing(service)
            || tried.get(&service).is_some_and(|tried| tried.elapsed() < TRY_PAUSE)
        {
            continue;
        }
        let Some(task) = task_of(bridge, lead, &grant).or_else(|| rekeying_of(bridge, lead, &grant)) else {
            continue;
        };
        tried.insert(service, Instant::now());
        let (owner, lead) = (Arc::clone(bridge), Arc::clone(lead));
        bridge.spawn(async move {
            let done = match task {
                Task::Start(entry) => lead.start_again(&owner, &entry, &grant).await,
                Task::TakeOver(key) => lead.take_over(&owner, key, &grant).await,
                Task::GrantAnew(entry) => lead.grant_anew(&owner, service, &entry).await,
                Task::Rekey => lead.rekey(&owner, service).await,
            };
            if let Err(problem) = done {
                tracing::warn!(%service, %problem, "a service is not where it should be yet; it is tried again");
            }
        });
    }
}

fn task_of(bridge: &Bridge, lead: &Lead, grant: &GrantView) -> Option<Task> {
    let (host, service) = (bridge.host().ok()?, grant.service);
    if grant.host == host.name {
        let runs = host.bus.lease(service).epoch() == Some(grant.epoch);
        let me = bridge.entry(&bridge.key)?;
        if runs && grant.replicated != lead.wants_replica(bridge, &host, service, &me) {
            return Some(Task::GrantAnew(me));
        }
        // At the start they are started one after the other, by whoever starts the cell.
        return (!runs && host.is_started()).then_some(Task::Start(me));
    }
    let entry = bridge.entry_named(&grant.host)?;
    if grant.replicated && lead.leases().has_ended(&entry.key) {
        return Some(Task::TakeOver(entry.key));
    }
    if !bridge.network().peer(&as_peer(entry.key)).connected {
        return None;
    }
    match bridge.registry.runs(&entry.key, service)? {
        epoch if epoch != grant.epoch => Some(Task::Start(entry)),
        // Who has not asked yet may do so in a moment.
        _ if lead.leases().asks(&entry.key)
            && grant.replicated != lead.wants_replica(bridge, &host, service, &entry) =>
        {
            Some(Task::GrantAnew(entry))
        }
        _ => None,
    }
}

/// Whether another key has to sign a journal, and its service runs.
fn rekeying_of(bridge: &Bridge, lead: &Lead, grant: &GrantView) -> Option<Task> {
    let hosts = bridge.known().roster.hosts;
    if lead.is_rekeying() || !is_known_outside(grant, &hosts) {
        return None;
    }
    let (host, holder) = (bridge.host().ok()?, bridge.entry_named(&grant.host)?);
    let epoch = match holder.key == bridge.key {
        true => host.bus.lease(grant.service).epoch(),
        false => bridge.registry.runs(&holder.key, grant.service),
    };
    (epoch == Some(grant.epoch)).then_some(Task::Rekey)
}

impl Lead {
    /// Starts what was granted to a host and does not run there.
    async fn start_again(
        &self,
        bridge: &Arc<Bridge>,
        to: &HostEntry,
        grant: &GrantView,
    ) -> Result<(), Problem> {
        let _turn = self.turn(grant.service).await;
        if bridge.grant(grant.service).as_ref() != Some(grant) {
            return Ok(());
        }
        self.start_at(bridge, to, grant, None).await
    }

    /// Has a service run under other terms where it is.
    async fn grant_anew(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        at: &HostEntry,
    ) -> Result<(), Problem> {
        let _turn = self.turn(service).await;
        self.move_in_turn(bridge, service, at).await.map(|_| ())
    }

    /// Goes on here with what a lost host ran. Nothing that was acknowledged is lost.
    async fn take_over(&self, bridge: &Arc<Bridge>, from: HostId, grant: &GrantView) -> Result<(), Problem> {
        let service = grant.service;
        let _turn = self.turn(service).await;
        if bridge.grant(service).as_ref() != Some(grant) || !self.leases().let_lapse(&from, service) {
            return Ok(());
        }
        tracing::warn!(%service, host = grant.host, "the host is lost: its service is taken over");
        bridge.give_up_on(&from);
        let taken = self.go_on_here(bridge, service).await;
        self.leases().is_held(service);
        if taken.is_ok() {
            bridge.give_up_on(&from);
        }
        taken
    }

    /// Closes the copy of a journal and goes on with it here, as another writer than before.
    pub(super) async fn go_on_here(&self, bridge: &Arc<Bridge>, service: Service) -> Result<(), Problem> {
        let host = bridge.host()?;
        let _moving = bridge.begin_move(service);
        let gone_on = async {
            if bridge.copies.progress(service).is_none() {
                let cause = format!("there is no copy of the {service} journal here");
                return Err(Problem::new(ProblemKind::Unavailable, "bridge.no_copy", cause)
                    .hint("restore the cell from a backup, or bring the lost host back"));
            }
            let nucleus = host.bus.internal();
            // What was released is on most of the voters, where there are some.
            voters::gathered(bridge, service).await?;
            bridge.copies.stop(service).await?;
            let me = bridge.entry(&bridge.key).ok_or_else(super::stopping)?;
            let (replicated, takeover) = (self.wants_replica(bridge, &host, service, &me), true);
            let host_name = host.name.clone();
            let asked = GrantRequest { service, host: host_name, replicated, takeover, new_key: None };
            let grant = nucleus.nucleus().grant(asked).await?;
            bridge.know(nucleus.nucleus().roster(Empty {}).await?);
            self.start_at(bridge, &me, &grant, None).await
        }
        .await;
        if gone_on.is_err() && bridge.holder(service).is_none_or(|holder| holder != host.name) {
            self.follow(bridge, service).await;
        }
        learn_anew(&host, bridge).await?;
        gone_on
    }
}
