//! The engine against the oracle, and against itself, on random graphs.
//!
//! `HASHGRAPH_SEED=7 cargo test --release -p consensus --test hashgraph` runs one graph alone; each failure
//! names its own. `HASHGRAPH_GRAPHS=100000` runs more of them.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use consensus::hashgraph::{Event, Fame, Hashgraph, OrderedRound, Rejected, Round, Settings};

use crate::oracle::{Oracle, OracleRound};
use crate::random::{Random, RandomGraph, graph, reorder};

/// An engine that takes any number of events in a round.
pub(crate) fn engine(weights: &[u64], coin_rounds: u64) -> Hashgraph {
    Hashgraph::new(weights, Settings { coin_rounds, events_a_round_max: u32::MAX })
}

/// What the engine has ordered, in the oracle's words.
pub(crate) fn poll(engine: &mut Hashgraph) -> Vec<OracleRound> {
    let in_its_words = |OrderedRound { round, mut judges, events }| {
        judges.sort_unstable();
        OracleRound {
            round: round.0,
            judges,
            events: events.into_iter().map(|ordered| (ordered.id, ordered.time_us)).collect(),
        }
    };
    std::iter::from_fn(|| engine.poll_ordered()).map(in_its_words).collect()
}

/// What the engine orders out of these events; nothing is asked of it before it has them all.
fn run(graph: &RandomGraph, events: &[Event]) -> Vec<OracleRound> {
    let mut engine = engine(&graph.weights, graph.coin_rounds);
    events.iter().for_each(|event| engine.insert(event).expect("takes it in"));
    poll(&mut engine)
}

/// In how many graphs something happened, and how often.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    graphs: usize,
    times: usize,
}

impl From<usize> for Count {
    fn from(times: usize) -> Self {
        Self { graphs: usize::from(times > 0), times }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.graphs += other.graphs;
        self.times += other.times;
    }
}

/// Calls `check` with each seed, on all cores, and adds up what it counted.
fn over_seeds<const N: usize>(graphs: u64, check: fn(u64) -> [usize; N]) -> [Count; N] {
    #[expect(clippy::disallowed_methods, reason = "a test has no arguments")]
    let from_env = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds: Vec<u64> = match from_env("HASHGRAPH_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_env("HASHGRAPH_GRAPHS").unwrap_or(graphs)).collect(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let some_seeds = |thread: usize| {
        let mut counts = [Count::default(); N];
        for &seed in seeds.iter().skip(thread).step_by(threads) {
            let counted = catch_unwind(AssertUnwindSafe(|| check(seed))).unwrap_or_else(|panic| {
                eprintln!(
                    "graph {seed} failed; repeat it with:\n    \
                     HASHGRAPH_SEED={seed} cargo test --release -p consensus --test hashgraph"
                );
                resume_unwind(panic)
            });
            counts.iter_mut().zip(counted).for_each(|(count, times)| *count += times.into());
        }
        counts
    };
    std::thread::scope(|scope| {
        let some_seeds = &some_seeds;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || some_seeds(thread))).collect();
        let mut all = [Count::default(); N];
        for thread in running {
            let counts = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            all.iter_mut().zip(counts).for_each(|(count, more)| *count += more);
        }
        all
    })
}

/// A single graph, or a few, need not have everything in them.
fn is_whole_run() -> bool {
    ["HASHGRAPH_SEED", "HASHGRAPH_GRAPHS"].iter().all(|name| std::env::var_os(name).is_none())
}

#[track_caller]
fn at_least(what: &str, count: Count, graphs: usize) {
    assert!(!is_whole_run() || count.graphs >= graphs, "{what}: in {} graphs only", count.graphs);
}

