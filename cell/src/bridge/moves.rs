//! Services move between hosts while the cell runs.
//!
//! One change of a service at a time. Calls wait for it from the second step on:
//!
//! 1. its journal is copied to where it goes, while it goes on;
//! 2. it stops where it is, having finished what it took in;
//! 3. the copy has every entry of the journal, and so has the host that leads, where it is to be a replica;
//! 4. Nucleus grants the journal to the other host, under a higher epoch;
//! 5. it starts there.
//!
//! What fails before the fourth step leaves the service where it was. After it, the service is the other host's: it is started there as soon as
//! it can be, and nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use protocol::nucleus::{GrantRequest, GrantView, Health, HostEntry, ServiceStatus};
use protocol::shared::Empty;
use protocol::{Hash, Problem, ProblemKind, Service};

use super::lead::{Lead, garbled, is_known_outside, learn_anew};
use super::wire::{Ask, Granted, Head, Reply, Secret};
use super::{Bridge, orders, voters};
use crate::actor::Grant;
use crate::node::{Appointment, Host};
use crate::replication::Seal;
use crate::settings::Durability;

/// How long the copying of a journal that is to move may take.
const COPY_MAX: Duration = Duration::from_secs(300);
/// How long calls wait for a service that moves, from its stop on.
const MOVE_MAX: Duration = Duration::from_secs(30);
/// How long a host may take to answer one question about a service.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How often it is looked how far a copy is.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A copy is near enough to its journal for the service to stop when it lacks no more than so many entries.
const NEAR_ENTRIES: u64 = 1_000;

impl Lead {
    /// Whether nothing may leave a service before the lead has it, when it runs on a host. Consensus always runs so away from the lead: its
    /// events must not be forgotten once others have them (DESIGN §9, rule 8).
    pub(super) fn wants_replica(
        &self,
        bridge: &Bridge,
        host: &Host,
        service: Service,
        on: &HostEntry,
    ) -> bool {
        let asked = host.settings.journal.durability == Durability::Replica || service == Service::Consensus;
        asked && if on.key == bridge.key { bridge.other_voters() } else { self.leases().asks(&on.key) }
    }

    /// The right of this host to write what was granted to it.
    fn own_grant(bridge: &Bridge, grant: &GrantView) -> Grant {
        match bridge.quorum() {
            Some(_) => Grant::by_elected(grant),
            None => Grant::by_nucleus(grant),
        }
    }

    /// Has a host that may lead copy every journal that is written elsewhere; says whether it has them all.
    pub(super) async fn has_copies(&self, bridge: &Bridge, to: &HostEntry) -> Result<bool, Problem> {
        let mut all = true;
        for service in Service::ALL {
            let is_its = |grant: GrantView| grant.host == to.name && service != Service::Nucleus;
            if bridge.grant(service).is_some_and(is_its) {
                continue;
            }
            let (have, known, is_settled, _) = self.copy_at(bridge, service, to).await?;
            all &= is_settled || known > NEAR_ENTRIES && have + NEAR_ENTRIES >= known;
        }
        Ok(all)
    }

    /// Has another host copy a journal; how many entries it has, of how many, whether that is all, and of which fork.
    async fn copy_at(
        &self,
        bridge: &Bridge,
        service: Service,
        to: &HostEntry,
    ) -> Result<(u64, u64, bool, u64), Problem> {
        let number = key_number(bridge, service);
        let keys = self.keyring().journal_keys(service, number);
        let encryption = is_encrypted(bridge, service)?.then_some(Secret(*keys.encryption));
        let wish = Ask::Copy { service, key: self.journal_key(service, number), encryption };
        match ask(bridge, to, &wish).await? {
            Reply::Copied { have, length, is_settled, fork } => Ok((have, length, is_settled, fork)),
            _ => Err(garbled()),
        }
    }

    /// Has a copy of a journal kept here. What stands in the way is told; whoever waits for the copy asks again.
    pub(super) async fn follow(&self, bridge: &Bridge, service: Service) {
        let number = key_number(bridge, service);
        let key = self.keyring().journal_keys(service, number).encryption_key();
        let seal = Seal { key, is_used: is_encrypted(bridge, service).unwrap_or(false) };
        let (network, public) = (bridge.network(), self.journal_key(service, number));
        if let Err(problem) = bridge.copies.follow(network, bridge.key, service, public, Some(seal)).await {
            tracing::warn!(%service, %problem, "a journal is not copied here yet");
        }
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
        if service == Service::Nucleus {
            let cause = "Nucleus runs on the host that leads";
            return Err(Problem::new(ProblemKind::Invalid, "nucleus.cannot_move", cause)
                .hint("move the other services: cell service move SERVICE --to HOST"));
        }
        let to = bridge.host_named(to)?;
        if bridge.holder(service).is_none_or(|holder| holder != to.name) {
            // The long part; other changes of the service go on meanwhile.
            self.copied(bridge, service, &to, COPY_MAX, None).await?;
        }
        let _turn = self.turn(service).await;
        self.move_in_turn(bridge, service, &to).await
    }

