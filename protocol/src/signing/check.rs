//! Whether ed25519 signatures hold, alone and many as one: with the same verdict.
//!
//! Rules:
//!
//! - A signature *(R, s)* of key *A* over *m* holds if *8 (s B − R − k A) = 0* with *k = SHA-512(R ‖ A ‖ m)*: RFC 8032, §5.1.7, in its form with
//!   the cofactor. *s* is in its canonical form; *A* and *R* are points, *A* not of small order.
//! - The cofactor makes the verdict one. Whoever adds a point of small order to a signature of its own could make one without it that holds in some
//!   batches and not in others (Chalkias, Garillot, Nikolaenko 2020, *Taming the many EdDSAs*): members would disagree on whether an event is
//!   one. Such a signature holds here everywhere.
//! - For many, one equation over all of them, each times a coefficient of 128 bits. These are a hash of the whole batch (Bernstein et al. 2012,
//!   *High-speed high-security signatures*, §5), so nobody who forges one signature can make the batch hold. Where it does not hold, each
//!   by itself tells which.
//! - A key's point takes a square root to find: those found lately are kept. What comes out does not depend on it.

use std::collections::HashMap;
use std::sync::LazyLock;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha512};

use super::{Signature, Signed};
use crate::id::CellId;

/// Signatures from which on checking them as one is less work.
const BATCH_MIN: usize = 4;
/// Keys whose points are kept, of about 250 bytes each.
const POINTS_MAX: usize = 16_384;

static POINTS: LazyLock<Cache<CellId, EdwardsPoint>> = LazyLock::new(|| Cache::new(POINTS_MAX));

/// The point of a key that signatures can hold by.
fn point_of(key: &CellId) -> Option<EdwardsPoint> {
    if let Some(point) = POINTS.get(key) {
        return Some(point);
    }
    let point = CompressedEdwardsY(*key.as_bytes()).decompress().filter(|point| !point.is_small_order())?;
    POINTS.insert(*key, point);
    Some(point)
}

/// Whether signatures can hold by this key.
pub(super) fn is_key(key: &CellId) -> bool {
    point_of(key).is_some()
}

/// A signature with its points.
struct Read<'a> {
    signer: &'a CellId,
    a: EdwardsPoint,
    r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
}

impl<'a> Read<'a> {
    fn of(signer: &'a CellId, bytes: &[u8], signature: &Signature) -> Option<Self> {
        let (r_bytes, s_bytes) = signature.0.split_first_chunk::<32>()?;
        let s = Option::from(Scalar::from_canonical_bytes(*s_bytes.first_chunk::<32>()?))?;
        let hash = Sha512::new().chain_update(r_bytes).chain_update(signer.as_bytes()).chain_update(bytes);
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        Some(Self { signer, a: point_of(signer)?, r: CompressedEdwardsY(*r_bytes).decompress()?, s, k })
    }

    fn holds(&self) -> bool {
        let r = EdwardsPoint::vartime_double_scalar_mul_basepoint(&self.k, &-self.a, &self.s);
        (r - self.r).mul_by_cofactor().is_identity()
    }
}

pub(super) fn holds(signer: &CellId, bytes: &[u8], signature: &Signature) -> bool {
    Read::of(signer, bytes, signature).is_some_and(|read| read.holds())
}

pub(super) fn all(batch: &[&Signed]) -> Vec<bool> {
    let read: Vec<Option<Read<'_>>> =
        batch.iter().map(|signed| Read::of(&signed.signer, &signed.bytes, &signed.signature)).collect();
    let good: Vec<&Read<'_>> = read.iter().flatten().collect();
    if good.len() >= BATCH_MIN && hold_as_one(&good) {
        return read.iter().map(Option::is_some).collect();
    }
    read.iter().map(|read| read.as_ref().is_some_and(Read::holds)).collect()
}

