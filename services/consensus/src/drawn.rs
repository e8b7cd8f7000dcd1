//! The values that the beacon has drawn, as the order knows them.
//!
//! Rules:
//!
//! - A draw is journaled when a decided round has opened it, whether or not that round fills a block; each once.
//! - The first block of a round has the newest value that was opened since the block before it, in its epoch: so whoever has the blocks alone
//!   learns it too, proven as the block is. What an epoch's last rounds opened, and no block of it came after, stands in the members' journals
//!   alone.
//! - It tells the round that fixed it where the network elects committees, which depend on that (ADR 0023). Elsewhere blocks are as they ever were.

use machine::{Fault, Read, Write, answer, page, refuse};
use protocol::beacon::Drawn;
use protocol::block::BlockHeader;
use protocol::consensus::{Answer, DrawView};
use protocol::genesis::Genesis;
use protocol::shared::ListRequest;

use crate::tables::{DRAWS, Head};
use crate::{Decided, Record, Refusal};

/// The draw of a round that is to be journaled, and what the next block has of it.
pub(crate) fn hear(
    genesis: &Genesis,
    head: &mut Head,
    epoch: u64,
    round: u64,
    drawn: Option<&Drawn>,
) -> Option<Record> {
    let drawn = *drawn?;
    if epoch < head.epoch || drawn.draw <= head.drawn {
        return None;
    }
    let fixed = drawn.fixed.filter(|_| genesis.elected.is_some());
    let drawn = Drawn { fixed, ..drawn };
    let record = Record::Drawn { epoch, round, drawn };
    take(head, epoch, round, &drawn);
    Some(record)
}

fn take(head: &mut Head, epoch: u64, round: u64, drawn: &Drawn) {
    head.drawn = drawn.draw;
    // A round that has blocks already was not the one that brought it into one.
    if (epoch, round) > (head.epoch, head.round) {
        head.pending = Some(*drawn);
    }
}

pub(crate) fn take_drawn(
    view: &mut dyn Write,
    head: &mut Head,
    epoch: u64,
    round: u64,
    drawn: &Drawn,
) -> Result<(), Fault> {
    head.enter(epoch, head.ordered);
    take(head, epoch, round, drawn);
    DRAWS.put(view, &(epoch, drawn.draw), &(round, drawn.value));
    Ok(())
}

/// A block has the value that waited for it.
pub(crate) fn take_block(view: &mut dyn Write, head: &mut Head, header: &BlockHeader) -> Result<(), Fault> {
    head.pending = None;
    if let Some(drawn) = &header.beacon
        && DRAWS.get(view, &(header.epoch, drawn.draw))?.is_none()
    {
        DRAWS.put(view, &(header.epoch, drawn.draw), &(header.round, drawn.value));
    }
    Ok(())
}

pub(crate) fn list(view: &dyn Read, list: &ListRequest) -> Decided {
    let read = |cursor: &String| {
        let (epoch, draw) = cursor.split_once('.')?;
        Some((epoch.parse().ok()?, draw.parse().ok()?))
    };
    let after = list.cursor.as_ref().map(read);
    if after == Some(None) {
        return refuse(Refusal::BadCursor);
    }
    let rows = DRAWS.scan(view, &(), after.flatten().as_ref(), true);
    answer(Answer::Draws(page::collect(rows, list.limit(), |((epoch, draw), (round, value))| {
        (DrawView { epoch, draw, round, value }, format!("{epoch}.{draw}"))
    })?))
}
