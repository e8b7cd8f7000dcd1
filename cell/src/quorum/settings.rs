//! How long, how much, how many.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use protocol::Problem;

use super::problems;

/// Entries that are given to the disk at once.
const APPEND_ENTRIES_MAX: u64 = 256;

/// Times and bounds of a group. All its members should have the same.
///
/// A leader that is lost is replaced within twice `election_max` and what two rounds of questions and a sync take, unless two hosts ask for
/// votes at the same moment; then they try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often a leader tells the others that it is there.
    pub heartbeat: Duration,
    /// The shortest time that a host waits, after a leader's lease is over, before it wants to lead itself. Each time it is drawn anew.
    pub election_min: Duration,
    /// The longest; and how long a host grants no vote after it has heard from a leader.
    pub election_max: Duration,
    /// How long another host may take to sync entries.
    pub append_timeout: Duration,
    /// How long another host may take for a piece of a snapshot; with the last one, to restore it.
    pub snapshot_timeout: Duration,
    /// How long a proposal may take before its outcome counts as not known.
    pub proposal_timeout: Duration,
    /// How long a host that is admitted may take to catch up.
    pub admit_timeout: Duration,
    /// The longest payload of an entry.
    pub payload_bytes_max: usize,
    /// Proposals under way.
    pub proposals_max: usize,
    /// Questions of other hosts under way.
    pub answers_max: usize,
    /// Members of the group.
    pub members_max: usize,
    /// Applied entries after which the log is compacted.
    pub compact_every: u64,
    /// Applied entries that are kept when it is, for hosts that are a little behind. Who is further behind gets a snapshot.
    pub entries_kept: u64,
    /// The longest snapshot.
    pub snapshot_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(350),
            election_max: Duration::from_millis(700),
            append_timeout: Duration::from_secs(2),
            snapshot_timeout: Duration::from_secs(20),
            proposal_timeout: Duration::from_secs(5),
            admit_timeout: Duration::from_secs(60),
            payload_bytes_max: 256 * 1024,
            proposals_max: 256,
            answers_max: 64,
            members_max: 16,
            compact_every: 1_024,
            entries_kept: 256,
            snapshot_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// How long a leader's lease holds, from when it sent what a majority has acknowledged: [`Settings::election_max`] less an eighth, for clocks
    /// that run at different speeds.
    pub fn lease(&self) -> Duration {
        self.election_max - self.election_max / 8
    }

    /// What openraft is told.
    pub(super) fn config(&self) -> Result<Arc<Config>, Problem> {
        if self.lease() <= 2 * self.heartbeat {
            return Err(problems::settings(&"the lease is no longer than two heartbeats"));
        }
        let config = Config {
            cluster_name: "cell".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            install_snapshot_timeout: millis(self.snapshot_timeout),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.compact_every),
            max_in_snapshot_log_to_keep: self.entries_kept,
            replication_lag_threshold: self.compact_every.saturating_add(self.entries_kept).saturating_mul(2),
            max_append_entries: Some(APPEND_ENTRIES_MAX),
            enable_pre_vote: Some(true),
            // Each life that leads has a term of its own.
            enable_leader_restore: Some(false),
            backoff: "50ms 100ms ...400ms".to_owned(),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| problems::settings(&error))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
