//! What waits to be put into this cell's next event.
//!
//! Rules:
//!
//! - Transactions come in the order of the journal entries they were taken in with, each once: what has an entry below the
//!   highest that came is known. So effects may come again, and be missed and looked up.
//! - While they are looked up, what comes is set aside: before it there is what is being looked up, which would pass for known.
//! - They are said by lane: priority, then normal, then bulk; within a lane as they came. Bulk has up to a quarter of an event while
//!   others wait, so that it comes forward, and no more. Nonces of a sender have to rise, so none is said before an earlier one of its sender:
//!   it waits in the slower lane of the two.
//! - What this cell has said already, in an event that its journal holds, is not said again.
//! - While too many blocks are open, nothing is added to the order; this cell's words always go, also for a block that is final here:
//!   elsewhere it may be the one that is missing.
//!
//! Bounded by what Consensus takes in and by the blocks that may be open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use consensus::EXECUTION_LAG_BLOCKS_MAX;
use protocol::block::Attestation;
use protocol::consensus::{Progress, Waiting};
use protocol::gossip::{EVENT_OVERHEAD_BYTES, Payload};
use protocol::transaction::{Lane, Transaction};
use protocol::{CellId, TxId, codec};

/// Transactions set aside while others are looked up; more are looked up as well.
const ASIDE_MAX: usize = 65_536;
/// Words of one event.
const WORDS_MAX: usize = 256;
/// What a transaction takes beside its arguments, in bytes, at most.
const TRANSACTION_OVERHEAD_BYTES: usize = 512;
/// The part of an event's room that bulk has while others wait: one of so many.
const BULK_SHARE: usize = 4;

/// Transactions by lane.
#[derive(Debug, Default)]
struct Lanes {
    queues: [VecDeque<Arc<Waiting>>; Lane::ALL.len()],
    /// How many of each sender wait in each lane; of those who have any.
    senders: BTreeMap<CellId, [usize; Lane::ALL.len()]>,
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Whether none waits in a lane before this one.
    fn is_first(&self, lane: Lane) -> bool {
        self.queues[..lane as usize].iter().all(VecDeque::is_empty)
    }

    fn push(&mut self, waiting: Arc<Waiting>) {
        let counts = self.senders.entry(waiting.transaction.sender).or_default();
        let slowest = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
        let lane = slowest.max(waiting.transaction.lane() as usize);
        counts[lane] += 1;
        self.queues[lane].push_back(waiting);
    }

    /// The next one of a lane, if there is room for it and no earlier one of its sender waits.
    fn pop(&mut self, lane: Lane, room: &mut usize) -> Option<Transaction> {
        let (lane, senders) = (lane as usize, &self.senders);
        let may_go = |waiting: &mut Arc<Waiting>| {
            let counts = senders.get(&waiting.transaction.sender);
            let is_first = counts.is_none_or(|counts| counts[..lane].iter().all(|count| *count == 0));
            is_first && room_of(&waiting.transaction) <= *room
        };
        let waiting = self.queues[lane].pop_front_if(may_go)?;
        let transaction = Arc::try_unwrap(waiting)
            .map_or_else(|waiting| waiting.transaction.clone(), |waiting| waiting.transaction);
        *room -= room_of(&transaction);
        if let Some(counts) = self.senders.get_mut(&transaction.sender) {
            counts[lane] -= 1;
            if counts.iter().all(|count| *count == 0) {
                self.senders.remove(&transaction.sender);
            }
        }
        Some(transaction)
    }

    /// Takes what there is room for.
    fn take(&mut self, mut room: usize) -> Vec<Transaction> {
        let mut bulk = Vec::new();
        if !self.is_first(Lane::Bulk) {
            let mut share = room / BULK_SHARE;
            while let Some(transaction) = self.pop(Lane::Bulk, &mut share) {
                room -= room_of(&transaction);
                bulk.push(transaction);
            }
        }
        let mut taken = Vec::new();
        for lane in Lane::ALL {
            if lane == Lane::Bulk {
                taken.append(&mut bulk);
            }
            // Behind one that there is no room for, the lanes after it wait as well.
            while self.is_first(lane)
                && let Some(transaction) = self.pop(lane, &mut room)
            {
                taken.push(transaction);
            }
        }
        taken
    }
}

/// What a transaction takes in an event, in bytes.
fn room_of(transaction: &Transaction) -> usize {
    transaction.args.len() + TRANSACTION_OVERHEAD_BYTES
}

#[derive(Debug, Default)]
struct Inner {
    /// In events of an epoch that has ended: first in line.
    again: VecDeque<Transaction>,
    waiting: Lanes,
    /// Entries below this one are known.
    next_entry: u64,
    /// What has come since it was begun to look up what waits.
    aside: Option<Aside>,
    /// What this cell's journal holds in an event already.
    said: BTreeSet<TxId>,
    words: VecDeque<Attestation>,
    progress: Option<Progress>,
}

