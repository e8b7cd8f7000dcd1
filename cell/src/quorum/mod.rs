//! Which host of a cell leads, and the log that its hosts commit together: Raft, by the crate `openraft`.
//!
//! - [`Quorum`]: begins a group, admits and removes hosts, proposes, tells who leads and whether that still holds.
//! - `leadership`: what openraft says of itself, made into who leads and a lease.
//! - `log`: votes and entries on disk, in a journal of this host's own.
//! - `machine`: committed entries, in order, into the caller's [`StateMachine`].
//! - `peer`, `wire`, `pieces`: questions between hosts, over the caller's [`Transport`]. `types`: what openraft is told.
//!
//! Rules:
//!
//! - A vote, an entry, a cut of the log: each is synced before it is acknowledged to anybody.
//! - A term has one leader at most. A host that starts again does not go on leading: each life that leads has a term of its own.
//! - An entry is handed to the state machine when a majority has synced it, once, in order. What the state machine says that it has applied is
//!   never handed to it again. A log that lacks some of that was lost, and so was a state that lacks what the log no longer keeps: a host
//!   starts with neither.
//! - **The lease.** A host grants no vote for [`Settings::election_max`] after it has heard from a leader. The leader counts that time from when it
//!   *sent* what a majority has acknowledged since, and leaves an eighth off for clocks that run at different speeds. So while
//!   [`Quorum::holds_lease`], nobody else leads. A host that starts again may have promised that to a leader it has forgotten: it grants and
//!   asks for no vote for so long (openraft does not do that by itself).
//! - A leader that hands over gives its lease up first: the vote for the next one does not wait.
//! - A host asks whether it would be elected before it begins a new term (Raft's pre-vote): one that was cut off disturbs nobody when it is back.
//! - A host's key stands for one log. A host that has lost its log comes back under another key.
//!
//! Bounds: all in [`Settings`]; what is sent at once in `wire`; what waits for the disk in `log::writer`.
//!
//! Clocks: the lease is measured by `CLOCK_MONOTONIC`, which runs on while a process is stopped, and stands still while the *machine* sleeps: do not
//! suspend a machine that leads.
//!
//! Absent on purpose: forwarding of proposals to the leader (the bridge does that, with the caller's deadline); reads that ask a majority (the
//! lease answers them); knowledge of what a payload means.
//!
//! Source: Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm* (2014); Ongaro's thesis (2014), §4.2.3 (disruptive servers),
//! §6.4.1 (leases), §9.6 (pre-vote).

mod leadership;
mod log;
mod machine;
mod peer;
mod pieces;
mod problems;
mod settings;
#[cfg(test)]
mod tests;
mod types;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use journal::{EncryptionKey, KeyPair};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::EmptyNode;
use openraft::{ChangeMembers, StorageHelper};
use protocol::{HostId, Problem};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use log::Log;
use machine::Machine;
use peer::Peers;
use pieces::Incoming;
use types::{Metrics, Payload, Raft, Types, Voter};
use wire::{Answer, Ask};

pub use leadership::Leadership;
pub use machine::{Committed, Position, StateMachine};
pub use peer::Transport;
pub use settings::Settings;

/// Where a host keeps its votes and its log.
#[derive(Clone, Debug)]
pub struct LogPlace {
    /// The folder; made if it is not there.
    pub folder: PathBuf,
    /// The pair that the log is signed with: this host's own, for this log alone.
    pub key_pair: KeyPair,
    /// What the log is encrypted with at rest, if it is.
    pub encryption_key: Option<EncryptionKey>,
}

/// A host of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The host.
    pub host: HostId,
    /// Whether it counts towards a majority; else it only follows, until it has caught up.
    pub votes: bool,
}

