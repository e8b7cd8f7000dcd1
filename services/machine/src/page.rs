//! Pages of lists: at most so many rows, and where to go on.

use protocol::shared::Page;

use crate::view::Fault;

/// Takes the first `limit` rows as items; `item` gives each with the cursor that stands behind it.
///
/// # Errors
///
/// The first [`Fault`] of the rows.
pub fn collect<R, T>(
    rows: impl Iterator<Item = Result<R, Fault>>,
    limit: usize,
    mut item: impl FnMut(R) -> (T, String),
) -> Result<Page<T>, Fault> {
    let mut items = Vec::new();
    let mut last = None;
    for row in rows {
        if items.len() == limit {
            return Ok(Page { items, next: last });
        }
        let (shown, cursor) = item(row?);
        items.push(shown);
        last = Some(cursor);
    }
    Ok(Page { items, next: None })
}
