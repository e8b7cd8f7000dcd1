//! What a draw of the beacon costs. `cargo bench -p consensus --bench beacon`.

use std::hint::black_box;

use consensus::beacon::{Dealt, Holders, Opened, Sealed, check_dealing, check_opening, combine, deal, open};
use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use protocol::{GenesisHash, signing};

fn draw(criterion: &mut Criterion) {
    for members in [4u8, 16, 64] {
        let keys: Vec<SigningKey> = (1..=members).map(|seed| SigningKey::from_bytes(&[seed; 32])).collect();
        let cells = keys.iter().map(|key| (signing::cell_id(key), 1)).collect();
        let holders = Holders::new(GenesisHash::ZERO, 1, &cells).expect("few members");
        let made = |key: &SigningKey| deal(&holders, key, 1, &key.to_bytes()).expect("a member deals");
        let dealers = usize::from(members) / 3 + 1;
        let dealings: Vec<_> = keys.iter().take(dealers).map(made).collect();
        let dealt: Vec<Dealt> =
            dealings.iter().map(|dealing| check_dealing(&holders, dealing).expect("it holds")).collect();
        let sealed = Sealed::new(&holders, 1, &dealt);
        let openings: Vec<_> =
            keys.iter().map(|key| open(&holders, key, &sealed).expect("it holds shares")).collect();
        let opened: Vec<Opened> = openings
            .iter()
            .map(|opening| check_opening(&holders, &sealed, opening).expect("it holds"))
            .collect();
        let mut group = criterion.benchmark_group(format!("beacon/{members}"));
        group.bench_function("deal", |b| b.iter(|| made(black_box(&keys[0]))));
        group.bench_function("check a dealing", |b| {
            b.iter(|| check_dealing(&holders, black_box(&dealings[0])))
        });
        group.bench_function("add up", |b| b.iter(|| Sealed::new(&holders, 1, black_box(&dealt))));
        group.bench_function("open", |b| b.iter(|| open(&holders, black_box(&keys[0]), &sealed)));
        group.bench_function("check an opening", |b| {
            b.iter(|| check_opening(&holders, &sealed, black_box(&openings[0])));
        });
        group.bench_function("combine", |b| b.iter(|| combine(&holders, &sealed, black_box(&opened))));
        group.finish();
    }
}

criterion_group!(benches, draw);
criterion_main!(benches);
