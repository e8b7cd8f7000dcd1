//! Data sets: registered once, changed by their authors, found by tags, author and size; all of it provable.

mod kit;

use std::collections::BTreeMap;

use kit::*;
use machine::Fault;
use machine::module::{Change, Module, ModuleState, Outcome, TxContext};
use machine::testing::Bench;
use proptest::prelude::*;
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{Answer, DatasetView, DatasetsRequest, Request};
use protocol::transaction::Transaction;
use protocol::{BlockIndex, Hash};
use serde_json::{Value, json};
use state::StateMachine;
use state::dataset::Dataset;
use state::verify_key_proof;

fn bench() -> Bench<StateMachine> {
    let mut bench = Bench::new(machine_of(vec![std::sync::Arc::new(Dataset)]));
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    bench
}

fn hash(number: u8) -> String {
    Hash::of(&[number]).to_string()
}

fn call(signer: u8, nonce: u64, name: &str, args: Value) -> Transaction {
    call_of("dataset", signer, nonce, name, args)
}

fn register(signer: u8, nonce: u64, number: u8, size: u64, tags: &[&str]) -> Transaction {
    call(signer, nonce, "register", json!({ "hash": hash(number), "size": size, "tags": tags }))
}

fn datasets(bench: &mut Bench<StateMachine>, asked: DatasetsRequest) -> (Vec<DatasetView>, Option<String>) {
    match bench.ask(Request::Datasets(asked)) {
        Ok(Answer::Datasets(page)) => (page.items, page.next),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_data_set_belongs_to_whoever_registered_it_first() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let on_first = |tags: &[&str]| json!({ "hash": hash(1), "tags": tags });
    let first = json!({ "hash": hash(1) });
    let steps = [
        (register(1, 1, 1, 5, &["text", "en", "text"]), "ok"),
        (register(2, 1, 1, 5, &[]), "dataset.exists"),
        (register(1, 2, 1, 6, &[]), "dataset.exists"),
        (call(2, 2, "update", on_first(&["mine"])), "dataset.not_author"),
        (call(2, 3, "withdraw", first.clone()), "dataset.not_author"),
        (call(2, 4, "update", json!({ "hash": hash(2), "tags": [] })), "dataset.no_such_hash"),
        (call(2, 5, "withdraw", json!({ "hash": hash(2) })), "dataset.no_such_hash"),
        (call(1, 3, "update", on_first(&["fr", "text"])), "ok"),
        (call(1, 4, "withdraw", first), "ok"),
        (register(2, 6, 1, 7, &["en"]), "ok"),
    ];
    for (transaction, code) in steps {
        let block = chain.block(vec![transaction]);
        assert_eq!(codes(&apply(&mut bench, block)), [code]);
    }
    let record = |author: u8, size: u64, tags: &str| {
        format!(r#"{{"author":"{}","registered_ms":5,"size":{size},"tags":{tags}}}"#, cell(author))
    };
    let key = format!("dataset/{}", hash(1));
    for (at, record) in [
        (0, Some(record(1, 5, r#"["en","text"]"#))),
        (7, Some(record(1, 5, r#"["fr","text"]"#))),
        (8, None),
        (9, Some(record(2, 7, r#"["en"]"#))),
    ] {
        assert_eq!(get(&mut bench, &key, Some(at)), record, "after block {at}");
    }
    for (tag, at, there) in
        [("en", 0, true), ("en", 7, false), ("text", 7, true), ("text", 8, false), ("en", 9, true)]
    {
        let key = format!("dataset/#{tag}/{}", hash(1));
        let proof = prove(&mut bench, &key, Some(at));
        verify_key_proof(&proof).expect("holds");
        assert_eq!(proof.value, there.then(String::new), "{tag} after block {at}");
    }
}

#[test]
fn calls_of_another_shape_are_refused_before_and_in_a_block() {
    let upper = hash(1).to_uppercase();
    let many: Vec<String> = (0..17).map(|number| number.to_string()).collect();
    let of = |tags: Value| json!({ "hash": hash(1), "size": 1, "tags": tags });
    let cases = [
        ("put", json!({}), "dataset.unknown_call"),
        ("register", json!({ "hash": hash(1), "tags": [] }), "dataset.bad_args"),
        ("register", json!({ "hash": hash(1), "size": -1, "tags": [] }), "dataset.bad_args"),
        ("register", json!({ "hash": hash(1), "size": 1.5, "tags": [] }), "dataset.bad_args"),
        ("register", json!({ "hash": hash(1), "size": 1, "tags": [], "x": 1 }), "dataset.bad_args"),
        ("register", Value::Null, "dataset.bad_args"),
        ("register", json!({ "hash": upper, "size": 1, "tags": [] }), "dataset.bad_hash"),
        ("register", json!({ "hash": "ab", "size": 1, "tags": [] }), "dataset.bad_hash"),
        ("withdraw", json!({ "hash": "#en/x" }), "dataset.bad_hash"),
        ("register", of(json!([""])), "dataset.bad_tags"),
        ("register", of(json!(["A"])), "dataset.bad_tags"),
        ("register", of(json!(["a/b"])), "dataset.bad_tags"),
        ("register", of(json!(["é"])), "dataset.bad_tags"),
        ("register", of(json!(["x".repeat(65)])), "dataset.bad_tags"),
        ("register", of(json!(many)), "dataset.bad_tags"),
        ("update", json!({ "hash": hash(1), "tags": [" "] }), "dataset.bad_tags"),
    ];
    let (mut bench, mut chain) = (bench(), Chain::default());
    for (nonce, (name, args, code)) in (1..).zip(cases) {
        assert_eq!(Dataset.check(name, &args).expect_err(code).code, code);
        let block = chain.block(vec![call(1, nonce, name, args)]);
        assert_eq!(codes(&apply(&mut bench, block)), [code]);
    }
    let widest = of(json!((0..16).map(|number| format!("{number:0>64}")).collect::<Vec<_>>()));
    Dataset.check("register", &widest).expect("the limits are inclusive");
    Dataset
        .check("register", &json!({ "hash": hash(1), "size": u64::MAX, "tags": ["a-z_0.9:"] }))
        .expect("fits");
}

#[test]
fn tags_that_do_not_fit_their_records_are_found_out() {
    let record = |tags: Value| {
        let value = json!({ "author": cell(1), "registered_ms": 1, "size": 1, "tags": tags });
        Some(value.to_string().into_bytes())
    };
    let change = |key: String, before: Option<Vec<u8>>, after: Option<Vec<u8>>| Change { key, before, after };
    let tag = |tag: &str, before: bool, after: bool| {
        change(format!("#{tag}/{}", hash(1)), before.then(Vec::new), after.then(Vec::new))
    };
    let new = change(hash(1), None, record(json!(["a", "b"])));
    let other = change(hash(1), record(json!(["a"])), record(json!(["a", "b"])));
    let gone = change(hash(1), record(json!(["a"])), None);
    for (changes, holds) in [
        (vec![], true),
        (vec![tag("a", false, true), tag("b", false, true), new.clone()], true),
        (vec![tag("a", false, true), new.clone()], false),
        (vec![tag("a", false, true), tag("b", false, true), tag("c", false, true), new], false),
        (vec![tag("b", false, true), other.clone()], true),
        (vec![tag("a", true, true), tag("b", false, true), other.clone()], true),
        (vec![tag("a", true, false), tag("b", false, true), other], false),
        (vec![tag("a", true, false), gone.clone()], true),
        (vec![gone], false),
        (vec![tag("a", true, false)], false),
        (vec![change(hash(1), None, Some(b"no record".to_vec()))], false),
    ] {
        assert_eq!(Dataset.check_invariants(&changes).is_ok(), holds, "{changes:?}");
    }
}

/// Author, data set, and its size and tags (or nothing, to withdraw it).
type Step = (u8, u8, Option<(u64, Vec<u8>)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wanted = proptest::option::weighted(0.8, (0u64..6, prop::collection::vec(0u8..4, 0..4)));
    prop::collection::vec((1u8..4, 0u8..12, wanted), 1..40)
}

fn tag_name(tag: u8) -> String {
    format!("t{tag}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A list is what a filter leaves of all data sets, however it is paged, now and as of an earlier block.
    #[test]
    fn a_list_is_what_fits(
        steps in steps(), tags in prop::collection::vec(0u8..4, 0..3), author in proptest::option::of(1u8..4),
        size_min in proptest::option::of(0u64..6), size_max in proptest::option::of(0u64..6), limit in 1u32..4,
    ) {
        let (mut bench, mut chain) = (bench(), Chain::default());
        let mut model: BTreeMap<String, (u8, u64, Vec<String>)> = BTreeMap::new();
        let mut middle = BTreeMap::new();
        for (nonce, (signer, number, wanted)) in (1..).zip(steps.iter().cloned()) {
            let there = model.get(&hash(number)).cloned();
            let transaction = match (wanted, &there) {
                (Some((size, tags)), None) => {
                    let mut tags: Vec<String> = tags.into_iter().map(tag_name).collect();
                    let transaction = call(signer, nonce, "register", json!({ "hash": hash(number), "size": size, "tags": tags }));
                    tags.sort();
                    tags.dedup();
                    model.insert(hash(number), (signer, size, tags));
                    transaction
                }
                (Some((_, tags)), Some((owner, size, _))) => {
                    let mut tags: Vec<String> = tags.into_iter().map(tag_name).collect();
                    let transaction = call(signer, nonce, "update", json!({ "hash": hash(number), "tags": tags }));
                    tags.sort();
                    tags.dedup();
                    if *owner == signer {
                        model.insert(hash(number), (signer, *size, tags));
                    }
                    transaction
                }
                (None, there) => {
                    if there.as_ref().is_some_and(|(owner, ..)| *owner == signer) {
                        model.remove(&hash(number));
                    }
                    call(signer, nonce, "withdraw", json!({ "hash": hash(number) }))
                }
            };
            let block = chain.block(vec![transaction]);
            apply(&mut bench, block);
            if nonce == 1 + steps.len() as u64 / 2 {
                middle = model.clone();
            }
        }
        let names: Vec<String> = tags.iter().copied().map(tag_name).collect();
        for (at, model) in [(None, model), (Some(BlockIndex(steps.len() as u64 / 2)), middle)] {
            let mut asked = DatasetsRequest {
                tags: names.clone(), author: author.map(cell), size_min, size_max, limit: Some(limit), cursor: None, at,
            };
            let mut found = Vec::new();
            loop {
                let (items, next) = datasets(&mut bench, asked.clone());
                prop_assert!(items.len() <= limit as usize);
                found.extend(items);
                asked.cursor = next;
                if asked.cursor.is_none() {
                    break;
                }
            }
            let expected: Vec<_> = model.into_iter().filter(|(_, (owner, size, tags))| {
                names.iter().all(|name| tags.contains(name))
                    && author.is_none_or(|author| author == *owner)
                    && size_min.is_none_or(|least| least <= *size)
                    && size_max.is_none_or(|most| *size <= most)
            }).map(|(hash, (owner, size, tags))| (hash, cell(owner), size, tags)).collect();
            let shown: Vec<_> =
                found.iter().map(|set| (set.hash.to_string(), set.author, set.size, set.tags.clone())).collect();
            prop_assert_eq!(shown, expected);
            for set in found {
                let proof = prove(&mut bench, &set.key, set.index.map(|index| index.0));
                prop_assert_eq!(verify_key_proof(&proof), Ok(()));
                prop_assert!(proof.value.is_some());
            }
        }
    }
}

/// A network that begins with more data sets than one question looks at.
struct Many;

impl Module for Many {
    fn name(&self) -> &'static str {
        "dataset"
    }
    fn genesis(&self, _: &Genesis, state: &mut dyn ModuleState) {
        for number in 0u64..10_050 {
            let author = cell(if number == 10_049 { 2 } else { 1 });
            let record = json!({ "author": author, "registered_ms": 1, "size": 1, "tags": [] });
            state.put(&format!("{number:064}"), record.to_string().into_bytes());
        }
    }
    fn check(&self, _: &str, _: &Value) -> Outcome {
        Ok(())
    }
    fn execute(&self, _: &TxContext, _: &str, _: &Value, _: &mut dyn ModuleState) -> Result<Outcome, Fault> {
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn one_question_looks_at_so_many_and_says_where_to_go_on() {
    let mut bench = Bench::new(machine_of(vec![std::sync::Arc::new(Many)]));
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    let mut asked = DatasetsRequest { author: Some(cell(2)), ..Default::default() };
    let (none, next) = datasets(&mut bench, asked.clone());
    assert_eq!((none.len(), next), (0, Some(format!("{:064}", 9_999))));
    asked.cursor = Some(format!("{:064}", 9_999));
    let (found, next) = datasets(&mut bench, asked);
    assert_eq!((found.len(), next), (1, None));
}

#[test]
fn a_question_that_makes_no_sense_is_refused() {
    let mut bench = bench();
    for (asked, code) in [
        (DatasetsRequest { cursor: Some("x".into()), ..Default::default() }, "state.bad_cursor"),
        (DatasetsRequest { tags: vec!["a/b".into()], ..Default::default() }, "dataset.bad_tags"),
        (DatasetsRequest { at: Some(BlockIndex(0)), ..Default::default() }, "state.no_such_block"),
        (DatasetsRequest { at: Some(BlockIndex(u64::MAX)), ..Default::default() }, "state.no_such_block"),
    ] {
        assert_eq!(bench.ask(Request::Datasets(asked)).expect_err(code).code, code);
    }
    assert_eq!(datasets(&mut bench, DatasetsRequest::default()), (vec![], None));
}
