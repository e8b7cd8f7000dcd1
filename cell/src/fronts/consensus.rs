//! Consensus fronts: signing with the next nonce, checking signatures, waiting for an outcome; looking at the gossip.

use std::sync::Arc;
use std::time::Duration;

use consensus::{Refusal, WAITING_MAX};
use futures_util::stream::{self, StreamExt};
use protocol::consensus::{
    AdmitAllRequest, AdmitRequest, GRAPH_ROUNDS, GRAPH_ROUNDS_MAX, GetGossip, GossipView, Graph,
    GraphRequest, GraphView, MemberView, NextNonceRequest, SUBMIT_ALL_MAX, Submit, SubmitAll,
    SubmitAllRequest, SubmitRequest, Submitted, SubmittedAll, TakingView, TxRef, TxStatus, TxView,
};
use protocol::genesis::Member;
use protocol::gossip::ForkProof;
use protocol::shared::{Empty, ListRequest};
use protocol::state::RootRequest;
use protocol::transaction::{Intent, Transaction};
use protocol::{BlockIndex, CellId, Problem, ProblemKind, TxId, signing};
use tokio::time::Instant;

use super::{front, not_draining};
use crate::bus::CallContext;
use crate::folder::rules;
use crate::gossip::{GossipStatus, Handle};
use crate::node::World;

/// How long a submit waits unless told.
const WAIT_MS: u64 = 10_000;
/// The pause between two looks at a transaction while nobody can be asked how it stands.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Transactions up to which a call's signatures are checked without a look whether there is room.
const CHECK_AT_ONCE: usize = 64;
/// Transactions that are looked up at the same time.
const LOOKUPS: usize = 64;

pub(super) fn install(world: &Arc<World>) {
    front::<Submit, _, _>(
        world,
        |world, context, request| async move { submit(&world, &context, request).await },
    );
    front::<SubmitAll, _, _>(world, |world, context, request| async move {
        submit_all(&world, &context, request).await
    });
    front::<Graph, _, _>(world, |world, _, request| async move { graph(&world, request).await });
    front::<GetGossip, _, _>(world, |world, _, _| async move { gossip(&world).await });
}

pub(super) async fn submit(
    world: &Arc<World>,
    context: &CallContext,
    request: SubmitRequest,
) -> Result<TxView, Problem> {
    not_draining(world)?;
    may_order(world)?;
    let deadline = context.wait_until(request.wait_ms.unwrap_or(WAIT_MS)).into();
    let wait = request.wait.unwrap_or(TxStatus::Accepted);
    let mut grown = world.feed.changes();
    let view = match (request.intent, request.transaction) {
        (Some(intent), None) => {
            // One nonce at a time: the next is known when this transaction is taken in.
            let _turn = world.nonces.lock().await;
            admit(world, context, sign(world, context, &intent).await?).await?
        }
        (None, Some(transaction)) => admit(world, context, transaction).await?,
        _ => {
            return Err(Problem::new(
                ProblemKind::Invalid,
                "consensus.bad_request",
                "name either an intent or a transaction",
            )
            .hint("an intent is signed by this cell, a transaction was signed elsewhere"));
        }
    };
    await_status(world, view, wait, deadline, &mut grown).await
}

