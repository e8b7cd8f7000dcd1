//! What part this cell has in the present epoch, and how it comes to the next.
//!
//! A member of several gossips, the only member orders alone, and whoever is no member follows the blocks; so does a member that has not the
//! key which the set names for it (ADR 0021). Each of these ends when an epoch begins
//! in which the cell has another part.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::consensus::EnterRequest;
use protocol::members::{MemberSet, SET_KEY};
use protocol::rules::{RULES_KEY, version_in};
use protocol::shared::Empty;
use protocol::state::GetRequest;
use protocol::transaction::Transaction;
use protocol::{BlockIndex, CellId, Problem, TxId};

use super::driver::{Driver, Ended, Start};
use super::seat::{self, Seat, fill_anew};
use super::{GossipSettings, Host, Input, Members, alone, behind, checkpoint, pool};
use crate::folder;
use crate::node::World;

/// The pause before what failed begins anew.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// How often a cell that is suspended says so: what else stands in the way is told in the same place.
const SUSPENDED_PAUSE: Duration = Duration::from_secs(1);

/// Starts what orders transactions in this cell, or follows their order.
pub fn start(world: &Arc<World>) {
    let seat = Arc::new(Seat::new(world));
    world.edge.spawn(seat::enter_words(Arc::clone(world), Arc::clone(&seat)));
    world.edge.spawn(keep_running(Arc::clone(world), seat));
}

