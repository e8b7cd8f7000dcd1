//! Members side by side, each step by hand; under faults see the simulator (`tests/sim`).

use protocol::signing::Signature;

use super::*;
use crate::hashgraph;

const SETTINGS: Settings = Settings {
    pace: Pace { interval_us_min: 10, patience_us: 20 },
    answer_us_max: 100,
    quiet_us_max: 200,
    silence_us_max: 1_000,
    waiting_max: 3,
    frames_max: 2,
    payload_bytes_max: 0,
};

fn gossip(me: u16, members: usize) -> Gossip {
    let settings = hashgraph::Settings { coin_rounds: 6, events_a_round_max: 100 };
    Gossip::new(MemberIndex(me), Hashgraph::new(&vec![1; members], settings), SETTINGS, 0)
}

/// An event by its number: that of its self-parent and of other-parents.
fn said(number: u8, creator: u16, self_parent: Option<u8>, others: &[u8], payload: usize) -> Arc<Said> {
    let id = |number: u8| EventId([number; 32]);
    let event = Event {
        id: id(number),
        creator: MemberIndex(creator),
        self_parent: self_parent.map(id),
        other_parents: others.iter().copied().map(id).collect(),
        time_us: u64::from(number),
        signature: Signature::from_bytes([0; 64]),
    };
    Arc::new(Said { event, payload: vec![0; payload], orders: payload > 0, changes: false })
}

fn frames(gossip: &mut Gossip) -> Vec<(u16, Frame)> {
    std::iter::from_fn(|| gossip.poll_frame()).map(|(to, frame)| (to.0, frame)).collect()
}

/// What is asked of whom.
fn asks(gossip: &mut Gossip) -> Vec<u16> {
    let asks = frames(gossip).into_iter().filter(|(_, frame)| matches!(frame, Frame::Ask { .. }));
    asks.map(|(to, _)| to).collect()
}

/// The answer to a question: the numbers of its events, and whether there are more.
fn answer(gossip: &mut Gossip, tips: &[u8], now_us: u64) -> (Vec<Held>, bool) {
    let tips: Vec<EventId> = tips.iter().map(|number| EventId([*number; 32])).collect();
    gossip.handle_ask(MemberIndex(0), &tips, now_us);
    let answers = frames(gossip).into_iter().filter_map(|(_, frame)| match frame {
        Frame::Answer { events, more } => Some((events, more)),
        _ => None,
    });
    answers.last().expect("every question is answered")
}

fn numbers(events: &[Held]) -> Vec<u8> {
    let number = |held: &Held| match held {
        Held::Here(said) => said.event.id.0[0],
        Held::Recorded(_) => 0,
    };
    events.iter().map(number).collect()
}

fn push(to: &mut Gossip, events: &[&Arc<Said>], now_us: u64) {
    let from = events[0].event.creator;
    to.handle_events(from, events.iter().map(|said| Arc::clone(said)).collect(), now_us);
}

/// A member that has begun and heard that nobody knows anything.
fn started(members: u16) -> Gossip {
    let mut gossip = gossip(0, usize::from(members));
    gossip.begin(0);
    (1..members).for_each(|from| gossip.handle_answer(MemberIndex(from), Vec::new(), false, 0));
    assert!(gossip.is_started());
    frames(&mut gossip);
    gossip
}

#[test]
fn a_member_makes_no_event_before_a_supermajority_has_told_all() {
    let mut gossip = gossip(0, 4);
    gossip.set_to_say(true);
    assert_eq!(gossip.next_timeout_us(), u64::MAX);
    gossip.begin(0);
    assert_eq!(asks(&mut gossip), [1, 2, 3]);
    assert!(gossip.draft(0).is_none());
    gossip.handle_answer(MemberIndex(1), Vec::new(), false, 10);
    // Who was not asked cannot answer: this is one that was sent by itself.
    gossip.handle_answer(MemberIndex(1), Vec::new(), false, 10);
    assert!(gossip.draft(10).is_none(), "two of four");
    let more = vec![said(1, 1, None, &[], 0)];
    gossip.handle_answer(MemberIndex(2), more, true, 20);
    assert!(gossip.draft(20).is_none(), "it has not told all");
    assert_eq!(asks(&mut gossip), [2], "who has more is asked again at once");
    // Unanswered questions are repeated.
    assert_eq!(gossip.next_timeout_us(), 100);
    gossip.handle_timeout(119);
    assert_eq!(asks(&mut gossip), [3]);
    gossip.handle_timeout(120);
    assert_eq!(asks(&mut gossip), [2]);
    gossip.handle_answer(MemberIndex(2), Vec::new(), false, 130);
    assert!(gossip.is_started() && gossip.draft(130).is_some());
}

