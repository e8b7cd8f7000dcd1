//! Elected execution: what a call of an app comes to, as a committee says it, so that the others need not carry it out.
//!
//! A call is asked for in the order (`elected.request`); a value of the beacon that a later round fixes draws its [`committee`](crate::committee).
//! Members of it carry the call out and sign what it reads and writes. With a quorum of their words anybody may bring
//! that into the order (`elected.apply`, [`Execution`]): all members check the words and put the writes down, if what was read is unchanged.
//!
//! # What is signed
//!
//! `"celluler/elected/1\0" || genesis || call || hash(app) || hash(reads) || hash(writes)`, the last two as CBOR. Keys rise
//! strictly in both, so an execution has one spelling.
//!
//! # Versions
//!
//! The **version** of a key is the BLAKE3 hash of its value, or none where there is no value. When a value was written is no
//! part of what members agree on: a cell that came by a checkpoint does not know it (ADR 0019). What a call comes to is a function of the call and of the
//! values it reads, so if all of them are as they were, it comes to the same, whatever happened in between.
//!
//! # Bounds
//!
//! [`KEYS_MAX`] reads and as many writes, of keys of [`KEY_BYTES_MAX`] and values of [`VALUES_BYTES_MAX`] together; a word for each seat at most. All of it has to
//! fit into the arguments of a transaction.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::beacon::Drawn;
use crate::committee::{SEATS_MAX, Seat};
use crate::id::{BlockIndex, CellId, GenesisHash, Hash, TxId};
use crate::signing::{self, Signature, SignedText};
use crate::{Problem, ProblemKind, codec};

/// The most keys that an execution reads, and that it writes.
pub const KEYS_MAX: usize = 256;
/// The longest key, in bytes, with the app's name.
pub const KEY_BYTES_MAX: usize = 256;
/// All values that an execution writes, in bytes.
pub const VALUES_BYTES_MAX: usize = 64 * 1024;
/// The longest name of an app, in bytes.
pub const APP_BYTES_MAX: usize = 32;
/// The most blocks that a committee may have to serve a call.
pub const SERVE_BLOCKS_MAX: u64 = 100_000;

/// A network's elected execution.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectedRules {
    /// Blocks after the one that asks for a call, within which it is drawn, carried out and applied: 1 to 100 000. Later it is executed by order.
    #[n(0)]
    pub serve_blocks: u64,
    /// The most seats of a committee, 1 to 128; 128 unless told. Where fewer than it takes are allowed, calls are executed by order.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats_max: Option<u64>,
}

impl ElectedRules {
    /// The most seats of a committee.
    pub fn seats_max(&self) -> u64 {
        self.seats_max.unwrap_or(SEATS_MAX)
    }

    /// What is wrong with them, if something is.
    ///
    /// # Errors
    ///
    /// The reason, in words.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=SERVE_BLOCKS_MAX).contains(&self.serve_blocks) {
            return Err(format!("calls are served within 1 to {SERVE_BLOCKS_MAX} blocks"));
        }
        if !(1..=SEATS_MAX).contains(&self.seats_max()) {
            return Err(format!("a committee has 1 to {SEATS_MAX} seats"));
        }
        Ok(())
    }
}

/// The version of a value: its hash.
pub fn version(value: &[u8]) -> Hash {
    Hash::of(value)
}

/// Whether an app may have this name: 1 to 32 of `a-z 0-9 - _`, a letter first.
pub fn is_app(name: &str) -> bool {
    let rest = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    name.len() <= APP_BYTES_MAX
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(rest)
}

/// A key that a call read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRead {
    /// The key: `app/NAME/…`.
    #[n(0)]
    pub key: String,
    /// The version that it had; null if there was none.
    #[n(1)]
    #[serde(deserialize_with = "told")]
    pub version: Option<Hash>,
}

/// A key that a call writes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyWrite {
    /// The key: `app/NAME/…`.
    #[n(0)]
    pub key: String,
    /// Its value, hex in JSON; null removes it.
    #[n(1)]
    #[serde(deserialize_with = "told")]
    pub value: Option<Value>,
}

/// The bytes of a value, hex in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Value(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub Vec<u8>,
);

/// What may be null, and has to be said.
fn told<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// A committee member's word for an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// Who says so.
    #[n(0)]
    pub member: CellId,
    /// Over [`Execution::signed_text`].
    #[n(1)]
    pub signature: Signature,
}

/// What a call comes to, with the words of its committee: the arguments of `elected.apply`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// The call: the transaction that asked for it.
    #[n(0)]
    pub call: TxId,
    /// Its app.
    #[n(1)]
    pub app: String,
    /// What it read of its app's keys, all of it; keys rise.
    #[n(2)]
    pub reads: Vec<KeyRead>,
    /// What it writes of its app's keys; keys rise.
    #[n(3)]
    pub writes: Vec<KeyWrite>,
    /// The committee's words.
    #[n(4)]
    pub words: Vec<Word>,
}

