//! Checkpoints: a state that is fetched in proven chunks is the one it was fetched from, whatever was
//! there before; and nothing else can be slipped in.

mod kit;

use kit::*;
use machine::testing::Bench;
use machine::{At, Entry, Machine, MemoryStore, Overlay, View};
use proptest::prelude::*;
use protocol::shared::Empty;
use protocol::state::{
    Answer, ApplyRequest, Around, Checkpoint, CheckpointRequest, Chunk, ChunkRequest, GetRequest,
    HistoryRequest, ListKeys, Pair, PruneRequest, Request, RootRequest,
};
use protocol::{BlockIndex, Hash, StateRoot, codec};
use sha2::{Digest, Sha256};
use state::{Record, StateMachine, verify_chunk};

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (1u8..4, 0u8..24, proptest::option::weighted(0.7, any::<u8>()));
    prop::collection::vec(prop::collection::vec(step, 0..12), 1..7)
}

/// A state after these blocks, and their chain.
fn after(blocks: &[Vec<Step>]) -> (Bench<StateMachine>, Chain) {
    let (mut bench, mut chain) = (bench(), Chain::default());
    for transactions in transactions(blocks) {
        let block = chain.block(transactions);
        apply(&mut bench, block);
    }
    (bench, chain)
}

/// Thirty keys in two blocks, and a third block that changes some of them.
fn thirty() -> (Bench<StateMachine>, Chain) {
    let puts = |from: u8, to: u8| (from..to).map(|key| (1, key, Some(key))).collect();
    after(&[puts(0, 20), puts(20, 30), vec![(1, 3, None), (1, 4, Some(99)), (1, 25, None)]])
}

