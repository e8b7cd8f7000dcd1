//! Signals: who tells them, and when, is put down here.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::nucleus::{Broadcast, Emit};
use protocol::signal::{Balance, BroadcastRequest, EmitRequest, Signal};

use super::{front, not_draining};
use crate::actor::now_ms;
use crate::node::World;
use crate::signals::Choice;

pub(super) fn install(world: &Arc<World>) {
    front::<Emit, _, _>(world, |world, context, EmitRequest { name, body, key, balance }| async move {
        not_draining(&world)?;
        let (from, time_ms) = (context.caller.to_string(), now_ms());
        let rtt_us = match (balance, world.bridge()) {
            (Balance::LeastLatency, Some(bridge)) => bridge.round_trips_us(),
            _ => BTreeMap::new(),
        };
        let choice = Choice { balance, from: context.came_over, rtt_us };
        world.signals.emit(Signal { name, body, key, from, time_ms }, choice)
    });
    front::<Broadcast, _, _>(world, |world, context, BroadcastRequest { name, body }| async move {
        not_draining(&world)?;
        let (from, time_ms) = (context.caller.to_string(), now_ms());
        world.signals.broadcast(Signal { name, body, key: None, from, time_ms })
    });
}
