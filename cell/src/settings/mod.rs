//! Settings: defaults < `DIR/cell.toml` < `CELL__SECTION__KEY` < flags, by the `config` crate.
//!
//! An unknown key is an error that names the nearest known one. No secret is a setting.

mod edit;

use std::collections::BTreeMap;
use std::path::Path;

use config::{Config, Environment, File, FileFormat};
use journal::Backend;
use protocol::{Problem, ProblemKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use edit::{documented_toml, set};

/// The file's name in a cell's folder.
pub const FILE: &str = "cell.toml";
/// The port HTTP listens on unless told.
pub const HTTP_PORT: u16 = 7400;
/// The port peers are listened for on unless told: TCP and QUIC; WebSocket takes the next one.
pub const PEER_PORT: u16 = 7401;

/// The port other hosts of the cell are listened for on unless told.
pub const BRIDGE_PORT: u16 = 7403;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The cell.
    pub cell: CellSettings,
    /// HTTP.
    pub http: Http,
    /// Cell to cell.
    pub network: Network,
    /// Between the hosts of this cell.
    pub bridge: Bridge,
    /// Messages.
    pub message: Message,
    /// Identity.
    pub identity: Identity,
    /// Consensus.
    pub consensus: Consensus,
    /// The replicated state.
    pub state: State,
    /// The data of data sets.
    pub data: Data,
    /// Services.
    pub service: Service,
    /// Journals.
    pub journal: Journal,
    /// Views.
    pub store: Store,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub trace: Trace,
}

/// `[cell]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CellSettings {
    /// A name for people.
    pub name: String,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The address to listen on.
    pub host: String,
    /// The port; 0 takes a free one at each start.
    pub port: u16,
    /// Bytes of one request.
    pub body_bytes_max: usize,
    /// Requests a second of one caller.
    pub requests_per_second_max: u32,
    /// Connections at once.
    pub connections_max: usize,
    /// Event streams and WebSockets at once.
    pub streams_max: usize,
    /// Worker threads.
    pub workers: usize,
    /// Origins whose pages may call.
    pub cors_origins: Vec<String>,
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Multiaddresses to listen on; port 0 takes a free one at each start.
    pub listen: Vec<String>,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Connections at once.
    pub connections_max: u32,
    /// Connections at once with one peer.
    pub connections_per_peer_max: u32,
    /// Requests of one peer under way.
    pub requests_per_peer_max: usize,
    /// Bytes of one request or reply.
    pub frame_bytes_max: usize,
    /// How long a request may take.
    pub request_timeout_ms: u64,
    /// Threads of the edge: network, signatures, deliveries, effects. 0 takes half of the cores.
    pub threads: usize,
}

/// `[bridge]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bridge {
    /// Multiaddresses on which other hosts of this cell are listened for, once there are some.
    pub listen: Vec<String>,
    /// After how long without a word from the host that leads another host writes nothing more, and may be taken over.
    pub lease_ms: u64,
}

/// `[message]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Message {
    /// How long delivery is tried unless told.
    pub ttl_ms: u64,
    /// The longest pause between two tries.
    pub retry_ms_max: u64,
    /// Messages of one batch to a peer.
    pub batch_max: u32,
    /// Batches to one peer under way.
    pub batches_in_flight_max: u32,
}

/// `[identity]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Trust falls by half in so many days without contact.
    pub trust_half_life_days: u64,
    /// Shared messages before trust counts.
    pub shared_min: u64,
    /// How long a session lives.
    pub session_ttl_s: u64,
}

/// `[consensus]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consensus {
    /// Microseconds between two events of this cell, at least.
    pub event_interval_us: u64,
    /// Microseconds after which an event is made that brings no round forward.
    pub patience_us: u64,
    /// From how many blocks behind on this cell takes a checkpoint instead of the blocks.
    pub checkpoint_blocks: u64,
}