#[test]
fn a_member_alone_starts_at_once() {
    let mut gossip = gossip(0, 1);
    gossip.set_to_say(true);
    gossip.begin(5);
    let draft = gossip.draft(5).expect("it is a supermajority");
    assert_eq!((draft.self_parent, draft.other_parents.len(), draft.time_us), (None, 0, 5));
    assert_eq!(gossip.poll_frame().map(|(to, _)| to), None);
}

#[test]
fn who_was_not_heard_asks_again_in_the_next_epoch() {
    for was_heard in [false, true] {
        let mut gossip = gossip(0, 4);
        gossip.set_to_say(true);
        gossip.go_on(was_heard, 0);
        assert_eq!(gossip.draft(0).is_some(), was_heard);
        assert_eq!(asks(&mut gossip).len(), if was_heard { 0 } else { 3 });
    }
}

/// What an earlier life has made comes back with the journal, and does not say that this one was heard.
#[test]
fn a_life_is_heard_once_a_round_has_received_what_it_made() {
    let chain: Vec<_> =
        (1..=9u8).map(|number| said(number, 0, number.checked_sub(2).map(|_| number - 1), &[], 1)).collect();
    for lives_from in 0..=chain.len() {
        let mut gossip = gossip(0, 1);
        let (before, made) = chain.split_at(lives_from);
        (0..).zip(before).for_each(|(number, event)| gossip.replay(Arc::clone(event), number));
        gossip.begin(0);
        made.iter().for_each(|event| gossip.say(Arc::clone(event), u64::from(event.event.id.0[0])));
        while let Some((number, _)) = gossip.poll_record() {
            gossip.recorded(number, number);
        }
        let (mut is_heard, mut received) = (false, 0);
        while let Some(round) = gossip.poll_ordered() {
            is_heard |= gossip.speaks_in(&round);
            received += round.events.len();
        }
        assert_eq!(is_heard, received > lives_from, "{received} of {}", chain.len());
    }
}

/// A round is decided that has received the first of them, and waits for the journal when the epoch ends.
#[test]
fn what_was_not_given_out_is_to_be_said_again() {
    let mut gossip = gossip(0, 1);
    gossip.begin(0);
    let chain: Vec<_> =
        (1..=6u8).map(|number| said(number, 0, number.checked_sub(2).map(|_| number - 1), &[], 1)).collect();
    chain.iter().for_each(|event| gossip.say(Arc::clone(event), u64::from(event.event.id.0[0])));
    assert!(gossip.graph().pending_round() > Round(1) && gossip.poll_ordered().is_none());
    assert_eq!(gossip.unordered_own(), chain);
    while let Some((number, _)) = gossip.poll_record() {
        gossip.recorded(number, number);
    }
    let given_out = gossip.poll_ordered().expect("it is durable").events.len();
    assert_eq!(gossip.unordered_own(), chain[given_out..]);
}

/// Its second event was sent, and then its disk was restored.
#[test]
fn who_hears_of_an_own_event_that_it_has_not_makes_none_any_more() {
    let (first, second, other) =
        (said(1, 0, None, &[], 1), said(2, 0, Some(1), &[], 1), said(3, 1, None, &[2], 0));
    let mut gossip = gossip(0, 4);
    gossip.replay(Arc::clone(&first), 70);
    gossip.begin(0);
    gossip.handle_answer(MemberIndex(2), Vec::new(), false, 1);
    assert!(gossip.is_rolled_back().is_none());
    gossip.handle_answer(MemberIndex(1), vec![Arc::clone(&second), Arc::clone(&other)], false, 2);
    assert!(gossip.is_started());
    assert_eq!(gossip.is_rolled_back(), Some(&second));
    gossip.set_to_say(true);
    assert!(gossip.draft(1_000_000).is_none() && gossip.next_timeout_us() > 2, "nor is it woken for one");
    // It follows what others build on it, and what it had said is not lost.
    assert!(gossip.graph().contains(&other.event.id));
    assert_eq!(gossip.unordered_own(), [first, second]);
}

