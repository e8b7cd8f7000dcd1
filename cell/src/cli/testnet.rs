//! A local network of cells: made by `testnet init`, run as processes by `testnet up`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::fees::FeeRules;
use protocol::genesis::{Genesis, JoinPolicy};
use protocol::identity::AddContactRequest;
use protocol::message::MessageType;
use protocol::{CellId, Problem, ProblemKind, Service};
use serde_json::{Value, json};

use super::Context;
use super::args::Testnet;
use crate::actor::now_ms;
use crate::folder::{self, InitOptions};
use crate::keys::{self, Keyring};
use crate::network::peer_id_of;
use crate::{node, settings};

/// The most cells of one local network.
const CELLS_MAX: u16 = 64;
/// Rounds between two draws of the beacon.
const BEACON_ROUNDS: u64 = 8;
/// Ports between one cell and the next.
const PORT_STEP: u16 = 10;
/// How long a cell may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a cell may take to stop.
const STOP_MAX: Duration = Duration::from_secs(15);
/// What the cells of a test network may run at each other.
const EXEC: [&str; 3] = ["state.get", "market.balance", "nucleus.status"];

pub(super) fn run(context: &Context, command: Testnet) -> Result<ExitCode, Problem> {
    match command {
        Testnet::Init { cells, base_port, hosts, fee_base, fee_share_blocks, join } => {
            let fees = match fee_base {
                Some(base) => Some(FeeRules {
                    base_min: base.parse()?,
                    target_units: None,
                    share_blocks: fee_share_blocks,
                }),
                None => None,
            };
            let join: JoinPolicy = serde_json::from_value(json!(join)).map_err(|error| {
                Problem::new(ProblemKind::Invalid, "testnet.bad_policy", error.to_string())
                    .hint("--join vote, sponsor or closed")
            })?;
            let join = Some(join).filter(|join| *join != JoinPolicy::default());
            init(context, cells, base_port, &hosts, fees, join)
        }
        Testnet::Up => up(context),
    }
}

fn init(
    context: &Context,
    cells: u16,
    base_port: u16,
    hosts: &[String],
    fees: Option<FeeRules>,
    join: Option<JoinPolicy>,
) -> Result<ExitCode, Problem> {
    if cells == 0 || cells > CELLS_MAX || base_port.checked_add(cells * PORT_STEP).is_none() {
        let cause = format!("a local network has 1 to {CELLS_MAX} cells, and ports below 65536");
        return Err(
            Problem::new(ProblemKind::Invalid, "testnet.bad_size", cause).hint("--cells 4 --base-port 7500")
        );
    }
    if !hosts.is_empty() && hosts.len() != usize::from(cells) {
        let cause = format!("{} hosts were named for {cells} cells", hosts.len());
        return Err(Problem::new(ProblemKind::Invalid, "testnet.bad_hosts", cause)
            .hint("name one for each cell: --host a.example --host b.example …"));
    }
    let hosts: Vec<String> = hosts.iter().map(|host| host_address(host)).collect::<Result<_, _>>()?;
    let seeds = (0..cells).map(|_| keys::new_seed()).collect::<Result<Vec<_>, _>>()?;
    let members: Vec<CellId> = seeds.iter().map(|seed| Keyring::from_seed(seed).cell()).collect();
    // One network of all of them.
    let genesis = Genesis {
        beacon_rounds: Some(BEACON_ROUNDS),
        fees,
        join,
        ..Genesis::of_equals("testnet", now_ms(), &members)
    };
    genesis.check()?;
    let mut made: Vec<(PathBuf, CellId, u16)> = Vec::new();
    for (number, seed) in (0..cells).zip(seeds) {
        let dir = context.dir.join(format!("cell-{number}"));
        // On machines of their own all have the same ports.
        let step = if hosts.is_empty() { number * PORT_STEP } else { 0 };
        let (http, peer) = (base_port + step, base_port + step + 1);
        let options = InitOptions {
            dir: dir.clone(),
            name: Some(format!("cell-{number}")),
            http_port: Some(http),
            peer_port: Some(peer),
            genesis: Some(genesis.clone()),
            seed: Some(seed),
            listen_everywhere: !hosts.is_empty(),
            ..InitOptions::default()
        };
        made.push((dir, folder::init(options)?.cell, peer));
    }
    for (dir, own, _) in &made {
        let others = made.iter().enumerate().filter(|(_, (_, cell, _))| cell != own);
        let contacts = others.map(|(number, (_, cell, peer))| AddContactRequest {
            cell: *cell,
            name: Some(format!("cell-{number}")),
            addresses: hosts
                .get(number)
                .map_or_else(|| settings::listen_on(*peer), |host| settings::addresses(host, *peer))
                .into_iter()
                .map(|address| format!("{address}/p2p/{}", peer_id_of(cell)))
                .collect(),
            may: Some(MessageType::ALL.to_vec()),
            exec: Some(EXEC.map(str::to_owned).to_vec()),
            // One operator runs them all.
            journals: Some(Service::ALL.to_vec()),
        });
        node::introduce(dir, None, contacts.collect())?;
    }
    let items: Vec<Value> = made
        .iter()
        .enumerate()
        .map(|(number, (dir, cell, peer))| {
            json!({ "name": format!("cell-{number}"), "cell": cell, "dir": dir, "http_port": peer - 1, "peer_port": peer })
        })
        .collect();
    context.output.value(&json!({ "items": items, "next": null }))
}

