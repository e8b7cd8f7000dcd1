//! Who is no host of a cell is refused by its hosts, whatever it sends and whichever key or ticket it has found: with a code, and whoever wanted
//! to be let in is in the audit. Tickets by the command line are tested with the hosts.
//!
//! The stranger speaks libp2p by itself and shares no code with the bridge: only the words.

use std::path::Path;
use std::process::{Command, Stdio};

use ed25519_dalek::SigningKey;
use kit::hosts::service;
use kit::stranger::{REQUEST, Stranger, framed, replied};
use kit::{Cell, HostProcess, until};
use minicbor::{Decode, Encode};
use protocol::nucleus::{HostEntry, Roster};
use protocol::{HostId, Problem, Service, codec};
use serde_json::{Value, json};

/// What hosts ask of each other.
const HOSTS: &str = "/celluler/hosts/1";
/// Journals that are copied.
const JOURNALS: &str = "/celluler/journal/1";
/// Calls.
const BRIDGE: &str = "/celluler/bridge/1";

/// Calls and streams on connections of their own.
const DIRECT: [&str; 2] = ["celluler/calls/1", "celluler/streams/1"];

/// What the bridge is asked, as it is on the wire.
#[derive(Encode)]
enum Ask {
    #[n(0)]
    Join {
        #[cbor(n(0), with = "minicbor::bytes")]
        secret: [u8; 32],
        #[n(1)]
        host: HostEntry,
    },
    #[n(1)]
    Roster {
        #[n(0)]
        roster: Roster,
    },
    #[n(4)]
    Stop {
        #[n(0)]
        service: Service,
    },
    #[n(5)]
    Effects {
        #[n(0)]
        service: Service,
        #[n(1)]
        effects: Vec<u8>,
        #[n(2)]
        missed: bool,
    },
    #[n(16)]
    Spans {
        #[cbor(n(0), with = "minicbor::bytes")]
        trace: [u8; 16],
    },
    #[n(17)]
    Traces {
        #[n(0)]
        limit: u32,
    },
}

/// A call, as it is on the wire, by the cell itself.
#[derive(Encode)]
enum Down {
    #[n(0)]
    Call {
        #[n(0)]
        number: u64,
        #[n(1)]
        action: String,
        #[n(2)]
        asker: Asker,
        #[n(3)]
        patience_us: u64,
        #[cbor(n(6), with = "minicbor::bytes")]
        body: Vec<u8>,
    },
}

#[derive(Encode)]
enum Asker {
    #[n(0)]
    Internal,
}

#[derive(Decode)]
enum Reply {
    #[n(1)]
    Refused {
        #[n(0)]
        problem: Problem,
    },
}

#[derive(Decode)]
struct Ticket {
    #[n(1)]
    addresses: Vec<String>,
    #[cbor(n(2), with = "minicbor::bytes")]
    secret: [u8; 32],
}

impl Ticket {
    fn read(text: &str) -> Self {
        let digits = text.strip_prefix("cellhost1").expect("a ticket");
        codec::decode(&bs58::decode(digits).into_vec().expect("Base58")).expect("a ticket")
    }
}

/// The key of a host's folder.
fn seed_of(host: &HostProcess) -> [u8; 32] {
    let text = std::fs::read_to_string(host.dir().join("host.key")).expect("it has a key");
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).expect("hex");
    seed
}

fn entry(name: &str, seed: &[u8; 32]) -> HostEntry {
    let key = HostId::from_bytes(SigningKey::from_bytes(seed).verifying_key().to_bytes());
    HostEntry { name: name.to_owned(), key, addresses: Vec::new(), services: Vec::new(), may_lead: false }
}

async fn refused(stranger: &mut Stranger, ask: &Ask) -> String {
    let reply = stranger.send(HOSTS, framed(REQUEST, &codec::encode(ask))).await.expect("a reply");
    let Reply::Refused { problem } = codec::decode(replied(&reply)).expect("a refusal");
    problem.code.into_owned()
}

/// Whatever a key that was not admitted asks for is refused, and what it orders is not done.
async fn is_nobody(address: &str, seed: [u8; 32], cell: &Cell) {
    let mut stranger = Stranger::connect(seed, address).await;
    let roster = Roster { hosts: vec![entry("intruder", &seed)], grants: Vec::new(), number: u64::MAX };
    let trace = [7; 16];
    for ask in [
        Ask::Roster { roster },
        Ask::Stop { service: Service::State },
        Ask::Effects { service: Service::Message, effects: Vec::new(), missed: true },
        Ask::Spans { trace },
        Ask::Traces { limit: 10 },
        // Another's name for a key that is not its own.
        Ask::Join { secret: [1; 32], host: entry("intruder", &[9; 32]) },
    ] {
        assert_eq!(refused(&mut stranger, &ask).await, "bridge.not_admitted");
    }
    let copied = stranger.send(JOURNALS, framed(REQUEST, b"whatever")).await.expect("a reply");
    let text = String::from_utf8_lossy(replied(&copied)).into_owned();
    assert!(text.contains("bridge.not_admitted"), "{text}");
    for action in ["nucleus.shutdown", "nucleus.create_token", "state.get"] {
        let body = vec![0xa0];
        let call = Down::Call {
            number: 1,
            action: action.to_owned(),
            asker: Asker::Internal,
            patience_us: 1_000_000,
            body,
        };
        let frame = codec::encode(&call);
        let bytes = [(frame.len() as u32).to_le_bytes().as_slice(), &frame].concat();
        for name in DIRECT {
            let answer = stranger.send_direct(name, bytes.clone()).await;
            assert_eq!(answer, None, "{action}: not even a welcome");
        }
        assert_eq!(stranger.send(BRIDGE, bytes).await, None, "{action}: not even a welcome");
    }
    assert_eq!(cell.ok(&["status"])["readiness"]["state"], "synced");
}

