//! Queries: values, versions, roots, proofs.

use jmt::{KeyHash, Sha256Jmt};
use machine::{Fault, Read, answer, refuse};
use protocol::state::{
    Answer, GetAnswer, GetRequest, HistoryRequest, KeyProof, ListKeys, NonceAnswer, RootAnswer, Version,
};
use protocol::shared::page_limit;
use protocol::{BlockIndex, CellId, StateRoot};

use crate::execute::read_number;
use crate::tables::{BLOCKS, CURRENT, HISTORY, Head};
use crate::tree::{Nodes, fault, key_hash, value_at};
use crate::{Decided, KEY_BYTES_MAX, Refusal};

pub(crate) fn get(view: &dyn Read, head: &Head, asked: &GetRequest) -> Decided {
    let (version, key) = match place(head, asked) {
        Ok(place) => place,
        Err(refusal) => return refuse(refusal),
    };
    let found = value_at(view, &key_hash(key), version)?;
    let (changed, value) = found.map_or((None, None), |(changed, value)| (block_of(changed), value));
    let value = value.map(|value| shown(&value));
    answer(Answer::Get(GetAnswer { key: key.to_owned(), value, changed, index: block_of(version) }))
}

/// The version a request asks for, and its key.
fn place<'a>(head: &Head, asked: &'a GetRequest) -> Result<(u64, &'a str), Refusal> {
    if asked.key.len() > KEY_BYTES_MAX || !asked.key.contains('/') {
        return Err(Refusal::BadKey { key: asked.key.chars().take(80).collect() });
    }
    match asked.at {
        Some(BlockIndex(index)) if index >= head.version => Err(Refusal::NoSuchBlock { index }),
        Some(BlockIndex(index)) => Ok((index + 1, &asked.key)),
        None => Ok((head.version, &asked.key)),
    }
}

/// The block behind a version; none behind the genesis.
fn block_of(version: u64) -> Option<BlockIndex> {
    version.checked_sub(1).map(BlockIndex)
}

fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("0x{}", hex::encode(value)),
    }
}

pub(crate) fn list(view: &dyn Read, head: &Head, asked: &ListKeys) -> Decided {
    let rows = CURRENT.scan(view, &asked.prefix, asked.cursor.as_ref(), false);
    let page = machine::page::collect(rows, page_limit(asked.limit), |(key, (value, changed))| {
        let item = GetAnswer {
            key: key.clone(),
            value: Some(shown(&value)),
            changed: block_of(changed),
            index: block_of(head.version),
        };
        (item, key)
    })?;
    answer(Answer::List(page))
}

pub(crate) fn history(view: &dyn Read, asked: &HistoryRequest) -> Decided {
    let key = key_hash(&asked.key);
    let after = match asked.cursor.as_ref().map(|cursor| cursor.parse::<u64>()).transpose() {
        Ok(after) => after.map(|inverted| (key, inverted)),
        Err(_) => return refuse(Refusal::BadCursor),
    };
    // What a genesis wrote stands before block 0: it has no block to name, and is not listed.
    let rows = HISTORY
        .scan(view, &key, after.as_ref(), false)
        .filter(|row| row.as_ref().map_or(true, |((_, inverted), _)| *inverted != u64::MAX));
    let page = machine::page::collect(rows, page_limit(asked.limit), |((_, inverted), value)| {
        let index = BlockIndex((u64::MAX - inverted).saturating_sub(1));
        (Version { index, value: value.map(|value| shown(&value)) }, inverted.to_string())
    })?;
    answer(Answer::History(page))
}

pub(crate) fn root(view: &dyn Read, head: &Head, at: Option<BlockIndex>) -> Decided {
    match at {
        None => answer(Answer::Root(RootAnswer { index: block_of(head.version), root: head.root })),
        Some(index) => match BLOCKS.get(view, &index.0)? {
            Some((applied, _)) => answer(Answer::Root(RootAnswer { index: Some(index), root: applied.root })),
            None => refuse(Refusal::NoSuchBlock { index: index.0 }),
        },
    }
}

pub(crate) fn prove(view: &dyn Read, head: &Head, asked: &GetRequest) -> Decided {
    let (version, key) = match place(head, asked) {
        Ok(place) => place,
        Err(refusal) => return refuse(refusal),
    };
    let nodes = Nodes(view);
    let tree = Sha256Jmt::new(&nodes);
    let root = tree.get_root_hash(version).map_err(fault)?;
    let hash = KeyHash(*key_hash(key).as_bytes());
    let (value, path) = tree.get_with_proof(hash, version).map_err(fault)?;
    let path = borsh::to_vec(&path).map_err(fault)?;
    answer(Answer::ProveKey(KeyProof {
        key: key.to_owned(),
        value: value.map(hex::encode),
        index: block_of(version),
        root: StateRoot::from_bytes(root.0),
        path: hex::encode(path),
    }))
}

pub(crate) fn nonce(view: &dyn Read, cell: &CellId) -> Decided {
    let value = CURRENT.get(view, &format!("nonce/{cell}"))?.map(|(value, _)| Vec::from(value));
    let last: Result<u64, Fault> = read_number(value);
    answer(Answer::Nonce(NonceAnswer { last: last? }))
}