/// A host as the beginning of a multiaddress.
fn host_address(host: &str) -> Result<String, Problem> {
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(format!("/ip4/{host}"));
    }
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if is_name {
        return Ok(format!("/dns4/{host}"));
    }
    let shown: String = host.chars().take(80).collect();
    Err(Problem::new(ProblemKind::Invalid, "testnet.bad_hosts", format!("{shown:?} is no host"))
        .hint("a name such as cell-0.example, or an IPv4 address"))
}

struct Running {
    dir: PathBuf,
    child: Child,
}

fn up(context: &Context) -> Result<ExitCode, Problem> {
    let dirs = cells_of(&context.dir)?;
    // Before the first cell: from now on a signal means stopping them all.
    let mut signals = Signals::new()?;
    let mut running = Vec::new();
    let result = start_all(context, &dirs, &mut running).and_then(|ready| {
        if context.output.is_json() {
            context.output.text(&json!({ "event": "ready", "cells": ready }).to_string());
        } else {
            context.output.value(&json!({ "items": ready, "next": null }))?;
            context.output.text("Ctrl-C stops all cells");
        }
        signals.wait(&mut running)
    });
    stop_all(&mut running);
    result
}

fn cells_of(net: &Path) -> Result<Vec<PathBuf>, Problem> {
    let dirs: Vec<PathBuf> = (0..CELLS_MAX)
        .map(|number| net.join(format!("cell-{number}")))
        .take_while(|dir| dir.join(settings::FILE).exists())
        .collect();
    if dirs.is_empty() {
        return Err(Problem::new(
            ProblemKind::NotFound,
            "testnet.missing",
            format!("there is no local network in {}", net.display()),
        )
        .hint("make one: cell testnet init --cells 4 --dir NET"));
    }
    Ok(dirs)
}

fn start_all(context: &Context, dirs: &[PathBuf], running: &mut Vec<Running>) -> Result<Vec<Value>, Problem> {
    let failed = |dir: &Path, why: String| {
        Problem::new(ProblemKind::Fault, "testnet.failed", format!("{}: {why}", dir.display()))
            .hint(format!("its log is {}", dir.join("log").display()))
    };
    let program = std::env::current_exe().map_err(|error| failed(&context.dir, error.to_string()))?;
    for dir in dirs {
        let log = File::create(dir.join("log")).map_err(|error| failed(dir, error.to_string()))?;
        let child = Command::new(&program)
            .args(["start", "--output", "json", "--dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| failed(dir, error.to_string()))?;
        running.push(Running { dir: dir.clone(), child });
    }
    let mut ready = Vec::new();
    for cell in running {
        let (send, line) = std::sync::mpsc::channel();
        if let Some(stdout) = cell.child.stdout.take() {
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = BufReader::new(stdout).read_line(&mut text);
                let _ = send.send(text);
            });
        }
        let text = line
            .recv_timeout(READY_MAX)
            .map_err(|_| failed(&cell.dir, "it was not ready in time".to_owned()))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if value["event"] != "ready" {
            let why = value["cause"].as_str().map_or_else(|| text.trim().to_owned(), str::to_owned);
            return Err(failed(&cell.dir, why));
        }
        ready.push(json!({
            "name": cell.dir.file_name().map(|name| name.to_string_lossy().into_owned()), "cell": value["cell"],
            "http": value["http"], "peer": value["peer"], "dir": cell.dir, "pid": cell.child.id(),
        }));
    }
    Ok(ready)
}

type Stream = tokio::signal::unix::Signal;

/// SIGTERM and SIGINT, noticed from the moment this is made.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    fn new() -> Result<Self, Problem> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed =
            |error: std::io::Error| Problem::new(ProblemKind::Fault, "testnet.failed", error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let within = runtime.enter();
        let (terminate, interrupt) = (
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::interrupt()).map_err(failed)?,
        );
        drop(within);
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Waits for a signal, or until no cell runs any more. A cell that ends by itself is told of; the
    /// others go on.
    fn wait(&mut self, running: &mut Vec<Running>) -> Result<ExitCode, Problem> {
        let Self { runtime, terminate, interrupt } = self;
        runtime.block_on(async {
            let mut look = tokio::time::interval(Duration::from_millis(500));
            while !running.is_empty() {
                tokio::select! {
                    _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                    _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
                    _ = look.tick() => running.retain_mut(still_runs),
                }
            }
            Err(Problem::new(ProblemKind::Fault, "testnet.ended", "every cell has ended by itself")
                .hint("each cell's folder has its log"))
        })
    }
}

fn still_runs(cell: &mut Running) -> bool {
    let Ok(Some(status)) = cell.child.try_wait() else { return true };
    let dir = cell.dir.display();
    let text = format!("{dir} has ended ({status}); its log is {dir}/log; again: cell start --dir {dir}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    false
}

fn stop_all(running: &mut [Running]) {
    for cell in running.iter() {
        if let Ok(pid) = i32::try_from(cell.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
    let deadline = Instant::now() + STOP_MAX;
    for cell in running {
        while matches!(cell.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if matches!(cell.child.try_wait(), Ok(None)) {
            let _ = cell.child.kill();
            let _ = cell.child.wait();
        }
    }
}
