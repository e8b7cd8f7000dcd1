//! Who may send what: access lists, replies, introductions, quotas.
//!
//! In this order: a message from this very cell; a type that the access list allows; a reply of the
//! same type to a message that was sent to that cell; a stranger's introduction; nothing else.

use std::collections::BTreeMap;

use machine::{Context, Fault, Read};
use protocol::identity::Admission;
use protocol::message::{Message, MessageType};
use protocol::{CellId, MessageId};

use crate::limits::{
    BYTES_MAX, INTRODUCTION_BYTES_MAX, INTRODUCTION_PENDING_MS_MAX, INTRODUCTIONS_PER_STRANGER_MAX,
    PEER_BYTES_MAX, REPLIES_PER_MESSAGE_MAX, STRANGER_BYTES_MAX, STRANGERS_MAX, UNSETTLED_BYTES_MAX,
    UNSETTLED_PEER_BYTES_MAX, UNSETTLED_PER_PEER_MAX, stored_bytes,
};
use crate::tables::{OUT, PEERS, Peer, REPLIES, ROWS, STRANGERS, TOTALS, Totals};
use crate::{Refusal, asks};

/// Whether an admission lets a cell run an action here.
pub fn may_exec(admission: &Admission, action: &str) -> bool {
    admission.may.contains(&MessageType::Exec) && admission.exec.iter().any(|allowed| allowed == action)
}

/// By which door a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The access list, or it is this cell's own.
    List,
    /// It answers what this cell had asked.
    Reply,
    /// A stranger introduces itself; the one displaced had its chance.
    Introduction { displaces: Option<CellId> },
}

/// A sender while its batch is decided: what the view says, and what the batch has used up so far.
pub(crate) struct Sender {
    pub(crate) cell: CellId,
    pub(crate) peer: Peer,
    admission: Admission,
    totals: Totals,
    replies: BTreeMap<MessageId, usize>,
}

impl Sender {
    pub(crate) fn new(view: &dyn Read, cell: CellId, admission: Admission) -> Result<Self, Fault> {
        let peer = PEERS.get(view, &cell)?.unwrap_or_default();
        let totals = TOTALS.get(view, &())?.unwrap_or_default();
        Ok(Self { cell, peer, admission, totals, replies: BTreeMap::new() })
    }

    /// Decides on a message, and counts it if it may come in.
    pub(crate) fn admit(
        &mut self,
        view: &dyn Read,
        context: &Context,
        message: &Message,
    ) -> Result<Result<Door, Refusal>, Fault> {
        let door = match self.door(view, context, message)? {
            Ok(door) => door,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Err(refusal) = self.fits(message) {
            return Ok(Err(refusal));
        }
        self.count(door, context, message);
        Ok(Ok(door))
    }

    /// Whether its pending introduction has ended: it is a contact. True once.
    pub(crate) fn acquainted(&mut self) -> bool {
        self.admission.contact && self.peer.pending_since_ms.take().is_some()
    }

    fn door(
        &self,
        view: &dyn Read,
        context: &Context,
        message: &Message,
    ) -> Result<Result<Door, Refusal>, Fault> {
        let kind = message.kind;
        if message.sender == message.receiver || self.admission.may.contains(&kind) {
            return Ok(Ok(Door::List));
        }
        if let Some(asked) = &message.in_reply_to
            && let Some(row) = ROWS.get(view, &(*asked, OUT))?
            && row.peer == message.sender
            && row.kind == kind
        {
            let before = REPLIES.scan(view, asked, None, false).take(REPLIES_PER_MESSAGE_MAX).count();
            let replies = before + self.replies.get(asked).copied().unwrap_or_default();
            return Ok(if replies < REPLIES_PER_MESSAGE_MAX {
                Ok(Door::Reply)
            } else {
                Err(Refusal::TooManyReplies)
            });
        }
        if self.admission.contact || !matches!(kind, MessageType::Chat | MessageType::Auth) {
            return Ok(Err(Refusal::NotAllowed { kind }));
        }
        self.introduction(view, context, message)
    }

    fn introduction(
        &self,
        view: &dyn Read,
        context: &Context,
        message: &Message,
    ) -> Result<Result<Door, Refusal>, Fault> {
        let (bytes, bytes_max) = (message.body.len(), INTRODUCTION_BYTES_MAX);
        if bytes > bytes_max {
            return Ok(Err(Refusal::BodyTooLarge { bytes, bytes_max }));
        }
        if self.peer.introductions >= INTRODUCTIONS_PER_STRANGER_MAX {
            return Ok(Err(Refusal::TooManyIntroductions));
        }
        if self.peer.introductions > 0 || self.totals.strangers < STRANGERS_MAX {
            return Ok(Ok(Door::Introduction { displaces: None }));
        }
        let oldest = STRANGERS.scan(view, &(), None, false).next().transpose()?;
        Ok(match oldest {
            Some(((since_ms, stranger), ()))
                if context.now_ms.saturating_sub(since_ms) > INTRODUCTION_PENDING_MS_MAX =>
            {
                Ok(Door::Introduction { displaces: Some(stranger) })
            }
            _ => Err(Refusal::TooManyStrangers),
        })
    }

    /// Whether there is room for it.
    fn fits(&self, message: &Message) -> Result<(), Refusal> {
        let bytes = stored_bytes(message);
        let own = message.sender == message.receiver;
        let quota = match (own, self.admission.contact) {
            (true, _) => BYTES_MAX,
            (false, true) => PEER_BYTES_MAX,
            (false, false) => STRANGER_BYTES_MAX,
        };
        if self.peer.bytes.saturating_add(bytes) > quota {
            return Err(Refusal::QuotaFull { bytes_max: quota });
        }
        if self.totals.bytes.saturating_add(bytes) > BYTES_MAX {
            return Err(Refusal::QuotaFull { bytes_max: BYTES_MAX });
        }
        let overloaded = self.peer.unsettled >= UNSETTLED_PER_PEER_MAX
            || self.peer.unsettled_bytes.saturating_add(bytes) > UNSETTLED_PEER_BYTES_MAX
            || self.totals.unsettled_bytes.saturating_add(bytes) > UNSETTLED_BYTES_MAX;
        if asks(message) && overloaded {
            return Err(Refusal::Overloaded { unsettled: self.peer.unsettled });
        }
        Ok(())
    }

    fn count(&mut self, door: Door, context: &Context, message: &Message) {
        let bytes = stored_bytes(message);
        self.peer.bytes += bytes;
        self.totals.bytes += bytes;
        if asks(message) {
            self.peer.unsettled += 1;
            self.peer.unsettled_bytes += bytes;
            self.totals.unsettled_bytes += bytes;
        }
        if let Some(asked) = message.in_reply_to {
            *self.replies.entry(asked).or_default() += 1;
        }
        if let Door::Introduction { displaces } = door {
            if self.peer.introductions == 0 {
                self.peer.pending_since_ms = Some(context.now_ms);
                self.totals.strangers += u64::from(displaces.is_none());
            }
            self.peer.introductions += 1;
        }
    }
}
