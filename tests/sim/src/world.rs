//! The network, and what happens to its members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consensus::gossip::{ANSWER_BYTES_MAX, ANSWER_EVENTS_MAX, Draft, Frame, Held, Ordered, Said};
use consensus::hashgraph::{EventId, MemberIndex};

use crate::member::{GOSSIP, Member};
use crate::plan::{Lie, Plan};
use crate::random::Random;
use crate::signing::{Digest, Word, is_signed, make, words_of};

/// A frame on its way: what was in a journal was read.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// See [`Frame`].
    Events(Vec<Arc<Said>>),
    /// See [`Frame`].
    Ask { tips: Vec<EventId> },
    /// See [`Frame`].
    Answer {
        events: Vec<Arc<Said>>,
        more: bool,
        /// How often the asker had crashed: a link ends with a process, and what is on it is lost.
        crashes: u32,
        /// If the answerer is honest and this is all that it knows: what it has of the asker's events. Nobody is told; it is for
        /// the invariants.
        has: Option<Vec<EventId>>,
    },
}

enum Coming {
    Frame { from: usize, to: usize, life: usize, frame: Sent },
    Submit(usize),
    Crash(usize),
    Back(usize, u64),
    Wake(usize),
    Heal(usize),
    Jump(usize, i64),
    Flood(usize),
}

/// An event that somebody has made and signed.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Who.
    pub by: usize,
    /// On which event of its own.
    pub self_parent: Option<EventId>,
    /// When.
    pub at_us: u64,
}

