//! How the events of an epoch reach all members. Pure: time is an argument, frames and records are polled.
//!
//! Rules:
//!
//! - A member sends each of its events to all others as soon as it is made, **and durable** together with all that it
//!   was built on ([`Gossip::poll_record`], [`Gossip::recorded`]). So a restarted member continues its own chain: what it
//!   forgets, nobody has heard of. What was ordered comes out under the same rule.
//! - An event whose parents are missing waits, and its sender is asked for what it has that this member does not: a question names
//!   the asker's newest event of each member, and the answer is what is not among their ancestors, parents first. No
//!   chain of questions, however far behind. Every question is answered, if only with nothing.
//! - Who has answered with nothing new is asked again only after [`Settings::answer_us_max`]: a liar starts no storm.
//! - Who is asked and sees newer events in the question than it has, asks back.
//! - Where something waits for its order and nothing new has come for a while, or after a longer while in any
//!   case, one of the others is asked, in turn: what was lost on the way is found so, the last event too. A member to whom
//!   a link comes up is asked at once.
//! - **Start**: after [`Gossip::begin`] a member asks all others, and makes no event before it knows all that was known to members
//!   who, with itself, are a supermajority. What it has forgotten of its own, being restored from an older disk, is found so if one of
//!   these has it, in its graph or waiting for a parent. An answer to a question of an earlier life must not reach it: a link ends with the
//!   process, and so does what is on it. A member that hears of an event of its own that it does not have, then or later, **has been
//!   rolled back**: it makes no event any more in this life, and else goes on. It takes the event in like others'
//!   ([`hashgraph`](crate::hashgraph) has to be the same everywhere, and what others build on it could not be taken in without).
//! - **Members that have forked**: of them, a member takes in only what is needed: what an event waits for, and what
//!   answers bring, there no more than [`Gossip::branches_max`] branches of each. What such a member sends of its own is dropped.
//!   An answer leaves out what nobody else has built on.
//!
//! # Bounds
//!
//! | of | at most |
//! |---|---|
//! | events of each member that wait for a parent | [`Settings::waiting_max`] |
//! | questions on their way to each member | one |
//! | answers that wait to be sent to each member | one, made when it is sent |
//! | events that wait to be sent to each member | [`Settings::frames_max`] |
//! | an answer | [`ANSWER_EVENTS_MAX`] events, [`ANSWER_BYTES_MAX`] (or one event) |
//! | tips of a question that are looked at | four a member |
//! | what events carry, in memory | [`Settings::payload_bytes_max`] beside what no round has received or the driver has not taken out or written |
//!
//! What no round has received stays in memory. It is bounded because rounds only rise by a supermajority, and in each a member makes no
//! more than [`events_a_round_max`](crate::hashgraph::Settings::events_a_round_max) events; the driver bounds
//! what one carries, and how fast a member sends.
//!
//! Absent: signatures and hashes (the driver checks and makes them), the network, who is connected, epochs (each has a
//! `Gossip` of its own; the old one answers until nobody asks).

mod asking;
mod clock;
mod kept;
mod outbox;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use asking::Asking;
use clock::Clock;
use kept::Kept;
use outbox::Outbox;
use waiting::Waiting;

use crate::hashgraph::{
    Due, Event, EventId, Fork, Hashgraph, MemberIndex, Pace, Plan, Rejected, Round, Work,
};

/// Events of one answer at most.
pub const ANSWER_EVENTS_MAX: usize = 256;
/// Bytes of one answer at most, unless a single event has more.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// An event with what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The event, its signature checked.
    pub event: Event,
    /// What it carries; empty if it only carries votes on.
    pub payload: Vec<u8>,
    /// Whether it carries something to be ordered. A function of the payload: who decodes it says so.
    pub orders: bool,
    /// Whether a change of members is asked for in it. A function of the payload and of the epoch's members.
    pub changes: bool,
}

impl Said {
    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.event.other_parents.len() * size_of::<EventId>() + self.payload.len()
    }
}

/// An event to be sent.
#[derive(Clone, Debug)]
pub enum Held {
    /// In memory.
    Here(Arc<Said>),
    /// In the driver's journal alone, at the place that it gave to [`Gossip::recorded`] or [`Gossip::replay`].
    Recorded(u64),
}

