//! Effects on their way from an actor to the runner that carries them out.
//!
//! The queue is bounded. When it is full effects are not waited for (the actor must not block) but
//! dropped and marked as missed: all of them are still owed by the view, so the runner asks for what
//! is owed once it has caught up. Effects are at-least-once either way.
//!
//! A queue without gaps drops everything behind the first that finds no room, until what is owed was asked for: its runner may take the last
//! that came for the last that there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use machine::EffectId;
use tokio::sync::mpsc;

/// How many effects wait for the runner.
const EFFECTS_MAX: usize = 65_536;

/// The actor's end.
#[derive(Clone)]
pub struct EffectSender<E> {
    sender: mpsc::Sender<(EffectId, E)>,
    missed: Arc<AtomicBool>,
    has_gaps: bool,
}

/// The runner's end.
pub struct Effects<E> {
    receiver: mpsc::Receiver<(EffectId, E)>,
    missed: Arc<AtomicBool>,
}

/// A bounded queue of effects.
pub fn effect_queue<E>() -> (EffectSender<E>, Effects<E>) {
    let (sender, receiver) = mpsc::channel(EFFECTS_MAX);
    let missed = Arc::new(AtomicBool::new(false));
    (EffectSender { sender, missed: Arc::clone(&missed), has_gaps: true }, Effects { receiver, missed })
}

/// A bounded queue of effects of which none is missing between those that come.
pub fn effect_queue_without_gaps<E>() -> (EffectSender<E>, Effects<E>) {
    let (sender, effects) = effect_queue();
    (EffectSender { has_gaps: false, ..sender }, effects)
}

impl<E> EffectSender<E> {
    /// Hands effects over, in order.
    pub fn send(&self, effects: Vec<(EffectId, E)>) {
        for effect in effects {
            if !self.has_gaps && self.missed.load(Ordering::Acquire) {
                return;
            }
            if self.sender.try_send(effect).is_err() {
                self.missed.store(true, Ordering::Release);
            }
        }
    }

    /// Hands over all that is owed: nothing is missed any more.
    pub fn send_owed(&self, effects: Vec<(EffectId, E)>) {
        self.missed.store(false, Ordering::Release);
        self.send(effects);
    }

    /// Hands effects over, in order, if there is room for all of them; says whether there was.
    pub fn send_all(&self, effects: Vec<(EffectId, E)>) -> bool {
        let Ok(places) = self.sender.try_reserve_many(effects.len()) else { return false };
        for (place, effect) in places.zip(effects) {
            place.send(effect);
        }
        true
    }
}

impl<E> Effects<E> {
    /// The next effects, at least one and at most `max`; `None` when the actor is gone for good.
    pub async fn next(&mut self, max: usize) -> Option<Vec<(EffectId, E)>> {
        let mut effects = Vec::new();
        (self.receiver.recv_many(&mut effects, max).await > 0).then_some(effects)
    }

    /// Whether effects were missed since the last call: then ask the view for what is owed. What is asked of the world after this comes
    /// again.
    pub fn take_missed(&self) -> bool {
        self.receiver.is_empty() && self.missed.swap(false, Ordering::AcqRel)
    }

    /// Whether effects were missed and all before them have been taken: nothing comes until the actor was asked for what it owes.
    pub fn has_missed(&self) -> bool {
        self.receiver.is_empty() && self.missed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use protocol::Service;

    use super::*;

    fn effect(index: u64) -> (EffectId, u64) {
        (EffectId { service: Service::Consensus, generation: 0, index, ordinal: 0 }, index)
    }

    fn numbers(batch: Vec<(EffectId, u64)>) -> Vec<u64> {
        batch.into_iter().map(|(_, number)| number).collect()
    }

    /// Whoever takes the highest that has come for the last that is known must not be told of one behind a gap.
    #[tokio::test]
    async fn behind_what_is_missed_nothing_comes_until_it_is_asked_for() {
        let (sender, mut effects) = effect_queue_without_gaps();
        let all = EFFECTS_MAX as u64;
        sender.send((0..all + 2).map(effect).collect());
        assert_eq!(numbers(effects.next(10).await.expect("some")), (0..10).collect::<Vec<_>>());
        sender.send(vec![effect(all + 2)]);
        let rest = numbers(effects.next(EFFECTS_MAX).await.expect("some"));
        assert_eq!(rest, (10..all).collect::<Vec<_>>(), "there was room again, and a gap before");
        assert!(effects.has_missed());
        sender.send_owed((all - 1..all + 3).map(effect).collect());
        assert!(!effects.has_missed() && !effects.take_missed());
        sender.send(vec![effect(all + 3)]);
        let owed = numbers(effects.next(EFFECTS_MAX).await.expect("some"));
        assert_eq!(owed, (all - 1..all + 4).collect::<Vec<_>>());
    }
}
