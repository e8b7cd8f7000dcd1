//! The rules of Nucleus.

use machine::testing::Bench;
use nucleus::{NucleusMachine, hash_token};
use protocol::nucleus::{
    AdmitHostRequest, Answer, AuthoriseRequest, ConfigureRequest, CreateTokenRequest, CreatedToken,
    GrantRequest, GrantView, HostEntry, HostName, InvitationRequest, JournalHead, JournalKey, Manifest,
    Request, RestoredRequest, TokenName,
};
use protocol::shared::{Empty, ListRequest};
use protocol::{Access, CellId, GenesisHash, Hash, HostId, Service};

fn bench() -> Bench<NucleusMachine> {
    bench_with(vec![])
}

fn bench_with(journals: Vec<JournalKey>) -> Bench<NucleusMachine> {
    let mut bench = Bench::new(NucleusMachine);
    let manifest = Manifest {
        cell: CellId::from_bytes([1; 32]),
        name: "a".into(),
        genesis: GenesisHash::ZERO,
        journals,
    };
    bench.ask(Request::Initialise(manifest)).expect("initialises");
    bench
}

fn create(
    bench: &mut Bench<NucleusMachine>,
    name: &str,
    role: Access,
    ttl_s: Option<u64>,
) -> Result<CreatedToken, String> {
    let request = Request::CreateToken(CreateTokenRequest { name: name.into(), role, ttl_s });
    match bench.ask(request) {
        Ok(Answer::CreateToken(token)) => Ok(token),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => Err(problem.code.into_owned()),
    }
}

fn authorise(bench: &mut Bench<NucleusMachine>, token: &str) -> Result<Access, String> {
    match bench.ask(Request::Authorise(AuthoriseRequest { hash: hash_token(token) })) {
        Ok(Answer::Authorise(authorised)) => Ok(authorised.role),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => Err(problem.code.into_owned()),
    }
}

