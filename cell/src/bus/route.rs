//! The way to a service's actor.

use std::sync::{Arc, PoisonError, RwLock};

use machine::EffectId;
use protocol::action::{Kind, ServiceWords};
use protocol::{Caller, Problem, ProblemKind, Service};

use super::ViewVersion;
use super::bulkhead::{Bulkhead, Reply};
use super::remote::{Place, Whereabouts};

/// What a service's actor answers.
pub(super) type Answered<W> = Result<<W as ServiceWords>::Answer, Problem>;

/// A request on its way to a service's actor.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct Ask<W: ServiceWords> {
    /// What is asked.
    pub request: W::Request,
    /// Query or command.
    pub kind: Kind,
    /// Who asks.
    pub caller: Caller,
    /// The effect that asks, if one does: the receiver journals it as its source's high-water mark.
    pub cause: Option<EffectId>,
    /// Where the answer goes.
    pub reply: Reply<Result<W::Answer, Problem>>,
}

/// The way to a service's actor; the supervisor changes it when it starts the actor anew.
pub struct Route<W: ServiceWords> {
    pub(super) bulkhead: Arc<Bulkhead<Answered<W>>>,
    pub(super) whereabouts: Whereabouts,
    view: ViewVersion,
    recipient: RwLock<Option<actix::Recipient<Ask<W>>>>,
}

impl<W: ServiceWords> Route<W> {
    /// A way to nobody yet, with so many calls under way at once.
    pub(super) fn new(in_flight_max: usize) -> Self {
        let bulkhead = Arc::new(Bulkhead::new(in_flight_max));
        Self {
            bulkhead,
            whereabouts: Whereabouts::default(),
            view: ViewVersion::default(),
            recipient: RwLock::new(None),
        }
    }

    /// The version of the view that the service answers from.
    pub fn view(&self) -> &ViewVersion {
        &self.view
    }

    /// Points the route at another host, back here, or has calls wait.
    pub fn place(&self, place: Place) {
        self.whereabouts.set(place);
    }

    /// Points the route at an actor of this process, or at none.
    pub fn set(&self, recipient: Option<actix::Recipient<Ask<W>>>) {
        // Another actor may have another view: what the last one could not make durable is gone.
        self.view.changes();
        *self.recipient.write().unwrap_or_else(PoisonError::into_inner) = recipient;
    }

    pub(super) fn try_send(&self, ask: Ask<W>) -> Result<(), Problem> {
        let recipient = self.recipient.read().unwrap_or_else(PoisonError::into_inner);
        let Some(recipient) = recipient.as_ref() else {
            return Err(not_running(W::SERVICE));
        };
        recipient.try_send(ask).map_err(|error| match error {
            actix::prelude::SendError::Full(_) => busy(W::SERVICE),
            actix::prelude::SendError::Closed(_) => not_running(W::SERVICE),
        })
    }
}

pub(super) fn not_running(service: Service) -> Problem {
    Problem::new(ProblemKind::Unavailable, "bus.not_running", format!("the {service} service is not running"))
        .hint("cell status shows the services; ask again once it runs")
}

pub(super) fn busy(service: Service) -> Problem {
    Problem::new(ProblemKind::Busy, "bus.busy", format!("the {service} service has too much to do"))
        .hint("ask again in a moment")
}
