//! Cells of several processes: the other hosts of a cell, each in a folder of its own beside it.
//!
//! Where the environment has [`ENVIRONMENT`], every cell that a test starts is split over so many hosts, with no word of that in the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use super::{Cell, free_ports, program, start_process, until};

/// How many processes a cell has: 1 unless told, 2 or 6.
pub const ENVIRONMENT: &str = "CELLULER_HOSTS";

/// What each other host runs.
fn split() -> Vec<&'static str> {
    match std::env::var(ENVIRONMENT).as_deref() {
        Err(_) | Ok("1") => Vec::new(),
        Ok("2") => vec!["consensus,state"],
        Ok("6") => vec!["identity", "message", "state", "consensus", "market"],
        Ok(other) => panic!("{ENVIRONMENT} is 1, 2 or 6, not {other:?}"),
    }
}

/// One more host of a cell, and its process while it runs.
pub struct HostProcess {
    dir: PathBuf,
    /// What its commands and its process run.
    pub program: PathBuf,
    child: Option<Child>,
    /// Settings of its process, as environment variables.
    pub environment: Vec<(&'static str, &'static str)>,
    /// Where its HTTP listens, while it runs.
    pub http: String,
}

impl HostProcess {
    /// Joins a running cell by a ticket of it, to run these services, and is not started yet.
    ///
    /// # Panics
    ///
    /// If it is not let in.
    pub fn join(cell: &Cell, dir: &Path, services: &str) -> Self {
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free_ports(1));
        let mut this = Self::adopt(dir);
        this.program.clone_from(&cell.program);
        this.use_ticket(&Self::ticket(cell), services, &listen);
        this
    }

    /// A ticket of a running cell.
    ///
    /// # Panics
    ///
    /// If it gives none.
    pub fn ticket(cell: &Cell) -> String {
        cell.ok(&["host", "invite"])["ticket"].as_str().expect("a ticket").to_owned()
    }

    /// Joins by a ticket, to run these services and to listen there, and is not started yet.
    ///
    /// # Panics
    ///
    /// If it is not let in.
    pub fn join_by(ticket: &str, dir: &Path, services: &str, listen: &str) -> Self {
        let this = Self::adopt(dir);
        this.use_ticket(ticket, services, listen);
        this
    }

    fn use_ticket(&self, ticket: &str, services: &str, listen: &str) {
        let join = ["host", "join", ticket, "--services", services, "--listen", listen, "--http-port", "0"];
        self.as_cell().ok(&join);
    }

    /// Joins a running cell as a host that may come to lead, to run these services if any, and is not started yet.
    ///
    /// # Panics
    ///
    /// If it is not let in.
    pub fn join_to_lead(cell: &Cell, dir: &Path, services: &[&str]) -> Self {
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free_ports(1));
        let ticket = Self::ticket_to_lead(cell);
        Self::join_to_lead_by(&ticket, dir, services, &listen, "/ip4/127.0.0.1/tcp/0")
    }

    /// A ticket of a running cell for a host that may come to lead.
    ///
    /// # Panics
    ///
    /// If it gives none.
    pub fn ticket_to_lead(cell: &Cell) -> String {
        cell.ok(&["host", "invite", "--may-lead"])["ticket"].as_str().expect("a ticket").to_owned()
    }

    /// Joins by such a ticket, to run these services if any and to listen there, and there to other cells when it leads, and is not started yet.
    ///
    /// # Panics
    ///
    /// If it is not let in.
    pub fn join_to_lead_by(ticket: &str, dir: &Path, services: &[&str], listen: &str, peers: &str) -> Self {
        let this = Self::adopt(dir);
        let join = ["host", "join", ticket, "--listen", listen, "--http-port", "0", "--peer-listen", peers];
        let services: Vec<&str> = services.iter().flat_map(|name| ["--services", name]).collect();
        this.as_cell().ok(&[&join[..], &services].concat());
        this
    }

    /// One that has joined already.
    pub fn adopt(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            program: program(),
            child: None,
            environment: Vec::new(),
            http: String::new(),
        }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its folder as a cell's: for commands on it.
    pub fn as_cell(&self) -> Cell {
        Cell::adopt_by(self.program.clone(), &self.dir)
    }

    /// Starts it and waits until it is ready: services come when the host that leads says so.
    ///
    /// # Panics
    ///
    /// If it is not ready in time.
    pub fn start(&mut self) {
        if self.child.is_none() {
            let (child, ready) = start_process(&self.program, &self.dir, &self.environment);
            self.child = Some(child);
            self.http = ready["http"].as_str().unwrap_or_default().to_owned();
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop, as a service manager would.
    pub fn terminate(&self) {
        if let Some(id) = self.id() {
            let _ = Command::new("kill").args(["-TERM", &id.to_string()]).status();
        }
    }

    /// Waits until its process has ended, bounded; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        super::wait(self.child.take()?)
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            super::show_log(&self.dir);
        }
        self.kill();
    }
}

