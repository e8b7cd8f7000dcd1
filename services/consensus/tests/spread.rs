//! How fast the order comes where events are sent to all members and each takes one delay: counted in
//! delays, in a simulation without a clock, from submit to ordered as the member that submitted sees it.

use std::collections::{BTreeMap, BTreeSet};

use consensus::hashgraph::{Due, Event, EventId, Hashgraph, MemberIndex, Pace, Settings, Work};
use protocol::Hash;
use protocol::signing::Signature;

/// One way between two members, in microseconds.
const DELAY_US: u64 = 1_000;
const SETTINGS: Settings = Settings { coin_rounds: 10, events_a_round_max: 1_000 };
const PACE: Pace = Pace { interval_us_min: DELAY_US / 2, patience_us: DELAY_US };

struct Member {
    index: MemberIndex,
    graph: Hashgraph,
    last_us: Option<u64>,
    /// When that was submitted which is in no event yet.
    waiting: Vec<u64>,
    /// Events that carry something and that no round has received here.
    open: BTreeSet<EventId>,
    order: Vec<EventId>,
    /// From submit to ordered of what was submitted here, in microseconds.
    latencies: Vec<u64>,
}

struct Network {
    members: Vec<Member>,
    /// Members that neither say nor hear anything.
    silent: Vec<usize>,
    now_us: u64,
    /// What comes when: the second number makes each key another.
    arrivals: BTreeMap<(u64, u64), (usize, Event)>,
    sent: u64,
    /// When a member has something to do though nothing comes.
    wakes: BTreeSet<u64>,
    /// What events carry: when it was submitted.
    carried: BTreeMap<EventId, Vec<u64>>,
    events: u64,
}

impl Network {
    fn new(count: usize, silent: &[usize]) -> Self {
        let member = |index| Member {
            index: MemberIndex(index),
            graph: Hashgraph::new(&vec![1; count], SETTINGS),
            last_us: None,
            waiting: Vec::new(),
            open: BTreeSet::new(),
            order: Vec::new(),
            latencies: Vec::new(),
        };
        Self {
            members: (0..count as u16).map(member).collect(),
            silent: silent.to_vec(),
            now_us: 0,
            arrivals: BTreeMap::new(),
            sent: 0,
            wakes: BTreeSet::new(),
            carried: BTreeMap::new(),
            events: 0,
        }
    }

    /// Runs until nothing is on its way and everything was submitted; `submits` are times and members.
    fn run(&mut self, mut submits: Vec<(u64, usize)>) {
        submits.sort_unstable();
        let mut submits = submits.into_iter().peekable();
        loop {
            let submit = submits.peek().map(|(at, _)| *at);
            let arrival = self.arrivals.first_key_value().map(|((at, _), _)| *at);
            let Some(now) = submit.into_iter().chain(arrival).chain(self.wakes.first().copied()).min() else {
                break;
            };
            self.now_us = now;
            self.wakes.remove(&now);
            while let Some((at, who)) = submits.next_if(|(at, _)| *at == now) {
                self.members[who].waiting.push(at);
            }
            while let Some(next) = self.arrivals.first_entry().filter(|next| next.key().0 == now) {
                let (to, event) = next.remove();
                self.take(to, event);
            }
            for who in 0..self.members.len() {
                if !self.silent.contains(&who) {
                    self.act(who);
                }
            }
        }
        let longest = self.members.iter().map(|member| &member.order).max_by_key(|order| order.len());
        let longest = longest.expect("there are members");
        assert!(self.members.iter().all(|member| longest.starts_with(&member.order)), "all have one order");
    }

    fn take(&mut self, to: usize, event: Event) {
        let member = &mut self.members[to];
        if self.carried.contains_key(&event.id) {
            member.open.insert(event.id);
        }
        member.graph.insert(&event).expect("parents come first");
        while let Some(round) = member.graph.poll_ordered() {
            for id in round.events.iter().map(|ordered| ordered.id) {
                member.order.push(id);
                let ours = member.graph.creator_of(&id) == Some(member.index);
                if member.open.remove(&id) && ours {
                    let submitted = self.carried[&id].iter();
                    member.latencies.extend(submitted.map(|submitted| self.now_us - submitted));
                }
            }
        }
    }

