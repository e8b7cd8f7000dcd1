//! What hosts of one cell say to each other, besides calls. CBOR.

use minicbor::{Decode, Encode};
use protocol::nucleus::{GrantView, HostEntry, Roster};
use protocol::trace::{SpanView, TraceSummary};
use protocol::{CellId, Hash, HostId, Problem, Service};
use zeroize::Zeroizing;

use super::registry::Status;
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
    /// The fork that they are of.
    #[n(6)]
    #[cbor(default)]
    pub(super) fork: u64,
    /// Whether nothing may be released that the replica of the host that leads has not.
    #[n(7)]
    #[cbor(default)]
    replicated: bool,
    /// Whether the writer before is not known to have stopped.
    #[n(8)]
    #[cbor(default)]
    takeover: bool,
}

/// How far a journal is, or a copy of it.
///
/// What was taken over later stands before what is longer: its fork is the higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub(super) fork: u64,
    pub(super) length: u64,
}

impl Head {
    /// Whether whoever has this has every entry of a journal that ends so. Of an empty one there is nothing to have: a copy takes its fork up with its
    /// first entry.
    pub(super) fn reaches(self, end: Self) -> bool {
        self.fork == end.fork && self.length >= end.length || (self.length, end.length) == (0, 0)
    }

    /// Whether a writer may go on from this where the newest that may have been released ends so. Whoever began an empty fork had gathered what was
    /// released before, and found nothing.
    pub(super) fn is_as_new_as(self, newest: Self) -> bool {
        self >= newest || newest.length == 0
    }
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Granted({}, epoch {}, {} entries, secret)", self.service, self.epoch, self.length)
    }
}

impl Granted {
    pub(super) fn new(grant: &GrantView, keys: &JournalKeys, head: Head) -> Self {
        let JournalKeys { seed, encryption, generation } = keys;
        let &GrantView { service, epoch, replicated, takeover, .. } = grant;
        let Head { fork, length } = head;
        let (seed, encryption, generation) = (**seed, **encryption, *generation);
        Self { service, epoch, seed, encryption, generation, length, fork, replicated, takeover }
    }

    pub(super) fn appointment(&self) -> Appointment {
        let keys = JournalKeys {
            seed: Zeroizing::new(self.seed),
            encryption: Zeroizing::new(self.encryption),
            generation: self.generation,
        };
        let grant = Grant::by_lead(self.service, self.epoch, self.replicated, self.takeover);
        Appointment { grant, keys, before: Vec::new(), witnessed: self.length, fork: self.fork }
    }
}

/// Bytes that are not shown.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Secret(#[cbor(n(0), with = "minicbor::bytes")] pub(super) [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("secret")
    }
}

/// The cell's key and what else its keys derive from, for a host that may come to lead.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct CellKeys {
    #[n(0)]
    pub(super) seed: Secret,
    /// The lives that began with a restore, as JSON.
    #[n(1)]
    pub(super) lives: String,
}

impl std::fmt::Debug for CellKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("keys")
    }
}

/// How far a journal is on a host, whether it is written there or copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Held {
    #[n(0)]
    pub(super) service: Service,
    #[n(1)]
    pub(super) fork: u64,
    /// Entries that are there, from the first on.
    #[n(2)]
    pub(super) length: u64,
}

/// A token that is not shown.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Token(#[n(0)] pub(super) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("token")
    }
}

/// What is said without being asked, and not answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Said {
    /// How a host is.
    #[n(0)]
    Status(#[n(0)] Status),
    /// How far a replica is, that of the host that leads or of one that votes: to whoever writes the journal.
    #[n(1)]
    Have {
        #[n(0)]
        service: Service,
        /// Of the grant that it is written under.
        #[n(1)]
        epoch: u64,
        #[n(2)]
        fork: u64,
        #[n(3)]
        length: u64,
    },
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
        #[n(0)]
        secret: Secret,
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
        #[n(2)]
        encryption: Option<Secret>,
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
        /// Of no use: hosts of before leases do not read the others without it.
        #[n(2)]
        #[cbor(default)]
        missed: bool,
    },
    /// Whether what was granted still is. Asked of the lead, again and again.
    #[n(6)]
    Renew,
    /// A question of the election, in the words of `quorum`. Asked of any host that may lead, by any such host.
    #[n(7)]
    Elect {
        #[cbor(n(0), with = "minicbor::bytes")]
        question: Vec<u8>,
    },
    /// How far every journal is there. Asked by the lead, of hosts that vote.
    #[n(8)]
    Held,
    /// Whoever asks leads, in this term. Asked of any host, by a lead that was elected.
    #[n(9)]
    Lead {
        #[n(0)]
        term: u64,
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
        token: Token,
        /// What it takes to lead, if it may come to that.
        #[n(5)]
        keys: Option<CellKeys>,
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
        /// Its fork.
        #[n(3)]
        #[cbor(default)]
        fork: u64,
    },
    /// Where a journal ends.
    #[n(4)]
    Ends {
        #[n(0)]
        length: u64,
        /// Its fork.
        #[n(1)]
        #[cbor(default)]
        fork: u64,
    },
    /// Who may write what, for so long from when it was asked.
    #[n(5)]
    Renewed {
        #[n(0)]
        roster: Roster,
        /// Services of which nothing is promised: they are being taken over.
        #[n(1)]
        except: Vec<Service>,
        #[n(2)]
        lease_ms: u64,
        /// The hosts that vote; none says that there is no election.
        #[n(3)]
        #[cbor(default)]
        voters: Vec<HostId>,
    },
    /// The answer to a question of the election.
    #[n(6)]
    Elected {
        #[cbor(n(0), with = "minicbor::bytes")]
        answer: Vec<u8>,
    },
    /// How far every journal is.
    #[n(7)]
    Held {
        #[n(0)]
        journals: Vec<Held>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_fork_keeps_nobody_waiting_and_nothing_else_is_left_out() {
        let head = |fork, length| Head { fork, length };
        assert!(head(3, 0).reaches(head(4, 0)) && head(3, 0).is_as_new_as(head(4, 0)));
        assert!(head(3, 7).is_as_new_as(head(4, 0)), "whoever began it had gathered what was released");
        assert!(
            !head(3, 7).reaches(head(4, 0)),
            "what nobody has released is not to stand under another fork"
        );
        assert!(!head(3, 7).reaches(head(4, 1)) && !head(3, 7).is_as_new_as(head(4, 1)));
        assert!(!head(4, 6).reaches(head(4, 7)) && !head(4, 6).is_as_new_as(head(4, 7)));
        assert!(head(4, 7).reaches(head(4, 7)) && head(4, 7).is_as_new_as(head(3, 9)));
    }
}
