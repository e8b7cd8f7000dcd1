//! The encodings that are stored or sent, byte for byte: whoever changes one breaks every journal that
//! was written before, and every cell of another version.
//!
//! `golden.txt` holds a line a value: its name and its bytes in hex. A **new** value is added with
//! `GOLDEN_ADD=1 cargo test -p protocol --test golden`; lines that are there are never rewritten.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use protocol::beacon::{Dealing, Drawn, Elements, Opening};
use protocol::block::{Attestation, Block, BlockHeader, BlockProof};
use protocol::elected::{self, ElectedRules, Execution, KeyRead, KeyWrite, Value};
use protocol::fees::FeeRules;
use protocol::genesis::{Genesis, Member};
use protocol::gossip::{EventBytes, ForkProof, Payload, SignedEvent};
use protocol::members::{MemberSet, key_is_proven, prove_key};
use protocol::message::{Message, MessageType, Together};
use protocol::receipt::{Receipt, ReceiptHead, batch_root};
use protocol::signing::{self, Signature};
use protocol::transaction::{Intent, Lane, Transaction, TxReceipt};
use protocol::{
    Amount, BlockHash, BlockIndex, CellId, GenesisHash, Hash, MemberKey, MessageId, Problem, ProblemKind,
    StateRoot, codec,
};
use serde_json::json;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn cell() -> CellId {
    signing::cell_id(&key())
}

fn message() -> Message {
    let mut message = Message {
        timestamp_ms: 1_790_000_000_000,
        expires_ms: 1_790_000_060_000,
        sender: cell(),
        receiver: CellId::from_bytes([2; 32]),
        kind: MessageType::Query,
        sealed: false,
        in_reply_to: Some(MessageId::from_bytes([3; 32])),
        body: br#"{"tag":"news"}"#.to_vec(),
        proof: vec![MessageId::from_bytes([4; 32])],
        signature: Signature::from_bytes([0; 64]),
        nonce: 7,
        together: None,
    };
    message.signature = signing::sign(&key(), &message.signed_text());
    message
}

/// The same, signed together with another.
fn message_in_company() -> Message {
    let mut message = message();
    let (text, mut places) = Together::of(&cell(), &[MessageId::from_bytes([5; 32]), message.id()]);
    message.signature = signing::sign(&key(), &text);
    message.together = places.pop();
    message
}

fn receipt() -> Receipt {
    let ids = [message().id(), MessageId::from_bytes([5; 32]), MessageId::from_bytes([6; 32])];
    let mut head = ReceiptHead {
        receiver: cell(),
        sender: CellId::from_bytes([2; 32]),
        time_ms: 1_790_000_000_500,
        count: 3,
        root: batch_root(&ids),
        signature: Signature::from_bytes([0; 64]),
    };
    head.signature = signing::sign(&key(), &head.signed_text());
    Receipt::of(&head, &ids, 1).expect("within the batch")
}

fn transaction() -> Transaction {
    let intent = Intent {
        module: "kv".to_owned(),
        call: "put".to_owned(),
        args: json!({ "key": "colour", "value": "blue" }),
        ..Intent::default()
    };
    Transaction::sign(&key(), GenesisHash::from_bytes([7; 32]), &intent, 9)
}

/// The same, in a lane and for so much at most.
fn transaction_on_terms() -> Transaction {
    let intent = Intent {
        lane: Some(Lane::Bulk),
        max_fee: Some("0.001".parse().expect("an amount")),
        module: transaction().module,
        call: transaction().call,
        args: serde_json::from_str(&transaction().args).expect("JSON"),
        nonce: None,
    };
    Transaction::sign(&key(), GenesisHash::from_bytes([7; 32]), &intent, 9)
}

fn receipt_of(fee: Option<Amount>) -> TxReceipt {
    TxReceipt { id: transaction().id(), ok: false, error: Some(problem()), fee }
}

fn genesis(fees: Option<FeeRules>) -> Genesis {
    Genesis { fees, ..Genesis::of_equals("test", 1, &[cell(), CellId::from_bytes([2; 32])]) }
}

fn block() -> BlockProof {
    let transactions = vec![transaction()];
    let header = BlockHeader {
        genesis: GenesisHash::from_bytes([7; 32]),
        index: BlockIndex(4),
        time_ms: 1_790_000_001_000,
        previous: BlockHash::from_bytes([8; 32]),
        transactions_root: Block::transactions_root(&transactions),
        members: Hash::from_bytes([9; 32]),
        rules: 1,
        epoch: 2,
        round: 11,
        beacon: None,
    };
    let attestation = Attestation::sign(&key(), &header, StateRoot::from_bytes([10; 32]));
    BlockProof {
        block: Block { header, transactions },
        attestations: vec![attestation],
        handoffs: Vec::new(),
    }
}

