//! The `oplog`: two header slots and a run of entries. Source: hypercore-format §4.1.
//!
//! The header bits of the two slots, XORed, say which slot is current and which bit live entries
//! carry. A new header goes to the other slot with the bit that flips the XOR, which makes all older
//! entries dead at once; then the file is cut. The cut is not optional: the bit tells only two
//! neighbouring generations apart.

use crate::codec::{self, FRAME_HEAD_BYTES, Reader, put_bytes, put_uint};
use crate::error::{Error, Result};
use crate::hash::{DEFAULT_SIGNER, Digest};
use crate::key::{KeyPair, PublicKey};
use crate::tree::Node;
use crate::user_data::{self, Pair, UserData};

/// Bytes of one header slot.
pub(crate) const SLOT_BYTES: usize = 4096;
/// Where entries begin.
pub(crate) const ENTRIES_AT: u64 = 2 * SLOT_BYTES as u64;

/// Reorganisations that a header names at most.
pub(crate) const HINTS_MAX: usize = 4;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) key: PublicKey,
    /// The one signer of a compat core; others are not written here.
    pub(crate) signer: Option<PublicKey>,
    pub(crate) user_data: UserData,
    pub(crate) fork: u64,
    pub(crate) length: u64,
    pub(crate) tree_hash: Option<Digest>,
    pub(crate) signature: Option<[u8; 64]>,
    /// Reorg hints as they stand: kept, not used.
    pub(crate) hints: Vec<[u64; 3]>,
    pub(crate) contiguous: u64,
}

/// A header as it lies in a slot: in place, or a pointer into the file `header`.
pub(crate) enum SlotPayload {
    InPlace(Box<Header>),
    External { start: u64, length: u64 },
}

impl Header {
    /// The payload of a compat core with a version 0 manifest. No key pair: the secret stays out.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_with(None)
    }

    /// The same with a key pair in it: for copies that other programs read.
    pub(crate) fn encode_with(&self, key_pair: Option<&KeyPair>) -> Vec<u8> {
        let mut out = vec![1, 2 | u8::from(key_pair.is_some()) << 2];
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(&[0, 0, 1, 0]);
        out.extend_from_slice(&DEFAULT_SIGNER);
        out.extend_from_slice(self.key.as_bytes());
        if let Some(key_pair) = key_pair {
            put_bytes(&mut out, self.key.as_bytes());
            put_bytes(&mut out, &*key_pair.secret_bytes());
        }
        self.user_data.encode(&mut out);
        put_uint(&mut out, self.fork);
        put_uint(&mut out, self.length);
        put_bytes(&mut out, self.tree_hash.as_ref().map_or(&[], |hash| &hash[..]));
        put_bytes(&mut out, self.signature.as_ref().map_or(&[], |signature| &signature[..]));
        put_uint(&mut out, self.hints.len() as u64);
        for hint in &self.hints {
            hint.iter().for_each(|number| put_uint(&mut out, *number));
        }
        put_uint(&mut out, self.contiguous);
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<SlotPayload> {
        let mut reader = Reader(payload);
        if reader.byte()? != 1 {
            return Err(Error::Unsupported("a header of another version"));
        }
        let flags = reader.byte()?;
        if flags & 1 == 1 {
            return Ok(SlotPayload::External { start: reader.uint()?, length: reader.uint()? });
        }
        let key = PublicKey::from_bytes(reader.array()?);
        let signer = if flags & 2 == 2 { decode_manifest(&mut reader)? } else { Some(key) };
        if flags & 4 == 4 {
            reader.bytes()?;
            reader.bytes()?;
        }
        let user_data = UserData::decode(&mut reader)?;
        let (fork, length) = (reader.uint()?, reader.uint()?);
        let tree_hash = optional(reader.bytes()?, "a tree hash")?;
        let signature = match reader.bytes()? {
            // A wrapped signature of one signer: `01 00`, 64 bytes, `00 00`.
            [1, 0, inner @ .., 0, 0] if inner.len() == 64 => optional(inner, "a signature")?,
            raw => optional(raw, "a signature")?,
        };
        let mut hints = Vec::new();
        for _ in 0..reader.uint()? {
            hints.push([reader.uint()?, reader.uint()?, reader.uint()?]);
        }
        let contiguous = if reader.is_empty() { 0 } else { reader.uint()? };
        Ok(SlotPayload::InPlace(Box::new(Self {
            key,
            signer,
            user_data,
            fork,
            length,
            tree_hash,
            signature,
            hints,
            contiguous,
        })))
    }
}

fn optional<const N: usize>(bytes: &[u8], what: &str) -> Result<Option<[u8; N]>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| Error::corrupt(format!("{what} has {} bytes", bytes.len())))
}

/// The one ed25519 signer of a manifest of version 0 or 1; `None` for the other kinds.
fn decode_manifest(reader: &mut Reader<'_>) -> Result<Option<PublicKey>> {
    match reader.byte()? {
        0 => {
            let (_hash, kind) = (reader.byte()?, reader.byte()?);
            match kind {
                0 => reader.array::<32>().map(|_| None),
                1 => decode_signer(reader).map(Some),
                2 => {
                    let (_flags, _quorum) = (reader.byte()?, reader.uint()?);
                    for _ in 0..reader.uint()? {
                        decode_signer(reader)?;
                    }
                    Ok(None)
                }
                _ => Err(Error::Unsupported("a manifest of another type")),
            }
        }
        1 => {
            let flags = reader.byte()?;
            let (_hash, _quorum) = (reader.byte()?, reader.uint()?);
            let count = reader.uint()?;
            let mut signer = None;
            for _ in 0..count {
                signer = Some(decode_signer(reader)?);
            }
            if flags & 2 == 2 {
                reader.array::<32>()?;
                reader.uint()?;
            }
            Ok(signer.filter(|_| count == 1))
        }
        _ => Err(Error::Unsupported("a manifest of another version")),
    }
}

