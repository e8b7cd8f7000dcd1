//! Pruning: what is kept stays as it was, what is given up is gone, and the work of a call is bounded.

mod kit;

use kit::*;
use machine::testing::Bench;
use proptest::prelude::*;
use protocol::BlockIndex;
use protocol::state::{Answer, GetRequest, HistoryRequest, PruneRequest, Request, RootRequest, Version};
use state::{PRUNE_ROWS_MAX, StateMachine};

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (1u8..4, 0u8..10, proptest::option::weighted(0.6, any::<u8>()));
    prop::collection::vec(prop::collection::vec(step, 0..10), 1..9)
}

fn history(bench: &mut Bench<StateMachine>, key: &str) -> Vec<Version> {
    match bench.ask(Request::History(HistoryRequest { key: key.into(), limit: Some(100), cursor: None })) {
        Ok(Answer::History(page)) => page.items,
        other => panic!("{other:?}"),
    }
}

/// Where rows of a table begin and end, in the live generation of a state that was never reset.
fn table(bench: &Bench<StateMachine>, prefix: u8) -> usize {
    rows(&bench.view, &[prefix], &[prefix + 1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Kept versions answer and prove as before, older ones are refused, and blocks go on as if nothing was pruned.
    #[test]
    fn what_is_kept_stays_as_it_was(blocks in steps(), cut in any::<prop::sample::Index>(), keep in 1u64..6) {
        let (mut whole, mut pruned, mut chain) = (bench(), bench(), Chain::default());
        let cut = cut.index(blocks.len());
        for (index, transactions) in transactions(&blocks).into_iter().enumerate() {
            let block = chain.block(transactions);
            prop_assert_eq!(apply(&mut pruned, block.clone()), apply(&mut whole, block));
            if index == cut {
                prune_all(&mut pruned, keep);
            }
        }
        let newest = blocks.len() as u64 - 1;
        // Before it was pruned the newest was block `cut`: what came since is kept too.
        let oldest = (cut as u64 + 1).saturating_sub(keep);
        for at in 0..=newest {
            if at < oldest {
                let key = || "kv/k1".to_owned();
                let at = Some(BlockIndex(at));
                for request in [
                    Request::Get(GetRequest { key: key(), at }),
                    Request::ProveKey(GetRequest { key: key(), at }),
                    Request::Root(RootRequest { at }),
                ] {
                    let problem = pruned.ask(request).expect_err("is pruned");
                    prop_assert_eq!(problem.code, "state.pruned");
                    let named = format!("block {oldest}");
                    prop_assert!(problem.cause.contains(&named), "{}", problem.cause);
                }
            } else {
                prop_assert_eq!(all_of(&mut pruned, at), all_of(&mut whole, at));
                prop_assert_eq!(list(&mut pruned, Some(at)), list(&mut whole, Some(at)));
            }
        }
        for key in 0..10 {
            let key = format!("kv/k{key}");
            let kept = history(&mut pruned, &key);
            let all = history(&mut whole, &key);
            prop_assert_eq!(&kept[..], &all[..kept.len()]);
            let at_oldest = get(&mut whole, &key, Some(oldest));
            if at_oldest.is_some() {
                prop_assert_eq!(&kept.last().expect("the oldest version's value").value, &at_oldest);
            }
        }
        let (replayed, before) = pruned.replay();
        prop_assert_eq!(replayed, before);
    }

    /// With one version left there is nothing in the view that a cell which began with that version has not.
    #[test]
    fn nothing_needless_is_left(blocks in steps()) {
        let (mut pruned, mut chain) = (bench(), Chain::default());
        for transactions in transactions(&blocks) {
            let block = chain.block(transactions);
            apply(&mut pruned, block);
        }
        prune_all(&mut pruned, 1);
        let mut fresh = bench();
        reset(&mut fresh, &mut pruned, None, None);
        // Nodes, history, current values, names, hashes.
        for prefix in [0x11, 0x12, 0x13, 0x15, 0x16] {
            let fresh = rows(&fresh.view, &[0x20, 0, 0, 0, 1, prefix], &[0x20, 0, 0, 0, 1, prefix + 1]);
            prop_assert_eq!(table(&pruned, prefix), fresh, "table {:#x}", prefix);
        }
        prop_assert_eq!(table(&pruned, 0x14), 1, "the newest block's result");
        prop_assert_eq!(table(&pruned, 0x18), 0, "no list of what is needless");
    }
}

#[test]
fn the_view_shrinks_and_an_answer_says_what_went() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    for nonce in 1..=30 {
        let block = chain.block(vec![put(1, nonce, "a", &nonce.to_string())]);
        apply(&mut bench, block);
    }
    let full = rows(&bench.view, &[], &[]);
    let nothing = prune(&mut bench, 100);
    assert_eq!((nothing.oldest, nothing.removed, nothing.more), (None, 0, false));
    let entries = bench.journal.len();
    let first = prune(&mut bench, 10);
    assert_eq!((first.oldest, first.more), (Some(BlockIndex(20)), false));
    assert_eq!(rows(&bench.view, &[], &[]), full - first.removed as usize);
    assert!(rows(&bench.view, &[], &[]) * 2 < full + 30, "{full} rows and {first:?}");
    assert_eq!(bench.journal.len(), entries + 1);
    for _ in 0..2 {
        let again = prune(&mut bench, 10);
        assert_eq!((again.oldest, again.removed, again.more), (Some(BlockIndex(20)), 0, false));
        assert_eq!(prune(&mut bench, 20).oldest, Some(BlockIndex(20)), "what is gone does not come back");
    }
    assert_eq!(bench.journal.len(), entries + 1, "there was nothing to do");
    let none = bench.ask(Request::Prune(PruneRequest { keep_blocks: 0 }));
    assert_eq!(none.expect_err("the newest stays").code, "state.keeps_nothing");
    prune_all(&mut bench, 1);
    assert_eq!(get(&mut bench, "kv/a", None).as_deref(), Some("30"));
    let block = chain.block(vec![put(1, 31, "a", "31")]);
    apply(&mut bench, block);
}

#[test]
fn a_call_removes_so_many_rows_and_says_that_more_are_left() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let mut nonce = 0;
    for number in 0..30 {
        let puts = (0..100).map(|key| {
            nonce += 1;
            put(1, nonce, &format!("k{key}"), &nonce.to_string())
        });
        let mut transactions: Vec<_> = puts.collect();
        match number {
            0 => transactions.push(put(2, 1, "gone", "soon")),
            28 => transactions.push(delete(2, 2, "gone")),
            _ => {}
        }
        let block = chain.block(transactions);
        apply(&mut bench, block);
    }
    let whole = rows(&bench.view, &[], &[]);
    let first = prune(&mut bench, 1);
    assert!(first.more && (PRUNE_ROWS_MAX..PRUNE_ROWS_MAX + 1_000).contains(&first.removed), "{first:?}");
    assert_eq!(first.oldest, Some(BlockIndex(29)), "all of it is out of reach at once");
    let early = Request::Get(GetRequest { key: "kv/k1".into(), at: Some(BlockIndex(28)) });
    assert_eq!(bench.ask(early).expect_err("is pruned").code, "state.pruned");
    assert_eq!(history(&mut bench, "kv/k1").len(), 1);
    assert_eq!(history(&mut bench, "kv/gone"), [], "whether or not its rows are swept away yet");
    let second = prune(&mut bench, 1);
    assert!(!second.more && second.removed > 0, "{second:?}");
    assert!(rows(&bench.view, &[], &[]) < whole / 5);
    let newest = all_of(&mut bench, 29);
    assert_eq!(newest.len(), 203);
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}
