//! A cell's folder: what `cell init` makes and every start reads.
//!
//! ```text
//! DIR/cell.toml        settings
//! DIR/identity.key     the cell's key, 0600
//! DIR/lives.json       one entry for each restore from a backup
//! DIR/genesis.json     the network
//! DIR/admin.token      the first admin token, 0600
//! DIR/journals/NAME/   the six journals
//! DIR/data/HASH        data of data sets, named by its BLAKE3 hash
//! DIR/views/           RocksDB; made anew by `cell rebuild`
//! DIR/run/             lock, process id and HTTP address of the running cell
//! ```

mod backup;
mod resign;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::{Backend, Disk, Journal, Reader};
use machine::module::{Module, RuleSets};
use protocol::genesis::Genesis;
use protocol::nucleus::{CreateTokenRequest, JournalKey, Manifest};
use protocol::shared::Empty;
use protocol::{Access, CellId, GenesisHash, Hash, Problem, ProblemKind, Service};

use crate::actor::{journal_problem, now_ms};
use crate::keys::{self, JournalKeys, Keyring};
use crate::offline::Offline;
use crate::settings::{self, Settings};

pub use backup::{BackupReport, RestoreReport, backup, restore};
pub(crate) use resign::rekey;

/// The name of the first admin token.
pub const FIRST_TOKEN: &str = "admin";
/// The folder of the journals.
const JOURNALS: &str = "journals";
/// What a file system has at its root.
const LOST_AND_FOUND: &str = "lost+found";
/// The largest genesis file, in bytes.
const GENESIS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a new cell is to be.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// Where.
    pub dir: PathBuf,
    /// Its name; the folder's name unless told.
    pub name: Option<String>,
    /// Its network; one of its own unless told.
    pub genesis: Option<Genesis>,
    /// Where HTTP listens; [`settings::HTTP_PORT`] unless told, 0 for any free port.
    pub http_port: Option<u16>,
    /// Where peers are listened for; [`settings::PEER_PORT`] unless told, 0 for any free port.
    pub peer_port: Option<u16>,
    /// Whether peers are listened for on every address of the machine; on loopback alone unless told.
    pub listen_everywhere: bool,
    /// Guards the key.
    pub passphrase: Option<String>,
    /// The services whose journals are encrypted.
    pub encrypt: Vec<Service>,
    /// The seed of its key; a random one unless told.
    pub seed: Option<zeroize::Zeroizing<[u8; 32]>>,
}

/// What was made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct InitReport {
    /// The cell.
    pub cell: CellId,
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Its network.
    pub genesis: GenesisHash,
    /// Where HTTP will listen.
    pub http_port: u16,
    /// Where peers will be listened for.
    pub peer_port: u16,
}

/// The versions of the rules that this build has.
pub fn rules() -> RuleSets {
    let first: Vec<Arc<dyn Module>> = vec![
        Arc::new(state::kv::Kv),
        Arc::new(state::dataset::Dataset),
        Arc::new(state::elected::Elected),
        Arc::new(market::prana::Prana),
        Arc::new(consensus::members::Members),
    ];
    RuleSets::first(first)
}

/// Makes a cell. The folder is put together elsewhere and moved to its place, so that a cut-short init leaves
/// no half cell.
///
/// # Errors
///
/// `folder.exists` if there is a cell, `folder.unwritable` if the disk says no.
pub fn init(options: InitOptions) -> Result<InitReport, Problem> {
    let dir = fresh(&options.dir)?;
    let name = options.name.clone().unwrap_or_else(|| default_name(&dir));
    let mut settings = Settings::default();
    settings.cell.name.clone_from(&name);
    settings.http.port = options.http_port.unwrap_or(settings::HTTP_PORT);
    let peer_port = options.peer_port.unwrap_or(settings::PEER_PORT);
    settings.bridge.listen = settings::bridge_on(peer_port);
    settings.network.listen = if options.listen_everywhere {
        settings::addresses("/ip4/0.0.0.0", peer_port)
    } else {
        settings::listen_on(peer_port)
    };
    let (cell, genesis) = put_together(&dir, |draft| fill(draft, &settings, &options))?;
    Ok(InitReport { cell, name, dir, genesis, http_port: settings.http.port, peer_port })
}

