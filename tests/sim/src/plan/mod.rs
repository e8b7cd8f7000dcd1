//! What a seed has in store: how many members, who of them lies and how, what the network does to frames, who is cut
//! off and who crashes when. Faults end with the safety phase; then all heals, and what was said has to be ordered.

mod changes;

use crate::random::Random;
use crate::world::Ask;

/// When faults end, in microseconds.
const HEALS_US: u64 = 5_000_000;
/// When the simulation ends.
const ENDS_US: u64 = 12_000_000;

/// How a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It leads two lives, each shown to half of the others.
    TwoLives,
    /// It takes and says nothing.
    Silent,
    /// It sends its events to half of the others only.
    Partial,
    /// It sends events that it did not sign, and signed ones that no honest member makes, beside its own.
    Forging,
    /// It makes bursts of events, more than a member may in a round.
    Flooding,
    /// It makes its events on its own alone, so that no round ends by them.
    Deaf,
    /// It gives its word for roots that no block has come to.
    WrongRoot,
}

/// Who does not reach whom, and when.
#[derive(Clone, Debug)]
pub struct Cut {
    /// From when, in microseconds.
    pub from_us: u64,
    /// Until when.
    pub until_us: u64,
    /// Frames from members of this side do not arrive at the others.
    pub side: Vec<bool>,
    /// And those of the others do not arrive here.
    pub both_ways: bool,
    /// Whether members hear of it when it ends.
    pub is_told: bool,
}

/// A member that stops, loses what was not durable, and comes back.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Who.
    pub member: usize,
    /// When, in microseconds.
    pub at_us: u64,
    /// When it is back.
    pub back_us: u64,
    /// How much of its disk is lost, of 100: it is restored from an older one. Nothing, but for few.
    pub lost: u64,
}

/// A clock that is set, forward or back.
#[derive(Clone, Copy, Debug)]
pub struct Jump {
    /// Whose.
    pub member: usize,
    /// When, in microseconds.
    pub at_us: u64,
    /// By how much.
    pub by_us: i64,
}

/// A seed's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members at the beginning.
    pub members: usize,
    /// Rounds of an epoch at most, unless there is no such bound.
    pub epoch_rounds: Option<u64>,
    /// What is brought to members about members, and when.
    pub changes: Vec<(usize, u64, Ask)>,
    /// Who lies, and how.
    pub lies: Vec<Option<Lie>>,
    /// Events that a member may make in a round.
    pub events_a_round_max: u32,
    /// When faults end, and when the simulation does, in microseconds.
    pub heals_us: u64,
    /// See there.
    pub ends_us: u64,
    /// Until when something new is said.
    pub submits_us: u64,
    /// Frames that are lost, of 100.
    pub loss: u64,
    /// Frames that come twice, of 100.
    pub twice: u64,
    /// The usual way of a frame, in microseconds.
    pub delay_us: u64,
    /// The longest that one may take instead, and of how many of 100.
    pub slow: (u64, u64),
    /// How long the disk takes to sync at most.
    pub sync_us_max: u64,
    /// Cuts.
    pub cuts: Vec<Cut>,
    /// Crashes.
    pub crashes: Vec<Crash>,
    /// What each member's clock is ahead of the slowest, in microseconds.
    pub clocks: Vec<u64>,
    /// Clocks that are set.
    pub jumps: Vec<Jump>,
    /// Microseconds between two submits in the mean.
    pub submit_us: u64,
}

impl Plan {
    /// A network without faults in which nothing is said.
    pub fn calm(members: usize) -> Self {
        Self {
            members,
            epoch_rounds: None,
            changes: Vec::new(),
            lies: vec![None; members],
            events_a_round_max: 65_536,
            heals_us: 0,
            ends_us: ENDS_US,
            submits_us: 0,
            loss: 0,
            twice: 0,
            delay_us: 5_000,
            slow: (1, 0),
            sync_us_max: 1_000,
            cuts: Vec::new(),
            crashes: Vec::new(),
            clocks: vec![0; members],
            jumps: Vec::new(),
            submit_us: u64::MAX / 4,
        }
    }

