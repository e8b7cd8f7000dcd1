//! Hosts, and the links between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use journal::KeyPair;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use protocol::{HostId, Problem, ProblemKind};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::notes::{self, Notes};
use crate::quorum::{LogPlace, Quorum, Settings, Transport};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn host_id(number: u8) -> HostId {
    HostId::from_bytes([number + 1; 32])
}

/// Waits for a condition, with a bound.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The links of a group.
#[derive(Default)]
pub(crate) struct Net {
    hosts: Mutex<BTreeMap<HostId, Weak<Quorum>>>,
    /// Nothing gets from the first to the second.
    cuts: Mutex<BTreeSet<(HostId, HostId)>>,
}

impl Net {
    fn cuts(&self) -> MutexGuard<'_, BTreeSet<(HostId, HostId)>> {
        self.cuts.lock().expect("no panic")
    }

    fn host(&self, host: HostId) -> Option<Arc<Quorum>> {
        self.hosts.lock().expect("no panic").get(&host).and_then(Weak::upgrade)
    }

    async fn carry(self: Arc<Self>, from: HostId, to: HostId, bytes: Vec<u8>) -> Result<Vec<u8>, Problem> {
        if self.cuts().contains(&(from, to)) {
            // Lost: nobody says so.
            std::future::pending::<()>().await;
        }
        let there = self.host(to).ok_or_else(gone)?;
        // Whoever asked may give up; the question has arrived all the same.
        let answer = tokio::spawn(async move { there.answer(from, &bytes).await }).await;
        if self.cuts().contains(&(to, from)) {
            std::future::pending::<()>().await;
        }
        answer.map_err(|_| gone())
    }
}

fn gone() -> Problem {
    Problem::new(ProblemKind::Unreachable, "bus.host_unreachable", "nobody is there")
}

struct Link {
    net: Arc<Net>,
    me: HostId,
}

impl Transport for Link {
    fn ask(&self, to: HostId, bytes: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Problem>> {
        Box::pin(Arc::clone(&self.net).carry(self.me, to, bytes))
    }
}

/// One host: its disk stays when it is stopped.
pub(crate) struct TestHost {
    pub(crate) id: HostId,
    pub(crate) dir: TempDir,
    pub(crate) notes: Option<Arc<Notes>>,
    quorum: Option<Arc<Quorum>>,
}

impl TestHost {
    pub(crate) fn quorum(&self) -> &Arc<Quorum> {
        self.quorum.as_ref().expect("the host runs")
    }

    pub(crate) fn payloads(&self) -> Vec<String> {
        self.notes.as_ref().expect("the host runs").payloads()
    }

    pub(crate) fn is_me(&self) -> bool {
        self.quorum.as_ref().is_some_and(|quorum| quorum.leadership().borrow().is_me)
    }

    /// Whether openraft says so: earlier than it is told to anybody.
    pub(crate) fn is_elected(&self) -> bool {
        self.quorum
            .as_ref()
            .is_some_and(|quorum| quorum.raft.metrics().borrow_watched().state == ServerState::Leader)
    }

    pub(crate) fn term(&self) -> u64 {
        self.quorum().leadership().borrow().term
    }
}

pub(crate) async fn start(
    id: HostId,
    dir: &Path,
    net: &Arc<Net>,
    settings: &Settings,
) -> (Arc<Notes>, Result<Quorum, Problem>) {
    let notes = notes::shared(dir);
    let place = LogPlace {
        folder: dir.join("quorum"),
        key_pair: KeyPair::from_seed(id.as_bytes()),
        encryption_key: None,
    };
    let link = Arc::new(Link { net: Arc::clone(net), me: id });
    let quorum = Quorum::start(id, settings.clone(), place, link, Arc::clone(&notes) as _).await;
    (notes, quorum)
}

/// Hosts of one cell.
pub(crate) struct Group {
    pub(crate) net: Arc<Net>,
    pub(crate) hosts: Vec<TestHost>,
    pub(crate) settings: Settings,
}

impl Group {
    /// So many hosts, all members.
    pub(crate) async fn of(hosts: u8, settings: Settings) -> Self {
        let mut group = Self { net: Arc::default(), hosts: Vec::new(), settings };
        for number in 0..hosts {
            group.add(number).await;
        }
        group.hosts[0].quorum().begin().await.expect("begins");
        for number in 1..hosts {
            group.admit(host_id(number)).await;
        }
        group
    }

