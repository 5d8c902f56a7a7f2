//! Memory that the records of a frame will need is asked for before the first of them is applied: a standby's tables are
//! touched at random, and the waits for them overlap. Nothing here is more than a hint: records are read, and judged,
//! afterwards.

use arrayvec::ArrayVec;

use crate::flow::flows::Flows;
use crate::mirror::digest::Digests;
use crate::mirror::receiver::Received;
use crate::mirror::record::{self, RECORDS_PER_FRAME_MAX};
use crate::mirror::record_v4;

/// Asks for what the records of `body` will touch: buckets of both keys and the line of the next place for a flow in full
/// (of IPv4, as most are), all of a flow that goes by its handle.
pub(super) fn ask(body: &[u8], received: &Received, flows: &Flows, digests: &Digests) {
    let mut by_handle: ArrayVec<u32, RECORDS_PER_FRAME_MAX> = ArrayVec::new();
    let (mut rest, mut made) = (body, 0);
    while let Some((one, behind)) = record::split(rest) {
        rest = behind;
        if let Some((images, handle)) = record_v4::read_images(one) {
            images.into_iter().for_each(|image| flows.table.prefetch(flows.table.spot(image)));
            received.prefetch(handle);
            // It may be there already; then this one is asked for in vain.
            let place = flows.table.prefetch_new(made);
            digests.prefetch(place);
            flows.last_seen.prefetch(place);
            made += 1;
        } else if let Some(handle) = record_v4::read_handle(one)
            && by_handle.try_push(handle).is_ok()
        {
            received.prefetch(handle);
        }
    }
    for place in by_handle.into_iter().filter_map(|handle| received.place_of(handle)) {
        flows.table.prefetch_flow(place);
        flows.table.prefetch_tenant(place);
        digests.prefetch(place);
        flows.last_seen.prefetch(place);
    }
}
