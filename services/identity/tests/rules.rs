//! The rules of Identity.

use identity::{IdentityMachine, Settings};
use machine::testing::Bench;
use protocol::CellId;
use protocol::identity::{
    AddContactRequest, AdmissionRequest, Answer, ChallengeRequest, Contact, ObserveRequest,
    OpenSessionRequest, Request, SessionRequest, SetAccessRequest, TrustView, Who,
};
use protocol::message::MessageType;

fn cell(number: u8) -> CellId {
    CellId::from_bytes([number; 32])
}

fn bench() -> Bench<IdentityMachine> {
    Bench::new(IdentityMachine { cell: cell(1), settings: Settings::default() })
}

fn contact(number: u8, name: Option<&str>) -> AddContactRequest {
    AddContactRequest {
        cell: cell(number),
        name: name.map(str::to_owned),
        addresses: vec!["/ip4/127.0.0.1/tcp/1".into()],
        may: None,
        exec: None,
        journals: None,
    }
}

fn code(result: Result<Answer, protocol::Problem>) -> String {
    result.expect_err("refused").code.into_owned()
}

#[test]
fn contacts_are_found_by_id_and_name_and_may_chat_by_default() {
    let mut bench = bench();
    bench.ask(Request::AddContact(contact(2, Some("bob")))).expect("adds");
    for who in [cell(2).to_string(), "bob".to_owned()] {
        match bench.ask(Request::Resolve(Who { who })) {
            Ok(Answer::Resolve(Contact { cell: found, may, .. })) => {
                assert_eq!((found, may), (cell(2), vec![MessageType::Chat, MessageType::Auth]));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(code(bench.ask(Request::AddContact(contact(3, Some("bob"))))), "identity.name_taken");
    assert_eq!(code(bench.ask(Request::AddContact(contact(3, Some("did:key:x"))))), "identity.bad_name");
    assert_eq!(code(bench.ask(Request::AddContact(contact(1, None)))), "identity.self");
    assert_eq!(code(bench.ask(Request::Resolve(Who { who: "eve".into() }))), "identity.unknown_contact");
    let bad = AddContactRequest { addresses: vec!["example.org".into()], ..contact(4, None) };
    assert_eq!(code(bench.ask(Request::AddContact(bad))), "identity.bad_address");
    let access = |action: &str| {
        Request::SetAccess(SetAccessRequest {
            who: "bob".into(),
            may: vec![MessageType::Exec],
            exec: vec![action.into()],
            journals: vec![protocol::Service::Message],
        })
    };
    assert_eq!(code(bench.ask(access("message.enqueue"))), "identity.unknown_action");
    bench.ask(access("state.get")).expect("sets");
    match bench.ask(Request::Admit(AdmissionRequest { cell: cell(2) })) {
        Ok(Answer::Admit(admission)) => assert_eq!(admission.may, [MessageType::Exec]),
        other => panic!("{other:?}"),
    }
    bench.ask(Request::RemoveContact(Who { who: "bob".into() })).expect("removes");
    bench.ask(Request::AddContact(contact(3, Some("bob")))).expect("the name is free again");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

fn trust(bench: &mut Bench<IdentityMachine>) -> TrustView {
    match bench.ask(Request::TrustIn(Who { who: cell(2).to_string() })) {
        Ok(Answer::TrustIn(view)) => view,
        other => panic!("{other:?}"),
    }
}

#[test]
fn trust_counts_after_five_shared_messages_and_decays() {
    let mut bench = bench();
    let observe = |bench: &mut Bench<IdentityMachine>, shown, matching, shared| {
        bench
            .ask(Request::Observe(ObserveRequest { cell: cell(2), shown, matching, shared }))
            .expect("observes");
        trust(bench)
    };
    assert_eq!(observe(&mut bench, 0, 0, 1).trust_ppm, None);
    assert_eq!(observe(&mut bench, 4, 4, 4).trust_ppm, None);
    assert_eq!(observe(&mut bench, 5, 5, 5).trust_ppm, Some(190_000));
    let forged = observe(&mut bench, 5, 3, 6);
    assert_eq!((forged.trust_ppm, forged.verified), (Some(171_000), false));
    bench.now_ms += Settings::default().half_life_ms;
    assert_eq!(trust(&mut bench).trust_ppm, Some(85_500));
}

#[test]
fn a_challenge_is_used_once_and_expires() {
    let mut bench = bench();
    let challenge = |bench: &mut Bench<IdentityMachine>| match bench
        .ask(Request::IssueChallenge(ChallengeRequest { cell: cell(2) }))
    {
        Ok(Answer::IssueChallenge(challenge)) => challenge.nonce,
        other => panic!("{other:?}"),
    };
    let open = |nonce| Request::OpenSession(OpenSessionRequest { cell: cell(2), nonce });
    let nonce = challenge(&mut bench);
    let session = match bench.ask(open(nonce)) {
        Ok(Answer::OpenSession(session)) => session,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(bench.ask(open(nonce))), "identity.bad_challenge");
    let late = challenge(&mut bench);
    bench.now_ms += 60_000;
    assert_eq!(code(bench.ask(open(late))), "identity.challenge_expired");
    let hash = protocol::Hash::of(session.bearer.as_bytes());
    bench.ask(Request::Session(SessionRequest { hash })).expect("lives");
    bench.now_ms += 3_600_000;
    assert_eq!(code(bench.ask(Request::Session(SessionRequest { hash }))), "identity.session_expired");
    let hash = protocol::Hash::of(b"guess");
    assert_eq!(code(bench.ask(Request::Session(SessionRequest { hash }))), "identity.bad_session");
}
