//! A backup of a cell, and the cell restored from one.
//!
//! A backup is a folder: the cell's key, settings, network and first token, and a copy of each journal, made in an order in which a later one may
//! know more than an earlier one and never less. A running cell may be backed up. Views are not in it, they are folded anew; nor are copies of
//! others' journals and the data of data sets, which come again from where they are.
//!
//! Rules (DESIGN §9, rule 4):
//!
//! - What a cell signed after its backup was made is not in it. So a restored cell begins another [`Life`]: its journals are new ones under new keys,
//!   which take over every entry, and Nucleus records where the old ones ended.
//! - As a member it signs nothing until an ordered transaction has rotated its key to that of the new life: until then it follows
//!   (`cell consensus rotate`, ADR 0021).
//! - A journal is checked whole before anything of it is taken over, and has to end where the backup says.

use std::fs;
use std::path::{Path, PathBuf};

use journal::Reader;
use protocol::nucleus::{JournalHead, JournalKey, Request, RestoredRequest};
use protocol::{CellId, Hash, Problem, ProblemKind, Service};
use serde::{Deserialize, Serialize};

use super::resign::sign_anew;
use super::{Folder, fresh, keys_of, keys_write, put_together, sync_folder, unwritable, write};
use crate::actor::{journal_problem, now_ms};
use crate::keys::{self, Keyring, Life};
use crate::offline::Offline;
use crate::settings;

/// What the backup tells of itself.
const FILE: &str = "backup.json";
const VERSION: u32 = 1;
/// Who knows of whom: a journal stands behind those that it may learn from.
const ORDER: [Service; 6] = [
    Service::Nucleus,
    Service::Identity,
    Service::Message,
    Service::Market,
    Service::State,
    Service::Consensus,
];

/// The content of `backup.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    version: u32,
    cell: CellId,
    made_ms: u64,
    heads: Vec<JournalHead>,
}

/// What was backed up.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// The cell.
    pub cell: CellId,
    /// Where the backup lies.
    pub backup: PathBuf,
    /// Entries of all journals.
    pub entries: u64,
}

/// What was restored.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// The cell.
    pub cell: CellId,
    /// Its folder.
    pub dir: PathBuf,
    /// Which life begins: 1 with the first restore.
    pub generation: u32,
    /// Entries of all journals that were taken over.
    pub entries: u64,
    /// When the backup was made, in milliseconds since 1970 (UTC).
    pub made_ms: u64,
}

