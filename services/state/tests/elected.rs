//! Elected execution: who serves a call is drawn after it was asked for, what a quorum says is put down once and only if what was read is
//! unchanged, and it stays with its app's keys.

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;

use consensus::ConsensusMachine;
use kit::*;
use machine::module::{Module, RuleSets};
use machine::testing::Bench;
use proptest::prelude::*;
use protocol::beacon::Drawn;
use protocol::committee::{self, Seat, quorum, seats_needed};
use protocol::consensus::{self as order_words, OrderedRound};
use protocol::elected::{
    CallRecord, ElectedRules, Execution, Fallback, KeyRead, KeyWrite, Path, Value as Bytes, version,
};
use protocol::genesis::{Genesis, Member};
use protocol::members::MemberSet;
use protocol::shared::Empty;
use protocol::state::{Applied, Request};
use protocol::transaction::{Intent, Transaction};
use protocol::{BlockIndex, Hash, TxId};
use serde_json::{Value, json};
use state::elected::{Elected, KEPT_BLOCKS, WAITING_MAX};
use state::kv::Kv;
use state::{InTurn, StateMachine, Workers};

const SERVE_BLOCKS: u64 = 8;

fn equals(count: u8) -> MemberSet {
    MemberSet::new((1..=count).map(|number| Member::new(cell(number), 1)).collect())
}

fn network(members: &MemberSet, serve_blocks: u64, seats_max: Option<u64>) -> Genesis {
    Genesis {
        members: members.all().to_vec(),
        beacon_rounds: Some(1),
        elected: Some(ElectedRules { serve_blocks, seats_max }),
        ..genesis()
    }
}

/// A chain, the states that execute it, and nonces.
struct Net {
    benches: Vec<Bench<StateMachine>>,
    chain: Chain,
    members: MemberSet,
    epoch: u64,
    round: u64,
    nonce: u64,
}

impl Net {
    fn new(members: &MemberSet, serve_blocks: u64, seats_max: Option<u64>) -> Self {
        Self::of(&network(members, serve_blocks, seats_max))
    }

    fn of(genesis: &Genesis) -> Self {
        Self {
            benches: vec![begin(genesis, Arc::new(InTurn))],
            chain: Chain::of(genesis),
            members: genesis.member_set(),
            epoch: 0,
            round: 0,
            nonce: 0,
        }
    }

    fn call(&mut self, module: &str, call: &str, args: Value) -> Transaction {
        self.nonce += 1;
        // Any sender: what is applied rests on the committee's words alone.
        call_of(module, 50 + (self.nonce % 3) as u8, self.nonce, call, args)
    }

    fn request(&mut self, app: &str) -> Transaction {
        self.call("elected", "request", json!({ "app": app, "call": "move", "args": { "to": "e4" } }))
    }

    fn bring(&mut self, execution: &Execution) -> Transaction {
        self.call("elected", "apply", serde_json::to_value(execution).expect("JSON"))
    }

    /// The next block, in a round of its own; with a value that this round has fixed, by its number, if one is given.
    fn block(&mut self, transactions: Vec<Transaction>, drawn: Option<u64>) -> Applied {
        self.round += 1;
        let value = |fixed: u64| Drawn {
            draw: self.round,
            value: Hash::of(&fixed.to_le_bytes()),
            fixed: Some(fixed),
        };
        let beacon = drawn.map(value);
        self.block_with(transactions, beacon)
    }

    fn block_with(&mut self, transactions: Vec<Transaction>, beacon: Option<Drawn>) -> Applied {
        let (epoch, round, members) = (self.epoch, self.round, self.members.hash());
        let block = self.chain.block_with(transactions, |header| {
            (header.epoch, header.round, header.members, header.beacon) = (epoch, round, members, beacon);
        });
        let applied: Vec<Applied> =
            self.benches.iter_mut().map(|bench| apply(bench, block.clone())).collect();
        assert!(applied.iter().all(|one| *one == applied[0]), "every member comes to the same");
        applied[0].clone()
    }

