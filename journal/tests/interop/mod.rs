//! JavaScript programs with the packages they need, installed once, beside the build.
//!
//! Needs `node` and `npm`; `cargo xtask` installs them where it can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts the programs of a folder of `tests/` beside the build, with the packages that its `package.json` asks
/// for; gives where.
pub(crate) fn install(name: &str) -> PathBuf {
    // Asked when it runs: a build that is kept may be of another folder.
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs it");
    let from = Path::new(&package).join("tests").join(name);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-js"));
    fs::create_dir_all(&folder).expect("a folder beside the build");
    for file in fs::read_dir(&from).expect("it is there").flatten() {
        if file.path().extension().is_some_and(|extension| extension == "mjs") {
            fs::copy(file.path(), folder.join(file.file_name())).expect("copied");
        }
    }
    let asked = fs::read_to_string(from.join("package.json")).expect("it is there");
    let done = folder.join("installed.json");
    if fs::read_to_string(&done).is_ok_and(|done| done == asked) {
        return folder;
    }
    fs::copy(from.join("package.json"), folder.join("package.json")).expect("copied");
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-package-lock"])
        .current_dir(&folder)
        .output()
        .expect("npm is needed: apt-get install nodejs npm (cargo xtask does it)");
    assert!(npm.status.success(), "npm install: {}", String::from_utf8_lossy(&npm.stderr));
    fs::write(done, asked).expect("written");
    folder
}

/// Runs a program where it was installed; what it printed.
pub(crate) fn node(folder: &Path, program: &str, arguments: &[&Path]) -> Vec<u8> {
    let output = Command::new("node")
        .arg(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("node is needed: apt-get install nodejs npm (cargo xtask does it)");
    assert!(output.status.success(), "node: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
