//! Graphs worked out by hand; the oracle and the engine have to agree with the comments.
//!
//! Members are A, B, C, D. Unless it says otherwise they weigh 1 each, so that a supermajority of four is
//! three.

use consensus::hashgraph::Fame;

use crate::compare::{engine, poll};
use crate::draw::{Drawing, draw};
use crate::oracle::{Oracle, OracleRound};

const EQUAL: [u64; 4] = [1; 4];

/// Checks both for the rounds that events were created in (a witness has a `*`), and for the ordered rounds.
#[track_caller]
fn check(weights: &[u64], text: &str, created: &[&str], ordered: &[&str]) {
    let drawing = draw(text);
    let events = &drawing.events;
    let oracle = Oracle::new(events, weights, 3);
    let mut engine = engine(weights, 3);
    events.iter().for_each(|event| engine.insert(event).expect("takes it in"));

    let rounds_of = |round: &dyn Fn(usize) -> u64, witness: &dyn Fn(usize) -> bool| -> Vec<String> {
        let last = (0..events.len()).map(round).max().unwrap_or(0);
        let shown =
            |x: usize| format!("{}{}", drawing.name(&events[x].id), if witness(x) { "*" } else { "" });
        let of_one =
            |of: u64| (0..events.len()).filter(|&x| round(x) == of).map(shown).collect::<Vec<_>>().join(" ");
        (1..=last).map(of_one).collect()
    };
    let by_oracle = rounds_of(&|x| oracle.round(x), &|x| oracle.is_witness(x));
    assert_eq!(by_oracle, created, "rounds created, by the oracle");
    let engine_round = |x: usize| engine.round_of(&events[x].id).expect("it is there").0;
    let created_by_engine = rounds_of(&engine_round, &|x| engine.is_witness(&events[x].id));
    assert_eq!(created_by_engine, created, "rounds created, by the engine");

    assert_eq!(show(&drawing, &oracle.ordered_rounds()), ordered, "rounds ordered, by the oracle");
    assert_eq!(show(&drawing, &poll(&mut engine)), ordered, "rounds ordered, by the engine");
}

fn show(drawing: &Drawing, rounds: &[OracleRound]) -> Vec<String> {
    let event = |(id, time_us): &(_, u64)| format!(" {}@{time_us}", drawing.name(id));
    let round = |round: &OracleRound| {
        let events: String = round.events.iter().map(event).collect();
        format!("{}: {} ->{events}", round.round, drawing.names(&round.judges))
    };
    rounds.iter().map(round).collect()
}

/// One member is a supermajority. Each event strongly sees the one before, so it begins a round, and decides,
/// two rounds on, the fame of that: A3 decides A1, A4 decides A2. Each is received by its own round, at its
/// own time.
#[test]
fn one_member_alone_orders_its_events() {
    check(
        &[1],
        "A1@10 A2@20 A3@35 A4@36",
        &["A1*", "A2*", "A3*", "A4*"],
        &["1: A1 -> A1@10", "2: A2 -> A2@20"],
    );
}

/// A2 to D2 see all of A1 to D1, but strongly see none: who is in between is one's self, and the witness's
/// creator.
///
/// A3 knows A2 and B2. It strongly sees C1 (through A2, B2, C1) and D1 (A2, B2, D1), but A1 and B1 through A
/// and B only: two of four witnesses, round 1.
///
/// C3 knows C2 and B2: it strongly sees A1 and D1 only, round 1. But B3 knows A3 and C2 as well, so A2, B2
/// and C2, which see all four: round 2. It is a witness. D3 knows B3, so it is in round 2 at least, and the
/// first of D there.
#[test]
fn round_2_starts_with_who_strongly_sees_three_of_four() {
    check(
        &EQUAL,
        "A1 B1 C1 D1  A2(B1,C1,D1) B2(A1,C1,D1) C2(A1,B1,D1) D2(A1,B1,C1)
         A3(B2) C3(B2) B3(A3,C2) D3(B3)",
        &["A1* B1* C1* D1* A2 B2 C2 D2 A3 C3", "B3* D3*"],
        &[],
    );
}

/// Without C. A2, B2, D2 see A1, B1, D1, and A3 knows all three of them: it strongly sees three witnesses,
/// through A, B and D: round 2.
///
/// Then D forks: D2' is on D1 as D2 is. B2 knows D2' instead, and A3 through it both branches. It sees no
/// event of D: not D1, and not what D is in between of. A1 and B1 it sees through A and B alone: round 1.
#[test]
fn who_forks_is_not_seen() {
    check(&EQUAL, "A1 B1 D1 A2(B1,D1) D2(A1,B1) B2(A1,D1) A3(B2,D2)", &["A1* B1* D1* A2 D2 B2", "A3*"], &[]);
    check(
        &EQUAL,
        "A1 B1 D1 A2(B1,D1) D2(A1,B1) D2'(A1) B2(A1,D2') A3(B2,D2)",
        &["A1* B1* D1* A2 D2 D2' B2 A3"],
        &[],
    );
}

