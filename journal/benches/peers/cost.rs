//! What a journal takes: disk and writes by the size of its batches, memory by its length.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::storage::{File, ReadStorage, Storage};
use journal::{Journal, Memory};

use crate::peer::{BATCH, ENTRY_BYTES, entry, pair, places};

/// Entries of the logs whose files are measured: four pages of the bitfield.
const ENTRIES: u64 = 4 * 32_768;
/// Entries that are read at random before memory is measured again.
const READS: u64 = 100_000;
/// The first argument of a run that measures memory.
pub(crate) const MEMORY: &str = "--memory";

/// What a storage was told to do.
#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
}

impl Counts {
    fn take(&self) -> [f64; 3] {
        [&self.writes, &self.bytes, &self.syncs].map(|count| count.swap(0, Ordering::Relaxed) as f64)
    }
}

/// Counts what a storage is told to do.
struct Counted<S> {
    disk: S,
    counts: Arc<Counts>,
}

impl<S: Storage> ReadStorage for Counted<S> {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.disk.read(file, offset, length)
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        self.disk.len(file)
    }
}

impl<S: Storage> Storage for Counted<S> {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.disk.write(file, offset, bytes)
    }

    fn clear(&mut self, file: File, offset: u64, length: u64) -> io::Result<()> {
        self.disk.clear(file, offset, length)
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        self.disk.truncate(file, length)
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.disk.sync(file)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.disk.sync_directory()
    }

    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        self.disk.reader()
    }
}

/// Prints what batches of some sizes take; in memory, where the same files come about.
pub(crate) fn print_disk() {
    println!(
        "| entries a batch | data | tree | bitfield | oplog | sum, bytes an entry | bytes written an entry | writes a batch | syncs a batch |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for size in [1, 64, 1_000] {
        let (disk, counts) = (Memory::default(), Arc::new(Counts::default()));
        let storage = Counted { disk: disk.clone(), counts: Arc::clone(&counts) };
        let mut journal = Journal::create_on(Box::new(storage), pair()).expect("creates");
        let batch: Vec<_> = (0..size).map(entry).collect();
        let batches = ENTRIES / size;
        counts.take();
        for _ in 0..batches {
            journal.append(&batch).expect("appends");
        }
        let entries = (batches * size) as f64;
        let [writes, bytes, syncs] = counts.take();
        journal.close().expect("closes");
        let files = [File::Data, File::Tree, File::Bitfield, File::Oplog];
        let each = files.map(|file| disk.bytes(file).len() as f64 / entries);
        let [data, tree, bitfield, oplog] = each;
        println!(
            "| {size} | {data:.1} | {tree:.1} | {bitfield:.2} | {oplog:.2} | {:.1} | {:.0} | {:.2} | {:.2} |",
            each.iter().sum::<f64>(),
            bytes / entries,
            writes / batches as f64,
            syncs / batches as f64,
        );
    }
    println!();
    println!(
        "Entries of {ENTRY_BYTES} bytes, {ENTRIES} of them; the files after a checkpoint; writes and syncs with the checkpoints that were due."
    );
}

/// Prints the memory that a journal takes, each measured in a process of its own.
pub(crate) fn print_memory(long: &Path, length: u64, empty: &Path) {
    let Some(_) = resident() else {
        println!("Memory is not measured: there is no /proc/self/status here.");
        return;
    };
    println!("| a journal of {length} entries | memory (resident), MiB |");
    println!("|---|---|");
    for (what, how, folder) in [
        ("opened for writing", "open", long),
        ("and 100 000 entries read at random", "read", long),
        ("just appended, in batches of 1 000", "append", empty),
    ] {
        let program = std::env::current_exe().expect("a program");
        let output = Command::new(program)
            .args([MEMORY, how])
            .arg(folder)
            .arg(length.to_string())
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        println!("| {what} | {} |", String::from_utf8_lossy(&output.stdout).trim());
    }
}

/// Prints by how many MiB the resident memory of this process grows with a journal.
pub(crate) fn measure_memory(arguments: &[String]) {
    let [how, folder, length] = arguments else { panic!("how, folder, length") };
    let (folder, length) = (Path::new(folder), length.parse().expect("a number"));
    let before = resident().expect("measured before");
    let journal = if how == "append" {
        let mut journal = Journal::create(folder, pair()).expect("creates");
        for first in (0..length).step_by(BATCH as usize) {
            let batch: Vec<_> = (first..first + BATCH).map(entry).collect();
            journal.append(&batch).expect("appends");
        }
        journal
    } else {
        Journal::open(folder, pair(), length).expect("opens").0
    };
    if how == "read" {
        for index in places(1, READS, length) {
            journal.get(index).expect("there");
        }
    }
    let after = resident().expect("measured before");
    assert_eq!(journal.length(), length);
    println!("{:.1}", after.saturating_sub(before) as f64 / 1024.0);
}

/// Resident memory in KiB.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
