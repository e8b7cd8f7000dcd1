//! `cell journal`: a cell's journals, and its copies of others', by their files, whether it runs or not; and
//! proofs of them, which need no cell. Following another cell's journal is the running cell's work (`follow`).

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use journal::{Proof, PublicKey, Reader};
use protocol::nucleus::JournalEntry;
use protocol::{CellId, Problem, ProblemKind, Service};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::{Journal, JournalProve};
use super::client::{Client, broken_off};
use super::offline::Progress;
use super::{Context, follow, unhealthy};
use crate::actor::{describe_entry, journal_problem};
use crate::bridge;
use crate::folder::keys_of;
use crate::keys::{self, JournalKeys, Keyring};
use crate::replication::Place;

/// The most entries of one proof.
const PROOF_ENTRIES_MAX: u64 = 10_000;
/// The largest proof that is read.
const PROOF_BYTES_MAX: u64 = 1024 * 1024 * 1024;

pub(super) fn run(context: &Context, command: Journal) -> Result<ExitCode, Problem> {
    match command {
        Journal::List => {
            let items: Result<Vec<Value>, Problem> =
                lying_here(context)?.into_iter().map(|service| summary(context, service)).collect();
            context.output.value(&json!({ "items": items?, "next": null }))
        }
        Journal::Cat { name, from, limit } => cat(context, &name.parse()?, from, limit),
        Journal::Verify { proof: Some(file), key: Some(key), .. } => check(context, &file, &key),
        Journal::Verify { name: Some(name), .. } => verify(context, &[name.parse()?]),
        Journal::Verify { .. } => {
            let names: Vec<Name> = lying_here(context)?.into_iter().map(Name::own).collect();
            verify(context, &names)
        }
        Journal::Prove(asked) => prove(context, &asked),
        Journal::Export { name, folder, with_secret_key, with_encryption_key } => {
            export(context, &name.parse()?, &folder, (with_secret_key, with_encryption_key))
        }
        Journal::Follow { peer, journal, key, once } => {
            follow::follow(context, &peer, journal.parse()?, key.as_deref(), once)
        }
        Journal::Unfollow { peer, journal, delete } => {
            follow::unfollow(context, &peer, journal.parse()?, delete)
        }
        Journal::Followed => follow::followed(context),
    }
}

/// A journal of this cell, or a copy of another cell's.
struct Name {
    /// Whose, if not this cell's.
    cell: Option<CellId>,
    service: Service,
}

impl Name {
    const fn own(service: Service) -> Self {
        Self { cell: None, service }
    }
}

impl FromStr for Name {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text.rsplit_once('/') {
            Some((cell, service)) => Ok(Self { cell: Some(cell.parse()?), service: service.parse()? }),
            None => text.parse().map(Self::own),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cell {
            Some(cell) => write!(f, "{cell}/{}", self.service),
            None => write!(f, "{}", self.service),
        }
    }
}

/// The journals of this cell that lie in this folder: all six, but for a host that has joined, which has those it writes or copies.
fn lying_here(context: &Context) -> Result<Vec<Service>, Problem> {
    let (folder, is_joined) = (context.folder()?, bridge::joined(&context.dir)?.is_some());
    let lies_here = |service: &Service| {
        !is_joined || !matches!(Reader::open(&folder.journal(*service)), Err(journal::Error::NotCreated))
    };
    Ok(Service::ALL.into_iter().filter(lies_here).collect())
}

fn reader(context: &Context, name: &Name) -> Result<Reader, Problem> {
    let folder = context.folder()?;
    let path = match name.cell {
        Some(cell) => Place::new(&folder.replicas(), cell, name.service).folder().to_owned(),
        None => folder.journal(name.service),
    };
    let is_joined = bridge::joined(&context.dir)?.is_some();
    Reader::open(&path).map_err(|error| match (&error, name.cell) {
        (journal::Error::NotCreated, None) if is_joined => {
            let cause = format!("the {} journal does not lie on this host", name.service);
            Problem::new(ProblemKind::NotFound, "journal.not_here", cause)
                .hint("ask on the host that leads, where all journals lie: cell hosts")
        }
        (journal::Error::NotCreated, Some(_)) => {
            Problem::new(ProblemKind::NotFound, "replica.missing", format!("there is no copy of {name} here"))
                .hint("cell journal followed lists the copies; cell journal follow PEER JOURNAL makes one")
        }
        _ => journal_problem(name.service, &error),
    })
}

fn keyring(context: &Context) -> Result<Keyring, Problem> {
    keys::open(&context.dir, context.passphrase()?.as_deref())
}

