//! What a host remembers in its folder.
//!
//! ```text
//! DIR/host.key          the seed of the host's key, 0600
//! DIR/host.json         of a host that has joined: its name, its cell, and who leads; no secret
//! DIR/hosts.json        where hosts elect who leads: who they are, and who led when this was last known; a hint, no secret
//! DIR/quorum/           of a host that may lead: its votes (`quorum`)
//! DIR/incarnation       how often the host was started
//! ```

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ed25519_dalek::SigningKey;
use protocol::nucleus::HostEntry;
use protocol::{CellId, HostId, Problem, ProblemKind};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::folder::Folder;
use crate::keys;

const KEY_FILE: &str = "host.key";
const JOINED_FILE: &str = "host.json";
const HOSTS_FILE: &str = "hosts.json";
const INCARNATION_FILE: &str = "incarnation";

/// What a host knows that has joined a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The cell.
    pub cell: CellId,
    /// Its name there.
    pub name: String,
    /// The host that led when it joined.
    pub lead: HostEntry,
}

/// The id of a host's key.
pub(super) fn id_of(seed: &[u8; 32]) -> HostId {
    HostId::from_bytes(SigningKey::from_bytes(seed).verifying_key().to_bytes())
}

/// The seed of a host's key; made when there is none.
///
/// # Errors
///
/// `bridge.unusable_key`.
pub fn key(dir: &Path) -> Result<Zeroizing<[u8; 32]>, Problem> {
    let path = dir.join(KEY_FILE);
    let unusable = |why: String| {
        Problem::new(ProblemKind::Invalid, "bridge.unusable_key", format!("{}: {why}", path.display())).hint(
            "the file belongs to the cell's user; without it the host has to join anew, in another folder",
        )
    };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut seed = Zeroizing::new([0; 32]);
            let text = Zeroizing::new(text);
            hex::decode_to_slice(text.trim(), &mut *seed).map_err(|error| unusable(error.to_string()))?;
            Ok(seed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = keys::new_seed()?;
            let text = Zeroizing::new(hex::encode(*seed));
            keys::write_new(&path, text.as_bytes()).map_err(|error| unusable(error.to_string()))?;
            Ok(seed)
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// What a folder's host remembers of its joining; none in the folder that the cell was made in.
///
/// # Errors
///
/// `bridge.unreadable`.
pub fn joined(dir: &Path) -> Result<Option<Joined>, Problem> {
    let path = dir.join(JOINED_FILE);
    let unreadable = |why: String| {
        Problem::new(ProblemKind::Invalid, "bridge.unreadable", format!("{}: {why}", path.display()))
            .hint("restore the file, or join anew in another folder")
    };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Remembers it; durable when it returns.
pub(super) fn remember(dir: &Path, joined: &Joined) -> io::Result<()> {
    replace(&dir.join(JOINED_FILE), &serde_json::to_vec_pretty(joined)?)
}

/// The hosts as they were last known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHosts {
    /// Who led.
    pub lead: Option<HostId>,
    /// All of them.
    pub hosts: Vec<HostEntry>,
}

/// The hosts as a folder remembers them; none where that was never of use.
pub fn known_hosts(dir: &Path) -> Option<KnownHosts> {
    let bytes = fs::read(dir.join(HOSTS_FILE)).ok()?;
    serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!(%error, "{HOSTS_FILE} does not read"))
        .ok()
}

/// Remembers them, unless that is what the folder says already.
pub(super) fn remember_hosts(dir: &Path, lead: Option<HostId>, hosts: &[HostEntry]) -> io::Result<()> {
    let known = KnownHosts { lead, hosts: hosts.to_vec() };
    let path = dir.join(HOSTS_FILE);
    let bytes = serde_json::to_vec_pretty(&known)?;
    if fs::read(&path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    replace(&path, &bytes)
}

/// One more than the last: the number of this life of the host. Durable when it returns.
pub(super) fn next_incarnation(folder: &Folder) -> Result<u64, Problem> {
    let path = folder.path().join(INCARNATION_FILE);
    let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let next = last.unwrap_or(0) + 1;
    replace(&path, next.to_string().as_bytes()).map_err(|error| {
        Problem::new(ProblemKind::Fault, "folder.unwritable", format!("{}: {error}", path.display()))
            .hint("check the permissions and the space on the disk")
    })?;
    Ok(next)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = fs::File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
