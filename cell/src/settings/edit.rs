//! Writing `cell.toml`: with a comment for each key, and changing one key in place.

use std::path::Path;

use protocol::{Problem, ProblemKind};
use toml_edit::{DocumentMut, Item, Value};

use super::{FILE, Settings, bad_value, check_key, known_keys, load};

/// What each key is for: the comments of a new `cell.toml`.
const DOCS: &[(&str, &str)] = &[
    ("cell.name", "A name for people."),
    ("http.host", "The address HTTP listens on. Put a TLS proxy before it when it is not loopback."),
    ("http.port", "0 takes any free port at each start."),
    ("http.body_bytes_max", "Bytes of one request."),
    ("http.requests_per_second_max", "Requests a second of one caller; more are answered with 429."),
    ("http.connections_max", "Connections at once."),
    ("http.streams_max", "Event streams and WebSockets at once."),
    ("http.workers", "Worker threads."),
    ("http.cors_origins", "Origins whose pages may call, as in [\"https://example.org\"]."),
    ("network.listen", "Where peers reach this cell. Name an outside address to be reached from outside."),
    (
        "bridge.listen",
        "Where other hosts of this cell are listened for, once there are some. Name an outside address for hosts on other machines.",
    ),
    (
        "bridge.lease_ms",
        "After so long without a word from the host that leads, another host writes nothing more, and may be taken over.",
    ),
    ("network.mdns", "Look for peers on the local network."),
    ("network.connections_max", "Connections at once."),
    ("network.connections_per_peer_max", "Connections at once with one peer."),
    ("network.requests_per_peer_max", "Requests of one peer under way."),
    ("network.frame_bytes_max", "Bytes of one request or reply between cells."),
    ("network.request_timeout_ms", "How long a request to a peer may take."),
    ("network.threads", "Threads of network, signatures, deliveries, effects; 0 takes half of the cores."),
    ("message.ttl_ms", "How long the delivery of a message is tried, unless the sender says otherwise."),
    ("message.retry_ms_max", "The longest pause between two tries."),
    ("message.batch_max", "Messages of one batch to a peer."),
    ("message.batches_in_flight_max", "Batches to one peer under way."),
    ("consensus.event_interval_us", "Microseconds between two events of this cell, at least."),
    ("consensus.patience_us", "Microseconds after which an event is made that brings no round forward."),
    (
        "consensus.checkpoint_blocks",
        "From how many blocks behind on a checkpoint is taken instead of blocks.",
    ),
    ("state.keep_blocks", "How many of the newest blocks' states can be read and proven; 0 keeps all."),
    ("data.bytes_max", "Bytes of all data sets whose data is kept here."),
    ("identity.trust_half_life_days", "Trust falls by half in so many days without contact."),
    ("identity.shared_min", "Shared messages before trust counts."),
    ("identity.session_ttl_s", "How long a session lives."),
    ("service.mailbox_max", "Requests that wait for one service; one more is refused as busy."),
    ("service.in_flight_max", "Calls under way to one service; one more is refused as busy."),
    ("service.restarts_max", "Restarts of a faulted service within the window."),
    ("service.restart_window_s", "The window of restarts."),
    (
        "journal.backend",
        "What writes the journals: positioned, random-access-disk, or for crash tests lossy.",
    ),
    (
        "journal.durability",
        "host: what is acknowledged is on the disk of the host that writes it. replica: on a second host's too, which takes over when the first is lost.",
    ),
    ("store.memory_mib", "Memory for cached view blocks."),
    ("log.filter", "What is logged; RUST_LOG goes before it."),
    ("log.format", "text or json."),
    (
        "trace.sample_per_1000",
        "Of a thousand requests so many are traced, besides those whose caller traces them.",
    ),
    ("trace.spans_max", "Spans kept in memory, the latest; 0 records nothing."),
    (
        "trace.otlp",
        "A collector that spans are sent to by OTLP over HTTP, as in http://127.0.0.1:4318; none while it is empty.",
    ),
];

