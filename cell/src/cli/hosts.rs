//! The hosts of one cell from the command line: who they are, what they run, how one becomes one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use protocol::{Problem, ProblemKind, Service as ServiceName};
use serde_json::{Value, json};

use super::args::{Host, Join, Service, Watched};
use super::client::Client;
use super::online::fields;
use super::{Context, text_argument};
use crate::bridge::{self, JoinOptions};

/// How often what is watched is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long it may take until another host leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(20);
/// How often that is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(context: &Context, command: Host) -> Result<ExitCode, Problem> {
    match command {
        Host::Invite { ttl_s, may_lead } => {
            let may_lead = may_lead.then_some(true);
            let asked = fields([("ttl_s", ttl_s.into()), ("may_lead", may_lead.into())]);
            let ticket = call(context, "nucleus.invite_host", asked)?;
            context.output.value(&ticket)
        }
        Host::Join(asked) => join(context, asked),
        Host::Drain { name, to } => drain(context, name, to),
        Host::Remove { name, force } => {
            let asked = json!({ "host": name, "force": force });
            context.output.value(&call(context, "nucleus.remove_host", asked)?)
        }
    }
}

/// Asks, and waits until another host leads, if it is the one that led.
fn drain(context: &Context, name: String, to: Option<String>) -> Result<ExitCode, Problem> {
    let asked = fields([("host", name.into()), ("to", to.into())]);
    let drained = call(context, "nucleus.drain_host", asked)?;
    if drained["hands_over"] == true {
        let (to, asked) = (&drained["to"], Instant::now());
        // While nobody leads, nobody answers.
        while !call(context, "nucleus.hosts", json!({})).is_ok_and(|hosts| leads(&hosts, to)) {
            if asked.elapsed() > HAND_OVER_MAX {
                let cause = format!("{to} does not lead yet");
                return Err(Problem::new(ProblemKind::UnknownOutcome, "nucleus.not_handed_over", cause)
                    .hint("cell hosts shows who leads"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    context.output.value(&drained)
}

fn leads(hosts: &Value, name: &Value) -> bool {
    let hosts = hosts["items"].as_array();
    hosts.is_some_and(|hosts| hosts.iter().any(|host| host["host"] == *name && host["leads"] == true))
}

pub(super) fn hosts(context: &Context, watched: &Watched) -> Result<ExitCode, Problem> {
    show(context, "nucleus.hosts", &["in_flight", "rtt_us"], watched)
}

pub(super) fn services(context: &Context, watched: &Watched) -> Result<ExitCode, Problem> {
    show(context, "nucleus.services", &["entries", "bytes"], watched)
}

/// Prints a list; where it is watched, again whenever more than these fields has changed, or nobody answers.
fn show(
    context: &Context,
    action: &str,
    changes_always: &[&str],
    watched: &Watched,
) -> Result<ExitCode, Problem> {
    let (mut shown, mut times) = (None, 0);
    loop {
        let now = match call(context, action, json!({})) {
            Err(problem) if !watched.watch || !is_away(&problem) => {
                return Err(problem);
            }
            now => now,
        };
        let seen =
            now.as_ref().map(|list| without(list, changes_always)).map_err(|problem| problem.code.clone());
        if shown.as_ref() != Some(&seen) {
            match &now {
                Ok(list) => drop(context.output.value(list)?),
                Err(problem) => context.output.problem(problem),
            }
            (shown, times) = (Some(seen), times + 1);
        }
        if !watched.watch || watched.limit.is_some_and(|limit| times >= limit) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

/// Whether it was refused because nobody answers, which passes.
fn is_away(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemKind::Unavailable | ProblemKind::Unreachable)
}

/// A list whose items lack some fields.
fn without(list: &Value, fields: &[&str]) -> Value {
    let mut list = list.clone();
    for item in list["items"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        item.retain(|field, _| !fields.contains(&field.as_str()));
    }
    list
}

pub(super) fn service(context: &Context, command: Service) -> Result<ExitCode, Problem> {
    let Service::Move { service, to } = command;
    let service: ServiceName = service.parse()?;
    context.output.value(&call(context, "nucleus.move_service", json!({ "service": service, "host": to }))?)
}

fn call(context: &Context, action: &str, params: Value) -> Result<Value, Problem> {
    Client::of(context)?.call(action, params)
}

fn join(context: &Context, asked: Join) -> Result<ExitCode, Problem> {
    let services = asked.services.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
    let options = JoinOptions {
        ticket: text_argument(&asked.ticket)?,
        dir: context.dir.clone(),
        name: asked.name,
        services,
        listen: asked.listen,
        http_port: asked.http_port,
        peer_listen: asked.peer_listen,
        passphrase: context.passphrase()?,
    };
    let report = actix_rt::System::new()
        .block_on(async move { bridge::join(options, &tokio::runtime::Handle::current()).await })?;
    context.output.value(&serde_json::to_value(report).unwrap_or_default())
}
