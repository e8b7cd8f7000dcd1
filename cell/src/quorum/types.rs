//! What openraft is told to work with.

use std::fmt;
use std::sync::Arc;

use openraft::impls::EmptyNode;
use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::alias::{
    EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::vote::leader_id_std::CommittedLeaderId;
use protocol::{HostId, Problem};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::machine::Machine;

openraft::declare_raft_types!(
    /// Payloads are bytes, a node is known by its host's key, and a term has one leader at most.
    pub(super) Types:
        D = Payload,
        R = (),
        NodeId = Voter,
        Node = EmptyNode,
        LeaderId = LeaderId<Self::Term, Self::NodeId>,
);

pub(super) type Raft = openraft::Raft<Types, Machine>;
pub(super) type Metrics = openraft::RaftMetrics<Types>;
pub(super) type Vote = VoteOf<Types>;
pub(super) type LogId = LogIdOf<Types>;
pub(super) type Entry = EntryOf<Types>;
pub(super) type Members = StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(super) type Snapshot = SnapshotOf<Types, SnapshotBytes>;

/// A snapshot, or why there is none: that keeps one host behind, and is no fault of the one that leads.
pub(super) type SnapshotBytes = Result<Vec<u8>, Problem>;

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

/// A host, as openraft knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Voter(pub(super) HostId);

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Voter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Voter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_bytes(Bytes)?;
        let key: [u8; 32] =
            bytes[..].try_into().map_err(|_| D::Error::invalid_length(bytes.len(), &"32 bytes"))?;
        Ok(Self(HostId::from_bytes(key)))
    }
}

/// What an entry carries, shared between the log, the questions to other hosts and the state machine.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Payload(pub(super) Arc<[u8]>);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({self})")
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Bytes).map(|bytes| Self(bytes.into()))
    }
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(bytes.to_vec())
    }
}