/// This host's part in the group. Stop it with [`Quorum::stop`] before its folder is opened again.
pub struct Quorum {
    me: Voter,
    settings: Settings,
    raft: Raft,
    log: Log,
    leadership: watch::Receiver<Leadership>,
    watcher: JoinHandle<()>,
    proposals: Semaphore,
    answers: Semaphore,
    incoming: Incoming,
    /// Until when this host keeps what it may have promised a leader before it was started.
    silent_until: Option<Instant>,
    /// The last term that this host has begun to hand over; 0 if none.
    handed_over: AtomicU64,
}

impl Quorum {
    /// Opens the log, or makes it, and takes part: as a member of the group that the log names, or, with a log that is new, as nobody until
    /// [`Quorum::begin`] here or [`Quorum::admit`] on the host that leads.
    ///
    /// # Errors
    ///
    /// `quorum.settings`; `quorum.log` if the log cannot be read; `quorum.log_short`, `quorum.state_short` if log and state machine cannot
    /// be of one host, one of them being older than the other; those of the state machine.
    pub async fn start(
        me: HostId,
        settings: Settings,
        place: LogPlace,
        transport: Arc<dyn Transport>,
        state_machine: Arc<dyn StateMachine>,
    ) -> Result<Self, Problem> {
        let log = Log::open(place).await?;
        let started = Self::start_on(log.clone(), Voter(me), settings, transport, state_machine).await;
        if started.is_err() {
            // So that it can be tried again at once.
            log.close().await;
        }
        started
    }

