//! The last rounds of the graph in words: for people, who would rather look.

use consensus::gossip::{Gossip, Held};
use consensus::hashgraph::{self, Drawn, EventId, Round};
use protocol::Hash;
use protocol::consensus::{Fame, GRAPH_EVENTS_MAX, GraphEvent};

use super::Members;

/// The last rounds of the graph.
#[derive(Debug)]
pub struct LastRounds {
    /// The epoch.
    pub epoch: u64,
    /// The first round that is not decided.
    pub pending_round: u64,
    /// Events, parents before children; [`GRAPH_EVENTS_MAX`] at most.
    pub events: Vec<GraphEvent>,
}

/// The events of the last so many rounds.
pub(super) fn events(gossip: &Gossip, members: &Members, rounds: u64) -> Vec<GraphEvent> {
    let graph = gossip.graph();
    let before = graph.last_round().0.saturating_sub(rounds);
    let drawn = graph.export(Round(before + 1), GRAPH_EVENTS_MAX);
    drawn.into_iter().filter_map(|drawn| in_words(drawn, gossip, members)).collect()
}

fn in_words(drawn: Drawn, gossip: &Gossip, members: &Members) -> Option<GraphEvent> {
    let as_hash = |id: &EventId| Hash::from_bytes(id.0);
    let (witness, event) = (drawn.is_witness(), &drawn.event);
    let said = match gossip.held(&event.id) {
        Some(Held::Here(said)) => Some(said),
        Some(Held::Recorded(_)) | None => None,
    };
    Some(GraphEvent {
        id: as_hash(&event.id),
        creator: members.cell(event.creator)?,
        self_parent: event.self_parent.as_ref().map(as_hash),
        other_parents: event.other_parents.iter().map(as_hash).collect(),
        time_us: event.time_us,
        round: drawn.round.0,
        witness,
        fame: drawn.fame.map(|fame| match fame {
            hashgraph::Fame::Undecided => Fame::Undecided,
            hashgraph::Fame::Famous => Fame::Famous,
            hashgraph::Fame::NotFamous => Fame::NotFamous,
        }),
        judge: drawn.is_judge,
        received: drawn.received.map(|round| round.0),
        bytes: said.as_ref().map(|said| said.payload.len() as u64),
        transactions: said.as_ref().map(|said| said.orders),
    })
}
