//! The bus in process: a query through all middleware, beside a bare actix `send`.

use std::cell::Cell as Count;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::in_process::InProcess;
use actix::prelude::*;
use cell::bus::CallContext;
use cell::folder::rules;
use machine::testing::Bench;
use protocol::Problem;
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{Answer, Request, RootRequest};
use state::StateMachine;

use crate::limits::median;
use crate::table::{Table, per_second, time};

/// Callers at once.
const CALLERS: usize = 64;
/// Measurements of each, in turns; the median counts.
const ROUNDS: usize = 5;
/// Calls of one caller between two looks at the clock.
const STEP: u64 = 100;
/// How long each measurement takes.
const SPAN: Duration = Duration::from_millis(500);

/// Answers what it is sent.
pub(crate) struct Echo;

impl Actor for Echo {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u64")]
pub(crate) struct Number(pub(crate) u64);

impl Handler<Number> for Echo {
    type Result = u64;
    fn handle(&mut self, number: Number, _: &mut Context<Self>) -> u64 {
        number.0
    }
}

/// State's machine in an actor, over a view in memory, and nothing of the bus around it: what the same question takes without.
pub(crate) struct Alone(Bench<StateMachine>);

impl Alone {
    /// At its beginning, as the cell's own is.
    ///
    /// # Panics
    ///
    /// If it cannot begin.
    pub(crate) fn new(genesis: &Arc<Genesis>) -> Self {
        let mut machine = Bench::new(StateMachine::new(Arc::clone(genesis), rules()));
        machine.ask(Request::Initialise(Empty {})).expect("it begins");
        Self(machine)
    }
}

impl Actor for Alone {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "Result<Answer, Problem>")]
pub(crate) struct Ask(pub(crate) Request);

impl Handler<Ask> for Alone {
    type Result = Result<Answer, Problem>;
    fn handle(&mut self, ask: Ask, _: &mut Context<Self>) -> Self::Result {
        self.0.ask(ask.0)
    }
}

pub(crate) fn measure() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path().join("cell");
    let mut table = Table::new("Calls within one process");
    actix_rt::System::new().block_on(async {
        let node = InProcess::start(&dir).await;
        let world = node.world();
        let echo = Echo.start();
        for callers in [1, CALLERS] {
            let echo = echo.clone();
            let send = async move || echo.send(Number(1)).await.expect("answered");
            // The state root: one row of a view.
            let root = |context: CallContext| {
                let caller = world.bus.with(context);
                async move || caller.state().root(RootRequest::default()).await.expect("answered")
            };
            let (asked, known) = (root(CallContext::internal().anew()), root(CallContext::internal()));
            let mut rates = [const { Vec::new() }; 3];
            for _ in 0..ROUNDS {
                rates[0].push(rate(callers, STEP, SPAN, send.clone()).await);
                rates[1].push(rate(callers, STEP, SPAN, asked.clone()).await);
                rates[2].push(rate(callers, STEP, SPAN, known.clone()).await);
            }
            let [plain, asked, known] = rates.map(|mut rates| median(&mut rates));
            for (by, rate) in [("its service", asked), ("the bus's memory", known)] {
                table.line(
                    &format!("query answered by {by}, {callers} callers (the median of {ROUNDS} rounds)"),
                    format!("{} ({} each)", per_second(rate), time(Duration::from_secs_f64(1.0 / rate))),
                    format!("bare actix send: {}", per_second(plain)),
                    format!("1 : {:.1}", plain / rate),
                    if callers == CALLERS { "1 M/s" } else { "" },
                );
            }
        }
        node.stop().await;
    });
    table
}

/// How often so many callers, each with a handle of its own, are answered in a second, measured for so long; each looks at the clock
/// after so many calls.
pub(crate) async fn rate<T>(
    callers: usize,
    step: u64,
    span: Duration,
    call: impl AsyncFn() -> T + Clone + 'static,
) -> f64 {
    let count = Rc::new(Count::new(0u64));
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (call, count) = (call.clone(), Rc::clone(&count));
            actix_rt::spawn(async move {
                while start.elapsed() < span {
                    for _ in 0..step {
                        call().await;
                    }
                    count.set(count.get() + step);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a caller ends well");
    }
    count.get() as f64 / start.elapsed().as_secs_f64()
}
