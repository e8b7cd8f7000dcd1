//! Looking for what is wrong: each check says what it found, and what to do.

use std::process::ExitCode;

use protocol::{Problem, Service};
use serde_json::{Value, json};

use super::client::Client;
use super::{Context, unhealthy};
use crate::actor::{journal_problem, now_ms};
use crate::{keys, settings};

/// Less free space than this is told.
const FREE_BYTES_MIN: u64 = 512 * 1024 * 1024;
/// A clock before this (2025-01-01) is wrong.
const TIME_MS_MIN: u64 = 1_735_689_600_000;

pub(super) fn doctor(context: &Context) -> Result<ExitCode, Problem> {
    let folder = context.folder()?;
    let mut checks = Vec::new();
    let mut check = |name: &str, result: Result<String, Problem>| {
        checks.push(match result {
            Ok(found) => json!({ "check": name, "ok": true, "found": found, "try": null }),
            Err(problem) => json!({ "check": name, "ok": false, "found": format!("{} ({})", problem.cause, problem.code), "try": problem.hint }),
        });
    };
    check("key", keys::read_public(&context.dir).map(|cell| cell.to_string()));
    check(
        "genesis",
        folder.genesis().map(|genesis| format!("{} with {} members", genesis.hash(), genesis.members.len())),
    );
    check(
        "settings",
        settings::load(&context.dir, &[]).map(|_| "cell.toml and the environment are fine".to_owned()),
    );
    for service in Service::ALL {
        let opened =
            journal::Reader::open(&folder.journal(service)).map_err(|error| journal_problem(service, &error));
        check(&format!("journal {service}"), opened.map(|reader| format!("{} entries", reader.length())));
    }
    check("disk", free_space(&context.dir));
    check("clock", clock());
    if folder.is_running() {
        let status = Client::of(context).and_then(|client| client.call("nucleus.status", json!({})));
        check("running", status.and_then(|status| readiness(&status)));
    } else {
        check("running", Ok("the cell does not run; cell start starts it".to_owned()));
    }
    let well = checks.iter().all(|check| check["ok"] == true);
    context.output.value(&json!({ "items": checks, "next": null }))?;
    Ok(if well { ExitCode::SUCCESS } else { unhealthy() })
}

fn unwell(code: &'static str, cause: String, hint: &'static str) -> Problem {
    Problem::new(protocol::ProblemKind::Unavailable, code, cause).hint(hint)
}

fn readiness(status: &Value) -> Result<String, Problem> {
    let state = status["readiness"]["state"].as_str().unwrap_or("unknown");
    if state == "synced" {
        return Ok(format!("{state}, {} peers connected", status["peers_connected"]));
    }
    Err(unwell(
        "doctor.not_ready",
        format!("the cell is {state}: {}", status["readiness"]),
        "its log tells more; cell stop and cell start begin anew",
    ))
}

fn free_space(dir: &std::path::Path) -> Result<String, Problem> {
    let space = nix::sys::statvfs::statvfs(dir)
        .map_err(|error| unwell("doctor.no_disk", error.to_string(), "check the folder"))?;
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    let shown = format!("{} MiB free", free / (1024 * 1024));
    if free < FREE_BYTES_MIN {
        return Err(unwell("doctor.disk_full", shown, "make room: a cell that cannot write stops writing"));
    }
    Ok(shown)
}

fn clock() -> Result<String, Problem> {
    let now = now_ms();
    if now < TIME_MS_MIN {
        return Err(unwell(
            "doctor.clock",
            "the clock is years behind".to_owned(),
            "set the system's clock: others refuse messages from the past",
        ));
    }
    Ok(format!("{now} ms since 1970"))
}
