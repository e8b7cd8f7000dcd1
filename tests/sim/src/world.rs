//! The network, its members and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consensus::gossip::{Draft, Frame, Gossip, Held, Said, Settings as GossipSettings};
use consensus::hashgraph::{Event, EventId, Fork, Hashgraph, MemberIndex, Pace, Settings};
use protocol::Hash;
use protocol::signing::Signature;

use crate::plan::{ENDS_US, HEALS_US, Lie, Plan};
use crate::random::Random;

const GRAPH: Settings = Settings { coin_rounds: 6, events_a_round_max: 10_000 };
const GOSSIP: GossipSettings = GossipSettings {
    pace: Pace { interval_us_min: 10_000, patience_us: 40_000 },
    answer_us_max: 100_000,
    quiet_us_max: 150_000,
    silence_us_max: 500_000,
    waiting_max: 200,
    frames_max: 16,
    payload_bytes_max: 20_000,
};

/// What was said, by number.
pub(crate) type Word = u64;

/// A life of a member: one, but for liars.
#[derive(Debug)]
struct Life {
    gossip: Gossip,
    /// Events on the disk; of these the first are durable.
    disk: Vec<Arc<Said>>,
    durable: usize,
    /// Until when the sync takes that is under way, and what it makes durable.
    sync: Option<(u64, usize)>,
}

impl Life {
    fn new(me: usize, members: usize) -> Self {
        Self { gossip: gossip(me, members, 0), disk: Vec::new(), durable: 0, sync: None }
    }
}

fn gossip(me: usize, members: usize, now_us: u64) -> Gossip {
    Gossip::new(MemberIndex(me as u16), Hashgraph::new(&vec![1; members], GRAPH), GOSSIP, now_us)
}

/// A member and what it has seen.
#[derive(Debug)]
pub struct Member {
    lie: Option<Lie>,
    lives: Vec<Life>,
    is_up: bool,
    /// When it is woken next.
    wakes_us: u64,
    clock: i64,
    /// What is to be said.
    waiting: Vec<Word>,
    /// The rounds that were ordered, each as a hash of its events and times, and the words in their order.
    pub rounds: Vec<Hash>,
    /// The words in their order.
    pub words: Vec<Word>,
    /// Forks that it knows of.
    pub forks: Vec<Fork>,
    /// The most events that it had in memory, and that waited for parents.
    pub memory_max: (usize, usize),
    /// Events that it refused, and signatures that did not hold.
    pub refused: u64,
}

impl Member {
    /// Whether it does as it should.
    pub fn is_honest(&self) -> bool {
        self.lie.is_none()
    }

    /// Whether everything it knows of is ordered.
    pub fn is_at_rest(&self) -> bool {
        self.lives.iter().all(|life| !life.gossip.is_open())
    }
}

/// A frame as it is on its way: what was in a journal was read.
#[derive(Clone, Debug)]
enum Sent {
    Events(Vec<Arc<Said>>),
    Ask { tips: Vec<EventId> },
    Answer { events: Vec<Arc<Said>>, more: bool },
}

enum Coming {
    Frame { from: usize, to: usize, life: usize, frame: Sent },
    Submit,
    Crash(usize),
    Back(usize),
    Wake(usize),
}

