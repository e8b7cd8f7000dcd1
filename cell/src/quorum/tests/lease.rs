//! While a host holds the lease, no other leads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::net::{self, Group, TestHost, host_id};
use crate::quorum::{Quorum, Settings};

/// Waits until one of `others` is elected; fails if `old` holds the lease at or after that moment.
async fn wait_for_next(old: &Quorum, others: &[&TestHost]) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        // In this order: what is seen second is seen later.
        let elected = others.iter().any(|host| host.is_elected());
        let held = old.holds_lease();
        assert!(!(elected && held), "two lead");
        if elected {
            return;
        }
        assert!(Instant::now() < until, "nobody is elected");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_leads_and_is_cut_off_commits_nothing_and_loses_the_lease_first() {
    let mut group = Group::of(3, Settings::default()).await;
    group.propose("before").await;
    for round in 0..3 {
        let cut_off = group.leader().await;
        let old = Arc::clone(group.hosts[cut_off].quorum());
        group.isolate(cut_off);
        let doomed = {
            let old = Arc::clone(&old);
            tokio::spawn(async move { old.propose(b"lost".to_vec()).await })
        };
        let others: Vec<&TestHost> =
            (0..3).filter(|host| *host != cut_off).map(|host| &group.hosts[host]).collect();
        wait_for_next(&old, &others).await;
        let refused = old.propose(b"lost".to_vec()).await.expect_err("no majority");
        assert_eq!(refused.code, "quorum.no_majority");
        assert!(old.lease_left().is_none());
        let now = format!("round {round}");
        group.propose_but(Some(cut_off), &now).await;
        group.heal();
        let outcome = doomed.await.expect("no panic").expect_err("it cannot be committed");
        assert!(
            ["quorum.unknown_outcome", "bridge.not_leading", "quorum.no_majority"].contains(&&*outcome.code),
            "{outcome}"
        );
        net::eventually("the one that was cut off follows", || {
            group.hosts[cut_off].payloads().contains(&now)
        })
        .await;
    }
    assert!(group.hosts.iter().all(|host| !host.payloads().contains(&"lost".to_owned())));
    group.stop_all().await;
}

/// A host that has forgotten whom it followed must not vote before that one's lease is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_start_again_keep_the_promise_they_have_forgotten() {
    let settings = Settings {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(2_000),
        ..Settings::default()
    };
    let mut group = Group::of(3, settings).await;
    for _ in 0..3 {
        let leader = group.leader().await;
        net::eventually("it holds the lease", || group.hosts[leader].quorum().holds_lease()).await;
        let old = Arc::clone(group.hosts[leader].quorum());
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        group.isolate(leader);
        for other in others {
            group.stop(other).await;
            group.start(other).await;
        }
        wait_for_next(&old, &others.map(|other| &group.hosts[other])).await;
        group.heal();
        group.propose("and on").await;
    }
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hands_over_has_no_lease_from_then_on() {
    let mut group = Group::of(3, Settings::default()).await;
    for _ in 0..3 {
        let leader = group.leader().await;
        let (to, third) = ((leader + 1) % 3, (leader + 2) % 3);
        let (old, id) = (Arc::clone(group.hosts[leader].quorum()), group.hosts[to].id);
        // It is not told what becomes of it.
        group.cut(to, leader);
        group.cut(third, leader);
        let handing = tokio::spawn(async move { old.hand_over(id).await });
        wait_for_next(group.hosts[leader].quorum(), &[&group.hosts[to], &group.hosts[third]]).await;
        group.heal();
        handing.await.expect("no panic").expect("is taken over");
        group.propose("next").await;
    }
    group.stop_all().await;
}

/// A host on a thread of its own, which can be stopped as a process is.
struct Frozen {
    quorum: Arc<Quorum>,
    freeze: mpsc::Sender<(Duration, oneshot::Sender<bool>)>,
}

impl Frozen {
    /// Starts host 0 of a group there.
    async fn start(group: &mut Group) -> Self {
        let (net, settings, host) = (Arc::clone(&group.net), group.settings.clone(), &group.hosts[0]);
        let (id, dir) = (host.id, host.dir.path().to_owned());
        let (freeze, mut frozen) = mpsc::channel::<(Duration, oneshot::Sender<bool>)>(1);
        let (started, start) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let (notes, quorum) = net::start(id, &dir, &net, &settings).await;
                let quorum = Arc::new(quorum.expect("starts"));
                let _ = started.send((notes, Arc::clone(&quorum)));
                while let Some((time, woken)) = frozen.recv().await {
                    std::thread::sleep(time);
                    // The first thing that it does: nothing else of it has run.
                    let _ = woken.send(quorum.holds_lease());
                }
            });
        });
        let (notes, quorum) = start.await.expect("starts");
        group.put(0, notes, Arc::clone(&quorum));
        Self { quorum, freeze }
    }

    /// Stops it for a time; whether it believes to hold the lease when it wakes.
    async fn freeze(&self, time: Duration) -> bool {
        let (woken, wakes) = oneshot::channel();
        self.freeze.send((time, woken)).await.expect("it runs");
        wakes.await.expect("it wakes")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_wakes_without_the_lease() {
    let mut group = Group::of(3, Settings::default()).await;
    group.stop(0).await;
    let frozen = Frozen::start(&mut group).await;
    let mut times = 0;
    let until = Instant::now() + Duration::from_secs(60);
    while times < 2 {
        assert!(Instant::now() < until, "the first host does not come to lead");
        let leader = group.leader().await;
        if leader != 0 {
            let _ = group.hosts[leader].quorum().hand_over(host_id(0)).await;
        } else if frozen.quorum.holds_lease() {
            assert!(!frozen.freeze(group.settings.election_max).await, "somebody else may lead by now");
            times += 1;
        }
        sleep(Duration::from_millis(5)).await;
    }
    group.propose("after").await;
    group.agree_on(&["after".to_owned()]).await;
    group.stop_all().await;
}

#[tokio::test]
async fn a_host_alone_holds_the_lease_at_once_after_each_start() {
    let mut group = Group::of(1, Settings::default()).await;
    let mut terms = Vec::new();
    for _ in 0..3 {
        let leader = group.leader().await;
        assert_eq!(group.hosts[leader].quorum().lease_left(), Some(Duration::MAX));
        terms.push(group.hosts[0].term());
        group.propose("alone").await;
        group.stop(0).await;
        group.start(0).await;
    }
    assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
    group.stop_all().await;
}
