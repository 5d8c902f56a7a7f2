//! Packets larger than a link carries: real hosts take them to pieces and put them together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use netns_harness::command::inside;
use netns_harness::config::{AF_XDP, ECHO_PORT, Lcores, Settings};
use netns_harness::plan::{self, Family, Side, Translation, virtual_address};
use netns_harness::stage::{Stage, counter, virtual_servers};
use netns_harness::{Context, Result, World, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{on_stage, one_at_a_time};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for an echo of so much data from a namespace, as `ping -s` does; the data that came back.
pub fn ping(world: &World, short: &str, to: IpAddr, data: &[u8]) -> Result<Vec<u8>> {
    let (domain, protocol, kind, header_len) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 20),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 0),
    };
    let socket = inside(&world.namespace(short), || Ok(Socket::new(domain, Type::RAW, Some(protocol))?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut request = [&[kind, 0, 0, 0, 0xba, 0x70, 0, 1], data].concat();
    if to.is_ipv4() {
        // Of ICMPv6 the kernel writes it.
        let sum = request
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
        let sum: u32 = sum.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        request[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    socket.connect(&SocketAddr::new(to, 0).into())?;
    socket.send(&request).with_context(|| format!("cannot ask {to}"))?;
    // Others' messages may come first.
    for _ in 0..20 {
        let mut answer = vec![0; 1 << 16];
        let length =
            std::io::Read::read(&mut &socket, &mut answer).with_context(|| format!("no answer of {to}"))?;
        let message = answer.get(header_len..length).context("an answer without a header")?;
        if message.first() == Some(&if to.is_ipv4() { 0 } else { 129 }) && message[4..8] == request[4..8] {
            return Ok(message[8..].to_vec());
        }
    }
    netns_harness::bail!("{to} answers something else")
}

/// Sends a datagram to a virtual server; what the echo service behind it sends back.
pub fn echo(socket: &UdpSocket, data: &[u8]) -> Result<Vec<u8>> {
    socket.send(data)?;
    let mut answer = vec![0; 1 << 16];
    let length = socket.recv(&mut answer).context("no answer")?;
    answer.truncate(length);
    Ok(answer)
}

pub fn client_of(world: &World, server: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = inside(&world.namespace("client"), || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends a datagram in two fragments, the later one first.
fn send_backwards(world: &World, from: SocketAddr, to: (Ipv4Addr, u16), data: &[u8]) -> Result<()> {
    let IpAddr::V4(source) = from.ip() else { netns_harness::bail!("{from} is no IPv4 address") };
    let mut datagram = Vec::new();
    for field in [from.port(), to.1, 8 + data.len() as u16, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(data);
    let socket = inside(&world.namespace("client"), || {
        Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?)
    })?;
    for (at, end, more) in [(1400, datagram.len(), 0), (0, 1400, 0x2000)] {
        let length = (20 + end - at) as u16;
        let mut whole = vec![0x45, 0];
        for field in [length, 0xbeef, more | (at / 8) as u16] {
            whole.extend(field.to_be_bytes());
        }
        whole.extend([64, 17, 0, 0]);
        whole.extend(source.octets());
        whole.extend(to.0.octets());
        whole.extend(&datagram[at..end]);
        socket.send_to(&whole, &SocketAddr::from((to.0, 0)).into())?;
    }
    Ok(())
}

fn large_pings(stage: &Stage, active: usize) -> Result<()> {
    let own = [Side::A, Side::B].map(|side| (plan::client4(side.host()), plan::client6(side.host())));
    let mut targets: Vec<(&str, IpAddr)> = Vec::new();
    for (v4, v6) in own {
        targets.extend([("client", v4.into()), ("client", v6.into())]);
    }
    for family in [Family::V4, Family::V6] {
        targets.push(("client", virtual_address(Translation::Nat, family)));
    }
    targets.push(("s1", plan::server4(plan::GATEWAY_HOST).into()));
    targets.push(("s1", plan::server6(plan::GATEWAY_HOST).into()));
    for (from, to) in targets {
        for len in [56, 2000, 20_000, 60_000] {
            let data: Vec<u8> = (0..len).map(|at| (at / 3) as u8).collect();
            let back =
                ping(&stage.world, from, to, &data).with_context(|| format!("{len} bytes from {from}"))?;
            ensure!(back == data, "{to} sends something else back, of {len} bytes");
        }
    }
    stage.still_leads(active)
}

fn large_datagrams(stage: &Stage) -> Result<u64> {
    let mut datagrams = 0;
    for server in virtual_servers(ECHO_PORT) {
        let socket = client_of(&stage.world, server)?;
        for len in [8192, 8192, 3000, 40_000] {
            let data: Vec<u8> = (0..len).map(|at| (at / 5) as u8).collect();
            let back = echo(&socket, &data).with_context(|| format!("{len} bytes to {server}"))?;
            ensure!(back == data, "{server} sends something else back, of {len} bytes");
            datagrams += 2;
        }
    }
    for translation in [Translation::Nat, Translation::FullNat] {
        let IpAddr::V4(to) = virtual_address(translation, Family::V4) else { continue };
        let socket = client_of(&stage.world, (to, ECHO_PORT).into())?;
        let from = SocketAddr::new(plan::client4(plan::CLIENT_HOST).into(), socket.local_addr()?.port());
        let data = vec![0x77; 2500];
        send_backwards(&stage.world, from, (to, ECHO_PORT), &data)?;
        let mut answer = vec![0; 4096];
        let length = socket.recv(&mut answer).context("no answer to fragments that came backwards")?;
        ensure!(answer[..length] == data, "something else came back");
        datagrams += 2;
    }
    Ok(datagrams)
}

#[test]
fn large_pings_and_datagrams_of_real_hosts_pass_in_fragments() -> Result<()> {
    pass_in_fragments(&Settings { device: AF_XDP, ..Settings::default() })
}

#[test]
fn large_pings_and_datagrams_pass_in_fragments_where_roles_are_divided() -> Result<()> {
    pass_in_fragments(&Settings { device: AF_XDP, lcores: [Lcores::DIVIDED; 2], ..Settings::default() })
}

fn pass_in_fragments(settings: &Settings) -> Result<()> {
    let _one = one_at_a_time();
    on_stage(settings, |stage| {
        let active = stage.active()?;
        large_pings(stage, active)?;
        let datagrams = large_datagrams(stage)?;
        stage.still_leads(active)?;
        let counted = counter(&stage.pair[active].ask("counters")?, "fragmented_whole")?;
        ensure!(counted == datagrams, "{counted} datagrams in fragments, not {datagrams}");
        Ok(())
    })
}
