//! Consensus fronts: signing with the next nonce, checking signatures, waiting for an outcome.

use std::sync::Arc;
use std::time::Duration;

use protocol::consensus::{AdmitRequest, NextNonceRequest, Submit, SubmitRequest, TxRef, TxStatus, TxView};
use protocol::transaction::{Intent, Transaction};
use protocol::{Problem, ProblemKind};
use tokio::time::Instant;

use super::{front, not_draining};
use crate::node::World;

/// How long a submit waits unless told.
const WAIT_MS: u64 = 10_000;
/// The longest a submit waits.
const WAIT_MS_MAX: u64 = 60_000;

pub(super) fn install(world: &Arc<World>) {
    front::<Submit, _, _>(world, |world, _, request| async move { submit(&world, request).await });
}

pub(super) async fn submit(world: &Arc<World>, request: SubmitRequest) -> Result<TxView, Problem> {
    not_draining(world)?;
    may_order(world)?;
    let deadline =
        Instant::now() + Duration::from_millis(request.wait_ms.unwrap_or(WAIT_MS).min(WAIT_MS_MAX));
    let wait = request.wait.unwrap_or(TxStatus::Accepted);
    let mut grown = world.feed.changes();
    let view = match (request.intent, request.transaction) {
        (Some(intent), None) => {
            // One nonce at a time: the next is known when this transaction is taken in.
            let _turn = world.nonces.lock().await;
            admit(world, sign(world, &intent).await?).await?
        }
        (None, Some(transaction)) => admit(world, transaction).await?,
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

/// Whether what is submitted can come into the order: if not, it is refused with the reason, and reads go on.
fn may_order(world: &World) -> Result<(), Problem> {
    let refuse = |kind, code: &'static str, cause: &'static str, hint: &'static str| {
        Err(Problem::new(kind, code, cause).hint(hint))
    };
    if world.genesis.weight_of(&world.cell) == 0 {
        let hint = "submit it to a member: cell call consensus.members '{}' lists them";
        return refuse(
            ProblemKind::Denied,
            "consensus.no_member",
            "this cell is no member of its network",
            hint,
        );
    }
    if world.genesis.members.len() == 1 {
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

/// Signs an intent for this network, with the next nonce unless it names one.
pub(super) async fn sign(world: &Arc<World>, intent: &Intent) -> Result<Transaction, Problem> {
    let next = world.bus.internal().consensus().next_nonce(NextNonceRequest { cell: world.cell }).await?;
    Ok(Transaction::sign(world.keyring.signing_key(), world.genesis.hash(), intent, next.nonce))
}

async fn admit(world: &Arc<World>, transaction: Transaction) -> Result<TxView, Problem> {
    if !transaction.signature_holds() {
        return Err(Problem::new(
            ProblemKind::Invalid,
            "consensus.bad_signature",
            "the signature is not the sender's",
        )
        .hint("sign the transaction with the key of its sender: cell tx sign"));
    }
    world.bus.internal().consensus().admit(AdmitRequest { transaction }).await
}

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
        view = world.bus.internal().consensus().tx(TxRef { id: view.id }).await?;
    }
    Ok(view)
}
