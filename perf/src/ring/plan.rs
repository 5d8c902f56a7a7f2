//! What is measured on ring devices: an appliance and its flows, and one kind of traffic.

use clap::{Args, ValueEnum};

use crate::traffic::{Spread, sizes::Size};

/// How a virtual server forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Forwarding {
    /// The destination is translated.
    Nat,
    /// Both ends are.
    FullNat,
}

impl Forwarding {
    /// As in the configuration and in names of cases.
    pub const fn name(self) -> &'static str {
        match self {
            Forwarding::Nat => "nat",
            Forwarding::FullNat => "full-nat",
        }
    }
}

/// What flows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// TCP connections, established.
    Tcp,
    /// UDP.
    Udp,
    /// Half of each.
    Mix,
}

/// What is mirrored, to a peer that applies and acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mirroring {
    /// The appliance is alone.
    Off,
    /// First packets do not wait.
    Async,
    /// First packets wait for the acknowledgement.
    Hold,
}

impl Mirroring {
    /// As in names of cases.
    pub const fn name(self) -> &'static str {
        match self {
            Mirroring::Off => "off",
            Mirroring::Async => "async",
            Mirroring::Hold => "hold",
        }
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Directions {
    /// As many each way.
    Both,
    /// From clients to servers only.
    Forth,
    /// From servers to clients only.
    Back,
}

/// An appliance and its settled flows.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// How the virtual servers forward.
    #[arg(long, value_enum, default_value = "full-nat")]
    pub forwarding: Forwarding,
    /// What flows are.
    #[arg(long, value_enum, default_value = "mix")]
    pub protocol: Protocol,
    /// Settled flows.
    #[arg(long, default_value_t = 1000)]
    pub flows: u32,
    /// The configuration's `flows.max`; default: a million, or what is needed.
    #[arg(long)]
    pub capacity: Option<u32>,
    /// What is mirrored.
    #[arg(long = "mirror", value_enum, default_value = "async")]
    pub mirroring: Mirroring,
    /// Packets in flight in each direction, at most what a ring device holds.
    #[arg(long, default_value_t = 512)]
    pub in_flight: usize,
    /// Turns of the loop at each round's begin that are not timed: they bring the loop's own
    /// code and data back, which the generator has driven out of the caches.
    #[arg(long, default_value_t = 2)]
    pub warm: usize,
    /// Rounds of a sample.
    #[arg(long, default_value_t = 200)]
    pub rounds: usize,
    /// The CPU to run on.
    #[arg(long, default_value_t = 1)]
    pub cpu: usize,
    /// Whether a distributor stands beside the worker, for `hop`.
    #[arg(skip)]
    pub distributor: bool,
    /// The first of the three ring devices that it has, where several appliances are in one process.
    #[arg(skip)]
    pub rings: usize,
    /// The configuration's `mirror.walk_rate`; `None`: its default.
    #[arg(skip)]
    pub walk_rate: Option<u32>,
}

impl Plan {
    /// Full NAT of TCP and UDP, mirrored without waiting.
    pub const fn plain(flows: u32) -> Plan {
        Plan {
            forwarding: Forwarding::FullNat,
            protocol: Protocol::Mix,
            flows,
            capacity: None,
            mirroring: Mirroring::Async,
            in_flight: 512,
            warm: 2,
            rounds: 200,
            cpu: 1,
            distributor: false,
            rings: 0,
            walk_rate: None,
        }
    }
}

/// One kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Which way.
    pub directions: Directions,
    /// Over settled flows.
    pub spread: Spread,
    /// How much of all packets begins a flow, 0.0 to 1.0.
    pub new: f64,
    /// How long.
    pub size: Size,
}

impl Traffic {
    /// Settled flows, both ways, uniform, 64 bytes.
    pub const PLAIN: Traffic =
        Traffic { directions: Directions::Both, spread: Spread::Uniform, new: 0.0, size: Size::Smallest };

    /// With this part of new flows.
    pub const fn with_new(self, new: f64) -> Traffic {
        Traffic { new, ..self }
    }

    /// In the words of a metric.
    pub fn words(&self) -> String {
        let way = match self.directions {
            Directions::Both => "both ways",
            Directions::Forth => "to servers",
            Directions::Back => "to clients",
        };
        let spread = match self.spread {
            Spread::Uniform => "uniform",
            Spread::Zipf => "Zipf",
        };
        format!("{way}, {spread}, {} new, {}", percent(self.new), self.size.name())
    }
}

/// A part as percent.
pub fn percent(part: f64) -> String {
    format!("{} %", (part * 1000.0).round() / 10.0)
}
