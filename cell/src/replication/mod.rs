//! Copies of other cells' journals, and this cell's journals for others to copy.
//!
//! - [`serve`] answers what other cells ask of the journals that lie here: this cell's own, and the copies it
//!   keeps. The access list says who may copy which ([`protocol::identity::Contact::journals`]).
//! - A *follower* keeps one copy up: a thread of its own that carries the questions and answers of
//!   [`journal::replica::Mirror`], asks every connected peer that has the journal, and believes none.
//! - What is followed is remembered in `DIR/replicas/CELL/JOURNAL.json`, with the journal's key as it was when
//!   the following began; the copy lies beside it in `DIR/replicas/CELL/JOURNAL/`.
//!
//! Bounds: 256 copies; questions under way, bytes of answers: see `journal::replica`.

mod follower;
mod place;
mod source;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::{PublicKey, Reader};
use protocol::nucleus::{CopyState, CopyView};
use protocol::{CellId, Hash, Problem, ProblemKind, Service};
use tokio::sync::watch;

use crate::network::{Lane, Network};
use crate::node::World;
use wire::Ask;

pub(crate) use follower::{Follower, Orders, Seal};
pub(crate) use place::About;
pub use place::Place;
pub use source::serve;
pub(crate) use source::{Grown, answer};
pub use wire::Reply;

/// The most copies.
const FOLLOWED_MAX: usize = 256;
/// The shortest time between two questions of growth to one source.
const GROWTH_PAUSE: Duration = Duration::from_millis(500);
/// How long a stop waits for a follower.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The copies that this cell keeps.
pub struct Copies {
    root: PathBuf,
    followers: Mutex<BTreeMap<(CellId, Service), Follower>>,
}

impl Copies {
    /// Those of a folder, not followed yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, followers: Mutex::default() }
    }

    /// Follows all that the folder remembers.
    ///
    /// # Errors
    ///
    /// `replica.…` for a file that cannot be read: it stands in no other's way.
    pub fn resume(&self, world: &World) -> Vec<Problem> {
        let (known, problems) = place::list(&self.root);
        for about in known.into_iter().take(FOLLOWED_MAX) {
            self.start(world, about);
        }
        problems
    }

    /// Follows a journal of another cell. Remembered durably when it returns; one that is followed already is
    /// checked anew, and heals.
    ///
    /// # Errors
    ///
    /// `network.unreachable`, `journal.denied`, `journal.other_key`, `replica.too_many`, `replica.unwritable`.
    pub async fn follow(
        &self,
        world: &World,
        cell: CellId,
        journal: Service,
        key: Option<Hash>,
    ) -> Result<CopyView, Problem> {
        if cell == world.cell {
            return Err(Problem::new(
                ProblemKind::Invalid,
                "replica.own_journal",
                "a cell does not copy its own journals",
            )
            .hint("name another cell; cell journal export copies one of this cell's"));
        }
        let found = find(world.network(), cell, cell, journal).await?;
        let known = self.known(cell, journal).map(|about| about.key).or(key);
        if let Some(known) = known.filter(|known| *known != found) {
            return Err(other_key(&known, &found));
        }
        let about = About { cell, journal, key: found };
        let followed = self.followers().len();
        if followed >= FOLLOWED_MAX && self.known(cell, journal).is_none() {
            let cause = format!("there are {FOLLOWED_MAX} copies already");
            return Err(Problem::new(ProblemKind::Busy, "replica.too_many", cause)
                .hint("end one: cell journal unfollow CELL JOURNAL"));
        }
        Place::new(&self.root, cell, journal).remember(&about)?;
        self.stop_one(cell, journal).await;
        Ok(self.start(world, about))
    }

    /// Follows a journal no longer. The copy stays, unless it is to be deleted.
    ///
    /// # Errors
    ///
    /// `replica.not_followed`, `replica.unwritable`.
    pub async fn unfollow(&self, cell: CellId, journal: Service, delete: bool) -> Result<CopyView, Problem> {
        let follower = self.stop_one(cell, journal).await;
        let follower = follower.ok_or_else(|| not_followed(&cell, journal))?;
        let place = Place::new(&self.root, cell, journal);
        place.forget()?;
        if delete {
            place.delete()?;
        }
        Ok(CopyView { state: CopyState::Ended, ..follower.view() })
    }

    /// All of them as they are now.
    pub fn list(&self) -> Vec<CopyView> {
        self.followers().values().map(Follower::view).collect()
    }

    /// Ends all followers; what they have is durable.
    pub async fn stop(&self) {
        let followers = std::mem::take(&mut *self.followers());
        for mut follower in followers.into_values() {
            follower.stop(STOP_MAX).await;
        }
    }

    /// A copy, and what tells that it has changed.
    fn copy(&self, cell: CellId, journal: Service) -> Option<(Reader, watch::Receiver<CopyView>)> {
        let followers = self.followers();
        let follower = followers.get(&(cell, journal))?;
        Some((follower.reader()?, follower.changes()))
    }

    fn known(&self, cell: CellId, journal: Service) -> Option<About> {
        self.followers().get(&(cell, journal)).map(|follower| follower.about().clone())
    }

    fn start(&self, world: &World, about: About) -> CopyView {
        let place = Place::new(&self.root, about.cell, about.journal);
        let orders = Orders {
            network: world.network().clone(),
            me: world.cell,
            about,
            place,
            growth_pause: GROWTH_PAUSE,
            seal: None,
        };
        let key = (orders.about.cell, orders.about.journal);
        let follower = Follower::start(orders, &world.edge);
        let view = follower.view();
        self.followers().insert(key, follower);
        view
    }

    async fn stop_one(&self, cell: CellId, journal: Service) -> Option<Follower> {
        let mut follower = self.followers().remove(&(cell, journal))?;
        follower.stop(STOP_MAX).await;
        Some(follower)
    }

    fn followers(&self) -> MutexGuard<'_, BTreeMap<(CellId, Service), Follower>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a peer for the key of a journal that it has, its own or a copy.
async fn find(network: &Network, peer: CellId, cell: CellId, journal: Service) -> Result<Hash, Problem> {
    match ask(network, peer, &Ask::Find { cell, journal }).await? {
        Reply::Found { key } => Ok(key),
        Reply::Refused { problem } => Err(problem),
        Reply::Answer { .. } => Err(wire::garbled()),
    }
}

async fn ask(network: &Network, peer: CellId, ask: &Ask) -> Result<Reply, Problem> {
    let bytes = network.request(Lane::Journals, peer, protocol::codec::encode(ask)).await?;
    protocol::codec::decode(&bytes).map_err(|_| wire::garbled())
}

fn other_key(known: &Hash, found: &Hash) -> Problem {
    let cause = format!("the journal's key is {found}, not {known}");
    Problem::new(ProblemKind::Conflict, "journal.other_key", cause).hint(
        "ask its operator; if the cell was restored, or has removed a host, end the old copy: cell journal unfollow CELL JOURNAL",
    )
}

fn not_followed(cell: &CellId, journal: Service) -> Problem {
    let cause = format!("the {journal} journal of {cell} is not followed");
    Problem::new(ProblemKind::NotFound, "replica.not_followed", cause)
        .hint("cell journal followed lists those that are")
}

fn public_key(key: &Hash) -> PublicKey {
    PublicKey::from_bytes(*key.as_bytes())
}

/// Follows what the folder remembers, once the network runs.
pub fn resume(world: &Arc<World>) {
    for problem in world.copies.resume(world) {
        tracing::warn!(%problem, "a copy is not followed");
    }
}