/// A run.
pub struct World {
    /// Its plan.
    pub plan: Plan,
    /// The members.
    pub members: Vec<Member>,
    /// Words that were submitted, to whom.
    pub submitted: BTreeMap<Word, usize>,
    /// Words that are in an event which is durable where it was made: these are promised.
    pub acknowledged: BTreeSet<Word>,
    /// All events that were ever made.
    pub made: BTreeMap<EventId, Made>,
    /// Of each member, its events.
    made_by: Vec<Vec<EventId>>,
    /// All events that were ever sent by who made them, by creator and self-parent.
    pub sent: BTreeMap<(usize, Option<EventId>), BTreeSet<EventId>>,
    /// What was seen to be broken on the way: by which invariant.
    pub broken: Vec<(&'static str, String)>,
    /// A hash over all that has happened.
    pub trace: Digest,
    /// Whether events are sent before they are durable: to see a test go red.
    pub careless: bool,
    pub(crate) random: Random,
    pub(crate) now_us: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    comings: u64,
}

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::of(&mut random);
        Self::with(plan, random)
    }

    /// A world with this plan.
    pub fn with(plan: Plan, random: Random) -> Self {
        let mut world = Self {
            members: (0..plan.members).map(|index| Member::new(index, &plan)).collect(),
            submitted: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            made: BTreeMap::new(),
            made_by: vec![Vec::new(); plan.members],
            sent: BTreeMap::new(),
            broken: Vec::new(),
            trace: Digest::new(0),
            careless: false,
            plan,
            random,
            now_us: 0,
            coming: BTreeMap::new(),
            comings: 0,
        };
        world.schedule();
        world
    }

    fn schedule(&mut self) {
        for crash in self.plan.crashes.clone() {
            self.later(crash.at_us, Coming::Crash(crash.member));
            self.later(crash.back_us, Coming::Back(crash.member, crash.lost));
        }
        for jump in self.plan.jumps.clone() {
            self.later(jump.at_us, Coming::Jump(jump.member, jump.by_us));
        }
        for (place, until_us) in self.plan.cuts.iter().map(|cut| cut.until_us).enumerate().collect::<Vec<_>>()
        {
            self.later(until_us, Coming::Heal(place));
        }
        for who in 0..self.plan.members {
            if self.plan.lies[who] == Some(Lie::Flooding) {
                for _ in 0..2 {
                    let at_us = self.random.between(100_000, self.plan.heals_us);
                    self.later(at_us, Coming::Flood(who));
                }
            }
        }
        let mut at_us = self.random.between(1, 2 * self.plan.submit_us);
        while at_us < self.plan.submits_us {
            let who = self.random.below(self.plan.members);
            self.submit_at(who, at_us);
            at_us += self.random.between(1, 2 * self.plan.submit_us);
        }
    }

    /// Runs to the end.
    pub fn run(&mut self) {
        for who in 0..self.plan.members {
            let clock = self.members[who].clock(0);
            self.members[who].lives.iter_mut().for_each(|life| life.gossip.begin(clock));
            self.settle(who);
        }
        while let Some(((now, _), coming)) = self.coming.pop_first() {
            if now > self.plan.ends_us {
                break;
            }
            self.now_us = now;
            let touched = self.happen(coming);
            self.settle(touched);
        }
        self.members.iter_mut().for_each(Member::count_refused);
    }

    /// Gives a word to a member at some time, to be said.
    pub fn submit_at(&mut self, who: usize, at_us: u64) {
        self.later(at_us, Coming::Submit(who));
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
                self.deliver(from, to, life, frame);
                to
            }
            Coming::Submit(who) => {
                let word = self.submitted.len() as Word + 1;
                self.submitted.insert(word, who);
                if self.members[who].is_up {
                    self.members[who].waiting.push(word);
                }
                who
            }
            Coming::Crash(who) => {
                self.members[who].crash();
                who
            }
            Coming::Back(who, lost) => {
                if !self.members[who].is_up {
                    self.come_back(who, lost);
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
            Coming::Heal(cut) => {
                self.heal(cut);
                0
            }
            Coming::Jump(who, by_us) => {
                self.members[who].set_clock(by_us);
                who
            }
            Coming::Flood(who) => {
                if self.members[who].is_up {
                    self.flood(who);
                }
                who
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, life: usize, frame: Sent) {
        let member = &mut self.members[to];
        if !member.is_up || member.lie == Some(Lie::Silent) {
            return;
        }
        let clock = member.clock(self.now_us);
        let sender = MemberIndex(from as u16);
        let mut unsigned = 0;
        let mut checked = |mut events: Vec<Arc<Said>>| {
            let came = events.len();
            events.retain(|said| is_signed(said));
            unsigned += (came - events.len()) as u64;
            events
        };
        let gossip = &mut member.lives[life].gossip;
        match frame {
            Sent::Events(events) => gossip.handle_events(sender, checked(events), clock),
            Sent::Ask { tips } => gossip.handle_ask(sender, &tips, clock),
            Sent::Answer { events, more, crashes, has } if crashes == member.crashes => {
                gossip.handle_answer(sender, checked(events), more, clock);
                if !more {
                    member.told_by.insert(from);
                }
                member.told.extend(has.into_iter().flatten());
            }
            Sent::Answer { .. } => {}
        }
        self.members[to].unsigned += unsigned;
    }

    fn come_back(&mut self, who: usize, lost: u64) {
        let before = self.members[who].rounds.len();
        let gone = self.members[who].come_back(&self.plan, lost, self.now_us);
        for said in gone.iter().filter(|said| usize::from(said.event.creator.0) == who) {
            // It was promised by a disk that is lost.
            words_of(&said.payload).for_each(|word| {
                self.acknowledged.remove(&word);
            });
        }
        for life in 0..self.members[who].lives.len() {
            self.look(who, life);
        }
        let member = &self.members[who];
        let now = member.rounds.len();
        if member.lie.is_none() && lost == 0 && now < before {
            self.broken.push(("replay", format!("member {who} has given {now} rounds again of {before}")));
        }
    }

    /// A cut is over, and both ends of each link may hear of it.
    fn heal(&mut self, cut: usize) {
        let cut = &self.plan.cuts[cut];
        if !cut.is_told {
            return;
        }
        let side = cut.side.clone();
        for who in 0..self.plan.members {
            if !self.members[who].is_up {
                continue;
            }
            let clock = self.members[who].clock(self.now_us);
            for other in (0..self.plan.members).filter(|other| side[*other] != side[who]) {
                for life in &mut self.members[who].lives {
                    life.gossip.handle_connected(MemberIndex(other as u16), clock);
                }
            }
            self.settle(who);
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
            let member = &self.members[who];
            let due = member.when(member.lives[life].gossip.next_timeout_us()).max(self.now_us + 1);
            let next = due.min(member.lives[life].sync.map_or(u64::MAX, |(until, _)| until));
            if next < member.wakes_us {
                self.members[who].wakes_us = next;
                self.later(next, Coming::Wake(who));
            }
        }
    }

    /// Brings events to the disk.
    fn write(&mut self, who: usize, life: usize) {
        let now = self.now_us;
        let is_honest = self.members[who].is_honest();
        let at = &mut self.members[who].lives[life];
        while let Some((number, said)) = at.gossip.poll_record() {
            assert_eq!(number, at.disk.len() as u64, "records come in their order");
            at.disk.push(said);
            if self.careless {
                at.gossip.recorded(number, number);
            }
        }
        if let Some((_, upto)) = at.sync.take_if(|(until, _)| *until <= now) {
            for place in at.durable..upto {
                at.gossip.recorded(place as u64, place as u64);
                let said = &at.disk[place];
                if is_honest && usize::from(said.event.creator.0) == who {
                    self.acknowledged.extend(words_of(&said.payload));
                }
            }
            at.durable = upto;
        }
        if at.sync.is_none() && at.durable < at.disk.len() {
            let took = self.random.between(50, self.plan.sync_us_max);
            at.sync = Some((now + took, at.disk.len()));
        }
    }

    /// Makes an event, if one is due.
    fn speak(&mut self, who: usize, life: usize) {
        let member = &mut self.members[who];
        let clock = member.clock(self.now_us);
        let gossip = &mut member.lives[life].gossip;
        gossip.handle_timeout(clock);
        if gossip.is_rolled_back().is_some() {
            // It will say nothing any more.
            member.waiting.clear();
        }
        gossip.set_to_say(!member.waiting.is_empty());
        let Some(mut draft) = gossip.draft(clock) else { return };
        if member.lie == Some(Lie::Deaf) {
            draft.other_parents.clear();
        }
        let payload: Vec<u8> = member.waiting.drain(..).flat_map(Word::to_le_bytes).collect();
        // Two lives of one member never say the very same.
        let said = make(who, Draft { time_us: draft.time_us + life as u64, ..draft }, payload);
        gossip.say(Arc::clone(&said), clock);
        gossip.set_to_say(false);
        if member.is_honest() {
            self.check_start(who, &said);
        }
        self.note_made(&said);
    }

    /// Who makes an event has been told all by enough others, and none of them had another one in its place.
    fn check_start(&mut self, who: usize, said: &Said) {
        let (member, members) = (&self.members[who], self.plan.members);
        if 3 * (member.told_by.len() + 1) <= 2 * members {
            self.broken.push(("start", format!("member {who} speaks too early")));
        }
        let self_parent = said.event.self_parent;
        let mut told = member.told.iter().filter_map(|id| self.made.get(id));
        if told.any(|made| made.self_parent == self_parent) {
            self.broken.push(("start", format!("member {who} was told of what it has lost")));
        }
    }

    pub(crate) fn note_made(&mut self, said: &Said) {
        let by = usize::from(said.event.creator.0);
        if is_signed(said) && by < self.plan.members {
            let made = Made { by, self_parent: said.event.self_parent, at_us: self.now_us };
            self.made.insert(said.event.id, made);
            self.made_by[by].push(said.event.id);
        }
    }

    fn send(&mut self, who: usize, life: usize) {
        while let Some((to, frame)) = self.members[who].lives[life].gossip.poll_frame() {
            let to = usize::from(to.0);
            let frame = self.read(who, life, to, frame);
            if let Sent::Events(events) | Sent::Answer { events, .. } = &frame {
                for said in events.iter().filter(|said| usize::from(said.event.creator.0) == who) {
                    self.sent.entry((who, said.event.self_parent)).or_default().insert(said.event.id);
                    self.trace.add_all(&said.event.id.0[..8]);
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

    /// Reads what is to be sent and not in memory.
    fn read(&mut self, who: usize, life: usize, to: usize, frame: Frame) -> Sent {
        let crashes = self.members[to].crashes;
        let member = &mut self.members[who];
        let at = &member.lives[life];
        match frame {
            Frame::Events(events) => {
                assert!(events.len() <= GOSSIP.frames_max, "what is to be sent is bounded");
                Sent::Events(at.read(events))
            }
            Frame::Ask { tips } => {
                assert!(tips.len() <= 4 * self.plan.members, "a question is bounded");
                Sent::Ask { tips }
            }
            Frame::Answer { events, more } => {
                let bytes: usize = events
                    .iter()
                    .map(|held| if let Held::Here(said) = held { said.payload.len() } else { 0 })
                    .sum();
                assert!(
                    events.len() <= ANSWER_EVENTS_MAX && bytes <= ANSWER_BYTES_MAX,
                    "an answer is bounded"
                );
                member.read_back += events.iter().any(|held| matches!(held, Held::Recorded(_))) as u64;
                let has = (!more && member.lie.is_none() && self.plan.is_restored(to)).then(|| {
                    let of_asker = self.made_by[to].iter().copied();
                    of_asker.filter(|id| at.gossip.graph().contains(id)).collect()
                });
                Sent::Answer { events: at.read(events), more, crashes, has }
            }
        }
    }

    /// Puts a frame on its way, or loses it.
    pub(crate) fn carry(&mut self, from: usize, to: usize, frame: Sent) {
        let healed = self.now_us >= self.plan.heals_us;
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
        while let Some(fork) = member.lives[life].gossip.poll_fork() {
            member.forks.push(fork);
        }
        while let Some(ordered) = self.members[who].lives[life].gossip.poll_ordered() {
            self.take_out(who, &ordered);
        }
        // To look at all of it each time would take most of the time.
        if self.comings.is_multiple_of(32) {
            let member = &mut self.members[who];
            let status = member.lives[life].gossip.status();
            let has_to_be = status.events.saturating_sub(member.taken_out) * EVENT_BYTES_MAX;
            let (events, waiting, bytes) = &mut member.memory_max;
            *events = (*events).max(status.events);
            *waiting = (*waiting).max(status.waiting);
            *bytes = (*bytes).max(status.payload_bytes.saturating_sub(has_to_be));
        }
    }

    fn take_out(&mut self, who: usize, ordered: &Ordered) {
        let mut digest = Digest::new(ordered.round.0);
        let member = &mut self.members[who];
        for (said, time_us) in &ordered.events {
            digest.add_all(&said.event.id.0);
            digest.add(*time_us);
            member.words.extend(words_of(&said.payload).map(|word| (word, self.now_us)));
            if !is_signed(said) {
                self.broken.push(("validity", format!("member {who} has ordered what nobody said")));
            }
        }
        let place = member.rounds.len();
        member.taken_out += ordered.events.len();
        if member.lie.is_none() && ordered.round.0 != place as u64 + 1 {
            self.broken.push(("agreement", format!("member {who} has left a round out")));
        }
        if member.lie.is_none() && member.rounds_before.get(place).is_some_and(|before| *before != digest) {
            let why = format!("member {who} has ordered round {} another way after a crash", place + 1);
            self.broken.push(("replay", why));
        }
        member.rounds.push(digest);
        self.trace.add_all(&digest.bytes());
        self.trace.add(who as u64);
    }
}

/// Bytes that an event takes in memory at most: parents and words are few here.
const EVENT_BYTES_MAX: usize = 2_000;

impl World {
    /// debug
    pub fn dump(&self) {
        for (who, m) in self.members.iter().enumerate() {
            for life in &m.lives {
                eprintln!(
                    "{who} {:?} up {} rolled {} rest {} rounds {} words {} crashes {} {:?}",
                    m.lie,
                    m.is_up,
                    m.is_rolled_back(),
                    m.is_at_rest(),
                    m.rounds.len(),
                    m.words.len(),
                    m.crashes,
                    life.gossip.status()
                );
                eprintln!(
                    "    started {} unordered_own {:?}",
                    life.gossip.is_started(),
                    life.gossip.unordered_own().len()
                );
            }
        }
        let last = self.made.values().map(|m| (m.at_us, m.by)).collect::<std::collections::BTreeSet<_>>();
        eprintln!("{:?}", last.iter().rev().take(20).collect::<Vec<_>>());
    }
}
