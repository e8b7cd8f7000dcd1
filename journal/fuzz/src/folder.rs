//! From an input to the five files of a journal, in three ways, told by the first byte:
//!
//! - 0: as they are. The input holds, each after its length as two little-endian bytes, what fills the two
//!   header slots (zeros follow), the entries of the oplog, `tree`, `bitfield`, `header`; the rest is `data`.
//! - 1: the same, and then the checksums are made right: what lies behind them is reached.
//! - 2: by a script. It says what the journal holds and what its oplog tells, each number a small one, a right
//!   one or an extreme one; signed by the key of the tests. Somebody who hands out a folder has a key of his
//!   own, so a signature is no protection against what follows it.

use std::sync::LazyLock;

use ed25519_dalek::{Signer, SigningKey};
use journal::storage::{File, Memory};
use journal::{Journal, KeyPair, Node, hash};

use super::SEED;

const SLOT_BYTES: usize = 4096;
/// What a header begins with that says nothing of the log: version, flags, key, manifest, no user data.
const HEAD_BYTES: usize = 2 + 32 + 4 + 32 + 32 + 1;

/// The files that an input stands for.
pub(crate) fn read(input: &[u8]) -> Memory {
    match input.split_first() {
        Some((2, script)) => Script(script).files(),
        Some((kind, rest)) => {
            let files = unpack(rest);
            if *kind == 1 {
                let mut oplog = files.bytes(File::Oplog);
                mend(&mut oplog);
                files.set_bytes(File::Oplog, oplog);
            }
            files
        }
        None => Memory::default(),
    }
}

/// The input that stands for these files.
pub(crate) fn pack(files: &Memory) -> Vec<u8> {
    let oplog = files.bytes(File::Oplog);
    let slot = |number: usize| {
        let slot = &oplog[number * SLOT_BYTES..(number + 1) * SLOT_BYTES];
        slot[..slot.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)].to_vec()
    };
    let mut input = vec![0];
    let (tree, bitfield) = (files.bytes(File::Tree), files.bytes(File::Bitfield));
    let header = files.bytes(File::Header);
    for part in [slot(0), slot(1), oplog[2 * SLOT_BYTES..].to_vec(), tree, bitfield, header] {
        let length = u16::try_from(part.len()).expect("a small journal");
        input.extend_from_slice(&length.to_le_bytes());
        input.extend_from_slice(&part);
    }
    input.extend_from_slice(&files.bytes(File::Data));
    input
}

fn unpack(mut input: &[u8]) -> Memory {
    let mut part = || {
        let (length, rest) = input.split_first_chunk::<2>().unwrap_or((&[0, 0], &[]));
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        input = rest;
        part.to_vec()
    };
    let slots = [part(), part()];
    let (entries, tree, bitfield, header) = (part(), part(), part(), part());
    let mut oplog = Vec::with_capacity(2 * SLOT_BYTES + entries.len());
    for mut slot in slots {
        slot.resize(SLOT_BYTES, 0);
        oplog.extend_from_slice(&slot);
    }
    oplog.extend_from_slice(&entries);
    let files = Memory::default();
    let all = [(File::Oplog, oplog), (File::Tree, tree), (File::Bitfield, bitfield), (File::Header, header)];
    for (file, bytes) in all.into_iter().chain([(File::Data, input.to_vec())]) {
        files.set_bytes(file, bytes);
    }
    files
}

/// Makes the checksum of each frame right that has its length.
fn mend(oplog: &mut [u8]) {
    let (slots, mut entries) = oplog.split_at_mut(2 * SLOT_BYTES);
    for slot in slots.chunks_mut(SLOT_BYTES) {
        mend_frame(slot);
    }
    while let Some(length) = mend_frame(entries) {
        entries = &mut entries[length..];
    }
}

fn mend_frame(bytes: &mut [u8]) -> Option<usize> {
    let word = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    let end = 8 + (word >> 2) as usize;
    let crc = crc32fast::hash(bytes.get(4..end)?);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    Some(end)
}