/// Transactions that are not behind all that come before them yet.
#[derive(Debug, Default)]
struct Aside {
    came: Vec<Arc<Waiting>>,
    /// Whether there was no room for one: it has to be looked up.
    lacks: bool,
}

impl Inner {
    fn enter(&mut self, waiting: Arc<Waiting>) {
        if waiting.entry < self.next_entry {
            return;
        }
        self.next_entry = waiting.entry + 1;
        if self.said.is_empty() || !self.said.remove(&waiting.transaction.id()) {
            self.waiting.push(waiting);
        }
    }

    fn may_order(&self) -> bool {
        let open = |progress: Progress| progress.ordered.saturating_sub(progress.finalised);
        self.progress.is_none_or(|progress| open(progress) < EXECUTION_LAG_BLOCKS_MAX)
    }
}

/// What waits to be said.
#[derive(Debug, Default)]
pub struct Pool {
    inner: Mutex<Inner>,
    /// Held by whoever looks up what waits.
    looking_up: tokio::sync::Mutex<()>,
}

/// Whoever looks up what waits, in the order of entries.
pub(super) struct LookUp<'a> {
    pool: &'a Pool,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl LookUp<'_> {
    /// The last entry that is known: what comes after it is looked for.
    pub(super) fn known(&self) -> Option<u64> {
        self.pool.lock().next_entry.checked_sub(1)
    }

    /// The next transactions that wait.
    pub(super) fn found(&self, waiting: Vec<Waiting>) {
        let mut inner = self.pool.lock();
        waiting.into_iter().for_each(|waiting| inner.enter(Arc::new(waiting)));
    }

    /// All that waited when it was looked last was found: what has come meanwhile is behind it. Says whether that is all.
    pub(super) fn is_done(&self) -> bool {
        let mut inner = self.pool.lock();
        let Aside { mut came, lacks } = inner.aside.take().unwrap_or_default();
        if lacks {
            inner.aside = Some(Aside::default());
            return false;
        }
        came.sort_by_key(|waiting| waiting.entry);
        came.into_iter().for_each(|waiting| inner.enter(waiting));
        true
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to look up what waits: from now on what comes is set aside, until that [is done](LookUp::is_done) by this one or the next.
    pub(super) async fn look_up(&self) -> LookUp<'_> {
        let turn = self.looking_up.lock().await;
        self.lock().aside.get_or_insert_default();
        LookUp { pool: self, _turn: turn }
    }

    /// Forgets everything but what is in events already, and begins to look up what waits.
    pub(super) async fn begin_anew(&self, said: BTreeSet<TxId>, progress: Progress) -> LookUp<'_> {
        let turn = self.looking_up.lock().await;
        let aside = Some(Aside::default());
        *self.lock() = Inner { said, progress: Some(progress), aside, ..Inner::default() };
        LookUp { pool: self, _turn: turn }
    }

    /// A transaction was taken in.
    pub fn add(&self, waiting: Arc<Waiting>) {
        let mut inner = self.lock();
        match &mut inner.aside {
            None => inner.enter(waiting),
            Some(aside) if aside.came.len() < ASIDE_MAX => aside.came.push(waiting),
            Some(aside) => aside.lacks = true,
        }
    }

    /// This cell's word for a block.
    pub fn attest(&self, word: Attestation) {
        let mut inner = self.lock();
        if !inner.words.contains(&word) {
            inner.words.push_back(word);
        }
    }

    /// Blocks have come further.
    pub fn advance(&self, progress: Progress) {
        let mut inner = self.lock();
        let finalised = inner.progress.map_or(0, |before| before.finalised).max(progress.finalised);
        inner.progress = Some(Progress { finalised, ..progress });
    }

    /// Blocks are final up to this count.
    pub fn finalised(&self, blocks: u64) {
        let mut inner = self.lock();
        if let Some(progress) = &mut inner.progress {
            progress.finalised = progress.finalised.max(blocks);
        }
    }

    /// Whether there is something for the next event.
    pub(super) fn has_to_say(&self, may_order: bool) -> bool {
        let inner = self.lock();
        let waits = !inner.waiting.is_empty() || !inner.again.is_empty();
        !inner.words.is_empty() || may_order && waits && inner.may_order()
    }

    /// Takes what the next event carries: words, and transactions of at most so many bytes.
    pub(super) fn take(&self, bytes_max: usize) -> Payload {
        let mut inner = self.lock();
        let words = inner.words.len().min(WORDS_MAX);
        let attestations: Vec<Attestation> = inner.words.drain(..words).collect();
        let mut room = bytes_max.saturating_sub((words + 1) * EVENT_OVERHEAD_BYTES);
        let mut transactions = Vec::new();
        if !inner.may_order() {
            return Payload { transactions, attestations, ..Payload::default() };
        }
        while let Some(transaction) = inner.again.pop_front_if(|transaction| room_of(transaction) <= room) {
            room -= room_of(&transaction);
            transactions.push(transaction);
        }
        // What is said again may be an earlier one of any sender.
        if inner.again.is_empty() {
            transactions.append(&mut inner.waiting.take(room));
        }
        Payload { transactions, attestations, ..Payload::default() }
    }

    /// What was in an event that came to nothing is said again.
    pub(super) fn again(&self, payload: &[u8]) {
        if let Ok(payload) = read(payload) {
            self.lock().again.extend(payload.transactions);
        }
    }
}

