//! Blocks come to the same however their transactions are spread over hands.

mod kit;

use std::sync::{Arc, Mutex};

use kit::*;
use machine::Fault;
use machine::module::{Access, Change, Ledger, Module, ModuleState, Outcome, RuleSets, TxContext};
use machine::testing::Bench;
use market::prana::Prana;
use proptest::prelude::*;
use protocol::amount::ATOMS_PER_PRANA;
use protocol::fees::FeeRules;
use protocol::genesis::{Allocation, Genesis};
use protocol::shared::Empty;
use protocol::state::Request;
use protocol::transaction::{Intent, Lane, Transaction};
use protocol::{Amount, Problem, ProblemKind};
use serde_json::{Value, json};
use state::kv::Kv;
use state::{InTurn, Job, StateMachine, Workers};

/// Four threads that take one job after the other.
struct Threads;

impl Workers for Threads {
    fn are_worth(&self, _: usize) -> bool {
        true
    }
    fn run(&self, jobs: Vec<Job<'_>>) {
        let queue = Mutex::new(jobs);
        let next = || queue.lock().expect("no job panics").pop();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(job) = next() {
                        job();
                    }
                });
            }
        });
    }
}

/// The last job first.
struct Backwards;

impl Workers for Backwards {
    fn are_worth(&self, _: usize) -> bool {
        true
    }
    fn run(&self, jobs: Vec<Job<'_>>) {
        jobs.into_iter().rev().for_each(|job| job());
    }
}

/// Hands that forget the last job.
struct Forgetful;

impl Workers for Forgetful {
    fn are_worth(&self, _: usize) -> bool {
        true
    }
    fn run(&self, mut jobs: Vec<Job<'_>>) {
        jobs.pop();
        jobs.into_iter().for_each(|job| job());
    }
}

/// A module that tells nothing of its calls beforehand: each is carried out alone, in the block's order.
struct Untold<M>(M);

impl<M: Module> Module for Untold<M> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn genesis(&self, genesis: &Genesis, state: &mut dyn ModuleState) {
        self.0.genesis(genesis, state);
    }
    fn check(&self, call: &str, args: &Value) -> Outcome {
        self.0.check(call, args)
    }
    fn ledger(&self) -> Option<&dyn Ledger> {
        self.0.ledger()
    }
    fn execute(
        &self,
        context: &TxContext,
        call: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        self.0.execute(context, call, args, state)
    }
    fn check_invariants(&self, changes: &[Change]) -> Result<(), String> {
        self.0.check_invariants(changes)
    }
}

/// A module whose calls touch what they are told to: `do {reads, writes, says_reads, says_writes, refuse}`, lists of keys.
struct Teller;