/// A `cell.toml` of these settings, with a comment for each key.
pub fn documented_toml(settings: &Settings) -> String {
    let mut text =
        "# The settings of this cell. CELL__SECTION__KEY in the environment goes before this file.\n"
            .to_owned();
    let document = toml_edit::ser::to_document(settings).unwrap_or_default();
    for (section, item) in document.iter() {
        text.push_str(&format!("\n[{section}]\n"));
        for (key, value) in item.as_table_like().into_iter().flat_map(|table| table.iter()) {
            let full = format!("{section}.{key}");
            if let Some((_, doc)) = DOCS.iter().find(|(name, _)| *name == full) {
                text.push_str(&format!("# {doc}\n"));
            }
            text.push_str(&format!("{key} = {}\n", value.to_string().trim()));
        }
    }
    text
}

/// Changes one key of a folder's `cell.toml`, comments kept. The file is untouched if the result is no
/// good.
///
/// # Errors
///
/// `config.unknown_key`, `config.bad_value`, `config.unwritable`.
pub fn set(dir: &Path, key: &str, value: &str) -> Result<(), Problem> {
    check_key(&known_keys(), key, "the command")?;
    let path = dir.join(FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut document: DocumentMut = text.parse().map_err(|error| bad_value(&path, &format!("{error}")))?;
    let value: Value = value.parse().unwrap_or_else(|_| Value::from(value));
    if let Some((section, name)) = key.split_once('.') {
        let decor = document
            .get(section)
            .and_then(|table| table.get(name))
            .and_then(Item::as_value)
            .map(|v| v.decor().clone());
        let mut item = Item::Value(value);
        if let (Some(decor), Some(value)) = (decor, item.as_value_mut()) {
            *value.decor_mut() = decor;
        }
        document[section][name] = item;
    }
    let trial = tempfile_beside(&path);
    let checked = std::fs::create_dir_all(&trial)
        .and_then(|()| std::fs::write(trial.join(FILE), document.to_string()))
        .map_err(|error| unwritable(&path, &error))
        .and_then(|()| load(&trial, &[]).map(|_| ()))
        .and_then(|()| std::fs::rename(trial.join(FILE), &path).map_err(|error| unwritable(&path, &error)));
    let _ = std::fs::remove_dir_all(&trial);
    checked
}

fn tempfile_beside(path: &Path) -> std::path::PathBuf {
    path.with_file_name(format!(".cell.toml.{}", std::process::id()))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(ProblemKind::Fault, "config.unwritable", format!("{}: {error}", path.display()))
        .hint("check the folder's permissions and the disk")
}

/// The `section.key`s that a file sets.
pub(super) fn keys_of(text: &str, path: &Path) -> Result<Vec<String>, Problem> {
    let document: DocumentMut = text.parse().map_err(|error| bad_value(path, &format!("{error}")))?;
    let mut keys = Vec::new();
    for (section, item) in document.iter() {
        match item.as_table_like() {
            Some(table) => keys.extend(table.iter().map(|(key, _)| format!("{section}.{key}"))),
            None => keys.push(section.to_owned()),
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        for key in known_keys() {
            assert!(DOCS.iter().any(|(name, _)| *name == key), "{key} has no comment");
        }
        assert_eq!(DOCS.len(), known_keys().len());
    }

    #[test]
    fn a_changed_key_keeps_the_comments_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(FILE);
        std::fs::write(&path, documented_toml(&Settings::default())).expect("writes");
        set(dir.path(), "http.port", "8080").expect("sets");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(text.contains("# 0 takes any free port") && text.contains("port = 8080"), "{text}");
        assert!(set(dir.path(), "http.workers", "0").is_err());
        assert!(set(dir.path(), "http.nothing", "0").is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), text);
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1, "nothing is left behind");
    }
}
