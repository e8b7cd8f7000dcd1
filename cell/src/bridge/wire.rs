//! What hosts of one cell say to each other, besides calls. CBOR.

use minicbor::{Decode, Encode};
use protocol::nucleus::{HostEntry, Roster};
use protocol::trace::{SpanView, TraceSummary};
use protocol::{CellId, Hash, Problem, Service};
use zeroize::Zeroizing;

use crate::actor::Grant;
use crate::keys::JournalKeys;
use crate::node::Appointment;

/// What a host says right after a connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Hello {
    /// Its cell.
    #[n(0)]
    pub(super) cell: CellId,
    /// Its name.
    #[n(1)]
    pub(super) name: String,
    /// Rises with every start of its process.
    #[n(2)]
    pub(super) incarnation: u64,
    /// The software's version.
    #[n(3)]
    pub(super) version: String,
}

/// The keys of a journal and the right to write it, for one host.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Granted {
    #[n(0)]
    pub(super) service: Service,
    #[n(1)]
    pub(super) epoch: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    seed: [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    encryption: [u8; 32],
    #[n(4)]
    generation: u32,
    /// The entries that the journal has at least.
    #[n(5)]
    pub(super) length: u64,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Granted({}, epoch {}, {} entries, secret)", self.service, self.epoch, self.length)
    }
}

impl Granted {
    pub(super) fn new(service: Service, epoch: u64, keys: &JournalKeys, length: u64) -> Self {
        let JournalKeys { seed, encryption, generation } = keys;
        Self { service, epoch, seed: **seed, encryption: **encryption, generation: *generation, length }
    }

    pub(super) fn appointment(&self) -> Appointment {
        let keys = JournalKeys {
            seed: Zeroizing::new(self.seed),
            encryption: Zeroizing::new(self.encryption),
            generation: self.generation,
        };
        Appointment { grant: Grant::by_lead(self.service, self.epoch), keys, witnessed: self.length }
    }
}

/// An effect, and its id, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct WireEffect {
    #[n(0)]
    pub(super) id: machine::EffectId,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) effect: Vec<u8>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Ask {
    /// To become a host, by a ticket's secret. Asked of the lead, by anybody.
    #[n(0)]
    Join {
        #[cbor(n(0), with = "minicbor::bytes")]
        secret: [u8; 32],
        #[n(1)]
        host: HostEntry,
    },
    /// The lead tells who the hosts are.
    #[n(1)]
    Roster {
        #[n(0)]
        roster: Roster,
    },
    /// The lead has a journal copied, and asks how far the copy is.
    #[n(2)]
    Copy {
        #[n(0)]
        service: Service,
        #[n(1)]
        key: Hash,
        /// What it is encrypted with, if it is.
        #[cbor(n(2), with = "minicbor::bytes")]
        encryption: Option<[u8; 32]>,
    },
    /// The lead has a service run.
    #[n(3)]
    Start {
        #[n(0)]
        granted: Granted,
    },
    /// The lead has a service stopped, and asks where its journal ends.
    #[n(4)]
    Stop {
        #[n(0)]
        service: Service,
    },
    /// What a service asks of the world. Asked of the lead.
    #[n(5)]
    Effects {
        #[n(0)]
        service: Service,
        #[n(1)]
        effects: Vec<WireEffect>,
        /// Whether some are missing before these.
        #[n(2)]
        missed: bool,
    },
    /// What was recorded of a trace. Asked of any host, by any host.
    #[n(16)]
    Spans {
        #[cbor(n(0), with = "minicbor::bytes")]
        trace: [u8; 16],
    },
    /// The latest traces. Asked of any host, by any host.
    #[n(17)]
    Traces {
        #[n(0)]
        limit: u32,
    },
}

/// What is replied.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Reply {
    /// It was done.
    #[n(0)]
    Done,
    /// It was not, and why.
    #[n(1)]
    Refused {
        #[n(0)]
        problem: Problem,
    },
    /// Part of the cell.
    #[n(2)]
    Joined {
        #[n(0)]
        cell: CellId,
        /// The genesis, as JSON.
        #[n(1)]
        genesis: String,
        /// The cell's settings, as JSON.
        #[n(2)]
        settings: String,
        /// The host that leads.
        #[n(3)]
        lead: HostEntry,
        /// A token that may read, for the host's own command line.
        #[n(4)]
        token: String,
    },
    /// How far a copy is.
    #[n(3)]
    Copied {
        /// Entries that are here.
        #[n(0)]
        have: u64,
        /// Entries that the journal is known to have.
        #[n(1)]
        length: u64,
        /// Whether it has all that its sources have, one at least.
        #[n(2)]
        is_settled: bool,
    },
    /// Where a journal ends.
    #[n(4)]
    Ends {
        #[n(0)]
        length: u64,
    },
    /// Spans of a trace.
    #[n(16)]
    Spans {
        #[n(0)]
        spans: Vec<SpanView>,
    },
    /// Traces, the newest first.
    #[n(17)]
    Traces {
        #[n(0)]
        traces: Vec<TraceSummary>,
    },
}
