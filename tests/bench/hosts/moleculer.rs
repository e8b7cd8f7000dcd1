//! Moleculer, which the bus and the bridge are measured beside: two processes of Node.js that speak over its TCP transporter.
//!
//! Needs `node` and `npm`; `cargo xtask bench` installs them where it can. The packages are those of `package-lock.json`, installed once,
//! beside the build. Moleculer 0.15 asks for Node.js 22 and runs on 20 as well.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// What is put beside the build.
const FILES: [(&str, &str); 4] = [
    ("package.json", include_str!("moleculer/package.json")),
    (LOCK, include_str!("moleculer/package-lock.json")),
    ("caller.mjs", include_str!("moleculer/caller.mjs")),
    ("answerer.mjs", include_str!("moleculer/answerer.mjs")),
];
const LOCK: &str = "package-lock.json";
const NEEDED: &str = "node and npm are needed: apt-get install nodejs npm (cargo xtask does it)";

/// The two nodes: one that calls, and the one that it calls, which it starts.
pub(super) struct Moleculer {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// Calls a second.
    pub(super) rate: f64,
    /// The median of one call, where there was one caller.
    pub(super) p50: Option<Duration>,
}

/// Which action is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// One of the calling node itself.
    Local,
    /// One of the other node.
    Remote,
}

impl Moleculer {
    /// Installs it where that was not done, and starts it.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started.
    pub(super) fn start() -> Self {
        let folder = install();
        let child = Command::new("node")
            .arg("caller.mjs")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect(NEEDED);
        let asked = child.stdin.take().expect("its input is ours");
        let answers = BufReader::new(child.stdout.take().expect("its output is ours"));
        Self { child, asked, answers }
    }

    /// Has so many callers call for so long. Whoever else runs on this thread waits meanwhile.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub(super) fn call(&mut self, work: Work, callers: usize, span: Duration) -> Done {
        let work = match work {
            Work::Local => "local",
            Work::Remote => "remote",
        };
        let asked = json!({ "work": work, "callers": callers, "seconds": span.as_secs_f64() });
        writeln!(self.asked, "{asked}").and_then(|()| self.asked.flush()).expect("it runs");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it runs");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a number but {line:?}"));
        let number = |name: &str| said[name].as_f64();
        Done {
            rate: number("calls").expect("a number") / number("seconds").expect("a number"),
            p50: number("p50_us").map(|us| Duration::from_secs_f64(us / 1e6)),
        }
    }
}

impl Drop for Moleculer {
    /// The other node ends with the one that has started it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts the programs and their packages beside the build; gives where.
fn install() -> PathBuf {
    let program = kit::program();
    let target = program.ancestors().nth(2).expect("a program lies in a build's folder");
    let folder = target.join("tmp").join("moleculer-js");
    fs::create_dir_all(&folder).expect("a folder beside the build");
    for (name, text) in FILES {
        fs::write(folder.join(name), text).expect("written");
    }
    let lock = FILES.iter().find(|(name, _)| *name == LOCK).map_or("", |(_, text)| text);
    let done = folder.join("installed.json");
    if fs::read_to_string(&done).is_ok_and(|done| done == lock) {
        return folder;
    }
    npm_ci(&folder);
    fs::write(done, lock).expect("written");
    folder
}

fn npm_ci(folder: &Path) {
    let npm = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(folder)
        .output()
        .expect(NEEDED);
    assert!(npm.status.success(), "npm ci: {}", String::from_utf8_lossy(&npm.stderr));
}
