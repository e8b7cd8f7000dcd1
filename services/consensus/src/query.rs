//! Queries: transactions, blocks, members.

use machine::{Fault, Read, answer, refuse};
use protocol::block::BlockProof;
use protocol::consensus::{Answer, BlockAnswer, BlockView, ConsensusStatus, NextNonce, OpenBlock, TxView};
use protocol::shared::{ListRequest, Page};
use protocol::{BlockIndex, CellId, TxId};

use crate::tables::{BLOCKS, BY_INDEX, BlockRow, HEAD, NONCES, TXS, TxRow};
use crate::{ConsensusMachine, Decided, Refusal, status_of};

/// How many open blocks one answer holds.
const OPEN_MAX: usize = 64;

pub(crate) fn view_of(view: &dyn Read, id: TxId, row: TxRow) -> Result<TxView, Fault> {
    let (status, block, place) = status_of(view, &row)?;
    let applied = block.and_then(|block| block.applied);
    let problem =
        applied.as_ref().and_then(|applied| applied.receipts.get(place as usize)).and_then(|receipt| receipt.error.clone());
    Ok(TxView {
        id,
        status,
        block: row.block.map(|(index, _)| BlockIndex(index)),
        root: applied.map(|applied| applied.root),
        problem,
        transaction: row.transaction,
    })
}

pub(crate) fn tx(view: &dyn Read, id: &TxId) -> Decided {
    match TXS.get(view, id)? {
        Some(row) => answer(Answer::Tx(view_of(view, *id, row)?)),
        None => refuse(Refusal::UnknownTx),
    }
}

pub(crate) fn txs(view: &dyn Read, list: &ListRequest) -> Decided {
    let Ok(after) = cursor(list) else { return refuse(Refusal::BadCursor) };
    let rows = BY_INDEX.scan(view, &(), after.as_ref(), true);
    let page = machine::page::collect(rows, list.limit(), |(index, id)| (id, index.to_string()))?;
    let mut items = Vec::with_capacity(page.items.len());
    for id in page.items {
        if let Some(row) = TXS.get(view, &id)? {
            items.push(view_of(view, id, row)?);
        }
    }
    answer(Answer::Txs(Page { items, next: page.next }))
}

fn summary(row: &BlockRow) -> BlockView {
    BlockView {
        index: row.block.header.index,
        hash: row.block.header.hash(),
        time_ms: row.block.header.time_ms,
        transactions: row.block.transactions.len() as u64,
        root: row.applied.as_ref().map(|applied| applied.root),
        finalised: row.applied.is_some(),
    }
}

pub(crate) fn block(view: &dyn Read, index: BlockIndex) -> Decided {
    match BLOCKS.get(view, &index.0)? {
        Some(row) => {
            let summary = summary(&row);
            let proof = BlockProof { block: row.block, attestations: row.attestations };
            answer(Answer::GetBlock(BlockAnswer { summary, proof }))
        }
        None => refuse(Refusal::UnknownBlock { index: index.0 }),
    }
}

pub(crate) fn blocks(view: &dyn Read, list: &ListRequest) -> Decided {
    let Ok(after) = cursor(list) else { return refuse(Refusal::BadCursor) };
    let rows = BLOCKS.scan(view, &(), after.as_ref(), true);
    answer(Answer::Blocks(machine::page::collect(rows, list.limit(), |(index, row)| (summary(&row), index.to_string()))?))
}

pub(crate) fn open(view: &dyn Read) -> Decided {
    let head = HEAD.get(view, &())?.unwrap_or_default();
    let mut items = Vec::new();
    for index in (head.finalised..head.ordered).take(OPEN_MAX) {
        if let Some(row) = BLOCKS.get(view, &index)? {
            items.push(OpenBlock { block: row.block });
        }
    }
    answer(Answer::Open(Page { items, next: None }))
}

pub(crate) fn next_nonce(view: &dyn Read, cell: &CellId) -> Decided {
    let last = NONCES.get(view, cell)?.unwrap_or(0);
    answer(Answer::GetNextNonce(NextNonce { nonce: last + 1 }))
}

pub(crate) fn status(machine: &ConsensusMachine, view: &dyn Read) -> Decided {
    let head = HEAD.get(view, &())?.unwrap_or_default();
    answer(Answer::Status(ConsensusStatus {
        genesis: machine.genesis.hash(),
        members: machine.genesis.members.len() as u64,
        ordered: head.ordered.checked_sub(1).map(BlockIndex),
        finalised: head.finalised.checked_sub(1).map(BlockIndex),
        pending: head.waiting,
    }))
}

pub(crate) fn members(machine: &ConsensusMachine, list: &ListRequest) -> Decided {
    let after: Option<usize> = match list.cursor.as_ref().map(|cursor| cursor.parse()).transpose() {
        Ok(after) => after,
        Err(_) => return refuse(Refusal::BadCursor),
    };
    let rows = machine.genesis.members.iter().cloned().enumerate().skip(after.map_or(0, |after| after.saturating_add(1)));
    let page = machine::page::collect(rows.map(Ok), list.limit(), |(place, member)| (member, place.to_string()))?;
    answer(Answer::Members(page))
}

fn cursor(list: &ListRequest) -> Result<Option<u64>, std::num::ParseIntError> {
    list.cursor.as_ref().map(|cursor| cursor.parse()).transpose()
}
