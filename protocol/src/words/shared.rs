//! Words that several services use.

words! {
    /// Nothing: `{}`.
    #[derive(Default, Copy, Eq, Hash)]
    #[serde(deny_unknown_fields)]
    pub struct Empty {}

    /// Which part of a list: at most `limit` items (20 unless told, 1 000 at most), after `cursor`.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct ListRequest {
        /// At most so many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u32>,
        /// The `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
    }

    /// A part of a list; `next` is null at the end.
    pub struct Page<T> {
        /// The items.
        pub items: Vec<T>,
        /// The cursor of the page that follows.
        pub next: Option<String>,
    }
}

impl ListRequest {
    /// The limit in force, 1 to 1 000.
    pub fn limit(&self) -> usize {
        page_limit(self.limit)
    }
}

/// A page's limit in force: 20 unless told, 1 to 1 000.
pub fn page_limit(asked: Option<u32>) -> usize {
    asked.map_or(20, |limit| limit.clamp(1, 1_000) as usize)
}
