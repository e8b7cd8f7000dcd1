//! Consensus from the command line: how it goes, who takes part, and votes on who does.

use std::process::ExitCode;

use protocol::transaction::{Intent, Transaction};
use protocol::{CellId, Problem, ProblemKind};
use serde_json::{Value, json};

use super::Context;
use super::args::Consensus;
use super::client::Client;
use super::online::{fields, page};
use crate::keys::Keyring;

pub(super) fn run(context: &Context, command: Consensus) -> Result<ExitCode, Problem> {
    match command {
        Consensus::Status => show(context, "consensus.gossip", json!({})),
        Consensus::Members { page: asked, at } => {
            let [limit, cursor] = page(&asked);
            show(context, "consensus.members", fields([limit, cursor, ("at", at.into())]))
        }
        Consensus::Beacon { page: asked } => show(context, "consensus.beacon", fields(page(&asked))),
        Consensus::Requests => requests(context),
        Consensus::Join { weight, addresses } => join(context, weight, addresses),
        Consensus::Accept { who, weight } => {
            let cell = cell_of(context, &who)?;
            submit(context, "accept", json!({ "cell": cell, "weight": weight }))
        }
        Consensus::Rotate => rotate(context),
        Consensus::Leave => submit(context, "leave", json!({})),
        Consensus::Evict { who } => {
            let cell = cell_of(context, &who)?;
            submit(context, "evict", json!({ "cell": cell }))
        }
    }
}

fn show(context: &Context, action: &str, params: Value) -> Result<ExitCode, Problem> {
    context.output.value(&Client::of(context)?.call(action, params)?)
}

/// What members vote on, as the state holds it.
fn requests(context: &Context) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let open = |key: &str| -> Result<Value, Problem> {
        let found = client.call("state.get", json!({ "key": format!("members/{key}") }))?;
        let text = found["value"].as_str().unwrap_or("{}");
        Ok(serde_json::from_str(text).unwrap_or(Value::Null))
    };
    context.output.value(&json!({ "joins": open("joins")?, "evictions": open("evictions")? }))
}

/// Signs a request to join; any member submits it.
fn join(context: &Context, weight: u64, addresses: Vec<String>) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let status = client.call("nucleus.status", json!({}))?;
    let addresses = if addresses.is_empty() { status["peer_addresses"].clone() } else { json!(addresses) };
    let keyring = crate::keys::open(&context.dir, context.passphrase()?.as_deref())?;
    signed(context, &client, &keyring, "join", json!({ "weight": weight, "addresses": addresses }))
}

/// Signs the rotation of this cell's key as a member to that of its newest life; any member submits it.
fn rotate(context: &Context) -> Result<ExitCode, Problem> {
    let keyring = crate::keys::open(&context.dir, context.passphrase()?.as_deref())?;
    let Some(key) = keyring.member_keys().last().filter(|_| keyring.generation() > 0) else {
        let cause = "this cell was never restored: the key that it signs with is its own";
        return Err(Problem::new(ProblemKind::Conflict, "keys.not_restored", cause)
            .hint("cell restore makes a new one"));
    };
    let genesis = context.folder()?.genesis()?.hash();
    let proof = protocol::members::prove_key(key, &genesis, &keyring.cell());
    let public = hex::encode(key.verifying_key().to_bytes());
    signed(context, &Client::of(context)?, &keyring, "rotate", json!({ "key": public, "proof": proof }))
}

/// Prints a call of the module `members`, signed by this cell with its next nonce as far as it follows the network.
fn signed(
    context: &Context,
    client: &Client,
    keyring: &Keyring,
    call: &str,
    args: Value,
) -> Result<ExitCode, Problem> {
    let next = client.call("consensus.next_nonce", json!({ "cell": keyring.cell() }))?;
    let nonce = next["nonce"].as_u64().unwrap_or(1);
    let intent = Intent { module: "members".to_owned(), call: call.to_owned(), args, ..Intent::default() };
    let genesis = context.folder()?.genesis()?.hash();
    let transaction = Transaction::sign(keyring.signing_key(), genesis, &intent, nonce);
    context.output.bare(&serde_json::to_value(transaction).unwrap_or_default())
}

/// A cell's id, or that of a contact.
fn cell_of(context: &Context, who: &str) -> Result<CellId, Problem> {
    if let Ok(cell) = who.parse() {
        return Ok(cell);
    }
    let contact = Client::of(context)?.call("identity.resolve", json!({ "who": who }))?;
    contact["cell"].as_str().and_then(|cell| cell.parse().ok()).ok_or_else(|| {
        Problem::new(
            ProblemKind::Invalid,
            "cli.bad_answer",
            "the cell answered with a contact that has no id",
        )
    })
}

fn submit(context: &Context, call: &str, args: Value) -> Result<ExitCode, Problem> {
    let intent = json!({ "module": "members", "call": call, "args": args });
    let answer =
        Client::of(context)?.call("consensus.submit", json!({ "intent": intent, "wait": "finalised" }))?;
    context.output.value(&answer)?;
    Ok(if answer["status"] == "rejected" { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
