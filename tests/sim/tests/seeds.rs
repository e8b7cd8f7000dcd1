//! Many seeds, all invariants.
//!
//! `SIM_SEED=7 cargo test --release -p sim` runs one seed alone; each failure names its own. `SIM_SEEDS=1000` runs more
//! (`cargo xtask campaign sim 1000`).

use std::time::Duration;

use sim::{ENDS_US, Lie, World, invariants};

/// Seeds, unless told.
const SEEDS: u64 = 120;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a seed; what was broken.
fn broken(seed: u64, careless: bool) -> (World, Option<String>) {
    let mut world = World::new(seed);
    world.careless = careless;
    world.run();
    let broken =
        invariants::ALL.iter().find_map(|(name, check)| check(&world).map(|why| format!("{name}: {why}")));
    (world, broken)
}

/// What has to be among the runs, or they show nothing.
#[derive(Debug, Default)]
struct Seen {
    words: usize,
    rounds: usize,
    crashes: usize,
    forks: usize,
    refused: u64,
    two_lives: usize,
}

#[test]
fn all_invariants_hold_for_all_seeds() {
    let seeds: Vec<u64> = match from_env("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_env("SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let some = |thread: usize| {
        let mut seen = Seen::default();
        for seed in seeds.iter().skip(thread).step_by(threads) {
            let (world, broken) = broken(*seed, false);
            if let Some(why) = broken {
                panic!("seed {seed}: {why}; repeat it with: SIM_SEED={seed} cargo test --release -p sim");
            }
            seen.words += world.acknowledged.len();
            seen.rounds += world.members.iter().map(|member| member.rounds.len()).max().unwrap_or(0);
            seen.crashes += world.plan.crashes.len();
            seen.forks += world
                .members
                .iter()
                .filter(|member| member.is_honest())
                .map(|member| member.forks.len())
                .sum::<usize>();
            seen.refused += world.members.iter().map(|member| member.refused).sum::<u64>();
            seen.two_lives += world.plan.lies.iter().filter(|lie| **lie == Some(Lie::TwoLives)).count();
        }
        seen
    };
    let all = std::thread::scope(|scope| {
        let some = &some;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || some(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("all seeds hold")).collect::<Vec<_>>()
    });
    let simulated = Duration::from_micros(ENDS_US) * seeds.len() as u32;
    eprintln!("{} seeds, {simulated:?} of simulated time: {all:#?}", seeds.len());
    if seeds.len() as u64 >= SEEDS {
        let sum = |of: fn(&Seen) -> usize| all.iter().map(of).sum::<usize>();
        assert!(
            sum(|seen| seen.words) > 1_000 && sum(|seen| seen.rounds) > 2_000,
            "much is ordered: {all:?}"
        );
        assert!(sum(|seen| seen.crashes) > 100 && sum(|seen| seen.forks) > 100, "faults happen: {all:?}");
        assert!(sum(|seen| seen.refused as usize) > 1_000, "lies are refused: {all:?}");
    }
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    for seed in [0, 1, 3, 5, 7, 8, 10, 11] {
        assert_eq!(broken(seed, false).0.trace, broken(seed, false).0.trace, "seed {seed}");
    }
}

#[test]
fn events_sent_before_they_are_durable_make_honest_members_fork() {
    let (_, check) =
        invariants::ALL.iter().find(|(name, _)| *name == "no self-equivocation").expect("is one of them");
    let red = (0..20).filter(|seed| check(&broken(*seed, true).0).is_some());
    assert!(red.count() >= 1, "the simulator sees it");
}
