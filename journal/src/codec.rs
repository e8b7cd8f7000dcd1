//! The compact encoding of Hypercore: varints, byte strings, and the CRC frame of the oplog.
//!
//! A value below 253 is one byte; `fd`, `fe`, `ff` lead 2, 4 and 8 little-endian bytes. Every read is
//! checked against the bytes there are: nothing is allocated on a length's word alone.

use crate::error::{Error, Result};

pub(crate) fn put_uint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0xfc => out.push(value as u8),
        0xfd..=0xffff => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xfe);
            out.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from a slice.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| short())?;
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn uint(&mut self) -> Result<u64> {
        Ok(match self.byte()? {
            0xfd => u64::from(u16::from_le_bytes(self.array()?)),
            0xfe => u64::from(u32::from_le_bytes(self.array()?)),
            0xff => u64::from_le_bytes(self.array()?),
            small => u64::from(small),
        })
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.uint()?;
        self.take(length)
    }
}

fn short() -> Error {
    Error::corrupt("a value runs past its end")
}

/// Bytes of a frame before its payload: CRC and length word.
pub(crate) const FRAME_HEAD_BYTES: usize = 8;

/// Frames a payload: u32 CRC over what follows, u32 `length * 4 + partial * 2 + bit`, payload.
pub(crate) fn frame(payload: &[u8], bit: bool) -> Vec<u8> {
    let word = (payload.len() as u32) << 2 | u32::from(bit);
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&word.to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A frame that was read.
pub(crate) struct Frame<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) bit: bool,
    pub(crate) partial: bool,
}

/// Reads the frame at the start of `bytes`; `None` if there is no whole and undamaged one.
pub(crate) fn unframe(bytes: &[u8]) -> Option<Frame<'_>> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (word, body) = rest.split_first_chunk::<4>()?;
    let word = u32::from_le_bytes(*word);
    let payload = body.get(..(word >> 2) as usize)?;
    let covered = &rest[..4 + payload.len()];
    (crc32fast::hash(covered) == u32::from_le_bytes(*crc)).then_some(Frame {
        payload,
        bit: word & 1 == 1,
        partial: word & 2 == 2,
    })
}
