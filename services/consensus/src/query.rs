//! Queries: transactions, blocks, members.

use machine::{Fault, Read, answer, page, refuse};
use protocol::block::{Attestation, Block, BlockProof, TxProof};
use protocol::consensus::{
    Answer, BlockAnswer, BlockView, ConsensusStatus, EpochView, EvidenceView, MembersRequest, NextNonce,
    OpenBlock, Recorded, RecordedRequest, TxLife, TxStatus, TxView, Waiting,
};
use protocol::shared::{ListRequest, Page};
use protocol::{BlockIndex, CellId, Problem, TxId};

use crate::tables::{
    BATCHES, BLOCKS, BY_INDEX, BlockRow, EVIDENCE, FEES, Head, NONCES, PLACES, REFUSED, TXS, TxRow, WAITING,
    block as block_at, transaction, whole_block,
};
use crate::{ConsensusMachine, Decided, Refusal, epochs};

/// Open blocks that are given at once.
const OPEN_BLOCKS_MAX: u64 = 16;

/// A transaction and how far it has come.
pub(crate) fn view_of(view: &dyn Read, id: TxId, row: TxRow) -> Result<TxView, Fault> {
    let place = PLACES.get(view, &id)?;
    let block = place.map(|index| block_at(view, index)).transpose()?;
    let is_final = block.as_ref().is_some_and(BlockRow::is_final);
    // What the module said counts once the block is final; what was left out of the order is so for good.
    let problem = if is_final || place.is_none() { REFUSED.get(view, &id)? } else { None };
    let root = block.as_ref().and_then(|block| block.root);
    let step = |time: fn(&BlockRow) -> Option<u64>| block.as_ref().and_then(time);
    let life = TxLife {
        accepted_ms: row.time_ms,
        ordered_ms: step(|block| block.ordered_ms),
        applied_ms: step(|block| block.applied_ms),
        finalised_ms: step(|block| block.finalised_ms),
    };
    let status = match (place, root, &problem) {
        (_, _, Some(_)) => TxStatus::Rejected,
        (None, ..) => TxStatus::Accepted,
        (Some(_), None, _) => TxStatus::Ordered,
        (Some(_), Some(_), None) if is_final => TxStatus::Finalised,
        (Some(_), Some(_), None) => TxStatus::Applied,
    };
    let (block, fee) = (place.map(BlockIndex), FEES.get(view, &id)?);
    Ok(TxView { id, status, block, root, problem, fee, life, transaction: row.transaction })
}

pub(crate) fn tx(view: &dyn Read, id: &TxId) -> Decided {
    match TXS.get(view, id)? {
        Some(row) => answer(Answer::Tx(view_of(view, *id, row)?)),
        None => refuse(Refusal::UnknownTx),
    }
}

pub(crate) fn txs(view: &dyn Read, list: &ListRequest) -> Decided {
    let read = |cursor: &String| {
        let (entry, place) = cursor.split_once('.')?;
        Some((entry.parse().ok()?, place.parse().ok()?))
    };
    let after: Option<Option<(u64, usize)>> = list.cursor.as_ref().map(read);
    if after == Some(None) {
        return refuse(Refusal::BadCursor);
    }
    let after = after.flatten();
    let through = after.map(|(entry, _)| entry.saturating_add(1));
    let newest_first = |(entry, mut ids): (u64, Vec<TxId>)| {
        if let Some((_, place)) = after.filter(|(of, _)| *of == entry) {
            ids.truncate(place);
        }
        let places = ids.into_iter().enumerate().rev();
        places.map(move |(place, id)| Ok(((entry, place), id))).collect::<Vec<_>>()
    };
    let rows = BY_INDEX.scan(view, &(), through.as_ref(), true);
    let rows = rows.flat_map(|row| row.map_or_else(|fault| vec![Err(fault)], newest_first));
    let rows = rows.map(|row| {
        let (key, id) = row?;
        Ok((key, view_of(view, id, transaction(view, &id)?)?))
    });
    let page = page::collect_within(rows, list.limit(), page::PAGE_BYTES_MAX, |((entry, place), tx)| {
        let size = tx.transaction.args.len();
        (tx, format!("{entry}.{place}"), size)
    })?;
    answer(Answer::Txs(page))
}

