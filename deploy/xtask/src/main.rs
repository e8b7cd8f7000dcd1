//! `cargo xtask`: the two commands of the README, and what helps around them.
//!
//! - `up [--cells N] [--once]`: builds, makes a local network, starts it, sends one message of each
//!   type, shows what happened, stays up. `--once` ends after the show.
//! - `test`: formatting, lints, docs, all tests. What continuous integration runs.
//! - `deploy`: the part of `test` that looks at `deploy/`, alone.
//! - `bench [bus] [hosts] [messages] [cells] [journal] [peers] [hashgraph] [beacon] [consensus] [transfers]`: the measured tables of `docs/benchmarks.md`;
//!   `peers` is the journal beside the JavaScript and Rust packages, `hosts` one cell over two hosts beside Moleculer.
//! - `verify`: the quick half of `test` (formatting and lints); `fix`: repairs what can be repaired.
//! - `campaign`: the crash test with many more kills. `campaign fuzz [SECONDS]`: the fuzz targets of the
//!   journal, guided by coverage, each for so long (300 unless told); needs cargo-fuzz and a nightly toolchain.
//!   `campaign partitions`: the last part of `test` alone, seven cells in network namespaces; needs root.
//!   `campaign hosts`: the end-to-end suites with every cell split over two processes, and over six.
//!   `campaign linearizable [SECONDS]`: one cell over three hosts that are cut off, frozen and killed, for so long (600 unless told); needs root.
//!   `campaign upgrade PROGRAM`: hosts are upgraded one at a time from the program `cell` of another build to this one.
//!   `campaign sim [SEEDS]`: more seeds of the simulated network (1000 unless told).
//!
//! Everything is built with the one profile `release`: see Cargo.toml.

// A program for a terminal: what it shows goes to standard output.
#![allow(clippy::print_stdout)]

mod deploy;
mod machine;
mod tour;

use std::process::{Command, ExitCode};

type Done = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("up") => machine::prepare().and_then(|()| tour::up(rest)),
        Some("test") => machine::prepare_tests().and_then(|()| test()),
        Some("deploy") => machine::prepare_tests()
            .and_then(|()| cargo(&["build", "--release", "--locked", "-p", "cell"]))
            .and_then(|()| deploy::check(tour::built()?)),
        Some("bench") => prepare_bench(rest).and_then(|()| bench(rest)),
        Some("verify") => machine::prepare().and_then(|()| verify()),
        Some("fix") => fix(),
        Some("campaign") => match rest.first().map(String::as_str) {
            Some("fuzz") => fuzz(rest.get(1).map_or("300", String::as_str)),
            Some("partitions") => with_programs(partitions),
            Some("linearizable") => with_programs(|| linearizable(rest.get(1).map_or("600", String::as_str))),
            Some("hosts") => with_programs(|| split("2", &SUITES).and_then(|()| split("6", &SUITES))),
            Some("upgrade") => {
                let from = rest.get(1).ok_or("usage: cargo xtask campaign upgrade PROGRAM".to_owned());
                from.and_then(|from| with_programs(|| upgrade(from)))
            }
            Some("sim") => simulate(rest.get(1).map_or("1000", String::as_str)),
            _ => machine::prepare().and_then(|()| campaign()),
        },
        _ => Err("usage: cargo xtask up [--cells N] [--once] | test | deploy | bench | verify | fix \
                      | campaign [fuzz [SECONDS] | sim [SEEDS] | linearizable [SECONDS] | partitions | hosts \
                      | upgrade PROGRAM]"
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
    deploy::check(tour::built()?)?;
    cargo(&["test", "--release", "--workspace", "--locked"])?;
    split("2", &SUITES)?;
    split("6", &SUITES[..SUITES_ON_SIX])?;
    bad_days()?;
    partitions()
}

/// The suites that run as they are with cells of several processes. The first ones on six in every `test`; all of them in `campaign hosts`.
const SUITES: [&str; 11] =
    ["cells", "network", "data", "follow", "http", "cli", "fees", "bad_days", "restore", "crash", "members"];
const SUITES_ON_SIX: usize = 5;

/// Runs suites with every cell split over so many processes.
fn split(hosts: &str, suites: &[&str]) -> Done {
    println!("xtask: {suites:?}, with every cell split over {hosts} processes");
    run(end_to_end(suites).env("CELLULER_HOSTS", hosts))
}

