//! The grammar of what the members agree on: data, state, transactions, blocks, consensus.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

use super::Page;

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Data {
    /// Keep a file's data here; prints its hash
    #[command(after_help = "Example: cell data add weather.csv --register --tag climate --tag 2026")]
    Add {
        /// The file; - for standard input
        file: String,
        /// A tag of the data set; may be named several times
        #[arg(long = "tag", value_name = "TAG", requires = "register")]
        tags: Vec<String>,
        /// Register it as a data set of this cell's, for the whole network
        #[arg(long)]
        register: bool,
    },
    /// What is kept here
    List,
    /// Data by its hash: from here, or from connected cells that have it, each part checked
    #[command(after_help = "Example: cell data get HASH --out weather.csv")]
    Get {
        /// Its BLAKE3 hash
        hash: String,
        /// Where to write it; - for standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// From this cell alone
        #[arg(long, value_name = "CELL")]
        from: Option<String>,
        /// The longest wait, in milliseconds
        #[arg(long)]
        wait_ms: Option<u64>,
    },
    /// Keep it no longer
    Remove {
        /// Its BLAKE3 hash
        hash: String,
    },
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum State {
    /// A value
    Get {
        /// MODULE/KEY, as in kv/colour
        key: String,
        /// As of this block
        #[arg(long)]
        at: Option<u64>,
    },
    /// Keys and values in key order
    List {
        /// Only keys that begin so
        #[arg(long, default_value = "")]
        prefix: String,
        /// As of this block
        #[arg(long)]
        at: Option<u64>,
        #[command(flatten)]
        page: Page,
    },
    /// Registered data sets, by tags and author
    Datasets {
        /// Only those with this tag; may be named several times
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Only those of this cell
        #[arg(long, value_name = "CELL")]
        author: Option<String>,
        /// As of this block
        #[arg(long)]
        at: Option<u64>,
        /// With proofs that `cell state verify` checks offline
        #[arg(long)]
        prove: bool,
        #[command(flatten)]
        page: Page,
    },
    /// A proof of a key that `cell state verify` checks offline
    Prove {
        /// MODULE/KEY
        key: String,
        /// As of this block
        #[arg(long)]
        at: Option<u64>,
    },
    /// Check a proof offline, against a genesis file or a trusted root
    Verify {
        /// The proof; - for standard input
        file: String,
        /// The state root to trust, 64 hex digits
        #[arg(long)]
        root: Option<String>,
        /// The genesis file to trust; the cell's own unless told
        #[arg(long)]
        genesis: Option<PathBuf>,
    },
    /// The versions of a key, newest first
    History {
        /// MODULE/KEY
        key: String,
        #[command(flatten)]
        page: Page,
    },
    /// The state root
    Root {
        /// After this block
        #[arg(long)]
        at: Option<u64>,
    },
}

#[derive(Group, Debug)]
pub(in crate::cli) struct Terms {
    /// priority (before the others, for four times the fee), normal or bulk (behind them, for a quarter)
    #[arg(long, value_name = "L")]
    pub(in crate::cli) lane: Option<String>,
    /// The most PRANA that it may cost, as in 0.001; whatever it costs unless told
    #[arg(long, value_name = "AMOUNT")]
    pub(in crate::cli) max_fee: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Tx {
    /// Sign and submit a transaction
    #[command(
        after_help = "Example: cell tx submit --module kv --call put --args '{\"key\":\"colour\",\"value\":\"blue\"}' --wait finalised"
    )]
    Submit {
        /// kv, prana or members
        #[arg(long, value_name = "M", required_unless_present = "signed")]
        module: Option<String>,
        /// Its call
        #[arg(long, value_name = "C", required_unless_present = "signed")]
        call: Option<String>,
        /// JSON, @FILE, or - for standard input
        #[arg(long, value_name = "JSON", default_value = "{}")]
        args: String,
        /// Chosen by the cell unless told
        #[arg(long)]
        nonce: Option<u64>,
        #[command(flatten)]
        terms: Terms,
        /// accepted, ordered, applied or finalised
        #[arg(long)]
        wait: Option<String>,
        /// The longest wait, in milliseconds
        #[arg(long)]
        wait_ms: Option<u64>,
        /// A transaction signed elsewhere: a file, or - for standard input
        #[arg(long, value_name = "FILE", conflicts_with_all = ["module", "call", "nonce", "lane", "max_fee"])]
        signed: Option<String>,
    },
    /// Submit transactions that were signed elsewhere, many at once
    #[command(
        after_help = "Prints a line for each, in the order of the file. Example: cell tx sign … >> FILE; cell tx submit-all FILE"
    )]
    SubmitAll {
        /// One transaction a line, as `cell tx sign --output json` prints them; - for standard input
        file: String,
        /// accepted, ordered, applied or finalised
        #[arg(long)]
        wait: Option<String>,
        /// The longest wait for each thousand, in milliseconds
        #[arg(long)]
        wait_ms: Option<u64>,
    },
    /// Sign a transaction without submitting it; works on a stopped cell
    Sign {
        /// kv, prana or members
        #[arg(long, value_name = "M")]
        module: String,
        /// Its call
        #[arg(long, value_name = "C")]
        call: String,
        /// JSON, @FILE, or - for standard input
        #[arg(long, value_name = "JSON", default_value = "{}")]
        args: String,
        /// Above every nonce this cell has used
        #[arg(long)]
        nonce: u64,
        #[command(flatten)]
        terms: Terms,
    },
    /// What transactions cost, where the network has fees
    Fees,
    /// One transaction and how far it has come
    Show {
        /// Its id
        id: String,
    },
    /// Prove that a transaction is in a final block, to whoever has the genesis file
    Prove {
        /// Its id
        id: String,
    },
    /// Check such a proof offline against a genesis file
    Verify {
        /// What `cell tx prove` printed; - for standard input
        file: String,
        /// The genesis file; the cell's own unless told
        #[arg(long)]
        genesis: Option<PathBuf>,
    },
    /// Transactions, newest first
    List {
        #[command(flatten)]
        page: Page,
    },
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Block {
    /// One block with its proof
    Show {
        /// Its index
        index: u64,
    },
    /// Blocks, newest first
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Check a block's proof offline against a genesis file
    Verify {
        /// What `cell block show --output json` printed; - for standard input
        file: String,
        /// The genesis file; the cell's own unless told
        #[arg(long)]
        genesis: Option<PathBuf>,
    },
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Consensus {
    /// Rounds, blocks, events, quorum, and the members as this cell sees them
    Status,
    /// The members and their weights
    Members {
        #[command(flatten)]
        page: Page,
        /// Those that ordered this block; the present ones unless told
        #[arg(long, value_name = "BLOCK")]
        at: Option<u64>,
    },
    /// The random values that the beacon has drawn, newest first
    Beacon {
        #[command(flatten)]
        page: Page,
    },
    /// Who asks to join, whom to evict, and who has voted
    Requests,
    /// Sign this cell's request to join, for any member to submit
    #[command(
        after_help = "Example: cell consensus join --dir new > join.json, then a member: cell tx submit --signed join.json"
    )]
    Join {
        /// How many votes it asks for
        #[arg(long, default_value_t = 1)]
        weight: u64,
        /// Where others reach it; where it listens unless told
        #[arg(long = "address", value_name = "MULTIADDR")]
        addresses: Vec<String>,
    },
    /// Vote for a cell that asks to join; more than two thirds of the votes let it in
    Accept {
        /// A cell id or a contact's name
        who: String,
        /// The weight that it asks for
        #[arg(long, default_value_t = 1)]
        weight: u64,
    },
    /// Sign a request for the key of this cell's new life, after a restore; any member submits it
    Rotate,
    /// Leave the members; the cell goes on following the network
    Leave,
    /// Vote to evict a member that is away for good; more than two thirds of the votes carry it
    Evict {
        /// A cell id or a contact's name
        who: String,
    },
}
