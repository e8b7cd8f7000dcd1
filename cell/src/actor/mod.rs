//! The generic actor: it runs every service's pure machine.
//!
//! What happens to a request:
//!
//! 1. **decide** on the view as it stands, the batch being synced and the batch being filled included;
//! 2. **apply** the records to the filling batch's overlay; its answer waits in that batch;
//! 3. **commit**: while one batch syncs on the journal's own thread the next one fills; whatever waits
//!    is committed together, with one signature and one sync;
//! 4. **release**: when the batch is durable the writer's thread gives its answers to their callers and
//!    its effects to the runner, wakes the listeners of the feed, and writes the overlay to the store;
//!    until the actor is told, it reads through the overlay.
//!
//! Invariants:
//!
//! - Nothing leaves before its records are durable: an answer that was decided on a batch (a refusal
//!   or a query included) waits for that batch.
//! - The store never holds what the journal does not (DESIGN §9, rule 1).
//! - On a host that runs a service for another one nothing is written when the lease has lapsed, and where a
//!   replica is in the path nothing is released that it has not (see [`Lease`]).
//! - After a failed append the overlays are discarded, everybody who waited is told, nothing is
//!   written any more and what is durable stays readable. The supervisor opens the journal anew.
//! - Journal and store are written on the service's writer thread; no file I/O blocks the arbiter,
//!   but for reads of the view.

mod effects;
mod grant;
mod lease;
mod recover;
mod writer;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use machine::{
    AnswerOf, At, Context as DecideContext, Decision, EffectId, Entry, Fault, Machine, Overlay, Record,
    RequestOf, View,
};
use protocol::action::{Kind, ServiceWords};
use protocol::{Caller, Problem, ProblemKind, Service};
use tokio::sync::{mpsc, oneshot};

use crate::bus::{Ask, Reply, ViewVersion};
use crate::store::{Cached, Keyspace};

pub use effects::{EffectSender, Effects, effect_queue, effect_queue_without_gaps};
pub use grant::Grant;
pub use lease::Lease;
pub(crate) use lease::lapsed;
pub(crate) use recover::fold_copy;
pub use recover::{JournalPlace, MarkTable, Opened, apply_entry, copy_source, journal_problem, open_service};
pub use writer::{Gauges, Writer};

/// How many entries one batch takes; more wait for the next one.
const BATCH_ENTRIES_MAX: usize = 4_096;
/// How many bytes of entries one batch takes before commands are refused as busy.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;

type Answered<M> = Result<AnswerOf<M>, Problem>;
/// An answer, and whom it waits to be given to.
type Held<M> = (Reply<Answered<M>>, Answered<M>);

/// The time in milliseconds since 1970 (UTC).
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// A batch that is being filled or synced.
struct Batch<M: Machine> {
    entries: Vec<Vec<u8>>,
    entries_bytes: usize,
    overlay: Overlay,
    replies: Vec<Held<M>>,
    effects: Vec<(EffectId, M::Effect)>,
}

impl<M: Machine> Default for Batch<M> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            entries_bytes: 0,
            overlay: Overlay::default(),
            replies: Vec::new(),
            effects: Vec::new(),
        }
    }
}

/// What is left of a batch while the writer has it.
struct Syncing<M: Machine> {
    overlay: Arc<Overlay>,
    /// Answers that have seen the batch, and were given after it was handed over.
    late: Vec<Held<M>>,
}

/// Told when a service has met a fault.
pub type FaultReport = mpsc::Sender<(Service, Problem)>;

/// One service's actor.
pub struct ServiceActor<M: Machine> {
    machine: M,
    store: Cached<Keyspace>,
    version: ViewVersion,
    writer: Option<Writer>,
    effects: EffectSender<M::Effect>,
    faults: FaultReport,
    mailbox_max: usize,
    generation: u32,
    epoch: u64,
    next_index: u64,
    filling: Batch<M>,
    syncing: Option<Syncing<M>>,
    fault: Option<Problem>,
    entropy: Entropy,
    commit_due: bool,
    stopping: Option<oneshot::Sender<()>>,
}

