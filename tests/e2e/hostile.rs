//! A peer that sends garbage, forged signatures, replays or a 4 GiB length prefix is refused and
//! counted, costs bounded memory, and keeps nobody else from being served.
//!
//! The peer speaks libp2p by itself and shares no code with the cell's network: only the message type.

use ed25519_dalek::SigningKey;
use kit::stranger::{HELLO, REQUEST, Stranger, framed, replied};
use kit::{Cell, until};
use minicbor::{Decode, Encode};
use protocol::message::{Message, MessageType, Together};
use protocol::receipt::ReceiptHead;
use protocol::signing::{self, Signature};
use protocol::{CellId, Problem, codec};

const PROTOCOL: &str = "/celluler/cell/1";
/// What a hostile peer may cost at most.
const MEMORY_KIB_MAX: u64 = 64 * 1024;

/// A peer that can send anything.
struct Peer {
    key: SigningKey,
    stranger: Option<Stranger>,
    victim: CellId,
}

#[derive(Encode)]
struct Batch {
    #[n(0)]
    messages: Vec<Message>,
}

#[derive(Debug, Decode)]
enum Taken {
    #[n(0)]
    Taken {
        #[n(0)]
        receipt: Option<ReceiptHead>,
        #[n(1)]
        outcomes: Vec<Option<Problem>>,
    },
    #[n(1)]
    Refused {
        #[n(0)]
        problem: Problem,
    },
}

impl Peer {
    async fn connect(seed: u8, cell: &Cell) -> Self {
        let stranger = Some(Stranger::connect([seed; 32], &cell.peer).await);
        Self { stranger, ..Self::new(seed, cell) }
    }

    fn new(seed: u8, cell: &Cell) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        Self { key, stranger: None, victim: cell.id().parse().expect("an id") }
    }

    /// Sends bytes as they are on a stream of their own; the reply's bytes, if there is one.
    async fn send(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        self.stranger.as_mut().expect("connected").send(PROTOCOL, bytes).await
    }

    /// Sends a batch in a proper frame; what became of it.
    async fn deliver(&mut self, messages: Vec<Message>) -> Taken {
        let reply = self.send(framed(REQUEST, &codec::encode(&Batch { messages }))).await;
        answer(&reply.expect("a reply"))
    }

    fn message(&self, text: &str) -> Message {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let timestamp_ms = now.as_millis() as u64;
        let mut message = Message {
            timestamp_ms,
            expires_ms: timestamp_ms + 60_000,
            sender: signing::cell_id(&self.key),
            receiver: self.victim,
            kind: MessageType::Chat,
            sealed: false,
            in_reply_to: None,
            body: serde_json::json!({ "text": text }).to_string().into_bytes(),
            proof: Vec::new(),
            signature: Signature::from_bytes([0; 64]),
            nonce: 0,
            together: None,
        };
        message.signature = signing::sign(&self.key, &message.signed_text());
        message
    }
}

fn answer(reply: &[u8]) -> Taken {
    codec::decode(replied(reply)).expect("an answer")
}

fn outcome(taken: Taken) -> Option<String> {
    match taken {
        Taken::Taken { outcomes, .. } => {
            outcomes.into_iter().next()?.map(|problem| problem.code.into_owned())
        }
        Taken::Refused { problem } => Some(problem.code.into_owned()),
    }
}

