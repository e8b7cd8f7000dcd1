//! What hosts say to each other, byte for byte: whoever changes one of these lines parts hosts of this version from those before it.
//!
//! A line that is here stays as it is. A new word is a new line, and is said to nobody who does not know it (`frames::WORDS`); a new field is an
//! `Option` with a new number.

use minicbor::{Decode, Encode};
use protocol::nucleus::{GrantView, HostEntry, Roster};
use protocol::{Access, CellId, Hash, HostId, Problem, ProblemKind, Service, codec};

use super::frames::{Asker, Down, Up};
use super::ticket::Ticket;
use super::wire::{Ask, Hello, Reply, WireEffect};

fn hex_of(value: &impl Encode<()>) -> String {
    hex::encode(codec::encode(value))
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex::decode(hex).expect("hex")
}

/// Checks that a value is written as this, and that this is read as the value.
#[track_caller]
fn check<T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug>(value: &T, hex: &str) {
    assert_eq!(hex_of(value), hex, "{value:?}");
    assert_eq!(&codec::decode::<T>(&bytes_of(hex)).expect("reads"), value);
}

#[track_caller]
fn check_down(value: &Down<'_>, hex: &str) {
    assert_eq!(hex_of(value), hex, "{value:?}");
    assert_eq!(&codec::decode::<Down<'_>>(&bytes_of(hex)).expect("reads"), value);
}

#[track_caller]
fn check_up(value: &Up<'_>, hex: &str) {
    assert_eq!(hex_of(value), hex, "{value:?}");
    assert_eq!(&codec::decode::<Up<'_>>(&bytes_of(hex)).expect("reads"), value);
}

fn cause() -> machine::EffectId {
    machine::EffectId { service: Service::State, generation: 1, index: 2, ordinal: 3 }
}

fn problem() -> Problem {
    Problem::new(ProblemKind::Busy, "bus.busy", "full").hint("later")
}

fn entry() -> HostEntry {
    HostEntry {
        name: "b".to_owned(),
        key: HostId::from_bytes([7; 32]),
        addresses: vec!["/x".to_owned()],
        services: vec![Service::State],
    }
}

#[test]
fn a_caller_says() {
    let token = Asker::Token { role: Access::Admin, name: "op".to_owned() };
    let (action, trace) = ("state.get", Some("00-x".to_owned()));
    check_down(
        &Down::Call { number: 1, action, asker: token, patience_us: 5, cause: Some(cause()), trace, body: b"ab" },
        "TODO",
    );
    let (asker, body) = (Asker::Internal, &b"ab"[..]);
    check_down(
        &Down::Call { number: 1, action, asker, patience_us: 5, cause: None, trace: None, body },
        "TODO",
    );
    check_down(&Down::Piece { number: 300, bytes: b"ab" }, "TODO");
    check_down(&Down::Cancel { number: 1 }, "TODO");
    let asker = Asker::Cell(CellId::from_bytes([9; 32]));
    check_down(
        &Down::Stream { number: 2, action, asker, patience_us: 5, trace: None, body, credit: 262_144 },
        "TODO",
    );
    check_down(&Down::Credit { number: 2, bytes: 131_072 }, "TODO");
}

#[test]
fn who_answers_says() {
    check_up(&Up::Welcome { incarnation: 4, words: Some(1) }, "TODO");
    check_up(&Up::Answer { number: 1, body: b"ab" }, "TODO");
    check_up(&Up::Refused { number: 1, problem: problem() }, "TODO");
    check_up(&Up::Piece { number: 1, bytes: b"ab" }, "TODO");
    check_up(&Up::Open { number: 2 }, "TODO");
    check_up(&Up::Item { number: 2, bytes: b"ab" }, "TODO");
    check_up(&Up::End { number: 2 }, "TODO");
}

/// The version before streams said nothing of its words.
#[test]
fn the_first_version_is_understood_and_understands() {
    let first = Up::Welcome { incarnation: 4, words: None };
    check_up(&first, "820081 04");
    #[derive(Debug, PartialEq, Decode)]
    enum UpBefore {
        #[n(0)]
        Welcome {
            #[n(0)]
            incarnation: u64,
        },
    }
    let now = codec::encode(&Up::Welcome { incarnation: 4, words: Some(1) });
    let read = codec::decode::<UpBefore>(&now).expect("the first version skips what it does not know");
    assert_eq!(read, UpBefore::Welcome { incarnation: 4 });
}

/// What a later version adds behind what is known is skipped, and what an earlier one did not say is none.
#[test]
fn more_is_skipped_and_less_is_none() {
    let later = bytes_of("TODO");
    assert_eq!(codec::decode::<Down<'_>>(&later).expect("reads"), Down::Cancel { number: 1 });
    // A word that nobody knows is no frame: it is said to nobody who does not know it.
    assert!(codec::decode::<Down<'_>>(&bytes_of("82 18 63 81 01".replace(' ', "").as_str())).is_err());
    let hello = Hello { cell: CellId::from_bytes([1; 32]), name: "a".to_owned(), incarnation: 3, version: "1".to_owned() };
    let mut longer = codec::encode(&hello);
    longer[0] += 1;
    longer.extend(codec::encode(&"more"));
    assert_eq!(codec::decode::<Hello>(&longer).expect("reads"), hello);
}

#[test]
fn hosts_ask_and_reply() {
    let hello = Hello { cell: CellId::from_bytes([1; 32]), name: "a".to_owned(), incarnation: 3, version: "1".to_owned() };
    check(&hello, "TODO");
    check(&Ask::Join { secret: [5; 32], host: entry() }, "TODO");
    let grant = GrantView { service: Service::State, host: "b".to_owned(), epoch: 2 };
    check(&Ask::Roster { roster: Roster { hosts: vec![entry()], grants: vec![grant] } }, "TODO");
    let key = Hash::from_bytes([3; 32]);
    check(&Ask::Copy { service: Service::State, key, encryption: Some([4; 32]) }, "TODO");
    check(&Ask::Copy { service: Service::State, key, encryption: None }, "TODO");
    check(&Ask::Stop { service: Service::State }, "TODO");
    let effect = WireEffect { id: cause(), effect: b"ab".to_vec() };
    check(&Ask::Effects { service: Service::State, effects: vec![effect], missed: true }, "TODO");
    check(&Ask::Spans { trace: [6; 16] }, "TODO");
    check(&Ask::Traces { limit: 9 }, "TODO");
    check(&Reply::Done, "TODO");
    check(&Reply::Refused { problem: problem() }, "TODO");
    let joined = Reply::Joined {
        cell: CellId::from_bytes([1; 32]),
        genesis: "{}".to_owned(),
        settings: "{}".to_owned(),
        lead: entry(),
        token: "t".to_owned(),
    };
    check(&joined, "TODO");
    check(&Reply::Copied { have: 1, length: 2, is_settled: true }, "TODO");
    check(&Reply::Ends { length: 2 }, "TODO");
    check(&Reply::Spans { spans: Vec::new() }, "TODO");
    check(&Reply::Traces { traces: Vec::new() }, "TODO");
}

#[test]
fn a_ticket_is() {
    let ticket =
        Ticket { lead: HostId::from_bytes([7; 32]), addresses: vec!["/x".to_owned()], secret: [9; 32] };
    assert_eq!(hex_of(&ticket), "TODO");
    assert_eq!(ticket.to_text(), "TODO");
    assert!(Ticket::parse("TODO").is_ok_and(|read| read == ticket));
}
