//! Many seeds, all invariants.
//!
//! `SIM_SEED=7 cargo test --release -p sim` runs one seed alone; each failure names its own. `SIM_SEEDS=5000` runs more
//! (`cargo xtask campaign sim 5000`).

use std::time::{Duration, Instant};

use sim::{Lie, Plan, Random, World, invariants};

/// As in our programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds, unless told.
const SEEDS: u64 = 1_000;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a seed; what was broken.
fn broken(seed: u64) -> (World, Option<String>) {
    let mut world = World::new(seed);
    world.run();
    let broken =
        invariants::ALL.iter().find_map(|(name, check)| check(&world).map(|why| format!("{name}: {why}")));
    (world, broken)
}

/// What has to be among the runs, or they show nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    simulated: Duration,
    events: usize,
    words: usize,
    rounds: usize,
    crashes: usize,
    restored: usize,
    rolled_back: usize,
    forks: usize,
    unsigned: u64,
    refused: u64,
    two_lives: usize,
    read_back: u64,
    blocks: usize,
    epochs: usize,
    taken_over: u64,
    wrong_roots: usize,
    joined: usize,
    gone: usize,
}

impl Seen {
    fn of(world: &World) -> Self {
        let honest = || world.members.iter().filter(|member| member.is_honest());
        let last = world.epochs.last_key_value().map_or(&[][..], |(_, epoch)| epoch.cells());
        Self {
            simulated: Duration::from_micros(world.plan.ends_us),
            events: world.made.len(),
            words: world.acknowledged.len(),
            rounds: honest().map(|member| member.rounds.len()).max().unwrap_or(0),
            crashes: world.plan.crashes.len(),
            restored: world.plan.crashes.iter().filter(|crash| crash.lost > 0).count(),
            rolled_back: honest().filter(|member| member.is_rolled_back()).count(),
            forks: honest().map(|member| member.forks.len()).sum(),
            unsigned: honest().map(|member| member.unsigned).sum(),
            refused: honest().map(|member| member.refused).sum(),
            two_lives: world.plan.lies.iter().filter(|lie| **lie == Some(Lie::TwoLives)).count(),
            read_back: honest().map(|member| member.read_back).sum(),
            blocks: honest().map(|member| member.blocks.len()).max().unwrap_or(0),
            epochs: world.epochs.len(),
            taken_over: honest().map(|member| member.taken_over).sum(),
            joined: last.iter().filter(|cell| **cell >= world.plan.members).count(),
            gone: (0..world.plan.members).filter(|cell| !last.contains(cell)).count(),
            wrong_roots: world.plan.lies.iter().filter(|lie| **lie == Some(Lie::WrongRoot)).count(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            simulated: self.simulated + other.simulated,
            events: self.events + other.events,
            words: self.words + other.words,
            rounds: self.rounds + other.rounds,
            crashes: self.crashes + other.crashes,
            restored: self.restored + other.restored,
            rolled_back: self.rolled_back + other.rolled_back,
            forks: self.forks + other.forks,
            unsigned: self.unsigned + other.unsigned,
            refused: self.refused + other.refused,
            two_lives: self.two_lives + other.two_lives,
            read_back: self.read_back + other.read_back,
            blocks: self.blocks + other.blocks,
            epochs: self.epochs + other.epochs,
            taken_over: self.taken_over + other.taken_over,
            joined: self.joined + other.joined,
            gone: self.gone + other.gone,
            wrong_roots: self.wrong_roots + other.wrong_roots,
        }
    }
}

#[test]
fn all_invariants_hold_for_all_seeds() {
    let seeds: Vec<u64> = match from_env("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_env("SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let some = |thread: usize| {
        let (mut seen, mut failed) = (Seen::default(), Vec::new());
        for seed in seeds.iter().skip(thread).step_by(threads) {
            let (world, broken) = broken(*seed);
            if seeds.len() == 1 {
                eprintln!("{}", world.show());
            }
            failed.extend(broken.map(|why| format!("seed {seed}: {why}")));
            seen = seen.and(Seen::of(&world));
        }
        (seen, failed)
    };
    let (seen, failed) = std::thread::scope(|scope| {
        let some = &some;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || some(thread))).collect();
        let all = running.into_iter().map(|thread| thread.join().expect("it runs to the end"));
        all.fold((Seen::default(), Vec::new()), |(seen, failed), (more, others)| {
            (seen.and(more), [failed, others].concat())
        })
    });
    let times = seen.simulated.as_secs_f64() / began.elapsed().as_secs_f64();
    eprintln!("{} seeds, {times:.0} times as fast as the clock on {threads} threads: {seen:#?}", seeds.len());
    let list = failed.join("\n");
    assert!(failed.is_empty(), "{list}\nrepeat one with: SIM_SEED=… cargo test --release -p sim");
    if seeds.len() as u64 >= SEEDS {
        assert!(seen.words > 5_000 && seen.rounds > 10_000, "much is ordered: {seen:?}");
        assert!(seen.crashes > 1_000 && seen.forks > 150 && seen.two_lives > 100, "faults happen: {seen:?}");
        assert!(seen.restored > 100 && seen.rolled_back > 50, "disks are restored: {seen:?}");
        assert!(seen.unsigned > 10_000 && seen.refused > 1_000, "lies are refused: {seen:?}");
        assert!(seen.read_back > 1_000, "what has left memory is sent: {seen:?}");
        assert!(seen.blocks > 8_000 && seen.wrong_roots > 100, "blocks become final, lies or not: {seen:?}");
        assert!(seen.epochs > 1_300 && seen.taken_over > 500, "epochs end, and some catch up: {seen:?}");
        assert!(seen.joined > 100 && seen.gone > 200, "members come and go: {seen:?}");
    }
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    for seed in [0, 1, 3, 5, 7, 8, 10, 11] {
        assert_eq!(broken(seed).0.trace, broken(seed).0.trace, "seed {seed}");
    }
}

#[test]
fn events_sent_before_they_are_durable_make_honest_members_fork() {
    let (_, check) =
        invariants::ALL.iter().find(|(name, _)| *name == "no self-equivocation").expect("is one of them");
    // A member that starts asks the others what it has forgotten, and so is mostly saved: it takes a while to find one that is not,
    // and less where disks are slow.
    let forks = |seed| {
        let mut random = Random::new(seed);
        let plan = Plan { sync_us_max: 60_000, ..Plan::of(&mut random) };
        let mut world = World::with(plan, random);
        world.careless = true;
        world.run();
        check(&world).is_some()
    };
    assert!((0..100).any(forks), "the simulator sees it");
}