async fn keep_running(world: Arc<World>, seat: Arc<Seat>) {
    let mut told = None;
    loop {
        let began = Instant::now();
        match take_part(&world, &seat).await {
            Ok(Ended::Stopped) => return,
            Ok(Ended::OtherPart) => {}
            Err(problem) => {
                // A service that is away is missed twice a second: once is enough to be told.
                if began.elapsed() > RESTART_PAUSE || told.as_ref() != Some(&problem) {
                    tracing::error!(%problem, "consensus begins anew from what is durable");
                }
                told = Some(problem);
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        }
    }
}

/// Takes the part that the present epoch gives, until it gives another.
async fn take_part(world: &Arc<World>, seat: &Arc<Seat>) -> Result<Ended, Problem> {
    let epoch = world.bus.internal().consensus().epoch(Empty {}).await?;
    let members = Arc::new(Members::new(epoch.members));
    world.set_members(Arc::clone(&members));
    world.set_gossip(None);
    meet(world, &members).await;
    if epoch.rejoins {
        let ordered = epoch.progress.ordered;
        while let Err(problem) = checkpoint::take(world, ordered).await {
            tracing::warn!(%problem, "this cell has diverged, and has no checkpoint of the others yet");
            tokio::time::sleep(RESTART_PAUSE).await;
        }
        return Ok(Ended::OtherPart);
    }
    checkpoint::finish(world).await?;
    if lacks(epoch.rules) {
        return suspended(world, epoch.rules).await;
    }
    if !world.is_member() {
        return behind::observe(world).await;
    }
    if members.count() == 1 {
        return alone::run(world).await;
    }
    let watching = world.edge.spawn(behind::watch(Arc::clone(world)));
    let ended = gossip(world, &members, seat).await;
    watching.abort();
    ended
}

/// Whether this build lacks a version of the rules.
pub(super) fn lacks(rules: u64) -> bool {
    !folder::rules().versions().contains(&rules)
}

/// What this cell waits for whose build lacks the rules of the epoch.
fn upgrade_required(rules: u64) -> Problem {
    consensus::Refusal::UpgradeRequired { rules }.into()
}

/// Nothing is ordered, executed or taken over until another build is started. What was before can be read.
async fn suspended(world: &World, rules: u64) -> Result<Ended, Problem> {
    let problem = upgrade_required(rules);
    tracing::error!(%problem, "this cell has no part in the epoch");
    loop {
        world.set_stuck(Some(problem.clone()));
        tokio::time::sleep(SUSPENDED_PAUSE).await;
    }
}

/// Gossips with the other members.
async fn gossip(world: &Arc<World>, members: &Arc<Members>, seat: &Arc<Seat>) -> Result<Ended, Problem> {
    let epoch = world.bus.internal().consensus().epoch(Empty {}).await?;
    let progress = epoch.progress;
    let (number, base) = (epoch.epoch, epoch.base);
    let events = {
        let reader = seat::journal(world)?;
        crate::node::blocking(move || seat::read_events(&reader, &epoch)).await??
    };
    let settings = GossipSettings {
        genesis: world.genesis.hash(),
        epoch_rounds: world.genesis.epoch_rounds(),
        engine: super::engine_settings(
            world.settings.consensus.event_interval_us,
            world.settings.consensus.patience_us,
        ),
    };
    let start = Start { epoch: number, base, events, progress: Some(progress) };
    let host: Arc<dyn Host> = Arc::<Seat>::clone(seat);
    let (driver, handle) = Driver::new(host, Arc::clone(members), world.cell, settings, start)?;
    let said = driver.unordered_own();
    let said = said.iter().filter_map(|said| pool::read(&said.payload).ok());
    let said: BTreeSet<TxId> = said
        .flat_map(|payload| payload.transactions.iter().map(Transaction::id).collect::<Vec<_>>())
        .collect();
    fill_anew(world, said, progress).await?;
    world.set_gossip(Some(handle.clone()));
    let watching = world.edge.spawn(watch_peers(Arc::clone(world), handle));
    let ended = driver.run().await;
    watching.abort();
    ended
}

async fn watch_peers(world: Arc<World>, handle: super::Handle) {
    let mut changes = world.network().changes();
    while changes.changed().await.is_ok() {
        handle.tell(Input::Peers).await;
    }
}

/// The members of an epoch that begins with the next block: those that the state names now, every block before being final here. If they are
/// others than before, or the rules are, that is journaled.
///
/// # Errors
///
/// `consensus.upgrade_required` where this build lacks the rules of the epoch, which has begun here then.
pub(super) async fn next_epoch(world: &World, epoch: u64) -> Result<Arc<Members>, Problem> {
    let bus = world.bus.internal();
    let before = bus.consensus().epoch(Empty {}).await?;
    let at = before.progress.ordered.checked_sub(1).map(BlockIndex);
    let asked = GetRequest { key: SET_KEY.to_owned(), at };
    let proof = bus.state().prove_key(asked).await?;
    let asked = GetRequest { key: RULES_KEY.to_owned(), at };
    let rules = bus.state().prove_key(asked).await?;
    let version = match &rules.value {
        Some(value) => version_in(Some(&hex::decode(value).unwrap_or_default()))?,
        None => version_in(None)?,
    };
    let named = proof.value.as_ref().and_then(|value| hex::decode(value).ok());
    // A network whose rules know no such key keeps its members.
    let members = match named {
        Some(value) => MemberSet::from_state(&value)?,
        None => before.members.clone(),
    };
    if members != before.members || version != before.rules {
        bus.consensus().enter(EnterRequest { epoch, members: members.clone(), proof, rules }).await?;
    }
    if lacks(version) {
        return Err(upgrade_required(version));
    }
    let members = Arc::new(Members::new(members));
    world.set_members(Arc::clone(&members));
    meet(world, &members).await;
    Ok(members)
}

/// Stays connected to the members whose addresses the state knows.
async fn meet(world: &World, members: &Members) {
    for member in members.set().all().iter().filter(|member| member.cell != world.cell) {
        if let Some(addresses) = addresses_of(world, &member.cell).await {
            world.network().keep(member.cell, addresses).await;
        }
    }
}

async fn addresses_of(world: &World, cell: &CellId) -> Option<Vec<String>> {
    let key = format!("members/address/{cell}");
    let found = world.bus.internal().state().get(GetRequest { key, at: None }).await.ok()?;
    serde_json::from_str(&found.value?).ok()
}
