//! Hosts that are admitted and removed; and what is refused.

use std::time::Duration;

use super::net::{Group, eventually, host_id, payloads};
use crate::quorum::{Member, Settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_admitted_and_removed() {
    let mut group = Group::of(3, Settings { compact_every: 8, entries_kept: 2, ..Settings::default() }).await;
    let said = payloads(0..40);
    for payload in &said {
        group.propose(payload).await;
    }
    group.add(3).await;
    group.admit(host_id(3)).await;
    group.admit(host_id(3)).await;
    group.agree_on(&said).await;
    let leader = group.leader().await;
    let members = group.hosts[leader].quorum().members();
    assert_eq!(
        members,
        (0..4).map(|number| Member { host: host_id(number), votes: true }).collect::<Vec<_>>()
    );

    let gone = (leader + 1) % 4;
    let itself = group.hosts[leader].quorum().remove(host_id(u8::try_from(leader).expect("small"))).await;
    assert_eq!(itself.expect_err("refused").code, "quorum.itself");
    let id = group.hosts[gone].id;
    loop {
        let leader = group.leader().await;
        if leader == gone {
            let to = group.hosts[(gone + 1) % 4].id;
            let _ = group.hosts[gone].quorum().hand_over(to).await;
            continue;
        }
        match group.hosts[leader].quorum().remove(id).await {
            Ok(()) => break,
            Err(problem) if problem.code == "quorum.unknown_host" => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let leader = group.leader_but(Some(gone)).await;
    assert_eq!(group.hosts[leader].quorum().members().len(), 3);
    group.stop(gone).await;
    // Three are left, and two of them are a majority.
    let second = (0..4).find(|host| ![leader, gone].contains(host)).expect("one");
    group.stop(second).await;
    group.propose("two of three").await;
    // Who the members are is known after a start, though the entries that said so are compacted away.
    for payload in payloads(40..80) {
        group.propose(&payload).await;
    }
    group.start(second).await;
    eventually("it knows", || group.hosts[second].quorum().members().len() == 3).await;
    group.stop_all().await;
    for host in (0..4).filter(|host| *host != gone) {
        group.start(host).await;
        assert_eq!(group.hosts[host].quorum().members().len(), 3, "host {host}");
    }
    group.propose("after all have started").await;
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_a_code() {
    let settings =
        Settings { payload_bytes_max: 100, members_max: 3, proposals_max: 0, ..Settings::default() };
    let mut group = Group { net: Default::default(), hosts: Vec::new(), settings };
    group.add(0).await;
    let host = group.hosts[0].quorum();
    let code = |result: Result<u64, protocol::Problem>| result.expect_err("refused").code.into_owned();
    assert_eq!(code(host.propose(vec![0; 10]).await), "quorum.busy");
    assert_eq!(code(host.propose(vec![0; 101]).await), "quorum.too_large");
    host.begin().await.expect("begins");
    assert_eq!(host.begin().await.expect_err("once").code, "quorum.begun");
    assert_eq!(host.remove(host_id(9)).await.expect_err("refused").code, "quorum.unknown_host");
    assert_eq!(host.hand_over(host_id(9)).await.expect_err("refused").code, "quorum.unknown_host");
    group.stop_all().await;

    let mut group = Group::of(3, Settings { members_max: 3, ..Settings::default() }).await;
    let leader = group.leader().await;
    let (id, other) = (group.hosts[leader].id, (leader + 1) % 3);
    let full = group.hosts[leader].quorum().admit(host_id(7)).await.expect_err("refused");
    assert!(["quorum.full", "bridge.not_leading"].contains(&&*full.code), "{full}");
    eventually("it knows who leads", || {
        group.hosts[other].quorum().leadership().borrow().leader == Some(id) || !group.hosts[leader].is_me()
    })
    .await;
    let elsewhere = group.hosts[other].quorum().propose(b"here".to_vec()).await;
    if group.hosts[leader].is_me() {
        let problem = elsewhere.expect_err("refused");
        assert_eq!(problem.code, "bridge.not_leading");
        assert!(problem.cause.contains(&id.to_string()), "{problem}");
    }
    group.stop(other).await;
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_speaks_for_itself() {
    use super::super::wire::{self, Answer, Ask};
    let mut group = Group::of(1, Settings::default()).await;
    let host = group.hosts[0].quorum();
    let vote = openraft::Vote::new(99, super::super::types::Voter(host_id(1)));
    let ask = wire::encode(&Ask::Vote(openraft::raft::VoteRequest::new(vote, None)));
    let code = |bytes: Vec<u8>| match wire::decode::<Answer>(&bytes).expect("an answer") {
        Answer::Refused(problem) => problem.code.into_owned(),
        answer => panic!("{answer:?}"),
    };
    assert_eq!(code(host.answer(host_id(2), &ask).await), "quorum.not_its_own");
    assert_eq!(code(host.answer(host_id(1), b"nonsense").await), "quorum.garbled");
    group.stop_all().await;
}
