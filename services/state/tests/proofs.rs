//! Proofs: what they show holds, and a changed one shows nothing.

mod kit;

use kit::*;
use machine::testing::Bench;
use proptest::prelude::*;
use protocol::block::{Block, BlockHeader, BlockProof};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{KeyProof, Request, StateProof};
use protocol::{BlockIndex, StateRoot};
use state::{StateMachine, verify_key_proof, verify_key_proof_under, verify_state_proof};

/// Twenty keys in block 0, one of them changed in block 1; with the attested blocks.
fn proven() -> (Bench<StateMachine>, [BlockProof; 2]) {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let puts = (0..20).map(|number| put(1, number + 1, &format!("key{number}"), "value")).collect();
    let blocks = [chain.block(puts), chain.block(vec![put(1, 21, "key7", "other")])];
    let blocks = blocks.map(|block| {
        let root = apply(&mut bench, block.clone()).root;
        attested(&block, root)
    });
    (bench, blocks)
}

#[test]
fn values_and_their_absence_are_proven_now_and_as_of_a_block() {
    let (mut bench, _) = proven();
    let cases = [
        ("kv/key7", None, Some("other")),
        ("kv/key7", Some(0), Some("value")),
        ("kv/key8", Some(1), Some("value")),
        ("kv/none", None, None),
        ("nonce/none", Some(0), None),
    ];
    for (key, at, value) in cases {
        let proof = prove(&mut bench, key, at);
        let shown = proof.value.as_ref().map(|value| hex::decode(value).expect("hex"));
        assert_eq!(shown.as_deref(), value.map(str::as_bytes));
        assert_eq!(proof.root, root(&mut bench, at));
        verify_key_proof_under(&proof, &proof.root).expect("holds");
        let problem = verify_key_proof_under(&proof, &StateRoot::ZERO).expect_err("not the trusted root");
        assert_eq!(problem.code, "state.bad_proof");
    }
}

#[test]
fn a_proof_is_checked_with_nothing_but_the_genesis() {
    let (mut bench, [first, second]) = proven();
    let old = prove(&mut bench, "kv/key7", Some(0));
    let proof = |proof: &KeyProof, block: Option<&BlockProof>| StateProof {
        proof: proof.clone(),
        block: block.cloned(),
    };
    assert_eq!(verify_state_proof(&proof(&old, Some(&first)), &machine()), Ok(old.root));
    let new = prove(&mut bench, "kv/key7", None);
    assert_eq!(verify_state_proof(&proof(&new, Some(&second)), &machine()), Ok(new.root));
    let relabelled = KeyProof { index: Some(BlockIndex(1)), ..old.clone() };
    let unlabelled = KeyProof { index: None, ..old.clone() };
    let unattested = BlockProof { attestations: Vec::new(), ..first.clone() };
    let by_a_stranger = attested(&first.block, StateRoot::ZERO);
    for (wrong, code) in [
        (proof(&old, Some(&second)), "state.bad_proof"),
        (proof(&relabelled, Some(&second)), "state.bad_proof"),
        (proof(&relabelled, Some(&first)), "state.bad_proof"),
        (proof(&unlabelled, Some(&first)), "state.bad_proof"),
        (proof(&unlabelled, None), "state.bad_proof"),
        (proof(&old, None), "state.bad_proof"),
        (proof(&old, Some(&by_a_stranger)), "state.bad_proof"),
        (proof(&old, Some(&unattested)), "block.not_proven"),
    ] {
        assert_eq!(verify_state_proof(&wrong, &machine()).expect_err("does not hold").code, code);
    }
    let elsewhere = StateMachine { genesis: Genesis { created_ms: 2, ..genesis() }.into(), ..machine() };
    let problem = verify_state_proof(&proof(&old, Some(&first)), &elsewhere).expect_err("another network");
    assert_eq!(problem.code, "block.not_proven");
    let nobody = StateMachine { genesis: Genesis { members: Vec::new(), ..genesis() }.into(), ..machine() };
    let problem = verify_state_proof(&proof(&old, Some(&first)), &nobody).expect_err("no genesis");
    assert_eq!(problem.code, "genesis.invalid");
}

