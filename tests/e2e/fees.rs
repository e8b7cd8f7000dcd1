//! A network with fees, as its users see it.

use kit::{Cell, network_with, until};
use serde_json::{Value, json};

/// Atoms of an amount as people write it.
fn atoms(amount: &Value) -> u128 {
    let text = amount.as_str().expect("an amount");
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{rest:0<18}").parse().expect("a number")
}

fn balance(cell: &Cell, who: &Cell) -> u128 {
    atoms(&cell.ok(&["market", "balance", &who.id()])["balance"])
}

fn transfer(cell: &Cell, to: &Cell, more: &[&str]) -> Value {
    let args = json!({ "to": to.id(), "amount": "1" }).to_string();
    let transfer =
        ["tx", "submit", "--module", "prana", "--call", "transfer", "--args", &args, "--wait", "finalised"];
    cell.ok(&[&transfer, more].concat())
}

#[test]
fn a_transaction_pays_by_its_lane_and_what_was_paid_is_shared() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cells = network_with(dir.path(), 4, &["--fee-base", "0.000001", "--fee-share-blocks", "4"]);
    cells.iter_mut().for_each(Cell::start);
    until("all are synced", || cells.iter().all(Cell::is_synced));
    let before = balance(&cells[0], &cells[1]);
    let paid = |lane: &str| {
        let done = transfer(&cells[1], &cells[2], &["--lane", lane]);
        let shown = cells[3].ok(&["tx", "show", done["id"].as_str().expect("an id")]);
        assert_eq!(shown["fee"], done["fee"], "any cell tells what it cost: {shown}");
        atoms(&done["fee"])
    };
    let (priority, normal, bulk) = (paid("priority"), paid("normal"), paid("bulk"));
    assert!(bulk > 0 && normal > bulk && priority > normal, "{priority} {normal} {bulk}");
    let one = 1_000_000_000_000_000_000;
    let after = balance(&cells[0], &cells[1]);
    assert!(
        after >= before - 3 * one - priority - normal - bulk,
        "it paid no more, and may have had its share"
    );

    let args = json!({ "key": "k", "value": "v" }).to_string();
    let put = ["tx", "submit", "--module", "kv", "--call", "put", "--args", &args];
    assert_eq!(
        cells[0].refused(&[&put, &["--max-fee", "0.0000001"][..]].concat()).1,
        "consensus.fee_too_low"
    );
    // Who has nothing pays nothing, and changes nothing.
    let poor = Cell::init_with(
        dir.path(),
        "poor",
        &["--network", &cells[0].dir().join("genesis.json").display().to_string()],
    );
    let signed =
        poor.run(&["tx", "sign", "--module", "kv", "--call", "put", "--args", &args, "--nonce", "1"]);
    let file = dir.path().join("signed.json");
    std::fs::write(&file, &signed.stdout).expect("a file");
    let output =
        cells[0].run(&["tx", "submit", "--signed", &file.display().to_string(), "--wait", "finalised"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["status"], "rejected", "{answer}");
    assert_eq!(cells[0].ok(&["state", "get", "kv/k"])["value"], Value::Null);

    // Blocks go on, and the members get what the others paid.
    let (paid_in, own) = (balance(&cells[0], &cells[3]), balance(&cells[0], &cells[1]));
    until("the members had their share", || {
        transfer(&cells[1], &cells[2], &[]);
        balance(&cells[0], &cells[3]) > paid_in
    });
    assert!(balance(&cells[0], &cells[1]) < own);
    // One line for each of many, whoever signed them.
    let lines: Vec<String> = (2..7)
        .map(|nonce| {
            let nonce = nonce.to_string();
            let signed = poor
                .run(&["tx", "sign", "--module", "kv", "--call", "put", "--args", &args, "--nonce", &nonce]);
            String::from_utf8(signed.stdout).expect("text")
        })
        .collect();
    std::fs::write(&file, lines.concat()).expect("a file");
    let output = cells[0].run(&["tx", "submit-all", &file.display().to_string(), "--wait", "finalised"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "{answer}");
    assert!(
        answer["items"].as_array().expect("a list").iter().all(|item| item["status"] == "rejected"),
        "{answer}"
    );
    // A forged one and a vote for what this build does not have are refused, each for itself.
    let signed = |cell: &Cell, module: &str, call: &str, args: &str, nonce: &str| {
        let sign = ["tx", "sign", "--module", module, "--call", call, "--args", args, "--nonce", nonce];
        cell.ok(&sign)
    };
    let mut forged = signed(&poor, "kv", "put", &args, "20");
    forged["nonce"] = json!(21);
    let vote = signed(&cells[0], "members", "activate", r#"{"rules":2}"#, "900");
    let fine = signed(&cells[0], "kv", "put", r#"{"key":"own","value":"1"}"#, "901");
    std::fs::write(&file, format!("{forged}\n{vote}\n{fine}\n")).expect("a file");
    let output = cells[0].run(&["tx", "submit-all", &file.display().to_string(), "--wait", "finalised"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let outcome = |place: usize, name: &str| answer["items"][place].pointer(name).cloned();
    assert_eq!(outcome(0, "/problem/code"), Some(json!("consensus.bad_signature")), "{answer}");
    assert_eq!(outcome(1, "/problem/code"), Some(json!("consensus.unknown_rules")), "{answer}");
    assert_eq!(outcome(2, "/status"), Some(json!("finalised")), "{answer}");
    std::fs::write(&file, "no transaction\n").expect("a file");
    let bad = ["tx", "submit-all", &file.display().to_string()];
    assert_eq!(cells[0].refused(&bad), (1, "consensus.bad_transaction".to_owned()));
}
