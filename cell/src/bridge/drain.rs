//! A host is emptied before it is stopped: what it runs goes on elsewhere, and so does leading, if it leads and others may.
//!
//! Services are moved as by hand. The lead is handed over by the election: what runs on this host is stopped first, so all that it took in is done
//! and answered, and calls wait for the next lead; then the host that follows is elected at once, without waiting for anybody to be missed. A host
//! that stops in order hands over in the same way (`node`).

use std::sync::Arc;
use std::time::Duration;

use protocol::nucleus::{DrainHostRequest, DrainedHost, HostEntry};
use protocol::{HostId, Problem, ProblemKind, Service};

use super::lead::Lead;
use super::{Bridge, as_peer};

/// The pause before the lead is handed over: whoever asked for it is answered first.
const ANSWER_PAUSE: Duration = Duration::from_millis(200);
/// How long a host that stops waits for another one to lead.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

impl Lead {
    /// Moves what a host runs to another one; if it leads, that one leads soon after this was answered.
    ///
    /// # Errors
    ///
    /// `nucleus.unknown_host`; `nucleus.cannot_drain` to itself; `nucleus.nobody_follows` of the host that leads, where no other host votes that
    /// is connected, or where the one that is named does not; those of [`Lead::move_service`]: what was moved until then stays there.
    pub(crate) async fn drain(
        self: &Arc<Self>,
        bridge: &Arc<Bridge>,
        asked: DrainHostRequest,
    ) -> Result<DrainedHost, Problem> {
        let host = bridge.host()?;
        let drained = bridge.host_named(&asked.host)?;
        let named = asked.to.as_deref().map(|to| bridge.host_named(to)).transpose()?;
        if named.as_ref().is_some_and(|named| named.key == drained.key) {
            let cause = format!("{} cannot be drained to itself", drained.name);
            return Err(Problem::new(ProblemKind::Invalid, "nucleus.cannot_drain", cause)
                .hint("name another host: cell hosts shows them"));
        }
        let leads = drained.key == bridge.key;
        let to = match (named, leads) {
            (None, false) => bridge.host_named(&host.name)?,
            (Some(named), false) => named,
            (named, true) => successor(bridge, named)?,
        };
        let held = |service: &Service| bridge.holder(*service).is_some_and(|holder| holder == drained.name);
        let held: Vec<Service> = Service::ALL.into_iter().filter(held).collect();
        let mut moved = Vec::new();
        for service in held.into_iter().filter(|service| *service != Service::Nucleus) {
            self.move_service(bridge, service, &to.name).await?;
            moved.push(service);
        }
        if leads {
            tracing::info!(to = to.name, "this host is drained: it hands the lead over");
            let (bridge, to) = (Arc::clone(bridge), to.key);
            host.edge.spawn(async move {
                tokio::time::sleep(ANSWER_PAUSE).await;
                bridge.hand_over(to).await;
            });
        }
        Ok(DrainedHost { host: drained.name, to: to.name, moved, hands_over: leads })
    }
}

impl Bridge {
    /// Stops what runs here and has another host lead. This host begins anew, as one of the others; also where the other one did not take over: then
    /// whoever is elected leads.
    async fn hand_over(&self, to: HostId) {
        let (Ok(host), Some(quorum)) = (self.host(), self.quorum()) else { return };
        for service in Service::ALL.into_iter().rev() {
            if let Err(problem) = host.control().stop(service).await {
                tracing::warn!(%service, %problem, "the lead is handed over before it has stopped");
            }
        }
        if let Err(problem) = quorum.hand_over(to).await {
            tracing::warn!(%to, %problem, "the lead was not handed over: another one is elected");
            host.begin_anew();
        }
    }

    /// Of a host that stops, whose services have stopped: has another one lead, if it does and one can.
    pub(crate) async fn give_up_lead(&self) {
        let (Some(quorum), Ok(to)) = (self.quorum(), successor(self, None)) else { return };
        if !quorum.leadership().borrow().is_me {
            return;
        }
        match tokio::time::timeout(HAND_OVER_MAX, quorum.hand_over(to.key)).await {
            Ok(Ok(())) => tracing::info!(to = to.name, "this host stops: another one leads"),
            Ok(Err(problem)) => tracing::warn!(%problem, "the lead was not handed over"),
            Err(_) => tracing::warn!("the lead was not handed over in time"),
        }
    }
}

/// Who could lead instead of this host: the one that is named, or any.
fn successor(bridge: &Bridge, named: Option<HostEntry>) -> Result<HostEntry, Problem> {
    let others = bridge.voters().into_iter().filter(|voter| *voter != bridge.key);
    let mut may = others.filter(|voter| bridge.network().peer(&as_peer(*voter)).connected);
    let found = match &named {
        Some(named) => may.find(|voter| *voter == named.key),
        None => may.next(),
    };
    found.and_then(|key| bridge.entry(&key)).ok_or_else(|| {
        let cause = match named {
            Some(named) => format!("the host {} does not vote, or is not connected: it cannot lead", named.name),
            None => "no other host votes that is connected: nobody could lead".to_owned(),
        };
        Problem::new(ProblemKind::Conflict, "nucleus.nobody_follows", cause).hint(
            "cell hosts shows who votes; cell host invite --may-lead makes more; cell service move moves single services",
        )
    })
}
