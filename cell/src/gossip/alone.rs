//! The order of a network of one: what waits, as it came. No events: there is nobody to tell.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use consensus::BLOCK_BYTES_MAX;
use consensus::members::asks_for_change;
use protocol::Problem;
use protocol::consensus::{EpochView, OrderRequest, OrderedRound};
use protocol::shared::Empty;

use super::driver::Ended;
use super::part;
use super::seat::fill_anew;
use crate::node::World;

/// The pause before it is looked again whether all blocks are final.
const FINAL_PAUSE: Duration = Duration::from_millis(5);

/// Orders until others become members.
pub(super) async fn run(world: &Arc<World>) -> Result<Ended, Problem> {
    let bus = world.bus.internal();
    let mut epoch = bus.consensus().epoch(Empty {}).await?;
    fill_anew(world, [].into(), epoch.progress).await?;
    // A change may have been ordered in an earlier life.
    let mut may_change = epoch.progress.ordered > 0;
    loop {
        if may_change {
            epoch = all_final(world).await?;
            let members = part::next_epoch(world, epoch.epoch + 1).await?;
            if *members.set() != epoch.members {
                return Ok(Ended::OtherPart);
            }
            // With other rules, another epoch has begun.
            epoch = bus.consensus().epoch(Empty {}).await?;
            may_change = false;
        }
        let transactions = world.pool.take(BLOCK_BYTES_MAX).transactions;
        if transactions.is_empty() {
            world.to_say.notified().await;
            continue;
        }
        may_change = transactions.iter().any(|transaction| asks_for_change(transaction, true));
        epoch.round += 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let rounds = vec![OrderedRound { round: epoch.round, time_us, transactions, drawn: None }];
        let request = OrderRequest { epoch: epoch.epoch, rounds };
        world.pool.advance(bus.consensus().order(request).await?);
    }
}

/// Waits until every block is final.
async fn all_final(world: &World) -> Result<EpochView, Problem> {
    loop {
        let epoch = world.bus.internal().consensus().epoch(Empty {}).await?;
        if epoch.progress.finalised == epoch.progress.ordered {
            return Ok(epoch);
        }
        tokio::time::sleep(FINAL_PAUSE).await;
    }
}
