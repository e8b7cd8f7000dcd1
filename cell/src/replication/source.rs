//! Answers what other cells ask of the journals that lie here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use journal::Reader;
use journal::replica::{self, Answer, Request};
use protocol::nucleus::CopyView;
use protocol::{CellId, Hash, Problem, ProblemKind, Service, codec};
use tokio::sync::watch;
use tokio::time::Instant;

use super::wire::{Ask, Reply};
use crate::actor::journal_problem;
use crate::network::Counters;
use crate::node::{World, blocking};

/// Answers one question of another cell.
pub async fn serve(world: &Arc<World>, from: CellId, bytes: &[u8]) -> Reply {
    let longest = Duration::from_millis(world.settings.network.request_timeout_ms / 2);
    let find = |cell, journal| allowed(world, from, cell, journal);
    let answered = answer(bytes, longest, &world.draining, find).await;
    answered.unwrap_or_else(|problem| {
        if problem.code == "codec.malformed" {
            Counters::count(&world.network().counters().refused_malformed);
        }
        Reply::Refused { problem }
    })
}

/// Answers one question of whoever may ask it: `find` gives the journal, if it lies here and the asker may copy it. A question of growth is
/// answered late when there is none, but not later than `longest`.
pub(crate) async fn answer<F>(
    bytes: &[u8],
    longest: Duration,
    draining: &AtomicBool,
    find: impl Fn(CellId, Service) -> F,
) -> Result<Reply, Problem>
where
    F: Future<Output = Result<(Reader, Grown), Problem>>,
{
    match codec::decode::<Ask>(bytes)? {
        Ask::Find { cell, journal } => {
            let (reader, _) = find(cell, journal).await?;
            Ok(Reply::Found { key: Hash::from_bytes(*reader.key().as_bytes()) })
        }
        Ask::Read { cell, journal, key, wait_ms, question } => {
            let request: Request = replica::decode(&question).map_err(|error| bad_question(&error))?;
            let deadline = Instant::now() + Duration::from_millis(u64::from(wait_ms)).min(longest);
            loop {
                // Anew each time: a journal that has come here since lies there under another reader.
                let (reader, mut grown) = find(cell, journal).await?;
                if reader.key().as_bytes() != key.as_bytes() {
                    return Err(super::other_key(&key, &Hash::from_bytes(*reader.key().as_bytes())));
                }
                grown.seen();
                let request = request.clone();
                let answer = blocking(move || replica::answer(&reader, &request)).await?;
                let answer = answer.map_err(|error| match error {
                    journal::Error::BadRequest(_) => bad_question(&error),
                    error => journal_problem(journal, &error),
                })?;
                let wait = answer == Answer::Same && !draining.load(Ordering::Relaxed);
                if !wait || tokio::time::timeout_at(deadline, grown.wait()).await.is_err() {
                    return Ok(Reply::Answer { answer: replica::encode(&answer) });
                }
            }
        }
    }
}

/// What tells that a journal may have grown.
pub(crate) enum Grown {
    /// One of this cell's.
    Feed(watch::Receiver<u64>),
    /// A copy.
    Copy(watch::Receiver<CopyView>),
}

impl Grown {
    fn seen(&mut self) {
        match self {
            Self::Feed(changes) => changes.mark_unchanged(),
            Self::Copy(changes) => changes.mark_unchanged(),
        }
    }

    /// Ends when there is news; never once there can be none.
    async fn wait(&mut self) {
        let changed = match self {
            Self::Feed(changes) => changes.changed().await,
            Self::Copy(changes) => changes.changed().await,
        };
        if changed.is_err() {
            std::future::pending().await
        }
    }
}

/// The journal, if it lies here and the access list lets the asker copy it.
async fn allowed(
    world: &World,
    from: CellId,
    cell: CellId,
    journal: Service,
) -> Result<(Reader, Grown), Problem> {
    if !world.admission(&from).await?.journals.contains(&journal) {
        Counters::count(&world.network().counters().refused_journals);
        return Err(Problem::new(
            ProblemKind::Denied,
            "journal.denied",
            format!("{from} may not copy the {journal} journal from {}", world.cell),
        )
        .hint(format!(
            "its operator allows it there: cell identity access {from} --may … --journals {journal}"
        )));
    }
    if cell == world.cell {
        let reader = world.service(journal).gauges.reader();
        let reader = reader.ok_or_else(|| {
            Problem::new(
                ProblemKind::Busy,
                "journal.starting",
                format!("the {journal} journal is not open yet"),
            )
            .hint("it is tried again by itself")
        })?;
        return Ok((reader, Grown::Feed(world.feed.changes())));
    }
    let copy = world.copies.copy(cell, journal);
    let (reader, changes) = copy.ok_or_else(|| super::not_followed(&cell, journal))?;
    Ok((reader, Grown::Copy(changes)))
}

fn bad_question(error: &journal::Error) -> Problem {
    Problem::new(ProblemKind::Invalid, "journal.bad_question", error.to_string())
        .hint("both cells should run versions that speak /celluler/journal/1")
}
