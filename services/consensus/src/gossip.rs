//! How events reach all members. Pure: time is an argument, frames and records are polled.
//!
//! Rules:
//!
//! - A member sends each of its events to all others as soon as it is made, **and durable** together with all that it
//!   was built on ([`Gossip::poll_record`], [`Gossip::recorded`]). So a restarted member continues its own chain: what it
//!   forgets, nobody has heard of. What was ordered comes out under the same rule.
//! - An event whose parents are missing waits, and its sender is asked for what it has that this member does not: a question names
//!   the asker's newest event of each member, and the answer is what is not among their ancestors, parents first. No
//!   chain of questions, however far behind.
//! - Who has answered with nothing new is asked again only after [`Settings::answer_us_max`]: a liar starts no storm.
//! - Who is asked and sees newer events in the question than it has, asks back.
//! - Where something waits for its order and nothing new has come for a while, or after a longer while in any
//!   case, one of the others is asked, in turn: what was lost on the way is found so, the last event too.
//!
//! Bounds: [`Settings::waiting_max`] events of each member that wait for parents, and none that is out of all windows; one question on
//! its way to each member; [`ANSWER_EVENTS_MAX`] events an answer.
//!
//! To be closed before it runs between cells: what an ordered event carries has to come out with its round, since it may be forgotten
//! before the round is durable; own events that went stale have to come back to whoever said them; frames that
//! wait for one member have no bound.
//!
//! Absent: signatures and hashes (the driver checks and makes them), the network, who is connected.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::hashgraph::{
    Due, Event, EventId, Fork, Hashgraph, MemberIndex, OrderedRound, Pace, Parent, Rejected, Round, Work,
};

/// Events of one answer at most.
pub const ANSWER_EVENTS_MAX: usize = 256;

/// An event with what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The event, its signature checked.
    pub event: Event,
    /// What it carries; empty if it only carries votes on.
    pub payload: Vec<u8>,
}

/// What goes from one member to another.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Events, parents first.
    Events(Vec<Arc<Said>>),
    /// A question for all that is not among the ancestors of these, the asker's newest of each member.
    Ask {
        /// Those events.
        tips: Vec<EventId>,
    },
}

/// An event to be hashed and signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// See [`Event`].
    pub birth: Round,
    /// See [`Event`].
    pub self_parent: Option<Parent>,
    /// See [`Event`].
    pub other_parents: Vec<Parent>,
    /// See [`Event`].
    pub time_us: u64,
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
    /// Events of each member that wait for their parents at most.
    pub waiting_max: usize,
}

/// One member's part in the gossip, with its hashgraph.
#[derive(Debug)]
pub struct Gossip {
    me: MemberIndex,
    members: u16,
    settings: Settings,
    graph: Hashgraph,
    /// The events of the graph, in its order.
    said: VecDeque<Arc<Said>>,
    /// Events that came before their parents, or too early; and what waits for which.
    waiting: BTreeMap<EventId, Arc<Said>>,
    waiting_for: BTreeMap<EventId, BTreeSet<EventId>>,
    too_early: BTreeSet<EventId>,
    /// How many of each member's wait.
    waiting_of: Vec<usize>,
    /// Whether the next event would carry something.
    has_to_say: bool,
    /// Events that carry something and that no round has received.
    open: BTreeSet<EventId>,
    last_made_us: Option<u64>,
    last_time_us: u64,
    /// When something new came last, and when it last asked because nothing did.
    last_new_us: u64,
    last_look_us: u64,
    next_asked: u16,
    asked_us: Vec<Option<u64>>,
    frames: VecDeque<(MemberIndex, Frame)>,
    records: VecDeque<(u64, Arc<Said>)>,
    /// Events that were recorded, or are to be.
    recorded_next: u64,
    durable: u64,
    /// Own events that are not sent, and rounds that are not given out, with what has to be durable first.
    unsent: VecDeque<(u64, Arc<Said>)>,
    ordered: VecDeque<(u64, OrderedRound)>,
    forks: VecDeque<Fork>,
    /// Events that no honest member would have sent.
    refused: u64,
}

