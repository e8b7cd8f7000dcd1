//! The beacon over the hashgraph: members deal and open in their events, each orders by its own engine what comes to it in its own order, and
//! all draw the same values, whoever withholds.

use std::collections::BTreeMap;

use consensus::beacon::{Beacon, Holders, News, Word};
use consensus::hashgraph::{Event, EventId, Hashgraph, MemberIndex, Round, Settings};
use ed25519_dalek::SigningKey;
use protocol::beacon::{Dealing, Opening};
use protocol::signing::{self, Signature};
use protocol::{GenesisHash, Hash};

const MEMBERS: usize = 4;
const EVERY_ROUNDS: u64 = 2;

/// What an event carries.
#[derive(Default)]
struct Payload {
    dealings: Vec<Dealing>,
    openings: Vec<Opening>,
}

/// A member with its own engine and beacon.
struct Member {
    key: SigningKey,
    graph: Hashgraph,
    beacon: Beacon,
    /// Dealt and opened already, if it may not be ordered yet.
    dealt: u64,
    opened: u64,
    /// Values in the order.
    values: Vec<Hash>,
    /// Draws whose value was known here before the order had it.
    early: usize,
}

impl Member {
    fn new(place: usize, holders: Holders) -> Self {
        Self {
            key: key(place),
            graph: Hashgraph::new(&[1; MEMBERS], Settings { coin_rounds: 10, events_a_round_max: 100 }),
            beacon: Beacon::new(holders, EVERY_ROUNDS),
            dealt: 0,
            opened: 0,
            values: Vec::new(),
            early: 0,
        }
    }

    /// What its next event carries.
    fn say(&mut self, withholds: bool) -> Payload {
        let mut payload = Payload::default();
        if withholds {
            return payload;
        }
        let cell = signing::cell_id(&self.key);
        for draw in self.beacon.to_deal(&cell).into_iter().filter(|draw| *draw > self.dealt) {
            let seed = *Hash::of(&[self.key.to_bytes().as_slice(), &draw.to_le_bytes()].concat()).as_bytes();
            payload.dealings.push(self.beacon.deal(&self.key, draw, &seed).expect("a member deals"));
        }
        for draw in self.beacon.to_open(&cell).into_iter().filter(|draw| *draw > self.opened) {
            payload.openings.push(self.beacon.open(&self.key, draw).expect("it is fixed"));
        }
        let last = |draws: &mut dyn Iterator<Item = u64>, before: u64| draws.fold(before, u64::max);
        self.dealt = last(&mut payload.dealings.iter().map(|dealing| dealing.draw), self.dealt);
        self.opened = last(&mut payload.openings.iter().map(|opening| opening.draw), self.opened);
        payload
    }

    fn take(&mut self, event: &Event, said: &BTreeMap<EventId, Payload>) {
        self.graph.insert(event).expect("an event that a member may make");
        for opening in &said[&event.id].openings {
            self.beacon.hear(opening).expect("an opening that holds");
        }
        while let Some(round) = self.graph.poll_ordered() {
            let words = round.events.iter().flat_map(|ordered| {
                let payload = &said[&ordered.id];
                let dealings = payload.dealings.iter().map(Word::Dealing);
                dealings.chain(payload.openings.iter().map(Word::Opening))
            });
            let known = self.beacon.fixed();
            let known = (1..=known).filter(|draw| self.beacon.value(*draw).is_some()).count();
            let news = self.beacon.order(round.round, words).expect("the next round");
            for news in news {
                match news {
                    News::Opened { draw, value, fixed } => {
                        assert_eq!(draw, self.values.len() as u64 + 1, "all open in turn here");
                        assert!(fixed < round.round, "a draw is opened after it was fixed");
                        assert_eq!(
                            self.beacon.value_after(Round(fixed.0 - 1)),
                            Some((draw, value)),
                            "fixed by round {fixed:?}"
                        );
                        self.early += usize::from(known > self.values.len());
                        self.values.push(value);
                    }
                    News::Fixed { .. } => {}
                    News::Bad { .. } => panic!("nobody lies: {news:?}"),
                }
            }
        }
    }
}

fn key(place: usize) -> SigningKey {
    SigningKey::from_bytes(&[place as u8 + 1; 32])
}

/// Members make so many events each, on all that the others had made before; the last one neither deals nor opens if it withholds.
fn run(layers: u64, withholds: bool) -> Vec<Member> {
    let cells = (0..MEMBERS).map(|place| (signing::cell_id(&key(place)), 1)).collect();
    let holders = Holders::new(GenesisHash::ZERO, 0, &cells).expect("four");
    let mut members: Vec<Member> = (0..MEMBERS).map(|place| Member::new(place, holders.clone())).collect();
    let mut said: BTreeMap<EventId, Payload> = BTreeMap::new();
    let mut tips: Vec<Option<EventId>> = vec![None; MEMBERS];
    for layer in 0..layers {
        let mut made = Vec::new();
        for (place, member) in members.iter_mut().enumerate() {
            let payload = member.say(withholds && place == MEMBERS - 1);
            let number = layer * MEMBERS as u64 + place as u64;
            let others = tips.iter().enumerate().filter(|(other, _)| *other != place);
            let event = Event {
                id: EventId(*Hash::of(&number.to_le_bytes()).as_bytes()),
                creator: MemberIndex(place as u16),
                self_parent: tips[place],
                other_parents: others.filter_map(|(_, tip)| *tip).collect(),
                time_us: number + 1,
                signature: Signature::from_bytes([0; 64]),
            };
            said.insert(event.id, payload);
            made.push(event);
        }
        // Each hears its own first and the others' after.
        for (place, member) in members.iter_mut().enumerate() {
            (0..MEMBERS).for_each(|turn| member.take(&made[(place + turn) % MEMBERS], &said));
        }
        tips = made.iter().map(|event| Some(event.id)).collect();
    }
    members
}

#[test]
fn members_draw_the_same_values_whoever_withholds() {
    for withholds in [false, true] {
        let members = run(60, withholds);
        let longest =
            members.iter().map(|member| &member.values).max_by_key(|values| values.len()).expect("four");
        assert!(longest.len() >= 10, "a value every {EVERY_ROUNDS} rounds of some 30: {}", longest.len());
        for member in &members {
            assert_eq!(member.values, longest[..member.values.len()]);
            assert!(member.values.len() + 1 >= longest.len(), "they are level");
            assert!(member.early > 0, "openings count before they are ordered");
        }
        let distinct: std::collections::BTreeSet<_> = longest.iter().collect();
        assert_eq!(distinct.len(), longest.len());
    }
}
