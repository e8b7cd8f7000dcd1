//! What the members of a group ask of each other. CBOR that names its fields, by `minicbor-serde`: the words are openraft's.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use protocol::{HostId, Problem};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::problems;
use super::types::{Payload, SnapshotMeta, Types, Vote};

/// The most bytes of entries in one question, beyond which it holds one entry.
pub(super) const ENTRIES_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes of a snapshot in one question.
pub(super) const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// A question of one member to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Whether it would be voted for, if it began a term.
    PreVote(VoteRequest<Types>),
    /// A vote.
    Vote(VoteRequest<Types>),
    /// To sync entries; without any it says that the leader is there.
    Append(AppendEntriesRequest<Types>),
    /// To take a piece of a snapshot.
    Piece(Piece),
    /// To lead.
    HandOver(TransferLeaderRequest<Types>),
}

impl Ask {
    /// The member in whose name it is asked.
    pub(super) fn speaker(&self) -> HostId {
        let vote = match self {
            Self::PreVote(request) | Self::Vote(request) => &request.vote,
            Self::Append(request) => &request.vote,
            Self::Piece(piece) => &piece.vote,
            Self::HandOver(request) => request.from_leader(),
        };
        vote.leader_id.voted_for.0
    }

    /// Whether saying yes could break a promise to a leader.
    pub(super) const fn wants_vote(&self) -> bool {
        matches!(self, Self::PreVote(_) | Self::Vote(_) | Self::HandOver(_))
    }
}

/// A piece of a snapshot. Pieces come in order; the first begins at byte 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    /// Bytes of all pieces.
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) bytes: Payload,
}

/// What a member answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To both kinds of votes.
    Vote(VoteResponse<Types>),
    /// To entries.
    Append(AppendEntriesResponse<Types>),
    /// To all pieces but the last.
    Piece,
    /// To the last piece: the snapshot is restored.
    Installed(SnapshotResponse<Types>),
    /// To a request to lead.
    HandOver(TransferLeaderResponse<Types>),
    /// Why there is no answer.
    Refused(Problem),
}

/// A question, an answer or a record in bytes. Encoding these into memory cannot fail.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    minicbor_serde::to_vec(value).expect("writing CBOR into a Vec cannot fail")
}

/// Out of bytes.
///
/// # Errors
///
/// `quorum.garbled`: the other host speaks another version.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    minicbor_serde::from_slice(bytes).map_err(|error| problems::garbled(&error))
}