#[test]
fn a_network_of_four_proves_with_three_words_for_one_block_and_one_root() {
    let genesis = Genesis::of_equals("test", 1, &[1, 2, 3, 4].map(cell));
    let machine = StateMachine { genesis: genesis.clone().into(), ..machine() };
    let mut bench = Bench::new(machine.clone());
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    let header = |template: BlockHeader, time_ms| BlockHeader {
        genesis: genesis.hash(),
        members: genesis.members_hash(),
        time_ms,
        ..template
    };
    let [block, other] = [5, 6].map(|time_ms| {
        let block = Chain::default().block(Vec::new());
        Block { header: header(block.header, time_ms), ..block }
    });
    let root = apply(&mut bench, block.clone()).root;
    let proof = prove(&mut bench, "kv/none", Some(0));
    let check = |attestations| {
        let block = BlockProof { block: block.clone(), attestations, handoffs: Vec::new() };
        let checked = verify_state_proof(&StateProof { proof: proof.clone(), block: Some(block) }, &machine);
        checked.map_err(|problem| problem.code.into_owned())
    };
    let words = |members: &[u8], block: &Block, root| attested_by(members, block, root).attestations;
    let refused = Err("block.not_proven".to_owned());
    assert_eq!(check(words(&[1, 2, 4], &block, root)), Ok(root));
    assert_eq!(check(words(&[1, 2], &block, root)), refused);
    assert_eq!(check(words(&[1, 2, 2], &block, root)), refused, "a member counts once");
    assert_eq!(check(words(&[1, 2, 9], &block, root)), refused, "a stranger does not");
    assert_eq!(check(words(&[1, 2, 4], &other, root)), refused, "words for another block");
    let mixed = [words(&[1, 2], &block, root), words(&[4], &block, StateRoot::ZERO)].concat();
    assert_eq!(check(mixed), refused, "words for two roots");
    let lie = words(&[1, 2, 4], &block, StateRoot::ZERO);
    assert_eq!(check(lie), Err("state.bad_proof".to_owned()), "proven, and not what the key stands under");
}

#[test]
fn the_genesis_state_is_proven_by_executing_the_genesis() {
    let mut bench = bench();
    let proof = StateProof { proof: prove(&mut bench, "kv/a", None), block: None };
    assert_eq!(verify_state_proof(&proof, &machine()), Ok(root(&mut bench, None)));
}

#[test]
fn what_is_no_proof_at_all_is_refused() {
    let (mut bench, _) = proven();
    let good = prove(&mut bench, "kv/key7", None);
    let paths = [
        String::new(),
        "zz".to_owned(),
        "ff".repeat(50),
        format!("{}00", good.path),
        good.path.to_uppercase(),
        "ff".repeat(1 << 20),
        // A list that claims 2³² − 1 siblings.
        format!("00{}", "ff".repeat(4)),
    ];
    for path in paths {
        let problem = verify_key_proof(&KeyProof { path, ..good.clone() }).expect_err("no proof");
        assert_eq!(problem.code, "state.bad_proof");
    }
}

fn other_char(text: &str, place: prop::sample::Index, by: char) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let place = place.index(chars.len());
    chars[place] = if chars[place] == by { '#' } else { by };
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_proof_changed_anywhere_fails(
        there in any::<bool>(), field in 0u8..4, place in any::<prop::sample::Index>(), by in "[0-9a-fA-Fxk]", xor in 1u8..,
    ) {
        let (mut bench, _) = proven();
        let good = prove(&mut bench, if there { "kv/key7" } else { "kv/none" }, None);
        verify_key_proof(&good).expect("holds");
        let by = by.chars().next().expect("one");
        let mut changed = good.clone();
        match (field, &good.value) {
            (0, _) => changed.path = other_char(&good.path, place, by),
            (1, _) => {
                let mut root = *good.root.as_bytes();
                root[place.index(32)] ^= xor;
                changed.root = StateRoot::from_bytes(root);
            }
            (2, Some(value)) if xor % 2 == 0 => changed.value = Some(other_char(value, place, by)),
            (2, Some(_)) => changed.value = None,
            (2, None) => changed.value = Some(hex::encode([xor])),
            (_, Some(_)) => changed.key = other_char(&good.key, place, by),
            // A path that shows one key's absence may show another's as well: that is no lie, as long
            // as it cannot hide a key that is there.
            (_, None) => changed.key = format!("kv/key{}", xor % 20),
        }
        let problem = verify_key_proof(&changed);
        prop_assert_eq!(problem.expect_err("changed").code, "state.bad_proof");
    }
}
