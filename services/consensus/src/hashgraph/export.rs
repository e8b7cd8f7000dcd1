//! The graph as others may read it: for drawing it.
//!
//! What it costs goes by what is asked, not by the length of the epoch; where a member has forked, by all of its events.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Event, MemberIndex, Round};
use super::graph::{Hashgraph, Number};
use super::rounds::Fame;

/// An event with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The event.
    pub event: Event,
    /// The round it was created in.
    pub round: Round,
    /// A witness's fame; `None` for other events.
    pub fame: Option<Fame>,
    /// The round that has received it.
    pub received: Option<Round>,
    /// Whether it is a judge of its round, which is decided.
    pub is_judge: bool,
}

impl Drawn {
    /// Whether it is a witness.
    pub fn is_witness(&self) -> bool {
        self.fame.is_some()
    }
}

impl Hashgraph {
    /// The highest round in which there is an event; 0 without one.
    pub fn last_round(&self) -> Round {
        let tips = self.ends.iter().flatten().map(|number| Round(self.node(*number).round));
        tips.max().unwrap_or_default()
    }

    /// Events created in this round or later, parents before children. If there are more than so many, those of the
    /// newest rounds, the last that came.
    pub fn export(&self, from: Round, events_max: usize) -> Vec<Drawn> {
        let mut found: Vec<(u64, Number)> = Vec::new();
        for member in (0..self.members()).map(MemberIndex) {
            let is_forked = self.is_forked(member);
            let newest_first = self.of_member[usize::from(member.0)].iter().rev();
            let rounds = newest_first.map(|number| (self.node(*number).round, *number));
            // Along one chain rounds only rise.
            found.extend(
                rounds
                    .take_while(|(round, _)| is_forked || *round >= from.0)
                    .filter(|(round, _)| *round >= from.0),
            );
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        found.truncate(events_max);
        found.sort_unstable_by_key(|(_, number)| *number);
        let rounds: BTreeSet<u64> = found.iter().map(|(round, _)| *round).collect();
        let fame: BTreeMap<Number, Fame> = rounds
            .iter()
            .flat_map(|round| self.rounds.witnesses(*round))
            .map(|(_, witness)| (witness.number, witness.fame))
            .collect();
        let decided = rounds.iter().filter(|round| **round < self.pending);
        let judges: BTreeSet<Number> =
            decided.flat_map(|round| self.judges_of(*round)).map(|judge| judge.number).collect();
        let drawn = found.into_iter().map(|(_, number)| {
            let node = self.node(number);
            Drawn {
                event: self.event(node),
                round: Round(node.round),
                fame: fame.get(&number).copied(),
                received: Some(node.received).filter(|round| *round > 0).map(Round),
                is_judge: judges.contains(&number),
            }
        });
        drawn.collect()
    }
}
