//! Sessions: a challenge, its response, a bearer token.

use machine::{Context, Fault, Read, Write, answer, commit, refuse};
use protocol::identity::{Answer, Challenge, OpenSessionRequest, OpenedSession, SessionView};
use protocol::shared::ListRequest;
use protocol::{CellId, Hash};

use crate::tables::{CHALLENGES, SESSIONS};
use crate::{Decided, IdentityMachine, Record, Refusal, derive};

pub(crate) fn challenge(machine: &IdentityMachine, context: &Context, cell: CellId) -> Decided {
    let nonce = derive("celluler/challenge/1", &context.entropy);
    let record = Record::Challenged {
        cell,
        nonce_hash: Hash::of(nonce.as_bytes()),
        expires_ms: context.now_ms + machine.settings.challenge_ttl_ms,
    };
    commit(vec![record], Answer::IssueChallenge(Challenge { nonce }))
}

pub(crate) fn open(
    machine: &IdentityMachine,
    view: &dyn Read,
    context: &Context,
    asked: &OpenSessionRequest,
) -> Decided {
    match CHALLENGES.get(view, &asked.cell)? {
        Some((hash, _)) if hash != Hash::of(asked.nonce.as_bytes()) => return refuse(Refusal::BadChallenge),
        Some((_, expires_ms)) if context.now_ms >= expires_ms => return refuse(Refusal::ChallengeExpired),
        Some(_) => {}
        None => return refuse(Refusal::BadChallenge),
    }
    let bearer = format!("session_{}", derive("celluler/session/1", &context.entropy));
    let expires_ms = context.now_ms + machine.settings.session_ttl_ms;
    let record = Record::SessionOpened { cell: asked.cell, hash: Hash::of(bearer.as_bytes()), expires_ms };
    commit(vec![record], Answer::OpenSession(OpenedSession { bearer, expires_ms }))
}

pub(crate) fn of_bearer(view: &dyn Read, context: &Context, hash: &Hash) -> Decided {
    match SESSIONS.get(view, hash)? {
        None => refuse(Refusal::BadSession),
        Some(row) if context.now_ms >= row.expires_ms => refuse(Refusal::SessionExpired),
        Some(row) => answer(Answer::Session(SessionView {
            cell: row.cell,
            opened_ms: row.opened_ms,
            expires_ms: row.expires_ms,
        })),
    }
}

pub(crate) fn list(view: &dyn Read, context: &Context, list: &ListRequest) -> Decided {
    let after = match list.cursor.as_ref().map(|cursor| cursor.parse::<Hash>()).transpose() {
        Ok(after) => after,
        Err(_) => return refuse(Refusal::BadCursor),
    };
    let live = SESSIONS
        .scan(view, &(), after.as_ref(), false)
        .filter(|row| row.as_ref().map_or(true, |(_, row)| context.now_ms < row.expires_ms));
    let page = machine::page::collect(live, list.limit(), |(hash, row)| {
        (
            SessionView { cell: row.cell, opened_ms: row.opened_ms, expires_ms: row.expires_ms },
            hash.to_string(),
        )
    })?;
    answer(Answer::Tokens(page))
}

/// Removes every session of a cell from the view.
pub(crate) fn close(view: &mut dyn Write, cell: &CellId) -> Result<(), Fault> {
    let mut closed = Vec::new();
    for row in SESSIONS.scan(view, &(), None, false) {
        let (hash, row) = row?;
        if row.cell == *cell {
            closed.push(hash);
        }
    }
    closed.iter().for_each(|hash| SESSIONS.delete(view, hash));
    Ok(())
}