    async fn start_on(
        mut log: Log,
        me: Voter,
        settings: Settings,
        transport: Arc<dyn Transport>,
        state_machine: Arc<dyn StateMachine>,
    ) -> Result<Self, Problem> {
        let config = settings.config()?;
        let ready = Arc::new(AtomicBool::new(false));
        let mut machine =
            Machine::open(state_machine, log.clone(), settings.snapshot_bytes_max, Arc::clone(&ready))
                .await?;
        let silent = log.has_voted() && !is_alone(me, &mut log, &mut machine).await?;
        let peers = Peers::new(me, transport, &settings);
        let raft = Raft::build(me, config, peers, log.clone(), machine).await.map_err(problems::start)?;
        ready.store(true, Ordering::Release);
        raft.runtime_config().elect(!silent);
        raft.run();
        // From here on it tells what it has read, and not that it has read nothing.
        raft.with_raft_state(|_| ()).await.map_err(problems::start)?;
        let silent_until = silent.then(|| Instant::now() + settings.election_max);
        if let Some(until) = silent_until {
            let raft = raft.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(until).await;
                raft.runtime_config().elect(true);
            });
        }
        let (leadership, watcher) = leadership::watch(&raft, me);
        Ok(Self {
            me,
            raft,
            log,
            leadership,
            watcher,
            proposals: Semaphore::new(settings.proposals_max),
            answers: Semaphore::new(settings.answers_max),
            incoming: Incoming::new(settings.snapshot_bytes_max),
            silent_until,
            handed_over: AtomicU64::new(0),
            settings,
        })
    }

    /// This host.
    pub fn me(&self) -> HostId {
        self.me.0
    }

    /// Begins a group of one, which this host leads when this returns. Once in the life of a cell.
    ///
    /// # Errors
    ///
    /// `quorum.begun` if this host is of a group already; `quorum.unknown_outcome` if it does not lead in time.
    pub async fn begin(&self) -> Result<(), Problem> {
        self.running()?;
        let members = BTreeMap::from([(self.me, EmptyNode::default())]);
        self.raft.initialize(members).await.map_err(problems::begin)?;
        let mut leadership = self.leadership();
        in_time(self.settings.proposal_timeout, async {
            let _ = leadership.wait_for(|leadership| leadership.is_me).await;
        })
        .await
    }

    /// Admits a host: it follows until it has what the others have, then it counts. Of a host that is a member already nothing is asked; a host
    /// that did not catch up in time goes on following, and may be admitted again.
    ///
    /// # Errors
    ///
    /// Those of [`Quorum::propose`]; `quorum.full` beyond [`Settings::members_max`]; `quorum.changing` while another change is under way.
    pub async fn admit(&self, host: HostId) -> Result<(), Problem> {
        self.running()?;
        let voter = Voter(host);
        let members = self.members();
        let member = members.iter().find(|member| member.host == host);
        if member.is_some_and(|member| member.votes) {
            return Ok(());
        }
        if member.is_none() && members.len() >= self.settings.members_max {
            return Err(problems::full(members.len()));
        }
        in_time(self.settings.admit_timeout, async {
            self.raft.add_learner(voter, EmptyNode::default(), true).await.map_err(problems::write)?;
            let promotion = ChangeMembers::AddVoterIds(BTreeSet::from([voter]));
            self.raft.change_membership(promotion, true).await.map_err(problems::write)?;
            Ok(())
        })
        .await?
    }

    /// Removes a host: it counts no more, and nothing is sent to it. It takes a majority with it and one without it.
    ///
    /// # Errors
    ///
    /// Those of [`Quorum::propose`]; `quorum.itself` of this host; `quorum.unknown_host`; `quorum.changing`.
    pub async fn remove(&self, host: HostId) -> Result<(), Problem> {
        self.running()?;
        if self.me.0 == host {
            return Err(problems::itself());
        }
        let members = self.members();
        let member = members.iter().find(|member| member.host == host);
        let gone = BTreeSet::from([Voter(host)]);
        let change = match member.ok_or_else(|| problems::unknown_host(host))?.votes {
            true => ChangeMembers::RemoveVoters(gone),
            false => ChangeMembers::RemoveNodes(gone),
        };
        in_time(self.settings.admit_timeout, async {
            self.raft.change_membership(change, false).await.map_err(problems::write)
        })
        .await?
        .map(|_| ())
    }

    /// Has another member lead. The lease is given up first: this host does not hold one again in this term, whether the other takes over or not.
    ///
    /// # Errors
    ///
    /// `bridge.not_leading`; `quorum.unknown_host` of one that does not vote; `quorum.not_handed_over` if it has not taken over in time.
    pub async fn hand_over(&self, to: HostId) -> Result<(), Problem> {
        self.running()?;
        let now = self.leadership.borrow().clone();
        if !now.is_me {
            return Err(problems::not_leading(now.leader));
        }
        if to == self.me.0 {
            return Ok(());
        }
        if !self.members().contains(&Member { host: to, votes: true }) {
            return Err(problems::unknown_host(to));
        }
        self.handed_over.fetch_max(now.term, Ordering::AcqRel);
        self.raft.trigger().transfer_leader(Voter(to)).await.map_err(problems::stopped)?;
        let mut leadership = self.leadership();
        let taken = leadership.wait_for(|next| next.term > now.term && next.leader.is_some());
        match timeout(3 * self.settings.election_max, taken).await {
            Ok(_) => Ok(()),
            Err(_) => Err(problems::not_handed_over(to)),
        }
    }

    /// Has the group take an entry. Returns its index when a majority has synced it and it is applied here.
    ///
    /// # Errors
    ///
    /// Nothing was done: `bridge.not_leading` with the host that leads; `quorum.no_majority` while no majority is heard; `quorum.too_large`,
    /// `quorum.busy` over [`Settings::payload_bytes_max`], [`Settings::proposals_max`]; `quorum.stopped`. Not known whether it will be committed:
    /// `quorum.unknown_outcome`.
    pub async fn propose(&self, payload: Vec<u8>) -> Result<u64, Problem> {
        self.running()?;
        if payload.len() > self.settings.payload_bytes_max {
            return Err(problems::too_large(payload.len(), self.settings.payload_bytes_max));
        }
        let _place = self.proposals.try_acquire().map_err(|_| problems::busy("proposals"))?;
        let write = self.raft.client_write(Payload(payload.into()));
        let written = in_time(self.settings.proposal_timeout, write).await?;
        written.map(|response| response.log_id.index).map_err(problems::write)
    }

    /// Answers a question of another host, which [`Transport::ask`] has brought. Give it only hosts that are admitted to the cell.
    pub async fn answer(&self, from: HostId, bytes: &[u8]) -> Vec<u8> {
        let answer = match self.answers.try_acquire() {
            Ok(_place) => self.answer_one(from, bytes).await,
            Err(_) => Err(problems::busy("questions of other hosts")),
        };
        wire::encode(&answer.unwrap_or_else(Answer::Refused))
    }

    async fn answer_one(&self, from: HostId, bytes: &[u8]) -> Result<Answer, Problem> {
        let ask: Ask = wire::decode(bytes)?;
        // A host speaks for itself.
        if ask.speaker() != from {
            return Err(problems::not_its_own(from));
        }
        if ask.wants_vote() && self.silent_until.is_some_and(|until| Instant::now() < until) {
            return Err(problems::silent());
        }
        Ok(match ask {
            Ask::PreVote(request) => Answer::Vote(self.raft.pre_vote(request).await.map_err(problems::rpc)?),
            Ask::Vote(request) => Answer::Vote(self.raft.vote(request).await.map_err(problems::rpc)?),
            Ask::Append(request) => {
                Answer::Append(self.raft.append_entries(request).await.map_err(problems::rpc)?)
            }
            Ask::Piece(piece) => match self.incoming.take(from, piece)? {
                None => Answer::Piece,
                Some((vote, snapshot)) => Answer::Installed(
                    self.raft.install_full_snapshot(vote, snapshot).await.map_err(problems::stopped)?,
                ),
            },
            Ask::HandOver(request) => {
                Answer::HandOver(self.raft.handle_transfer_leader(request).await.map_err(problems::stopped)?)
            }
        })
    }

    /// Who leads, now and from now on.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Whether this host leads and nobody else can: true while a majority has acknowledged it within the lease, by the monotonic clock, as of
    /// now. A process that was stopped sees false at once. What takes longer than is left of the lease has to ask again before it shows.
    pub fn holds_lease(&self) -> bool {
        self.lease_left().is_some()
    }

    /// How much is left of the lease, if this host holds one. [`Duration::MAX`] for a group of one.
    pub fn lease_left(&self) -> Option<Duration> {
        let given_up = self.handed_over.load(Ordering::Acquire);
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        leadership::lease_left(&metrics, self.me, given_up, self.settings.lease())
    }

    /// The members that this host knows of: those in force, committed or not.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.raft.metrics();
        let metrics: &Metrics = &metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<Voter> = membership.voter_ids().collect();
        membership.nodes().map(|(id, _)| Member { host: id.0, votes: voters.contains(id) }).collect()
    }

    /// Takes part no more. Nothing that was acknowledged is lost; the folder may be opened again when this returns.
    pub async fn stop(&self) {
        let _ = self.raft.shutdown().await;
        self.watcher.abort();
        self.log.close().await;
    }

    /// Refuses when a fault has stopped this host's part.
    fn running(&self) -> Result<(), Problem> {
        let metrics = self.raft.metrics();
        let running = metrics.borrow_watched().running_state.clone();
        running.map_err(problems::stopped)
    }
}

/// Whether this host is a group of one, so that there is nobody whom it may have promised anything.
async fn is_alone(me: Voter, log: &mut Log, machine: &mut Machine) -> Result<bool, Problem> {
    let members = StorageHelper::<Types, _, _>::new(log, machine).with_id(me).get_membership().await;
    let members = members.map_err(|error| problems::log(&error))?;
    Ok(members.effective().voter_ids().eq([me]))
}

/// A change whose outcome is not known if it takes longer.
async fn in_time<T>(limit: Duration, change: impl Future<Output = T>) -> Result<T, Problem> {
    timeout(limit, change).await.map_err(|_| problems::unknown_outcome("it took too long"))
}