#[test]
fn the_engine_says_what_the_rules_say() {
    let counts = over_seeds(10_000, |seed| {
        let graph = graph(seed);
        let oracle = Oracle::new(&graph.events, &graph.weights, graph.coin_rounds);
        let mut engine = engine(&graph.weights, graph.coin_rounds);
        let mut ordered = Vec::new();
        for (place, event) in graph.events.iter().enumerate() {
            engine.insert(event).expect("takes it in");
            let round = engine.round_of(&event.id).map(|round| round.0);
            assert_eq!(round, Some(oracle.round(place)), "the round of event {place}");
            assert_eq!(
                engine.is_witness(&event.id),
                oracle.is_witness(place),
                "whether event {place} is a witness"
            );
            ordered.extend(poll(&mut engine));
        }
        let expected = oracle.ordered_rounds();
        let orders =
            |rounds: &[OracleRound]| rounds.iter().map(|round| round.events.len()).collect::<Vec<_>>();
        assert_eq!(orders(&ordered), orders(&expected), "how many events each round receives");
        ordered.iter().zip(&expected).for_each(|(ordered, expected)| assert_eq!(ordered, expected));
        happened(&graph, &oracle, &expected)
    });
    let [rounds, events, ties, forks_seen, forks_that_matter, coin_rounds, coins, not_famous, no_judges] =
        counts;
    eprintln!(
        "rounds {rounds:?}\nevents {events:?}\nties {ties:?}\nforks seen {forks_seen:?}, of judges' creators \
         {forks_that_matter:?}\nvotes in coin rounds {coin_rounds:?}, by coin {coins:?}\nnot famous {not_famous:?}\n\
         without judges {no_judges:?}"
    );
    at_least("rounds ordered", rounds, 5_000);
    at_least("events ordered", events, 4_000);
    at_least("timestamps equal", ties, 2_500);
    at_least("forks seen", forks_seen, 4_000);
    at_least("ordered events of who forked", forks_that_matter, 1_000);
    at_least("votes in coin rounds", coin_rounds, 400);
    at_least("votes by coin", coins, 60);
    at_least("witnesses that are not famous", not_famous, 1_500);
}

/// What a graph had in it: rounds, events and ties ordered; events that see a fork; ordered events of members
/// that forked; votes in coin rounds on what was not decided yet, and by coin; witnesses not famous; rounds
/// without judges.
fn happened(graph: &RandomGraph, oracle: &Oracle<'_>, ordered: &[OracleRound]) -> [usize; 9] {
    let places = 0..graph.events.len();
    let members: BTreeSet<_> = graph.events.iter().map(|event| event.creator).collect();
    let seen_by = |x: usize| members.iter().filter(|&&member| oracle.sees_fork(x, member)).count();
    let forked = |creator| places.clone().any(|x| oracle.sees_fork(x, creator));
    let forkers: BTreeSet<_> = members.iter().copied().filter(|&member| forked(member)).collect();
    let forkers_ids: BTreeSet<_> =
        graph.events.iter().filter(|event| forkers.contains(&event.creator)).map(|event| event.id).collect();
    let (mut coin_rounds, mut coins, mut not_famous) = (0, 0, 0);
    for x in places.clone().filter(|&x| oracle.is_witness(x)) {
        let deciders: Vec<(usize, bool)> = oracle.deciders(x).collect();
        let first = deciders.iter().map(|&(y, _)| oracle.round(y)).min().unwrap_or(u64::MAX);
        not_famous += usize::from(deciders.first().is_some_and(|&(_, famous)| !famous));
        for y in places.clone().filter(|&y| oracle.is_witness(y) && oracle.round(y) > oracle.round(x)) {
            let vote = oracle.vote(y, x);
            coin_rounds += usize::from(vote.coin_round && oracle.round(y) < first);
            coins += usize::from(vote.coin_thrown && oracle.round(y) < first);
        }
    }
    [
        ordered.len(),
        ordered.iter().map(|round| round.events.len()).sum(),
        ordered.iter().flat_map(|round| round.events.windows(2)).filter(|two| two[0].1 == two[1].1).count(),
        places.clone().map(seen_by).sum(),
        ordered.iter().flat_map(|round| &round.events).filter(|(id, _)| forkers_ids.contains(id)).count(),
        coin_rounds,
        coins,
        not_famous,
        ordered.iter().filter(|round| round.judges.is_empty()).count(),
    ]
}

/// All agree only if it does not matter which vote one hears first: whatever decides a fame decides it one way.
/// This is about the rules, by the oracle alone.
#[test]
fn no_two_votes_decide_differently() {
    let [decided] = over_seeds(10_000, |seed| {
        let graph = graph(seed);
        let oracle = Oracle::new(&graph.events, &graph.weights, graph.coin_rounds);
        let witnesses = (0..graph.events.len()).filter(|&x| oracle.is_witness(x));
        let decided = |x: usize| {
            let fames: BTreeSet<bool> = oracle.deciders(x).map(|(_, famous)| famous).collect();
            assert!(fames.len() < 2, "event {x} is famous and is not");
            fames.len()
        };
        [witnesses.map(decided).sum()]
    });
    at_least("decided", decided, 5_000);
}

