//! What members say: transactions, and their words for blocks. Events carry them as numbers: what each stands for everybody knows who
//! has the event, and no member encodes or decodes it.

use std::collections::BTreeMap;

use protocol::TxId;
use protocol::block::Attestation;
use protocol::transaction::Transaction;

use crate::cells::Epoch;

/// What was said, by number.
pub type Word = u64;

/// What a number stands for.
#[derive(Clone, Debug)]
enum Item {
    Transaction(Transaction),
    Attestation(Attestation),
}

/// All that was ever said.
#[derive(Debug, Default)]
pub(crate) struct Words {
    items: Vec<Item>,
    of_transactions: BTreeMap<TxId, Word>,
}

impl Words {
    /// Takes in a transaction; the same one has the same number.
    pub(crate) fn transaction(&mut self, transaction: &Transaction) -> Word {
        let next = self.items.len() as Word;
        let word = *self.of_transactions.entry(transaction.id()).or_insert(next);
        if word == next {
            self.items.push(Item::Transaction(transaction.clone()));
        }
        word
    }

    /// The number of a transaction.
    pub(crate) fn of(&self, id: &TxId) -> Option<Word> {
        self.of_transactions.get(id).copied()
    }

    /// Takes in a member's word for a block.
    pub(crate) fn attestation(&mut self, attestation: Attestation) -> Word {
        self.items.push(Item::Attestation(attestation));
        self.items.len() as Word - 1
    }

    /// What a number stands for, for people.
    pub(crate) fn show(&self, word: Word) -> String {
        match self.items.get(word as usize) {
            Some(Item::Transaction(Transaction { nonce, module, call, args, .. })) => {
                format!("{module}.{call} {args:.60} nonce {nonce}")
            }
            other => format!("{other:?}"),
        }
    }

    /// A member's word for a block.
    pub(crate) fn as_attestation(&self, word: Word) -> Option<&Attestation> {
        match self.items.get(word as usize)? {
            Item::Attestation(attestation) => Some(attestation),
            Item::Transaction(_) => None,
        }
    }

    /// The transactions that an event carries.
    pub(crate) fn transactions(&self, payload: &[u8]) -> impl Iterator<Item = &Transaction> {
        numbers(payload).filter_map(|word| match self.items.get(word as usize)? {
            Item::Transaction(transaction) => Some(transaction),
            Item::Attestation(_) => None,
        })
    }

    /// The words for blocks that an event carries.
    pub(crate) fn attestations(&self, payload: &[u8]) -> impl Iterator<Item = &Attestation> {
        numbers(payload).filter_map(|word| self.as_attestation(word))
    }

    /// Whether something is to be ordered of what an event carries, and whether a change of members is asked for.
    pub(crate) fn contents(&self, payload: &[u8], epoch: &Epoch) -> (bool, bool) {
        let changes = |transaction: &Transaction| {
            consensus::members::asks_for_change(transaction, epoch.members.contains(&transaction.sender))
        };
        (self.transactions(payload).next().is_some(), self.transactions(payload).any(changes))
    }
}

/// The numbers in a payload.
pub(crate) fn numbers(payload: &[u8]) -> impl Iterator<Item = Word> {
    payload.as_chunks().0.iter().map(|bytes| Word::from_le_bytes(*bytes))
}
