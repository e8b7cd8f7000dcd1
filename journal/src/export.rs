//! A copy of a journal for other programs: checkpointed, with nothing in the oplog but the header.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::codec;
use crate::error::{Error, Result};
use crate::external;
use crate::hash;
use crate::key::KeyPair;
use crate::log::{PAGE_BYTES, mark};
use crate::oplog::{BitfieldUpdate, Header, SLOT_BYTES, Slots};
use crate::pending::Pending;
use crate::reader::Reader;
use crate::storage::{Backend, Disk, File, Storage};
use crate::tree::{self, NODE_BYTES, Node};

/// Bytes and nodes are written when so many entries have been read.
const RUN_ENTRIES: u64 = 4096;

impl Reader {
    /// Writes the journal as it stands into a new folder. Every entry is checked on the way; cleared ones
    /// stay cleared, and encrypted ones encrypted. With its key pair the copy's header holds the secret, as the Rust crate `hypercore`
    /// wants it, and the folder is closed to everybody but its owner. `progress` is told how many entries of how many are done.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if the folder holds a journal, [`Error::WrongKey`] if the pair is another
    /// journal's, those of reading, [`Error::Io`].
    pub fn export(
        &self,
        folder: &Path,
        key_pair: Option<&KeyPair>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        if key_pair.is_some_and(|pair| pair.public() != self.key()) {
            return Err(Error::WrongKey);
        }
        let state = self.state();
        let mut disk = Disk::create(folder, Backend::default())?;
        if key_pair.is_some() {
            let owner = fs::Permissions::from_mode(0o700);
            fs::set_permissions(folder, owner).map_err(Error::io("closing the copy's folder to others"))?;
        }
        let (mut roots, mut nodes, mut pages) = (Vec::new(), Pending::default(), BTreeMap::new());
        let (mut data, mut data_at, mut offset) = (Vec::new(), 0, 0);
        let mut first_gap = None;
        let mut range = self.range(0, state.length);
        for index in 0..state.length {
            let leaf = match range.next_with_leaf() {
                Some(Ok((leaf, entry))) => {
                    data.extend_from_slice(&entry);
                    mark(&mut disk, &mut pages, BitfieldUpdate { drop: false, start: index, length: 1 })?;
                    leaf
                }
                Some(Err(Error::Absent { .. })) => {
                    let leaf = self.leaf(index)?;
                    first_gap.get_or_insert(index);
                    write(&mut disk, File::Data, data_at, &data)?;
                    data.clear();
                    data_at = end(offset, &leaf)?;
                    leaf
                }
                Some(Err(error)) => return Err(error),
                None => return Err(Error::corrupt("the journal was cut while it was read")),
            };
            offset = end(offset, &leaf)?;
            tree::push(&mut roots, leaf, |node| nodes.insert(node));
            if index % RUN_ENTRIES == RUN_ENTRIES - 1 || index + 1 == state.length {
                for (first, run) in nodes.runs() {
                    write(&mut disk, File::Tree, first * NODE_BYTES, &run)?;
                }
                nodes.clear();
                write(&mut disk, File::Data, data_at, &data)?;
                data.clear();
                data_at = offset;
                progress(index + 1, state.length);
            }
        }
        let tree_hash = hash::tree(&roots);
        if tree_hash != state.tree_hash() {
            return Err(Error::corrupt("the entries do not lead to the tree that is signed"));
        }
        for (page, bytes) in &pages {
            write(&mut disk, File::Bitfield, page * PAGE_BYTES, bytes)?;
        }
        let header = Header {
            key: self.key(),
            signer: Some(self.key()),
            user_data: self.user_data().clone(),
            fork: state.fork,
            length: state.length,
            tree_hash: (state.length > 0).then_some(tree_hash),
            signature: state.signature,
            hints: Vec::new(),
            contiguous: first_gap.unwrap_or(state.length),
        };
        let (_, bit) = Slots::EMPTY.next();
        let (payload, _) = external::placed(&mut disk, None, header.encode_with(key_pair))?;
        let mut oplog = codec::frame(&payload, bit);
        oplog.resize(2 * SLOT_BYTES, 0);
        for file in [File::Data, File::Tree, File::Bitfield] {
            disk.sync(file).map_err(Error::io("syncing the copy"))?;
        }
        // Last: until it is there, the folder holds no journal.
        write(&mut disk, File::Oplog, 0, &oplog)?;
        disk.sync(File::Oplog).map_err(Error::io("syncing the copy"))?;
        disk.sync_directory().map_err(Error::io("syncing the copy's folder"))
    }
}

/// Where an entry's bytes end that begin there.
fn end(offset: u64, leaf: &Node) -> Result<u64> {
    offset.checked_add(leaf.size).ok_or_else(|| Error::corrupt("sizes overflow"))
}

fn write(disk: &mut Disk, file: File, offset: u64, bytes: &[u8]) -> Result<()> {
    disk.write(file, offset, bytes).map_err(Error::io("writing the copy"))
}
