//! The file `identity.key`: JSON, 0600.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use protocol::{CellId, Problem, ProblemKind};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Keyring;

const FILE: &str = "identity.key";
const VERSION: u32 = 1;
/// argon2id as OWASP recommends it: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Beyond this a key file asks for more than a small machine has.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    cell: CellId,
    secret: Secret,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Secret {
    Plain { seed: String },
    Sealed { memory_kib: u32, passes: u32, salt: String, nonce: String, seed: String },
}

/// Makes the file. Durable when it returns.
///
/// # Errors
///
/// `keys.exists` if there is one, `keys.unwritable` if the disk says no.
pub fn create(dir: &Path, seed: &[u8; 32], passphrase: Option<&str>) -> Result<Keyring, Problem> {
    let keyring = Keyring::from_seed(seed);
    let secret = match passphrase {
        None => Secret::Plain { seed: hex::encode(seed) },
        Some(passphrase) => seal(seed, passphrase)?,
    };
    let content = Content { version: VERSION, cell: keyring.cell(), secret };
    let text = Zeroizing::new(
        serde_json::to_string_pretty(&content).map_err(|error| malformed(dir, &error.to_string()))?,
    );
    write_new(&dir.join(FILE), text.as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Problem::new(ProblemKind::Conflict, "keys.exists", format!("{} is there already", shown(dir)))
                .hint("a cell keeps its key for ever; choose another folder for another cell")
        }
        _ => Problem::new(ProblemKind::Fault, "keys.unwritable", format!("{}: {error}", shown(dir)))
            .hint("check the folder's permissions and the disk"),
    })?;
    Ok(keyring)
}

/// Whether a folder has the file.
pub fn is_there(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// The cell's id, without the passphrase.
///
/// # Errors
///
/// `keys.missing`, `keys.unreadable`, `keys.too_open`, `keys.malformed`.
pub fn read_public(dir: &Path) -> Result<CellId, Problem> {
    read(dir).map(|content| content.cell)
}

/// Opens the file.
///
/// # Errors
///
/// Those of [`read_public`], and `keys.passphrase_needed`, `keys.wrong_passphrase`.
pub fn open(dir: &Path, passphrase: Option<&str>) -> Result<Keyring, Problem> {
    let content = read(dir)?;
    let seed = match (&content.secret, passphrase) {
        (Secret::Plain { seed }, _) => decode::<32>(dir, seed)?,
        (Secret::Sealed { .. }, None) => {
            return Err(Problem::new(
                ProblemKind::Denied,
                "keys.passphrase_needed",
                "the cell's key has a passphrase",
            )
            .hint("set CELL_PASSPHRASE, or name a file: --passphrase-file FILE"));
        }
        (Secret::Sealed { memory_kib, passes, salt, nonce, seed }, Some(passphrase)) => {
            let key = stretch(dir, passphrase, &*decode::<16>(dir, salt)?, *memory_kib, *passes)?;
            let nonce = XNonce::from(*decode::<24>(dir, nonce)?);
            let sealed = hex::decode(seed).map_err(|_| malformed(dir, "the seed is not hex"))?;
            let plain =
                XChaCha20Poly1305::new(&(*key).into()).decrypt(&nonce, &sealed[..]).map_err(|_| {
                    Problem::new(
                        ProblemKind::Denied,
                        "keys.wrong_passphrase",
                        "the passphrase does not open the cell's key",
                    )
                    .hint("check CELL_PASSPHRASE or the passphrase file")
                })?;
            let plain = Zeroizing::new(plain);
            Zeroizing::new(plain[..].try_into().map_err(|_| malformed(dir, "the seed has another length"))?)
        }
    };
    let keyring = Keyring::from_seed(&seed);
    if keyring.cell() != content.cell {
        return Err(malformed(dir, "the key is another cell's"));
    }
    Ok(keyring.with_lives(super::lives::read(dir)?))
}

/// Writes a new 0600 file and syncs it and its folder.
///
/// # Errors
///
/// The system's, `AlreadyExists` included.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn read(dir: &Path) -> Result<Content, Problem> {
    let path = dir.join(FILE);
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Problem::new(ProblemKind::NotFound, "keys.missing", format!("there is no {}", path.display()))
                .hint("make a cell first: cell init --dir DIR; or name the folder of one: --dir DIR")
        }
        _ => Problem::new(ProblemKind::Denied, "keys.unreadable", format!("{}: {error}", path.display()))
            .hint("the file belongs to the cell's user and has mode 0600"),
    };
    let mode = fs::metadata(&path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let cause = format!("others may read {} (mode {mode:o})", path.display());
        return Err(Problem::new(ProblemKind::Denied, "keys.too_open", cause)
            .hint(format!("chmod 600 {}", path.display())));
    }
    let text = Zeroizing::new(fs::read_to_string(&path).map_err(unreadable)?);
    let content: Content = serde_json::from_str(&text).map_err(|error| malformed(dir, &error.to_string()))?;
    if content.version != VERSION {
        return Err(malformed(dir, "it was written by a newer version"));
    }
    Ok(content)
}

