//! The grammar of the command line.

mod chain;
mod hosts;
mod signals;

use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand, value_parser};
use protocol::consensus::{GRAPH_ROUNDS, GRAPH_ROUNDS_MAX};

use super::output::Format;
pub(super) use chain::{Block, Consensus, Data, State, Tx};
pub(super) use hosts::{Host, Join, Service, Watched};
pub(super) use signals::{Listen, Signal};

/// A cell: one operator's node. Six services, each with its own signed journal; messages to other
/// cells; an order of transactions; a provable state.
#[derive(Parser, Debug)]
#[command(
    name = "cell",
    version,
    propagate_version = true,
    after_help = "Begin with: cell init --dir DIR; cell start --dir DIR"
)]
pub(super) struct Args {
    /// The cell's folder; ~/.celluler unless told
    #[arg(long, global = true, env = "CELL_DIR", value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// How to print
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(super) output: Option<Format>,
    /// A file with the key's passphrase (or CELL_PASSPHRASE)
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// A file with a bearer token (or CELL_TOKEN); DIR/admin.token unless told
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Trace what the command asks of the cell; the trace's id goes to standard error, cell trace ID shows it
    #[arg(long, global = true)]
    pub(super) trace: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Make a cell: keys, cell.toml, journals, the first admin token
    #[command(after_help = "Example: cell init --dir alice --name alice --http-port 0 --peer-port 0")]
    Init(Init),
    /// Run the cell until SIGTERM, SIGINT or `cell stop`
    #[command(after_help = "Example: cell start --dir alice --output json --set http.port=0")]
    Start {
        /// A setting for this start alone; may be given several times
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Stop the running cell, and wait until it is gone
    Stop,
    /// The cell as it is now; exit 5 when it is not well
    Status,
    /// Look for what is wrong, and say what to do
    Doctor,
    /// Delete the views of a stopped cell and fold its journals again
    Rebuild,
    /// Copy the cell into a folder that `cell restore` makes it from again; it may run
    #[command(after_help = "Example: cell backup /var/backups/alice-1 --dir alice")]
    Backup {
        /// A folder that is not there yet
        to: PathBuf,
    },
    /// Make the cell of a backup in DIR again, as another life of it: with new journals, and a new key as a member
    #[command(
        after_help = "The cell that was backed up must never run again. A member then has its key rotated: cell consensus rotate. Example: cell restore /var/backups/alice-1 --dir alice"
    )]
    Restore {
        /// The folder that `cell backup` made
        from: PathBuf,
    },
    /// Take no new work, finish what was taken
    Drain,
    /// A local network of cells
    Testnet {
        #[command(subcommand)]
        command: Testnet,
    },
    /// Other cells and their connections
    #[command(after_help = "Example: cell peers add /ip4/127.0.0.1/tcp/7411/p2p/12D3Koo… --name bob")]
    Peers {
        #[command(subcommand)]
        command: Option<Peers>,
    },
    /// Call any action; its answer is printed as it is
    #[command(after_help = "Example: cell call state.get '{\"key\":\"kv/colour\"}'")]
    Call {
        /// Its name, as in nucleus.status
        action: String,
        /// Its request: JSON, @FILE, or - for standard input
        #[arg(default_value = "{}")]
        json: String,
    },
    /// Print events as they happen
    #[command(after_help = "Example: cell watch 'message.*' state.applied --output json")]
    Watch(Watch),
    /// Tell something to whoever listens now, on any host of this cell; it is kept nowhere
    Signal {
        #[command(subcommand)]
        command: Signal,
    },
    /// Messages to and from other cells
    Message {
        #[command(subcommand)]
        command: Message,
    },
    /// The signed logs
    Journal {
        #[command(subcommand)]
        command: Journal,
    },
    /// The replicated state
    State {
        #[command(subcommand)]
        command: State,
    },
    /// The data of data sets: kept here, and fetched by its hash from whoever has it
    Data {
        #[command(subcommand)]
        command: Data,
    },
    /// Transactions
    Tx {
        #[command(subcommand)]
        command: Tx,
    },
    /// Blocks
    Block {
        #[command(subcommand)]
        command: Block,
    },
    /// How consensus goes here: rounds, blocks, events, members, quorum
    Consensus {
        #[command(subcommand)]
        command: Option<Consensus>,
    },
    /// Draw the last rounds of the hashgraph as SVG; --output json lists them
    #[command(after_help = "Example: cell graph --rounds 12 --out graph.svg")]
    Graph {
        /// The last so many rounds, 1 to 64
        #[arg(long, value_name = "N", default_value_t = GRAPH_ROUNDS, value_parser = value_parser!(u64).range(1..=GRAPH_ROUNDS_MAX))]
        rounds: u64,
        /// Write the picture to this file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Who this cell is, whom it knows and trusts
    Identity {
        #[command(subcommand)]
        command: Identity,
    },
    /// PRANA
    Market {
        #[command(subcommand)]
        command: Market,
    },
    /// Hosts of this cell: invite one, become one, remove one
    Host {
        #[command(subcommand)]
        command: Host,
    },
    /// The hosts of this cell, and how they are
    #[command(after_help = "Example: cell hosts --watch --output json")]
    Hosts(Watched),
    /// The six services: which host runs each, and how it is
    Services(Watched),
    /// One service
    Service {
        #[command(subcommand)]
        command: Service,
    },
    /// One trace as a tree, over all hosts of the cell; without an ID the latest traces
    #[command(
        after_help = "Example: cell message send --to bob --type QUERY --wait answered --trace; cell trace ID"
    )]
    Trace {
        /// Its id: 32 hex digits
        id: Option<String>,
        /// List so many at most
        #[arg(long, value_name = "N", conflicts_with = "id")]
        limit: Option<u32>,
    },
    /// Bearer tokens for HTTP
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Settings
    Config {
        #[command(subcommand)]
        command: Config,
    },
    /// Completion for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Name and version
    Version,
}

