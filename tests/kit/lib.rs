//! What tests of real cells share: cells as processes of their own, on loopback, with ephemeral ports,
//! in temporary folders. Each ends with the test that started it.

pub mod cluster;
pub mod hosts;
pub mod linearizability;
pub mod namespaces;
pub mod random;
pub mod rpc;
pub mod stranger;
pub mod writers;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub use hosts::HostProcess;
use serde_json::Value;

/// The unit of processor time in `/proc`, on every Linux.
pub const TICKS_PER_SECOND: f64 = 100.0;
/// Lines of a cell's log that a failing test shows.
const LOG_LINES_SHOWN: usize = 40;
/// How long a cell may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);

/// The program `cell` of this build.
///
/// # Panics
///
/// If it was not built: `cargo build --release -p cell`.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the test has a path");
    let target = own.ancestors().find(|dir| dir.join("cell").is_file());
    target.map(|dir| dir.join("cell")).expect("cell is built first: cargo build --release -p cell")
}

/// Names the program of another build, from which hosts are upgraded to this one.
pub const OLDER: &str = "CELLULER_OLDER";

/// The program that hosts are upgraded from: that of [`OLDER`], or this build's own.
///
/// # Panics
///
/// If there is none.
pub fn older_program() -> PathBuf {
    let Some(path) = std::env::var_os(OLDER).map(PathBuf::from) else { return program() };
    assert!(path.is_file(), "{OLDER}: there is no program at {}", path.display());
    path
}

/// A cell's folder, and its process while it runs.
pub struct Cell {
    dir: PathBuf,
    /// What its commands and its process run.
    pub program: PathBuf,
    child: Option<Child>,
    /// Its other hosts, where the tests run with cells of several processes ([`hosts::ENVIRONMENT`]).
    others: Vec<HostProcess>,
    /// Settings of its process, as environment variables.
    pub environment: Vec<(&'static str, &'static str)>,
    /// Where HTTP listens, while it runs.
    pub http: String,
    /// Where peers reach it, while it runs.
    pub peer: String,
}

