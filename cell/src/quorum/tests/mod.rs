//! Groups of hosts in one process: real openraft, real disks, a network whose links can be cut.

mod elections;
mod lease;
mod logs;
mod members;
mod net;
mod notes;

pub(super) use notes::Notes;

use super::types::Voter;

impl From<u64> for Voter {
    fn from(number: u64) -> Self {
        Self(net::host_id(u8::try_from(number).expect("a small number")))
    }
}
