//! Generations: states that lie beside each other in one view, of which one is live.
//!
//! A reset builds its state in a generation of its own while the live one stays as it is; then one row
//! changes which one is live. What was replaced is swept away little by little. Generation 0 has no prefix:
//! a cell that was never reset pays nothing for the others.

use machine::table::KeyBytes;
use machine::{Fault, Read, Scan, Write};

/// Where the tables of generation 0 begin.
const FIRST: u8 = 0x10;
/// What stands before the keys of every later generation, with its number behind it.
const LATER: u8 = 0x20;

fn prefix(generation: u32) -> KeyBytes {
    let mut bytes = KeyBytes::new();
    if generation > 0 {
        bytes.push(LATER);
        bytes.extend_from_slice(&generation.to_be_bytes());
    }
    bytes
}

/// The first key behind a generation.
fn end(generation: u32) -> KeyBytes {
    match (generation, generation.checked_add(1)) {
        (0, _) => KeyBytes::from_slice(&[LATER]),
        (_, Some(next)) => prefix(next),
        (_, None) => KeyBytes::from_slice(&[LATER + 1]),
    }
}

fn inside(generation: u32, key: &[u8]) -> KeyBytes {
    let mut bytes = prefix(generation);
    bytes.extend_from_slice(key);
    bytes
}

fn see(
    view: &dyn Read,
    generation: u32,
    key: &[u8],
    look: &mut dyn FnMut(Option<&[u8]>),
) -> Result<(), Fault> {
    view.see(&inside(generation, key), look)
}

fn scan<'a>(view: &'a dyn Read, generation: u32, from: &[u8], to: &[u8], reverse: bool) -> Scan<'a> {
    let to = if to.is_empty() { end(generation) } else { inside(generation, to) };
    let scan = view.scan(&inside(generation, from), &to, reverse);
    let prefix = prefix(generation).len();
    Box::new(scan.map(move |row| {
        row.map(|(mut key, value)| {
            key.drain(..prefix);
            (key, value)
        })
    }))
}

/// One generation of a view, to read.
pub(crate) struct Within<'a>(pub(crate) &'a dyn Read, pub(crate) u32);

impl Read for Within<'_> {
    fn see(&self, key: &[u8], look: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        see(self.0, self.1, key, look)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool) -> Scan<'_> {
        scan(self.0, self.1, from, to, reverse)
    }
}

/// One generation of a view, to write.
pub(crate) struct WithinMut<'a>(pub(crate) &'a mut dyn Write, pub(crate) u32);

impl Read for WithinMut<'_> {
    fn see(&self, key: &[u8], look: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        see(&*self.0, self.1, key, look)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool) -> Scan<'_> {
        scan(&*self.0, self.1, from, to, reverse)
    }
}

impl Write for WithinMut<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.put(inside(self.1, &key).into_vec(), value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.delete(inside(self.1, &key).into_vec());
    }
}

/// Removes up to `rows_max` rows of a generation; says how many there were.
pub(crate) fn sweep(view: &mut dyn Write, generation: u32, rows_max: u64) -> Result<u64, Fault> {
    let from = if generation == 0 { KeyBytes::from_slice(&[FIRST]) } else { prefix(generation) };
    let mut keys = Vec::new();
    for row in view.scan(&from, &end(generation), false) {
        if keys.len() as u64 == rows_max {
            break;
        }
        keys.push(row?.0);
    }
    let swept = keys.len() as u64;
    for key in keys {
        view.delete(key);
    }
    Ok(swept)
}
