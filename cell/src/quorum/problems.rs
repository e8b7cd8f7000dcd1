//! Why not, in words with stable codes.

use std::fmt::Display;

use openraft::error::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError,
    RaftError,
};
use protocol::{HostId, Problem, ProblemKind};

use super::types::{LogId, Types};

const JOIN_ANEW: &str = "remove this host from the cell and let it join anew under another key; the others have what was committed";

pub(super) fn settings(why: &dyn Display) -> Problem {
    Problem::new(ProblemKind::Invalid, "quorum.settings", format!("these times do not fit together: {why}"))
        .hint("several heartbeats have to fit into the shortest election, and the shortest is less than the longest")
}

pub(super) fn log(why: &dyn Display) -> Problem {
    Problem::new(ProblemKind::Fault, "quorum.log", format!("this host's votes and log cannot be used: {why}"))
        .hint(JOIN_ANEW)
}

/// Where something ends, in words.
fn end(last: Option<LogId>) -> String {
    last.map_or("nothing".to_owned(), |last| format!("entry {} of term {}", last.index, last.leader_id.term))
}

pub(super) fn log_short(applied: Option<LogId>, last: Option<LogId>) -> Problem {
    Problem::new(
        ProblemKind::Fault,
        "quorum.log_short",
        format!(
            "{} was applied here, and the log ends with {}: it was lost, or comes from an older copy",
            end(applied),
            end(last)
        ),
    )
    .hint(JOIN_ANEW)
}

pub(super) fn state_short(applied: Option<LogId>, handed: Option<LogId>) -> Problem {
    Problem::new(
        ProblemKind::Fault,
        "quorum.state_short",
        format!(
            "{} was applied here once, and the state ends with {}: it was lost, or comes from an older copy",
            end(handed),
            end(applied)
        ),
    )
    .hint(JOIN_ANEW)
}

pub(super) fn start(error: Fatal<Types>) -> Problem {
    log(&error)
}

pub(super) fn stopped(error: Fatal<Types>) -> Problem {
    match error {
        Fatal::Stopped => Problem::new(ProblemKind::Unavailable, "quorum.stopped", "this host is stopping"),
        error => Problem::new(
            ProblemKind::Fault,
            "quorum.stopped",
            format!("this host takes no part any more: {error}"),
        )
        .hint("start the host again when its disk is well"),
    }
}

pub(super) fn begin(error: RaftError<Types, InitializeError<Types>>) -> Problem {
    match error {
        RaftError::APIError(_) => {
            Problem::new(ProblemKind::Conflict, "quorum.begun", "this host is of a group already")
        }
        RaftError::Fatal(fatal) => stopped(fatal),
    }
}

pub(super) fn not_leading(leader: Option<HostId>) -> Problem {
    let cause = match leader {
        Some(leader) => format!("host {leader} leads this cell"),
        None => "another host leads this cell, or none does yet".to_owned(),
    };
    Problem::new(ProblemKind::Unavailable, "bridge.not_leading", cause).hint("cell hosts shows which")
}

pub(super) fn forward(forward: &ForwardToLeader<Types>) -> Problem {
    match forward.reason {
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            not_leading(forward.leader_id.map(|leader| leader.0))
        }
        ForwardReason::LeaseExpired => Problem::new(
            ProblemKind::Unavailable,
            "quorum.no_majority",
            "this host leads, but has not heard from a majority of the hosts lately",
        )
        .hint("cell hosts shows which are connected; asking again later is safe"),
    }
}

/// Of a write that was handed to openraft: a definite no, or not known.
pub(super) fn write(error: RaftError<Types, ClientWriteError<Types>>) -> Problem {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => forward(&to),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            unknown_outcome("another host has come to lead")
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(
            _,
        ))) => {
            Problem::new(ProblemKind::Busy, "quorum.changing", "another change of the members is under way")
                .hint("ask again when it is over")
        }
        RaftError::APIError(error) => {
            Problem::new(ProblemKind::Conflict, "quorum.change_refused", error.to_string())
        }
        RaftError::Fatal(error) => unknown_outcome(&error.to_string()),
    }
}

pub(super) fn rpc(error: RaftError<Types>) -> Problem {
    match error {
        RaftError::APIError(never) => match never {},
        RaftError::Fatal(fatal) => stopped(fatal),
    }
}

pub(super) fn unknown_outcome(why: &str) -> Problem {
    Problem::new(
        ProblemKind::UnknownOutcome,
        "quorum.unknown_outcome",
        format!("it is not known whether the hosts will commit this: {why}"),
    )
    .hint("ask again with the same request id: it is carried out once")
}

pub(super) fn too_large(bytes: usize, bytes_max: usize) -> Problem {
    Problem::new(
        ProblemKind::TooLarge,
        "quorum.too_large",
        format!("{bytes} bytes, and {bytes_max} are the most"),
    )
}

pub(super) fn busy(what: &str) -> Problem {
    Problem::new(ProblemKind::Busy, "quorum.busy", format!("too many {what} are under way"))
        .hint("ask again later")
}

pub(super) fn full(members: usize) -> Problem {
    Problem::new(ProblemKind::Conflict, "quorum.full", format!("the group has {members} members already"))
        .hint("remove one that is not needed")
}

pub(super) fn itself() -> Problem {
    Problem::new(ProblemKind::Conflict, "quorum.itself", "a host does not remove itself")
        .hint("hand over to another host, and ask that one")
}

pub(super) fn unknown_host(host: HostId) -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "quorum.unknown_host",
        format!("host {host} is not a member that could do this"),
    )
}

pub(super) fn not_handed_over(to: HostId) -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "quorum.not_handed_over",
        format!("host {to} has not taken over in time"),
    )
    .hint("this host holds no lease until somebody begins a term: hand over again")
}

pub(super) fn silent() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "quorum.silent",
        "this host was started just now, and may have promised its vote",
    )
}

pub(super) fn not_its_own(from: HostId) -> Problem {
    Problem::new(ProblemKind::Denied, "quorum.not_its_own", format!("host {from} speaks for another"))
}

pub(super) fn garbled(why: &dyn Display) -> Problem {
    Problem::new(
        ProblemKind::Invalid,
        "quorum.garbled",
        format!("this is not what members of a group say: {why}"),
    )
    .hint("hosts of one cell run versions that fit: cell hosts shows them")
}
