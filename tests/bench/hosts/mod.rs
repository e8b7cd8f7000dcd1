//! One cell over two hosts, beside Moleculer 0.15 with its TCP transporter.
//!
//! The host that leads runs in this process, so that 64 callers are 64 tasks and not 64 HTTP clients; State is held by another host, a
//! process of its own, as `cell host join` makes it. Moleculer is two processes as well. All of them are on loopback and on the same cores,
//! and are asked in turns. What a cell does by itself is on: every step of the bus on both hosts, and encryption between them. What
//! Moleculer does not do by itself is off, and its TCP transporter cannot encrypt.

mod calls;
mod moleculer;
mod stream;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Actor;
use cell::bus::CallContext;
use cell::node::World;
use kit::Cell;
use protocol::Service;
use protocol::nucleus::{HostView, InviteHostRequest};
use protocol::shared::Empty;
use protocol::state::{GetRequest, Request, RootRequest};

use crate::bus::{Alone, Ask, Echo, Number, rate};
use crate::in_process::{InProcess, operator};
use crate::limits::median;
use crate::table::{Table, per_second, time};
use moleculer::{Moleculer, Work};

/// Callers at once.
const CALLERS: usize = 64;
/// Measurements of each, in turns; the median counts. One more before them is a warm-up.
const ROUNDS: usize = 5;
/// How long each measurement takes.
const SPAN: Duration = Duration::from_secs(1);
/// Calls of one caller between two looks at the clock: within a process, and to another.
const LOCAL_STEP: u64 = 100;
const REMOTE_STEP: u64 = 1;
/// The other host's name.
const OTHER: &str = "other";
/// How long State may take to move there.
const MOVED_MAX: Duration = Duration::from_secs(20);

pub(crate) fn measure() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("One cell over several hosts");
    let mut moleculer = Moleculer::start();
    actix_rt::System::new().block_on(async {
        let node = InProcess::start(&dir.path().join("first")).await;
        let world = Arc::clone(node.world());
        for callers in [1, CALLERS] {
            local(&mut table, &world, &mut moleculer, callers).await;
        }
        let mut other = join(&world, dir.path().join(OTHER)).await;
        remote(&mut table, &world, &mut moleculer).await;
        one_caller(&mut table, &world, &mut moleculer).await;
        node.stop().await;
        other.kill();
    });
    stream::measure(&mut table, dir.path());
    table
}

/// Calls of the other host alone, which need no JavaScript: for whoever changes the bridge.
pub(crate) fn measure_calls() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("Calls between hosts");
    actix_rt::System::new().block_on(async {
        let node = InProcess::start(&dir.path().join("first")).await;
        let world = Arc::clone(node.world());
        let mut other = join(&world, dir.path().join(OTHER)).await;
        for (by, questions) in [("its service", calls::MANY), ("the other bus's memory", 1)] {
            let call = calls::echo(&world.bus, questions);
            for callers in [1, 4, 16, CALLERS] {
                let mut rates = Vec::new();
                for _ in 0..=ROUNDS {
                    rates.push(rate(callers, REMOTE_STEP, SPAN, call.clone()).await);
                }
                let what = format!("{callers} callers, answered by {by}");
                table.alone(&what, per_second(median(&mut rates)));
            }
            let what = format!("1 caller, answered by {by}, p50");
            table.alone(&what, time(calls::p50(SPAN, call.clone()).await));
            let on_edge = world.edge.spawn(calls::p50(SPAN, call));
            table.alone(&format!("{what}, on the edge"), time(on_edge.await.expect("it ends")));
        }
        node.stop().await;
        other.kill();
    });
    table
}

/// Streamed answers alone, which need no JavaScript.
pub(crate) fn measure_streams() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("Streamed answers between hosts");
    stream::measure(&mut table, dir.path());
    table
}

