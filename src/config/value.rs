//! The kinds of values in the file: what each accepts, and the sentence for
//! what it does not.

use core::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use crate::base::limits::PAYLOAD_LOOKED_AT;
use crate::base::time::Duration;
use crate::config::checked::policy::Ports;
use crate::config::checked::{
    Balance, Checkpoints, Cidr, Commit, HealthCheck, Idle, Lagging, LcoreRole, Method, Partition, Protocol,
    Sealing, VrrpChecksum, VrrpUse,
};
use crate::config::read::{Change, FromFile, Source, changed};
use crate::config::report::{Place, Report};

/// A whole number from `MIN` to `MAX`. Its unit is the end of its key's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Int<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Int<MIN, MAX> {
    /// As it is.
    pub fn u32(self) -> u32 {
        self.0
    }

    /// For a `MAX` that fits.
    pub fn u16(self) -> u16 {
        const { assert!(MAX <= u16::MAX as u32) };
        self.0 as u16
    }

    /// For a `MAX` that fits.
    pub fn u8(self) -> u8 {
        const { assert!(MAX <= u8::MAX as u32) };
        self.0 as u8
    }

    /// Of a key in milliseconds.
    pub fn millis(self) -> Duration {
        Duration::from_millis(self.0.into())
    }

    /// Of a key in seconds.
    pub fn secs(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl<const MIN: u32, const MAX: u32> FromFile for Int<MIN, MAX> {
    fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>) {
        changed(now, before, out);
    }

    fn from_file(place: &Place, value: &DeValue<'_>, _: &Source<'_>, report: &mut Report) -> Option<Self> {
        let number = match value {
            DeValue::Integer(integer) => u32::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| (MIN..=MAX).contains(number));
        if number.is_none() {
            let unit = match place.path.rsplit('_').next() {
                Some("ms") => " milliseconds",
                Some("s") => " seconds",
                Some("mb") => " MiB",
                _ if place.path.ends_with("mtu") => " bytes",
                _ => "",
            };
            report.refuse(place, format!("a whole number from {MIN} to {MAX}{unit}"));
        }
        number.map(Int)
    }
}

impl FromFile for bool {
    fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>) {
        changed(now, before, out);
    }

    fn from_file(place: &Place, value: &DeValue<'_>, _: &Source<'_>, report: &mut Report) -> Option<Self> {
        let truth = value.as_bool();
        if truth.is_none() {
            report.refuse(place, "true or false");
        }
        truth
    }
}

/// Reads a string with `parse`, or reports that `expected` was expected.
fn text<T>(
    place: &Place,
    value: &DeValue<'_>,
    report: &mut Report,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let parsed = value.as_str().and_then(parse);
    if parsed.is_none() {
        report.refuse(place, expected);
    }
    parsed
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident($type:ty), $expected:literal, $parse:expr;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub(crate) struct $name(pub $type);

            impl FromFile for $name {
            fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>) {
                changed(now, before, out);
            }

                fn from_file(
                    place: &Place,
                    value: &DeValue<'_>,
                    _: &Source<'_>,
                    report: &mut Report,
                ) -> Option<Self> {
                    let parse: fn(&str) -> Option<$type> = $parse;
                    text(place, value, report, $expected, parse).map($name)
                }
            }
        )+
    };
}

