//! What Market journals.

use minicbor::{Decode, Encode};
use protocol::BlockIndex;
use protocol::market::StatementLine;
use serde_json::json;

/// A fact about this cell's account.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// A finalised block moved PRANA from or to this cell.
    #[n(0)]
    Observed {
        /// Which block.
        #[n(0)]
        index: BlockIndex,
        /// What it moved.
        #[n(1)]
        lines: Vec<StatementLine>,
    },
}

impl machine::Record for Record {
    fn describe(&self) -> serde_json::Value {
        let Self::Observed { index, lines } = self;
        json!({ "observed": { "index": index, "lines": lines } })
    }
}