    /// A block of one transaction; what became of it.
    fn one(&mut self, transaction: Transaction) -> String {
        codes(&self.block(vec![transaction], None)).pop().expect("a receipt")
    }

    fn get(&mut self, key: &str) -> Option<String> {
        get(&mut self.benches[0], key, None)
    }

    fn record(&mut self, call: &TxId) -> Option<CallRecord> {
        let text = self.get(&format!("elected/call/{call}"))?;
        Some(serde_json::from_str(&text).expect("a record"))
    }

    fn path(&mut self, call: &TxId) -> Path {
        self.record(call).expect("is known").path
    }

    /// A call of an app whose committee is drawn.
    fn drawn(&mut self, app: &str) -> TxId {
        let request = self.request(app);
        let id = request.id();
        assert_eq!(self.one(request), "ok");
        let fixed = self.round + 1;
        self.block(Vec::new(), Some(fixed));
        assert!(matches!(self.path(&id), Path::Elected { .. }));
        id
    }

    fn committee(&mut self, call: &TxId) -> Vec<Seat> {
        match self.path(call) {
            Path::Elected { committee, .. } => committee,
            other => panic!("{other:?}"),
        }
    }

    /// What a call comes to, with all of its committee's words.
    fn execution(
        &mut self,
        call: &TxId,
        reads: &[(&str, Option<&str>)],
        writes: &[(&str, Option<&str>)],
    ) -> Execution {
        let app = self.record(call).expect("is known").app;
        let key = |key: &str| format!("app/{app}/{key}");
        let read = |(name, value): &(&str, Option<&str>)| KeyRead {
            key: key(name),
            version: value.map(|value| version(value.as_bytes())),
        };
        let write = |(name, value): &(&str, Option<&str>)| KeyWrite {
            key: key(name),
            value: value.map(|value| Bytes(value.as_bytes().to_vec())),
        };
        let mut execution = Execution {
            call: *call,
            reads: reads.iter().map(read).collect(),
            writes: writes.iter().map(write).collect(),
            app: app.clone(),
            words: Vec::new(),
        };
        self.sign(&mut execution);
        execution
    }

    /// Makes the words those of the whole committee.
    fn sign(&mut self, execution: &mut Execution) {
        let committee = self.committee(&execution.call);
        let genesis = self.benches[0].machine.genesis.hash();
        let number = |seat: &Seat| (1..=60).find(|number| cell(*number) == seat.member).expect("a member");
        execution.words = committee.iter().map(|seat| execution.sign(&key(number(seat)), &genesis)).collect();
    }
}

fn begin(genesis: &Genesis, workers: Arc<dyn Workers>) -> Bench<StateMachine> {
    let modules: [Arc<dyn Module>; 3] = [Arc::new(Kv), Arc::new(Elected), Arc::new(Chosen)];
    let machine =
        StateMachine { workers, ..StateMachine::new(Arc::new(genesis.clone()), RuleSets::first(modules)) };
    let mut bench = Bench::new(machine);
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    bench
}

#[test]
fn a_call_is_asked_for_drawn_and_applied_once() {
    let members = equals(16);
    let mut net = Net::new(&members, SERVE_BLOCKS, None);
    let request = net.request("chess");
    let call = request.id();
    assert_eq!(net.one(request.clone()), "ok");
    let record = CallRecord {
        app: "chess".into(),
        asked: BlockIndex(0),
        call: "move".into(),
        sender: request.sender,
        path: Path::Waits,
    };
    assert_eq!(net.record(&call), Some(record.clone()));
    net.block(Vec::new(), Some(2));
    let Path::Elected { epoch, drawn, members: among, committee } = net.path(&call) else {
        panic!("not drawn")
    };
    assert_eq!((epoch, drawn.fixed, among), (0, Some(2), members.hash()));
    let seats = seats_needed(&members, 128).expect("enough");
    assert_eq!(seats, 8);
    assert_eq!(committee, committee::draw(&drawn.value, &call, &members, seats), "anybody can draw it again");
    let execution =
        net.execution(&call, &[("board", None)], &[("board", Some("e4")), ("turn", Some("black"))]);
    let bring = [net.bring(&execution), net.bring(&execution)];
    assert_eq!(codes(&net.block(bring.to_vec(), None)), ["ok", "elected.applied"]);
    assert_eq!(net.get("app/chess/board").as_deref(), Some("e4"));
    assert_eq!(net.get("app/chess/turn").as_deref(), Some("black"));
    assert_eq!(net.path(&call), Path::Applied { block: BlockIndex(2) });
    let again = net.bring(&execution);
    assert_eq!(net.one(again), "elected.applied");
    let call = net.drawn("chess");
    let execution = net.execution(&call, &[("board", Some("e4"))], &[("board", None)]);
    let bring = net.bring(&execution);
    assert_eq!(net.one(bring), "ok");
    assert_eq!(net.get("app/chess/board"), None);
    let (replayed, before) = net.benches[0].replay();
    assert_eq!(replayed, before);
}

