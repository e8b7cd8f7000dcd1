//! Commands that ask the running cell: each is one action, its answer printed.

use std::path::Path;
use std::process::ExitCode;

use protocol::block::{BlockProof, TxProof};
use protocol::consensus::GraphView;
use protocol::genesis::Genesis;
use protocol::state::{ProvenDatasets, StateProof};
use protocol::transaction::{Intent, Lane, Transaction};
use protocol::{Problem, ProblemKind};
use serde_json::{Map, Value, json};

use super::args::{Block, Command, Consensus, Identity, Market, Message, Page, Peers, State, Token, Tx};
use super::client::Client;
use super::{Context, bulk, json_argument, text_argument, unhealthy, write_file};
use crate::folder::{read_genesis, rules};

pub(super) fn run(context: &Context, command: Command) -> Result<ExitCode, Problem> {
    let call = |action: &str, params: Value| Client::of(context)?.call(action, params);
    let show = |action: &str, params: Value| context.output.value(&call(action, params)?);
    match command {
        Command::Status => {
            let status = call("nucleus.status", json!({}))?;
            context.output.value(&status)?;
            let well = status["readiness"]["state"] == "synced";
            Ok(if well { ExitCode::SUCCESS } else { unhealthy() })
        }
        Command::Drain => show("nucleus.drain", json!({})),
        Command::Call { action, json } => {
            context.output.bare(&call(&action, json_argument(&json, "the request")?)?)
        }
        Command::Peers { command } => match command.unwrap_or(Peers::List) {
            Peers::List => show("identity.peers", json!({})),
            Peers::Add { multiaddr, name } => {
                show("identity.add_peer", fields([("address", multiaddr.into()), ("name", name.into())]))
            }
            Peers::Remove { peer } => show("identity.remove_peer", json!({ "who": peer })),
        },
        Command::Message { command } => message(context, command),
        Command::State { command } => state(context, command),
        Command::Tx { command } => tx(context, command),
        Command::Block { command } => block(context, command),
        Command::Consensus { command } => {
            super::consensus::run(context, command.unwrap_or(Consensus::Status))
        }
        Command::Graph { rounds, out } => graph(context, rounds, out.as_deref()),
        Command::Identity { command } => identity(context, command),
        Command::Market { command } => match command {
            Market::Balance { who } => show("market.balance", fields([("who", who.into())])),
            Market::Transfer { to, amount, wait, nonce } => show(
                "market.transfer",
                fields([
                    ("to", to.into()),
                    ("amount", amount.into()),
                    ("wait", wait.into()),
                    ("nonce", nonce.into()),
                ]),
            ),
            Market::Statement => show("market.statement", json!({})),
            Market::Supply => show("market.supply", json!({})),
        },
        Command::Token { command } => match command {
            Token::Create { name, role, ttl_s } => show(
                "nucleus.create_token",
                fields([("name", name.into()), ("role", role.into()), ("ttl_s", ttl_s.into())]),
            ),
            Token::List => show("nucleus.tokens", json!({ "limit": 1000 })),
            Token::Revoke { name } => show("nucleus.revoke_token", json!({ "name": name })),
        },
        _ => Err(Problem::new(ProblemKind::Invalid, "cli.usage", "the command is handled elsewhere")),
    }
}