impl<M: Machine + Unpin> ServiceActor<M>
where
    M::Effect: Unpin,
    RequestOf<M>: Unpin,
    AnswerOf<M>: Unpin,
{
    /// Runs an opened service.
    pub fn new(
        opened: Opened<M>,
        version: ViewVersion,
        effects: EffectSender<M::Effect>,
        faults: FaultReport,
        mailbox_max: usize,
    ) -> Self {
        Self {
            version,
            machine: opened.machine,
            store: Cached::new(opened.keyspace),
            epoch: opened.grant.epoch(),
            generation: opened.generation,
            next_index: opened.length,
            writer: Some(opened.writer),
            effects,
            faults,
            mailbox_max,
            filling: Batch::default(),
            syncing: None,
            fault: None,
            entropy: Entropy::new(),
            commit_due: false,
            stopping: None,
        }
    }

    const SERVICE: Service = <M::Words as ServiceWords>::SERVICE;

    fn handle_ask(&mut self, ask: Ask<M::Words>, ctx: &mut Context<Self>) {
        let Ask { request, kind, caller, cause, reply } = ask;
        let answered = match self.decide(request, kind, caller, cause.as_ref()) {
            Ok(Decision::Answer(answer)) => Ok(answer),
            Ok(Decision::Refuse(problem)) => Err(problem),
            Ok(Decision::Commit { records, answer }) => match self.admits_commit() {
                Ok(()) => match self.take_in(records, cause) {
                    Ok(()) => {
                        self.filling.replies.push((reply, Ok(answer)));
                        return self.commit_soon(ctx);
                    }
                    Err(fault) => return self.fail(fault_problem(Self::SERVICE, &fault), Some(reply)),
                },
                Err(problem) => Err(problem),
            },
            Err(fault) => return self.fail(fault_problem(Self::SERVICE, &fault), Some(reply)),
        };
        self.release_when_seen_is_durable(reply, answered);
    }

    /// Decides on the view with all layers.
    fn decide(
        &mut self,
        request: RequestOf<M>,
        kind: Kind,
        caller: Caller,
        cause: Option<&EffectId>,
    ) -> Result<machine::DecisionOf<M>, Fault> {
        if !self.version.lease().may_answer() {
            return Ok(Decision::Refuse(lapsed(Self::SERVICE)));
        }
        // A query journals nothing, so nothing it answers may hang on chance.
        let entropy = if kind == Kind::Command { self.entropy.next() } else { [0; 32] };
        let context = DecideContext { now_ms: now_ms(), entropy, caller };
        let frozen = self.syncing.as_ref().map(|syncing| &*syncing.overlay);
        let view = View::new(&self.store, frozen, &mut self.filling.overlay);
        if let Some(cause) = cause
            && MarkTable::seen(&view, cause)?
        {
            return Ok(Decision::Refuse(already_done(cause)));
        }
        self.machine.decide(&view, &context, request)
    }

    fn admits_commit(&self) -> Result<(), Problem> {
        if let Some(problem) = &self.fault {
            return Err(problem.clone());
        }
        if self.stopping.is_some() {
            return Err(stopping(Self::SERVICE));
        }
        if self.filling.entries_bytes > BATCH_BYTES_MAX || self.filling.entries.len() >= BATCH_ENTRIES_MAX {
            return Err(Problem::new(
                ProblemKind::Busy,
                "bus.busy",
                format!("the {} service waits for its disk", Self::SERVICE),
            )
            .hint("ask again in a moment"));
        }
        Ok(())
    }

    /// Applies records to the filling batch.
    fn take_in(&mut self, records: Vec<M::Record>, cause: Option<EffectId>) -> Result<(), Fault> {
        let time_ms = now_ms();
        self.version.changes();
        for record in records {
            let index = self.next_index;
            let at = At { index, time_ms };
            let frozen = self.syncing.as_ref().map(|syncing| &*syncing.overlay);
            let mut view = View::new(&self.store, frozen, &mut self.filling.overlay);
            let entry = Entry { time_ms, epoch: self.epoch, cause, record };
            let effects = apply_entry(&self.machine, &mut view, at, &entry)?;
            let bytes = entry.encode();
            self.next_index += 1;
            self.filling.entries_bytes += bytes.len();
            self.filling.entries.push(bytes);
            for (ordinal, effect) in (0u32..).zip(effects) {
                let id = EffectId { service: Self::SERVICE, generation: self.generation, index, ordinal };
                self.filling.effects.push((id, effect));
            }
        }
        Ok(())
    }

    /// Commits once the requests that are here already have been taken in: they share the sync.
    fn commit_soon(&mut self, ctx: &mut Context<Self>) {
        if self.syncing.is_none() && !self.commit_due {
            self.commit_due = true;
            ctx.spawn(std::future::ready(()).into_actor(self).map(|(), actor, ctx| {
                actor.commit_due = false;
                actor.start_commit(ctx);
            }));
        }
    }

    fn start_commit(&mut self, ctx: &mut Context<Self>) {
        if self.syncing.is_some() || self.filling.entries.is_empty() {
            return;
        }
        let Some(writer) = &self.writer else { return };
        let batch = std::mem::take(&mut self.filling);
        let (overlay, replies, effects) = (Arc::new(batch.overlay), batch.replies, batch.effects);
        let runner = self.effects.clone();
        let written = writer.write(batch.entries, Arc::clone(&overlay), move |result| match result {
            Ok(()) => {
                // A caller that went away does not need its answer.
                replies.into_iter().for_each(|(reply, answered)| reply.send(answered));
                runner.send(effects);
            }
            Err(problem) => replies.into_iter().for_each(|(reply, _)| reply.send(Err(problem.clone()))),
        });
        self.syncing = Some(Syncing { overlay, late: Vec::new() });
        ctx.spawn(written.into_actor(self).map(|result, actor, ctx| actor.committed(result, ctx)));
    }

    /// The writer is done with a batch: journal synced and store written, or failed.
    fn committed(&mut self, result: Result<(), Problem>, ctx: &mut Context<Self>) {
        if let Err(problem) = result {
            self.fail(problem, None);
            return self.stop_if_done(ctx);
        }
        if let Some(Syncing { overlay, late }) = self.syncing.take() {
            self.store.absorb(&overlay);
            for (reply, answered) in late {
                reply.send(answered);
            }
        }
        self.start_commit(ctx);
        self.stop_if_done(ctx);
    }

    /// An answer leaves at once if nothing it may have seen is still on its way to the disk.
    fn release_when_seen_is_durable(&mut self, reply: Reply<Answered<M>>, answered: Answered<M>) {
        if !self.filling.entries.is_empty() {
            self.filling.replies.push((reply, answered));
        } else if let Some(syncing) = &mut self.syncing {
            syncing.late.push((reply, answered));
        } else {
            reply.send(answered);
        }
    }

    /// Stops writing: tells everybody who waits, discards what is not durable, reports.
    fn fail(&mut self, problem: Problem, asking: Option<Reply<Answered<M>>>) {
        self.version.changes();
        let waiting = std::mem::take(&mut self.filling).replies;
        let late = self.syncing.take().map(|syncing| syncing.late).unwrap_or_default();
        let waiting = waiting.into_iter().chain(late).map(|(reply, _)| reply).chain(asking);
        for reply in waiting {
            reply.send(Err(problem.clone()));
        }
        if self.fault.is_none() {
            tracing::error!(service = %Self::SERVICE, %problem, "fault: the service stops writing");
            self.fault = Some(problem.clone());
            // Dropping the writer closes the journal, so that the supervisor can open it anew.
            self.writer = None;
            // One report an incarnation, and the supervisor starts few of them: there is room.
            let _ = self.faults.try_send((Self::SERVICE, problem));
        }
    }

    fn stop_if_done(&mut self, ctx: &mut Context<Self>) {
        if self.syncing.is_none()
            && self.filling.entries.is_empty()
            && let Some(done) = self.stopping.take()
        {
            if let Some(writer) = self.writer.take() {
                let closed = writer.close();
                ctx.spawn(closed.into_actor(self).map(move |(), _, ctx| {
                    let _ = done.send(());
                    ctx.stop();
                }));
            } else {
                let _ = done.send(());
                ctx.stop();
            }
        }
    }
}

