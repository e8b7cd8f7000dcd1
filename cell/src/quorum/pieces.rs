//! A snapshot that comes in pieces: one at a time, the newest.

use std::sync::{Mutex, PoisonError};

use protocol::{HostId, Problem};

use super::problems;
use super::types::{Snapshot, SnapshotMeta, Vote};
use super::wire::Piece;

/// What has come so far.
pub(super) struct Incoming {
    bytes_max: usize,
    coming: Mutex<Option<Coming>>,
}

struct Coming {
    from: HostId,
    vote: Vote,
    meta: SnapshotMeta,
    total: u64,
    bytes: Vec<u8>,
}

impl Incoming {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, coming: Mutex::new(None) }
    }

    /// Takes a piece; with the last one, gives the whole.
    ///
    /// # Errors
    ///
    /// `quorum.too_large`; `quorum.garbled` of a piece that does not follow on the last one: the sender begins anew.
    pub(super) fn take(&self, from: HostId, piece: Piece) -> Result<Option<(Vote, Snapshot)>, Problem> {
        let total = usize::try_from(piece.total).unwrap_or(usize::MAX);
        if total > self.bytes_max {
            return Err(problems::too_large(total, self.bytes_max));
        }
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if piece.offset == 0 {
            let Piece { vote, meta, total, .. } = piece.clone();
            *coming = Some(Coming { from, vote, meta, total, bytes: Vec::new() });
        }
        let follows = coming.as_ref().is_some_and(|coming| coming.is_followed_by(from, &piece));
        let Some(mut so_far) = coming.take().filter(|_| follows) else {
            return Err(problems::garbled(&"a piece of a snapshot does not follow on the one before"));
        };
        so_far.bytes.extend_from_slice(&piece.bytes.0);
        if so_far.bytes.len() < total {
            *coming = Some(so_far);
            return Ok(None);
        }
        let snapshot = Snapshot { meta: so_far.meta, snapshot: Ok(so_far.bytes) };
        Ok(Some((so_far.vote, snapshot)))
    }
}

impl Coming {
    fn is_followed_by(&self, from: HostId, piece: &Piece) -> bool {
        let end = piece.offset.saturating_add(piece.bytes.0.len() as u64);
        self.from == from
            && self.vote == piece.vote
            && self.meta == piece.meta
            && self.total == piece.total
            && self.bytes.len() as u64 == piece.offset
            && end <= self.total
    }
}
