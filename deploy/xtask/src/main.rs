//! `cargo xtask`: the two commands of the README, and what helps around them.
//!
//! - `up [--cells N] [--once]`: builds, makes a local network, starts it, sends one message of each
//!   type, shows what happened, stays up. `--once` ends after the show.
//! - `test`: formatting, lints, docs, all tests. What continuous integration runs.
//! - `bench [bus] [messages] [cells] [journal] [peers]`: the measured tables of `docs/benchmarks.md`; `peers` is the
//!   journal beside the JavaScript and Rust packages.
//! - `verify`: the quick half of `test` (formatting and lints); `fix`: repairs what can be repaired.
//! - `campaign`: the crash test with many more kills.
//!
//! Everything is built with the one profile `release`: see Cargo.toml.

// A program for a terminal: what it shows goes to standard output.
#![allow(clippy::print_stdout)]

mod machine;
mod tour;

use std::process::{Command, ExitCode};

type Done = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done =
        match arguments.first().map(String::as_str) {
            Some("up") => machine::prepare().and_then(|()| tour::up(rest)),
            Some("test") => machine::prepare_tests().and_then(|()| test()),
            Some("bench") => prepare_bench(rest).and_then(|()| bench(rest)),
            Some("verify") => machine::prepare().and_then(|()| verify()),
            Some("fix") => fix(),
            Some("campaign") => machine::prepare().and_then(|()| campaign()),
            _ => Err("usage: cargo xtask up [--cells N] [--once] | test | bench | verify | fix | campaign"
                .to_owned()),
        };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn verify() -> Done {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
}

fn test() -> Done {
    verify()?;
    run(Command::new("cargo")
        .args(["doc", "--release", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    // The programs that the tests start, with the features that the tests are built with: built apart,
    // half of the dependencies would be compiled twice.
    cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?;
    cargo(&["test", "--release", "--workspace", "--locked"])
}

/// The benches of the journal, which are started on their own; `peers` runs JavaScript.
const JOURNAL_BENCHES: [&str; 2] = ["journal", PEERS];
const PEERS: &str = "peers";

fn prepare_bench(rest: &[String]) -> Done {
    if rest.is_empty() || rest.iter().any(|part| part == PEERS) {
        machine::prepare_tests()
    } else {
        machine::prepare()
    }
}

fn bench(rest: &[String]) -> Done {
    let whole = rest.is_empty();
    for part in JOURNAL_BENCHES {
        if whole || rest.iter().any(|asked| asked == part) {
            cargo(&["bench", "--locked", "-p", "journal", "--bench", part])?;
        }
    }
    let rest: Vec<&String> = rest.iter().filter(|part| !JOURNAL_BENCHES.contains(&part.as_str())).collect();
    if rest.is_empty() && !whole {
        return Ok(());
    }
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--locked", "-p", "celluler-tests", "--bin", "bench", "--"]).args(rest);
    run(&mut command)
}

fn campaign() -> Done {
    run(Command::new("cargo")
        .args([
            "test",
            "--release",
            "--locked",
            "-p",
            "celluler-tests",
            "--test",
            "crash",
            "--",
            "--nocapture",
        ])
        .env("CRASH_KILLS", "400"))
}

fn fix() -> Done {
    cargo(&["fmt", "--all"])?;
    cargo(&[
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ])
}

fn cargo(arguments: &[&str]) -> Done {
    run(Command::new("cargo").args(arguments))
}

/// Runs a command, says which, and fails as it does.
fn run(command: &mut Command) -> Done {
    eprintln!("xtask: {command:?}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} could not be run: {error}")),
    }
}
