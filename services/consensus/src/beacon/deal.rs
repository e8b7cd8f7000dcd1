//! Dealing a secret, and what the order fixes out of dealings (rules 1 and 2).
//!
//! The proof (ALBATROSS, *low degree exponent interpolation*): out of a random polynomial *r* come points *a(j)* = *r(j)* key(*j*), the
//! challenge *c* is a hash of everything, and the response is *z* = *r* + *c p*, in coefficients. It holds if *c* is the hash with *z(j)*
//! key(*j*) − *c* share(*j*) in the place of *a(j)*. Who can answer two challenges knows *p*.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use ed25519_dalek::SigningKey;
use protocol::beacon::{Dealing, Elements};
use protocol::signing::{self, Signature};
use protocol::{CellId, Hash};
use zeroize::Zeroizing;

use super::group::{self, Text};
use super::{Holders, Refusal};

/// A dealing that holds.
#[derive(Clone, Debug)]
pub struct Dealt {
    dealer: CellId,
    draw: u64,
    id: Hash,
    shares: Vec<EdwardsPoint>,
}

impl Dealt {
    /// Who dealt it.
    pub fn dealer(&self) -> &CellId {
        &self.dealer
    }
}

/// The dealings of a draw, added up.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub(super) draw: u64,
    pub(super) dealings: Hash,
    pub(super) shares: Vec<EdwardsPoint>,
}

impl Sealed {
    /// Adds up dealings of one draw.
    pub fn new(holders: &Holders, draw: u64, dealings: &[Dealt]) -> Self {
        let mut shares = vec![EdwardsPoint::identity(); holders.shares()];
        let mut ids = Vec::with_capacity(dealings.len());
        for dealt in dealings.iter().filter(|dealt| dealt.draw == draw) {
            shares.iter_mut().zip(&dealt.shares).for_each(|(sum, share)| *sum += share);
            ids.push(*dealt.id.as_bytes());
        }
        let dealings = Text::new("celluler 2026-11 beacon dealings").list(&ids).hash();
        Self { draw, dealings, shares }
    }

    /// Stands for the dealings.
    pub fn dealings(&self) -> Hash {
        self.dealings
    }
}

/// Deals a secret that follows from the seed, which nobody else may ever know. The same seed gives the same secret for the
/// same draw, and unrelated ones for others.
///
/// # Errors
///
/// [`Refusal::UnknownMember`].
pub fn deal(holders: &Holders, key: &SigningKey, draw: u64, seed: &[u8; 32]) -> Result<Dealing, Refusal> {
    let dealer = holders.signing(&signing::cell_id(key)).ok_or(Refusal::UnknownMember)?.cell;
    let threshold = holders.threshold();
    let secrets = secrets(holders, &dealer, draw, seed);
    let (polynomial, mask) = secrets.split_at(threshold);
    let eighth = group::eighth();
    let places = (0..holders.shares()).map(group::place).zip(holders.keys());
    let (mut shares, mut masked) = (Vec::new(), Vec::new());
    for (at, key) in places {
        let secret = Zeroizing::new(group::evaluate(polynomial, &at) * eighth);
        let mask = Zeroizing::new(group::evaluate(mask, &at));
        shares.push(key * *secret);
        masked.push(key * *mask);
    }
    let shares = group::compress(&shares);
    let challenge = challenge(holders, draw, &dealer, &shares, &masked);
    let response = mask.iter().zip(polynomial).map(|(mask, secret)| (mask + challenge * secret).to_bytes());
    let dealing = Dealing {
        epoch: holders.epoch,
        draw,
        dealer,
        // `Holders` have no more than fit.
        shares: Elements::new(shares).unwrap_or_default(),
        challenge: challenge.to_bytes(),
        responses: Elements::new(response.collect()).unwrap_or_default(),
        signature: Signature::from_bytes([0; 64]),
    };
    Ok(dealing.sign(key, &holders.genesis))
}

/// The coefficients of the polynomial, and those of what hides it in the proof.
fn secrets(holders: &Holders, dealer: &CellId, draw: u64, seed: &[u8; 32]) -> Zeroizing<Vec<Scalar>> {
    let text = Text::new("celluler 2026-11 beacon secret").bytes32(seed).bytes32(holders.hash.as_bytes());
    let text = text.context(&holders.genesis, holders.epoch, draw, dealer);
    Zeroizing::new(text.scalars(2 * holders.threshold()))
}

