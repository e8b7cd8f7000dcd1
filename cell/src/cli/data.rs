//! The data of data sets: added, listed and removed in the folder itself, beside a running cell or without one; fetched by the running
//! one.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use protocol::{Hash, Problem, ProblemKind};
use serde_json::{Value, json};

use super::args::Data;
use super::client::{Client, broken_off};
use super::online::fields;
use super::{Context, unreadable};
use crate::bridge;
use crate::data::{Kept, Store};
use crate::settings;

/// Bytes that are copied at once.
const COPY_BYTES: usize = 128 * 1024;

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
            let fetch = || {
                let what =
                    [("hash", hash.to_string().into()), ("from", from.into()), ("wait_ms", wait_ms.into())];
                Client::of(context)?.call("state.fetch", fields(what))
            };
            // What lies here needs no running cell.
            let mut answer = match store.find(&hash)? {
                Some(kept) => json!({ "hash": kept.hash, "size": kept.size, "from": [] }),
                None if bridge::joined(&context.dir)?.is_some() => {
                    return get_of_lead(context, &hash, out, fetch);
                }
                None => fetch()?,
            };
            if let Some(out) = out {
                write(&hash, &out, |to| store.copy(&hash, to))?;
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

/// A host that has joined keeps no data: it comes from the host that leads, which fetches it if it has to.
fn get_of_lead(
    context: &Context,
    hash: &Hash,
    out: Option<PathBuf>,
    fetch: impl FnOnce() -> Result<Value, Problem>,
) -> Result<ExitCode, Problem> {
    let Some(out) = out else { return context.output.value(&fetch()?) };
    let client = Client::of(context)?;
    let open = || client.stream("state.data", [("hash", hash.to_string())]);
    let mut from = json!([]);
    let stream = match open() {
        Err(problem) if problem.code == "data.not_here" => {
            from = fetch()?["from"].take();
            open()?
        }
        opened => opened?,
    };
    let size = write(hash, &out, |to| copy(hash, stream, to))?;
    context.output.value(&json!({ "hash": hash, "size": size, "from": from, "file": out }))
}

/// Writes data out; the file has its name once it is whole.
fn write(
    hash: &Hash,
    out: &Path,
    copy: impl FnOnce(&mut dyn Write) -> Result<u64, Problem>,
) -> Result<u64, Problem> {
    if out.as_os_str() == "-" {
        return copy(&mut std::io::stdout().lock());
    }
    let draft = out.with_file_name(format!(".{hash}.part"));
    let mut file = File::create(&draft).map_err(|error| unreadable(&draft, &error))?;
    let copied = copy(&mut file).and_then(|size| {
        let whole = file.flush().and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&draft, out));
        whole.map(|()| size).map_err(|error| unreadable(out, &error))
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    copied
}

/// Copies what comes, and checks that it is what was asked for.
fn copy(hash: &Hash, mut from: impl Read, to: &mut dyn Write) -> Result<u64, Problem> {
    let (mut hasher, mut bytes, mut size) = (blake3::Hasher::new(), vec![0; COPY_BYTES], 0);
    loop {
        let read = from.read(&mut bytes).map_err(|error| broken_off(&error))?;
        if read == 0 {
            break;
        }
        hasher.update(&bytes[..read]);
        to.write_all(&bytes[..read]).map_err(|error| broken_off(&error))?;
        size += read as u64;
    }
    if hasher.finalize().as_bytes() == hash.as_bytes() {
        return Ok(size);
    }
    let cause = format!("what came is not {hash}");
    Err(Problem::new(ProblemKind::Fault, "data.damaged", cause).hint("ask again"))
}
