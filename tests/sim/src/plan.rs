//! What a seed has in store: how many members, who of them lies and how, what the network does to frames, who is cut
//! off and who crashes when. Faults end with the safety phase; then all heals, and what was said has to be ordered.

use crate::random::Random;

/// When faults end, in microseconds.
pub const HEALS_US: u64 = 5_000_000;
/// When the simulation ends.
pub const ENDS_US: u64 = 12_000_000;

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
}

/// A seed's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Who lies, and how.
    pub lies: Vec<Option<Lie>>,
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
    /// What each member's clock is ahead or behind, in microseconds.
    pub clocks: Vec<i64>,
    /// Microseconds between two submits in the mean.
    pub submit_us: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(random: &mut Random) -> Self {
        let members = [4, 4, 4, 4, 4, 7, 7, 7, 10, 13][random.below(10)];
        let liars = random.below((members - 1) / 3 + 1);
        let mut lies = vec![None; members];
        for _ in 0..liars {
            let who = random.below(members);
            lies[who] = Some(
                [Lie::TwoLives, Lie::TwoLives, Lie::Silent, Lie::Partial, Lie::Forging][random.below(5)],
            );
        }
        let is_rough = random.chance(60);
        let rough = |random: &mut Random, most| if is_rough { random.between(0, most) } else { 0 };
        let cuts = (0..random.below(3)).map(|_| {
            let from_us = random.between(0, HEALS_US - 1);
            Cut {
                from_us,
                until_us: (from_us + random.between(200_000, 3_000_000)).min(HEALS_US),
                side: (0..members).map(|_| random.chance(40)).collect(),
                both_ways: random.chance(60),
            }
        });
        let cuts = cuts.collect();
        let crashes = (0..random.below(5)).map(|_| {
            let at_us = random.between(0, HEALS_US - 1);
            let back_us = (at_us + random.between(1_000, 1_500_000)).min(HEALS_US);
            Crash { member: random.below(members), at_us, back_us }
        });
        let mut crashes: Vec<Crash> = crashes.collect();
        if random.chance(10) {
            // All of them, in whatever order they come back.
            let at_us = random.between(1_000_000, HEALS_US - 1_000_000);
            let all = (0..members).map(|member| Crash {
                member,
                at_us: at_us + random.between(0, 50_000),
                back_us: at_us + random.between(60_000, 900_000),
            });
            crashes.extend(all);
        }
        Self {
            members,
            lies,
            loss: rough(random, 30),
            twice: rough(random, 50),
            delay_us: random.between(300, 40_000),
            slow: if is_rough { (random.between(50_000, 5_000_000), random.between(0, 3)) } else { (1, 0) },
            sync_us_max: random.between(100, 5_000),
            cuts,
            crashes,
            clocks: (0..members).map(|_| random.between(0, 4_000_000) as i64 - 2_000_000).collect(),
            submit_us: random.between(30_000, 1_000_000),
        }
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