/// What an event carries; nothing is no bytes.
pub(super) fn read(payload: &[u8]) -> Result<Payload, protocol::Problem> {
    if payload.is_empty() { Ok(Payload::default()) } else { codec::decode(payload) }
}

/// The bytes of what an event carries.
pub(super) fn write(payload: &Payload) -> Vec<u8> {
    if *payload == Payload::default() { Vec::new() } else { codec::encode(payload) }
}

#[cfg(test)]
mod tests {
    use protocol::signing::Signature;
    use protocol::{CellId, GenesisHash};

    use super::*;

    fn waiting(entry: u64) -> Arc<Waiting> {
        let transaction = Transaction {
            genesis: GenesisHash::ZERO,
            sender: CellId::from_bytes([1; 32]),
            nonce: entry,
            module: "kv".into(),
            call: "put".into(),
            args: "{}".into(),
            signature: Signature::from_bytes([0; 64]),
            lane: None,
            max_fee: None,
        };
        Arc::new(Waiting { entry, transaction })
    }

    /// Of another sender, in a lane.
    fn of(entry: u64, sender: u8, lane: Lane) -> Arc<Waiting> {
        let transaction = Transaction {
            sender: CellId::from_bytes([sender; 32]),
            lane: Some(lane),
            ..waiting(entry).transaction.clone()
        };
        Arc::new(Waiting { entry, transaction })
    }

    /// Room for so many of the tests' transactions: each counts as its two bytes of arguments and what it takes beside them.
    fn room_for(count: usize) -> usize {
        EVENT_OVERHEAD_BYTES + count * (TRANSACTION_OVERHEAD_BYTES + 2)
    }

    fn nonces(payload: &Payload) -> Vec<u64> {
        payload.transactions.iter().map(|transaction| transaction.nonce).collect()
    }

    #[test]
    fn each_is_said_once_in_order_however_often_it_comes() {
        let pool = Pool::default();
        for entry in [3, 5, 3, 5, 9] {
            pool.add(waiting(entry));
        }
        let room = room_for(2);
        assert_eq!(nonces(&pool.take(room)), [3, 5], "as many as there is room for");
        assert_eq!(nonces(&pool.take(room)), [9]);
        pool.add(waiting(9));
        assert!(!pool.has_to_say(true));
    }

    fn owned(entries: impl IntoIterator<Item = u64>) -> Vec<Waiting> {
        let waiting = entries.into_iter().map(waiting);
        waiting.map(|waiting| Arc::try_unwrap(waiting).expect("nobody else has it")).collect()
    }

    const NOTHING: Progress = Progress { ordered: 0, executed: 0, finalised: 0 };

    /// A cell that begins anew under load: transactions go on coming while those before them are read, page by page.
    #[tokio::test]
    async fn what_comes_while_others_are_looked_up_hides_none_of_them() {
        let pool = Pool::default();
        pool.add(waiting(7));
        let look_up = pool.begin_anew(BTreeSet::new(), NOTHING).await;
        pool.add(waiting(6));
        assert_eq!(look_up.known(), None, "all of it is looked for");
        look_up.found(owned([1, 2]));
        pool.add(waiting(8));
        assert_eq!(look_up.known(), Some(2));
        look_up.found(owned([3, 6]));
        pool.add(waiting(9));
        assert!(look_up.is_done());
        drop(look_up);
        pool.add(waiting(10));
        assert_eq!(nonces(&pool.take(usize::MAX)), [1, 2, 3, 6, 8, 9, 10]);
    }

    /// What was begun and failed is for the next one to do: nothing that came goes before it.
    #[tokio::test]
    async fn what_could_not_be_looked_up_is_looked_up_by_the_next() {
        let pool = Pool::default();
        pool.add(waiting(1));
        let look_up = pool.look_up().await;
        look_up.found(owned([2]));
        drop(look_up);
        pool.add(waiting(5));
        assert_eq!(nonces(&pool.take(usize::MAX)), [1, 2], "3 may be missing");
        let look_up = pool.look_up().await;
        assert_eq!(look_up.known(), Some(2));
        look_up.found(owned([3, 5]));
        assert!(look_up.is_done());
        assert_eq!(nonces(&pool.take(usize::MAX)), [3, 5]);
    }

