//! Versions of the rules: each block is executed by the modules of its own, and a build that lacks them changes nothing.

mod kit;

use std::sync::Arc;

use kit::*;
use machine::Fault;
use machine::module::{Change, Module, ModuleState, Outcome, RuleSets, TxContext};
use machine::testing::Bench;
use protocol::block::{Attestation, Block, BlockProof};
use protocol::genesis::Genesis;
use protocol::members::{Handoff, SET_KEY};
use protocol::shared::Empty;
use protocol::state::{ApplyRequest, Request};
use protocol::transaction::Transaction;
use serde_json::{Value, json};
use state::kv::Kv;
use state::{LightClient, StateMachine};

/// The second version of `kv`: it shouts.
struct Loud;

impl Module for Loud {
    fn name(&self) -> &'static str {
        "kv"
    }
    fn genesis(&self, _: &Genesis, _: &mut dyn ModuleState) {}
    fn check(&self, _: &str, _: &Value) -> Outcome {
        Ok(())
    }
    fn execute(
        &self,
        _: &TxContext,
        _: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        let text = |name: &str| args[name].as_str().unwrap_or_default().to_owned();
        state.put(&text("key"), text("value").to_uppercase().into_bytes());
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

fn old() -> StateMachine {
    machine_of(vec![Arc::new(Kv), Arc::new(Chosen)])
}

fn newer() -> StateMachine {
    let second: Vec<Arc<dyn Module>> = vec![Arc::new(Loud), Arc::new(Chosen)];
    StateMachine { rules: old().rules.and_next(second), ..old() }
}

fn begin(machine: StateMachine) -> Bench<StateMachine> {
    let mut bench = Bench::new(machine);
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    bench
}

/// The next block of a chain, under a version of the rules.
fn block(chain: &mut Chain, rules: u64, transactions: Vec<Transaction>) -> Block {
    chain.block(transactions);
    let block = chain.0.last_mut().expect("just made");
    block.header.rules = rules;
    block.clone()
}

#[test]
fn the_versions_of_a_build_are_those_that_it_has_modules_for() {
    assert_eq!((old().rules.versions(), newer().rules.versions()), (1..=1, 1..=2));
    for (version, has_it) in [(0, false), (1, true), (2, true), (3, false), (u64::MAX, false)] {
        assert_eq!(newer().rules.modules(version).is_some(), has_it, "version {version}");
    }
    assert!(RuleSets::first(Vec::new()).modules(1).is_some_and(<[_]>::is_empty));
}

#[test]
fn a_block_is_executed_by_the_rules_that_it_names() {
    let (mut bench, mut chain) = (begin(newer()), Chain::default());
    for (number, rules, value) in [(1, 1, "blue"), (2, 2, "BLUE"), (3, 2, "BLUE")] {
        let next = block(&mut chain, rules, vec![put(1, number, "colour", "blue")]);
        assert_eq!(codes(&apply(&mut bench, next)), ["ok"]);
        assert_eq!(get(&mut bench, "kv/colour", None).as_deref(), Some(value));
    }
    assert_eq!(get(&mut bench, "kv/colour", Some(0)).as_deref(), Some("blue"));
}

#[test]
fn a_build_that_lacks_the_rules_of_a_block_changes_nothing_and_goes_on_when_it_is_upgraded() {
    let (mut bench, mut chain) = (begin(old()), Chain::default());
    let first = block(&mut chain, 1, vec![put(1, 1, "colour", "blue")]);
    let second = block(&mut chain, 2, vec![put(1, 2, "colour", "red")]);
    apply(&mut bench, first);
    let length = bench.journal.len();
    let problem = try_apply(&mut bench, second.clone()).expect_err("refused");
    assert_eq!(problem.code, "state.upgrade_required");
    assert!(problem.hint.is_some_and(|hint| hint.contains("install a newer version")));
    assert_eq!(bench.journal.len(), length);
    assert_eq!(get(&mut bench, "kv/colour", None).as_deref(), Some("blue"), "it can be read");
    prove(&mut bench, "kv/colour", Some(0));
    bench.machine = newer();
    bench.replay();
    let applied = apply(&mut bench, second.clone());
    assert_eq!(get(&mut bench, "kv/colour", None).as_deref(), Some("RED"));
    // A journal needs no module to be read: what was executed elsewhere folds here.
    bench.machine = old();
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
    assert_eq!(root(&mut bench, None), applied.root);
    assert!(bench.ask(Request::Apply(ApplyRequest { block: second })).is_ok(), "its result is known");
}

/// A client executes nothing, so it needs no version: what it trusts are the members, and they sign the header that names it.
#[test]
fn a_client_follows_a_change_of_rules_and_knows_a_header_that_names_others() {
    let (mut bench, mut chain) = (begin(newer()), Chain::default());
    let first = block(&mut chain, 1, vec![put(1, 1, "colour", "blue")]);
    let applied = apply(&mut bench, first.clone());
    let attestations = attested(&first, applied.root).attestations;
    let handoff = Handoff { header: first.header, attestations, proof: prove(&mut bench, SET_KEY, Some(0)) };
    let second = block(&mut chain, 2, vec![put(1, 2, "colour", "red")]);
    let applied = apply(&mut bench, second.clone());
    let word = Attestation::sign(&key(1), &second.header, applied.root);
    let proof = BlockProof { block: second, attestations: vec![word], handoffs: vec![handoff] };
    let mut client = LightClient::new(&genesis()).expect("a genesis");
    assert_eq!(client.block(&proof), Ok(applied.root));
    client.follow(&proof.handoffs[0]).expect("follows");
    assert_eq!(client.members(), &genesis().member_set());
    assert_eq!(client.block(&proof), Ok(applied.root));
    for rules in [1, 3] {
        let mut forged = proof.clone();
        forged.block.header.rules = rules;
        assert_eq!(client.block(&forged).expect_err("forged").code, "block.not_proven");
    }
    assert_eq!(json!(proof.block.header)["rules"], json!(2), "a client can read it");
}
