//! Entries encrypted at rest, as JavaScript `hypercore` 10 encrypts blocks.
//!
//! What is stored of an entry is 8 bytes, then the entry XORed with a keystream:
//!
//! - block key = BLAKE2b-256 of the encryption key, keyed with the journal's key;
//! - keystream = XSalsa20 under the block key; its nonce of 24 bytes is the entry's index (u64, little
//!   endian), the 8 bytes in front of the entry, and 8 zeros.
//!
//! What is stored is what is hashed and signed: tree, proofs, exports and replicas need no key, and
//! whoever has none can check what it cannot read.
//!
//! A journal says in its header that it is encrypted, and holds a keyed hash by which a wrong key is told
//! from the right one before anything is read with it.
//!
//! Departure from the JavaScript package: its 8 bytes are the fork, XORed with a keystream that depends
//! on the index alone. An entry that is written anew at its index and fork (its batch was torn before it
//! was acknowledged) meets the same keystream there, and whoever has both states of the disk has the XOR
//! of both entries. All readers take the 8 bytes as they are, so here they are a keyed hash of index,
//! fork and entry: another entry has another keystream. Of the same entry at the same place the same bytes
//! are written, which shows that it is the same, and no more.
//!
//! A journal that JavaScript has made has no such hash. Its key is known by the forks that its entries begin
//! with: under another key they are random numbers, and larger than the journal's fork but once in 2^64.
//!
//! Not given: authentication (the signed tree gives it), and secrecy of an entry's length (it is stored
//! with 8 bytes more).
//!
//! Sources: behaviour of `hypercore` 10.38.2 with the option `encryptionKey` on a compat core; Bernstein,
//! *Extending the Salsa20 nonce* (2011); for the 8 bytes, Rogaway and Shrimpton, *A provable-security
//! treatment of the key-wrap problem* (2006).

use std::fmt;

use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hash::{Digest, blake2b, keyed};
use crate::key::PublicKey;
use crate::reader::Reader;
use crate::user_data::UserData;

/// Bytes that an encrypted entry is longer than the plain one.
pub const ENCRYPTION_BYTES: usize = 8;

/// The name of the header's pair that says that a journal is encrypted.
const PAIR: &[u8] = b"celluler.encryption";
const CHECK_CONTEXT: &[u8] = b"celluler journal encryption: check 1";
const NONCE_CONTEXT: &[u8] = b"celluler journal encryption: nonce 1";

/// The key that a journal's entries are encrypted with: 32 secret bytes. Wiped when dropped and never shown.
///
/// One key may serve several journals: each has keystreams of its own.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; 32]>);

impl EncryptionKey {
    /// Wraps 32 bytes, which should be as good as random.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The 32 bytes, for a program that is to read the journal.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What encrypts and decrypts the entries of one journal.
    ///
    /// ```
    /// use journal::{EncryptionKey, KeyPair};
    ///
    /// let journal = KeyPair::from_seed(&[1; 32]).public();
    /// let cipher = EncryptionKey::from_bytes(&[2; 32]).cipher(&journal);
    /// let stored = cipher.encrypt(7, 0, b"hello");
    /// assert_eq!(stored.len(), 13);
    /// assert_eq!(cipher.decrypt(7, stored)?, b"hello");
    /// # Ok::<(), journal::Error>(())
    /// ```
    pub fn cipher(&self, journal: &PublicKey) -> EntryCipher {
        let derived = |context: &[u8]| keyed(&self.0, &[context, journal.as_bytes()]);
        let block = Zeroizing::new(keyed(journal.as_bytes(), &[&*self.0]));
        EntryCipher {
            blinding: Zeroizing::new(blake2b(&[&*block])),
            block,
            nonce: Zeroizing::new(derived(NONCE_CONTEXT)),
            check: derived(CHECK_CONTEXT),
        }
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(secret)")
    }
}

/// Encrypts and decrypts the entries of one journal. Its secrets are wiped when dropped and never shown.
#[derive(Clone)]
pub struct EntryCipher {
    block: Zeroizing<Digest>,
    /// Under which JavaScript blinds the fork.
    blinding: Zeroizing<Digest>,
    nonce: Zeroizing<Digest>,
    /// By which a journal knows its key: no secret.
    check: Digest,
}

impl EntryCipher {
    /// What is stored of an entry at an index and a fork: [`ENCRYPTION_BYTES`] more than it has.
    pub fn encrypt(&self, index: u64, fork: u64, entry: &[u8]) -> Vec<u8> {
        let hash = keyed(&self.nonce, &[&index.to_le_bytes(), &fork.to_le_bytes(), entry]);
        let mut stored = Vec::with_capacity(ENCRYPTION_BYTES + entry.len());
        stored.extend_from_slice(&hash[..ENCRYPTION_BYTES]);
        stored.extend_from_slice(entry);
        self.apply(index, &mut stored);
        stored
    }

    /// The entry that was stored at an index. Nothing here tells whether it was this one: the bytes are to
    /// be checked against the signed tree before, as [`crate::Reader`] and [`crate::Proof`] do.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if there are fewer than [`ENCRYPTION_BYTES`].
    pub fn decrypt(&self, index: u64, mut stored: Vec<u8>) -> Result<Vec<u8>> {
        if stored.len() < ENCRYPTION_BYTES {
            return Err(Error::corrupt(format!("entry {index} is too short for an encrypted one")));
        }
        self.apply(index, &mut stored);
        stored.drain(..ENCRYPTION_BYTES);
        Ok(stored)
    }

    /// XORs what follows the first bytes with the keystream that they and the index select.
    fn apply(&self, index: u64, stored: &mut [u8]) {
        let (front, entry) = stored.split_at_mut(ENCRYPTION_BYTES);
        keystream(&self.block, index, front).apply_keystream(entry);
    }

