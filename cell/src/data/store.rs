//! Data in files: `DIR/data/HASH` and, beside it, `DIR/data/HASH.tree` with the hashes over it (Bao, outboard).

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bao::decode::Decoder;
use bao::encode::{Encoder, SliceExtractor};
use protocol::{Hash, Problem, ProblemKind};

use super::checked::Groups;

/// What a file of hashes is called behind the hash.
const TREE: &str = "tree";
/// Bytes that are copied at once.
const COPY_BYTES: usize = 128 * 1024;

/// Data that lies here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its hash.
    pub hash: Hash,
    /// Its size, in bytes.
    pub size: u64,
}

/// The data of one folder.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    bytes_max: u64,
}

impl Store {
    /// The data in a folder, which may not be there yet; at most so many bytes of it.
    pub const fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max }
    }

    /// What lies here under a hash.
    ///
    /// # Errors
    ///
    /// `data.unreadable`.
    pub fn find(&self, hash: &Hash) -> Result<Option<Kept>, Problem> {
        match fs::metadata(self.path(hash)) {
            Ok(about) => Ok(Some(Kept { hash: *hash, size: about.len() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&self.path(hash), &error)),
        }
    }

    /// All that lies here, by hash.
    ///
    /// # Errors
    ///
    /// `data.unreadable`.
    pub fn list(&self) -> Result<Vec<Kept>, Problem> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.dir, &error)),
        };
        let mut kept = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&self.dir, &error))?;
            let hash = entry.file_name().to_str().and_then(|name| name.parse::<Hash>().ok());
            // What goes away meanwhile is not listed.
            if let (Some(hash), Ok(about)) = (hash, entry.metadata()) {
                kept.push(Kept { hash, size: about.len() });
            }
        }
        kept.sort_unstable_by_key(|kept| kept.hash);
        Ok(kept)
    }

    /// Takes data in. Durable when it returns.
    ///
    /// # Errors
    ///
    /// `data.full`, `data.unwritable`.
    pub fn add(&self, data: impl Read) -> Result<Kept, Problem> {
        let mut draft = self.draft()?;
        draft.copy(data, self.room()?)?;
        self.finish(draft, None)
    }

    /// A file for data that comes in parts, of a size that is known.
    ///
    /// # Errors
    ///
    /// `data.full`, `data.unwritable`.
    pub(super) fn draft_of(&self, size: u64) -> Result<Draft, Problem> {
        let room = self.room()?;
        if size > room {
            return Err(full(self.bytes_max));
        }
        self.draft()
    }

    /// Gives data its name, if it is what it is to be.
    pub(super) fn finish(&self, draft: Draft, expected: Option<&Hash>) -> Result<Kept, Problem> {
        let failed = |error: &io::Error| unwritable(&draft.path, error);
        let mut file = &draft.file;
        file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
        let tree_path = draft.path.with_extension(TREE);
        let tree = File::options().read(true).write(true).create(true).truncate(true).open(&tree_path);
        let tree = tree.map_err(|error| failed(&error))?;
        let mut encoder = Encoder::new_outboard(tree);
        let mut reader = BufReader::with_capacity(COPY_BYTES, file);
        let size = io::copy(&mut reader, &mut encoder).map_err(|error| failed(&error))?;
        let hash = encoder.finalize().map_err(|error| failed(&error))?;
        let hash = Hash::from_bytes(*hash.as_bytes());
        let tree = encoder.into_inner();
        if expected.is_some_and(|expected| *expected != hash) {
            let _ = fs::remove_file(&tree_path);
            let cause = "what was put together is not what was asked for";
            return Err(Problem::new(ProblemKind::Fault, "data.wrong", cause).hint("fetch it again"));
        }
        file.sync_all().and_then(|()| tree.sync_all()).map_err(|error| failed(&error))?;
        // The tree first: data that has its name has its tree.
        let path = self.path(&hash);
        fs::rename(&tree_path, path.with_extension(TREE))
            .and_then(|()| fs::rename(&draft.path, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(|error| unwritable(&path, &error))?;
        Ok(Kept { hash, size })
    }

    /// Gives data up.
    ///
    /// # Errors
    ///
    /// `data.not_here`, `data.unwritable`.
    pub fn remove(&self, hash: &Hash) -> Result<Kept, Problem> {
        let kept = self.find(hash)?.ok_or_else(|| not_here(hash))?;
        let path = self.path(hash);
        fs::remove_file(&path)
            .and_then(|()| fs::remove_file(path.with_extension(TREE)))
            .map_err(|error| unwritable(&path, &error))?;
        Ok(kept)
    }

    /// A slice in the encoding of Bao.
    pub(super) fn slice(&self, hash: &Hash, from: u64, length: u64) -> Result<Vec<u8>, Problem> {
        let (data, tree) = self.open(hash)?;
        let mut slice = Vec::new();
        SliceExtractor::new_outboard(data, tree, from, length)
            .read_to_end(&mut slice)
            .map_err(|error| unreadable(&self.path(hash), &error))?;
        Ok(slice)
    }

    /// Bytes of it, checked.
    ///
    /// # Errors
    ///
    /// `data.not_here`, `data.damaged`, `data.unreadable`.
    pub fn read(&self, hash: &Hash, from: u64, length: u64) -> Result<Vec<u8>, Problem> {
        let (data, tree) = self.open(hash)?;
        let mut decoder = Decoder::new_outboard(data, tree, &bao::Hash::from_bytes(*hash.as_bytes()));
        let mut bytes = Vec::new();
        decoder
            .seek(SeekFrom::Start(from))
            .and_then(|_| decoder.take(length).read_to_end(&mut bytes))
            .map_err(|error| self.damaged(hash, &error))?;
        Ok(bytes)
    }

    /// All of it, from the first byte on, checked.
    ///
    /// # Errors
    ///
    /// `data.not_here`, `data.damaged`, `data.unreadable`.
    pub fn reader(&self, hash: &Hash) -> Result<Reading, Problem> {
        let (data, tree) = self.files(hash)?;
        let groups = Groups::new(data, tree, hash).map_err(|error| self.damaged(hash, &error))?;
        Ok(Reading { store: self.clone(), hash: *hash, groups })
    }

    /// Writes all of it somewhere else, checked on the way.
    ///
    /// # Errors
    ///
    /// `data.not_here`, `data.damaged`, `data.unreadable`.
    pub fn copy(&self, hash: &Hash, to: &mut dyn Write) -> Result<u64, Problem> {
        let mut size = 0;
        for bytes in self.reader(hash)? {
            let bytes = bytes?;
            to.write_all(&bytes).map_err(|error| unreadable(&self.path(hash), &error))?;
            size += bytes.len() as u64;
        }
        Ok(size)
    }

    fn open(&self, hash: &Hash) -> Result<(BufReader<File>, BufReader<File>), Problem> {
        let (data, tree) = self.files(hash)?;
        Ok((BufReader::new(data), BufReader::new(tree)))
    }

    fn files(&self, hash: &Hash) -> Result<(File, File), Problem> {
        let path = self.path(hash);
        let open = |path: &Path| match File::open(path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_here(hash)),
            Err(error) => Err(unreadable(path, &error)),
        };
        Ok((open(&path)?, open(&path.with_extension(TREE))?))
    }

    fn damaged(&self, hash: &Hash, error: &io::Error) -> Problem {
        if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof {
            let cause = format!("{} is damaged: it is not what its hash says", self.path(hash).display());
            return Problem::new(ProblemKind::Fault, "data.damaged", cause)
                .hint(format!("cell data remove {hash}, then cell data get {hash} takes it from others"));
        }
        unreadable(&self.path(hash), error)
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        self.dir.join(hash.to_string())
    }

    fn room(&self) -> Result<u64, Problem> {
        let taken: u64 = self.list()?.iter().map(|kept| kept.size).sum();
        Ok(self.bytes_max.saturating_sub(taken))
    }

    fn draft(&self) -> Result<Draft, Problem> {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.dir).map_err(|error| unwritable(&self.dir, &error))?;
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("draft-{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|error| unwritable(&path, &error))?;
        Ok(Draft { path, file, bytes_max: self.bytes_max })
    }

    /// Takes away what was left unfinished by a process that is no more.
    pub fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let unfinished = entries.flatten().filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process =
                name.strip_prefix("draft-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
        });
        for entry in unfinished {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Data that is being read, from its beginning to its end.
pub struct Reading {
    store: Store,
    hash: Hash,
    groups: Groups,
}

impl Reading {
    /// The next bytes, if no disk has to be waited for: the same as by the iterator.
    pub fn next_at_hand(&mut self) -> Poll<Option<Result<Vec<u8>, Problem>>> {
        let next = self.groups.next_at_hand();
        next.map(|next| next.map_err(|error| self.store.damaged(&self.hash, &error)).transpose())
    }
}

impl Iterator for Reading {
    type Item = Result<Vec<u8>, Problem>;

    /// The next bytes, 32 KiB unless they are the last; or `data.damaged`, `data.unreadable`.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.groups.next().map_err(|error| self.store.damaged(&self.hash, &error));
        next.transpose()
    }
}

