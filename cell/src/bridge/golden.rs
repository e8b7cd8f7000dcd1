//! What hosts say to each other, byte for byte: whoever changes one of these lines parts the hosts of this version from those before it.
//!
//! A line that is here stays as it is. A new word is a new line, and is said to nobody who does not know it (`frames::WORDS`); a new field is an
//! `Option`, or has a default, under a new number.

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};
use protocol::nucleus::{HostEntry, Roster};
use protocol::{Access, CellId, Hash, HostId, Problem, ProblemKind, Service, codec};

use super::frames::{Asker, Down, Up};
use super::registry::Status;
use super::ticket::Ticket;
use super::wire::{Ask, CellKeys, Held, Hello, Reply, Secret, WireEffect};

fn bytes_of(hex: &str) -> Vec<u8> {
    hex::decode(hex).expect("hex")
}

fn hex_of(value: &impl Encode<()>) -> String {
    hex::encode(codec::encode(value))
}

/// Checks that a value is written as this, and that this is read as the value.
#[track_caller]
fn down(value: &Down<'_>, hex: &str) {
    assert_eq!(hex_of(value), hex, "{value:?}");
    assert_eq!(&codec::decode::<Down<'_>>(&bytes_of(hex)).expect("reads"), value);
}

#[track_caller]
fn up(value: &Up<'_>, hex: &str) {
    assert_eq!(hex_of(value), hex, "{value:?}");
    assert_eq!(&codec::decode::<Up<'_>>(&bytes_of(hex)).expect("reads"), value);
}

/// What an older host says is read, and said again so that the older host would read it: nothing of it is missing or elsewhere.
#[track_caller]
fn read<T: for<'b> Decode<'b, ()> + Encode<()>>(hex: &str) -> T {
    let bytes = bytes_of(hex);
    let value = codec::decode(&bytes).expect("reads");
    let again = codec::encode(&value);
    assert!(covers(&mut Decoder::new(&again), &mut Decoder::new(&bytes)), "said as {}", hex::encode(&again));
    value
}

/// Whether a newer value has all of an older one: lists may be longer.
fn covers(newer: &mut Decoder<'_>, older: &mut Decoder<'_>) -> bool {
    let is_list = |decoder: &Decoder<'_>| decoder.datatype().expect("an item") == Type::Array;
    if !is_list(newer) || !is_list(older) {
        let item = |decoder: &mut Decoder<'_>| {
            let from = decoder.position();
            decoder.skip().expect("an item");
            decoder.input()[from..decoder.position()].to_vec()
        };
        return item(newer) == item(older);
    }
    let length = |decoder: &mut Decoder<'_>| decoder.array().expect("a list").expect("of known length");
    let (more, few) = (length(newer), length(older));
    let are_there = more >= few && (0..few).all(|_| covers(newer, older));
    (few..more).for_each(|_| newer.skip().expect("an item"));
    are_there
}

fn cause() -> machine::EffectId {
    machine::EffectId { service: Service::State, generation: 1, index: 2, ordinal: 3 }
}

fn problem() -> Problem {
    Problem::new(ProblemKind::Busy, "bus.busy", "full").hint("later")
}

fn is_entry(entry: &HostEntry) -> bool {
    let HostEntry { name, key, addresses, services, .. } = entry;
    name == "b"
        && *key == HostId::from_bytes([7; 32])
        && addresses == &["/x"]
        && services == &[Service::State]
}

#[test]
fn who_calls_says() {
    let token = Asker::Token { role: Access::Admin, name: "op".to_owned() };
    let (action, trace, body) = ("state.get", Some("00-x".to_owned()), &b"ab"[..]);
    down(
        &Down::Call { number: 1, action, asker: token, patience_us: 5, cause: Some(cause()), trace, body },
        "820087016973746174652e67657482018202626f700584030102036430302d78426162",
    );
    let asker = Asker::Internal;
    down(
        &Down::Call { number: 1, action, asker, patience_us: 5, cause: None, trace: None, body },
        "820087016973746174652e67657482008005f6f6426162",
    );
    down(&Down::Piece { number: 300, bytes: body }, "82018219012c426162");
    down(&Down::Cancel { number: 1 }, "82028101");
    let asker = Asker::Cell(CellId::from_bytes([9; 32]));
    down(
        &Down::Stream { number: 2, action, asker, patience_us: 5, trace: None, body, credit: 262_144 },
        "820387026973746174652e676574820281582009090909090909090909090909090909090909090909090909090909090909\
         0905f64261621a00040000",
    );
    down(&Down::Credit { number: 2, bytes: 131_072 }, "820482021a00020000");
}

#[test]
fn who_answers_says() {
    up(&Up::Welcome { incarnation: 4, words: Some(1) }, "8200820401");
    up(&Up::Answer { number: 1, body: b"ab" }, "82018201426162");
    up(
        &Up::Refused { number: 1, problem: problem() },
        "8202820184686275732e627573796466756c6c656c6174657206",
    );
    up(&Up::Piece { number: 1, bytes: b"ab" }, "82038201426162");
    up(&Up::Open { number: 2 }, "82048102");
    up(&Up::Item { number: 2, bytes: b"ab" }, "82058202426162");
    up(&Up::End { number: 2 }, "82068102");
}

/// The version before streams said nothing of its words, and reads no more of a welcome than it knows.
#[test]
fn the_first_version_is_understood_and_understands() {
    #[derive(Debug, PartialEq, Decode)]
    enum First {
        #[n(0)]
        Welcome {
            #[n(0)]
            incarnation: u64,
        },
    }
    up(&Up::Welcome { incarnation: 4, words: None }, "82008104");
    let first: First = codec::decode(&bytes_of("8200820401")).expect("reads");
    assert_eq!(first, First::Welcome { incarnation: 4 });
}

#[test]
fn what_is_not_known_behind_what_is_is_skipped() {
    // Each is one field longer than this version's.
    let longer = bytes_of("82028201f5");
    assert_eq!(codec::decode::<Down<'_>>(&longer).expect("reads"), Down::Cancel { number: 1 });
    let longer = bytes_of("820482026161");
    assert_eq!(codec::decode::<Up<'_>>(&longer).expect("reads"), Up::Open { number: 2 });
    let longer = format!(
        "85{}f6",
        &"84582001010101010101010101010101010101010101010101010101010101010101016161036131"[2..]
    );
    assert_eq!(
        codec::decode::<Hello>(&bytes_of(&longer)).expect("reads"),
        read::<Hello>("84582001010101010101010101010101010101010101010101010101010101010101016161036131")
    );
    let longer = format!("86{}6178", &"850361318186030107080200026168"[2..]);
    let longer: Status = codec::decode(&bytes_of(&longer)).expect("reads");
    assert_eq!(longer, read::<Status>("850361318186030107080200026168"));
    // A word that nobody knows is none, which is why it is said to nobody who does not know it.
    assert!(codec::decode::<Down<'_>>(&bytes_of("8218638101")).is_err());
    assert!(codec::decode::<Up<'_>>(&bytes_of("8218638101")).is_err());
}

#[test]
fn hosts_greet() {
    let cell = CellId::from_bytes([1; 32]);
    let hello = Hello { cell, name: "a".to_owned(), incarnation: 3, version: "1".to_owned() };
    assert_eq!(
        hex_of(&hello),
        "84582001010101010101010101010101010101010101010101010101010101010101016161036131"
    );
    assert_eq!(
        read::<Hello>("84582001010101010101010101010101010101010101010101010101010101010101016161036131"),
        hello
    );
    // State runs there, with 7 entries in 8 bytes, under epoch 2; 2 calls are under way.
    let status = "850361318186030107080200026168";
    assert_eq!(hex_of(&read::<Status>(status)), status);
}

#[test]
fn what_hosts_ask_is_read() {
    let (state, key) = (Service::State, Hash::from_bytes([3; 32]));
    let Ask::Join { host, .. } = read(
        "8200825820050505050505050505050505050505050505050505050505050505050505050584616258200707070707070707\
         07070707070707070707070707070707070707070707070781622f788103",
    ) else {
        panic!("another word")
    };
    assert!(is_entry(&host));
    let Ask::Roster { roster: Roster { hosts, grants, .. } } = read(
        "82018182818461625820070707070707070707070707070707070707070707070707070707070707070781622f7881038183\
         03616202",
    ) else {
        panic!("another word")
    };
    assert!(hosts.len() == 1 && is_entry(&hosts[0]));
    assert!(grants.len() == 1 && grants[0].service == state && grants[0].host == "b" && grants[0].epoch == 2);
    let copy = "8202830358200303030303030303030303030303030303030303030303030303030303030303582004040404040404040404\
         04040404040404040404040404040404040404040404";
    assert!(
        matches!(read(copy), Ask::Copy { service, key: of, encryption: Some(_), .. } if (service, of) == (state, key))
    );
    let copy = "8202820358200303030303030303030303030303030303030303030303030303030303030303";
    assert!(
        matches!(read(copy), Ask::Copy { service, key: of, encryption: None, .. } if (service, of) == (state, key))
    );
    let start = "8203818603025820050505050505050505050505050505050505050505050505050505050505050558200404040404040404\
         0404040404040404040404040404040404040404040404040109";
    let Ask::Start { granted } = read(start) else { panic!("another word") };
    assert_eq!((granted.service, granted.epoch, granted.length), (state, 2, 9));
    assert!(matches!(read("82048103"), Ask::Stop { service, .. } if service == state));
    let Ask::Effects { service, effects, .. } = read("8205830381828403010203426162f5") else {
        panic!("another word")
    };
    assert_eq!((service, effects), (state, vec![WireEffect { id: cause(), effect: b"ab".to_vec() }]));
    assert!(
        matches!(read("8210815006060606060606060606060606060606"), Ask::Spans { trace, .. } if trace == [6; 16])
    );
    assert!(matches!(read("82118109"), Ask::Traces { limit: 9, .. }));
}

#[test]
fn what_hosts_reply_is_read() {
    assert!(matches!(read("820080"), Reply::Done));
    assert!(
        matches!(read("82018184686275732e627573796466756c6c656c6174657206"), Reply::Refused { problem: why, .. } if why == problem())
    );
    let joined = "82028558200101010101010101010101010101010101010101010101010101010101010101627b7d627b7d84616258200707\
         07070707070707070707070707070707070707070707070707070707070781622f7881036174";
    let Reply::Joined { cell, genesis, settings, lead, .. } = read(joined) else { panic!("another word") };
    assert_eq!((cell, &*genesis, &*settings), (CellId::from_bytes([1; 32]), "{}", "{}"));
    assert!(is_entry(&lead));
    assert!(matches!(read("8203830102f5"), Reply::Copied { have: 1, length: 2, is_settled: true, .. }));
    assert!(matches!(read("82048102"), Reply::Ends { length: 2, .. }));
    assert!(matches!(read("82108180"), Reply::Spans { spans, .. } if spans.is_empty()));
    assert!(matches!(read("82118180"), Reply::Traces { traces, .. } if traces.is_empty()));
}

#[test]
fn a_ticket_is_a_line_that_every_version_reads() {
    let (lead, addresses) = (HostId::from_bytes([7; 32]), vec!["/x".to_owned()]);
    let ticket = Ticket { lead, addresses, secret: [9; 32] };
    let text = "cellhost19ZJTc5c6roYzQHpQLPp9z17aLJhPoBC3vAwuiZksoziNT5w8MSqtFPk9Swph7gtpP84E61jZrBQZru3fwRVNgN4inyi\
         RYEfLmeQG";
    assert_eq!(ticket.to_text(), text);
    assert!(Ticket::parse(text).is_ok_and(|read| read == ticket));
}

/// Checks that a word of hosts that elect who leads is written as this, and read so.
#[track_caller]
fn word<T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug>(value: &T, hex: &str) {
    assert_eq!(hex_of(value), hex, "{value:?}");
    assert_eq!(&read::<T>(hex), value);
}

#[test]
fn what_hosts_say_of_who_leads() {
    let sevens = "07".repeat(32);
    word(&Ask::Elect { question: b"ab".to_vec() }, "820781426162");
    word(&Ask::Held, "820880");
    word(&Ask::Lead { term: 4 }, "82098104");
    word(&Reply::Elected { answer: b"ab".to_vec() }, "820681426162");
    word(
        &Reply::Held { journals: vec![Held { service: Service::State, fork: 1, length: 7 }] },
        "8207818183030107",
    );
    let nobody = Roster { hosts: vec![], grants: vec![], number: 0 };
    let voters = vec![HostId::from_bytes([7; 32])];
    word(
        &Reply::Renewed { roster: nobody, except: vec![], lease_ms: 2_500, voters },
        &format!("82058483808000801909c4815820{sevens}"),
    );
    word(&CellKeys { seed: Secret([7; 32]), lives: "[]".to_owned() }, &format!("825820{sevens}625b5d"));
}
