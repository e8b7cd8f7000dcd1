//! The hosts of one cell from the command line: who they are, what they run, how one becomes one.

use std::process::ExitCode;

use protocol::{Problem, Service as ServiceName};
use serde_json::{Value, json};

use super::args::{Host, Join, Service};
use super::client::Client;
use super::online::fields;
use super::{Context, text_argument};
use crate::bridge::{self, JoinOptions};

pub(super) fn run(context: &Context, command: Host) -> Result<ExitCode, Problem> {
    match command {
        Host::Invite { ttl_s, may_lead } => {
            let may_lead = may_lead.then_some(true);
            let asked = fields([("ttl_s", ttl_s.into()), ("may_lead", may_lead.into())]);
            let ticket = call(context, "nucleus.invite_host", asked)?;
            context.output.value(&ticket)
        }
        Host::Join(asked) => join(context, asked),
        Host::Remove { name, force } => {
            let asked = json!({ "host": name, "force": force });
            context.output.value(&call(context, "nucleus.remove_host", asked)?)
        }
    }
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
