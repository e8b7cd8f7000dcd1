//! Every way from one epoch to the next: a model of the rule (ADR 0013), in which a graph's order is the same for all who are in it,
//! and everything else may come at any time, late, or not at all.
//!
//! Five cells: four members, of whom one is faulty, and one that stands by. The order of an epoch's graph is chosen step by step, by
//! nobody, as long as more than two thirds of its members take part. A **change** of members ends the epoch: what the graph orders
//! later is void. Each cell executes what is ordered, syncs, and with that gives its word; it **closes** a block when more than two
//! thirds of the members of the block's own graph gave their word for it with the root that came out here. A cell that lacks the block takes it
//! over with these words. When all that it has is closed and ends with a change, it begins the next epoch, with the members that it reads
//! from what it has executed.
//!
//! The faulty member gives its word for everything, and takes part everywhere. One honest cell may be damaged, once: it executes to a
//! wrong root from then on, and reads other members from it than there are. A crash takes what is not synced; each cell is at
//! most one step ahead of its disk.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker, Model, Property};

use crate::threads;

/// Cells as bits.
type Set = u8;

/// Who begins.
const FOUNDERS: Set = 0b01111;
/// Gives its word for everything.
const FAULTY: Set = 0b01000;
/// A change: the fifth is let in.
const GROWN: Set = 0b11111;
/// Another: the fifth takes the place of the third.
const SWAPPED: Set = 0b11011;
/// The honest cells, as they stand in [`World::cells`]. The first two are in all sets alike.
const HONEST: [Set; 4] = [0b00001, 0b00010, 0b00100, 0b10000];
/// How many blocks an epoch has at most, by its number.
const BLOCKS_MAX: [usize; 2] = [2, 1];
/// The first index that no block has.
const INDEX_END: usize = 3;

const ONE_SET: &str = "one epoch has one member set";
const IN_TURN: &str = "no block is final before the one that made its members";
const ONE_WORD: &str = "no honest cell gives two words for an index";
const ONE_BLOCK: &str = "there is one final block at an index";

fn is_supermajority(of: Set, set: Set) -> bool {
    3 * (of & set).count_ones() > 2 * set.count_ones()
}

/// How an epoch ends.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// As it is built.
    Final,
    /// Broken: the next epoch begins when the change is ordered, not when it is final, and who comes late takes over what is
    /// only ordered.
    Ordered,
    /// Broken: what the old graph orders after the change is not void.
    GoesOn,
    /// Broken: a cell gives its word before it has synced what it gives it for.
    Unsynced,
}

/// The hashgraph of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Graph {
    epoch: u8,
    members: Set,
    /// The index of its first block.
    first: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Content {
    Plain,
    Change(Set),
}

/// A block as a cell has executed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Done {
    graph: Graph,
    content: Content,
    /// Whether the root is wrong.
    wrong: bool,
}

/// How far a cell has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Progress {
    chain: Vec<Done>,
    /// How many of these are final here.
    closed: usize,
    /// The graph that it takes part in.
    graph: Option<Graph>,
    /// More than two thirds came to another root.
    diverged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Cell {
    memory: Progress,
    /// What is synced. Its chain is what the cell has given its word for.
    disk: Progress,
    /// Words, by index, that it gave before a crash and knows nothing of.
    forgotten: BTreeSet<(usize, Done)>,
    damaged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    cells: Vec<Cell>,
    orders: BTreeMap<Graph, Vec<Content>>,
    may_damage: bool,
}

/// What happens next; cells by their place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Order(Graph, Content),
    Take(usize),
    Close(usize),
    TakeOver(usize, Done),
    Begin(usize),
    Sync(usize),
    Crash(usize),
    Damage(usize),
}

impl World {
    /// Whether more than two thirds of its graph's members gave their word for it.
    fn is_proven(&self, index: usize, done: &Done) -> bool {
        let says = |(cell, _): &(&Cell, Set)| cell.disk.chain.get(index) == Some(done);
        let words = self.cells.iter().zip(HONEST).filter(says).fold(FAULTY, |words, (_, bit)| words | bit);
        is_supermajority(words, done.graph.members)
    }

    /// All that honest cells have given their word for.
    fn said(&self, index: usize) -> BTreeSet<Done> {
        self.cells.iter().filter_map(|cell| cell.disk.chain.get(index)).copied().collect()
    }

    /// What of that is proven.
    fn proven(&self, index: usize) -> BTreeSet<Done> {
        self.said(index).into_iter().filter(|done| self.is_proven(index, done)).collect()
    }

    /// Whether enough take part in a graph for it to order anything.
    fn is_alive(&self, graph: &Graph) -> bool {
        let is_in = |(cell, _): &(&Cell, Set)| cell.disk.graph == Some(*graph);
        let there = self.cells.iter().zip(HONEST).filter(is_in).fold(FAULTY, |there, (_, bit)| there | bit);
        is_supermajority(there, graph.members)
    }
}