/// An object of the fields that were given.
pub(super) fn fields<const N: usize>(given: [(&str, Value); N]) -> Value {
    Value::Object(
        given
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}

pub(super) fn page(page: &Page) -> [(&'static str, Value); 2] {
    [("limit", page.limit.into()), ("cursor", page.cursor.clone().into())]
}

fn message(context: &Context, command: Message) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let show = |action: &str, params: Value| context.output.value(&client.call(action, params)?);
    match command {
        Message::Send { to, kind, body, seal, wait, wait_ms, ttl_ms, reply_to, request_id } => {
            let kind: protocol::message::MessageType = kind.parse()?;
            let body = match body {
                Some(body) => json_argument(&body, "the body")?,
                None if kind == protocol::message::MessageType::Auth => json!({ "step": "request" }),
                None if kind == protocol::message::MessageType::Query => json!({}),
                None => {
                    let example = ::message::body::example(kind);
                    return Err(Problem::new(
                        ProblemKind::Invalid,
                        "cli.no_body",
                        format!("a {kind} message has a body"),
                    )
                    .hint(format!("--body '{example}'")));
                }
            };
            let answer = client.call(
                "message.send",
                fields([
                    ("to", to.into()),
                    ("type", kind.name().into()),
                    ("body", body),
                    ("seal", seal.into()),
                    ("wait", wait.into()),
                    ("wait_ms", wait_ms.into()),
                    ("ttl_ms", ttl_ms.into()),
                    ("in_reply_to", reply_to.into()),
                    ("request_id", request_id.into()),
                ]),
            )?;
            context.output.value(&answer)?;
            let dead = ["refused", "expired", "cancelled"].iter().any(|status| answer["status"] == *status);
            Ok(if dead { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
        Message::List { kind, from, to, direction, page: asked } => {
            let kind = kind
                .map(|kind| kind.parse::<protocol::message::MessageType>())
                .transpose()?
                .map(|kind| kind.name());
            let (from, to) = (cell_id(&client, from)?, cell_id(&client, to)?);
            let [limit, cursor] = page(&asked);
            let filter = [
                ("type", kind.into()),
                ("from", from.into()),
                ("to", to.into()),
                ("direction", direction.into()),
            ];
            let [a, b, c, d] = filter;
            show("message.list", fields([a, b, c, d, limit, cursor]))
        }
        Message::Show { id } => show("message.get", json!({ "id": id })),
        Message::Cancel { id } => show("message.cancel", json!({ "id": id })),
        Message::Dead { page: asked } => show("message.dead", fields(page(&asked))),
        Message::Posts { tag } => show("message.posts", fields([("tag", tag.into())])),
    }
}

/// A cell id, of an id or a contact's name.
fn cell_id(client: &Client, who: Option<String>) -> Result<Option<String>, Problem> {
    match who {
        Some(who) if who.starts_with("did:") => Ok(Some(who)),
        Some(who) => {
            let contact = client.call("identity.resolve", json!({ "who": who }))?;
            Ok(contact["cell"].as_str().map(str::to_owned))
        }
        None => Ok(None),
    }
}

fn state(context: &Context, command: State) -> Result<ExitCode, Problem> {
    let show =
        |action: &str, params: Value| context.output.value(&Client::of(context)?.call(action, params)?);
    match command {
        State::Get { key, at } => show("state.get", fields([("key", key.into()), ("at", at.into())])),
        State::List { prefix, at, page: asked } => {
            let [limit, cursor] = page(&asked);
            show("state.list", fields([("prefix", prefix.into()), ("at", at.into()), limit, cursor]))
        }
        State::Datasets { tags, author, at, prove, page: asked } => {
            let client = Client::of(context)?;
            let (author, [limit, cursor]) = (cell_id(&client, author)?, page(&asked));
            let what = [("tags", tags.into()), ("author", author.into()), ("at", at.into()), limit, cursor];
            if prove {
                return context.output.bare(&client.call("state.find_datasets", fields(what))?);
            }
            context.output.value(&client.call("state.datasets", fields(what))?)
        }
        State::Prove { key, at } => {
            let proof =
                Client::of(context)?.call("state.prove", fields([("key", key.into()), ("at", at.into())]))?;
            context.output.bare(&proof)
        }
        State::Verify { file, root, genesis } => verify_state(context, &file, root, genesis),
        State::History { key, page: asked } => {
            let [limit, cursor] = page(&asked);
            show("state.history", fields([("key", key.into()), limit, cursor]))
        }
        State::Root { at } => show("state.root", fields([("at", at.into())])),
    }
}

/// Offline: nothing but the proof and what is trusted.
fn verify_state(
    context: &Context,
    file: &str,
    root: Option<String>,
    genesis: Option<std::path::PathBuf>,
) -> Result<ExitCode, Problem> {
    let proof: Value = parse_file(file, "state.bad_proof")?;
    if proof.get("items").is_some() && root.is_none() {
        let proven: ProvenDatasets = of_value(proof, file)?;
        let machine = ::state::StateMachine::new(genesis_of(context, genesis)?.into(), rules());
        ::state::verify_datasets(&proven, &machine)?;
        let items: Vec<Value> = proven.items.iter().map(|proven| json!(proven.dataset)).collect();
        return context.output.value(&json!({ "valid": true, "items": items, "next": null }));
    }
    let proof: StateProof = of_value(proof, file)?;
    let trusted = match root {
        Some(root) => {
            ::state::verify_key_proof(&proof.proof)?;
            let root: protocol::StateRoot = root.parse()?;
            if root != proof.proof.root {
                let cause = format!("the proof stands under root {}", proof.proof.root);
                return Err(Problem::new(ProblemKind::Invalid, "state.bad_proof", cause)
                    .hint("trust another root, or make the proof again"));
            }
            root
        }
        None => {
            let genesis = genesis_of(context, genesis)?;
            let machine = ::state::StateMachine::new(genesis.into(), rules());
            ::state::verify_state_proof(&proof, &machine)?
        }
    };
    let value = proof.proof.value.as_ref().and_then(|value| hex::decode(value).ok());
    let value = value.map(|bytes| {
        String::from_utf8(bytes.clone()).unwrap_or_else(|_| format!("0x{}", hex::encode(bytes)))
    });
    context.output.value(&json!({
        "valid": true, "key": proof.proof.key, "value": value, "index": proof.proof.index, "root": trusted,
    }))
}

/// The genesis of a file, or of the cell.
fn genesis_of(context: &Context, file: Option<std::path::PathBuf>) -> Result<Genesis, Problem> {
    match file {
        Some(path) => read_genesis(&path),
        None => context.folder()?.genesis(),
    }
}

fn parse_file<T: serde::de::DeserializeOwned>(file: &str, code: &'static str) -> Result<T, Problem> {
    let text = text_argument(&if file == "-" { file.to_owned() } else { format!("@{file}") })?;
    serde_json::from_str(&text).map_err(|error| {
        Problem::new(ProblemKind::Invalid, code, format!("{file} holds no such proof: {error}"))
            .hint("give the file what the command printed with --output json")
    })
}

fn of_value<T: serde::de::DeserializeOwned>(value: Value, file: &str) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| {
        let cause = format!("{file} holds no such proof: {error}");
        Problem::new(ProblemKind::Invalid, "state.bad_proof", cause)
            .hint("give the file what the command printed with --output json")
    })
}

fn tx(context: &Context, command: Tx) -> Result<ExitCode, Problem> {
    let show =
        |action: &str, params: Value| context.output.value(&Client::of(context)?.call(action, params)?);
    match command {
        Tx::Submit { module, call, args, nonce, terms, wait, wait_ms, signed } => {
            let what = match signed {
                Some(file) => {
                    let transaction: Transaction = parse_file(&file, "consensus.bad_transaction")?;
                    ("transaction", serde_json::to_value(transaction).unwrap_or_default())
                }
                None => {
                    let args = json_argument(&args, "the arguments")?;
                    let intent = [
                        ("module", module.into()),
                        ("call", call.into()),
                        ("args", args),
                        ("nonce", nonce.into()),
                        ("lane", terms.lane.into()),
                        ("max_fee", terms.max_fee.into()),
                    ];
                    ("intent", fields(intent))
                }
            };
            let answer = Client::of(context)?.call(
                "consensus.submit",
                fields([what, ("wait", wait.into()), ("wait_ms", wait_ms.into())]),
            )?;
            context.output.value(&answer)?;
            Ok(if answer["status"] == "rejected" { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
        Tx::SubmitAll { file, wait, wait_ms } => bulk::submit(context, &file, wait.as_deref(), wait_ms),
        Tx::Sign { module, call, args, nonce, terms } => {
            let args = json_argument(&args, "the arguments")?;
            let keyring = crate::keys::open(&context.dir, context.passphrase()?.as_deref())?;
            let genesis = context.folder()?.genesis()?.hash();
            let lane = terms.lane.as_deref().map(lane).transpose()?;
            let max_fee = terms.max_fee.as_deref().map(str::parse).transpose()?;
            let intent = Intent { module, call, args, nonce: None, lane, max_fee };
            let transaction = Transaction::sign(keyring.signing_key(), genesis, &intent, nonce);
            context.output.bare(&serde_json::to_value(transaction).unwrap_or_default())
        }
        Tx::Show { id } => show("consensus.tx", json!({ "id": id })),
        Tx::Prove { id } => {
            context.output.bare(&Client::of(context)?.call("consensus.prove", json!({ "id": id }))?)
        }
        Tx::Verify { file, genesis } => {
            let proof: TxProof = parse_file(&file, "block.not_proven")?;
            let root = ::state::LightClient::new(&genesis_of(context, genesis)?)?.transaction(&proof)?;
            let TxProof { transaction, header, attestations, .. } = &proof;
            context.output.value(&json!({
                "valid": true, "id": transaction.id(), "sender": transaction.sender,
                "module": transaction.module, "call": transaction.call, "block": header.index, "root": root,
                "attestations": attestations.len(),
            }))
        }
        Tx::Fees => show("state.fees", json!({})),
        Tx::List { page: asked } => show("consensus.txs", fields(page(&asked))),
    }
}

/// A lane by its name.
fn lane(name: &str) -> Result<Lane, Problem> {
    serde_json::from_value(name.into()).map_err(|_| {
        let shown: String = name.chars().take(40).collect();
        Problem::new(ProblemKind::Invalid, "cli.bad_lane", format!("there is no lane {shown:?}"))
            .hint("one of priority, normal, bulk")
    })
}

fn block(context: &Context, command: Block) -> Result<ExitCode, Problem> {
    match command {
        Block::Show { index } => {
            let block = Client::of(context)?.call("consensus.block", json!({ "index": index }))?;
            if context.output.is_json() {
                context.output.bare(&block)
            } else {
                context.output.value(&block["summary"])
            }
        }
        Block::List { page: asked } => {
            context.output.value(&Client::of(context)?.call("consensus.blocks", fields(page(&asked)))?)
        }
        Block::Verify { file, genesis } => {
            let value: Value = parse_file(&file, "block.not_proven")?;
            // `block show` prints the proof beside a summary; the proof alone is fine too.
            let proof = value.get("proof").cloned().unwrap_or(value);
            let proof: BlockProof = serde_json::from_value(proof).map_err(|error| {
                Problem::new(
                    ProblemKind::Invalid,
                    "block.not_proven",
                    format!("{file} holds no block: {error}"),
                )
                .hint("give the file what cell block show INDEX --output json printed")
            })?;
            let genesis = genesis_of(context, genesis)?;
            let root = ::state::LightClient::new(&genesis)?.block(&proof)?;
            let header = &proof.block.header;
            context.output.value(&json!({
                "valid": true, "index": header.index, "hash": header.hash(), "root": root,
                "attestations": proof.attestations.len(), "transactions": proof.block.transactions.len(),
            }))
        }
    }
}

fn graph(context: &Context, rounds: u64, out: Option<&Path>) -> Result<ExitCode, Problem> {
    let answer = Client::of(context)?.call("consensus.graph", json!({ "rounds": rounds }))?;
    if context.output.is_json() && out.is_none() {
        return context.output.bare(&answer);
    }
    let view: GraphView = serde_json::from_value(answer).map_err(|error| {
        let cause = format!("the cell answered with a graph that cannot be read: {error}");
        Problem::new(ProblemKind::Invalid, "cli.bad_graph", cause)
            .hint("use the program of the version that the cell runs: cell version")
    })?;
    let picture = super::graph::draw(&view);
    let Some(file) = out else {
        context.output.text(picture.trim_end());
        return Ok(ExitCode::SUCCESS);
    };
    write_file(file, picture.as_bytes())?;
    context.output.value(&json!({
        "file": file, "bytes": picture.len(), "events": view.events.len(), "epoch": view.epoch,
        "pending_round": view.pending_round,
    }))
}

fn identity(context: &Context, command: Identity) -> Result<ExitCode, Problem> {
    let call = |action: &str, params: Value| Client::of(context)?.call(action, params);
    let show = |action: &str, params: Value| context.output.value(&call(action, params)?);
    match command {
        Identity::Show => super::offline::identity(context),
        Identity::Sign { text } => show("identity.sign", json!({ "text": text_argument(&text)? })),
        Identity::Verify { who, text, signature } => {
            let params = json!({ "who": who, "text": text_argument(&text)?, "signature": signature });
            let answer = call("identity.verify", params)?;
            context.output.value(&answer)?;
            Ok(if answer["valid"] == true { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Identity::Contacts => show("identity.contacts", json!({ "limit": 1000 })),
        Identity::Access { who, may, exec, journals } => {
            let may: Vec<String> = may.iter().map(|kind| kind.to_uppercase()).collect();
            show("identity.set_access", json!({ "who": who, "may": may, "exec": exec, "journals": journals }))
        }
        Identity::Trust { who: Some(who) } => show("identity.trust_in", json!({ "who": who })),
        Identity::Trust { who: None } => show("identity.trust", json!({ "limit": 1000 })),
        Identity::Prove { who } => context.output.bare(&call("identity.prove", json!({ "who": who }))?),
        Identity::CheckProof { proof } => {
            let verdict =
                call("identity.check_proof", json!({ "proof": json_argument(&proof, "the proof")? }))?;
            context.output.value(&verdict)?;
            Ok(if verdict["verified"] == true { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Identity::Attest { who, claim } => {
            show("identity.attest", json!({ "who": who, "claim": json_argument(&claim, "the claim")? }))
        }
        Identity::Attestations => show("identity.attestations", json!({ "limit": 1000 })),
        Identity::Seal { who, text } => {
            show("identity.seal", json!({ "who": who, "text": text_argument(&text)? }))
        }
        Identity::Open { sealed } => show("identity.open", json!({ "sealed": sealed })),
        Identity::Sessions => show("identity.tokens", json!({ "limit": 1000 })),
    }
}
