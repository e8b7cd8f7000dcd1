//! Signals: words of Nucleus for what is told to whoever listens now.

words! {
    /// How the listener of a group is chosen where no key says it.
    #[derive(Copy, Eq, Default)]
    #[serde(rename_all = "snake_case")]
    pub enum Balance {
        /// The one with the fewest signals waiting; among equals in turns.
        #[default]
        LeastLoad,
        /// One after the other.
        RoundRobin,
        /// One on the host that the teller asked, where there is one; then the one with the fewest waiting.
        PreferLocal,
        /// One on the host that is nearest to the one that leads, by the last round trip; then the one with the fewest waiting.
        LeastLatency,
    }

    /// Something to be told to one listener of each group.
    #[serde(deny_unknown_fields)]
    pub struct EmitRequest {
        /// Its name: 1 to 64 of `a-z`, `0-9`, `.`, `-`, `_`.
        pub name: String,
        /// What is told: any JSON, 64 KiB at most; null unless told.
        #[serde(default)]
        pub body: serde_json::Value,
        /// Signals with the same key go to the same listener of a group, as long as it listens and keeps up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub key: Option<String>,
        /// How the listener is chosen where there is no key.
        #[serde(default)]
        pub balance: Balance,
    }

    /// Something to be told to every listener.
    #[serde(deny_unknown_fields)]
    pub struct BroadcastRequest {
        /// Its name: 1 to 64 of `a-z`, `0-9`, `.`, `-`, `_`.
        pub name: String,
        /// What is told: any JSON, 64 KiB at most; null unless told.
        #[serde(default)]
        pub body: serde_json::Value,
    }

    /// What became of a signal.
    #[derive(Copy, Eq, Default)]
    pub struct Told {
        /// Listeners that will hear it.
        pub listeners: u32,
        /// Groups, and listeners without a group, that had no room for it: they do not keep up.
        pub missed: u32,
    }

    /// Which signals to hear.
    #[derive(Eq, Default)]
    #[serde(deny_unknown_fields)]
    pub struct ListenRequest {
        /// Their names, joined by commas; `a.b.*` stands for all that begin with `a.b.`. All signals unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub names: Option<String>,
        /// Of the listeners of a group one hears what is emitted. Without a group this listener hears everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub group: Option<String>,
    }

    /// A signal, as its listeners hear it.
    pub struct Signal {
        /// Its name.
        pub name: String,
        /// What was told.
        pub body: serde_json::Value,
        /// By what it was given to a listener, if by a key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub key: Option<String>,
        /// Who told it: `token:NAME`, or `internal`.
        pub from: String,
        /// When, in milliseconds since 1970 (UTC).
        pub time_ms: u64,
    }

    /// A line of a listener's stream.
    pub struct Heard {
        /// Signals that found no room for this listener since the line before.
        pub missed: u64,
        /// The signal; none in the first line, which says that it is listened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub signal: Option<Signal>,
    }
}
