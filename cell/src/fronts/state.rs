//! State fronts: proofs together with the block that attests their root; the data of data sets.

use std::sync::Arc;

use protocol::consensus::BlockRef;
use protocol::shared::{Empty, ListRequest, Page, page_limit};
use protocol::state::{
    DataPart, DataRef, DataView, DatasetsRequest, Discard, Fetch, FetchRequest, Fetched, FindDatasets,
    GetRequest, Keep, KeepRequest, Kept, Prove, ProvenDataset, ProvenDatasets, ReadData, ReadRequest,
    StateProof,
};
use protocol::{BlockIndex, Hash, Problem, ProblemKind};

use super::{front, not_draining};
use crate::bus::CallContext;
use crate::data;
use crate::node::{World, blocking};

/// How long data is waited for unless told, in milliseconds.
const FETCH_MS: u64 = 60_000;
/// Bytes of data in one answer, at most.
const READ_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn install(world: &Arc<World>) {
    front::<Prove, _, _>(world, |world, _, request| async move { prove(&world, request).await });
    front::<FindDatasets, _, _>(world, |world, _, request| async move { find(&world, request).await });
    front::<Fetch, _, _>(
        world,
        |world, context, request| async move { fetch(&world, &context, request).await },
    );
    front::<Keep, _, _>(world, |world, _, request| async move { keep(&world, request).await });
    front::<Discard, _, _>(world, |world, _, request| async move { discard(&world, request).await });
    front::<Kept, _, _>(world, |world, _, request| async move { kept(&world, request).await });
    front::<ReadData, _, _>(world, |world, _, request| async move { read(&world, request).await });
}

/// The block after which something is proven unless told: the newest final one. A block that is applied here may not be attested
/// yet.
async fn proven_at(world: &World, at: Option<BlockIndex>) -> Result<Option<BlockIndex>, Problem> {
    match at {
        Some(at) => Ok(Some(at)),
        None => Ok(world.bus.internal().consensus().status(Empty {}).await?.finalised),
    }
}

async fn prove(world: &Arc<World>, mut request: GetRequest) -> Result<StateProof, Problem> {
    let bus = world.bus.internal();
    request.at = proven_at(world, request.at).await?;
    let proof = bus.state().prove_key(request).await?;
    let block = match proof.index {
        Some(index) => Some(bus.consensus().block(BlockRef { index }).await?.proof),
        None => None,
    };
    Ok(StateProof { proof, block })
}

pub(crate) async fn find(
    world: &Arc<World>,
    mut request: DatasetsRequest,
) -> Result<ProvenDatasets, Problem> {
    let bus = world.bus.internal();
    request.at = proven_at(world, request.at).await?;
    let at = request.at;
    let page = bus.state().datasets(request).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for dataset in page.items {
        let proof = bus.state().prove_key(GetRequest { key: dataset.key.clone(), at }).await?;
        items.push(ProvenDataset { dataset, proof });
    }
    let block = match at {
        Some(index) if !items.is_empty() => Some(bus.consensus().block(BlockRef { index }).await?.proof),
        _ => None,
    };
    Ok(ProvenDatasets { items, next: page.next, block })
}

async fn fetch(world: &Arc<World>, context: &CallContext, request: FetchRequest) -> Result<Fetched, Problem> {
    not_draining(world)?;
    let from = match &request.from {
        Some(who) => Some(world.resolve(who).await?),
        None => None,
    };
    let deadline = context.wait_until(request.wait_ms.unwrap_or(FETCH_MS)).into();
    let (kept, from) = data::fetch(world, request.hash, from, deadline).await?;
    Ok(Fetched { hash: kept.hash, size: kept.size, from })
}

async fn keep(world: &Arc<World>, request: KeepRequest) -> Result<DataView, Problem> {
    not_draining(world)?;
    let store = world.data.clone();
    blocking(move || store.add(request.content.as_slice())).await?.map(view)
}

async fn discard(world: &Arc<World>, request: DataRef) -> Result<DataView, Problem> {
    let store = world.data.clone();
    blocking(move || store.remove(&request.hash)).await?.map(view)
}

async fn kept(world: &Arc<World>, request: ListRequest) -> Result<Page<DataView>, Problem> {
    let store = world.data.clone();
    let mut items: Vec<DataView> = blocking(move || store.list()).await??.into_iter().map(view).collect();
    if let Some(cursor) = &request.cursor {
        let after: Hash = cursor.parse()?;
        items.retain(|item| item.hash > after);
    }
    let limit = page_limit(request.limit);
    let next = (items.len() > limit).then(|| items[limit - 1].hash.to_string());
    items.truncate(limit);
    Ok(Page { items, next })
}

async fn read(world: &Arc<World>, request: ReadRequest) -> Result<DataPart, Problem> {
    let ReadRequest { hash, offset, length } = request;
    let length = length.unwrap_or(READ_BYTES_MAX);
    if length > READ_BYTES_MAX {
        let cause = format!("{length} bytes at once");
        return Err(Problem::new(ProblemKind::Invalid, "data.bad_length", cause)
            .hint(format!("ask for at most {READ_BYTES_MAX}, and go on from there")));
    }
    let store = world.data.clone();
    blocking(move || {
        let content = store.read(&hash, offset, length)?;
        let size = store.find(&hash)?.map_or(0, |kept| kept.size);
        Ok(DataPart { hash, size, offset, content })
    })
    .await?
}

fn view(kept: data::Kept) -> DataView {
    DataView { hash: kept.hash, size: kept.size }
}
