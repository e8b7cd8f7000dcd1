//! Every graph of a few members, in every order of arrival: observers that have the same events have decided the same.
//!
//! A step makes one event more. The first observer has each event as soon as it is made, so paths are its orders of arrival. The
//! second one has the same events in an order that is as different as can be: what was made by the member with the highest
//! number first, as far as parents allow. Both are the real engine.
//!
//! That is enough for any two observers, whatever each has: give both what either has, and each will have decided first
//! what it had decided before (the engine gives a round out once and takes no fame back), and then the same as the other. Two paths
//! that lead to the same events and the same answers are searched on from once.
//!
//! Honest members act in layers: an event of height *h* is made on its creator's event below and those of all honest members of height
//! *h* − 1. What departs from that is counted and bounded (as schedules are in Emmi, Qadeer, Rakamarić, *Delay-bounded scheduling*,
//! 2011): a **stray** is an honest parent left out, or a forker's event built on that its maker does not usually hear of. The last member
//! forks: two branches, each made on what all honest members had.
//!
//! What is too large for this is in `tests/hashgraph/compare.rs`, at random and against an oracle: graphs in which honest members are
//! apart for long, and a forker's votes in later rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use consensus::hashgraph::{Event, EventId, Fame, Hashgraph, MemberIndex, Settings};
use protocol::signing::Signature;
use stateright::{Checker, Model, Property};

use crate::threads;

const AGREE: &str = "who has the same events has decided the same";

/// Which graphs.
#[derive(Clone)]
struct Graphs {
    /// Of each member; the last one forks.
    weights: Vec<u64>,
    coin_rounds: u64,
    /// Events of an honest member.
    height_max: u32,
    /// Events of a branch of the forker.
    branch_height_max: u32,
    /// Events that both branches have in common.
    common: u32,
    strays_max: usize,
    /// The branch of the forker that each honest member hears from without being a stray; none of the others.
    hears: Vec<u8>,
    /// Whether the first two members hear from one branch of the forker each, and from nobody else.
    camps: bool,
}

/// Who made an event, on which branch, at which height.
type Place = (u16, u8, u32);

/// One event more.
#[derive(Clone, Debug, PartialEq)]
struct Made {
    place: Place,
    self_parent: Option<EventId>,
    others: Vec<EventId>,
    strays: usize,
}

/// A round that was decided: which, its judges, what it received and when.
type Ordered = (u64, Vec<EventId>, Vec<(EventId, u64)>);

/// What an observer says of the events that it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    /// Of each event its round, and of a witness whether it is famous, if that is decided.
    events: BTreeMap<EventId, (u64, Option<Option<bool>>)>,
    ordered: Vec<Ordered>,
}

/// A graph and what is said of it.
#[derive(Clone, Debug, PartialEq)]
struct Watched {
    /// As they came to the first observer.
    events: Vec<Event>,
    places: BTreeMap<Place, EventId>,
    strays: usize,
    /// What the first observer says.
    first: Said,
}

impl Hash for Watched {
    /// An id stands for all of the ancestors, so the events are the graph.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.places.hash(hasher);
        self.first.hash(hasher);
    }
}

impl Watched {
    fn ancestors(&self, of: Option<EventId>) -> BTreeSet<EventId> {
        let mut found: BTreeSet<EventId> = of.into_iter().collect();
        for event in self.events.iter().rev() {
            if found.contains(&event.id) {
                found.extend(event.parents());
            }
        }
        found
    }

    /// The highest of a branch below a height.
    fn newest_below(&self, creator: u16, branch: u8, height: u32) -> Option<EventId> {
        self.places.range((creator, branch, 0)..(creator, branch, height)).next_back().map(|(_, id)| *id)
    }

    /// By creator, the highest number first; parents before children.
    fn turned_round(&self) -> Vec<&Event> {
        let by_id: BTreeMap<EventId, &Event> = self.events.iter().map(|event| (event.id, event)).collect();
        let (mut order, mut done) = (Vec::new(), BTreeSet::new());
        let mut todo: Vec<(EventId, bool)> = self.places.values().map(|id| (*id, false)).collect();
        while let Some((id, parents_done)) = todo.pop() {
            if parents_done {
                if done.insert(id) {
                    order.push(by_id[&id]);
                }
            } else if !done.contains(&id) {
                todo.push((id, true));
                todo.extend(by_id[&id].parents().map(|parent| (*parent, false)));
            }
        }
        order
    }

    fn last_round(&self) -> u64 {
        self.first.events.values().map(|(round, _)| *round).max().unwrap_or(0)
    }

    /// Whether a vote on a forker's witness is open though there is a round so much later.
    fn is_open_in(&self, model: &Graphs, later: u64) -> bool {
        let last = self.last_round();
        self.of_forker(model).any(|(round, fame)| fame.is_none() && round + later <= last)
    }

    /// Whether it is decided that a forker's witness of the first round is famous, or that it is not.
    fn is_known(&self, model: &Graphs, famous: bool) -> bool {
        self.of_forker(model).any(|(round, fame)| round == 1 && fame == Some(famous))
    }

