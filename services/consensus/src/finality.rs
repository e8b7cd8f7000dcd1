//! From a block that was ordered to one that is final, or to a cell that has diverged.
//!
//! Rules:
//!
//! - Blocks are executed in order; each result is journaled with this cell's word for it before anybody hears of either. A cell that only
//!   follows gives none: one that is no member, or that has not the key which the members name for it.
//! - Members' words are kept from when they come, however early, for [`AHEAD_BLOCKS_MAX`] blocks ahead; a member's first
//!   word for a block counts. This cell's own is kept with its result, and is no news when it comes back.
//! - A word counts only if it was checked by the keys of the present members. One that came in an event of an epoch with another set can only be
//!   for a block that is final, or a liar's.
//! - The next block is final once members of more than two thirds of the weight gave their word for its hash and for the root
//!   that came out here. If they did so for another root, this cell has diverged.
//! - A cell that has fallen behind takes final blocks over with the words that made them final; it executes them as any other.
//!   Those words stand in for what their members have said here before: a liar's first word must not stop what is proven.

use std::collections::BTreeMap;

use machine::{At, Fault, Read, Write, answer, commit, refuse};
use protocol::block::{Attestation, Block};
use protocol::consensus::{AdoptRequest, Answer, AttestedRequest, ExecutedRequest};
use protocol::members::MemberSet;
use protocol::state::Applied;
use protocol::transaction::TxReceipt;
use protocol::{BlockHash, BlockIndex, CellId, StateRoot, TxId};

use crate::tables::{self, BLOCKS, BlockRow, CONTENTS, FEES, Head, REFUSED, WORDS};
use crate::{ConsensusMachine, Decided, Effect, Record, Refusal, epochs, evidence};

/// Blocks ahead of the order here of which words are kept.
const AHEAD_BLOCKS_MAX: u64 = 1_024;

pub(crate) fn executed(machine: &ConsensusMachine, view: &dyn Read, asked: ExecutedRequest) -> Decided {
    let ExecutedRequest { applied, attestation } = asked;
    let head = Head::read(view)?;
    if let Some(index) = head.diverged {
        return refuse(Refusal::Diverged { index });
    }
    let index = applied.index.0;
    let Some(row) = BLOCKS.get(view, &index)? else { return refuse(Refusal::NotNext { index }) };
    if let Some(root) = row.root {
        let same = root == applied.root;
        return if same {
            answer(Answer::Executed(head.progress()))
        } else {
            refuse(Refusal::Diverged { index })
        };
    }
    if index != head.executed {
        return refuse(Refusal::NotNext { index });
    }
    if let Some(word) = &attestation {
        // A stranger's makes nothing final.
        let members = epochs::members_of(machine, view, row.header.epoch)?;
        let signer = members.signer_of(&word.member).unwrap_or(word.member);
        if word.root != applied.root || !word.holds_for(&row.header, &signer) {
            return refuse(Refusal::BadAttestation);
        }
    }
    let contents = CONTENTS.get(view, &index)?.unwrap_or_default();
    let fits =
        |(receipt, id): (&TxReceipt, &TxId)| receipt.id == *id && receipt.ok == receipt.error.is_none();
    if applied.receipts.len() != contents.len() || !applied.receipts.iter().zip(&contents).all(fits) {
        return refuse(Refusal::BadReceipts);
    }
    let head = Head { executed: index + 1, ..head };
    let came_to = Some((index, applied.root));
    let closing = closing(machine, view, &head, came_to, attestation.as_slice())?;
    let answered = Answer::Executed(after(&head, &closing).progress());
    let mut records = vec![Record::Executed { applied, attestation }];
    records.extend(closing);
    commit(records, answered)
}

pub(crate) fn attested(machine: &ConsensusMachine, view: &dyn Read, asked: AttestedRequest) -> Decided {
    let head = Head::read(view)?;
    let AttestedRequest { epoch, attestations } = asked;
    let is_of_present_set = epoch == head.epoch
        || epochs::members_of(machine, view, epoch)? == epochs::members_of(machine, view, head.epoch)?;
    if !is_of_present_set {
        return answer(Answer::Attested(head.progress()));
    }
    let attestations = news(machine, view, &head, attestations, Heard::Said)?;
    if attestations.is_empty() || head.diverged.is_some() {
        return answer(Answer::Attested(head.progress()));
    }
    let closing = closing(machine, view, &head, None, &attestations)?;
    let answered = Answer::Attested(after(&head, &closing).progress());
    let mut records = vec![Record::Attested { attestations }];
    records.extend(closing);
    commit(records, answered)
}