/// A run.
pub struct World {
    /// Its plan.
    pub plan: Plan,
    /// The members.
    pub members: Vec<Member>,
    /// Words that are in an event which is durable where it was made: these are promised.
    pub acknowledged: BTreeSet<Word>,
    /// All events that were ever sent, by creator and self-parent.
    pub sent: BTreeMap<(usize, Option<EventId>), BTreeSet<EventId>>,
    /// A hash over all that has happened.
    pub trace: Hash,
    random: Random,
    now_us: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    comings: u64,
    words: Word,
    /// Whether events are sent before they are durable: to see a test go red.
    pub careless: bool,
}

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::of(&mut random);
        let member = |(index, lie): (usize, &Option<Lie>)| Member {
            lie: *lie,
            lives: (0..if *lie == Some(Lie::TwoLives) { 2 } else { 1 })
                .map(|_| Life::new(index, plan.members))
                .collect(),
            is_up: true,
            wakes_us: u64::MAX,
            clock: plan.clocks[index],
            waiting: Vec::new(),
            rounds: Vec::new(),
            words: Vec::new(),
            forks: Vec::new(),
            memory_max: (0, 0),
            refused: 0,
        };
        let mut world = Self {
            members: plan.lies.iter().enumerate().map(member).collect(),
            plan,
            acknowledged: BTreeSet::new(),
            sent: BTreeMap::new(),
            trace: Hash::of(&seed.to_le_bytes()),
            random,
            now_us: 0,
            coming: BTreeMap::new(),
            comings: 0,
            words: 0,
            careless: false,
        };
        for crash in world.plan.crashes.clone() {
            world.later(crash.at_us, Coming::Crash(crash.member));
            world.later(crash.back_us, Coming::Back(crash.member));
        }
        world.later(1, Coming::Submit);
        world
    }

    /// Runs to the end.
    pub fn run(&mut self) {
        self.begin();
        while let Some(((now, _), coming)) = self.coming.pop_first() {
            if now > ENDS_US {
                break;
            }
            self.now_us = now;
            let touched = self.happen(coming);
            self.settle(touched);
        }
        for member in &mut self.members {
            member.refused += member.lives.iter().map(|life| life.gossip.status().refused).sum::<u64>();
        }
    }

    /// All members take part.
    fn begin(&mut self) {
        for who in 0..self.members.len() {
            self.members[who].lives.iter_mut().for_each(|life| life.gossip.begin(0));
            self.settle(who);
        }
    }

    fn later(&mut self, at_us: u64, coming: Coming) {
        self.comings += 1;
        self.coming.insert((at_us, self.comings), coming);
    }

    /// Lets something happen; to whom.
    fn happen(&mut self, coming: Coming) -> usize {
        let now = self.now_us;
        match coming {
            Coming::Frame { from, to, life, frame } => {
                let member = &mut self.members[to];
                if !member.is_up || member.lie == Some(Lie::Silent) {
                    return to;
                }
                let from = MemberIndex(from as u16);
                let mut checked = |events: Vec<Arc<Said>>| {
                    let came = events.len();
                    let events: Vec<_> = events.into_iter().filter(|said| is_signed(said)).collect();
                    member.refused += (came - events.len()) as u64;
                    events
                };
                match frame {
                    Sent::Events(events) => {
                        let events = checked(events);
                        member.lives[life].gossip.handle_events(from, events, now);
                    }
                    Sent::Ask { tips } => member.lives[life].gossip.handle_ask(from, &tips, now),
                    Sent::Answer { events, more } => {
                        let events = checked(events);
                        member.lives[life].gossip.handle_answer(from, events, more, now);
                    }
                }
                to
            }
            Coming::Submit => {
                let who = self.random.below(self.members.len());
                self.words += 1;
                if self.members[who].is_up {
                    self.members[who].waiting.push(self.words);
                }
                // In the second half of the time that is whole, nothing is said any more.
                let next = now + self.random.between(1, 2 * self.plan.submit_us);
                if next < (HEALS_US + ENDS_US) / 2 {
                    self.later(next, Coming::Submit);
                }
                who
            }
            Coming::Crash(who) => {
                let member = &mut self.members[who];
                member.is_up = false;
                member.waiting.clear();
                who
            }
            Coming::Back(who) => {
                let members = self.members.len();
                let member = &mut self.members[who];
                if member.is_up {
                    return who;
                }
                member.is_up = true;
                // What was ordered before is ordered again from what is on the disk.
                member.rounds.clear();
                member.words.clear();
                for life in &mut member.lives {
                    life.disk.truncate(life.durable);
                    life.sync = None;
                    life.gossip = gossip(who, members, now);
                    for (place, said) in (0..).zip(&life.disk) {
                        life.gossip.replay(Arc::clone(said), place);
                    }
                    life.gossip.begin(now);
                }
                who
            }
            Coming::Wake(who) => {
                // Another wake may have come in between.
                if self.members[who].wakes_us == now {
                    self.members[who].wakes_us = u64::MAX;
                }
                who
            }
        }
    }

    /// Does all that a member has to do now.
    fn settle(&mut self, who: usize) {
        if !self.members[who].is_up || self.members[who].lie == Some(Lie::Silent) {
            return;
        }
        for life in 0..self.members[who].lives.len() {
            self.write(who, life);
            self.speak(who, life);
            self.write(who, life);
            self.send(who, life);
            self.look(who, life);
            let gossip = &self.members[who].lives[life].gossip;
            let due = gossip.next_timeout_us().max(self.now_us + 1);
            let sync = self.members[who].lives[life].sync.map_or(u64::MAX, |(until, _)| until);
            let next = due.min(sync);
            if next < self.members[who].wakes_us {
                self.members[who].wakes_us = next;
                self.later(next, Coming::Wake(who));
            }
        }
    }

    /// Brings events to the disk.
    fn write(&mut self, who: usize, life: usize) {
        let now = self.now_us;
        let careless = self.careless;
        let sync_us_max = self.plan.sync_us_max;
        let at = &mut self.members[who].lives[life];
        while let Some((_, said)) = at.gossip.poll_record() {
            at.disk.push(said);
        }
        if careless {
            (0..at.disk.len() as u64).for_each(|number| at.gossip.recorded(number, number));
        }
        if let Some((until, upto)) = at.sync
            && until <= now
        {
            at.sync = None;
            let newly: Vec<_> = at.disk[at.durable..upto].to_vec();
            (at.durable..upto).for_each(|number| at.gossip.recorded(number as u64, number as u64));
            at.durable = upto;
            let ours = newly.iter().filter(|said| usize::from(said.event.creator.0) == who);
            if self.members[who].is_honest() {
                self.acknowledged.extend(ours.flat_map(|said| words_of(&said.payload)));
            }
        }
        let at = &mut self.members[who].lives[life];
        if at.sync.is_none() && at.durable < at.disk.len() {
            let upto = at.disk.len();
            let took = self.random.between(50, sync_us_max);
            self.members[who].lives[life].sync = Some((now + took, upto));
        }
    }

    /// Makes an event, if one is due.
    fn speak(&mut self, who: usize, life: usize) {
        let now = self.now_us;
        let member = &mut self.members[who];
        member.lives[life].gossip.handle_timeout(now);
        member.lives[life].gossip.set_to_say(!member.waiting.is_empty());
        let clock = now.saturating_add_signed(member.clock);
        let Some(draft) = member.lives[life].gossip.draft(now) else { return };
        let payload: Vec<u8> =
            std::mem::take(&mut member.waiting).iter().flat_map(|word| word.to_le_bytes()).collect();
        let time_us = draft.time_us.max(clock);
        let said = make(who, Draft { time_us, ..draft }, payload, life as u8);
        member.lives[life].gossip.say(said, now);
        member.lives[life].gossip.set_to_say(false);
    }

    fn send(&mut self, who: usize, life: usize) {
        while let Some((to, frame)) = self.members[who].lives[life].gossip.poll_frame() {
            let to = usize::from(to.0);
            let disk = &self.members[who].lives[life].disk;
            let read = |events: Vec<Held>| {
                let read = |held| match held {
                    Held::Here(said) => said,
                    Held::Recorded(place) => Arc::clone(&disk[place as usize]),
                };
                events.into_iter().map(read).collect()
            };
            let frame = match frame {
                Frame::Events(events) => Sent::Events(read(events)),
                Frame::Ask { tips } => Sent::Ask { tips },
                Frame::Answer { events, more } => Sent::Answer { events: read(events), more },
            };
            if let Sent::Events(events) | Sent::Answer { events, .. } = &frame {
                for said in events.iter().filter(|said| usize::from(said.event.creator.0) == who) {
                    let parent = said.event.self_parent;
                    self.sent.entry((who, parent)).or_default().insert(said.event.id);
                    self.trace = Hash::of(&[&self.trace.as_bytes()[..], &said.event.id.0].concat());
                }
            }
            match self.members[who].lie {
                Some(Lie::TwoLives) if to % 2 != life => continue,
                Some(Lie::Partial) if to % 2 == 0 && !matches!(frame, Sent::Ask { .. }) => continue,
                Some(Lie::Forging) => {
                    let forged = self.forge(who, &frame);
                    self.carry(who, to, forged);
                }
                _ => {}
            }
            self.carry(who, to, frame);
        }
    }

    /// Something that no honest member would send.
    fn forge(&mut self, who: usize, frame: &Sent) -> Sent {
        let Sent::Events(events) = frame else { return Sent::Ask { tips: vec![EventId([7; 32]); 50] } };
        let events = events.iter().map(|said| {
            let mut event = said.event.clone();
            // It has no key but its own.
            let kinds = if usize::from(event.creator.0) == who { 6 } else { 2 };
            match self.random.below(kinds) {
                0 => event.signature = Signature::from_bytes([9; 64]),
                1 => event.creator = MemberIndex(((who + 1) % self.members.len()) as u16),
                2 => event = signed(Event { time_us: 0, ..event }, &[]),
                3 => {
                    let parent = EventId([self.random.below(250) as u8; 32]);
                    event = signed(Event { other_parents: vec![parent], ..event }, &[]);
                }
                4 => {
                    event =
                        signed(Event { other_parents: event.self_parent.into_iter().collect(), ..event }, &[])
                }
                _ => event = signed(Event { creator: MemberIndex(u16::MAX), ..event }, &[]),
            }
            Arc::new(Said { event, payload: Vec::new(), orders: false })
        });
        Sent::Events(events.collect())
    }

    /// Puts a frame on its way, or loses it.
    fn carry(&mut self, from: usize, to: usize, frame: Sent) {
        let healed = self.now_us >= HEALS_US;
        if !self.plan.reaches(from, to, self.now_us) {
            return;
        }
        let copies = if healed {
            1
        } else if self.random.chance(self.plan.loss) {
            0
        } else if self.random.chance(self.plan.twice) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let usual = self.random.between(self.plan.delay_us / 2 + 1, self.plan.delay_us + 1);
            let (slow_us, slow) = self.plan.slow;
            let takes =
                if !healed && self.random.chance(slow) { self.random.between(1, slow_us) } else { usual };
            // A liar with two lives hears of each member in one of them.
            let life = if self.members[to].lives.len() > 1 { from % 2 } else { 0 };
            self.later(self.now_us + takes, Coming::Frame { from, to, life, frame: frame.clone() });
        }
    }

    /// Takes out what was ordered and found.
    fn look(&mut self, who: usize, life: usize) {
        let member = &mut self.members[who];
        let at = &mut member.lives[life];
        member.memory_max.0 = member.memory_max.0.max(at.gossip.graph().len());
        member.memory_max.1 = member.memory_max.1.max(at.gossip.status().waiting);
        while let Some(fork) = at.gossip.poll_fork() {
            member.forks.push(fork);
        }
        while let Some(round) = at.gossip.poll_ordered() {
            let mut bytes = round.round.0.to_le_bytes().to_vec();
            for (said, time_us) in &round.events {
                bytes.extend_from_slice(&said.event.id.0);
                bytes.extend_from_slice(&time_us.to_le_bytes());
                member.words.extend(words_of(&said.payload));
            }
            member.rounds.push(Hash::of(&bytes));
            self.trace = Hash::of(&[&self.trace.as_bytes()[..], &[who as u8], &bytes].concat());
        }
    }
}