impl<M: Machine + Unpin> Actor for ServiceActor<M>
where
    M::Effect: Unpin,
    RequestOf<M>: Unpin,
    AnswerOf<M>: Unpin,
{
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.mailbox_max);
        self.send_owed();
    }
}

impl<M: Machine + Unpin> ServiceActor<M>
where
    M::Effect: Unpin,
    RequestOf<M>: Unpin,
    AnswerOf<M>: Unpin,
{
    /// Hands over the effects that are still owed by what is durable.
    fn send_owed(&mut self) {
        let mut nothing = Overlay::default();
        let view = View::new(&self.store, None, &mut nothing);
        match self.machine.owed(&view) {
            Ok(owed) => {
                let stamp = |owed: machine::Owed<M::Effect>| {
                    let id = EffectId {
                        service: Self::SERVICE,
                        generation: self.generation,
                        index: owed.index,
                        ordinal: owed.ordinal,
                    };
                    (id, owed.effect)
                };
                self.effects.send_owed(owed.into_iter().map(stamp).collect());
            }
            Err(fault) => self.fail(fault_problem(Self::SERVICE, &fault), None),
        }
    }
}

impl<M: Machine + Unpin> Handler<Ask<M::Words>> for ServiceActor<M>
where
    M::Effect: Unpin,
    RequestOf<M>: Unpin,
    AnswerOf<M>: Unpin,
{
    type Result = ();

    fn handle(&mut self, ask: Ask<M::Words>, ctx: &mut Context<Self>) {
        self.handle_ask(ask, ctx);
    }
}

