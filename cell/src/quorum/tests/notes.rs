//! A state machine that is a list of what it was handed, in a file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use protocol::{Problem, ProblemKind};
use serde::{Deserialize, Serialize};

use crate::quorum::{Committed, Position, StateMachine};

/// Refuses what comes twice or out of order.
pub(crate) struct Notes {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    applied: Option<(u64, u64)>,
    payloads: Vec<Vec<u8>>,
    restored: u64,
}

impl Notes {
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join("notes.json");
        let state = fs::read(&path).map_or_else(
            |_| State::default(),
            |bytes| serde_json::from_slice(&bytes).expect("what was written"),
        );
        Self { path, state: Mutex::new(state) }
    }

    /// All that was handed over, in order.
    pub(crate) fn payloads(&self) -> Vec<String> {
        let state = self.state.lock().expect("no panic");
        state.payloads.iter().map(|payload| String::from_utf8_lossy(payload).into_owned()).collect()
    }

    /// How often a snapshot was restored.
    pub(crate) fn restored(&self) -> u64 {
        self.state.lock().expect("no panic").restored
    }

    fn save(&self, state: &State) -> Result<(), Problem> {
        let save = || {
            let new = self.path.with_extension("new");
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec(state).expect("plain data"))?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        save().map_err(|error: std::io::Error| fault(error.to_string()))
    }
}

fn fault(why: String) -> Problem {
    Problem::new(ProblemKind::Fault, "test.fault", why)
}

fn position((term, index): (u64, u64)) -> Position {
    Position { term, index }
}

impl StateMachine for Notes {
    fn applied(&self) -> Result<Option<Position>, Problem> {
        Ok(self.state.lock().expect("no panic").applied.map(position))
    }

    fn apply(&self, entries: &[Committed]) -> Result<(), Problem> {
        let mut now = self.state.lock().expect("no panic");
        let mut next = now.clone();
        for Committed { at, payload } in entries {
            if next.applied.map(position) >= Some(*at) {
                return Err(fault(format!("{at:?} comes after {:?}", next.applied)));
            }
            next.applied = Some((at.term, at.index));
            next.payloads.push(payload.to_vec());
        }
        self.save(&next)?;
        *now = next;
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<u8>, Problem> {
        let state = self.state.lock().expect("no panic").clone();
        Ok(serde_json::to_vec(&state).expect("plain data"))
    }

    fn restore(&self, at: Position, snapshot: &[u8]) -> Result<(), Problem> {
        let mut now = self.state.lock().expect("no panic");
        let mut next: State = serde_json::from_slice(snapshot).map_err(|error| fault(error.to_string()))?;
        next.applied = Some((at.term, at.index));
        next.restored = now.restored + 1;
        self.save(&next)?;
        *now = next;
        Ok(())
    }
}

/// Shared, as a state machine is handed over.
pub(crate) fn shared(dir: &Path) -> Arc<Notes> {
    Arc::new(Notes::open(dir))
}
