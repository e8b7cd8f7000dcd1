//! Hosts that were away, and hosts that have lost something.

use super::net::{Group, eventually, payloads, start};
use crate::quorum::Settings;

fn compacting() -> Settings {
    Settings { compact_every: 16, entries_kept: 4, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_away_catches_up_by_entries() {
    let mut group = Group::of(3, Settings::default()).await;
    let away = (group.leader().await + 1) % 3;
    group.stop(away).await;
    let said = payloads(0..50);
    for payload in &said {
        group.propose(payload).await;
    }
    group.start(away).await;
    group.agree_on(&said).await;
    assert_eq!(group.hosts[away].notes.as_ref().map(|notes| notes.restored()), Some(0));
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut group = Group::of(3, compacting()).await;
    let mut said = payloads(0..5);
    for payload in &said {
        group.propose(payload).await;
    }
    let away = (group.leader().await + 1) % 3;
    group.stop(away).await;
    // More than one piece.
    for payload in payloads(5..100) {
        let payload = format!("{payload} {}", "x".repeat(20_000));
        group.propose(&payload).await;
        said.push(payload);
    }
    group.start(away).await;
    group.agree_on(&said).await;
    let restored = |group: &Group| group.hosts[away].notes.as_ref().map_or(0, |notes| notes.restored());
    assert_eq!(restored(&group), 1, "it was no longer in anybody's log");
    // It goes on from there, after a start as well.
    group.propose("more").await;
    said.push("more".to_owned());
    group.stop(away).await;
    group.start(away).await;
    group.agree_on(&said).await;
    assert_eq!(restored(&group), 1);
    group.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_log_is_small_and_starts_again() {
    let mut group = Group::of(1, compacting()).await;
    let said = payloads(0..200);
    for payload in &said {
        group.propose(payload).await;
    }
    let kept = |group: &Group| group.hosts[0].quorum().log.clone();
    eventually("it is compacted", || kept(&group).purged().is_some_and(|purged| purged.index > 150)).await;
    group.stop(0).await;
    group.start(0).await;
    group.propose("more").await;
    let said: Vec<String> = said.into_iter().chain(["more".to_owned()]).collect();
    group.agree_on(&said).await;
    group.stop_all().await;
}

#[tokio::test]
async fn a_host_whose_log_or_state_is_older_than_the_other_does_not_start() {
    let mut group = Group::of(1, compacting()).await;
    for payload in payloads(0..60) {
        group.propose(&payload).await;
    }
    let log = group.hosts[0].quorum().log.clone();
    eventually("it is compacted", || log.purged().is_some()).await;
    group.stop_all().await;
    let (id, dir) = (group.hosts[0].id, group.hosts[0].dir.path().to_owned());
    let refused = || async {
        let (_, quorum) = start(id, &dir, &group.net, &group.settings).await;
        quorum.err().map(|problem| problem.code.into_owned())
    };
    std::fs::rename(dir.join("notes.json"), dir.join("notes.kept")).expect("is there");
    assert_eq!(refused().await.as_deref(), Some("quorum.state_short"));
    std::fs::rename(dir.join("notes.kept"), dir.join("notes.json")).expect("is there");
    std::fs::rename(dir.join("quorum"), dir.join("quorum.kept")).expect("is there");
    assert_eq!(refused().await.as_deref(), Some("quorum.log_short"));
    std::fs::remove_dir_all(dir.join("quorum")).expect("was made");
    std::fs::rename(dir.join("quorum.kept"), dir.join("quorum")).expect("is there");
    assert_eq!(refused().await, None);
}
