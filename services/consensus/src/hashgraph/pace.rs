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
//! - **Patience grows** where it does not help: it doubles with each event **in vain**, up to [`PATIENCE_US_MAX`]. In vain are
//!   those beyond the first 2n + 8 since its round last rose, counted anew when an event is made on a member that its events had not
//!   been made on since then: who comes back after a partition wakes the others at once. So halves of a partition
//!   fall silent though work is open, and each of the others can restart the count once a round.
//! - **A crowded round slows everything**: each event beyond the first 2n + 8 of its round comes [`CROWD_US`] later after
//!   the one before than that did. Without that, a third of the members could keep the others at full
//!   pace in a round that does not end, and they would reach [`Settings::events_a_round_max`](super::Settings): 65 536 events
//!   would be made in ten minutes; so it takes more than three weeks.
//! - Its first event it makes as soon as it hears of anything.
//! - Where nothing else waits and this member has something to say, it does so at once, on what there is: that
//!   wakes the others.
//! - Where nothing waits at all, it is silent.
//! - Two events of its own are [`Pace::interval_us_min`] apart or more.
//!
//! No standstill: of the members that still run, take the one whose last event is the oldest. The last events of the
//! others were made later, so they are new to it, and once they have come to it, it makes the next event: without patience, if those
//! that run are a supermajority. So it does not matter for how long patience has grown when a partition heals.

use super::bits::Bits;
use super::event::{EventId, MemberIndex};
use super::graph::{Hashgraph, NONE, Node, Number};

/// The longest that patience grows to, in microseconds.
pub const PATIENCE_US_MAX: u64 = 60_000_000;
/// How much longer each event beyond the usual number of a round takes than the one before, in microseconds.
pub const CROWD_US: u64 = 1_000;

/// What an event made now would be built on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its creator's last event.
    pub self_parent: Option<EventId>,
    /// What is new of others.
    pub other_parents: Vec<EventId>,
    /// Whether those, with itself, come from a supermajority.
    pub advances: bool,
    /// Events of its creator that were in vain, this one's other-parents considered.
    pub in_vain: u32,
    /// Events of its creator beyond the usual number of a round, since its round last rose.
    pub crowd: u32,
}

/// What waits for its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// This member has something to put into its next event.
    pub to_say: bool,
    /// Something in the graph that no round has received yet.
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
            self.patience_after(plan.in_vain)
        } else {
            return Due::Later;
        };
        let wait_us = wait_us.max(u64::from(plan.crowd) * CROWD_US);
        Due::At(last_us.map_or(0, |last| last.saturating_add(wait_us)))
    }

    fn patience_after(&self, in_vain: u32) -> u64 {
        let doubled = 1u64.checked_shl(in_vain).and_then(|factor| self.patience_us.checked_mul(factor));
        doubled.unwrap_or(u64::MAX).min(PATIENCE_US_MAX.max(self.patience_us))
    }
}

/// What a member has done since its round last rose.
#[derive(Clone, Debug, Default)]
pub(super) struct Effort {
    /// Its events since then, or since one was made on somebody for the first time.
    events: u32,
    /// On whom they were made.
    built_on: Bits,
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
        let effort = &self.efforts[usize::from(member.0)];
        let mut joins = false;
        for other in (0..self.members()).map(MemberIndex).filter(|other| *other != member) {
            let tip = self.tip(other).filter(|number| !self.is_forked(other) && !knows(other, *number));
            let Some(number) = tip else { continue };
            weight += self.weights.of(other);
            other_parents.push(self.node(number).id);
            joins |= !effort.built_on.contains(u32::from(other.0));
        }
        let usual = 2 * u32::from(self.members()) + 8;
        let in_round = ours.map_or(0, |number| self.node(number).before_in_round + 1);
        Plan {
            self_parent: ours.map(|number| self.node(number).id),
            other_parents,
            advances: weight >= self.weights.supermajority(),
            in_vain: if joins { 0 } else { effort.events.saturating_sub(usual) },
            crowd: in_round.saturating_sub(usual),
        }
    }

    /// Counts a new event.
    pub(super) fn note_effort(&mut self, node: &Node) {
        let others = &node.parents[usize::from(node.self_parent != NONE)..];
        let others: Bits = others.iter().map(|parent| u32::from(self.node(*parent).creator.0)).collect();
        let effort = &mut self.efforts[usize::from(node.creator.0)];
        if node.is_witness {
            *effort = Effort::default();
        }
        let joins = others.iter().any(|other| !effort.built_on.contains(other));
        effort.built_on.join(&others);
        effort.events = if joins || node.is_witness { 1 } else { effort.events + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { interval_us_min: 10_000, patience_us: 40_000 };

    #[test]
    fn patience_doubles_up_to_a_minute() {
        let open = Work { to_say: false, open: true };
        for (in_vain, crowd, advances, wait_us) in [
            (0, 0, false, 40_000),
            (1, 1, false, 80_000),
            (10, 10, false, 40_960_000),
            (11, 11, false, PATIENCE_US_MAX),
            (u32::MAX, 100, false, PATIENCE_US_MAX),
            (u32::MAX, 0, true, 10_000),
            (0, 65_000, false, 65_000_000),
            (0, 65_000, true, 65_000_000),
        ] {
            let other_parents = vec![EventId([1; 32])];
            let plan = Plan { self_parent: None, other_parents, advances, in_vain, crowd };
            assert_eq!(PACE.due(&plan, open, Some(5)), Due::At(5 + wait_us), "{plan:?}");
        }
    }
}