fn payload() -> Payload {
    Payload {
        transactions: vec![transaction()],
        attestations: block().attestations,
        dealings: None,
        openings: None,
    }
}

fn event(time_us: u64) -> EventBytes {
    let payload = codec::encode(&payload());
    let event = SignedEvent {
        epoch: 2,
        creator: cell(),
        self_parent: Some(Hash::from_bytes([11; 32])),
        other_parents: vec![Hash::from_bytes([12; 32]), Hash::from_bytes([13; 32])],
        time_us,
        payload: Hash::of(&payload),
        signature: Signature::from_bytes([0; 64]),
    };
    EventBytes { event: event.sign(&key(), &GenesisHash::from_bytes([7; 32])), payload }
}

/// A member's first event of an epoch.
fn first_event() -> SignedEvent {
    let event =
        SignedEvent { self_parent: None, other_parents: Vec::new(), ..event(1_790_000_000_000_000).event };
    event.sign(&key(), &GenesisHash::from_bytes([7; 32]))
}

fn fork() -> ForkProof {
    let [one, other] = [1_790_000_000_000_000, 1_790_000_000_000_001].map(|time_us| event(time_us).event);
    ForkProof { one, other }
}

fn elements(bytes: &[u8]) -> Elements {
    Elements::new(bytes.iter().map(|byte| [*byte; 32]).collect()).expect("few")
}

fn dealing() -> Dealing {
    let dealing = Dealing {
        epoch: 2,
        draw: 3,
        dealer: cell(),
        shares: elements(&[4, 5, 6]),
        challenge: [7; 32],
        responses: elements(&[8, 9]),
        signature: Signature::from_bytes([0; 64]),
    };
    dealing.sign(&key(), &GenesisHash::from_bytes([6; 32]))
}

fn opening() -> Opening {
    let opening = Opening {
        epoch: 2,
        draw: 3,
        member: cell(),
        dealings: Hash::of(b"dealings"),
        shares: elements(&[4]),
        challenge: [7; 32],
        response: [8; 32],
        signature: Signature::from_bytes([0; 64]),
    };
    opening.sign(&key(), &GenesisHash::from_bytes([6; 32]))
}

fn member_with_key() -> Member {
    let key = MemberKey::from_bytes(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes());
    Member { key: Some(key), ..Member::new(cell(), 5) }
}

/// A header with a value of the beacon, and the round that fixed it.
fn header_with_value(fixed: Option<u64>) -> BlockHeader {
    let drawn = Drawn { draw: 3, value: Hash::from_bytes([14; 32]), fixed };
    BlockHeader { beacon: Some(drawn), ..block().block.header }
}

fn genesis_that_elects() -> Genesis {
    let elected = ElectedRules { serve_blocks: 64, seats_max: Some(40) };
    Genesis { beacon_rounds: Some(2), elected: Some(elected), ..genesis(None) }
}

fn execution() -> Execution {
    let key = |name: &str| format!("app/chess/{name}");
    let mut execution = Execution {
        call: transaction().id(),
        app: "chess".to_owned(),
        reads: vec![
            KeyRead { key: key("board"), version: Some(elected::version(b"e2")) },
            KeyRead { key: key("clock"), version: None },
        ],
        writes: vec![
            KeyWrite { key: key("board"), value: Some(Value(b"e4".to_vec())) },
            KeyWrite { key: key("clock"), value: None },
        ],
        words: Vec::new(),
    };
    execution.words.push(execution.sign(&self::key(), &GenesisHash::from_bytes([6; 32])));
    execution
}

fn problem() -> Problem {
    Problem::new(ProblemKind::Denied, "message.not_allowed", "no").hint("ask")
}

struct Golden {
    known: BTreeMap<String, Vec<u8>>,
    added: String,
}

impl Golden {
    fn check<T>(&mut self, name: &str, value: &T)
    where
        T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug,
    {
        let bytes = codec::encode(value);
        assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value), "{name} reads back");
        match self.known.get(name) {
            Some(golden) => assert_eq!(hex::encode(&bytes), hex::encode(golden), "{name} is encoded as ever"),
            None => writeln!(self.added, "{name} {}", hex::encode(&bytes)).expect("into a string"),
        }
    }
}

