//! What liars send that no honest member would.

use std::sync::Arc;

use consensus::gossip::{Draft, Said};
use consensus::hashgraph::{Event, EventId, MemberIndex};
use protocol::signing::Signature;

use crate::cells::Epoch;
use crate::life::Target;
use crate::random::Random;
use crate::signing::{make, signed};
use crate::words::Words;
use crate::world::{Sent, World};

/// Events of a burst.
const BURST: usize = 300;

impl World {
    /// Something that no honest member would send, made of what it sends.
    pub(crate) fn forge(&mut self, who: usize, epoch: &Epoch, frame: &Sent) -> Sent {
        let events = match frame {
            Sent::Events { epoch, events } if self.random.chance(20) => {
                // What it signed for one epoch, in another one.
                let epoch = if self.random.chance(50) { epoch + 1 } else { epoch.saturating_sub(1) };
                return Sent::Events { epoch, events: events.clone() };
            }
            Sent::Events { events, .. } | Sent::Answer { events, .. } => events,
            Sent::Ask { epoch, .. } if self.random.chance(50) => {
                return Sent::Ask { epoch: *epoch, tips: vec![EventId([7; 32]); 50] };
            }
            _ => return Sent::Over(Target { epoch: epoch.number + 3, base: 0 }),
        };
        let Self { words, random, .. } = self;
        let forged: Vec<_> = events.iter().map(|said| forged(who, epoch, said, words, random)).collect();
        forged.iter().for_each(|said| self.note_made(epoch, said));
        Sent::Events { epoch: epoch.number, events: forged }
    }

    /// More events at once than a member may make in a round.
    pub(crate) fn flood(&mut self, who: usize) {
        let clock = self.members[who].clock(self.now_us);
        let Some(part) = &self.members[who].lives[0].part else { return };
        let (epoch, me) = (Arc::clone(&part.epoch), part.me);
        let plan = part.gossip.graph().plan(me);
        let (mut self_parent, mut other_parents) = (plan.self_parent, plan.other_parents);
        let mut burst = Vec::new();
        for number in 0..BURST {
            let time_us = 2 * clock + number as u64;
            let draft = Draft { self_parent, other_parents, time_us };
            let said = make(&epoch, me, draft, Vec::new(), &self.words);
            (self_parent, other_parents) = (Some(said.event.id), Vec::new());
            self.note_made(&epoch, &said);
            if let Some(part) = &mut self.members[who].lives[0].part {
                part.gossip.say(Arc::clone(&said), clock);
            }
            burst.push(said);
        }
        for to in (0..self.members.len()).filter(|to| *to != who) {
            self.carry(who, to, Sent::Events { epoch: epoch.number, events: burst.clone() });
        }
    }
}

fn forged(who: usize, epoch: &Epoch, said: &Said, words: &Words, random: &mut Random) -> Arc<Said> {
    let mut event = said.event.clone();
    let is_own = epoch.cell(event.creator) == Some(who);
    let members = epoch.cells().len() as u16;
    let sign = |event| signed(epoch, event, Vec::new(), words);
    // It has no key but its own.
    match random.below(if is_own { 6 } else { 2 }) {
        0 => event.signature = Signature::from_bytes([9; 64]),
        1 => event.creator = MemberIndex((event.creator.0 + 1) % members),
        2 => return sign(Event { time_us: 0, ..event }),
        3 => {
            let parent = EventId([random.below(250) as u8; 32]);
            return sign(Event { other_parents: vec![parent], ..event });
        }
        4 => {
            let other_parents = event.self_parent.into_iter().collect();
            return sign(Event { other_parents, ..event });
        }
        _ => return sign(Event { creator: MemberIndex(u16::MAX), ..event }),
    }
    Arc::new(Said { event, payload: Vec::new(), orders: false, changes: false })
}
