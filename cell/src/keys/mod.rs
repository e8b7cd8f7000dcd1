//! The cell's key: made once, kept, and never shown.
//!
//! `identity.key` holds the seed, in plain or under a passphrase (argon2id, XChaCha20-Poly1305). The
//! file is 0600, made with its folder synced, and never written again. From the seed derive, by
//! BLAKE3 in derive-key mode, the keys of the journals, to sign them and to encrypt them: each stands alone,
//! so that one can be given to a host without the others.
//!
//! A journal has **numbered** keys: 0 signs it first, and the next one when a host is removed that was given the one before (ADR 0033). Nucleus's
//! journal says which number is in use, and the journal itself by which public key it is signed.
//!
//! A cell that is restored from a backup begins another **life** (`lives.json`): what it signed after the backup was made it does not know, so from
//! then on its journals and, as a member, its events are signed by keys of that life, which derive from the seed and a random salt.

mod key_file;
mod lives;
mod signer;

use std::fmt;

use ed25519_dalek::SigningKey;
use journal::{EncryptionKey, KeyPair, PublicKey};
use protocol::signing::{self, Signature};
use protocol::{CellId, Problem, ProblemKind, Service};
use zeroize::Zeroizing;

pub(crate) use key_file::write_new;
pub use key_file::{create, is_there, open, read_public};
pub(crate) use lives::write as write_lives;
pub use lives::{Life, read as lives};
pub use signer::Signer;

const JOURNAL_CONTEXT: &str = "celluler 2026 journal key 1";
const MEMBER_CONTEXT: &str = "celluler 2026 member key 1";
const ENCRYPTION_CONTEXT: &str = "celluler 2026 journal encryption key 1";
/// Before the number of a journal's key in what it derives from.
const NUMBER_MARK: &[u8] = b"key number";
/// As many keys of one journal are looked through for the one that signs it.
const KEYS_MAX: u32 = 1_024;

/// The cell's key in memory.
#[derive(Clone)]
pub struct Keyring {
    key: SigningKey,
    cell: CellId,
    lives: Vec<Life>,
    /// Of each life, the first one included; the newest last.
    member_keys: Vec<SigningKey>,
}

/// A fresh seed for a cell's key.
///
/// # Errors
///
/// `keys.no_entropy`.
pub fn new_seed() -> Result<Zeroizing<[u8; 32]>, Problem> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed)
        .map_err(|error| Problem::new(ProblemKind::Fault, "keys.no_entropy", error.to_string()))?;
    Ok(seed)
}

impl Keyring {
    /// The keyring of a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        Self { cell: signing::cell_id(&key), member_keys: vec![key.clone()], key, lives: Vec::new() }
    }

    /// The same cell, in its newest life.
    #[must_use]
    pub fn with_lives(mut self, lives: Vec<Life>) -> Self {
        for life in &lives {
            let seed = self.derive(MEMBER_CONTEXT, Service::Consensus, Some(life));
            self.member_keys.push(SigningKey::from_bytes(&seed));
        }
        self.lives = lives;
        self
    }

    /// Which life this is: 0 before the first restore.
    pub fn generation(&self) -> u32 {
        self.lives.last().map_or(0, |life| life.generation)
    }

    /// The lives that began with a restore, oldest first.
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// The keys that the cell has signed events with as a member, the newest last.
    pub fn member_keys(&self) -> &[SigningKey] {
        &self.member_keys
    }

    /// The cell's id.
    pub const fn cell(&self) -> CellId {
        self.cell
    }

    /// Signs bytes that begin with a domain tag.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        signing::sign(&self.key, bytes)
    }

    /// The signing key, for the pure functions that need it.
    pub const fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// The seed, for the network's own copy.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// What it takes to write a service's journal, and nothing else of the cell's: the keys of that number.
    pub fn journal_keys(&self, service: Service, number: u32) -> JournalKeys {
        let life = self.lives.last();
        JournalKeys {
            seed: self.derive_numbered(JOURNAL_CONTEXT, service, life, number),
            encryption: self.derive_numbered(ENCRYPTION_CONTEXT, service, life, number),
            generation: self.generation(),
        }
    }

    /// Those of all numbers below that one.
    pub fn journal_keys_before(&self, service: Service, number: u32) -> Vec<JournalKeys> {
        (0..number).map(|number| self.journal_keys(service, number)).collect()
    }

    /// The number of the keys by which a journal is signed that has this public key; none if it is not of this cell's present life.
    pub fn key_number_of(&self, service: Service, public: &PublicKey) -> Option<u32> {
        (0..KEYS_MAX).find(|number| self.journal_keys(service, *number).key_pair().public() == *public)
    }

    fn derive(&self, context: &str, service: Service, life: Option<&Life>) -> Zeroizing<[u8; 32]> {
        self.derive_numbered(context, service, life, 0)
    }

    fn derive_numbered(
        &self,
        context: &str,
        service: Service,
        life: Option<&Life>,
        number: u32,
    ) -> Zeroizing<[u8; 32]> {
        let mut material = Zeroizing::new(self.key.to_bytes().to_vec());
        material.extend_from_slice(service.name().as_bytes());
        material.extend_from_slice(&life.map_or(0, |life| life.generation).to_le_bytes());
        if let Some(life) = life {
            material.extend_from_slice(&life.salt);
        }
        if number > 0 {
            material.extend_from_slice(NUMBER_MARK);
            material.extend_from_slice(&number.to_le_bytes());
        }
        Zeroizing::new(blake3::derive_key(context, &material))
    }
}

/// What it takes to write one journal. A host has those of the journals that it was granted, in memory alone.
#[derive(Clone)]
pub struct JournalKeys {
    /// Of the key pair that signs it.
    pub seed: Zeroizing<[u8; 32]>,
    /// What it is encrypted with, if it is.
    pub encryption: Zeroizing<[u8; 32]>,
    /// Which of the service's journals it is.
    pub generation: u32,
}

impl JournalKeys {
    /// Signs the journal.
    pub fn key_pair(&self) -> KeyPair {
        KeyPair::from_seed(&self.seed)
    }

    /// Encrypts it.
    pub fn encryption_key(&self) -> EncryptionKey {
        EncryptionKey::from_bytes(&self.encryption)
    }
}

impl fmt::Debug for JournalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalKeys(generation {}, secret)", self.generation)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({}, secret)", self.cell)
    }
}
