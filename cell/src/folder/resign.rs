//! A journal under another key: the same entries, signed anew.
//!
//! A host that is removed knows the keys of the journals that it has written. Those are signed by the next ones from then on (ADR 0033), on
//! the hosts that have the cell's key: by whoever opens the journal to write it, and of a copy by whoever keeps it. The new log is made beside the
//! old one and takes its place when it is whole and durable; a crash leaves one of the two.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use journal::{Backend, Disk, Error, Journal, Reader};
use protocol::{Hash, Problem, Service};

use super::unwritable;
use crate::actor::journal_problem;
use crate::keys::JournalKeys;

/// Entries that are appended at once, and their bytes.
const BATCH_ENTRIES: usize = 1_000;
/// See [`BATCH_ENTRIES`].
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Makes a journal with the entries of another one, encrypted if that is, under its fork; of one that lacks some, those before the first that
/// is missing. Gives its public key. Durable when it returns.
///
/// # Errors
///
/// Those of reading the one and writing the other; [`Error::Corrupt`] where the entries are not those that were signed.
pub(super) fn sign_anew(
    reader: &Reader,
    to: &Path,
    keys: &JournalKeys,
    progress: &mut dyn FnMut(u64),
) -> Result<Hash, Error> {
    let encryption_key = reader.is_encrypted().then(|| keys.encryption_key());
    let disk = Disk::create(to, Backend::default())?;
    let mut journal = Journal::create_with(Box::new(disk), keys.key_pair(), encryption_key.as_ref())?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for entry in reader.range(0, u64::MAX) {
        let entry = match entry {
            Err(Error::Absent { .. }) => break,
            entry => entry?,
        };
        bytes += entry.len();
        batch.push(entry);
        if batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
            progress(batch.len() as u64);
            journal.append(&std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    progress(batch.len() as u64);
    journal.append(&batch)?;
    let (signed, length) = (journal.reader(), journal.length());
    // Each entry was checked against its leaf; this checks the leaves against what was signed. Encrypted entries are others under another key.
    if !reader.is_encrypted() && signed.tree_hash_at(length)? != reader.tree_hash_at(length)? {
        return Err(Error::Corrupt("its entries are not those that were signed".to_owned()));
    }
    if reader.fork() > 0 {
        journal.take_over(reader.fork())?;
    }
    let key = Hash::from_bytes(*journal.key().as_bytes());
    journal.close()?;
    Ok(key)
}

/// Has a journal of this cell signed by a key, if one of those before signs it; says whether it was. Blocks on files.
///
/// # Errors
///
/// `journal.…`; the journal is as it was.
pub(crate) fn rekey(
    service: Service,
    folder: &Path,
    before: &[JournalKeys],
    keys: &JournalKeys,
    witnessed: u64,
) -> Result<bool, Problem> {
    let problem = |error: Error| journal_problem(service, &error);
    let files = Files::of(folder);
    files.put_back().map_err(|error| unwritable(folder, &error))?;
    // What cannot be read is told by whoever opens it.
    let Ok(reader) = Reader::open(folder) else { return Ok(false) };
    let public = reader.key();
    drop(reader);
    let is_its = |keys: &&JournalKeys| keys.key_pair().public() == public;
    let Some(old) = before.iter().find(is_its).filter(|_| keys.key_pair().public() != public) else {
        return Ok(false);
    };
    let (journal, _) = Backend::default()
        .open(folder)
        .and_then(|storage| {
            Journal::open_with(storage, old.key_pair(), witnessed, Some(&old.encryption_key()))
        })
        .map_err(problem)?;
    // From here on nobody else does this: the journal is locked until the other one is in its place.
    files.tidy().map_err(|error| unwritable(folder, &error))?;
    sign_anew(&journal.reader(), &files.next, keys, &mut |_| {}).map_err(problem)?;
    files.swap().map_err(|error| unwritable(folder, &error))?;
    tracing::info!(%service, entries = journal.length(), "the journal is signed by another key now");
    drop(journal);
    files.tidy().map_err(|error| unwritable(folder, &error))?;
    Ok(true)
}

/// A journal's folder, the one that is to take its place, and where it is put meanwhile.
struct Files {
    now: PathBuf,
    next: PathBuf,
    before: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        let [next, before] = ["next", "before"].map(|extension| folder.with_extension(extension));
        Self { now: folder.to_owned(), next, before }
    }

    /// Puts the next one in the journal's place, and that away.
    fn swap(&self) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.now, &self.before)?;
        self.sync()?;
        fs::rename(&self.next, &self.now)?;
        self.sync()
    }

    /// Ends what a crash has left half done: the next one is whole where the journal was put away for it.
    fn put_back(&self) -> io::Result<()> {
        if !self.now.exists() && self.before.exists() {
            let whole = if self.next.exists() { &self.next } else { &self.before };
            fs::rename(whole, &self.now)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Deletes what was begun and not ended, and what was put away.
    fn tidy(&self) -> io::Result<()> {
        for left in [&self.next, &self.before] {
            if left.exists() {
                fs::remove_dir_all(left)?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(self.now.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keyring;

    const SERVICE: Service = Service::State;

    fn keys(number: u32) -> JournalKeys {
        Keyring::from_seed(&[7; 32]).journal_keys(SERVICE, number)
    }

    fn entries() -> Vec<Vec<u8>> {
        (0..2_500u32).map(|number| number.to_be_bytes().repeat(1 + number as usize % 5)).collect()
    }

    fn make(folder: &Path, keys: &JournalKeys, is_encrypted: bool, fork: u64) {
        let seal = is_encrypted.then(|| keys.encryption_key());
        let disk = Disk::create(folder, Backend::default()).expect("a folder");
        let mut journal = Journal::create_with(Box::new(disk), keys.key_pair(), seal.as_ref()).expect("made");
        journal.append(&entries()).expect("appends");
        if fork > 0 {
            journal.take_over(fork).expect("rises");
        }
        journal.close().expect("closes");
    }

    fn read(folder: &Path, keys: &JournalKeys) -> (Vec<Vec<u8>>, u64) {
        let reader = Reader::open_with(folder, Some(&keys.encryption_key())).expect("opens");
        assert_eq!(reader.key(), keys.key_pair().public(), "another key signs it");
        reader.verify(&mut |_, _| {}).expect("it holds");
        (reader.range(0, u64::MAX).collect::<Result<_, _>>().expect("reads"), reader.fork())
    }

    fn rekeyed(folder: &Path, to: u32) -> Result<bool, Problem> {
        let before: Vec<JournalKeys> = (0..to).map(keys).collect();
        rekey(SERVICE, folder, &before, &keys(to), entries().len() as u64)
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.expect("an entry").file_name().to_string_lossy().into_owned()
        };
        fs::read_dir(dir).expect("a folder").map(name).collect()
    }

    #[test]
    fn a_journal_keeps_its_entries_and_its_fork_under_another_key() {
        for (is_encrypted, fork) in [(false, 0), (false, 9), (true, 0), (true, 9)] {
            let dir = tempfile::tempdir().expect("a folder");
            let folder = dir.path().join("state");
            make(&folder, &keys(1), is_encrypted, fork);
            let tree_hash = Reader::open(&folder).expect("opens").tree_hash();
            assert!(rekeyed(&folder, 3).expect("is signed anew"));
            assert_eq!(read(&folder, &keys(3)), (entries(), fork));
            assert!(!rekeyed(&folder, 3).expect("nothing is to be done"));
            let now = Reader::open(&folder).expect("opens");
            assert_eq!(now.is_encrypted(), is_encrypted);
            assert_eq!(now.tree_hash() == tree_hash, !is_encrypted, "what is encrypted is other bytes");
            assert_eq!(names(dir.path()), ["state"]);
            let with_old = Backend::default().open(&folder).and_then(|storage| {
                Journal::open_with(storage, keys(1).key_pair(), 0, Some(&keys(1).encryption_key()))
            });
            assert!(matches!(with_old, Err(Error::WrongKey)), "who has the old key alone writes no more");
        }
    }

    #[test]
    fn a_journal_of_another_cell_and_one_that_lacks_entries_stay_as_they_are() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("state");
        let foreign = Keyring::from_seed(&[8; 32]).journal_keys(SERVICE, 0);
        make(&folder, &foreign, false, 0);
        assert!(!rekeyed(&folder, 2).expect("is left alone"));
        read(&folder, &foreign);
        let folder = dir.path().join("short");
        make(&folder, &keys(0), false, 0);
        let before = [keys(0)];
        let refused = rekey(SERVICE, &folder, &before, &keys(1), entries().len() as u64 + 1);
        assert_eq!(refused.expect_err("is short").code, "journal.shorter_than_witnessed");
        read(&folder, &keys(0));
    }

    /// A crash at any step leaves a whole journal, and the next try ends what was begun.
    #[test]
    fn a_crash_leaves_the_journal_or_the_one_that_takes_its_place() {
        let made = |names: &[(&str, u32)]| {
            let dir = tempfile::tempdir().expect("a folder");
            names.iter().for_each(|(name, number)| make(&dir.path().join(name), &keys(*number), false, 0));
            dir
        };
        let half = |dir: &Path| {
            fs::create_dir(dir.join("state.next")).expect("made");
            fs::write(dir.join("state.next").join("oplog"), b"begun").expect("written");
        };
        let begun = made(&[("state", 0)]);
        half(begun.path());
        let cases = [
            begun,
            made(&[("state", 0), ("state.next", 1)]),
            made(&[("state.before", 0), ("state.next", 1)]),
            made(&[("state", 1), ("state.before", 0)]),
            made(&[("state.before", 0)]),
        ];
        for dir in cases {
            let folder = dir.path().join("state");
            rekeyed(&folder, 1).expect("goes on");
            assert_eq!(read(&folder, &keys(1)), (entries(), 0));
        }
    }
}