impl Execution {
    /// The bytes that each word's signature covers: all but the words.
    pub fn signed_text(&self, genesis: &GenesisHash) -> Vec<u8> {
        SignedText::new("celluler/elected/1")
            .bytes32(genesis.as_bytes())
            .bytes32(self.call.as_bytes())
            .hash_of(self.app.as_bytes())
            .hash_of(&codec::encode(&self.reads))
            .hash_of(&codec::encode(&self.writes))
            .finish()
    }

    /// A member's word for it.
    pub fn sign(&self, key: &ed25519_dalek::SigningKey, genesis: &GenesisHash) -> Word {
        let signature = signing::sign(key, &self.signed_text(genesis));
        Word { member: signing::cell_id(key), signature }
    }

    /// Checks what can be told without the state: names, order, bounds, and that it stays with its app's keys.
    ///
    /// # Errors
    ///
    /// `elected.not_its_keys`, `elected.bad_args`, `elected.too_large`.
    pub fn check(&self) -> Result<(), Problem> {
        let Self { app, reads, writes, words, .. } = self;
        if !is_app(app) {
            return Err(bad_app(app));
        }
        if reads.len() > KEYS_MAX || writes.len() > KEYS_MAX || words.len() as u64 > SEATS_MAX {
            return Err(too_large("too many keys or words"));
        }
        let prefix = format!("app/{app}/");
        let keys = || reads.iter().map(|read| &read.key).chain(writes.iter().map(|write| &write.key));
        if let Some(key) = keys().find(|key| !key.starts_with(&prefix) || key.len() == prefix.len()) {
            let shown: String = key.chars().take(80).collect();
            let cause = format!("{shown:?} is no key of the app {app}");
            return Err(Problem::new(ProblemKind::Denied, "elected.not_its_keys", cause)
                .hint(format!("an app's keys begin with {prefix}")));
        }
        if keys().any(|key| key.len() > KEY_BYTES_MAX) {
            return Err(too_large("a key is too long"));
        }
        let values = writes.iter().filter_map(|write| write.value.as_ref());
        if values.map(|value| value.0.len()).sum::<usize>() > VALUES_BYTES_MAX {
            return Err(too_large("the values are too large"));
        }
        if !reads.is_sorted_by(|one, next| one.key < next.key)
            || !writes.is_sorted_by(|one, next| one.key < next.key)
        {
            let cause = "keys of reads and of writes rise, each once";
            return Err(
                Problem::new(ProblemKind::Invalid, "elected.bad_args", cause).hint("sort them by key")
            );
        }
        Ok(())
    }
}

/// That this cannot be the name of an app.
pub fn bad_app(name: &str) -> Problem {
    let shown: String = name.chars().take(40).collect();
    Problem::new(ProblemKind::Invalid, "elected.bad_app", format!("{shown:?} is no name of an app"))
        .hint("1 to 32 characters out of a-z 0-9 - _, a letter first")
}

fn too_large(cause: &str) -> Problem {
    Problem::new(ProblemKind::TooLarge, "elected.too_large", cause).hint(format!(
        "at most {KEYS_MAX} reads, {KEYS_MAX} writes and {SEATS_MAX} words, keys of {KEY_BYTES_MAX} bytes, {VALUES_BYTES_MAX} bytes of values"
    ))
}

/// A call and how far it has come, as the state holds it under `elected/call/ID`, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallRecord {
    /// Whose.
    pub app: String,
    /// The block that asked for it.
    pub asked: BlockIndex,
    /// The call of the app.
    pub call: String,
    /// Who asked.
    pub sender: CellId,
    /// How far it has come.
    pub path: Path,
}

/// How a call is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Path {
    /// It waits for a value that a later round fixes.
    Waits,
    /// By a committee.
    Elected {
        /// The epoch of the value.
        epoch: u64,
        /// The value that drew it.
        drawn: Drawn,
        /// The hash of the members it was drawn among.
        members: Hash,
        /// Who has how many seats.
        committee: Vec<Seat>,
    },
    /// By order, by all members.
    Ordered {
        /// Why.
        why: Fallback,
    },
    /// By a committee, and what it came to is in the state.
    Applied {
        /// Since this block.
        block: BlockIndex,
    },
}