fn summary(row: &BlockRow) -> BlockView {
    BlockView {
        index: row.header.index,
        hash: row.header.hash(),
        time_ms: row.header.time_ms,
        transactions: row.transactions,
        root: row.root,
        finalised: row.is_final(),
        epoch: row.header.epoch,
        round: row.header.round,
    }
}

pub(crate) fn block(view: &dyn Read, index: BlockIndex) -> Decided {
    match BLOCKS.get(view, &index.0)? {
        Some(row) => {
            let summary = summary(&row);
            let handoffs = epochs::handoffs(view, row.header.epoch)?;
            let proof = BlockProof {
                block: whole_block(view, row.header)?,
                attestations: row.attestations,
                handoffs,
            };
            answer(Answer::GetBlock(BlockAnswer { summary, proof }))
        }
        None => refuse(Refusal::UnknownBlock { index: index.0 }),
    }
}

/// That a transaction has its place in a final block.
pub(crate) fn prove(view: &dyn Read, id: &TxId) -> Decided {
    if TXS.get(view, id)?.is_none() {
        return refuse(Refusal::UnknownTx);
    }
    let row = PLACES.get(view, id)?.map(|index| block_at(view, index)).transpose()?;
    let Some(row) = row.filter(BlockRow::is_final) else { return refuse(Refusal::NotFinal) };
    let handoffs = epochs::handoffs(view, row.header.epoch)?;
    let proof =
        BlockProof { block: whole_block(view, row.header)?, attestations: row.attestations, handoffs };
    match TxProof::out_of(proof, id) {
        Some(proof) => answer(Answer::ProveTx(proof)),
        None => Err(Fault(format!("the transaction {id} is not in the block that it is placed in"))),
    }
}

pub(crate) fn blocks(view: &dyn Read, list: &ListRequest) -> Decided {
    let Ok(after) = cursor(list) else { return refuse(Refusal::BadCursor) };
    let rows = BLOCKS.scan(view, &(), after.as_ref(), true);
    answer(Answer::Blocks(page::collect(rows, list.limit(), |(index, row)| {
        (summary(&row), index.to_string())
    })?))
}

pub(crate) fn open(view: &dyn Read) -> Decided {
    let items = open_blocks(view)?.into_iter().map(|(_, block)| OpenBlock { block }).collect();
    answer(Answer::Open(Page { items, next: None }))
}

/// The first blocks that are ordered and not executed here, with the journal entry of each.
pub(crate) fn open_blocks(view: &dyn Read) -> Result<Vec<(u64, Block)>, Fault> {
    let head = Head::read(view)?;
    let open = (head.executed..head.ordered.min(head.executed + OPEN_BLOCKS_MAX)).map(|index| {
        let row = block_at(view, index)?;
        Ok((row.record, whole_block(view, row.header)?))
    });
    if head.diverged.is_some() { Ok(Vec::new()) } else { open.collect() }
}

/// This cell's words for blocks that are not final yet, with the journal entry of each block.
pub(crate) fn open_words(view: &dyn Read) -> Result<Vec<(u64, Attestation)>, Fault> {
    let head = Head::read(view)?;
    let rows = (head.finalised..head.executed).map(|index| block_at(view, index));
    rows.filter_map(|row| row.map(|row| Some((row.record, row.own?))).transpose()).collect()
}

pub(crate) fn own_words(view: &dyn Read) -> Decided {
    let items = open_words(view)?.into_iter().map(|(_, word)| word).collect();
    answer(Answer::OwnWords(Page { items, next: None }))
}

pub(crate) fn waits(view: &dyn Read, list: &ListRequest) -> Decided {
    let Ok(after) = cursor(list) else { return refuse(Refusal::BadCursor) };
    let rows = WAITING.scan(view, &(), after.as_ref(), false).map(|row| {
        let (entry, id) = row?;
        Ok(Waiting { entry, transaction: transaction(view, &id)?.transaction })
    });
    let page = page::collect_within(rows, list.limit(), page::PAGE_BYTES_MAX, |waiting| {
        let (entry, size) = (waiting.entry, waiting.transaction.args.len());
        (waiting, entry.to_string(), size)
    })?;
    answer(Answer::Waits(page))
}

