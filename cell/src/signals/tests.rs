use super::listener::QUEUE;
use super::*;
use protocol::signal::Heard;
use serde_json::json;
use std::collections::BTreeSet;

fn signal(name: &str, body: u64) -> Signal {
    Signal { name: name.to_owned(), body: json!(body), key: None, from: "token:me".to_owned(), time_ms: 1 }
}

fn keyed(key: &str) -> Signal {
    Signal { key: Some(key.to_owned()), ..signal("job", 0) }
}

/// A listener that has begun.
async fn listens(signals: &Signals, names: &str, group: Option<&str>) -> Items {
    listens_at(signals, None, names, group).await
}

/// The same, on a host.
async fn listens_at(signals: &Signals, host: Option<HostId>, names: &str, group: Option<&str>) -> Items {
    let request = ListenRequest { names: Some(names.to_owned()), group: group.map(str::to_owned) };
    let mut items = signals.listen(request, host).expect("listens");
    assert_eq!(line(&mut items).await, Heard { missed: 0, signal: None });
    items
}

async fn line(items: &mut Items) -> Heard {
    let line = items.next().await.expect("a line").expect("it goes on");
    serde_json::from_slice(&line).expect("JSON")
}

/// The bodies that wait.
async fn bodies(items: &mut Items) -> Vec<u64> {
    // A task that has done much is told to wait where there is nothing to wait for.
    tokio::task::yield_now().await;
    let mut bodies = Vec::new();
    while let std::task::Poll::Ready(Some(Ok(line))) = futures_util::poll!(items.next()) {
        let heard: Heard = serde_json::from_slice(&line).expect("JSON");
        bodies.push(heard.signal.expect("a signal").body.as_u64().expect("a number"));
    }
    bodies
}

