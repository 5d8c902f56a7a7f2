//! The generator's side of a run: DPDK started on one CPU, pairs of ports for what is measured.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton::driver::eal::is_pci;
use baton::wire::MacAddress;
use dpdk::clock::tsc_hz;
use dpdk::mbuf::HEADROOM;
use dpdk::{Eal, Mempool, Port, mempool, port};

use crate::link::child::{Child, Folder, Site};
use crate::link::engine::{End, Engine};
use crate::link::plan;

/// The generator's CPU.
pub const GENERATOR_CPU: u32 = 0;
/// The CPU of what is measured.
pub const MEASURED_CPU: u32 = 1;

/// How long a link may take to come up.
pub const LINK_LIMIT: Duration = Duration::from_secs(20);

/// Ports of the generator, and where what is measured connects.
#[derive(Debug)]
pub struct Pair {
    /// Generator and sink.
    pub engine: Engine,
    ports: [Port; 2],
    /// The devices of the other side.
    pub devices: [String; 2],
    /// Where the other side runs.
    pub site: Site,
}

/// DPDK, and the pairs of ports that are not taken yet. Drop it last.
#[derive(Debug)]
pub struct Rig {
    pairs: Vec<Pair>,
    /// Ticks of the time-stamp counter in a second.
    pub hz: u64,
    _folder: Folder,
    _pool: Mempool,
    _eal: Eal,
}

/// How many packets a memif ring holds, as a power of two.
const RING_BITS: u32 = 10;

impl Rig {
    /// Starts DPDK with pairs of memif ports of which this side is the server: it copies, and the
    /// other side's buffers are used as they are. Reference and appliance have the same.
    pub fn memif(pairs: usize) -> Result<Rig> {
        let folder = Folder::new()?;
        let socket = |number: usize| folder.path().join(format!("{number}.sock"));
        let device = |number: usize| {
            format!(
                "net_memif{number},role=server,id=0,socket={},socket-abstract=no,rsize={RING_BITS},bsize=2048",
                socket(number).display()
            )
        };
        let other = |number: usize| other_side(number % 2, &socket(number));
        let pairs: Vec<[usize; 2]> = (0..pairs).map(|pair| [2 * pair, 2 * pair + 1]).collect();
        let devices: Vec<[String; 2]> = pairs.iter().map(|pair| pair.map(device)).collect();
        let others: Vec<[String; 2]> = pairs.iter().map(|pair| pair.map(other)).collect();
        Rig::start(GENERATOR_CPU, folder, &devices, &others, &[])
    }

    /// Starts DPDK on a CPU with these pairs of devices, `others` being those of the other side, whose
    /// programs are started by `before`.
    pub fn start(
        cpu: u32,
        folder: Folder,
        devices: &[[String; 2]],
        others: &[[String; 2]],
        before: &[String],
    ) -> Result<Rig> {
        let mut arguments: Vec<String> = [
            "baton-perf",
            "--in-memory",
            "--single-file-segments",
            "--no-telemetry",
            "-m",
            "128",
            "--file-prefix=baton-perf",
        ]
        .map(String::from)
        .to_vec();
        arguments.push(format!("--lcores=0@{cpu}"));
        // Devices of the machine that are not named are left alone.
        if !devices.iter().flatten().any(|device| is_pci(device)) {
            arguments.push("--no-pci".to_owned());
        }
        for device in devices.iter().flatten() {
            let option = if is_pci(device) { "--allow" } else { "--vdev" };
            arguments.push(format!("{option}={device}"));
        }
        let eal = Eal::init(arguments)?;
        let data_room = 2048 + HEADROOM as u16;
        let config = mempool::Config { buffers: 16_383, cache: 512, data_room, socket: None };
        let pool = Mempool::new(&eal, "generator", &config)?;
        let mut pairs = Vec::new();
        for (number, (own, other)) in devices.iter().zip(others).enumerate() {
            let site = Site { folder: folder.path().join(number.to_string()), before: before.to_vec() };
            fs::create_dir_all(&site.folder)?;
            let (clients, clients_port) = open(&eal, &own[0], &pool, plan::is_client_side)?;
            let (servers, servers_port) = open(&eal, &own[1], &pool, plan::is_server_side)?;
            pairs.push(Pair {
                engine: Engine::new(clients, servers, pool.clone()),
                ports: [clients_port, servers_port],
                devices: other.clone(),
                site,
            });
        }
        pairs.reverse();
        Ok(Rig { pairs, hz: tsc_hz(&eal), _folder: folder, _pool: pool, _eal: eal })
    }

    /// The next pair.
    pub fn pair(&mut self) -> Result<Pair> {
        self.pairs.pop().context("no pair of ports is left")
    }
}

/// The other side of a memif port: `number` of its process, on this socket.
fn other_side(number: usize, socket: &Path) -> String {
    format!(
        "net_memif{number},role=client,id=0,socket={},socket-abstract=no,rsize={RING_BITS},bsize=2048,zero-copy=yes",
        socket.display()
    )
}

fn open(eal: &Eal, device: &str, pool: &Mempool, ours: fn(core::net::IpAddr) -> bool) -> Result<(End, Port)> {
    let mut port = Port::open(eal, device)?;
    port.configure(&port::Config::default(), pool)?;
    let mac = MacAddress(port.mac()?);
    let mut queues = port.start()?;
    let (Some(rx), Some(tx)) = (queues.rx.pop(), queues.tx.pop()) else { bail!("{device} has no queues") };
    Ok((End { rx, tx, mac, ours }, port))
}

impl Pair {
    /// Whether both links are up.
    pub fn is_up(&self) -> Result<bool> {
        Ok(self.ports[0].link()?.up && self.ports[1].link()?.up)
    }

    /// Waits until both links are up.
    pub fn wait_link(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while !self.is_up()? {
            ensure!(begin.elapsed() < limit, "the links do not come up");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until no link is up.
    pub fn wait_down(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.ports[0].link()?.up || self.ports[1].link()?.up {
            ensure!(begin.elapsed() < limit, "the links stay up");
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Waits until both links are up; the other side must live meanwhile.
    pub fn wait_up(&self, child: &mut Child, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            child.must_live()?;
            if self.is_up()? {
                return Ok(());
            }
            ensure!(begin.elapsed() < limit, "the links do not come up:\n{}", child.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