pub(crate) fn epoch(machine: &ConsensusMachine, view: &dyn Read) -> Decided {
    let head = Head::read(view)?;
    let entry = BATCHES.get(view, &(head.epoch, 0))?.map(|(entry, _)| entry);
    answer(Answer::GetEpoch(EpochView {
        epoch: head.epoch,
        base: head.base,
        round: head.round,
        events: head.events,
        entry,
        progress: head.progress(),
        rejoins: head.rejoins.is_some(),
        members: epochs::members_of(machine, view, head.epoch)?,
        rules: head.rules(),
    }))
}

pub(crate) fn recorded(view: &dyn Read, asked: &RecordedRequest) -> Decided {
    let RecordedRequest { epoch, number } = *asked;
    let before = (epoch, number.saturating_add(1));
    match BATCHES.scan(view, &epoch, Some(&before), true).next().transpose()? {
        Some(((_, first), (entry, count))) if number - first < count => {
            answer(Answer::FindRecorded(Recorded { entry, place: number - first }))
        }
        _ => refuse(Refusal::UnknownEvent { epoch, number }),
    }
}

pub(crate) fn evidence(view: &dyn Read, list: &ListRequest) -> Decided {
    let after = list.cursor.as_ref().map(|cursor| cursor.parse::<CellId>());
    let Ok(after) = after.transpose() else { return refuse(Refusal::BadCursor) };
    let rows = EVIDENCE.scan(view, &(), after.as_ref(), false);
    answer(Answer::ListEvidence(page::collect(rows, list.limit(), |(member, proof)| {
        (EvidenceView { member, proof }, member.to_string())
    })?))
}

pub(crate) fn next_nonce(view: &dyn Read, cell: &CellId) -> Decided {
    let last = NONCES.get(view, cell)?.unwrap_or(0);
    answer(Answer::GetNextNonce(NextNonce { nonce: last.saturating_add(1) }))
}

pub(crate) fn status(machine: &ConsensusMachine, view: &dyn Read) -> Decided {
    let head = Head::read(view)?;
    answer(Answer::Status(ConsensusStatus {
        genesis: machine.genesis.hash(),
        members: epochs::members_of(machine, view, head.epoch)?.all().len() as u64,
        ordered: head.ordered.checked_sub(1).map(BlockIndex),
        finalised: head.finalised.checked_sub(1).map(BlockIndex),
        pending: head.waiting,
        epoch: head.epoch,
        rules: head.rules(),
        round: head.round,
        diverged: head.diverged.map(|index| Problem::from(Refusal::Diverged { index }).cause),
    }))
}

pub(crate) fn members(machine: &ConsensusMachine, view: &dyn Read, asked: &MembersRequest) -> Decided {
    let MembersRequest { limit, cursor: before, at } = asked;
    let list = ListRequest { limit: *limit, cursor: before.clone() };
    let Ok(after) = cursor(&list) else { return refuse(Refusal::BadCursor) };
    let head = Head::read(view)?;
    let set = match at {
        // Blocks before a checkpoint are not here.
        Some(index) => match BLOCKS.get(view, &index.0)? {
            Some(row) => epochs::members_of(machine, view, row.header.epoch)?,
            None => return refuse(Refusal::UnknownBlock { index: index.0 }),
        },
        None => epochs::members_of(machine, view, head.epoch)?,
    };
    let members = (0u64..).zip(set.all().iter().cloned());
    let rows = members.filter(|(place, _)| after.is_none_or(|after| *place > after));
    let page = page::collect(rows.map(Ok), list.limit(), |(place, member)| (member, place.to_string()))?;
    answer(Answer::Members(page))
}

fn cursor(list: &ListRequest) -> Result<Option<u64>, std::num::ParseIntError> {
    list.cursor.as_ref().map(|cursor| cursor.parse()).transpose()
}
