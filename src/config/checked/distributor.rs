//! `[distributor]`, and how the traffic manager of a new connection key is chosen (REQ D2).

use core::net::IpAddr;

use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
use crate::config::checked::Protocol;

/// `[distributor]`
#[derive(Clone, Debug)]
pub struct Distributor {
    /// How the traffic manager of a new connection key is chosen where a virtual server does not say.
    pub select: Method,
    /// The weight of each traffic manager, indexed by `WorkerId`; all 1 when not given. Not all are 0.
    pub ratio: Vec<u32>,
    /// Which traffic managers serve which DSCP values. No value is in two of them.
    pub classes: Vec<Class>,
    /// What goes to a traffic manager that is named (REQ D10). No destination is in it twice with one protocol.
    pub keys: Vec<NamedKey>,
    /// Whether there is a connection store: some virtual server's method is not [`HashMethod::Source`], there are `keys`, or
    /// `max_keys` is given.
    pub remembers: bool,
    /// Places of the connection store of each lcore; at the limit further keys are refused and counted.
    pub max_keys: u32,
    /// Whether packets for real servers' own addresses are routed past the traffic managers (REQ D10).
    pub route_to_servers: bool,
}

/// How the traffic manager of a new connection key is chosen (REQ D2).
///
/// Round-trip time, hops and global availability tell managers on other machines apart, which there are not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By a hash of the key: every distributor comes to the same answer for a client's packets. With
    /// [`HashMethod::Source`] also for a server's; with the others these are remembered, unless sources are translated.
    Hash(HashMethod),
    /// By what is known at that moment: the answer has to be remembered in the connection store.
    Chosen(ChosenMethod),
}

/// Which fields of a key are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashMethod {
    /// Source address and port: as evenly as can be.
    Source,
    /// The source address: all connections of a client come to one manager.
    SourceAddress,
    /// Destination address and port: a virtual server has one manager.
    Destination,
    /// Addresses and ports of both ends.
    Key,
}

/// What a choice looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenMethod {
    /// Each manager in turn.
    RoundRobin,
    /// Each in turn, as often as its configured weight says.
    StaticRatio,
    /// Each in turn, as often as the time says that it is idle.
    DynamicRatio,
    /// The manager with the fewest connections.
    LeastConnections,
    /// The manager with the fewest packets per second.
    PacketRate,
    /// The manager that forwards the greatest part of the packets that it receives.
    CompletionRate,
    /// The manager with the fewest connections among those of the packet's quality-of-service class.
    QualityOfService,
    /// The manager with the fewest connections among those in the zone of the packet's port.
    Topology,
}

impl Method {
    /// Every method, in the order of the documentation.
    pub const ALL: [Method; 12] = [
        Method::Hash(HashMethod::Source),
        Method::Hash(HashMethod::SourceAddress),
        Method::Hash(HashMethod::Destination),
        Method::Hash(HashMethod::Key),
        Method::Chosen(ChosenMethod::RoundRobin),
        Method::Chosen(ChosenMethod::StaticRatio),
        Method::Chosen(ChosenMethod::DynamicRatio),
        Method::Chosen(ChosenMethod::LeastConnections),
        Method::Chosen(ChosenMethod::PacketRate),
        Method::Chosen(ChosenMethod::CompletionRate),
        Method::Chosen(ChosenMethod::QualityOfService),
        Method::Chosen(ChosenMethod::Topology),
    ];

    /// Whether the answer follows from the key of a client's packets; otherwise it is remembered in the connection store.
    pub const fn is_hash(self) -> bool {
        match self {
            Method::Hash(_) => true,
            Method::Chosen(_) => false,
        }
    }

    /// What is hashed of a key, to find its home where its traffic manager is chosen.
    pub const fn hash(self) -> HashMethod {
        match self {
            Method::Hash(hash) => hash,
            Method::Chosen(_) => HashMethod::Source,
        }
    }

    /// As the configuration has it.
    pub const fn text(self) -> &'static str {
        match self {
            Method::Hash(HashMethod::Source) => "source",
            Method::Hash(HashMethod::SourceAddress) => "source-address",
            Method::Hash(HashMethod::Destination) => "destination",
            Method::Hash(HashMethod::Key) => "key",
            Method::Chosen(ChosenMethod::RoundRobin) => "round-robin",
            Method::Chosen(ChosenMethod::StaticRatio) => "static-ratio",
            Method::Chosen(ChosenMethod::DynamicRatio) => "dynamic-ratio",
            Method::Chosen(ChosenMethod::LeastConnections) => "least-connections",
            Method::Chosen(ChosenMethod::PacketRate) => "packet-rate",
            Method::Chosen(ChosenMethod::CompletionRate) => "completion-rate",
            Method::Chosen(ChosenMethod::QualityOfService) => "quality-of-service",
            Method::Chosen(ChosenMethod::Topology) => "topology",
        }
    }
}

/// What goes to a traffic manager that is named, however others are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// A virtual server's address.
    pub address: IpAddr,
    /// Its port; `None`: all of them.
    pub port: Option<u16>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The traffic manager.
    pub manager: WorkerId,
}

/// A quality-of-service class: the DSCP values (RFC 2474 section 3) of some packets, and who serves them.
#[derive(Clone, Debug)]
pub struct Class {
    /// At least one, each at most 63.
    pub dscp: Vec<u8>,
    /// At least one.
    pub managers: Managers,
}

/// A set of traffic managers of this appliance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Managers(u16);

const _: () = assert!(WORKERS_MAX <= u16::BITS as usize);

impl Managers {
    /// Nobody.
    pub const NONE: Managers = Managers(0);

    /// The first `count`, of at most [`WORKERS_MAX`].
    pub const fn first(count: u16) -> Managers {
        Managers(((1_u32 << count) - 1) as u16)
    }

    /// With this one too.
    #[must_use]
    pub const fn with(self, manager: WorkerId) -> Managers {
        Managers(self.0 | 1 << manager.0)
    }

    /// Whether this one is in it.
    pub const fn has(self, manager: WorkerId) -> bool {
        self.0 >> manager.0 & 1 != 0
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Managers) -> Managers {
        Managers(self.0 & other.0)
    }

    /// Itself, unless it is empty.
    pub const fn unless_empty(self) -> Option<Managers> {
        if self.0 == 0 { None } else { Some(self) }
    }
}

impl FromIterator<WorkerId> for Managers {
    fn from_iter<T: IntoIterator<Item = WorkerId>>(managers: T) -> Managers {
        managers.into_iter().fold(Managers::NONE, Managers::with)
    }
}