/// Of the third event of member 3 nobody has the parent.
#[test]
fn who_asks_is_told_of_its_own_events_that_wait_here_or_that_nobody_needs() {
    let mut gossip = started(4);
    push(
        &mut gossip,
        &[&said(1, 3, None, &[], 0), &said(5, 3, Some(4), &[], 0), &said(3, 3, Some(2), &[], 0)],
        1,
    );
    push(&mut gossip, &[&said(6, 1, None, &[1], 0), &said(7, 3, None, &[], 0)], 1);
    assert!(gossip.graph().is_forked(MemberIndex(3)));
    for (from, expected) in [(3, &[1, 6, 7, 5][..]), (2, &[1, 6])] {
        gossip.handle_ask(MemberIndex(from), &[], 2);
        let answers = frames(&mut gossip);
        let answer = answers.iter().find_map(|(_, frame)| match frame {
            Frame::Answer { events, more } => Some((numbers(events), *more)),
            _ => None,
        });
        assert_eq!(answer, Some((expected.to_vec(), false)), "to {from}");
    }
}

#[test]
fn own_events_are_sent_when_they_are_durable_and_answered_no_sooner() {
    let mut gossip = started(4);
    push(&mut gossip, &[&said(1, 1, None, &[], 1)], 1);
    let own = said(2, 0, None, &[1], 1);
    gossip.say(Arc::clone(&own), 2);
    assert!(frames(&mut gossip).is_empty());
    assert_eq!(numbers(&answer(&mut gossip, &[], 3).0), [1]);
    let records: Vec<u64> = std::iter::from_fn(|| gossip.poll_record()).map(|(number, _)| number).collect();
    assert_eq!(records, [0, 1]);
    gossip.recorded(0, 10);
    assert!(frames(&mut gossip).is_empty() && gossip.draft(1_000).is_none());
    gossip.recorded(1, 20);
    let sent = frames(&mut gossip);
    assert!(matches!(&sent[0].1, Frame::Events(events) if numbers(events) == [2]));
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(numbers(&answer(&mut gossip, &[], 4).0), [1, 2]);
    assert_eq!(numbers(&answer(&mut gossip, &[1], 4).0), [2]);
    assert!(numbers(&answer(&mut gossip, &[2], 4).0).is_empty(), "nothing is an answer too");
}

#[test]
fn an_answer_is_bounded_in_bytes_and_says_that_there_is_more() {
    let mut gossip = started(4);
    let half = ANSWER_BYTES_MAX / 2;
    let events =
        [said(1, 1, None, &[], half), said(2, 1, Some(1), &[], half), said(3, 1, Some(2), &[], 3 * half)];
    push(&mut gossip, &events.iter().collect::<Vec<_>>(), 1);
    for (tips, expected, more) in [(&[][..], &[1][..], true), (&[1], &[2], true), (&[2], &[3], false)] {
        let (events, has_more) = answer(&mut gossip, tips, 2);
        assert_eq!((numbers(&events).as_slice(), has_more), (expected, more), "{tips:?}");
    }
}

#[test]
fn of_two_questions_the_newer_is_answered_and_long_ones_are_cut() {
    let mut gossip = started(4);
    push(&mut gossip, &[&said(1, 1, None, &[], 0), &said(2, 1, Some(1), &[], 0)], 1);
    gossip.handle_ask(MemberIndex(3), &[], 2);
    gossip.handle_ask(MemberIndex(3), &[EventId([1; 32])], 2);
    let answers: Vec<_> = frames(&mut gossip);
    assert!(matches!(&answers[..], [(3, Frame::Answer { events, .. })] if numbers(events) == [2]));
    // Sixteen are looked at.
    let mut tips = vec![EventId([1; 32]); 16];
    tips.push(EventId([2; 32]));
    gossip.handle_ask(MemberIndex(3), &tips, 3);
    assert!(
        matches!(&frames(&mut gossip)[..], [(3, Frame::Answer { events, .. })] if numbers(events) == [2])
    );
}