/// A value draws those calls alone that were asked for in a round before the one that fixed it.
#[test]
fn nobody_who_asks_knows_the_value() {
    let mut net = Net::new(&equals(4), SERVE_BLOCKS, None);
    let request = net.request("chess");
    let call = request.id();
    (net.round, net.epoch) = (10, 3);
    let value = |draw: u64, fixed: Option<u64>| Drawn { draw, value: Hash::of(&draw.to_le_bytes()), fixed };
    net.block_with(vec![request], Some(value(1, Some(9))));
    for (round, drawn, why) in [
        (10, value(2, Some(10)), "another block of the same round, fixed by that round"),
        (11, value(3, Some(9)), "opened later, and fixed before"),
        (12, value(4, Some(10)), "fixed by the round itself"),
        (13, value(5, None), "nobody says what fixed it"),
    ] {
        net.round = round;
        net.block_with(Vec::new(), Some(drawn));
        assert_eq!(net.path(&call), Path::Waits, "{why}");
    }
    net.block_with(Vec::new(), Some(value(6, Some(11))));
    assert!(matches!(net.path(&call), Path::Elected { drawn, .. } if drawn.draw == 6));
    // A later value changes nothing.
    let before = net.path(&call);
    net.block_with(Vec::new(), Some(value(7, Some(14))));
    assert_eq!(net.path(&call), before);
    // All that an epoch draws is fixed after all epochs before it.
    let request = net.request("chess");
    let call = request.id();
    net.block_with(vec![request], None);
    (net.round, net.epoch) = (2, 4);
    net.block_with(Vec::new(), Some(value(1, Some(1))));
    assert!(matches!(net.path(&call), Path::Elected { epoch: 4, .. }));
}

#[test]
fn what_is_not_as_it_was_read_is_refused() {
    let mut net = Net::new(&equals(4), 1_000, None);
    let set = |net: &mut Net, value: Option<&str>| {
        let call = net.drawn("chess");
        let execution = net.execution(&call, &[], &[("board", value)]);
        let bring = net.bring(&execution);
        assert_eq!(net.one(bring), "ok");
    };
    let call = net.drawn("chess");
    let tries = |net: &mut Net, read: Option<&str>| {
        let execution = net.execution(&call, &[("board", read), ("other", None)], &[("x", Some("y"))]);
        let bring = net.bring(&execution);
        net.one(bring)
    };
    assert_eq!(tries(&mut net, Some("e4")), "elected.stale_read", "it is not there");
    set(&mut net, Some("e4"));
    assert_eq!(tries(&mut net, None), "elected.stale_read", "it is there");
    assert_eq!(tries(&mut net, Some("e5")), "elected.stale_read", "it is another");
    assert_eq!(net.get("app/chess/x"), None);
    set(&mut net, Some("d4"));
    assert_eq!(tries(&mut net, Some("e4")), "elected.stale_read", "it has changed");
    // What a call comes to is a function of what it read: that it was otherwise meanwhile makes no difference.
    set(&mut net, Some("e4"));
    assert_eq!(tries(&mut net, Some("e4")), "ok");
    assert_eq!(net.get("app/chess/x").as_deref(), Some("y"));
}

