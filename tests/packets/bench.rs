//! The bench: a worker on plain buffers, and packets built and read by hand.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use baton::base::buffer::{Buffer, Handed, RxMeta};
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{BootId, NodeId, PortId, ShardId, Term, WorkerId};
use baton::base::io::{Io, PassOn, Punt, TxClass};
use baton::base::time::Instant;
use baton::config::snapshot::Snapshot;
use baton::distributor::tell::{Tell, Told};
use baton::driver::memory::{PlainBuffer, SharedPlainBuffer};
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::mirror::Variant;
use baton::traffic::routes::NextHop;
use baton::wire::checksum::Sum;
use baton::wire::parse::parse;
use baton::wire::{IpProtocol, ipv4, tcp};
use baton::worker::message::{Command, Event, Role};
use baton::worker::{Worker, WorkerSetup};

pub const CLIENT_PORT: PortId = PortId(0);
pub const SERVER_PORT: PortId = PortId(1);
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 50];
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 10];
pub const OWN_MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];
pub const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
pub const VIRTUAL_MAC_V6: [u8; 6] = [0, 0, 0x5e, 0, 2, 51];

pub const TERM: Term = Term { counter: 1, node: NodeId(1) };

const CONFIG: &str = r#"
[appliance]
name = "a"
node = NODE
[eal]
file_prefix = "a"
[lcores]
master_cpu = 0
worker = [ { cpu = 1, roles = ["distributor", "traffic-manager", "mirror"] } ]
[[port]]
name = "client"
device = "net_null0"
addresses = ["10.1.0.2NODE/24", "fd01::2NODE/64"]
[[port]]
name = "server"
device = "net_null1"
addresses = ["10.2.0.2NODE/24", "fd02::2NODE/64"]
shared_addresses = ["10.2.0.1/24", "fd02::1/64"]
[[port]]
name = "mirror"
device = "net_null2"
addresses = ["10.9.0.NODE/24"]
[[pool]]
name = "web"
balance = "round-robin"
server = [ { address = "10.2.0.10:8080" } ]
[[pool]]
name = "web6"
balance = "maglev"
server = [ { address = "[fd02::10]:8080" } ]
[[virtual_server]]
name = "nat"
address = "10.1.0.100:80"
protocol = "tcp"
pool = "web"
forwarding = "nat"
mirror = { mode = "checkpoint", commit = "hold" }
[[virtual_server]]
name = "full"
address = "10.1.0.101:80"
protocol = "tcp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.2.0.100"]
mirror = { mode = "checkpoint", commit = "async" }
[[virtual_server]]
name = "nat6"
address = "[fd01::100]:80"
protocol = "tcp"
pool = "web6"
forwarding = "nat"
mirror = { mode = "off" }
[[virtual_server]]
name = "udp"
address = "10.1.0.102:53"
protocol = "udp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.2.0.100"]
mirror = { mode = "checkpoint", commit = "hold" }
[[virtual_server]]
name = "full6"
address = "[fd01::101]:80"
protocol = "tcp"
pool = "web6"
forwarding = "full-nat"
snat_addresses = ["fd02::100"]
mirror = { mode = "checkpoint", commit = "async" }
[[virtual_server]]
name = "udp6"
address = "[fd01::102]:53"
protocol = "udp"
pool = "web6"
forwarding = "full-nat"
snat_addresses = ["fd02::100"]
mirror = { mode = "checkpoint", commit = "async" }
[[virtual_server]]
name = "alone"
address = "10.1.0.103:80"
protocol = "tcp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.2.0.100"]
mirror = { mode = "off" }
[flows]
max = 100_000
[mirror]
port = "mirror"
peers = [ { node = PEER, address = "10.9.0.PEER" } ]
key_file = "k"
[failover]
virtual_router_id = 51
priority = 200
state_dir = "s"
[control]
socket = "a.sock"
"#;

/// What left a worker.
#[derive(Clone, Debug)]
pub struct Sent {
    pub port: PortId,
    pub bytes: Vec<u8>,
    pub class: TxClass,
}

