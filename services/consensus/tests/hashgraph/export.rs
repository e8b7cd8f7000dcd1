//! What is exported is what the graph says of each event when it is asked.

use std::collections::BTreeSet;

use consensus::hashgraph::{EventId, Fame, Hashgraph, Round};

use crate::compare::engine;
use crate::random::graph;

/// The judges of all rounds that were decided, of graphs of which nothing was taken out before.
fn judges(graph: &mut Hashgraph) -> BTreeSet<EventId> {
    std::iter::from_fn(|| graph.poll_ordered()).flat_map(|round| round.judges).collect()
}

#[test]
fn all_that_is_asked_is_there_as_it_is() {
    let (mut forks, mut famous, mut cut) = (0, 0, 0);
    for seed in 0..200 {
        let random = graph(seed);
        let mut engine = engine(&random.weights, random.coin_rounds);
        random.events.iter().for_each(|event| engine.insert(event).expect("takes it in"));
        let judges = judges(&mut engine);
        let last = engine.last_round();
        assert_eq!(Some(last), random.events.iter().filter_map(|event| engine.round_of(&event.id)).max());
        forks += usize::from(
            (0..engine.members()).any(|place| engine.is_forked(consensus::hashgraph::MemberIndex(place))),
        );
        for from in [1, last.0.saturating_sub(2).max(1), last.0, last.0 + 1] {
            let asked = random.events.iter().filter(|event| engine.round_of(&event.id) >= Some(Round(from)));
            let drawn = engine.export(Round(from), usize::MAX);
            assert!(
                drawn.iter().map(|drawn| &drawn.event).eq(asked),
                "seed {seed}: from round {from}, in their order"
            );
            for drawn in &drawn {
                let id = &drawn.event.id;
                assert_eq!(Some(drawn.round), engine.round_of(id), "seed {seed}");
                assert_eq!(drawn.fame, engine.fame_of(id), "seed {seed}");
                assert_eq!(drawn.is_witness(), engine.is_witness(id), "seed {seed}");
                assert_eq!(drawn.received, engine.round_received(id), "seed {seed}");
                assert_eq!(drawn.is_judge, judges.contains(id), "seed {seed}");
                famous += usize::from(drawn.fame == Some(Fame::Famous));
            }
            let few = engine.export(Round(from), 5);
            assert_eq!(few.len(), drawn.len().min(5));
            let lowest = few.iter().map(|drawn| drawn.round).min();
            let left_out = drawn.iter().filter(|drawn| !few.contains(drawn));
            assert!(
                left_out.map(|drawn| Some(drawn.round)).all(|round| round <= lowest),
                "seed {seed}: the newest"
            );
            cut += usize::from(few.len() < drawn.len());
        }
    }
    assert!(
        forks > 10 && famous > 100 && cut > 100,
        "{forks} forks, {famous} famous, {cut} cut: the graphs show something"
    );
}