/// The members that a cell reads from a change that it has executed.
fn read(done: &Done) -> Option<Set> {
    match (done.content, done.wrong) {
        (Content::Plain, _) => None,
        (Content::Change(members), false) => Some(members),
        (Content::Change(members), true) => Some(members ^ GROWN ^ SWAPPED),
    }
}

impl Progress {
    /// The graph whose block comes next.
    fn next_graph(&self) -> Graph {
        let Some(last) = self.chain.last() else { return Graph { epoch: 0, members: FOUNDERS, first: 0 } };
        match read(last) {
            Some(members) => Graph { epoch: last.graph.epoch + 1, members, first: self.chain.len() },
            None => last.graph,
        }
    }

    fn take(&self, damaged: bool, orders: &BTreeMap<Graph, Vec<Content>>) -> Option<Self> {
        let graph = self.graph.filter(|_| !self.diverged)?;
        let content = *orders.get(&graph)?.get(self.chain.len() - graph.first)?;
        let mut next = self.clone();
        next.chain.push(Done { graph, content, wrong: damaged });
        Some(next)
    }

    fn close(&self, world: &World) -> Option<Self> {
        let mine = self.chain.get(self.closed).filter(|_| !self.diverged)?;
        let mut next = self.clone();
        if world.is_proven(self.closed, mine) {
            next.closed += 1;
        } else if world.is_proven(self.closed, &Done { wrong: !mine.wrong, ..*mine }) {
            next.diverged = true;
        } else {
            return None;
        }
        Some(next)
    }

    /// Takes a block over that others have, of the members that it knows of; it is closed in a step of its own.
    fn take_over(&self, rule: Rule, said: &Done, damaged: bool, world: &World) -> Option<Self> {
        let index = self.chain.len();
        let may = rule == Rule::Ordered || self.closed == index && world.is_proven(index, said);
        if self.diverged || !may || said.graph != self.next_graph() {
            return None;
        }
        let mut next = self.clone();
        next.chain.push(Done { wrong: damaged, ..*said });
        Some(next)
    }

    fn begin(&self, rule: Rule, cell: Set) -> Option<Self> {
        let is_over = rule == Rule::Ordered || self.closed == self.chain.len();
        let ends = self.chain.last().is_some_and(|last| read(last).is_some());
        if !ends || !is_over || self.diverged {
            return None;
        }
        let next = self.next_graph();
        let graph = Some(next).filter(|graph| graph.members & cell != 0);
        (self.graph != graph).then(|| Self { graph, ..self.clone() })
    }
}

struct Epochs {
    rule: Rule,
}

impl Epochs {
    fn orders(&self, world: &World, steps: &mut Vec<Step>) {
        let graphs: BTreeSet<Graph> = world.cells.iter().filter_map(|cell| cell.disk.graph).collect();
        for graph in graphs.into_iter().filter(|graph| world.is_alive(graph)) {
            let order = world.orders.get(&graph).map_or(&[][..], Vec::as_slice);
            let is_over = order.iter().any(|content| *content != Content::Plain);
            if order.len() == BLOCKS_MAX[usize::from(graph.epoch)] || is_over && self.rule != Rule::GoesOn {
                continue;
            }
            steps.push(Step::Order(graph, Content::Plain));
            if graph.epoch == 0 && !is_over {
                steps.push(Step::Order(graph, Content::Change(GROWN)));
                steps.push(Step::Order(graph, Content::Change(SWAPPED)));
            }
        }
    }

    /// What a step of a cell leads to in its memory.
    fn ahead(&self, world: &World, step: Step) -> Option<(usize, Progress)> {
        let of = |place: usize| &world.cells[place];
        match step {
            Step::Take(place) => Some((place, of(place).memory.take(of(place).damaged, &world.orders)?)),
            Step::Close(place) => Some((place, of(place).memory.close(world)?)),
            Step::TakeOver(place, done) => {
                let Cell { memory, damaged, .. } = of(place);
                Some((place, memory.take_over(self.rule, &done, *damaged, world)?))
            }
            Step::Begin(place) => Some((place, of(place).memory.begin(self.rule, HONEST[place])?)),
            Step::Order(..) | Step::Sync(_) | Step::Crash(_) | Step::Damage(_) => None,
        }
    }
}

