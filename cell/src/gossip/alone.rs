//! The order of a network of one: what waits, as it came. No events: there is nobody to tell.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use consensus::BLOCK_BYTES_MAX;
use protocol::Problem;
use protocol::consensus::{OrderRequest, OrderedRound};
use protocol::shared::Empty;

use super::seat::fill_pool;
use crate::node::World;

/// The pause before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Orders until the cell stops.
pub(super) async fn run(world: Arc<World>) {
    while let Err(problem) = order(&world).await {
        tracing::error!(%problem, "the order does not advance; it is tried again");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn order(world: &World) -> Result<(), Problem> {
    let bus = world.bus.internal();
    let epoch = bus.consensus().epoch(Empty {}).await?;
    let mut round = epoch.round;
    world.pool.reset([].into(), epoch.progress);
    fill_pool(world).await?;
    loop {
        let transactions = world.pool.take(BLOCK_BYTES_MAX).transactions;
        if transactions.is_empty() {
            world.to_say.notified().await;
            continue;
        }
        round += 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let rounds = vec![OrderedRound { round, time_us, transactions }];
        let request = OrderRequest { epoch: epoch.epoch, rounds };
        world.pool.advance(bus.consensus().order(request).await?);
    }
}
