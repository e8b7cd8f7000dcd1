//! The module `dataset`: which cell stands for which data, found by tags. The data itself is kept elsewhere.
//!
//! Calls: `register {hash, size, tags}`, `update {hash, tags}`, `withdraw {hash}`. A hash is the BLAKE3 of
//! the data, in 64 lower-case hex digits; it is registered once, by its author, who alone may change its
//! tags or withdraw it. A withdrawn hash is anybody's.
//!
//! The record lies under `HASH`, as JSON with its fields in the order of their names. Beside it stands an
//! empty value under `#TAG/HASH` for each of its tags, so the data sets of a tag are one range of keys, each
//! with a proof of its own. Tags are kept sorted, each once.
//!
//! Invariant: after every block a `#TAG/HASH` is there exactly if the record of the hash names the tag.
//! It is checked by what the block changed, so by induction it holds for all.
//!
//! Absent: the data, which cells keep and give each other by its hash (`cell::data`), and any word on whether it is what its tags say.

use std::collections::{BTreeMap, BTreeSet};

use machine::module::{Change, Module, ModuleState, Outcome, TxContext};
use machine::{Calls, Fault, Read, answer, refuse};
use protocol::genesis::Genesis;
use protocol::shared::{Page, page_limit};
use protocol::state::{Answer, DatasetView, DatasetsRequest, KeyProof};
use protocol::{BlockIndex, CellId, Hash, Problem, ProblemKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::query::{self, place_at};
use crate::tables::Head;
use crate::{Decided, Refusal};

/// The most tags of a data set.
pub const TAGS_MAX: usize = 16;
/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 64;
/// The most keys that are looked at for one page of a list.
const LOOKS_MAX: usize = 10_000;
/// What the module says where a call does not fit.
const CALLS: Calls = Calls {
    module: NAME,
    bad_args: "dataset.bad_args",
    unknown: "dataset.unknown_call",
    names: "register, update, withdraw",
    shapes: r#"register takes {"hash":"…","size":5,"tags":["…"]}, update takes {"hash":"…","tags":["…"]}, withdraw takes {"hash":"…"}"#,
};

/// The module's name.
const NAME: &str = "dataset";

/// Whether a key's proof is that of a data set's record, and says the same.
pub(crate) fn is_record(dataset: &DatasetView, proof: &KeyProof) -> bool {
    let value = proof.value.as_ref().and_then(|value| hex::decode(value).ok());
    let entry = value.and_then(|value| Entry::read(&value).ok());
    proof.key == dataset.key && entry.is_some_and(|entry| entry.view(dataset.hash, proof.index) == *dataset)
}

/// What is kept of a data set. The fields stand in the order of their names: so does the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    author: CellId,
    registered_ms: u64,
    size: u64,
    tags: Vec<String>,
}

impl Entry {
    fn read(bytes: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(bytes).map_err(|error| Fault(format!("a data set is no record: {error}")))
    }

    fn view(self, hash: Hash, index: Option<BlockIndex>) -> DatasetView {
        let Self { author, registered_ms, size, tags } = self;
        DatasetView { key: format!("{NAME}/{hash}"), hash, author, size, tags, registered_ms, index }
    }

