//! The hashgraph: out of who built on whose events, one order for all members. Pure and incremental.
//!
//! Source: L. Baird, *The Swirlds hashgraph consensus algorithm* (2016). Members have weights; a
//! **supermajority** is more than two thirds of all weight.
//!
//! A graph lives for an **epoch**: it begins empty, with members and weights that do not change, and is kept whole until its
//! consumer ends the epoch, at a round that follows from the order and so is the same for all (ADR 0013). So all that is said of an
//! event is a function of its ancestors alone.
//!
//! # Rules
//!
//! 1. **Ancestors** of an event are itself, its parents, theirs, and so on; **self-ancestors** those along
//!    self-parents only. Two events of one creator, neither a self-ancestor of the other, are a **fork**.
//! 2. An event *x* **sees** *y* if *y* is an ancestor of *x* and no two ancestors of *x* are a fork of *y*'s
//!    creator. It **strongly sees** *y* if it sees *y*, and the members of whom it sees an event that sees *y* are a
//!    supermajority.
//! 3. **Round created**: *r* is the highest round of the parents (1 without any). If the event strongly sees
//!    witnesses of round *r* whose creators are a supermajority, its round is *r* + 1, else *r*. It is a **witness**
//!    if it has no self-parent or is in a later round than that.
//! 4. **Fame** of a witness *x* of round *r*: each witness *y* of round *r* + *d* votes. It **hears** the witnesses of the
//!    round before its own that it strongly sees, and those that its parents of its own round hear (of an event that is no
//!    witness, only those).
//!    - *d* = 1: yes if *y* sees *x*.
//!    - *d* ≥ 2: *y* counts the votes of the witnesses of round *r* + *d* − 1 that it hears, by weight, and
//!      votes as most of them did, yes on a tie. A supermajority on one side decides the fame of *x*.
//!    - Every [`Settings::coin_rounds`]th *d* is a **coin round**: a supermajority is followed and decides nothing, and
//!      without one *y* votes as its [coin](Event::coin) says.
//! 5. A round is **decided** when all rounds before it are and the fame of each of its known witnesses is.
//!    Its **judges** (the paper's unique famous witnesses) are the famous ones whose creator has no other famous one
//!    in it. A round without judges receives nothing.
//! 6. **Round received** of an event: the first decided round of which every judge has it as an ancestor. Its
//!    **consensus timestamp** is the median, by weight and the lower of two, over those judges, of the time of the
//!    judge's first self-ancestor that has it as an ancestor.
//! 7. **Order**: by round received, then timestamp; in a tie parents come first, and what is free then comes in the
//!    order of its id, XORed with the ids of all judges of the round.
//! 8. **Bound**: an event with [`Settings::events_a_round_max`] self-ancestors of its own round is none that a member may
//!    make, and is taken in by nobody. So what one member can add to a round is bounded; honest members stay far below (see [`Pace`]).
//!
//! # Where this departs from the paper
//!
//! - A witness hears what its ancestors of the same round strongly see as well, where the paper has it count those alone that it
//!   strongly sees itself. A fork that comes to light between the first event of a round and a later one takes witnesses away
//!   from the later one: it could count less than a supermajority, vote against one that another member has counted, and two members could
//!   decide differently. The oracle found such graphs with less than a third of the weight forking; under this rule it finds none.
//! - Several other-parents: rules 1 to 7 speak of ancestors and do not mind how many parents an event has.
//! - Coin and whitening by the id in place of the signature: a signer can make two valid signatures over the same bytes, so
//!   two members could hold one event with two coins.
//! - Weights in place of heads.
//! - Parents before children in a tie of timestamps, where the paper goes by whitening alone: what one
//!   member sends in two events is not turned round. A parent's timestamp is never later than its child's, since each judge's self-ancestor that
//!   knows the child knows the parent.
//! - Epochs and a bound (rule 8) in place of a graph that grows for ever.
//!
//! # Why all agree
//!
//! With less than a third of the weight faulty, two members that hold an event hold its ancestors, so they give it
//! the same round, and the same votes. Of two forked events, at most one can be strongly seen by anybody: the
//! supermajorities in between share an honest member, whose event sees only one of them. So of each member, voters
//! hear the same witness of a round, or none. A witness hears a supermajority: its round began with an event that strongly saw
//! one, and what that saw is passed on. If one voter hears a supermajority vote one way, less than a third can have voted the other, so any
//! other voter of its round has heard more of the former: all vote that way, and so do all later voters. A witness that comes late to a decided round is no ancestor
//! of the witness that decided it, which has therefore strongly seen a supermajority that votes no: it is not famous. What has no
//! ancestor in doubt follows from the judges alone.
//!
//! # What an event costs
//!
//! Each event keeps the latest event of every member among its ancestors, or that this member has forked there, and as bit sets the
//! witnesses that it sees, of its own round and of the one before; an event of a lower round sees none of either. So seeing is a
//! lookup, strongly seeing a count of bits over the members, and nothing walks the graph. Only of members that have forked, what each
//! judge knows is gathered by a walk over what no round has received.
//!
//! In memory an event is about 340 bytes and 8 more for each member; what it carries is not here.
//!
//! Absent: signatures (checked before), payloads (kept by whoever has the events), orphans (the caller brings
//! parents first), clocks, changes of members (the next epoch's graph has them).

mod bits;
mod event;
mod export;
mod fame;
mod graph;
mod order;
mod pace;
mod rounds;
mod unknown;
mod weights;

pub use event::{Event, EventId, MemberIndex, Round};
pub use export::Drawn;
pub use graph::Hashgraph;
pub use order::{Ordered, OrderedRound};
pub use pace::{CROWD_US, Due, PATIENCE_US_MAX, Pace, Plan, Work};
pub use rounds::Fame;

/// What all members of a network have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Every so many rounds of votes on a witness, a coin round (rule 4). At least 3.
    pub coin_rounds: u64,
    /// Events on one chain of a member that were created in one round, at most (rule 8).
    pub events_a_round_max: u32,
}

/// Two events that show that a member has forked: different ones of one creator on the same self-parent, or both on none.
/// With their signatures, anybody can check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Who.
    pub member: MemberIndex,
    /// The two.
    pub events: [EventId; 2],
}

/// Why an event is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Its creator is no member.
    #[error("the event's creator is no member")]
    UnknownMember,
    /// It is here already.
    #[error("the event is here already")]
    Duplicate,
    /// These parents have to come first.
    #[error("{} of the event's parents are missing", .0.len())]
    MissingParents(Vec<EventId>),
    /// No honest member made it.
    #[error("not an event that a member may make: {0}")]
    Invalid(&'static str),
}
