//! Typed clients over the bus.

use protocol::action::Call;
use protocol::{Action, Problem};

use super::{Bus, CallContext};

/// The bus with a call context: what typed clients run over.
#[derive(Clone)]
pub struct BusCaller {
    pub(super) bus: Bus,
    pub(super) context: CallContext,
}

impl BusCaller {
    /// The Nucleus actions.
    pub fn nucleus(&self) -> protocol::nucleus::Client<'_, Self> {
        protocol::nucleus::Client(self)
    }
    /// The Identity actions.
    pub fn identity(&self) -> protocol::identity::Client<'_, Self> {
        protocol::identity::Client(self)
    }
    /// The Message actions.
    pub fn message(&self) -> protocol::messages::Client<'_, Self> {
        protocol::messages::Client(self)
    }
    /// The State actions.
    pub fn state(&self) -> protocol::state::Client<'_, Self> {
        protocol::state::Client(self)
    }
    /// The Consensus actions.
    pub fn consensus(&self) -> protocol::consensus::Client<'_, Self> {
        protocol::consensus::Client(self)
    }
    /// The Market actions.
    pub fn market(&self) -> protocol::market::Client<'_, Self> {
        protocol::market::Client(self)
    }
}

impl Call for BusCaller {
    fn call<A: Action>(
        &self,
        request: A::Request,
    ) -> impl Future<Output = Result<A::Answer, Problem>> + Send {
        self.bus.call_by::<A>(&self.context, request)
    }
}
