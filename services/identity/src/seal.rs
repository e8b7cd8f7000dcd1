//! Sealing: bytes that only one cell can open.
//!
//! HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. The X25519
//! keys are the cell's ed25519 keys carried over to the Montgomery curve, so a cell id is all that a
//! sender needs. Sealed bytes: 32 bytes of encapsulated key, then ciphertext with its tag. Who wrote
//! them is told by the message's signature, not by HPKE; sender, receiver and type are bound as
//! associated data.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use ed25519_dalek::{SigningKey, VerifyingKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as KemTrait, X25519HkdfSha256 as Kem};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use protocol::message::MessageType;
use protocol::{CellId, Problem, ProblemKind};

const INFO: &[u8] = b"celluler/seal/1";
/// Bytes of the encapsulated key that sealed bytes begin with.
const KEY_BYTES: usize = 32;

/// The associated data of a sealed message body.
pub fn message_aad(sender: &CellId, receiver: &CellId, kind: MessageType) -> Vec<u8> {
    let mut aad = Vec::with_capacity(65);
    aad.extend_from_slice(sender.as_bytes());
    aad.extend_from_slice(receiver.as_bytes());
    aad.push(kind as u8);
    aad
}

/// Seals bytes for a cell. `entropy` must be fresh.
///
/// # Errors
///
/// `identity.unsealable` if the cell id is not a usable key.
pub fn seal(to: &CellId, aad: &[u8], plain: &[u8], entropy: [u8; 32]) -> Result<Vec<u8>, Problem> {
    let unusable = || {
        Problem::new(ProblemKind::Invalid, "identity.unsealable", format!("nothing can be sealed for {to}"))
            .hint("the id is not a usable key: check it")
    };
    let key =
        VerifyingKey::from_bytes(to.as_bytes()).ok().filter(|key| !key.is_weak()).ok_or_else(unusable)?;
    let public =
        <Kem as KemTrait>::PublicKey::from_bytes(&key.to_montgomery().to_bytes()).map_err(|_| unusable())?;
    let mut random = ChaCha20Rng::from_seed(entropy);
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &public,
        INFO,
        plain,
        aad,
        &mut random,
    )
    .map_err(|_| unusable())?;
    let mut sealed = encapsulated.to_bytes().to_vec();
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// Opens bytes that were sealed for this key's cell.
///
/// # Errors
///
/// `identity.not_openable` if they were sealed for another cell, another purpose, or changed.
pub fn open(key: &SigningKey, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Problem> {
    let failed = || {
        Problem::new(
            ProblemKind::Invalid,
            "identity.not_openable",
            "the sealed bytes cannot be opened with this cell's key",
        )
        .hint("ask the sender to seal them for this cell again")
    };
    let (encapsulated, ciphertext) = sealed.split_at_checked(KEY_BYTES).ok_or_else(failed)?;
    let encapsulated = <Kem as KemTrait>::EncappedKey::from_bytes(encapsulated).map_err(|_| failed())?;
    let secret = <Kem as KemTrait>::PrivateKey::from_bytes(&key.to_scalar_bytes()).map_err(|_| failed())?;
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        INFO,
        ciphertext,
        aad,
    )
    .map_err(|_| failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(number: u8) -> (SigningKey, CellId) {
        let key = SigningKey::from_bytes(&[number; 32]);
        let id = protocol::signing::cell_id(&key);
        (key, id)
    }

    #[test]
    fn only_the_receiver_opens_it_unchanged() {
        let ((alice, alice_id), (bob, bob_id)) = (cell(1), cell(2));
        let aad = message_aad(&alice_id, &bob_id, MessageType::Chat);
        let sealed = seal(&bob_id, &aad, b"secret", [9; 32]).expect("seals");
        assert_eq!(open(&bob, &aad, &sealed).expect("opens"), b"secret");
        assert!(open(&alice, &aad, &sealed).is_err());
        assert!(open(&bob, b"other", &sealed).is_err());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 0x20;
            assert!(open(&bob, &aad, &changed).is_err(), "byte {index}");
        }
        assert!(open(&bob, &aad, b"short").is_err());
        assert_ne!(seal(&bob_id, &aad, b"secret", [8; 32]).expect("seals"), sealed);
    }
}