/// Calls within one process, while all services are in it.
async fn local(table: &mut Table, world: &World, moleculer: &mut Moleculer, callers: usize) {
    let echo = Echo.start();
    let send = async move || echo.send(Number(1)).await.expect("answered");
    let root = |context: CallContext| {
        let caller = world.bus.with(context);
        async move || caller.state().root(RootRequest::default()).await.expect("answered")
    };
    let (asked, known) = (root(CallContext::internal().anew()), root(CallContext::internal()));
    let actor = Alone::new(&world.genesis).start();
    let alone = async move || {
        let answer = actor.send(Ask(Request::Root(RootRequest::default()))).await;
        answer.expect("it runs").expect("answered")
    };
    let mut rates = [const { Vec::new() }; 5];
    for round in 0..=ROUNDS {
        let measured = [
            rate(callers, LOCAL_STEP, SPAN, send.clone()).await,
            rate(callers, LOCAL_STEP, SPAN, alone.clone()).await,
            rate(callers, LOCAL_STEP, SPAN, asked.clone()).await,
            rate(callers, LOCAL_STEP, SPAN, known.clone()).await,
            moleculer.call(Work::Local, callers, SPAN).rate,
        ];
        if round > 0 {
            rates.iter_mut().zip(measured).for_each(|(rates, rate)| rates.push(rate));
        }
    }
    let [plain, alone, asked, known, theirs] = rates.map(|mut rates| median(&mut rates));
    let (what, floor) = match callers {
        1 => ("call in process, 1 caller", "0.8 × (aim 1 ×)"),
        _ => ("call in process, 64 callers", "2.5 × (aim 4 ×)"),
    };
    for (by, ours) in [("its service", asked), ("the bus's memory", known)] {
        table.line(
            &format!("{what}, answered by {by}"),
            per_second(ours),
            format!("Moleculer's local call: {}", per_second(theirs)),
            format!("{:.2} ×", ours / theirs),
            floor,
        );
    }
    if callers == CALLERS {
        for (what, sent) in [("that decides the same", alone), ("that does nothing", plain)] {
            table.line(
                &format!("the same by its service, beside a bare send to an actor {what}"),
                per_second(asked),
                format!("bare actix send: {}", per_second(sent)),
                format!("1 : {:.2}", sent / asked),
                "at most 1 : 2.5 (aim 1 : 1.5)",
            );
        }
    }
}

/// Has another host become part of the cell and take State over.
async fn join(world: &World, dir: PathBuf) -> Cell {
    let caller = world.bus.with(operator());
    let invited = caller.nucleus().invite_host(InviteHostRequest::default()).await;
    let ticket = invited.expect("a ticket").ticket;
    // It is this process that answers it.
    let joined = actix_rt::task::spawn_blocking(move || {
        let mut other = Cell::adopt(&dir);
        let join = ["host", "join", &ticket, "--services", "state", "--name", OTHER];
        other.ok(&[&join[..], &["--listen", "/ip4/127.0.0.1/tcp/0", "--http-port", "0"]].concat());
        other.start();
        other
    });
    let other = joined.await.expect("it joins and starts");
    let deadline = Instant::now() + MOVED_MAX;
    while !is_moved(world).await {
        assert!(Instant::now() < deadline, "State never came to the other host");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other
}

async fn is_moved(world: &World) -> bool {
    let caller = world.bus.internal();
    let hosts = caller.nucleus().hosts(Empty {}).await.expect("the hosts").items;
    let holds =
        |host: &HostView| host.host == OTHER && host.connected && host.services.contains(&Service::State);
    let request = GetRequest { key: "kv/any".to_owned(), at: None };
    hosts.iter().any(holds) && caller.state().get(request).await.is_ok()
}

/// Many callers of the other host.
async fn remote(table: &mut Table, world: &World, moleculer: &mut Moleculer) {
    let (asked, known) = (calls::echo(&world.bus, calls::MANY), calls::echo(&world.bus, 1));
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let measured = [
            rate(CALLERS, REMOTE_STEP, SPAN, asked.clone()).await,
            rate(CALLERS, REMOTE_STEP, SPAN, known.clone()).await,
            moleculer.call(Work::Remote, CALLERS, SPAN).rate,
        ];
        if round > 0 {
            rates.iter_mut().zip(measured).for_each(|(rates, rate)| rates.push(rate));
        }
    }
    let [asked, known, theirs] = rates.map(|mut rates| median(&mut rates));
    for (by, ours, floor) in [("its service", asked, "2 × (aim 4 ×)"), ("the other bus's memory", known, "")]
    {
        table.line(
            &format!("call of the other host, encrypted, 512 bytes each way, 64 callers, answered by {by}"),
            per_second(ours),
            format!("Moleculer over plain TCP: {}", per_second(theirs)),
            format!("{:.2} ×", ours / theirs),
            floor,
        );
    }
}

/// One caller of the other host.
async fn one_caller(table: &mut Table, world: &World, moleculer: &mut Moleculer) {
    let call = calls::echo(&world.bus, calls::MANY);
    let mut times = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let by_actor = calls::p50(SPAN, call.clone()).await;
        let by_edge = world.edge.spawn(calls::p50(SPAN, call.clone())).await.expect("it ends");
        let theirs = moleculer.call(Work::Remote, 1, SPAN).p50.expect("of one caller it is known");
        if round > 0 {
            times.iter_mut().zip([by_edge, by_actor, theirs]).for_each(|(times, time)| times.push(time));
        }
    }
    let [by_edge, by_actor, theirs] = times.map(|mut times| median(&mut times));
    for (whose, ours) in [("of the edge", by_edge), ("of an actor's thread", by_actor)] {
        table.line(
            &format!("the same, one caller {whose}, answered by its service, p50"),
            time(ours),
            format!("Moleculer over plain TCP: {}", time(theirs)),
            format!("{:.2} × better", theirs.as_secs_f64() / ours.as_secs_f64()),
            "1 × (aim 1.5 ×)",
        );
    }
}
