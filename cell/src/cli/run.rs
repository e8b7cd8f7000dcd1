//! Running and stopping the cell.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};

use protocol::{Problem, ProblemKind};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::Context;
use super::client::Client;
use super::notify::Manager;
use crate::bridge;
use crate::folder::Folder;
use crate::node::Node;
use crate::settings::{self, Log};

/// Set in the environment of a life that follows another one of the same process.
const AGAIN: &str = "CELL_AGAIN";
/// How long `stop` waits until the process is gone.
const STOP_MAX: Duration = Duration::from_secs(30);

pub(super) fn start(context: &Context, set: &[String]) -> Result<ExitCode, Problem> {
    context.folder()?;
    let flags = set.iter().map(|text| setting(text)).collect::<Result<Vec<_>, _>>()?;
    let settings = settings::load(&context.dir, &flags)?.settings;
    log(&settings.log);
    let passphrase = context.passphrase()?;
    let manager = Rc::new(Manager::of_environment());
    actix_rt::System::new().block_on(async move {
        let node = Node::start(&context.dir, settings, passphrase).await?;
        let ready = node.ready();
        if std::env::var_os(AGAIN).is_some() {
            // It was ready in its life before, and nothing follows that line.
            tracing::info!(http = ready.http, "ready again");
        } else if context.output.is_json() {
            context.output.text(&serde_json::to_string(&ready).unwrap_or_default());
        } else {
            context
                .output
                .text(&format!("ready: {}\n  http  {}\n  peer  {}", ready.cell, ready.http, ready.peer));
        }
        manager.ready();
        // On the loop that the actors turn on, until the process ends: stopping can get stuck too.
        let vouching = Rc::clone(&manager);
        actix_rt::spawn(async move { vouching.vouch().await });
        node.until_asked_to_stop().await;
        if node.host().begins_anew() {
            return Err(begin_anew(&ready.http));
        }
        manager.stopping();
        node.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Begins another life in place of this one, as the same process and at the same port: whatever this life was about to do, it does no more, and
/// what it had acknowledged is on disk. Returns only if that cannot be.
fn begin_anew(http: &str) -> Problem {
    let mut again = Command::new(std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()));
    again.args(std::env::args_os().skip(1)).env(AGAIN, "1");
    if let Some((_, port)) = http.rsplit_once(':') {
        again.env("CELL__HTTP__PORT", port);
    }
    let error = again.exec();
    Problem::new(
        ProblemKind::Fault,
        "node.not_begun_anew",
        format!("this host leads no more, and ends: {error}"),
    )
    .hint("start it again: it follows the host that leads")
}

fn setting(text: &str) -> Result<(&str, String), Problem> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        let cause = format!("{text:?} is not KEY=VALUE");
        Problem::new(ProblemKind::Invalid, "config.bad_value", cause).hint("one looks like http.port=0")
    })?;
    Ok((key, value.to_owned()))
}

/// Logs go to standard error; `RUST_LOG` goes before the setting.
fn log(settings: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&settings.filter))
        .unwrap_or_default();
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A log that cannot be written (its disk is full) must not end the cell.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .log_internal_errors(false);
    let _ = if settings.format == "json" { builder.json().try_init() } else { builder.try_init() };
}

pub(super) fn stop(context: &Context) -> Result<ExitCode, Problem> {
    let folder = context.folder()?;
    if bridge::joined(&context.dir)?.is_some() || bridge::has_voted(&context.dir) {
        // This host alone, not the cell.
        terminate(&folder)?;
    } else {
        Client::of(context)?.call("nucleus.shutdown", json!({}))?;
    }
    let started = Instant::now();
    while folder.is_running() {
        if started.elapsed() > STOP_MAX {
            let cause = format!("the cell did not stop within {} s", STOP_MAX.as_secs());
            return Err(Problem::new(ProblemKind::UnknownOutcome, "cli.still_running", cause)
                .hint("its log says what it waits for; kill -9 loses nothing that was acknowledged"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    context.output.value(&json!({ "stopped": true }))
}

/// Asks the process of a folder to end, as a service manager would.
fn terminate(folder: &Folder) -> Result<(), Problem> {
    use nix::sys::signal::{Signal, kill};
    folder.run_http()?;
    let Some(pid) = folder.run_pid() else { return Ok(()) };
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| {
        Problem::new(ProblemKind::Denied, "cli.not_yours", format!("process {pid} cannot be ended: {error}"))
            .hint("stop it as the user who started it")
    })
}