#[test]
fn of_two_that_read_what_both_write_the_first_is_applied() {
    let mut net = Net::new(&equals(4), SERVE_BLOCKS, None);
    let genesis = (*net.benches[0].machine.genesis).clone();
    net.benches.push(begin(&genesis, Arc::new(Threads)));
    let calls = [net.drawn("chess"), net.drawn("chess"), net.drawn("go")];
    let bring = calls.map(|call| {
        let execution = net.execution(&call, &[("board", None)], &[("board", Some("e4"))]);
        net.bring(&execution)
    });
    assert_eq!(codes(&net.block(bring.to_vec(), None)), ["ok", "elected.stale_read", "ok"]);
}

/// What becomes of an execution that something is changed about.
fn changed(net: &mut Net, change: impl FnOnce(&mut Net, &mut Execution)) -> String {
    let call = net.drawn("chess");
    let mut execution = net.execution(&call, &[], &[("board", Some("e4"))]);
    change(net, &mut execution);
    let bring = net.bring(&execution);
    let code = net.one(bring);
    assert_eq!(net.get("app/chess/board"), None);
    code
}

#[test]
fn less_than_a_quorum_of_words_that_hold_puts_nothing_down() {
    let mut net = Net::new(&equals(16), SERVE_BLOCKS, None);
    let few = quorum(8) as usize - 1;
    assert_eq!(changed(&mut net, |_, it| it.words.truncate(few)), "elected.no_quorum");
    assert_eq!(changed(&mut net, |_, it| it.words.clear()), "elected.no_quorum");
    assert_eq!(
        changed(&mut net, |_, it| {
            it.words.truncate(few);
            it.words.push(it.words[0]);
        }),
        "elected.bad_word",
        "one word twice"
    );
    let outsider = |net: &mut Net, it: &mut Execution| {
        let committee = net.committee(&it.call);
        let genesis = net.benches[0].machine.genesis.hash();
        let is_out = |number: &u8| committee.iter().all(|seat| seat.member != cell(*number));
        it.words.truncate(few);
        it.words.push(it.sign(&key((1..=16).find(is_out).expect("half are out")), &genesis));
    };
    assert_eq!(changed(&mut net, outsider), "elected.bad_word", "a member who has no seat");
    let of_others = |net: &mut Net, it: &mut Execution| {
        let mut other = it.clone();
        other.writes[0].value = None;
        net.sign(&mut other);
        it.words[few] = other.words[few];
    };
    assert_eq!(changed(&mut net, of_others), "elected.bad_word", "a word for other writes");
    let elsewhere = |net: &mut Net, it: &mut Execution| {
        let call = net.drawn("chess");
        let other = net.execution(&call, &[], &[("board", Some("e4"))]);
        it.words = other.words;
    };
    assert_eq!(changed(&mut net, elsewhere), "elected.bad_word", "words of another call's committee");
    let mut enough = |words: usize| {
        let call = net.drawn("chess");
        let mut execution = net.execution(&call, &[], &[("board", Some("e4"))]);
        execution.words.truncate(words);
        let bring = net.bring(&execution);
        net.one(bring)
    };
    assert_eq!(enough(few + 1), "ok", "a quorum will do");
}

#[test]
fn seats_count_and_not_heads() {
    let weights = [(1, 60), (2, 1), (3, 1), (4, 1)];
    let member = |(number, weight): (u8, u64)| Member::new(cell(number), weight);
    let members = MemberSet::new(weights.map(member).to_vec());
    let mut net = Net::new(&members, SERVE_BLOCKS, None);
    let call = net.drawn("chess");
    let committee = net.committee(&call);
    let heavy = committee.iter().find(|seat| seat.member == cell(1)).expect("it has most of them");
    let seats = seats_needed(&members, 128).expect("enough");
    assert_eq!(committee.iter().map(|seat| seat.seats).sum::<u64>(), seats);
    assert!(heavy.seats >= seats - 3 && heavy.seats >= quorum(seats), "{heavy:?}");
    let mut execution = net.execution(&call, &[], &[("board", Some("e4"))]);
    execution.words.retain(|word| word.member == cell(1));
    let bring = net.bring(&execution);
    assert_eq!(net.one(bring), "ok");
}

