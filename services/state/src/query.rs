//! Queries: values, versions, roots, proofs.

use jmt::{KeyHash, Sha256Jmt};
use machine::{Fault, Read, answer, page, refuse};
use protocol::shared::page_limit;
use protocol::state::{
    Answer, GetAnswer, GetRequest, HistoryRequest, KeyProof, ListKeys, NonceAnswer, RootAnswer, Version,
};
use protocol::{BlockIndex, CellId, StateRoot};

use crate::execute::read_number;
use crate::tables::{BLOCKS, CURRENT, HISTORY, Head, NAMES};
use crate::tree::{Nodes, fault, key_hash, value_at};
use crate::{Decided, KEY_BYTES_MAX, Refusal};

/// A key, its value, and the version that wrote it.
type Row = (String, Vec<u8>, u64);

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
    check_key(&asked.key)?;
    Ok((place_at(head, asked.at)?, &asked.key))
}

/// The version that stands after a block, or the newest.
pub(crate) fn place_at(head: &Head, at: Option<BlockIndex>) -> Result<u64, Refusal> {
    match at {
        Some(BlockIndex(index)) if index >= head.version => Err(Refusal::NoSuchBlock { index }),
        Some(BlockIndex(index)) if index + 1 < head.oldest => Err(head.pruned()),
        Some(BlockIndex(index)) => Ok(index + 1),
        None => Ok(head.version),
    }
}

/// The rows of a version whose keys begin with `prefix`, in key order, after a key.
pub(crate) fn rows<'a>(
    view: &'a dyn Read,
    head: &Head,
    version: u64,
    prefix: &str,
    after: Option<&String>,
) -> Box<dyn Iterator<Item = Result<Row, Fault>> + 'a> {
    let prefix = prefix.to_owned();
    if version == head.version {
        let rows = CURRENT.scan(view, &prefix, after, false);
        return Box::new(rows.map(|row| row.map(|(key, (value, changed))| (key, value.into(), changed))));
    }
    let names = NAMES.scan(view, &prefix, after, false);
    Box::new(names.filter_map(move |row| {
        let found = row.and_then(|(key, ())| {
            let written = value_at(view, &key_hash(&key), version)?;
            Ok(written.and_then(|(changed, value)| value.map(|value| (key, value, changed))))
        });
        found.transpose()
    }))
}

/// The value of one key in a version.
pub(crate) fn value_of(
    view: &dyn Read,
    head: &Head,
    version: u64,
    key: &String,
) -> Result<Option<Vec<u8>>, Fault> {
    if version == head.version {
        return Ok(CURRENT.get(view, key)?.map(|(value, _)| value.into()));
    }
    Ok(value_at(view, &key_hash(key), version)?.and_then(|(_, value)| value))
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if key.len() > KEY_BYTES_MAX || !key.contains('/') {
        return Err(Refusal::BadKey { key: key.chars().take(80).collect() });
    }
    Ok(())
}

/// The block behind a version; none behind the genesis.
pub(crate) fn block_of(version: u64) -> Option<BlockIndex> {
    version.checked_sub(1).map(BlockIndex)
}

fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("0x{}", hex::encode(value)),
    }
}

pub(crate) fn list(view: &dyn Read, head: &Head, asked: &ListKeys) -> Decided {
    // A cursor from another list would lead outside the prefix.
    if asked.cursor.as_ref().is_some_and(|cursor| !cursor.starts_with(&asked.prefix)) {
        return refuse(Refusal::BadCursor);
    }
    let version = match place_at(head, asked.at) {
        Ok(version) => version,
        Err(refusal) => return refuse(refusal),
    };
    let rows = rows(view, head, version, &asked.prefix, asked.cursor.as_ref());
    let page = page::collect_within(
        rows,
        page_limit(asked.limit),
        page::PAGE_BYTES_MAX,
        |(key, value, changed)| {
            let size = value.len();
            let item = GetAnswer {
                key: key.clone(),
                value: Some(shown(&value)),
                changed: block_of(changed),
                index: block_of(version),
            };
            (item, key, size)
        },
    )?;
    answer(Answer::List(page))
}

pub(crate) fn history(view: &dyn Read, head: &Head, asked: &HistoryRequest) -> Decided {
    if let Err(refusal) = check_key(&asked.key) {
        return refuse(refusal);
    }
    let key = key_hash(&asked.key);
    let after = match asked.cursor.as_ref().map(|cursor| cursor.parse::<u64>()).transpose() {
        Ok(after) => after.map(|inverted| (key, inverted)),
        Err(_) => return refuse(Refusal::BadCursor),
    };
    // Whatever the oldest version holds is the last row; of those behind it some may still be there.
    if after.is_some_and(|(_, inverted)| head.oldest > 0 && u64::MAX - inverted <= head.oldest) {
        return refuse(head.pruned());
    }
    let (oldest, mut ended) = (head.oldest, false);
    let rows = HISTORY.scan(view, &key, after.as_ref(), false).map_while(|row| {
        let kept = row.as_ref().is_ok_and(|((_, inverted), _)| u64::MAX - inverted > oldest);
        let last = std::mem::replace(&mut ended, !kept);
        (!last).then_some(row)
    });
    // A deletion that the oldest version rests on says no more than an absent row.
    let rows = rows.filter(|row| match row {
        Ok(((_, inverted), None)) => oldest == 0 || u64::MAX - inverted > oldest,
        _ => true,
    });
    let page = page::collect_within(
        rows,
        page_limit(asked.limit),
        page::PAGE_BYTES_MAX,
        |((_, inverted), value)| {
            let size = value.as_ref().map_or(0, |value| value.len());
            let value = value.map(|value| shown(&value));
            (Version { index: block_of(u64::MAX - inverted), value }, inverted.to_string(), size)
        },
    )?;
    answer(Answer::History(page))
}

pub(crate) fn root(view: &dyn Read, head: &Head, at: Option<BlockIndex>) -> Decided {
    let version = match place_at(head, at) {
        Ok(version) => version,
        Err(refusal) => return refuse(refusal),
    };
    let index = block_of(version);
    match at.map(|index| crate::block_at(view, index)).transpose()? {
        None => answer(Answer::Root(RootAnswer { index, root: head.root })),
        Some(Some((root, _))) => answer(Answer::Root(RootAnswer { index, root })),
        Some(None) => Err(Fault(format!("the result of version {version} is not there"))),
    }
}

/// The result of the newest block.
pub(crate) fn newest(view: &dyn Read, head: &Head) -> Decided {
    let Some(index) = head.last_block() else { return refuse(Refusal::NoBlocks) };
    match BLOCKS.get(view, &index)? {
        Some((applied, _)) => answer(Answer::Head(applied)),
        None => refuse(head.pruned()),
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
