//! Signed PRANA transfers, from a client's bytes over HTTP to a root that is final on all four cells of a network.
//!
//! The cells are processes, as `cell testnet init` makes them, with all that a cell does. Transfers are signed beforehand, by
//! many accounts; clients submit them as fast as the cells take them in, a thousand a call. What is measured is transfers a second from
//! the first submit until the last one is final everywhere. Beside it: how many the machine could at most do if all that cells had to do was
//! check each signature once on each cell, in batches and one by one.

use std::time::{Duration, Instant};

use consensus::WAITING_MAX;
use ed25519_dalek::SigningKey;
use kit::{Cell, until, until_within};
use protocol::consensus::SUBMIT_ALL_MAX;
use protocol::signing;
use protocol::transaction::{Intent, Transaction};
use serde_json::{Value, json};

use crate::limits;
use crate::table::{Table, per_second};

const CELLS: usize = 4;
/// Accounts that send, in turns.
const ACCOUNTS: usize = 1_024;
/// Transfers of one measurement.
const TRANSFERS: usize = 160_000;
/// Calls under way to one cell.
const CLIENTS: usize = 2;
/// How long the limits are measured.
const SPAN: Duration = Duration::from_secs(2);
/// How long it may take at most.
const PATIENCE: Duration = Duration::from_secs(180);

struct Account {
    key: SigningKey,
    nonce: u64,
}

impl Account {
    fn of(number: usize) -> Self {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Self { key: SigningKey::from_bytes(&seed), nonce: 0 }
    }

    fn transfer(&mut self, genesis: protocol::GenesisHash, to: &str, amount: &str) -> Transaction {
        self.nonce += 1;
        let args = json!({ "to": to, "amount": amount });
        let intent = Intent { module: "prana".into(), call: "transfer".into(), args, ..Intent::default() };
        Transaction::sign(&self.key, genesis, &intent, self.nonce)
    }
}

pub(crate) fn measure() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("Transfers: four cells, signed PRANA transfers over HTTP to a final root");
    let mut cells = kit::network(dir.path(), CELLS as u16);
    cells.iter_mut().for_each(Cell::start);
    until("the network is there", || cells.iter().all(Cell::is_synced));
    let genesis = std::fs::read(cells[0].dir().join("genesis.json")).expect("a genesis");
    let genesis: protocol::genesis::Genesis = serde_json::from_slice(&genesis).expect("a genesis");
    let genesis = genesis.hash();
    let mut accounts: Vec<Account> = (0..ACCOUNTS).map(Account::of).collect();
    let names: Vec<String> =
        accounts.iter().map(|account| signing::cell_id(&account.key).to_string()).collect();
    fund(&cells[0], &names);
    // An account's transfers go to one cell, in the order of their nonces.
    let mut of_cell: Vec<Vec<Transaction>> = vec![Vec::new(); CELLS];
    for number in 0..TRANSFERS {
        let from = number % ACCOUNTS;
        let to = &names[(from * 31 + number / ACCOUNTS * 17 + 1) % ACCOUNTS];
        of_cell[from % CELLS].push(accounts[from].transfer(genesis, to, "0.0001"));
    }
    let sample: Vec<Transaction> = of_cell[0][..4_096].to_vec();
    let of_clients: Vec<[Vec<String>; CLIENTS]> = of_cell.iter().map(|all| by_client(all)).collect();
    let tokens: Vec<String> = cells.iter().map(|cell| cell.token().trim().to_owned()).collect();
    let before = all_final(&cells, &tokens);
    let started = Instant::now();
    let cpu = cpu_s(&cells);
    std::thread::scope(|scope| {
        for (cell, (token, clients)) in cells.iter().zip(tokens.iter().zip(&of_clients)) {
            for transactions in clients {
                scope.spawn(move || submit(cell, token, transactions));
            }
        }
    });
    let submitted = started.elapsed();
    let blocks = all_final(&cells, &tokens);
    let took = started.elapsed();
    let cores = (cpu_s(&cells) - cpu) / took.as_secs_f64();
    assert_eq!(transactions_since(&cells[0], &tokens[0], before), TRANSFERS as u64);
    let at = json!({ "at": blocks - 1 });
    let roots: Vec<Value> = cells
        .iter()
        .zip(&tokens)
        .map(|(cell, token)| call(cell, token, "state.root", &at)["root"].clone())
        .collect();
    assert!(
        roots.iter().all(|root| root.is_string() && *root == roots[0]),
        "the same root everywhere: {roots:?}"
    );
    let rate = TRANSFERS as f64 / took.as_secs_f64();
    let (single, batched) = limits::verify_rates(&sample, SPAN);
    let limit = |rate: f64| rate / CELLS as f64;
    table.line(
        "transfers to a final root on all four cells",
        per_second(rate),
        format!(
            "every signature checked on every cell, and nothing else: {} in batches, {} one by one; {cores:.2} cores for the cells; all were taken in after {:.1} s of {:.1} s; {} blocks",
            per_second(limit(batched)),
            per_second(limit(single)),
            submitted.as_secs_f64(),
            took.as_secs_f64(),
            blocks - before
        ),
        format!("{:.2} of batches, {:.2} of one by one", rate / limit(batched), rate / limit(single)),
        "0.5 (aim 0.8)",
    );
    table
}