/// Data that is being put together. It is gone with this value, unless it was finished.
pub(super) struct Draft {
    path: PathBuf,
    file: File,
    bytes_max: u64,
}

impl Draft {
    /// Writes a part to its place.
    pub(super) fn write(&mut self, from: u64, bytes: &[u8]) -> Result<(), Problem> {
        let written = self.file.seek(SeekFrom::Start(from)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|error| unwritable(&self.path, &error))
    }

    fn copy(&mut self, data: impl Read, room: u64) -> Result<(), Problem> {
        // One byte more tells that there is too much.
        let mut data = BufReader::with_capacity(COPY_BYTES, data.take(room.saturating_add(1)));
        let copied = io::copy(&mut data, &mut self.file).map_err(|error| unwritable(&self.path, &error))?;
        if copied > room { Err(full(self.bytes_max)) } else { Ok(()) }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it has its name there is nothing here any more.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.path.with_extension(TREE));
    }
}

/// Checks a slice, and gives its bytes.
pub(super) fn open_slice(slice: &[u8], hash: &Hash, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let hash = bao::Hash::from_bytes(*hash.as_bytes());
    bao::decode::SliceDecoder::new(Cursor::new(slice), &hash, from, length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How much data there is, by a slice that was asked for from behind any end: it leads to the last bytes, and so proves the size that
/// it begins with.
pub(super) fn proven_size(slice: &[u8], hash: &Hash) -> io::Result<u64> {
    open_slice(slice, hash, u64::MAX, 1)?;
    let size = slice.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u64::from_le_bytes(*size))
}

pub(super) fn not_here(hash: &Hash) -> Problem {
    Problem::new(ProblemKind::NotFound, "data.not_here", format!("the data {hash} is not here"))
        .hint(format!("cell data get {hash} takes it from connected cells that have it"))
}

fn full(bytes_max: u64) -> Problem {
    let cause = format!("this cell keeps at most {bytes_max} bytes of data");
    Problem::new(ProblemKind::TooLarge, "data.full", cause)
        .hint("cell data remove HASH makes room; cell config set data.bytes_max N allows more")
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Fault, "data.unreadable", format!("{}: {error}", path.display()))
        .hint("check the folder's disk and permissions")
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Fault, "data.unwritable", format!("{}: {error}", path.display()))
        .hint("check the disk's room and permissions")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(bytes_max: u64) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(dir.path().join("data"), bytes_max);
        (dir, store)
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|place| (place * 7 % 251) as u8).collect()
    }

    #[test]
    fn data_is_known_by_its_hash_and_read_from_anywhere() {
        let (_dir, store) = store(1 << 30);
        for count in [0, 1, 1_024, 1_025, 32 * 1_024, 32 * 1_024 + 1, 100_000, 1_000_000] {
            let data = bytes(count);
            let kept = store.add(data.as_slice()).expect("there is room");
            assert_eq!(kept, Kept { hash: Hash::of(&data), size: count as u64 });
            assert_eq!(store.add(data.as_slice()).expect("and again"), kept);
            for (from, length) in [(0, count), (count / 2, 700), (count, 5), (count + 9, 1)] {
                let expected = &data[from.min(count)..(from + length).min(count)];
                assert_eq!(store.read(&kept.hash, from as u64, length as u64).expect("reads"), expected);
            }
            let mut copy = Vec::new();
            store.copy(&kept.hash, &mut copy).expect("copies");
            assert_eq!(copy, data);
            // Where a disk would have to be waited for, it goes on from the same place.
            let (mut reading, mut copy) = (store.reader(&kept.hash).expect("opens"), Vec::new());
            let next = |reading: &mut Reading| match reading.next_at_hand() {
                Poll::Ready(next) => next,
                Poll::Pending => reading.next(),
            };
            while let Some(bytes) = next(&mut reading) {
                copy.extend(bytes.expect("reads"));
            }
            assert_eq!(copy, data);
        }
        assert_eq!(store.list().expect("lists").len(), 8, "and no drafts");
    }

    #[test]
    fn a_slice_proves_its_bytes_and_one_behind_the_end_the_size() {
        let (_dir, store) = store(1 << 30);
        for count in [0, 1, 5_000, 1 << 20] {
            let data = bytes(count);
            let hash = store.add(data.as_slice()).expect("there is room").hash;
            let last = store.slice(&hash, u64::MAX, 1).expect("a slice");
            assert_eq!(proven_size(&last, &hash).expect("holds"), count as u64);
            let mut lie = last.clone();
            lie[0] ^= 1;
            assert!(proven_size(&lie, &hash).is_err(), "another size");
            if count > 2_000 {
                let slice = store.slice(&hash, 1_000, 900).expect("a slice");
                assert_eq!(open_slice(&slice, &hash, 1_000, 900).expect("holds"), data[1_000..1_900]);
                let mut forged = slice.clone();
                *forged.last_mut().expect("bytes") ^= 1;
                assert!(open_slice(&forged, &hash, 1_000, 900).is_err());
                assert!(open_slice(&slice, &Hash::of(b"other"), 1_000, 900).is_err());
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_found_and_not_passed_on() {
        let (_dir, store) = store(1 << 30);
        let hash = store.add(bytes(50_000).as_slice()).expect("there is room").hash;
        let path = store.path(&hash);
        let mut damaged = fs::read(&path).expect("a file");
        damaged[20_000] ^= 4;
        fs::write(&path, damaged).expect("writes");
        assert_eq!(store.read(&hash, 0, 1_024).expect("this part is whole").len(), 1_024);
        assert_eq!(store.read(&hash, 20_000, 1).expect_err("it is not").code, "data.damaged");
        assert_eq!(store.copy(&hash, &mut Vec::new()).expect_err("not whole").code, "data.damaged");
        let mut reading = store.reader(&hash).expect("it opens");
        let next = reading.next().expect("more");
        assert_eq!(next.expect_err("its group is not whole").code, "data.damaged");
        let slice = store.slice(&hash, 20_000, 100).expect("it is not checked here");
        assert!(open_slice(&slice, &hash, 20_000, 100).is_err(), "but by whoever gets it");
    }

    #[test]
    fn what_finds_no_room_or_is_not_what_was_asked_for_leaves_nothing() {
        let (dir, store) = store(10_000);
        store.add(bytes(6_000).as_slice()).expect("there is room");
        assert_eq!(store.add(bytes(4_001).as_slice()).expect_err("no room").code, "data.full");
        let mut draft = store.draft_of(4_000).expect("there is room");
        draft.write(0, &bytes(4_000)).expect("writes");
        let other = store.finish(draft, Some(&Hash::of(b"other"))).expect_err("something else");
        assert_eq!(other.code, "data.wrong");
        let files = fs::read_dir(dir.path().join("data")).expect("a folder").count();
        assert_eq!(files, 2, "the first data and its tree");
        let known = store.list().expect("lists")[0];
        assert_eq!(store.remove(&known.hash).expect("removes"), known);
        assert_eq!(store.remove(&known.hash).expect_err("gone").code, "data.not_here");
    }
}
