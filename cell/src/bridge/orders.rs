//! Answers what hosts ask of each other besides calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use journal::EncryptionKey;
use protocol::shared::page_limit;
use protocol::{Hash, HostId, Problem, ProblemKind, Service, codec};

use super::wire::{Ask, Granted, Head, Reply, Secret};
use super::{Bridge, effects, leases};
use crate::replication::Seal;

/// How long the start of a service waits for its lease.
const LEASE_MAX: Duration = Duration::from_secs(2);

/// Answers a question.
pub(super) async fn serve(bridge: &Arc<Bridge>, from: HostId, bytes: &[u8]) -> Reply {
    let answered = match codec::decode::<Ask>(bytes) {
        Ok(ask) => answer(bridge, from, ask).await,
        Err(problem) => Err(problem),
    };
    answered.unwrap_or_else(|problem| Reply::Refused { problem })
}

async fn answer(bridge: &Arc<Bridge>, from: HostId, ask: Ask) -> Result<Reply, Problem> {
    if let Ask::Join { secret, host } = ask {
        if host.key != from {
            return Err(not_admitted(&from));
        }
        return bridge.lead()?.admit(bridge, &secret.0, host).await;
    }
    if !bridge.is_admitted(&from) {
        return Err(not_admitted(&from));
    }
    let is_lead = bridge.known().lead == Some(from);
    match ask {
        Ask::Effects { service, effects, .. } => {
            let holder = bridge.entry(&from).map(|host| host.name);
            if holder.is_none() || bridge.holder(service) != holder {
                return Err(not_the_writer(service));
            }
            effects::take(bridge.lead()?.senders(), service, &effects)?;
            Ok(Reply::Done)
        }
        Ask::Renew => {
            let lead = bridge.lead()?;
            bridge.may_lead_on()?;
            let voters = if bridge.other_voters() { bridge.voters() } else { Vec::new() };
            lead.leases().renew(from, bridge.known().roster, voters)
        }
        Ask::Elect { question } => {
            let quorum = bridge.quorum().ok_or_else(|| not_lead(&from))?;
            Ok(Reply::Elected { answer: quorum.answer(from, &question).await })
        }
        Ask::Held => Ok(Reply::Held { journals: bridge.all_held_here()? }),
        // Who votes finds that out by itself.
        Ask::Lead { term } => {
            if bridge.quorum().is_none() {
                bridge.led_by(from, term).await;
            }
            Ok(Reply::Done)
        }
        Ask::Spans { trace } => Ok(Reply::Spans { spans: bridge.host()?.bus.tracer().spans(&trace) }),
        Ask::Traces { limit } => {
            let limit = page_limit(Some(limit));
            Ok(Reply::Traces { traces: bridge.host()?.bus.tracer().latest(limit) })
        }
        _ if !is_lead => Err(not_lead(&from)),
        Ask::Roster { roster } => {
            bridge.learn(roster).await;
            // So that the lead knows that this host asks, before it grants anything on terms that hang on it.
            renewed(bridge).await;
            Ok(Reply::Done)
        }
        Ask::Copy { service, key, encryption } => copy(bridge, service, key, encryption).await,
        Ask::Start { granted } => start(bridge, granted).await,
        Ask::Stop { service } => {
            let Head { fork, length } = stop(bridge, service).await?;
            Ok(Reply::Ends { length, fork })
        }
        Ask::Join { .. } => Err(not_admitted(&from)),
    }
}

/// Copies a journal that is to come here, and says how far that is.
async fn copy(
    bridge: &Bridge,
    service: Service,
    key: Hash,
    encryption: Option<Secret>,
) -> Result<Reply, Problem> {
    let seal = encryption.map(|key| Seal { key: EncryptionKey::from_bytes(&key.0), is_used: true });
    bridge.copies.follow(bridge.network(), bridge.key, service, key, seal).await?;
    let progress = bridge.copies.progress(service);
    Ok(Reply::Copied {
        have: progress.map_or(0, |progress| progress.have),
        length: progress.map_or(0, |progress| progress.length),
        is_settled: progress.is_some_and(|progress| progress.is_settled),
        fork: progress.map_or(0, |progress| progress.fork),
    })
}

/// Starts a service that was granted to this host. One that runs gives all that it owes: the lead may be another process than it was.
async fn start(bridge: &Arc<Bridge>, granted: Granted) -> Result<Reply, Problem> {
    let host = bridge.host()?;
    if host.draining.load(Ordering::Relaxed) {
        return Err(super::stopping());
    }
    let service = granted.service;
    if let Some(progress) = bridge.copies.progress(service) {
        if !progress.reaches(Head { fork: granted.fork, length: granted.length }) {
            let cause = format!("{} of {} entries of {service} are here", progress.have, granted.length);
            return Err(
                Problem::new(ProblemKind::Busy, "bridge.copying", cause).hint("it is tried again by itself")
            );
        }
        bridge.copies.stop(service).await?;
    }
    if !host.control().start(granted.appointment()).await? {
        host.control().owe(service).await;
    }
    // It is of use once its lease is known here.
    renewed(bridge).await;
    Ok(Reply::Done)
}

/// Asks for the lease now; where that takes long, it comes by itself.
async fn renewed(bridge: &Arc<Bridge>) {
    if let Ok(Err(problem)) = tokio::time::timeout(LEASE_MAX, leases::renew(bridge)).await {
        tracing::debug!(%problem, "the lease is not known yet");
    }
}

/// Stops a service, and says where its journal ends.
pub(super) async fn stop(bridge: &Bridge, service: Service) -> Result<Head, Problem> {
    let host = bridge.host()?;
    host.control().stop(service).await?;
    let (fork, length) = host.service(service).gauges.reader().map_or((0, 0), |reader| reader.head());
    Ok(Head { fork, length })
}

/// The refusal of a key that nobody admitted.
pub(super) fn not_admitted(key: &HostId) -> Problem {
    let cause = format!("{key} is no host of this cell");
    Problem::new(ProblemKind::Denied, "bridge.not_admitted", cause)
        .hint("join with a ticket: cell host invite on the first host, cell host join TICKET here")
}

fn not_lead(key: &HostId) -> Problem {
    Problem::new(ProblemKind::Denied, "bridge.not_leading", format!("{key} does not lead this cell"))
}

fn not_the_writer(service: Service) -> Problem {
    let cause = format!("another host writes the journal of {service}");
    Problem::new(ProblemKind::Denied, "bridge.not_the_writer", cause)
}
