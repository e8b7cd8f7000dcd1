//! Cell ids as text: `did:key` (multicodec `0xed01`, base58btc). Source: the did:key method, W3C CCG.
//!
//! Base 58 takes a division for each pair of digits, and the same cells are named again and again: what was written or read lately is
//! kept. What comes out does not depend on it.

use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;

use super::CellId;

const PREFIX: &str = "did:key:z";
const ED25519_MULTICODEC: [u8; 2] = [0xed, 0x01];
/// The longest text that is looked at, in bytes: a `did:key` of ed25519 has 56, and decoding is quadratic.
const TEXT_BYTES_MAX: usize = 64;
/// Ids that are kept, of about 150 bytes each, in each direction.
const KEPT_MAX: usize = 16_384;

static WRITTEN: LazyLock<Cache<CellId, Arc<str>>> = LazyLock::new(|| Cache::new(KEPT_MAX));
static READ: LazyLock<Cache<Box<str>, CellId>> = LazyLock::new(|| Cache::new(KEPT_MAX));

pub(super) fn write(cell: &CellId) -> Arc<str> {
    if let Some(text) = WRITTEN.get(cell) {
        return text;
    }
    let mut bytes = [0u8; 34];
    bytes[..2].copy_from_slice(&ED25519_MULTICODEC);
    bytes[2..].copy_from_slice(&cell.0);
    let text: Arc<str> = format!("{PREFIX}{}", bs58::encode(bytes).into_string()).into();
    WRITTEN.insert(*cell, Arc::clone(&text));
    text
}

pub(super) fn read(text: &str) -> Option<CellId> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if let Some(cell) = READ.get(text) {
        return Some(cell);
    }
    let bytes = bs58::decode(text.strip_prefix(PREFIX)?).into_vec().ok()?;
    let key = bytes.strip_prefix(&ED25519_MULTICODEC)?;
    let cell = CellId(key.try_into().ok()?);
    READ.insert(text.into(), cell);
    Some(cell)
}
