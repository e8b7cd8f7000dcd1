//! Nucleus fronts: the cell as it is now, and how to stop it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::messages::{Outbox, OutboxCount};
use protocol::nucleus::{
    CellStatus, Drain, DrainHost, Follow, FollowRequest, Followed, Health, HostView, Hosts, InviteHost,
    MoveService, MoveServiceRequest, Readiness, RemoveHost, ServiceStatus, Services, Shutdown, Status,
    Unfollow, UnfollowRequest,
};
use protocol::shared::{Empty, Page};
use protocol::state::RootRequest;
use protocol::{Problem, ProblemKind, Service};

use super::front;
use crate::bridge::Lead;
use crate::bus::CallContext;
use crate::node::World;

/// How long a part of the cell may take to say how it is: probes do not wait for long.
const PART_MAX: Duration = Duration::from_secs(2);

pub(super) fn install(world: &Arc<World>) {
    front::<Status, _, _>(world, |world, _, _| async move { status(&world).await });
    front::<Services, _, _>(
        world,
        |world, _, _| async move { Ok(Page { items: services(&world), next: None }) },
    );
    front::<Hosts, _, _>(world, |world, _, _| async move { Ok(Page { items: hosts(&world), next: None }) });
    front::<InviteHost, _, _>(
        world,
        |world, _, asked| async move { world.lead.invite(&world.host, asked).await },
    );
    front::<RemoveHost, _, _>(world, |world, _, asked| async move {
        let bridge = world.lead.open(&world.host).await?;
        to_its_end(&world, move |lead| async move { lead.remove(&bridge, asked).await }).await
    });
    front::<DrainHost, _, _>(world, |world, _, asked| async move {
        let bridge = world.lead.open(&world.host).await?;
        to_its_end(&world, move |lead| async move { lead.drain(&bridge, asked).await }).await
    });
    front::<MoveService, _, _>(world, |world, _, MoveServiceRequest { service, host }| async move {
        let bridge = world.lead.open(&world.host).await?;
        to_its_end(&world, move |lead| async move { lead.move_service(&bridge, service, &host).await }).await
    });
    front::<Follow, _, _>(world, |world, _, FollowRequest { who, journal, key }| async move {
        let cell = world.resolve(&who).await?;
        world.copies.follow(&world, cell, journal, key).await
    });
    front::<Unfollow, _, _>(world, |world, _, UnfollowRequest { who, journal, delete }| async move {
        let cell = world.resolve(&who).await?;
        world.copies.unfollow(cell, journal, delete).await
    });
    front::<Followed, _, _>(world, |world, _, _| async move {
        Ok(Page { items: world.copies.list(), next: None })
    });
    front::<Drain, _, _>(world, |world, _, _| async move {
        world.draining.store(true, Ordering::Relaxed);
        Ok(Empty {})
    });
    front::<Shutdown, _, _>(world, |world, _, _| async move {
        world.draining.store(true, Ordering::Relaxed);
        world.stop.send_replace(true);
        Ok(Empty {})
    });
}

/// A move goes on when nobody waits for it any more: half of one would leave a service nowhere.
async fn to_its_end<T, F, Fut>(world: &World, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce(Arc<Lead>) -> Fut,
    Fut: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let task = world.edge.spawn(work(Arc::clone(&world.lead)));
    task.await.unwrap_or_else(|error| {
        Err(Problem::new(ProblemKind::Fault, "node.panicked", format!("a task ended early: {error}")))
    })
}

fn services(world: &World) -> Vec<ServiceStatus> {
    let bridge = world.bridge();
    let status = |service| {
        let grant = bridge.and_then(|bridge| bridge.grant(service));
        let host = grant.as_ref().map_or(&world.host.name, |grant| &grant.host);
        let replicated = grant.as_ref().filter(|grant| grant.replicated);
        let standby = replicated.map(|grant| match (grant.host == world.host.name, bridge) {
            (true, Some(bridge)) => bridge.other_voters_named().join(", "),
            _ => world.host.name.clone(),
        });
        ServiceStatus { standby, ..world.service(service).status(service, host) }
    };
    Service::ALL.into_iter().map(status).collect()
}

fn hosts(world: &World) -> Vec<HostView> {
    if let Some(bridge) = world.bridge() {
        return bridge.hosts();
    }
    vec![HostView {
        host: world.host.name.clone(),
        key: None,
        services: Service::ALL.to_vec(),
        local: true,
        leads: true,
        may_lead: true,
        votes: true,
        connected: true,
        incarnation: None,
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        in_flight: None,
        rtt_us: None,
        http: Some(world.http()),
        addresses: Vec::new(),
    }]
}

