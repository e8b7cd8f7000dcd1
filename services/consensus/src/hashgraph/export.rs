//! The graph as others may read it: for drawing it.

use super::event::{Event, Round};
use super::graph::Hashgraph;
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
    /// All events created in this round or later, parents before children.
    pub fn export(&self, from: Round) -> Vec<Drawn> {
        let nodes = (1..).zip(self.nodes()).filter(|(_, node)| node.round >= from.0);
        let drawn = nodes.map(|(number, node)| {
            let witness = self.rounds.witnesses(node.round).find(|(_, witness)| witness.number == number);
            let decided = node.is_witness && node.round < self.pending;
            Drawn {
                event: self.event(node),
                round: Round(node.round),
                fame: witness.map(|(_, witness)| witness.fame),
                received: Some(node.received).filter(|round| *round > 0).map(Round),
                is_judge: decided && self.judges_of(node.round).any(|judge| judge.number == number),
            }
        });
        drawn.collect()
    }
}