/// The tests of some suites, with the features that the programs were built with.
fn end_to_end(suites: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["test", "--release", "--locked", "--workspace"]);
    command.args(suites.iter().flat_map(|suite| ["--test", *suite]));
    command
}

/// Benches of single crates, which are started on their own: which of which.
const CRATE_BENCHES: [(&str, &str); 4] =
    [("journal", "journal"), (PEERS, "journal"), ("hashgraph", "consensus"), ("beacon", "consensus")];
const PEERS: &str = "peers";
/// Parts that run JavaScript.
const WITH_JAVASCRIPT: [&str; 2] = [PEERS, "hosts"];

fn prepare_bench(rest: &[String]) -> Done {
    if rest.is_empty() || rest.iter().any(|part| WITH_JAVASCRIPT.contains(&part.as_str())) {
        machine::prepare_tests()
    } else {
        machine::prepare()
    }
}

fn bench(rest: &[String]) -> Done {
    let whole = rest.is_empty();
    for (part, package) in CRATE_BENCHES {
        if whole || rest.iter().any(|asked| asked == part) {
            cargo(&["bench", "--locked", "-p", package, "--bench", part])?;
        }
    }
    let rest: Vec<&String> =
        rest.iter().filter(|asked| CRATE_BENCHES.iter().all(|(part, _)| asked != part)).collect();
    if rest.is_empty() && !whole {
        return Ok(());
    }
    // Parts start the program itself.
    cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?;
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--locked", "-p", "bench", "--"]).args(rest);
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

/// Builds the programs that tests start, and runs them.
fn with_programs(tests: impl FnOnce() -> Done) -> Done {
    machine::prepare_tests()?;
    cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?;
    tests()
}

/// Runs seven cells in network namespaces, one test at a time and with nothing beside it.
fn partitions() -> Done {
    run(end_to_end(&["partitions"]).args(["--", "--nocapture", "--test-threads=1"]))
}

/// Runs the hosts of one cell in network namespaces: mostly they wait, so all tests at once, and those that look at times take turns by themselves.
fn bad_days() -> Done {
    run(end_to_end(&["hosts_bad_days", "linearizable"]).args(["--", "--nocapture", "--test-threads=6"]))
}

/// Troubles the hosts of one cell for so long, and looks whether what clients saw is linearizable.
fn linearizable(seconds: &str) -> Done {
    run(end_to_end(&["linearizable"]).args(["--", "--nocapture"]).env("LINEARIZABLE_SECONDS", seconds))
}

/// Upgrades hosts from another build's program to this one's.
fn upgrade(from: &str) -> Done {
    let program = std::fs::canonicalize(from).map_err(|error| format!("{from}: {error}"))?;
    run(end_to_end(&["hosts_upgrade"]).args(["--", "--nocapture"]).env("CELLULER_OLDER", program))
}

/// Runs so many seeds of the simulated network.
fn simulate(seeds: &str) -> Done {
    run(Command::new("cargo")
        .args(["test", "--release", "--locked", "-p", "sim", "--", "--nocapture"])
        .env("SIM_SEEDS", seeds))
}

/// The fuzz targets of `journal/fuzz`.
const FUZZ_TARGETS: [&str; 3] = ["open", "proof", "frames"];

/// Runs each fuzz target for some seconds. New inputs go to the target folder, not to the corpus that is
/// committed: add by hand those that are worth it.
fn fuzz(seconds: &str) -> Done {
    let seconds: u32 = seconds.parse().map_err(|_| format!("{seconds} is no count of seconds"))?;
    let there = |program: &mut Command| program.output().is_ok_and(|output| output.status.success());
    if !there(Command::new("cargo").args(["fuzz", "--version"])) {
        return Err("cargo-fuzz is not there: cargo install cargo-fuzz --locked".to_owned());
    }
    if !there(Command::new("cargo").args(["+nightly", "--version"])) {
        return Err("there is no nightly toolchain: rustup toolchain install nightly".to_owned());
    }
    for target in FUZZ_TARGETS {
        let found = format!("target/fuzz-found/{target}");
        std::fs::create_dir_all(&found).map_err(|error| format!("{found}: {error}"))?;
        run(Command::new("cargo")
            .args(["+nightly", "fuzz", "run", "--fuzz-dir", "journal/fuzz", target, &found])
            .arg(format!("journal/fuzz/corpus/{target}"))
            .args(["--", "-rss_limit_mb=512", "-malloc_limit_mb=256", "-timeout=10", "-max_len=16384"])
            .arg(format!("-max_total_time={seconds}")))?;
    }
    Ok(())
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
