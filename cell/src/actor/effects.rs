//! Effects on their way from an actor to the runner that carries them out.
//!
//! The queue is bounded. When it is full effects are not waited for (the actor must not block) but
//! dropped and marked as missed: all of them are still owed by the view, so the runner asks for what
//! is owed once it has caught up. Effects are at-least-once either way.

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
    (EffectSender { sender, missed: Arc::clone(&missed) }, Effects { receiver, missed })
}

impl<E> EffectSender<E> {
    /// Hands effects over, in order.
    pub fn send(&self, effects: Vec<(EffectId, E)>) {
        for effect in effects {
            if self.sender.try_send(effect).is_err() {
                self.missed.store(true, Ordering::Release);
            }
        }
    }
}

impl<E> EffectSender<E> {
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

    /// Whether effects were missed since the last call: then ask the view for what is owed.
    pub fn take_missed(&self) -> bool {
        self.receiver.is_empty() && self.missed.swap(false, Ordering::AcqRel)
    }
}