    /// The same, by whoever has the turn.
    pub(super) async fn move_in_turn(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        to: &HostEntry,
    ) -> Result<ServiceStatus, Problem> {
        let host = bridge.host()?;
        let before = bridge.grant(service).ok_or_else(super::stopping)?;
        let from = bridge.entry_named(&before.host).ok_or_else(super::stopping)?;
        let replicated = self.wants_replica(bridge, &host, service, to);
        if from.key == to.key && before.replicated == replicated {
            return Ok(host.service(service).status(service, &to.name));
        }
        if from.key != to.key {
            self.copied(bridge, service, to, COPY_MAX, None).await?;
        }
        self.change(bridge, &before, (&from, to), (replicated, None)).await?;
        tracing::info!(%service, from = from.name, to = to.name, replicated, "a service has moved");
        Ok(host.service(service).status(service, &to.name))
    }

    /// Has the next key sign the journal of a service, wherever that runs: it is signed anew on this host, which has the cell's keys.
    ///
    /// # Errors
    ///
    /// As [`Lead::move_service`].
    pub(super) async fn rekey(&self, bridge: &Arc<Bridge>, service: Service) -> Result<(), Problem> {
        let _rekeying = self.rekeying().await;
        let host = bridge.host()?;
        let before = bridge.grant(service).ok_or_else(super::stopping)?;
        if !is_known_outside(&before, &bridge.known().roster.hosts) {
            return Ok(());
        }
        if before.host != host.name {
            self.move_service(bridge, service, &host.name).await?;
        }
        {
            let _turn = self.turn(service).await;
            let now = bridge.grant(service).ok_or_else(super::stopping)?;
            let me = bridge.entry(&bridge.key).ok_or_else(super::stopping)?;
            if now.host != me.name {
                let cause = format!("{service} was moved to {} meanwhile", now.host);
                return Err(Problem::new(ProblemKind::Busy, "bridge.service_moved", cause)
                    .hint("it is tried again by itself"));
            }
            let new_key = self.journal_key(service, now.key_number + 1);
            let replicated = self.wants_replica(bridge, &host, service, &me);
            self.change(bridge, &now, (&me, &me), (replicated, Some(new_key))).await?;
            tracing::info!(%service, number = now.key_number + 1, "another key signs the journal of a service");
        }
        self.have_signed(bridge, service).await;
        if before.host != host.name {
            self.move_service(bridge, service, &before.host).await?;
        }
        Ok(())
    }

    /// Has the other hosts that vote sign their copies of a journal by the key that signs it now. Who does not answer is asked again by whoever
    /// looks after the copies.
    pub(super) async fn have_signed(&self, bridge: &Bridge, service: Service) {
        if key_number(bridge, service) == 0 {
            return;
        }
        if bridge.copies.progress(service).is_some() {
            self.follow(bridge, service).await;
        }
        let voters = bridge.voters().into_iter().filter(|voter| *voter != bridge.key);
        let asked = voters.filter_map(|voter| bridge.entry(&voter)).map(|voter| async move {
            if let Err(problem) = self.copy_at(bridge, service, &voter).await {
                tracing::debug!(%service, host = voter.name, %problem, "a copy is signed anew later");
            }
        });
        join_all(asked).await;
    }

    /// Stops a service where it is, grants its journal anew, and starts it where that was granted to.
    async fn change(
        &self,
        bridge: &Arc<Bridge>,
        before: &GrantView,
        (from, to): (&HostEntry, &HostEntry),
        terms: (bool, Option<Hash>),
    ) -> Result<(), Problem> {
        let (host, service) = (bridge.host()?, before.service);
        let moving = bridge.begin_move(service);
        let moved = self.hand_over(bridge, service, (from, to), terms).await;
        if let Err(problem) = &moved
            && still_holds(&host, before).await
        {
            tracing::warn!(%service, %problem, "a service stays where it was");
            if let Err(problem) = self.start_at(bridge, from, before, None).await {
                tracing::error!(%service, %problem, "it could not be started again; it is tried until it can be");
            }
        }
        let learnt = learn_anew(&host, bridge).await;
        drop(moving);
        moved?;
        learnt.map(|_| ())
    }