/// A question to a part of the cell, which is to say how it is or to be left out.
fn in_short() -> CallContext {
    CallContext::internal().within(PART_MAX)
}

async fn status(world: &Arc<World>) -> Result<CellStatus, Problem> {
    let services = services(world);
    // Whoever asks how the cell is wants to know even when a part of it is away.
    let none = |_: &Problem| OutboxCount { waiting: 0 };
    let bus = world.bus.with(in_short());
    let asked = bus.consensus();
    let (consensus, outbox, readiness) = tokio::join!(
        asked.status(Empty {}),
        world.bus.call_or::<Outbox>(in_short(), Empty {}, none),
        readiness(world, &services)
    );
    let (consensus, outbox) = (consensus.ok(), outbox?.waiting);
    let network = world.network();
    Ok(CellStatus {
        cell: world.cell,
        name: world.settings.cell.name.clone(),
        genesis: world.genesis.hash(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: u64::try_from(world.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        readiness,
        http: world.http(),
        peer_addresses: network.addresses(),
        peers_connected: u32::try_from(network.connected()).unwrap_or(u32::MAX),
        block: consensus.and_then(|status| status.finalised).map(|index| index.0),
        outbox,
        services,
    })
}

/// Whether the cell is ready, and if not, why; the first thing in its way is named.
async fn readiness(world: &Arc<World>, services: &[ServiceStatus]) -> Readiness {
    if world.draining.load(Ordering::Relaxed) {
        return Readiness::Suspended { why: "draining".to_owned() };
    }
    if let Some(faulted) = services.iter().find(|service| service.health == Health::Faulted) {
        return Readiness::Suspended { why: format!("the {} service met a fault", faulted.service) };
    }
    if services.iter().any(|service| service.health != Health::Running) {
        return Readiness::Starting;
    }
    if let Some(problem) = world.stuck().filter(|problem| problem.code == "consensus.upgrade_required") {
        return Readiness::Suspended { why: problem.to_string() };
    }
    if !world.knows_members() {
        return Readiness::Starting;
    }
    let members = world.members();
    let has_others = members.set().all().iter().any(|member| member.cell != world.cell);
    if has_others && world.network().connected() == 0 {
        return Readiness::NoPeers;
    }
    let gossip = world.gossip().map(|gossip| gossip.status());
    if let Some(status) = &gossip {
        if status.is_rolled_back {
            return Readiness::Suspended {
                why: "this folder is a copy of an older one: consensus.rolled_back".to_owned(),
            };
        }
        if !status.has_quorum {
            let why = "fewer than two thirds of the members are connected: consensus.no_quorum".to_owned();
            return Readiness::Suspended { why };
        }
        if !status.has_started {
            return Readiness::Starting;
        }
    } else if has_others && world.is_member() {
        return Readiness::Starting;
    }
    if let Some((block, ..)) = world.taking() {
        let have = world.bus.with(in_short()).state().root(RootRequest::default()).await;
        let have = have.ok().and_then(|root| root.index).map_or(0, |index| index.0 + 1);
        return Readiness::CatchingUp { have, target: block + 1 };
    }
    match world.stuck() {
        Some(problem) if problem.code.ends_with(".diverged") => {
            return Readiness::Diverged { why: problem.to_string() };
        }
        Some(problem) => return Readiness::Suspended { why: problem.to_string() },
        None => {}
    }
    let bus = world.bus.with(in_short());
    let (consensus, state) = (bus.consensus(), bus.state());
    let (consensus, root) = tokio::join!(consensus.status(Empty {}), state.root(RootRequest::default()));
    match (consensus, root) {
        (Ok(consensus), Ok(root)) => {
            if let Some(why) = consensus.diverged {
                return Readiness::Diverged { why };
            }
            let have = root.index.map_or(0, |index| index.0 + 1);
            let finalised = consensus.finalised.map_or(0, |index| index.0 + 1);
            let target = world.target().unwrap_or(0).max(finalised);
            if have < target {
                Readiness::CatchingUp { have, target }
            } else if world.is_stalled() {
                let why = format!("blocks from {finalised} on are ordered, and not final for seconds");
                Readiness::Suspended { why }
            } else {
                Readiness::Synced { root: root.root.to_string() }
            }
        }
        (Err(problem), _) | (_, Err(problem)) => Readiness::Suspended { why: problem.to_string() },
    }
}