#[test]
fn encodings_are_as_they_ever_were() {
    let text = include_str!("golden.txt");
    let line = |line: &str| {
        let (name, bytes) = line.split_once(' ').expect("a name and its bytes");
        (name.to_owned(), hex::decode(bytes).expect("hex"))
    };
    let mut golden = Golden { known: text.lines().map(line).collect(), added: String::new() };
    golden.check("message", &message());
    golden.check("message-id", &message().id());
    golden.check("message-in-company", &message_in_company());
    golden.check("receipt", &receipt());
    golden.check("transaction", &transaction());
    golden.check("transaction-id", &transaction().id());
    golden.check("tx-receipt", &receipt_of(None));
    golden.check("transaction-on-terms", &transaction_on_terms());
    golden.check("transaction-on-terms-id", &transaction_on_terms().id());
    golden.check("tx-receipt-of-success", &TxReceipt { ok: true, error: None, ..receipt_of(None) });
    golden.check("tx-receipt-with-fee", &receipt_of(Some(Amount(7))));
    golden.check("genesis", &genesis(None));
    golden.check(
        "genesis-with-fees",
        &genesis(Some(FeeRules { base_min: Amount(1_000), target_units: None, share_blocks: None })),
    );
    let sharing = FeeRules { base_min: Amount(1_000), target_units: None, share_blocks: Some(64) };
    golden.check("genesis-that-shares-fees", &genesis(Some(sharing)));
    golden.check("block-proof", &block());
    golden.check("block-hash", &block().block.header.hash());
    golden.check("block-header-with-value", &header_with_value(None));
    golden.check("block-hash-with-value", &header_with_value(None).hash());
    golden.check("block-header-with-fixed-value", &header_with_value(Some(9)));
    golden.check("block-hash-with-fixed-value", &header_with_value(Some(9)).hash());
    golden.check("genesis-that-elects", &genesis_that_elects());
    golden.check("execution", &execution());
    golden.check("execution-text", &Hash::of(&execution().signed_text(&GenesisHash::from_bytes([6; 32]))));
    golden.check("problem", &problem());
    let genesis_with_key = Genesis { members: vec![member_with_key()], ..genesis(None) };
    let (genesis, event) = (GenesisHash::from_bytes([7; 32]), event(1_790_000_000_000_000));
    golden.check("attestation", &block().attestations[0]);
    golden.check("payload", &payload());
    golden.check("event", &event);
    golden.check("event-id", &event.event.id(&genesis));
    golden.check("first-event", &first_event());
    golden.check("first-event-id", &first_event().id(&genesis));
    golden.check("fork-proof", &fork());
    golden.check("dealing", &dealing());
    golden.check("dealing-id", &dealing().id(&GenesisHash::from_bytes([6; 32])));
    golden.check("opening", &opening());
    golden.check("member-with-key", &member_with_key());
    golden.check("genesis-with-key", &genesis_with_key);
    let set = MemberSet::new(vec![member_with_key(), Member::new(CellId::from_bytes([2; 32]), 3)]);
    golden.check("member-set-hash", &set.hash());
    golden.check("member-set-in-state", &minicbor::bytes::ByteVec::from(set.to_state()));
    golden.check("key-proof", &prove_key(&SigningKey::from_bytes(&[3; 32]), &genesis, &cell()));
    if golden.added.is_empty() {
        return;
    }
    assert!(std::env::var_os("GOLDEN_ADD").is_some(), "not in golden.txt yet:\n{}", golden.added);
    // Asked when it runs: a build that is kept may be of another folder.
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo test runs it");
    let path = PathBuf::from(folder).join("tests/golden.txt");
    std::fs::write(path, text.to_owned() + &golden.added).expect("written");
}

#[test]
fn signed_values_hold_on_their_network_alone() {
    let (here, elsewhere) = (GenesisHash::from_bytes([7; 32]), GenesisHash::ZERO);
    let (event, word) = (event(1_790_000_000_000_000), &block().attestations[0]);
    assert_eq!(EventBytes::read(&codec::encode(&event)), Ok(event.clone()));
    let (cell, other) = (cell(), CellId::from_bytes([2; 32]));
    for (genesis, signer, holds) in [(&here, &cell, true), (&elsewhere, &cell, false), (&here, &other, false)]
    {
        assert_eq!(event.event.signature_holds(genesis, signer), holds);
        assert_eq!(first_event().signature_holds(genesis, signer), holds);
        assert_eq!(word.signature_holds(genesis, signer), holds);
        assert_eq!(fork().check(genesis, signer).is_ok(), holds);
    }
    assert!(word.holds_for(&block().block.header, &cell));
    assert!(!word.holds_for(&block().block.header, &other));
    let (id, signed) = event.event.to_check(&here, cell);
    assert_eq!((id, signing::verify_all(&[signed])), (event.event.id(&here), vec![true]));
}

