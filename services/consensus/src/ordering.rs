//! What the next block holds: the seam where hashgraph will stand.
//!
//! Today a network has one member, and its order is the order of arrival. With hashgraph, this module
//! becomes the engine: events come in, rounds and witnesses are decided, and what it gives is again a
//! list of transactions in their final order, with a round received and a median timestamp. Everything
//! around it (admission, blocks, attestation, finality) stays.

use protocol::transaction::Transaction;

/// The most transactions of one block.
pub const BLOCK_TRANSACTIONS_MAX: usize = 1_000;
/// The most bytes of arguments in one block, beyond its first transaction.
const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The transactions of the next block, out of those that wait, in order of arrival.
pub fn next_block(waiting: Vec<Transaction>) -> Vec<Transaction> {
    let mut bytes = 0;
    let mut fits = |transaction: &Transaction| {
        bytes += transaction.args.len();
        bytes <= BLOCK_BYTES_MAX
    };
    let count = waiting.iter().take(BLOCK_TRANSACTIONS_MAX).take_while(|transaction| fits(transaction)).count();
    waiting.into_iter().take(count.max(1)).collect()
}
