//! Days on which the disk, the key or the operator is the trouble: a stable code, a cause, a next step,
//! and nothing that was acknowledged is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kit::{Cell, until};
use serde_json::{Value, json};

/// A disk of its own, in memory, of a fixed size.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Self {
        fs::create_dir_all(at).expect("a folder");
        let options = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "celluler-test"]).arg(at).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a small disk and needs root: run it as root, or in `unshare --mount --map-root-user`"
        );
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn chat(cell: &Cell, text: &str, dir: &Path) -> Result<String, String> {
    let body = dir.join("body.json");
    fs::write(&body, json!({ "text": text }).to_string()).expect("written");
    let body = format!("@{}", body.display());
    let output = cell.run(&["message", "send", "--to", "self", "--type", "CHAT", "--body", &body]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    match answer["id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(answer["code"].as_str().expect("a code").to_owned()),
    }
}

#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = SmallDisk::mount(&dir.path().join("disk"), 64);
    let mut cell = Cell::init(&disk.0, "small");
    cell.start();
    let before = chat(&cell, "before", dir.path()).expect("there is room");
    let filler = disk.0.join("filler");
    let mut file = fs::File::create(&filler).expect("a file");
    let piece = vec![0u8; 64 * 1024];
    while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    drop(file);

    let mut acknowledged = vec![before];
    let long = "x".repeat(200_000);
    let refusal = loop {
        assert!(acknowledged.len() < 1_000, "the disk never fills up");
        match chat(&cell, &long, dir.path()) {
            Ok(id) => acknowledged.push(id),
            Err(code) => break code,
        }
    };
    assert!(["journal.fault", "service.fault", "store.fault"].contains(&refusal.as_str()), "{refusal}");
    // It lives on: what is durable stays readable, and readiness tells why it takes no more.
    for id in &acknowledged {
        assert_eq!(cell.ok(&["message", "show", id])["id"], **id);
    }
    // Each refusal is another fault; between two the service is restarted, and for a moment all is well.
    until("readiness says so", || {
        acknowledged.extend(chat(&cell, &long, dir.path()));
        let status = cell.run(&["status"]);
        let shown: Value = serde_json::from_slice(&status.stdout).expect("one JSON document");
        status.status.code() == Some(5) && shown["readiness"]["state"] == "suspended"
    });
    until("and so does HTTP", || {
        acknowledged.extend(chat(&cell, &long, dir.path()));
        cell.get("/readyz").0 == 503
    });

    fs::remove_file(&filler).expect("removed");
    cell.kill();
    cell.start();
    for id in &acknowledged {
        assert_eq!(cell.ok(&["message", "show", id])["id"], **id, "acknowledged before the disk was full");
    }
    chat(&cell, "after", dir.path()).expect("there is room again");
    let journals = cell.ok(&["journal", "verify"]);
    assert!(
        journals["items"].as_array().expect("a list").iter().all(|item| item["ok"] == true),
        "{journals}"
    );
    cell.kill();
}

#[test]
fn a_key_that_cannot_be_used_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cell = Cell::init(dir.path(), "solo");
    let key = cell.dir().join("identity.key");
    let whole = fs::read(&key).expect("readable");
    assert_eq!(fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);

    fs::write(&key, &whole[..whole.len() / 2]).expect("written");
    let (exit, code) = cell.refused(&["start"]);
    assert_eq!((exit, code.as_str()), (1, "keys.malformed"));
    fs::remove_file(&key).expect("removed");
    let (_, code) = cell.refused(&["start"]);
    assert_eq!(code, "keys.missing");
    // A folder in its place can be opened by nobody, root included.
    fs::create_dir(&key).expect("made");
    let (_, code) = cell.refused(&["start"]);
    assert_eq!(code, "keys.too_open", "others may look into it");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o700)).expect("set");
    let (_, code) = cell.refused(&["start"]);
    assert_eq!(code, "keys.unreadable");
}

#[test]
fn a_second_process_of_one_cell_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    cell.start();
    assert_eq!(cell.refused(&["start"]), (6, "folder.running".to_owned()));
    assert_eq!(cell.refused(&["rebuild"]).0, 6, "nor is it rebuilt under its feet");
    assert_eq!(cell.ok(&["status"])["readiness"]["state"], "synced");
    assert_eq!(cell.ok(&["stop"])["stopped"], true);
    assert_eq!(cell.refused(&["status"]), (3, "cli.not_running".to_owned()));
}

#[test]
fn a_flipped_bit_is_named_and_the_journal_is_not_written_over() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    cell.start();
    for number in 0..5 {
        chat(&cell, &format!("number {number}"), dir.path()).expect("sent");
    }
    cell.ok(&["stop"]);
    let data = cell.dir().join("journals/message/data");
    let mut bytes = fs::read(&data).expect("readable");
    bytes[100] ^= 1;
    fs::write(&data, &bytes).expect("written");
    let (exit, _) = {
        let output = cell.run(&["journal", "verify", "message"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        assert!(report.to_string().contains("entry"), "the entry is named: {report}");
        (output.status.code().unwrap_or(-1), report)
    };
    assert_ne!(exit, 0);
    assert_eq!(fs::read(&data).expect("readable"), bytes, "verify changes nothing");
}
