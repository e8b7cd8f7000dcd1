//! A life of a member: a process with its two services, its pool, and its part in the present epoch. It is glued together as a cell
//! is (`cell/src/gossip`): what a cell waits for in tasks stands here as what waits for a journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use consensus::ConsensusMachine;
use consensus::gossip::{Gossip, Said};
use consensus::hashgraph::{EventId, MemberIndex};
use protocol::block::{Attestation, Block};
use protocol::consensus::{OrderedRound, Progress};
use protocol::state::Applied;
use state::StateMachine;

use crate::cells::Epoch;
use crate::service::Service;
use crate::words::Word;
use crate::world::Sent;

/// What stands at the beginning.
pub(crate) const NOTHING: Progress = Progress { ordered: 0, executed: 0, finalised: 0 };

/// Where others say to be: an epoch, and the first block that it may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) epoch: u64,
    pub(crate) base: u64,
}

/// What waits to be said.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Transactions that were in an event which came to nothing.
    pub(crate) again: VecDeque<Word>,
    pub(crate) waiting: VecDeque<Word>,
    /// This member's words for blocks.
    pub(crate) words: VecDeque<Word>,
    /// Transactions in own events that the journal holds, and the first entry that is not known yet.
    pub(crate) said: BTreeSet<Word>,
    next_entry: u64,
}

impl Pool {
    /// A transaction was taken in with this entry of the journal.
    pub(crate) fn add(&mut self, entry: u64, word: Word) {
        if entry < self.next_entry {
            return;
        }
        self.next_entry = entry + 1;
        if !self.said.remove(&word) {
            self.waiting.push_back(word);
        }
    }

    /// Forgets everything but what is in events already.
    pub(crate) fn reset(&mut self, said: BTreeSet<Word>) {
        *self = Self { said, ..Self::default() };
    }

    pub(crate) fn has_to_say(&self, may_order: bool) -> bool {
        !self.words.is_empty() || may_order && !(self.again.is_empty() && self.waiting.is_empty())
    }
}

/// Its part in an epoch that it is a member of.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) me: MemberIndex,
    pub(crate) gossip: Gossip,
    /// The last round of the epoch, as far as is known, and the last one that was decided.
    pub(crate) last_round: u64,
    pub(crate) round: u64,
    pub(crate) decided: VecDeque<OrderedRound>,
    /// What it said in rounds that come too late.
    pub(crate) void: Vec<Vec<u8>>,
    /// Events to be journaled, the number of the first, and until when at the latest.
    pub(crate) to_record: Vec<Arc<Said>>,
    pub(crate) record_first: u64,
    pub(crate) record_due_us: u64,
    /// What of the journal has to be durable for what was asked.
    pub(crate) recording: Option<(usize, RangeInclusive<u64>)>,
    pub(crate) ordering: Option<(usize, Progress)>,
    /// Whether it was heard since it lives.
    pub(crate) was_heard: bool,
    /// Whether it asked the others when it began.
    pub(crate) has_asked: bool,
    /// Those who have told it all since, and its own events that they had. Nobody is told; it is for the invariants.
    pub(crate) told_by: BTreeSet<usize>,
    pub(crate) told: BTreeSet<EventId>,
    /// Rounds and events that were given out.
    pub(crate) rounds: u64,
    pub(crate) taken_out: usize,
}

/// Its part in the epoch before, for those who have not ended it.
#[derive(Debug)]
pub(crate) struct Previous {
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) gossip: Gossip,
}

/// An epoch that begins once its members are journaled.
pub(crate) struct Entering {
    pub(crate) needs: usize,
    pub(crate) epoch: Arc<Epoch>,
}

/// A process.
pub(crate) struct Life {
    pub(crate) consensus: Service<ConsensusMachine>,
    pub(crate) state: Service<StateMachine>,
    pub(crate) pool: Pool,
    pub(crate) progress: Progress,
    /// None of one that is no member: it follows.
    pub(crate) part: Option<Part>,
    pub(crate) previous: Option<Previous>,
    /// Blocks to execute, and the one that is executed.
    pub(crate) blocks: VecDeque<Arc<Block>>,
    pub(crate) applying: Option<(usize, Arc<Block>, Applied)>,
    /// Others' words for blocks, by the epoch that they were heard in, and those that are being journaled.
    pub(crate) heard: BTreeMap<u64, Vec<Attestation>>,
    pub(crate) hearing: usize,
    /// What was taken in, and waits for the journal.
    pub(crate) admitted: Vec<(usize, Word)>,
    pub(crate) entering: Option<Entering>,
    pub(crate) claims: BTreeMap<usize, Target>,
    pub(crate) target: Option<Target>,
    /// Frames of the next epoch.
    pub(crate) early: Vec<(usize, Sent)>,
    /// When it looks next whether others have gone on, and how many blocks it knew of when it looked last.
    pub(crate) looks_us: u64,
    pub(crate) ordered_before: u64,
}

impl Life {
    pub(crate) fn new(consensus: ConsensusMachine, state: StateMachine) -> Self {
        Self {
            consensus: Service::new(consensus),
            state: Service::new(state),
            pool: Pool::default(),
            progress: NOTHING,
            part: None,
            previous: None,
            blocks: VecDeque::new(),
            applying: None,
            heard: BTreeMap::new(),
            hearing: 0,
            admitted: Vec::new(),
            entering: None,
            claims: BTreeMap::new(),
            target: None,
            early: Vec::new(),
            looks_us: 0,
            ordered_before: 0,
        }
    }

    /// Forgets all that is in memory alone.
    pub(crate) fn forget(&mut self) {
        self.forget_part();
        self.blocks.clear();
        self.applying = None;
        self.heard.clear();
        self.hearing = 0;
        self.admitted.clear();
    }

    /// Forgets its part in the epoch, and what others have said about theirs.
    pub(crate) fn forget_part(&mut self) {
        (self.part, self.previous, self.entering, self.target) = (None, None, None, None);
        self.claims.clear();
        self.early.clear();
        (self.looks_us, self.ordered_before) = (0, 0);
    }
}
