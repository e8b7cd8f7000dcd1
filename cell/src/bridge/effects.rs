//! Effects of services that run on another host than the one that leads: brought to it, in order.

use std::sync::{Arc, Weak};
use std::time::Duration;

use machine::EffectId;
use minicbor::{Decode, Encode};
use protocol::{Problem, Service, codec};

use super::wire::{Ask, WireEffect};
use crate::actor::Effects;
use crate::node::{Host, Queues, Senders};

/// Effects of one request.
const BATCH_MAX: usize = 256;
/// The pause before what the lead did not take is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Brings what this host's services ask for to the lead.
pub(crate) fn forward(host: &Arc<Host>, queues: Queues) {
    let Queues { identity, consensus, message } = queues;
    host.edge.spawn(carry(Arc::downgrade(host), Service::Identity, identity));
    host.edge.spawn(carry(Arc::downgrade(host), Service::Consensus, consensus));
    host.edge.spawn(carry(Arc::downgrade(host), Service::Message, message));
}

async fn carry<E: Encode<()>>(host: Weak<Host>, service: Service, mut effects: Effects<E>) {
    while let Some(batch) = effects.next(BATCH_MAX).await {
        let encode = |(id, effect): (EffectId, E)| WireEffect { id, effect: codec::encode(&effect) };
        let ask = Ask::Effects { service, effects: batch.into_iter().map(encode).collect(), missed: false };
        loop {
            let Some(host) = host.upgrade() else { return };
            match bring(&host, &ask).await {
                Ok(()) => break,
                Err(problem) => tracing::debug!(%service, %problem, "effects wait for the host that leads"),
            }
            drop(host);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        if effects.take_missed()
            && let Some(host) = host.upgrade()
        {
            host.control().owe(service).await;
        }
    }
}

async fn bring(host: &Host, ask: &Ask) -> Result<(), Problem> {
    let bridge = host.bridge().ok_or_else(super::stopping)?;
    let lead = bridge.known().lead.ok_or_else(super::stopping)?;
    bridge.ask(lead, ask).await.map(|_| ())
}

/// Takes what a service on another host asks for.
pub(super) fn take(senders: &Senders, service: Service, effects: &[WireEffect]) -> Result<(), Problem> {
    match service {
        Service::Identity => senders.identity.send(decode(effects)?),
        Service::Consensus => senders.consensus.send(decode(effects)?),
        Service::Message => senders.message.send(decode(effects)?),
        Service::Nucleus | Service::State | Service::Market => {}
    }
    Ok(())
}

fn decode<E: for<'b> Decode<'b, ()>>(effects: &[WireEffect]) -> Result<Vec<(EffectId, E)>, Problem> {
    let one = |effect: &WireEffect| Ok((effect.id, codec::decode(&effect.effect)?));
    effects.iter().map(one).collect()
}
