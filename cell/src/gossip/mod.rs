//! The hashgraph between cells: drives `consensus::gossip`, the pure engine, with this cell's clock, journal and network.
//!
//! - `part` keeps running what the present epoch gives this cell to do; `seat` is the cell as the driver's host.
//! - `checker` reads frames and checks the events in them.
//! - `driver` is one task: frames, times and what is durable go in; records, frames and decided rounds come out. It runs
//!   over whatever is a [`Host`]: the cell (`seat`), or a load program that orders opaque bytes.
//! - `pool` holds what waits to be put into this cell's next event.
//! - `behind` takes final blocks over where the events are no longer to be had.
//! - `checkpoint` takes the state after a final block from others, and offers it to them.
//! - `beacon` is this cell's part in the random beacon.
//! - `alone` orders for a network of one.
//! - `look` shows the last rounds of the graph.
//!
//! Rules:
//!
//! - An event is sent when it is durable here with all that it is built on. The engine sees to it; the driver tells it what
//!   the journal has taken.
//! - An event is taken from another member only if it is well-formed: it can be read, its signature is its creator's, what it carries can be read,
//!   and every signature in that holds. That is a function of its bytes, so all honest members refuse the same ones; they
//!   are refused before the engine sees them. So rubbish never spreads.
//! - Signatures are checked where frames are read, a peer at a time, many in one equation; not in the driver's task.
//! - An epoch ends when its last round was ordered and all of its blocks are final. What is in none then is said again in the next.
//!   Its last round is that of the genesis, or [`CHANGE_ROUNDS`](protocol::members::CHANGE_ROUNDS) after the first that received a
//!   member's transaction on the members. Who is in the next epoch is read from the state; every event is checked by the members of its
//!   own epoch.
//!
//! Bounds: inbox `INBOX_MAX`; what the engine bounds; one request to the journal under way for events, one for rounds, one for
//! members' words.

mod ahead;
mod alone;
mod beacon;
mod behind;
mod checker;
mod checkpoint;
mod claims;
mod driver;
mod look;
mod members;
mod part;
mod pool;
mod seat;
mod wire;

use std::sync::Arc;

use consensus::gossip::Settings;
use consensus::hashgraph::Pace;
use futures_util::future::BoxFuture;
use protocol::beacon::Drawn;
use protocol::consensus::Progress;
use protocol::gossip::EventBytes;
use protocol::{CellId, GenesisHash, Problem};
use tokio::sync::{mpsc, oneshot, watch};

pub use behind::serve as serve_blocks;
pub use claims::Claims;
pub use driver::{Driver, Ended, Start};
pub use look::LastRounds;
pub use members::Members;
pub use part::start;
pub use pool::Pool;
pub use seat::fill_pool;
pub use wire::Frame;

/// Frames and notices that wait for the driver.
const INBOX_MAX: usize = 1_024;

/// What an event carries, as far as gossip minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Whether there is something to be ordered in it.
    pub orders: bool,
    /// Whether a change of members is asked for in it, by one of them.
    pub changes: bool,
}

/// Rounds of an epoch, with what their events carry in their order.
#[derive(Clone, Debug)]
pub struct DecidedRound {
    /// Which.
    pub round: u64,
    /// The latest consensus timestamp in it, in microseconds since 1970 (UTC).
    pub time_us: u64,
    /// What its events carry, in their order.
    pub payloads: Vec<Vec<u8>>,
    /// The newest value of the beacon that it has opened.
    pub drawn: Option<Drawn>,
}

/// What gossip needs of the process it runs in.
pub trait Host: Send + Sync + 'static {
    /// Whether there is something for the next event, besides what is to be ordered, or that as well.
    fn has_to_say(&self, may_order: bool) -> bool;
    /// What the next event carries; of what is to be ordered at most so many bytes.
    fn next_payload(&self, bytes_max: usize) -> (Vec<u8>, Contents);
    /// What an event was not ordered with: to be said again.
    fn say_again(&self, payload: &[u8]);
    /// Reads what an event carries, and checks all of it.
    ///
    /// # Errors
    ///
    /// Why no honest member would have said it.
    fn check(&self, event: &EventBytes, members: &Members) -> Result<Contents, Problem>;
    /// The same of an event that was checked before.
    fn look(&self, event: &EventBytes, members: &Members) -> Contents;
    /// An event came whose contents hold, its own included.
    fn heard(&self, epoch: u64, payload: &[u8]);
    /// Signs as a member.
    fn sign(&self, text: &[u8]) -> protocol::signing::Signature;
    /// Whether what it signs is this cell's by the key that these members name for it.
    fn signs_in(&self, members: &Members) -> bool;
    /// Makes events durable. `first` counts those of the epoch before them.
    fn record(&self, epoch: u64, first: u64, events: Vec<Vec<u8>>)
    -> BoxFuture<'static, Result<(), Problem>>;
    /// Reads an event back.
    fn read(&self, epoch: u64, number: u64) -> BoxFuture<'static, Result<Vec<u8>, Problem>>;
    /// Takes decided rounds into blocks. Rounds that it knows are given again after a restart.
    fn order(&self, epoch: u64, rounds: Vec<DecidedRound>) -> BoxFuture<'static, Result<Progress, Problem>>;
    /// Pushes a frame to a member.
    fn send(&self, to: &CellId, frame: Vec<u8>);
    /// The cells that are connected.
    fn connected(&self) -> Vec<CellId>;
    /// An epoch begins here.
    fn epoch_begins(&self, epoch: u64, members: &Members);
    /// A round is decided, with all that its events carry, in their order; each round of an epoch, one after the other. Gives what the
    /// beacon has drawn by it.
    fn decided(&self, epoch: u64, round: u64, payloads: &[&[u8]]) -> Option<Drawn>;
    /// Finds out who the members of the next epoch are, all blocks before its first one being final, and makes it durable.
    fn next_epoch(&self, epoch: u64, base: u64) -> BoxFuture<'static, Result<Arc<Members>, Problem>>;
    /// Two events of one member on one self-parent were found.
    fn forked(&self, one: EventBytes, other: EventBytes);
    /// Blocks have to be taken over up to one, and then an epoch begins.
    fn fall_behind(&self, target: Target);
}

