//! Who holds how many shares.
//!
//! Shares go by weight, in whole numbers. Let *n* be the number of members, and *W* their weight once common divisors are out:
//!
//! - *W* ≤ 3 *n*: a share for each unit of weight, and a third of all shares, rounded up, is the threshold. Who weighs less than a third holds
//!   fewer than that; who weighs a third or more can open.
//! - Else 3 *n* shares are given out by weight, each member's part rounded down, and *n* is the threshold. Who weighs less than a third has a
//!   part of less than *n*, and no more for being rounded down. Who weighs two thirds or more has a part of 2 *n* or more, of
//!   which rounding takes less than one from each of *n* members: more than *n* are left. In between it may go either way, and no
//!   promise needs it.
//!
//! A share is encrypted to the key that its holder signs with in the epoch ([`Member::signer`](protocol::genesis::Member::signer)).
//!
//! So a light member may hold no share: it deals and is counted as a dealer, but opens nothing. A member whose key is no key holds none
//! either; it counts as faulty.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::traits::IsIdentity;
use protocol::beacon::SHARES_MAX;
use protocol::members::MemberSet;
use protocol::{CellId, GenesisHash, Hash};

use super::Refusal;
use super::group::{self, Text};

/// A member, with what it holds.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Who.
    pub cell: CellId,
    /// Its weight.
    pub weight: u64,
    /// The public key that it signs with.
    pub signer: CellId,
    /// That key in the group.
    pub(super) key: EdwardsPoint,
    /// The number of its first share.
    pub(super) first: usize,
    /// How many it holds.
    pub shares: usize,
}

/// The members of an epoch, who deal to each other.
#[derive(Clone, Debug)]
pub struct Holders {
    pub(super) genesis: GenesisHash,
    pub(super) epoch: u64,
    members: Vec<Holder>,
    threshold: usize,
    shares: usize,
    weight_total: u128,
    /// Stands for members, keys and shares in what is proven.
    pub(super) hash: Hash,
}

impl Holders {
    /// Gives shares to the members of an epoch.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMembers`], [`Refusal::TooManyShares`].
    pub fn new(genesis: GenesisHash, epoch: u64, members: &MemberSet) -> Result<Self, Refusal> {
        let members = members.all();
        let mut cells: Vec<CellId> = members.iter().map(|member| member.cell).collect();
        cells.sort_unstable();
        cells.dedup();
        if members.is_empty()
            || cells.len() < members.len()
            || members.iter().any(|member| member.weight == 0)
        {
            return Err(Refusal::NoMembers);
        }
        let weights: Vec<u64> = members.iter().map(|member| member.weight).collect();
        let (parts, threshold) = give_out(&weights);
        let mut holders = Vec::with_capacity(members.len());
        let have_keys = members.iter().any(|member| member.key.is_some());
        let tag = if have_keys {
            "celluler 2026-11 beacon holders with keys"
        } else {
            "celluler 2026-11 beacon holders"
        };
        let mut text = Text::new(tag).u64(threshold as u64);
        let mut given = 0;
        for (member, part) in members.iter().zip(parts) {
            let signer = member.signer();
            let key = group::read_point(signer.as_bytes()).filter(|key| !key.is_identity());
            let shares = if key.is_some() { part } else { 0 };
            text = text.bytes32(member.cell.as_bytes());
            if have_keys {
                text = text.bytes32(signer.as_bytes());
            }
            text = text.u64(shares as u64);
            holders.push(Holder {
                cell: member.cell,
                weight: member.weight,
                signer,
                key: key.unwrap_or_default(),
                first: given,
                shares,
            });
            given += shares;
        }
        if given > SHARES_MAX {
            return Err(Refusal::TooManyShares { shares: given });
        }
        Ok(Self {
            genesis,
            epoch,
            members: holders,
            threshold,
            shares: given,
            weight_total: weights.iter().map(|weight| u128::from(*weight)).sum(),
            hash: text.hash(),
        })
    }

    /// All members.
    pub fn members(&self) -> &[Holder] {
        &self.members
    }

    /// Shares that give a value.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Shares in all.
    pub fn shares(&self) -> usize {
        self.shares
    }

    /// Whether so much weight is more than a third of all.
    pub(super) fn is_more_than_a_third(&self, weight: u128) -> bool {
        3 * weight > self.weight_total
    }

    pub(super) fn of(&self, cell: &CellId) -> Option<&Holder> {
        self.members.iter().find(|holder| holder.cell == *cell)
    }

    /// The member that signs with a key.
    pub(super) fn signing(&self, signer: &CellId) -> Option<&Holder> {
        self.members.iter().find(|holder| holder.signer == *signer)
    }

    /// The keys of who holds each share.
    pub(super) fn keys(&self) -> impl Iterator<Item = &EdwardsPoint> {
        self.members.iter().flat_map(|holder| std::iter::repeat_n(&holder.key, holder.shares))
    }
}

/// Each member's shares, and the threshold.
fn give_out(weights: &[u64]) -> (Vec<usize>, usize) {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
    let weights: Vec<u128> = weights.iter().map(|weight| u128::from(weight / divisor)).collect();
    let total: u128 = weights.iter().sum();
    let most = 3 * weights.len() as u128;
    if total <= most {
        let parts = weights.iter().map(|weight| *weight as usize).collect();
        return (parts, total.div_ceil(3) as usize);
    }
    let parts = weights.iter().map(|weight| (weight * most / total) as usize).collect();
    (parts, weights.len())
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_go_by_weight() {
        for (weights, parts, threshold) in [
            (&[1][..], &[1][..], 1),
            (&[1; 4], &[1; 4], 2),
            (&[5; 4], &[1; 4], 2),
            (&[2, 2, 1], &[2, 2, 1], 2),
            (&[1; 7], &[1; 7], 3),
            (&[6, 3, 3], &[2, 1, 1], 2),
            (&[100, 99, 1], &[4, 4, 0], 3),
            (&[1_000_000, 1, 1, 1], &[11, 0, 0, 0], 4),
            (&[u64::MAX, u64::MAX - 1], &[3, 2], 2),
        ] {
            assert_eq!(give_out(weights), (parts.to_vec(), threshold), "{weights:?}");
        }
    }

    proptest! {
        /// Whoever weighs less than a third holds fewer shares than the threshold; whoever weighs two thirds or more, enough.
        #[test]
        fn a_third_holds_too_few_and_two_thirds_enough(
            weights in prop::collection::vec(prop_oneof![1u64..4, 1u64..50, 1u64..=1_000_000], 1..10),
        ) {
            let (parts, threshold) = give_out(&weights);
            let total: u64 = weights.iter().sum();
            prop_assert!(parts.iter().sum::<usize>() <= 3 * weights.len());
            for set in 0u32..1 << weights.len() {
                let is_in = |at: &usize| set >> at & 1 == 1;
                let weight: u64 = (0..weights.len()).filter(is_in).map(|at| weights[at]).sum();
                let shares: usize = (0..weights.len()).filter(is_in).map(|at| parts[at]).sum();
                prop_assert!(3 * weight >= total || shares < threshold, "{weights:?} {set:b}");
                prop_assert!(3 * weight < 2 * total || shares >= threshold, "{weights:?} {set:b}");
            }
        }
    }
}