#[test]
fn events_to_one_member_are_left_out_where_too_many_wait() {
    let mut outbox = Outbox::new(MemberIndex(0), 3, 2);
    (1..=5).for_each(|number| outbox.push(&said(number, 0, None, &[], 0)));
    outbox.ask(MemberIndex(2));
    outbox.answer(MemberIndex(2), vec![EventId([1; 32])]);
    outbox.answer(MemberIndex(2), vec![EventId([2; 32])]);
    let shown = |(to, due): (MemberIndex, outbox::Due)| match due {
        outbox::Due::Push(events) => format!("{} gets {} events", to.0, events.len()),
        outbox::Due::Ask => format!("{} is asked", to.0),
        outbox::Due::Answer(tips) => format!("{} is answered beyond {tips:?}", to.0),
    };
    let out: Vec<String> = std::iter::from_fn(|| outbox.pop()).map(shown).collect();
    let expected = ["1 gets 2 events", "2 gets 2 events", "2 is asked", "2 is answered beyond [02020202]"];
    assert_eq!(out, expected);
}

#[test]
fn what_waits_for_parents_is_bounded_and_leaves_nothing_behind() {
    let mut gossip = started(4);
    let chain: Vec<_> =
        (1..=6).map(|number| said(number, 1, (number > 1).then(|| number - 1), &[], 0)).collect();
    chain.iter().rev().for_each(|said| push(&mut gossip, &[said, said], 1));
    // Of 6, 5 and 4 wait; 3 and 2 found no room; 1 came.
    assert_eq!((gossip.graph().len(), gossip.status().waiting), (1, 3));
    push(&mut gossip, &[&chain[1], &chain[2]], 1);
    assert_eq!((gossip.graph().len(), gossip.status().waiting), (6, 0));
    // 9 goes back in time: what waits for it can never be taken in.
    push(&mut gossip, &[&said(11, 2, Some(10), &[], 0), &said(10, 2, Some(9), &[], 0)], 1);
    assert_eq!(gossip.status().waiting, 2);
    let mut back = said(9, 2, None, &[], 0);
    Arc::make_mut(&mut back).event.other_parents = vec![chain[0].event.id; 2];
    push(&mut gossip, &[&back], 1);
    assert_eq!((gossip.status().waiting, gossip.status().refused), (0, 1));
    assert!(gossip.waiting.is_empty(), "{:?}", gossip.waiting);
}

/// 2 and 3 are a fork.
#[test]
fn of_who_has_forked_only_what_is_needed_is_taken() {
    let mut gossip = started(4);
    push(&mut gossip, &[&said(1, 1, None, &[], 0), &said(2, 1, Some(1), &[], 1)], 1);
    push(&mut gossip, &[&said(3, 1, Some(1), &[], 1)], 1);
    let fork = gossip.poll_fork().expect("it is found");
    assert_eq!((fork.member, fork.events), (MemberIndex(1), [EventId([2; 32]), EventId([3; 32])]));
    assert!(!gossip.is_open(), "nobody has built on either");
    push(&mut gossip, &[&said(4, 1, Some(3), &[], 0)], 1);
    assert_eq!(gossip.graph().len(), 3, "it is dropped");
    // Somebody has built on it before knowing.
    push(&mut gossip, &[&said(5, 2, None, &[4], 0)], 1);
    push(&mut gossip, &[&said(4, 1, Some(3), &[], 0)], 1);
    assert_eq!(gossip.graph().len(), 5);
    assert!(gossip.is_open(), "3 will be ordered, since 5 has it as an ancestor");
    assert_eq!(gossip.open.iter().collect::<Vec<_>>(), [&EventId([3; 32])]);
    // 2 is a branch that nobody has built on.
    assert_eq!(numbers(&answer(&mut gossip, &[], 2).0), [1, 3, 4, 5]);
    // Answers bring branches, and not without end.
    for number in 10..30 {
        let now_us = u64::from(number) * 100;
        gossip.handle_connected(MemberIndex(2), now_us);
        gossip.handle_answer(MemberIndex(2), vec![said(number, 1, Some(1), &[], 0)], false, now_us);
    }
    let (branches, _) = gossip.graph().branches(&said(30, 1, Some(1), &[], 0).event);
    assert_eq!(branches, gossip.branches_max());
    let named = 2 + gossip.branches_max();
    assert!(gossip.graph().newest().len() <= named.min(16));
}

