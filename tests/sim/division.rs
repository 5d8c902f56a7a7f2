//! How an appliance's lcores divide the roles among themselves (REQ E1), and which of them a port gives a frame to.

use std::fmt;
use std::net::IpAddr;

use baton::base::rng::Rng;
use baton::flow::{Address, Key};

/// How many lcores there are of each kind, in the order in which they are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// They receive, and hold flows.
    pub fused: usize,
    /// They hold flows, of which distributors give them the packets.
    pub managers: usize,
    /// They receive, and hold no flow.
    pub distributors: usize,
}

impl Division {
    const fn new(fused: usize, managers: usize, distributors: usize) -> Division {
        Division { fused, managers, distributors }
    }

    /// With one worker that holds flows.
    const LONE: [Division; 2] = [Division::new(1, 0, 0), Division::new(0, 1, 1)];
    /// With several; the last two with four.
    const SHARED: [Division; 7] = [
        Division::new(2, 0, 0),
        Division::new(3, 0, 0),
        Division::new(0, 3, 1),
        Division::new(0, 2, 2),
        Division::new(1, 2, 1),
        Division::new(4, 0, 0),
        Division::new(0, 4, 2),
    ];

    /// Of the members of a group: often one of a pair has one worker and the other one four.
    pub fn of_group(rng: &mut Rng, members: usize) -> Vec<Division> {
        let lone = Division::LONE[rng.usize(..2)];
        let mut any = || match rng.usize(..9) {
            at @ 0..2 => Division::LONE[at],
            at => Division::SHARED[at - 2],
        };
        let mut group: Vec<Division> = (0..members).map(|_| any()).collect();
        if let at @ 0..2 = rng.u8(..8) {
            let four = Division::SHARED[5 + rng.usize(..2)];
            group[..2].copy_from_slice(&if at == 0 { [lone, four] } else { [four, lone] });
        }
        group
    }

    /// Of one or two lcores, for runs that are to be short; of three or four in one of eight.
    pub fn light(rng: &mut Rng) -> Division {
        match rng.usize(..16) {
            0..8 => Division::LONE[0],
            8..11 => Division::LONE[1],
            11..14 => Division::SHARED[0],
            14 => Division::SHARED[1],
            _ => Division::SHARED[5],
        }
    }

    /// Lcores that hold flows; they come first.
    pub fn workers(self) -> usize {
        self.fused + self.managers
    }

    pub fn lcores(self) -> usize {
        self.workers() + self.distributors
    }

    /// Whether an lcore receives from ports.
    fn receives(self, lcore: usize) -> bool {
        lcore < self.fused || lcore >= self.workers()
    }

    /// The lcores that receive from ports.
    pub fn receivers(self) -> Vec<usize> {
        (0..self.lcores()).filter(|lcore| self.receives(*lcore)).collect()
    }

    /// The workers as a configuration has them.
    pub fn config(self) -> String {
        let line = |lcore: usize| {
            let roles = match (self.receives(lcore), lcore < self.workers()) {
                (true, true) => r#""distributor", "traffic-manager", "mirror""#,
                (false, _) => r#""traffic-manager", "mirror""#,
                (true, false) => r#""distributor""#,
            };
            format!("  {{ cpu = {}, roles = [{roles}] }},\n", lcore + 1)
        };
        (0..self.lcores()).map(line).collect()
    }
}

impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Division { fused, managers: 0, distributors: 0 } => write!(f, "{fused}"),
            Division { fused: 0, managers, distributors } => write!(f, "{distributors}+{managers}"),
            Division { fused, managers, distributors } => write!(f, "{fused}+{distributors}+{managers}"),
        }
    }
}

/// How ports and links choose an lcore for what they receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// Both directions of a flow go to one lcore.
    Alike,
    /// Each direction has its own, as with aggregated links.
    ByDirection,
    /// One frame in sixteen goes to any lcore, as with rings of switches that take turns: packets may overtake others.
    Spraying,
}

/// Receive side scaling, of all ports of an appliance.
pub struct Scaling {
    steering: Steering,
    salt: u64,
    receivers: Vec<usize>,
    /// How often the hash was changed.
    pub epoch: u64,
}

impl Scaling {
    pub fn new(division: Division, steering: Steering, rng: &mut Rng) -> Scaling {
        Scaling { steering, salt: rng.u64(..), receivers: division.receivers(), epoch: 0 }
    }

    /// The lcore that gets a frame of a port; of frames that are no whole TCP segments or datagrams, its addresses at most
    /// are known.
    pub fn lcore(&mut self, port: usize, frame: &[u8], key: Option<&Key>, rng: &mut Rng) -> usize {
        if self.steering == Steering::Spraying {
            self.epoch += 1;
            if rng.u8(..) < 16 {
                return self.receivers[rng.usize(..self.receivers.len())];
            }
        }
        let ends = match key {
            Some(key) => [(bits(key.src), key.src_port), (bits(key.dst), key.dst_port)],
            None => match frame.get(12..14) {
                Some([0x08, 0x00]) => addresses(frame, 26, 4),
                Some([0x86, 0xdd]) => addresses(frame, 22, 16),
                _ => return self.receivers[0],
            },
        };
        let [from, to] = ends.map(|(address, port)| self.mixed(address, port));
        let hash = match self.steering {
            Steering::Alike => from ^ to,
            Steering::ByDirection | Steering::Spraying => {
                from.rotate_left(17).wrapping_add(to).wrapping_mul(2 * port as u64 + 0x9e37_79b9)
            }
        };
        self.receivers[(hash >> 20) as usize % self.receivers.len()]
    }

    fn mixed(&self, address: u128, port: u16) -> u64 {
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        [address as u64, (address >> 64) as u64, u64::from(port)].into_iter().fold(self.salt, mix)
    }

    /// From now on flows may go to others than before.
    pub fn rehash(&mut self, rng: &mut Rng) {
        self.salt = rng.u64(..);
        self.epoch += 1;
    }
}

fn bits(address: Address) -> u128 {
    match address.ip() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The addresses of a frame, without ports.
fn addresses(frame: &[u8], at: usize, len: usize) -> [(u128, u16); 2] {
    [at, at + len].map(|at| {
        let bytes = frame.get(at..at + len).unwrap_or_default();
        (bytes.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte)), 0)
    })
}
