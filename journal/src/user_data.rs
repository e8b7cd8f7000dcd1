//! The pairs of name and bytes that programs keep in a header. Ours is in `encryption`; those of others
//! stay as they are.

use crate::codec::{Reader, put_bytes, put_uint};
use crate::error::Result;

/// Pairs in the order they were first set in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserData(Vec<Pair>);

/// A name and its bytes.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

impl UserData {
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(there, _)| there == name).map(|(_, value)| &value[..])
    }

    /// Sets a pair; no bytes take it away.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.iter().position(|(there, _)| there == name) {
            Some(place) if value.is_empty() => drop(self.0.remove(place)),
            Some(place) => self.0[place].1 = value.to_vec(),
            None if value.is_empty() => {}
            None => self.0.push((name.to_vec(), value.to_vec())),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.0.len() as u64);
        for (name, value) in &self.0 {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let count = reader.uint()?;
        (0..count).map(|_| pair(reader)).collect::<Result<_>>().map(Self)
    }
}

/// Reads one pair.
pub(crate) fn pair(reader: &mut Reader<'_>) -> Result<Pair> {
    Ok((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_set_and_taken_away() {
        let mut pairs = UserData::default();
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", ""), ("b", ""), ("d", "4")] {
            pairs.set(name.as_bytes(), value.as_bytes());
        }
        let mut bytes = Vec::new();
        pairs.encode(&mut bytes);
        assert_eq!(bytes, b"\x02\x01a\x013\x01d\x014");
        assert_eq!(UserData::decode(&mut Reader(&bytes)).expect("whole"), pairs);
        assert_eq!((pairs.get(b"a"), pairs.get(b"b")), (Some(&b"3"[..]), None));
        UserData::decode(&mut Reader(&bytes[..8])).expect_err("cut");
    }
}
