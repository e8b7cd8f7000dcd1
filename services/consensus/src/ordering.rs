//! What the next block holds: the seam where hashgraph will stand.
//!
//! Today a network has one member, and its order is the order of arrival. With hashgraph, this module
//! becomes the engine: events come in, rounds and witnesses are decided, and what it gives is again a
//! list of transactions in their final order, with a round received and a median timestamp in the
//! place of this cell's own clock. Everything around it (admission, blocks, attestation, finality)
//! stays.
//!
//! Invariant: the result is a beginning of what waits, in its order; it is empty only if nothing
//! waits, so that a large transaction cannot block those behind it.

use machine::Fault;
use protocol::transaction::Transaction;

/// The most transactions of one block.
pub const BLOCK_TRANSACTIONS_MAX: usize = 1_000;
/// The most bytes of transactions in one block; its first transaction fits in any case.
pub const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a transaction takes beside its names and arguments, in bytes: ids, nonce, signature, framing.
const TRANSACTION_OVERHEAD_BYTES: usize = 192;

/// The transactions of the next block, out of those that wait, in order of arrival. Reads no further
/// than the block goes.
///
/// # Errors
///
/// The first [`Fault`] of `waiting`.
pub fn next_block(
    waiting: impl Iterator<Item = Result<Transaction, Fault>>,
) -> Result<Vec<Transaction>, Fault> {
    let mut block = Vec::new();
    let mut bytes = 0;
    for transaction in waiting.take(BLOCK_TRANSACTIONS_MAX) {
        let transaction = transaction?;
        bytes += size(&transaction);
        if bytes > BLOCK_BYTES_MAX && !block.is_empty() {
            break;
        }
        block.push(transaction);
    }
    Ok(block)
}

fn size(transaction: &Transaction) -> usize {
    let Transaction { module, call, args, .. } = transaction;
    module.len() + call.len() + args.len() + TRANSACTION_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::signing::Signature;
    use protocol::{CellId, GenesisHash};

    use super::*;

    fn waiting(args_bytes: &[usize]) -> Vec<Transaction> {
        let transaction = |(nonce, bytes): (u64, &usize)| Transaction {
            genesis: GenesisHash::ZERO,
            sender: CellId::from_bytes([1; 32]),
            nonce,
            module: "kv".into(),
            call: "put".into(),
            args: " ".repeat(*bytes),
            signature: Signature::from_bytes([0; 64]),
        };
        (1..).zip(args_bytes).map(transaction).collect()
    }

    #[test]
    fn no_more_is_read_than_a_block_takes() {
        let mut read = 0;
        let endless = std::iter::repeat_with(|| waiting(&[200_000]).remove(0)).inspect(|_| read += 1).map(Ok);
        let block = next_block(endless).expect("readable");
        assert_eq!((block.len(), read), (20, 21));
        assert_eq!(next_block(waiting(&[1; 1_500]).into_iter().map(Ok)).expect("readable").len(), 1_000);
        assert_eq!(next_block(waiting(&[5_000_000, 1]).into_iter().map(Ok)).expect("readable").len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Block after block, everything that waits is ordered once, as it came, and no block is too large.
        #[test]
        fn blocks_are_what_waits_cut_in_pieces(sizes in prop::collection::vec(0usize..262_144, 0..64)) {
            let all = waiting(&sizes);
            let mut ordered = Vec::new();
            while ordered.len() < all.len() {
                let block = next_block(all[ordered.len()..].iter().cloned().map(Ok)).expect("readable");
                prop_assert!(!block.is_empty());
                prop_assert!(block.len() == 1 || block.iter().map(size).sum::<usize>() <= BLOCK_BYTES_MAX);
                ordered.extend(block);
            }
            prop_assert_eq!(ordered, all);
        }
    }
}
