//! This cell's part in the beacon: it deals and opens in its events, and hears what the others say.
//!
//! Rules:
//!
//! - A draw is opened only when the round that fixed it is decided here, and so durable: decided rounds come after their events are.
//! - Dealings go along with transactions, one an event; openings make an event of their own. So draws come with the traffic, and where there is none
//!   nobody says anything.
//! - What an epoch has not opened when it ends is void.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use consensus::beacon::{AHEAD_MAX, Beacon, Holders, News, OPEN_MAX, Word};
use consensus::hashgraph::Round;
use ed25519_dalek::SigningKey;
use protocol::beacon::{Dealing, Drawn, Opening};
use protocol::genesis::Genesis;
use protocol::gossip::{EventBytes, Payload};
use protocol::{CellId, Problem, ProblemKind};

use super::Members;

struct Part {
    epoch: u64,
    beacon: Beacon,
    cell: CellId,
    /// The last draw that this cell has dealt for in this life.
    dealt: u64,
    /// Draws to be opened, and those that this cell has opened in this life.
    to_open: Vec<u64>,
    opened: BTreeSet<u64>,
}

/// This cell's part in the beacon of the present epoch, where the network has one.
#[derive(Default)]
pub(super) struct Draws(Mutex<Option<Part>>);

impl Draws {
    fn part(&self) -> MutexGuard<'_, Option<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An epoch begins.
    pub(super) fn begin(&self, genesis: &Genesis, epoch: u64, members: &Members, cell: CellId) {
        let Some(every_rounds) = genesis.beacon_rounds else { return };
        *self.part() = match Holders::new(genesis.hash(), epoch, members.set()) {
            Ok(holders) => Some(Part {
                epoch,
                beacon: Beacon::new(holders, every_rounds),
                cell,
                dealt: 0,
                to_open: Vec::new(),
                opened: BTreeSet::new(),
            }),
            Err(refusal) => {
                let problem = Problem::from(refusal);
                tracing::warn!(%problem, "this epoch has no beacon");
                None
            }
        };
    }

    /// Whether there is a draw to be opened.
    pub(super) fn has_to_say(&self) -> bool {
        self.part().as_ref().is_some_and(|part| part.to_open.iter().any(|draw| !part.opened.contains(draw)))
    }

    /// What the next event says: openings that are due, and a dealing if it goes along with others.
    pub(super) fn say(&self, key: &SigningKey, may_deal: bool) -> (Vec<Dealing>, Vec<Opening>) {
        let mut guard = self.part();
        let Some(part) = guard.as_mut() else { return Default::default() };
        let due: Vec<u64> =
            part.to_open.iter().copied().filter(|draw| !part.opened.contains(draw)).take(OPEN_MAX).collect();
        let openings = due.iter().filter_map(|draw| part.beacon.open(key, *draw).ok()).collect();
        part.opened.extend(due);
        let next = part.beacon.fixed() + 1;
        let mut dealings = Vec::new();
        if may_deal && part.dealt < next && part.beacon.to_deal(&part.cell).contains(&next) {
            let mut seed = [0; 32];
            // Without entropy nothing is dealt: the others do.
            if getrandom::fill(&mut seed).is_ok()
                && let Ok(dealing) = part.beacon.deal(key, next, &seed)
            {
                part.dealt = next;
                dealings.push(dealing);
            }
        }
        (dealings, openings)
    }

    /// An event has come, whether or not it is ordered.
    pub(super) fn hear(&self, payload: &Payload) {
        let Some(openings) = &payload.openings else { return };
        if let Some(part) = self.part().as_mut() {
            for opening in openings {
                // One that does not hold is shown when it is ordered.
                let _ = part.beacon.hear(opening);
            }
        }
    }

    /// The next round is decided. Gives the newest value that it has opened.
    pub(super) fn order(&self, epoch: u64, round: u64, payloads: &[Payload]) -> Option<Drawn> {
        let mut guard = self.part();
        let part = guard.as_mut().filter(|part| part.epoch == epoch)?;
        let words = payloads.iter().flat_map(|payload| {
            let dealings = payload.dealings.iter().flatten().map(Word::Dealing);
            dealings.chain(payload.openings.iter().flatten().map(Word::Opening))
        });
        let news = match part.beacon.order(Round(round), words) {
            Ok(news) => news,
            Err(refusal) => {
                let problem = Problem::from(refusal);
                tracing::error!(%problem, "the beacon has missed a round");
                return None;
            }
        };
        part.to_open = part.beacon.to_open(&part.cell);
        part.opened.retain(|draw| part.to_open.contains(draw));
        let mut drawn = None;
        for news in news {
            match news {
                News::Opened { draw, value, fixed } => {
                    drawn = Some(Drawn { draw, value, fixed: Some(fixed.0) });
                }
                News::Bad { why, .. } => {
                    let problem = Problem::from(why);
                    tracing::warn!(%problem, epoch, round, "a member has signed what does not hold");
                }
                News::Fixed { .. } => {}
            }
        }
        drawn
    }
}

/// What an event says for the beacon has to be its creator's, of its epoch, and no more than there is a use for. The proofs in it are checked
/// when it is ordered.
pub(super) fn check(event: &EventBytes, payload: &Payload) -> Result<(), Problem> {
    let refuse = |why: &str| Err(Problem::new(ProblemKind::Invalid, "event.malformed", why));
    let dealings = payload.dealings.as_deref().unwrap_or_default();
    let openings = payload.openings.as_deref().unwrap_or_default();
    let (creator, epoch) = (event.event.creator, event.event.epoch);
    if dealings.iter().any(|dealing| dealing.dealer != creator || dealing.epoch != epoch)
        || openings.iter().any(|opening| opening.member != creator || opening.epoch != epoch)
    {
        return refuse("it carries another member's or another epoch's word for the beacon");
    }
    if dealings.len() as u64 > AHEAD_MAX || openings.len() > OPEN_MAX {
        return refuse("it carries more for the beacon than there is a use for");
    }
    Ok(())
}
