//! The hosts of one cell from the command line: who they are, what they run, how one becomes one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use protocol::{Problem, ProblemKind, Service as ServiceName};
use serde_json::{Value, json};

use super::args::{Host, Join, Service};
use super::client::Client;
use super::online::fields;
use super::{Context, text_argument};
use crate::bridge::{self, JoinOptions};

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

pub(super) fn hosts(context: &Context) -> Result<ExitCode, Problem> {
    context.output.value(&call(context, "nucleus.hosts", json!({}))?)
}

pub(super) fn services(context: &Context) -> Result<ExitCode, Problem> {
    context.output.value(&call(context, "nucleus.services", json!({}))?)
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
