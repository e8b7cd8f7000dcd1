//! Where copies lie, and what is remembered of them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use protocol::{CellId, Hash, Problem, ProblemKind, Service};
use serde::{Deserialize, Serialize};

/// What is remembered of a journal that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    /// Whose it is.
    pub(crate) cell: CellId,
    /// Which.
    pub(crate) journal: Service,
    /// Its key.
    pub(crate) key: Hash,
}

/// The place of one copy.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// Below `DIR/replicas`.
    pub fn new(root: &Path, cell: CellId, journal: Service) -> Self {
        let cell = cell.to_string();
        let name = cell.rsplit(':').next().unwrap_or(&cell);
        Self { folder: root.join(name).join(journal.name()) }
    }

    /// A folder of its own.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder with the journal's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn about(&self) -> PathBuf {
        self.folder.with_extension("json")
    }

    /// Remembers it; durable when it returns.
    pub(super) fn remember(&self, about: &About) -> Result<(), Problem> {
        let write = || {
            let path = self.about();
            let parent = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent)?;
            let draft = path.with_extension("json.new");
            let mut file = fs::File::create(&draft)?;
            file.write_all(&serde_json::to_vec_pretty(about)?)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            fs::File::open(parent)?.sync_all()
        };
        write().map_err(|error| unwritable(&self.about(), &error))
    }

    /// Remembers it no more.
    pub(super) fn forget(&self) -> Result<(), Problem> {
        ignore_absent(fs::remove_file(self.about())).map_err(|error| unwritable(&self.about(), &error))
    }

    /// Deletes the copy.
    pub(super) fn delete(&self) -> Result<(), Problem> {
        ignore_absent(fs::remove_dir_all(&self.folder)).map_err(|error| unwritable(&self.folder, &error))
    }

    /// Moves a copy that cannot be opened out of the way; gives where it is now.
    pub(super) fn set_aside(&self) -> Result<PathBuf, Problem> {
        let free = (0..u32::MAX)
            .map(|number| self.folder.with_extension(format!("damaged-{number}")))
            .find(|path| !path.exists());
        let to = free.unwrap_or_else(|| self.folder.with_extension("damaged"));
        fs::rename(&self.folder, &to).map_err(|error| unwritable(&self.folder, &error))?;
        Ok(to)
    }
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Fault, "replica.unwritable", format!("{}: {error}", path.display()))
        .hint("check the disk (space, health, permissions)")
}

/// All that is remembered, and what could not be read.
pub(super) fn list(root: &Path) -> (Vec<About>, Vec<Problem>) {
    let (mut known, mut problems) = (Vec::new(), Vec::new());
    let children = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths
    };
    for path in children(root).iter().flat_map(|cell| children(cell)) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let read = fs::read(&path).map_err(|error| error.to_string());
        match read
            .and_then(|bytes| serde_json::from_slice::<About>(&bytes).map_err(|error| error.to_string()))
        {
            Ok(about) => known.push(about),
            Err(why) => problems.push(
                Problem::new(
                    ProblemKind::Invalid,
                    "replica.unreadable",
                    format!("{}: {why}", path.display()),
                )
                .hint("delete the file and follow the journal again"),
            ),
        }
    }
    (known, problems)
}
