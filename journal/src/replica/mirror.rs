//! Fills a replica from any number of sources at once. Pure but for the replica's storage: whoever drives it
//! carries the questions and answers, and has the clock.
//!
//! - Each source is asked how the log has grown, one question at a time; the answer to one that has
//!   nothing new may take long, so the next is asked when [`Mirror::wake`] says so.
//! - What is missing is asked for from the lowest entry on, in parts, of whichever source has room and has
//!   it. No part is asked of two sources at once; one that fails or goes gives its parts back.
//! - A source whose answer does not hold is dropped at once, and named.
//! - A newer fork is compared with what is here by halving, and what is the same is kept.
//!
//! Bounds: [`PARTS_UNDER_WAY_MAX`] parts of one source under way, one question of growth,
//! [`FAILURES_MAX`] failures in a row.

use std::collections::BTreeMap;
use std::ops::Range;

use rangemap::RangeSet;

use super::exchange::{Answer, Request, SLICE_ENTRIES_MAX};
use super::{Growth, Replica};
use crate::error::{Error, Result};
use crate::proof::Proof;
use crate::reader::Reader;
use crate::tree;

/// Parts of one source that are under way at once.
const PARTS_UNDER_WAY_MAX: usize = 4;
/// Questions in a row that a source may leave unanswered before it is dropped.
const FAILURES_MAX: u32 = 5;

/// What an answer changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Took {
    /// Nothing.
    Nothing,
    /// The log is known to be longer.
    Grown,
    /// Entries are here now.
    Filled(Range<u64>),
    /// The writer's newer fork was taken over; entries before this length were kept.
    Reforked(u64),
}

/// Why an answer was not taken.
#[derive(Debug)]
pub enum Failed<P> {
    /// The source was dropped: its answer does not hold.
    Lied(P, Error),
    /// The writer has signed what contradicts itself, or this disk failed: it cannot go on.
    Stop(Error),
}

#[derive(Default)]
struct Source {
    /// Fork and length, as it says itself.
    head: Option<(u64, u64)>,
    asked_growth: bool,
    /// It had nothing new: asked again when woken.
    resting: bool,
    parts: usize,
    /// The ticket of its last part.
    last_part: u64,
    lacks: RangeSet<u64>,
    failures: u32,
}

/// The search for the length up to which a newer fork is the same.
struct Comparison<P> {
    source: P,
    fork: u64,
    /// The same up to here.
    low: u64,
    /// Not known to differ up to here.
    high: u64,
}

impl<P> Comparison<P> {
    fn next(&self) -> u64 {
        self.low + (self.high - self.low).div_ceil(2)
    }
}

/// A replica and the sources it is filled from, by names of the driver's choice.
pub struct Mirror<P> {
    replica: Replica,
    sources: BTreeMap<P, Source>,
    asked: BTreeMap<u64, (P, Request)>,
    last_ticket: u64,
    under_way: RangeSet<u64>,
    comparison: Option<Comparison<P>>,
}

impl<P: Ord + Clone> Mirror<P> {
    /// A replica without sources.
    pub fn new(replica: Replica) -> Self {
        Self {
            replica,
            sources: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_ticket: 0,
            under_way: RangeSet::new(),
            comparison: None,
        }
    }

    /// The replica.
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// A handle for reading.
    pub fn reader(&self) -> Reader {
        self.replica.reader()
    }

    /// Ends it.
    pub fn into_replica(self) -> Replica {
        self.replica
    }

    /// A source came; one that is known is begun anew.
    pub fn join(&mut self, source: P) {
        self.leave(&source);
        self.sources.insert(source, Source::default());
    }

    /// A source went; what it was asked is asked of others.
    pub fn leave(&mut self, source: &P) {
        if self.sources.remove(source).is_some() {
            self.forget(|(of, _)| of == source);
        }
        if self.comparison.as_ref().is_some_and(|comparison| comparison.source == *source) {
            self.comparison = None;
        }
    }

    /// The sources.
    pub fn sources(&self) -> impl Iterator<Item = &P> {
        self.sources.keys()
    }

    /// A source that had nothing new is asked again. What it had not may have come to it since: a source can be a copy that grows.
    pub fn wake(&mut self, source: &P) {
        if let Some(source) = self.sources.get_mut(source) {
            source.resting = false;
            source.lacks.clear();
        }
    }