    #[tokio::test]
    async fn what_finds_no_room_aside_is_looked_up_as_well() {
        let pool = Pool::default();
        let look_up = pool.begin_anew(BTreeSet::new(), NOTHING).await;
        let last = ASIDE_MAX as u64 + 1;
        (1..=last).for_each(|entry| pool.add(waiting(entry)));
        assert!(!look_up.is_done(), "there is one more");
        look_up.found(owned(1..=last));
        assert!(look_up.is_done());
        assert_eq!(pool.take(usize::MAX).transactions.len() as u64, last);
    }

    #[tokio::test]
    async fn what_the_journal_holds_in_an_event_is_not_said_again_and_what_came_to_nothing_is() {
        let pool = Pool::default();
        let look_up = pool.begin_anew([waiting(3).transaction.id()].into(), NOTHING).await;
        look_up.found(owned([3, 5]));
        assert!(look_up.is_done());
        drop(look_up);
        let said = pool.take(usize::MAX);
        assert_eq!(nonces(&said), [5]);
        pool.again(&write(&said));
        pool.add(waiting(6));
        assert_eq!(nonces(&pool.take(usize::MAX)), [5, 6], "first in line");
    }

    #[test]
    fn lanes_go_before_each_other_and_bulk_has_its_share() {
        let pool = Pool::default();
        let lanes = [Lane::Bulk, Lane::Normal, Lane::Priority];
        for entry in 0..24 {
            pool.add(of(entry, entry as u8 + 1, lanes[entry as usize % 3]));
        }
        assert_eq!(nonces(&pool.take(room_for(8))), [2, 5, 8, 11, 14, 17, 0, 3], "a quarter is bulk");
        assert_eq!(nonces(&pool.take(room_for(3))), [20, 23, 1], "there is no quarter of this for bulk");
        assert_eq!(
            nonces(&pool.take(room_for(12))),
            [4, 7, 10, 13, 16, 19, 22, 6, 9, 12, 15, 18],
            "nobody else waits"
        );
        assert_eq!(nonces(&pool.take(usize::MAX)), [21]);
        assert!(!pool.has_to_say(true));
    }

    #[test]
    fn none_is_said_before_an_earlier_one_of_its_sender() {
        let pool = Pool::default();
        pool.add(of(1, 1, Lane::Normal));
        pool.add(of(2, 2, Lane::Normal));
        pool.add(of(3, 1, Lane::Bulk));
        pool.add(of(4, 1, Lane::Priority));
        pool.add(of(5, 2, Lane::Priority));
        pool.add(of(6, 3, Lane::Priority));
        pool.add(of(7, 4, Lane::Bulk));
        // There would be room for bulk, and the first of it has an earlier one of its sender before it.
        assert_eq!(nonces(&pool.take(room_for(4))), [6, 1, 2, 5]);
        assert_eq!(nonces(&pool.take(room_for(2))), [3, 4]);
        pool.add(of(8, 1, Lane::Priority));
        pool.add(of(9, 2, Lane::Priority));
        assert_eq!(nonces(&pool.take(usize::MAX)), [8, 9, 7], "who waits no more is behind nobody");
    }

    #[test]
    fn nothing_is_added_to_the_order_while_too_many_blocks_are_open() {
        let pool = Pool::default();
        pool.add(waiting(1));
        pool.advance(Progress { ordered: EXECUTION_LAG_BLOCKS_MAX, executed: 0, finalised: 0 });
        assert!(!pool.has_to_say(true));
        assert_eq!(nonces(&pool.take(usize::MAX)), [0u64; 0]);
        pool.finalised(1);
        assert!(pool.has_to_say(true) && !pool.has_to_say(false));
        assert_eq!(nonces(&pool.take(usize::MAX)), [1]);
    }
    /// A block may be final here by the words of others, and wait for this one there.
    #[test]
    fn a_word_is_said_though_its_block_is_final_here() {
        let pool = Pool::default();
        let word = Attestation {
            member: CellId::from_bytes([1; 32]),
            index: protocol::BlockIndex(3),
            block: protocol::BlockHash::ZERO,
            root: protocol::StateRoot::from_bytes([1; 32]),
            signature: Signature::from_bytes([0; 64]),
        };
        pool.attest(word.clone());
        pool.attest(word.clone());
        pool.finalised(4);
        assert!(pool.has_to_say(false));
        assert_eq!(pool.take(0).attestations, [word]);
    }
}