/// Asks an actor for the effects that are still owed: whoever carried them out is another one now.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Owe;

impl<M: Machine + Unpin> Handler<Owe> for ServiceActor<M>
where
    M::Effect: Unpin,
    RequestOf<M>: Unpin,
    AnswerOf<M>: Unpin,
{
    type Result = ();

    fn handle(&mut self, _: Owe, _: &mut Context<Self>) {
        self.send_owed();
    }
}

/// Asks an actor to finish what it has taken in, close its journal and stop.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// Told when the journal is closed.
    pub done: oneshot::Sender<()>,
}

impl<M: Machine + Unpin> Handler<Stop> for ServiceActor<M>
where
    M::Effect: Unpin,
    RequestOf<M>: Unpin,
    AnswerOf<M>: Unpin,
{
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Context<Self>) {
        self.stopping = Some(stop.done);
        self.start_commit(ctx);
        self.stop_if_done(ctx);
    }
}

fn fault_problem(service: Service, fault: &Fault) -> Problem {
    Problem::new(ProblemKind::Fault, "service.fault", format!("the {service} service met a fault: {fault}"))
        .hint("cell doctor tells what is damaged; cell rebuild makes the views anew from the journals")
}

fn stopping(service: Service) -> Problem {
    Problem::new(ProblemKind::Unavailable, "service.stopping", format!("the {service} service is stopping"))
        .hint("ask again once the cell has started anew")
}

fn already_done(cause: &EffectId) -> Problem {
    Problem::new(
        ProblemKind::Conflict,
        "service.already_done",
        format!("effect {}.{} of {} was taken in before", cause.index, cause.ordinal, cause.service),
    )
}

/// Fresh bytes for decisions: a keyed hash in counter mode, seeded once from the system.
struct Entropy {
    key: [u8; 32],
    counter: u64,
}

impl Entropy {
    fn new() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system gives random bytes");
        Self { key, counter: 0 }
    }

    fn next(&mut self) -> [u8; 32] {
        self.counter += 1;
        *blake3::keyed_hash(&self.key, &self.counter.to_le_bytes()).as_bytes()
    }
}

/// A record as people see it.
fn describe<R: Record>(bytes: &[u8]) -> Result<(u64, u64, serde_json::Value), Problem> {
    let entry = Entry::<R>::decode(bytes)?;
    Ok((entry.time_ms, entry.epoch, entry.record.describe()))
}

/// An entry of a service's journal as people see it: when it was written, under which grant, and what it records.
///
/// # Errors
///
/// When it is no record of that service.
pub fn describe_entry(service: Service, bytes: &[u8]) -> Result<(u64, u64, serde_json::Value), Problem> {
    match service {
        Service::Nucleus => describe::<<nucleus::NucleusMachine as Machine>::Record>(bytes),
        Service::Identity => describe::<<identity::IdentityMachine as Machine>::Record>(bytes),
        Service::Message => describe::<<message::MessageMachine as Machine>::Record>(bytes),
        Service::State => describe::<<state::StateMachine as Machine>::Record>(bytes),
        Service::Consensus => describe::<<consensus::ConsensusMachine as Machine>::Record>(bytes),
        Service::Market => describe::<<market::MarketMachine as Machine>::Record>(bytes),
    }
}

#[cfg(test)]
mod tests;
