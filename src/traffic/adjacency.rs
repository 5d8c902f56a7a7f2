//! The neighbours that this worker sends to, by index: a flow names its next
//! hop once and every packet of it finds the address in one step. Packets to a
//! neighbour that is not resolved wait, a bounded number of them.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::base::ids::PortId;
use crate::base::io::TxClass;
use crate::base::limits::{NEIGHBOUR_QUEUE_MAX, NEIGHBOURS_MAX};
use crate::base::time::{Duration, Instant};
use crate::traffic::routes::NextHop;

/// A neighbour that stays unresolved is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// To this link address.
    Known([u8; 6]),
    /// Nobody knows yet; and the master is to be asked, if this says so.
    Unknown {
        /// Ask the master now.
        ask: bool,
    },
}

/// A packet that waits for a neighbour.
#[derive(Debug)]
pub struct WaitingPacket<B> {
    /// The packet, complete but for its destination's link address.
    pub packet: B,
    /// In whose name it is sent.
    pub class: TxClass,
}

struct Adjacency<B> {
    hop: NextHop,
    link: Option<[u8; 6]>,
    asked: Option<Instant>,
    waiting: VecDeque<WaitingPacket<B>>,
    /// Flows that name it; one more for those that the configuration names.
    uses: u32,
}

/// What a packet to a resolved neighbour begins with, and its port: a quarter of a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Destination and source link address.
    pub addresses: [u8; 12],
    /// The port.
    pub port: PortId,
    known: u16,
}

/// The neighbours of one worker.
pub struct Adjacencies<B> {
    all: Vec<Adjacency<B>>,
    /// The same for each packet of a flow.
    links: Vec<Link>,
    /// In whose name packets of flows are sent, over IPv4 and IPv6.
    sources: [[u8; 6]; 2],
    by_hop: HashMap<NextHop, u32>,
    /// What was looked up last: most clients come by one gateway.
    recent: Option<(NextHop, u32)>,
    /// Where the search for an unused one goes on.
    search: usize,
    /// Packets that wait, for all of them.
    waiting: usize,
}

/// Neighbours looked at for one that no flow uses.
const SEARCH_MAX: usize = 64;

impl<B> Adjacencies<B> {
    /// None yet. Packets of flows come from the first of these link addresses to neighbours with an IPv4
    /// address, from the second to the others.
    pub fn new(sources: [[u8; 6]; 2]) -> Adjacencies<B> {
        Adjacencies {
            all: Vec::with_capacity(NEIGHBOURS_MAX),
            links: Vec::with_capacity(NEIGHBOURS_MAX),
            sources,
            by_hop: HashMap::with_capacity(NEIGHBOURS_MAX),
            recent: None,
            search: 0,
            waiting: 0,
        }
    }