    /// The plan of a seed.
    pub fn of(random: &mut Random) -> Self {
        let members = random.pick(&[4, 4, 4, 4, 4, 7, 7, 7, 10, 13]);
        let faulty = random.below((members - 1) / 3 + 1);
        let mut lies = vec![None; members];
        for _ in 0..faulty {
            let who = random.below(members);
            let lie = random.pick(&[
                Lie::TwoLives,
                Lie::TwoLives,
                Lie::TwoLives,
                Lie::Silent,
                Lie::Partial,
                Lie::Forging,
                Lie::Flooding,
                Lie::Deaf,
                Lie::WrongRoot,
                Lie::WrongRoot,
            ]);
            lies[who] = Some(lie);
        }
        let is_flooded = lies.contains(&Some(Lie::Flooding));
        let is_rough = random.chance(60);
        let rough = |random: &mut Random, most| if is_rough { random.between(0, most) } else { 0 };
        let crashes = Self::some_crashes(random, &lies, faulty);
        let is_restored = crashes.iter().any(|crash| crash.lost > 0);
        let (joiners, changes) = changes::some(random, &lies, faulty + usize::from(is_restored));
        lies.resize(members + joiners, None);
        let cells = lies.len();
        Self {
            members,
            epoch_rounds: random.pick(&[None, None, None, Some(16), Some(24)]),
            changes,
            lies,
            events_a_round_max: if is_flooded { 250 } else { 65_536 },
            heals_us: HEALS_US,
            ends_us: ENDS_US,
            submits_us: (HEALS_US + ENDS_US) / 2,
            loss: rough(random, 30),
            twice: rough(random, 50),
            delay_us: random.between(300, 40_000),
            slow: if is_rough { (random.between(50_000, 5_000_000), random.between(0, 3)) } else { (1, 0) },
            sync_us_max: random.between(100, 5_000),
            cuts: Self::some_cuts(random, cells),
            crashes,
            clocks: (0..cells).map(|_| random.between(0, 4_000_000)).collect(),
            jumps: (0..random.below(3)).map(|_| Self::some_jump(random, cells)).collect(),
            submit_us: random.between(30_000, 2_000_000),
        }
    }

    fn some_cuts(random: &mut Random, members: usize) -> Vec<Cut> {
        let cut = |random: &mut Random| {
            let from_us = random.between(0, HEALS_US - 1);
            Cut {
                from_us,
                until_us: (from_us + random.between(200_000, 3_000_000)).min(HEALS_US),
                side: (0..members).map(|_| random.chance(40)).collect(),
                both_ways: random.chance(60),
                is_told: random.chance(50),
            }
        };
        (0..random.below(3)).map(|_| cut(random)).collect()
    }

    fn some_crashes(random: &mut Random, lies: &[Option<Lie>], faulty: usize) -> Vec<Crash> {
        let members = lies.len();
        let crash = |random: &mut Random, member| {
            let at_us = random.between(0, HEALS_US - 1);
            let back_us = (at_us + random.between(1_000, 1_500_000)).min(HEALS_US);
            Crash { member, at_us, back_us, lost: 0 }
        };
        let mut crashes: Vec<Crash> = Vec::new();
        for _ in 0..random.below(5) {
            let member = random.below(members);
            crashes.push(crash(random, member));
        }
        if random.chance(10) {
            // All of them, in whatever order they come back.
            let at_us = random.between(1_000_000, HEALS_US - 1_000_000);
            let all = (0..members).map(|member| Crash {
                member,
                at_us: at_us + random.between(0, 50_000),
                back_us: at_us + random.between(60_000, 900_000),
                lost: 0,
            });
            crashes.extend(all);
        }
        // Who is restored from an older disk may fork: it is one of the faulty.
        if faulty < (members - 1) / 3 && random.chance(40) {
            let member = random.below(members);
            if lies[member].is_none() {
                let lost = random.between(1, 100);
                crashes.push(Crash { lost, ..crash(random, member) });
            }
        }
        crashes
    }

    fn some_jump(random: &mut Random, members: usize) -> Jump {
        Jump {
            member: random.below(members),
            at_us: random.between(1_000_000, HEALS_US),
            by_us: random.between(0, 20_000_000) as i64 - 10_000_000,
        }
    }

    /// Cells, members or not.
    pub fn cells(&self) -> usize {
        self.lies.len()
    }

    /// Whether a member is honest, and its disk as well.
    pub fn is_sound(&self, member: usize) -> bool {
        self.lies[member].is_none() && !self.is_restored(member)
    }

    /// Whether a member is restored from an older disk at some time.
    pub fn is_restored(&self, member: usize) -> bool {
        self.crashes.iter().any(|crash| crash.member == member && crash.lost > 0)
    }

    /// Whether a frame sent now arrives at all.
    pub fn reaches(&self, from: usize, to: usize, now_us: u64) -> bool {
        self.cuts.iter().filter(|cut| (cut.from_us..cut.until_us).contains(&now_us)).all(|cut| {
            let leaves = cut.side[from] && !cut.side[to];
            let enters = !cut.side[from] && cut.side[to] && cut.both_ways;
            !leaves && !enters
        })
    }
}