    /// Rounds and fame of the forker's witnesses.
    fn of_forker(&self, model: &Graphs) -> impl Iterator<Item = (u64, Option<bool>)> {
        let forker = model.forker();
        let theirs = self.places.range((forker, 0, 0)..).filter_map(|(_, id)| self.first.events.get(id));
        theirs.filter_map(|(round, fame)| Some((*round, (*fame)?)))
    }
}

impl Graphs {
    fn forker(&self) -> u16 {
        self.weights.len() as u16 - 1
    }

    /// What an observer says that gets these events, one after the other.
    fn say<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> Said {
        let settings = Settings { coin_rounds: self.coin_rounds, events_a_round_max: u32::MAX };
        let mut engine = Hashgraph::new(&self.weights, settings);
        let mut ids = Vec::new();
        for event in events {
            engine.insert(event).expect("an event that a member may make");
            ids.push(event.id);
        }
        let fame = |id: &EventId| {
            engine.fame_of(id).map(|fame| match fame {
                Fame::Undecided => None,
                Fame::Famous => Some(true),
                Fame::NotFamous => Some(false),
            })
        };
        let of_event = |id: EventId| (id, (engine.round_of(&id).map_or(0, |round| round.0), fame(&id)));
        let events = ids.into_iter().map(of_event).collect();
        let rounds = std::iter::from_fn(|| engine.poll_ordered());
        let ordered = rounds.map(|mut round| {
            round.judges.sort_unstable();
            let events = round.events.iter().map(|event| (event.id, event.time_us)).collect();
            (round.round.0, round.judges, events)
        });
        Said { events, ordered: ordered.collect() }
    }

    /// The next events of an honest member.
    fn of_honest(&self, state: &Watched, creator: u16, actions: &mut Vec<Made>) {
        let self_parent = state.newest_below(creator, 0, u32::MAX);
        let height = state.places.range((creator, 0, 0)..=(creator, 0, u32::MAX)).count() as u32 + 1;
        if height > self.height_max {
            return;
        }
        let place = (creator, 0, height);
        if height == 1 {
            actions.push(Made { place, self_parent, others: Vec::new(), strays: 0 });
            return;
        }
        if self.camps {
            let other = state.places.get(&(self.forker(), creator as u8, height - 1));
            actions.extend(other.map(|other| Made { place, self_parent, others: vec![*other], strays: 0 }));
            return;
        }
        let below = (0..self.forker()).filter(|other| *other != creator);
        let Some(below) =
            below.map(|other| state.places.get(&(other, 0, height - 1)).copied()).collect::<Option<Vec<_>>>()
        else {
            return;
        };
        let known = state.ancestors(self_parent);
        let of_branch = |branch| {
            let newest = state.newest_below(self.forker(), branch, height);
            newest.filter(|id| !known.contains(id))
        };
        let usual = self.hears.get(usize::from(creator)).and_then(|branch| of_branch(*branch));
        let of_forker: BTreeSet<Option<EventId>> = (0..2).map(of_branch).chain([None]).collect();
        for left_out in std::iter::once(None).chain((0..below.len()).map(Some)) {
            for fork in &of_forker {
                let strays = usize::from(left_out.is_some()) + usize::from(*fork != usual);
                if state.strays + strays <= self.strays_max {
                    let honest = (0..below.len()).filter(|at| Some(*at) != left_out).map(|at| below[at]);
                    let others = honest.chain(*fork).collect();
                    actions.push(Made { place, self_parent, others, strays });
                }
            }
        }
    }

    /// The next event of a branch of the forker.
    fn of_branch(&self, state: &Watched, branch: u8, actions: &mut Vec<Made>) {
        let forker = self.forker();
        let common = if branch == 0 { 0 } else { self.common };
        let own = state.places.range((forker, branch, 0)..=(forker, branch, u32::MAX)).count() as u32;
        let height = common + own + 1;
        if height > self.branch_height_max {
            return;
        }
        let trunk = if height == common + 1 { 0 } else { branch };
        let self_parent = state.places.get(&(forker, trunk, height - 1)).copied();
        if height > 1 && self_parent.is_none() {
            return;
        }
        let hears = |member: &u16| !self.camps || *member == u16::from(branch);
        let below = (0..forker).filter(hears).filter(|_| height > 1);
        let others = below.map(|other| state.places.get(&(other, 0, height - 1)).copied()).collect();
        if let Some(others) = others {
            actions.push(Made { place: (forker, branch, height), self_parent, others, strays: 0 });
        }
    }
}

/// An event; its id follows from what it is.
fn event(made: &Made) -> Event {
    let (creator, branch, height) = made.place;
    let time_us = u64::from(height) * 100 + u64::from(creator) * 10 + u64::from(branch);
    let mut bytes = time_us.to_le_bytes().to_vec();
    made.self_parent.iter().chain(&made.others).for_each(|parent| bytes.extend(parent.0));
    Event {
        id: EventId(*protocol::Hash::of(&bytes).as_bytes()),
        creator: MemberIndex(creator),
        self_parent: made.self_parent,
        other_parents: made.others.clone(),
        time_us,
        signature: Signature::from_bytes([0; 64]),
    }
}

