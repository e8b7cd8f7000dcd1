//! One task that drives the engine: an input, a time, or something durable, and then all that follows from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use consensus::gossip::{Draft, Frame as Outgoing, Gossip, Held, Said};
use consensus::hashgraph::{Event, EventId, Fork, Hashgraph, MemberIndex, Settings};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use minicbor::bytes::ByteVec;
use protocol::consensus::Progress;
use protocol::gossip::{EventBytes, PAYLOAD_BYTES_MAX, SignedEvent};
use protocol::signing::{self, Signature, Signed};
use protocol::{CellId, GenesisHash, Hash, Problem, ProblemKind, codec};
use quick_cache::sync::Cache;
use tokio::sync::{mpsc, watch};

use super::wire::Frame;
use super::{
    DecidedRound, GossipSettings, GossipStatus, Handle, Host, INBOX_MAX, Input, LastRounds, Members, Target,
    look,
};

/// Every so many rounds of votes, a coin round.
const COIN_ROUNDS: u64 = 12;
/// Events of a member in one round, beyond which nobody takes more.
const EVENTS_A_ROUND_MAX: u32 = 65_536;
/// Inputs taken at once.
const INPUTS_MAX: usize = 64;
/// Rounds, and bytes in them, given to Consensus at once.
const ROUNDS_MAX: usize = 64;
/// See [`ROUNDS_MAX`].
const ROUNDS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Frames of the next epoch that are kept until it begins here.
const EARLY_MAX: usize = 256;
/// Microseconds within which events of others are journaled that nothing waits for, and bytes at which they are.
const RECORD_WITHIN_US: u64 = 20_000;
/// See [`RECORD_WITHIN_US`].
const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Ids of events whose signatures were checked lately.
const CHECKED_MAX: usize = 16_384;
/// Bytes of frames from which on they are checked on a thread of their own.
const CHECK_APART_BYTES: usize = 16 * 1024;

/// A frame that was read, and whose events hold.
#[derive(Debug)]
pub enum Checked {
    /// Events, pushed or as an answer: whether there are more.
    Events {
        /// Their epoch.
        epoch: u64,
        /// They themselves.
        events: Vec<Arc<Said>>,
        /// For an answer, whether there are more.
        answer: Option<bool>,
    },
    /// A question.
    Ask {
        /// The epoch.
        epoch: u64,
        /// The asker's newest events.
        tips: Vec<EventId>,
    },
    /// The epoch that was asked for is over there.
    Over(Target),
}

/// Reads frames and checks the events in them: pure work, done where frames come in.
pub(super) struct Checker {
    genesis: GenesisHash,
    members: Arc<Members>,
    host: Arc<dyn Host>,
    checked: Cache<EventId, ()>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl Checker {
    /// Reads a frame. One event that does not hold refuses the frame.
    ///
    /// # Errors
    ///
    /// Why no honest member would have sent it.
    pub(super) async fn check(self: &Arc<Self>, from: &CellId, bytes: Vec<u8>) -> Result<Checked, Problem> {
        if self.members.place(from).is_none() {
            let cause = format!("{from} is no member of this network");
            return Err(Problem::new(ProblemKind::Denied, "event.stranger", cause));
        }
        if bytes.len() < CHECK_APART_BYTES {
            return self.read(&bytes);
        }
        let this = Arc::clone(self);
        crate::node::blocking(move || this.read(&bytes)).await?
    }

    fn read(&self, bytes: &[u8]) -> Result<Checked, Problem> {
        Ok(match codec::decode::<Frame>(bytes)? {
            Frame::Events { epoch, events } => {
                Checked::Events { epoch, events: self.events(epoch, &events)?, answer: None }
            }
            Frame::Answer { epoch, events, more } => {
                Checked::Events { epoch, events: self.events(epoch, &events)?, answer: Some(more) }
            }
            Frame::Ask { epoch, tips } => {
                Checked::Ask { epoch, tips: tips.iter().map(|tip| EventId(*tip.as_bytes())).collect() }
            }
            Frame::Over { epoch, base } => Checked::Over(Target { epoch, base }),
        })
    }

    fn events(&self, epoch: u64, frames: &[ByteVec]) -> Result<Vec<Arc<Said>>, Problem> {
        let (mut events, mut to_check, mut ids) = (Vec::new(), Vec::<Signed>::new(), Vec::new());
        for bytes in frames {
            let event = EventBytes::read(bytes)?;
            if event.event.epoch != epoch {
                return Err(malformed("an event of another epoch than its frame's"));
            }
            let (id, signed) = event.event.to_check(&self.genesis);
            let id = EventId(*id.as_bytes());
            let contents = if self.checked.get(&id).is_none() {
                to_check.push(signed);
                ids.push(id);
                self.host.check(&event)?
            } else {
                self.host.look(&event)
            };
            events.push((id, event, contents));
        }
        if signing::verify_all(&to_check).contains(&false) {
            return Err(malformed("an event's signature does not hold"));
        }
        for id in ids {
            self.checked.insert(id, ());
        }
        events
            .into_iter()
            .map(|(id, event, contents)| {
                self.host.heard(&event.payload);
                as_said(id, event, contents.orders, &self.members).map(Arc::new)
            })
            .collect()
    }
}

fn malformed(why: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, "event.malformed", why)
}