#[derive(Group, Debug)]
pub(super) struct Init {
    /// A name for people
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The genesis file of a network to be part of; a network of its own unless told
    #[arg(long, value_name = "GENESIS")]
    pub(super) network: Option<PathBuf>,
    /// Where HTTP listens; 7400 unless told, 0 for any free port at each start
    #[arg(long, value_name = "P")]
    pub(super) http_port: Option<u16>,
    /// Where peers are listened for; 7401 unless told, 0 for any free port at each start
    #[arg(long, value_name = "P")]
    pub(super) peer_port: Option<u16>,
    /// Listen for peers on every address of the machine; on loopback alone unless told
    #[arg(long)]
    pub(super) listen_everywhere: bool,
    /// Journals to encrypt, with a key of the cell's key; all for all of them
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(super) encrypt: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Testnet {
    /// Make NET/cell-0 … that know each other; ports 7500, 7510 … unless told
    Init {
        /// How many
        #[arg(long, default_value_t = 4)]
        cells: u16,
        /// HTTP of cell i listens on base + 10 i, peers on base + 10 i + 1
        #[arg(long, default_value_t = 7500)]
        base_port: u16,
        /// The machine that cell i is to run on, a name or an IPv4 address: once for each cell. Its folder is taken there; ports are the same on all
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// What a transaction pays a unit (a byte, and 4096 for the rest) at least, in PRANA; nothing unless told
        #[arg(long, value_name = "AMOUNT")]
        fee_base: Option<String>,
        /// Blocks after which what was paid is shared among the members; it is kept unless told
        #[arg(long, value_name = "BLOCKS", requires = "fee_base")]
        fee_share_blocks: Option<u64>,
        /// Who decides on cells that ask to join: members of more than two thirds (vote), any one member (sponsor), nobody (closed)
        #[arg(long, value_name = "POLICY", default_value = "vote", value_parser = ["vote", "sponsor", "closed"])]
        join: String,
    },
    /// Run the cells of NET as processes until Ctrl-C
    Up,
}

#[derive(Subcommand, Debug)]
pub(super) enum Peers {
    /// The peers and how they are connected
    List,
    /// Stay connected to a peer; it becomes a contact who may CHAT
    Add {
        /// Ends in /p2p/PEER_ID
        multiaddr: String,
        /// A name to use wherever a cell is asked for
        #[arg(long)]
        name: Option<String>,
    },
    /// Hang up and forget a peer
    Remove {
        /// A cell id or a contact's name
        peer: String,
    },
}

#[derive(Group, Debug)]
pub(super) struct Watch {
    /// Names such as message.received or message.*; all unless told
    pub(super) events: Vec<String>,
    /// End after so many events
    #[arg(long)]
    pub(super) limit: Option<u64>,
    /// Begin behind the event with this id; 0 for the beginning
    #[arg(long)]
    pub(super) since: Option<String>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Message {
    /// Sign, journal and deliver a message
    #[command(
        after_help = "Example: cell message send --to bob --type CHAT --body '{\"text\":\"hello\"}' --wait delivered"
    )]
    Send {
        /// A cell id or a contact's name
        #[arg(long)]
        to: String,
        /// CHAT, AUTH, TX, POST, QUERY or EXEC
        #[arg(long = "type", value_name = "T")]
        kind: String,
        /// JSON, @FILE, or - for standard input; {"step":"request"} for AUTH unless told
        #[arg(long, value_name = "JSON")]
        body: Option<String>,
        /// Seal the body for the receiver
        #[arg(long)]
        seal: bool,
        /// How long to wait: queued, delivered or answered
        #[arg(long, default_value = "queued")]
        wait: String,
        /// The longest wait, in milliseconds
        #[arg(long)]
        wait_ms: Option<u64>,
        /// How long delivery is tried, in milliseconds
        #[arg(long)]
        ttl_ms: Option<u64>,
        /// The message this one answers
        #[arg(long, value_name = "ID")]
        reply_to: Option<String>,
        /// Makes a repeated send safe
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// Messages in both directions, newest first
    List {
        /// Only this type
        #[arg(long = "type", value_name = "T")]
        kind: Option<String>,
        /// Only from this cell
        #[arg(long, value_name = "CELL")]
        from: Option<String>,
        /// Only to this cell
        #[arg(long, value_name = "CELL")]
        to: Option<String>,
        /// Only this way: in or out
        #[arg(long)]
        direction: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// One message, opened if it was sealed for this cell
    Show {
        /// Its id
        id: String,
    },
    /// Cancel a message that is still queued
    Cancel {
        /// Its id
        id: String,
    },
    /// Dead letters: refused, expired or cancelled
    Dead {
        #[command(flatten)]
        page: Page,
    },
    /// The posts published here
    Posts {
        /// Only with this tag
        #[arg(long)]
        tag: Option<String>,
    },
}

#[derive(Group, Debug)]
pub(super) struct Page {
    /// At most so many
    #[arg(long)]
    pub(super) limit: Option<u32>,
    /// The "next" of the page before
    #[arg(long)]
    pub(super) cursor: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Journal {
    /// The journals: entries, bytes, keys
    List,
    /// Entries as JSON
    Cat {
        /// nucleus, identity, message, state, consensus or market; CELL/NAME for a copy of another cell's
        name: String,
        /// The first entry
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Check every entry, every hash and the signature; exit 5 when something is damaged. Or a proof
    Verify {
        /// One journal, or CELL/NAME for a copy of another cell's; all of this cell unless told
        name: Option<String>,
        /// Check a proof instead, with no cell; - for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "name", requires = "key")]
        proof: Option<String>,
        /// The key of the journal that the proof should be of, 64 hex digits
        #[arg(long, requires = "proof")]
        key: Option<String>,
    },
    /// A proof of entries, or of growth, that anybody can check with the journal's key alone
    Prove(JournalProve),
    /// Keep a verified copy of another cell's journal, and show how far it is; the running cell does it, and
    /// goes on after Ctrl-C and restarts until `cell journal unfollow`
    #[command(after_help = "Example: cell journal follow bob message --once")]
    Follow {
        /// A cell id or a contact's name; its access list must let this cell copy the journal
        peer: String,
        /// nucleus, identity, message, state, consensus or market
        journal: String,
        /// The key the journal must have, 64 hex digits; the one its cell shows unless told
        #[arg(long)]
        key: Option<String>,
        /// End as soon as everything is here
        #[arg(long)]
        once: bool,
    },
    /// Follow a journal of another cell no longer; the copy stays
    Unfollow {
        /// A cell id or a contact's name
        peer: String,
        /// nucleus, identity, message, state, consensus or market
        journal: String,
        /// Delete the copy as well
        #[arg(long)]
        delete: bool,
    },
    /// The journals of other cells that are followed
    Followed,
    /// Write a checked copy into a new folder, for other programs that read Hypercore 10
    Export {
        /// nucleus, identity, message, state, consensus or market
        name: String,
        /// The folder; made if need be
        folder: PathBuf,
        /// Put the journal's secret key into the copy's header: who has the copy can write to it
        #[arg(long)]
        with_secret_key: bool,
        /// Put the key that the entries are encrypted with beside the copy, as encryption.key
        #[arg(long)]
        with_encryption_key: bool,
    },
}

#[derive(clap::Args, Debug)]
pub(super) struct JournalProve {
    /// nucleus, identity, message, state, consensus or market; CELL/NAME for a copy of another cell's
    pub(super) name: String,
    /// The first entry
    #[arg(required_unless_present = "since")]
    pub(super) index: Option<u64>,
    /// Up to this entry, without it; only the first unless told
    #[arg(long, value_name = "INDEX", requires = "index")]
    pub(super) to: Option<u64>,
    /// Also that the journal has grown out of the one it was at this length
    #[arg(long, value_name = "LENGTH")]
    pub(super) since: Option<u64>,
    /// Write the proof to this file, as CBOR, instead of printing it as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Identity {
    /// Who this cell is; works on a stopped cell
    Show,
    /// Sign a text
    Sign {
        /// The text; @FILE or - work too
        text: String,
    },
    /// Check a signature over a text; exit 1 when it does not hold
    Verify {
        /// Who is said to have signed
        who: String,
        /// The text
        text: String,
        /// 128 hex digits
        signature: String,
    },
    /// The contacts
    Contacts,
    /// Set what a contact may send, run and copy here; what is not named it may not
    #[command(
        after_help = "Example: cell identity access bob --may CHAT,EXEC --exec state.get --journals message"
    )]
    Access {
        /// A cell id or a contact's name
        who: String,
        /// Types, joined by commas
        #[arg(long, value_delimiter = ',')]
        may: Vec<String>,
        /// Actions that its EXEC may run, joined by commas
        #[arg(long, value_delimiter = ',')]
        exec: Vec<String>,
        /// Journals that it may copy (cell journal follow), joined by commas
        #[arg(long, value_delimiter = ',')]
        journals: Vec<String>,
    },
    /// Trust in the cells this one has met
    Trust {
        /// One cell
        who: Option<String>,
    },
    /// Make an interaction proof
    Prove {
        /// The other cell
        who: String,
    },
    /// Check an interaction proof; exit 1 when it fails
    CheckProof {
        /// The proof: JSON, @FILE, or - for standard input
        proof: String,
    },
    /// Sign and record a statement about a cell
    Attest {
        /// About whom
        who: String,
        /// JSON
        claim: String,
    },
    /// The recorded statements
    Attestations,
    /// Seal a text for a cell
    Seal {
        /// For whom
        who: String,
        /// The text; @FILE or - work too
        text: String,
    },
    /// Open a text that was sealed for this cell
    Open {
        /// Hex
        sealed: String,
    },
    /// The open sessions
    Sessions,
}

#[derive(Subcommand, Debug)]
pub(super) enum Market {
    /// A PRANA balance
    Balance {
        /// A cell id or a contact's name; this cell unless told
        who: Option<String>,
    },
    /// Transfer PRANA
    Transfer {
        /// A cell id or a contact's name
        #[arg(long)]
        to: String,
        /// As in 1.5
        #[arg(long)]
        amount: String,
        /// accepted, ordered, applied or finalised
        #[arg(long)]
        wait: Option<String>,
        /// Chosen by the cell unless told
        #[arg(long)]
        nonce: Option<u64>,
    },
    /// This cell's account statement
    Statement,
    /// All PRANA there is
    Supply,
}

#[derive(Subcommand, Debug)]
pub(super) enum Token {
    /// Make a token; its secret is shown this once
    Create {
        /// A name to know it by
        name: String,
        /// read, write or admin
        #[arg(long, default_value = "read")]
        role: String,
        /// How long it lives, in seconds; for ever unless told
        #[arg(long)]
        ttl_s: Option<u64>,
    },
    /// The tokens, without their secrets
    List,
    /// Revoke a token at once
    Revoke {
        /// Its name
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum Config {
    /// The settings in force, and where each comes from
    Show,
    /// One setting
    Get {
        /// section.key
        key: String,
    },
    /// Change cell.toml; takes effect at the next start
    Set {
        /// section.key
        key: String,
        /// Its value
        value: String,
    },
    /// Check cell.toml and the environment
    Check,
}
