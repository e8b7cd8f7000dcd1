//! Two halves that do not reach each other: nobody can order anything, so all fall nearly silent, and wake at once when the cut is over.

use sim::{Cut, Lie, Plan, Random, World};

const CUT_US: u64 = 1_000_000;
const HEALS_US: u64 = 121_000_000;

/// A network of four or of seven in two parts, from soon after its beginning on.
fn split(side: &[bool], is_told: bool, later: &[Cut], lies: &[(usize, Lie)]) -> World {
    let mut plan = Plan::calm(side.len());
    lies.iter().for_each(|(who, lie)| plan.lies[*who] = Some(*lie));
    let cut = Cut { from_us: CUT_US, until_us: HEALS_US, side: side.to_vec(), both_ways: true, is_told };
    plan.cuts = [&[cut], later].concat();
    plan.heals_us = plan.cuts.iter().map(|cut| cut.until_us).max().unwrap_or(HEALS_US);
    plan.ends_us = plan.heals_us + 10_000_000;
    let mut world = World::with(plan, Random::new(1));
    // Work is open on both sides.
    (0..side.len()).for_each(|who| world.submit_at(who, CUT_US + 100_000));
    world.run();
    world
}

fn made(world: &World, from_us: u64, until_us: u64) -> usize {
    world.made.values().filter(|made| (from_us..until_us).contains(&made.at_us)).count()
}

/// All words are ordered by all within three seconds after the heal.
fn check_wakes(world: &World) {
    assert!(world.broken.is_empty(), "{:?}", world.broken);
    for member in world.members.iter().filter(|member| member.is_honest()) {
        let last = member.words.iter().map(|(_, at_us)| *at_us).max().expect("something was said");
        assert_eq!(member.words.len(), world.submitted.len());
        let after = last.saturating_sub(world.plan.heals_us);
        assert!(last > HEALS_US && after < 3_000_000, "the last word is ordered {after} us after the heal");
        assert!(member.is_at_rest());
    }
}

#[test]
fn halves_fall_silent_within_a_minute_and_wake_within_three_seconds() {
    let of_seven = [true, true, true, false, false, false, false];
    for (side, is_told) in
        [(&[true, true, false, false][..], true), (&[true, true, false, false], false), (&of_seven, true)]
    {
        let world = split(side, is_told, &[], &[]);
        let members = side.len();
        let begin = made(&world, CUT_US, CUT_US + 10_000_000);
        let later = made(&world, CUT_US + 60_000_000, HEALS_US);
        assert!(begin > 10 * members, "they try: {begin} events in the first ten seconds");
        assert!(later <= 3 * members, "{later} events of {members} members in the second minute");
        check_wakes(&world);
    }
}

/// The cut comes back again and again, and is over for a moment each time: everybody has built on everybody since its round last rose.
#[test]
fn halves_that_meet_for_moments_wake_as_soon() {
    let side = [true, true, false, false];
    let cut = |number: u64| {
        let from_us = HEALS_US + 20_000 + number * 10_000_000;
        Cut { from_us, until_us: from_us + 9_980_000, side: side.to_vec(), both_ways: true, is_told: true }
    };
    let cuts: Vec<Cut> = (0..6).map(cut).collect();
    let world = split(&side, true, &cuts, &[]);
    assert!(world.broken.is_empty(), "{:?}", world.broken);
    assert!(
        world.members.iter().all(|member| member.words.len() == world.submitted.len() && member.is_at_rest())
    );
}

/// Of four, one is cut off, and one makes its events on its own alone: two and it are a supermajority that no round ends by. So
/// patience is not what they need.
#[test]
fn a_round_that_does_not_end_is_crowded_by_nobody() {
    let world = split(&[true, false, false, false], true, &[], &[(3, Lie::Deaf)]);
    let later = made(&world, CUT_US, HEALS_US) - world.made.values().filter(|made| made.by == 3).count();
    // In two minutes each makes so many that each is a millisecond later than the one before.
    assert!((300..2 * 520).contains(&later), "{later} events of two members in two minutes");
    check_wakes(&world);
}