/// Whatever is changed in a header, an event or a word is another one, under a signature that no longer holds.
#[test]
fn every_field_is_covered_by_what_is_signed() {
    let genesis = GenesisHash::from_bytes([7; 32]);
    let header = block().block.header;
    let changes: [fn(&mut BlockHeader); 9] = [
        |header| header.genesis = GenesisHash::ZERO,
        |header| header.index.0 += 1,
        |header| header.time_ms += 1,
        |header| header.previous = BlockHash::ZERO,
        |header| header.transactions_root = Hash::ZERO,
        |header| header.members = Hash::ZERO,
        |header| header.rules += 1,
        |header| header.epoch += 1,
        |header| header.round += 1,
    ];
    for (place, change) in changes.iter().enumerate() {
        let mut changed = header.clone();
        change(&mut changed);
        assert_ne!(changed.hash(), header.hash(), "field {place} of a header");
    }
    let drawn = |draw, value: u8, fixed| Some(Drawn { draw, value: Hash::from_bytes([value; 32]), fixed });
    let values = [
        None,
        drawn(3, 14, None),
        drawn(4, 14, None),
        drawn(3, 15, None),
        drawn(3, 14, Some(9)),
        drawn(3, 14, Some(10)),
        drawn(4, 14, Some(9)),
    ];
    let hashes = values.map(|beacon| BlockHeader { beacon, ..header.clone() }.hash());
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len(), "each value, and the round that fixed it");
    let changes: [fn(&mut SignedEvent); 8] = [
        |event| event.epoch += 1,
        |event| event.creator = CellId::from_bytes([2; 32]),
        |event| event.self_parent = None,
        |event| event.self_parent = Some(Hash::ZERO),
        |event| event.other_parents.clear(),
        |event| event.other_parents.swap(0, 1),
        |event| event.time_us += 1,
        |event| event.payload = Hash::ZERO,
    ];
    let event = event(5).event;
    for (place, change) in changes.iter().enumerate() {
        let mut changed = event.clone();
        change(&mut changed);
        assert_ne!(changed.id(&genesis), event.id(&genesis), "change {place} of an event");
        assert!(!changed.signature_holds(&genesis, &cell()), "change {place} of an event");
    }
    let zeros = SignedEvent { self_parent: Some(Hash::ZERO), ..first_event() };
    assert_ne!(zeros.id(&genesis), first_event().id(&genesis), "no parent is not a parent of zeros");
    let changes: [fn(&mut Attestation); 4] = [
        |word| word.member = CellId::from_bytes([2; 32]),
        |word| word.index.0 += 1,
        |word| word.block = BlockHash::ZERO,
        |word| word.root = StateRoot::ZERO,
    ];
    for (place, change) in changes.iter().enumerate() {
        let mut changed = block().attestations[0].clone();
        change(&mut changed);
        assert!(!changed.signature_holds(&genesis, &cell()), "field {place} of a word");
    }
}

/// A member without a key of its own is as it ever was, and a key says whose it is for one network and one cell.
#[test]
fn a_members_key_is_named_only_where_there_is_one() {
    let plain = Member::new(cell(), 5);
    assert_eq!(codec::encode(&plain), codec::encode(&(cell(), 5u64)));
    assert_eq!(serde_json::to_value(&plain).expect("JSON"), json!({ "cell": cell(), "weight": 5 }));
    assert_eq!(plain.signer(), cell());
    let (new, here) = (SigningKey::from_bytes(&[3; 32]), GenesisHash::from_bytes([7; 32]));
    assert_eq!(member_with_key().signer(), signing::cell_id(&new));
    let set = MemberSet::new(vec![member_with_key()]);
    assert_eq!(MemberSet::from_state(&set.to_state()), Ok(set));
    let key = member_with_key().key.expect("it has one");
    let (proof, other) = (prove_key(&new, &here, &cell()), CellId::from_bytes([2; 32]));
    assert!(key_is_proven(&key, &proof, &here, &cell()));
    assert!(!key_is_proven(&key, &proof, &here, &other));
    assert!(!key_is_proven(&key, &proof, &GenesisHash::ZERO, &cell()));
    assert!(!key_is_proven(&MemberKey::from_bytes(*cell().as_bytes()), &proof, &here, &cell()));
}