    /// Whether everything that the sources have is here, as far as they have said.
    pub fn is_settled(&self) -> bool {
        let done = |source: &Source| source.parts == 0 && self.part_of(source).is_none();
        self.comparison.is_none()
            && self.sources.values().any(|source| source.head.is_some())
            && self.sources.values().all(done)
    }

    /// The next question, whom to ask, and the ticket to give the answer under. None when there is nothing to
    /// ask now.
    ///
    /// # Errors
    ///
    /// Those of reading the replica.
    pub fn ask(&mut self) -> Result<Option<(u64, P, Request)>> {
        let (fork, length) = self.replica.log.reader.head();
        let idle = self.sources.iter_mut().find(|(_, source)| !source.asked_growth && !source.resting);
        if let Some((name, source)) = idle {
            source.asked_growth = true;
            let name = name.clone();
            let comparison = self.comparison.as_ref().filter(|comparison| comparison.source == name);
            let request = match comparison {
                Some(comparison) => Request::Grow { fork: comparison.fork, since: comparison.next() },
                None => Request::Grow { fork, since: length },
            };
            return Ok(Some(self.ticket(name, request)));
        }
        // In turn: whoever has least to do, and was not asked for longest.
        let with_room = self.sources.iter().filter(|(_, source)| source.parts < PARTS_UNDER_WAY_MAX);
        let mut with_room: Vec<_> =
            with_room.map(|(name, source)| (source.parts, source.last_part, name.clone())).collect();
        with_room.sort_unstable();
        for (_, _, name) in with_room {
            let Some(source) = self.sources.get(&name) else { continue };
            let Some(part) = self.part_of(source) else { continue };
            let Some((under, end)) = self.replica.anchor(part.start, part.end)? else { continue };
            if source.head.is_none_or(|(_, length)| tree::span(under).1 > length) {
                continue;
            }
            let request = Request::Entries { fork, under, first: part.start, end };
            self.under_way.insert(part.start..end);
            let asked = self.ticket(name, request);
            if let Some(source) = self.sources.get_mut(&asked.1) {
                source.parts += 1;
                source.last_part = asked.0;
            }
            return Ok(Some(asked));
        }
        Ok(None)
    }

    fn ticket(&mut self, source: P, request: Request) -> (u64, P, Request) {
        self.last_ticket += 1;
        self.asked.insert(self.last_ticket, (source.clone(), request.clone()));
        (self.last_ticket, source, request)
    }

    /// The lowest part that a source has, that is missing, and that nobody is asked for.
    fn part_of(&self, source: &Source) -> Option<Range<u64>> {
        let (_, length) = source.head.filter(|(fork, _)| *fork == self.replica.log.reader.fork())?;
        let missing = self.replica.missing.iter().take_while(|missing| missing.start < length);
        let missing = missing.map(|missing| missing.start..missing.end.min(length));
        let free = missing.flat_map(|missing| self.under_way.gaps(&missing).collect::<Vec<_>>());
        let part = free.filter_map(|free| source.lacks.gaps(&free).next()).next()?;
        // Below one root of the source's own tree, and of one page: these entries share most of the way up.
        let ends = tree::roots_of(length).into_iter().map(|root| tree::span(root).1);
        let root_end = ends.filter(|end| part.start < *end).min()?;
        let page_end = (part.start / SLICE_ENTRIES_MAX + 1) * SLICE_ENTRIES_MAX;
        Some(part.start..part.end.min(root_end).min(page_end))
    }

    /// Takes the answer to a question. What it brought is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Failed::Lied`] if it does not hold: the source is dropped. [`Failed::Stop`] if nothing more can be done.
    pub fn answered(&mut self, ticket: u64, answer: &Answer) -> Result<Took, Failed<P>> {
        // A question of a fork that was left, or of a source that went.
        let Some((name, request)) = self.settle(ticket) else { return Ok(Took::Nothing) };
        if let Some(source) = self.sources.get_mut(&name) {
            source.failures = 0;
        }
        let took = match (&request, answer) {
            (Request::Grow { .. }, Answer::Grown(proof)) => self.take_growth(&name, proof),
            (Request::Grow { fork, since }, Answer::Same) => {
                self.rest(&name, (*fork, *since));
                Ok(Took::Nothing)
            }
            (_, Answer::Behind { fork, length }) => {
                self.rest(&name, (*fork, *length));
                Ok(Took::Nothing)
            }
            (Request::Entries { under, first, end, .. }, Answer::Entries(slice)) => {
                let asked = slice.under == *under
                    && slice.first == *first
                    && slice.entries.len() as u64 <= end - first;
                match asked {
                    true => self.replica.fill(slice).map(Took::Filled),
                    false => Err(Error::BadProof("it is about other entries than were asked for")),
                }
            }
            (Request::Entries { first, end, .. }, Answer::Absent { end: absent }) => {
                if let Some(source) = self.sources.get_mut(&name) {
                    source.lacks.insert(*first..(*absent).clamp(first + 1, *end));
                }
                Ok(Took::Nothing)
            }
            _ => Err(Error::BadProof("it answers another question")),
        };
        took.map_err(|error| match error {
            Error::BadProof(_) | Error::WrongKey => {
                self.leave(&name);
                Failed::Lied(name, error)
            }
            error => Failed::Stop(error),
        })
    }

