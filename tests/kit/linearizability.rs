//! Whether a history of puts and gets is linearizable: whether each could have happened at one moment between its begin and its end, all in
//! one order, so that every get saw what the last put before it had written.
//!
//! A register a key, each looked at alone: a history is linearizable if and only if each register's is (Herlihy and Wing, 1990). One
//! register's is searched as Wing and Gong (1993) do, with Lowe's memory (2017): from what may come first, one operation after the
//! other, and a set of operations with a value is not tried again once nothing came of it.
//!
//! A put whose outcome is not known stays open for ever: it may happen any time after its begin, or never. A get that was not answered
//! says nothing and is left out. Values of one register are all different (that is checked), so that a get says which put it saw. Therefore:
//!
//! - a put comes only when nobody has still to see the value before it, which never comes back;
//! - a put of an unknown outcome that nobody saw can be left out: whatever order it is in holds without it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// What was asked of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To become this value.
    Put(u64),
    /// What it is; this was answered, and nothing where nothing was written.
    Got(Option<u64>),
}

impl Asked {
    /// The value that was seen, if one was.
    fn seen(&self) -> Option<u64> {
        match self {
            Self::Got(value) => *value,
            Self::Put(_) => None,
        }
    }
}

/// An operation on a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which register.
    pub key: String,
    /// What was asked, and answered.
    pub asked: Asked,
    /// When it was sent, by a clock that all clients share.
    pub begin: Duration,
    /// When its answer was there; none if its outcome is not known.
    pub end: Option<Duration>,
}

/// A register whose operations fit in no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub key: String,
    /// The longest beginning of an order that was found, in that order.
    pub longest: Vec<Operation>,
    /// The operations that could have come next, of which none fits.
    pub stuck_at: Vec<Operation>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |operation: &Operation| {
            let Operation { asked, begin, end, .. } = operation;
            let end = end.map_or_else(|| "open".to_owned(), |end| format!("{end:.3?}"));
            format!("  {begin:.3?} to {end}: {asked:?}\n")
        };
        let skipped = self.longest.len().saturating_sub(SHOWN);
        let longest: String = self.longest.iter().skip(skipped).map(line).collect();
        let stuck_at: String = self.stuck_at.iter().map(line).collect();
        write!(
            f,
            "{}: no order fits. The longest ends with\n{longest}and none of these may follow:\n{stuck_at}",
            self.key
        )
    }
}

/// Operations of the longest order that are shown.
const SHOWN: usize = 12;

/// Looks at a history.
///
/// # Errors
///
/// The first register whose operations fit in no order.
///
/// # Panics
///
/// If a value was put twice under one key.
pub fn check(history: &[Operation]) -> Result<(), Box<Violation>> {
    let mut registers: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        registers.entry(&operation.key).or_default().push(operation);
    }
    registers.into_iter().try_for_each(|(key, mut operations)| {
        operations.sort_by_key(|operation| operation.begin);
        let mut values = HashSet::new();
        let is_new = |asked: &Asked| !matches!(asked, Asked::Put(value) if !values.insert(*value));
        assert!(operations.iter().map(|operation| &operation.asked).all(is_new), "{key}: a value put twice");
        let seen: HashSet<u64> = operations.iter().filter_map(|operation| operation.asked.seen()).collect();
        operations.retain(|operation| match operation.asked {
            Asked::Put(value) => operation.end.is_some() || seen.contains(&value),
            Asked::Got(_) => true,
        });
        Search::of(&operations).run(key)
    })
}

/// A search through the orders of one register's operations, those by their begin.
struct Search<'a> {
    operations: &'a [&'a Operation],
    done: Bits,
    value: Option<u64>,
    /// What was chosen so far, and the value before.
    chosen: Vec<(usize, Option<u64>)>,
    longest: Vec<usize>,
    /// What was done with which value, and led nowhere or is being followed.
    seen: HashSet<(Bits, Option<u64>)>,
}

