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
    let dealer = signing::cell_id(key);
    holders.of(&dealer).ok_or(Refusal::UnknownMember)?;
    let threshold = holders.threshold();
    let text = Text::new("celluler 2026-11 beacon secret").bytes32(seed).bytes32(holders.hash.as_bytes());
    let text = text.context(&holders.genesis, holders.epoch, draw, &dealer);
    let secrets = Zeroizing::new(text.scalars(2 * threshold));
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
    holders.of(&dealer).ok_or(Refusal::UnknownMember)?;
    if !dealing.signature_holds(&holders.genesis) {
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
