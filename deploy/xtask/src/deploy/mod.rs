//! `cargo xtask deploy`, a part of `test`: what lies in `deploy/` holds together, as far as this machine can tell.
//!
//! - YAML parses; no key is there twice; compose files name services and volumes that they have.
//! - systemd takes the units without a word; the template is the unit but for its place.
//! - The container is built by the workspace's Rust, and its two lists of what is left out are the same.
//! - The program takes each example of settings, and those of the chart.
//! - The chart: see [`chart`].
//!
//! What a missing tool leaves out is said at the end, and never passed over.

mod chart;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Done, machine};

/// Where things are, and what could not be checked.
pub(crate) struct Checks {
    /// The workspace.
    root: PathBuf,
    /// The program `cell`.
    program: PathBuf,
    /// A folder for what is tried out; it lies beside the build.
    scratch: PathBuf,
    left_out: Vec<String>,
}

/// Checks everything. Wants the program to be built.
pub(crate) fn check(program: PathBuf) -> Done {
    // Asked when it runs: a build that is kept may be of another folder.
    let package = std::env::var("CARGO_MANIFEST_DIR").map_err(|_| "run it by cargo: cargo xtask deploy")?;
    let root = Path::new(&package).ancestors().nth(2).ok_or("the workspace is missing")?.to_owned();
    let target = program.ancestors().nth(2).ok_or("the build is missing")?;
    let mut checks = Checks { root, scratch: target.join("deploy"), program, left_out: Vec::new() };
    make(&checks.scratch)?;
    yaml::check(&checks.root.join("deploy"))?;
    checks.container()?;
    checks.settings()?;
    checks.units()?;
    chart::check(&mut checks)?;
    checks.left_out.push("that the image builds and compose files run: no engine is asked for".to_owned());
    eprintln!("xtask: deploy: nothing is wrong with what was checked");
    for what in &checks.left_out {
        eprintln!("xtask: deploy: NOT CHECKED: {what}");
    }
    Ok(())
}

impl Checks {
    fn path(&self, of: &str) -> PathBuf {
        self.root.join("deploy").join(of)
    }

    /// What repeats what is said elsewhere says the same.
    fn container(&self) -> Done {
        let manifest = read(&self.root.join("Cargo.toml"))?;
        let rust = value_of(&manifest, "rust-version").ok_or("Cargo.toml names no Rust")?;
        let file = read(&self.path("container/Containerfile"))?;
        if !file.contains(&format!("FROM rust:{rust}-")) {
            return Err(format!("deploy/container/Containerfile is not built by Rust {rust}"));
        }
        let ignored = [self.root.join(".containerignore"), self.path("container/Containerfile.dockerignore")];
        if read(&ignored[0])? != read(&ignored[1])? {
            return Err(format!("{} and {} differ", ignored[0].display(), ignored[1].display()));
        }
        let chart = read(&self.path("helm/celluler/Chart.yaml"))?;
        let version = value_of(&manifest, "version").ok_or("Cargo.toml names no version")?;
        if !chart.contains(&format!("\nappVersion: \"{version}\"\n")) {
            return Err(format!("deploy/helm/celluler/Chart.yaml is of another version than {version}"));
        }
        Ok(())
    }

    fn settings(&self) -> Done {
        for name in ["single", "cluster", "hybrid"] {
            let path = self.path("config").join(name).with_extension("toml");
            self.takes_settings(&read(&path)?, &path.display().to_string())?;
        }
        Ok(())
    }

    /// Whether the program's own parser takes a `cell.toml`: for this it wants a folder that looks like a cell's.
    fn takes_settings(&self, text: &str, whose: &str) -> Done {
        let dir = self.scratch.join("settings");
        make(&dir.join("journals"))?;
        write(&dir.join("cell.toml"), text)?;
        let mut command = Command::new(&self.program);
        command.args(["config", "check", "--dir"]).arg(&dir);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CELL_")) {
            command.env_remove(name);
        }
        silent(&mut command).map(|_| ()).map_err(|why| format!("{whose}: {why}"))
    }

    fn units(&mut self) -> Done {
        let unit = read(&self.path("systemd/cell.service"))?;
        let template = read(&self.path("systemd/cell@.service"))?;
        same_but_for_place(&unit, &template)?;
        if !machine::attempt("systemd-analyze", "--version", "systemd") {
            self.left_out.push("the units: there is no systemd-analyze".to_owned());
            return Ok(());
        }
        let dir = self.scratch.join("systemd");
        make(&dir)?;
        for (name, text) in [("cell.service", &unit), ("cell@.service", &template)] {
            // The program has to be there: the one that was built stands for the one that is installed.
            let here = text.replace("/usr/local/bin/cell", &self.program.display().to_string());
            let path = dir.join(name);
            write(&path, &here)?;
            // An unknown key is a warning, with which it succeeds.
            let Said(out, err) =
                silent(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path))?;
            if !out.is_empty() || !err.is_empty() {
                return Err(format!("deploy/systemd/{name}: {}{}", out.trim(), err.trim()));
            }
        }
        Ok(())
    }
}

/// The template is the unit for a cell that lies elsewhere, so that a change of one is a change of both.
fn same_but_for_place(unit: &str, template: &str) -> Done {
    let body = |text: &str| text.split_once("\n[Unit]").map(|(_, body)| body.to_owned()).unwrap_or_default();
    let there = body(template)
        .replace("cells/%i", "cell")
        .replace("cell/%i.env", "cell/cell.env")
        .replace("cell %i", "cell");
    let unit = body(unit);
    for (one, other) in unit.lines().zip(there.lines()) {
        if one != other {
            return Err(format!("cell.service says {one:?} where cell@.service says {other:?}"));
        }
    }
    if unit.is_empty() || unit.lines().count() != there.lines().count() {
        return Err("cell.service and cell@.service have different lines".to_owned());
    }
    Ok(())
}

/// The value of the first `key = "value"`.
fn value_of<'a>(toml: &'a str, key: &str) -> Option<&'a str> {
    let rest = toml.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))?;
    rest.trim().strip_prefix('"')?.strip_suffix('"')
}

/// What a command said, on standard output and standard error.
struct Said(String, String);

/// Runs a command without showing what it says; a failure tells it.
fn silent(command: &mut Command) -> Result<Said, String> {
    let output = command.output().map_err(|error| format!("{command:?} could not be run: {error}"))?;
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if output.status.success() {
        Ok(Said(out, err))
    } else {
        Err(format!("{command:?}: {}{}", out.trim(), err.trim()))
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Done {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn make(dir: &Path) -> Done {
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "# one\n\n[Unit]\nDescription=cell\n[Service]\nExecStart=cell --dir /var/lib/cell\n";

    #[test]
    fn a_template_that_lags_behind_is_found() {
        let template = "# two\n# lines\n\n[Unit]\nDescription=cell %i\n[Service]\nExecStart=cell --dir /var/lib/cells/%i\n";
        assert_eq!(same_but_for_place(UNIT, template), Ok(()));
        assert!(same_but_for_place(&UNIT.replace("Exec", "EXEC"), template).is_err());
        assert!(same_but_for_place(&format!("{UNIT}ProtectHome=yes\n"), template).is_err());
        assert!(same_but_for_place("", "").is_err());
    }

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let toml = "[workspace]\nversion-of = \"no\"\nversion = \"0.1.0\"\nrust-version = \"1.95\"\n";
        assert_eq!(value_of(toml, "version"), Some("0.1.0"));
        assert_eq!(value_of(toml, "rust-version"), Some("1.95"));
        assert_eq!(value_of(toml, "edition"), None);
    }
}
