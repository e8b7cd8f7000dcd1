//! Commands that need no running cell: they read the folder.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use protocol::{Problem, ProblemKind, Service};
use serde_json::{Value, json};

use super::Context;
use super::args::{Config, Init};
use crate::folder::{self, InitOptions, read_genesis};
use crate::network::peer_id_of;
use crate::{keys, node, settings};

/// Work that takes longer shows its progress.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);

pub(super) fn init(context: &Context, init: Init) -> Result<ExitCode, Problem> {
    let report = folder::init(InitOptions {
        dir: context.dir.clone(),
        name: init.name,
        genesis: init.network.as_deref().map(read_genesis).transpose()?,
        http_port: init.http_port,
        peer_port: init.peer_port,
        listen_everywhere: init.listen_everywhere,
        passphrase: context.passphrase()?,
        encrypt: services(&init.encrypt)?,
        seed: None,
    })?;
    context.output.value(&serde_json::to_value(report).unwrap_or_default())
}

/// Services by name; `all` of them.
fn services(names: &[String]) -> Result<Vec<Service>, Problem> {
    if names.iter().any(|name| name == "all") {
        return Ok(Service::ALL.to_vec());
    }
    names.iter().map(|name| name.parse()).collect()
}

pub(super) fn rebuild(context: &Context) -> Result<ExitCode, Problem> {
    let mut progress = Progress::new("services");
    let report = node::rebuild(&context.dir, context.passphrase()?.as_deref(), &mut |done, total| {
        progress.at(done, total)
    })?;
    let services: serde_json::Map<String, Value> = report
        .services
        .iter()
        .map(|(service, entries)| (service.name().to_owned(), json!(entries)))
        .collect();
    context.output.value(&json!({ "rebuilt": services, "root": report.root, "rejoins": report.rejoins }))
}

pub(super) fn backup(context: &Context, to: &Path) -> Result<ExitCode, Problem> {
    let mut progress = Progress::new("journals");
    let report = folder::backup(&context.dir, to, &mut |done, total| progress.at(done, total))?;
    context.output.value(&serde_json::to_value(report).unwrap_or_default())
}

pub(super) fn restore(context: &Context, from: &Path) -> Result<ExitCode, Problem> {
    let mut progress = Progress::new("entries");
    let passphrase = context.passphrase()?;
    let at = &mut |done, total| progress.at(done, total);
    let report = folder::restore(from, &context.dir, passphrase.as_deref(), at)?;
    context.output.value(&serde_json::to_value(report).unwrap_or_default())
}

/// Who the cell is, by its files alone.
pub(super) fn identity(context: &Context) -> Result<ExitCode, Problem> {
    let folder = context.folder()?;
    let cell = keys::read_public(&context.dir)?;
    let settings = settings::load(&context.dir, &[])?.settings;
    context.output.value(&json!({
        "cell": cell, "name": settings.cell.name, "peer_id": peer_id_of(&cell), "genesis": folder.genesis()?.hash(),
    }))
}

pub(super) fn config(context: &Context, command: Config) -> Result<ExitCode, Problem> {
    context.folder()?;
    let loaded = settings::load(&context.dir, &[]);
    match command {
        Config::Set { key, value } => {
            settings::set(&context.dir, &key, &value)?;
            context.output.value(&json!({ "key": key, "value": value, "takes_effect": "at the next start" }))
        }
        Config::Check => {
            loaded?;
            context.output.value(&json!({ "ok": true }))
        }
        Config::Get { key } => {
            let loaded = loaded?;
            let value =
                key.split_once('.').map(|(section, name)| loaded.settings.to_json()[section][name].clone());
            match value.filter(|value| !value.is_null()) {
                Some(value) => context
                    .output
                    .value(&json!({ "key": key, "value": value, "from": loaded.origins.get(&key) })),
                None => Err(Problem::new(
                    ProblemKind::NotFound,
                    "config.unknown_key",
                    format!("there is no setting {key:?}"),
                )
                .hint("cell config show lists them all")),
            }
        }
        Config::Show => {
            let loaded = loaded?;
            if context.output.is_json() {
                return context
                    .output
                    .value(&json!({ "settings": loaded.settings.to_json(), "from": loaded.origins }));
            }
            let settings = loaded.settings.to_json();
            let row = |(key, origin): (&String, &settings::Origin)| {
                let value = key.split_once('.').map(|(section, name)| settings[section][name].to_string());
                json!({ "key": key, "value": value, "from": origin })
            };
            let items: Vec<Value> = loaded.origins.iter().map(row).collect();
            context.output.value(&json!({ "items": items, "next": null }))
        }
    }
}

/// A progress bar on standard error, once the work takes long; none without a terminal.
pub(super) struct Progress {
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(what: &str) -> Self {
        Self { what: what.to_owned(), started: Instant::now(), bar: None }
    }

    pub(super) fn at(&mut self, done: u64, total: u64) {
        if self.bar.is_none() && self.started.elapsed() > PROGRESS_AFTER {
            let style = ProgressStyle::with_template("{msg:12} {bar:40} {pos}/{len} {eta}");
            let bar = ProgressBar::new(total).with_message(self.what.clone());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            if done == total {
                bar.finish_and_clear();
            }
        }
    }
}