fn keys(args: &Value, name: &str) -> Vec<String> {
    let keys = args[name].as_array().into_iter().flatten();
    keys.filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

impl Module for Teller {
    fn name(&self) -> &'static str {
        "teller"
    }
    fn genesis(&self, _: &Genesis, state: &mut dyn ModuleState) {
        state.put("a", b"0".to_vec());
    }
    fn check(&self, _: &str, _: &Value) -> Outcome {
        Ok(())
    }
    fn access(&self, _: &TxContext, _: &str, args: &Value) -> Option<Vec<Access>> {
        let says_writes = keys(args, "says_writes").into_iter().map(Access::Write);
        Some(keys(args, "says_reads").into_iter().map(Access::Read).chain(says_writes).collect())
    }
    /// What it reads goes into what it writes: so the order of two calls that touch one key shows.
    fn execute(
        &self,
        context: &TxContext,
        _: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        let mut text = context.sender.to_string().into_bytes();
        for key in keys(args, "reads") {
            text.extend(state.get(&key)?.unwrap_or_default());
        }
        for key in keys(args, "writes") {
            text.extend(state.get(&key)?.unwrap_or_default());
            if text.len().is_multiple_of(7) {
                state.delete(&key);
            } else {
                state.put(&key, protocol::Hash::of(&text).as_bytes()[..text.len() % 7].to_vec());
            }
        }
        if args["fault"] == true {
            return Err(Fault("it saw nothing".to_owned()));
        }
        if args["refuse"] == true {
            return Ok(Err(Problem::new(ProblemKind::Invalid, "teller.no", "no")));
        }
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

fn initialised(machine: StateMachine) -> Bench<StateMachine> {
    let mut bench = Bench::new(machine);
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    bench
}

/// A network of eight cells who have a few fees' worth each, if it has fees.
fn network(modules: Vec<Arc<dyn Module>>, fees: bool) -> StateMachine {
    let fees = fees.then_some(FeeRules {
        base_min: Amount(ATOMS_PER_PRANA / 8_192),
        target_units: Some(9_000),
        share_blocks: Some(2),
    });
    let allocation = |number| Allocation { cell: cell(number), amount: Amount::from_prana(3) };
    let allocations = (1..9).map(allocation).collect();
    StateMachine::new(Arc::new(Genesis { allocations, fees, ..genesis() }), RuleSets::first(modules))
}

/// The blocks with hands of every sort, and alone without being told of any key; all come to the same, journaled byte for byte.
fn compare(
    told: &[Arc<dyn Module>],
    alone: Option<Vec<Arc<dyn Module>>>,
    fees: bool,
    blocks: Vec<Vec<Transaction>>,
) {
    let hands: [Arc<dyn Workers>; 3] = [Arc::new(InTurn), Arc::new(Backwards), Arc::new(Threads)];
    let mut benches: Vec<_> = hands
        .into_iter()
        .map(|workers| initialised(StateMachine { workers, ..network(told.to_vec(), fees) }))
        .collect();
    benches.extend(alone.map(|modules| initialised(network(modules, fees))));
    let mut chain = Chain::of(&benches[0].machine.genesis);
    for transactions in blocks {
        let block = chain.block(transactions);
        for bench in &mut benches {
            apply(bench, block.clone());
        }
    }
    for bench in &benches[1..] {
        assert_eq!(bench.journal, benches[0].journal);
        assert_eq!(bench.view, benches[0].view);
    }
}

/// One of kv's or prana's calls by one of eight cells, who have little at first: some are refused.
fn call() -> impl Strategy<Value = (u8, &'static str, &'static str, Value)> {
    let sender = 1u8..9;
    let key = || (0u8..6).prop_map(|key| format!("k{key}"));
    prop_oneof![
        3 => (sender.clone(), key(), any::<u8>()).prop_map(|(sender, key, value)| {
            (sender, "kv", "put", json!({ "key": key, "value": value.to_string() }))
        }),
        1 => (sender.clone(), key()).prop_map(|(sender, key)| (sender, "kv", "delete", json!({ "key": key }))),
        4 => (sender.clone(), 1u8..9, 0u32..4).prop_map(|(sender, to, amount)| {
            (sender, "prana", "transfer", json!({ "to": cell(to), "amount": amount.to_string() }))
        }),
        1 => sender.prop_map(|sender| (sender, "none", "put", json!({}))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn groups_on_threads_come_to_what_one_after_the_other_does(
        blocks in prop::collection::vec(prop::collection::vec((call(), 0u64..9), 0..24), 1..5), fees in any::<bool>(),
    ) {
        let mut nonce = 0;
        let mut transaction = |((sender, module, call, args), kind): ((u8, &str, &str, Value), u64)| {
            nonce += 1;
            let intent = Intent {
                module: module.into(),
                call: call.into(),
                args,
                nonce: (kind == 0).then_some(1),
                lane: [Some(Lane::Priority), Some(Lane::Bulk), None][kind as usize % 3],
                max_fee: (kind > 6).then_some(Amount(ATOMS_PER_PRANA * 6 / 10)),
            };
            signed(sender, nonce, &intent)
        };
        let blocks = blocks.into_iter().map(|block| block.into_iter().map(&mut transaction).collect()).collect();
        let alone: Vec<Arc<dyn Module>> = vec![Arc::new(Untold(Kv)), Arc::new(Untold(Prana))];
        compare(&[Arc::new(Kv), Arc::new(Prana)], Some(alone), fees, blocks);
    }

    /// Beside modules that tell nothing, and whether or not what is told is the truth.
    #[test]
    fn what_a_module_says_of_itself_makes_no_difference_to_the_members(
        calls in prop::collection::vec((1u8..6, "[a-d]{0,2}", "[a-d]{0,2}", "[a-d]{0,3}", "[a-d]{0,3}", 0u8..12), 0..24),
    ) {
        let list = |keys: &str| keys.chars().map(String::from).collect::<Vec<_>>();
        let transaction = |(nonce, (sender, reads, writes, says_reads, says_writes, kind)): (u64, (u8, String, String, String, String, u8))| {
            let honest = kind < 6;
            let (says_reads, says_writes) = if honest { (&reads, &writes) } else { (&says_reads, &says_writes) };
            let args = json!({
                "reads": list(&reads), "writes": list(&writes), "refuse": kind % 6 == 0,
                "says_reads": list(says_reads), "says_writes": list(says_writes),
            });
            match kind {
                11 => put(sender, nonce, &reads, &writes),
                _ => call_of("teller", sender, nonce, "do", args),
            }
        };
        let block: Vec<Transaction> = (1..).zip(calls).map(transaction).collect();
        let told: [Arc<dyn Module>; 2] = [Arc::new(Teller), Arc::new(Untold(Kv))];
        compare(&told, None, false, vec![block.clone()]);
        // Each in a block of its own is one after the other.
        let [mut together, mut one_by_one] = [(); 2].map(|()| initialised(machine_of(told.to_vec())));
        let at_once = apply(&mut together, Chain::default().block(block.clone())).receipts;
        let mut chain = Chain::default();
        let receipts: Vec<_> = block
            .into_iter()
            .flat_map(|transaction| apply(&mut one_by_one, chain.block(vec![transaction])).receipts)
            .collect();
        prop_assert_eq!(receipts, at_once);
        prop_assert_eq!(root(&mut one_by_one, None), root(&mut together, None));
    }
}

#[test]
fn what_touches_more_than_it_said_is_refused_and_changes_nothing() {
    let hands: [Arc<dyn Workers>; 3] = [Arc::new(InTurn), Arc::new(Backwards), Arc::new(Threads)];
    let cases = [
        (json!({ "reads": ["a"], "writes": ["b"], "says_reads": ["a"], "says_writes": ["b"] }), "ok"),
        (json!({ "reads": ["b"], "says_writes": ["b"] }), "ok"),
        (json!({ "reads": ["a"] }), "state.undeclared_access"),
        (json!({ "writes": ["a"], "says_reads": ["a"] }), "state.undeclared_access"),
        (json!({ "writes": ["a", "c"], "says_writes": ["a"] }), "state.undeclared_access"),
        (json!({ "reads": ["a"], "refuse": true }), "state.undeclared_access"),
        (json!({ "reads": ["a"], "fault": true }), "state.undeclared_access"),
        (json!({ "reads": ["a"], "says_reads": ["a"], "refuse": true }), "teller.no"),
    ];
    for workers in hands {
        let told = machine_of(vec![Arc::new(Teller)]);
        let mut bench = initialised(StateMachine { workers, ..told });
        let mut chain = Chain::default();
        let calls = (1..)
            .zip(&cases)
            .map(|(nonce, (args, _))| call_of("teller", nonce as u8, nonce, "do", args.clone()));
        let applied = apply(&mut bench, chain.block(calls.collect()));
        assert_eq!(codes(&applied), cases.clone().map(|(_, code)| code));
        assert_eq!(get(&mut bench, "teller/a", None).as_deref(), Some("0"));
        assert_eq!(get(&mut bench, "teller/c", None), None);
        let again = chain.block(vec![call_of("teller", 3, 3, "do", json!({}))]);
        assert_eq!(codes(&apply(&mut bench, again)), ["state.nonce_used"], "but its nonce is used");
    }
}

#[test]
fn hands_that_forget_a_job_stop_the_service() {
    let told = machine_of(vec![Arc::new(Kv)]);
    let mut bench = initialised(StateMachine { workers: Arc::new(Forgetful), ..told });
    let block = Chain::default().block(vec![put(1, 1, "a", "b")]);
    let request = Request::Apply(protocol::state::ApplyRequest { block: block.clone() });
    let context = machine::Context { now_ms: 0, entropy: [0; 32], caller: protocol::Caller::Internal };
    let fault =
        machine::Machine::decide(&bench.machine, &bench.view, &context, request).expect_err("a fault");
    assert!(fault.0.contains("left undone"), "{fault}");
    bench.machine.workers = Arc::new(InTurn);
    assert_eq!(codes(&apply(&mut bench, block)), ["ok"]);
}