#[test]
fn an_execution_touches_its_apps_keys_alone() {
    let mut net = Net::new(&equals(4), SERVE_BLOCKS, None);
    for other in ["app/go/board", "kv/board", "elected/rules", "nonce/x", "app/chess"] {
        let resigned = |net: &mut Net, it: &mut Execution| {
            it.writes[0].key = other.to_owned();
            net.sign(it);
        };
        assert_eq!(changed(&mut net, resigned), "elected.not_its_keys", "writes {other}");
        let resigned = |net: &mut Net, it: &mut Execution| {
            it.reads = vec![KeyRead { key: other.to_owned(), version: None }];
            net.sign(it);
        };
        assert_eq!(changed(&mut net, resigned), "elected.not_its_keys", "reads {other}");
        assert_eq!(net.get(other).is_some(), other == "elected/rules");
    }
    // Words of the call's own committee do not help: the call is another app's.
    let of_go = |net: &mut Net, it: &mut Execution| {
        it.app = "go".to_owned();
        it.writes[0].key = "app/go/board".to_owned();
        net.sign(it);
    };
    assert_eq!(changed(&mut net, of_go), "elected.not_its_keys");
    assert_eq!(net.get("app/go/board"), None);
    // Nobody else comes near them.
    let elsewhere = net.call("kv", "put", json!({ "key": "app/chess/board", "value": "mine" }));
    assert_eq!(net.one(elsewhere), "ok");
    assert_eq!((net.get("app/chess/board"), net.get("kv/app/chess/board").as_deref()), (None, Some("mine")));
}

#[test]
fn a_call_that_is_not_ready_or_not_there_is_refused() {
    let mut net = Net::new(&equals(4), SERVE_BLOCKS, None);
    let unknown = |_: &mut Net, it: &mut Execution| it.call = TxId::from_bytes([9; 32]);
    assert_eq!(changed(&mut net, unknown), "elected.no_such_call");
    let waits = |net: &mut Net, it: &mut Execution| {
        let request = net.request("chess");
        it.call = request.id();
        assert_eq!(net.one(request), "ok");
    };
    assert_eq!(changed(&mut net, waits), "elected.not_drawn");
    let cases = [
        ("request", json!({ "app": "Chess", "call": "move", "args": {} }), "elected.bad_app"),
        ("request", json!({ "app": "chess", "call": "", "args": {} }), "elected.bad_args"),
        ("request", json!({ "app": "chess", "call": "x".repeat(65), "args": {} }), "elected.bad_args"),
        ("request", json!({ "app": "chess", "call": "move" }), "elected.bad_args"),
        ("apply", json!({}), "elected.bad_args"),
        ("elect", json!({}), "elected.unknown_call"),
    ];
    for (call, args, code) in cases {
        assert_eq!(Elected.check(call, &args).expect_err(code).code, code);
        let transaction = net.call("elected", call, args);
        assert_eq!(net.one(transaction), code);
    }
}

#[test]
fn a_call_that_is_late_is_executed_by_order_and_one_in_time_is_applied() {
    for blocks in [SERVE_BLOCKS - 2, SERVE_BLOCKS - 1] {
        let mut net = Net::new(&equals(4), SERVE_BLOCKS, None);
        let (call, waits) = (net.drawn("chess"), net.request("chess"));
        let execution = net.execution(&call, &[], &[("board", Some("e4"))]);
        let never_drawn = waits.id();
        net.block(vec![waits], None);
        // The call was asked for in block 0, two blocks followed.
        for _ in 2..blocks {
            net.block(Vec::new(), None);
        }
        let bring = net.bring(&execution);
        net.block(Vec::new(), None);
        let (code, late) = (net.one(bring), Path::Ordered { why: Fallback::Late });
        if blocks < SERVE_BLOCKS - 1 {
            assert_eq!(
                (code.as_str(), net.path(&call)),
                ("ok", Path::Applied { block: BlockIndex(SERVE_BLOCKS) })
            );
        } else {
            assert_eq!((code.as_str(), net.path(&call)), ("elected.late", late.clone()));
        }
        for _ in 0..3 {
            net.block(Vec::new(), None);
        }
        assert_eq!(net.path(&never_drawn), late);
        assert_eq!(net.get("elected/waits"), None, "nothing waits for good");
        let fixed = net.round + 1;
        net.block(Vec::new(), Some(fixed));
        assert_eq!(net.path(&never_drawn), late, "and none is drawn after that");
        let anew = net.drawn("chess");
        let execution = net.execution(&anew, &[], &[("other", Some("e4"))]);
        let bring = net.bring(&execution);
        assert_eq!(net.one(bring), "ok", "it may be asked for anew");
    }
}

