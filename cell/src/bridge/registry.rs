//! What each host says of itself: which services it runs, how they are, how much it has to do. Said to all others every [`TELL_EVERY`].
//!
//! A host is believed about the services that Nucleus granted it, and about no others. What an earlier life of it has said is forgotten when it
//! begins another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use minicbor::{Decode, Encode};
use protocol::nucleus::{Health, HostEntry, HostView, ServiceStatus};
use protocol::{HostId, Service, codec};

use super::wire::{Hello, Said};
use super::{Bridge, as_peer, copies};
use crate::network::Lane;
use crate::node::Host;

/// How often each host tells the others.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// After how long without a word a host's services count as not running.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// What a host says of one service.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Line {
    #[n(0)]
    service: Service,
    /// As in [`Health`]: starting, running, faulted, stopped.
    #[n(1)]
    health: u8,
    #[n(2)]
    entries: u64,
    #[n(3)]
    bytes: u64,
    #[n(4)]
    epoch: u64,
    #[n(5)]
    restarts: u32,
}

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Status {
    #[n(0)]
    incarnation: u64,
    #[n(1)]
    version: String,
    #[n(2)]
    services: Vec<Line>,
    /// Calls under way there.
    #[n(3)]
    in_flight: u64,
    #[n(4)]
    http: String,
}

/// A host that was met.
struct Seen {
    incarnation: u64,
    version: String,
    addresses: Vec<String>,
    heard: Instant,
    status: Option<Status>,
}

/// The hosts that were met.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<HostId, Seen>>);

impl Registry {
    fn seen(&self) -> MutexGuard<'_, BTreeMap<HostId, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host has said hello.
    pub(super) fn met(&self, key: HostId, hello: &Hello, addresses: Vec<String>) {
        let Hello { incarnation, version, .. } = hello.clone();
        let mut seen = self.seen();
        match seen.get_mut(&key) {
            Some(host) if host.incarnation > incarnation => {}
            Some(host) if host.incarnation == incarnation => host.addresses = addresses,
            _ => {
                let host = Seen { incarnation, version, addresses, heard: Instant::now(), status: None };
                seen.insert(key, host);
            }
        }
    }

    /// The hosts that are connected, with which of their lives.
    pub(super) fn connected(&self, bridge: &Bridge) -> Vec<(HostId, u64)> {
        let connected = bridge.network().connected_peers().into_iter().map(super::as_host);
        let hosts: Vec<HostId> = connected.filter(|key| bridge.entry(key).is_some()).collect();
        let seen = self.seen();
        let life = |key: &HostId| seen.get(key).map_or(0, |host| host.incarnation);
        hosts.into_iter().map(|key| (key, life(&key))).collect()
    }

    pub(super) fn forget(&self, key: &HostId) {
        self.seen().remove(key);
    }

    /// Under which epoch a host runs a service, as it last said; 0 where it does not. None while it has said nothing in this life.
    pub(super) fn runs(&self, key: &HostId, service: Service) -> Option<u64> {
        let seen = self.seen();
        let status = seen.get(key)?.status.as_ref()?;
        let stopped = Health::Stopped as u8;
        let line = status.services.iter().find(|line| line.service == service && line.health != stopped);
        Some(line.map_or(0, |line| line.epoch))
    }

    /// How many entries a host last said that a journal has.
    pub(super) fn entries(&self, key: &HostId, service: Service) -> Option<u64> {
        let seen = self.seen();
        let status = seen.get(key)?.status.as_ref()?;
        status.services.iter().find(|line| line.service == service).map(|line| line.entries)
    }
}

/// A host tells how it is.
pub(super) fn hear(bridge: &Bridge, key: HostId, status: Status) {
    let (Some(entry), Ok(host)) = (bridge.entry(&key), bridge.host()) else { return };
    {
        let mut seen = bridge.registry.seen();
        // It may have greeted when it was not known here yet.
        let seen = seen.entry(key).or_insert_with(|| Seen {
            incarnation: status.incarnation,
            version: status.version.clone(),
            addresses: Vec::new(),
            heard: Instant::now(),
            status: None,
        });
        if status.incarnation != seen.incarnation {
            return;
        }
        seen.heard = Instant::now();
        seen.status = Some(status.clone());
    }
    for line in &status.services {
        if bridge.holder(line.service).is_some_and(|holder| holder == entry.name) {
            let health = match Health::of(line.health) {
                // It runs there, and cannot be asked from here yet.
                Health::Running if !bridge.can_call(&key) => Health::Starting,
                health => health,
            };
            if health == Health::Running && host.service(line.service).health() != Health::Running {
                host.bus.is_back(line.service);
            }
            host.service(line.service).told(&ServiceStatus {
                service: line.service,
                health,
                entries: line.entries,
                bytes: line.bytes,
                epoch: line.epoch,
                restarts: line.restarts,
                depends_on: Vec::new(),
                host: entry.name.clone(),
                standby: None,
            });
        }
    }
}