#[derive(Default)]
pub struct MemoryIo {
    pub sent: Vec<Sent>,
    pub punted: Vec<(Punt, Vec<u8>)>,
    pub handed: Vec<(WorkerId, PlainBuffer)>,
    pub told: Vec<Told>,
    /// Others have no room for what is told.
    pub is_deaf: bool,
}

impl PassOn for MemoryIo {
    type Buf = PlainBuffer;

    fn punt(&mut self, to: Punt, packet: PlainBuffer) {
        self.punted.push((to, packet.to_bytes()));
    }

    fn hand_over(&mut self, to: WorkerId, packet: PlainBuffer) {
        self.handed.push((to, packet));
    }

    fn mark(&mut self, to: WorkerId, shard: ShardId) -> bool {
        let mut marker = PlainBuffer::new();
        marker.set_handed(Handed::Marker(shard));
        self.handed.push((to, marker));
        true
    }
}

impl Tell for MemoryIo {
    fn room_to_tell(&self) -> usize {
        if self.is_deaf { 0 } else { 1000 }
    }

    fn tell_others(&mut self, told: &Told) -> bool {
        if !self.is_deaf {
            self.told.push(*told);
        }
        !self.is_deaf
    }
}

impl Io for MemoryIo {
    type Shared = SharedPlainBuffer;

    fn alloc(&mut self) -> Option<PlainBuffer> {
        Some(PlainBuffer::new())
    }

    fn send(&mut self, port: PortId, mut packet: PlainBuffer, class: TxClass) {
        packet.finish().expect("what is asked of the port makes sense");
        self.sent.push(Sent { port, bytes: packet.to_bytes(), class });
    }

    fn clone_shared(&mut self, packet: &PlainBuffer) -> Option<SharedPlainBuffer> {
        Some(packet.share())
    }

    fn send_shared(&mut self, port: PortId, packet: SharedPlainBuffer, class: TxClass) {
        let packet = packet.finish().expect("what is asked of the port makes sense");
        self.sent.push(Sent { port, bytes: packet.to_bytes(), class });
    }
}

/// The configuration file of a node.
pub fn file(node: u16) -> String {
    let peer = (3 - node).to_string();
    CONFIG.replace("NODE", &node.to_string()).replace("PEER", &peer)
}

/// The configuration of a node.
pub fn snapshot(node: u16) -> Arc<Snapshot> {
    let text = file(node);
    let checked = baton::config::load(Path::new("bench.toml"), &text).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>())
    });
    Arc::new(Snapshot { generation: 1, checked })
}

/// The hash of shards.
pub fn toeplitz() -> Arc<Toeplitz> {
    Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key"))
}

/// A worker and its world.
pub struct Bench {
    pub worker: Worker<PlainBuffer>,
    pub io: MemoryIo,
    pub counters: Arc<Counters>,
    pub now: Instant,
}

impl Bench {
    /// Worker `id` of `workers` on node `node` (its peer is the other of 1 and 2).
    pub fn new(node: u16, id: u16, workers: u16) -> Bench {
        Bench::of(snapshot(node), id, workers)
    }

    /// Worker `id` of `workers` with this configuration.
    pub fn of(snapshot: Arc<Snapshot>, id: u16, workers: u16) -> Bench {
        Bench::with_room(snapshot, id, workers, 64)
    }

    /// The same, where so many packets may wait for the mirror.
    pub fn with_room(snapshot: Arc<Snapshot>, id: u16, workers: u16, hold_packets_max: usize) -> Bench {
        let counters = Arc::new(Counters::default());
        let now = Instant::from_millis(1000);
        let worker = Worker::new(WorkerSetup {
            id: WorkerId(id),
            workers,
            boot: BootId(u64::from(snapshot.checked.appliance.node.0)),
            snapshot,
            link_addresses: OWN_MACS.to_vec(),
            toeplitz: toeplitz(),
            balance_secret: [7; 16],
            hash_seed: 5,
            seed: 6,
            boot_parity: None,
            now,
            hold_packets_max,
            fragments_waiting_max: 256,
            counters: Arc::clone(&counters),
            variant: Variant::Sound,
        })
        .expect("memory");
        Bench { worker, io: MemoryIo::default(), counters, now }
    }