fn key_hash(key: &str) -> Hash {
    Hash::from_bytes(Sha256::digest(key.as_bytes()).into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever joins by a checkpoint has what its source has, and goes on as it does.
    #[test]
    fn a_joiner_goes_on_like_its_source(
        blocks in steps(), at in any::<prop::sample::Index>(), bytes_max in 1u64..600, empty in any::<bool>(),
        cuts in prop::collection::vec(0usize..30, 0..8),
    ) {
        let (mut source, chain) = after(&blocks);
        let at = at.index(blocks.len()) as u64;
        let mut joiner = if empty { Bench::new(machine()) } else { bench() };
        let checkpoint = reset(&mut joiner, &mut source, Some(at), Some(bytes_max));
        prop_assert_eq!(checkpoint.keys, list(&mut source, Some(at)).len() as u64);
        prop_assert_eq!(root(&mut joiner, None), root(&mut source, Some(at)));
        prop_assert_eq!(list(&mut joiner, None), list(&mut source, Some(at)));
        prop_assert_eq!(all_of(&mut joiner, at), all_of(&mut source, at));
        prop_assert_eq!(
            chunks(&mut joiner, &checkpoint, Some(bytes_max)), chunks(&mut source, &checkpoint, Some(bytes_max)),
            "it is a source as good as the other"
        );
        for block in &chain.0[at as usize + 1..] {
            prop_assert_eq!(apply(&mut joiner, block.clone()).root, root(&mut source, Some(block.header.index.0)));
        }
        for index in at..blocks.len() as u64 {
            prop_assert_eq!(all_of(&mut joiner, index), all_of(&mut source, index));
        }
        let newest = blocks.len() as u64 - 1;
        prune_all(&mut joiner, 1);
        prop_assert_eq!(all_of(&mut joiner, newest), all_of(&mut source, newest));
        let (replayed, before) = joiner.replay();
        prop_assert_eq!(&replayed, &before);
        prop_assert_eq!(fold(&joiner.journal, &cuts), before, "however it is cut into batches");
    }

    /// Every range of key hashes can be asked for, and a chunk holds all of its keys.
    #[test]
    fn a_chunk_is_a_whole_range(
        blocks in steps(), after_bytes in proptest::option::of(any::<[u8; 32]>()), near in any::<prop::sample::Index>(),
        pick in 0u8..3, bytes_max in 1u64..600,
    ) {
        let (mut source, _) = after(&blocks);
        let at = blocks.len() as u64 - 1;
        let root = root(&mut source, None);
        let mut all: Vec<Pair> = list(&mut source, None)
            .into_iter()
            .map(|(key, value)| Pair { key, value: value.expect("is there").into_bytes() })
            .collect();
        all.sort_by_key(|pair| key_hash(&pair.key));
        // Anywhere, at a key, or just beside one.
        let mut edge = after_bytes;
        if pick > 0 && !all.is_empty() {
            let mut bytes = *key_hash(&all[near.index(all.len())].key).as_bytes();
            bytes[31] ^= pick - 1;
            edge = Some(bytes);
        }
        let edge = edge.map(Hash::from_bytes);
        let chunk = chunk(&mut source, at, edge, Some(bytes_max));
        let next = verify_chunk(&root, edge.as_ref(), &chunk).expect("holds");
        all.retain(|pair| edge.is_none_or(|edge| edge < key_hash(&pair.key)));
        prop_assert_eq!(chunk.end, chunk.pairs.len() == all.len());
        prop_assert_eq!(next, chunk.pairs.last().filter(|_| !chunk.end).map(|pair| key_hash(&pair.key)));
        prop_assert_eq!(&chunk.pairs[..], &all[..chunk.pairs.len()]);
        // Nothing left out, nothing said twice, no other end.
        for place in 0..chunk.pairs.len() {
            let mut less = chunk.clone();
            less.pairs.remove(place);
            prop_assert!(verify_chunk(&root, edge.as_ref(), &less).is_err());
        }
        let other_end = Chunk { end: !chunk.end, ..chunk.clone() };
        prop_assert!(verify_chunk(&root, edge.as_ref(), &other_end).is_err());
        for place in 0..chunk.proof.len() {
            let mut less = chunk.clone();
            less.proof.remove(place);
            prop_assert!(verify_chunk(&root, edge.as_ref(), &less).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// A chunk that was changed anywhere is refused before anything is journaled.
    #[test]
    fn a_chunk_changed_in_any_byte_is_refused(
        number in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), xor in 1u8..,
        bytes_max in 200u64..1_500,
    ) {
        let (mut source, _) = thirty();
        let checkpoint = checkpoint(&mut source, None);
        let chunks = chunks(&mut source, &checkpoint, Some(bytes_max));
        let number = number.index(chunks.len());
        let mut joiner = bench();
        begin(&mut joiner, &checkpoint);
        for (after, chunk) in &chunks[..number] {
            bring(&mut joiner, *after, chunk).expect("is taken");
        }
        let (after, good) = &chunks[number];
        let mut bytes = codec::encode(good);
        let place = place.index(bytes.len());
        bytes[place] ^= xor;
        if let Ok(changed) = codec::decode::<Chunk>(&bytes) {
            let entries = joiner.journal.len();
            let problem = bring(&mut joiner, *after, &changed).expect_err("changed");
            prop_assert_eq!(problem.code, "state.bad_chunk");
            prop_assert_eq!(joiner.journal.len(), entries);
        }
        bring(&mut joiner, *after, good).expect("the right one is still taken");
    }
}

#[test]
fn a_chunk_with_any_bit_flipped_is_refused() {
    let (mut source, _) = thirty();
    let checkpoint = checkpoint(&mut source, None);
    let chunks = chunks(&mut source, &checkpoint, Some(200));
    for number in [0, chunks.len() / 2, chunks.len() - 1] {
        let (after, good) = &chunks[number];
        let bytes = codec::encode(good);
        assert_eq!(codec::decode::<Chunk>(&bytes).as_ref(), Ok(good));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let holds = codec::decode(&changed)
                .is_ok_and(|chunk| verify_chunk(&checkpoint.root, after.as_ref(), &chunk).is_ok());
            assert!(!holds, "chunk {number}, bit {bit}");
        }
    }
}

#[test]
fn one_key_alone_can_be_neither_hidden_nor_told_otherwise() {
    let (mut source, mut chain) = (bench(), Chain::default());
    let block = chain.block(vec![delete(1, 1, "none")]);
    let root = apply(&mut source, block).root;
    let above = Some(Hash::ZERO);
    let good = chunk(&mut source, 0, above, None);
    assert_eq!((good.pairs.len(), good.end, &good.proof[..]), (1, true, &[Around::Ends][..]));
    assert_eq!(verify_chunk(&root, above.as_ref(), &good), Ok(None));
    let key = key_hash(&good.pairs[0].key);
    let value = Hash::from_bytes(Sha256::digest(&good.pairs[0].value).into());
    let hidden = Chunk { pairs: vec![], end: true, proof: vec![Around::Leaf { key, value }] };
    assert_eq!(verify_chunk(&root, Some(&key), &hidden), Ok(None), "above the key there is nothing");
    let not_the_end = Chunk { end: false, ..good };
    for wrong in [hidden, not_the_end] {
        assert_eq!(verify_chunk(&root, above.as_ref(), &wrong).expect_err("wrong").code, "state.bad_chunk");
    }
}

#[test]
fn chunks_are_of_about_a_mebibyte() {
    let (mut source, mut chain) = (bench(), Chain::default());
    let puts = (0..40).map(|key: u64| put(1, key + 1, &format!("k{key}"), &"x".repeat(60_000)));
    let block = chain.block(puts.collect());
    apply(&mut source, block);
    let checkpoint = checkpoint(&mut source, None);
    let chunks = chunks(&mut source, &checkpoint, None);
    let size =
        |chunk: &Chunk| chunk.pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum::<usize>();
    let sizes: Vec<usize> = chunks.iter().map(|(_, chunk)| size(chunk)).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size <= 1024 * 1024), "{sizes:?}");
    // One that holds more than it may is refused, though it is all true.
    let mut whole = chunks[0].1.clone();
    whole.end = true;
    whole.proof.clear();
    whole.pairs.extend(chunks[1..].iter().flat_map(|(_, chunk)| chunk.pairs.clone()));
    let problem = verify_chunk(&checkpoint.root, None, &whole).expect_err("too large");
    assert!(problem.cause.contains("too large"), "{problem}");
    let mut joiner = bench();
    assert_eq!(reset(&mut joiner, &mut source, None, None), checkpoint);
    assert_eq!(root(&mut joiner, None), checkpoint.root);
}