/// The absolute path of a folder that is new or empty.
pub(crate) fn fresh(dir: &Path) -> Result<PathBuf, Problem> {
    let dir = std::path::absolute(dir).map_err(|error| unwritable(dir, &error))?;
    if dir.join(settings::FILE).exists() || dir.join("identity.key").exists() {
        return Err(Problem::new(
            ProblemKind::Conflict,
            "folder.exists",
            format!("there is a cell in {}", dir.display()),
        )
        .hint("choose another folder: --dir DIR; cell status --dir DIR shows this one"));
    }
    let counts =
        |entry: std::io::Result<fs::DirEntry>| !entry.is_ok_and(|entry| entry.file_name() == LOST_AND_FOUND);
    if fs::read_dir(&dir).is_ok_and(|mut entries| entries.any(counts)) {
        return Err(Problem::new(
            ProblemKind::Conflict,
            "folder.not_empty",
            format!("{} is not empty", dir.display()),
        )
        .hint("choose a new or an empty folder: --dir DIR"));
    }
    Ok(dir)
}

/// Fills a folder and moves it to its place. A place that is there already stays what it is: it may be a mounted
/// volume, or lie in a folder of somebody else, and has an owner and a mode.
pub(crate) fn put_together<T>(
    dir: &Path,
    fill: impl FnOnce(&Path) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let is_there = dir.is_dir();
    let place = if is_there { dir } else { dir.parent().unwrap_or(Path::new("/")) };
    fs::create_dir_all(place).map_err(|error| unwritable(place, &error))?;
    let draft = place.join(format!(".cell-draft-{}-{}", std::process::id(), now_ms()));
    let made = fill(&draft).and_then(|made| {
        let moved = if is_there { move_content(&draft, dir) } else { fs::rename(&draft, dir) };
        moved.map_err(|error| unwritable(dir, &error))?;
        sync_folder(place)?;
        Ok(made)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    made
}

/// Moves what a folder holds, and removes it. The journals come last, when the rest is on the disk: without them
/// there is no cell ([`Folder::open`]).
fn move_content(from: &Path, to: &Path) -> std::io::Result<()> {
    let entries = fs::read_dir(from)?.map(|entry| entry.map(|entry| entry.file_name()));
    let (last, rest): (Vec<OsString>, Vec<OsString>) =
        entries.collect::<Result<Vec<_>, _>>()?.into_iter().partition(|name| name == JOURNALS);
    for name in rest {
        fs::rename(from.join(&name), to.join(&name))?;
    }
    fs::File::open(to)?.sync_all()?;
    for name in last {
        fs::rename(from.join(&name), to.join(&name))?;
    }
    fs::remove_dir(from)
}

pub(crate) fn default_name(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect();
    let name = name.trim_start_matches('.').to_owned();
    if name.is_empty() { "cell".to_owned() } else { name }
}

fn fill(dir: &Path, settings: &Settings, options: &InitOptions) -> Result<(CellId, GenesisHash), Problem> {
    fs::create_dir_all(dir.join(JOURNALS)).map_err(|error| unwritable(dir, &error))?;
    let seed = options.seed.clone().map_or_else(keys::new_seed, Ok)?;
    let keyring = keys::create(dir, &seed, options.passphrase.as_deref())?;
    let genesis = match &options.genesis {
        Some(genesis) => genesis.clone(),
        None => Genesis::solo(&settings.cell.name, now_ms(), keyring.cell()),
    };
    genesis.check()?;
    let text = serde_json::to_string_pretty(&genesis).unwrap_or_default();
    write(&dir.join("genesis.json"), text.as_bytes())?;
    write(&dir.join(settings::FILE), settings::documented_toml(settings).as_bytes())?;
    let journals =
        Service::ALL.map(|service| make_journal(dir, &keyring, service, options.encrypt.contains(&service)));
    let journals: Vec<JournalKey> = journals.into_iter().collect::<Result<_, _>>()?;
    let manifest = Manifest {
        cell: keyring.cell(),
        name: settings.cell.name.clone(),
        genesis: genesis.hash(),
        journals,
    };
    let token = first_records(dir, &keyring, manifest, &genesis)?;
    keys_write(&dir.join("admin.token"), token.as_bytes())?;
    sync_folder(&dir.join(JOURNALS))?;
    sync_folder(dir)?;
    Ok((keyring.cell(), genesis.hash()))
}

fn make_journal(
    dir: &Path,
    keyring: &Keyring,
    service: Service,
    encrypted: bool,
) -> Result<JournalKey, Problem> {
    let folder = dir.join(JOURNALS).join(service.name());
    let keys = keyring.journal_keys(service, 0);
    let encryption_key = encrypted.then(|| keys.encryption_key());
    let journal = Disk::create(&folder, Backend::default())
        .and_then(|disk| Journal::create_with(Box::new(disk), keys.key_pair(), encryption_key.as_ref()))
        .map_err(|error| journal_problem(service, &error))?;
    let key = Hash::from_bytes(*journal.key().as_bytes());
    Ok(JournalKey { service, key, generation: keyring.generation() })
}

/// Entry 0 of Nucleus and of State, and the first admin token.
fn first_records(
    dir: &Path,
    keyring: &Keyring,
    manifest: Manifest,
    genesis: &Genesis,
) -> Result<String, Problem> {
    let mut nucleus = Offline::open(nucleus::NucleusMachine, dir, keyring)?;
    nucleus.ask(protocol::nucleus::Request::Initialise(manifest))?;
    let first = CreateTokenRequest { name: FIRST_TOKEN.to_owned(), role: Access::Admin, ttl_s: None };
    let answer = nucleus.ask(protocol::nucleus::Request::CreateToken(first))?;
    nucleus.close()?;
    let machine = state::StateMachine::new(Arc::new(genesis.clone()), rules());
    let mut state = Offline::open(machine, dir, keyring)?;
    state.ask(protocol::state::Request::Initialise(Empty {}))?;
    state.close()?;
    match answer {
        protocol::nucleus::Answer::CreateToken(created) => Ok(created.token),
        _ => Err(Problem::new(ProblemKind::Fault, "folder.no_token", "no first token was made")),
    }
}

/// A cell's folder that exists.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// The folder of a cell.
    ///
    /// # Errors
    ///
    /// `folder.missing` when there is no cell.
    pub fn open(dir: &Path) -> Result<Self, Problem> {
        if !dir.join(JOURNALS).is_dir() {
            let cause = format!("there is no cell in {}", dir.display());
            return Err(Problem::new(ProblemKind::NotFound, "folder.missing", cause)
                .hint("make one: cell init --dir DIR; or name the folder of one: --dir DIR or CELL_DIR"));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A service's journal.
    pub fn journal(&self, service: Service) -> PathBuf {
        self.dir.join(JOURNALS).join(service.name())
    }

    /// Copies of other cells' journals.
    pub fn replicas(&self) -> PathBuf {
        self.dir.join("replicas")
    }

    /// The data of data sets.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The views.
    pub fn views(&self) -> PathBuf {
        self.dir.join("views")
    }

    /// The network.
    ///
    /// # Errors
    ///
    /// `genesis.unreadable`, `genesis.invalid`.
    pub fn genesis(&self) -> Result<Genesis, Problem> {
        read_genesis(&self.dir.join("genesis.json"))
    }

    /// Where the running cell's HTTP listens.
    ///
    /// # Errors
    ///
    /// `cli.not_running` when it does not run.
    pub fn run_http(&self) -> Result<String, Problem> {
        let running =
            fs::read_to_string(self.dir.join("run").join("http")).ok().filter(|_| self.is_running());
        running.map(|text| text.trim().to_owned()).ok_or_else(|| {
            let cause = format!("the cell in {} does not run", self.dir.display());
            Problem::new(ProblemKind::Unreachable, "cli.not_running", cause)
                .hint(format!("start it: cell start --dir {}", self.dir.display()))
        })
    }

    /// The running cell's process.
    pub fn run_pid(&self) -> Option<i32> {
        fs::read_to_string(self.dir.join("run").join("pid")).ok()?.trim().parse().ok()
    }

    /// Whether a cell runs here: the lock is held.
    pub fn is_running(&self) -> bool {
        let lock = fs::File::open(self.dir.join("run").join("lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Takes the folder for this process. Held until the file is dropped.
    ///
    /// # Errors
    ///
    /// `folder.running` when another process has it.
    pub fn lock(&self) -> Result<fs::File, Problem> {
        let run = self.dir.join("run");
        fs::create_dir_all(&run).map_err(|error| unwritable(&run, &error))?;
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(run.join("lock"));
        let lock = lock.map_err(|error| unwritable(&run, &error))?;
        lock.try_lock().map_err(|_| {
            let cause = format!("the cell in {} runs already", self.dir.display());
            Problem::new(ProblemKind::Conflict, "folder.running", cause)
                .hint("cell status shows it; cell stop ends it")
        })?;
        Ok(lock)
    }

    /// The first admin token, or what was put in its place.
    ///
    /// # Errors
    ///
    /// `cli.no_token` when it cannot be read.
    pub fn admin_token(&self) -> Result<String, Problem> {
        let path = self.dir.join("admin.token");
        fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(|error| {
            Problem::new(ProblemKind::Unauthenticated, "cli.no_token", format!("{}: {error}", path.display()))
                .hint("name a token: CELL_TOKEN or --token-file FILE")
        })
    }
}

/// Reads a genesis file.
///
/// # Errors
///
/// `genesis.unreadable`, `genesis.invalid`.
pub fn read_genesis(path: &Path) -> Result<Genesis, Problem> {
    let unreadable = |why: String| {
        Problem::new(ProblemKind::Invalid, "genesis.unreadable", format!("{}: {why}", path.display()))
            .hint("name the genesis.json of a cell of that network")
    };
    if fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len() > GENESIS_BYTES_MAX {
        return Err(unreadable("it is too large".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let genesis: Genesis = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    genesis.check()?;
    Ok(genesis)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let written = fs::write(path, bytes).and_then(|()| fs::File::open(path)?.sync_all());
    written.map_err(|error| unwritable(path, &error))
}

fn keys_write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    keys::write_new(path, bytes).map_err(|error| unwritable(path, &error))
}

/// The keys by which a journal of a cell is signed; where it is not the cell's, those of its first, which will not fit.
pub(crate) fn keys_of(keyring: &Keyring, service: Service, reader: &Reader) -> JournalKeys {
    keyring.journal_keys(service, keyring.key_number_of(service, &reader.key()).unwrap_or(0))
}

fn sync_folder(path: &Path) -> Result<(), Problem> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| unwritable(path, &error))
}

pub(crate) fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(ProblemKind::Fault, "folder.unwritable", format!("{}: {error}", path.display()))
        .hint("check the permissions and the space on the disk")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn cell_in(dir: &Path) -> Result<InitReport, Problem> {
        init(InitOptions { dir: dir.to_owned(), ..InitOptions::default() })
    }

    /// As a volume is, which can be neither removed nor replaced.
    #[test]
    fn a_cell_is_made_in_a_folder_that_is_there_and_stays_the_same() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let dir = parent.path().join("volume");
        fs::create_dir_all(dir.join(LOST_AND_FOUND)).expect("makes");
        let number = |dir: &Path| fs::metadata(dir).expect("it is there").ino();
        let before = number(&dir);
        let report = cell_in(&dir).expect("makes");
        assert_eq!(number(&dir), before);
        assert_eq!(keys::read_public(&dir).expect("a key"), report.cell);
        assert_eq!(
            Folder::open(&dir).and_then(|folder| folder.genesis()).expect("a cell").hash(),
            report.genesis
        );
        let mut names: Vec<OsString> =
            fs::read_dir(&dir).expect("reads").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let expected =
            ["admin.token", settings::FILE, "genesis.json", "identity.key", JOURNALS, LOST_AND_FOUND];
        assert_eq!(names, expected);
        assert_eq!(cell_in(&dir).expect_err("there is one").code, "folder.exists");
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("letter"), "dear").expect("writes");
        assert_eq!(cell_in(dir.path()).expect_err("not empty").code, "folder.not_empty");
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 1);
    }
}