/// Backs a cell up into a folder that is not there yet; it may run meanwhile.
///
/// # Errors
///
/// `folder.exists`, `folder.not_empty`, `folder.unwritable`, `journal.…`.
pub fn backup(dir: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<BackupReport, Problem> {
    let folder = Folder::open(dir)?;
    let cell = keys::read_public(dir)?;
    let to = fresh(to)?;
    let heads = put_together(&to, |draft| {
        fs::create_dir_all(draft.join("journals")).map_err(|error| unwritable(draft, &error))?;
        copy_files(dir, draft)?;
        let mut heads = Vec::with_capacity(ORDER.len());
        for (done, service) in (0..).zip(ORDER) {
            progress(done, ORDER.len() as u64);
            let problem = |error: &journal::Error| journal_problem(service, error);
            let copy = draft.join("journals").join(service.name());
            let reader = Reader::open(&folder.journal(service)).map_err(|error| problem(&error))?;
            reader.export(&copy, None, &mut |_, _| {}).map_err(|error| problem(&error))?;
            heads.push(head_of(service, &Reader::open(&copy).map_err(|error| problem(&error))?));
        }
        progress(ORDER.len() as u64, ORDER.len() as u64);
        let about = About { version: VERSION, cell, made_ms: now_ms(), heads: heads.clone() };
        write(&draft.join(FILE), serde_json::to_string_pretty(&about).unwrap_or_default().as_bytes())?;
        sync_folder(&draft.join("journals"))?;
        sync_folder(draft)?;
        Ok(heads)
    })?;
    Ok(BackupReport { cell, backup: to, entries: heads.iter().map(|head| head.length).sum() })
}

/// Restores a cell from a backup into a folder that is new or empty, as another life of it.
///
/// # Errors
///
/// `backup.missing`, `backup.damaged`, `folder.exists`, `folder.not_empty`, `keys.…`, `journal.…`; nothing is left behind.
pub fn restore(
    from: &Path,
    dir: &Path,
    passphrase: Option<&str>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoreReport, Problem> {
    let dir = fresh(dir)?;
    let about = read(from)?;
    let before = keys::open(from, passphrase)?;
    if before.cell() != about.cell {
        return Err(damaged("its key is another cell's"));
    }
    let total: u64 = about.heads.iter().map(|head| head.length).sum();
    let life = Life::after(before.lives(), now_ms())?;
    let generation = life.generation;
    put_together(&dir, |draft| {
        fs::create_dir_all(draft.join("journals")).map_err(|error| unwritable(draft, &error))?;
        copy_files(from, draft)?;
        let lives: Vec<Life> = before.lives().iter().cloned().chain([life]).collect();
        let _ = fs::remove_file(draft.join("lives.json"));
        keys::write_lives(draft, &lives).map_err(|error| unwritable(draft, &error))?;
        let keyring = keys::open(draft, passphrase)?;
        let mut done = 0;
        let mut journals = Vec::with_capacity(ORDER.len());
        for service in Service::ALL {
            let head = about.heads.iter().find(|head| head.service == service);
            let head = head.ok_or_else(|| damaged("a journal is missing"))?;
            let folders = [from, draft].map(|dir| dir.join("journals").join(service.name()));
            let key = take_over(service, &folders, head, (&before, &keyring), &mut |count| {
                done += count;
                progress(done, total);
            })?;
            journals.push(JournalKey { service, key, generation });
        }
        let mut nucleus = Offline::open(nucleus::NucleusMachine, draft, &keyring)?;
        let heads = about.heads.clone();
        nucleus.ask(Request::Restored(RestoredRequest { generation, journals, heads }))?;
        nucleus.close()?;
        sync_folder(&draft.join("journals"))?;
        sync_folder(draft)
    })?;
    Ok(RestoreReport { cell: about.cell, dir, generation, entries: total, made_ms: about.made_ms })
}

/// A journal under a new key, with all entries of another; the key.
fn take_over(
    service: Service,
    [from, to]: &[PathBuf; 2],
    head: &JournalHead,
    (before, now): (&Keyring, &Keyring),
    progress: &mut dyn FnMut(u64),
) -> Result<Hash, Problem> {
    let problem = |error: journal::Error| journal_problem(service, &error);
    let keys = keys_of(before, service, &Reader::open(from).map_err(problem)?);
    let reader = Reader::open_with(from, Some(&keys.encryption_key())).map_err(problem)?;
    reader.verify(&mut |_, _| {}).map_err(problem)?;
    if head_of(service, &reader) != *head {
        return Err(damaged("a journal does not end where the backup says"));
    }
    let mut taken_over = 0;
    let key = sign_anew(&reader, to, &now.journal_keys(service, 0), &mut |count| {
        taken_over += count;
        progress(count);
    });
    let key = key.map_err(problem)?;
    if taken_over == head.length { Ok(key) } else { Err(damaged("entries of a journal are missing")) }
}

fn head_of(service: Service, reader: &Reader) -> JournalHead {
    JournalHead {
        service,
        key: Hash::from_bytes(*reader.key().as_bytes()),
        fork: reader.fork(),
        length: reader.length(),
        tree_hash: Hash::from_bytes(reader.tree_hash()),
    }
}

/// What is not a journal: those with a secret stay readable by their owner alone.
fn copy_files(from: &Path, to: &Path) -> Result<(), Problem> {
    for (name, is_secret, is_needed) in [
        ("identity.key", true, true),
        ("admin.token", true, false),
        ("lives.json", true, false),
        ("genesis.json", false, true),
        (settings::FILE, false, true),
    ] {
        let path = from.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => zeroize::Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_needed => continue,
            Err(error) => return Err(damaged(&format!("{}: {error}", path.display()))),
        };
        let copy = to.join(name);
        if is_secret { keys_write(&copy, &bytes)? } else { write(&copy, &bytes)? }
    }
    Ok(())
}

fn read(from: &Path) -> Result<About, Problem> {
    let path = from.join(FILE);
    let text = fs::read_to_string(&path).map_err(|error| {
        Problem::new(ProblemKind::NotFound, "backup.missing", format!("{}: {error}", path.display()))
            .hint("name the folder that cell backup made")
    })?;
    let about: About = serde_json::from_str(&text).map_err(|error| damaged(&error.to_string()))?;
    if about.version != VERSION {
        return Err(damaged("it was made by a newer version"));
    }
    Ok(about)
}

fn damaged(why: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, "backup.damaged", format!("the backup cannot be used: {why}"))
        .hint("use another backup; nothing was changed")
}