    /// Whether what is stored begins with a fork up to `fork_max`, blinded under this key.
    fn has_blinded_fork(&self, index: u64, stored: &[u8], fork_max: u64) -> bool {
        let Some(mut fork) = stored.first_chunk::<ENCRYPTION_BYTES>().copied() else { return false };
        keystream(&self.blinding, index, &[0; ENCRYPTION_BYTES]).apply_keystream(&mut fork);
        u64::from_le_bytes(fork) <= fork_max
    }

    /// Writes into a header's pairs that the journal is encrypted, and with which key.
    pub(crate) fn mark(&self, user_data: &mut UserData) {
        user_data.set(PAIR, &self.check);
    }
}

impl fmt::Debug for EntryCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntryCipher(secret)")
    }
}

fn keystream(key: &Digest, index: u64, front: &[u8]) -> XSalsa20 {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&index.to_le_bytes());
    nonce[8..16].copy_from_slice(front);
    XSalsa20::new(key.into(), (&nonce).into())
}

/// The cipher of a journal without our hash whose entries JavaScript has encrypted with this key; the last
/// entry that is there tells.
pub(crate) fn recognise(reader: &Reader, encryption_key: &EncryptionKey) -> Option<EntryCipher> {
    let cipher = encryption_key.cipher(&reader.key());
    let last = (0..reader.length()).rev().find_map(|index| match reader.get_with_leaf(index) {
        Err(Error::Absent { .. }) => None,
        stored => Some(stored.map(|(_, stored)| cipher.has_blinded_fork(index, &stored, reader.fork()))),
    });
    matches!(last, Some(Ok(true))).then_some(cipher)
}

/// How the entries of an open journal are to be read and written.
#[derive(Debug)]
pub(crate) enum Seal {
    /// As they are.
    Plain,
    /// They are encrypted, and the key is not here.
    Closed,
    /// They are encrypted with this.
    Open(EntryCipher),
}

impl Seal {
    /// What a header's pairs and the key that was given make of it. A key that is not needed is not used.
    pub(crate) fn of(
        user_data: &UserData,
        journal: &PublicKey,
        encryption_key: Option<&EncryptionKey>,
    ) -> Result<Self> {
        let Some(check) = user_data.get(PAIR) else { return Ok(Self::Plain) };
        if check.len() != size_of::<Digest>() {
            return Err(Error::Unsupported("an encryption of another kind"));
        }
        let Some(key) = encryption_key else { return Ok(Self::Closed) };
        let cipher = key.cipher(journal);
        if cipher.check == *check { Ok(Self::Open(cipher)) } else { Err(Error::WrongEncryptionKey) }
    }

    /// The entry that was stored.
    pub(crate) fn read(&self, index: u64, stored: Vec<u8>) -> Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(stored),
            Self::Closed => Err(Error::Encrypted),
            Self::Open(cipher) => cipher.decrypt(index, stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPair;

    fn cipher() -> EntryCipher {
        EncryptionKey::from_bytes(&[0x07; 32]).cipher(&KeyPair::from_seed(&[0x2a; 32]).public())
    }

    /// Made by `lib/block-encryption.js` of `hypercore` 10.38.2, compat, with the keys above: index, entry,
    /// what is stored; and the forks.
    #[test]
    fn what_javascript_has_encrypted_is_decrypted() {
        let x70 = "x".repeat(70);
        let vectors = [
            (0, "hello", "8f9875488156ae988cdd6c722c"),
            (0, "hello", "8e9875488156ae984f08704237"),
            (1, "", "768bf1cdb809f9e7"),
            (
                300,
                x70.as_str(),
                "9c371741e5ac3dfd4161e644c31036a1b17ce2690e310a67c01c6ef7978593bdfe695bf0aa6d70f2ed64a74e47b5\
                 45a512cf1edb53d071a765a04e17b7d4c305deff268454e953006da00c2f6407",
            ),
            (8_589_934_597, "far", "4bbac0fc571ba708968a55"),
        ];
        for ((index, entry, stored), fork) in vectors.into_iter().zip([0, 1, 0, 2, 7]) {
            let stored = hex::decode(stored).expect("hex");
            assert!(cipher().has_blinded_fork(index, &stored, fork), "{index}");
            assert!(fork == 0 || !cipher().has_blinded_fork(index, &stored, fork - 1), "{index}");
            assert!(!cipher().has_blinded_fork(index + 1, &stored, 1 << 32), "{index}");
            assert_eq!(cipher().decrypt(index, stored).expect("decrypts"), entry.as_bytes(), "{index}");
        }
        assert!(matches!(cipher().decrypt(0, vec![0; 7]), Err(Error::Corrupt(_))));
    }

    #[test]
    fn a_keystream_serves_one_entry_at_one_place() {
        let stored = |index, fork, entry: &[u8]| cipher().encrypt(index, fork, entry);
        let first = stored(3, 0, b"one entry");
        assert_eq!(first, stored(3, 0, b"one entry"));
        assert_eq!(cipher().decrypt(3, first.clone()).expect("decrypts"), b"one entry");
        // The bytes in front choose the keystream.
        for other in [stored(4, 0, b"one entry"), stored(3, 1, b"one entry"), stored(3, 0, b"two entry")] {
            assert_ne!(other[..8], first[..8]);
            // All three letters and the rest: one keystream for both would show their XOR.
            assert_ne!(other[11..], first[11..]);
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let key = EncryptionKey::from_bytes(&[0x07; 32]);
        assert_eq!(format!("{key:?} {:?}", cipher()), "EncryptionKey(secret) EntryCipher(secret)");
    }
}
