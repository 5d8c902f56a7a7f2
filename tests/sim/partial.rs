//! The checker of a member that tracks a part only: it knows all of that part when it was told, and carries it on when nobody
//! else is left (REQ B8).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use baton::base::ids::NodeId;
use baton::flow::{Flow, Key};

use crate::agenda::{MS, Nanos};
use crate::config::{SERVICES, TRACKED};
use crate::world::World;

/// So long after it began a connection is known to one that was told all from before.
const KNOWN_AFTER: Nanos = 100 * MS;

/// The last one is about to crash that tracks everything: what the other one knows is promised to live on, and nothing else.
pub fn left_alone(world: &mut World) {
    let Some((active, partial)) = world.active().zip(world.partial_follower()) else { return };
    let was_told = was_told(world, active, partial);
    let flows = |at: usize| world.nodes[at].up.iter().flat_map(|up| up.flows());
    let known: BTreeMap<Key, Flow> = flows(partial).map(|flow| (flow.client, flow)).collect();
    let ends = |key: &Key| [(key.src.ip(), key.src_port), (key.dst.ip(), key.dst_port)];
    let led: BTreeMap<[(IpAddr, u16); 2], Flow> =
        flows(active).map(|flow| (ends(&flow.client), flow)).collect();
    let now = world.agenda.now;
    let (mut promised, mut given_up, mut unknown) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for connection in world.connections().filter(|connection| connection.is_live()) {
        let (plan, end) = (connection.plan, &connection.end);
        let is_tracked = TRACKED.contains(&SERVICES[plan.service].name);
        let flow = led.get(&[end.local, end.remote].map(|end| (end.ip(), end.port())));
        let is_it =
            |known: &&Flow, flow: &Flow| known.server == flow.server && known.changed.version >= flow.created;
        let is_known =
            flow.is_some_and(|flow| known.get(&flow.client).is_some_and(|known| is_it(&known, flow)));
        if is_tracked && is_known {
            promised.insert(plan.id);
            continue;
        }
        given_up.insert(plan.id);
        let is_old = connection.syn_acked_at.is_some_and(|at| at + KNOWN_AFTER <= now);
        if let Some(flow) = flow.filter(|_| is_tracked && is_old && was_told) {
            unknown.push(format!("connection {}, {} as {}", plan.id, flow.client, flow.server));
        }
    }
    world.say(|| format!("** {} connections are known to the one that is left", promised.len()));
    for what in unknown {
        world.checks.violate(now, format!("node {} was told all, and does not know {what}", partial + 1));
    }
    world.checks.promised.retain(|id| !given_up.contains(id));
    world.checks.carried_on += promised.len() as u64;
    world.checks.promised.extend(promised);
    world.checks.given_up.extend(given_up);
}

/// Whether the active has named to the other one all that it had when that one came.
fn was_told(world: &mut World, active: usize, partial: usize) -> bool {
    let World { nodes, agenda, .. } = world;
    let Some(appliance) = nodes[active].up.as_mut() else { return false };
    let all = appliance.worker_status(agenda);
    let of = |peer: NodeId| peer == NodeId(partial as u16 + 1);
    let streams: Vec<_> = all
        .iter()
        .flat_map(|status| &status.streams)
        .filter(|stream| of(stream.peer) && stream.shards > 0)
        .collect();
    !streams.is_empty() && streams.iter().all(|stream| stream.shards_to_walk == 0 && stream.refused == 0)
}