/// An event as the engine takes it.
fn as_said(id: EventId, bytes: EventBytes, orders: bool, members: &Members) -> Result<Said, Problem> {
    let SignedEvent { creator, self_parent, other_parents, time_us, signature, .. } = bytes.event;
    let creator = members.place(&creator).ok_or_else(|| malformed("an event of a stranger"))?;
    let as_id = |hash: &Hash| EventId(*hash.as_bytes());
    let event = Event {
        id,
        creator,
        self_parent: self_parent.as_ref().map(as_id),
        other_parents: other_parents.iter().map(as_id).collect(),
        time_us,
        signature,
    };
    Ok(Said { event, payload: bytes.payload, orders })
}

/// Where a driver begins: what its journal holds.
#[derive(Debug, Default)]
pub struct Start {
    /// The epoch.
    pub epoch: u64,
    /// The first block that it may fill.
    pub base: u64,
    /// Its events, in the order in which they were recorded.
    pub events: Vec<EventBytes>,
    /// How far blocks have come.
    pub progress: Option<Progress>,
}

/// What was waited for.
enum Done {
    Recorded(std::ops::RangeInclusive<u64>, Result<(), Problem>),
    Ordered(Result<Progress, Problem>),
    Read { to: MemberIndex, frame: Unread, events: Result<Vec<Vec<u8>>, Problem> },
    Fork(Result<Box<[EventBytes; 2]>, Problem>),
}

/// A frame whose events are being read.
enum Unread {
    Events { epoch: u64 },
    Answer { epoch: u64, more: bool },
}

impl Unread {
    fn with(self, events: Vec<ByteVec>) -> Frame {
        match self {
            Self::Events { epoch } => Frame::Events { epoch, events },
            Self::Answer { epoch, more } => Frame::Answer { epoch, events, more },
        }
    }
}

/// Drives one member's part in the gossip.
pub struct Driver {
    host: Arc<dyn Host>,
    members: Arc<Members>,
    cell: CellId,
    me: MemberIndex,
    settings: GossipSettings,
    clock: Clock,
    epoch: u64,
    base: u64,
    gossip: Gossip,
    /// The epoch before, for members that have not ended it.
    previous: Option<Gossip>,
    progress: Progress,
    decided: VecDeque<DecidedRound>,
    /// The last round that was decided.
    round: u64,
    recording: bool,
    /// Events that are to be journaled, with the number of the first, their bytes, and when they are at the latest.
    to_record: Vec<Arc<Said>>,
    record_first: u64,
    record_bytes: usize,
    record_due_us: u64,
    ordering: bool,
    doing: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Frames of the next epoch.
    early: Vec<(MemberIndex, Checked)>,
    peers: BTreeSet<CellId>,
    targets: BTreeMap<MemberIndex, Target>,
    target: Option<Target>,
    /// The event that was encoded last: the others get it as well.
    encoded: Option<(EventId, Vec<u8>)>,
    inbox: mpsc::Receiver<Input>,
    status: watch::Sender<GossipStatus>,
}