    /// A question was not answered; true if the source is dropped for it.
    pub fn failed(&mut self, ticket: u64) -> bool {
        let Some((name, request)) = self.settle(ticket) else { return false };
        let Some(source) = self.sources.get_mut(&name) else { return false };
        source.failures += 1;
        // Asked again when it is woken, not at once.
        source.resting |= matches!(request, Request::Grow { .. });
        let dropped = source.failures >= FAILURES_MAX;
        if dropped {
            self.leave(&name);
        }
        dropped
    }

    /// A question is no longer under way.
    fn settle(&mut self, ticket: u64) -> Option<(P, Request)> {
        let (name, request) = self.asked.remove(&ticket)?;
        self.give_back(&name, &request);
        Some((name, request))
    }

    fn give_back(&mut self, name: &P, request: &Request) {
        if let Request::Entries { first, end, .. } = request {
            self.under_way.remove(*first..*end);
        }
        if let Some(source) = self.sources.get_mut(name) {
            match request {
                Request::Grow { .. } => source.asked_growth = false,
                Request::Entries { .. } => source.parts = source.parts.saturating_sub(1),
            }
        }
    }

    fn forget(&mut self, which: impl Fn(&(P, Request)) -> bool) {
        let gone: Vec<(P, Request)> =
            self.asked.extract_if(.., |_, asked| which(asked)).map(|(_, asked)| asked).collect();
        for (name, request) in gone {
            self.give_back(&name, &request);
        }
    }

    fn rest(&mut self, name: &P, head: (u64, u64)) {
        if let Some(source) = self.sources.get_mut(name) {
            source.head = Some(head);
            source.resting = true;
        }
    }

    fn take_growth(&mut self, name: &P, proof: &Proof) -> Result<Took> {
        let growth = self.replica.grow(proof)?;
        if let Some(source) = self.sources.get_mut(name) {
            source.head = Some((proof.fork, proof.length));
        }
        match growth {
            Growth::Grown => Ok(Took::Grown),
            Growth::None => {
                // Asked again when it is woken: a source that repeats itself costs little.
                self.rest(name, (proof.fork, proof.length));
                Ok(Took::Nothing)
            }
            Growth::NewerFork => self.compare(name, proof),
        }
    }

    fn compare(&mut self, name: &P, proof: &Proof) -> Result<Took> {
        // Below its end: there it has a proof of growth to show.
        let high = self.replica.length().min(proof.length.saturating_sub(1));
        let begin = Comparison { source: name.clone(), fork: proof.fork, low: 0, high };
        let Some(comparison) = self.comparison.as_mut().filter(|c| c.source == *name && c.fork == proof.fork)
        else {
            // One fork at a time; whoever is of an older one is left.
            if self.comparison.as_ref().is_none_or(|comparison| comparison.fork < proof.fork) {
                self.comparison = Some(begin);
            } else if let Some(source) = self.sources.get_mut(name) {
                source.resting = true;
            }
            return Ok(Took::Nothing);
        };
        let asked = comparison.next();
        if proof.since != Some(asked) {
            return Ok(Took::Nothing);
        }
        if self.replica.same_until(proof)? == Some(true) {
            comparison.low = asked;
        } else {
            comparison.high = asked.saturating_sub(1);
            comparison.low = comparison.low.min(comparison.high);
        }
        if comparison.low < comparison.high || comparison.low != asked {
            return Ok(Took::Nothing);
        }
        self.replica.refork(proof)?;
        self.comparison = None;
        self.forget(|(_, request)| matches!(request, Request::Entries { .. }));
        for source in self.sources.values_mut() {
            source.resting = false;
            source.lacks.clear();
        }
        Ok(Took::Reforked(asked))
    }
}