fn decode_signer(reader: &mut Reader<'_>) -> Result<PublicKey> {
    if reader.byte()? != 0 {
        return Err(Error::Unsupported("a signer that is not ed25519"));
    }
    reader.array::<32>()?;
    Ok(PublicKey::from_bytes(reader.array()?))
}

/// The two slots as they were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) bits: [bool; 2],
}

impl Slots {
    /// The state that leads to a first header in slot 0 with bit 0.
    pub(crate) const EMPTY: Self = Self { bits: [true, false] };

    /// Which slot is current, which is also the bit that live entries carry.
    pub(crate) fn current(self) -> bool {
        self.bits[0] ^ self.bits[1]
    }

    /// Where the next header goes, and with which bit.
    pub(crate) fn next(self) -> (usize, bool) {
        if self.bits[0] == self.bits[1] { (1, !self.bits[1]) } else { (0, !self.bits[0]) }
    }

    /// The slots after that header was written.
    pub(crate) fn advanced(mut self) -> Self {
        let (slot, bit) = self.next();
        self.bits[slot] = bit;
        self
    }

    /// Reads both slots; gives the current one's payload.
    pub(crate) fn read(oplog: &[u8]) -> Result<(Self, SlotPayload)> {
        let slot = |number: usize| {
            let bytes = oplog.get(number * SLOT_BYTES..(number + 1) * SLOT_BYTES)?;
            let frame = codec::unframe(bytes)?;
            Header::decode(frame.payload).ok().map(|payload| (frame.bit, payload))
        };
        match (slot(0), slot(1)) {
            (Some((b0, first)), Some((b1, second))) => {
                let slots = Self { bits: [b0, b1] };
                let payload = if slots.current() { second } else { first };
                Ok((slots, payload))
            }
            (Some((b0, first)), None) => Ok((Self { bits: [b0, b0] }, first)),
            (None, Some((b1, second))) => Ok((Self { bits: [!b1, b1] }, second)),
            (None, None) if oplog.len() < 2 * SLOT_BYTES => Err(Error::NotCreated),
            (None, None) => Err(Error::corrupt("neither header of the oplog can be read")),
        }
    }
}

/// One oplog entry: what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OplogEntry {
    /// A pair of the header that changed. Read only: none is changed here.
    pub(crate) user_data: Option<Pair>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) bitfield: Option<BitfieldUpdate>,
}

/// The log grew (or shrank, where `ancestors` is below the length before).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    pub(crate) fork: u64,
    pub(crate) ancestors: u64,
    pub(crate) length: u64,
    pub(crate) signature: Option<[u8; 64]>,
}

/// A range of entries came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitfieldUpdate {
    pub(crate) drop: bool,
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl BitfieldUpdate {
    pub(crate) fn holds(&self, index: u64) -> bool {
        index >= self.start && index - self.start < self.length
    }
}

impl OplogEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.nodes.len() * 42);
        out.push(2 | u8::from(self.upgrade.is_some()) << 2 | u8::from(self.bitfield.is_some()) << 3);
        put_uint(&mut out, self.nodes.len() as u64);
        for node in &self.nodes {
            put_uint(&mut out, node.index);
            put_uint(&mut out, node.size);
            out.extend_from_slice(&node.hash);
        }
        if let Some(upgrade) = &self.upgrade {
            put_uint(&mut out, upgrade.fork);
            put_uint(&mut out, upgrade.ancestors);
            put_uint(&mut out, upgrade.length);
            put_bytes(&mut out, upgrade.signature.as_ref().map_or(&[], |signature| &signature[..]));
        }
        if let Some(bitfield) = &self.bitfield {
            out.push(u8::from(bitfield.drop));
            put_uint(&mut out, bitfield.start);
            put_uint(&mut out, bitfield.length);
        }
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self> {
        let mut reader = Reader(payload);
        let flags = reader.byte()?;
        let mut entry = Self::default();
        if flags & 1 == 1 {
            entry.user_data = Some(user_data::pair(&mut reader)?);
        }
        if flags & 2 == 2 {
            for _ in 0..reader.uint()? {
                entry.nodes.push(Node { index: reader.uint()?, size: reader.uint()?, hash: reader.array()? });
            }
        }
        if flags & 4 == 4 {
            let (fork, ancestors, length) = (reader.uint()?, reader.uint()?, reader.uint()?);
            let signature = match reader.bytes()? {
                [1, 0, inner @ .., 0, 0] if inner.len() == 64 => optional(inner, "a signature")?,
                raw => optional(raw, "a signature")?,
            };
            entry.upgrade = Some(Upgrade { fork, ancestors, length, signature });
        }
        if flags & 8 == 8 {
            let drop = reader.byte()? == 1;
            entry.bitfield = Some(BitfieldUpdate { drop, start: reader.uint()?, length: reader.uint()? });
        }
        Ok(entry)
    }
}

/// The live entries of an oplog and where each ends, trailing partial ones dropped.
pub(crate) fn entries(oplog: &[u8], bit: bool) -> Vec<(u64, OplogEntry)> {
    let mut entries = Vec::new();
    let mut whole = 0;
    let mut at = ENTRIES_AT as usize;
    while let Some(frame) = oplog.get(at..).and_then(codec::unframe) {
        let Ok(entry) = OplogEntry::decode(frame.payload) else { break };
        if frame.bit != bit {
            break;
        }
        at += FRAME_HEAD_BYTES + frame.payload.len();
        entries.push((at as u64, entry));
        if !frame.partial {
            whole = entries.len();
        }
    }
    entries.truncate(whole);
    entries
}
