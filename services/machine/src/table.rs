//! Typed tables inside a view: a one-byte prefix, ordered keys, CBOR values.
//!
//! Prefixes below `0x10` belong to the actor (its journal position and high-water marks).

use std::marker::PhantomData;

use minicbor::{Decode, Encode};
use protocol::codec;
use smallvec::SmallVec;

use crate::view::{Fault, Read, Write};

/// The bytes of a key. Those of nearly all tables are not longer than this, and need no memory of their own.
pub type KeyBytes = SmallVec<[u8; 48]>;

/// A key whose byte order is its order.
pub trait Key: Sized {
    /// Appends the key's bytes. Only the last part of a compound key may vary in length.
    fn write(&self, out: &mut KeyBytes);
    /// Reads the key back; gives what is left.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])>;
}

impl Key for u64 {
    fn write(&self, out: &mut KeyBytes) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        Some((Self::from_be_bytes(*head), rest))
    }
}

impl Key for u32 {
    fn write(&self, out: &mut KeyBytes) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        Some((Self::from_be_bytes(*head), rest))
    }
}

impl Key for u8 {
    fn write(&self, out: &mut KeyBytes) {
        out.push(*self);
    }
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        bytes.split_first().map(|(head, rest)| (*head, rest))
    }
}

impl Key for () {
    fn write(&self, _: &mut KeyBytes) {}
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Some(((), bytes))
    }
}

impl Key for Vec<u8> {
    fn write(&self, out: &mut KeyBytes) {
        out.extend_from_slice(self);
    }
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Some((bytes.to_vec(), &[]))
    }
}

impl Key for String {
    fn write(&self, out: &mut KeyBytes) {
        out.extend_from_slice(self.as_bytes());
    }
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Some((Self::from_utf8(bytes.to_vec()).ok()?, &[]))
    }
}

macro_rules! key_of_32_bytes {
    ($($name:ty),*) => {$(
        impl Key for $name {
            fn write(&self, out: &mut KeyBytes) {
                out.extend_from_slice(self.as_bytes());
            }
            fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let (head, rest) = bytes.split_first_chunk::<32>()?;
                Some((Self::from_bytes(*head), rest))
            }
        }
    )*};
}
key_of_32_bytes!(
    protocol::CellId,
    protocol::MessageId,
    protocol::TxId,
    protocol::Hash,
    protocol::BlockHash,
    protocol::HostId
);

impl<A: Key, B: Key> Key for (A, B) {
    fn write(&self, out: &mut KeyBytes) {
        self.0.write(out);
        self.1.write(out);
    }
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (a, rest) = A::read(bytes)?;
        let (b, rest) = B::read(rest)?;
        Some(((a, b), rest))
    }
}

/// One table of a view.
///
/// ```
/// use machine::{MemoryStore, Overlay, Table, View};
/// const BIRTHDAYS: Table<String, u64> = Table::new(0x10);
/// let (store, mut top) = (MemoryStore::default(), Overlay::default());
/// let mut view = View::new(&store, None, &mut top);
/// BIRTHDAYS.put(&mut view, &"ada".to_owned(), &1815);
/// assert_eq!(BIRTHDAYS.get(&view, &"ada".to_owned()), Ok(Some(1815)));
/// ```
pub struct Table<K, V> {
    prefix: u8,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Encode<()> + for<'b> Decode<'b, ()>> Table<K, V> {
    /// A table under a prefix that no other table of the same view uses.
    pub const fn new(prefix: u8) -> Self {
        assert!(prefix >= 0x10, "prefixes below 0x10 belong to the actor");
        Self { prefix, types: PhantomData }
    }

    fn key<P: Key>(&self, key: &P) -> KeyBytes {
        let mut bytes = KeyBytes::new();
        bytes.push(self.prefix);
        key.write(&mut bytes);
        bytes
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the store cannot be read or holds something else.
    pub fn get(&self, view: &dyn Read, key: &K) -> Result<Option<V>, Fault> {
        let mut decoded = None;
        view.see(&self.key(key), &mut |value| decoded = value.map(codec::decode))?;
        decoded.transpose().map_err(Fault::from)
    }

    /// Sets a key.
    pub fn put(&self, view: &mut dyn Write, key: &K, value: &V) {
        view.put(self.key(key).into_vec(), codec::encode(value));
    }

    /// Removes a key.
    pub fn delete(&self, view: &mut dyn Write, key: &K) {
        view.delete(self.key(key).into_vec());
    }

    /// Rows whose key begins with `prefix` (a part of the key), ascending, or descending when
    /// `reverse`; strictly after `after` in that direction, if given.
    pub fn scan<'a, P: Key>(
        &self,
        view: &'a dyn Read,
        prefix: &P,
        after: Option<&K>,
        reverse: bool,
    ) -> impl Iterator<Item = Result<(K, V), Fault>> + use<'a, K, V, P> {
        let mut from = self.key(prefix);
        let mut to = successor(&from);
        if let Some(after) = after {
            let mut edge = self.key(after);
            if reverse {
                to = edge;
            } else {
                edge.push(0);
                from = edge;
            }
        }
        view.scan(&from, &to, reverse).map(|row| {
            let (key, value) = row?;
            let (key, rest) =
                K::read(&key[1..]).ok_or_else(|| Fault("a key has another shape".to_owned()))?;
            if !rest.is_empty() {
                return Err(Fault("a key is too long".to_owned()));
            }
            Ok((key, codec::decode(&value)?))
        })
    }
}

/// The first byte string after all that begin with `prefix`; empty where there is none.
fn successor(prefix: &[u8]) -> KeyBytes {
    let mut bytes = KeyBytes::from_slice(prefix);
    while let Some(last) = bytes.last_mut() {
        if *last < 0xff {
            *last += 1;
            return bytes;
        }
        bytes.pop();
    }
    bytes
}