texts! {
    /// A name that people, references and metrics use.
    Name(String), "a name of 1 to 63 letters, digits, '-', '_' and '.' in quotes", |text| {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        ((1..=63).contains(&text.len()) && text.bytes().all(known)).then(|| text.to_owned())
    };
    /// A path of the file system.
    FilePath(String), "a path in quotes, not empty", |text| {
        (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
    };
    /// A node's public key.
    PublicKey([u8; 32]), "64 hexadecimal digits in quotes, as `baton keys public` prints them", |text| {
        from_hex(text)?.try_into().ok()
    };
    /// An argument of the EAL, or of a command.
    Argument(String), "an argument in quotes, not empty", |text| {
        (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
    };
    /// A device that DPDK can drive.
    Device(String),
        "a PCI address such as \"0000:3b:00.0\", or a DPDK virtual device such as \"net_af_packet0,iface=eth1\"",
        |text| (is_pci(text) || is_vdev(text)).then(|| text.to_owned());
    /// The address of one host.
    Address(IpAddr), "the address of one host in quotes, such as \"10.1.0.1\" or \"fd01::1\"",
        |text| text.parse().ok().filter(|ip| is_host(*ip));
    /// An address with its network's prefix.
    HostCidr(Cidr),
        "the address of one host with its network's prefix length, such as \"10.1.0.2/24\" or \"fd01::2/64\"",
        |text| parse_cidr(text).filter(|cidr| is_host(cidr.address) && is_host_in(cidr));
    /// A network.
    Network(Cidr),
        "a network whose host bits are zero, such as \"10.3.0.0/16\", \"0.0.0.0/0\" or \"fd03::/48\"",
        |text| parse_cidr(text).filter(|cidr| cidr.network() == cidr.address);
    /// The address of one host, and a port.
    Endpoint(SocketAddr),
        "an address and a port from 1 to 65535 in quotes, such as \"10.1.0.100:80\" or \"[fd01::100]:80\"",
        |text| text.parse().ok().filter(|at: &SocketAddr| at.port() != 0 && is_host(at.ip()));
    /// The address of one host, with or without a port.
    Destination((IpAddr, Option<u16>)),
        "an address in quotes, with or without a port from 1 to 65535, such as \"10.1.0.100:80\" or \"fd01::100\"",
        |text| match text.parse() {
            Ok(address) => Some((address, None)).filter(|_| is_host(address)),
            Err(_) => {
                let at: SocketAddr = text.parse().ok()?;
                (at.port() != 0 && is_host(at.ip())).then(|| (at.ip(), Some(at.port())))
            }
        };
    /// A port, or a range of them.
    PortRange(Ports), "a port from 1 to 65535, or a range of them, in quotes, such as \"53\" or \"1024-2047\"",
        |text| {
            let port = |text: &str| -> Option<u16> {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                text.parse().ok().filter(|port| digits && *port != 0)
            };
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(Ports { first: port(first)?, last: port(last)? }).filter(|ports| ports.first <= ports.last)
        };
    /// Bytes of a payload, as many as are looked at.
    Payload(Vec<u8>),
        "1 to 64 bytes in quotes: a text such as \"GET /\", or \"hex:\" and pairs of hexadecimal digits, such as \"hex:1603\"",
        |text| {
            let bytes = match text.strip_prefix("hex:") {
                Some(hex) => from_hex(hex)?,
                None => text.as_bytes().to_vec(),
            };
            (1..=PAYLOAD_LOOKED_AT).contains(&bytes.len()).then_some(bytes)
        };
    /// Where a socket listens.
    ListenAddress(SocketAddr), "an address and a port in quotes, such as \"127.0.0.1:9101\"",
        |text| text.parse().ok().filter(|at: &SocketAddr| at.port() != 0);
}

const _: () = assert!(PAYLOAD_LOOKED_AT == 64, "what is said of `Payload` says so");

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// Whether it can be the address of one host beyond this machine.
fn is_host(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    match address {
        IpAddr::V4(v4) => !special && !v4.is_broadcast() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => !special && v6.to_ipv4_mapped().is_none(),
    }
}

/// Whether it is neither the network's own nor its broadcast address. Networks
/// of two addresses have neither (RFC 3021, RFC 6164).
fn is_host_in(cidr: &Cidr) -> bool {
    match cidr.address {
        IpAddr::V4(v4) if cidr.prefix_len < 31 => {
            let host_bits = u32::MAX.checked_shr(cidr.prefix_len.into()).unwrap_or(0);
            let host = u32::from(v4) & host_bits;
            host != 0 && host != host_bits
        }
        IpAddr::V6(_) if cidr.prefix_len < 127 => cidr.network() != cidr.address,
        IpAddr::V4(_) | IpAddr::V6(_) => true,
    }
}

fn parse_cidr(text: &str) -> Option<Cidr> {
    let (address, prefix_len) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    // `parse` takes "+24" too.
    let prefix_len: u8 =
        prefix_len.bytes().all(|b| b.is_ascii_digit()).then(|| prefix_len.parse().ok())??;
    (prefix_len <= if address.is_ipv4() { 32 } else { 128 }).then_some(Cidr { address, prefix_len })
}

/// `[domain:]bus:device.function`, in hexadecimal.
fn is_pci(text: &str) -> bool {
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split(',').next().unwrap_or("").split(':').collect();
    let (domain, bus, rest) = match parts[..] {
        [bus, rest] => ("0000", bus, rest),
        [domain, bus, rest] => (domain, bus, rest),
        _ => return false,
    };
    let Some((device, function)) = rest.split_once('.') else { return false };
    hex(domain, 4) && hex(bus, 2) && hex(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

/// `net_<driver><instance>[,key=value]...`, or one of the names from before that rule.
fn is_vdev(text: &str) -> bool {
    let name = text.split(',').next().unwrap_or("");
    let driver = name.strip_prefix("net_").or_else(|| name.strip_prefix("virtio_"));
    driver.is_some_and(|driver| {
        !driver.is_empty() && driver.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }) && !text.contains(char::is_whitespace)
}

/// Methods that tell managers on other machines apart (REQ D2).
const METHODS_OF_OTHER_MACHINES: [&str; 3] = ["round-trip-time", "hops", "global-availability"];

impl FromFile for Method {
    fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>) {
        changed(now, before, out);
    }

    fn from_file(place: &Place, value: &DeValue<'_>, _: &Source<'_>, report: &mut Report) -> Option<Self> {
        let text = value.as_str().unwrap_or("");
        let method = Method::ALL.into_iter().find(|method| method.text() == text);
        if method.is_none() {
            let known = Method::ALL.map(|method| format!("\"{}\"", method.text())).join(" or ");
            let why = if METHODS_OF_OTHER_MACHINES.contains(&text) {
                format!(": \"{text}\" needs managers on other machines, which is not built yet")
            } else {
                String::new()
            };
            report.refuse(place, known + &why);
        }
        method
    }
}

/// What is forwarded how, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardingKind {
    Nat,
    FullNat,
}

/// What is mirrored, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MirrorKind {
    Off,
    Checkpoint,
}

macro_rules! choices {
    ($($type:ty { $($text:literal => $choice:expr,)+ } not_built_yet [$($later:literal),*];)+) => {
        $(
            impl FromFile for $type {
            fn changes(now: (&Place, &Self), before: (&Place, &Self), out: &mut Vec<Change>) {
                changed(now, before, out);
            }

                fn from_file(
                    place: &Place,
                    value: &DeValue<'_>,
                    _: &Source<'_>,
                    report: &mut Report,
                ) -> Option<Self> {
                    let known = [$(concat!("\"", $text, "\"")),+].join(" or ");
                    let later: &[&str] = &[$($later),*];
                    match value.as_str() {
                        $(Some($text) => return Some($choice),)+
                        Some(text) if later.contains(&text) => {
                            report.refuse(place, format!("{known}: \"{text}\" is not built yet"));
                        }
                        Some(_) | None => report.refuse(place, known),
                    }
                    None
                }
            }
        )+
    };
}

choices! {
    Idle { "poll" => Idle::Poll, "sleep" => Idle::Sleep, } not_built_yet [];
    LcoreRole {
        "distributor" => LcoreRole::Distributor,
        "traffic-manager" => LcoreRole::TrafficManager,
        "mirror" => LcoreRole::Mirror,
    } not_built_yet [];
    Balance { "round-robin" => Balance::RoundRobin, "maglev" => Balance::Maglev, } not_built_yet [];
    HealthCheck { "tcp" => HealthCheck::Tcp, } not_built_yet [];
    Protocol { "tcp" => Protocol::Tcp, "udp" => Protocol::Udp, } not_built_yet [];
    ForwardingKind {
        "nat" => ForwardingKind::Nat,
        "full-nat" => ForwardingKind::FullNat,
    } not_built_yet ["dsr", "ipip", "gue"];
    MirrorKind {
        "off" => MirrorKind::Off,
        "checkpoint" => MirrorKind::Checkpoint,
    } not_built_yet ["content", "standby-response", "standby-first"];
    Commit { "hold" => Commit::Hold, "async" => Commit::Async, } not_built_yet [];
    Partition {
        "availability" => Partition::Availability,
        "safety" => Partition::Safety,
    } not_built_yet [];
    Lagging {
        "remove" => Lagging::Remove,
        "wait" => Lagging::Wait,
    } not_built_yet [];
    Checkpoints {
        "acknowledged" => Checkpoints::Acknowledged,
        "periodic" => Checkpoints::Periodic,
    } not_built_yet [];
    Sealing {
        "receive-only" => Sealing::ReceiveOnly,
        "permissive" => Sealing::Permissive,
        "enforce" => Sealing::Enforce,
    } not_built_yet [];
    VrrpUse {
        "output" => VrrpUse::Output,
        "yield" => VrrpUse::Yield,
    } not_built_yet [];
    VrrpChecksum {
        "pseudo-header" => VrrpChecksum::PseudoHeader,
        "message" => VrrpChecksum::Message,
    } not_built_yet [];
}
