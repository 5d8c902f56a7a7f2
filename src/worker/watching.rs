//! TCP connections whose keys are remembered are watched: only a FIN or RST that the other end takes, by its sequence
//! number, lets keys go (REQ D8). A traffic manager sees both directions, whichever distributors they come by.
//!
//! * An RST inside the window ends the flow as soon as it was sent on, and so its keys.
//! * After a FIN of each end, acknowledged in sequence, the keys age, whatever else comes.
//! * Other FINs and RSTs go on and change nothing here: their receivers judge them too.
//!
//! Numbers are not mirrored and do not move with a shard: the first segments of each end are believed again.

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::limits::KEY_CLOSING_TIMEOUT;
use crate::base::memory::{NoMemory, Slab};
use crate::base::time::Instant;
use crate::flow::entry::FlowFlags;
use crate::flow::sequence::{Numbers, Seen, Sequences};
use crate::flow::tcp_state::Segment;
use crate::flow::{Direction, FlowIndex};
use crate::wire::tcp::{self, Flags, TcpOption};
use crate::worker::Worker;

/// The sequence numbers of a worker's watched connections, by their flows' places.
pub(super) struct Watched(Option<Slab<Sequences>>);

/// What a watched segment comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is what it says.
    Plain,
    /// It is taken for a segment without FIN and RST.
    Disarmed,
    /// The connection is over when it was sent on.
    Last,
}

impl Watched {
    /// For so many flows; or none, if no keys are remembered.
    pub(super) fn new(capacity: u32, is_in_use: bool) -> Result<Watched, NoMemory> {
        Ok(Watched(if is_in_use { Some(Slab::new(capacity as usize)?) } else { None }))
    }

    fn of(&mut self, flow: FlowIndex) -> Option<&mut Sequences> {
        self.0.as_mut()?.get_mut(flow.0 as usize)
    }

    /// Another connection's flow has this place from now on.
    pub(super) fn begin(&mut self, flow: FlowIndex) {
        if let Some(sequences) = self.of(flow) {
            *sequences = Sequences::NEW;
        }
    }
}

impl<B: Buffer> Worker<B> {
    /// Looks at a segment of a flow whose keys are remembered, as it came; `len` is the length of the TCP segment at `at`.
    pub(super) fn watch(
        &mut self,
        now: Instant,
        flow: FlowIndex,
        direction: Direction,
        (head, at, len): (&[u8], usize, usize),
    ) -> Verdict {
        let Some(sequences) = self.watched.of(flow) else { return Verdict::Plain };
        let Some(numbers) = numbers(head.get(at..).unwrap_or_default(), len) else { return Verdict::Plain };
        match sequences.see(direction, &numbers) {
            Seen::Nothing => Verdict::Plain,
            Seen::Closed => {
                self.age_keys(now, flow);
                Verdict::Plain
            }
            Seen::Reset => Verdict::Last,
            Seen::ResetOutside | Seen::ResetUnproven => {
                self.counters.bump(Counter::ResetsOutside);
                Verdict::Disarmed
            }
            Seen::FinOutside => {
                self.counters.bump(Counter::FinsOutside);
                Verdict::Disarmed
            }
        }
    }

    /// The keys of a flow must not go before it, or another manager could be chosen for them.
    #[cold]
    fn age_keys(&mut self, now: Instant, index: FlowIndex) {
        let Some(flow) = self.flows.table.get(index) else { return };
        let lasts = self.tables.snapshot.checked.flows.tcp_closing_timeout;
        if flow.flags.contains(FlowFlags::REMEMBERED)
            && lasts < KEY_CLOSING_TIMEOUT
            && self.placer.can_wait(1)
        {
            let keys = self.keys_elsewhere(&flow);
            self.placer.age(now, &keys, flow.shard);
        }
    }
}

/// What a segment is taken for, given what was found.
pub(super) fn judged(segment: Segment, verdict: Verdict) -> Segment {
    match verdict {
        Verdict::Plain | Verdict::Last => segment,
        Verdict::Disarmed => Segment::from_flags(Flags::ACK.0),
    }
}

/// The numbers of a TCP segment of `len` bytes, of which the head begins here.
fn numbers(head: &[u8], len: usize) -> Option<Numbers> {
    let segment = tcp::Segment::new_checked(head).ok()?;
    let flags = segment.flags();
    let syn = flags.has(Flags::SYN);
    let scale = |option| match option {
        TcpOption::WindowScale(shift) => Some(shift),
        TcpOption::MaximumSegment(_)
        | TcpOption::SackPermitted
        | TcpOption::Sack(_)
        | TcpOption::Timestamps { .. }
        | TcpOption::Other { .. } => None,
    };
    Some(Numbers {
        seq: segment.sequence(),
        ack: segment.acknowledgement(),
        has_ack: flags.has(Flags::ACK),
        window: segment.window(),
        payload_len: len.saturating_sub(segment.header_len()) as u32,
        syn,
        fin: flags.has(Flags::FIN),
        rst: flags.has(Flags::RST),
        window_scale: if syn { segment.options().find_map(scale) } else { None },
    })
}
