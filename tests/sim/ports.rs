//! The checker of source-NAT ports: no server's side of a flow is given out again before everybody in sync knows that its last
//! flow has ended.

use baton::base::ids::Version;
use baton::flow::{Flow, Key};

use crate::flows::Sight;
use crate::kind::Kind;
use crate::world::World;

/// Which of two flows with one server's side this is.
#[derive(Clone, Copy)]
struct Tenant {
    client: Key,
    /// With which version it began here.
    created: Version,
}

impl Tenant {
    fn of(flow: &Flow) -> Tenant {
        Tenant { client: flow.client, created: flow.created }
    }

    /// Whether what a standby has is this flow, in any state: versions rise over all flows of a shard. A flow that was left out
    /// and is mirrored again counts from another version on, and is the same.
    fn is(&self, known: &Flow, may_begin_again: bool) -> bool {
        known.client == self.client && (may_begin_again || known.changed.version >= self.created)
    }
}

/// A packet of a service leaves an appliance that may have begun a flow: what those in sync with it know of the server's side
/// must not be an earlier flow.
pub fn begun(world: &mut World, at: usize, sight: &Sight) {
    let Some((active, standbys)) = world.group().filter(|_| sight.begins) else { return };
    let flow = world.nodes[at].up.as_ref().and_then(|up| up.flow(&sight.key));
    if let Some(flow) = flow.filter(|flow| active == at && flow.is_full_nat() && flow.is_mirrored()) {
        held_against(world, &flow, &standbys);
    }
}

/// The same of all flows of the active.
pub fn look(world: &mut World, active: usize, standbys: &[usize]) {
    let flows = world.nodes[active].up.iter().flat_map(|up| up.flows());
    let flows: Vec<Flow> = flows.filter(|flow| flow.is_full_nat() && flow.is_mirrored()).collect();
    flows.iter().for_each(|flow| held_against(world, flow, standbys));
}

fn held_against(world: &mut World, flow: &Flow, standbys: &[usize]) {
    let tenant = Tenant::of(flow);
    let may_begin_again = world.scenario.kind == Kind::FlowsChosen;
    for standby in standbys {
        let known = world.nodes[*standby].up.as_ref().and_then(|up| up.flow(&flow.server));
        let Some(known) =
            known.filter(|known| known.server == flow.server && !tenant.is(known, may_begin_again))
        else {
            continue;
        };
        let what = format!(
            "{} is given to {} from version {:?} on, and standby {} knows it as that of {}, which changed at {:?}",
            flow.server,
            flow.client,
            flow.created,
            standby + 1,
            known.client,
            known.changed
        );
        world.checks.violate(world.agenda.now, what);
    }
}
