//! What is on its way between members.

use std::sync::Arc;

use consensus::gossip::{ANSWER_BYTES_MAX, ANSWER_EVENTS_MAX, Frame, Held, Said};
use consensus::hashgraph::EventId;
use protocol::block::BlockProof;
use protocol::consensus::{Answer, RecordedRequest, Request};

use super::{Coming, World};
use crate::cells::Epoch;
use crate::life::Target;
use crate::member::GOSSIP;
use crate::plan::Lie;
use crate::signing::is_signed;

/// A frame on its way: what was in a journal was read.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// See [`Frame`].
    Events { epoch: u64, events: Vec<Arc<Said>> },
    /// See [`Frame`].
    Ask { epoch: u64, tips: Vec<EventId> },
    /// See [`Frame`].
    Answer {
        epoch: u64,
        events: Vec<Arc<Said>>,
        more: bool,
        /// How often the asker had crashed: a link ends with a process, and what is on it is lost.
        crashes: u32,
        /// If the answerer is honest and this is all that it knows: what it has of the asker's events. Nobody is told; it is for
        /// the invariants.
        has: Option<Vec<EventId>>,
    },
    /// The epoch that was asked about is over.
    Over(Target),
    /// A question for final blocks from one on.
    AskBlocks { from: u64 },
    /// Its answer, with where the answerer is.
    Blocks { proofs: Arc<Vec<BlockProof>>, target: Target },
}

impl World {
    /// Hands a frame over.
    pub(super) fn deliver(&mut self, from: usize, to: usize, life: usize, frame: Sent) {
        let member = &mut self.members[to];
        if !member.is_up || member.lie == Some(Lie::Silent) {
            return;
        }
        let present = member.lives[life].part.as_ref().map(|part| part.epoch.number);
        match frame {
            Sent::Events { epoch, .. } | Sent::Answer { epoch, .. }
                if present.is_some_and(|now| epoch > now) =>
            {
                self.keep_early(from, to, life, epoch, frame);
            }
            Sent::Events { epoch, events } if present == Some(epoch) => {
                let events = self.checked(to, life, events);
                self.with_part(to, life, |part, clock| {
                    let Some(sender) = part.epoch.place(from) else { return };
                    part.gossip.handle_events(sender, events, clock);
                });
            }
            Sent::Answer { epoch, events, more, crashes, has }
                if present == Some(epoch) && crashes == member.crashes =>
            {
                let events = self.checked(to, life, events);
                self.with_part(to, life, |part, clock| {
                    let Some(sender) = part.epoch.place(from) else { return };
                    part.gossip.handle_answer(sender, events, more, clock);
                    if !more {
                        part.told_by.insert(from);
                    }
                    part.told.extend(has.into_iter().flatten());
                });
            }
            Sent::Events { .. } | Sent::Answer { .. } => {}
            Sent::Ask { epoch, tips } => self.asked(from, to, life, epoch, &tips),
            Sent::Over(target) => {
                member.lives[life].claims.insert(from, target);
            }
            Sent::AskBlocks { from: first } => self.asked_for_blocks(from, to, life, first),
            Sent::Blocks { proofs, target } => self.take_blocks(from, to, life, &proofs, target),
        }
    }

    fn with_part(&mut self, who: usize, life: usize, act: impl FnOnce(&mut crate::life::Part, u64)) {
        let clock = self.members[who].clock(self.now_us);
        if let Some(part) = &mut self.members[who].lives[life].part {
            act(part, clock);
        }
    }

    /// Events whose signatures hold; the words for blocks in them are heard, wherever the event stands.
    fn checked(&mut self, to: usize, life: usize, mut events: Vec<Arc<Said>>) -> Vec<Arc<Said>> {
        let Self { members, words, .. } = self;
        let member = &mut members[to];
        let at = &mut member.lives[life];
        let Some(part) = &at.part else { return Vec::new() };
        let came = events.len();
        events.retain(|said| is_signed(&part.epoch, said));
        member.unsigned += (came - events.len()) as u64;
        for said in events.iter().filter(|said| !said.payload.is_empty()) {
            let creator = part.epoch.cell(said.event.creator);
            let is_new = creator != Some(to) && !part.gossip.graph().contains(&said.event.id);
            if is_new {
                let finalised = at.progress.finalised;
                let open = words.attestations(&said.payload).filter(|word| word.index.0 >= finalised);
                at.heard.entry(part.epoch.number).or_default().extend(open.cloned());
            }
        }
        events
    }

    /// Somebody asks for events of an epoch.
    fn asked(&mut self, from: usize, to: usize, life: usize, epoch: u64, tips: &[EventId]) {
        let clock = self.members[to].clock(self.now_us);
        let at = &mut self.members[to].lives[life];
        let Some(part) = &mut at.part else { return };
        if epoch == part.epoch.number {
            if let Some(asker) = part.epoch.place(from) {
                part.gossip.handle_ask(asker, tips, clock);
            }
        } else if epoch < part.epoch.number {
            match &mut at.previous {
                Some(previous) if previous.epoch.number == epoch => {
                    if let Some(asker) = previous.epoch.place(from) {
                        previous.gossip.handle_ask(asker, tips, clock);
                    }
                }
                _ => {
                    let target = Target { epoch: part.epoch.number, base: part.epoch.base };
                    self.carry(to, from, Sent::Over(target));
                }
            }
        }
    }