impl<'a> Search<'a> {
    fn of(operations: &'a [&'a Operation]) -> Self {
        let done = Bits(vec![0; operations.len().div_ceil(64)]);
        Self { operations, done, value: None, chosen: Vec::new(), longest: Vec::new(), seen: HashSet::new() }
    }

    fn run(mut self, key: &str) -> Result<(), Box<Violation>> {
        let mut from = 0;
        loop {
            if self.is_over() {
                return Ok(());
            }
            match self.next(from) {
                Some(next) => {
                    self.choose(next);
                    from = 0;
                }
                // Nothing fits here: another one in the place of the last.
                None => match self.chosen.pop() {
                    Some((last, before)) => {
                        self.done.set(last, false);
                        self.value = before;
                        from = last + 1;
                    }
                    None => return Err(Box::new(self.violation(key))),
                },
            }
        }
    }

    /// Whether everything that is known to have happened has its place.
    fn is_over(&self) -> bool {
        let mut all = self.operations.iter().enumerate();
        all.all(|(place, operation)| operation.end.is_none() || self.done.has(place))
    }

    /// What may come next: whatever has begun before the first of the others ended.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let left = || (0..self.operations.len()).filter(|place| !self.done.has(*place));
        let first_end = left().filter_map(|place| self.operations[place].end).min();
        left().take_while(move |place| first_end.is_none_or(|end| self.operations[*place].begin <= end))
    }

    /// The first candidate from a place on that fits, and leads to where the search has not been.
    fn next(&mut self, from: usize) -> Option<usize> {
        let candidates: Vec<usize> = self.candidates().filter(|place| *place >= from).collect();
        let may_change = !self.is_still_to_be_seen();
        candidates.into_iter().find(|place| {
            let Some(value) = after(&self.operations[*place].asked, self.value) else { return false };
            if value != self.value && !may_change {
                return false;
            }
            self.done.set(*place, true);
            let is_new = self.seen.insert((self.done.clone(), value));
            self.done.set(*place, false);
            is_new
        })
    }

    /// Whether somebody has still to see the value as it is.
    fn is_still_to_be_seen(&self) -> bool {
        let mut left = self.operations.iter().enumerate().filter(|(place, _)| !self.done.has(*place));
        left.any(|(_, operation)| operation.asked == Asked::Got(self.value))
    }

    fn choose(&mut self, place: usize) {
        self.chosen.push((place, self.value));
        self.done.set(place, true);
        self.value = after(&self.operations[place].asked, self.value).unwrap_or(self.value);
        if self.chosen.len() > self.longest.len() {
            self.longest = self.chosen.iter().map(|(place, _)| *place).collect();
        }
    }

    fn violation(mut self, key: &str) -> Violation {
        let longest = std::mem::take(&mut self.longest);
        longest.iter().for_each(|place| self.done.set(*place, true));
        let all =
            |places: Vec<usize>| places.into_iter().map(|place| self.operations[place].clone()).collect();
        Violation { key: key.to_owned(), stuck_at: all(self.candidates().collect()), longest: all(longest) }
    }
}

