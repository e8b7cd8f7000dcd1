//! Bodies: each type's own, and nothing else.

use message::{Body, Refusal, body, parse_body};
use protocol::message::{BODY_BYTES_MAX, MessageType, ReplyBody};
use protocol::{Problem, ProblemKind};
use serde_json::json;

const ALL: [MessageType; 6] = MessageType::ALL;

#[test]
fn each_type_takes_its_own_body() {
    for kind in ALL.into_iter().filter(|kind| *kind != MessageType::Tx) {
        assert!(parse_body(kind, false, body::example(kind).as_bytes()).is_ok(), "{kind}");
    }
    let transaction = json!({
        "genesis": "00".repeat(32), "sender": protocol::CellId::from_bytes([1; 32]), "nonce": 1,
        "module": "kv", "call": "put", "args": "{}", "signature": "00".repeat(64),
    });
    let tx = json!({ "transaction": transaction }).to_string();
    assert!(matches!(parse_body(MessageType::Tx, false, tx.as_bytes()), Ok(Body::Tx(_))));
}

#[test]
fn a_wrong_body_is_refused_with_the_reason_and_an_example() {
    let cases = [
        (MessageType::Chat, r#"{"words":"hello"}"#, "unknown field `words`"),
        (MessageType::Chat, r#"{}"#, "missing field `text`"),
        (MessageType::Chat, "hello", "expected value"),
        (MessageType::Auth, r#"{"step":"jump"}"#, "unknown variant `jump`"),
        (MessageType::Tx, r#"{"module":"kv","call":"put"}"#, "unknown field `module`"),
        (MessageType::Post, r#"{"content":1,"tags":[""]}"#, "at most 16 tags"),
        (MessageType::Query, r#"{"limit":-1}"#, "invalid value"),
        (MessageType::Exec, r#"{"args":{}}"#, "missing field `action`"),
    ];
    for (kind, text, why) in cases {
        let problem = parse_body(kind, false, text.as_bytes()).expect_err(text);
        assert_eq!((problem.code.as_ref(), problem.kind), ("message.bad_body", ProblemKind::Invalid));
        assert!(
            problem.cause.contains(why) && problem.cause.contains(body::example(kind)),
            "{}",
            problem.cause
        );
    }
}

#[test]
fn only_a_request_begins_an_auth_exchange() {
    let (request, failed) = (r#"{"step":"request"}"#, r#"{"step":"failed","why":"no"}"#);
    let ok = |is_reply: bool, text: &str| parse_body(MessageType::Auth, is_reply, text.as_bytes()).is_ok();
    assert!(ok(false, request) && ok(true, failed));
    assert!(!ok(true, request) && !ok(false, failed));
}

#[test]
fn a_reply_reads_back_and_is_never_too_large() {
    let problem = Problem::new(ProblemKind::Denied, "test.no", "no");
    for (outcome, expected) in [
        (Ok(json!({"a": 1})), ReplyBody::Result(json!({"a": 1}))),
        (Err(problem.clone()), ReplyBody::Error(problem)),
    ] {
        assert_eq!(parse_body(MessageType::Exec, true, &body::reply(outcome)), Ok(Body::Reply(expected)));
    }
    match parse_body(MessageType::Query, true, &body::reply(Ok(json!("x".repeat(BODY_BYTES_MAX))))) {
        Ok(Body::Reply(ReplyBody::Error(problem))) => assert_eq!(problem.code, "message.reply_too_large"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn codes_are_unique_and_carry_the_services_name() {
    let codes: std::collections::BTreeSet<_> = Refusal::CODES.iter().collect();
    assert_eq!(codes.len(), Refusal::CODES.len());
    assert!(codes.iter().all(|code| code.starts_with("message.")));
}
