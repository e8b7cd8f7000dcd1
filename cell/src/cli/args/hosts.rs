//! The grammar of what concerns the hosts of one cell.

use clap::{Args as Group, Subcommand};

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Host {
    /// Make a ticket by which another host becomes part of this cell; it works once
    #[command(after_help = "Example: cell host invite --ttl-s 600 --dir alice")]
    Invite {
        /// How long it may be used, in seconds; 900 unless told
        #[arg(long, value_name = "S")]
        ttl_s: Option<u64>,
        /// It may come to lead the cell: it gets the cell's key, and copies of all journals
        #[arg(long)]
        may_lead: bool,
    },
    /// Make DIR a host of the cell that the ticket is of; then start it: cell start --dir DIR
    #[command(after_help = "Example: cell host join cellhost1… --services consensus,state --dir alice-b")]
    Join(Join),
    /// Move what a host runs to another one, so that it can be stopped; if it leads and others may, another one leads
    #[command(after_help = "Example: cell host drain host-b --dir alice")]
    Drain {
        /// Its name
        name: String,
        /// Where to; the host that leads unless told, and from that one another that votes
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
    },
    /// Remove a host: what it runs moves to the host that leads, its key is refused from then on, and other keys sign the journals that it wrote
    #[command(
        after_help = "Example: cell host remove host-b\nOf a host that is lost for good: cell host remove host-b --force"
    )]
    Remove {
        /// Its name
        name: String,
        /// It is lost: go on from the copies of its journals, and say what is missing there
        #[arg(long)]
        force: bool,
    },
}

#[derive(Group, Debug)]
pub(in crate::cli) struct Join {
    /// What `cell host invite` printed; @FILE and - (standard input) work too
    pub(in crate::cli) ticket: String,
    /// The services that it is to run: identity, message, state, consensus, market
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(in crate::cli) services: Vec<String>,
    /// Its name; the folder's unless told
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// Where it listens for the other hosts; may be given several times
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/7403")]
    pub(in crate::cli) listen: Vec<String>,
    /// Where its HTTP listens, 0 for any free port at each start
    #[arg(long, value_name = "P", default_value_t = crate::settings::HTTP_PORT)]
    pub(in crate::cli) http_port: u16,
    /// Where it listens for other cells when it comes to lead, if the ticket says that it may; may be given several times
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/7404")]
    pub(in crate::cli) peer_listen: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Service {
    /// Move a service to another host while the cell runs
    #[command(after_help = "Example: cell service move state --to first --dir alice")]
    Move {
        /// identity, message, state, consensus or market
        service: String,
        /// A host's name
        #[arg(long, value_name = "HOST")]
        to: String,
    },
}

#[derive(Group, Debug)]
pub(in crate::cli) struct Watched {
    /// Go on, and print them again whenever they change; what changes all the time, as loads and lengths, does not count
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    /// With --watch: end when they were printed so many times
    #[arg(long, value_name = "N", requires = "watch")]
    pub(in crate::cli) limit: Option<u64>,
}
