//! The members whose order is executed, as the state knows them.
//!
//! Rules:
//!
//! - They are kept where the genesis has a use for them ([`Genesis::keeps_members`]), under `epoch/members`, as JSON; as long as nobody
//!   has followed those of the genesis, there is no such key.
//! - A block whose header names others is the first of an epoch. Those are the members that `members/set` held before
//!   it (ADR 0016), since blocks before it have chosen them.
//! - A header that names yet others is none that consensus orders: the service stops.

use machine::module::ModuleState;
use machine::{Fault, Read};
use protocol::block::BlockHeader;
use protocol::genesis::Genesis;
use protocol::members::{MemberSet, SET_KEY};

use crate::scratch::{Below, Layer, Scratch, current};

/// The keys of the members in force, as if they were a module's.
const NAME: &str = "epoch";
const MEMBERS: &str = "members";

/// The members in force while a block is executed.
#[derive(Debug)]
pub(crate) struct Term {
    /// Those that ordered it.
    pub(crate) members: MemberSet,
    /// Those that ordered the blocks before it, if they were others.
    pub(crate) before: Option<MemberSet>,
}

impl Term {
    /// The members that ordered the next block, where they are kept.
    pub(crate) fn read(
        view: &dyn Read,
        genesis: &Genesis,
        header: &BlockHeader,
    ) -> Result<Option<Self>, Fault> {
        if !genesis.keeps_members() {
            return Ok(None);
        }
        let of = |key: &str| -> Result<MemberSet, Fault> {
            match current(view, key)? {
                Some(value) => MemberSet::from_state(&value).map_err(|problem| Fault(problem.cause)),
                None => Ok(genesis.member_set()),
            }
        };
        let known = of(&format!("{NAME}/{MEMBERS}"))?;
        if known.hash() == header.members {
            return Ok(Some(Self { members: known, before: None }));
        }
        let chosen = of(SET_KEY)?;
        if chosen.hash() == header.members {
            return Ok(Some(Self { members: chosen, before: Some(known) }));
        }
        Err(Fault(format!("block {} was ordered by members that the state does not know", header.index)))
    }

    /// What the beginning of the block writes of it.
    pub(crate) fn open(&self, below: Below<'_>, writes: &mut Layer) {
        if self.before.is_some() {
            Scratch::new(below, writes, NAME, None).put(MEMBERS, self.members.to_state());
        }
    }
}