#[test]
fn where_no_committee_is_safe_enough_calls_are_executed_by_order() {
    for (seats_max, ordered) in [(7, true), (8, false)] {
        let mut net = Net::new(&equals(16), SERVE_BLOCKS, Some(seats_max));
        let request = net.request("chess");
        let call = request.id();
        assert_eq!(net.one(request), "ok");
        net.block(Vec::new(), Some(2));
        let is_ordered = net.path(&call) == Path::Ordered { why: Fallback::CommitteeTooSmall };
        assert_eq!(is_ordered, ordered, "{seats_max} seats");
        if ordered {
            let execution = Execution {
                call,
                app: "chess".into(),
                reads: Vec::new(),
                writes: Vec::new(),
                words: Vec::new(),
            };
            let bring = net.bring(&execution);
            assert_eq!(net.one(bring), "elected.committee_too_small");
        }
    }
}

#[test]
fn a_committee_serves_with_the_members_it_was_drawn_among() {
    let (old, new) = (equals(4), equals(16));
    let mut net = Net::new(&old, SERVE_BLOCKS, None);
    let (call, waits) = (net.drawn("chess"), net.request("chess"));
    let execution = net.execution(&call, &[], &[("board", Some("e4"))]);
    let waiting = waits.id();
    let choose = net.call("members", "choose", serde_json::to_value(&new).expect("JSON"));
    assert_eq!(codes(&net.block(vec![waits, choose], None)), ["ok", "ok"]);
    (net.members, net.epoch, net.round) = (new.clone(), 1, 0);
    let bring = net.bring(&execution);
    assert_eq!(net.one(bring), "elected.members_changed");
    // One that waited is drawn among those who are there.
    net.block(Vec::new(), Some(1));
    let Path::Elected { members, committee, .. } = net.path(&waiting) else { panic!("not drawn") };
    assert_eq!((members, committee.iter().map(|seat| seat.seats).sum::<u64>()), (new.hash(), 8));
    let execution = net.execution(&waiting, &[], &[("board", Some("e4"))]);
    let bring = net.bring(&execution);
    assert_eq!(net.one(bring), "ok");
}

#[test]
fn calls_are_forgotten_and_leave_nothing() {
    let mut net = Net::new(&equals(4), 2, None);
    let before = list(&mut net.benches[0], None);
    let served = net.drawn("chess");
    let execution = net.execution(&served, &[], &[]);
    let (bring, unserved) = (net.bring(&execution), net.request("chess"));
    let calls = [served, unserved.id()];
    assert_eq!(codes(&net.block(vec![bring.clone(), unserved], None)), ["ok", "ok"]);
    for _ in 0..KEPT_BLOCKS {
        net.block(Vec::new(), None);
    }
    assert_eq!(net.path(&calls[0]), Path::Applied { block: BlockIndex(2) });
    net.block(Vec::new(), None);
    assert_eq!(net.record(&calls[0]), None);
    assert!(net.record(&calls[1]).is_some());
    net.block(Vec::new(), None);
    net.block(Vec::new(), None);
    assert_eq!(net.record(&calls[1]), None);
    let mut after = list(&mut net.benches[0], None);
    after.retain(|(key, _)| !key.starts_with("nonce/") && key != "elected/size");
    assert_eq!(after, before);
    let again = net.bring(&execution);
    assert_eq!(net.one(again), "elected.no_such_call", "what was applied is not applied again");
}