/// Where a service runs, and how it is.
pub fn service(cell: &Cell, name: &str) -> (String, String) {
    let services = cell.ok(&["services"]);
    let items = services["items"].as_array().expect("a list").clone();
    let found = items.into_iter().find(|item| item["service"] == name).expect("there are six");
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("host"), text("health"))
}

/// Whether a service was taken over by the first host.
fn is_back(cell: &Cell, name: &str) -> bool {
    let roster: Value =
        serde_json::from_slice(&cell.run(&["call", "nucleus.roster"]).stdout).unwrap_or_default();
    let mut grants = roster["grants"].as_array().into_iter().flatten();
    grants.any(|grant| grant["service"] == name && grant["host"] == "first" && grant["takeover"] == true)
}

/// Starts the other hosts that this run gives each cell, and waits until each has its services.
pub(super) fn start_others(cell: &mut Cell) {
    let split = split();
    // A cell that was made again from a backup begins alone.
    let known = cell.ok(&["hosts"]).to_string();
    for (number, services) in split.iter().enumerate() {
        let name = format!("host-{}", number + 1);
        let full = format!("{}.{name}", cell.dir().file_name().unwrap_or_default().to_string_lossy());
        if !known.contains(&format!("\"{full}\"")) {
            cell.others.truncate(number);
            let _ = std::fs::remove_dir_all(cell.dir().with_file_name(&full));
        }
        if cell.others.len() <= number {
            let mut folder = cell.dir().as_os_str().to_owned();
            folder.push(format!(".{name}"));
            let folder = PathBuf::from(folder);
            let mut host = match folder.join("host.json").is_file() {
                true => HostProcess::adopt(&folder),
                false => HostProcess::join(cell, &folder, services),
            };
            host.environment.clone_from(&cell.environment);
            cell.others.push(host);
        }
        cell.others[number].environment.clone_from(&cell.environment);
        cell.others[number].start();
    }
    let elsewhere = || split.iter().flat_map(|services| services.split(','));
    // Consensus is not waited for when its host is away for long: it is taken over, and brought back here.
    for (number, services) in split.iter().enumerate() {
        for name in services.split(',').filter(|name| is_back(cell, name)) {
            let name_of =
                cell.others[number].dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
            let _ = cell.run(&["service", "move", name, "--to", &name_of]);
        }
    }
    until("every service runs on its host", || {
        // A test may have set how often a caller may ask.
        let services: Value = serde_json::from_slice(&cell.run(&["services"]).stdout).unwrap_or_default();
        let Some(items) = services["items"].as_array() else { return false };
        let there = |name: &str| {
            let is_there = |item: &Value| item["host"] != "first" && item["health"] == "running";
            items.iter().any(|item| item["service"] == name && is_there(item))
        };
        elsewhere().all(there)
    });
}
