//! Lists: newest first, by every filter, in pages.
#![allow(clippy::unwrap_used)]

mod kit;

use kit::*;
use proptest::prelude::*;
use protocol::MessageId;
use protocol::message::{Message, MessageType, QueryBody};
use protocol::messages::{Direction, ListMessages, MessageView, Status};

/// Cell 2 with messages to and from cells 1, 2 and 3, of several types, in several states.
fn busy() -> Cell {
    let mut two = bench(2);
    for number in 0..6u64 {
        let peer = [1, 3][number as usize % 2];
        enqueue(&mut two, chat(2, peer, number), None).unwrap();
        let query = typed(peer, 2, MessageType::Query, &format!(r#"{{"tag":"{number}"}}"#));
        receive(&mut two, peer, &MessageType::ALL, vec![chat(peer, 2, number), query.clone()]);
        if number % 3 == 0 {
            settle(&mut two, query.id()).unwrap();
            cancel(&mut two, chat(2, peer, number).id()).unwrap();
        }
    }
    enqueue(&mut two, chat(2, 2, 0), None).unwrap();
    receive(&mut two, 2, &[], vec![chat(2, 2, 0)]);
    two
}

fn all(two: &mut Cell, mut asked: ListMessages) -> Vec<MessageView> {
    let mut items = Vec::new();
    for _ in 0..100 {
        let page = list(two, asked.clone()).unwrap();
        assert!(page.items.len() <= asked.limit.unwrap_or(20) as usize);
        items.extend(page.items);
        asked.cursor = page.next;
        if asked.cursor.is_none() {
            return items;
        }
    }
    panic!("the list has no end")
}

proptest! {
    /// Whatever index a filter takes, and however it is cut into pages, it shows what a plain look at
    /// everything shows.
    #[test]
    fn a_filter_shows_all_that_fits_newest_first(
        kind in prop::option::of(prop::sample::select(vec![MessageType::Chat, MessageType::Query, MessageType::Tx])),
        from in prop::option::of(1u8..5), to in prop::option::of(1u8..5),
        direction in prop::option::of(prop::sample::select(vec![Direction::In, Direction::Out])),
        status in prop::option::of(prop::sample::select(vec![
            Status::Queued, Status::Cancelled, Status::Expired, Status::Received, Status::Handled,
        ])),
        limit in 1u32..9,
    ) {
        let mut two = busy();
        let everything = all(&mut two, ListMessages { limit: Some(1_000), ..Default::default() });
        prop_assert_eq!(everything.len(), 20);
        let (from, to) = (from.map(cell), to.map(cell));
        let expected: Vec<u64> = everything.iter()
            .filter(|view| kind.is_none_or(|kind| kind == view.kind))
            .filter(|view| from.is_none_or(|from| from == view.sender))
            .filter(|view| to.is_none_or(|to| to == view.receiver))
            .filter(|view| direction.is_none_or(|direction| direction == view.direction))
            .filter(|view| status.is_none_or(|status| status == view.status))
            .map(|view| view.index).collect();
        prop_assert!(expected.is_sorted_by(|a, b| a > b));
        let asked = ListMessages { kind, from, to, direction, status, limit: Some(limit), cursor: None };
        let shown: Vec<u64> = all(&mut two, asked).iter().map(|view| view.index).collect();
        prop_assert_eq!(shown, expected);
    }
}

#[test]
fn a_cursor_of_another_make_is_refused() {
    let mut two = busy();
    let asked = ListMessages { cursor: Some("x".into()), ..Default::default() };
    assert_eq!(refused(list(&mut two, asked)), "message.bad_cursor");
}

#[test]
fn a_page_of_large_bodies_comes_back_short() {
    let mut two = bench(2);
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000_000));
    for number in 0..12 {
        let message = Message { timestamp_ms: NOW_MS + number, ..typed(2, 1, MessageType::Chat, &body) };
        enqueue(&mut two, message, None).unwrap();
    }
    let page = list(&mut two, ListMessages::default()).unwrap();
    assert!(page.items.len() < 12 && page.next.is_some());
    assert_eq!(all(&mut two, ListMessages::default()).len(), 12);
    assert_eq!(waiting(&mut two, 1, None).len(), 1, "about 1 MiB at a time");
}

#[test]
fn posts_are_found_by_tag_and_author() {
    let mut two = bench(2);
    let post = |from: u8, number: u64, tags: &str| {
        typed(from, 2, MessageType::Post, &format!(r#"{{"content":{number},"tags":[{tags}]}}"#))
    };
    let made = [post(1, 0, r#""a","b""#), post(3, 1, r#""a""#), post(1, 2, "")];
    let made_ids: Vec<MessageId> = ids(&made);
    for (from, message) in [1, 3, 1].into_iter().zip(made) {
        assert_eq!(receive_one(&mut two, from, &[MessageType::Post], message), "ok");
    }
    let sealed = Message { sealed: true, ..post(1, 9, "") };
    assert_eq!(receive_one(&mut two, 1, &[MessageType::Post], sealed), "ok");
    let mut find = |tag: Option<&str>, author: Option<u8>, limit: Option<u32>| {
        posts(&mut two, QueryBody { tag: tag.map(str::to_owned), author: author.map(cell), limit })
    };
    assert_eq!(find(None, None, None), [made_ids[2], made_ids[1], made_ids[0]]);
    assert_eq!(find(Some("a"), None, None), [made_ids[1], made_ids[0]]);
    assert_eq!(find(Some("a"), Some(1), None), [made_ids[0]]);
    assert_eq!(find(None, Some(1), None), [made_ids[2], made_ids[0]]);
    assert_eq!(find(None, None, Some(1)), [made_ids[2]]);
    assert!(find(Some("c"), None, None).is_empty());
}