impl Cell {
    /// Makes a cell and does not start it.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn init(dir: &Path, name: &str) -> Self {
        Self::init_with(dir, name, &[])
    }

    /// Makes a cell, with more arguments of `cell init`.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn init_with(dir: &Path, name: &str, more: &[&str]) -> Self {
        Self::init_by(program(), dir, name, more)
    }

    /// Makes a cell with a program of another build.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn init_by(program: PathBuf, dir: &Path, name: &str, more: &[&str]) -> Self {
        let dir = dir.join(name);
        let cell = Self::adopt_by(program, &dir);
        let port = free_ports(3).to_string();
        let init = ["init", "--name", name, "--http-port", "0", "--peer-port", &port];
        cell.ok(&[&init, more].concat());
        cell
    }

    /// A cell that is there already.
    pub fn adopt(dir: &Path) -> Self {
        Self::adopt_by(program(), dir)
    }

    /// The same, with a program of another build.
    fn adopt_by(program: PathBuf, dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            program,
            child: None,
            others: Vec::new(),
            environment: Vec::new(),
            http: String::new(),
            peer: String::new(),
        }
    }

    /// Memory of its process that lies in RAM, in KiB.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn memory_kib(&self) -> u64 {
        memory_kib(self.process().expect("it runs"))
    }

    /// The process of the host that leads, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Processor time its process has used, in ticks of [`TICKS_PER_SECOND`].
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn cpu_ticks(&self) -> u64 {
        let id = self.process().expect("it runs");
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
        // Behind the name in parentheses: state is field 3, user time field 14, system time field 15.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        [11, 12].iter().map(|field| fields[*field].parse::<u64>().expect("a number")).sum()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it is not ready in time.
    pub fn start(&mut self) {
        self.start_first();
        hosts::start_others(self);
    }

    /// Starts the host that leads, alone.
    ///
    /// # Panics
    ///
    /// If it is not ready in time.
    pub fn start_first(&mut self) {
        let (child, ready) = start_process(&self.program, &self.dir, &self.environment);
        self.child = Some(child);
        self.http = ready["http"].as_str().unwrap_or_default().to_owned();
        self.peer = ready["peer"].as_str().unwrap_or_default().to_owned();
    }

    /// Ends it at once, as a power switch would as far as the process can tell: every process of it.
    pub fn kill(&mut self) {
        self.kill_first();
        self.others.iter_mut().for_each(HostProcess::kill);
    }

    /// Ends the host that leads at once.
    pub fn kill_first(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs a command on it.
    ///
    /// # Panics
    ///
    /// If the program cannot be run.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .args(arguments)
            .args(["--output", "json", "--dir"])
            .arg(&self.dir)
            .output()
            .expect("the program runs")
    }

    /// Runs a command that has to succeed; its answer.
    ///
    /// # Panics
    ///
    /// If it fails, with what it printed.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "cell {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("cell {arguments:?} printed {text:?}"))
    }

    /// Sends words to another cell, and waits until it has them; what the command answers.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn chat(&self, to: &str, text: &str) -> Value {
        let body = serde_json::json!({ "text": text }).to_string();
        let what = ["--to", to, "--type", "CHAT", "--body", &body, "--wait", "delivered"];
        self.ok(&[&["message", "send"], &what[..]].concat())
    }

    /// Writes a key of the module `kv`, and waits until that is final; what the command answers.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn put(&self, key: &str, value: &str) -> Value {
        self.put_until(key, value, "finalised")
    }

    /// The same, and waits until it has come so far.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn put_until(&self, key: &str, value: &str, wait: &str) -> Value {
        let args = serde_json::json!({ "key": key, "value": value }).to_string();
        self.ok(&["tx", "submit", "--module", "kv", "--call", "put", "--args", &args, "--wait", wait])
    }

    /// Runs a command that has to fail; its exit code and its problem's code.
    ///
    /// # Panics
    ///
    /// If it prints no problem.
    pub fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let problem: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("cell {arguments:?} printed {text:?}"));
        assert!(problem["cause"].is_string(), "{problem}");
        (output.status.code().unwrap_or(-1), problem["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Asks for a page with the admin token: status and body.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent
            .get(format!("{}{path}", self.http))
            .header("authorization", format!("Bearer {}", self.token().trim()));
        let mut answer = request.call().expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a body"))
    }

    /// Whether it is ready, and its state that of its network.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub fn is_synced(&self) -> bool {
        let (status, body) = self.get("/readyz");
        let readiness: Value = serde_json::from_str(&body).expect("JSON");
        status == 200 && readiness["state"] == "synced"
    }

    /// Posts to a page with the admin token: status and body.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        post(&self.http, self.token().trim(), path, body)
    }

    /// Asks its process to stop, as a service manager would.
    pub fn terminate(&self) {
        if let Some(child) = &self.child {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        }
        self.others.iter().for_each(HostProcess::terminate);
    }

    /// Waits until its process has ended, bounded; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait(self.child.take()?)
    }

    /// The id of the cell.
    pub fn id(&self) -> String {
        self.ok(&["identity", "show"])["cell"].as_str().unwrap_or_default().to_owned()
    }

    /// The admin token.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.dir.join("admin.token")).expect("the token is there")
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log(&self.dir);
        }
        self.kill();
    }
}

/// Starts what a folder is of; its process, and what it said when it was ready.
fn start_process(program: &Path, dir: &Path, environment: &[(&'static str, &'static str)]) -> (Child, Value) {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    let mut child = Command::new(program)
        .args(["start", "--output", "json", "--dir"])
        .arg(dir)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the program starts");
    let stdout = child.stdout.take().expect("its output is ours");
    let (send, line) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = BufReader::new(stdout).read_line(&mut text);
        let _ = send.send(text);
    });
    let text = line.recv_timeout(READY_MAX).unwrap_or_default();
    let ready: Value = serde_json::from_str(&text).unwrap_or_default();
    if ready["event"] != "ready" {
        let _ = child.kill();
        let _ = child.wait();
        panic!("no ready line but {text:?}");
    }
    (child, ready)
}