impl Model for Graphs {
    type State = Watched;
    type Action = Made;

    fn init_states(&self) -> Vec<Watched> {
        vec![Watched { events: Vec::new(), places: BTreeMap::new(), strays: 0, first: self.say([]) }]
    }

    fn actions(&self, state: &Watched, actions: &mut Vec<Made>) {
        (0..self.forker()).for_each(|creator| self.of_honest(state, creator, actions));
        (0..2).for_each(|branch| self.of_branch(state, branch, actions));
    }

    fn next_state(&self, last: &Watched, made: Made) -> Option<Watched> {
        let mut next = last.clone();
        let event = event(&made);
        next.places.insert(made.place, event.id);
        next.events.push(event);
        next.strays += made.strays;
        next.first = self.say(&next.events);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let agree =
            Property::<Self>::always(AGREE, |model, state| state.first == model.say(state.turned_round()));
        if self.camps {
            return vec![agree];
        }
        let mut properties = vec![agree];
        let mut sometimes = |name, condition: fn(&Self, &Watched) -> bool| {
            properties.push(Property::<Self>::sometimes(name, condition))
        };
        sometimes("two rounds are ordered", |_, state| state.first.ordered.len() > 1);
        sometimes("a forker's witness is famous", |model, state| state.is_known(model, true));
        sometimes("a forker's witness is not famous", |model, state| state.is_known(model, false));
        sometimes("votes that were counted decide nothing", |model, state| state.is_open_in(model, 2));
        if self.common == 0 {
            sometimes("a forker has one famous witness in a round, and one not", |model, state| {
                state.is_known(model, true) && state.is_known(model, false)
            });
        }
        if u64::from(self.height_max) > 2 * self.coin_rounds + 1 {
            sometimes("a vote goes through a coin round", |model, state| {
                state.is_open_in(model, model.coin_rounds)
            });
        }
        properties
    }
}

/// Searches all of them.
#[track_caller]
fn check(graphs: Graphs, states_min: usize) {
    let checker = graphs.checker().threads(threads()).spawn_bfs().join();
    let states = checker.unique_state_count();
    eprintln!("{states} states");
    checker.assert_properties();
    assert!(states >= states_min, "only {states} states: the search has become another one");
}

/// Two honest members and one that forks, with a fifth of the weight: long graphs, in which votes on the forker's witnesses are split
/// and go through a coin round.
#[test]
fn two_honest_members_and_a_forker() {
    let graphs = Graphs {
        weights: vec![2, 2, 1],
        coin_rounds: 3,
        height_max: 11,
        branch_height_max: 1,
        common: 0,
        strays_max: 2,
        hears: Vec::new(),
        camps: false,
    };
    check(graphs, 10_000);
}

/// The same, but the fork comes later: the branches have their first event in common.
#[test]
fn two_honest_members_and_one_that_forks_later() {
    let graphs = Graphs {
        weights: vec![2, 2, 1],
        coin_rounds: 3,
        height_max: 7,
        branch_height_max: 3,
        common: 1,
        strays_max: 2,
        hears: Vec::new(),
        camps: false,
    };
    check(graphs, 1_000);
}

/// Three honest members of four, all of one weight.
#[test]
fn three_honest_members_and_a_forker() {
    let graphs = Graphs {
        weights: vec![1, 1, 1, 1],
        coin_rounds: 4,
        height_max: 7,
        branch_height_max: 1,
        common: 0,
        strays_max: 2,
        hears: Vec::new(),
        camps: false,
    };
    check(graphs, 10_000);
}

/// The forker takes part in everything, two of them hear from one of its branches and one from the other, until that comes to light.
#[test]
fn three_honest_members_who_hear_from_both_branches() {
    let graphs = Graphs {
        weights: vec![1, 1, 1, 1],
        coin_rounds: 3,
        height_max: 7,
        branch_height_max: 2,
        common: 0,
        strays_max: 0,
        hears: vec![0, 0, 1],
        camps: false,
    };
    check(graphs, 1_000);
}

/// The forker weighs as much as the others together: both camps have more than two thirds with it, and each decides for itself.
/// With a fifth of the weight it leads nobody astray in the same graphs.
#[test]
fn with_a_third_or_more_a_forker_parts_the_others_and_the_search_finds_it() {
    let camps = |weights: &[u64]| Graphs {
        weights: weights.to_vec(),
        coin_rounds: 3,
        height_max: 7,
        branch_height_max: 7,
        common: 0,
        strays_max: 0,
        hears: Vec::new(),
        camps: true,
    };
    let search = |weights: &[u64]| camps(weights).checker().threads(threads()).spawn_bfs().join();
    let path = search(&[1, 1, 2]).assert_any_discovery(AGREE);
    eprintln!("{AGREE:?} is broken in {} steps", path.into_actions().len());
    search(&[2, 2, 1]).assert_properties();
}