/// `[state]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// How many of the newest blocks' states can be read and proven; 0 keeps all.
    pub keep_blocks: u64,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Bytes of all data that is kept here.
    pub bytes_max: u64,
}

/// `[service]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// Requests that wait for one service.
    pub mailbox_max: usize,
    /// Calls under way to one service.
    pub in_flight_max: usize,
    /// Restarts of a faulted service within the window.
    pub restarts_max: u32,
    /// The window of restarts.
    pub restart_window_s: u64,
}

/// `[journal]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// What writes the files: `positioned`, `random-access-disk`, or for crash tests `lossy`, which keeps
    /// in the process what is not synced, so that a kill takes what a power loss would.
    pub backend: Backend,
    /// What is acknowledged is on the disk of the host that writes (`host`), or on that of a second one too (`replica`).
    pub durability: Durability,
}

/// Where a record is before anybody hears of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the disk of the host that writes the journal. If that host is lost, its services wait for it.
    #[default]
    Host,
    /// On the disk of a second host as well, which takes the service over when the first one is lost.
    Replica,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Memory for cached view blocks.
    pub memory_mib: u64,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged, as in `RUST_LOG`, which goes before it.
    pub filter: String,
    /// `text` or `json`.
    pub format: String,
}

/// `[trace]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// Of a thousand requests so many are traced, besides those whose caller traces them.
    pub sample_per_1000: u32,
    /// Spans kept in memory; 0 records nothing.
    pub spans_max: usize,
    /// The collector that spans are sent to by OTLP over HTTP: its URL without a path. None while it is empty.
    pub otlp: String,
}

impl Default for Data {
    fn default() -> Self {
        Self { bytes_max: 10 * 1024 * 1024 * 1024 }
    }
}

impl Default for CellSettings {
    fn default() -> Self {
        Self { name: "cell".to_owned() }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: HTTP_PORT,
            body_bytes_max: 4 * 1024 * 1024,
            requests_per_second_max: 2_000,
            connections_max: 1_024,
            streams_max: 256,
            workers: 1,
            cors_origins: Vec::new(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            listen: listen_on(PEER_PORT),
            mdns: false,
            connections_max: 256,
            connections_per_peer_max: 4,
            requests_per_peer_max: 16,
            frame_bytes_max: 8 * 1024 * 1024,
            request_timeout_ms: 10_000,
            threads: 0,
        }
    }
}

impl Default for Bridge {
    fn default() -> Self {
        Self { listen: vec![format!("/ip4/127.0.0.1/tcp/{BRIDGE_PORT}")], lease_ms: 2_500 }
    }
}

impl Default for Message {
    fn default() -> Self {
        Self { ttl_ms: 24 * 3600 * 1000, retry_ms_max: 30_000, batch_max: 128, batches_in_flight_max: 2 }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self { trust_half_life_days: 30, shared_min: 5, session_ttl_s: 3600 }
    }
}

impl Default for Consensus {
    fn default() -> Self {
        Self { event_interval_us: 2_000, patience_us: 20_000, checkpoint_blocks: 1_024 }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self { mailbox_max: 1_024, in_flight_max: 4_096, restarts_max: 3, restart_window_s: 60 }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { memory_mib: 16 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info,libp2p=warn,actix_server=warn,openraft=error".to_owned(),
            format: "text".to_owned(),
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self { sample_per_1000: 10, spans_max: 4_096, otlp: String::new() }
    }
}

/// Where peers are listened for on a port of this machine: TCP, QUIC, and WebSocket on the next port.
pub fn listen_on(port: u16) -> Vec<String> {
    addresses("/ip4/127.0.0.1", port)
}

/// Where other hosts of the cell are listened for, where peers are on this port: two above it.
pub fn bridge_on(peer_port: u16) -> Vec<String> {
    let port = if peer_port == 0 { 0 } else { peer_port.saturating_add(2) };
    vec![format!("/ip4/127.0.0.1/tcp/{port}")]
}

/// The same, of a host: `/ip4/…`, `/ip6/…` or `/dns/…`.
pub fn addresses(host: &str, port: u16) -> Vec<String> {
    let websocket = if port == 0 { 0 } else { port.saturating_add(1) };
    vec![
        format!("{host}/tcp/{port}"),
        format!("{host}/udp/{port}/quic-v1"),
        format!("{host}/tcp/{websocket}/ws"),
    ]
}

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `cell.toml`.
    File,
    /// `CELL__SECTION__KEY`.
    Env,
    /// A flag.
    Flag,
}

