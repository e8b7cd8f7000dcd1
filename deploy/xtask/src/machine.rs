//! What a fresh machine lacks: libclang and a C++ compiler, for the RocksDB bindings; for the tests, Node.js
//! and npm, whose `hypercore` package journals are tested against, and iproute2, which makes the networks that cells are cut off in.

use std::path::Path;
use std::process::Command;

use crate::{Done, run};

/// Where distributions put libclang.
const PLACES: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// Installs what building needs and is missing, where that is possible, and says what to do elsewhere.
pub(crate) fn prepare() -> Done {
    let mut missing = Vec::new();
    if !has_libclang() {
        missing.push("libclang-dev");
    }
    if !works("c++") {
        missing.push("g++");
    }
    install(missing)
}

/// What testing needs as well.
pub(crate) fn prepare_tests() -> Done {
    prepare()?;
    let mut missing = Vec::new();
    if !works("node") {
        missing.push("nodejs");
    }
    if !works("npm") {
        missing.push("npm");
    }
    if !answers("ip", "-V") || !answers("tc", "-V") {
        missing.push("iproute2");
    }
    install(missing)
}

/// Whether a program answers that a check can do without: its package is installed where that is possible.
pub(crate) fn attempt(program: &str, question: &str, package: &'static str) -> bool {
    answers(program, question) || (install(vec![package]).is_ok() && answers(program, question))
}

fn install(missing: Vec<&str>) -> Done {
    if missing.is_empty() {
        return Ok(());
    }
    let tell = format!(
        "this needs {}: install them by hand (Debian: apt-get install {}; Fedora: dnf install clang-devel gcc-c++ nodejs; macOS: xcode-select --install, brew install node)",
        missing.join(" and "),
        missing.join(" ")
    );
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(tell);
    }
    let (program, first) = if am_root() { ("apt-get", None) } else { ("sudo", Some("apt-get")) };
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(first).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    };
    let mut install = vec!["install", "-y", "-qq"];
    install.extend(missing);
    apt(&["update", "-qq"]).and_then(|()| apt(&install)).map_err(|why| format!("{why}; {tell}"))
}

fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let llvm =
        std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("lib"));
    let places = PLACES.iter().map(|place| Path::new(place).to_owned()).chain(llvm);
    places.filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("libclang") && !name.starts_with("libclang-cpp") && name.contains(".so")
    })
}

fn works(program: &str) -> bool {
    answers(program, "--version")
}

fn answers(program: &str, question: &str) -> bool {
    Command::new(program).arg(question).output().is_ok_and(|output| output.status.success())
}

fn am_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