/// What goes from one member to another.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Events that the sender has made.
    Events(Vec<Held>),
    /// A question for all that is not among the ancestors of these, the asker's newest of each member.
    Ask {
        /// Those events.
        tips: Vec<EventId>,
    },
    /// The answer to a question.
    Answer {
        /// Events, parents first.
        events: Vec<Held>,
        /// Whether there are more, to be asked for again.
        more: bool,
    },
}

/// An event to be hashed and signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// See [`Event`].
    pub self_parent: Option<EventId>,
    /// See [`Event`].
    pub other_parents: Vec<EventId>,
    /// See [`Event`].
    pub time_us: u64,
}

/// A round that was decided, with all that it received.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// Which.
    pub round: Round,
    /// Its judges.
    pub judges: Vec<EventId>,
    /// The events that it received, in their order, each with its consensus timestamp in microseconds since 1970 (UTC).
    pub events: Vec<(Arc<Said>, u64)>,
}

/// How a member gossips.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How fast it makes events.
    pub pace: Pace,
    /// Microseconds after which a question that was not answered is asked again.
    pub answer_us_max: u64,
    /// Microseconds without anything new after which it asks, while something waits for its order.
    pub quiet_us_max: u64,
    /// Microseconds after which it asks in any case.
    pub silence_us_max: u64,
    /// Events of each member that wait for a parent at most.
    pub waiting_max: usize,
    /// Own events that wait to be sent to one member at most.
    pub frames_max: usize,
    /// Bytes of events in memory, beside those that have to be.
    pub payload_bytes_max: usize,
}

/// Counts for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Events in the graph.
    pub events: usize,
    /// Events that wait for a parent.
    pub waiting: usize,
    /// Events that no round has received.
    pub undetermined: usize,
    /// The first round that is not decided.
    pub pending: Round,
    /// Events refused that no honest member would have sent.
    pub refused: u64,
    /// Members that have forked.
    pub forked: Vec<MemberIndex>,
    /// The round of each member's last event.
    pub tips: Vec<Option<Round>>,
    /// Bytes of events in memory.
    pub payload_bytes: usize,
}

/// One member's part in the gossip of an epoch, with its hashgraph.
#[derive(Debug)]
pub struct Gossip {
    me: MemberIndex,
    settings: Settings,
    clock: Clock,
    graph: Hashgraph,
    kept: Kept,
    waiting: Waiting,
    asking: Asking,
    outbox: Outbox,
    has_begun: bool,
    is_started: bool,
    rolled_back: Option<Arc<Said>>,
    has_to_say: bool,
    awaits: bool,
    /// Events that carry something to be ordered and that no round has received.
    open: BTreeSet<EventId>,
    /// The same of members that have forked, if nobody else has built on it: it may never be ordered, and nobody stays
    /// awake for it.
    stray: BTreeSet<EventId>,
    /// What an event made now would be built on.
    plan: Plan,
    last_made_us: Option<u64>,
    last_time_us: u64,
    /// The first event that this life of the member has made.
    first_made: Option<EventId>,
    records: VecDeque<(u64, Arc<Said>)>,
    /// An own event that is not durable, with its number.
    unsent: Option<(u64, Arc<Said>)>,
    /// Rounds, each with what has to be durable first and the places of its events.
    ordered: VecDeque<(u64, Ordered, Vec<usize>)>,
    forks: VecDeque<Fork>,
    refused: u64,
}

/// How an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Its sender sent it by itself.
    Pushed,
    /// It was asked for.
    Asked,
}

impl Gossip {
    /// A member that has said nothing yet, in an empty graph. The driver replays what it has of the epoch, and then
    /// [begins](Gossip::begin).
    ///
    /// # Panics
    ///
    /// If it is not one of the members.
    pub fn new(me: MemberIndex, graph: Hashgraph, settings: Settings, now_us: u64) -> Self {
        let members = graph.members();
        assert!(me.0 < members, "it is a member");
        Self {
            me,
            settings,
            clock: Clock::new(now_us),
            graph,
            kept: Kept::new(settings.payload_bytes_max),
            waiting: Waiting::new(members, settings.waiting_max),
            asking: Asking::new(me, members, now_us),
            outbox: Outbox::new(me, members, settings.frames_max),
            has_begun: false,
            is_started: false,
            rolled_back: None,
            has_to_say: false,
            awaits: false,
            open: BTreeSet::new(),
            stray: BTreeSet::new(),
            plan: Plan::default(),
            last_made_us: None,
            last_time_us: 0,
            first_made: None,
            records: VecDeque::new(),
            unsent: None,
            ordered: VecDeque::new(),
            forks: VecDeque::new(),
            refused: 0,
        }
    }

