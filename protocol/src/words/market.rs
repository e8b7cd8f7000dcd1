//! Market: balances and transfers of PRANA.

use minicbor::{Decode, Encode};

use super::consensus::{TxStatus, TxView};
use super::shared::{Empty, ListRequest, Page};
use crate::amount::Amount;
use crate::id::{BlockIndex, CellId, TxId};

words! {
    /// Whose balance.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct BalanceRequest {
        /// A cell id or a contact's name; this cell unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub who: Option<String>,
    }

    /// A balance.
    #[derive(Eq)]
    pub struct Balance {
        /// Whose.
        pub cell: CellId,
        /// How much PRANA.
        pub balance: Amount,
        /// The block it stands after.
        pub index: Option<BlockIndex>,
    }

    /// A transfer.
    #[serde(deny_unknown_fields)]
    pub struct TransferRequest {
        /// To whom: a cell id or a contact's name.
        pub to: String,
        /// How much PRANA.
        pub amount: Amount,
        /// How far to wait before answering; `finalised` unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wait: Option<TxStatus>,
        /// Above every nonce this cell has used; chosen when absent. Naming one makes a repeat safe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub nonce: Option<u64>,
    }

    /// The supply.
    #[derive(Copy, Eq)]
    pub struct Supply {
        /// All PRANA there is.
        pub supply: Amount,
    }

    /// One finalised transfer that touched this cell.
    #[derive(Eq, Encode, Decode)]
    pub struct StatementLine {
        /// The transaction.
        #[n(0)]
        pub tx: TxId,
        /// The block.
        #[n(1)]
        pub index: BlockIndex,
        /// Who paid.
        #[n(2)]
        pub from: CellId,
        /// Who was paid.
        #[n(3)]
        pub to: CellId,
        /// How much.
        #[n(4)]
        pub amount: Amount,
    }

    /// The transfers of a finalised block that touched this cell.
    pub struct ObserveBlockRequest {
        /// The block.
        pub index: BlockIndex,
        /// Its transfers from or to this cell.
        pub lines: Vec<StatementLine>,
    }
}

crate::actions! {
    service Market;
    machine {
        /// Enters a finalised block's transfers into this cell's statement, each block once.
        ObserveBlock observe_block(ObserveBlockRequest) -> Empty, Command, Internal;
        /// This cell's account statement, newest first.
        Statement statement(ListRequest) -> Page<StatementLine>, Query, Read;
    }
    front {
        /// A PRANA balance.
        GetBalance balance(BalanceRequest) -> Balance, Query, Read;
        /// Transfers PRANA from this cell.
        Transfer transfer(TransferRequest) -> TxView, Command, Write;
        /// All PRANA there is.
        GetSupply supply(Empty) -> Supply, Query, Read;
    }
}