/// Settings with where each comes from, by `section.key`.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each comes from.
    pub origins: BTreeMap<String, Origin>,
}

/// Loads the settings of a cell's folder. `flags` go before everything: `section.key` and value.
///
/// # Errors
///
/// `config.unreadable`, `config.unknown_key` with the nearest one, `config.bad_value`.
pub fn load(dir: &Path, flags: &[(&str, String)]) -> Result<Loaded, Problem> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let cause = format!("{}: {error}", path.display());
            return Err(Problem::new(ProblemKind::Invalid, "config.unreadable", cause)
                .hint("check the file's permissions"));
        }
    };
    let known = known_keys();
    let mut origins: BTreeMap<String, Origin> =
        known.iter().map(|key| (key.clone(), Origin::Default)).collect();
    for key in edit::keys_of(&text, &path)? {
        check_key(&known, &key, &path.display().to_string())?;
        origins.insert(key, Origin::File);
    }
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix("CELL__").map(str::to_owned)) else {
            continue;
        };
        let key = name.to_lowercase().replace("__", ".");
        check_key(&known, &key, &format!("the environment (CELL__{name})"))?;
        origins.insert(key, Origin::Env);
    }
    let environment = Environment::with_prefix("CELL")
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("network.listen")
        .with_list_parse_key("bridge.listen")
        .with_list_parse_key("http.cors_origins");
    let mut builder =
        Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).add_source(environment);
    for (key, value) in flags {
        check_key(&known, key, "the command")?;
        builder = builder
            .set_override(*key, value.as_str())
            .map_err(|error| bad_value(&path, &error.to_string()))?;
        origins.insert((*key).to_owned(), Origin::Flag);
    }
    let settings: Settings = builder
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| bad_value(&path, &error.to_string()))?;
    check(&settings, &path)?;
    Ok(Loaded { settings, origins })
}

/// Every `section.key` there is.
pub fn known_keys() -> Vec<String> {
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let mut keys = Vec::new();
    for (section, values) in defaults.as_object().into_iter().flatten() {
        keys.extend(values.as_object().into_iter().flatten().map(|(key, _)| format!("{section}.{key}")));
    }
    keys
}

fn check_key(known: &[String], key: &str, place: &str) -> Result<(), Problem> {
    if known.iter().any(|known| known == key) {
        return Ok(());
    }
    let nearest =
        known.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
    Err(Problem::new(
        ProblemKind::Invalid,
        "config.unknown_key",
        format!("{place} sets {key}, which is no setting"),
    )
    .hint(format!("did you mean {}? cell config show lists them all", nearest.map_or("", String::as_str))))
}

fn bad_value(path: &Path, why: &str) -> Problem {
    Problem::new(
        ProblemKind::Invalid,
        "config.bad_value",
        format!("{} or the environment: {why}", path.display()),
    )
    .hint("cell config show lists every setting with its default")
}

/// The fewest states that are kept, unless all are: others read a checkpoint from them while new blocks come.
const KEEP_BLOCKS_MIN: u64 = 1_024;