#[test]
fn so_many_calls_wait_and_no_more() {
    let mut net = Net::new(&equals(4), 100, None);
    for _ in 0..2 {
        let requests: Vec<_> = (0..WAITING_MAX / 2).map(|_| net.request("chess")).collect();
        assert!(codes(&net.block(requests, None)).iter().all(|code| code == "ok"));
    }
    let one_more = net.request("chess");
    assert_eq!(net.one(one_more), "elected.busy");
    let fixed = net.round + 1;
    net.block(Vec::new(), Some(fixed));
    let one_more = net.request("chess");
    assert_eq!(net.one(one_more), "ok", "those that were drawn wait no more");
}

#[test]
fn a_network_that_does_not_elect_refuses_calls_and_is_as_it_ever_was() {
    let genesis = Genesis { elected: None, ..network(&equals(4), 1, None) };
    let mut net = Net::of(&genesis);
    assert_eq!(net.get("elected/rules"), None);
    let request = net.request("chess");
    let id = request.id();
    assert_eq!(codes(&net.block(vec![request], Some(1))), ["elected.off"]);
    assert_eq!(net.record(&id), None);
    let keys: Vec<_> = list(&mut net.benches[0], None).into_iter().map(|(key, _)| key).collect();
    assert!(keys.iter().all(|key| key.starts_with("nonce/") || key == "members/set"), "{keys:?}");
}

