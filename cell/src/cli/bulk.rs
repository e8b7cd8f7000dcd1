//! Submitting many transactions that were signed elsewhere: a line each, a thousand a call.
//!
//! What the cell has no room for is submitted again, with those behind it, until it has: nonces of a sender have to rise, so none may
//! overtake an earlier one.

use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::time::Duration;

use protocol::consensus::{SUBMIT_ALL_MAX, Submitted, SubmittedAll};
use protocol::transaction::Transaction;
use protocol::{Problem, ProblemKind};
use serde_json::json;

use super::client::Client;
use super::online::fields;
use super::{Context, unreadable};

/// Bytes of the transactions of one call, as text; within what a cell takes unless its settings say less.
const CALL_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The pause before a cell that is busy is asked again, and how often.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// See [`BUSY_PAUSE`].
const TRIES_MAX: usize = 200;

pub(super) fn submit(
    context: &Context,
    file: &str,
    wait: Option<&str>,
    wait_ms: Option<u64>,
) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let input: Box<dyn BufRead> = if file == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let path = std::path::Path::new(file);
        Box::new(BufReader::new(std::fs::File::open(path).map_err(|error| unreadable(path, &error))?))
    };
    let mut lines = input.lines().zip(1u64..).peekable();
    let mut items: Vec<Submitted> = Vec::new();
    while lines.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < SUBMIT_ALL_MAX
            && bytes < CALL_BYTES_MAX
            && let Some((line, number)) = lines.next()
        {
            let line = line.map_err(|error| unreadable(std::path::Path::new(file), &error))?;
            bytes += line.len();
            if !line.trim().is_empty() {
                batch.push(read(&line, file, number)?);
            }
        }
        let mut tries = 0;
        while !batch.is_empty() {
            let what = [("transactions", json!(batch)), ("wait", wait.into()), ("wait_ms", wait_ms.into())];
            let answer = client.call("consensus.submit_all", fields(what))?;
            let all: SubmittedAll = serde_json::from_value(answer).map_err(|error| unexpected(&error))?;
            let is_busy = |item: &Submitted| {
                item.status.is_none()
                    && item.problem.as_ref().is_some_and(|problem| problem.code == "consensus.busy")
            };
            let done = all.items.iter().position(is_busy).unwrap_or(all.items.len());
            tries = if done == 0 { tries + 1 } else { 0 };
            let done = if tries < TRIES_MAX { done } else { all.items.len() };
            batch.drain(..done);
            items.extend(all.items.into_iter().take(done));
            if !batch.is_empty() {
                std::thread::sleep(BUSY_PAUSE);
            }
        }
    }
    let is_well = items.iter().all(|item| item.problem.is_none());
    context.output.value(&json!({ "items": items }))?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn read(line: &str, file: &str, number: u64) -> Result<Transaction, Problem> {
    serde_json::from_str(line).map_err(|error| {
        let cause = format!("line {number} of {file} is no transaction: {error}");
        Problem::new(ProblemKind::Invalid, "consensus.bad_transaction", cause)
            .hint("each line is what cell tx sign --output json prints; lines before it were submitted")
    })
}

fn unexpected(error: &serde_json::Error) -> Problem {
    Problem::new(
        ProblemKind::Unreachable,
        "cli.garbled",
        format!("the cell's answer cannot be read: {error}"),
    )
    .hint("is it a cell of another version?")
}
