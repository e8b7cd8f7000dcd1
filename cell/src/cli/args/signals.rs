//! `cell signal`.

use clap::{Args as Group, Subcommand, ValueEnum};
use protocol::signal;

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Signal {
    /// Tell something to one listener of each group
    #[command(after_help = "Example: cell signal emit job.resize '{\"file\":\"a.png\"}' --key a.png")]
    Emit {
        /// 1 to 64 of a-z, 0-9, dot, hyphen, underscore
        name: String,
        /// What is told: JSON, @FILE, or - for standard input
        #[arg(default_value = "null")]
        body: String,
        /// Signals with the same key go to the same listener of a group
        #[arg(long)]
        key: Option<String>,
        /// How the listener is chosen where there is no key
        #[arg(long, value_enum, default_value = "least-load")]
        balance: Balance,
    },
    /// Tell something to every listener
    #[command(after_help = "Example: cell signal broadcast cache.clear")]
    Broadcast {
        /// 1 to 64 of a-z, 0-9, dot, hyphen, underscore
        name: String,
        /// What is told: JSON, @FILE, or - for standard input
        #[arg(default_value = "null")]
        body: String,
    },
    /// Print what is told from now on
    #[command(after_help = "Example: cell signal listen 'job.*' --group workers --output json")]
    Listen(Listen),
}

#[derive(Group, Debug)]
pub(in crate::cli) struct Listen {
    /// Names such as job.resize or job.*; all unless told
    pub(in crate::cli) names: Vec<String>,
    /// Share what is emitted with the other listeners of this group; without one, hear everything
    #[arg(long)]
    pub(in crate::cli) group: Option<String>,
    /// End after so many
    #[arg(long)]
    pub(in crate::cli) limit: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) timeout: Option<u64>,
}

/// How the listener of a group is chosen.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Balance {
    /// The one with the fewest waiting
    LeastLoad,
    /// One after the other
    RoundRobin,
    /// One on the host that is asked, if there is one
    PreferLocal,
    /// One on the host that is nearest to the one that leads
    LeastLatency,
}

impl From<Balance> for signal::Balance {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::LeastLoad => Self::LeastLoad,
            Balance::RoundRobin => Self::RoundRobin,
            Balance::PreferLocal => Self::PreferLocal,
            Balance::LeastLatency => Self::LeastLatency,
        }
    }
}