/// D begins twice. C knows D1' and nobody else does; D1 and D1' are both witnesses of round 1. A2, B2, D2 see
/// D1.
///
/// A3 knows A2, B2, D2 and strongly sees A1, B1, D1: round 2. C2 knows A3, hence both beginnings: it is in
/// round 2 for its parent, and sees no D.
#[test]
fn two_beginnings_are_a_fork_and_both_are_witnesses() {
    check(
        &EQUAL,
        "A1 B1 D1 D1' C1(D1') A2(B1,D1) D2(A1,B1) B2(A1,D1) A3(B2,D2) C2(A3)",
        &["A1* B1* D1* D1'* C1* A2 D2 B2", "A3* C2*"],
        &[],
    );
}

/// Everybody's second event knows everybody's first. With A as heavy as the rest together, of 6 more than 4
/// are a supermajority.
///
/// B3 knows B2, C2, D2: all four of the first witnesses, each through B, C and D, A1 through A as well. Of
/// equal weight, round 2. With a heavy A only A1 is strongly seen (B, C, D alone weigh 3), which weighs 3:
/// round 1.
///
/// A3 knows A2, B2: it sees A1 and B1 through A and B, which weigh 4 of 6, two thirds and not more; only C1
/// and D1 through one more: round 1. A4 knows C2 as well: A, B, C weigh 5, for all four: round 2.
#[test]
fn weights_shift_what_a_supermajority_is() {
    let text = "A1 B1 C1 D1  A2(B1,C1,D1) B2(A1,C1,D1) C2(A1,B1,D1) D2(A1,B1,C1)
         B3(C2,D2) A3(B2) A4(C2)";
    check(&EQUAL, text, &["A1* B1* C1* D1* A2 B2 C2 D2 A3", "B3* A4*"], &[]);
    check(&[3, 1, 1, 1], text, &["A1* B1* C1* D1* A2 B2 C2 D2 B3 A3", "A4*"], &[]);
}

/// Everybody knows, each time, everybody's last event. The third strongly see all the first: round 2; the
/// fifth the third: round 3; the seventh: round 4.
///
/// A5 is the first witness of round 3. It strongly sees A3 to D3, which all see A1 to D1: all four are
/// famous, round 1 is decided. No event is an ancestor of all of A1 to D1, so it receives none. A7 decides
/// round 2 in the same way, whose judges A3 to D3 have the first two events of everybody as ancestors.
///
/// When A, B, C and D knew of each, by number in the list (A2 is 5, …, D2 8, A3 9, …, D3 12), and the lower
/// median:
///
/// | event | A | B | C | D | timestamp |
/// |---|---|---|---|---|---|
/// | A1 | 1 | 6 | 7 | 8 | 6 |
/// | B1 | 5 | 2 | 7 | 8 | 5 |
/// | C1 | 5 | 6 | 3 | 8 | 5 |
/// | D1 | 5 | 6 | 7 | 4 | 5 |
/// | A2 | 5 | 10 | 11 | 12 | 10 |
/// | B2 | 9 | 6 | 11 | 12 | 9 |
/// | C2 | 9 | 10 | 7 | 12 | 9 |
/// | D2 | 9 | 10 | 11 | 8 | 9 |
///
/// In a tie signatures are XORed with those of A3 to D3: 1 ^ 2 ^ 3 ^ 4 = 4 in the first byte, four times the
/// same in the second. So B (2 ^ 4 = 6), C (7) and D (0) stand as D, B, C.
#[test]
fn the_first_round_that_receives_events_orders_them() {
    check(
        &EQUAL,
        "A1 B1 C1 D1
         A2(B1,C1,D1) B2(A1,C1,D1) C2(A1,B1,D1) D2(A1,B1,C1)
         A3(B2,C2,D2) B3(A2,C2,D2) C3(A2,B2,D2) D3(A2,B2,C2)
         A4(B3,C3,D3) B4(A3,C3,D3) C4(A3,B3,D3) D4(A3,B3,C3)
         A5(B4,C4,D4) B5(A4,C4,D4) C5(A4,B4,D4) D5(A4,B4,C4)
         A6(B5,C5,D5) B6(A5,C5,D5) C6(A5,B5,D5) D6(A5,B5,C5)
         A7(B6,C6,D6)",
        &["A1* B1* C1* D1* A2 B2 C2 D2", "A3* B3* C3* D3* A4 B4 C4 D4", "A5* B5* C5* D5* A6 B6 C6 D6", "A7*"],
        &["1: A1 B1 C1 D1 ->", "2: A3 B3 C3 D3 -> D1@5 B1@5 C1@5 A1@6 D2@9 B2@9 C2@9 A2@10"],
    );
}