    /// Lets a member make an event, if one is due.
    fn act(&mut self, who: usize) {
        let now = self.now_us;
        let member = &mut self.members[who];
        let plan = member.graph.plan(member.index);
        let work = Work { to_say: !member.waiting.is_empty(), open: !member.open.is_empty() };
        match PACE.due(&plan, work, member.last_us) {
            Due::At(at) if at > now => {
                self.wakes.insert(at);
                return;
            }
            Due::Later => return,
            Due::At(_) => {}
        }
        let mut said = vec![who as u8];
        said.extend_from_slice(&now.to_le_bytes());
        plan.self_parent
            .iter()
            .chain(&plan.other_parents)
            .for_each(|parent| said.extend_from_slice(&parent.0));
        let id = EventId(*Hash::of(&said).as_bytes());
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(Hash::of(&id.0).as_bytes());
        signature[32..].copy_from_slice(&id.0);
        let event = Event {
            id,
            creator: member.index,
            self_parent: plan.self_parent,
            other_parents: plan.other_parents,
            time_us: now,
            signature: Signature::from_bytes(signature),
        };
        member.last_us = Some(now);
        let carried = std::mem::take(&mut member.waiting);
        if !carried.is_empty() {
            self.carried.insert(id, carried);
        }
        self.events += 1;
        for to in (0..self.members.len()).filter(|to| *to != who && !self.silent.contains(to)) {
            self.sent += 1;
            self.arrivals.insert((now + DELAY_US, self.sent), (to, event.clone()));
        }
        self.take(who, event);
    }

    /// Mean and longest latency, in delays.
    fn latency(&self) -> (f64, f64) {
        let all: Vec<u64> = self.members.iter().flat_map(|member| &member.latencies).copied().collect();
        assert!(!all.is_empty(), "something was ordered");
        let mean = all.iter().sum::<u64>() as f64 / all.len() as f64;
        let longest = *all.iter().max().expect("there is one") as f64;
        (mean / DELAY_US as f64, longest / DELAY_US as f64)
    }
}

/// Submits spread over time and members without a pattern.
fn load(count: usize, submits: u64, apart_us: u64) -> Vec<(u64, usize)> {
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..submits).map(|number| (number * apart_us + random() % apart_us, random() as usize % count)).collect()
}

#[test]
fn nothing_is_said_where_nothing_waits() {
    let mut network = Network::new(4, &[]);
    network.run(Vec::new());
    assert_eq!(network.events, 0);
}

#[test]
fn one_transaction_wakes_all_and_then_all_are_silent() {
    let mut network = Network::new(4, &[]);
    network.run(vec![(0, 2)]);
    let (mean, _) = network.latency();
    assert!(mean <= 8.0, "{mean} delays");
    assert!(network.members.iter().all(|member| member.open.is_empty()), "all have it in its place");
    assert!(network.events <= 4 * 10, "{} events", network.events);
}

#[test]
fn the_order_comes_in_about_six_delays_however_many_members() {
    let mut means = Vec::new();
    for count in [4, 7, 10, 16] {
        let mut network = Network::new(count, &[]);
        network.run(load(count, 600, DELAY_US / 3));
        let (mean, longest) = network.latency();
        assert!(mean <= 7.0 && longest <= 10.0, "{count} members: {mean} delays, {longest} at most");
        means.push(mean);
    }
    let spread =
        means.iter().cloned().fold(f64::MIN, f64::max) - means.iter().cloned().fold(f64::MAX, f64::min);
    assert!(spread < 0.5, "flat in the number of members: {means:?}");
}

#[test]
fn with_a_third_silent_the_others_go_on() {
    for (count, silent) in [(4, vec![1]), (7, vec![0, 5]), (10, vec![2, 3, 9])] {
        let mut network = Network::new(count, &silent);
        let submits = load(count, 300, DELAY_US / 3);
        network.run(submits.into_iter().filter(|(_, who)| !silent.contains(who)).collect());
        let (mean, _) = network.latency();
        assert!(mean <= 10.0, "{mean} delays");
        assert!(network.members.iter().all(|member| member.open.is_empty()), "nothing is left behind");
    }
}