    /// From the stop to the start elsewhere, or under other terms.
    async fn hand_over(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        (from, to): (&HostEntry, &HostEntry),
        (replicated, new_key): (bool, Option<Hash>),
    ) -> Result<(), Problem> {
        let host = bridge.host()?;
        let head = if from.key == bridge.key {
            orders::stop(bridge, service).await?
        } else {
            match ask(bridge, from, &Ask::Stop { service }).await? {
                Reply::Ends { length, fork } => Head { fork, length },
                _ => return Err(garbled()),
            }
        };
        if from.key != to.key {
            self.copied(bridge, service, to, MOVE_MAX, Some(head)).await?;
        }
        let me = bridge.entry(&bridge.key).ok_or_else(super::stopping)?;
        if replicated && from.key != me.key {
            self.copied(bridge, service, &me, MOVE_MAX, Some(head)).await?;
        }
        if replicated && bridge.other_voters() {
            voters::covered(bridge, &bridge.voters(), Some(service)).await?;
        }
        let asked = GrantRequest { service, host: to.name.clone(), replicated, takeover: false, new_key };
        let grant = host.bus.internal().nucleus().grant(asked).await?;
        // From here on it is the other host's, whatever comes.
        bridge.know(host.bus.internal().nucleus().roster(Empty {}).await?);
        self.start_at(bridge, to, &grant, Some(head)).await
    }

    /// Waits until a host has a copy of a journal: up to its end, or nearly.
    async fn copied(
        &self,
        bridge: &Arc<Bridge>,
        service: Service,
        to: &HostEntry,
        longest: Duration,
        end: Option<Head>,
    ) -> Result<(), Problem> {
        let began = Instant::now();
        loop {
            let (have, known, is_settled, fork) = if to.key == bridge.key {
                self.follow(bridge, service).await;
                bridge.copies.progress(service).map_or((0, 0, false, 0), |progress| {
                    (progress.have, progress.length, progress.is_settled, progress.fork)
                })
            } else {
                self.copy_at(bridge, service, to).await?
            };
            let is_near = is_settled || known > NEAR_ENTRIES && have + NEAR_ENTRIES >= known;
            if end.map_or(is_near, |end| Head { fork, length: have }.reaches(end)) {
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

    /// Starts a service on the host that it is granted to; has its journal copied here, if that is another one. Where the end of its journal is
    /// known it starts with no less than that.
    pub(super) async fn start_at(
        &self,
        bridge: &Arc<Bridge>,
        to: &HostEntry,
        grant: &GrantView,
        end: Option<Head>,
    ) -> Result<(), Problem> {
        let (host, service) = (bridge.host()?, grant.service);
        let copy = bridge.copies.progress(service);
        let copy = copy.map(|copy| Head { fork: copy.fork, length: copy.have });
        let mut head = end.or(copy).unwrap_or(Head { fork: 0, length: 0 });
        if to.key == bridge.key {
            // A grant that was never used may be as old as its copy.
            voters::gathered(bridge, service).await?;
            bridge.copies.stop(service).await?;
            let own = Self::own_grant(bridge, grant);
            let appointment = Appointment::by(self.keyring(), own, grant.key_number, head.length);
            let appointment = Appointment { fork: head.fork, ..appointment };
            host.control().start(appointment).await?;
            voters::hold_once(bridge);
            // What came before it held its lease asks again.
            host.bus.is_back(service);
            return Ok(());
        }
        if end.is_none() && grant.replicated {
            head = voters::newest_known(bridge, service).await?.unwrap_or(head);
        }
        // Before it starts: what comes after may come at once, and its host be lost before it has answered.
        self.follow(bridge, service).await;
        let keys = self.keyring().journal_keys(service, grant.key_number);
        ask(bridge, to, &Ask::Start { granted: Granted::new(grant, &keys, head) }).await?;
        bridge.copies.look(service);
        host.bus.is_back(service);
        host.service(service).set_health(Health::Running);
        host.service(service).set_epoch(grant.epoch);
        Ok(())
    }
}

/// Asks a host about a service: whoever does not answer holds up nobody for long.
async fn ask(bridge: &Bridge, host: &HostEntry, question: &Ask) -> Result<Reply, Problem> {
    tokio::time::timeout(ANSWER_MAX, bridge.ask(host.key, question)).await.unwrap_or_else(|_| {
        let cause = format!("the host {} does not answer", host.name);
        Err(Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", cause)
            .hint("cell hosts shows the connections; it is dialled again by itself"))
    })
}

/// Whether a grant is the one that Nucleus has: what failed may have been the answer alone.
async fn still_holds(host: &Host, grant: &GrantView) -> bool {
    let roster = host.bus.internal().nucleus().roster(Empty {}).await;
    roster.is_ok_and(|roster| roster.grants.contains(grant))
}

/// Which of its keys signs a journal.
pub(super) fn key_number(bridge: &Bridge, service: Service) -> u32 {
    bridge.grant(service).map_or(0, |grant| grant.key_number)
}

/// Whether a journal of this cell is encrypted.
fn is_encrypted(bridge: &Bridge, service: Service) -> Result<bool, Problem> {
    let reader = bridge.host()?.service(service).gauges.reader();
    reader.map(|reader| reader.is_encrypted()).ok_or_else(|| {
        let cause = format!("the {service} journal cannot be read here yet");
        Problem::new(ProblemKind::Busy, "bridge.copying", cause).hint("try again in a moment")
    })
}
