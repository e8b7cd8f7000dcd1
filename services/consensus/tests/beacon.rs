//! The beacon: any members of two thirds find the same value, none of less than a third finds it or changes it, and whoever lies
//! is known.

use std::collections::BTreeSet;

use consensus::beacon::{
    AHEAD_MAX, Beacon, Dealt, Holders, News, OPEN_MAX, Opened, Refusal, Sealed, Word, check_dealing,
    check_opening, combine, deal, open,
};
use consensus::hashgraph::Round;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use protocol::beacon::{Dealing, Elements, Opening};
use protocol::genesis::Member;
use protocol::members::MemberSet;
use protocol::signing::{self, Signature};
use protocol::{CellId, GenesisHash, Hash, MemberKey};

const GENESIS: GenesisHash = GenesisHash::ZERO;
const EPOCH: u64 = 3;

fn key(member: usize) -> SigningKey {
    SigningKey::from_bytes(&[member as u8 + 1; 32])
}

fn cell(member: usize) -> CellId {
    signing::cell_id(&key(member))
}

fn holders(weights: &[u64]) -> Holders {
    let members = weights.iter().enumerate().map(|(member, weight)| (cell(member), *weight)).collect();
    Holders::new(GENESIS, EPOCH, &members).expect("a few members")
}

fn seed(text: &str) -> [u8; 32] {
    *Hash::of(text.as_bytes()).as_bytes()
}

fn dealt(holders: &Holders, dealer: usize, text: &str) -> Dealt {
    let dealing = deal(holders, &key(dealer), 1, &seed(text)).expect("a member deals");
    check_dealing(holders, &dealing).expect("it holds")
}

/// Draw 1, dealt by the first members that weigh more than a third.
fn sealed(holders: &Holders, text: &str) -> Sealed {
    let dealings: Vec<Dealt> = (0..2).map(|dealer| dealt(holders, dealer, text)).collect();
    Sealed::new(holders, 1, &dealings)
}

fn opened(holders: &Holders, sealed: &Sealed, member: usize) -> Opened {
    let opening = open(holders, &key(member), sealed).expect("it holds shares");
    check_opening(holders, sealed, &opening).expect("it holds")
}