fn words_of(payload: &[u8]) -> impl Iterator<Item = Word> {
    payload.as_chunks().0.iter().map(|bytes| Word::from_le_bytes(*bytes))
}

/// What stands in the place of a signature: only the driver of its creator makes it.
fn signature_of(creator: MemberIndex, id: &EventId) -> Signature {
    let first = Hash::of(&[&b"key"[..], &creator.0.to_le_bytes(), &id.0].concat());
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(first.as_bytes());
    bytes[32..].copy_from_slice(Hash::of(first.as_bytes()).as_bytes());
    Signature::from_bytes(bytes)
}

fn id_of(event: &Event, payload: &[u8]) -> EventId {
    let mut bytes = event.creator.0.to_le_bytes().to_vec();
    bytes.extend_from_slice(&event.time_us.to_le_bytes());
    bytes.push(u8::from(event.self_parent.is_some()));
    event.parents().for_each(|parent| bytes.extend_from_slice(&parent.0));
    bytes.extend_from_slice(Hash::of(payload).as_bytes());
    EventId(*Hash::of(&bytes).as_bytes())
}

fn signed(mut event: Event, payload: &[u8]) -> Event {
    event.id = id_of(&event, payload);
    event.signature = signature_of(event.creator, &event.id);
    event
}

fn is_signed(said: &Said) -> bool {
    said.event.id == id_of(&said.event, &said.payload)
        && said.event.signature == signature_of(said.event.creator, &said.event.id)
}

fn make(who: usize, draft: Draft, payload: Vec<u8>, life: u8) -> Arc<Said> {
    let Draft { self_parent, other_parents, time_us } = draft;
    let event = Event {
        id: EventId([0; 32]),
        creator: MemberIndex(who as u16),
        self_parent,
        other_parents,
        // Two lives of one member never say the very same.
        time_us: time_us + u64::from(life),
        signature: Signature::from_bytes([0; 64]),
    };
    let orders = !payload.is_empty();
    Arc::new(Said { event: signed(event, &payload), payload, orders })
}