    /// Sends what there is to be sent.
    pub(super) fn send(&mut self, who: usize, life: usize) {
        while let Some((epoch, to, frame)) = self.poll_frame(who, life) {
            let frame = self.read(who, life, to, &epoch, frame);
            if let Sent::Events { events, .. } | Sent::Answer { events, .. } = &frame {
                for said in events.iter().filter(|said| epoch.cell(said.event.creator) == Some(who)) {
                    let place = (who, epoch.number, said.event.self_parent);
                    self.sent.entry(place).or_default().insert(said.event.id);
                    self.trace.add_all(&said.event.id.0[..8]);
                }
            }
            match self.members[who].lie {
                Some(Lie::TwoLives) if to % 2 != life => continue,
                Some(Lie::Partial) if to % 2 == 0 && !matches!(frame, Sent::Ask { .. }) => continue,
                Some(Lie::Forging) => {
                    let forged = self.forge(who, &epoch, &frame);
                    self.carry(who, to, forged);
                }
                _ => {}
            }
            self.carry(who, to, frame);
        }
    }

    /// The next frame of its gossip, or of that of the epoch before, and to whom.
    fn poll_frame(&mut self, who: usize, life: usize) -> Option<(Arc<Epoch>, usize, Frame)> {
        let at = &mut self.members[who].lives[life];
        let part = at.part.as_mut().map(|part| (&part.epoch, &mut part.gossip));
        let previous = at.previous.as_mut().map(|previous| (&previous.epoch, &mut previous.gossip));
        part.into_iter().chain(previous).find_map(|(epoch, gossip)| {
            let (to, frame) = gossip.poll_frame()?;
            Some((Arc::clone(epoch), epoch.cell(to)?, frame))
        })
    }

    /// Reads what is to be sent and not in memory.
    fn read(&mut self, who: usize, life: usize, to: usize, epoch: &Epoch, frame: Frame) -> Sent {
        let crashes = self.members[to].crashes;
        let number = epoch.number;
        match frame {
            Frame::Events(events) => {
                assert!(events.len() <= GOSSIP.frames_max, "what is to be sent is bounded");
                Sent::Events { epoch: number, events: self.read_all(who, life, number, events) }
            }
            Frame::Ask { tips } => {
                assert!(tips.len() <= 4 * epoch.cells().len(), "a question is bounded");
                Sent::Ask { epoch: number, tips }
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
                let member = &mut self.members[who];
                member.read_back += events.iter().any(|held| matches!(held, Held::Recorded(_))) as u64;
                let is_told = !more && member.lie.is_none() && self.plan.is_restored(to);
                let has = is_told.then(|| self.has_of(who, life, to, number));
                Sent::Answer {
                    epoch: number,
                    events: self.read_all(who, life, number, events),
                    more,
                    crashes,
                    has,
                }
            }
        }
    }

    /// What a member has of another one's events, in an epoch.
    fn has_of(&self, who: usize, life: usize, of: usize, epoch: u64) -> Vec<EventId> {
        let Some(part) = &self.members[who].lives[life].part else { return Vec::new() };
        if part.epoch.number != epoch {
            return Vec::new();
        }
        let of = self.made_by[of].iter().copied();
        of.filter(|id| part.gossip.graph().contains(id)).collect()
    }

    fn read_all(&mut self, who: usize, life: usize, epoch: u64, events: Vec<Held>) -> Vec<Arc<Said>> {
        let read = |held| match held {
            Held::Here(said) => said,
            Held::Recorded(number) => self.read_back(who, life, epoch, number),
        };
        events.into_iter().map(read).collect()
    }

    /// Reads an event out of the journal.
    fn read_back(&mut self, who: usize, life: usize, epoch: u64, number: u64) -> Arc<Said> {
        let consensus = &mut self.members[who].lives[life].consensus;
        let asked = Request::FindRecorded(RecordedRequest { epoch, number });
        let Ok(Answer::FindRecorded(found)) = consensus.ask(asked, 0, 0) else {
            unreachable!("what has left memory is journaled");
        };
        let is_durable = consensus.is_durable(found.entry as usize + 1);
        assert!(is_durable || self.careless, "what is out of memory is durable");
        match self.members[who].lives[life].consensus.record(found.entry) {
            consensus::Record::Events { events, .. } => self.event_of(&events[found.place as usize]),
            other => unreachable!("events are there: {other:?}"),
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

    /// A cut is over, and both ends of each link may hear of it.
    pub(super) fn heal(&mut self, cut: usize) {
        let cut = &self.plan.cuts[cut];
        if !cut.is_told {
            return;
        }
        let side = cut.side.clone();
        for who in 0..self.members.len() {
            if !self.members[who].is_up {
                continue;
            }
            let clock = self.members[who].clock(self.now_us);
            for life in &mut self.members[who].lives {
                let Some(part) = &mut life.part else { continue };
                let cells = part.epoch.cells().iter().copied().enumerate();
                for (place, _) in cells.filter(|(_, other)| side[*other] != side[who]) {
                    let place = consensus::hashgraph::MemberIndex(place as u16);
                    part.gossip.handle_connected(place, clock);
                }
            }
            self.settle(who);
        }
    }
}