/// Takes in what was signed elsewhere, signatures checked as one; each transaction has its own outcome.
async fn submit_all(
    world: &Arc<World>,
    context: &CallContext,
    request: SubmitAllRequest,
) -> Result<SubmittedAll, Problem> {
    let SubmitAllRequest { mut transactions, wait, wait_ms } = request;
    not_draining(world)?;
    may_order(world)?;
    if !(1..=SUBMIT_ALL_MAX).contains(&transactions.len()) {
        let cause = format!("{} transactions at once", transactions.len());
        return Err(Problem::new(ProblemKind::Invalid, "consensus.bad_request", cause)
            .hint(format!("submit 1 to {SUBMIT_ALL_MAX} of them together")));
    }
    let deadline = context.wait_until(wait_ms.unwrap_or(WAIT_MS)).into();
    let mut grown = world.feed.changes();
    let behind = if transactions.len() > CHECK_AT_ONCE {
        // Checking what there is no room for is work for nothing, when there is the most of it. What is known takes room here as well.
        let waiting = world.bus.with(context.inner()).consensus().status(Empty {}).await?.pending;
        let room = usize::try_from(WAITING_MAX.saturating_sub(waiting)).unwrap_or(usize::MAX);
        transactions.split_off(room.min(transactions.len()))
    } else {
        Vec::new()
    };
    let ids: Vec<TxId> = transactions.iter().map(Transaction::id).collect();
    let here = Arc::clone(world);
    let (checked, outcomes) = crate::node::blocking(move || {
        let hold = signing::verify_all(&transactions.iter().map(Transaction::to_check).collect::<Vec<_>>());
        let outcome = |(transaction, holds): (&Transaction, bool)| {
            if holds { can_execute(&here, transaction) } else { Err(bad_signature()) }
        };
        let outcomes: Vec<Result<(), Problem>> = transactions.iter().zip(hold).map(outcome).collect();
        let mut is_fine = outcomes.iter().map(Result::is_ok);
        transactions.retain(|_| is_fine.next() == Some(true));
        (transactions, outcomes)
    })
    .await?;
    let mut admitted = if checked.is_empty() {
        Vec::new().into_iter()
    } else {
        let request = AdmitAllRequest { transactions: checked };
        world.bus.with(context.inner()).consensus().admit_all(request).await?.items.into_iter()
    };
    let mut items: Vec<Submitted> = ids
        .into_iter()
        .zip(outcomes)
        .filter_map(|(id, outcome)| match outcome {
            Ok(()) => admitted.next(),
            Err(problem) => Some(Submitted { id, status: None, block: None, problem: Some(problem) }),
        })
        .collect();
    let behind: Vec<TxId> = behind.iter().map(Transaction::id).collect();
    let lookups = behind.into_iter().map(|id| known_or_full(Arc::clone(world), id));
    items.extend(stream::iter(lookups).buffered(LOOKUPS).collect::<Vec<_>>().await);
    let wait = wait.unwrap_or(TxStatus::Accepted);
    for item in items.iter_mut().filter(|item| item.status.is_some_and(|status| status < wait)) {
        let Some(view) = look(world, item.id, deadline).await? else { break };
        let view = await_status(world, view, wait, deadline, &mut grown).await?;
        (item.status, item.block, item.problem) = (Some(view.status), view.block, view.problem);
    }
    Ok(SubmittedAll { items })
}

/// What becomes of a transaction that there is no room for.
async fn known_or_full(world: Arc<World>, id: TxId) -> Submitted {
    match world.bus.internal().consensus().tx(TxRef { id }).await {
        Ok(TxView { status, block, problem, .. }) => Submitted { id, status: Some(status), block, problem },
        // Whatever kept it from being looked up: it was not taken in by this call.
        Err(_) => Submitted { id, status: None, block: None, problem: Some(Refusal::Full.into()) },
    }
}

/// Whether what is submitted can come into the order: if not, it is refused with the reason, and reads go on.
fn may_order(world: &World) -> Result<(), Problem> {
    let refuse = |kind, code: &'static str, cause: &'static str, hint: &'static str| {
        Err(Problem::new(kind, code, cause).hint(hint))
    };
    if let Some(problem) = world.stuck().filter(|problem| problem.code == "consensus.upgrade_required") {
        return Err(problem);
    }
    if !world.is_member() {
        let hint = "submit it to a member: cell consensus members lists them";
        return refuse(
            ProblemKind::Denied,
            "consensus.no_member",
            "this cell is no member of its network",
            hint,
        );
    }
    if world.members().count() == 1 {
        return Ok(());
    }
    let status = world.gossip().map(|gossip| gossip.status()).unwrap_or_default();
    if status.is_rolled_back {
        let cause = "other members know events of this cell that it does not have: its folder is a copy of an older one";
        let hint = "start the newest copy of the folder; two of one cell must never sign";
        return refuse(ProblemKind::Conflict, "consensus.rolled_back", cause, hint);
    }
    if !status.has_quorum {
        let cause = "this cell and the members it is connected with are not more than two thirds";
        let hint = "cell peers shows who is missing; it goes on by itself when they are back";
        return refuse(ProblemKind::Unavailable, "consensus.no_quorum", cause, hint);
    }
    Ok(())
}