impl Driver {
    /// A driver and the handle to it. It goes on where its journal stands.
    ///
    /// # Errors
    ///
    /// `gossip.no_member` for a cell that is none; `gossip.bad_journal` if the journal's events make no graph.
    pub fn new(
        host: Arc<dyn Host>,
        members: Arc<Members>,
        cell: CellId,
        settings: GossipSettings,
        start: Start,
    ) -> Result<(Self, Handle), Problem> {
        let me = members.place(&cell).ok_or_else(|| {
            Problem::new(
                ProblemKind::Invalid,
                "gossip.no_member",
                format!("{cell} is no member of its network"),
            )
        })?;
        let clock = Clock::start();
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let (status, watched) = watch::channel(GossipStatus::default());
        let checker = Checker {
            genesis: settings.genesis,
            members: Arc::clone(&members),
            host: Arc::clone(&host),
            checked: Cache::new(CHECKED_MAX),
        };
        let handle = Handle { inbox: sender, status: watched, checker: Some(Arc::new(checker)) };
        let mut this = Self {
            gossip: new_gossip(&members, me, &settings, clock.now_us()),
            host,
            members,
            cell,
            me,
            settings,
            clock,
            epoch: start.epoch,
            base: start.base,
            previous: None,
            progress: start.progress.unwrap_or(Progress { ordered: 0, executed: 0, finalised: 0 }),
            decided: VecDeque::new(),
            round: 0,
            recording: false,
            to_record: Vec::new(),
            record_first: 0,
            record_bytes: 0,
            record_due_us: u64::MAX,
            ordering: false,
            doing: FuturesUnordered::new(),
            early: Vec::new(),
            peers: BTreeSet::new(),
            targets: BTreeMap::new(),
            target: None,
            encoded: None,
            inbox,
            status,
        };
        this.replay(start.events)?;
        Ok((this, handle))
    }

    fn replay(&mut self, events: Vec<EventBytes>) -> Result<(), Problem> {
        let bad = |number: u64| {
            let cause =
                format!("event {number} of epoch {} does not follow from those before it", self.epoch);
            Problem::new(ProblemKind::Fault, "gossip.bad_journal", cause)
                .hint("cell journal verify consensus tells whether the journal is damaged")
        };
        for (number, bytes) in (0u64..).zip(events) {
            let id = EventId(*bytes.event.id(&self.settings.genesis).as_bytes());
            let orders = self.host.look(&bytes).orders;
            self.host.heard(&bytes.payload);
            let said = as_said(id, bytes, orders, &self.members)?;
            self.gossip.replay(Arc::new(said), number);
            if !self.gossip.graph().contains(&id) {
                return Err(bad(number));
            }
        }
        Ok(())
    }

    /// What this member said and no round has received: it is in the graph, and has not to be said again.
    pub fn unordered_own(&self) -> Vec<Arc<Said>> {
        self.gossip.unordered_own()
    }

