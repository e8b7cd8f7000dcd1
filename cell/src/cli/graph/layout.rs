//! Where everything stands, in pixels.
//!
//! An event stands above all of its parents: in the band of its round, a step above the highest parent that lies in the
//! same band. Events of one step know nothing of each other; the earlier stand a little lower.

use std::collections::{BTreeMap, BTreeSet};

use protocol::consensus::{GraphEvent, GraphView, MemberView};
use protocol::{CellId, Hash};

/// Left of the columns: the rounds' names.
const LEFT: usize = 128;
/// Right of the columns.
const RIGHT: usize = 28;
/// From one step of a band to the next.
const STEP: usize = 36;
/// How far apart events of one step stand at most, the earliest from the latest.
const SPREAD: usize = 18;
/// Above and below the events of a band.
const BAND_MARGIN: usize = 22;
/// From one branch of a member that has forked to the next.
const LANE: usize = 30;
/// Branches side by side; more stand upon the last.
const LANES_MAX: usize = 8;
/// All columns together, where there are neither few nor many.
const COLUMNS_WIDTH: usize = 1_280;
/// A column, at least and at most.
const COLUMN_MIN: usize = 72;
/// See [`COLUMN_MIN`].
const COLUMN_MAX: usize = 180;

/// An event in its place.
pub(super) struct Placed<'a> {
    pub(super) event: &'a GraphEvent,
    pub(super) x: usize,
    /// Downwards, from the upper edge of the highest band.
    pub(super) y: usize,
    /// Its parents that are shown, by their places in the list.
    pub(super) self_parent: Option<usize>,
    pub(super) other_parents: Vec<usize>,
    /// Whether it is one of several that its creator made on one event.
    pub(super) is_fork: bool,
}

/// A member's column.
pub(super) struct Column<'a> {
    pub(super) member: &'a MemberView,
    /// Its middle.
    pub(super) x: usize,
    pub(super) width: usize,
}

/// A round's band.
pub(super) struct Band {
    pub(super) round: u64,
    /// Its upper edge, downwards from that of the highest.
    pub(super) y: usize,
    pub(super) height: usize,
    /// The time of its first event.
    pub(super) time_us: u64,
    pub(super) judges: usize,
}

/// Where everything stands.
pub(super) struct Layout<'a> {
    /// In the order of the view.
    pub(super) events: Vec<Placed<'a>>,
    pub(super) columns: Vec<Column<'a>>,
    /// The latest first.
    pub(super) bands: Vec<Band>,
    pub(super) width: usize,
    /// Of all bands.
    pub(super) height: usize,
}

/// An event while its place is looked for.
struct Found<'a> {
    event: &'a GraphEvent,
    column: usize,
    self_parent: Option<usize>,
    other_parents: Vec<usize>,
    lane: usize,
    /// In its round.
    step: usize,
}

/// Lays a view out. Events of strangers are left out.
pub(super) fn lay_out<'a>(view: &'a GraphView) -> Layout<'a> {
    let found = find(view);
    let mut lanes = vec![1; view.members.len()];
    for found in &found {
        lanes[found.column] = lanes[found.column].max(found.lane + 1);
    }
    let (columns, width) = columns(&view.members, &lanes);
    let (bands, height) = bands(&found);
    let spread = spread(&found);
    let forks = forks(&found);
    let place = |(number, found): (usize, Found<'a>)| {
        let column = &columns[found.column];
        let band = bands.iter().find(|band| band.round == found.event.round);
        let above = BAND_MARGIN + found.step * STEP + spread[number];
        Placed {
            x: beside(column.x, found.lane),
            y: band.map_or(0, |band| band.y + band.height).saturating_sub(above),
            is_fork: forks.contains(&(found.column, found.event.self_parent)),
            event: found.event,
            self_parent: found.self_parent,
            other_parents: found.other_parents,
        }
    };
    let events = found.into_iter().enumerate().map(place).collect();
    Layout { events, columns, bands, width, height }
}

/// The first branch stands in the middle of its column, the next ones to its right and left in turn.
fn beside(middle: usize, lane: usize) -> usize {
    let aside = lane.div_ceil(2) * LANE;
    if lane % 2 == 1 { middle + aside } else { middle - aside }
}