/// Each life's journals follow those of the one before, and cite them.
#[test]
fn a_life_follows_the_one_before_it() {
    let key = |service: Service, generation: u32| JournalKey {
        service,
        key: Hash::of(format!("{service} {generation}").as_bytes()),
        generation,
    };
    let journals = |generation| Service::ALL.map(|service| key(service, generation)).to_vec();
    let head = |JournalKey { service, key, .. }: JournalKey| JournalHead {
        service,
        key,
        fork: 0,
        length: 7,
        tree_hash: Hash::ZERO,
    };
    let heads = |generation| journals(generation).into_iter().map(head).collect::<Vec<_>>();
    let mut bench = Bench::new(NucleusMachine);
    let manifest = Manifest {
        cell: CellId::from_bytes([1; 32]),
        name: "a".into(),
        genesis: GenesisHash::ZERO,
        journals: journals(0),
    };
    bench.ask(Request::Initialise(manifest)).expect("initialises");
    let mut restored = |generation, journals, heads| {
        bench.ask(Request::Restored(RestoredRequest { generation, journals, heads })).map_err(|no| no.code)
    };
    let refused = Err("nucleus.not_restored".into());
    assert_eq!(restored(2, journals(2), heads(0)), refused, "a life was left out");
    assert_eq!(restored(1, journals(0), heads(0)), refused, "the same journals");
    assert_eq!(restored(1, journals(1), heads(1)), refused, "others are cited");
    assert_eq!(restored(1, journals(1)[1..].to_vec(), heads(0)), refused, "one is missing");
    assert_eq!(restored(1, journals(1), heads(0)), Ok(Answer::Restored(Empty {})));
    assert_eq!(restored(1, journals(1), heads(0)), refused, "it has begun");
    assert_eq!(restored(2, journals(2), heads(1)), Ok(Answer::Restored(Empty {})));
    match bench.ask(Request::GetManifest(Empty {})) {
        Ok(Answer::GetManifest(manifest)) => assert_eq!(manifest.journals, journals(2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_works_before_the_manifest() {
    let mut bench = Bench::new(NucleusMachine);
    let problem = bench.ask(Request::GetManifest(Empty {})).expect_err("no manifest");
    assert_eq!(problem.code, "nucleus.not_initialised");
}

#[test]
fn a_token_works_until_it_expires_or_is_revoked() {
    let mut bench = bench();
    let admin = create(&mut bench, "admin", Access::Admin, None).expect("creates");
    let short = create(&mut bench, "short", Access::Read, Some(10)).expect("creates");
    assert_eq!(authorise(&mut bench, &admin.token), Ok(Access::Admin));
    assert_eq!(authorise(&mut bench, &short.token), Ok(Access::Read));
    assert_eq!(authorise(&mut bench, "cell_guess"), Err("nucleus.bad_token".into()));
    bench.now_ms += 10_000;
    assert_eq!(authorise(&mut bench, &short.token), Err("nucleus.token_expired".into()));
    assert_eq!(create(&mut bench, "admin", Access::Read, None).expect_err("exists"), "nucleus.token_exists");
    let revoke = |name: &str| Request::RevokeToken(TokenName { name: name.into() });
    assert_eq!(bench.ask(revoke("admin")).expect_err("the last").code, "nucleus.last_admin");
    create(&mut bench, "other", Access::Admin, None).expect("creates");
    bench.ask(revoke("admin")).expect("revokes");
    assert_eq!(authorise(&mut bench, &admin.token), Err("nucleus.token_revoked".into()));
    create(&mut bench, "admin", Access::Read, None).expect("the name is free again");
    assert_eq!(authorise(&mut bench, &admin.token), Err("nucleus.token_revoked".into()));
    assert!(
        !bench
            .journal
            .iter()
            .any(|entry| entry.windows(20).any(|part| part == &admin.token.as_bytes()[..20]))
    );
}

#[test]
fn bad_tokens_are_refused() {
    let mut bench = bench();
    for (name, ttl_s, code) in [
        ("", None, "nucleus.bad_token_name"),
        ("a b", None, "nucleus.bad_token_name"),
        ("a", Some(0), "nucleus.bad_ttl"),
    ] {
        assert_eq!(create(&mut bench, name, Access::Read, ttl_s).expect_err(code), code);
    }
}

fn grant_of(host: &str) -> Request {
    let host = host.to_owned();
    Request::Grant(GrantRequest {
        service: Service::State,
        host,
        replicated: false,
        takeover: false,
        new_key: None,
    })
}

/// The terms are part of the grant: a writer that was granted a journal on other terms is another writer.
#[test]
fn an_epoch_rises_with_other_terms_and_with_each_takeover() {
    let mut bench = bench();
    let mut grant = |replicated, takeover| {
        let (service, host) = (Service::State, "first".into());
        let asked = GrantRequest { service, host, replicated, takeover, new_key: None };
        match bench.ask(Request::Grant(asked)) {
            Ok(Answer::Grant(grant)) => grant,
            other => panic!("{other:?}"),
        }
    };
    let epochs = [(false, false), (true, false), (true, false), (true, true), (true, true), (false, false)];
    let epochs = epochs.map(|(replicated, takeover)| grant(replicated, takeover).epoch);
    assert_eq!(epochs, [1, 2, 2, 3, 4, 5]);
    let Ok(Answer::GetRoster(roster)) = bench.ask(Request::GetRoster(Empty {})) else { panic!("a roster") };
    let last = GrantView {
        service: Service::State,
        host: "first".into(),
        epoch: 5,
        replicated: false,
        takeover: false,
        key_number: 0,
        known_to: Vec::new(),
    };
    assert_eq!((roster.grants, roster.number > 0), (vec![last], true));
    let (live, replayed) = bench.replay();
    assert_eq!(live, replayed);
}

#[test]
fn an_epoch_rises_only_when_the_writer_changes() {
    let mut bench = bench();
    let invitation = InvitationRequest { secret_hash: Hash::of(b"1"), ttl_s: 60, may_lead: false };
    bench.ask(Request::Invite(invitation)).expect("invites");
    let admission = AdmitHostRequest { secret_hash: Hash::of(b"1"), host: host("b", 2) };
    bench.ask(Request::AdmitHost(admission)).expect("admits");
    let mut grant = |host: &str| match bench.ask(grant_of(host)) {
        Ok(Answer::Grant(grant)) => grant.epoch,
        other => panic!("{other:?}"),
    };
    assert_eq!([grant("first"), grant("first"), grant("b"), grant("first")], [1, 1, 2, 3]);
}

#[test]
fn a_replay_builds_the_same_view() {
    let mut bench = bench();
    create(&mut bench, "admin", Access::Admin, None).expect("creates");
    for settings in ["a", "a", "b"] {
        let request = ConfigureRequest { hash: Hash::of(settings.as_bytes()), settings: settings.into() };
        bench.ask(Request::Configure(request)).expect("configures");
    }
    match bench.ask(Request::Config(ListRequest::default())) {
        Ok(Answer::Config(page)) => {
            assert_eq!(page.items.iter().map(|item| item.version).collect::<Vec<_>>(), [2, 1])
        }
        other => panic!("{other:?}"),
    }
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

fn host(name: &str, key: u8) -> HostEntry {
    HostEntry {
        name: name.into(),
        key: HostId::from_bytes([key; 32]),
        addresses: vec![],
        services: vec![],
        may_lead: false,
    }
}

fn code(result: Result<Answer, protocol::Problem>) -> String {
    result.expect_err("refused").code.into_owned()
}

/// DESIGN §6: hosts are admitted by a ticket, once, and known by key.
#[test]
fn a_ticket_admits_one_host_before_it_expires() {
    let mut bench = bench();
    let ticket = |number: u8| Hash::of(&[number]);
    let admit =
        |ticket: Hash, host: HostEntry| Request::AdmitHost(AdmitHostRequest { secret_hash: ticket, host });
    for number in [1, 2] {
        bench
            .ask(Request::Invite(InvitationRequest {
                secret_hash: ticket(number),
                ttl_s: 60,
                may_lead: false,
            }))
            .expect("invites");
    }
    assert_eq!(code(bench.ask(admit(ticket(9), host("b", 2)))), "nucleus.bad_ticket");
    assert_eq!(code(bench.ask(admit(ticket(1), host("a b", 2)))), "nucleus.bad_host_name");
    bench.ask(admit(ticket(1), host("b", 2))).expect("admits");
    bench.ask(admit(ticket(1), host("b", 2))).expect("the same host may ask again");
    assert_eq!(code(bench.ask(admit(ticket(1), host("c", 3)))), "nucleus.ticket_used");
    assert_eq!(code(bench.ask(admit(ticket(2), host("b", 3)))), "nucleus.host_exists");
    bench.now_ms += 60_000;
    assert_eq!(code(bench.ask(admit(ticket(2), host("c", 3)))), "nucleus.ticket_expired");
    let (live, replayed) = bench.replay();
    assert_eq!(live, replayed);
}

#[test]
fn a_removed_host_is_never_admitted_again_and_a_writer_is_not_removed() {
    let mut bench = bench();
    let invite = |number: u8| {
        Request::Invite(InvitationRequest { secret_hash: Hash::of(&[number]), ttl_s: 60, may_lead: false })
    };
    let admit = |number: u8, host: HostEntry| {
        Request::AdmitHost(AdmitHostRequest { secret_hash: Hash::of(&[number]), host })
    };
    let grant = grant_of;
    for number in [1, 2] {
        bench.ask(invite(number)).expect("invites");
    }
    assert_eq!(code(bench.ask(grant("b"))), "nucleus.unknown_host");
    bench.ask(admit(1, host("b", 2))).expect("admits");
    bench.ask(grant("first")).expect("grants");
    let moved = bench.ask(grant("b")).expect("grants");
    let Answer::Grant(moved) = moved else { panic!("a grant") };
    assert_eq!((moved.service, moved.epoch), (Service::State, 2));
    let drop = Request::DropHost(HostName { host: "b".into() });
    assert_eq!(code(bench.ask(drop.clone())), "nucleus.host_holds_journal");
    bench.ask(grant("first")).expect("grants");
    bench.ask(drop.clone()).expect("removes");
    assert_eq!(code(bench.ask(drop)), "nucleus.unknown_host");
    assert_eq!(code(bench.ask(admit(2, host("c", 2)))), "nucleus.host_revoked");
    assert_eq!(code(bench.ask(grant("b"))), "nucleus.unknown_host");
    let Ok(Answer::GetRoster(roster)) = bench.ask(Request::GetRoster(Empty {})) else { panic!("a roster") };
    assert_eq!((roster.hosts.len(), roster.grants.len()), (0, 1));
    assert_eq!((roster.grants[0].host.as_str(), roster.grants[0].epoch), ("first", 3));
    let (live, replayed) = bench.replay();
    assert_eq!(live, replayed);
}

/// DESIGN §9, rule 9: whoever was given a journal's key could go on signing.
#[test]
fn it_is_known_which_hosts_were_given_the_key_that_signs_a_journal() {
    let first = JournalKey { service: Service::State, key: Hash::of(b"the first key"), generation: 0 };
    let mut bench = bench_with(vec![first]);
    let ticket = |number: u8| Hash::of(&[number]);
    for (number, may_lead) in [(1, false), (2, false), (3, true)] {
        let invitation = InvitationRequest { secret_hash: ticket(number), ttl_s: 60, may_lead };
        bench.ask(Request::Invite(invitation)).expect("invites");
    }
    for (number, name) in [(1, "b"), (2, "c"), (3, "d")] {
        let host = host(name, number);
        let admission = AdmitHostRequest { secret_hash: ticket(number), host };
        bench.ask(Request::AdmitHost(admission)).expect("admits");
    }
    let grant = |bench: &mut Bench<NucleusMachine>, host: &str, new_key: Option<Hash>| {
        let (service, host) = (Service::State, host.to_owned());
        let asked = GrantRequest { service, host, replicated: false, takeover: false, new_key };
        match bench.ask(Request::Grant(asked)) {
            Ok(Answer::Grant(GrantView { epoch, key_number, known_to, .. })) => {
                (epoch, key_number, known_to.iter().map(|key| key.as_bytes()[0]).collect::<Vec<u8>>())
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(grant(&mut bench, "first", None), (1, 0, vec![]));
    assert_eq!(grant(&mut bench, "b", None), (2, 0, vec![1]));
    assert_eq!(grant(&mut bench, "c", None), (3, 0, vec![1, 2]));
    assert_eq!(grant(&mut bench, "d", None), (4, 0, vec![1, 2]), "who may lead has all keys");
    assert_eq!(grant(&mut bench, "first", None), (5, 0, vec![1, 2]));
    bench.ask(Request::DropHost(HostName { host: "b".into() })).expect("removes");
    assert_eq!(grant(&mut bench, "first", None), (5, 0, vec![1, 2]), "it knows the key all the same");
    let key = Hash::of(b"the next key");
    assert_eq!(grant(&mut bench, "first", Some(key)), (6, 1, vec![]));
    assert_eq!(grant(&mut bench, "first", Some(key)), (6, 1, vec![]), "its answer may have been lost");
    assert_eq!(grant(&mut bench, "c", None), (7, 1, vec![2]));
    let Ok(Answer::GetManifest(manifest)) = bench.ask(Request::GetManifest(Empty {})) else {
        panic!("a manifest")
    };
    let of_state = manifest.journals.iter().find(|journal| journal.service == Service::State);
    assert_eq!(of_state.map(|journal| journal.key), Some(key));
    let (live, replayed) = bench.replay();
    assert_eq!(live, replayed);
}

/// Its journals are others than those that the hosts of the life before have.
#[test]
fn a_restored_cell_begins_on_one_host() {
    let mut bench = bench();
    let invitation = InvitationRequest { secret_hash: Hash::of(b"1"), ttl_s: 60, may_lead: false };
    bench.ask(Request::Invite(invitation)).expect("invites");
    let admission = AdmitHostRequest { secret_hash: Hash::of(b"1"), host: host("b", 2) };
    bench.ask(Request::AdmitHost(admission)).expect("admits");
    bench.ask(grant_of("b")).expect("grants");
    let (service, host) = (Service::State, "b".into());
    let new_key = Some(Hash::of(b"the next key"));
    let asked = GrantRequest { service, host, replicated: false, takeover: false, new_key };
    bench.ask(Request::Grant(asked)).expect("grants");
    let restored = RestoredRequest { generation: 1, journals: vec![], heads: vec![] };
    bench.ask(Request::Restored(restored)).expect("begins anew");
    let Ok(Answer::GetRoster(roster)) = bench.ask(Request::GetRoster(Empty {})) else { panic!("a roster") };
    assert!(roster.hosts.is_empty());
    let grant = &roster.grants[0];
    assert_eq!((grant.host.as_str(), grant.epoch), ("first", 3));
    assert_eq!((grant.key_number, grant.known_to.len()), (0, 0), "a life's keys are its own");
    let (live, replayed) = bench.replay();
    assert_eq!(live, replayed);
}