#[test]
fn what_was_before_the_checkpoint_is_not_there() {
    let (mut source, chain) = thirty();
    let mut joiner = bench();
    reset(&mut joiner, &mut source, Some(1), None);
    let at = Some(BlockIndex(0));
    let key = || "kv/k1".to_owned();
    let requests = [
        Request::Get(GetRequest { key: key(), at }),
        Request::List(ListKeys { at, ..Default::default() }),
        Request::Datasets(protocol::state::DatasetsRequest { at, ..Default::default() }),
        Request::Root(RootRequest { at }),
        Request::ProveKey(GetRequest { key: key(), at }),
        Request::GetCheckpoint(CheckpointRequest { at }),
        Request::GetChunk(ChunkRequest { at: BlockIndex(0), after: None, bytes_max: None }),
        Request::History(HistoryRequest {
            key: key(),
            limit: None,
            cursor: Some((u64::MAX - 1).to_string()),
        }),
        Request::Apply(ApplyRequest { block: chain.0[0].clone() }),
        Request::Apply(ApplyRequest { block: chain.0[1].clone() }),
        Request::Head(Empty {}),
    ];
    for request in requests {
        let problem = joiner.ask(request.clone()).expect_err("is not there");
        assert_eq!(problem.code, "state.pruned", "{request:?}");
        assert!(problem.cause.contains("block 1"), "{}", problem.cause);
    }
    let history = Request::History(HistoryRequest { key: key(), limit: None, cursor: None });
    let Ok(Answer::History(page)) = joiner.ask(history) else { panic!("no page") };
    let shown: Vec<_> = page.items.iter().map(|version| (version.index, version.value.as_deref())).collect();
    assert_eq!(shown, [(None, Some("v1"))], "who wrote it when is not known");
    apply(&mut joiner, chain.0[2].clone());
    assert!(matches!(joiner.ask(Request::Head(Empty {})), Ok(Answer::Head(_))));
}

#[test]
fn a_state_without_keys_has_a_checkpoint_too() {
    let (mut source, mut chain) = (bench(), Chain::default());
    let empty = Request::GetCheckpoint(CheckpointRequest::default());
    assert_eq!(source.ask(empty).expect_err("no block yet").code, "state.no_blocks");
    let block = chain.block(Vec::new());
    apply(&mut source, block);
    let mut joiner = Bench::new(machine());
    let checkpoint = reset(&mut joiner, &mut source, None, None);
    assert_eq!((checkpoint.keys, root(&mut joiner, None)), (0, checkpoint.root));
    let block = chain.block(vec![put(1, 1, "a", "b")]);
    assert_eq!(apply(&mut joiner, block.clone()).root, apply(&mut source, block).root);
}

