//! What clients and servers say to each other through an appliance, stamped, and what else is on the link.

use baton::base::ids::PortId;
use baton::base::rng::Rng;
use baton::wire::ipv4;

use crate::bench::*;

/// What an end of a flow saw, in order: who sent it, flags, hops and payload.
pub type Seen = Vec<((std::net::IpAddr, u16), Option<u8>, u8, Vec<u8>)>;

/// A conversation: which client port, with which virtual server, and what both ends have seen.
pub struct Conversation {
    pub port: u16,
    pub to: &'static str,
    pub to_port: u16,
    pub is_tcp: bool,
    pub large: bool,
    /// A packet as the server saw it, to be answered.
    pub asked: Option<Packet>,
    pub at_server: Seen,
    pub at_client: Seen,
}

pub const SERVERS: [(&str, u16, bool); 6] = [
    ("10.1.0.100", 80, true),
    ("10.1.0.101", 80, true),
    ("fd01::100", 80, true),
    ("fd01::101", 80, true),
    ("10.1.0.102", 53, false),
    ("fd01::102", 53, false),
];

pub fn conversations(seed: u64, count: u16) -> Vec<Conversation> {
    let mut rng = Rng::with_seed(seed);
    let one = |n: u16| {
        let (to, to_port, is_tcp) = SERVERS[rng.usize(0..SERVERS.len())];
        Conversation {
            port: 1024 + n * 61,
            to,
            to_port,
            is_tcp,
            large: !is_tcp && rng.bool(),
            asked: None,
            at_server: Vec::new(),
            at_client: Vec::new(),
        }
    };
    (0..count).map(one).collect()
}

/// A stamp that tells the order of packets, and the flow that they are of.
pub fn payload(conversation: &Conversation, stamp: u8, len: usize) -> Vec<u8> {
    let [high, low] = conversation.port.to_be_bytes();
    [&[high, low, stamp][..], &vec![stamp; len]].concat()
}

impl Conversation {
    /// What the client sends in one of the rounds.
    pub fn asks(&self, round: usize) -> Vec<Packet> {
        let one = |flags, stamp: u8, len| Packet {
            payload: payload(self, stamp, len),
            ..from_client(self.port, self.to, self.to_port, flags)
        };
        match (self.is_tcp, round) {
            (true, 0) => vec![one(Some(SYN), 0, 0)],
            (true, 1..=3) => (0..6).map(|n| one(Some(ACK), n, 40)).collect(),
            (true, _) => vec![one(Some(FIN_ACK), 0, 0)],
            (false, _) => (0..4).map(|n| one(None, n, if self.large { 2500 } else { 40 })).collect(),
        }
    }

    /// What the server answers.
    pub fn answers(&self, round: usize) -> Vec<Packet> {
        let Some(asked) = &self.asked else { return Vec::new() };
        let one =
            |flags, stamp: u8, len| Packet { payload: payload(self, stamp, len), ..asked.answer(flags) };
        match (self.is_tcp, round) {
            (true, 0) => vec![one(Some(SYN_ACK), 0, 0)],
            (true, 1..=3) => (0..7).map(|n| one(Some(ACK), n, 300)).collect(),
            (true, _) => vec![one(Some(FIN_ACK), 0, 0)],
            (false, _) => (0..3).map(|n| one(None, n, if self.large { 3000 } else { 60 })).collect(),
        }
    }
}

pub const ROUNDS: usize = 5;
/// More than an Ethernet frame carries.
pub const WHOLE_MAX: usize = 1600;

/// What nobody converses by: for the master, for the liveness thread, for nobody.
pub fn noise(rng: &mut Rng) -> Vec<(PortId, Vec<u8>)> {
    let mut all = Vec::new();
    let sound = from_client(9, "10.1.0.100", 80, Some(SYN)).bytes();
    let sound6 = from_client(9, "fd01::100", 80, Some(SYN)).bytes();
    for whole in [&sound, &sound6] {
        for _ in 0..60 {
            let mut frame = whole.clone();
            // Anything at all in one place of the headers but the ports, which would make it a flow of its own.
            let at = rng.usize(0..34);
            frame[at] ^= 1 << rng.u32(0..8);
            all.push((PortId(rng.u16(0..3)), frame));
            all.push((CLIENT_PORT, whole[..rng.usize(0..whole.len())].to_vec()));
        }
    }
    let mut arp = vec![0xff; 6];
    arp.extend(CLIENT_MAC);
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend(CLIENT_MAC);
    arp.extend([10, 1, 0, 50, 0, 0, 0, 0, 0, 0, 10, 1, 0, 100]);
    all.push((CLIENT_PORT, arp));
    let mut heartbeat = [&[0xff; 6][..], &CLIENT_MAC, &[0x88, 0xb5]].concat();
    heartbeat.resize(80, 7);
    all.push((CLIENT_PORT, heartbeat));
    let mut echo = sound.clone();
    echo[23] = 1;
    ipv4::Packet::new_unchecked(&mut echo[14..34]).fill_checksum();
    all.push((CLIENT_PORT, echo));
    // To an own address; where nobody listens; mirror frames that are none; to a server past the services.
    for (to, to_port, port, mac) in [
        ("10.1.0.21", 80, CLIENT_PORT, OWN_MACS[0]),
        ("10.1.0.100", 81, CLIENT_PORT, VIRTUAL_MAC),
        ("10.9.0.1", 6081, PortId(2), OWN_MACS[2]),
        ("10.2.0.10", 8080, CLIENT_PORT, VIRTUAL_MAC),
        ("10.2.0.100", 40_000, SERVER_PORT, VIRTUAL_MAC),
    ] {
        for flags in [None, Some(ACK)] {
            let packet = Packet { to_mac: mac, ..from_client(77, to, to_port, flags) };
            all.push((port, packet.bytes()));
        }
    }
    all
}
