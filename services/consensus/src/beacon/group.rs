//! The group, and hashes into it. See [`crate::beacon`].

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::VartimeMultiscalarMul;
use protocol::{CellId, GenesisHash, Hash};

/// Reads points of the subgroup. Those that differ by one of small order are one; of each there is one way to write it (RFC 8032,
/// without the leniency of many readers), so that nobody takes in what others refuse.
pub(super) fn read_points(written: &[[u8; 32]]) -> Option<Vec<EdwardsPoint>> {
    let points: Option<Vec<_>> =
        written.iter().map(|bytes| CompressedEdwardsY(*bytes).decompress()).collect();
    let points = points.filter(|points| compress(points) == written)?;
    Some(points.iter().map(EdwardsPoint::mul_by_cofactor).collect())
}

/// One such point.
pub(super) fn read_point(written: &[u8; 32]) -> Option<EdwardsPoint> {
    read_points(std::slice::from_ref(written))?.pop()
}

/// An eighth: what a point is multiplied by to be written.
pub(super) fn eighth() -> Scalar {
    Scalar::from(8u8).invert()
}

/// Reads a number; there is one way to write it.
pub(super) fn read_scalar(bytes: &[u8; 32]) -> Option<Scalar> {
    Scalar::from_canonical_bytes(*bytes).into_option()
}

/// Points in bytes, as hashed.
pub(super) fn compress(points: &[EdwardsPoint]) -> Vec<[u8; 32]> {
    EdwardsPoint::compress_batch_alloc(points).into_iter().map(|point| point.to_bytes()).collect()
}

/// `a` times one point less `b` times another, of numbers that everybody may know.
pub(super) fn minus(a: &Scalar, one: &EdwardsPoint, b: &Scalar, other: &EdwardsPoint) -> EdwardsPoint {
    EdwardsPoint::vartime_multiscalar_mul([*a, -b], [*one, *other])
}

/// Where the polynomials are taken for a share, by its number from 0.
pub(super) fn place(share: usize) -> Scalar {
    Scalar::from(share as u64 + 1)
}

/// A polynomial at a place; the constant coefficient comes first.
pub(super) fn evaluate(coefficients: &[Scalar], at: &Scalar) -> Scalar {
    coefficients.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * at + coefficient)
}

/// What shares are multiplied by so that they add up to the polynomial at 0.
pub(super) fn interpolation(shares: &[usize]) -> Vec<Scalar> {
    let places: Vec<Scalar> = shares.iter().map(|share| place(*share)).collect();
    let others = |at: usize| places.iter().enumerate().filter(move |(other, _)| *other != at);
    let product = |factors: &mut dyn Iterator<Item = Scalar>| factors.fold(Scalar::ONE, |a, b| a * b);
    let mut below: Vec<Scalar> = places
        .iter()
        .enumerate()
        .map(|(at, place)| product(&mut others(at).map(|(_, other)| other - place)))
        .collect();
    Scalar::invert_batch_alloc(&mut below);
    (0..).zip(below).map(|(at, below)| product(&mut others(at).map(|(_, other)| *other)) * below).collect()
}

/// What a hash is over. Each purpose has its own kind of hash; every field has a fixed length, or its count before it.
pub(super) struct Text(blake3::Hasher);

impl Text {
    /// Begins a text; the purpose is written out once, and never used for anything else.
    pub(super) fn new(purpose: &'static str) -> Self {
        Self(blake3::Hasher::new_derive_key(purpose))
    }

    /// Where it belongs: network, epoch, draw, and who says it.
    pub(super) fn context(self, genesis: &GenesisHash, epoch: u64, draw: u64, member: &CellId) -> Self {
        self.bytes32(genesis.as_bytes()).u64(epoch).u64(draw).bytes32(member.as_bytes())
    }

    pub(super) fn bytes32(mut self, bytes: &[u8; 32]) -> Self {
        self.0.update(bytes);
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn list(self, elements: &[[u8; 32]]) -> Self {
        let mut this = self.u64(elements.len() as u64);
        this.0.update(elements.as_flattened());
        this
    }

    /// Numbers that are uniform, as many as asked.
    pub(super) fn scalars(self, count: usize) -> Vec<Scalar> {
        let mut stream = self.0.finalize_xof();
        let mut next = || {
            let mut bytes = [0; 64];
            stream.fill(&mut bytes);
            Scalar::from_bytes_mod_order_wide(&bytes)
        };
        (0..count).map(|_| next()).collect()
    }

    /// One such number.
    pub(super) fn scalar(self) -> Scalar {
        let mut bytes = [0; 64];
        self.0.finalize_xof().fill(&mut bytes);
        Scalar::from_bytes_mod_order_wide(&bytes)
    }

    pub(super) fn hash(self) -> Hash {
        Hash::from_bytes(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};

    use super::*;

    #[test]
    fn what_is_written_as_an_eighth_is_read_whole_whatever_is_added_of_small_order() {
        let point = ED25519_BASEPOINT_POINT * Scalar::from(77u8);
        for small in EIGHT_TORSION {
            let written = (point * eighth() + small).compress().to_bytes();
            assert_eq!(read_point(&written), Some(point));
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_point() {
        let written = |low: u8, high: u8| {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            bytes
        };
        let mut one = [0; 32];
        one[0] = 1;
        assert!(read_point(&one).is_some());
        // The same with the sign of an x that is zero, and 1 as p + 1.
        one[31] = 0x80;
        for other in [one, written(0xee, 0x7f), written(0xee, 0xff)] {
            assert!(CompressedEdwardsY(other).decompress().is_some(), "others read it");
            assert_eq!(read_point(&other), None, "{other:02x?}");
        }
    }

    #[test]
    fn a_polynomial_is_found_again_at_zero_from_any_shares() {
        let coefficients: Vec<Scalar> = [9u64, 8, 7].map(Scalar::from).to_vec();
        for shares in [[0, 1, 2], [4, 0, 9], [200, 3, 77]] {
            let values = shares.map(|share| evaluate(&coefficients, &place(share)));
            let found: Scalar = interpolation(&shares).iter().zip(values).map(|(by, value)| by * value).sum();
            assert_eq!(found, Scalar::from(9u64), "{shares:?}");
        }
    }
}
