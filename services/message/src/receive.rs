//! Incoming messages: what is new and allowed is journaled, what is known is acknowledged again.

use std::collections::BTreeSet;

use machine::{Context, Fault, Read, answer, commit, refuse};
use protocol::identity::Admission;
use protocol::message::{CLOCK_SKEW_MS_MAX, Message, MessageType, PROOF_ITEMS_MAX};
use protocol::messages::{Answer, CountersignRequest, ReceiveAnswer, ReceiveRequest, SettleRequest};
use protocol::receipt::batch_root;
use protocol::shared::Empty;
use protocol::{CellId, MessageId, Problem};

use crate::tables::{End, FATES, IDS, IN, MESSAGES, OUT, PEERS, TOTALS};
use crate::{Decided, MessageMachine, Record, Refusal, body};

/// What one stranger may send before it is a contact.
const INTRODUCTIONS_PER_STRANGER_MAX: u32 = 5;
/// How many strangers may have introduced themselves.
const STRANGERS_MAX: u64 = 100;
/// How often at most the trust in one peer is told.
const OBSERVE_EVERY_MS: u64 = 1_000;

/// Whether an admission lets a cell run an action here.
pub fn may_exec(admission: &Admission, action: &str) -> bool {
    admission.exec.iter().any(|allowed| allowed == action)
}

/// What is known about the sender while a batch is decided.
struct Sender {
    from: CellId,
    admission: Admission,
    introductions: u32,
    strangers: u64,
    observed_ms: u64,
    /// The last proof that was looked up: messages of one batch mostly show the same.
    proof: Option<(Vec<MessageId>, u32)>,
}

pub(crate) fn receive(machine: &MessageMachine, view: &dyn Read, context: &Context, asked: ReceiveRequest) -> Decided {
    let peer = PEERS.get(view, &asked.from)?.unwrap_or_default();
    let mut sender = Sender {
        from: asked.from,
        admission: asked.admission,
        introductions: peer.introductions,
        strangers: TOTALS.get(view, &())?.unwrap_or_default().strangers,
        observed_ms: peer.observed_ms,
        proof: None,
    };
    let mut records = Vec::new();
    let mut outcomes = Vec::with_capacity(asked.messages.len());
    let mut taken = BTreeSet::new();
    for message in asked.messages {
        let id = message.id();
        if taken.contains(&id) || IDS.get(view, &(id, IN))?.is_some() {
            outcomes.push(None);
            continue;
        }
        match take(machine, view, context, &mut sender, message)? {
            Ok(record) => {
                taken.insert(id);
                records.push(record);
                outcomes.push(None);
            }
            Err(refusal) => outcomes.push(Some(Problem::from(refusal))),
        }
    }
    crate::commit_or_answer(records, Answer::Receive(ReceiveAnswer { outcomes }))
}

