//! The checkers of single flows, for every packet of a service that leaves: one worker alone knows its flow (REQ E2), and
//! no packet of a flow overtakes another one of its direction within an appliance (REQ E1).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use baton::flow::key::{TCP, UDP};
use baton::flow::table::Table;
use baton::flow::{Address, Direction, Key};

use crate::lcore::{Departure, Lcore};
use crate::packet::{ACK, RST, SYN};

/// A TCP segment or datagram, as far as it is the same before and after an appliance.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub key: Key,
    /// Of what is not translated.
    pub hash: u64,
    /// It resets its connection.
    pub resets: bool,
    /// It begins one.
    pub begins: bool,
}

impl Sight {
    /// Of a frame; `None`: it is none, or in pieces.
    pub fn of(frame: &[u8]) -> Option<Sight> {
        let be16 = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let (src, dst, protocol, l4, end) = match frame.get(12..15)? {
            [0x08, 0x00, 0x45] if be16(20)? & 0x3fff == 0 => {
                let address = |at: usize| Some(Address::v4(*frame.get(at..)?.first_chunk()?));
                (address(26)?, address(30)?, *frame.get(23)?, 34, 14 + usize::from(be16(16)?))
            }
            [0x86, 0xdd, _] => {
                let address = |at: usize| Some(Address::v6(*frame.get(at..)?.first_chunk()?));
                (address(22)?, address(38)?, *frame.get(20)?, 54, 54 + usize::from(be16(18)?))
            }
            _ => return None,
        };
        let rest = match protocol {
            TCP => [frame.get(l4 + 4..l4 + 16)?, frame.get(l4 + 18..end)?],
            UDP => [&[], frame.get(l4 + 8..end)?],
            _ => return None,
        };
        let mut hasher = DefaultHasher::new();
        rest.into_iter().for_each(|part| hasher.write(part));
        let key = Key { src, dst, src_port: be16(l4)?, dst_port: be16(l4 + 2)?, vlan: 0, protocol };
        let flags = if protocol == TCP { *frame.get(l4 + 13)? } else { 0 };
        let (resets, begins) = (flags & RST != 0, flags & (SYN | ACK) == SYN);
        Some(Sight { key, hash: hasher.finish(), resets, begins })
    }
}

/// What a packet that leaves was when it came, as the worker's table has it; an error: another worker knows the flow, or
/// none does. `None`: none does any more, and one that was reset or moved away in this turn, as `ends` says, may be its
/// flow.
pub fn sent_by(
    lcores: &[Lcore],
    worker: usize,
    mut sight: Sight,
    ends: bool,
) -> Option<Result<Sight, String>> {
    let answer = sight.key.reversed();
    let others = || lcores.iter().enumerate().filter(|(other, _)| *other != worker);
    let known = table_of(&lcores[worker]).and_then(|table| {
        table.lookup(&answer).and_then(|(index, direction)| Some((table.get(index)?, direction)))
    });
    let keys = match &known {
        Some((flow, _)) => [flow.client, flow.server],
        None => [answer; 2],
    };
    for (other, lcore) in others() {
        if table_of(lcore).is_some_and(|table| keys.iter().any(|key| table.lookup(key).is_some())) {
            let also = if known.is_some() { "also " } else { "" };
            return Some(Err(format!(
                "worker {worker} sends {}, whose flow is {also}worker {other}'s",
                sight.key
            )));
        }
    }
    let Some((flow, direction)) = known else {
        let complaint = || Err(format!("worker {worker} sends {}, which is of no flow", sight.key));
        return (!ends).then(complaint);
    };
    sight.key = match direction {
        Direction::FromServer => flow.client,
        Direction::FromClient => flow.server,
    };
    Some(Ok(sight))
}

/// Of a connection that began in this turn in the place of one that had ended, only the newer one is in the table: what was sent
/// of the older one before cannot be told.
pub fn forget_replaced(lcore: &Lcore, sent: &mut [(Sight, &mut Departure)]) {
    let Some(table) = table_of(lcore) else { return };
    let flow_of = |sight: &Sight| table.lookup(&sight.key.reversed()).map(|(index, _)| index);
    for at in (0..sent.len()).filter(|at| sent[*at].0.begins).collect::<Vec<_>>() {
        let begun = flow_of(&sent[at].0);
        let (before, _) = sent.split_at_mut(at);
        let replaced = before.iter_mut().filter(|(sight, _)| begun.is_some() && flow_of(sight) == begun);
        replaced.for_each(|(_, departure)| departure.came_as = None);
    }
}

fn table_of(lcore: &Lcore) -> Option<&Table> {
    lcore.worker().map(|worker| &worker.flows().table)
}

/// Keys that are in the tables of two workers of an appliance.
pub fn doubles(lcores: &[Lcore]) -> Vec<String> {
    let mut known = BTreeMap::new();
    let mut found = Vec::new();
    for (number, lcore) in lcores.iter().enumerate() {
        let Some(worker) = lcore.worker() else { continue };
        for (_, flow) in worker.flows().table.iter() {
            for key in [flow.client, flow.server] {
                match known.entry(key) {
                    Entry::Occupied(other) => {
                        found.push(format!("{key} is in the tables of workers {} and {number}", other.get()));
                    }
                    Entry::Vacant(place) => drop(place.insert(number)),
                }
            }
        }
    }
    found
}

/// What came to an appliance and did not leave it yet, of one direction of a flow: hashes, and how often the ports' hash
/// had been changed until then. Much of it was dropped, or was to somebody else.
type Lane = VecDeque<(u64, u64)>;

/// In which order packets came.
#[derive(Default)]
pub struct Order(BTreeMap<Key, Lane>);

impl Order {
    /// A packet came.
    pub fn came(&mut self, sight: &Sight, epoch: u64) {
        self.0.entry(sight.key).or_default().push_back((sight.hash, epoch));
    }

    /// A packet leaves; `sight` is what it was when it came. Whether it keeps its place: all that came before it by the
    /// same way is gone for good.
    pub fn leaves(&mut self, sight: &Sight) -> bool {
        let Some(lane) = self.0.get_mut(&sight.key) else { return false };
        let Some(place) = lane.iter().position(|(hash, _)| *hash == sight.hash) else { return false };
        let (_, epoch) = lane[place];
        let mut at = 0;
        lane.retain(|(_, other)| {
            at += 1;
            at > place + 1 || at <= place && *other != epoch
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(hash: u64) -> Sight {
        Sight { key: Key::default(), hash, resets: false, begins: false }
    }

    #[test]
    fn what_leaves_is_what_came_in_its_order() {
        let mut order = Order::default();
        [1, 2, 3, 2, 4].into_iter().for_each(|hash| order.came(&sight(hash), 0));
        assert!(order.leaves(&sight(1)));
        assert!(order.leaves(&sight(3)), "the first 2 was dropped");
        assert!(order.leaves(&sight(2)), "the second one was not");
        assert!(!order.leaves(&sight(1)), "it came once");
        assert!(order.leaves(&sight(4)));
        assert!(!order.leaves(&sight(5)), "it never came");
    }

    #[test]
    fn after_a_change_of_the_hash_packets_may_overtake_older_ones() {
        let mut order = Order::default();
        let all = [(1, 0), (2, 0), (3, 1), (4, 1)];
        all.into_iter().for_each(|(hash, epoch)| order.came(&sight(hash), epoch));
        assert!(order.leaves(&sight(4)));
        assert!(!order.leaves(&sight(3)), "it went the same way");
        assert!(order.leaves(&sight(2)));
        assert!(!order.leaves(&sight(1)));
    }
}
