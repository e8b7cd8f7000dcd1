//! A header that has outgrown its slot lies in the file `header`, and the slot points to it. Source:
//! hypercore-format §4.1.

use crate::codec::{FRAME_HEAD_BYTES, put_uint};
use crate::error::{Error, Result};
use crate::oplog::SLOT_BYTES;
use crate::storage::{File, Storage};

/// Where a header lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) length: u64,
}

/// What goes into the slot for a header's payload: itself, or if it is too long a pointer to where it has
/// been made durable, beside the `current` one, with that place.
pub(crate) fn placed(
    storage: &mut dyn Storage,
    current: Option<Place>,
    payload: Vec<u8>,
) -> Result<(Vec<u8>, Option<Place>)> {
    if payload.len() + FRAME_HEAD_BYTES <= SLOT_BYTES {
        return Ok((payload, None));
    }
    let length = payload.len() as u64;
    let start = match current {
        Some(place) if length > place.start => {
            (place.start + place.length).next_multiple_of(SLOT_BYTES as u64)
        }
        _ => 0,
    };
    storage.write(File::Header, start, &payload).map_err(Error::io("writing the header"))?;
    storage.sync(File::Header).map_err(Error::io("syncing the header"))?;
    storage.sync_directory().map_err(Error::io("syncing the folder"))?;
    let mut pointer = vec![1, 1];
    put_uint(&mut pointer, start);
    put_uint(&mut pointer, length);
    Ok((pointer, Some(Place { start, length })))
}