/// Why a call is executed by order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// No committee that the network allows is safe enough.
    CommitteeTooSmall,
    /// It was not served in time.
    Late,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&[7; 32])
    }

    fn read(key: &str) -> KeyRead {
        KeyRead { key: key.into(), version: Some(version(b"old")) }
    }

    fn write(key: &str, bytes: usize) -> KeyWrite {
        KeyWrite { key: key.into(), value: Some(Value(vec![1; bytes])) }
    }

    fn execution() -> Execution {
        Execution {
            call: TxId::from_bytes([1; 32]),
            app: "chess".into(),
            reads: vec![read("app/chess/board"), KeyRead { version: None, ..read("app/chess/clock") }],
            writes: vec![write("app/chess/board", 3), KeyWrite { value: None, ..write("app/chess/x", 0) }],
            words: Vec::new(),
        }
    }

    #[test]
    fn all_but_the_words_is_signed() {
        let genesis = GenesisHash::ZERO;
        let text = execution().signed_text(&genesis);
        let changes: [fn(&mut Execution); 10] = [
            |it| it.call = TxId::ZERO,
            |it| it.app.push('x'),
            |it| it.reads[0].key.push('x'),
            |it| it.reads[0].version = None,
            |it| drop(it.reads.pop()),
            |it| it.writes[0].key.push('x'),
            |it| it.writes[0].value = None,
            |it| it.writes[1].value = Some(Value(Vec::new())),
            |it| drop(it.writes.pop()),
            |it| it.writes.swap(0, 1),
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut changed = execution();
            change(&mut changed);
            assert_ne!(changed.signed_text(&genesis), text, "change {place}");
        }
        assert_ne!(execution().signed_text(&GenesisHash::from_bytes([1; 32])), text, "another network");
        let mut signed = execution();
        signed.words.push(signed.sign(&key(), &genesis));
        assert_eq!(signed.signed_text(&genesis), text);
        let Word { member, signature } = signed.words[0];
        assert!(signing::verify(&member, &text, &signature));
    }

    /// What becomes of an execution after a change.
    fn code(change: impl FnOnce(&mut Execution)) -> String {
        let mut changed = execution();
        change(&mut changed);
        changed.check().map_or_else(|problem| problem.code.into_owned(), |()| "ok".to_owned())
    }

    #[test]
    fn an_execution_stays_with_its_app_and_within_its_bounds() {
        assert_eq!(code(|_| ()), "ok");
        for other in [
            "app/chess",
            "app/chess/",
            "app/chesss/x",
            "app/go/x",
            "prana/supply",
            "elected/rules",
            "chess/x",
            "",
        ] {
            assert_eq!(code(|it| it.reads = vec![read(other)]), "elected.not_its_keys", "{other:?}");
            assert_eq!(code(|it| it.writes = vec![write(other, 1)]), "elected.not_its_keys", "{other:?}");
        }
        for app in ["", "Chess", "1", "a/b", "-a", "café", &"a".repeat(33)] {
            assert_eq!(code(|it| it.app = app.into()), "elected.bad_app", "{app:?}");
        }
        let many = |count: usize| (0..count).map(|number| format!("app/chess/{number:04}"));
        assert_eq!(code(|it| it.reads = many(KEYS_MAX).map(|key| read(&key)).collect()), "ok");
        assert_eq!(
            code(|it| it.reads = many(KEYS_MAX + 1).map(|key| read(&key)).collect()),
            "elected.too_large"
        );
        assert_eq!(code(|it| it.writes = many(KEYS_MAX).map(|key| write(&key, 256)).collect()), "ok");
        assert_eq!(
            code(|it| it.writes = many(KEYS_MAX).map(|key| write(&key, 257)).collect()),
            "elected.too_large"
        );
        assert_eq!(
            code(|it| it.writes = many(KEYS_MAX + 1).map(|key| write(&key, 0)).collect()),
            "elected.too_large"
        );
        let long = |bytes: usize| format!("{:x<bytes$}", "app/chess/");
        assert_eq!(code(|it| it.reads = vec![read(&long(KEY_BYTES_MAX))]), "ok");
        assert_eq!(code(|it| it.reads = vec![read(&long(KEY_BYTES_MAX + 1))]), "elected.too_large");
        assert_eq!(code(|it| it.reads.swap(0, 1)), "elected.bad_args");
        assert_eq!(code(|it| it.reads[1] = it.reads[0].clone()), "elected.bad_args");
        assert_eq!(code(|it| it.writes[1].key = it.writes[0].key.clone()), "elected.bad_args");
        let word = execution().sign(&key(), &GenesisHash::ZERO);
        assert_eq!(code(|it| it.words = vec![word; SEATS_MAX as usize]), "ok");
        assert_eq!(code(|it| it.words = vec![word; SEATS_MAX as usize + 1]), "elected.too_large");
    }

    #[test]
    fn what_may_be_null_has_to_be_said() {
        let json = serde_json::to_value(execution()).expect("JSON");
        assert_eq!(serde_json::from_value::<Execution>(json.clone()).expect("reads back"), execution());
        assert_eq!(json["writes"][0]["value"], "010101");
        for (list, field) in [("reads", "version"), ("writes", "value")] {
            let mut without = json.clone();
            without[list][1].as_object_mut().expect("an object").remove(field);
            let error = serde_json::from_value::<Execution>(without).expect_err("not said");
            assert!(error.to_string().contains(field), "{error}");
        }
        assert_eq!(codec::decode::<Execution>(&codec::encode(&execution())), Ok(execution()));
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        for (serve_blocks, seats_max, works) in [
            (1, None, true),
            (0, None, false),
            (SERVE_BLOCKS_MAX, Some(1), true),
            (SERVE_BLOCKS_MAX + 1, None, false),
            (1, Some(0), false),
            (1, Some(128), true),
            (1, Some(129), false),
        ] {
            let rules = ElectedRules { serve_blocks, seats_max };
            assert_eq!(rules.check().is_ok(), works, "{rules:?}");
        }
    }
}