/// The value after an operation; none if it does not fit to the value before.
fn after(asked: &Asked, before: Option<u64>) -> Option<Option<u64>> {
    match asked {
        Asked::Put(value) => Some(Some(*value)),
        Asked::Got(value) => (*value == before).then_some(before),
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn set(&mut self, place: usize, is_in: bool) {
        match is_in {
            true => self.0[place / 64] |= 1 << (place % 64),
            false => self.0[place / 64] &= !(1 << (place % 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of one register, drawn: a line an operation, `begin-end` (no end while it is open), then `p` or `g` and a value, or `g.` for nothing.
    fn history(drawn: &str) -> Vec<Operation> {
        let second = |text: &str| Duration::from_secs(text.parse().expect("a time"));
        let operation = |line: &str| {
            let (time, asked) = line.trim().split_once(' ').expect("a time and what was asked");
            let (begin, end) = time.split_once('-').expect("begin and end");
            let (what, value) = asked.split_at(1);
            let value = value.parse().ok();
            let asked = match what {
                "p" => Asked::Put(value.expect("a value")),
                _ => Asked::Got(value),
            };
            let end = (!end.is_empty()).then(|| second(end));
            Operation { key: "k".to_owned(), asked, begin: second(begin), end }
        };
        drawn.split(',').map(operation).collect()
    }

    fn holds(drawn: &str) -> bool {
        check(&history(drawn)).is_ok()
    }

    #[test]
    fn what_could_have_happened_at_one_moment_each_is_linearizable() {
        for drawn in [
            "0-1 g.",
            "0-1 p1, 2-3 g1",
            // Beside each other, in either order.
            "0-9 p1, 0-9 p2, 10-11 g1",
            "0-9 p1, 0-9 p2, 10-11 g2",
            "0-9 p1, 1-2 g., 3-4 g1",
            "0-1 p1, 2-9 p2, 3-4 g1, 5-6 g2",
            // Of an unknown outcome: at once, much later, or never.
            "0-1 p1, 2- p2, 3-4 g2",
            "0-1 p1, 2- p2, 3-4 g1, 50-51 g1, 60-61 g2",
            "0-1 p1, 2- p2, 3-4 g1, 50-51 g1",
            "0- p1, 1- p2, 2-3 g., 4-5 g2, 6-7 g1",
        ] {
            assert!(holds(drawn), "{drawn}");
        }
    }

    #[test]
    fn what_is_lost_stale_or_comes_back_is_not() {
        for drawn in [
            "0-1 g7",
            "0-1 p1, 2-3 g.",
            "0-1 p1, 2-3 p2, 4-5 g1",
            // Seen, and then not any more.
            "0-9 p1, 1-2 g1, 3-4 g.",
            "0-1 p1, 2-9 p2, 3-4 g2, 5-6 g1",
            "0-9 p1, 0-9 p2, 10-11 g1, 12-13 g2",
            // Of an unknown outcome: not before it was asked, and once.
            "0-1 p1, 2-3 g2, 4- p2",
            "0-1 p1, 2- p2, 3-4 g2, 5-6 p3, 7-8 g3, 9-10 g2",
            "0- p1, 1-2 p2, 3-4 g1, 5-6 g2",
        ] {
            assert!(!holds(drawn), "{drawn}");
        }
    }

    #[test]
    fn registers_are_looked_at_alone_and_the_wrong_one_is_named() {
        let mut all = history("0-1 p1, 2-3 g1");
        let stale = history("0-1 p1, 2-3 p2, 4-5 g1");
        all.extend(stale.into_iter().map(|operation| Operation { key: "other".to_owned(), ..operation }));
        let violation = check(&all).expect_err("it is stale");
        // What is put once cannot be overwritten while somebody has still to see it: that put is where it cannot go on.
        assert_eq!((violation.key.as_str(), violation.longest.len()), ("other", 1));
        assert!(violation.to_string().contains("Put(2)"), "{violation}");
    }

    #[test]
    fn many_beside_each_other_are_decided_soon() {
        // Twenty open puts, and gets that see them in an order of their own: without memory this takes 20! tries.
        let mut all = history("0-1 p100");
        let put = |value| Operation { asked: Asked::Put(value), end: None, ..all[0].clone() };
        let get = |(time, value): (u64, u64)| Operation {
            asked: Asked::Got(Some(value)),
            begin: Duration::from_secs(2 * time + 2),
            end: Some(Duration::from_secs(2 * time + 3)),
            ..all[0].clone()
        };
        let (puts, gets): (Vec<_>, Vec<_>) =
            ((0..20).map(put).collect(), (0..20).map(|time| (time, (time * 7) % 20)).map(get).collect());
        all.extend(puts);
        all.extend(gets);
        assert!(check(&all).is_ok());
        let again = Operation {
            asked: Asked::Got(Some(0)),
            begin: Duration::from_secs(100),
            end: Some(Duration::from_secs(101)),
            ..all[0].clone()
        };
        all.push(again);
        assert!(check(&all).is_err(), "the first is overwritten, and happens once");
    }
}