impl Gossip {
    /// A member that has said nothing yet, in an empty graph.
    ///
    /// # Panics
    ///
    /// If it is not one of the members.
    pub fn new(me: MemberIndex, members: u16, graph: Hashgraph, settings: Settings) -> Self {
        assert!(me.0 < members, "it is a member");
        Self {
            me,
            members,
            settings,
            graph,
            said: VecDeque::new(),
            waiting: BTreeMap::new(),
            waiting_for: BTreeMap::new(),
            too_early: BTreeSet::new(),
            waiting_of: vec![0; usize::from(members)],
            has_to_say: false,
            open: BTreeSet::new(),
            last_made_us: None,
            last_time_us: 0,
            last_new_us: 0,
            last_look_us: 0,
            next_asked: 0,
            asked_us: vec![None; usize::from(members)],
            frames: VecDeque::new(),
            records: VecDeque::new(),
            recorded_next: 0,
            durable: 0,
            unsent: VecDeque::new(),
            ordered: VecDeque::new(),
            forks: VecDeque::new(),
            refused: 0,
        }
    }

    /// The hashgraph.
    pub fn graph(&self) -> &Hashgraph {
        &self.graph
    }

    /// Events that wait for their parents.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether something that was said is not ordered yet, or something is to be said.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty() || self.has_to_say
    }

    /// Events refused that no honest member would have sent.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Gives back, in the order of their records, the events that were durable before a restart.
    pub fn replay(&mut self, said: Arc<Said>) {
        if self.insert(&said).is_ok() {
            self.records.pop_back();
            self.durable = self.recorded_next;
        }
    }

    /// Whether there is something to put into the next event.
    pub fn set_to_say(&mut self, has_to_say: bool) {
        self.has_to_say = has_to_say;
    }

    /// Events came from another member, their hashes and signatures checked.
    pub fn handle_events(&mut self, from: MemberIndex, events: Vec<Arc<Said>>, now_us: u64) {
        let before = self.recorded_next;
        let is_full = events.len() >= ANSWER_EVENTS_MAX;
        let mut lacks = false;
        for said in events {
            lacks |= self.take(said, now_us);
        }
        // Who brings nothing new is not asked again at once, whatever its events are said to be built on.
        if self.recorded_next > before {
            self.asked_us[usize::from(from.0)] = None;
        }
        if lacks || is_full {
            self.ask(from, now_us);
        }
    }

    /// Another member asks for what it does not have.
    pub fn handle_ask(&mut self, from: MemberIndex, tips: &[EventId], now_us: u64) {
        let unknown = self.graph.not_among_ancestors(tips, ANSWER_EVENTS_MAX);
        if !unknown.is_empty() {
            // Its own last event not before it is durable, asked or not.
            let is_sent = |said: &Arc<Said>| self.unsent.iter().all(|(_, unsent)| !Arc::ptr_eq(said, unsent));
            let events = unknown.iter().filter_map(|place| self.said.get(*place).cloned()).filter(is_sent);
            let events: Vec<_> = events.collect();
            if !events.is_empty() {
                self.frames.push_back((from, Frame::Events(events)));
            }
        }
        if tips.iter().any(|tip| !self.graph.contains(tip) && !self.waiting.contains_key(tip)) {
            self.ask(from, now_us);
        }
    }

    /// An event to be made now, if one is due. The driver puts into it what there is to say, hashes and signs it and
    /// gives it to [`Gossip::say`] at once. There is none while the one before is not durable: meanwhile more
    /// gathers for the next.
    pub fn draft(&mut self, now_us: u64) -> Option<Draft> {
        let Due::At(at) = self.due() else { return None };
        if at > now_us {
            return None;
        }
        let plan = self.graph.plan(self.me);
        Some(Draft {
            birth: self.graph.pending_round(),
            self_parent: plan.self_parent,
            other_parents: plan.other_parents,
            time_us: now_us.max(self.last_time_us + 1),
        })
    }

    /// The event that was made of a draft. It is sent once it is durable.
    pub fn say(&mut self, said: Arc<Said>, now_us: u64) {
        if self.insert(&said).is_err() {
            // Not made of the draft: nobody has seen it.
            self.refused += 1;
            return;
        }
        self.last_made_us = Some(now_us);
        self.last_new_us = now_us;
        self.unsent.push_back((self.recorded_next, said));
    }

    /// When something is to be done though nothing comes.
    pub fn next_timeout_us(&self) -> u64 {
        let due = if let Due::At(at) = self.due() { at } else { u64::MAX };
        due.min(self.next_look_us())
    }

    /// Does what is due but for the event of [`Gossip::draft`].
    pub fn handle_timeout(&mut self, now_us: u64) {
        if self.next_look_us() <= now_us && self.members > 1 {
            self.last_look_us = now_us;
            self.next_asked = (self.next_asked + 1) % self.members;
            if self.next_asked == self.me.0 {
                self.next_asked = (self.next_asked + 1) % self.members;
            }
            self.ask(MemberIndex(self.next_asked), now_us);
        }
    }

    /// The next frame to send, and to whom.
    pub fn poll_frame(&mut self) -> Option<(MemberIndex, Frame)> {
        while let Some((_, said)) = self.unsent.pop_front_if(|(needs, _)| *needs <= self.durable) {
            for member in (0..self.members).map(MemberIndex).filter(|member| *member != self.me) {
                self.frames.push_back((member, Frame::Events(vec![Arc::clone(&said)])));
            }
        }
        self.frames.pop_front()
    }

    /// The next event to make durable, with its number.
    pub fn poll_record(&mut self) -> Option<(u64, Arc<Said>)> {
        self.records.pop_front()
    }

    /// The events up to this number are durable.
    pub fn recorded(&mut self, number: u64) {
        self.durable = self.durable.max(number + 1);
    }

    /// The next round that was ordered, all of whose events are durable.
    pub fn poll_ordered(&mut self) -> Option<OrderedRound> {
        self.ordered.pop_front_if(|(needs, _)| *needs <= self.durable).map(|(_, round)| round)
    }

    /// The next fork that was found.
    pub fn poll_fork(&mut self) -> Option<Fork> {
        self.forks.pop_front()
    }

    /// What an event in memory carries.
    pub fn said(&self, id: &EventId) -> Option<&Arc<Said>> {
        self.said.get(self.graph.place_of(id)?)
    }

    fn due(&self) -> Due {
        if !self.unsent.is_empty() {
            return Due::Later;
        }
        let work = Work { to_say: self.has_to_say, open: !self.open.is_empty() };
        self.settings.pace.due(&self.graph.plan(self.me), work, self.last_made_us)
    }

    fn next_look_us(&self) -> u64 {
        let Settings { quiet_us_max, silence_us_max, .. } = self.settings;
        let silence = self.last_look_us.saturating_add(silence_us_max);
        let quiet = self.last_new_us.max(self.last_look_us).saturating_add(quiet_us_max);
        if self.is_open() { silence.min(quiet) } else { silence }
    }

    /// Asks a member for what is missing, unless a question is on its way.
    fn ask(&mut self, member: MemberIndex, now_us: u64) {
        let asked = &mut self.asked_us[usize::from(member.0)];
        if asked.is_some_and(|asked| asked.saturating_add(self.settings.answer_us_max) > now_us) {
            return;
        }
        *asked = Some(now_us);
        self.frames.push_back((member, Frame::Ask { tips: self.graph.newest() }));
    }

    /// Takes an event and all that waited for it. Whether parents of it are missing.
    fn take(&mut self, said: Arc<Said>, now_us: u64) -> bool {
        let mut todo = vec![said];
        let mut lacks = false;
        while let Some(said) = todo.pop() {
            let id = said.event.id;
            match self.insert(&said) {
                Ok(()) => {
                    self.last_new_us = now_us;
                    let freed = self.waiting_for.remove(&id).unwrap_or_default();
                    todo.extend(freed.iter().filter_map(|id| self.no_longer_waiting(id)));
                }
                Err(Rejected::MissingParents(parents)) => {
                    lacks = true;
                    if self.may_wait(&said) {
                        for parent in parents {
                            self.waiting_for.entry(parent).or_default().insert(id);
                        }
                        self.wait(said);
                    }
                }
                Err(Rejected::Future { .. }) => {
                    lacks = true;
                    if self.may_wait(&said) {
                        self.too_early.insert(id);
                        self.wait(said);
                    }
                }
                Err(Rejected::Duplicate | Rejected::Ancient) => {}
                Err(Rejected::UnknownMember | Rejected::Invalid(_)) => self.refused += 1,
            }
            if todo.is_empty() {
                let pending = self.graph.pending_round();
                let is_due =
                    |id: &EventId| self.waiting.get(id).is_none_or(|said| said.event.birth <= pending);
                let due: Vec<EventId> = self.too_early.iter().copied().filter(is_due).collect();
                for id in due {
                    self.too_early.remove(&id);
                    todo.extend(self.no_longer_waiting(&id));
                }
            }
        }
        lacks
    }

    fn may_wait(&self, said: &Said) -> bool {
        let of_creator = self.waiting_of.get(usize::from(said.event.creator.0));
        of_creator.is_some_and(|waiting| *waiting < self.settings.waiting_max)
    }

    fn wait(&mut self, said: Arc<Said>) {
        let creator = usize::from(said.event.creator.0);
        if self.waiting.insert(said.event.id, said).is_none() {
            self.waiting_of[creator] += 1;
        }
    }

    fn no_longer_waiting(&mut self, id: &EventId) -> Option<Arc<Said>> {
        let said = self.waiting.remove(id)?;
        self.waiting_of[usize::from(said.event.creator.0)] -= 1;
        Some(said)
    }

    /// Forgets what has waited until nobody can need it.
    fn drop_ancient(&mut self) {
        let is_over = |said: &Arc<Said>| self.graph.is_forgotten(said.event.birth.0);
        let over: Vec<EventId> =
            self.waiting.iter().filter(|(_, said)| is_over(said)).map(|(id, _)| *id).collect();
        if over.is_empty() {
            return;
        }
        over.iter().for_each(|id| {
            self.no_longer_waiting(id);
        });
        let waiting = &self.waiting;
        self.too_early.retain(|id| waiting.contains_key(id));
        self.waiting_for.retain(|_, by| {
            by.retain(|id| waiting.contains_key(id));
            !by.is_empty()
        });
    }

    /// Puts an event into the graph and takes out what that decides.
    fn insert(&mut self, said: &Arc<Said>) -> Result<(), Rejected> {
        let pending = self.graph.pending_round();
        self.graph.insert(said.event.clone())?;
        self.said.push_back(Arc::clone(said));
        self.records.push_back((self.recorded_next, Arc::clone(said)));
        self.recorded_next += 1;
        // What a member that has forked says may never be ordered: nobody stays awake for it.
        if !said.payload.is_empty() && !self.graph.is_forked(said.event.creator) {
            self.open.insert(said.event.id);
        }
        if said.event.creator == self.me {
            self.last_time_us = self.last_time_us.max(said.event.time_us);
        }
        while let Some(round) = self.graph.poll_ordered() {
            round.events.iter().for_each(|ordered| {
                self.open.remove(&ordered.id);
            });
            self.ordered.push_back((self.recorded_next, round));
        }
        while let Some(fork) = self.graph.poll_fork() {
            let graph = &self.graph;
            self.open.retain(|id| graph.creator_of(id) != Some(fork.member));
            self.forks.push_back(fork);
        }
        while let Some(stale) = self.graph.poll_stale() {
            self.open.remove(&stale);
        }
        while self.said.front().is_some_and(|said| !self.graph.contains(&said.event.id)) {
            self.said.pop_front();
        }
        if self.graph.pending_round() != pending {
            self.drop_ancient();
        }
        Ok(())
    }
}