/// Gives each account something.
fn fund(cell: &Cell, names: &[String]) {
    for (number, name) in names.iter().enumerate() {
        let args = json!({ "to": name, "amount": "1000" });
        let wait = if number + 1 == names.len() { "finalised" } else { "accepted" };
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "consensus.submit", "params": {
            "intent": { "module": "prana", "call": "transfer", "args": args }, "wait": wait } });
        let (status, answer) = cell.post("/rpc", &call.to_string());
        assert_eq!(status, 200, "{answer}");
        assert!(!answer.contains("\"error\""), "{answer}");
    }
}

/// What each client of a cell submits, as text. An account's transfers stay with one client, in the order of their nonces.
fn by_client(all: &[Transaction]) -> [Vec<String>; CLIENTS] {
    let mut by_client: [Vec<String>; CLIENTS] = Default::default();
    for transaction in all {
        let client = usize::from(transaction.sender.as_bytes()[0]) % CLIENTS;
        by_client[client].push(serde_json::to_string(transaction).expect("JSON"));
    }
    by_client
}

/// Submits until all are taken in: what there is no room for comes again, with those behind it.
fn submit(cell: &Cell, token: &str, mut transactions: &[String]) {
    while !transactions.is_empty() {
        let some = &transactions[..transactions.len().min(SUBMIT_ALL_MAX)];
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"consensus.submit_all","params":{{"transactions":[{}]}}}}"#,
            some.join(",")
        );
        let (status, answer) = kit::post(&cell.http, token, "/rpc", &body);
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let items = answer["result"]["items"].as_array().map_or([].as_slice(), Vec::as_slice);
        let taken = items.iter().take_while(|item| item.get("problem").is_none_or(Value::is_null)).count();
        let problem = items.get(taken).map_or(&answer["error"]["data"], |item| &item["problem"]);
        transactions = &transactions[taken..];
        if taken < some.len() {
            let is_busy = problem["kind"] == "busy" || problem["code"] == "consensus.busy";
            assert!(is_busy, "{problem}");
            until_within(PATIENCE, "there is room", || {
                let pending = call(cell, token, "consensus.status", &json!({}))["pending"].as_u64();
                pending.is_some_and(|pending| pending + SUBMIT_ALL_MAX as u64 <= WAITING_MAX)
            });
        }
    }
}

fn call(cell: &Cell, token: &str, action: &str, params: &Value) -> Value {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": action, "params": params });
    let (_, answer) = kit::post(&cell.http, token, "/rpc", &call.to_string());
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    answer["result"].clone()
}

/// Waits until nothing waits anywhere and every block is final everywhere; how many blocks there are.
fn all_final(cells: &[Cell], tokens: &[String]) -> u64 {
    let mut blocks = 0;
    until_within(PATIENCE, "everything is final", || {
        let views = cells.iter().zip(tokens).map(|(cell, token)| {
            let view = call(cell, token, "consensus.gossip", &json!({}));
            let blocks = ["ordered", "finalised"].map(|name| view["blocks"][name].as_u64());
            (view["pool"].as_u64(), blocks)
        });
        let views: Vec<_> = views.collect();
        let (Some(0), [Some(ordered), Some(finalised)]) = views[0] else { return false };
        blocks = finalised;
        ordered == finalised && views.iter().all(|view| *view == views[0])
    });
    blocks
}

/// Transactions in the blocks from one on.
fn transactions_since(cell: &Cell, token: &str, first: u64) -> u64 {
    let (mut sum, mut cursor) = (0, Value::Null);
    loop {
        let mut request = json!({ "limit": 1_000 });
        if !cursor.is_null() {
            request["cursor"] = cursor;
        }
        let page = call(cell, token, "consensus.blocks", &request);
        let items = page["items"].as_array().expect("a list").clone();
        for item in &items {
            if item["index"].as_u64().is_some_and(|index| index >= first) {
                sum += item["transactions"].as_u64().expect("a number");
            }
        }
        cursor = page["next"].clone();
        if cursor.is_null() || items.last().is_none_or(|item| item["index"].as_u64() <= Some(first)) {
            return sum;
        }
    }
}

/// Processor time of all cells.
fn cpu_s(cells: &[Cell]) -> f64 {
    cells.iter().map(|cell| cell.cpu_ticks() as f64 / kit::TICKS_PER_SECOND).sum()
}
