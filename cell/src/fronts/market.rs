//! Market fronts: balances out of the state, transfers into consensus.

use std::sync::Arc;

use protocol::consensus::{SubmitRequest, TxStatus, TxView};
use protocol::market::{Balance, BalanceRequest, GetBalance, GetSupply, Supply, Transfer, TransferRequest};
use protocol::state::GetRequest;
use protocol::transaction::Intent;
use protocol::{Amount, BlockIndex, Problem, ProblemKind};
use serde_json::json;

use super::front;
use crate::bus::CallContext;
use crate::node::World;

pub(super) fn install(world: &Arc<World>) {
    front::<GetBalance, _, _>(world, |world, context, request| async move {
        balance(&world, &context, request).await
    });
    front::<Transfer, _, _>(world, |world, context, request| async move {
        transfer(&world, &context, request).await
    });
    front::<GetSupply, _, _>(world, |world, context, _| async move {
        amount(&world, &context, "prana/supply".to_owned()).await.map(|(supply, _)| Supply { supply })
    });
}

async fn balance(
    world: &Arc<World>,
    context: &CallContext,
    request: BalanceRequest,
) -> Result<Balance, Problem> {
    let cell = match request.who {
        Some(who) => world.resolve(&who).await?,
        None => world.cell,
    };
    let (balance, index) = amount(world, context, format!("prana/{cell}")).await?;
    Ok(Balance { cell, balance, index })
}

async fn amount(
    world: &Arc<World>,
    context: &CallContext,
    key: String,
) -> Result<(Amount, Option<BlockIndex>), Problem> {
    let found = world.bus.with(context.inner()).state().get(GetRequest { key, at: None }).await?;
    let amount = market::prana::read(found.value.map(String::into_bytes))
        .map_err(|fault| Problem::new(ProblemKind::Fault, "market.fault", fault.to_string()))?;
    Ok((amount, found.index))
}

async fn transfer(
    world: &Arc<World>,
    context: &CallContext,
    request: TransferRequest,
) -> Result<TxView, Problem> {
    let to = world.resolve(&request.to).await?;
    let intent = Intent {
        module: "prana".to_owned(),
        call: "transfer".to_owned(),
        args: json!({ "to": to, "amount": request.amount }),
        nonce: request.nonce,
        ..Intent::default()
    };
    let wait = Some(request.wait.unwrap_or(TxStatus::Finalised));
    super::consensus::submit(
        world,
        context,
        SubmitRequest { intent: Some(intent), transaction: None, wait, wait_ms: None },
    )
    .await
}