#[test]
fn who_brings_nothing_new_is_not_asked_again_at_once() {
    let mut gossip = started(4);
    let orphan = said(9, 1, Some(8), &[], 0);
    push(&mut gossip, &[&orphan], 200);
    assert_eq!(asks(&mut gossip), [1]);
    for now_us in 200..300 {
        gossip.handle_answer(MemberIndex(1), vec![Arc::clone(&orphan)], true, now_us);
        push(&mut gossip, &[&orphan], now_us);
        assert!(asks(&mut gossip).is_empty(), "at {now_us}");
    }
    push(&mut gossip, &[&orphan], 300);
    assert_eq!(asks(&mut gossip), [1]);
    // Nor who comes and goes.
    let mut asked = 0;
    for now_us in 301..401 {
        gossip.handle_connected(MemberIndex(1), now_us);
        asked += asks(&mut gossip).len();
    }
    assert_eq!(asked, 1, "for the first of its links");
}

#[test]
fn who_awaits_something_looks_for_it_and_makes_no_events() {
    let mut gossip = started(4);
    push(&mut gossip, &[&said(1, 1, None, &[], 0)], 1);
    assert_eq!(gossip.next_timeout_us(), 1_000);
    gossip.set_awaits(true);
    assert_eq!(gossip.next_timeout_us(), 201);
    gossip.handle_timeout(201);
    assert_eq!(asks(&mut gossip).len(), 1);
    assert!(gossip.draft(1_000_000).is_none());
}

#[test]
fn a_clock_that_is_set_back_stops_nothing() {
    let mut gossip = started(4);
    gossip.handle_timeout(1_000_000);
    gossip.say(said(1, 0, None, &[], 1), 1_000_000);
    gossip.recorded(0, 0);
    frames(&mut gossip);
    gossip.handle_timeout(50);
    gossip.set_to_say(true);
    push(&mut gossip, &[&said(2, 1, None, &[1], 0), &said(3, 2, None, &[1], 0)], 50);
    assert_eq!(gossip.next_timeout_us(), 60, "its clock shows 50, and its last event was made just now");
    assert!(gossip.draft(59).is_none());
    assert_eq!(gossip.draft(60).expect("it is due").time_us, 60);
    gossip.last_time_us = 1_000_000;
    assert_eq!(gossip.draft(60).expect("it is due").time_us, 1_000_001, "after its self-parent's");
}

/// A member alone orders its event two rounds later.
#[test]
fn what_is_given_out_and_durable_leaves_memory() {
    let mut gossip = gossip(0, 1);
    gossip.begin(0);
    let chain: Vec<_> =
        (1..=4).map(|number| said(number, 0, (number > 1).then(|| number - 1), &[], 50)).collect();
    chain.iter().for_each(|said| gossip.say(Arc::clone(said), 1));
    assert!(gossip.poll_ordered().is_none(), "nothing is durable");
    (0..4).for_each(|number| gossip.recorded(number, 100 + number));
    let held = |gossip: &Gossip| {
        let is_here = |place| matches!(gossip.kept.held(place).0, Held::Here(_));
        (0..4).map(is_here).collect::<Vec<_>>()
    };
    assert_eq!(held(&gossip), [true; 4]);
    let ordered = gossip.poll_ordered().expect("round 1 is decided");
    assert_eq!(ordered.events, [(Arc::clone(&chain[0]), 1)]);
    assert_eq!(held(&gossip), [false, true, true, true]);
    assert!(matches!(gossip.kept.held(0).0, Held::Recorded(100)));
    assert_eq!(gossip.status().payload_bytes, 3 * chain[0].bytes());
    // The same after a restart, from the journal.
    let mut again = super::tests::gossip(0, 1);
    chain.iter().zip(100..).for_each(|(said, place)| again.replay(Arc::clone(said), place));
    assert_eq!(again.poll_ordered().expect("round 1 is decided").events, [(Arc::clone(&chain[0]), 1)]);
    assert_eq!((held(&again), again.poll_record().is_none()), (vec![false, true, true, true], true));
}
