//! Modules: pure transition functions of the replicated state.
//!
//! A module owns the keys `NAME/…`. It sees the state as it stands after the transactions before, and
//! puts its changes into the same place; if it refuses, none of its changes stand. No floats, no
//! clock but the block's, no order but the keys'.

use std::ops::RangeInclusive;
use std::sync::Arc;

use protocol::beacon::Drawn;
use protocol::members::MemberSet;
use protocol::rules::FIRST;
use protocol::{Amount, BlockIndex, CellId, GenesisHash, Hash, Problem, TxId};

use crate::view::Fault;

/// What a transaction runs under.
#[derive(Clone, Copy, Debug)]
pub struct TxContext {
    /// The network.
    pub genesis: GenesisHash,
    /// Which transaction.
    pub id: TxId,
    /// Who signed it.
    pub sender: CellId,
    /// The block's agreed time, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// The block.
    pub index: BlockIndex,
    /// The epoch that ordered it.
    pub epoch: u64,
    /// The round of that epoch which received it.
    pub round: u64,
    /// The hash of the members that ordered it.
    pub members: Hash,
}

/// What a block begins under.
#[derive(Clone, Copy, Debug)]
pub struct BlockContext<'a> {
    /// The block.
    pub index: BlockIndex,
    /// The epoch that ordered it.
    pub epoch: u64,
    /// The members that ordered it.
    pub members: &'a MemberSet,
    /// The value of the beacon that it tells.
    pub beacon: Option<Drawn>,
}

/// The replicated state, as a module sees it: its own keys only, without the module's name.
pub trait ModuleState {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the state cannot be read.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault>;
    /// Sets a key.
    fn put(&mut self, key: &str, value: Vec<u8>);
    /// Removes a key.
    fn delete(&mut self, key: &str);
}

/// A key that a call may touch, without the module's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may be read.
    Read(String),
    /// It may be read and changed.
    Write(String),
}

impl Access {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Read(key) | Self::Write(key) => key,
        }
    }
}

/// What a module made of a call: done, or refused with nothing changed.
pub type Outcome = Result<(), Problem>;

/// One module of the replicated state.
pub trait Module: Send + Sync {
    /// The module's name, the first part of its keys: lower-case letters.
    fn name(&self) -> &'static str;

    /// The keys a new network begins with.
    fn genesis(&self, genesis: &protocol::genesis::Genesis, state: &mut dyn ModuleState);

    /// Checks a call by itself, before it is taken in: names, shapes, sizes. No state is read.
    ///
    /// # Errors
    ///
    /// The refusal.
    fn check(&self, call: &str, args: &serde_json::Value) -> Outcome;

    /// The keys that a call may touch, all of them, told by the call alone; none if it cannot be told. Calls that have no
    /// key in common, or only read what they have in common, may be carried out at the same time. A call that touches
    /// another key is refused; one of which nothing is told is carried out alone.
    fn access(&self, _context: &TxContext, _call: &str, _args: &serde_json::Value) -> Option<Vec<Access>> {
        None
    }

    /// Whether it may touch what apps keep as well: a key that begins with `app/` is then an app's, named in full, and none of the module's
    /// own.
    fn touches_apps(&self) -> bool {
        false
    }

    /// Called as a block begins, before any of its transactions is carried out, in networks whose state keeps the members in force
    /// ([`Genesis::keeps_members`](protocol::genesis::Genesis::keeps_members)).
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the state cannot be read.
    fn begin(&self, _block: &BlockContext<'_>, _state: &mut dyn ModuleState) -> Result<(), Fault> {
        Ok(())
    }

    /// The module as the ledger that fees are paid out of, if it is one.
    fn ledger(&self) -> Option<&dyn Ledger> {
        None
    }

    /// Carries out a call.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the state cannot be read; a refusal is the inner error.
    fn execute(
        &self,
        context: &TxContext,
        call: &str,
        args: &serde_json::Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault>;

    /// Checks what must hold after every block, by what the block changed of this module's keys.
    ///
    /// # Errors
    ///
    /// What does not hold; the service stops then.
    fn check_invariants(&self, changes: &[Change]) -> Result<(), String>;
}

/// The versions of the rules that a build has, each with its modules. What else a version changes (tree, fees, guest runtime) goes by its
/// number.
#[derive(Clone)]
pub struct RuleSets(Arc<[Modules]>);

/// The modules of one version of the rules.
type Modules = Arc<[Arc<dyn Module>]>;

impl RuleSets {
    /// The first version alone, with its modules.
    pub fn first(modules: impl Into<Arc<[Arc<dyn Module>]>>) -> Self {
        Self(Arc::new([modules.into()]))
    }

    /// The next version as well, with its modules.
    #[must_use]
    pub fn and_next(&self, modules: impl Into<Arc<[Arc<dyn Module>]>>) -> Self {
        Self(self.0.iter().cloned().chain([modules.into()]).collect())
    }

    /// The modules of a version; none if the build lacks it.
    pub fn modules(&self, version: u64) -> Option<&[Arc<dyn Module>]> {
        let place = usize::try_from(version.checked_sub(FIRST)?).ok()?;
        self.0.get(place).map(|modules| &**modules)
    }

    /// The versions that the build has.
    pub fn versions(&self) -> RangeInclusive<u64> {
        FIRST..=FIRST + self.0.len() as u64 - 1
    }
}

/// A module with accounts that fees are paid out of.
///
/// Fees are taken one by one as transactions are carried out, and put down once a block: so transactions whose senders
/// differ have nothing in common.
pub trait Ledger: Module {
    /// The key of a cell's account: all that [`Ledger::charge`] touches.
    fn account(&self, cell: &CellId) -> String;

    /// Takes a fee out of a cell's account.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the state cannot be read; the inner error when the account does not cover it, and nothing is changed
    /// then.
    fn charge(&self, payer: &CellId, fee: Amount, state: &mut dyn ModuleState) -> Result<Outcome, Fault>;

    /// Puts what was taken in a block into the account of fees.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the state cannot be read.
    fn collect(&self, fees: Amount, state: &mut dyn ModuleState) -> Result<(), Fault>;

    /// Shares the account of fees among members, each as [`FeeRules::shares`](protocol::fees::FeeRules::shares) says; the rest stays.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the state cannot be read.
    fn share(&self, members: &MemberSet, state: &mut dyn ModuleState) -> Result<(), Fault>;
}

/// One key that a block changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, without the module's name.
    pub key: String,
    /// The value before the block.
    pub before: Option<Vec<u8>>,
    /// The value after it.
    pub after: Option<Vec<u8>>,
}