/// From the order to the state: what decided rounds have drawn, the blocks that tell it, and the committee.
#[test]
fn what_the_order_draws_is_what_the_state_elects_by() {
    let genesis = network(&equals(4), SERVE_BLOCKS, None);
    let mut state = begin(&genesis, Arc::new(InTurn));
    let rules = state.machine.rules.clone();
    let mut order = Bench::new(ConsensusMachine { genesis: Arc::new(genesis.clone()), rules });
    let sign = |nonce: u64| {
        let args = json!({ "app": "chess", "call": "move", "args": {} });
        let intent = Intent { module: "elected".into(), call: "request".into(), args, ..Intent::default() };
        Transaction::sign(&key(50), genesis.hash(), &intent, nonce)
    };
    let round = |round: u64, transactions: Vec<Transaction>, drawn: Option<(u64, u64)>| OrderedRound {
        round,
        time_us: round,
        transactions,
        drawn: drawn.map(|(draw, fixed)| Drawn {
            draw,
            value: Hash::of(&draw.to_le_bytes()),
            fixed: Some(fixed),
        }),
    };
    let rounds = vec![
        round(1, vec![sign(1)], None),
        round(2, Vec::new(), Some((1, 1))),
        round(3, vec![sign(2)], None),
        round(4, Vec::new(), Some((2, 2))),
        round(5, vec![sign(3)], None),
    ];
    let asked = order_words::Request::Order(order_words::OrderRequest { epoch: 0, rounds });
    order.ask(asked).expect("orders");
    let mut drawn = Vec::new();
    for index in (0..3).map(BlockIndex) {
        let block = match order.ask(order_words::Request::GetBlock(order_words::BlockRef { index })) {
            Ok(order_words::Answer::GetBlock(answer)) => answer.proof.block,
            other => panic!("{other:?}"),
        };
        assert_eq!(codes(&apply(&mut state, block)), ["ok"]);
        let text = get(&mut state, &format!("elected/call/{}", sign(1).id()), None).expect("a call");
        drawn.push(match serde_json::from_str::<CallRecord>(&text).expect("a record").path {
            Path::Waits => None,
            Path::Elected { drawn, .. } => Some((drawn.draw, drawn.fixed)),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(
        drawn,
        [None, None, Some((2, Some(2)))],
        "the first value that a round after the call's has fixed"
    );
}

/// When a value was written is known to those alone who were there; a version is known to all.
#[test]
fn who_comes_by_a_checkpoint_comes_to_the_same() {
    let mut net = Net::new(&equals(4), SERVE_BLOCKS, None);
    let calls = [net.drawn("chess"), net.drawn("chess"), net.drawn("chess")];
    let first = net.execution(&calls[0], &[], &[("board", Some("e4"))]);
    let bring = net.bring(&first);
    assert_eq!(net.one(bring), "ok");
    let genesis = (*net.benches[0].machine.genesis).clone();
    let mut joiner = begin(&genesis, Arc::new(InTurn));
    reset(&mut joiner, &mut net.benches[0], None, None);
    net.benches.push(joiner);
    let fresh = net.execution(&calls[1], &[("board", Some("e4"))], &[("board", Some("e5"))]);
    let stale = net.execution(&calls[2], &[("board", Some("e4"))], &[("board", Some("d4"))]);
    let bring = [net.bring(&fresh), net.bring(&stale)];
    assert_eq!(codes(&net.block(bring.to_vec(), None)), ["ok", "elected.stale_read"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is brought when: each call is applied once at most, exactly if it read what is there; nothing but what was applied changes an
    /// app's keys; and whoever carries it out, in groups or one after the other, comes to the same.
    #[test]
    fn what_is_applied_is_what_one_after_the_other_would_come_to(
        blocks in prop::collection::vec(prop::collection::vec((0usize..6, 0u8..3, 0u8..3, prop::option::of(0u8..3), prop::option::of(0u8..3)), 0..8), 1..5),
        hands_over in any::<bool>(),
    ) {
        let mut net = Net::new(&equals(4), 1_000, None);
        let genesis = (*net.benches[0].machine.genesis).clone();
        net.benches.push(begin(&genesis, Arc::new(Threads)));
        let requests: Vec<_> = (0..6).map(|number| net.request(["chess", "go"][number % 2])).collect();
        let calls: Vec<TxId> = requests.iter().map(Transaction::id).collect();
        net.block(requests, None);
        net.block(Vec::new(), Some(2));
        let mut unserved: Vec<Option<Vec<Seat>>> = calls.iter().map(|call| Some(net.committee(call))).collect();
        let mut model = BTreeMap::<String, u8>::new();
        let numbers: Vec<u8> = (1..=4).collect();
        for steps in blocks {
            let (mut transactions, mut expected) = (Vec::new(), Vec::new());
            for (call, read, write, seen, value) in steps {
                let app = ["chess", "go"][call % 2];
                let (read, write) = (format!("app/{app}/{read}"), format!("app/{app}/{write}"));
                let mut execution = Execution {
                    call: calls[call],
                    app: app.to_owned(),
                    reads: vec![KeyRead { key: read.clone(), version: seen.map(|seen| version(&[seen])) }],
                    writes: vec![KeyWrite { key: write.clone(), value: value.map(|value| Bytes(vec![value])) }],
                    words: Vec::new(),
                };
                let number = |seat: &Seat| *numbers.iter().find(|number| cell(**number) == seat.member).expect("a member");
                let committee = unserved[call].clone().unwrap_or_default();
                execution.words = committee.iter().map(|seat| execution.sign(&key(number(seat)), &genesis.hash())).collect();
                transactions.push(net.bring(&execution));
                if unserved[call].is_none() {
                    expected.push("elected.applied");
                } else if model.get(&read).copied() != seen {
                    expected.push("elected.stale_read");
                } else {
                    expected.push("ok");
                    unserved[call] = None;
                    match value {
                        Some(value) => model.insert(write, value),
                        None => model.remove(&write),
                    };
                }
            }
            if hands_over {
                transactions.push(net.request("chess"));
                expected.push("ok");
            }
            prop_assert_eq!(codes(&net.block(transactions, None)), expected);
            let kept: BTreeMap<_, _> = list(&mut net.benches[0], None)
                .into_iter()
                .filter(|(key, _)| key.starts_with("app/"))
                .map(|(key, value)| (key, value.expect("a value").into_bytes()))
                .collect();
            let model: BTreeMap<_, _> = model.iter().map(|(key, value)| (key.clone(), vec![*value])).collect();
            prop_assert_eq!(kept, model);
        }
        let [one, other] = &net.benches[..] else { panic!("two") };
        prop_assert_eq!(&one.journal, &other.journal);
        let (replayed, before) = net.benches[0].replay();
        prop_assert_eq!(replayed, before);
    }
}
