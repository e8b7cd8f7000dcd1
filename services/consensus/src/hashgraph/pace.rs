//! When a member makes an event, and on which parents. Pure: the clock is an argument.
//!
//! Rules:
//!
//! - Its other-parents are the newest events of all others that its last event does not build on: each
//!   event carries on all that its creator knows. Nobody builds on a member that has forked.
//! - While anything waits for its order, here or in the graph, a member makes an event as soon as the new events, with its own,
//!   come from a supermajority: one that brings less costs a signature and n - 1 checks as well, and advances no round.
//! - If it is [`Pace::patience_us`] since its last event, anything new will do. Otherwise two halves of the members could fall into
//!   making events by turns, each waiting for the other: every round would take three delays in place of two.
//! - Its first event it makes as soon as it hears of anything.
//! - Where nothing else waits and this member has something to say, it does so at once, on what there is: that
//!   wakes the others.
//! - Where nothing waits at all, it is silent.
//! - Two events of its own are [`Pace::interval_us_min`] apart or more.
//!
//! No standstill: of the members that still run, take the one whose last event is the oldest. The last events of the
//! others were made later, so they are new to it, and it makes the next event once one of them has come to it.

use super::event::{MemberIndex, Parent};
use super::graph::{Hashgraph, Number};

/// What an event made now would be built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its creator's last event.
    pub self_parent: Option<Parent>,
    /// What is new of others.
    pub other_parents: Vec<Parent>,
    /// Whether those, with itself, come from a supermajority.
    pub advances: bool,
}

/// What waits for its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// This member has something to put into its next event.
    pub to_say: bool,
    /// Something in the graph that no round has received yet, or that is still to be attested.
    pub open: bool,
}

/// When to make the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time, in microseconds; it may be past.
    At(u64),
    /// Not before something comes.
    Later,
}

/// How fast a member makes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Microseconds between two events of a member, at least.
    pub interval_us_min: u64,
    /// Microseconds after its last event from which on a member makes one on less than a supermajority brings. About what an event
    /// takes to the others.
    pub patience_us: u64,
}

impl Pace {
    /// When an event with this plan is due. `last_us` is when the member made its last one.
    pub fn due(&self, plan: &Plan, work: Work, last_us: Option<u64>) -> Due {
        let awake = work.open || work.to_say;
        let wait_us = if work.to_say && !work.open || awake && plan.advances {
            self.interval_us_min
        } else if awake && !plan.other_parents.is_empty() {
            self.patience_us
        } else {
            return Due::Later;
        };
        Due::At(last_us.map_or(0, |last| last.saturating_add(wait_us)))
    }
}

impl Hashgraph {
    /// What an event of a member made now would be built on.
    ///
    /// # Panics
    ///
    /// If there is no such member.
    pub fn plan(&self, member: MemberIndex) -> Plan {
        let ours = self.tip(member);
        let knows = |other: MemberIndex, number: Number| {
            ours.is_some_and(|ours| self.node(ours).latest[usize::from(other.0)] >= number)
        };
        let mut weight = self.weights.of(member);
        let mut other_parents = Vec::new();
        for other in (0..self.weights.count() as u16).map(MemberIndex) {
            if other == member || self.forked[usize::from(other.0)] {
                continue;
            }
            // What is out of the window is no parent, and would look new for ever.
            let is_out = |number: Number| self.is_out(self.node(number).event.birth.0, self.pending);
            let tip = self.tip(other).filter(|number| !is_out(*number) && !knows(other, *number));
            let Some(number) = tip else { continue };
            weight += self.weights.of(other);
            other_parents.push(self.as_parent(number));
        }
        Plan {
            self_parent: ours.map(|number| self.as_parent(number)),
            other_parents,
            advances: weight >= self.weights.supermajority(),
        }
    }

    fn as_parent(&self, number: Number) -> Parent {
        let event = &self.node(number).event;
        Parent { id: event.id, birth: event.birth }
    }
}