impl Model for Epochs {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let cell = |bit: Set| {
            let first = Graph { epoch: 0, members: FOUNDERS, first: 0 };
            let graph = Some(first).filter(|graph| graph.members & bit != 0);
            let fresh = Progress { chain: Vec::new(), closed: 0, graph, diverged: false };
            Cell { memory: fresh.clone(), disk: fresh, forgotten: BTreeSet::new(), damaged: false }
        };
        vec![World { cells: HONEST.map(cell).to_vec(), orders: BTreeMap::new(), may_damage: true }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.orders(world, steps);
        for (place, cell) in world.cells.iter().enumerate() {
            if cell.memory != cell.disk {
                steps.extend([Step::Sync(place), Step::Crash(place)]);
                continue;
            }
            let index = cell.memory.chain.len();
            let taken_over = world.said(index).into_iter().map(|done| Step::TakeOver(place, done));
            let all =
                [Step::Take(place), Step::Close(place), Step::Begin(place)].into_iter().chain(taken_over);
            steps.extend(all.filter(|step| self.ahead(world, *step).is_some()));
            if world.may_damage {
                steps.push(Step::Damage(place));
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut next = last.clone();
        match step {
            Step::Order(graph, content) => next.orders.entry(graph).or_default().push(content),
            Step::Sync(place) => next.cells[place].disk = last.cells[place].memory.clone(),
            Step::Crash(place) => {
                let Cell { memory, disk, .. } = &last.cells[place];
                if self.rule == Rule::Unsynced {
                    let lost =
                        (0..).zip(&memory.chain).skip(disk.chain.len()).map(|(index, done)| (index, *done));
                    next.cells[place].forgotten.extend(lost);
                }
                next.cells[place].memory = disk.clone();
            }
            Step::Damage(place) => {
                next.cells[place].damaged = true;
                next.may_damage = false;
            }
            Step::Take(_) | Step::Close(_) | Step::TakeOver(..) | Step::Begin(_) => {
                let (place, progress) = self.ahead(last, step)?;
                next.cells[place].memory = progress;
            }
        }
        // The first two stand in all sets alike: which is which does not matter.
        next.cells[..2].sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(ONE_SET, |_, world| {
                let graphs = world.cells.iter().flat_map(|cell| [cell.memory.graph, cell.disk.graph]);
                let mut sets: BTreeMap<u8, Set> = BTreeMap::new();
                graphs
                    .flatten()
                    .all(|graph| *sets.entry(graph.epoch).or_insert(graph.members) == graph.members)
            }),
            Property::<Self>::always(IN_TURN, |_, world| {
                let made = |graph: &Graph| {
                    let before = graph.first.checked_sub(1);
                    before.is_none_or(|index| {
                        world.proven(index).iter().any(|done| read(done) == Some(graph.members))
                    })
                };
                (0..INDEX_END).flat_map(|index| world.proven(index)).all(|done| made(&done.graph))
            }),
            Property::<Self>::always(ONE_WORD, |_, world| {
                world.cells.iter().all(|cell| {
                    let same = |(index, done): &(usize, Done)| {
                        cell.memory.chain.get(*index).is_none_or(|now| now == done)
                    };
                    cell.forgotten.iter().all(same)
                })
            }),
            Property::<Self>::always(ONE_BLOCK, |_, world| {
                (0..INDEX_END).all(|index| {
                    let closed = world.cells.iter().filter(|cell| cell.memory.closed > index);
                    let closed = closed.map(|cell| cell.memory.chain[index]);
                    closed.chain(world.proven(index)).collect::<BTreeSet<_>>().len() <= 1
                })
            }),
            Property::<Self>::sometimes(
                "the next epoch's members all have a final block of it",
                |_, world| {
                    let has = |cell: &Cell| {
                        let closed = &cell.disk.chain[..cell.disk.closed];
                        closed.last().is_some_and(|last| last.graph.epoch == 1)
                    };
                    world.cells.iter().all(has)
                },
            ),
            Property::<Self>::sometimes(
                "who was no member has final blocks of the epoch before",
                |_, world| world.cells[3].disk.closed > 0,
            ),
            Property::<Self>::sometimes("a damaged cell stops, and the others go on", |_, world| {
                let beyond = |cell: &Cell| {
                    cell.disk.chain[..cell.disk.closed].iter().any(|done| done.graph.epoch == 1)
                };
                world.cells.iter().any(|cell| cell.disk.diverged) && world.cells.iter().any(beyond)
            }),
        ]
    }
}

#[test]
fn members_change_between_epochs_and_nobody_parts() {
    let checker = Epochs { rule: Rule::Final }.checker().threads(threads()).spawn_bfs().join();
    eprintln!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

/// What each search finds when the rule is broken.
#[track_caller]
fn check_broken(rule: Rule, property: &'static str) {
    let broken = stateright::HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = Epochs { rule }.checker().threads(threads()).finish_when(broken).spawn_bfs().join();
    let path = checker.assert_any_discovery(property);
    eprintln!("{property:?} is broken in {} steps", path.into_actions().len());
}

#[test]
fn an_epoch_that_begins_when_the_change_is_only_ordered_may_have_two_member_sets() {
    check_broken(Rule::Ordered, ONE_SET);
}

#[test]
fn an_epoch_that_begins_when_the_change_is_only_ordered_has_final_blocks_too_early() {
    check_broken(Rule::Ordered, IN_TURN);
}

#[test]
fn a_graph_that_goes_on_after_the_change_makes_two_final_blocks_at_one_index() {
    check_broken(Rule::GoesOn, ONE_BLOCK);
}

#[test]
fn a_word_that_is_given_before_it_is_synced_may_be_given_twice() {
    check_broken(Rule::Unsynced, ONE_WORD);
}
