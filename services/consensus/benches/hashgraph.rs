//! What an event costs in the hashgraph, beside the check of its signature. `cargo xtask bench hashgraph`.

use std::hint::black_box;

use consensus::hashgraph::{Event, EventId, Hashgraph, MemberIndex, Settings};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use protocol::Hash;
use protocol::signing::{self, Signature};

const SETTINGS: Settings = Settings { coin_rounds: 10, events_a_round_max: 65_536 };
/// Events of a run.
const EVENTS: usize = 6_400;

/// Events of so many members who all make theirs at the same time, each on all that came before.
fn events(members: usize) -> Vec<Event> {
    let mut graph = Hashgraph::new(&vec![1; members], SETTINGS);
    let mut events: Vec<Event> = Vec::new();
    while events.len() < EVENTS {
        let plans: Vec<_> = (0..members as u16).map(|member| graph.plan(MemberIndex(member))).collect();
        for (member, plan) in (0..).zip(plans) {
            let number = events.len() as u64;
            let id = EventId(*Hash::of(&number.to_le_bytes()).as_bytes());
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&id.0);
            signature[32..].copy_from_slice(Hash::of(&id.0).as_bytes());
            let event = Event {
                id,
                creator: MemberIndex(member),
                self_parent: plan.self_parent,
                other_parents: plan.other_parents,
                time_us: number,
                signature: Signature::from_bytes(signature),
            };
            graph.insert(&event).expect("it fits");
            events.push(event);
        }
        while graph.poll_ordered().is_some() {}
    }
    events
}

fn cost(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("an event");
    group.throughput(Throughput::Elements(1));
    let key = SigningKey::from_bytes(&[1; 32]);
    let (cell, said) = (signing::cell_id(&key), [7; 64]);
    let signature = signing::sign(&key, &said);
    group.bench_function("limit: its signature checked", |bencher| {
        bencher.iter(|| signing::verify(black_box(&cell), black_box(&said), black_box(&signature)));
    });
    group.sample_size(20);
    for members in [4, 16, 64] {
        let events = events(members);
        group.throughput(Throughput::Elements(events.len() as u64));
        group.bench_function(format!("{members} members"), |bencher| {
            bencher.iter_batched(
                || (Hashgraph::new(&vec![1; members], SETTINGS), events.clone()),
                |(mut graph, events)| {
                    let mut ordered = 0;
                    for event in &events {
                        graph.insert(event).expect("it fits");
                        while let Some(round) = graph.poll_ordered() {
                            ordered += round.events.len();
                        }
                    }
                    (graph, ordered, events)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, cost);
criterion_main!(benches);