/// A log whose every state was signed, and the tree hash it had at each length: what proofs are held against.
pub(crate) fn known_log() -> (Vec<Vec<u8>>, Vec<hash::Digest>) {
    let log: Vec<Vec<u8>> = (0..23u8).map(|index| vec![b'a' + index; usize::from(index % 5)]).collect();
    let mut journal =
        Journal::create_on(Box::new(Memory::default()), KeyPair::from_seed(&SEED)).expect("creates");
    let mut hashes = vec![journal.tree_hash()];
    for entry in &log {
        journal.append(&[entry]).expect("appends");
        hashes.push(journal.tree_hash());
    }
    (log, hashes)
}

/// What is left of a script. At its end it says zero.
struct Script<'a>(&'a [u8]);

/// How many entries of the oplog a script makes.
const OPLOG_ENTRIES_MAX: usize = 24;

/// An entry of the oplog, and where its signature goes: a zero is there, for none.
struct Entry {
    bytes: Vec<u8>,
    signature_at: Option<usize>,
}

/// The log that a script builds: what a right oplog would say is computed from it.
#[derive(Default)]
struct Log {
    fork: u64,
    leaves: Vec<Node>,
    data: Vec<u8>,
}

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// Mostly the right number; else another one, where bounds and overflows are.
    fn number(&mut self, right: u64) -> u64 {
        match self.byte() {
            0..192 => right,
            192 => right.wrapping_add(1),
            193 => right.wrapping_sub(1),
            194 => 1 << 40,
            195 => (1 << 40) - 1,
            196 => u64::MAX,
            197 => i64::MAX as u64,
            198 => u64::MAX - right,
            199 => 1 << 63,
            200 => u64::from(u32::MAX),
            201 => 32_768,
            202 => 1 << 62,
            small => u64::from(small - 203),
        }
    }

    fn files(mut self) -> Memory {
        let mut log = Log { fork: self.number(0), ..Log::default() };
        for _ in 0..self.byte() % 40 {
            self.leaf(&mut log);
        }
        let tree = log.tree();
        let header = self.header(&log);
        let mut oplog = frame(&header, false);
        oplog.resize(2 * SLOT_BYTES, 0);
        // Of the signatures only the last is looked at: the others are left out, because signing is slow.
        let mut entries = Vec::new();
        while !self.0.is_empty() && entries.len() < OPLOG_ENTRIES_MAX {
            entries.push(self.entry(&mut log));
        }
        let last = entries.iter().rposition(|entry| entry.signature_at.is_some());
        for (number, Entry { mut bytes, signature_at }) in entries.into_iter().enumerate() {
            if let (true, Some(at)) = (last == Some(number), signature_at) {
                bytes.splice(at..=at, [&[64], &log.signature()[..]].concat());
            }
            oplog.extend_from_slice(&frame(&bytes, false));
        }
        let files = Memory::default();
        files.set_bytes(File::Oplog, oplog);
        files.set_bytes(File::Tree, tree);
        files.set_bytes(File::Bitfield, vec![0xff; 4096]);
        files.set_bytes(File::Data, log.data);
        files
    }

    /// An entry of some bytes; now and then one that claims a size and has no bytes.
    fn leaf(&mut self, log: &mut Log) {
        let length = self.byte();
        let index = 2 * log.leaves.len() as u64;
        let entry = vec![length; usize::from(length % 16)];
        let size = self.number(entry.len() as u64);
        log.leaves.push(Node { index, size, hash: hash::leaf(&entry) });
        log.data.extend_from_slice(&entry);
    }

    fn header(&mut self, log: &Log) -> Vec<u8> {
        // Its head as the crate itself writes it.
        static HEAD: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let memory = Memory::default();
            Journal::create_on(Box::new(memory.clone()), KeyPair::from_seed(&SEED)).expect("creates");
            memory.bytes(File::Oplog)[8..8 + HEAD_BYTES].to_vec()
        });
        let mut out = HEAD.clone();
        let length = self.number(log.length());
        put(&mut out, log.fork);
        put(&mut out, length);
        put_bytes(&mut out, &hash::tree(&log.roots()));
        put_bytes(&mut out, &log.signature());
        let hints = u64::from(self.byte() % 8) * u64::from(self.byte() % 64);
        put(&mut out, hints);
        (0..hints * 3).for_each(|number| put(&mut out, number));
        let contiguous = self.number(length);
        put(&mut out, contiguous);
        out
    }

    fn entry(&mut self, log: &mut Log) -> Entry {
        let (before, kind) = (log.length(), self.byte());
        let mut ancestors = before;
        let (drops, start, count) = match kind % 4 {
            0 | 1 => {
                let count = u64::from(self.byte() % 9);
                (0..count).for_each(|_| self.leaf(log));
                (0, before, count)
            }
            2 => {
                ancestors = before.min(u64::from(self.byte()));
                log.leaves.truncate(usize::try_from(ancestors).expect("small"));
                log.fork = log.fork.wrapping_add(1);
                (1, ancestors, before - ancestors)
            }
            _ => (1, u64::from(self.byte()), u64::from(self.byte())),
        };
        let upgrades = kind % 4 != 3 || kind & 0x40 != 0;
        let mut out = vec![2 | u8::from(upgrades) << 2 | u8::from(kind & 0x80 == 0) << 3];
        let nodes = &log.leaves[usize::try_from(ancestors).expect("small")..];
        put(&mut out, nodes.len() as u64);
        for node in nodes {
            put(&mut out, node.index);
            put(&mut out, node.size);
            out.extend_from_slice(&node.hash);
        }
        if upgrades {
            for right in [log.fork, ancestors, log.length()] {
                put(&mut out, self.number(right));
            }
            out.push(0);
        }
        let signature_at = upgrades.then_some(out.len() - 1);
        out.push(drops);
        put(&mut out, self.number(start));
        put(&mut out, self.number(count));
        Entry { bytes: out, signature_at }
    }
}

