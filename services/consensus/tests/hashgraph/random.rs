//! Random graphs, each out of one seed: honest members in several moods, and equivocators below a third.
//!
//! A **persona** makes events on its own last one. An honest member is one persona; an equivocator becomes
//! several, which have a stretch of events in common, or none, and then go on each for itself. Who asks an
//! equivocator for its last event is mostly answered by the same persona.

use consensus::hashgraph::{Event, EventId, MemberIndex};
use protocol::Hash;
use protocol::signing::Signature;

/// Pseudo-random numbers (splitmix64; Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// The numbers that follow from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Yes in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A graph, with what it takes to order it.
pub(crate) struct RandomGraph {
    /// What each member weighs.
    pub(crate) weights: Vec<u64>,
    /// Every which round of votes is a coin round.
    pub(crate) coin_rounds: u64,
    /// The events, parents before children.
    pub(crate) events: Vec<Event>,
}

/// How events spread.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Whoever acts has heard from one other member.
    Gossip,
    /// Whoever acts has heard from any number of others.
    Broadcast,
    /// All act in turn, and have heard from a little more than two thirds.
    Layers,
    /// Two camps that rarely hear from each other.
    Camps,
}

/// How one persona behaves.
struct Persona {
    creator: usize,
    chain: Vec<usize>,
    /// How often it acts, against the others.
    pace: usize,
}

struct Maker {
    random: Random,
    seed: u64,
    mood: Mood,
    /// How many percent of the parents are not the latest event of whoever made them.
    stale: usize,
    /// Whose events others get late, so that some see its witness in time and some do not: that splits votes.
    veiled: Option<usize>,
    personas: Vec<Persona>,
    drift: Vec<u64>,
    events: Vec<Event>,
}

/// The graph of `seed`.
pub(crate) fn graph(seed: u64) -> RandomGraph {
    let mut random = Random::new(seed);
    let members = random.pick(&[1, 2, 3, 4, 4, 4, 4, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10]);
    let equal = random.chance(50);
    let weights: Vec<u64> =
        (0..members).map(|_| if equal { 1 } else { random.between(1, 5) as u64 }).collect();
    let mood =
        random.pick(&[Mood::Gossip, Mood::Broadcast, Mood::Layers, Mood::Layers, Mood::Layers, Mood::Camps]);
    // What each member needs for some rounds to be decided.
    let each = match mood {
        Mood::Gossip | Mood::Camps => 26,
        Mood::Broadcast | Mood::Layers => 20,
    };
    let events = random.between(20, 20.max(members * each).min(200));
    let coin_rounds = random.pick(&[3, 3, 3, 3, 3, 3, 4, 12]);
    let stale = random.pick(&[0, 0, 5, 20]);
    let drift = (0..members).map(|_| random.below(60) as u64).collect();
    let veiled = random.chance(70).then(|| random.below(members));
    let uneven = random.chance(35);
    let personas = (0..members)
        .map(|creator| Persona {
            creator,
            chain: Vec::new(),
            pace: if uneven { random.pick(&[1, 4, 8, 8]) } else { 8 },
        })
        .collect();
    let mut maker = Maker { random, seed, mood, stale, veiled, personas, drift, events: Vec::new() };
    let equivocators = maker.equivocators(&weights);
    maker.make(events, &equivocators);
    RandomGraph { weights, coin_rounds, events: maker.events }
}

impl Maker {
    /// Some members, together less than a third.
    fn equivocators(&mut self, weights: &[u64]) -> Vec<usize> {
        let (mut chosen, mut weight) = (Vec::new(), 0);
        let wanted = self.random.pick(&[0, 1, 1, 3]);
        for _ in 0..3 * wanted {
            let member = self.random.below(weights.len());
            let more = weight + weights[member];
            if chosen.len() < wanted && !chosen.contains(&member) && 3 * more < weights.iter().sum::<u64>() {
                chosen.push(member);
                weight = more;
            }
        }
        chosen
    }

    fn make(&mut self, events: usize, equivocators: &[usize]) {
        let mut splits: Vec<(usize, usize)> = Vec::new();
        for &member in equivocators {
            for _ in 0..self.random.between(1, 3) {
                splits.push((self.random.below(events), member));
            }
        }
        let members = self.personas.len();
        let silence = self.random.below(events);
        let silent = self.random.chance(40).then(|| self.random.below(members));
        let silence = silence..silence + self.random.between(5, 60);
        let mut step = 0;
        while self.events.len() < events {
            splits.iter().filter(|(when, _)| *when == step).for_each(|&(_, member)| self.split(member));
            let persona = self.who_acts(step);
            let creator = self.personas[persona].creator;
            let speaks = members == 1 || silent != Some(creator) || !silence.contains(&step);
            if speaks && self.random.chance(self.personas[persona].pace * 12 + 4) {
                self.act(persona, step);
            }
            step += 1;
        }
    }

