//! Pages of lists: at most so many rows, at most so many bytes, and where to go on.

use protocol::shared::Page;

use crate::view::Fault;

/// The most bytes of content on one page whose rows vary much in size; its first row stands in any case.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

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
    collect_within(rows, limit, usize::MAX, |row| {
        let (shown, cursor) = item(row);
        (shown, cursor, 0)
    })
}

/// Like [`collect`], for rows that may be large: `item` gives each row's size in bytes as well, and
/// the page ends before it would pass `bytes_max`.
///
/// # Errors
///
/// The first [`Fault`] of the rows.
pub fn collect_within<R, T>(
    rows: impl Iterator<Item = Result<R, Fault>>,
    limit: usize,
    bytes_max: usize,
    mut item: impl FnMut(R) -> (T, String, usize),
) -> Result<Page<T>, Fault> {
    let mut items = Vec::new();
    let mut last = None;
    let mut bytes = 0usize;
    for row in rows {
        if items.len() == limit {
            return Ok(Page { items, next: last });
        }
        let (shown, cursor, size) = item(row?);
        bytes = bytes.saturating_add(size);
        if bytes > bytes_max && !items.is_empty() {
            return Ok(Page { items, next: last });
        }
        items.push(shown);
        last = Some(cursor);
    }
    Ok(Page { items, next: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_at_its_rows_or_its_bytes_and_says_where_to_go_on() {
        let page = |sizes: &[usize], limit| {
            let rows = sizes.iter().copied().enumerate().map(Ok);
            let page =
                collect_within(rows, limit, 10, |(at, size)| (at, at.to_string(), size)).expect("no fault");
            (page.items.len(), page.next)
        };
        let at = |cursor: &str| Some(cursor.to_owned());
        assert_eq!(page(&[4, 4, 4], 9), (2, at("1")));
        assert_eq!(page(&[4, 6], 9), (2, None));
        assert_eq!(page(&[11, 1], 9), (1, at("0")), "the first row stands in any case");
        assert_eq!(page(&[1, 1, 1], 2), (2, at("1")));
        assert_eq!(page(&[], 2), (0, None));
    }
}