/// A running cell with one more host that runs State, the ticket that it has used, and where the bridge listens.
fn cell_and_host(dir: &Path) -> (Cell, HostProcess, Ticket) {
    let mut cell = Cell::init(dir, "a");
    cell.start_first();
    let ticket = HostProcess::ticket(&cell);
    let listen = "/ip4/127.0.0.1/tcp/0";
    let mut host = HostProcess::join_by(&ticket, &dir.join("b"), "state", listen);
    host.start();
    until("it has what it was invited for", || {
        service(&cell, "state") == ("b".to_owned(), "running".to_owned()) && cell.is_synced()
    });
    (cell, host, Ticket::read(&ticket))
}

/// Whether the audit has that this name was refused so, or let in.
fn is_audited(cell: &Cell, name: &str, outcome: &str) -> bool {
    let audit = cell.ok(&["call", "nucleus.audit_log", r#"{"limit":200}"#]);
    let items = audit["items"].as_array().expect("a list").clone();
    let of_name =
        |item: &&Value| item["caller"].as_str().unwrap_or_default().starts_with(&format!("host:{name}:"));
    items
        .iter()
        .filter(of_name)
        .any(|item| item["action"] == "nucleus.admit_host" && item["outcome"] == outcome)
}

#[actix_rt::test]
async fn keys_that_nobody_admitted_are_refused_whatever_they_send() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, host, ticket) = cell_and_host(dir.path());
    // Somebody's; a host's of another cell; a host's that was removed, while its process runs on.
    is_nobody(&ticket.addresses[0], [66; 32], &cell).await;
    let other_dir = dir.path().join("other");
    std::fs::create_dir(&other_dir).expect("a folder");
    let (_other, of_other, _) = cell_and_host(&other_dir);
    is_nobody(&ticket.addresses[0], seed_of(&of_other), &cell).await;
    cell.ok(&["host", "remove", "b"]);
    until("all is well without it", || cell.is_synced());
    assert!(host.id().is_some(), "its process runs on");
    is_nobody(&ticket.addresses[0], seed_of(&host), &cell).await;
    // A new ticket does not let it in again.
    let new = Ticket::read(&HostProcess::ticket(&cell));
    let seed = seed_of(&host);
    let mut removed = Stranger::connect(seed, &ticket.addresses[0]).await;
    let again = Ask::Join { secret: new.secret, host: entry("b-again", &seed) };
    assert_eq!(refused(&mut removed, &again).await, "nucleus.host_revoked");
    assert!(is_audited(&cell, "b-again", "nucleus.host_revoked"));
}

#[actix_rt::test]
async fn a_ticket_that_was_overheard_is_worth_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, host, used) = cell_and_host(dir.path());
    let seed = [67; 32];
    let mut stranger = Stranger::connect(seed, &used.addresses[0]).await;
    for (name, secret, code) in
        [("replayer", used.secret, "nucleus.ticket_used"), ("guesser", [1; 32], "nucleus.bad_ticket")]
    {
        let join = Ask::Join { secret, host: entry(name, &seed) };
        for _ in 0..2 {
            assert_eq!(refused(&mut stranger, &join).await, code);
        }
        assert!(is_audited(&cell, name, code), "{name}");
    }
    // The very words with which a host was let in, again and by another.
    let words = Ask::Join { secret: used.secret, host: entry("b", &seed_of(&host)) };
    assert_eq!(refused(&mut stranger, &words).await, "bridge.not_admitted");
    let hosts = cell.ok(&["hosts"]).to_string();
    assert!(!["replayer", "guesser"].iter().any(|name| hosts.contains(name)), "{hosts}");
}

#[test]
fn of_two_who_show_one_ticket_at_once_one_is_let_in() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.start_first();
    let ticket = HostProcess::ticket(&cell);
    let join = |name: &str| {
        Command::new(kit::program())
            .args(["host", "join", &ticket, "--listen", "/ip4/127.0.0.1/tcp/0", "--http-port", "0"])
            .args(["--output", "json", "--dir"])
            .arg(dir.path().join(name))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts")
    };
    let both = [join("b"), join("c")];
    let said: Vec<Value> = both
        .into_iter()
        .map(|child| child.wait_with_output().expect("it ends"))
        .map(|output| serde_json::from_slice(&output.stdout).expect("one JSON document"))
        .collect();
    let codes: Vec<&str> = said.iter().filter_map(|said| said["code"].as_str()).collect();
    assert_eq!(codes, ["nucleus.ticket_used"], "{}", json!(said));
    assert_eq!(cell.ok(&["hosts"])["items"].as_array().expect("a list").len(), 2);
}
