//! Who leads, and for how long that is certain: out of what openraft says of itself.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::instant::Instant;
use openraft::async_runtime::watch::WatchReceiver;
use protocol::HostId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::types::{Metrics, Raft, Voter};

/// Who leads the group, as this host knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term. Rises with every new leader, and each term has one leader at most: an epoch to fence by.
    pub term: u64,
    /// Who leads in it, if that is known.
    pub leader: Option<HostId>,
    /// Whether it is this host, and all entries of earlier terms are applied here. It stays so while no majority is heard:
    /// [`super::Quorum::holds_lease`] says whether it still counts.
    pub is_me: bool,
}

impl Leadership {
    fn of(metrics: &Metrics, me: Voter) -> Self {
        let term = metrics.current_term;
        if metrics.running_state.is_err() {
            return Self { term, leader: None, is_me: false };
        }
        // A leader begins its term with an entry of its own: what is before that one is applied when that one is.
        let applied_term = metrics.last_applied.map(|applied| applied.leader_id.term);
        Self {
            term,
            leader: metrics.current_leader.map(|leader| leader.0),
            is_me: leads(metrics, me) && applied_term == Some(term),
        }
    }
}

fn leads(metrics: &Metrics, me: Voter) -> bool {
    metrics.running_state.is_ok()
        && metrics.state == ServerState::Leader
        && metrics.vote.committed
        && metrics.vote.leader_id.voted_for == me
}

/// Follows what openraft says, until it stops.
pub(super) fn watch(raft: &Raft, me: Voter) -> (watch::Receiver<Leadership>, JoinHandle<()>) {
    let mut metrics = raft.metrics();
    let (sender, receiver) = watch::channel(Leadership::of(&metrics.borrow_watched(), me));
    let watcher = tokio::spawn(async move {
        loop {
            let gone = metrics.changed().await.is_err();
            let mut next = Leadership::of(&metrics.borrow_watched(), me);
            if gone {
                next = Leadership { leader: None, is_me: false, ..next };
            }
            sender.send_if_modified(|now| {
                let changed = *now != next;
                *now = next;
                changed
            });
            if gone {
                return;
            }
        }
    });
    (receiver, watcher)
}

/// What is left of the lease. `given_up` is the last term that this host has handed over.
pub(super) fn lease_left(metrics: &Metrics, me: Voter, given_up: u64, lease: Duration) -> Option<Duration> {
    if !leads(metrics, me) || metrics.current_term <= given_up {
        return None;
    }
    // As soon as a change is in the log it decides what a majority is.
    let mut voters = metrics.membership_config.voter_ids();
    let (votes, alone) =
        (voters.any(|voter| voter == me), metrics.membership_config.voter_ids().count() == 1);
    if !votes {
        return None;
    }
    if alone {
        return Some(Duration::MAX);
    }
    // When the question was sent that a majority has answered since: never later than anybody's promise began.
    let sent = metrics.last_quorum_acked?;
    lease.checked_sub(sent.elapsed()).filter(|left| !left.is_zero())
}
