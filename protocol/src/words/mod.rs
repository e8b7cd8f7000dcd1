//! The actions of each service: the whole list of what can be asked of a cell.

/// Adds the derives that every word of the edge has.
macro_rules! words {
    ($($item:item)*) => {
        $(
            #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
            $item
        )*
    };
}

pub mod consensus;
pub mod identity;
pub mod market;
pub mod message;
pub mod nucleus;
pub mod shared;
pub mod signal;
pub mod state;
pub mod trace;
