//! `cargo xtask up`: a local network that shows what it does.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Done, cargo, run};

/// What is sent from the first cell to the second: type, body, how long to wait.
const MESSAGES: [(&str, &str, &str); 6] = [
    ("CHAT", r#"{"text":"hello from the first cell"}"#, "delivered"),
    ("AUTH", r#"{"step":"request"}"#, "answered"),
    ("TX", r#"{"module":"kv","call":"put","args":{"key":"greeting","value":"hello"}}"#, "answered"),
    ("POST", r#"{"content":{"title":"the first post"},"tags":["news"]}"#, "answered"),
    ("QUERY", r#"{"tag":"news"}"#, "answered"),
    ("EXEC", r#"{"action":"state.get","args":{"key":"kv/greeting"}}"#, "answered"),
];
/// Chats after these, so that there is a history to trust.
const CHATS: usize = 8;

struct Net {
    program: PathBuf,
    dir: PathBuf,
    up: Child,
}

impl Drop for Net {
    fn drop(&mut self) {
        let pid = self.up.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.up.wait();
    }
}

pub(crate) fn up(arguments: &[String]) -> Done {
    let cells = number(arguments, "--cells")?.unwrap_or(4);
    let once = arguments.iter().any(|argument| argument == "--once");
    cargo(&["build", "--release", "--locked", "-p", "cell"])?;
    let program = built()?;
    let dir = net_dir(&program, cells);
    if !dir.join("cell-0").exists() {
        quiet(&program, &["testnet", "init", "--cells", &cells.to_string(), "--dir", text(&dir)])?;
    }
    let mut net = start(program, dir)?;
    let mut ready = String::new();
    let stdout = net.up.stdout.take().ok_or("the network says nothing")?;
    let mut lines = BufReader::new(stdout);
    lines.read_line(&mut ready).map_err(|error| error.to_string())?;
    if !ready.contains("\"event\":\"ready\"") {
        return Err(format!("the network did not start: {}", ready.trim()));
    }
    println!("\n{cells} cell(s) run, each a process of its own; folders in {}\n", net.dir.display());
    // With one cell the messages go to itself.
    let to = if cells > 1 { "cell-1" } else { "self" };
    show(&net, to, cells)?;
    urls(&net, cells);
    if once {
        return Ok(());
    }
    println!("\nCtrl-C stops everything.");
    // The terminal's Ctrl-C reaches the network too: it stops by itself, and so do we.
    let _ = net.up.wait();
    Ok(())
}

fn show(net: &Net, to: &str, cells: u64) -> Done {
    let trust = |net: &Net| net.cell(1.min(cells - 1), &["identity", "trust"]);
    if cells > 1 {
        println!("{to}'s trust in cell-0, before:\n{}", trust(net)?);
    }
    for (kind, body, wait) in MESSAGES {
        let wait = if cells == 1 && kind == "AUTH" { "delivered" } else { wait };
        let send = [
            "message",
            "send",
            "--to",
            to,
            "--type",
            kind,
            "--body",
            body,
            "--wait",
            wait,
            "--wait-ms",
            "5000",
            "--output",
            "json",
        ];
        let answer = net.cell(0, &send)?;
        if !answer.contains("\"status\":\"delivered\"") {
            return Err(format!("the {kind} message was not delivered: {answer}"));
        }
        println!("{kind:<5} cell-0 → {to}: {}", answer.trim());
    }
    for number in 0..CHATS {
        let body = format!("{{\"text\":\"chat {number}\"}}");
        net.cell(
            0,
            &["message", "send", "--to", to, "--type", "CHAT", "--body", &body, "--wait", "delivered"],
        )?;
        // Trust is told at most once a second for each peer.
        std::thread::sleep(std::time::Duration::from_millis(if number + 2 >= CHATS { 1_100 } else { 0 }));
    }
    if cells > 1 {
        println!("\n{to}'s trust in cell-0, after {CHATS} more chats:\n{}", trust(net)?);
    }
    let last = 1.min(cells - 1);
    println!("the block that the TX is in, final on all cells, and the root after it on each:");
    println!("{}", net.cell(last, &["block", "show", "0"])?);
    let roots = (0..cells).map(|number| net.cell(number, &["state", "root", "--output", "json"]));
    let roots = roots.collect::<Result<Vec<_>, _>>()?;
    for (number, root) in roots.iter().enumerate() {
        println!("cell-{number}  {}", root.trim());
    }
    if roots.iter().any(|root| *root != roots[0]) {
        return Err("the cells' roots differ".to_owned());
    }
    Ok(())
}

fn urls(net: &Net, cells: u64) {
    println!("try it:");
    for number in 0..cells {
        let dir = net.dir.join(format!("cell-{number}"));
        let http = std::fs::read_to_string(dir.join("run").join("http")).unwrap_or_default();
        println!(
            "  cell-{number}  {http}/readyz  {http}/openapi.json  token in {}",
            dir.join("admin.token").display()
        );
    }
    println!("  {} status --dir {}", net.program.display(), net.dir.join("cell-0").display());
}

impl Net {
    fn cell(&self, number: u64, arguments: &[&str]) -> Result<String, String> {
        let dir = self.dir.join(format!("cell-{number}"));
        let output = Command::new(&self.program).args(arguments).args(["--dir", text(&dir)]).output();
        let output = output.map_err(|error| error.to_string())?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(shown);
        }
        Err(format!("cell {}: {shown}{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
    }
}

fn start(program: PathBuf, dir: PathBuf) -> Result<Net, String> {
    let up = Command::new(&program)
        .args(["testnet", "up", "--output", "json", "--dir", text(&dir)])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    Ok(Net { program, dir, up })
}

fn quiet(program: &Path, arguments: &[&str]) -> Done {
    run(Command::new(program).args(arguments).stdout(Stdio::null()))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn number(arguments: &[String], flag: &str) -> Result<Option<u64>, String> {
    let Some(place) = arguments.iter().position(|argument| argument == flag) else { return Ok(None) };
    let value = arguments.get(place + 1).and_then(|value| value.parse().ok());
    value
        .filter(|cells| (1..=16).contains(cells))
        .map(Some)
        .ok_or_else(|| format!("{flag} takes a number from 1 to 16"))
}

/// The program that was just built: it lies beside this one.
pub(crate) fn built() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(own.with_file_name("cell"))
}

/// Networks lie beside the build, which version control leaves alone.
fn net_dir(program: &Path, cells: u64) -> PathBuf {
    let target = program.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
    let net = target.join("up").join(format!("{cells}-cells-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&net);
    net
}