/// A transaction without terms signs what it ever signed, whatever a genesis without fees is asked for.
#[test]
fn what_names_no_terms_is_as_it_ever_was() {
    let plain = transaction();
    assert!(plain.signed_text().starts_with(b"celluler/tx/1\0"));
    let genesis = genesis(None);
    let before = (&genesis.name, genesis.created_ms, &genesis.members, &genesis.allocations);
    assert_eq!(codec::encode(&genesis), codec::encode(&before));
    let json = serde_json::to_value(&genesis).expect("JSON");
    assert!(json.get("fees").is_none() && json.get("epoch_rounds").is_none());
    let json = serde_json::to_value(&plain).expect("JSON");
    assert!(json.get("lane").is_none() && json.get("max_fee").is_none());
}

/// Whatever of a transaction is changed, its terms among it, it is another one under a signature that no longer holds.
#[test]
fn a_transactions_terms_are_covered_by_what_is_signed() {
    let signed = transaction_on_terms();
    assert!(signed.signature_holds() && signed.signed_text().starts_with(b"celluler/tx/2\0"));
    let changes: [fn(&mut Transaction); 14] = [
        |tx| tx.genesis = GenesisHash::ZERO,
        |tx| tx.sender = CellId::from_bytes([2; 32]),
        |tx| tx.nonce += 1,
        |tx| tx.module.push('x'),
        |tx| tx.call.push('x'),
        |tx| tx.args.push(' '),
        |tx| tx.lane = None,
        |tx| tx.lane = Some(Lane::Priority),
        |tx| tx.lane = Some(Lane::Normal),
        |tx| tx.max_fee = None,
        |tx| tx.max_fee = Some(Amount::ZERO),
        |tx| tx.max_fee = Some(Amount(1 << 64)),
        |tx| tx.max_fee = Some(Amount(u128::MAX)),
        |tx| (tx.lane, tx.max_fee) = (None, None),
    ];
    let mut ids = vec![signed.id(), transaction().id()];
    for (place, change) in changes.iter().enumerate() {
        let mut changed = signed.clone();
        change(&mut changed);
        assert!(!changed.signature_holds(), "change {place}");
        ids.push(changed.id());
    }
    ids.sort_unstable();
    ids.dedup();
    // The last change makes the text of the one without terms.
    assert_eq!(ids.len(), changes.len() + 1);
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct Old {
    #[n(0)]
    number: u64,
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct New {
    #[n(0)]
    number: u64,
    #[n(1)]
    more: Option<String>,
}

#[test]
fn a_message_in_company_holds_in_its_place_and_nowhere_else() {
    let message = message_in_company();
    assert!(message.signature_holds());
    assert_eq!(message.id(), self::message().id(), "the id is the message's own");
    let changed = |change: &dyn Fn(&mut Message)| {
        let mut message = message.clone();
        change(&mut message);
        message.signature_holds()
    };
    let together =
        |change: fn(&mut Together)| changed(&|message| change(message.together.as_mut().expect("some")));
    assert!(!changed(&|message| message.body.push(b' ')));
    assert!(!changed(&|message| message.nonce += 1));
    assert!(!changed(&|message| message.sender = CellId::from_bytes([2; 32])));
    assert!(!changed(&|message| message.together = None));
    assert!(!together(|it| it.place = 0));
    assert!(!together(|it| it.count = 3));
    assert!(!together(|it| it.count = u64::MAX));
    assert!(!together(|it| it.path[0] = Hash::ZERO));
    assert!(!together(|it| it.path.push(Hash::ZERO)));
}

#[test]
fn a_field_that_is_added_breaks_neither_older_bytes_nor_older_builds() {
    let new = New { number: 7, more: Some("x".to_owned()) };
    assert_eq!(codec::decode::<Old>(&codec::encode(&new)), Ok(Old { number: 7 }));
    assert_eq!(codec::decode::<New>(&codec::encode(&Old { number: 7 })), Ok(New { number: 7, more: None }));
}

#[test]
fn what_is_cut_short_or_goes_on_is_refused() {
    let bytes = codec::encode(&message());
    for end in 0..bytes.len() {
        assert!(codec::decode::<Message>(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert!(codec::decode::<Message>(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn a_length_prefix_allocates_nothing_by_itself() {
    // An array, and a byte string, that say they hold 2^62 items and hold none.
    for head in [0x9b, 0x5b, 0x7b] {
        let bytes = [[head].as_slice(), &(1u64 << 62).to_be_bytes()].concat();
        assert!(codec::decode::<Vec<MessageId>>(&bytes).is_err());
        assert!(codec::decode::<String>(&bytes).is_err());
    }
}