#[track_caller]
fn one_begins_the_other(one: &[OracleRound], other: &[OracleRound]) {
    one.iter().zip(other).for_each(|(one, other)| assert_eq!(one, other));
}

#[test]
fn events_in_another_order_are_ordered_alike() {
    let [rounds, moved] = over_seeds(10_000, |seed| {
        let graph = graph(seed);
        let other = reorder(&graph.events, &mut Random::new(!seed));
        let (one, two) = (run(&graph, &graph.events), run(&graph, &other));
        one_begins_the_other(&one, &two);
        [one.len().min(two.len()), usize::from(other != graph.events)]
    });
    at_least("rounds ordered by both", rounds, 5_000);
    at_least("another order", moved, 9_000);
}

#[test]
fn what_is_decided_stays_decided() {
    let [early] = over_seeds(2_000, |seed| {
        let graph = graph(seed);
        let all = run(&graph, &graph.events);
        let mut random = Random::new(!seed);
        let mut early = 0;
        for _ in 0..5 {
            let known = random.below(graph.events.len());
            let ordered = run(&graph, &graph.events[..known]);
            assert!(ordered.len() <= all.len(), "{known} events order more than all do");
            one_begins_the_other(&ordered, &all);
            early += usize::from(!ordered.is_empty() && ordered.len() < all.len());
        }
        [early]
    });
    at_least("some rounds early, some late", early, 500);
}

/// Rule 8. What the engine refuses is put behind all that it has taken, where it is nobody's ancestor, and the
/// oracle is asked about each.
#[test]
fn what_is_too_much_for_a_round_is_refused_and_changes_nothing() {
    let [rounds, refused] = over_seeds(3_000, |seed| {
        let graph = graph(seed);
        let max = 1 + Random::new(!seed).below(4);
        let settings = Settings { coin_rounds: graph.coin_rounds, events_a_round_max: max as u32 };
        let mut engine = Hashgraph::new(&graph.weights, settings);
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for event in &graph.events {
            match engine.insert(event) {
                Ok(()) => taken.push(event.clone()),
                Err(Rejected::Invalid(_)) => refused.push(event.clone()),
                Err(Rejected::MissingParents(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        let all = [taken.clone(), refused.clone()].concat();
        let oracle = Oracle::new(&all, &graph.weights, graph.coin_rounds);
        for x in 0..all.len() {
            let before = (0..all.len())
                .filter(|&y| y != x && oracle.self_ancestor(x, y) && oracle.round(y) == oracle.round(x));
            assert_eq!(before.count() >= max, x >= taken.len(), "event {x} of {} taken", taken.len());
        }
        let ordered = poll(&mut engine);
        assert_eq!(ordered, Oracle::new(&taken, &graph.weights, graph.coin_rounds).ordered_rounds());
        [ordered.len(), refused.len()]
    });
    at_least("rounds ordered", rounds, 500);
    at_least("events refused", refused, 1_500);
}

/// What is given out for drawing says of each event what the oracle says.
#[test]
fn what_is_exported_is_what_the_rules_say() {
    let [judges] = over_seeds(1_000, |seed| {
        let graph = graph(seed);
        let oracle = Oracle::new(&graph.events, &graph.weights, graph.coin_rounds);
        let mut engine = engine(&graph.weights, graph.coin_rounds);
        graph.events.iter().for_each(|event| engine.insert(event).expect("takes it in"));
        let rounds = oracle.ordered_rounds();
        let mut judges = 0;
        let all = engine.export(Round(1), usize::MAX);
        assert!(all.iter().map(|drawn| &drawn.event).eq(&graph.events));
        for (x, drawn) in all.iter().enumerate() {
            let id = drawn.event.id;
            let received = rounds.iter().find(|round| round.events.iter().any(|(event, _)| *event == id));
            assert_eq!(drawn.received.map(|round| round.0), received.map(|round| round.round));
            assert_eq!(drawn.round.0, oracle.round(x));
            assert_eq!(drawn.is_witness(), oracle.is_witness(x));
            assert_eq!(drawn.is_judge, rounds.iter().any(|round| round.judges.contains(&id)));
            let is_decided = drawn.round.0 <= rounds.len() as u64;
            assert!(drawn.fame != Some(Fame::Undecided) || !is_decided);
            judges += usize::from(drawn.is_judge);
        }
        let last = all.iter().filter(|drawn| drawn.round >= Round(3)).count();
        assert_eq!(engine.export(Round(3), usize::MAX).len(), last);
        [judges]
    });
    at_least("judges", judges, 500);
}