/// Accuses a member that has forked before all members, unless it is none any more: who forks is evicted.
pub async fn evict(world: &Arc<World>, proof: &ForkProof) -> Result<(), Problem> {
    if !world.is_member() || !world.members().contains(&proof.one.creator) {
        return Ok(());
    }
    let args = serde_json::json!({ "proof": proof });
    let intent =
        Intent { module: "members".to_owned(), call: "accuse".to_owned(), args, ..Intent::default() };
    let _turn = world.nonces.lock().await;
    let context = CallContext::internal();
    admit(world, &context, sign(world, &context, &intent).await?).await.map(|_| ())
}

/// Signs an intent for this network, with the next nonce unless it names one.
pub(super) async fn sign(
    world: &Arc<World>,
    context: &CallContext,
    intent: &Intent,
) -> Result<Transaction, Problem> {
    let request = NextNonceRequest { cell: world.cell };
    let next = world.bus.with(context.inner()).consensus().next_nonce(request).await?;
    Ok(Transaction::sign(world.keyring.signing_key(), world.genesis.hash(), intent, next.nonce))
}

async fn admit(
    world: &Arc<World>,
    context: &CallContext,
    transaction: Transaction,
) -> Result<TxView, Problem> {
    if !transaction.signature_holds() {
        return Err(bad_signature());
    }
    can_execute(world, &transaction)?;
    world.bus.with(context.inner()).consensus().admit(AdmitRequest { transaction }).await
}

/// Whether this cell could execute what it votes for. Others' votes are theirs: whether their build has it only they know.
fn can_execute(world: &World, transaction: &Transaction) -> Result<(), Problem> {
    let votes_for = ::consensus::members::activates(transaction).filter(|_| transaction.sender == world.cell);
    let Some(version) = votes_for.filter(|version| !rules().versions().contains(version)) else {
        return Ok(());
    };
    let cause = format!("this cell's build does not have version {version} of the rules");
    Err(Problem::new(ProblemKind::Conflict, "consensus.unknown_rules", cause)
        .hint("install a build that has it first: a cell cannot execute what it votes for otherwise"))
}

fn bad_signature() -> Problem {
    Problem::new(ProblemKind::Invalid, "consensus.bad_signature", "the signature is not the sender's")
        .hint("sign the transaction with the key of its sender: cell tx sign")
}

/// Looks again whenever a journal has grown.
async fn await_status(
    world: &Arc<World>,
    mut view: TxView,
    wait: TxStatus,
    deadline: Instant,
    grown: &mut tokio::sync::watch::Receiver<u64>,
) -> Result<TxView, Problem> {
    while view.status < wait {
        // Whatever moves a transaction on is a journal that grows.
        if tokio::time::timeout_at(deadline, grown.changed()).await.is_err() {
            return Ok(view);
        }
        let Some(seen) = look(world, view.id, deadline).await? else { return Ok(view) };
        view = seen;
    }
    Ok(view)
}

