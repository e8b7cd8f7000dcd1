//! Who leads when hosts and links go and come.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::net::{Group, eventually, payloads};
use crate::quorum::Settings;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hosts_agree_on_one_that_leads_and_on_what_was_proposed() {
    let mut group = Group::of(3, Settings::default()).await;
    let said = payloads(0..20);
    for payload in &said {
        group.propose(payload).await;
    }
    group.agree_on(&said).await;
    let leader = group.leader().await;
    let id = group.hosts[leader].id;
    eventually("all hosts name the one that leads", || {
        group.hosts.iter().all(|host| host.quorum().leadership().borrow().leader == Some(id))
            || !group.hosts[leader].is_me()
    })
    .await;
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_leads_and_is_lost_is_replaced_with_all_that_was_committed() {
    let mut group = Group::of(3, Settings::default()).await;
    let mut said = payloads(0..10);
    for payload in &said {
        group.propose(payload).await;
    }
    let lost = group.leader().await;
    let term = group.hosts[lost].term();
    let since = Instant::now();
    group.isolate(lost);
    group.stop(lost).await;
    let next = group.leader().await;
    eprintln!("replaced after {:?}", since.elapsed());
    assert_ne!(next, lost);
    assert!(group.hosts[next].term() > term, "a term has one leader");
    for payload in payloads(10..20) {
        group.propose(&payload).await;
        said.push(payload);
    }
    group.agree_on(&said).await;
    group.heal();
    group.start(lost).await;
    group.agree_on(&said).await;
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_cut_off_has_begun_no_term() {
    let mut group = Group::of(3, Settings::default()).await;
    let leader = group.leader().await;
    let away = (leader + 1) % 3;
    group.isolate(away);
    let term = group.hosts[away].term();
    // It would have asked for votes several times: nobody grants even the wish.
    sleep(6 * group.settings.election_max).await;
    assert_eq!(group.hosts[away].term(), term);
    group.heal();
    group.propose("after").await;
    group.agree_on(&["after".to_owned()]).await;
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hears_nothing_but_is_heard_deposes_nobody() {
    // Long, so that a busy machine is not taken for a lost leader.
    let settings = Settings {
        heartbeat: Duration::from_millis(200),
        election_min: Duration::from_millis(1_500),
        election_max: Duration::from_millis(3_000),
        ..Settings::default()
    };
    let mut group = Group::of(3, settings).await;
    let leader = group.leader().await;
    let (deaf, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = group.hosts[leader].term();
    group.cut(leader, deaf);
    sleep(3 * group.settings.election_max).await;
    assert_eq!((group.hosts[leader].term(), group.hosts[other].term()), (term, term));
    assert!(group.hosts[leader].is_me() && group.hosts[leader].quorum().holds_lease());
    group.propose("meanwhile").await;
    group.heal();
    group.agree_on(&["meanwhile".to_owned()]).await;
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_hosts_start_again_from_their_disks() {
    let mut group = Group::of(3, Settings::default()).await;
    let mut said = payloads(0..10);
    for payload in &said {
        group.propose(payload).await;
    }
    group.agree_on(&said).await;
    for round in 0..3 {
        let term = group.hosts.iter().map(super::net::TestHost::term).max().expect("three");
        group.stop_all().await;
        for number in 0..3 {
            group.start(number).await;
        }
        let leader = group.leader().await;
        assert!(group.hosts[leader].term() > term, "each life that leads has a term of its own");
        let next = format!("after start {round}");
        group.propose(&next).await;
        said.push(next);
        // What was applied before is not handed over again: the notes would have refused it.
        group.agree_on(&said).await;
    }
    group.stop_all().await;
}