    /// Active under [`TERM`], with all neighbours known.
    pub fn active() -> Bench {
        Bench::new(1, 0, 1).lead()
    }

    /// The same bench, active under [`TERM`], with all neighbours known.
    pub fn lead(mut self) -> Bench {
        self.know_neighbours();
        self.command(Command::Role { epoch: 1, role: Role::Active, term: TERM });
        self
    }

    pub fn know_neighbours(&mut self) {
        for (port, address, link) in [
            (CLIENT_PORT, "10.1.0.50", CLIENT_MAC),
            (CLIENT_PORT, "fd01::50", CLIENT_MAC),
            (SERVER_PORT, "10.2.0.10", SERVER_MAC),
            (SERVER_PORT, "fd02::10", SERVER_MAC),
            (PortId(2), "10.9.0.1", [2, 0, 0, 0, 9, 1]),
            (PortId(2), "10.9.0.2", [2, 0, 0, 0, 9, 2]),
        ] {
            let hop = NextHop { port, address: address.parse().expect("an address") };
            self.command(Command::Neighbour { hop, link: Some(link) });
        }
    }

    pub fn command(&mut self, command: Command) {
        self.worker.handle_command(self.now, command, &mut self.io);
    }

    /// Gives the worker a frame that came in by `port`, and takes all that it sends.
    pub fn handle(&mut self, port: PortId, frame: &[u8]) -> Vec<Sent> {
        let mut burst = vec![frame_received(port, frame)];
        self.worker.handle_burst(self.now, &mut burst, &mut self.io);
        assert!(burst.is_empty());
        self.take_sent()
    }

    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.io.sent)
    }

    /// One more turn without packets, `millis` later.
    pub fn poll_after(&mut self, millis: u64) -> Vec<Sent> {
        self.now += baton::base::time::Duration::from_millis(millis);
        self.worker.poll(self.now, &mut self.io);
        self.take_sent()
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.worker.poll_event()).collect()
    }

    /// How often something was counted.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.value(counter)
    }

    /// What `Command::Status` says.
    pub fn status(&mut self) -> baton::worker::message::WorkerStatus {
        self.command(Command::Status);
        let status = self.events().into_iter().find_map(|event| match event {
            Event::Status(status) => Some(*status),
            _ => None,
        });
        status.expect("an answer")
    }
}

/// A frame as it came in by a port.
pub fn frame_received(port: PortId, frame: &[u8]) -> PlainBuffer {
    PlainBuffer::from_bytes(frame).received(RxMeta { port, ..RxMeta::default() })
}

/// What a test says of a TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub from_mac: [u8; 6],
    pub to_mac: [u8; 6],
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    /// TCP flags; `None`: UDP.
    pub flags: Option<u8>,
    pub hops: u8,
    pub payload: Vec<u8>,
}

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const SYN_ACK: u8 = 0x12;
pub const RST: u8 = 0x04;
pub const FIN_ACK: u8 = 0x11;

/// A packet of the client at 10.1.0.50 or fd01::50 to a virtual server.
pub fn from_client(port: u16, to: &str, to_port: u16, flags: Option<u8>) -> Packet {
    let to: IpAddr = to.parse().expect("an address");
    let (from, to_mac) = match to {
        IpAddr::V4(_) => ("10.1.0.50", VIRTUAL_MAC),
        IpAddr::V6(_) => ("fd01::50", VIRTUAL_MAC_V6),
    };
    let from = (from.parse().expect("an address"), port);
    let to = (to, to_port);
    Packet { from_mac: CLIENT_MAC, to_mac, from, to, flags, hops: 64, payload: b"hello".to_vec() }
}

