//! The data of data sets: added, listed and removed in the folder itself, beside a running cell or without one; fetched by the running
//! one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use protocol::{Hash, Problem};
use serde_json::{Value, json};

use super::args::Data;
use super::client::Client;
use super::online::fields;
use super::{Context, unreadable};
use crate::data::{Kept, Store};
use crate::settings;

pub(super) fn run(context: &Context, command: Data) -> Result<ExitCode, Problem> {
    let folder = context.folder()?;
    let settings = settings::load(&context.dir, &[])?.settings;
    let store = Store::new(folder.data(), settings.data.bytes_max);
    match command {
        Data::Add { file, tags, register } => add(context, &store, &file, &tags, register),
        Data::List => {
            let items: Vec<Value> = store.list()?.iter().map(shown).collect();
            context.output.value(&json!({ "items": items, "next": null }))
        }
        Data::Remove { hash } => context.output.value(&shown(&store.remove(&hash.parse()?)?)),
        Data::Get { hash, out, from, wait_ms } => {
            let hash: Hash = hash.parse()?;
            let what =
                [("hash", hash.to_string().into()), ("from", from.into()), ("wait_ms", wait_ms.into())];
            // What lies here needs no running cell.
            let mut answer = match store.find(&hash)? {
                Some(kept) => json!({ "hash": kept.hash, "size": kept.size, "from": [] }),
                None => Client::of(context)?.call("state.fetch", fields(what))?,
            };
            if let Some(out) = out {
                copy(&store, &hash, &out)?;
                answer["file"] = json!(out);
            }
            context.output.value(&answer)
        }
    }
}

fn add(
    context: &Context,
    store: &Store,
    file: &str,
    tags: &[String],
    register: bool,
) -> Result<ExitCode, Problem> {
    let kept = match file {
        "-" => store.add(std::io::stdin().lock())?,
        file => {
            let path = Path::new(file);
            store.add(File::open(path).map_err(|error| unreadable(path, &error))?)?
        }
    };
    let mut answer = shown(&kept);
    if register {
        let args = json!({ "hash": kept.hash, "size": kept.size, "tags": tags });
        let intent = json!({ "module": "dataset", "call": "register", "args": args });
        let submitted = Client::of(context)?
            .call("consensus.submit", json!({ "intent": intent, "wait": "finalised" }))?;
        for name in ["id", "status", "block", "problem"] {
            if !submitted[name].is_null() {
                answer[name] = submitted[name].clone();
            }
        }
    }
    let is_rejected = answer["status"] == "rejected";
    context.output.value(&answer)?;
    Ok(if is_rejected { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn shown(kept: &Kept) -> Value {
    json!({ "hash": kept.hash, "size": kept.size })
}

/// Writes data out, checked on the way; the file has its name once it is whole.
fn copy(store: &Store, hash: &Hash, out: &PathBuf) -> Result<(), Problem> {
    if out.as_os_str() == "-" {
        return store.copy(hash, &mut std::io::stdout().lock()).map(|_| ());
    }
    let draft = out.with_file_name(format!(".{hash}.part"));
    let mut file = File::create(&draft).map_err(|error| unreadable(&draft, &error))?;
    let copied = store.copy(hash, &mut file).and_then(|_| {
        let whole = file.flush().and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&draft, out));
        whole.map_err(|error| unreadable(out, &error))
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    copied
}
