//! Queries: transactions, blocks, members.

use machine::{Fault, Read, answer, page, refuse};
use protocol::block::BlockProof;
use protocol::consensus::{
    Answer, BlockAnswer, BlockView, ConsensusStatus, NextNonce, OpenBlock, TxStatus, TxView,
};
use protocol::shared::{ListRequest, Page};
use protocol::{BlockIndex, CellId, TxId};

use crate::tables::{
    BLOCKS, BY_INDEX, BlockRow, Head, NONCES, PLACES, REFUSED, TXS, TxRow, transaction, whole_block,
};
use crate::{ConsensusMachine, Decided, Refusal};

/// A transaction and how far it has come.
pub(crate) fn view_of(view: &dyn Read, id: TxId, row: TxRow) -> Result<TxView, Fault> {
    let block = PLACES.get(view, &id)?;
    let root = match block {
        Some(index) => BLOCKS.get(view, &index)?.and_then(|block| block.root),
        None => None,
    };
    // The root is there once the block is final, and only then is it known what the module said.
    let problem = if root.is_some() { REFUSED.get(view, &id)? } else { None };
    let status = match (block, root, &problem) {
        (None, ..) => TxStatus::Accepted,
        (Some(_), None, _) => TxStatus::Ordered,
        (Some(_), Some(_), Some(_)) => TxStatus::Rejected,
        (Some(_), Some(_), None) => TxStatus::Finalised,
    };
    Ok(TxView { id, status, block: block.map(BlockIndex), root, problem, transaction: row.transaction })
}

pub(crate) fn tx(view: &dyn Read, id: &TxId) -> Decided {
    match TXS.get(view, id)? {
        Some(row) => answer(Answer::Tx(view_of(view, *id, row)?)),
        None => refuse(Refusal::UnknownTx),
    }
}

pub(crate) fn txs(view: &dyn Read, list: &ListRequest) -> Decided {
    let Ok(after) = cursor(list) else { return refuse(Refusal::BadCursor) };
    let rows = BY_INDEX.scan(view, &(), after.as_ref(), true).map(|row| {
        let (index, id) = row?;
        Ok((index, view_of(view, id, transaction(view, &id)?)?))
    });
    let page = page::collect_within(rows, list.limit(), page::PAGE_BYTES_MAX, |(index, tx)| {
        let size = tx.transaction.args.len();
        (tx, index.to_string(), size)
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
        finalised: row.root.is_some(),
    }
}

pub(crate) fn block(view: &dyn Read, index: BlockIndex) -> Decided {
    match BLOCKS.get(view, &index.0)? {
        Some(row) => {
            let summary = summary(&row);
            let proof = BlockProof { block: whole_block(view, row.header)?, attestations: row.attestations };
            answer(Answer::GetBlock(BlockAnswer { summary, proof }))
        }
        None => refuse(Refusal::UnknownBlock { index: index.0 }),
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

/// Blocks that are ordered and not yet final, oldest first, with the journal entry of each. At most
/// [`EXECUTION_LAG_BLOCKS_MAX`](crate::EXECUTION_LAG_BLOCKS_MAX) can be open.
pub(crate) fn open_blocks(view: &dyn Read) -> Result<Vec<(u64, protocol::block::Block)>, Fault> {
    let head = Head::read(view)?;
    let mut open = Vec::new();
    for index in head.finalised..head.ordered {
        let row = BLOCKS.get(view, &index)?.ok_or_else(|| Fault(format!("block {index} is not there")))?;
        open.push((row.record, whole_block(view, row.header)?));
    }
    Ok(open)
}

pub(crate) fn next_nonce(view: &dyn Read, cell: &CellId) -> Decided {
    let last = NONCES.get(view, cell)?.unwrap_or(0);
    answer(Answer::GetNextNonce(NextNonce { nonce: last.saturating_add(1) }))
}

pub(crate) fn status(machine: &ConsensusMachine, view: &dyn Read) -> Decided {
    let head = Head::read(view)?;
    answer(Answer::Status(ConsensusStatus {
        genesis: machine.genesis.hash(),
        members: machine.genesis.members.len() as u64,
        ordered: head.ordered.checked_sub(1).map(BlockIndex),
        finalised: head.finalised.checked_sub(1).map(BlockIndex),
        pending: head.waiting,
    }))
}

pub(crate) fn members(machine: &ConsensusMachine, list: &ListRequest) -> Decided {
    let Ok(after) = cursor(list) else { return refuse(Refusal::BadCursor) };
    let members = (0u64..).zip(machine.genesis.members.iter().cloned());
    let rows = members.filter(|(place, _)| after.is_none_or(|after| *place > after));
    let page = page::collect(rows.map(Ok), list.limit(), |(place, member)| (member, place.to_string()))?;
    answer(Answer::Members(page))
}

fn cursor(list: &ListRequest) -> Result<Option<u64>, std::num::ParseIntError> {
    list.cursor.as_ref().map(|cursor| cursor.parse()).transpose()
}
