//! The hashes of Hypercore 10: BLAKE2b with a 32-byte digest, with a tag byte for each use.

use blake2b_simd::many::{HashManyJob, hash_many};

use crate::tree::Node;

/// A 32-byte BLAKE2b digest.
pub type Digest = [u8; 32];

/// The namespace that a signed tree's message begins with: `hash(hash("hypercore") || 0)`.
const SIGNED_TREE: Digest = [
    0x9f, 0xac, 0x70, 0xb5, 0x0c, 0xa1, 0x4e, 0xfc, 0x4e, 0x91, 0xc8, 0x33, 0xb2, 0x04, 0xe7, 0x5b, 0x8b,
    0x5a, 0xad, 0x8b, 0x58, 0x81, 0xbf, 0xc0, 0xad, 0xb5, 0xef, 0x38, 0xa3, 0x27, 0x5b, 0x9c,
];

/// The namespace of a default signer: `hash(hash("hypercore") || 4)`.
pub(crate) const DEFAULT_SIGNER: Digest = [
    0x41, 0x44, 0xee, 0xa5, 0x31, 0xe4, 0x83, 0xd5, 0x4e, 0x0c, 0x14, 0xf4, 0xca, 0x68, 0xe0, 0x64, 0x4f,
    0x35, 0x53, 0x43, 0xff, 0x6f, 0xcb, 0x0f, 0x00, 0x52, 0x00, 0xe1, 0x2c, 0xd7, 0x47, 0xcb,
];

/// Bytes before the entry or the hashes of a node: tag and size.
const HEAD_BYTES: usize = 9;
/// What is no longer is put together on the stack and hashed at once.
const SMALL_BYTES: usize = 256;
/// As many bytes are put together to be hashed several at once, and one item more.
const TOGETHER_BYTES: usize = 16 * 1024;

pub(crate) fn blake2b(parts: &[&[u8]]) -> Digest {
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    for part in parts {
        state.update(part);
    }
    digest(&state.finalize())
}

fn digest(hash: &blake2b_simd::Hash) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.as_bytes());
    digest
}

/// A 32-byte digest of the parts end to end, under a key.
pub(crate) fn keyed(key: &Digest, parts: &[&[u8]]) -> Digest {
    let mut state = blake2b_simd::Params::new().hash_length(32).key(key).to_state();
    for part in parts {
        state.update(part);
    }
    digest(&state.finalize())
}

/// `hash(00 || u64 length || entry)`.
pub fn leaf(entry: &[u8]) -> Digest {
    let mut whole = [0; SMALL_BYTES];
    match whole.get_mut(HEAD_BYTES..HEAD_BYTES + entry.len()) {
        Some(place) => {
            place.copy_from_slice(entry);
            whole[1..HEAD_BYTES].copy_from_slice(&(entry.len() as u64).to_le_bytes());
            at_once(&whole[..HEAD_BYTES + entry.len()])
        }
        None => blake2b(&[&[0], &(entry.len() as u64).to_le_bytes(), entry]),
    }
}

/// The leaves of many entries: several at once where the processor can.
pub(crate) fn leaves(entries: &[impl AsRef<[u8]>]) -> Vec<Digest> {
    many(entries, |entry, out| {
        let entry = entry.as_ref();
        out.push(0);
        out.extend_from_slice(&(entry.len() as u64).to_le_bytes());
        out.extend_from_slice(entry);
    })
}

/// `hash(01 || u64 (left size + right size) || left hash || right hash)`.
pub fn parent(left: &Node, right: &Node) -> Digest {
    let mut whole = [0; HEAD_BYTES + 64];
    whole[0] = 1;
    whole[1..HEAD_BYTES].copy_from_slice(&left.size.wrapping_add(right.size).to_le_bytes());
    whole[HEAD_BYTES..HEAD_BYTES + 32].copy_from_slice(&left.hash);
    whole[HEAD_BYTES + 32..].copy_from_slice(&right.hash);
    at_once(&whole)
}

/// The parents of many pairs.
pub(crate) fn parents(pairs: &[[Node; 2]]) -> Vec<Digest> {
    many(pairs, |[left, right], out| {
        out.push(1);
        out.extend_from_slice(&left.size.wrapping_add(right.size).to_le_bytes());
        out.extend_from_slice(&left.hash);
        out.extend_from_slice(&right.hash);
    })
}

fn at_once(whole: &[u8]) -> Digest {
    digest(&blake2b_simd::Params::new().hash_length(32).hash(whole))
}

/// Hashes what `input` makes of each, a bounded number of bytes at a time.
fn many<T>(items: &[T], input: impl Fn(&T, &mut Vec<u8>)) -> Vec<Digest> {
    let mut params = blake2b_simd::Params::new();
    params.hash_length(32);
    let mut digests = Vec::with_capacity(items.len());
    let mut items = items.iter();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    while items.len() > 0 {
        bytes.clear();
        ends.clear();
        while bytes.len() < TOGETHER_BYTES
            && let Some(item) = items.next()
        {
            input(item, &mut bytes);
            ends.push(bytes.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let inputs = starts.zip(&ends).map(|(start, end)| &bytes[start..*end]);
        let mut jobs: Vec<_> = inputs.map(|input| HashManyJob::new(&params, input)).collect();
        hash_many(&mut jobs);
        digests.extend(jobs.iter().map(|job| digest(&job.to_hash())));
    }
    digests
}

/// `hash(02 || for each root: hash || u64 index || u64 size)`.
pub fn tree(roots: &[Node]) -> Digest {
    let mut bytes = Vec::with_capacity(1 + roots.len() * 48);
    bytes.push(2);
    for root in roots {
        bytes.extend_from_slice(&root.hash);
        bytes.extend_from_slice(&root.index.to_le_bytes());
        bytes.extend_from_slice(&root.size.to_le_bytes());
    }
    blake2b(&[&bytes])
}

/// What a compat core signs: `namespace || tree hash || u64 length || u64 fork` (80 bytes).
pub fn signable(tree_hash: &Digest, length: u64, fork: u64) -> [u8; 80] {
    let mut message = [0; 80];
    message[..32].copy_from_slice(&SIGNED_TREE);
    message[32..64].copy_from_slice(tree_hash);
    message[64..72].copy_from_slice(&length.to_le_bytes());
    message[72..].copy_from_slice(&fork.to_le_bytes());
    message
}

/// BLAKE2b-256 of `"hypercore"`, keyed with the core key.
pub fn discovery_key(key: &Digest) -> Digest {
    keyed(key, &[b"hypercore"])
}
