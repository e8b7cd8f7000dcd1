//! Asking another member, over the caller's transport.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use openraft::RPCTypes;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::impls::EmptyNode;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkV2};
use protocol::{HostId, Problem};
use tokio::time::timeout;

use super::settings::Settings;
use super::types::{Payload, Snapshot, SnapshotBytes, Types, Vote, Voter};
use super::wire::{self, Answer, Ask, PIECE_BYTES_MAX, Piece};

/// What carries questions to other hosts.
///
/// A question may get lost, be late, come twice or out of order, and so may an answer. It has to come from whom it says: the other end hands the
/// host that it knows to be asking to [`super::Quorum::answer`].
pub trait Transport: Send + Sync + 'static {
    /// Asks a host and waits for its answer. Given up by dropping it.
    fn ask(&self, to: HostId, bytes: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Problem>>;
}

/// Makes the ways to other members.
pub(super) struct Peers {
    me: Voter,
    transport: Arc<dyn Transport>,
    append_timeout: Duration,
    snapshot_timeout: Duration,
}

impl Peers {
    pub(super) fn new(me: Voter, transport: Arc<dyn Transport>, settings: &Settings) -> Self {
        let Settings { append_timeout, snapshot_timeout, .. } = *settings;
        Self { me, transport, append_timeout, snapshot_timeout }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: Voter, _: &EmptyNode) -> Peer {
        Peer {
            me: self.me,
            to: target,
            transport: Arc::clone(&self.transport),
            append_timeout: self.append_timeout,
            snapshot_timeout: self.snapshot_timeout,
        }
    }
}

/// The way to one member.
pub(super) struct Peer {
    me: Voter,
    to: Voter,
    transport: Arc<dyn Transport>,
    append_timeout: Duration,
    snapshot_timeout: Duration,
}

impl Peer {
    async fn ask(&self, action: RPCTypes, ask: &Ask, limit: Duration) -> Result<Answer, RPCError<Types>> {
        let asked = self.transport.ask(self.to.0, wire::encode(ask));
        let bytes = match timeout(limit, asked).await {
            Ok(bytes) => bytes.map_err(|problem| unreachable(&problem))?,
            Err(_) => {
                let (id, target) = (self.me, self.to);
                return Err(Timeout { action, id, target, timeout: limit }.into());
            }
        };
        match wire::decode(&bytes) {
            Ok(Answer::Refused(problem)) | Err(problem) => Err(unreachable(&problem)),
            Ok(answer) => Ok(answer),
        }
    }
}

fn unreachable(problem: &Problem) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(problem))
}

/// An answer to another question.
fn misplaced() -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string("an answer to something else"))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // openraft gives a heartbeat's interval for both, and entries have to be synced.
        let limit = if request.entries.is_empty() { option.soft_ttl() } else { self.append_timeout };
        match self.ask(RPCTypes::AppendEntries, &Ask::Append(request), limit).await? {
            Answer::Append(answer) => Ok(answer),
            _ => Err(misplaced()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(RPCTypes::Vote, &Ask::Vote(request), option.soft_ttl()).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(misplaced()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(RPCTypes::Vote, &Ask::PreVote(request), option.soft_ttl()).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(misplaced()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Snapshot { meta, snapshot } = snapshot;
        let bytes = snapshot.map_err(|problem| {
            tracing::warn!(to = %self.to, "no snapshot for a host that is behind: {problem}");
            StreamingError::Unreachable(Unreachable::new(&problem))
        })?;
        let mut cancel = pin!(cancel);
        let total = bytes.len() as u64;
        let mut offset = 0;
        loop {
            let end = bytes.len().min(offset + PIECE_BYTES_MAX);
            let ask = Ask::Piece(Piece {
                vote,
                meta: meta.clone(),
                total,
                offset: offset as u64,
                bytes: Payload(bytes[offset..end].into()),
            });
            let asked = pin!(self.ask(RPCTypes::InstallSnapshot, &ask, self.snapshot_timeout));
            let answer = match select(cancel.as_mut(), asked).await {
                Either::Left((closed, _)) => return Err(closed.into()),
                Either::Right((answer, _)) => answer.map_err(streaming)?,
            };
            match answer {
                Answer::Installed(response) => return Ok(response),
                Answer::Piece if end < bytes.len() => offset = end,
                _ => return Err(streaming(misplaced())),
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask(RPCTypes::TransferLeader, &Ask::HandOver(request), option.hard_ttl()).await? {
            Answer::HandOver(answer) => Ok(answer),
            _ => Err(misplaced()),
        }
    }
}

fn streaming(error: RPCError<Types>) -> StreamingError<Types> {
    match error {
        RPCError::Timeout(error) => error.into(),
        RPCError::Unreachable(error) => error.into(),
        RPCError::Network(error) => error.into(),
        RPCError::RemoteError(error) => match error.source {},
    }
}
