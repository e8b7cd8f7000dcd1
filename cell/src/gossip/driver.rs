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
use protocol::members::CHANGE_ROUNDS;
use protocol::signing::Signature;
use protocol::{CellId, Hash, Problem, ProblemKind, codec};
use tokio::sync::{mpsc, watch};

use super::checker::{Checked, Checker, as_said, malformed};
use super::wire::Frame;
use super::{
    Contents, DecidedRound, GossipSettings, GossipStatus, Handle, Host, INBOX_MAX, Input, LastRounds,
    Members, Target, look,
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
/// Bytes of them.
const EARLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Microseconds within which events of others are journaled that nothing waits for, and bytes at which they are.
const RECORD_WITHIN_US: u64 = 20_000;
/// See [`RECORD_WITHIN_US`].
const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Microseconds for which a quorum that is lost is taken to come back: connections are made anew when a peer starts again.
const QUORUM_GRACE_US: u64 = 1_000_000;
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

/// Why a driver has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody holds its handle any more.
    Stopped,
    /// This cell has another part now: an epoch has begun in which it is no member, or not by the key that it holds, or the only one, or it
    /// stands elsewhere.
    OtherPart,
}

/// What was waited for.
enum Done {
    Recorded(std::ops::RangeInclusive<u64>, Result<(), Problem>),
    Ordered(Result<Progress, Problem>),
    Read { to: Option<CellId>, frame: Unread, events: Result<Vec<Vec<u8>>, Problem> },
    Fork(Result<Box<[EventBytes; 2]>, Problem>),
    Epoch { epoch: u64, base: u64, members: Result<Arc<Members>, Problem> },
    Early(CellId, Result<Checked, Problem>),
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

/// The epoch before, for members that have not ended it.
struct Previous {
    gossip: Gossip,
    members: Arc<Members>,
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
    /// The last round of the epoch, as far as is known.
    last_round: u64,
    gossip: Gossip,
    previous: Option<Previous>,
    progress: Progress,
    decided: VecDeque<DecidedRound>,
    /// The last round that was decided.
    round: u64,
    /// Whether this life was heard: see [`Gossip::go_on`].
    was_heard: bool,
    recording: bool,
    /// Events that are to be journaled, with the number of the first, their bytes, and when they are at the latest.
    to_record: Vec<Arc<Said>>,
    record_first: u64,
    record_bytes: usize,
    record_due_us: u64,
    ordering: bool,
    doing: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What this member said in rounds that come too late.
    void: Vec<Vec<u8>>,
    /// Whether it is being looked up who is in the next epoch.
    changing: bool,
    /// Frames of the next epoch, and their bytes.
    early: Vec<(CellId, Vec<u8>)>,
    early_bytes: usize,
    ended: bool,
    peers: BTreeSet<CellId>,
    /// Until when the connected members count as a quorum: for ever while they are one, and for a moment after. None where they do not.
    quorum_until_us: Option<u64>,
    targets: BTreeMap<MemberIndex, Target>,
    target: Option<Target>,
    /// The event that was encoded last: the others get it as well.
    encoded: Option<(EventId, Vec<u8>)>,
    checker: Arc<Checker>,
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
        let checker =
            Arc::new(Checker::new(settings.genesis, Arc::clone(&host), start.epoch, Arc::clone(&members)));
        host.epoch_begins(start.epoch, &members);
        let handle = Handle { inbox: sender, status: watched, checker: Arc::clone(&checker) };
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
            last_round: settings.epoch_rounds,
            previous: None,
            progress: start.progress.unwrap_or(Progress { ordered: 0, executed: 0, finalised: 0 }),
            decided: VecDeque::new(),
            round: 0,
            was_heard: false,
            recording: false,
            to_record: Vec::new(),
            record_first: 0,
            record_bytes: 0,
            record_due_us: u64::MAX,
            ordering: false,
            doing: FuturesUnordered::new(),
            void: Vec::new(),
            changing: false,
            early: Vec::new(),
            early_bytes: 0,
            ended: false,
            peers: BTreeSet::new(),
            quorum_until_us: None,
            targets: BTreeMap::new(),
            target: None,
            encoded: None,
            checker,
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
            let contents = self.host.look(&bytes, &self.members);
            self.host.heard(self.epoch, &bytes.payload);
            let said = as_said(id, bytes, contents, &self.members)?;
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