#[tokio::test]
async fn one_of_a_group_hears_what_is_emitted_and_all_what_is_broadcast() {
    let signals = Signals::default();
    let (mut one, mut two) = (
        listens(&signals, "job", Some("workers")).await,
        listens(&signals, "job.*,job", Some("workers")).await,
    );
    let (mut other, mut alone) =
        (listens(&signals, "*", Some("others")).await, listens(&signals, "", None).await);
    let mut deaf = listens(&signals, "jo.*,jobs", None).await;
    for body in 0..4 {
        let told = signals.emit(signal("job", body), Balance::RoundRobin).expect("told");
        assert_eq!(told, Told { listeners: 3, missed: 0 });
    }
    let (of_one, of_two) = (bodies(&mut one).await, bodies(&mut two).await);
    assert_eq!((of_one.len(), of_two.len()), (2, 2), "in turns");
    assert_eq!([of_one, of_two].concat().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(bodies(&mut other).await, [0, 1, 2, 3]);
    assert_eq!(bodies(&mut alone).await, [0, 1, 2, 3]);
    let told = signals.broadcast(signal("job", 9)).expect("told");
    assert_eq!(told, Told { listeners: 4, missed: 0 });
    for items in [&mut one, &mut two, &mut other, &mut alone] {
        assert_eq!(bodies(items).await, [9]);
    }
    assert_eq!(bodies(&mut deaf).await, [0u64; 0]);
}

#[tokio::test]
async fn a_key_stays_with_its_listener_and_goes_to_the_next_when_that_is_gone() {
    let signals = Signals::default();
    let mut group = Vec::new();
    for _ in 0..3 {
        group.push(listens(&signals, "job", Some("workers")).await);
    }
    let mut heard_by = Vec::new();
    for key in 0..30 {
        for _ in 0..2 {
            signals.emit(keyed(&key.to_string()), Balance::RoundRobin).expect("told");
        }
        let mut counts = Vec::new();
        for items in &mut group {
            counts.push(bodies(items).await.len());
        }
        heard_by.push(counts.iter().position(|count| *count == 2).expect("both by one"));
    }
    assert_eq!(heard_by.iter().collect::<BTreeSet<_>>().len(), 3, "keys are spread");
    drop(group.pop());
    for (key, before) in heard_by.into_iter().enumerate() {
        signals.emit(keyed(&key.to_string()), Balance::RoundRobin).expect("told");
        let mut now = Vec::new();
        for items in &mut group {
            now.push(bodies(items).await.len());
        }
        let now = now.iter().position(|count| *count == 1).expect("somebody hears it");
        assert!(before == 2 || before == now, "only keys of the one that left move");
    }
}

#[tokio::test]
async fn who_is_busy_gets_less_and_who_does_not_keep_up_is_told_what_it_missed() {
    let signals = Signals::default();
    let (mut slow, mut fast) =
        (listens(&signals, "job", Some("workers")).await, listens(&signals, "job", Some("workers")).await);
    for body in 0..40 {
        signals.emit(signal("job", body), Balance::LeastLoad).expect("told");
        bodies(&mut fast).await;
    }
    assert!(bodies(&mut slow).await.len() < 10, "most went to the one that has nothing to do");
    // In turns both get the same, until one is full: then the other gets all.
    for body in 0..4 * QUEUE as u64 {
        let told = signals.emit(signal("job", body), Balance::RoundRobin).expect("told");
        assert_eq!(told, Told { listeners: 1, missed: 0 });
        bodies(&mut fast).await;
    }
    for _ in 0..QUEUE {
        signals.broadcast(signal("job", 0)).expect("told");
        bodies(&mut fast).await;
    }
    assert_eq!(signals.broadcast(signal("job", 0)).expect("told"), Told { listeners: 1, missed: 1 });
    drop(fast);
    assert_eq!(
        signals.emit(signal("job", 0), Balance::LeastLoad).expect("told"),
        Told { listeners: 0, missed: 1 }
    );
    assert_eq!(line(&mut slow).await.missed, QUEUE as u64 + 2);
    assert_eq!(line(&mut slow).await.missed, 0, "said once");
}

#[tokio::test]
async fn the_teller_s_own_host_or_the_nearest_one_is_chosen_and_others_where_that_does_not_keep_up() {
    let signals = Signals::default();
    let (near, far) = (HostId::from_bytes([1; 32]), HostId::from_bytes([2; 32]));
    let mut group = Vec::new();
    for host in [None, Some(near), Some(far)] {
        group.push(listens_at(&signals, host, "job", Some("workers")).await);
    }
    let rtt_us = BTreeMap::from([(near, 100), (far, 900)]);
    let choice = |balance, from| Choice { balance, from, rtt_us: rtt_us.clone() };
    for (from, by) in [(None, 0), (Some(near), 1), (Some(far), 2)] {
        for body in 0..6 {
            signals.emit(signal("job", body), choice(Balance::PreferLocal, from)).expect("told");
        }
        for (place, items) in group.iter_mut().enumerate() {
            assert_eq!(bodies(items).await.len(), if place == by { 6 } else { 0 });
        }
    }
    // Nobody listens on the teller's host: the others share it.
    drop(group.remove(0));
    for body in 0..6 {
        signals.emit(signal("job", body), choice(Balance::PreferLocal, None)).expect("told");
    }
    assert_eq!((bodies(&mut group[0]).await.len(), bodies(&mut group[1]).await.len()), (3, 3));
    for body in 0..QUEUE as u64 + 2 {
        signals.emit(signal("job", body), choice(Balance::LeastLatency, Some(far))).expect("told");
    }
    assert_eq!((bodies(&mut group[0]).await.len(), bodies(&mut group[1]).await.len()), (QUEUE, 2));
}

#[tokio::test]
async fn who_has_gone_is_told_nothing() {
    let signals = Signals::default();
    let gone = listens(&signals, "*", Some("workers")).await;
    drop(gone);
    assert_eq!(signals.emit(signal("job", 0), Balance::LeastLoad).expect("told"), Told::default());
    assert!(signals.list().listeners.is_empty() && signals.list().turns.is_empty());
}

#[test]
fn bad_words_are_refused() {
    let signals = Signals::default();
    let code = |result: Result<Told, Problem>| result.expect_err("refused").code;
    for name in ["", "Job", "a b", "ü", &"a".repeat(65)] {
        assert_eq!(code(signals.broadcast(signal(name, 0))), "signal.bad_name");
    }
    assert_eq!(code(signals.emit(keyed(&"k".repeat(257)), Balance::LeastLoad)), "signal.bad_key");
    let large = Signal { body: json!("x".repeat(BODY_BYTES_MAX)), ..signal("job", 0) };
    assert_eq!(code(signals.broadcast(large)), "signal.too_large");
    let listen = |names: &str, group: Option<&str>| {
        let request = ListenRequest { names: Some(names.to_owned()), group: group.map(str::to_owned) };
        signals.listen(request, None).err().map(|problem| problem.code.into_owned()).unwrap_or_default()
    };
    for names in ["Job", "a*", ".*", "*.a", &"a,".repeat(17)] {
        assert_eq!(listen(names, None), "signal.bad_name", "{names}");
    }
    assert_eq!(listen("a", Some("")), "signal.bad_group");
    assert!(signals.list().listeners.is_empty());
}
