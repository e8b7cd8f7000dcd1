//! What liars send that no honest member would.

use std::sync::Arc;

use consensus::gossip::{Draft, Said};
use consensus::hashgraph::{Event, EventId, MemberIndex};
use protocol::signing::Signature;

use crate::random::Random;
use crate::signing::{make, signed};
use crate::world::{Sent, World};

/// Events of a burst.
const BURST: usize = 300;

impl World {
    /// Something that no honest member would send, made of what it sends.
    pub(crate) fn forge(&mut self, who: usize, frame: &Sent) -> Sent {
        let (Sent::Events(events) | Sent::Answer { events, .. }) = frame else {
            return Sent::Ask { tips: vec![EventId([7; 32]); 50] };
        };
        let forged: Vec<_> =
            events.iter().map(|said| forged(who, said, self.plan.members, &mut self.random)).collect();
        forged.iter().for_each(|said| self.note_made(said));
        Sent::Events(forged)
    }

    /// More events at once than a member may make in a round.
    pub(crate) fn flood(&mut self, who: usize) {
        let clock = self.members[who].clock(self.now_us);
        let plan = self.members[who].lives[0].gossip.graph().plan(MemberIndex(who as u16));
        let (mut self_parent, mut other_parents) = (plan.self_parent, plan.other_parents);
        let mut burst = Vec::new();
        for number in 0..BURST {
            let time_us = 2 * clock + number as u64;
            let said = make(who, Draft { self_parent, other_parents, time_us }, Vec::new());
            (self_parent, other_parents) = (Some(said.event.id), Vec::new());
            self.note_made(&said);
            self.members[who].lives[0].gossip.say(Arc::clone(&said), clock);
            burst.push(said);
        }
        for to in (0..self.plan.members).filter(|to| *to != who) {
            self.carry(who, to, Sent::Events(burst.clone()));
        }
    }
}

fn forged(who: usize, said: &Said, members: usize, random: &mut Random) -> Arc<Said> {
    let mut event = said.event.clone();
    let is_own = usize::from(event.creator.0) == who;
    // It has no key but its own.
    match random.below(if is_own { 6 } else { 2 }) {
        0 => event.signature = Signature::from_bytes([9; 64]),
        1 => event.creator = MemberIndex(((who + 1) % members) as u16),
        2 => return signed(Event { time_us: 0, ..event }, Vec::new()),
        3 => {
            let parent = EventId([random.below(250) as u8; 32]);
            return signed(Event { other_parents: vec![parent], ..event }, Vec::new());
        }
        4 => {
            let other_parents = event.self_parent.into_iter().collect();
            return signed(Event { other_parents, ..event }, Vec::new());
        }
        _ => return signed(Event { creator: MemberIndex(u16::MAX), ..event }, Vec::new()),
    }
    Arc::new(Said { event, payload: Vec::new(), orders: false, changes: false })
}
