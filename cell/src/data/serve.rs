//! Gives other cells slices of the data that lies here.

use std::sync::Arc;

use protocol::message::MessageType;
use protocol::{CellId, Problem, ProblemKind, codec};

use super::store::not_here;
use super::wire::{Ask, PART_BYTES, Reply};
use crate::network::Counters;
use crate::node::{World, blocking};

/// Answers one question.
pub async fn serve(world: &Arc<World>, from: CellId, bytes: &[u8]) -> Vec<u8> {
    let answered = match codec::decode::<Ask>(bytes) {
        Ok(ask) => answer(world, from, ask).await,
        Err(problem) => {
            Counters::count(&world.network().counters().refused_malformed);
            Err(problem)
        }
    };
    codec::encode(&answered.map_or_else(|problem| Reply::Refused { problem }, |slice| Reply::Slice { slice }))
}

async fn answer(world: &Arc<World>, from: CellId, ask: Ask) -> Result<Vec<u8>, Problem> {
    if !may(world, &from).await? {
        let cause = format!("{from} may not have data of {}", world.cell);
        return Err(Problem::new(ProblemKind::Denied, "data.denied", cause)
            .hint(format!("its operator allows it there: cell identity access {from} --may QUERY")));
    }
    if ask.length > PART_BYTES {
        let cause = format!("a slice of {} bytes", ask.length);
        return Err(Problem::new(ProblemKind::Invalid, "data.bad_slice", cause)
            .hint(format!("ask for at most {PART_BYTES}")));
    }
    let store = world.data.clone();
    blocking(move || match store.find(&ask.hash)? {
        Some(_) => store.slice(&ask.hash, ask.from, ask.length),
        None => Err(not_here(&ask.hash)),
    })
    .await?
}

/// Members of the network, and contacts who may QUERY.
async fn may(world: &Arc<World>, from: &CellId) -> Result<bool, Problem> {
    if world.members().contains(from) {
        return Ok(true);
    }
    Ok(world.admission(from).await?.may.contains(&MessageType::Query))
}
