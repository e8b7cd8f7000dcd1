//! Opening shares, and the value (rules 3 and 4).
//!
//! The proof is Chaum and Pedersen's (Crypto 1992) over all of a member's shares at once: one number, the member's secret, takes the base to
//! its key and each opened share to the sum that was dealt.

use std::collections::BTreeMap;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::VartimeMultiscalarMul;
use ed25519_dalek::SigningKey;
use protocol::beacon::{Elements, Opening};
use protocol::signing::{self, Signature};
use protocol::{CellId, Hash};
use zeroize::Zeroizing;

use super::group::{self, Text};
use super::holders::Holder;
use super::{Holders, Refusal, Sealed};

/// An opening that holds.
#[derive(Clone, Debug)]
pub struct Opened {
    member: CellId,
    /// Of which dealings.
    dealings: Hash,
    /// The number of the first share.
    first: usize,
    shares: Vec<EdwardsPoint>,
}

impl Opened {
    /// Whose it is.
    pub fn member(&self) -> &CellId {
        &self.member
    }

    /// How many shares.
    pub fn shares(&self) -> usize {
        self.shares.len()
    }
}

/// Opens a member's shares. Only for a draw that the order has fixed: what is opened before can still be answered to.
///
/// # Errors
///
/// [`Refusal::UnknownMember`], of a member without shares as well.
pub fn open(holders: &Holders, key: &SigningKey, sealed: &Sealed) -> Result<Opening, Refusal> {
    let member = holders.signing(&signing::cell_id(key)).ok_or(Refusal::UnknownMember)?.cell;
    let holder = holder(holders, &member)?;
    let secret = Zeroizing::new(key.to_scalar());
    let inverse = Zeroizing::new(secret.invert());
    let written = Zeroizing::new(*inverse * group::eighth());
    let sums = sums(holder, sealed);
    let points: Vec<EdwardsPoint> = sums.iter().map(|sum| sum * *written).collect();
    let points = group::compress(&points);
    let nonce = Text::new("celluler 2026-11 beacon nonce").bytes32(&Zeroizing::new(secret.to_bytes()));
    let nonce = nonce.context(&holders.genesis, holders.epoch, sealed.draw, &member);
    let nonce = nonce.bytes32(sealed.dealings.as_bytes()).list(&group::compress(sums)).scalar();
    let nonce = Zeroizing::new(nonce);
    let mut masked = vec![base() * *nonce];
    let of_share = Zeroizing::new(*inverse * *nonce);
    masked.extend(sums.iter().map(|sum| sum * *of_share));
    let challenge = challenge(holders, &member, sealed, &points, sums, &masked);
    let opening = Opening {
        epoch: holders.epoch,
        draw: sealed.draw,
        member,
        dealings: sealed.dealings,
        // `Holders` have no more than fit.
        shares: Elements::new(points).unwrap_or_default(),
        challenge: challenge.to_bytes(),
        response: (*nonce + challenge * *secret).to_bytes(),
        signature: Signature::from_bytes([0; 64]),
    };
    Ok(opening.sign(key, &holders.genesis))
}

/// Checks an opening. A function of its bytes, of the members and of the dealings, the same everywhere.
///
/// # Errors
///
/// [`Refusal::OtherEpoch`], [`Refusal::UnknownMember`], [`Refusal::NotSigned`], [`Refusal::OtherDealings`]; and
/// [`Refusal::BadOpening`], which is evidence.
pub fn check_opening(holders: &Holders, sealed: &Sealed, opening: &Opening) -> Result<Opened, Refusal> {
    let holder = check_signed(holders, opening)?;
    if opening.draw != sealed.draw || opening.dealings != sealed.dealings {
        return Err(Refusal::OtherDealings);
    }
    let bad = |why| Refusal::BadOpening { why };
    let written = opening.shares.as_slice();
    if written.len() != holder.shares {
        return Err(bad("there are not as many shares as the member holds"));
    }
    let shares = group::read_points(written).ok_or_else(|| bad("a share is no point"))?;
    let claimed = group::read_scalar(&opening.challenge).ok_or_else(|| bad("the challenge is no number"))?;
    let response = group::read_scalar(&opening.response).ok_or_else(|| bad("the response is no number"))?;
    let sums = sums(holder, sealed);
    let mut masked = vec![group::minus(&response, &base(), &claimed, &holder.key)];
    let of_shares = shares.iter().zip(sums);
    masked.extend(of_shares.map(|(share, sum)| group::minus(&response, share, &claimed, sum)));
    if challenge(holders, &opening.member, sealed, written, sums, &masked) != claimed {
        return Err(bad("the proof does not hold"));
    }
    Ok(Opened { member: opening.member, dealings: sealed.dealings, first: holder.first, shares })
}

/// Checks what can be checked of an opening before its draw is fixed: who it is from.
pub(super) fn check_signed<'a>(holders: &'a Holders, opening: &Opening) -> Result<&'a Holder, Refusal> {
    if opening.epoch != holders.epoch {
        return Err(Refusal::OtherEpoch { epoch: opening.epoch });
    }
    let holder = holder(holders, &opening.member)?;
    if !opening.signature_holds(&holders.genesis, &holder.signer) {
        return Err(Refusal::NotSigned);
    }
    Ok(holder)
}

/// The value of a draw, once there are enough shares; whichever they are.
pub fn combine<'a>(
    holders: &Holders,
    sealed: &Sealed,
    opened: impl IntoIterator<Item = &'a Opened>,
) -> Option<Hash> {
    let mut points: BTreeMap<usize, EdwardsPoint> = BTreeMap::new();
    for opened in opened.into_iter().filter(|opened| opened.dealings == sealed.dealings) {
        points.extend((opened.first..).zip(&opened.shares).map(|(share, point)| (share, *point)));
    }
    let (shares, points): (Vec<usize>, Vec<EdwardsPoint>) =
        points.into_iter().take(holders.threshold()).unzip();
    if shares.len() < holders.threshold() {
        return None;
    }
    let sum = EdwardsPoint::vartime_multiscalar_mul(group::interpolation(&shares), points);
    let value = Text::new("celluler 2026-11 beacon value")
        .bytes32(holders.genesis.as_bytes())
        .u64(holders.epoch)
        .u64(sealed.draw)
        .bytes32(sealed.dealings.as_bytes())
        .bytes32(&sum.compress().to_bytes())
        .hash();
    Some(value)
}

/// The base: of it, a member's key is as much as its ed25519 key is of theirs.
pub(super) fn base() -> EdwardsPoint {
    ED25519_BASEPOINT_POINT.mul_by_cofactor()
}

fn holder<'a>(holders: &'a Holders, member: &CellId) -> Result<&'a Holder, Refusal> {
    holders.of(member).filter(|holder| holder.shares > 0).ok_or(Refusal::UnknownMember)
}

/// The sums that were dealt to a member.
fn sums<'a>(holder: &Holder, sealed: &'a Sealed) -> &'a [EdwardsPoint] {
    sealed.shares.get(holder.first..holder.first + holder.shares).unwrap_or_default()
}

fn challenge(
    holders: &Holders,
    member: &CellId,
    sealed: &Sealed,
    shares: &[[u8; 32]],
    sums: &[EdwardsPoint],
    masked: &[EdwardsPoint],
) -> Scalar {
    Text::new("celluler 2026-11 beacon opening")
        .context(&holders.genesis, holders.epoch, sealed.draw, member)
        .bytes32(sealed.dealings.as_bytes())
        .list(shares)
        .list(&group::compress(sums))
        .list(&group::compress(masked))
        .scalar()
}