impl Log {
    fn length(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn signature(&self) -> [u8; 64] {
        static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&SEED));
        let message = hash::signable(&hash::tree(&self.roots()), self.length(), self.fork);
        KEY.sign(&message).to_bytes()
    }

    fn roots(&self) -> Vec<Node> {
        self.grow(&mut |_| {})
    }

    /// The roots; `seen` is given every node below them.
    fn grow(&self, seen: &mut dyn FnMut(Node)) -> Vec<Node> {
        let mut roots: Vec<Node> = Vec::new();
        for leaf in &self.leaves {
            seen(*leaf);
            roots.push(*leaf);
            while let [.., left, right] = roots[..]
                && left.index.trailing_ones() == right.index.trailing_ones()
            {
                let size = left.size.wrapping_add(right.size);
                let index = (left.index + right.index) / 2;
                let above = Node { index, size, hash: hash::parent(&left, &right) };
                seen(above);
                roots.truncate(roots.len() - 2);
                roots.push(above);
            }
        }
        roots
    }

    /// The file `tree`: all nodes.
    fn tree(&self) -> Vec<u8> {
        let mut bytes = vec![0; (self.leaves.len() * 80).saturating_sub(40)];
        self.grow(&mut |node| {
            let at = usize::try_from(node.index * 40).expect("small");
            bytes[at..at + 8].copy_from_slice(&node.size.to_le_bytes());
            bytes[at + 8..at + 40].copy_from_slice(&node.hash);
        });
        bytes
    }
}

fn frame(payload: &[u8], bit: bool) -> Vec<u8> {
    let word = u32::try_from(payload.len()).expect("small") << 2 | u32::from(bit);
    let mut bytes = [&[0; 4], &word.to_le_bytes()[..], payload].concat();
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn put(out: &mut Vec<u8>, value: u64) {
    if value < 0xfd {
        out.push(value as u8);
    } else {
        out.push(0xff);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