pub(crate) fn adopt(machine: &ConsensusMachine, view: &dyn Read, asked: AdoptRequest) -> Decided {
    let mut head = Head::read(view)?;
    if let Some(index) = head.diverged {
        return refuse(Refusal::Diverged { index });
    }
    let (here, mut taken) = (head.ordered, Vec::<Block>::new());
    let mut attestations = Vec::new();
    for proof in asked.proofs {
        let header = &proof.block.header;
        let index = header.index.0;
        if index < head.ordered {
            // One that is not here yet came with this request.
            let known = match index.checked_sub(here) {
                Some(place) => taken[place as usize].header.hash(),
                // Blocks before a checkpoint are not here.
                None => match BLOCKS.get(view, &index)? {
                    Some(row) => row.header.hash(),
                    None => return refuse(Refusal::UnknownBlock { index }),
                },
            };
            if known != header.hash() {
                return refuse(Refusal::OtherBlock { index });
            }
        } else if index > head.ordered {
            return refuse(Refusal::NotNext { index });
        } else if header.previous != head.last_hash {
            return refuse(Refusal::OtherBlock { index });
        } else if header.members != epochs::members_of(machine, view, header.epoch)?.hash() {
            return refuse(Refusal::BadMembers);
        } else if header.rules != head.rules() {
            return refuse(Refusal::BadRules);
        } else if let Err(refusal) = machine.modules(&head) {
            return refuse(refusal);
        } else {
            head.ordered += 1;
            head.last_hash = header.hash();
            taken.push(proof.block);
        }
        attestations.extend(proof.attestations);
    }
    let attestations = news(machine, view, &head, attestations, Heard::Proven)?;
    let closing = closing(machine, view, &head, None, &attestations)?;
    let answered = Answer::Adopt(after(&head, &closing).progress());
    let evidence = evidence::within(machine, view, taken.iter())?;
    let mut records: Vec<Record> = taken.into_iter().map(|block| Record::Ordered { block }).collect();
    records.extend(evidence);
    if !attestations.is_empty() {
        records.push(Record::Attested { attestations });
    }
    records.extend(closing);
    if records.is_empty() { answer(answered) } else { commit(records, answered) }
}

/// How words came.
#[derive(Clone, Copy, PartialEq)]
enum Heard {
    /// One by one.
    Said,
    /// Together, as what made a block final.
    Proven,
}

/// The words that say something new of a block that is not final.
fn news(
    machine: &ConsensusMachine,
    view: &dyn Read,
    head: &Head,
    attestations: Vec<Attestation>,
    heard: Heard,
) -> Result<Vec<Attestation>, Fault> {
    let mut news: BTreeMap<(u64, CellId), Attestation> = BTreeMap::new();
    let present = epochs::members_of(machine, view, head.epoch)?;
    for attestation in attestations {
        let key = (attestation.index.0, attestation.member);
        let is_open = (head.finalised..head.ordered + AHEAD_BLOCKS_MAX).contains(&key.0);
        if is_open
            && present.contains(&key.1)
            && !news.contains_key(&key)
            && is_news(view, head, &attestation, heard)?
        {
            news.insert(key, attestation);
        }
    }
    Ok(news.into_values().collect())
}

fn is_news(view: &dyn Read, head: &Head, word: &Attestation, heard: Heard) -> Result<bool, Fault> {
    let known = WORDS.get(view, &(word.index.0, word.member))?;
    if heard == Heard::Proven {
        return Ok(known.as_ref() != Some(word));
    }
    let is_own = |row: BlockRow| row.own.is_some_and(|own| own.member == word.member);
    let is_executed = word.index.0 < head.executed;
    Ok(known.is_none() && !(is_executed && is_own(tables::block(view, word.index.0)?)))
}