/// What types cannot say.
fn check(settings: &Settings, path: &Path) -> Result<(), Problem> {
    let wrong = if settings.cell.name.is_empty() || settings.cell.name.len() > 64 {
        "cell.name has 1 to 64 bytes"
    } else if settings.http.workers == 0 || settings.http.workers > 64 {
        "http.workers is from 1 to 64"
    } else if settings.http.requests_per_second_max == 0 {
        "http.requests_per_second_max is at least 1"
    } else if settings.service.mailbox_max == 0 {
        "service.mailbox_max is at least 1"
    } else if !(1..=65_536).contains(&settings.service.in_flight_max) {
        "service.in_flight_max is from 1 to 65536"
    } else if settings.network.frame_bytes_max < 2 * 1024 * 1024 {
        "network.frame_bytes_max is at least 2097152, to hold the largest message"
    } else if settings.message.batch_max == 0 || settings.message.batch_max > 1_000 {
        "message.batch_max is from 1 to 1000"
    } else if settings.message.batches_in_flight_max == 0 || settings.message.batches_in_flight_max > 16 {
        "message.batches_in_flight_max is from 1 to 16"
    } else if !(500..=60_000).contains(&settings.bridge.lease_ms) {
        "bridge.lease_ms is from 500 to 60000"
    } else if settings.network.threads > 64 {
        "network.threads is at most 64"
    } else if !(100..=1_000_000).contains(&settings.consensus.event_interval_us) {
        "consensus.event_interval_us is from 100 to 1000000"
    } else if settings.consensus.checkpoint_blocks == 0 {
        "consensus.checkpoint_blocks is at least 1"
    } else if (1..KEEP_BLOCKS_MIN).contains(&settings.state.keep_blocks) {
        "state.keep_blocks is 0, or at least 1024"
    } else if !(1_000..=10_000_000).contains(&settings.consensus.patience_us) {
        "consensus.patience_us is from 1000 to 10000000"
    } else if settings.identity.trust_half_life_days == 0 {
        "identity.trust_half_life_days is at least 1"
    } else if !["text", "json"].contains(&settings.log.format.as_str()) {
        "log.format is text or json"
    } else if settings.trace.sample_per_1000 > 1_000 {
        "trace.sample_per_1000 is at most 1000"
    } else if settings.trace.spans_max > 100_000 {
        "trace.spans_max is at most 100000"
    } else if !(settings.trace.otlp.is_empty() || settings.trace.otlp.starts_with("http://")) {
        "trace.otlp is empty, or begins with http:// (a collector beside the cell speaks TLS for it)"
    } else {
        return Ok(());
    };
    Err(bad_value(path, wrong))
}

impl Settings {
    /// The settings as JSON: no secret is among them.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Loaded, Problem> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join(FILE), text).expect("writes");
        load(dir.path(), &[("http.port", "0".to_owned())])
    }

    #[test]
    fn the_file_goes_before_defaults_and_flags_before_the_file() {
        let loaded = load_text("[cell]\nname = \"alice\"\n[http]\nport = 9\n").expect("loads");
        assert_eq!((loaded.settings.cell.name.as_str(), loaded.settings.http.port), ("alice", 0));
        assert_eq!(loaded.origins["cell.name"], Origin::File);
        assert_eq!(loaded.origins["http.port"], Origin::Flag);
        assert_eq!(loaded.origins["http.host"], Origin::Default);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let problem = load_text("[http]\nprot = 9\n").expect_err("unknown");
        assert_eq!(problem.code, "config.unknown_key");
        assert!(problem.hint.expect("advice").contains("http.port"));
    }

    #[test]
    fn bad_values_are_refused() {
        for text in [
            "[http]\nbody_bytes_max = \"many\"\n",
            "[http]\nworkers = 0\n",
            "not toml",
            "[log]\nformat = \"xml\"\n",
            "[trace]\notlp = \"https://example.org\"\n",
        ] {
            assert_eq!(load_text(text).expect_err(text).code, "config.bad_value", "{text}");
        }
    }

    #[test]
    fn the_documented_file_loads_as_the_settings_it_documents() {
        let mut settings = Settings::default();
        settings.cell.name = "bob".to_owned();
        settings.http.port = 0;
        assert_eq!(load_text(&documented_toml(&settings)).expect("loads").settings, settings);
    }
}