    fn write(&self) -> Result<Vec<u8>, Fault> {
        serde_json::to_vec(self).map_err(|error| Fault(format!("a data set is no JSON: {error}")))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    hash: String,
    size: u64,
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    hash: String,
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Withdraw {
    hash: String,
}

/// A checked call: the hash is one, the tags are sorted and each stands once.
enum Call {
    Register { hash: String, size: u64, tags: Vec<String> },
    Update { hash: String, tags: Vec<String> },
    Withdraw { hash: String },
}

/// The module.
#[derive(Clone, Copy, Debug)]
pub struct Dataset;

impl Module for Dataset {
    fn name(&self) -> &'static str {
        NAME
    }

    fn genesis(&self, _: &Genesis, _: &mut dyn ModuleState) {}

    fn check(&self, call: &str, args: &Value) -> Outcome {
        parse(call, args).map(|_| ())
    }

    fn execute(
        &self,
        context: &TxContext,
        call: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        let call = match parse(call, args) {
            Ok(call) => call,
            Err(problem) => return Ok(Err(problem)),
        };
        let (Call::Register { hash, .. } | Call::Update { hash, .. } | Call::Withdraw { hash }) = &call;
        let before = state.get(hash)?.map(|bytes| Entry::read(&bytes)).transpose()?;
        let (hash, after) = match (call, &before) {
            (Call::Register { hash, .. }, Some(_)) => return Ok(Err(exists(&hash))),
            (Call::Register { hash, size, tags }, None) => {
                let (author, registered_ms) = (context.sender, context.time_ms);
                (hash, Some(Entry { author, registered_ms, size, tags }))
            }
            (Call::Update { hash, .. } | Call::Withdraw { hash }, None) => {
                return Ok(Err(unknown(&hash)));
            }
            (Call::Update { hash, .. } | Call::Withdraw { hash }, Some(before))
                if before.author != context.sender =>
            {
                return Ok(Err(not_author(&hash)));
            }
            (Call::Update { hash, tags }, Some(before)) => (hash, Some(Entry { tags, ..before.clone() })),
            (Call::Withdraw { hash }, Some(_)) => (hash, None),
        };
        replace(state, &hash, before.as_ref(), after.as_ref())?;
        Ok(Ok(()))
    }

    fn check_invariants(&self, changes: &[Change]) -> Result<(), String> {
        let mut named = BTreeMap::new();
        let mut there = BTreeMap::new();
        for change in changes {
            if change.key.starts_with('#') {
                there.insert(change.key.clone(), (change.before.is_some(), change.after.is_some()));
                continue;
            }
            let tags = |value: &Option<Vec<u8>>| match value {
                Some(bytes) => Entry::read(bytes).map(|entry| entry.tags).map_err(|fault| fault.0),
                None => Ok(Vec::new()),
            };
            for tag in tags(&change.before)? {
                named.entry(tag_key(&tag, &change.key)).or_insert((false, false)).0 = true;
            }
            for tag in tags(&change.after)? {
                named.entry(tag_key(&tag, &change.key)).or_insert((false, false)).1 = true;
            }
        }
        // A tag that stays with its data set need not be written.
        named.retain(|key, (before, after)| before != after || there.contains_key(key));
        if named == there {
            Ok(())
        } else {
            Err("the tags of a data set are not the ones it is found by".to_owned())
        }
    }
}

fn tag_key(tag: &str, hash: &str) -> String {
    format!("#{tag}/{hash}")
}

/// Puts a record and its tags in the place of those before; only what differs is written.
fn replace(
    state: &mut dyn ModuleState,
    hash: &str,
    before: Option<&Entry>,
    after: Option<&Entry>,
) -> Result<(), Fault> {
    let tags = |entry: Option<&Entry>| -> BTreeSet<String> {
        entry.into_iter().flat_map(|entry| entry.tags.iter().cloned()).collect()
    };
    let (old, new) = (tags(before), tags(after));
    for tag in old.difference(&new) {
        state.delete(&tag_key(tag, hash));
    }
    for tag in new.difference(&old) {
        state.put(&tag_key(tag, hash), Vec::new());
    }
    match after {
        Some(entry) => state.put(hash, entry.write()?),
        None => state.delete(hash),
    }
    Ok(())
}

fn parse(call: &str, args: &Value) -> Result<Call, Problem> {
    match call {
        "register" => CALLS.arguments(args).and_then(|Register { hash, size, tags }| {
            Ok(Call::Register { hash: check_hash(hash)?, size, tags: check_tags(tags)? })
        }),
        "update" => CALLS.arguments(args).and_then(|Update { hash, tags }| {
            Ok(Call::Update { hash: check_hash(hash)?, tags: check_tags(tags)? })
        }),
        "withdraw" => {
            CALLS.arguments(args).and_then(|Withdraw { hash }| Ok(Call::Withdraw { hash: check_hash(hash)? }))
        }
        _ => Err(CALLS.no_such(call)),
    }
}

fn check_hash(hash: String) -> Result<String, Problem> {
    if is_hash(&hash) {
        return Ok(hash);
    }
    Err(Problem::new(ProblemKind::Invalid, "dataset.bad_hash", "that is not the hash of a data set")
        .hint("the BLAKE3 hash of the data, in 64 lower-case hex digits: b3sum FILE"))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_tags(mut tags: Vec<String>) -> Result<Vec<String>, Problem> {
    let bad = |cause: String| {
        Err(Problem::new(ProblemKind::Invalid, "dataset.bad_tags", cause)
            .hint("at most 16 tags, each of 1 to 64 characters out of a-z 0-9 _ . : -"))
    };
    if tags.len() > TAGS_MAX {
        return bad(format!("{} tags were given", tags.len()));
    }
    if let Some(tag) = tags.iter().find(|tag| !is_tag(tag)) {
        let shown: String = tag.chars().take(TAG_BYTES_MAX).collect();
        return bad(format!("{shown:?} cannot be a tag"));
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

fn is_tag(text: &str) -> bool {
    (1..=TAG_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b':' | b'-'))
}

fn exists(hash: &str) -> Problem {
    let cause = format!("the data set {hash} is registered already");
    Problem::new(ProblemKind::Conflict, "dataset.exists", cause)
        .hint("its author may change the tags with update, or withdraw it")
}

fn unknown(hash: &str) -> Problem {
    let cause = format!("there is no data set {hash}");
    Problem::new(ProblemKind::NotFound, "dataset.no_such_hash", cause)
        .hint("cell call state.datasets '{}' shows what is registered")
}

fn not_author(hash: &str) -> Problem {
    let cause = format!("the data set {hash} was registered by another cell");
    Problem::new(ProblemKind::Denied, "dataset.not_author", cause).hint("only its author may change it")
}

/// Data sets that fit, in the order of their hashes. The keys of the first tag are walked where one is
/// given, else all data sets are; a walk that finds little ends after [`LOOKS_MAX`] keys with a cursor.
pub(crate) fn list(view: &dyn Read, head: &Head, asked: &DatasetsRequest) -> Decided {
    let version = match place_at(head, asked.at) {
        Ok(version) => version,
        Err(refusal) => return refuse(refusal),
    };
    if asked.cursor.as_ref().is_some_and(|cursor| !is_hash(cursor)) {
        return refuse(Refusal::BadCursor);
    }
    if let Err(problem) = check_tags(asked.tags.clone()) {
        return refuse(problem);
    }
    let prefix = match asked.tags.first() {
        Some(tag) => format!("dataset/#{tag}/"),
        None => "dataset/".to_owned(),
    };
    // Behind the last tag key, before the first hash: '/' stands between '#' and the digits.
    let after = format!("{prefix}{}", asked.cursor.as_deref().unwrap_or("/"));
    let mut page = Page { items: Vec::new(), next: None };
    let mut last = None;
    for (looks, row) in query::rows(view, head, version, &prefix, Some(&after)).enumerate() {
        if page.items.len() == page_limit(asked.limit) || looks == LOOKS_MAX {
            page.next = last;
            break;
        }
        let (key, value, _) = row?;
        let hash = key[prefix.len()..].to_owned();
        let entry = if asked.tags.is_empty() {
            Entry::read(&value)?
        } else {
            let record = query::value_of(view, head, version, &format!("dataset/{hash}"))?;
            let record = record.ok_or_else(|| Fault(format!("the data set {hash} has no record")))?;
            Entry::read(&record)?
        };
        last = Some(hash.clone());
        if fits(&entry, asked) {
            page.items.push(entry.view(hash.parse()?, query::block_of(version)));
        }
    }
    answer(Answer::Datasets(page))
}

fn fits(entry: &Entry, asked: &DatasetsRequest) -> bool {
    asked.tags.iter().all(|tag| entry.tags.binary_search(tag).is_ok())
        && asked.author.is_none_or(|author| author == entry.author)
        && asked.size_min.is_none_or(|size| size <= entry.size)
        && asked.size_max.is_none_or(|size| entry.size <= size)
}