fn summary(context: &Context, service: Service) -> Result<Value, Problem> {
    let reader = reader(context, &Name::own(service))?;
    let generation = keys::lives(&context.dir)?.last().map_or(0, |life| life.generation);
    Ok(json!({
        "name": service.name(), "entries": reader.length(), "bytes": reader.byte_length(), "fork": reader.fork(),
        "key": reader.key().to_string(), "tree_hash": hex::encode(reader.tree_hash()), "generation": generation,
        "encrypted": reader.is_encrypted(),
    }))
}

fn cat(context: &Context, name: &Name, from: u64, limit: u64) -> Result<ExitCode, Problem> {
    if name.cell.is_none() && bridge::joined(&context.dir)?.is_some() {
        return cat_of_lead(context, name.service, from, limit);
    }
    let (mut reader, service) = (reader(context, name)?, name.service);
    if reader.is_encrypted() && name.cell.is_none() {
        let folder = context.folder()?.journal(service);
        let keys = keys_of(&keyring(context)?, service, &reader);
        reader = Reader::open_with(&folder, Some(&keys.encryption_key()))
            .map_err(|error| journal_problem(service, &error))?;
    }
    let to = from.saturating_add(limit).min(reader.length());
    let mut items = Vec::new();
    for (index, bytes) in (from..to).zip(reader.range(from, to)) {
        let bytes = bytes.map_err(|error| journal_problem(service, &error))?;
        let (time_ms, epoch, record) = describe_entry(service, &bytes).map_err(|_| no_record(name, index))?;
        items.push(json!(JournalEntry { index, time_ms, epoch, bytes: bytes.len() as u64, record }));
    }
    let next = (to < reader.length()).then(|| to.to_string());
    if context.output.is_json() {
        return context.output.value(&json!({ "items": items, "next": next }));
    }
    for item in items {
        context.output.text(&item.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// A host that has joined has neither the cell's keys nor all of its journals: the host that leads reads them.
fn cat_of_lead(context: &Context, service: Service, from: u64, limit: u64) -> Result<ExitCode, Problem> {
    // One more than is shown tells whether there are more.
    let asked = [
        ("journal", service.name().to_owned()),
        ("from", from.to_string()),
        ("limit", limit.saturating_add(1).to_string()),
    ];
    let stream = BufReader::new(Client::of(context)?.stream("nucleus.journal", asked)?);
    let (mut items, mut next) = (Vec::new(), None);
    for line in stream.lines() {
        let line = line.map_err(|error| broken_off(&error))?;
        let entry: JournalEntry = serde_json::from_str(&line)
            .map_err(|error| broken_off(&std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        if entry.index - from >= limit {
            next = Some(entry.index.to_string());
        } else if context.output.is_json() {
            items.push(json!(entry));
        } else {
            context.output.text(&json!(entry).to_string());
        }
    }
    if context.output.is_json() {
        return context.output.value(&json!({ "items": items, "next": next }));
    }
    Ok(ExitCode::SUCCESS)
}

fn no_record(name: &Name, index: u64) -> Problem {
    let cause =
        format!("entry {index} of the {} journal is no record that this program can read", name.service);
    // A copy does not say whether its journal is encrypted.
    let hint = if name.cell.is_some() {
        "the journal is encrypted, or a newer program wrote it: verify, prove and export need not read it"
    } else {
        "a newer program wrote it: read it with that one"
    };
    Problem::new(ProblemKind::Invalid, "journal.no_record", cause).hint(hint)
}

fn verify(context: &Context, names: &[Name]) -> Result<ExitCode, Problem> {
    let mut items = Vec::new();
    let mut clean = true;
    for name in names {
        let mut progress = Progress::new(name.service.name());
        let checked = reader(context, name).and_then(|reader| {
            reader
                .verify(&mut |done, total| progress.at(done, total))
                .map_err(|error| journal_problem(name.service, &error))
        });
        let name = name.to_string();
        items.push(match checked {
            Ok(report) => json!({ "name": name, "ok": true, "entries": report.entries, "absent": report.absent, "bytes": report.bytes, "tree_hash": hex::encode(report.tree_hash) }),
            Err(problem) => {
                clean = false;
                json!({ "name": name, "ok": false, "code": problem.code, "cause": problem.cause, "try": problem.hint })
            }
        });
    }
    context.output.value(&json!({ "items": items, "next": null }))?;
    Ok(if clean { ExitCode::SUCCESS } else { unhealthy() })
}

fn prove(context: &Context, asked: &JournalProve) -> Result<ExitCode, Problem> {
    let name: Name = asked.name.parse()?;
    let service = name.service;
    let (first, end) = match asked.index {
        Some(first) => (first, asked.to.unwrap_or(first.saturating_add(1))),
        None => (0, 0),
    };
    if end.saturating_sub(first) > PROOF_ENTRIES_MAX {
        let cause = format!("a proof takes up to {PROOF_ENTRIES_MAX} entries");
        return Err(Problem::new(ProblemKind::Invalid, "journal.proof_too_long", cause)
            .hint("make several proofs, of a part of the range each"));
    }
    let reader = reader(context, &name)?;
    let proof =
        reader.prove_range(first, end, asked.since).map_err(|error| journal_problem(service, &error))?;
    let Some(file) = &asked.out else {
        return context.output.bare(&json!({ "journal": name.to_string(), "proof": proof }));
    };
    let bytes = proof.to_cbor();
    super::write_file(file, &bytes)?;
    context.output.value(&json!({
        "journal": name.to_string(), "file": file, "bytes": bytes.len(), "entries": proof.entries.len(),
        "length": proof.length, "key": hex::encode(proof.key),
    }))
}

fn export(
    context: &Context,
    name: &Name,
    folder: &Path,
    (with_secret_key, with_encryption_key): (bool, bool),
) -> Result<ExitCode, Problem> {
    let (reader, service) = (reader(context, name)?, name.service);
    if name.cell.is_some() && (with_secret_key || with_encryption_key) {
        let cause = format!("the keys of {name} are not here: the journal is another cell's");
        return Err(Problem::new(ProblemKind::Invalid, "journal.not_own", cause)
            .hint("export it without its keys, or on its own cell"));
    }
    if with_encryption_key && !reader.is_encrypted() {
        let cause = format!("the {service} journal is not encrypted");
        return Err(Problem::new(ProblemKind::Invalid, "journal.not_encrypted", cause)
            .hint("export it without --with-encryption-key"));
    }
    let keyring = (with_secret_key || with_encryption_key).then(|| keyring(context)).transpose()?;
    let keys = keyring.map(|keyring| keys_of(&keyring, service, &reader));
    let key_pair = keys.as_ref().filter(|_| with_secret_key).map(JournalKeys::key_pair);
    let mut progress = Progress::new(service.name());
    reader
        .export(folder, key_pair.as_ref(), &mut |done, total| progress.at(done, total))
        .map_err(|error| journal_problem(service, &error))?;
    if let Some(keys) = keys.filter(|_| with_encryption_key) {
        let key = Zeroizing::new(hex::encode(keys.encryption_key().as_bytes()));
        let path = folder.join("encryption.key");
        keys::write_new(&path, key.as_bytes()).map_err(|error| {
            let cause = format!("{} cannot be written: {error}", path.display());
            Problem::new(ProblemKind::Invalid, "cli.unwritable", cause).hint("choose another folder")
        })?;
    }
    context.output.value(&json!({
        "journal": name.to_string(), "folder": folder, "entries": reader.length(), "key": reader.key().to_string(),
        "holds_secret_key": with_secret_key, "holds_encryption_key": with_encryption_key,
    }))
}

/// Checks a proof against a key: no cell, no journal.
fn check(context: &Context, file: &str, key: &str) -> Result<ExitCode, Problem> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(key, &mut bytes).map_err(|_| {
        Problem::new(ProblemKind::Invalid, "journal.bad_key", format!("{key:?} is no journal's key"))
            .hint("give 64 hex digits; cell journal list shows the keys")
    })?;
    let bad = |cause: String| {
        Problem::new(ProblemKind::Invalid, "journal.bad_proof", format!("{file}: {cause}"))
            .hint("have it made again: cell journal prove NAME INDEX")
    };
    let proof = parse(&read(file)?).map_err(bad)?;
    let proven = proof.verify(&PublicKey::from_bytes(bytes)).map_err(|error| bad(error.to_string()))?;
    let entries: Vec<Value> = (proof.first..)
        .zip(&proof.entries)
        .map(|(index, entry)| json!({ "index": index, "bytes": entry.0.len(), "entry": hex::encode(&entry.0) }))
        .collect();
    let since = proof.since.zip(proven.tree_hash_since);
    context.output.value(&json!({
        "ok": true, "key": key, "fork": proof.fork, "length": proof.length, "bytes": proven.byte_length,
        "tree_hash": hex::encode(proven.tree_hash), "entries": entries,
        "since": since.map(|(length, hash)| json!({ "length": length, "tree_hash": hex::encode(hash) })),
    }))
}

fn read(file: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let read = if file == "-" {
        std::io::stdin().take(PROOF_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(PROOF_BYTES_MAX).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        Problem::new(ProblemKind::Invalid, "cli.unreadable", format!("{file} cannot be read: {error}"))
            .hint("give a file that cell journal prove has made, or - for standard input")
    })?;
    Ok(bytes)
}

/// A proof as JSON, alone or as `cell journal prove` prints it, or as CBOR.
fn parse(bytes: &[u8]) -> Result<Proof, String> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Proof::from_cbor(bytes).map_err(|error| error.to_string());
    }
    let mut document: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let proof = match document.get_mut("proof") {
        Some(proof) => proof.take(),
        None => document,
    };
    serde_json::from_value(proof).map_err(|error| error.to_string())
}
