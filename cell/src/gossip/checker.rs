//! Reads frames and checks the events in them: pure work, done where frames come in.

use std::sync::{Arc, PoisonError, RwLock};

use consensus::gossip::Said;
use consensus::hashgraph::{Event, EventId};
use minicbor::bytes::ByteVec;
use protocol::gossip::{EventBytes, SignedEvent};
use protocol::signing::{self, Signed};
use protocol::{CellId, GenesisHash, Hash, Problem, ProblemKind, codec};
use quick_cache::sync::Cache;

use super::wire::Frame;
use super::{Contents, Host, Members, Target};

/// Ids of events whose signatures were checked lately.
const CHECKED_MAX: usize = 16_384;
/// Bytes of frames from which on they are checked on a thread of their own.
const CHECK_APART_BYTES: usize = 16 * 1024;
/// Bytes of a stranger's frame that are looked at.
const STRANGER_BYTES_MAX: usize = 64 * 1024;

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
    /// Events of an epoch whose members are not known here yet: not checked.
    Early {
        /// Their epoch.
        epoch: u64,
        /// The frame.
        bytes: Vec<u8>,
    },
}

/// The checks, with the members of the present epoch and of the one before.
pub(super) struct Checker {
    genesis: GenesisHash,
    host: Arc<dyn Host>,
    epochs: RwLock<Vec<(u64, Arc<Members>)>>,
    checked: Cache<EventId, ()>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl Checker {
    pub(super) fn new(genesis: GenesisHash, host: Arc<dyn Host>, epoch: u64, members: Arc<Members>) -> Self {
        let epochs = RwLock::new(vec![(epoch, members)]);
        Self { genesis, host, epochs, checked: Cache::new(CHECKED_MAX) }
    }

    /// An epoch begins.
    pub(super) fn begin(&self, epoch: u64, members: Arc<Members>) {
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        epochs.push((epoch, members));
        let older = epochs.len().saturating_sub(2);
        epochs.drain(..older);
    }

    fn epochs(&self) -> Vec<(u64, Arc<Members>)> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a frame. One event that does not hold refuses the frame.
    ///
    /// # Errors
    ///
    /// Why no honest member would have sent it.
    pub(super) async fn check(self: &Arc<Self>, from: &CellId, bytes: Vec<u8>) -> Result<Checked, Problem> {
        if !self.epochs().iter().any(|(_, members)| members.contains(from)) {
            return self.of_stranger(from, &bytes);
        }
        if bytes.len() < CHECK_APART_BYTES {
            return self.read(bytes);
        }
        let this = Arc::clone(self);
        crate::node::blocking(move || this.read(bytes)).await?
    }

    /// Who was a member in an epoch long over, and was away since, is told so when it asks. Nothing else is taken from a stranger.
    fn of_stranger(&self, from: &CellId, bytes: &[u8]) -> Result<Checked, Problem> {
        let latest = self.epochs().last().map_or(0, |(epoch, _)| *epoch);
        if bytes.len() <= STRANGER_BYTES_MAX
            && let Ok(Frame::Ask { epoch, .. }) = codec::decode(bytes)
            && epoch < latest
        {
            return Ok(Checked::Ask { epoch, tips: Vec::new() });
        }
        let cause = format!("{from} is no member of this network");
        Err(Problem::new(ProblemKind::Denied, "event.stranger", cause))
    }

    fn read(&self, bytes: Vec<u8>) -> Result<Checked, Problem> {
        let (epoch, events, answer) = match codec::decode::<Frame>(&bytes)? {
            Frame::Events { epoch, events } => (epoch, events, None),
            Frame::Answer { epoch, events, more } => (epoch, events, Some(more)),
            Frame::Ask { epoch, tips } => {
                let tips = tips.iter().map(|tip| EventId(*tip.as_bytes())).collect();
                return Ok(Checked::Ask { epoch, tips });
            }
            Frame::Over { epoch, base } => return Ok(Checked::Over(Target { epoch, base })),
        };
        let epochs = self.epochs();
        Ok(match epochs.iter().find(|(of, _)| *of == epoch) {
            Some((_, members)) => {
                Checked::Events { epoch, events: self.events(epoch, members, &events)?, answer }
            }
            None if epochs.iter().all(|(of, _)| *of < epoch) => Checked::Early { epoch, bytes },
            None => Checked::Events { epoch, events: Vec::new(), answer },
        })
    }

    fn events(&self, epoch: u64, members: &Members, frames: &[ByteVec]) -> Result<Vec<Arc<Said>>, Problem> {
        let (mut events, mut to_check, mut ids) = (Vec::new(), Vec::<Signed>::new(), Vec::new());
        for bytes in frames {
            let event = EventBytes::read(bytes)?;
            if event.event.epoch != epoch {
                return Err(malformed("an event of another epoch than its frame's"));
            }
            let signer = members.set().signer_of(&event.event.creator);
            let signer = signer.ok_or_else(|| malformed("an event of a stranger"))?;
            let (id, signed) = event.event.to_check(&self.genesis, signer);
            let id = EventId(*id.as_bytes());
            let contents = if self.checked.get(&id).is_none() {
                to_check.push(signed);
                ids.push(id);
                self.host.check(&event, members)?
            } else {
                self.host.look(&event, members)
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
                self.host.heard(epoch, &event.payload);
                as_said(id, event, contents, members).map(Arc::new)
            })
            .collect()
    }
}

pub(super) fn malformed(why: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, "event.malformed", why)
}

/// An event as the engine takes it.
pub(super) fn as_said(
    id: EventId,
    bytes: EventBytes,
    contents: Contents,
    members: &Members,
) -> Result<Said, Problem> {
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
    let Contents { orders, changes } = contents;
    Ok(Said { event, payload: bytes.payload, orders, changes })
}
