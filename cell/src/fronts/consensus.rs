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