    /// Adds a host that is no member yet.
    pub(crate) async fn add(&mut self, number: u8) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        self.hosts.push(TestHost { id: host_id(number), dir, notes: None, quorum: None });
        self.start(self.hosts.len() - 1).await;
    }

    /// Has whoever leads admit a host, whoever that is by then.
    pub(crate) async fn admit(&self, host: HostId) {
        let until = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            match self.hosts[leader].quorum().admit(host).await {
                Ok(()) => return,
                Err(problem) => assert!(Instant::now() < until, "{host} is not admitted: {problem}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn start(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let (notes, quorum) = start(host.id, host.dir.path(), &self.net, &self.settings).await;
        let quorum = Arc::new(quorum.expect("starts"));
        self.put(number, notes, quorum);
    }

    pub(crate) fn put(&mut self, number: usize, notes: Arc<Notes>, quorum: Arc<Quorum>) {
        let host = &mut self.hosts[number];
        self.net.hosts.lock().expect("no panic").insert(host.id, Arc::downgrade(&quorum));
        (host.notes, host.quorum) = (Some(notes), Some(quorum));
    }

    /// Nothing is written on the way out: what is on disk is what was synced.
    pub(crate) async fn stop(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        self.net.hosts.lock().expect("no panic").remove(&host.id);
        if let Some(quorum) = host.quorum.take() {
            quorum.stop().await;
        }
        host.notes = None;
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &TestHost> {
        self.hosts.iter().filter(|host| host.quorum.is_some())
    }

    /// The host that leads and says so, of the highest term; waits for one.
    pub(crate) async fn leader(&self) -> usize {
        self.leader_but(None).await
    }

    pub(crate) async fn leader_but(&self, not: Option<usize>) -> usize {
        let leads = |number: &usize| Some(*number) != not && self.hosts[*number].is_me();
        let find = || (0..self.hosts.len()).filter(leads).max_by_key(|number| self.hosts[*number].term());
        eventually("a host leads", || find().is_some()).await;
        find().unwrap_or_else(|| panic!("it led a moment ago"))
    }

    /// Has the group take a payload, whoever leads. Where the outcome is not known it is proposed again, so it may be there twice.
    pub(crate) async fn propose(&self, payload: &str) -> u64 {
        self.propose_but(None, payload).await
    }

    pub(crate) async fn propose_but(&self, not: Option<usize>, payload: &str) -> u64 {
        let propose = async {
            loop {
                let leader = self.leader_but(not).await;
                match self.hosts[leader].quorum().propose(payload.into()).await {
                    Ok(index) => return index,
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(PATIENCE, propose).await.expect("is committed in time")
    }

    /// Waits until all hosts that run have the same, and all of these payloads in this order; repetitions do not count.
    pub(crate) async fn agree_on(&self, payloads: &[String]) {
        let distinct = |host: &TestHost| {
            let mut seen = BTreeSet::new();
            host.payloads().into_iter().filter(|payload| seen.insert(payload.clone())).collect::<Vec<_>>()
        };
        eventually("all hosts have the same", || self.running().all(|host| distinct(host) == payloads)).await;
        let first = self.running().next().expect("one runs").payloads();
        eventually("at the same places", || self.running().all(|host| host.payloads() == first)).await;
    }

    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.net.cuts().insert((self.hosts[from].id, self.hosts[to].id));
    }

    /// Cuts a host off, both ways.
    pub(crate) fn isolate(&self, number: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != number) {
            self.cut(number, other);
            self.cut(other, number);
        }
    }

    pub(crate) fn heal(&self) {
        self.net.cuts().clear();
    }

    pub(crate) async fn stop_all(&mut self) {
        for number in 0..self.hosts.len() {
            self.stop(number).await;
        }
    }
}

/// Names of payloads.
pub(crate) fn payloads(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("payload {number}")).collect()
}