/// What follows for the next blocks from what is known, and from what is about to be: the root of a block that is executed now, and words.
fn closing(
    machine: &ConsensusMachine,
    view: &dyn Read,
    head: &Head,
    came_to: Option<(u64, StateRoot)>,
    more: &[Attestation],
) -> Result<Vec<Record>, Fault> {
    let mut records = Vec::new();
    for index in head.finalised..head.executed {
        let row = tables::block(view, index)?;
        let mut words: BTreeMap<CellId, Attestation> = BTreeMap::new();
        for word in WORDS.scan(view, &index, None, false) {
            let ((_, member), word) = word?;
            words.insert(member, word);
        }
        words
            .extend(more.iter().filter(|word| word.index.0 == index).map(|word| (word.member, word.clone())));
        if let Some(own) = &row.own {
            words.entry(own.member).or_insert_with(|| own.clone());
        }
        let executed_now = came_to.filter(|(of, _)| *of == index).map(|(_, root)| root);
        let Some(root) = row.root.or(executed_now) else { break };
        let members = epochs::members_at(machine, view, head, index)?;
        match verdict(&members, row.header.hash(), words.into_values()) {
            Some((agreed, attestations)) if agreed == root => {
                records.push(Record::Finalised { index: BlockIndex(index), root, attestations });
            }
            Some((_, attestations)) => {
                records.push(Record::Diverged { index: BlockIndex(index), root, attestations });
                break;
            }
            None => break,
        }
    }
    Ok(records)
}

/// The root that more than two thirds gave their word for, with those words.
fn verdict(
    members: &MemberSet,
    block: BlockHash,
    words: impl Iterator<Item = Attestation>,
) -> Option<(StateRoot, Vec<Attestation>)> {
    let mut by_root: BTreeMap<[u8; 32], Vec<Attestation>> = BTreeMap::new();
    for word in words.filter(|word| word.block == block && members.contains(&word.member)) {
        by_root.entry(*word.root.as_bytes()).or_default().push(word);
    }
    by_root.into_values().find_map(|words| {
        let weight = members.weight_of_all(words.iter().map(|word| word.member).collect());
        members.is_supermajority(weight).then(|| (words[0].root, words))
    })
}

fn after(head: &Head, closing: &[Record]) -> Head {
    let closed = closing.iter().filter(|record| matches!(record, Record::Finalised { .. })).count();
    Head { finalised: head.finalised + closed as u64, ..*head }
}

pub(crate) fn take_result(
    view: &mut dyn Write,
    head: &mut Head,
    at: At,
    applied: &Applied,
    attestation: Option<&Attestation>,
) -> Result<Option<Effect>, Fault> {
    let index = applied.index.0;
    let row = tables::block(view, index)?;
    let own = attestation.cloned();
    let applied_ms = Some(at.time_ms);
    BLOCKS.put(view, &index, &BlockRow { root: Some(applied.root), own, applied_ms, ..row });
    for receipt in &applied.receipts {
        if let Some(problem) = &receipt.error {
            REFUSED.put(view, &receipt.id, problem);
        }
        if let Some(fee) = &receipt.fee {
            FEES.put(view, &receipt.id, fee);
        }
    }
    head.executed = index + 1;
    Ok(attestation.map(|word| Effect::Attest(Box::new(word.clone()))))
}

/// Drops the words that are kept: those up to a block, or all.
pub(crate) fn drop_words(view: &mut dyn Write, through: Option<u64>) -> Result<(), Fault> {
    let words: Vec<_> = WORDS.scan(view, &(), None, false).map(|row| row.map(|(key, _)| key)).collect();
    for key in words {
        let key = key?;
        if through.is_none_or(|through| key.0 <= through) {
            WORDS.delete(view, &key);
        }
    }
    Ok(())
}

pub(crate) fn take_words(view: &mut dyn Write, attestations: &[Attestation]) {
    for attestation in attestations {
        WORDS.put(view, &(attestation.index.0, attestation.member), attestation);
    }
}

pub(crate) fn close_block(
    view: &mut dyn Write,
    head: &mut Head,
    at: At,
    index: BlockIndex,
    attestations: &[Attestation],
) -> Result<Effect, Fault> {
    let row = tables::block(view, index.0)?;
    let finalised_ms = Some(at.time_ms);
    BLOCKS.put(view, &index.0, &BlockRow { attestations: attestations.to_vec(), finalised_ms, ..row });
    let words: Result<Vec<_>, Fault> =
        WORDS.scan(view, &index.0, None, false).map(|row| row.map(|(key, _)| key)).collect();
    for key in words? {
        WORDS.delete(view, &key);
    }
    head.finalised = index.0 + 1;
    Ok(Effect::Final(index))
}