/// Parents, branch and step of each event.
fn find(view: &GraphView) -> Vec<Found<'_>> {
    let places = view.members.iter().enumerate().map(|(place, member)| (member.cell, place));
    let column_of: BTreeMap<CellId, usize> = places.collect();
    let mut numbers: BTreeMap<Hash, usize> = BTreeMap::new();
    let mut found: Vec<Found<'_>> = Vec::with_capacity(view.events.len());
    // Events that something of the same creator stands on, and how many branches each column has.
    let mut continued = BTreeSet::new();
    let mut branches = vec![0; view.members.len()];
    for event in &view.events {
        let Some(&column) = column_of.get(&event.creator) else { continue };
        let self_parent = event.self_parent.and_then(|parent| numbers.get(&parent).copied());
        let other_parents: Vec<usize> =
            event.other_parents.iter().filter_map(|parent| numbers.get(parent).copied()).collect();
        let lane = match self_parent.filter(|parent| continued.insert(*parent)) {
            Some(parent) => found[parent].lane,
            None => {
                branches[column] += 1;
                (branches[column] - 1).min(LANES_MAX - 1)
            }
        };
        let parents = self_parent.iter().chain(&other_parents).map(|parent| &found[*parent]);
        let below = parents.filter(|parent| parent.event.round == event.round).map(|parent| parent.step + 1);
        let step = below.max().unwrap_or(0);
        numbers.insert(event.id, found.len());
        found.push(Found { event, column, self_parent, other_parents, lane, step });
    }
    found
}

fn columns<'a>(members: &'a [MemberView], lanes: &[usize]) -> (Vec<Column<'a>>, usize) {
    let plain = (COLUMNS_WIDTH / members.len().max(1)).clamp(COLUMN_MIN, COLUMN_MAX);
    let mut left = LEFT;
    let column = |(member, lanes): (&'a MemberView, &usize)| {
        let width = plain.max((lanes / 2 + 1) * 2 * LANE);
        left += width;
        Column { member, x: left - width / 2, width }
    };
    let columns = members.iter().zip(lanes).map(column).collect();
    (columns, left + RIGHT)
}

fn bands(found: &[Found<'_>]) -> (Vec<Band>, usize) {
    let mut rounds: BTreeMap<u64, Vec<&Found<'_>>> = BTreeMap::new();
    for found in found {
        rounds.entry(found.event.round).or_default().push(found);
    }
    let mut y = 0;
    let band = |(round, found): (u64, Vec<&Found<'_>>)| {
        let steps = found.iter().map(|found| found.step).max().unwrap_or(0);
        let height = 2 * BAND_MARGIN + steps * STEP + SPREAD;
        y += height;
        Band {
            round,
            y: y - height,
            height,
            time_us: found.iter().map(|found| found.event.time_us).min().unwrap_or(0),
            judges: found.iter().filter(|found| found.event.judge).count(),
        }
    };
    let bands: Vec<Band> = rounds.into_iter().rev().map(band).collect();
    (bands, y)
}

/// How far above the lowest of its step each event stands.
fn spread(found: &[Found<'_>]) -> Vec<usize> {
    let mut steps: BTreeMap<(u64, usize), Vec<usize>> = BTreeMap::new();
    for (number, found) in found.iter().enumerate() {
        steps.entry((found.event.round, found.step)).or_default().push(number);
    }
    let mut spread = vec![0; found.len()];
    for together in steps.values_mut() {
        together.sort_by_key(|number| (found[*number].event.time_us, *number));
        for (place, number) in together.iter().enumerate().skip(1) {
            spread[*number] = place * SPREAD / (together.len() - 1);
        }
    }
    spread
}

/// What a member has made more than one event on.
fn forks(found: &[Found<'_>]) -> BTreeSet<(usize, Option<Hash>)> {
    let mut before = BTreeSet::new();
    let on = found.iter().map(|found| (found.column, found.event.self_parent));
    on.filter(|on| !before.insert(*on)).collect()
}
