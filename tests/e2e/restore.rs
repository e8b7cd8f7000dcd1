//! A cell that is lost, and made again from a backup: it signs nothing as a member before its key was rotated, and nothing twice.

use std::path::Path;

use kit::{Cell, network, until};
use serde_json::{Value, json};

fn journals(cell: &Cell) -> Vec<Value> {
    cell.ok(&["journal", "list"])["items"].as_array().expect("a list").clone()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_restored_member_follows_until_its_key_is_rotated_and_never_forks() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cells = network(dir.path(), 4);
    cells.iter_mut().for_each(Cell::start);
    until("all are synced", || cells.iter().all(Cell::is_synced));
    cells[3].put("before", "1");
    cells[0].chat("cell-3", "hello");
    // Of a running cell.
    let backup = text(&dir.path().join("backup"));
    let made = cells[3].ok(&["backup", &backup]);
    assert!(made["entries"].as_u64() > Some(10), "{made}");
    assert_eq!(cells[3].refused(&["backup", &backup]).0, 6, "there is one already");
    let old = journals(&cells[3]);
    // What happens then is not in the backup: more of the cell's own events among it.
    for number in 0..5 {
        cells[3].put("after", &number.to_string());
    }
    let folder = cells[3].dir().to_owned();
    assert_eq!(cells[3].refused(&["restore", &backup]), (6, "folder.exists".to_owned()));
    cells[3].kill();
    std::fs::remove_dir_all(&folder).expect("the disk is gone");
    assert_eq!(cells[3].refused(&["restore", &text(dir.path())]), (1, "backup.missing".to_owned()));
    let restored = cells[3].ok(&["restore", &backup]);
    assert_eq!((&restored["generation"], &restored["cell"]), (&json!(1), &made["cell"]), "{restored}");
    assert!(
        cells[3].ok(&["journal", "verify"])["items"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|item| item["ok"] == true)
    );
    let new = journals(&cells[3]);
    for (old, new) in old.iter().zip(&new) {
        assert!(old["key"] != new["key"] && new["generation"] == 1, "{old} {new}");
    }
    let last = cells[3].ok(&[
        "journal",
        "cat",
        "nucleus",
        "--from",
        &(new[0]["entries"].as_u64().expect("a number") - 1).to_string(),
    ]);
    assert!(
        last.to_string().contains(old[3]["key"].as_str().expect("a key")),
        "the old heads are cited: {last}"
    );

    // It follows: every block comes, nothing of its own goes out.
    cells[3].start();
    until("it has caught up", || cells[3].ok(&["state", "get", "kv/after"])["value"] == "4");
    let submit = ["tx", "submit", "--module", "kv", "--call", "put", "--args", r#"{"key":"x","value":"1"}"#];
    assert_eq!(cells[3].refused(&submit), (4, "consensus.no_member".to_owned()));
    cells[0].put("meanwhile", "1");
    assert_eq!(cells[0].refused(&["consensus", "rotate"]), (6, "keys.not_restored".to_owned()));
    // Any member passes its request on.
    let request = dir.path().join("rotate.json");
    until("it knows all of its nonces", || cells[3].is_synced());
    std::fs::write(&request, cells[3].run(&["consensus", "rotate"]).stdout).expect("a file");
    let rotated = cells[1].ok(&["tx", "submit", "--signed", &text(&request), "--wait", "finalised"]);
    assert_eq!(rotated["status"], "finalised", "{rotated}");
    until("it is a member again", || cells[3].run(&submit).status.success());
    cells[3].put("after", "5");
    // With one of the others away it is needed.
    cells[0].kill();
    cells[1].put("three", "1");
    cells[0].start();
    until("all have the same state", || {
        let root = |cell: &Cell| cell.ok(&["state", "root"]);
        cells.iter().all(Cell::is_synced) && cells.iter().all(|cell| root(cell) == root(&cells[1]))
    });
    for cell in &cells {
        assert_eq!(cell.ok(&["call", "consensus.evidence", "{}"])["items"], json!([]), "nobody has forked");
    }
    // The new life survives a restart, and can be backed up as well.
    cells[3].kill();
    let second = text(&dir.path().join("second"));
    cells[3].ok(&["backup", &second]);
    cells[3].start();
    until("it takes part again", || cells[3].is_synced());
    cells[3].put("after", "6");
}

#[test]
fn a_damaged_backup_is_refused_and_a_cell_alone_goes_on_from_a_sound_one() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut alice = Cell::init_with(dir.path(), "alice", &["--encrypt", "message"]);
    alice.start();
    alice.put("a", "1");
    alice.chat("self", "kept");
    let backup = dir.path().join("backup");
    alice.ok(&["backup", &text(&backup)]);
    let token = alice.token();
    alice.kill();
    let data = backup.join("journals").join("consensus").join("data");
    let sound = std::fs::read(&data).expect("a file");
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&data, damaged).expect("a file");
    let again = Cell::adopt(&dir.path().join("again"));
    assert_eq!(again.refused(&["restore", &text(&backup)]), (5, "journal.damaged".to_owned()));
    assert!(!again.dir().exists(), "nothing is left behind");
    std::fs::write(&data, sound).expect("a file");
    let mut again = again;
    again.ok(&["restore", &text(&backup)]);
    again.ok(&["config", "set", "http.port", "0"]);
    again.start();
    assert_eq!(again.token(), token);
    until("it is well", || again.is_synced());
    assert_eq!(again.ok(&["state", "get", "kv/a"])["value"], "1");
    assert!(again.ok(&["message", "list"]).to_string().contains("kept"), "what is encrypted can be read");
    again.put("a", "2");
}
