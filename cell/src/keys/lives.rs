//! The file `lives.json`: one line of a cell's past for each restore. It holds no secret.

use std::fs;
use std::io;
use std::path::Path;

use protocol::{Problem, ProblemKind};
use serde::{Deserialize, Serialize};

const FILE: &str = "lives.json";

/// A life that began with a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Counts from 1.
    pub generation: u32,
    /// Makes two restores of one backup differ.
    #[serde(with = "hex::serde")]
    pub salt: [u8; 32],
    /// When it began, in milliseconds since 1970 (UTC).
    pub began_ms: u64,
}

impl Life {
    /// The life after those.
    ///
    /// # Errors
    ///
    /// `keys.no_entropy`.
    pub fn after(lives: &[Self], began_ms: u64) -> Result<Self, Problem> {
        let salt = *super::new_seed()?;
        Ok(Self { generation: lives.last().map_or(0, |life| life.generation) + 1, salt, began_ms })
    }
}

/// The lives of a folder's cell; none before its first restore.
///
/// # Errors
///
/// `keys.malformed`.
pub fn read(dir: &Path) -> Result<Vec<Life>, Problem> {
    let path = dir.join(FILE);
    let malformed = |why: String| {
        let cause = format!("{} cannot be understood: {why}", path.display());
        Problem::new(ProblemKind::Invalid, "keys.malformed", cause)
            .hint("restore the file from a backup: without it the journals cannot be opened")
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(malformed(error.to_string())),
    };
    let lives: Vec<Life> = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    if !(1u32..).zip(&lives).all(|(number, life)| life.generation == number) {
        return Err(malformed("its lives do not follow each other".to_owned()));
    }
    Ok(lives)
}

/// Writes the file, which must not be there yet.
pub(crate) fn write(dir: &Path, lives: &[Life]) -> io::Result<()> {
    super::write_new(&dir.join(FILE), serde_json::to_string_pretty(lives)?.as_bytes())
}