    /// How packets of flows reach the neighbour at an index, if its link address is known.
    #[inline(always)]
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(index as usize).filter(|link| link.known != 0)
    }

    /// The index of a neighbour, new or known. At [`NEIGHBOURS_MAX`] a new one takes the
    /// place of one that no flow uses; `None`: none was found among those looked at.
    pub fn index_of(&mut self, hop: NextHop) -> Option<u32> {
        if let Some((recent, index)) = self.recent
            && recent == hop
        {
            return Some(index);
        }
        let index = self.find_or_add(hop)?;
        self.recent = Some((hop, index));
        Some(index)
    }

    fn find_or_add(&mut self, hop: NextHop) -> Option<u32> {
        if let Some(index) = self.by_hop.get(&hop) {
            return Some(*index);
        }
        let adjacency = Adjacency { hop, link: None, asked: None, waiting: VecDeque::new(), uses: 0 };
        let index = if self.all.len() == NEIGHBOURS_MAX {
            let index = self.unused()?;
            // It may be the neighbour that loses its place.
            self.recent = None;
            self.by_hop.remove(&self.all[index].hop);
            self.all[index] = adjacency;
            self.links[index] = Link::default();
            index
        } else {
            self.all.push(adjacency);
            self.links.push(Link::default());
            self.all.len() - 1
        };
        self.by_hop.insert(hop, index as u32);
        Some(index as u32)
    }

    fn unused(&mut self) -> Option<usize> {
        for _ in 0..SEARCH_MAX {
            self.search = (self.search + 1) % self.all.len();
            if self.all[self.search].uses == 0 && self.all[self.search].waiting.is_empty() {
                return Some(self.search);
            }
        }
        None
    }

    /// A flow, or the configuration, names this neighbour: it keeps its place.
    pub fn acquire(&mut self, index: u32) {
        if let Some(adjacency) = self.all.get_mut(index as usize) {
            adjacency.uses += 1;
        }
    }

    /// A flow that named this neighbour is gone.
    pub fn release(&mut self, index: u32) {
        if let Some(adjacency) = self.all.get_mut(index as usize) {
            adjacency.uses = adjacency.uses.saturating_sub(1);
        }
    }

    /// The neighbour at an index.
    pub fn hop(&self, index: u32) -> Option<NextHop> {
        self.all.get(index as usize).map(|adjacency| adjacency.hop)
    }

    /// The neighbour's link address, as far as it is known.
    pub fn resolve(&mut self, now: Instant, index: u32) -> Resolution {
        let Some(adjacency) = self.all.get_mut(index as usize) else {
            return Resolution::Unknown { ask: false };
        };
        if let Some(link) = adjacency.link {
            return Resolution::Known(link);
        }
        let ask = adjacency.asked.is_none_or(|asked| now - asked >= ASK_AGAIN);
        if ask {
            adjacency.asked = Some(now);
        }
        Resolution::Unknown { ask }
    }

    /// Lets a packet wait for the neighbour; gives back the oldest one if too many wait.
    pub fn wait(&mut self, index: u32, packet: WaitingPacket<B>) -> Option<WaitingPacket<B>> {
        let Some(adjacency) = self.all.get_mut(index as usize) else { return Some(packet) };
        let dropped =
            if adjacency.waiting.len() == NEIGHBOUR_QUEUE_MAX { adjacency.waiting.pop_front() } else { None };
        self.waiting += usize::from(dropped.is_none());
        adjacency.waiting.push_back(packet);
        dropped
    }

    /// Packets that wait, for all neighbours.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether packets wait for this neighbour.
    pub fn has_waiting(&self, index: u32) -> bool {
        self.all.get(index as usize).is_some_and(|adjacency| !adjacency.waiting.is_empty())
    }

    /// Drops the packets that wait for a neighbour; how many.
    pub fn give_up(&mut self, index: u32) -> usize {
        let Some(adjacency) = self.all.get_mut(index as usize) else { return 0 };
        let dropped = adjacency.waiting.drain(..).count();
        self.waiting -= dropped;
        dropped
    }

    /// The master knows a neighbour, or has given it up: calls `each` with the packets that
    /// waited for it, to be sent or dropped.
    pub fn learn(&mut self, hop: NextHop, link: Option<[u8; 6]>, mut each: impl FnMut(WaitingPacket<B>)) {
        // What another worker asked for is kept: it may be needed here next.
        let known = if link.is_some() { self.find_or_add(hop) } else { self.by_hop.get(&hop).copied() };
        let Some(index) = known else { return };
        let adjacency = &mut self.all[index as usize];
        adjacency.link = link;
        adjacency.asked = None;
        self.links[index as usize] = match link {
            Some(to) => {
                let mut addresses = [0; 12];
                addresses[..6].copy_from_slice(&to);
                addresses[6..].copy_from_slice(&self.sources[usize::from(!hop.address.is_ipv4())]);
                Link { addresses, port: hop.port, known: 1 }
            }
            None => Link::default(),
        };
        self.waiting -= adjacency.waiting.len();
        adjacency.waiting.drain(..).for_each(&mut each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjacencies<B>() -> Adjacencies<B> {
        Adjacencies::new([[4; 6], [6; 6]])
    }

    fn hop(last: u8) -> NextHop {
        NextHop { port: PortId(1), address: [10, 2, 0, last].into() }
    }

    #[test]
    fn the_newest_packets_wait_and_leave_when_the_neighbour_answers() {
        let mut all = adjacencies();
        let index = all.index_of(hop(10)).unwrap();
        assert_eq!(all.resolve(Instant::ZERO, index), Resolution::Unknown { ask: true });
        assert_eq!(all.resolve(Instant::ZERO, index), Resolution::Unknown { ask: false });
        for packet in 0..NEIGHBOUR_QUEUE_MAX + 2 {
            let dropped = all.wait(index, WaitingPacket { packet, class: TxClass::Service });
            assert_eq!(dropped.map(|w| w.packet), packet.checked_sub(NEIGHBOUR_QUEUE_MAX));
        }
        assert_eq!((all.waiting(), all.has_waiting(index)), (NEIGHBOUR_QUEUE_MAX, true));
        let mut left = Vec::new();
        all.learn(hop(10), Some([1; 6]), |w| left.push(w.packet));
        assert_eq!((all.waiting(), all.has_waiting(index)), (0, false));
        assert_eq!(left, (2..NEIGHBOUR_QUEUE_MAX + 2).collect::<Vec<_>>());
        assert_eq!(all.resolve(Instant::ZERO, index), Resolution::Known([1; 6]));
        let link = all.link(index).expect("it is known");
        assert_eq!((link.addresses, link.port), ([1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4], PortId(1)));
        all.learn(hop(10), None, |_| {});
        assert!(all.link(index).is_none() && all.link(index + 1).is_none());
    }

    #[test]
    fn packets_that_wait_can_be_dropped() {
        let mut all = adjacencies();
        let [index, other] = [hop(10), hop(11)].map(|hop| all.index_of(hop).unwrap());
        for (index, packet) in [(index, 1), (other, 2), (index, 3)] {
            assert!(all.wait(index, WaitingPacket { packet, class: TxClass::Service }).is_none());
        }
        assert_eq!((all.give_up(index), all.give_up(index), all.give_up(u32::MAX)), (2, 0, 0));
        assert_eq!((all.waiting(), all.has_waiting(index), all.has_waiting(other)), (1, false, true));
    }

    #[test]
    fn a_neighbour_that_is_given_up_lets_its_packets_go_and_its_place_is_free() {
        let mut all = adjacencies();
        let index = all.index_of(hop(10)).unwrap();
        all.wait(index, WaitingPacket { packet: 1, class: TxClass::Service });
        let mut left = Vec::new();
        all.learn(hop(10), None, |w| left.push(w.packet));
        assert_eq!(left, [1]);
        all.learn(hop(10), Some([1; 6]), |_| panic!("it left already"));
    }

    #[test]
    fn an_unresolved_neighbour_is_asked_for_again_after_a_while() {
        let mut all = adjacencies::<()>();
        let index = all.index_of(hop(10)).unwrap();
        all.resolve(Instant::ZERO, index);
        assert_eq!(all.resolve(Instant::ZERO + ASK_AGAIN, index), Resolution::Unknown { ask: true });
    }

    #[test]
    fn neighbours_are_bounded_and_only_an_unused_one_gives_up_its_place() {
        let mut all = adjacencies::<()>();
        for n in 0..NEIGHBOURS_MAX as u32 {
            let address = core::net::Ipv4Addr::from_bits(n).into();
            let index = all.index_of(NextHop { port: PortId(0), address }).expect("room");
            all.acquire(index);
        }
        assert_eq!(all.index_of(hop(10)), None);
        all.release(7);
        let found = (0..NEIGHBOURS_MAX / SEARCH_MAX + 1).find_map(|_| all.index_of(hop(10)));
        assert_eq!(found, Some(7));
        assert_eq!(all.hop(7), Some(hop(10)));
    }
}