    /// Runs until the handle is gone, or there is nobody to gossip with.
    ///
    /// # Errors
    ///
    /// What the journal says when it takes no more: the driver has to begin anew from what is durable.
    pub async fn run(mut self) -> Result<Ended, Problem> {
        self.gossip.begin(self.clock.now_us());
        self.meet();
        loop {
            self.act();
            if self.ended {
                return Ok(Ended::OtherPart);
            }
            let record_due_us = if self.recording || self.changing { u64::MAX } else { self.record_due_us };
            let due_us = record_due_us.min(self.quorum_until_us.unwrap_or(u64::MAX));
            let wake = self.clock.at(self.gossip.next_timeout_us().min(due_us));
            tokio::select! {
                biased;
                Some(done) = self.doing.next() => self.finish(done)?,
                input = self.inbox.recv() => {
                    let Some(input) = input else { return Ok(Ended::Stopped) };
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
            Input::Anew => self.ended = true,
            Input::Peers => self.meet(),
            Input::Final(blocks) => self.progress.finalised = self.progress.finalised.max(blocks),
            Input::CaughtUp(target, progress, members) => {
                self.progress = progress;
                if target.epoch > self.epoch {
                    self.begin_epoch(target.epoch, target.base, members);
                    self.previous = None;
                }
            }
            Input::Look(rounds, answer) => {
                let events = look::events(&self.gossip, &self.members, rounds);
                let pending_round = self.gossip.graph().pending_round().0;
                // Nobody may be waiting any more.
                let _ = answer.send(LastRounds { epoch: self.epoch, pending_round, events });
            }
            Input::Frame(from, checked) => self.take_frame(from, checked, now),
        }
    }

    fn take_frame(&mut self, from: CellId, checked: Checked, now: u64) {
        let member = self.members.place(&from);
        match checked {
            Checked::Events { epoch, events, answer } if epoch == self.epoch => match (member, answer) {
                (Some(from), None) => self.gossip.handle_events(from, events, now),
                (Some(from), Some(more)) => self.gossip.handle_answer(from, events, more, now),
                (None, _) => {}
            },
            Checked::Events { .. } => {}
            Checked::Early { epoch, bytes } => {
                if let Some(from) = member {
                    // It has ended this epoch: it has what is missing here.
                    self.gossip.handle_connected(from, now);
                }
                let fits = self.early.len() < EARLY_MAX && self.early_bytes + bytes.len() <= EARLY_BYTES_MAX;
                if epoch == self.epoch + 1 && fits {
                    self.early_bytes += bytes.len();
                    self.early.push((from, bytes));
                } else if epoch == self.epoch {
                    // It began while the frame was read.
                    self.check_early(from, bytes);
                }
            }
            Checked::Ask { epoch, tips } if epoch == self.epoch => {
                if let Some(from) = member {
                    self.gossip.handle_ask(from, &tips, now);
                }
            }
            Checked::Ask { epoch, tips } if epoch < self.epoch => match &mut self.previous {
                Some(previous) if epoch + 1 == self.epoch => {
                    if let Some(from) = previous.members.place(&from) {
                        previous.gossip.handle_ask(from, &tips, now);
                    }
                }
                _ => {
                    let over = Frame::Over { epoch: self.epoch, base: self.base };
                    self.host.send(&from, codec::encode(&over));
                }
            },
            Checked::Ask { .. } => {}
            Checked::Over(target) => {
                if let Some(from) = member {
                    self.targets.insert(from, target);
                    self.aim();
                }
            }
        }
    }

    fn check_early(&mut self, from: CellId, bytes: Vec<u8>) {
        let checker = Arc::clone(&self.checker);
        self.doing.push(Box::pin(async move { Done::Early(from, checker.check(&from, bytes).await) }));
    }

    /// Whether so many members are in a later epoch that one of them is honest.
    fn aim(&mut self) {
        let claims = |target: &Target| {
            let same = self.targets.iter().filter(|(_, claimed)| *claimed == target);
            let cells: Vec<CellId> = same.filter_map(|(member, _)| self.members.cell(*member)).collect();
            self.members.set().has_honest(self.members.weight(&cells))
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
    fn act(&mut self) {
        let now = self.clock.now_us();
        let is_ending = self.round >= self.last_round;
        // Rounds come only with events: where the epoch is to end early, everybody goes on until it does.
        let goes_on = self.last_round < self.settings.epoch_rounds && !is_ending;
        self.gossip.set_awaits(goes_on || self.progress.finalised < self.progress.ordered);
        self.gossip.set_to_say(goes_on || self.host.has_to_say(!is_ending));
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
            let frames: Vec<_> = std::iter::from_fn(|| previous.gossip.poll_frame()).collect();
            for (to, frame) in frames {
                self.send(to, frame, self.epoch - 1);
            }
        }
        let is_done = is_ending && self.decided.is_empty() && !self.ordering;
        // More may be final than was ordered here: blocks of the next epoch that were taken over.
        let is_final = self.progress.finalised >= self.progress.ordered;
        if is_done && is_final && !self.recording && !self.changing {
            let (epoch, base) = (self.epoch + 1, self.progress.ordered);
            let members = self.host.next_epoch(epoch, base);
            self.changing = true;
            self.doing.push(Box::pin(async move { Done::Epoch { epoch, base, members: members.await } }));
        }
        self.tell_status();
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
        let Contents { orders, changes } = contents;
        self.gossip.say(Arc::new(Said { event, payload, orders, changes }), now);
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
        // Once it is being found out who is in the next epoch, the journal may stand in that one.
        if self.recording || self.changing || self.to_record.is_empty() || !is_due {
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
        if ordered.round.0 > self.last_round {
            let own = ordered.events.into_iter().map(|(said, _)| said);
            let own = own.filter(|said| said.event.creator == self.me && said.orders);
            self.void.extend(own.map(|said| said.payload.clone()));
            return;
        }
        self.round = ordered.round.0;
        self.was_heard |= self.gossip.speaks_in(&ordered);
        if ordered.events.iter().any(|(said, _)| said.changes) {
            self.last_round = self.last_round.min(self.round.saturating_add(CHANGE_ROUNDS));
        }
        let payloads: Vec<&[u8]> = ordered.events.iter().map(|(said, _)| said.payload.as_slice()).collect();
        let drawn = self.host.decided(self.epoch, self.round, &payloads);
        let time_us = ordered.events.iter().map(|(_, time)| *time).max().unwrap_or(0);
        let said = ordered.events.into_iter().filter(|(said, _)| said.orders);
        let payloads: Vec<Vec<u8>> = said.map(|(said, _)| said.payload.clone()).collect();
        if !payloads.is_empty() || drawn.is_some() {
            self.decided.push_back(DecidedRound { round: self.round, time_us, payloads, drawn });
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
            Done::Epoch { epoch, base, members } => {
                self.changing = false;
                // Blocks may have been taken over meanwhile, and another epoch begun.
                if epoch == self.epoch + 1 {
                    self.previous = self.begin_epoch(epoch, base, members?);
                }
            }
            Done::Early(from, Ok(checked)) => self.take_frame(from, checked, self.clock.now_us()),
            Done::Early(from, Err(problem)) => {
                tracing::debug!(%from, %problem, "a frame that came early does not hold");
            }
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
        let to = self.members_of(epoch).cell(to);
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
            creator: self.members_of(epoch).cell(*creator).unwrap_or(self.cell),
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

    /// The members of the present epoch, or of the one before.
    fn members_of(&self, epoch: u64) -> &Arc<Members> {
        match &self.previous {
            Some(previous) if epoch < self.epoch => &previous.members,
            _ => &self.members,
        }
    }

    fn push(&self, to: Option<CellId>, frame: &Frame) {
        if let Some(cell) = to {
            self.host.send(&cell, codec::encode(frame));
        }
    }

    /// Begins an epoch; gives the one before, if this cell gossips in it.
    fn begin_epoch(&mut self, epoch: u64, base: u64, members: Arc<Members>) -> Option<Previous> {
        tracing::info!(epoch, base, members = members.count(), "an epoch begins");
        let may_sign = members.count() > 1 && self.host.signs_in(&members);
        let Some(me) = members.place(&self.cell).filter(|_| may_sign) else {
            self.ended = true;
            return None;
        };
        let now = self.clock.now_us();
        let next = new_gossip(&members, me, &self.settings, now);
        let before = Previous {
            gossip: std::mem::replace(&mut self.gossip, next),
            members: std::mem::replace(&mut self.members, members),
        };
        self.me = me;
        // As they were said, since nonces have to rise: what no round has received is later than what one has that came too late.
        for payload in std::mem::take(&mut self.void) {
            self.host.say_again(&payload);
        }
        for said in before.gossip.unordered_own() {
            self.host.say_again(&said.payload);
        }
        (self.epoch, self.base, self.round) = (epoch, base, 0);
        (self.last_round, self.changing) = (self.settings.epoch_rounds, false);
        self.to_record.clear();
        (self.record_bytes, self.record_due_us) = (0, u64::MAX);
        self.gossip.go_on(self.was_heard, now);
        self.decided.clear();
        self.targets.clear();
        self.target = None;
        self.checker.begin(epoch, Arc::clone(&self.members));
        self.host.epoch_begins(epoch, &self.members);
        self.early_bytes = 0;
        for (from, bytes) in std::mem::take(&mut self.early) {
            self.check_early(from, bytes);
        }
        Some(before)
    }

    fn tell_status(&mut self) {
        let now_us = self.clock.now_us();
        let weight = self.members.weight(self.peers.iter().chain([&self.cell]));
        self.quorum_until_us = if self.members.set().is_supermajority(weight) {
            Some(u64::MAX)
        } else {
            let until = self.quorum_until_us.map(|until| until.min(now_us + QUORUM_GRACE_US));
            until.filter(|until| *until > now_us)
        };
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
            has_quorum: self.quorum_until_us.is_some(),
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
