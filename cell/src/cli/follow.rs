//! `cell journal follow`: the running cell keeps the copy; here its progress is shown.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use protocol::nucleus::{CopyState, CopyView};
use protocol::{CellId, Problem, ProblemKind, Service};
use serde_json::{Value, json};

use super::Context;
use super::client::Client;

/// How often the copy is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn follow(
    context: &Context,
    peer: &str,
    journal: Service,
    key: Option<&str>,
    once: bool,
) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let mut request = json!({ "who": peer, "journal": journal });
    if let Some(key) = key {
        request["key"] = json!(key);
    }
    let mut copy = read(client.call("nucleus.follow", request)?)?;
    let bar = bar(&copy);
    let mut shown = None;
    loop {
        if shown.as_ref() != Some(&copy) {
            bar.set_length(copy.length);
            bar.set_position(copy.have);
            bar.set_message(word(copy.state));
            if !once && context.output.is_json() {
                context.output.text(&json!(copy).to_string());
            }
            shown = Some(copy.clone());
        }
        match (copy.state, &copy.problem) {
            (CopyState::Following, _) if once => {
                bar.finish_and_clear();
                return context.output.value(&json!(copy));
            }
            (CopyState::Denied | CopyState::Stopped, Some(problem)) => {
                bar.abandon();
                return Err(problem.clone());
            }
            (CopyState::Ended, _) => {
                bar.finish_and_clear();
                return Ok(ExitCode::SUCCESS);
            }
            _ => std::thread::sleep(LOOK_EVERY),
        }
        copy = look(&client, copy.cell, journal)?;
    }
}

pub(super) fn unfollow(
    context: &Context,
    peer: &str,
    journal: Service,
    delete: bool,
) -> Result<ExitCode, Problem> {
    let request = json!({ "who": peer, "journal": journal, "delete": delete });
    context.output.value(&Client::of(context)?.call("nucleus.unfollow", request)?)
}

pub(super) fn followed(context: &Context) -> Result<ExitCode, Problem> {
    context.output.value(&Client::of(context)?.call("nucleus.followed", json!({}))?)
}

fn look(client: &Client, cell: CellId, journal: Service) -> Result<CopyView, Problem> {
    let Value::Array(items) = client.call("nucleus.followed", json!({}))?["items"].take() else {
        return Err(garbled());
    };
    let copies = items.into_iter().map(read).collect::<Result<Vec<CopyView>, Problem>>()?;
    let this = copies.into_iter().find(|copy| copy.cell == cell && copy.journal == journal);
    this.ok_or_else(|| {
        Problem::new(ProblemKind::NotFound, "replica.not_followed", "the journal is followed no longer")
            .hint("cell journal follow PEER JOURNAL begins anew, with what is here")
    })
}

fn read(copy: Value) -> Result<CopyView, Problem> {
    serde_json::from_value(copy).map_err(|_| garbled())
}

fn garbled() -> Problem {
    Problem::new(ProblemKind::Unreachable, "cli.garbled", "the cell's answer cannot be read")
        .hint("the running cell may be of another version: cell stop, then cell start")
}

/// Hidden where standard error is no terminal.
fn bar(copy: &CopyView) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix} {bar:30} {human_pos}/{human_len} entries {per_sec} {msg}");
    let bar = ProgressBar::new(copy.length);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_prefix(copy.journal.name());
    bar
}

const fn word(state: CopyState) -> &'static str {
    match state {
        CopyState::Opening => "opening",
        CopyState::Waiting => "waiting for a peer that has it",
        CopyState::Denied => "denied",
        CopyState::Copying => "copying",
        CopyState::Following => "up to date; Ctrl-C leaves, the cell goes on",
        CopyState::Stopped => "stopped",
        CopyState::Ended => "ended",
    }
}