#[test]
fn a_diverged_state_is_replaced_by_an_earlier_or_a_later_one() {
    let blocks: Vec<Vec<Step>> =
        (0..6).map(|block| (0..5).map(|key| (1, block * 3 + key, Some(block))).collect()).collect();
    let (mut right, chain) = after(&blocks);
    for (at, own) in [(1, 5), (4, 2), (5, 5), (0, 1)] {
        // From block 0 on it has written other things.
        let (mut wrong, mut other) = (bench(), Chain::default());
        for number in 0..own {
            let block = other.block(vec![
                put(9, 2 * number + 1, &format!("wrong{number}"), "x"),
                put(9, 2 * number + 2, "k1", &format!("wrong{number}")),
            ]);
            apply(&mut wrong, block);
        }
        reset(&mut wrong, &mut right, Some(at), Some(300));
        assert_eq!(list(&mut wrong, None), list(&mut right, Some(at)));
        for key in ["kv/wrong0", "kv/@wrong0"] {
            assert_eq!(get(&mut wrong, key, None), None);
            let asked = HistoryRequest { key: key.into(), limit: None, cursor: None };
            let Ok(Answer::History(page)) = wrong.ask(Request::History(asked)) else { panic!("no page") };
            assert!(page.items.is_empty());
        }
        for block in &chain.0[at as usize + 1..] {
            let root = root(&mut right, Some(block.header.index.0));
            assert_eq!(apply(&mut wrong, block.clone()).root, root);
        }
        for index in at..6 {
            assert_eq!(all_of(&mut wrong, index), all_of(&mut right, index));
        }
        let (replayed, before) = wrong.replay();
        assert_eq!(replayed, before);
        assert!(rows(&wrong.view, &[0x10], &[0x20]) > 0, "what was before lies there, out of reach");
        prune_all(&mut wrong, 100);
        assert_eq!(rows(&wrong.view, &[0x10], &[0x20]), 0, "and is swept away");
        assert_eq!(all_of(&mut wrong, 5), all_of(&mut right, 5));
    }
}

#[test]
fn until_its_last_chunk_a_reset_changes_nothing_and_it_goes_on_where_it_stands() {
    let (mut source, _) = thirty();
    let target = checkpoint(&mut source, None);
    let parts = chunks(&mut source, &target, Some(600));
    assert!(parts.len() > 3);
    let (mut bench, mut chain) = (bench(), Chain::default());
    let block = chain.block(vec![put(1, 1, "own", "own")]);
    apply(&mut bench, block);
    let own = root(&mut bench, None);
    assert_eq!(bring(&mut bench, None, &parts[0].1).expect_err("none").code, "state.no_reset");
    assert_eq!(begin(&mut bench, &target).after, None);
    for (after, chunk) in &parts[..2] {
        bring(&mut bench, *after, chunk).expect("is taken");
    }
    bench.replay();
    let entries = bench.journal.len();
    let next = parts[2].0;
    assert_eq!(begin(&mut bench, &target).after, next, "the same one goes on");
    let told_otherwise = Checkpoint { keys: 7, ..target.clone() };
    assert_eq!(begin(&mut bench, &told_otherwise).after, next, "how many keys there are is hearsay");
    for (after, part) in [(None, 0), (parts[1].0, 1), (parts[3].0, 3)] {
        assert_eq!(bring(&mut bench, after, &parts[part].1).expect_err("another").code, "state.other_chunk");
    }
    assert_eq!(bring(&mut bench, next, &parts[3].1).expect_err("a gap").code, "state.bad_chunk");
    assert_eq!((root(&mut bench, None), get(&mut bench, "kv/own", None).as_deref()), (own, Some("own")));
    let block = chain.block(Vec::new());
    assert_eq!(try_apply(&mut bench, block).expect_err("not now").code, "state.resetting");
    let pruning = bench.ask(Request::Prune(PruneRequest { keep_blocks: 1 }));
    assert_eq!(pruning.expect_err("not now").code, "state.resetting");
    assert_eq!(bench.journal.len(), entries, "none of this was journaled");
    // Another one begins anew; then the first again, from the start.
    let earlier = checkpoint(&mut source, Some(0));
    assert_eq!(begin(&mut bench, &earlier).after, None);
    assert_eq!(bring(&mut bench, None, &parts[0].1).expect_err("of another state").code, "state.bad_chunk");
    assert_eq!(begin(&mut bench, &target).after, None);
    for (after, chunk) in &parts {
        bring(&mut bench, *after, chunk).expect("is taken");
    }
    assert_eq!(root(&mut bench, None), target.root);
    assert!(begin(&mut bench, &target).done, "the state stands there already");
    let event = bench.events.last().expect("one");
    assert_eq!((event.event.as_str(), &event.data["index"]), ("state.reset", &serde_json::json!(2)));
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
    prune_all(&mut bench, 1);
    assert_eq!(rows(&bench.view, &[0x10], &[0x20]), 0);
    assert_eq!(rows(&bench.view, &[0x20], &[0x30]), rows(&bench.view, &[0x20, 0, 0, 0, 3], &[0x30]));
    let nowhere = Checkpoint { index: BlockIndex(u64::MAX), ..target };
    assert_eq!(bench.ask(Request::Reset(nowhere)).expect_err("no such").code, "state.no_such_block");
}

