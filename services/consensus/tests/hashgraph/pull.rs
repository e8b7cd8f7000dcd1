//! Questions and answers on random graphs, forks among them: who asks gets all that it needs, in few answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use consensus::gossip::{ANSWER_BYTES_MAX, Frame, Gossip, Held, Said, Settings as GossipSettings};
use consensus::hashgraph::{Event, EventId, Hashgraph, MemberIndex, Pace, Settings};

use crate::random::{Random, graph};

/// So that an answer holds about twenty events.
const PAYLOAD: usize = ANSWER_BYTES_MAX / 20;
const GOSSIP: GossipSettings = GossipSettings {
    pace: Pace { interval_us_min: 1_000, patience_us: 1_000 },
    answer_us_max: 1_000,
    quiet_us_max: 1_000,
    silence_us_max: 1_000,
    waiting_max: 100,
    frames_max: 10,
    payload_bytes_max: usize::MAX,
};

fn gossip(me: usize, weights: &[u64]) -> Gossip {
    let graph = Hashgraph::new(weights, Settings { coin_rounds: 6, events_a_round_max: u32::MAX });
    Gossip::new(MemberIndex(me as u16), graph, GOSSIP, 0)
}

/// What the events of members that have not forked are made on.
fn needed(events: &[Event], knows: &Gossip) -> BTreeSet<EventId> {
    let mut needed = BTreeSet::new();
    for event in events.iter().rev().filter(|event| knows.graph().contains(&event.id)) {
        if !knows.graph().is_forked(event.creator) || needed.contains(&event.id) {
            needed.insert(event.id);
            needed.extend(event.parents());
        }
    }
    needed
}

/// A question, answered; whether there was more.
fn ask(asker: &mut Gossip, answerer: &mut Gossip, from: [MemberIndex; 2], now_us: u64) -> bool {
    asker.handle_connected(from[1], now_us);
    let tips = std::iter::from_fn(|| asker.poll_frame())
        .find_map(|(_, frame)| if let Frame::Ask { tips } = frame { Some(tips) } else { None });
    answerer.handle_ask(from[0], &tips.expect("it asks"), now_us);
    let answer = std::iter::from_fn(|| answerer.poll_frame()).find_map(|(_, frame)| match frame {
        Frame::Answer { events, more } => Some((events, more)),
        _ => None,
    });
    let (events, more) = answer.expect("every question is answered");
    let here = |held| match held {
        Held::Here(said) => said,
        Held::Recorded(place) => panic!("{place} is in memory"),
    };
    asker.handle_answer(from[1], events.into_iter().map(here).collect(), more, now_us);
    more
}

#[test]
fn who_asks_gets_all_that_it_needs_in_few_answers() {
    let (mut several, mut with_forks, mut left_out) = (0, 0, 0);
    for seed in 0..300 {
        let graph = graph(seed);
        let mut random = Random::new(!seed);
        let members = graph.weights.len();
        if members < 2 {
            continue;
        }
        let me = [random.below(members - 1), members - 1].map(|member| MemberIndex(member as u16));
        let mut both = me.map(|me| gossip(usize::from(me.0), &graph.weights));
        let said: Vec<_> = graph
            .events
            .iter()
            .map(|event| {
                Arc::new(Said {
                    event: event.clone(),
                    payload: vec![0; PAYLOAD],
                    orders: true,
                    changes: false,
                })
            })
            .collect();
        // One has nearly all, and the other one some of it: what some members knew.
        let none = random.below(said.len());
        let mut unknown = BTreeSet::new();
        for (place, said) in said.iter().enumerate() {
            both[1].replay(Arc::clone(said), place as u64);
            let is_unknown = place >= none || random.chance(10);
            if is_unknown || said.event.parents().any(|parent| unknown.contains(parent)) {
                unknown.insert(said.event.id);
            } else {
                both[0].replay(Arc::clone(said), place as u64);
            }
        }
        let [asker, answerer] = &mut both;
        asker.begin(0);
        answerer.begin(0);
        let before = asker.graph().len();
        let needed = needed(&graph.events, answerer);
        let mut answers = 1;
        while ask(asker, answerer, me, 2_000 * answers) {
            answers += 1;
            assert!(answers < 100, "seed {seed}: it ends");
        }
        let got = asker.graph().len() - before;
        let missing = needed.iter().filter(|id| !asker.graph().contains(id)).count();
        assert_eq!(missing, 0, "seed {seed}: of {} events in {answers} answers", needed.len());
        // What only the asker knows to be a fork costs a little more.
        assert!(answers as usize <= got / 15 + 3, "seed {seed}: {got} events in {answers} answers");
        several += usize::from(answers > 2);
        with_forks += usize::from(!answerer.status().forked.is_empty() && got > 0);
        left_out += usize::from(asker.graph().len() < answerer.graph().len());
    }
    assert!(several > 100 && with_forks > 50 && left_out > 10, "{several} {with_forks} {left_out}");
}
