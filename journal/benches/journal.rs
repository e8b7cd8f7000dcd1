//! What a journal costs, each line beside its limit: durable appends beside two synced files, reads and
//! checks beside the hashing alone. `cargo xtask bench journal`.

use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use journal::{Journal, KeyPair, Reader, SharedJournal, hash};

/// Entries of the long log.
const LONG: u64 = 1_000_000;
/// Threads that append at once.
const WRITERS: u64 = 64;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 100;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

/// A folder on the disk that the build lies on: the system's temporary folder may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder")
}

fn entry(index: u64) -> Vec<u8> {
    let mut entry = vec![7; ENTRY_BYTES];
    entry[..8].copy_from_slice(&index.to_le_bytes());
    entry
}

fn log(folder: &Path, length: u64) {
    let mut journal = Journal::create(folder, pair()).expect("creates");
    for first in (0..length).step_by(1_000) {
        let batch: Vec<_> = (first..length.min(first + 1_000)).map(entry).collect();
        journal.append(&batch).expect("appends");
    }
    journal.close().expect("closes");
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append, durable");
    group.throughput(Throughput::Elements(1));
    group.bench_function("limit: 100 and 300 bytes to two files, both synced", |bencher| {
        let dir = folder();
        let mut files =
            ["data", "oplog"].map(|name| fs::File::create(dir.path().join(name)).expect("a file"));
        bencher.iter(|| {
            for (file, bytes) in files.iter_mut().zip([100, 300]) {
                file.write_all(&[7; 300][..bytes]).and_then(|()| file.sync_data()).expect("synced");
            }
        });
    });
    group.bench_function("one entry a batch", |bencher| {
        let dir = folder();
        let mut journal = Journal::create(dir.path(), pair()).expect("creates");
        bencher.iter_batched(
            || entry(1),
            |entry| journal.append(&[entry]).expect("appends"),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(WRITERS));
    group.bench_function("64 writers, one entry each", |bencher| {
        let dir = folder();
        let journal = SharedJournal::new(Journal::create(dir.path(), pair()).expect("creates"));
        bencher.iter_custom(|rounds| {
            let all = Barrier::new(WRITERS as usize + 1);
            let mut start = None;
            thread::scope(|scope| {
                for _ in 0..WRITERS {
                    scope.spawn(|| {
                        all.wait();
                        for index in 0..rounds {
                            journal.append(&[entry(index)]).expect("appends");
                        }
                    });
                }
                all.wait();
                start = Some(Instant::now());
            });
            start.expect("it started").elapsed()
        });
    });
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1 000 entries a batch", |bencher| {
        let dir = folder();
        let mut journal = Journal::create(dir.path(), pair()).expect("creates");
        let batch: Vec<_> = (0..1_000).map(entry).collect();
        bencher.iter(|| journal.append(&batch).expect("appends"));
    });
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let (long, short) = (folder(), folder());
    log(long.path(), LONG);
    log(short.path(), 1_000);

    let mut group = criterion.benchmark_group("open");
    for (name, dir) in [("1 000 entries", &short), ("1 000 000 entries", &long)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Journal::open(dir.path(), pair(), 0).expect("opens").0.length());
        });
    }
    group.finish();

    let reader = Reader::open(long.path()).expect("opens");
    let mut group = criterion.benchmark_group("read of 1 000 000 entries, warm, checked");
    group.throughput(Throughput::Elements(1));
    let mut at = 1u64;
    group.bench_function("one at random", |bencher| {
        bencher.iter(|| {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            reader.get((at >> 33) % LONG).expect("there")
        });
    });
    group.throughput(Throughput::Elements(LONG));
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    group.bench_function("in order", |bencher| {
        bencher.iter(|| reader.range(0, LONG).map(|entry| entry.expect("there").len()).sum::<usize>());
    });
    group.bench_function("verified, nodes and signature as well", |bencher| {
        bencher.iter(|| reader.verify(&mut |_, _| {}).expect("in order"));
    });
    group.bench_function("limit: the hashes of all leaves and parents", |bencher| {
        bencher.iter_custom(|rounds| {
            let entry = entry(1);
            let node = journal::Node { index: 0, size: 100, hash: [7; 32] };
            let start = Instant::now();
            for _ in 0..rounds * LONG {
                black_box(hash::leaf(black_box(&entry)));
                black_box(hash::parent(black_box(&node), black_box(&node)));
            }
            start.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, appends, reads);
criterion_main!(benches);