/// What was refused for a reason, as `/metrics` tells.
fn refused(cell: &Cell, why: &str) -> f64 {
    let name = format!("cell_network_refused_total{{why=\"{why}\"}}");
    let (_, text) = cell.get("/metrics");
    let line = text.lines().find(|line| line.starts_with(&name));
    let line = line.unwrap_or_else(|| panic!("no {name} in the metrics:\n{text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

fn received(cell: &Cell) -> usize {
    cell.ok(&["message", "list", "--direction", "in", "--limit", "1000"])["items"]
        .as_array()
        .expect("a list")
        .len()
}

#[actix_rt::test]
async fn frames_that_are_no_frames_are_refused_counted_and_cost_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "victim");
    cell.start();
    let before = cell.memory_kib();
    let oversized = refused(&cell, "oversized");
    for _ in 0..20 {
        let mut peer = Peer::connect(66, &cell).await;
        assert_eq!(peer.send(u32::MAX.to_le_bytes().to_vec()).await, None, "4 GiB are announced");
        assert_eq!(peer.send(vec![7]).await, None, "half a length");
        assert_eq!(peer.send([100u32.to_le_bytes().as_slice(), &[1; 10]].concat()).await, None, "cut short");
    }
    let mut peer = Peer::connect(66, &cell).await;
    let garbage = framed(REQUEST, &[0xff; 5_000]);
    let reply = peer.send(garbage).await.expect("a batch that cannot be read is answered");
    let Taken::Refused { problem } = answer(&reply) else { panic!("garbage was taken") };
    assert_eq!(problem.code, "codec.malformed");
    assert_eq!(
        peer.send(framed(99, &[1, 2, 3])).await,
        None,
        "an unknown sort of request ends the connection"
    );
    assert!(refused(&cell, "oversized") >= oversized + 20.0);
    assert!(refused(&cell, "malformed") >= 40.0);
    let malformed = refused(&cell, "malformed");
    for hellos in [framed(HELLO, &[7; 10]).repeat(2), framed(HELLO, &[7; 100_000])] {
        assert_eq!(Peer::connect(66, &cell).await.send(hellos).await, None, "one short hello a stream");
    }
    assert_eq!(refused(&cell, "malformed"), malformed + 2.0);
    let grown = cell.memory_kib().saturating_sub(before);
    assert!(grown < MEMORY_KIB_MAX, "it cost {grown} KiB");
    assert_eq!(cell.ok(&["status"])["readiness"]["state"], "synced");
}

#[actix_rt::test]
async fn forgeries_are_refused_and_a_replay_is_taken_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "victim");
    cell.start();
    let mut peer = Peer::connect(67, &cell).await;
    let mut changed = peer.message("signed");
    changed.body = br#"{"text":"changed"}"#.to_vec();
    assert_eq!(outcome(peer.deliver(vec![changed]).await).as_deref(), Some("message.bad_signature"));
    let mut of_another = peer.message("of another");
    of_another.sender = CellId::from_bytes(SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes());
    assert_eq!(outcome(peer.deliver(vec![of_another]).await).as_deref(), Some("message.bad_signature"));
    // One of two that were signed together, under the other's place.
    let (one, mut other) = (peer.message("one"), peer.message("other"));
    let (text, places) = Together::of(&one.sender, &[one.id(), other.id()]);
    other.signature = signing::sign(&peer.key, &text);
    other.together = places.into_iter().next();
    assert_eq!(outcome(peer.deliver(vec![other]).await).as_deref(), Some("message.bad_signature"));
    // Rightly signed by a third cell, brought by this one.
    let third = Peer::new(68, &cell).message("carried");
    assert_eq!(outcome(peer.deliver(vec![third]).await).as_deref(), Some("message.not_for_me"));
    let mut elsewhere = peer.message("elsewhere");
    elsewhere.receiver = CellId::from_bytes([9; 32]);
    elsewhere.signature = signing::sign(&peer.key, &elsewhere.signed_text());
    assert_eq!(outcome(peer.deliver(vec![elsewhere]).await).as_deref(), Some("message.not_for_me"));
    assert_eq!(received(&cell), 0, "nothing of it was journaled");
    assert_eq!(refused(&cell, "forged") as u64, 3);
    assert_eq!(refused(&cell, "message") as u64, 2);

    let message = peer.message("once");
    for _ in 0..5 {
        let twice = vec![message.clone(), message.clone()];
        let Taken::Taken { receipt, outcomes } = peer.deliver(twice).await else { panic!("refused") };
        assert_eq!(outcomes, vec![None, None]);
        assert!(receipt.expect("a receipt").signature_holds());
    }
    assert_eq!(received(&cell), 1, "a replay is acknowledged and taken once");
    let mut old = peer.message("old");
    old.timestamp_ms -= 3_600_000;
    old.expires_ms = old.timestamp_ms + 1_000;
    old.signature = signing::sign(&peer.key, &old.signed_text());
    assert_eq!(outcome(peer.deliver(vec![old]).await).as_deref(), Some("message.expired"));
}

#[actix_rt::test]
async fn a_stranger_may_introduce_itself_and_no_more() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "victim");
    cell.start();
    let mut peer = Peer::connect(69, &cell).await;
    let mut post = peer.message("a post");
    post.kind = MessageType::Post;
    post.body = br#"{"content":"x","tags":[]}"#.to_vec();
    post.signature = signing::sign(&peer.key, &post.signed_text());
    assert_eq!(outcome(peer.deliver(vec![post]).await).as_deref(), Some("message.not_allowed"));
    let mut codes = Vec::new();
    for number in 0..20 {
        let message = peer.message(&format!("let me in {number}"));
        codes.push(outcome(peer.deliver(vec![message]).await));
    }
    let taken = codes.iter().filter(|code| code.is_none()).count();
    assert!((1..=5).contains(&taken), "{taken} introductions were taken");
    assert_eq!(codes.last().cloned().flatten().as_deref(), Some("message.introductions_used_up"));
    assert_eq!(received(&cell), taken);
}

#[actix_rt::test]
async fn a_hostile_peer_keeps_nobody_from_being_served() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (alice, bob) = kit::pair(dir.path());
    let mut hostile = Peer::connect(70, &bob).await;
    let flood = actix_rt::spawn(async move {
        for _ in 0..200 {
            hostile.send(framed(REQUEST, &[0; 60_000])).await;
        }
    });
    let answer = actix_rt::task::spawn_blocking(move || {
        let send = ["message", "send", "--to", "bob", "--type", "CHAT", "--body", r#"{"text":"hi"}"#];
        let answer = alice.ok(&[send.as_slice(), &["--wait", "delivered"]].concat());
        until("bob is well", || bob.ok(&["status"])["readiness"]["state"] == "synced");
        (answer, alice, bob)
    });
    let (answer, _alice, _bob) = answer.await.expect("no panic");
    assert_eq!(answer["status"], "delivered");
    flood.await.expect("the flood ends");
}
