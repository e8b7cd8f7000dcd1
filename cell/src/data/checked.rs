//! Data that is read from its beginning to its end, and checked on the way.
//!
//! The file of hashes is the tree of BLAKE3 over chunks of 1024 bytes, a parent before what is below it (Bao, outboard). Bao's own decoder
//! goes down to each chunk; here a group of chunks is hashed at once and compared with what stands above it, which is several times as fast.
//! No byte is given that does not lead to the hash that was asked for.
//!
//! What the system has in memory can be read without waiting for a disk ([`Groups::next_at_hand`]), on a thread that must not wait.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::task::Poll;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use protocol::Hash;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Bytes that are hashed at once: a power of two of chunks.
const GROUP_BYTES: u64 = 32 * 1024;
/// Bytes below one leaf of the tree.
const CHUNK_BYTES: u64 = 1024;
/// Bytes of a parent: two hashes.
const PARENT_BYTES: u64 = 64;
/// Where the tree begins, behind the length of the data.
const TREE_BEGINS: u64 = 8;

/// Data in groups.
pub(super) struct Groups {
    data: File,
    tree: File,
    /// What is still to be read, the next one last.
    parts: Vec<Part>,
}

/// Some of the data, and what it hashes to.
struct Part {
    from: u64,
    length: u64,
    /// Where the hashes below it begin.
    tree_at: u64,
    expected: ChainingValue,
    /// Whether it is all of the data.
    is_root: bool,
}

/// Whether a disk is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

/// Reads all of it. Where that would have to wait, or the file system cannot say, nothing is read: `WouldBlock`.
fn read_at(file: &File, bytes: &mut [u8], mut from: u64, wait: Wait) -> io::Result<()> {
    if wait == Wait::Yes {
        return file.read_exact_at(bytes, from);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        match preadv2(file, &mut [IoSliceMut::new(rest)], from, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                rest = &mut rest[read..];
                from += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Groups {
    pub(super) fn new(data: File, tree: File, hash: &Hash) -> io::Result<Self> {
        let mut length = [0; 8];
        tree.read_exact_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        let all = Part { from: 0, length, tree_at: TREE_BEGINS, expected: *hash.as_bytes(), is_root: true };
        Ok(Self { data, tree, parts: vec![all] })
    }

    /// The next bytes, at most [`GROUP_BYTES`]; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.next_part(Wait::Yes)
    }

    /// The same, if no disk has to be waited for.
    pub(super) fn next_at_hand(&mut self) -> Poll<io::Result<Option<Vec<u8>>>> {
        match self.next_part(Wait::No) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            next => Poll::Ready(next),
        }
    }

    fn next_part(&mut self, wait: Wait) -> io::Result<Option<Vec<u8>>> {
        // What could not be read is still to be read.
        while let Some(part) = self.parts.last() {
            if part.length <= GROUP_BYTES {
                let bytes = self.read(part, wait)?;
                self.parts.pop();
                return Ok(Some(bytes).filter(|bytes| !bytes.is_empty()));
            }
            let [left, right] = self.open(part, wait)?;
            self.parts.pop();
            self.parts.extend([right, left]);
        }
        Ok(None)
    }

    fn read(&self, part: &Part, wait: Wait) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(part.length).map_err(io::Error::other)?];
        read_at(&self.data, &mut bytes, part.from, wait)?;
        let hash = if part.is_root {
            *blake3::hash(&bytes).as_bytes()
        } else {
            blake3::Hasher::new().set_input_offset(part.from).update(&bytes).finalize_non_root()
        };
        checked(&hash, part)?;
        Ok(bytes)
    }

    /// Both halves of a part.
    fn open(&self, part: &Part, wait: Wait) -> io::Result<[Part; 2]> {
        let mut parent = [0; PARENT_BYTES as usize];
        read_at(&self.tree, &mut parent, part.tree_at, wait)?;
        let (mut left, mut right) = ([0; 32], [0; 32]);
        left.copy_from_slice(&parent[..32]);
        right.copy_from_slice(&parent[32..]);
        let hash = match part.is_root {
            true => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
            false => merge_subtrees_non_root(&left, &right, Mode::Hash),
        };
        checked(&hash, part)?;
        let length = left_subtree_len(part.length);
        let tree_at = part.tree_at + PARENT_BYTES;
        // A tree has a parent less than it has leaves.
        let below_left = (length / CHUNK_BYTES - 1) * PARENT_BYTES;
        Ok([
            Part { from: part.from, length, tree_at, expected: left, is_root: false },
            Part {
                from: part.from + length,
                length: part.length - length,
                tree_at: tree_at + below_left,
                expected: right,
                is_root: false,
            },
        ])
    }
}

fn checked(hash: &ChainingValue, part: &Part) -> io::Result<()> {
    if *hash == part.expected { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