fn seal(seed: &[u8; 32], passphrase: &str) -> Result<Secret, Problem> {
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    let random = |bytes: &mut [u8]| {
        getrandom::fill(bytes)
            .map_err(|error| Problem::new(ProblemKind::Fault, "keys.no_entropy", error.to_string()))
    };
    random(&mut salt)?;
    random(&mut nonce)?;
    let key = stretch(Path::new("."), passphrase, &salt, MEMORY_KIB, PASSES)?;
    let sealed = XChaCha20Poly1305::new(&(*key).into())
        .encrypt(&XNonce::from(nonce), &seed[..])
        .map_err(|_| Problem::new(ProblemKind::Fault, "keys.unsealable", "the key could not be sealed"))?;
    let (salt, nonce, seed) = (hex::encode(salt), hex::encode(nonce), hex::encode(sealed));
    Ok(Secret::Sealed { memory_kib: MEMORY_KIB, passes: PASSES, salt, nonce, seed })
}

fn stretch(
    dir: &Path,
    passphrase: &str,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
) -> Result<Zeroizing<[u8; 32]>, Problem> {
    if memory_kib > MEMORY_KIB_MAX || passes > 64 {
        return Err(malformed(dir, "its cost is too high"));
    }
    let parameters =
        Params::new(memory_kib, passes, 1, Some(32)).map_err(|error| malformed(dir, &error.to_string()))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(|error| malformed(dir, &error.to_string()))?;
    Ok(key)
}

fn decode<const N: usize>(dir: &Path, text: &str) -> Result<Zeroizing<[u8; N]>, Problem> {
    let mut bytes = Zeroizing::new([0; N]);
    hex::decode_to_slice(text, &mut *bytes)
        .map_err(|_| malformed(dir, "a field is not hex of its length"))?;
    Ok(bytes)
}

fn malformed(dir: &Path, why: &str) -> Problem {
    Problem::new(
        ProblemKind::Invalid,
        "keys.malformed",
        format!("{} cannot be understood: {why}", shown(dir)),
    )
    .hint("restore the file from a backup: without it the cell cannot be")
}

fn shown(dir: &Path) -> String {
    PathBuf::from(dir).join(FILE).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        result.expect_err("refused").code.into_owned()
    }

    #[test]
    fn the_key_is_kept_and_a_passphrase_guards_it() {
        for passphrase in [None, Some("correct horse")] {
            let dir = tempfile::tempdir().expect("a temporary folder");
            assert_eq!(code(open(dir.path(), None)), "keys.missing");
            let made = create(dir.path(), &[5; 32], passphrase).expect("creates");
            assert_eq!(code(create(dir.path(), &[6; 32], passphrase)), "keys.exists");
            assert_eq!(open(dir.path(), passphrase).expect("opens").cell(), made.cell());
            assert_eq!(read_public(dir.path()).expect("reads"), made.cell());
            let text = fs::read_to_string(dir.path().join(FILE)).expect("reads");
            assert_eq!(text.contains(&hex::encode([5; 32])), passphrase.is_none());
            if passphrase.is_some() {
                assert_eq!(code(open(dir.path(), None)), "keys.passphrase_needed");
                assert_eq!(code(open(dir.path(), Some("wrong"))), "keys.wrong_passphrase");
            }
            assert!(!format!("{made:?}").contains("0505"));
        }
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        create(dir.path(), &[5; 32], None).expect("creates");
        let path = dir.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("sets");
        assert_eq!(code(open(dir.path(), None)), "keys.too_open");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets");
        fs::write(&path, "{}").expect("writes");
        assert_eq!(code(open(dir.path(), None)), "keys.malformed");
    }
}