/// How a transaction stands that was taken in; nothing if nobody can be asked before the time is over. Outside of the trace: so many looks
/// would leave nothing else in its ring.
async fn look(world: &World, id: TxId, deadline: Instant) -> Result<Option<TxView>, Problem> {
    loop {
        match world.bus.internal().consensus().tx(TxRef { id }).await {
            Err(problem) if matches!(problem.kind, ProblemKind::Unavailable | ProblemKind::Busy) => {
                if Instant::now() + LOOK_AGAIN >= deadline {
                    return Ok(None);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            looked => return looked.map(Some),
        }
    }
}

async fn graph(world: &World, request: GraphRequest) -> Result<GraphView, Problem> {
    let rounds = request.rounds.unwrap_or(GRAPH_ROUNDS);
    if !(1..=GRAPH_ROUNDS_MAX).contains(&rounds) {
        let cause = format!("{rounds} rounds of the graph cannot be shown");
        return Err(Problem::new(ProblemKind::Invalid, "consensus.bad_rounds", cause)
            .hint(format!("ask for 1 to {GRAPH_ROUNDS_MAX} rounds")));
    }
    if !world.is_member() {
        let cause = "this cell is no member of its network: it follows the blocks and has no graph";
        return Err(Problem::new(ProblemKind::NotFound, "consensus.no_graph", cause)
            .hint("ask a member: cell consensus members lists them"));
    }
    let Some(handle) = driver(world)? else {
        let epoch = world.bus.internal().consensus().epoch(Empty {}).await?;
        let (members, _) = members(world, &GossipStatus::default()).await?;
        let (epoch, pending_round) = (epoch.epoch, epoch.round + 1);
        return Ok(GraphView { cell: world.cell, epoch, pending_round, members, events: Vec::new() });
    };
    let rounds = handle.last_rounds(rounds).await.ok_or_else(not_running)?;
    let (members, _) = members(world, &handle.status()).await?;
    Ok(GraphView {
        cell: world.cell,
        epoch: rounds.epoch,
        pending_round: rounds.pending_round,
        members,
        events: rounds.events,
    })
}

async fn gossip(world: &World) -> Result<GossipView, Problem> {
    let bus = world.bus.internal();
    let handle = driver(world)?;
    let (epoch, status) = (bus.consensus().epoch(Empty {}).await?, bus.consensus().status(Empty {}).await?);
    let root = bus.state().root(RootRequest::default()).await?.root;
    let now = match handle {
        Some(handle) => handle.status(),
        None => GossipStatus {
            epoch: epoch.epoch,
            round: epoch.round + 1,
            has_started: world.is_member(),
            ..GossipStatus::default()
        },
    };
    let set = world.members();
    let (members, weight_connected) = members(world, &now).await?;
    Ok(GossipView {
        genesis: world.genesis.hash(),
        cell: world.cell,
        epoch: now.epoch,
        epoch_rounds: world.genesis.epoch_rounds(),
        pending_round: now.round,
        blocks: epoch.progress,
        root,
        events: now.events,
        undetermined: now.undetermined,
        waiting: now.waiting,
        refused: now.refused,
        pool: status.pending,
        quorum: set.set().is_supermajority(weight_connected),
        weight_connected,
        weight_total: set.set().weight_total(),
        started: now.has_started,
        rolled_back: now.is_rolled_back,
        diverged: status.diverged,
        stuck: world.stuck().map(|problem| problem.to_string()),
        target: world.target(),
        checkpoint: world.taking().map(|(block, keys, of)| TakingView { block: BlockIndex(block), keys, of }),
        members,
    })
}

/// What drives the gossip here; nothing where there is none, in a network of one and in a cell that is no member.
fn driver(world: &World) -> Result<Option<Handle>, Problem> {
    if world.members().count() == 1 || !world.is_member() {
        return Ok(None);
    }
    world.gossip().filter(Handle::is_running).map(Some).ok_or_else(not_running)
}

fn not_running() -> Problem {
    let cause = "this cell reads the events that its journal holds, and takes no part in the gossip yet";
    Problem::new(ProblemKind::Unavailable, "consensus.starting", cause)
        .hint("ask again in a moment; cell status tells what it waits for")
}

/// The members as this cell sees them, and the weight of those that are connected.
async fn members(world: &World, status: &GossipStatus) -> Result<(Vec<MemberView>, u64), Problem> {
    let connected = world.network().connected_peers();
    let mut forked = status.forked.clone();
    forked.extend(forked_before(world).await?);
    let (mut members, mut weight_connected) = (Vec::new(), 0);
    for (place, member) in world.members().set().all().iter().enumerate() {
        let Member { cell, weight, .. } = *member;
        let is_here = cell == world.cell;
        let name = if is_here {
            Some(world.settings.cell.name.clone())
        } else {
            // A member need not be a contact.
            world.contact(&cell).await.ok().and_then(|contact| contact.name.clone())
        };
        let connected = is_here || connected.contains(&cell);
        weight_connected += if connected { weight } else { 0 };
        let round = status.tips.get(place).copied().flatten();
        members.push(MemberView { cell, name, weight, connected, round, forked: forked.contains(&cell) });
    }
    Ok((members, weight_connected))
}

/// The members whose forks are journaled, of earlier epochs too.
async fn forked_before(world: &World) -> Result<Vec<CellId>, Problem> {
    let (mut found, mut list) = (Vec::new(), ListRequest { limit: Some(1_000), cursor: None });
    loop {
        let page = world.bus.internal().consensus().evidence(list).await?;
        found.extend(page.items.iter().map(|evidence| evidence.member));
        match page.next {
            Some(next) => list = ListRequest { limit: Some(1_000), cursor: Some(next) },
            None => return Ok(found),
        }
    }
}