/// Waits until a process has ended, bounded; its exit code.
fn wait(mut child: Child) -> Option<i32> {
    let mut code = None;
    until("the process has ended", || {
        code = child.try_wait().ok().flatten();
        code.is_some()
    });
    code.and_then(|status| status.code())
}

/// Memory of a process that lies in RAM, in KiB.
///
/// # Panics
///
/// If it does not run.
pub fn memory_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The last lines of the log of whoever has this folder.
fn show_log(dir: &Path) {
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
    eprintln!("--- the last lines of {}'s log", dir.display());
    tail.iter().rev().for_each(|line| eprintln!("{line}"));
}

/// Makes two running cells that know each other; the second takes everything from the first.
pub fn pair(dir: &Path) -> (Cell, Cell) {
    let (mut alice, mut bob) = (Cell::init(dir, "alice"), Cell::init(dir, "bob"));
    alice.start();
    bob.start();
    alice.ok(&["peers", "add", &bob.peer, "--name", "bob"]);
    bob.ok(&["peers", "add", &alice.peer, "--name", "alice"]);
    let may = "CHAT,AUTH,TX,POST,QUERY,EXEC";
    bob.ok(&["identity", "access", "alice", "--may", may, "--exec", "state.get"]);
    until("the two are connected", || alice.ok(&["peers"])["items"][0]["connected"] == true);
    (alice, bob)
}

/// Makes the cells of one network, each a member and a contact of all others, and starts none.
///
/// # Panics
///
/// If they cannot be made.
pub fn network(dir: &Path, cells: u16) -> Vec<Cell> {
    network_with(dir, cells, &[])
}

/// The same, with more arguments of `cell testnet init`.
///
/// # Panics
///
/// If they cannot be made.
pub fn network_with(dir: &Path, cells: u16, more: &[&str]) -> Vec<Cell> {
    let port = free_ports(cells * 10).to_string();
    let init =
        ["testnet", "init", "--cells", &cells.to_string(), "--base-port", &port, "--output", "json", "--dir"];
    let init = Command::new(program()).args(init).arg(dir).args(more).output();
    let output = init.expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    (0..cells).map(|number| Cell::adopt(&dir.join(format!("cell-{number}")))).collect()
}

/// The first of so many ports that were free when it looked, for TCP and UDP, and that no other test of this process was given: a cell that is
/// started again must be found where it was. Below those that the system gives out by itself.
fn free_ports(count: u16) -> u16 {
    use std::net::{TcpListener, UdpSocket};
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| {
        TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    let begin = u16::try_from(std::process::id() % 150).unwrap_or(0) * 140;
    let mut ports = std::iter::repeat_with(|| {
        let given = GIVEN.fetch_add(count, Ordering::Relaxed);
        10_000 + begin.wrapping_add(given) % 20_000
    });
    ports.find(|first| (*first..first + count).all(is_free)).expect("there are free ports")
}

/// Posts to a page of a cell with a token: status and body.
///
/// # Panics
///
/// If there is no answer.
pub fn post(http: &str, token: &str, path: &str, body: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.post(format!("{http}{path}")).header("authorization", format!("Bearer {token}"));
    let mut answer = request.send(body).expect("an answer");
    (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a body"))
}

/// Waits for a condition, bounded.
///
/// # Panics
///
/// If it does not come true in time.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(READY_MAX, what, condition);
}

/// Waits for a condition for so long at most.
///
/// # Panics
///
/// If it does not come true in time.
pub fn until_within(longest: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + longest;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
