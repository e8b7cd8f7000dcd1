//! Effects of services that run on another host than the one that leads: brought to it, in order.

use std::sync::{Arc, Weak};
use std::time::Duration;

use machine::EffectId;
use minicbor::{Decode, Encode};
use protocol::{Problem, ProblemKind, Service, codec};

use super::wire::{Ask, WireEffect};
use crate::actor::Effects;
use crate::node::{Host, Queues, Senders};

/// Effects of one request.
const BATCH_MAX: usize = 256;
/// Bytes of one request: more go in several. One effect may have more alone.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How long the lead may take; it has to find room for them, and nothing else.
const ANSWER_MAX: Duration = Duration::from_secs(3);
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
        for effects in cut(batch.into_iter().map(encode)) {
            let ask = Ask::Effects { service, effects, missed: false };
            loop {
                let Some(host) = host.upgrade() else { return };
                match bring(&host, &ask).await {
                    Ok(()) => break,
                    Err(problem) if is_final(&problem) => {
                        // Whoever writes the journal now is asked for all that it owes.
                        tracing::warn!(%service, %problem, "effects are not taken from this host any more");
                        break;
                    }
                    Err(problem) => {
                        tracing::debug!(%service, %problem, "effects wait for the host that leads");
                    }
                }
                drop(host);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        // Taken to be missed until the actor says what it owes: it may do more meanwhile.
        if effects.has_missed()
            && let Some(host) = host.upgrade()
        {
            host.control().owe(service).await;
        }
    }
}

/// Requests of so many effects that their bytes stay within the bound.
fn cut(effects: impl Iterator<Item = WireEffect>) -> Vec<Vec<WireEffect>> {
    let (mut requests, mut bytes) = (Vec::<Vec<WireEffect>>::new(), 0);
    for effect in effects {
        bytes += effect.effect.len();
        match requests.last_mut().filter(|_| bytes <= BATCH_BYTES_MAX) {
            Some(last) => last.push(effect),
            None => {
                bytes = effect.effect.len();
                requests.push(vec![effect]);
            }
        }
    }
    requests
}

/// Whether it is of no use to ask again: another host writes the journal, or the lead does not know the words.
fn is_final(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemKind::Denied | ProblemKind::Invalid)
}

async fn bring(host: &Host, ask: &Ask) -> Result<(), Problem> {
    let bridge = host.bridge().ok_or_else(super::stopping)?;
    if let (Ok(lead), Ask::Effects { service, effects, .. }) = (bridge.lead(), ask) {
        // This host has come to lead.
        return take(lead.senders(), *service, effects);
    }
    let lead = bridge.known().lead.ok_or_else(super::stopping)?;
    // It may be frozen, and another one lead meanwhile.
    let asked = tokio::time::timeout(ANSWER_MAX, bridge.ask(lead, ask));
    asked.await.unwrap_or_else(|_| Err(unanswered())).map(|_| ())
}

fn unanswered() -> Problem {
    let cause = "the host that leads does not answer";
    Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", cause)
        .hint("cell hosts shows the connections; it is asked again by itself")
}

/// Takes what a service on another host asks for: all of it, or nothing while there is no room.
pub(super) fn take(senders: &Senders, service: Service, effects: &[WireEffect]) -> Result<(), Problem> {
    let is_taken = match service {
        Service::Identity => senders.identity.send_all(decode(effects)?),
        Service::Consensus => senders.consensus.send_all(decode(effects)?),
        Service::Message => senders.message.send_all(decode(effects)?),
        Service::Nucleus | Service::State | Service::Market => true,
    };
    is_taken.then_some(()).ok_or_else(|| {
        let cause = format!("the effects of {service} wait for room");
        Problem::new(ProblemKind::Busy, "bridge.effects_wait", cause)
            .hint("they are brought again by themselves")
    })
}

fn decode<E: for<'b> Decode<'b, ()>>(effects: &[WireEffect]) -> Result<Vec<(EffectId, E)>, Problem> {
    let one = |effect: &WireEffect| Ok((effect.id, codec::decode(&effect.effect)?));
    effects.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: usize, index: u64) -> WireEffect {
        let id = EffectId { service: Service::Message, generation: 0, index, ordinal: 0 };
        WireEffect { id, effect: vec![0; bytes] }
    }

    #[test]
    fn effects_are_cut_by_bytes_and_stay_in_order() {
        let sizes = [10, BATCH_BYTES_MAX, 20, 30, BATCH_BYTES_MAX - 50, 1, 3 * BATCH_BYTES_MAX, 5];
        let requests = cut(sizes.iter().zip(0..).map(|(bytes, index)| of(*bytes, index)));
        let lengths: Vec<usize> = requests.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 1, 3, 1, 1, 1]);
        let order: Vec<u64> = requests.iter().flatten().map(|effect| effect.id.index).collect();
        assert_eq!(order, (0..8).collect::<Vec<_>>());
    }
}