fn hold_as_one(batch: &[&Read<'_>]) -> bool {
    let mut hasher = blake3::Hasher::new_derive_key("celluler/signatures/1");
    for read in batch {
        // R and the message are in k.
        hasher.update(read.signer.as_bytes()).update(read.k.as_bytes()).update(read.s.as_bytes());
    }
    let mut coefficients = hasher.finalize_xof();
    let mut of_key: HashMap<&CellId, (Scalar, EdwardsPoint)> = HashMap::new();
    let (mut scalars, mut points) =
        (Vec::with_capacity(batch.len() * 2), Vec::with_capacity(batch.len() * 2));
    let mut base = Scalar::ZERO;
    for read in batch {
        let mut z = [0; 16];
        coefficients.fill(&mut z);
        let z = Scalar::from(u128::from_le_bytes(z));
        base += z * read.s;
        scalars.push(-z);
        points.push(read.r);
        of_key.entry(read.signer).or_insert((Scalar::ZERO, read.a)).0 -= z * read.k;
    }
    for (scalar, point) in of_key.into_values() {
        scalars.push(scalar);
        points.push(point);
    }
    scalars.push(base);
    points.push(ED25519_BASEPOINT_POINT);
    EdwardsPoint::vartime_multiscalar_mul(scalars, points).mul_by_cofactor().is_identity()
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use ed25519_dalek::hazmat::ExpandedSecretKey;
    use ed25519_dalek::{SigningKey, VerifyingKey};
    use proptest::prelude::*;

    use super::super::{cell_id, sign};
    use super::*;

    fn signed(seed: u8, bytes: &[u8]) -> Signed {
        let key = SigningKey::from_bytes(&[seed; 32]);
        Signed { signer: cell_id(&key), bytes: bytes.to_vec(), signature: sign(&key, bytes) }
    }

    /// A signature whose maker has put a point of small order to its R: 8 (s B - R - k A) = 0 holds, and without the 8 it does not.
    fn twisted(seed: u8, bytes: &[u8], torsion: usize) -> Signed {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let (signer, secret) = (cell_id(&key), ExpandedSecretKey::from(&key.to_bytes()).scalar);
        let nonce = Scalar::from(u128::from(seed) + 1);
        let r = (EdwardsPoint::mul_base(&nonce) + EIGHT_TORSION[torsion]).compress();
        let hash = Sha512::new().chain_update(r.0).chain_update(signer.as_bytes()).chain_update(bytes);
        let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * secret;
        let signature = Signature::from_bytes([r.0, s.to_bytes()].concat().try_into().expect("64 bytes"));
        Signed { signer, bytes: bytes.to_vec(), signature }
    }

    #[test]
    fn the_verdict_does_not_depend_on_the_company() {
        for torsion in 1..8 {
            let odd = twisted(1, b"odd", torsion);
            let key = VerifyingKey::from_bytes(odd.signer.as_bytes()).expect("a key");
            let alone = ed25519_dalek::Signature::from_bytes(odd.signature.as_bytes());
            assert!(key.verify_strict(&odd.bytes, &alone).is_err(), "without the cofactor it would not");
            assert!(holds(&odd.signer, &odd.bytes, &odd.signature));
            for company in 0..24 {
                let others: Vec<Signed> = (0..company).map(|number| signed(number, b"even")).collect();
                let batch: Vec<&Signed> = others.iter().chain([&odd]).collect();
                assert_eq!(all(&batch), vec![true; batch.len()]);
            }
        }
    }

    #[test]
    fn what_has_no_canonical_form_or_a_key_of_small_order_does_not_hold() {
        let good = signed(1, b"text");
        let (r, s) = good.signature.as_bytes().split_at(32);
        let order = (-Scalar::ONE).to_bytes();
        let mut above = [0; 32];
        let mut carry = 1u16;
        for (place, byte) in above.iter_mut().enumerate() {
            carry += u16::from(s[place]) + u16::from(order[place]);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        let bad = [
            [r, &above].concat(),
            [EIGHT_TORSION[1].compress().as_bytes().as_slice(), s].concat(),
            [[2; 32].as_slice(), s].concat(),
        ];
        for signature in bad {
            let signature = Signature::from_bytes(signature.try_into().expect("64 bytes"));
            let bad = Signed { signature, ..good.clone() };
            assert!(!holds(&bad.signer, &bad.bytes, &bad.signature));
            let batch = [&good, &good, &bad, &good, &good];
            assert_eq!(all(&batch), [true, true, false, true, true]);
        }
        let small = CellId::from_bytes(EIGHT_TORSION[3].compress().to_bytes());
        let no_point = CellId::from_bytes([2; 32]);
        assert!(!is_key(&small) && !is_key(&no_point) && is_key(&good.signer));
        assert!(!holds(&small, b"text", &good.signature));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What the library signs holds; with one bit changed, of key, text or signature, it does not.
        #[test]
        fn what_is_signed_holds_and_what_is_changed_does_not(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..12),
            (which, part, bit) in (any::<prop::sample::Index>(), 0usize..3, any::<prop::sample::Index>()),
        ) {
            let mut batch: Vec<Signed> = (0u8..).zip(&texts).map(|(seed, text)| signed(seed % 3, text)).collect();
            prop_assert_eq!(all(&batch.iter().collect::<Vec<_>>()), vec![true; batch.len()]);
            let which = which.index(batch.len());
            let changed = &mut batch[which];
            let flip = |bytes: &mut [u8]| {
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            };
            match part {
                0 => {
                    let mut key = *changed.signer.as_bytes();
                    flip(&mut key);
                    changed.signer = CellId::from_bytes(key);
                }
                1 => flip(&mut changed.bytes),
                _ => flip(&mut changed.signature.0),
            }
            let expected: Vec<bool> = (0..batch.len()).map(|place| place != which).collect();
            prop_assert_eq!(all(&batch.iter().collect::<Vec<_>>()), expected);
        }
    }
}