/// Where other members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Their epoch.
    pub epoch: u64,
    /// The first block that it may fill.
    pub base: u64,
}

/// What members have to agree on, and how fast this one is.
#[derive(Clone, Copy, Debug)]
pub struct GossipSettings {
    /// The network.
    pub genesis: GenesisHash,
    /// Rounds of an epoch.
    pub epoch_rounds: u64,
    /// The engine's.
    pub engine: Settings,
}

/// The engine's settings at a pace.
pub fn engine_settings(interval_us_min: u64, patience_us: u64) -> Settings {
    Settings {
        pace: Pace { interval_us_min, patience_us },
        answer_us_max: 250_000,
        quiet_us_max: 200_000,
        silence_us_max: 2_000_000,
        waiting_max: 4_096,
        payload_bytes_max: 64 * 1024 * 1024,
        frames_max: 256,
    }
}

/// What came in.
#[derive(Debug)]
pub enum Input {
    /// Something is to be said.
    ToSay,
    /// A frame was read and checked.
    Frame(CellId, checker::Checked),
    /// Members came or went.
    Peers,
    /// Blocks up to this count are final.
    Final(u64),
    /// Blocks were taken over up to a target; its epoch begins, with these members.
    CaughtUp(Target, Progress, Arc<Members>),
    /// This cell stands elsewhere now: the driver ends, and another one begins from what is durable.
    Anew,
    /// Somebody wants to see the last so many rounds.
    Look(u64, oneshot::Sender<LastRounds>),
}

/// How gossip stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GossipStatus {
    /// The epoch.
    pub epoch: u64,
    /// The first round that is not decided.
    pub round: u64,
    /// Events of the epoch.
    pub events: u64,
    /// Those that no round has received.
    pub undetermined: u64,
    /// Events that wait for their parents.
    pub waiting: u64,
    /// Events that no honest member would have made.
    pub refused: u64,
    /// The round of each member's newest event, by place.
    pub tips: Vec<Option<u64>>,
    /// The members that have forked in this epoch.
    pub forked: Vec<CellId>,
    /// Whether this cell and the members it is connected with are more than two thirds.
    pub has_quorum: bool,
    /// Whether enough members have said what they know of this one.
    pub has_started: bool,
    /// Whether others know events of this cell that it does not have: its folder is a copy of an older one.
    pub is_rolled_back: bool,
    /// Where others are, if this cell has fallen behind.
    pub target: Option<u64>,
}

/// A handle to a driver.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Input>,
    status: watch::Receiver<GossipStatus>,
    checker: Arc<checker::Checker>,
}

impl Handle {
    /// Takes a frame of another cell.
    pub async fn push(&self, from: CellId, bytes: Vec<u8>) -> Result<(), Problem> {
        let checked = self.checker.check(&from, bytes).await?;
        let _ = self.inbox.send(Input::Frame(from, checked)).await;
        Ok(())
    }

    /// Tells the driver something.
    pub async fn tell(&self, input: Input) {
        let _ = self.inbox.send(input).await;
    }

    /// Something is to be said. Where the inbox is full the driver looks anyway.
    pub fn to_say(&self) {
        let _ = self.inbox.try_send(Input::ToSay);
    }

    /// Whether the driver runs.
    pub fn is_running(&self) -> bool {
        !self.inbox.is_closed()
    }

    /// The last so many rounds of the graph; nothing if the driver has ended.
    pub async fn last_rounds(&self, rounds: u64) -> Option<LastRounds> {
        let (answer, answered) = oneshot::channel();
        self.tell(Input::Look(rounds, answer)).await;
        answered.await.ok()
    }

    /// How gossip stands.
    pub fn status(&self) -> GossipStatus {
        self.status.borrow().clone()
    }
}