fn take(
    machine: &MessageMachine,
    view: &dyn Read,
    context: &Context,
    sender: &mut Sender,
    message: Message,
) -> Result<Result<Record, Refusal>, Fault> {
    if let Err(refusal) = check(machine, context, sender, &message) {
        return Ok(Err(refusal));
    }
    let introduction = match admit(view, sender, &message)? {
        Ok(introduction) => introduction,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let shown = message.proof.len() as u32;
    let matching = match &sender.proof {
        Some((proof, matching)) if *proof == message.proof => *matching,
        _ => {
            let matching = matching(view, &sender.from, &message.proof)?;
            sender.proof = Some((message.proof.clone(), matching));
            matching
        }
    };
    let observe = sender.from != machine.cell && context.now_ms >= sender.observed_ms + OBSERVE_EVERY_MS;
    if observe {
        sender.observed_ms = context.now_ms;
    }
    Ok(Ok(Record::Incoming { message, shown, matching, observe, introduction }))
}

fn check(machine: &MessageMachine, context: &Context, sender: &Sender, message: &Message) -> Result<(), Refusal> {
    if message.sender != sender.from || message.receiver != machine.cell {
        return Err(Refusal::NotForMe);
    }
    if message.expires_ms.saturating_add(CLOCK_SKEW_MS_MAX) < context.now_ms {
        return Err(Refusal::Expired);
    }
    if message.timestamp_ms > context.now_ms + CLOCK_SKEW_MS_MAX {
        return Err(Refusal::ClockSkew { off_ms: message.timestamp_ms - context.now_ms });
    }
    if message.proof.len() > PROOF_ITEMS_MAX {
        return Err(Refusal::BadProof);
    }
    body::check(message)
}

/// Whether the sender may send this; true if it does so as a stranger.
fn admit(view: &dyn Read, sender: &mut Sender, message: &Message) -> Result<Result<bool, Refusal>, Fault> {
    if message.sender == message.receiver || sender.admission.may.contains(&message.kind) {
        return Ok(Ok(false));
    }
    if let Some(asked) = &message.in_reply_to
        && let Some(index) = IDS.get(view, &(*asked, OUT))?
        && let Some(asked) = MESSAGES.get(view, &index)?
        && asked.message.receiver == message.sender
        && asked.message.kind == message.kind
    {
        return Ok(Ok(false));
    }
    let introduces = matches!(message.kind, MessageType::Chat | MessageType::Auth);
    if sender.admission.contact || !introduces {
        return Ok(Err(Refusal::NotAllowed { kind: message.kind }));
    }
    if sender.introductions >= INTRODUCTIONS_PER_STRANGER_MAX {
        return Ok(Err(Refusal::TooManyIntroductions));
    }
    if sender.introductions == 0 {
        if sender.strangers >= STRANGERS_MAX {
            return Ok(Err(Refusal::TooManyStrangers));
        }
        sender.strangers += 1;
    }
    sender.introductions += 1;
    Ok(Ok(true))
}

/// How many of the shown messages are here, shared with that cell, with a receipt; each counts once.
fn matching(view: &dyn Read, with: &CellId, shown: &[MessageId]) -> Result<u32, Fault> {
    let mut matching = 0;
    for id in shown.iter().collect::<BTreeSet<_>>() {
        for way in [OUT, IN] {
            let Some(index) = IDS.get(view, &(*id, way))? else { continue };
            let receipted = FATES.get(view, &index)?.is_some_and(|fate| fate.receipt.is_some());
            let Some(stored) = MESSAGES.get(view, &index)? else { continue };
            if receipted && (stored.message.sender == *with || stored.message.receiver == *with) {
                matching += 1;
                break;
            }
        }
    }
    Ok(matching)
}

pub(crate) fn countersign(view: &dyn Read, asked: CountersignRequest) -> Decided {
    let CountersignRequest { head, ids } = asked;
    if head.count != ids.len() as u64 || head.root != batch_root(&ids) {
        return refuse(Refusal::WrongReceipt);
    }
    let mut news = false;
    for id in &ids {
        let Some(index) = IDS.get(view, &(*id, IN))? else { return refuse(Refusal::UnknownMessage) };
        news |= FATES.get(view, &index)?.is_none_or(|fate| fate.receipt.is_none());
    }
    if !news {
        return answer(Answer::Countersign(Empty {}));
    }
    commit(vec![Record::Countersigned { head, ids }], Answer::Countersign(Empty {}))
}

pub(crate) fn settle(view: &dyn Read, asked: SettleRequest) -> Decided {
    let Some(index) = IDS.get(view, &(asked.id, IN))? else { return refuse(Refusal::UnknownMessage) };
    if FATES.get(view, &index)?.is_some_and(|fate| fate.end == Some(End::Handled)) {
        return answer(Answer::Settle(Empty {}));
    }
    commit(vec![Record::Settled { id: asked.id, problem: asked.problem }], Answer::Settle(Empty {}))
}