    /// The hashgraph.
    pub fn graph(&self) -> &Hashgraph {
        &self.graph
    }

    /// Whether something that was said is not ordered yet, or something is to be said.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty() || self.has_to_say
    }

    /// Whether there is something to put into the next event.
    pub fn has_to_say(&self) -> bool {
        self.has_to_say
    }

    /// Whether it has heard from enough members to make events.
    pub fn is_started(&self) -> bool {
        self.is_started
    }

    /// The first event of its own that it heard of and did not have: it was restored from an older disk, and makes no event
    /// any more.
    pub fn is_rolled_back(&self) -> Option<&Arc<Said>> {
        self.rolled_back.as_ref()
    }

    /// Own events that carry something to be ordered and that were not given out in their order, oldest first: to be said again in
    /// the next epoch. Among them are those of rounds that are decided and wait for records.
    pub fn unordered_own(&self) -> Vec<Arc<Said>> {
        let waiting = self.ordered.iter().flat_map(|(_, ordered, _)| &ordered.events);
        let waiting = waiting.map(|(said, _)| said).filter(|said| said.event.creator == self.me);
        let open = self.graph.unreceived_of(self.me).map(|place| self.kept.unordered(place));
        waiting.cloned().chain(open).filter(|said| said.orders).collect()
    }

    /// An event of the graph, in memory or in the journal.
    pub fn held(&self, id: &EventId) -> Option<Held> {
        Some(self.kept.held(self.graph.place_of(id)?).0)
    }

    /// Counts for people.
    pub fn status(&self) -> Status {
        let members = (0..self.graph.members()).map(MemberIndex);
        Status {
            events: self.graph.len(),
            waiting: self.waiting.len(),
            undetermined: self.graph.unreceived(),
            pending: self.graph.pending_round(),
            refused: self.refused,
            forked: members.clone().filter(|member| self.graph.is_forked(*member)).collect(),
            tips: members.map(|member| self.graph.tip_round(member)).collect(),
            payload_bytes: self.kept.bytes(),
        }
    }

    /// Branches of a member that has forked which answers may bring, unless an event waits for one: each honest member
    /// builds on one before it knows of the others.
    pub fn branches_max(&self) -> usize {
        2 * usize::from(self.graph.members())
    }

    /// Gives back, in the order of their records, the events that were durable before a restart, and where they are. What
    /// they order comes out again: if it is taken out in between, little stays in memory.
    pub fn replay(&mut self, said: Arc<Said>, place: u64) {
        if self.insert(&said).is_ok()
            && let Some((number, _)) = self.records.pop_back()
        {
            self.kept.is_durable_at(number, place);
        }
    }

    /// All is replayed: asks all others what they know, and takes part once enough have answered.
    pub fn begin(&mut self, now_us: u64) {
        let now_us = self.clock.steady(now_us);
        self.has_begun = true;
        self.start();
        let (me, members) = (self.me, self.graph.members());
        for member in (0..members).map(MemberIndex).filter(|member| *member != me) {
            self.ask(member, now_us);
        }
        self.plan = self.graph.plan(self.me);
    }

    /// Takes part in an epoch that follows another one: at once, and asking nobody, if this life of the member was **heard** in one before.
    /// Otherwise it [begins](Gossip::begin).
    ///
    /// Heard it was if a round of an epoch, up to its last one, has received an event that this life has made
    /// ([`speaks_in`](Gossip::speaks_in)). The witnesses of that round were made later than the event, so that epoch had not ended when this
    /// life began, and no earlier life can have said anything in a later epoch. One that was not heard may be a copy of an older disk that the
    /// others led through the epoch: it would fork.
    pub fn go_on(&mut self, was_heard: bool, now_us: u64) {
        if !was_heard {
            return self.begin(now_us);
        }
        (self.has_begun, self.is_started) = (true, true);
        self.plan = self.graph.plan(self.me);
    }

    /// Whether a round has received the first event that this life of the member has made.
    pub fn speaks_in(&self, round: &Ordered) -> bool {
        self.first_made.is_some_and(|first| round.events.iter().any(|(said, _)| said.event.id == first))
    }

    /// Whether there is something to put into the next event.
    pub fn set_to_say(&mut self, has_to_say: bool) {
        self.has_to_say = has_to_say;
    }

    /// Whether something is awaited that makes this member look for what is missing, as if something were open, but
    /// make no events: attestations of what is ordered, for instance.
    pub fn set_awaits(&mut self, awaits: bool) {
        self.awaits = awaits;
    }

    /// Another member sent these, its own events; their hashes and signatures are checked.
    pub fn handle_events(&mut self, from: MemberIndex, events: Vec<Arc<Said>>, now_us: u64) {
        let now_us = self.clock.steady(now_us);
        self.take_pushed(from, events, now_us);
    }

    fn take_pushed(&mut self, from: MemberIndex, events: Vec<Arc<Said>>, now_us: u64) {
        if self.take_all(events, Came::Pushed, now_us) {
            self.ask(from, now_us);
        }
    }

    /// Another member answers, the events' hashes and signatures checked. An answer to no question counts as sent by
    /// itself.
    pub fn handle_answer(&mut self, from: MemberIndex, events: Vec<Arc<Said>>, more: bool, now_us: u64) {
        let now_us = self.clock.steady(now_us);
        if !self.asking.is_answer(from) {
            return self.take_pushed(from, events, now_us);
        }
        let before = self.graph.len();
        let lacks = self.take_all(events, Came::Asked, now_us);
        self.asking.answered(from, self.graph.len() > before, more);
        self.start();
        if lacks || more {
            self.ask(from, now_us);
        }
    }

    /// Another member asks for what it does not have.
    pub fn handle_ask(&mut self, from: MemberIndex, tips: &[EventId], now_us: u64) {
        let now_us = self.clock.steady(now_us);
        let tips = &tips[..tips.len().min(self.graph.tips_max())];
        self.outbox.answer(from, tips.to_vec());
        if tips.iter().any(|tip| !self.graph.contains(tip) && !self.waiting.contains(tip)) {
            self.ask(from, now_us);
        }
    }

    /// A link to a member came up, or it is known to have something: what was on its way before may be lost, and it is asked now. No more
    /// than once in [`Settings::answer_us_max`] before that is due anyway.
    pub fn handle_connected(&mut self, member: MemberIndex, now_us: u64) {
        let now_us = self.clock.steady(now_us);
        if self.has_begun && member != self.me {
            self.asking.is_lost(member, &self.settings, now_us);
            self.ask(member, now_us);
        }
    }

    /// An event to be made now, if one is due. The driver puts into it what there is to say, hashes and signs it and
    /// gives it to [`Gossip::say`] at once. There is none while the one before is not durable: meanwhile more
    /// gathers for the next.
    pub fn draft(&mut self, now_us: u64) -> Option<Draft> {
        let steady_us = self.clock.steady(now_us);
        let Due::At(at) = self.due() else { return None };
        (at <= steady_us).then(|| Draft {
            self_parent: self.plan.self_parent,
            other_parents: self.plan.other_parents.clone(),
            time_us: now_us.max(self.last_time_us + 1),
        })
    }

    /// The event that was made of a draft. It is sent once it is durable.
    pub fn say(&mut self, said: Arc<Said>, now_us: u64) {
        let now_us = self.clock.steady(now_us);
        self.last_made_us = Some(now_us);
        if self.insert(&said).is_err() {
            // Not made of the draft: nobody has seen it.
            self.refused += 1;
            return;
        }
        self.first_made.get_or_insert(said.event.id);
        self.asking.something_new(now_us);
        self.unsent = Some((self.kept.len() - 1, said));
        self.plan = self.graph.plan(self.me);
    }

    /// When something is to be done though nothing comes.
    pub fn next_timeout_us(&self) -> u64 {
        if !self.has_begun {
            return u64::MAX;
        }
        let due = if let Due::At(at) = self.due() { at } else { u64::MAX };
        let again = if self.is_started { None } else { self.to_start().map(|(_, at)| at).min() };
        self.clock.shown(due.min(again.unwrap_or(u64::MAX)).min(self.next_look_us()))
    }

    /// Does what is due but for the event of [`Gossip::draft`].
    pub fn handle_timeout(&mut self, now_us: u64) {
        let now_us = self.clock.steady(now_us);
        if !self.has_begun {
            return;
        }
        if !self.is_started {
            let due: Vec<_> = self.to_start().filter(|(_, at)| *at <= now_us).collect();
            due.iter().for_each(|(member, _)| self.ask(*member, now_us));
        }
        if self.next_look_us() <= now_us {
            let member = self.asking.look(now_us);
            self.ask(member, now_us);
        }
    }

    /// The next frame to send, and to whom. Who is not connected may be left out: it is asked, or asks, later.
    pub fn poll_frame(&mut self) -> Option<(MemberIndex, Frame)> {
        if let Some((_, said)) = self.unsent.take_if(|(number, _)| *number < self.kept.durable()) {
            self.outbox.push(&said);
        }
        let (to, due) = self.outbox.pop()?;
        let frame = match due {
            outbox::Due::Push(events) => Frame::Events(events.into_iter().map(Held::Here).collect()),
            outbox::Due::Ask => Frame::Ask { tips: self.graph.newest() },
            outbox::Due::Answer(tips) => self.answer(to, &tips),
        };
        Some((to, frame))
    }

    /// The next event to make durable, with its number.
    pub fn poll_record(&mut self) -> Option<(u64, Arc<Said>)> {
        self.records.pop_front()
    }

    /// Whether something that is to leave waits for records: an own event, or a round that was decided.
    pub fn waits_for_records(&self) -> bool {
        self.unsent.is_some() || !self.ordered.is_empty()
    }

    /// The event with this number is durable, there in the journal. Each in its turn.
    pub fn recorded(&mut self, number: u64, place: u64) {
        self.kept.is_durable_at(number, place);
    }

    /// The next round that was ordered, all of whose events are durable.
    pub fn poll_ordered(&mut self) -> Option<Ordered> {
        let durable = self.kept.durable();
        let (_, ordered, places) = self.ordered.pop_front_if(|(needs, _, _)| *needs <= durable)?;
        self.kept.give_out(places);
        Some(ordered)
    }

    /// The next fork that was found: one for each member that has forked.
    pub fn poll_fork(&mut self) -> Option<Fork> {
        self.forks.pop_front()
    }

    fn due(&self) -> Due {
        if !self.is_started || self.rolled_back.is_some() || self.unsent.is_some() {
            return Due::Later;
        }
        let work = Work { to_say: self.has_to_say, open: !self.open.is_empty() };
        self.settings.pace.due(&self.plan, work, self.last_made_us)
    }

    fn next_look_us(&self) -> u64 {
        self.asking.next_look_us(self.is_open() || self.awaits, &self.settings)
    }

    fn to_start(&self) -> impl Iterator<Item = (MemberIndex, u64)> {
        self.asking.to_start(&self.settings)
    }

    /// Takes part once those who have told all that they know are a supermajority.
    fn start(&mut self) {
        let weight: u64 = self.asking.told_all().map(|member| self.graph.weight_of(member)).sum();
        self.is_started |= weight >= self.graph.supermajority();
    }

    /// Asks a member for what is missing, unless a question is on its way.
    fn ask(&mut self, member: MemberIndex, now_us: u64) {
        if self.has_begun && self.asking.may_ask(member, &self.settings, now_us) {
            self.outbox.ask(member);
        }
    }

    fn answer(&self, to: MemberIndex, tips: &[EventId]) -> Frame {
        let unknown = self.graph.unknown_to(to, tips, ANSWER_EVENTS_MAX - 1);
        let (mut events, mut more, mut bytes) = (Vec::new(), unknown.more, 0);
        // Its own last event not before it is durable, asked or not. Nobody builds on it yet.
        let unsent = self.unsent.as_ref().map(|(number, _)| *number as usize);
        for place in unknown.places.into_iter().filter(|place| Some(*place) != unsent) {
            let (held, more_bytes) = self.kept.held(place);
            bytes += more_bytes;
            if bytes > ANSWER_BYTES_MAX && !events.is_empty() {
                more = true;
                break;
            }
            events.push(held);
        }
        // What of the asker's waits here for a parent that it may have lost: the last says enough.
        let fits = |said: &Arc<Said>| events.is_empty() || bytes + said.bytes() <= ANSWER_BYTES_MAX;
        if !more && let Some(said) = self.waiting.last_of(to).filter(fits) {
            events.push(Held::Here(said));
        }
        Frame::Answer { events, more }
    }

    /// Takes events that came. Whether parents of any are missing.
    fn take_all(&mut self, events: Vec<Arc<Said>>, came: Came, now_us: u64) -> bool {
        let before = self.graph.len();
        let mut lacks = false;
        for said in events {
            lacks |= self.take(said, came);
        }
        if self.graph.len() > before {
            self.asking.something_new(now_us);
            self.plan = self.graph.plan(self.me);
        }
        lacks
    }

    /// Takes an event and all that waited for it. Whether parents are missing.
    fn take(&mut self, said: Arc<Said>, came: Came) -> bool {
        let mut todo = vec![said];
        let mut lacks = false;
        while let Some(said) = todo.pop() {
            let id = said.event.id;
            if self.is_forgotten_own(&said) {
                self.rolled_back.get_or_insert_with(|| Arc::clone(&said));
            }
            if !self.is_needed(&said, came) {
                continue;
            }
            match self.insert(&said) {
                Ok(()) => todo.append(&mut self.waiting.take(&id)),
                Err(Rejected::MissingParents(parents)) => {
                    lacks = true;
                    if let Some(parent) = parents.first() {
                        self.waiting.put(said, *parent);
                    }
                }
                Err(Rejected::Duplicate) => {}
                Err(Rejected::UnknownMember | Rejected::Invalid(_)) => {
                    self.refused += 1;
                    self.waiting.drop_all_on(&id);
                }
            }
        }
        lacks
    }

    fn is_forgotten_own(&self, said: &Said) -> bool {
        said.event.creator == self.me && !self.graph.contains(&said.event.id)
    }

    /// Whether an event is to be taken, if its creator has forked.
    fn is_needed(&self, said: &Said, came: Came) -> bool {
        let event = &said.event;
        if !self.graph.is_forked(event.creator) || self.waiting.is_for(&event.id) {
            return true;
        }
        let (branches, goes_on) = self.graph.branches(event);
        came == Came::Asked && (goes_on || branches < self.branches_max())
    }

    /// Puts an event into the graph and takes out what that decides.
    fn insert(&mut self, said: &Arc<Said>) -> Result<(), Rejected> {
        self.graph.insert(&said.event)?;
        let number = self.kept.push(Arc::clone(said));
        self.records.push_back((number, Arc::clone(said)));
        if said.orders {
            self.open.insert(said.event.id);
        }
        if said.event.creator == self.me {
            self.last_time_us = self.last_time_us.max(said.event.time_us);
        }
        while let Some(round) = self.graph.poll_ordered() {
            let places: Vec<usize> =
                round.events.iter().filter_map(|event| self.graph.place_of(&event.id)).collect();
            let times = round.events.iter().map(|event| event.time_us);
            let events = places.iter().map(|place| self.kept.unordered(*place)).zip(times).collect();
            for event in &round.events {
                let _ = self.open.remove(&event.id) || self.stray.remove(&event.id);
            }
            let ordered = Ordered { round: round.round, judges: round.judges, events };
            self.ordered.push_back((number + 1, ordered, places));
        }
        let mut is_another = false;
        while let Some(fork) = self.graph.poll_fork() {
            is_another = true;
            self.forks.push_back(fork);
        }
        self.note_stray(said, is_another);
        Ok(())
    }

    /// Parts what may never be ordered from what is waited for.
    fn note_stray(&mut self, said: &Said, is_another_fork: bool) {
        let graph = &self.graph;
        if is_another_fork {
            let below = graph.forked_below(graph.all_unreceived());
            let is_forked = |id: &EventId| graph.creator_of(id).is_some_and(|who| graph.is_forked(who));
            self.open.append(&mut self.stray);
            self.stray = self.open.extract_if(.., |id| is_forked(id) && !below.contains(id)).collect();
        } else if said.orders && graph.is_forked(said.event.creator) {
            self.open.remove(&said.event.id);
            self.stray.insert(said.event.id);
        } else if !self.stray.is_empty() {
            let below = graph.forked_below(std::iter::once(said.event.id));
            self.open.extend(self.stray.extract_if(.., |id| below.contains(id)));
        }
    }
}