/// Signs a dealing that was changed.
fn signed(dealing: Dealing, dealer: usize) -> Dealing {
    Dealing { dealer: cell(dealer), ..dealing }.sign(&key(dealer), &GENESIS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whichever members open: with enough shares it is the same value, with fewer there is none.
    #[test]
    fn whoever_opens_finds_the_same_value(
        weights in prop::collection::vec(1u64..6, 2..8),
        among in any::<u8>(),
        text in "[a-z]{4}",
    ) {
        let holders = holders(&weights);
        let sealed = sealed(&holders, &text);
        let all: Vec<Opened> = holders
            .members()
            .iter()
            .enumerate()
            .filter(|(_, holder)| holder.shares > 0)
            .map(|(member, _)| opened(&holders, &sealed, member))
            .collect();
        let value = combine(&holders, &sealed, &all).expect("all together");
        let some: Vec<&Opened> =
            all.iter().enumerate().filter(|(at, _)| among >> at & 1 == 1).map(|(_, opened)| opened).collect();
        let shares: usize = some.iter().map(|opened| opened.shares()).sum();
        let backwards = combine(&holders, &sealed, some.iter().rev().copied());
        prop_assert_eq!(combine(&holders, &sealed, some.iter().copied()), backwards);
        prop_assert_eq!(backwards, (shares >= holders.threshold()).then_some(value));
        // Each twice is no more than each once.
        prop_assert_eq!(combine(&holders, &sealed, some.iter().chain(&some).copied()), backwards);
    }

    /// Whatever is read from the wire is refused or not, and nothing panics.
    #[test]
    fn noise_is_refused(
        shares in prop::collection::vec(any::<[u8; 32]>(), 0..6),
        responses in prop::collection::vec(any::<[u8; 32]>(), 0..4),
        challenge in any::<[u8; 32]>(),
        response in any::<[u8; 32]>(),
    ) {
        let holders = holders(&[1; 4]);
        let elements = |of: Vec<[u8; 32]>| Elements::new(of).expect("few");
        let good = deal(&holders, &key(0), 1, &seed("good")).expect("a member deals");
        let dealing =
            Dealing { shares: elements(shares.clone()), responses: elements(responses), challenge, ..good };
        let refused = check_dealing(&holders, &signed(dealing, 0)).expect_err("noise");
        prop_assert!(refused.is_evidence());
        let sealed = sealed(&holders, "good");
        let good = open(&holders, &key(0), &sealed).expect("it holds shares");
        let opening = Opening { shares: elements(shares), challenge, response, ..good };
        let refused = check_opening(&holders, &sealed, &opening.sign(&key(0), &GENESIS)).expect_err("noise");
        prop_assert!(refused.is_evidence());
    }
}

#[test]
fn one_member_alone_draws_as_well() {
    let holders = holders(&[1]);
    let sealed = Sealed::new(&holders, 1, &[dealt(&holders, 0, "one")]);
    assert!(combine(&holders, &sealed, &[opened(&holders, &sealed, 0)]).is_some());
}

/// Another seed of any one dealer, another draw, epoch or network: another value.
#[test]
fn everything_has_a_part_in_the_value() {
    let value = |holders: &Holders, texts: [&str; 2]| {
        let dealings: Vec<Dealt> =
            (0..).zip(texts).map(|(dealer, text)| dealt(holders, dealer, text)).collect();
        let sealed = Sealed::new(holders, 1, &dealings);
        combine(holders, &sealed, &[opened(holders, &sealed, 2), opened(holders, &sealed, 3)])
            .expect("enough")
    };
    let members = (0..4).map(|member| (cell(member), 1)).collect();
    let here = holders(&[1; 4]);
    let next_epoch = Holders::new(GENESIS, EPOCH + 1, &members).expect("four");
    let elsewhere = Holders::new(GenesisHash::from_bytes([1; 32]), EPOCH, &members).expect("four");
    let values = [
        value(&here, ["a", "b"]),
        value(&here, ["a", "c"]),
        value(&here, ["c", "b"]),
        value(&next_epoch, ["a", "b"]),
        value(&elsewhere, ["a", "b"]),
    ];
    assert_eq!(BTreeSet::from(values).len(), values.len());
    assert_eq!(value(&here, ["a", "b"]), values[0], "and the same again is the same");
}

#[test]
fn a_forged_dealing_is_refused_and_shows_who_made_it() {
    let holders = holders(&[1; 4]);
    let good = deal(&holders, &key(0), 1, &seed("a")).expect("a member deals");
    let other = deal(&holders, &key(0), 1, &seed("b")).expect("a member deals");
    assert!(check_dealing(&holders, &good).is_ok());
    let evidence = |what: &str, dealing: Dealing, dealer: usize| {
        let refused = check_dealing(&holders, &signed(dealing, dealer)).expect_err(what);
        assert!(
            matches!(refused, Refusal::BadDealing { .. }) && refused.is_evidence(),
            "{what}: {refused:?}"
        );
    };
    let swap = |place: usize| {
        let mut shares = good.shares.as_slice().to_vec();
        shares[place] = other.shares.as_slice()[place];
        Elements::new(shares).expect("few")
    };
    let turned_round = Elements::new(good.shares.as_slice().iter().rev().copied().collect()).expect("few");
    let bent = Elements::new([good.responses.as_slice(), &[[1; 32]]].concat()).expect("few");
    (0..4).for_each(|place| evidence("another share", Dealing { shares: swap(place), ..good.clone() }, 0));
    evidence("shares turned round", Dealing { shares: turned_round, ..good.clone() }, 0);
    evidence("no shares", Dealing { shares: Elements::default(), ..good.clone() }, 0);
    evidence("a polynomial of a higher degree", Dealing { responses: bent, ..good.clone() }, 0);
    evidence("another challenge", Dealing { challenge: other.challenge, ..good.clone() }, 0);
    evidence("numbers that are too large", Dealing { challenge: [0xff; 32], ..good.clone() }, 0);
    evidence("another draw", Dealing { draw: 2, ..good.clone() }, 0);
    evidence("somebody else's", good.clone(), 1);
    // What nobody has signed is no evidence.
    let unsigned = Dealing { draw: 2, ..good.clone() };
    assert_eq!(check_dealing(&holders, &unsigned).expect_err("not signed"), Refusal::NotSigned);
    let stranger = signed(good.clone(), 9);
    assert_eq!(check_dealing(&holders, &stranger).expect_err("a stranger"), Refusal::UnknownMember);
    let next = Dealing { epoch: EPOCH + 1, ..good };
    assert_eq!(
        check_dealing(&holders, &next).expect_err("the next one"),
        Refusal::OtherEpoch { epoch: EPOCH + 1 }
    );
}

#[test]
fn a_forged_opening_is_refused_and_shows_who_made_it() {
    let holders = holders(&[2, 2, 1]);
    let sealed = sealed(&holders, "a");
    let other = Sealed::new(&holders, 1, &[dealt(&holders, 2, "b")]);
    let good = open(&holders, &key(0), &sealed).expect("it holds shares");
    let elsewhere = open(&holders, &key(0), &other).expect("it holds shares");
    let of_another = open(&holders, &key(1), &sealed).expect("it holds shares");
    assert!(check_opening(&holders, &sealed, &good).is_ok());
    let evidence = |what: &str, opening: Opening| {
        let signed = opening.sign(&key(0), &GENESIS);
        let refused = check_opening(&holders, &sealed, &signed).expect_err(what);
        assert!(
            matches!(refused, Refusal::BadOpening { .. }) && refused.is_evidence(),
            "{what}: {refused:?}"
        );
    };
    let turned_round = Elements::new(good.shares.as_slice().iter().rev().copied().collect()).expect("few");
    evidence("shares turned round", Opening { shares: turned_round, ..good.clone() });
    evidence("no shares", Opening { shares: Elements::default(), ..good.clone() });
    evidence("shares of other dealings", Opening { shares: elsewhere.shares.clone(), ..good.clone() });
    evidence("shares of another member", Opening { shares: of_another.shares.clone(), ..good.clone() });
    evidence("a proof of another member", Opening { member: cell(0), ..of_another.clone() });
    evidence("another challenge", Opening { challenge: elsewhere.challenge, ..good.clone() });
    evidence("another response", Opening { response: elsewhere.response, ..good.clone() });
    evidence("numbers that are too large", Opening { response: [0xff; 32], ..good.clone() });
    let refused = |opening: &Opening| check_opening(&holders, &sealed, opening).expect_err("refused");
    assert_eq!(refused(&elsewhere), Refusal::OtherDealings);
    assert_eq!(refused(&Opening { draw: 2, ..good.clone() }.sign(&key(0), &GENESIS)), Refusal::OtherDealings);
    assert_eq!(refused(&Opening { signature: Signature::from_bytes([1; 64]), ..good }), Refusal::NotSigned);
}

/// What is opened for one set of dealings gives nothing for another.
#[test]
fn openings_of_other_dealings_do_not_mix() {
    let holders = holders(&[1; 4]);
    let (one, other) = (sealed(&holders, "a"), sealed(&holders, "b"));
    let mixed = [opened(&holders, &one, 0), opened(&holders, &other, 1)];
    assert_eq!(combine(&holders, &one, &mixed), None);
}

#[test]
fn members_are_named_once_and_not_too_many() {
    let new = |members: &[(CellId, u64)]| {
        Holders::new(GENESIS, EPOCH, &members.iter().copied().collect()).map(|holders| holders.shares())
    };
    assert_eq!(new(&[]), Err(Refusal::NoMembers));
    assert_eq!(new(&[(cell(0), 0)]), Err(Refusal::NoMembers));
    assert_eq!(new(&[(cell(0), 1), (cell(0), 1)]), Err(Refusal::NoMembers));
    let many = |count: u16| {
        let id = |number: u16| {
            let seed = *Hash::of(&number.to_le_bytes()).as_bytes();
            (signing::cell_id(&SigningKey::from_bytes(&seed)), 1)
        };
        new(&(0..count).map(id).collect::<Vec<_>>())
    };
    assert_eq!(many(256), Ok(256));
    assert_eq!(many(257), Err(Refusal::TooManyShares { shares: 257 }));
}

/// Who has rotated deals and opens by its new key, and by no other; the others' part is as ever.
#[test]
fn a_member_deals_and_opens_by_the_key_that_it_has_rotated_to() {
    let new = key(9);
    let named = MemberKey::from_bytes(new.verifying_key().to_bytes());
    let first = Member { key: Some(named), ..Member::new(cell(0), 1) };
    let others = (1..4).map(|member| Member::new(cell(member), 1));
    let set = MemberSet::new([first].into_iter().chain(others).collect());
    let holders = Holders::new(GENESIS, EPOCH, &set).expect("four");
    assert_eq!(deal(&holders, &key(0), 1, &seed("one")), Err(Refusal::UnknownMember));
    let dealing = deal(&holders, &new, 1, &seed("one")).expect("a member deals");
    assert_eq!(dealing.dealer, cell(0));
    assert!(check_dealing(&holders, &signed(dealing.clone(), 0)).is_err_and(|why| why == Refusal::NotSigned));
    let dealt_by_it = check_dealing(&holders, &dealing).expect("it holds");
    let sealed = Sealed::new(&holders, 1, &[dealt_by_it, dealt(&holders, 1, "two")]);
    assert_eq!(open(&holders, &key(0), &sealed), Err(Refusal::UnknownMember));
    let opening = open(&holders, &new, &sealed).expect("it holds shares");
    assert_eq!(opening.member, cell(0));
    let by_the_old = opening.clone().sign(&key(0), &GENESIS);
    assert!(check_opening(&holders, &sealed, &by_the_old).is_err_and(|why| why == Refusal::NotSigned));
    let own = check_opening(&holders, &sealed, &opening).expect("it holds");
    let value = combine(&holders, &sealed, &[own, opened(&holders, &sealed, 1)]).expect("enough");
    let theirs = [opened(&holders, &sealed, 2), opened(&holders, &sealed, 3)];
    assert_eq!(combine(&holders, &sealed, &theirs), Some(value));
}

/// A key that is no point, or one of small order, holds nothing, and the others go on without it.
#[test]
fn a_key_that_is_none_holds_no_share() {
    let weak = [CellId::from_bytes([0; 32]), CellId::from_bytes([2; 32])];
    for weak in weak {
        let members = [(cell(0), 1), (weak, 1), (cell(1), 1), (cell(2), 1)].into_iter().collect();
        let holders = Holders::new(GENESIS, EPOCH, &members).expect("four");
        if holders.shares() == 4 {
            // It happens to be a point.
            continue;
        }
        assert_eq!((holders.shares(), holders.threshold()), (3, 2), "{weak:?}");
        let sealed = sealed(&holders, "a");
        assert!(
            combine(&holders, &sealed, &[opened(&holders, &sealed, 1), opened(&holders, &sealed, 2)])
                .is_some()
        );
    }
    let members = [(CellId::from_bytes([0; 32]), 1), (cell(0), 3)].into_iter().collect();
    let holders = Holders::new(GENESIS, EPOCH, &members).expect("two");
    assert_eq!(holders.shares(), 3);
}

/// Members with their beacons, and one order for all.
struct Network {
    beacons: Vec<Beacon>,
    round: u64,
}

impl Network {
    fn new(members: usize, every_rounds: u64) -> Self {
        let beacons = (0..members).map(|_| Beacon::new(holders(&vec![1; members]), every_rounds)).collect();
        Self { beacons, round: 0 }
    }

    /// The next round, which all order; they say the same.
    fn order(&mut self, words: &[Word<'_>]) -> Vec<News> {
        self.round += 1;
        let said: Vec<_> = self
            .beacons
            .iter_mut()
            .map(|beacon| beacon.order(Round(self.round), words.iter().copied()))
            .collect();
        assert!(said.windows(2).all(|two| two[0] == two[1]), "{said:?}");
        said.into_iter().next().expect("a member").expect("the next round")
    }

    fn deal(&self, member: usize, draw: u64) -> Dealing {
        let text = format!("{member} {draw}");
        self.beacons[member].deal(&key(member), draw, &seed(&text)).expect("a member deals")
    }

    fn open(&self, member: usize, draw: u64) -> Opening {
        self.beacons[member].open(&key(member), draw).expect("it is fixed")
    }

    /// Dealings of some for a draw, in one round.
    fn deal_all(&mut self, members: &[usize], draw: u64) -> Vec<News> {
        let dealings: Vec<Dealing> = members.iter().map(|member| self.deal(*member, draw)).collect();
        self.order(&dealings.iter().map(Word::Dealing).collect::<Vec<_>>())
    }

    /// Openings of some, in one round.
    fn open_all(&mut self, members: &[usize], draw: u64) -> Vec<News> {
        let openings: Vec<Opening> = members.iter().map(|member| self.open(*member, draw)).collect();
        self.order(&openings.iter().map(Word::Opening).collect::<Vec<_>>())
    }
}

#[test]
fn a_draw_is_dealt_fixed_and_opened() {
    let mut network = Network::new(4, 1);
    assert_eq!(network.beacons[0].to_deal(&cell(0)), [1, 2, 3, 4]);
    assert_eq!(network.deal_all(&[3], 1), []);
    assert_eq!(network.beacons[0].to_deal(&cell(3)), [2, 3, 4]);
    assert!(network.beacons[0].open(&key(0), 1).is_err(), "nobody opens before it is fixed");
    assert_eq!(network.deal_all(&[1], 1), [News::Fixed { draw: 1 }]);
    assert_eq!(network.beacons[0].to_open(&cell(2)), [1]);
    assert_eq!(network.open_all(&[2], 1), []);
    assert_eq!(network.beacons[0].to_open(&cell(2)), [0u64; 0]);
    assert_eq!(network.beacons[0].value(1), None, "one share of four is too few");
    let news = network.open_all(&[0], 1);
    let value = network.beacons[0].value(1).expect("two are enough");
    assert_eq!(news, [News::Opened { draw: 1, value, fixed: Round(2) }]);
    assert_eq!(network.beacons[0].value_after(Round(1)), Some((1, value)), "it was fixed by round 2");
    assert_eq!(network.beacons[0].value_after(Round(2)), None);
    assert_eq!(network.beacons[0].to_deal(&cell(0)), [2, 3, 4, 5]);
    assert_eq!(network.order(&[]), []);
}

/// The value does not depend on who opens, when, in which order, or on who is silent.
#[test]
fn a_minority_that_withholds_changes_nothing() {
    let value = |dealers: &[usize], openers: &[usize], heard_first: bool| {
        let mut network = Network::new(7, 1);
        network.deal_all(dealers, 1);
        if heard_first {
            for member in openers {
                let opening = network.open(*member, 1);
                network.beacons[0].hear(&opening).expect("it holds");
            }
            assert!(network.beacons[0].value(1).is_some(), "known before it is ordered");
        }
        network.open_all(openers, 1);
        network.beacons[0].value(1)
    };
    let expected = value(&[2, 3, 4, 5, 6], &[2, 3, 4, 5, 6], false);
    assert!(expected.is_some());
    // Members 0 and 1 open or not, and deal after the order has fixed the draw, to no effect.
    for openers in [&[2, 3, 4][..], &[6, 5, 4], &[0, 1, 2], &[0, 1, 2, 3, 4, 5, 6]] {
        assert_eq!(value(&[2, 3, 4, 0, 1], openers, false), expected, "{openers:?}");
        assert_eq!(value(&[2, 3, 4], openers, true), expected, "{openers:?}");
    }
    assert_eq!(value(&[2, 3, 4], &[0, 1], false), None, "less than a third finds nothing");
    let mut network = Network::new(7, 1);
    assert_eq!(network.deal_all(&[0, 1], 1), [], "and what less than a third has dealt is not fixed");
    let mut network = Network::new(3, 1);
    assert_eq!(network.deal_all(&[0], 1), [], "nor what a third has dealt");
    assert_eq!(network.deal_all(&[1], 1), [News::Fixed { draw: 1 }]);
}

#[test]
fn whoever_lies_is_named_and_left_out() {
    let mut network = Network::new(4, 1);
    let (good, late) = (network.deal(1, 1), network.deal(0, 1));
    let bad = signed(Dealing { shares: Elements::default(), ..network.deal(0, 1) }, 0);
    let unsigned = Dealing { dealer: cell(2), ..bad.clone() };
    let words = [&bad, &unsigned, &late, &good, &good].map(Word::Dealing);
    let news = network.order(&words);
    assert!(matches!(news[..], [News::Bad { place: 0, why: Refusal::BadDealing { .. } }]), "{news:?}");
    assert_eq!(network.beacons[0].to_deal(&cell(0)), [2, 3, 4], "a second one does not count");
    assert_eq!(network.deal_all(&[0, 2], 1), [News::Fixed { draw: 1 }]);
    let bad = Opening { shares: Elements::default(), ..network.open(0, 1) }.sign(&key(0), &GENESIS);
    let good: Vec<Opening> = (1..3).map(|member| network.open(member, 1)).collect();
    assert!(network.beacons[0].hear(&bad).expect_err("refused").is_evidence());
    let again = network.open(0, 1);
    assert_eq!(network.beacons[0].hear(&again), Ok(None), "no more of this member's before they are ordered");
    let words = [&bad, &again, &good[0], &good[1]].map(Word::Opening);
    let news = network.order(&words);
    assert!(
        matches!(
            news[..],
            [News::Bad { place: 0, why: Refusal::BadOpening { .. } }, News::Opened { draw: 1, .. }]
        ),
        "{news:?}"
    );
}

/// One that hears openings before it has fixed the draw keeps them; one that hears none has the same news of the order.
#[test]
fn what_is_heard_early_counts_when_the_draw_is_fixed() {
    let mut network = Network::new(4, 1);
    let dealings = [network.deal(0, 1), network.deal(1, 1)];
    let words = dealings.each_ref().map(Word::Dealing);
    let mut slow = Beacon::new(holders(&[1; 4]), 1);
    network.order(&words);
    let openings = [network.open(2, 1), network.open(3, 1)];
    for opening in &openings {
        assert_eq!(slow.hear(opening), Ok(None));
    }
    let spoilt = Opening { member: cell(0), ..openings[0].clone() };
    assert_eq!(slow.hear(&spoilt), Err(Refusal::NotSigned));
    let far = Opening { draw: AHEAD_MAX + 1, ..openings[0].clone() };
    assert_eq!(slow.hear(&far), Err(Refusal::NotFixed { draw: AHEAD_MAX + 1 }));
    assert_eq!(slow.hear(&Opening { draw: 0, ..far }), Err(Refusal::NotFixed { draw: 0 }));
    assert_eq!(slow.order(Round(1), words), Ok(vec![News::Fixed { draw: 1 }]));
    let value = slow.value(1).expect("both openings were kept");
    let news = network.order(&openings.each_ref().map(Word::Opening));
    assert_eq!(news, [News::Opened { draw: 1, value, fixed: Round(1) }]);
    assert_eq!(slow.order(Round(2), openings.each_ref().map(Word::Opening)), Ok(news));
}

/// Draws keep their distance, wait for those before, and no more are open than so many.
#[test]
fn draws_come_in_turn() {
    let mut network = Network::new(4, 3);
    assert_eq!(network.deal_all(&[0, 1], 2), [], "the first comes first");
    assert_eq!(network.deal_all(&[0, 1], 1), [News::Fixed { draw: 1 }]);
    assert_eq!(network.order(&[]), []);
    assert_eq!(network.order(&[]), []);
    assert_eq!(network.order(&[]), [News::Fixed { draw: 2 }], "three rounds later");
    let mut network = Network::new(4, 1);
    for draw in 1..=OPEN_MAX as u64 {
        assert_eq!(network.deal_all(&[0, 1], draw), [News::Fixed { draw }]);
    }
    let next = OPEN_MAX as u64 + 1;
    assert_eq!(network.deal_all(&[0, 1], next), [], "too many are open");
    let news = network.open_all(&[2, 3], 5);
    assert!(
        matches!(news[..], [News::Opened { draw: 5, .. }, News::Fixed { draw }] if draw == next),
        "{news:?}"
    );
    let beyond = network.deal(0, next + AHEAD_MAX + 1);
    assert_eq!(network.order(&[Word::Dealing(&beyond)]), [], "too far ahead");
    let refused = network.beacons[0].order(Round(1), []).expect_err("a round again");
    assert_eq!(refused, Refusal::NotNextRound { round: 1, next: network.round + 1 });
}