/// Checks a dealing. A function of its bytes and of the members, the same everywhere.
///
/// # Errors
///
/// [`Refusal::OtherEpoch`], [`Refusal::UnknownMember`], [`Refusal::NotSigned`]; and [`Refusal::BadDealing`], which is evidence.
pub fn check_dealing(holders: &Holders, dealing: &Dealing) -> Result<Dealt, Refusal> {
    let Dealing { epoch, draw, dealer, .. } = *dealing;
    if epoch != holders.epoch {
        return Err(Refusal::OtherEpoch { epoch });
    }
    let holder = holders.of(&dealer).ok_or(Refusal::UnknownMember)?;
    if !dealing.signature_holds(&holders.genesis, &holder.signer) {
        return Err(Refusal::NotSigned);
    }
    let bad = |why| Refusal::BadDealing { why };
    let written = dealing.shares.as_slice();
    if written.len() != holders.shares() {
        return Err(bad("there are not as many shares as the members hold"));
    }
    if dealing.responses.as_slice().len() != holders.threshold() {
        return Err(bad("the polynomial has not the degree it should have"));
    }
    let shares = group::read_points(written).ok_or_else(|| bad("a share is no point"))?;
    let responses: Option<Vec<Scalar>> =
        dealing.responses.as_slice().iter().map(group::read_scalar).collect();
    let responses = responses.ok_or_else(|| bad("a response is no number"))?;
    let claimed = group::read_scalar(&dealing.challenge).ok_or_else(|| bad("the challenge is no number"))?;
    let masked: Vec<EdwardsPoint> = (0..)
        .zip(holders.keys().zip(&shares))
        .map(|(share, (key, point))| {
            group::minus(&group::evaluate(&responses, &group::place(share)), key, &claimed, point)
        })
        .collect();
    if challenge(holders, draw, &dealer, written, &masked) != claimed {
        return Err(bad("the proof does not hold"));
    }
    Ok(Dealt { dealer, draw, id: dealing.id(&holders.genesis), shares })
}

fn challenge(
    holders: &Holders,
    draw: u64,
    dealer: &CellId,
    shares: &[[u8; 32]],
    masked: &[EdwardsPoint],
) -> Scalar {
    Text::new("celluler 2026-11 beacon dealing")
        .context(&holders.genesis, holders.epoch, draw, dealer)
        .bytes32(holders.hash.as_bytes())
        .list(shares)
        .list(&group::compress(masked))
        .scalar()
}

#[cfg(test)]
mod tests {
    use protocol::GenesisHash;

    use super::super::open::{base, check_opening, open};
    use super::*;

    fn key(member: u8) -> SigningKey {
        SigningKey::from_bytes(&[member; 32])
    }

    /// An opened share is what the dealers could say of it together, without its holder's key: that key is not in it (ADR 0020).
    #[test]
    fn an_opening_is_made_of_what_the_dealers_know() {
        let members = (1..=3).map(|member| (signing::cell_id(&key(member)), u64::from(member))).collect();
        let holders = Holders::new(GenesisHash::ZERO, 1, &members).expect("three");
        let dealers = [(1, [7; 32]), (3, [8; 32])];
        let dealt = dealers.map(|(dealer, seed)| {
            let dealing = deal(&holders, &key(dealer), 5, &seed).expect("a member deals");
            check_dealing(&holders, &dealing).expect("it holds")
        });
        let sealed = Sealed::new(&holders, 5, &dealt);
        let known_at = |share: usize| -> Scalar {
            let at = group::place(share);
            let of_dealer = |(dealer, seed): &(u8, [u8; 32])| {
                let secrets = secrets(&holders, &signing::cell_id(&key(*dealer)), 5, seed);
                group::evaluate(&secrets[..holders.threshold()], &at)
            };
            dealers.iter().map(of_dealer).sum()
        };
        let mut share = 0;
        for member in 1..=3 {
            let opening = open(&holders, &key(member), &sealed).expect("it holds shares");
            check_opening(&holders, &sealed, &opening).expect("it holds");
            for point in group::read_points(opening.shares.as_slice()).expect("points") {
                assert_eq!(point, base() * known_at(share), "share {share}");
                share += 1;
            }
        }
        assert_eq!(share, holders.shares());
    }

    /// A dealer that knows every exponent, but of points on no polynomial of the degree, finds no proof by going the honest way.
    #[test]
    fn shares_of_too_high_a_degree_are_refused() {
        let members = (1..=4).map(|member| (signing::cell_id(&key(member)), 1)).collect();
        let holders = Holders::new(GenesisHash::ZERO, 1, &members).expect("four");
        let dealer = signing::cell_id(&key(1));
        let polynomial: Vec<Scalar> = (1u64..=3).map(Scalar::from).collect();
        let mask = [Scalar::from(9u8), Scalar::from(10u8)];
        let places = || (0..4).map(group::place).zip(holders.keys());
        let shares: Vec<EdwardsPoint> =
            places().map(|(at, key)| key * (group::evaluate(&polynomial, &at) * group::eighth())).collect();
        let shares = group::compress(&shares);
        let masked: Vec<EdwardsPoint> = places().map(|(at, key)| key * group::evaluate(&mask, &at)).collect();
        let challenge = challenge(&holders, 1, &dealer, &shares, &masked);
        let responses =
            mask.iter().zip(&polynomial).map(|(mask, secret)| (mask + challenge * secret).to_bytes());
        let dealing = Dealing {
            epoch: 1,
            draw: 1,
            dealer,
            shares: Elements::new(shares).expect("few"),
            challenge: challenge.to_bytes(),
            responses: Elements::new(responses.collect()).expect("few"),
            signature: Signature::from_bytes([0; 64]),
        };
        let signed = dealing.sign(&key(1), &GenesisHash::ZERO);
        let refused = check_dealing(&holders, &signed).expect_err("refused");
        assert_eq!(refused, Refusal::BadDealing { why: "the proof does not hold" });
    }
}