impl Packet {
    /// The server's answer to this packet, as it left the worker.
    pub fn answer(&self, flags: Option<u8>) -> Packet {
        Packet {
            from_mac: self.to_mac,
            to_mac: self.from_mac,
            from: self.to,
            to: self.from,
            flags,
            hops: 64,
            payload: b"welcome".to_vec(),
        }
    }

    /// The frame, with right checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let (protocol, l4) = match self.flags {
            Some(flags) => {
                let mut l4 = vec![0; tcp::HEADER_LEN];
                l4[12] = 5 << 4;
                l4[13] = flags;
                l4[14..16].copy_from_slice(&0x2000u16.to_be_bytes());
                (IpProtocol::TCP, l4)
            }
            None => (IpProtocol::UDP, vec![0; 8]),
        };
        let mut l4 = [l4, self.payload.clone()].concat();
        l4[0..2].copy_from_slice(&self.from.1.to_be_bytes());
        l4[2..4].copy_from_slice(&self.to.1.to_be_bytes());
        let len = l4.len() as u16;
        if protocol == IpProtocol::UDP {
            l4[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let at = if protocol == IpProtocol::UDP { 6 } else { 16 };
        let (ethertype, ip, sum) = match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, self.hops, protocol.0, 0, 0];
                ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
                let ip = [&ip[..], &from.octets(), &to.octets()].concat();
                let mut packet = ipv4::Packet::new_unchecked(ip);
                packet.fill_checksum();
                let sum = Sum::ZERO.pseudo_v4(from, to, protocol, len);
                (0x0800u16, packet.into_inner(), sum)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let head = [0x60, 0, 0, 0, (len >> 8) as u8, len as u8, protocol.0, self.hops];
                let ip = [&head[..], &from.octets(), &to.octets()].concat();
                (0x86dd, ip, Sum::ZERO.pseudo_v6(from, to, protocol, u32::from(len)))
            }
            _ => panic!("one family"),
        };
        let checksum = sum.bytes(&l4).checksum_udp();
        l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        [&self.to_mac[..], &self.from_mac[..], &ethertype.to_be_bytes()[..], &ip[..], &l4[..]].concat()
    }

    /// Reads a frame; both checksums must be right.
    pub fn read(frame: &[u8]) -> Packet {
        let parsed = parse(frame).expect("a well-formed packet");
        let (from, to) = parsed.addresses(frame).expect("an IP packet");
        let (from_port, to_port) = parsed.ports(frame).expect("ports");
        let l4 = &frame[usize::from(parsed.l4_offset)..parsed.end()];
        let (sum, hops) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = ipv4::Packet::new_unchecked(&frame[parsed.l3_offset()..]);
                assert!(ip.checksum_is_valid(), "IPv4 header checksum");
                (Sum::ZERO.pseudo_v4(from, to, parsed.protocol, parsed.l4_len), ip.ttl())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let sum = Sum::ZERO.pseudo_v6(from, to, parsed.protocol, u32::from(parsed.l4_len));
                (sum, frame[parsed.l3_offset() + 7])
            }
            _ => panic!("one family"),
        };
        assert!(sum.bytes(l4).is_valid(), "transport checksum");
        let is_tcp = parsed.protocol == IpProtocol::TCP;
        Packet {
            to_mac: frame[..6].try_into().expect("6 bytes"),
            from_mac: frame[6..12].try_into().expect("6 bytes"),
            from: (from, from_port),
            to: (to, to_port),
            flags: is_tcp.then(|| l4[tcp::FLAGS]),
            hops,
            payload: frame[parsed.payload_offset()..parsed.end()].to_vec(),
        }
    }
}

/// The one packet that was sent, by this port.
pub fn only(sent: &[Sent], port: PortId, class: TxClass) -> Packet {
    let [one] = sent else { panic!("one packet, not {}", sent.len()) };
    assert_eq!((one.port, one.class), (port, class));
    Packet::read(&one.bytes)
}