    /// Another persona for an equivocator, out of any of its events, or out of none.
    fn split(&mut self, member: usize) {
        let mut chain = self.personas[member].chain.clone();
        chain.truncate(
            self.random.below(chain.len() + 1).max(chain.len().saturating_sub(self.random.below(6))),
        );
        if self.random.chance(10) {
            chain.clear();
        }
        let pace = self.personas[member].pace;
        self.personas.push(Persona { creator: member, chain, pace });
    }

    fn who_acts(&mut self, step: usize) -> usize {
        match self.mood {
            Mood::Layers => step % self.personas.len(),
            _ => self.random.below(self.personas.len()),
        }
    }

    fn act(&mut self, persona: usize, step: usize) {
        let creator = self.personas[persona].creator;
        let other_parents: Vec<usize> = self
            .heard_from(creator)
            .into_iter()
            .filter_map(|member| self.last_event(member, creator))
            .collect();
        let self_parent = self.personas[persona].chain.last().copied();
        let clock = self.drift[creator] + (step as u64 * 10 + self.random.below(30) as u64) / 8 * 8;
        let time_us = self_parent.map_or(clock, |parent| clock.max(self.events[parent].time_us + 1));
        let event = self.event(creator, self_parent, &other_parents, time_us);
        self.personas[persona].chain.push(self.events.len());
        self.events.push(event);
    }

    /// The members from whom `creator` has heard.
    fn heard_from(&mut self, creator: usize) -> Vec<usize> {
        let members = self.drift.len();
        let mut others: Vec<usize> = (0..members).filter(|&member| member != creator).collect();
        shuffle(&mut others, &mut self.random);
        let count = match self.mood {
            Mood::Gossip => 1,
            Mood::Broadcast => self.random.below(members),
            Mood::Layers => (members * 2 / 3).max(1) - usize::from(self.random.chance(15)),
            Mood::Camps => {
                others.retain(|other| other % 2 == creator % 2 || self.random.chance(12));
                self.random.between(1, members)
            }
        };
        others.truncate(count);
        others
    }

    /// The last event of `member`, as it is told to `asker`.
    fn last_event(&mut self, member: usize, asker: usize) -> Option<usize> {
        let faces: Vec<usize> =
            (0..self.personas.len()).filter(|&persona| self.personas[persona].creator == member).collect();
        let face = if self.random.chance(80) { faces[asker % faces.len()] } else { self.random.pick(&faces) };
        let chain = &self.personas[face].chain;
        let veiled = self.veiled == Some(member) && asker.is_multiple_of(2);
        let stale = if veiled { 85 } else { self.stale };
        let back = if self.random.chance(stale) { self.random.below(5) } else { 0 };
        chain.iter().rev().nth(back.min(chain.len().saturating_sub(1))).copied()
    }

    fn event(&self, creator: usize, self_parent: Option<usize>, others: &[usize], time_us: u64) -> Event {
        let parent = |&place: &usize| self.events[place].id;
        let self_parent = self_parent.as_ref().map(parent);
        let other_parents: Vec<EventId> = others.iter().map(parent).collect();
        // The place in the list parts what an equivocator makes twice.
        let mut fields: Vec<u8> = [self.seed, self.events.len() as u64, creator as u64, time_us]
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        self_parent.iter().chain(&other_parents).for_each(|parent| fields.extend(parent.0));
        let id = *Hash::of(&fields).as_bytes();
        let creator = MemberIndex(u16::try_from(creator).expect("few members"));
        let signature = signature(&id);
        Event { id: EventId(id), creator, self_parent, other_parents, time_us, signature }
    }
}

fn signature(id: &[u8; 32]) -> Signature {
    let mut bytes = [0; 64];
    for (half, into) in bytes.chunks_exact_mut(32).enumerate() {
        into.copy_from_slice(Hash::of(&[id.as_slice(), &[half as u8]].concat()).as_bytes());
    }
    Signature::from_bytes(bytes)
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for end in (1..list.len()).rev() {
        list.swap(end, random.below(end + 1));
    }
}

/// The same events in another order, parents before children. One member's may come as late as they can.
pub(crate) fn reorder(events: &[Event], random: &mut Random) -> Vec<Event> {
    let members = events.iter().map(|event| usize::from(event.creator.0) + 1).max().unwrap_or(1);
    let late = random.chance(50).then(|| random.below(members));
    let mut left: Vec<(bool, usize, &Event)> = events
        .iter()
        .map(|event| (Some(usize::from(event.creator.0)) == late, random.below(events.len()), event))
        .collect();
    left.sort_by_key(|(late, place, _)| (*late, *place));
    let mut order: Vec<Event> = Vec::with_capacity(events.len());
    while !left.is_empty() {
        let known =
            |event: &Event| event.parents().all(|parent| order.iter().any(|earlier| earlier.id == *parent));
        let free =
            left.iter().position(|(_, _, event)| known(event)).expect("some event has all its parents");
        order.push(left.remove(free).2.clone());
    }
    order
}
