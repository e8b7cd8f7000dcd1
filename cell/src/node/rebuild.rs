//! What is done to a stopped cell: building its views anew, and introducing others to it.

use std::path::Path;
use std::sync::Arc;

use journal::Backend;
use machine::Machine;
use protocol::action::ServiceWords;
use protocol::identity::{AddContactRequest, Request};
use protocol::shared::Empty;
use protocol::{Problem, ProblemKind, Service};

use crate::actor::{Gauges, Grant, JournalPlace, Lease, journal_problem, open_service};
use crate::feed::Feed;
use crate::folder::{self, Folder, keys_of};
use crate::keys::{self, Keyring};
use crate::offline::Offline;
use crate::store::Store;

/// What a rebuild came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RebuildReport {
    /// Entries folded, by service.
    pub services: Vec<(Service, u64)>,
    /// The state root that came out.
    pub root: Option<String>,
    /// Whether this cell had diverged: when it is started it takes the state from the others.
    pub rejoins: bool,
}

/// Deletes the views of a stopped cell and folds its journals again. `progress` is told how many
/// services of how many are done.
///
/// # Errors
///
/// `folder.running` while the cell runs; those of opening journals.
pub fn rebuild(
    dir: &Path,
    passphrase: Option<&str>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RebuildReport, Problem> {
    let folder = Folder::open(dir)?;
    let _lock = folder.lock()?;
    let keyring = keys::open(dir, passphrase)?;
    let genesis = Arc::new(folder.genesis()?);
    match std::fs::remove_dir_all(folder.views()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Problem::new(ProblemKind::Fault, "folder.unwritable", error.to_string()));
        }
        _ => {}
    }
    let store = Store::open(&folder.views(), 16)?;
    let cell = keyring.cell();
    let mut services = Vec::new();
    let total = Service::ALL.len() as u64;
    for service in Service::ALL {
        progress(services.len() as u64, total);
        let place = (&folder, &store, &keyring);
        let entries = match service {
            Service::Nucleus => fold(nucleus::NucleusMachine, place)?,
            Service::Identity => {
                fold(identity::IdentityMachine { cell, settings: identity::Settings::default() }, place)?
            }
            Service::State => fold(state::StateMachine::new(Arc::clone(&genesis), folder::rules()), place)?,
            Service::Consensus => {
                let machine =
                    consensus::ConsensusMachine { genesis: Arc::clone(&genesis), rules: folder::rules() };
                fold(machine, place)?
            }
            Service::Market => fold(market::MarketMachine { cell }, place)?,
            Service::Message => fold(message::MessageMachine { cell }, place)?,
        };
        services.push((service, entries));
    }
    progress(total, total);
    store.flush()?;
    let machine = state::StateMachine::new(genesis, folder::rules());
    let root = root_of(&machine, &store)?;
    drop(store);
    let rejoins = rejoin(dir, &keyring, &machine)?;
    Ok(RebuildReport { services, root, rejoins })
}

/// One that has diverged comes to the same root again, however often it folds its journals: it is to go on from what the others have.
fn rejoin(dir: &Path, keyring: &Keyring, state: &state::StateMachine) -> Result<bool, Problem> {
    use protocol::consensus::{Answer, Request};
    let rules = state.rules.clone();
    let machine = consensus::ConsensusMachine { genesis: Arc::clone(&state.genesis), rules };
    let mut consensus = Offline::open(machine, dir, keyring)?;
    consensus.ask(Request::Rejoin(Empty {}))?;
    let rejoins =
        matches!(consensus.ask(Request::GetEpoch(Empty {}))?, Answer::GetEpoch(epoch) if epoch.rejoins);
    consensus.close()?;
    Ok(rejoins)
}

/// The root of a rebuilt state.
fn root_of(machine: &state::StateMachine, store: &Store) -> Result<Option<String>, Problem> {
    use protocol::state::{Answer, Request, RootRequest};
    let context = machine::Context { now_ms: 0, entropy: [0; 32], caller: protocol::Caller::Internal };
    let keyspace = store.keyspace(Service::State);
    let decided = machine
        .decide(&keyspace, &context, Request::Root(RootRequest::default()))
        .map_err(|fault| Problem::new(ProblemKind::Fault, "service.fault", fault.to_string()))?;
    Ok(match decided {
        machine::Decision::Answer(Answer::Root(root)) => Some(root.root.to_string()),
        _ => None,
    })
}

fn fold<M: Machine>(
    machine: M,
    (folder, store, keyring): (&Folder, &Store, &Keyring),
) -> Result<u64, Problem> {
    let service = M::Words::SERVICE;
    // A fold writes no entry: the lease of this grant has lapsed from the start.
    let grant = Grant::by_lead(service, 0, false, false);
    let path = folder.journal(service);
    let reader = journal::Reader::open(&path).map_err(|error| journal_problem(service, &error))?;
    let keys = keys_of(keyring, service, &reader);
    drop(reader);
    let journal = JournalPlace {
        folder: path,
        backend: Backend::default(),
        keys,
        before: Vec::new(),
        witnessed: 0,
        fork: 0,
        lease: Lease::default(),
    };
    let opened = open_service(
        machine,
        journal,
        store.keyspace(service),
        grant,
        Arc::new(Gauges::default()),
        &Feed::default(),
    )?;
    Ok(opened.length)
}

/// Makes contacts known to a stopped cell.
///
/// # Errors
///
/// Those of `identity.add_contact`, and `journal.locked` while the cell runs.
pub fn introduce(
    dir: &Path,
    passphrase: Option<&str>,
    contacts: Vec<AddContactRequest>,
) -> Result<(), Problem> {
    let keyring = keys::open(dir, passphrase)?;
    let machine = identity::IdentityMachine { cell: keyring.cell(), settings: identity::Settings::default() };
    let mut identity = Offline::open(machine, dir, &keyring)?;
    for contact in contacts {
        identity.ask(Request::AddContact(contact))?;
    }
    identity.close()
}
