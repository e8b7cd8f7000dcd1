//! One cell over several hosts, each in a network namespace of its own: wires are cut, processes are frozen and killed.
//!
//! Needs root: see [`crate::namespaces`].

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::hosts::{HostProcess, service};
use crate::namespaces::Lan;
use crate::rpc::Client;
use crate::{Cell, memory_kib, until_within};

/// Where hosts reach each other.
const BRIDGE_PORT: u16 = 7403;
/// Where other cells would reach one that leads.
const PEER_PORT: u16 = 7401;
/// How long it may take until every service runs where it is to run.
const SETTLED_MAX: Duration = Duration::from_secs(30);

/// A cell, and its hosts by their places: the one that it was made on, and that leads at first, is at place 0.
pub struct Cluster {
    // Ended before their network is taken down.
    first: Cell,
    others: Vec<HostProcess>,
    /// The network between them.
    pub lan: Arc<Lan>,
    _dir: TempDir,
}

impl Cluster {
    /// Makes a cell with so many more hosts, each for these services, and waits until they run there.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn start(
        services: &[&str],
        settings: &[(&str, &str)],
        environment: &[(&'static str, &'static str)],
    ) -> Self {
        Self::make(services, settings, environment, false)
    }

    /// Makes one whose hosts elect who leads, and acknowledge nothing that is on one disk alone; waits until all of them vote.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn start_electing(services: &[&str], environment: &[(&'static str, &'static str)]) -> Self {
        let this = Self::make(services, &[("journal.durability", "replica")], environment, true);
        let votes = |client: &Client| {
            let hosts = client.list("nucleus.hosts", &json!({}), SETTLED_MAX).unwrap_or_default();
            hosts.iter().filter(|host| host["votes"] == true).count()
        };
        until_within(SETTLED_MAX, "all hosts vote", || this.ask(0, votes) == this.hosts());
        let has_copies = |client: &Client| {
            let roster = client.call("nucleus.roster", &json!({}), SETTLED_MAX).unwrap_or_default();
            let grants = roster["grants"].as_array().cloned().unwrap_or_default();
            !grants.is_empty() && grants.iter().all(|grant| grant["replicated"] == true)
        };
        until_within(SETTLED_MAX, "nothing is on one disk alone", || this.ask(0, has_copies));
        this
    }

    fn make(
        services: &[&str],
        settings: &[(&str, &str)],
        environment: &[(&'static str, &'static str)],
        may_lead: bool,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lan = Arc::new(Lan::new(services.len() + 1));
        let mut first = Cell::init(dir.path(), "first");
        first.environment = environment.to_vec();
        let listen = |place| format!("/ip4/{}/tcp/{BRIDGE_PORT}", lan.address(place));
        first.ok(&["config", "set", "bridge.listen", &format!("[{:?}]", listen(0))]);
        // Tests ask as often as they like.
        first.ok(&["config", "set", "http.requests_per_second_max", "1000000"]);
        settings.iter().for_each(|(name, value)| drop(first.ok(&["config", "set", name, value])));
        lan.within(0, || first.start_first());
        let mut others = Vec::new();
        for (number, services) in services.iter().enumerate() {
            let (place, dir) = (number + 1, dir.path().join(format!("host-{}", number + 1)));
            let mut host = match may_lead {
                true => {
                    let ticket = lan.within(0, || HostProcess::ticket_to_lead(&first));
                    let peers = format!("/ip4/{}/tcp/{PEER_PORT}", lan.address(place));
                    lan.within(place, || {
                        HostProcess::join_to_lead_by(&ticket, &dir, &[services], &listen(place), &peers)
                    })
                }
                false => {
                    let ticket = lan.within(0, || HostProcess::ticket(&first));
                    lan.within(place, || HostProcess::join_by(&ticket, &dir, services, &listen(place)))
                }
            };
            let folder = host.as_cell();
            folder.ok(&["config", "set", "http.requests_per_second_max", "1000000"]);
            settings.iter().for_each(|(name, value)| drop(folder.ok(&["config", "set", name, value])));
            host.environment = environment.to_vec();
            lan.within(place, || host.start());
            others.push(host);
        }
        let this = Self { first, others, lan, _dir: dir };
        until_within(SETTLED_MAX, "every service runs on its host", || this.runs_as(services));
        this
    }

    fn runs_as(&self, services: &[&str]) -> bool {
        let is_there = |(number, name): (usize, &str)| {
            let there = (format!("host-{}", number + 1), "running".to_owned());
            self.lan.within(0, || service(&self.first, name)) == there
        };
        let all = services.iter().enumerate();
        let mut all = all.flat_map(|(number, names)| names.split(',').map(move |name| (number, name)));
        all.all(is_there)
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.others.len() + 1
    }

    /// Does something with the host that leads, on it: commands, for example.
    pub fn on_first<T: Send>(&self, work: impl FnOnce(&Cell) -> T + Send) -> T {
        self.lan.within(0, || work(&self.first))
    }

    /// A client of a host, with the cell's admin token. It is used on that host.
    pub fn client(&self, place: usize) -> Client {
        let http = match place {
            0 => &self.first.http,
            _ => &self.others[place - 1].http,
        };
        Client::new(http, &self.first.token())
    }

    /// Asks a host, on it.
    pub fn ask<T: Send>(&self, place: usize, work: impl FnOnce(&Client) -> T + Send) -> T {
        let client = self.client(place);
        self.lan.within(place, || work(&client))
    }

    /// The process of a host.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn process(&self, place: usize) -> u32 {
        let id = match place {
            0 => self.first.process(),
            _ => self.others[place - 1].id(),
        };
        id.expect("the host runs")
    }

    /// Memory of a host that lies in RAM, in KiB.
    pub fn memory_kib(&self, place: usize) -> u64 {
        memory_kib(self.process(place))
    }

    /// Freezes a host's process: it neither answers nor hangs up.
    pub fn freeze(&self, place: usize) {
        self.signal(place, "-STOP");
    }

    /// Lets it go on.
    pub fn wake(&self, place: usize) {
        self.signal(place, "-CONT");
    }

    fn signal(&self, place: usize, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process(place).to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal} of host {place}");
    }

    /// Ends a host's process at once.
    pub fn kill(&mut self, place: usize) {
        match place {
            0 => self.first.kill_first(),
            _ => self.others[place - 1].kill(),
        }
    }

    /// Starts a host that was killed, and waits until it listens.
    pub fn start_again(&mut self, place: usize) {
        let lan = Arc::clone(&self.lan);
        lan.within(place, || match place {
            0 => self.first.start_first(),
            _ => self.others[place - 1].start(),
        });
    }
}
