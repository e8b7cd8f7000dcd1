//! What a writer waits for: who has said to have how much of a journal that is written here, and whether that is enough.
//!
//! Where hosts vote, most of them have to have an entry before anybody hears of it, the writer among them if it votes: whoever leads next asks
//! most of them, and meets one that has it. Where nobody votes it is the host that leads.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use protocol::{HostId, Service};

use super::Bridge;
use super::wire::Head;

/// Who has what of the journals that are written here.
#[derive(Default)]
pub(super) struct Acks(Mutex<BTreeMap<Service, Of>>);

/// Of one journal, under one grant.
#[derive(Default)]
struct Of {
    epoch: u64,
    fork: u64,
    have: BTreeMap<HostId, u64>,
}

/// A host has a copy of a journal that is written here, up to here.
pub(super) fn hear(bridge: &Bridge, from: HostId, service: Service, epoch: u64, head: Head) {
    {
        let mut acks = bridge.acks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = acks.entry(service).or_default();
        if (of.epoch, of.fork) != (epoch, head.fork) {
            // A word that was late says nothing against a newer one.
            if (epoch, head.fork) < (of.epoch, of.fork) {
                return;
            }
            *of = Of { epoch, fork: head.fork, have: BTreeMap::new() };
        }
        of.have.insert(from, head.length);
    }
    settle(bridge, service);
}

/// Tells the writer of a journal here how much of it is safe.
pub(super) fn settle(bridge: &Bridge, service: Service) {
    let Ok(host) = bridge.host() else { return };
    let lease = host.bus.lease(service);
    let (Some(epoch), Some(reader)) = (lease.epoch(), host.service(service).gauges.reader()) else { return };
    let acks = bridge.acks.0.lock().unwrap_or_else(PoisonError::into_inner);
    // A fork of Nucleus's journal is of one term, so it says under which grant a word is.
    let is_about = |of: &&Of| of.fork == reader.fork() && (of.epoch == epoch || service == Service::Nucleus);
    let nothing = BTreeMap::new();
    let have = acks.get(&service).filter(is_about).map_or(&nothing, |of| &of.have);
    lease.replicated(epoch, enough(bridge.key, &bridge.voters(), have));
}

/// How many entries most of the voters have; the writer's own are on its disk.
fn enough(me: HostId, voters: &[HostId], have: &BTreeMap<HostId, u64>) -> u64 {
    let of = |voter: &HostId| match *voter == me {
        true => u64::MAX,
        false => have.get(voter).copied().unwrap_or(0),
    };
    let mut lengths: Vec<u64> = voters.iter().map(of).collect();
    lengths.sort_unstable_by(|one, other| other.cmp(one));
    lengths.get(voters.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> HostId {
        HostId::from_bytes([number; 32])
    }

    #[track_caller]
    fn check(me: u8, voters: &[u8], have: &[(u8, u64)], expected: u64) {
        let voters: Vec<HostId> = voters.iter().copied().map(host).collect();
        let have = have.iter().map(|(of, length)| (host(*of), *length)).collect();
        assert_eq!(enough(host(me), &voters, &have), expected);
    }

    #[test]
    fn most_voters_have_it() {
        check(1, &[1], &[], u64::MAX);
        check(2, &[1], &[(1, 7)], 7);
        check(2, &[1], &[(3, 9)], 0);
        check(1, &[1, 2], &[(2, 7)], 7);
        check(1, &[1, 2, 3], &[(2, 7), (3, 5)], 7);
        check(4, &[1, 2, 3], &[(2, 7), (3, 5)], 5);
        check(1, &[1, 2, 3, 4, 5], &[(2, 9), (3, 4), (4, 3)], 4);
        check(1, &[], &[(2, 9)], 0);
    }
}