    /// Runs until the handle is gone.
    ///
    /// # Errors
    ///
    /// What the journal says when it takes no more: the driver has to begin anew from what is durable.
    pub async fn run(mut self) -> Result<(), Problem> {
        self.gossip.begin(self.clock.now_us());
        self.meet();
        loop {
            self.act()?;
            let record_due_us = if self.recording { u64::MAX } else { self.record_due_us };
            let wake = self.clock.at(self.gossip.next_timeout_us().min(record_due_us));
            tokio::select! {
                biased;
                Some(done) = self.doing.next() => self.finish(done)?,
                input = self.inbox.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    self.take(input);
                    for _ in 1..INPUTS_MAX {
                        let Ok(input) = self.inbox.try_recv() else { break };
                        self.take(input);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now_us();
        match input {
            Input::ToSay => {}
            Input::Peers => self.meet(),
            Input::Final(blocks) => self.progress.finalised = self.progress.finalised.max(blocks),
            Input::CaughtUp(target, progress) => {
                self.progress = progress;
                if target.epoch > self.epoch {
                    self.begin_epoch(target.epoch, target.base);
                    self.previous = None;
                }
            }
            Input::Look(rounds, answer) => {
                let events = look::events(&self.gossip, &self.members, rounds);
                let pending_round = self.gossip.graph().pending_round().0;
                // Nobody may be waiting any more.
                let _ = answer.send(LastRounds { epoch: self.epoch, pending_round, events });
            }
            Input::Frame(from, checked) => {
                if let Some(from) = self.members.place(&from) {
                    self.take_frame(from, checked, now);
                }
            }
        }
    }

    fn take_frame(&mut self, from: MemberIndex, checked: Checked, now: u64) {
        match checked {
            Checked::Events { epoch, events, answer } if epoch == self.epoch => match answer {
                None => self.gossip.handle_events(from, events, now),
                Some(more) => self.gossip.handle_answer(from, events, more, now),
            },
            Checked::Events { epoch, .. } if epoch > self.epoch => {
                // It has ended this epoch: it has what is missing here.
                self.gossip.handle_connected(from, now);
                if epoch == self.epoch + 1 && self.early.len() < EARLY_MAX {
                    self.early.push((from, checked));
                }
            }
            Checked::Ask { epoch, tips } if epoch == self.epoch => self.gossip.handle_ask(from, &tips, now),
            Checked::Ask { epoch, tips } if epoch + 1 == self.epoch && self.previous.is_some() => {
                if let Some(previous) = &mut self.previous {
                    previous.handle_ask(from, &tips, now);
                }
            }
            Checked::Ask { epoch, .. } if epoch < self.epoch => {
                self.push(from, &Frame::Over { epoch: self.epoch, base: self.base });
            }
            Checked::Over(target) => {
                self.targets.insert(from, target);
                self.aim();
            }
            Checked::Events { .. } | Checked::Ask { .. } => {}
        }
    }

    /// Whether so many members are in a later epoch that one of them is honest.
    fn aim(&mut self) {
        let claims = |target: &Target| {
            let same = self.targets.iter().filter(|(_, claimed)| *claimed == target);
            let cells: Vec<CellId> = same.filter_map(|(member, _)| self.members.cell(*member)).collect();
            self.members.has_honest(self.members.weight(&cells))
        };
        let later =
            self.targets.values().filter(|target| target.epoch > self.epoch && claims(target)).max().copied();
        if let Some(target) = later
            && self.target != Some(target)
        {
            self.target = Some(target);
            self.host.fall_behind(target);
        }
    }

    /// Looks who is connected.
    fn meet(&mut self) {
        let now = self.clock.now_us();
        let peers: BTreeSet<CellId> = self.host.connected().into_iter().collect();
        for cell in peers.difference(&self.peers) {
            if let Some(member) = self.members.place(cell) {
                self.gossip.handle_connected(member, now);
            }
        }
        self.peers = peers;
    }

    /// Does all that is due.
    fn act(&mut self) -> Result<(), Problem> {
        let now = self.clock.now_us();
        let is_ending = self.round >= self.settings.epoch_rounds;
        self.gossip.set_awaits(self.progress.finalised < self.progress.ordered);
        self.gossip.set_to_say(self.host.has_to_say(!is_ending));
        self.gossip.handle_timeout(now);
        if let Some(draft) = self.gossip.draft(now) {
            self.say(draft, is_ending, now);
        }
        self.record(now);
        while let Some(ordered) = self.gossip.poll_ordered() {
            self.decide(ordered);
        }
        self.order();
        while let Some(fork) = self.gossip.poll_fork() {
            self.report(fork);
        }
        while let Some((to, frame)) = self.gossip.poll_frame() {
            self.send(to, frame, self.epoch);
        }
        if let Some(previous) = &mut self.previous {
            let frames: Vec<_> = std::iter::from_fn(|| previous.poll_frame()).collect();
            for (to, frame) in frames {
                self.send(to, frame, self.epoch - 1);
            }
        }
        let is_done = is_ending && self.decided.is_empty() && !self.ordering;
        if is_done && self.progress.finalised == self.progress.ordered && !self.recording {
            let (epoch, base) = (self.epoch + 1, self.progress.ordered);
            self.previous = Some(self.begin_epoch(epoch, base));
        }
        self.tell_status();
        Ok(())
    }

    /// Makes this member's next event.
    fn say(&mut self, draft: Draft, is_ending: bool, now: u64) {
        let (payload, contents) = self.host.next_payload(if is_ending { 0 } else { PAYLOAD_BYTES_MAX });
        let Draft { self_parent, other_parents, time_us } = draft;
        let as_hash = |id: &EventId| Hash::from_bytes(id.0);
        let event = SignedEvent {
            epoch: self.epoch,
            creator: self.cell,
            self_parent: self_parent.as_ref().map(as_hash),
            other_parents: other_parents.iter().map(as_hash).collect(),
            time_us,
            payload: Hash::of(&payload),
            signature: Signature::from_bytes([0; 64]),
        };
        let text = event.signed_text(&self.settings.genesis);
        let id = EventId(*Hash::of(&text).as_bytes());
        let event = Event {
            id,
            creator: self.me,
            self_parent,
            other_parents,
            time_us,
            signature: self.host.sign(&text),
        };
        self.gossip.say(Arc::new(Said { event, payload, orders: contents.orders }), now);
    }

    /// Gives the journal what has to be durable, one batch at a time. Others' events wait for an event of this
    /// member, or for a round that was decided, if one comes soon: so a hop costs one sync.
    fn record(&mut self, now: u64) {
        while let Some((number, said)) = self.gossip.poll_record() {
            if self.to_record.is_empty() {
                self.record_first = number;
                self.record_due_us = now + RECORD_WITHIN_US;
            }
            self.record_bytes += said.payload.len();
            self.to_record.push(said);
        }
        let is_due = self.gossip.waits_for_records()
            || self.record_due_us <= now
            || self.record_bytes >= RECORD_BYTES_MAX;
        if self.recording || self.to_record.is_empty() || !is_due {
            return;
        }
        let batch = std::mem::take(&mut self.to_record);
        (self.record_bytes, self.record_due_us) = (0, u64::MAX);
        let numbers = self.record_first..=self.record_first + batch.len() as u64 - 1;
        let events = batch.iter().map(|said| self.encode(said, self.epoch)).collect();
        let recorded = self.host.record(self.epoch, self.record_first, events);
        self.recording = true;
        self.doing.push(Box::pin(async move { Done::Recorded(numbers, recorded.await) }));
    }

    fn decide(&mut self, ordered: consensus::gossip::Ordered) {
        // What comes after an epoch's last round is said again in the next.
        if ordered.round.0 > self.settings.epoch_rounds {
            return;
        }
        self.round = ordered.round.0;
        let time_us = ordered.events.iter().map(|(_, time)| *time).max().unwrap_or(0);
        let said = ordered.events.into_iter().filter(|(said, _)| said.orders);
        let payloads: Vec<Vec<u8>> = said.map(|(said, _)| said.payload.clone()).collect();
        if !payloads.is_empty() {
            self.decided.push_back(DecidedRound { round: self.round, time_us, payloads });
        }
    }

    /// Gives Consensus what was decided.
    fn order(&mut self) {
        if self.ordering || self.decided.is_empty() {
            return;
        }
        let (mut rounds, mut bytes) = (Vec::new(), 0);
        while let Some(round) = self.decided.front()
            && rounds.len() < ROUNDS_MAX
            && bytes < ROUNDS_BYTES_MAX
        {
            bytes += round.payloads.iter().map(Vec::len).sum::<usize>();
            rounds.extend(self.decided.pop_front());
        }
        let ordered = self.host.order(self.epoch, rounds);
        self.ordering = true;
        self.doing.push(Box::pin(async move { Done::Ordered(ordered.await) }));
    }

    fn finish(&mut self, done: Done) -> Result<(), Problem> {
        match done {
            Done::Recorded(numbers, result) => {
                result?;
                self.recording = false;
                numbers.for_each(|number| self.gossip.recorded(number, number));
            }
            Done::Ordered(result) => {
                let finalised = self.progress.finalised;
                self.progress = result?;
                self.progress.finalised = self.progress.finalised.max(finalised);
                self.ordering = false;
            }
            Done::Read { to, frame, events } => match events {
                Ok(events) => {
                    let events = events.into_iter().map(ByteVec::from).collect();
                    self.push(to, &frame.with(events));
                }
                Err(problem) => tracing::warn!(%problem, "events that others ask for cannot be read"),
            },
            Done::Fork(Ok(both)) => {
                let [one, other] = *both;
                self.host.forked(one, other);
            }
            Done::Fork(Err(problem)) => tracing::warn!(%problem, "the events of a fork cannot be read"),
        }
        Ok(())
    }

    fn report(&mut self, fork: Fork) {
        let [one, other] = fork.events.map(|id| self.gossip.held(&id));
        if let (Some(one), Some(other)) = (one, other) {
            let read = self.read(vec![one, other], self.epoch);
            self.doing.push(Box::pin(async move {
                let both = read.await.and_then(|both| {
                    let [one, other] =
                        [0, 1].map(|place: usize| both.get(place).map(|bytes| EventBytes::read(bytes)));
                    match (one, other) {
                        (Some(one), Some(other)) => Ok(Box::new([one?, other?])),
                        _ => Err(malformed("the events of a fork")),
                    }
                });
                Done::Fork(both)
            }));
        }
    }

    fn send(&mut self, to: MemberIndex, frame: Outgoing, epoch: u64) {
        let (held, frame) = match frame {
            Outgoing::Ask { tips } => {
                let tips = tips.iter().map(|tip| Hash::from_bytes(tip.0)).collect();
                return self.push(to, &Frame::Ask { epoch, tips });
            }
            Outgoing::Events(held) => (held, Unread::Events { epoch }),
            Outgoing::Answer { events, more } => (events, Unread::Answer { epoch, more }),
        };
        if held.iter().all(|held| matches!(held, Held::Here(_))) {
            let here =
                held.iter().filter_map(|held| if let Held::Here(said) = held { Some(said) } else { None });
            let events = here.map(|said| ByteVec::from(self.encode(said, epoch))).collect();
            return self.push(to, &frame.with(events));
        }
        let events = self.read(held, epoch);
        self.doing.push(Box::pin(async move { Done::Read { to, frame, events: events.await } }));
    }

    /// Events in bytes: those in memory at once, the others out of the journal.
    fn read(&mut self, held: Vec<Held>, epoch: u64) -> BoxFuture<'static, Result<Vec<Vec<u8>>, Problem>> {
        enum Here {
            Bytes(Vec<u8>),
            Number(u64),
        }
        let here: Vec<Here> = held
            .into_iter()
            .map(|held| match held {
                Held::Here(said) => Here::Bytes(self.encode(&said, epoch)),
                Held::Recorded(number) => Here::Number(number),
            })
            .collect();
        let host = Arc::clone(&self.host);
        Box::pin(async move {
            let mut events = Vec::with_capacity(here.len());
            for here in here {
                events.push(match here {
                    Here::Bytes(bytes) => bytes,
                    Here::Number(number) => host.read(epoch, number).await?,
                });
            }
            Ok(events)
        })
    }

    fn encode(&mut self, said: &Said, epoch: u64) -> Vec<u8> {
        if let Some((id, bytes)) = &self.encoded
            && *id == said.event.id
        {
            return bytes.clone();
        }
        let as_hash = |id: &EventId| Hash::from_bytes(id.0);
        let Event { creator, self_parent, other_parents, time_us, signature, .. } = &said.event;
        let event = SignedEvent {
            epoch,
            creator: self.members.cell(*creator).unwrap_or(self.cell),
            self_parent: self_parent.as_ref().map(as_hash),
            other_parents: other_parents.iter().map(as_hash).collect(),
            time_us: *time_us,
            payload: Hash::of(&said.payload),
            signature: *signature,
        };
        let bytes = codec::encode(&EventBytes { event, payload: said.payload.clone() });
        self.encoded = Some((said.event.id, bytes.clone()));
        bytes
    }

    fn push(&self, to: MemberIndex, frame: &Frame) {
        if let Some(cell) = self.members.cell(to) {
            self.host.send(&cell, codec::encode(frame));
        }
    }

    /// Begins an epoch; gives the one before.
    fn begin_epoch(&mut self, epoch: u64, base: u64) -> Gossip {
        let now = self.clock.now_us();
        let next = new_gossip(&self.members, self.me, &self.settings, now);
        let before = std::mem::replace(&mut self.gossip, next);
        for said in before.unordered_own() {
            self.host.say_again(&said.payload);
        }
        (self.epoch, self.base, self.round) = (epoch, base, 0);
        self.to_record.clear();
        (self.record_bytes, self.record_due_us) = (0, u64::MAX);
        self.gossip.go_on();
        self.decided.clear();
        self.targets.clear();
        self.target = None;
        tracing::info!(epoch, base, "an epoch begins");
        for (from, checked) in std::mem::take(&mut self.early) {
            self.take_frame(from, checked, now);
        }
        before
    }

    fn tell_status(&self) {
        let weight = self.members.weight(self.peers.iter().chain([&self.cell]));
        let engine = self.gossip.status();
        let now = GossipStatus {
            epoch: self.epoch,
            round: engine.pending.0,
            events: engine.events as u64,
            undetermined: engine.undetermined as u64,
            waiting: engine.waiting as u64,
            refused: engine.refused,
            tips: engine.tips.into_iter().map(|tip| tip.map(|round| round.0)).collect(),
            forked: engine.forked.iter().filter_map(|member| self.members.cell(*member)).collect(),
            has_quorum: self.members.is_supermajority(weight),
            has_started: self.gossip.is_started(),
            is_rolled_back: self.gossip.is_rolled_back().is_some(),
            target: self.target.map(|target| target.base),
        };
        self.status.send_if_modified(|status| {
            let is_new = *status != now;
            *status = now;
            is_new
        });
    }
}

fn new_gossip(members: &Members, me: MemberIndex, settings: &GossipSettings, now_us: u64) -> Gossip {
    let rules = Settings { coin_rounds: COIN_ROUNDS, events_a_round_max: EVENTS_A_ROUND_MAX };
    Gossip::new(me, Hashgraph::new(&members.weights(), rules), settings.engine, now_us)
}

/// Microseconds since 1970 (UTC) that never go back while the process runs.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    started_us: u64,
}

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX) }
    }

    fn now_us(&self) -> u64 {
        self.started_us + u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn at(&self, us: u64) -> Instant {
        // A day at most: what is due never is looked at again then.
        let ahead = us.saturating_sub(self.started_us).min(self.now_us() - self.started_us + 86_400_000_000);
        self.started + Duration::from_micros(ahead)
    }
}
