//! The flow that a record makes.

use crate::base::ids::ShardId;
use crate::flow::entry::{Flow, FlowFlags};
use crate::mirror::record::FlowState;

/// A flow's facts, with what a record says of why it is mirrored.
pub(super) fn chosen(flags: FlowFlags, state: &FlowState) -> FlowFlags {
    if state.chosen { flags.with(FlowFlags::CHOSEN) } else { flags.without(FlowFlags::CHOSEN) }
}

/// A flow of which only a record is known.
pub(super) fn made_from(shard: ShardId, state: &FlowState) -> Flow {
    let flags = chosen(FlowFlags::MIRRORED.with(FlowFlags::FROM_PEER), state);
    Flow {
        shard,
        virtual_server: state.virtual_server,
        pool: state.pool,
        server_id: state.server_id,
        flags: if state.full_nat { flags.with(FlowFlags::FULL_NAT) } else { flags },
        created: state.stamp.version,
        changed: state.stamp,
        ..Flow::new(state.client, state.server, state.tcp)
    }
}
