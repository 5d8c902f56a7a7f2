//! What mirroring costs, and how long it takes, with a peer that opens, applies and acknowledges all that it is sent.
//!
//! * [`bytes`]: what a create, an update and a delete take on the link, and of a processor: two mirrors alone.
//! * [`records`]: a walk between two whole workers, in turns on one CPU.
//! * [`throughput`]: packets with mirroring on against off, the peer on the other CPU.
//! * [`bring_up`]: a walk to a peer on the other CPU, and what it does to first packets that wait meanwhile.

mod bring_up;
mod bytes;
mod records;
mod throughput;

use crate::case::Case;

/// The cases.
pub fn cases() -> Vec<Case> {
    let others = [bring_up::cases(), vec![bring_up::hold()]];
    [bytes::case(), records::case(), throughput::case()]
        .into_iter()
        .chain(others.into_iter().flatten())
        .collect()
}