/// Chunks that were fetched at the same time begin anywhere before the end of the one before.
#[test]
fn chunks_that_overlap_come_to_the_same_state() {
    let (mut source, _) = thirty();
    let target = checkpoint(&mut source, None);
    let mut bench = bench();
    let (mut at, mut brought) = (begin(&mut bench, &target), 0);
    while !at.done {
        // Some keys back from where it stands.
        let start = at.after.map(|after| {
            let mut bytes = *after.as_bytes();
            bytes[0] = bytes[0].saturating_sub(12);
            Hash::from_bytes(bytes)
        });
        let overlapping = chunk(&mut source, target.index.0, start, Some(600));
        at = bring(&mut bench, start, &overlapping).expect("is taken");
        brought += 1;
    }
    assert!(brought > 4);
    assert_eq!(root(&mut bench, None), target.root);
    assert_eq!(all_of(&mut bench, 2), all_of(&mut source, 2));
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn a_reset_whose_end_was_lost_is_brought_again() {
    let (mut source, _) = thirty();
    let mut joiner = bench();
    let checkpoint = reset(&mut joiner, &mut source, None, Some(700));
    joiner.journal.pop();
    joiner.replay();
    assert_ne!(root(&mut joiner, None), checkpoint.root, "it has not ended");
    let again = begin(&mut joiner, &checkpoint);
    assert_eq!((again.after, again.done), (None, false));
    reset(&mut joiner, &mut source, None, Some(500));
    assert_eq!(all_of(&mut joiner, 2), all_of(&mut source, 2));
}

/// Folds the records from an entry on, over an empty view.
fn fold_from(journal: &[Vec<u8>], from: u64) -> MemoryStore {
    let mut store = MemoryStore::default();
    for (index, bytes) in (0..).zip(journal).skip(from as usize) {
        let record = Entry::<Record>::decode(bytes).expect("an entry").record;
        let mut top = Overlay::default();
        let mut view = View::new(&store, None, &mut top);
        machine().apply(&mut view, At { index, time_ms: 0 }, &record).expect("folds");
        store.absorb(&top);
    }
    store
}

#[test]
fn a_replay_may_begin_at_the_newest_reset() {
    let (mut source, mut chain) = thirty();
    let (mut bench, _) = after(&[vec![(2, 1, Some(1))]]);
    for at in [0, 2] {
        reset(&mut bench, &mut source, Some(at), Some(700));
    }
    let block = chain.block(vec![put(1, 100, "a", "b"), delete(1, 101, "k7")]);
    apply(&mut bench, block.clone());
    apply(&mut source, block);
    let froms: Vec<u64> = bench
        .journal
        .iter()
        .filter_map(|bytes| Entry::<Record>::decode(bytes).expect("an entry").record.replay_from())
        .collect();
    assert_eq!(froms.len(), 2);
    let mut late = Bench::new(machine());
    late.view = fold_from(&bench.journal, *froms.last().expect("two"));
    late.journal = bench.journal.clone();
    for at in [2, 3] {
        assert_eq!(all_of(&mut late, at), all_of(&mut source, at));
    }
    for bench in [&mut bench, &mut late] {
        prune_all(bench, 1);
    }
    assert_eq!(late.view, bench.view, "what differs is what is swept away");
}

#[test]
fn what_is_no_chunk_of_this_root_is_refused() {
    let (mut source, _) = thirty();
    let root = root(&mut source, None);
    let good = chunk(&mut source, 2, None, Some(900));
    verify_chunk(&root, None, &good).expect("holds");
    let other = Pair { key: "kv/other".into(), value: vec![] };
    let with = |change: &dyn Fn(&mut Chunk)| {
        let mut chunk = good.clone();
        change(&mut chunk);
        chunk
    };
    let deep = Chunk { pairs: vec![other.clone()], end: false, proof: vec![Around::Split; 100_000] };
    let cases = [
        with(&|chunk| chunk.pairs.swap(0, 1)),
        with(&|chunk| chunk.pairs.insert(1, chunk.pairs[0].clone())),
        with(&|chunk| chunk.pairs.push(other.clone())),
        with(&|chunk| chunk.pairs.clear()),
        with(&|chunk| chunk.pairs[0].value.push(0)),
        with(&|chunk| chunk.pairs[0].key = "x".repeat(513)),
        with(&|chunk| chunk.pairs[0].key = "nomodule".into()),
        with(&|chunk| chunk.proof.push(Around::Ends)),
        with(&|chunk| chunk.proof.clear()),
        with(&|chunk| chunk.proof.reverse()),
        with(&|chunk| chunk.pairs = vec![other.clone(); 10_000]),
        Chunk { pairs: vec![], end: false, proof: vec![] },
        Chunk { pairs: vec![], end: true, proof: vec![] },
        Chunk { pairs: vec![], end: true, proof: vec![Around::Hash(Hash::from_bytes(*root.as_bytes()))] },
        deep,
    ];
    for wrong in cases {
        assert_eq!(verify_chunk(&root, None, &wrong).expect_err("wrong").code, "state.bad_chunk");
    }
    let lowest = Hash::ZERO;
    let wrongs = [
        verify_chunk(&StateRoot::ZERO, None, &good),
        verify_chunk(&root, Some(&lowest), &good),
        verify_chunk(&root, Some(&Hash::from_bytes([255; 32])), &good),
    ];
    for wrong in wrongs {
        assert_eq!(wrong.expect_err("wrong").code, "state.bad_chunk");
    }
}

/// The bytes of what is sent and journaled: whoever changes one breaks journals and other cells.
#[test]
fn chunks_and_records_have_these_bytes() {
    let chunk = Chunk {
        pairs: vec![Pair { key: "kv/a".into(), value: vec![1] }],
        end: false,
        proof: vec![
            Around::Split,
            Around::Ends,
            Around::Leaf { key: Hash::from_bytes([2; 32]), value: Hash::from_bytes([3; 32]) },
            Around::Hash(Hash::from_bytes([4; 32])),
        ],
    };
    let (two, three, four) = ("02".repeat(32), "03".repeat(32), "04".repeat(32));
    assert_eq!(
        hex::encode(codec::encode(&chunk)),
        format!("838182646b762f614101f484410041015841 02{two}{three}582103{four}").replace(' ', "")
    );
    let checkpoint = Checkpoint {
        index: BlockIndex(7),
        block: protocol::BlockHash::from_bytes([2; 32]),
        root: StateRoot::from_bytes([3; 32]),
        keys: 9,
    };
    let place = format!("84075820{two}5820{three}09");
    let bytes = |record: &Record| hex::encode(codec::encode(record));
    assert_eq!(
        bytes(&Record::ResetBegun { generation: 1, checkpoint: checkpoint.clone() }),
        format!("82028201{place}")
    );
    let writes = state::WriteSet([("kv/a".to_owned(), Some(vec![1]))].into());
    let through = Some(Hash::from_bytes([4; 32]));
    assert_eq!(bytes(&Record::ResetChunk { writes, through }), format!("8203828182646b762f6141015820{four}"));
    assert_eq!(bytes(&Record::ResetEnded { begun: 5, checkpoint }), format!("82048205{place}"));
    assert_eq!(bytes(&Record::Pruned { oldest: 5, rows_max: 10_000 }), "82058205192710");
}
