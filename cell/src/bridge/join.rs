//! Becoming a host of a cell, by a ticket.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use protocol::nucleus::HostEntry;
use protocol::{CellId, Problem, ProblemKind, Service, codec};

use super::place::{self, Joined};
use super::ticket::Ticket;
use super::wire::{Ask, CellKeys, Reply, Secret, Token};
use super::{ASK_TIMEOUT, as_peer, network_settings};
use crate::folder;
use crate::keys;
use crate::network::{Inbound, Lane, Network};
use crate::settings::{self, Settings};

/// How long it may take to reach the cell.
const REACH_MAX: Duration = Duration::from_secs(15);

/// What a host is to be.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// What `cell host invite` printed.
    pub ticket: String,
    /// Its folder, which is made.
    pub dir: PathBuf,
    /// Its name; the folder's unless told.
    pub name: Option<String>,
    /// The services it is to run.
    pub services: Vec<Service>,
    /// Where it listens for the other hosts.
    pub listen: Vec<String>,
    /// Where its HTTP listens.
    pub http_port: u16,
    /// Where it listens for other cells when it comes to lead, if it may.
    pub peer_listen: Vec<String>,
    /// What the cell's key is kept under, if it gets it.
    pub passphrase: Option<String>,
}

/// What was made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct JoinReport {
    /// The cell that it is part of.
    pub cell: CellId,
    /// Its name there.
    pub host: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What it will run once it is started.
    pub services: Vec<Service>,
    /// Whether it may come to lead.
    pub may_lead: bool,
}

/// Nobody is answered before there is a host.
struct Nobody;

impl Inbound for Nobody {
    fn request(&self, _: Lane, _: CellId, _: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        Box::pin(std::future::ready(Vec::new()))
    }
    fn push(&self, _: Lane, _: CellId, _: Vec<u8>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    fn hello(&self, _: CellId, _: Vec<u8>, _: Vec<String>) {}
}

/// Shows the ticket to the host that leads, and makes the folder of the host that was admitted.
///
/// # Errors
///
/// `bridge.bad_ticket`, `folder.exists`, `bridge.unreachable`, and why it was not admitted: `nucleus.…`.
pub async fn join(options: JoinOptions, runtime: &tokio::runtime::Handle) -> Result<JoinReport, Problem> {
    let ticket = Ticket::parse(&options.ticket)?;
    let dir = folder::fresh(&options.dir)?;
    let name = options.name.clone().unwrap_or_else(|| folder::default_name(&dir));
    if options.services.contains(&Service::Nucleus) {
        let cause = "Nucleus runs on the host that leads";
        return Err(Problem::new(ProblemKind::Invalid, "nucleus.cannot_move", cause)
            .hint("name other services: identity, message, state, consensus, market"));
    }
    let seed = keys::new_seed()?;
    let key = place::id_of(&seed);
    let settings = network_settings(seed.clone(), options.listen.clone(), Vec::new());
    let network = Network::start(settings, Arc::new(Nobody), runtime).await?;
    let entry = HostEntry {
        name: name.clone(),
        key,
        addresses: network.addresses(),
        services: options.services.clone(),
        may_lead: false,
    };
    let joined = ask_to_join(&network, &ticket, entry).await;
    network.stop().await;
    let Reply::Joined { cell, genesis, settings, lead, token: Token(token), keys: cell_keys } = joined?
    else {
        return Err(unreachable("it answered what was not asked"));
    };
    let mut settings: Settings =
        serde_json::from_str(&settings).map_err(|error| garbled(&format!("its settings: {error}")))?;
    settings.http.port = options.http_port;
    settings.bridge.listen = options.listen;
    // Other cells are faced by the host that leads.
    settings.network.listen = if cell_keys.is_some() { options.peer_listen } else { Vec::new() };
    let joined = Joined { cell, name: name.clone(), lead };
    folder::put_together(&dir, |draft| {
        let unwritable = |error: std::io::Error| folder::unwritable(draft, &error);
        fs::create_dir_all(draft.join("journals")).map_err(unwritable)?;
        keys::write_new(&draft.join("host.key"), hex::encode(*seed).as_bytes()).map_err(unwritable)?;
        keys::write_new(&draft.join("admin.token"), token.as_bytes()).map_err(unwritable)?;
        if let Some(CellKeys { seed, lives }) = &cell_keys {
            let lives: Vec<keys::Life> =
                serde_json::from_str(lives).map_err(|error| garbled(&error.to_string()))?;
            keys::create(draft, &seed.0, options.passphrase.as_deref())?;
            if !lives.is_empty() {
                keys::write_lives(draft, &lives).map_err(unwritable)?;
            }
        }
        fs::write(draft.join("genesis.json"), &genesis).map_err(unwritable)?;
        fs::write(draft.join(settings::FILE), settings::documented_toml(&settings)).map_err(unwritable)?;
        place::remember(draft, &joined).map_err(unwritable)
    })?;
    Ok(JoinReport { cell, host: name, dir, services: options.services, may_lead: cell_keys.is_some() })
}

async fn ask_to_join(network: &Network, ticket: &Ticket, entry: HostEntry) -> Result<Reply, Problem> {
    let peer = as_peer(ticket.lead);
    network.keep(peer, ticket.addresses.clone()).await;
    let mut changes = network.changes();
    let began = Instant::now();
    while !network.peer(&peer).connected {
        let Some(left) = REACH_MAX.checked_sub(began.elapsed()) else {
            let why = network.peer(&peer).last_error.unwrap_or_else(|| "nobody answers".to_owned());
            return Err(unreachable(&why));
        };
        let _ = tokio::time::timeout(left.min(Duration::from_millis(100)), changes.changed()).await;
    }
    let ask = codec::encode(&Ask::Join { secret: Secret(ticket.secret), host: entry });
    let ask_once = || async {
        let asked = tokio::time::timeout(ASK_TIMEOUT, network.request(Lane::Hosts, peer, ask.clone()));
        asked.await.unwrap_or_else(|_| Err(unreachable("it did not answer in time")))
    };
    // Where the answer was lost: whoever asks again with the same key gets the same one, and no ticket is used up by it.
    let bytes = match ask_once().await {
        Err(_) => ask_once().await?,
        Ok(bytes) => bytes,
    };
    match codec::decode::<Reply>(&bytes)? {
        Reply::Refused { problem } => Err(problem),
        reply => Ok(reply),
    }
}

fn garbled(why: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, "bridge.garbled", format!("what the cell says does not read: {why}"))
        .hint("hosts of one cell run versions that fit: cell hosts shows them")
}

fn unreachable(why: &str) -> Problem {
    Problem::new(ProblemKind::Unreachable, "bridge.unreachable", format!("the cell cannot be reached: {why}"))
        .hint("its first host has to run, and its bridge.listen to be reachable from here: cell hosts shows the addresses")
}