/// The same among A, B and C. D makes one event, of which nobody knows, or two, of which all learn at once.
///
/// D1 unknown: A3, B3, C3 do not see it and vote no, A5 strongly sees those three: D1 is not famous, and
/// round 1 is decided without it. Of three judges, the median is the second: A1 at 1, 6, 7 is 6; B1 at 5, 2,
/// 7 is 5; C1 at 5, 6, 3 is 5; A2 at 5, 9, 10 is 9; B2 at 8, 6, 10 is 8; C2 at 8, 9, 7 is 8. Signatures are
/// XORed with 1 ^ 2 ^ 3 = 0.
///
/// D1 and D2 known from A2, B2, C2 on, which are at 6, 7, 8: both have the timestamp 7, as A1 has (1, 7, 8).
/// D1 is famous, seen by A3, B3 and C3. In the tie A comes first, then D; the second byte of D1 is 0x10 ^
/// 0x30 = 0x20, that of D2 0x20 ^ 0x30 = 0x10, yet D1 comes first, being D2's parent. B1 is at 6, 2, 8: 6; C1
/// at 6, 7, 3: 6; A2 at 6, 10, 11: 10; B2 at 9, 7, 11 and C2 at 9, 10, 8: 9.
#[test]
fn who_is_not_seen_is_not_famous_and_parents_come_first_in_a_tie() {
    let rest = "A3(B2,C2) B3(A2,C2) C3(A2,B2)  A4(B3,C3) B4(A3,C3) C4(A3,B3)
         A5(B4,C4) B5(A4,C4) C5(A4,B4)  A6(B5,C5) B6(A5,C5) C6(A5,B5)  A7(B6,C6)";
    let later = ["A3* B3* C3* A4 B4 C4", "A5* B5* C5* A6 B6 C6", "A7*"];
    check(
        &EQUAL,
        &format!("A1 B1 C1 D1  A2(B1,C1) B2(A1,C1) C2(A1,B1) {rest}"),
        &[&["A1* B1* C1* D1* A2 B2 C2"], &later[..]].concat(),
        &["1: A1 B1 C1 ->", "2: A3 B3 C3 -> B1@5 C1@5 A1@6 B2@8 C2@8 A2@9"],
    );
    check(
        &EQUAL,
        &format!("A1 B1 C1 D1 D2  A2(B1,C1,D2) B2(A1,C1,D2) C2(A1,B1,D2) {rest}"),
        &[&["A1* B1* C1* D1* D2 A2 B2 C2"], &later[..]].concat(),
        &["1: A1 B1 C1 D1 ->", "2: A3 B3 C3 -> B1@6 C1@6 A1@7 D1@7 D2@7 B2@9 C2@9 A2@10"],
    );
}

/// Five members, so that four are a supermajority, and E begins twice. Nobody's second event knows E; A3 and
/// B3 know E1, C3 and D3 know E1'. These four strongly see A1 to D1 through A, B, C and D: round 2. Two vote
/// that E1 is famous and two that it is not, and the same for E1'.
///
/// The fifth events, of round 3, strongly see all four: a tie, which is yes, for E1 and for E1'. The seventh,
/// of round 4, hear four times yes in a coin round, and follow. A9 hears it again and decides: E has two
/// famous witnesses in round 1, so neither is a judge.
#[test]
fn who_has_two_famous_witnesses_has_no_judge() {
    let all = |height: u32| {
        let event = |creator: char| {
            let others: Vec<String> = "ABCD"
                .chars()
                .filter(|&other| other != creator)
                .map(|other| format!("{other}{}", height - 1))
                .collect();
            format!("{creator}{height}({})", others.join(","))
        };
        "ABCD".chars().map(event).collect::<Vec<_>>().join(" ")
    };
    let text = format!(
        "A1 B1 C1 D1 E1 E1' {}
         A3(B2,C2,D2,E1) B3(A2,C2,D2,E1) C3(A2,B2,D2,E1') D3(A2,B2,C2,E1')
         {} A9(B8,C8,D8)",
        all(2),
        (4..=8).map(all).collect::<Vec<_>>().join(" "),
    );
    let drawing = draw(&text);
    let rounds = Oracle::new(&drawing.events, &[1; 5], 3).ordered_rounds();
    assert_eq!(show(&drawing, &rounds)[0], "1: A1 B1 C1 D1 ->");
    let mut engine = engine(&[1; 5], 3);
    drawing.events.iter().for_each(|event| engine.insert(event).expect("takes it in"));
    assert_eq!(poll(&mut engine), rounds);
    let of_e = drawing.events.iter().filter(|event| event.creator.0 == 4);
    assert!(of_e.clone().all(|event| engine.fame_of(&event.id) == Some(Fame::Famous)));
    assert_eq!(of_e.count(), 2);
}