/// Tells the others how this host is, and notices who has fallen silent, until the bridge is gone.
pub(super) async fn tell(bridge: Arc<Bridge>) {
    let mut stopping = bridge.stopping.subscribe();
    let weak = Arc::downgrade(&bridge);
    drop(bridge);
    loop {
        {
            let Some(bridge) = weak.upgrade() else { return };
            let Ok(host) = bridge.host() else { return };
            let bytes = codec::encode(&Said::Status(status(&bridge, &host)));
            for peer in bridge.network().connected_peers() {
                if bridge.is_admitted(&super::as_host(peer)) {
                    bridge.network().push(Lane::Hosts, &peer, bytes.clone());
                }
            }
            notice_silence(&bridge, &host);
            // Again: a word that found no room, or no connection, was lost.
            Service::ALL.into_iter().for_each(|service| copies::tell_writer(&bridge, service));
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(TELL_EVERY) => {}
        }
    }
}

fn status(bridge: &Bridge, host: &Host) -> Status {
    let mine = |service: &Service| bridge.holder(*service).is_some_and(|holder| holder == host.name);
    let services = Service::ALL.into_iter().filter(mine).map(|service| {
        let status = host.service(service).status(service, "");
        Line {
            service,
            health: status.health as u8,
            entries: status.entries,
            bytes: status.bytes,
            epoch: status.epoch,
            restarts: status.restarts,
        }
    });
    Status {
        incarnation: bridge.incarnation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        services: services.collect(),
        in_flight: in_flight(host),
        http: host.http(),
    }
}

fn in_flight(host: &Host) -> u64 {
    Service::ALL.into_iter().map(|service| host.bus.in_flight(service) as u64).sum()
}

/// What silent hosts run counts as not running.
fn notice_silence(bridge: &Bridge, host: &Host) {
    for entry in bridge.known().roster.hosts {
        if entry.key == bridge.key {
            continue;
        }
        let heard = bridge.registry.seen().get(&entry.key).map(|seen| seen.heard);
        if heard.is_some_and(|heard| heard.elapsed() < SILENCE_MAX) {
            continue;
        }
        for service in Service::ALL {
            if bridge.holder(service).is_some_and(|holder| holder == entry.name) {
                host.service(service).set_health(Health::Starting);
            }
        }
    }
}

/// All hosts as this one knows them.
pub(super) fn hosts(bridge: &Bridge) -> Vec<HostView> {
    let Ok(host) = bridge.host() else { return Vec::new() };
    let known = bridge.known();
    let voters = bridge.voters();
    let seen = bridge.registry.seen();
    let view = |entry: &protocol::nucleus::HostEntry| {
        let local = entry.key == bridge.key;
        let leads = known.lead == Some(entry.key);
        let holds = |service: &Service| {
            let nucleus = *service == Service::Nucleus;
            leads && nucleus
                || !nucleus
                    && known
                        .roster
                        .grants
                        .iter()
                        .any(|grant| grant.service == *service && grant.host == entry.name)
        };
        let peer = bridge.network().peer(&as_peer(entry.key));
        let met = seen.get(&entry.key).filter(|_| peer.connected);
        let status = met.and_then(|met| met.status.as_ref());
        HostView {
            host: entry.name.clone(),
            key: Some(entry.key),
            services: Service::ALL.into_iter().filter(holds).collect(),
            local,
            leads,
            may_lead: entry.may_lead || leads,
            votes: voters.contains(&entry.key),
            connected: local || peer.connected,
            incarnation: if local { Some(bridge.incarnation) } else { met.map(|met| met.incarnation) },
            version: match local {
                true => Some(env!("CARGO_PKG_VERSION").to_owned()),
                false => met.map(|met| met.version.clone()),
            },
            in_flight: if local { Some(in_flight(&host)) } else { status.map(|status| status.in_flight) },
            rtt_us: peer.rtt_us,
            http: if local { Some(host.http()) } else { status.map(|status| status.http.clone()) },
            addresses: match (local, met) {
                (true, _) => bridge.addresses(),
                (false, Some(met)) if !met.addresses.is_empty() => met.addresses.clone(),
                (false, _) => entry.addresses.clone(),
            },
        }
    };
    known.roster.hosts.iter().map(view).collect()
}

/// The last round trips to the hosts that are connected, in microseconds.
pub(super) fn round_trips_us(bridge: &Bridge) -> BTreeMap<HostId, u64> {
    let hosts = bridge.known().roster.hosts;
    let peer = |host: &HostEntry| bridge.network().peer(&as_peer(host.key));
    let trip = |host: &HostEntry| Some((host.key, peer(host).rtt_us.filter(|_| peer(host).connected)?));
    hosts.iter().filter_map(trip).collect()
}
