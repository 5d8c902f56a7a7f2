//! What captures prove: tshark reads them, with every checksum verified.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::capture::Captured;
use crate::command::run;
use crate::plan;

/// Preferences that make tshark verify what it does not verify of itself. Payload is not put together again:
/// the judgement is about headers and checksums, and captures are large.
const PREFERENCES: [&str; 12] = [
    "-o",
    "ip.check_checksum:TRUE",
    "-o",
    "tcp.check_checksum:TRUE",
    "-o",
    "udp.check_checksum:TRUE",
    "-o",
    "tcp.desegment_tcp_streams:FALSE",
    "-o",
    "tcp.analyze_sequence_numbers:FALSE",
    "-o",
    "ip.defragment:FALSE",
];

/// Frames with a bad checksum of any layer, and frames that tshark cannot dissect.
///
/// Linux writes a TCP checksum of 0 as 0xffff, which verifies as well; tshark verifies it and then calls it bad all
/// the same, by `tcp.checksum.ffff`.
const BROKEN: &str = "ip.checksum.status == 0 or (tcp.checksum.status == 0 and not tcp.checksum.ffff) \
                      or udp.checksum.status == 0 or icmp.checksum.status == 0 or icmpv6.checksum.status == 0 \
                      or vrrp.checksum.status == 0 \
                      or _ws.malformed";

/// Most frames that are told of one kind.
const TOLD_MAX: usize = 20;

/// Frames with bad checksums and malformed frames, one line each (at most 20 lines).
pub fn broken_frames(capture: &Captured) -> Result<Vec<String>> {
    matching(&capture.file, BROKEN)
}

/// TCP resets, one line each (at most 20 lines).
pub fn resets(capture: &Captured) -> Result<Vec<String>> {
    matching(&capture.file, "tcp.flags.reset == 1")
}

/// How many frames there are that match a display filter; all of them for an empty filter.
pub fn count(capture: &Captured, filter: &str) -> Result<usize> {
    Ok(tshark(&capture.file, filter, &["-T", "fields", "-e", "frame.number"])?.lines().count())
}

fn matching(file: &Path, filter: &str) -> Result<Vec<String>> {
    Ok(tshark(file, filter, &[])?.lines().take(TOLD_MAX).map(|line| line.trim().to_owned()).collect())
}

fn tshark(file: &Path, filter: &str, more: &[&str]) -> Result<String> {
    let shown = file.display().to_string();
    let mut args = vec!["-n", "-r", &shown];
    args.extend(PREFERENCES);
    if !filter.is_empty() {
        args.extend(["-Y", filter]);
    }
    args.extend(more);
    run("tshark", &args)
}

/// One frame that only the active appliance may send.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceFrame {
    /// When it passed the switch, in seconds; all captures of one machine share the clock.
    pub at: f64,
    /// Its source: MAC, then addresses.
    pub source: String,
}

/// The frames in a capture (of what an appliance sent) that come from a virtual, shared or source-NAT address,
/// from the virtual MAC, or, as translation leaves client addresses as they are, from a client's address. What an appliance
/// that handed over relays to its successor is none: it comes from the port's own MAC and still goes to the service, whose
/// addresses nothing that is translated goes to.
pub fn service_frames(sent: &Captured) -> Result<Vec<ServiceFrame>> {
    let mut addresses = plan::service_addresses();
    let to_service: Vec<String> = addresses.iter().map(|to| destination(*to)).collect();
    let virtual_macs = plan::virtual_macs();
    let relayed = format!(
        "eth.src != {} and eth.src != {} and ({})",
        virtual_macs[0],
        virtual_macs[1],
        to_service.join(" or ")
    );
    for host in plan::DNS_CLIENT_HOSTS.chain([plan::CLIENT_HOST]) {
        addresses.push(plan::client4(host).into());
        addresses.push(plan::client6(host).into());
    }
    let mut terms: Vec<String> = virtual_macs.iter().map(|mac| format!("eth.src == {mac}")).collect();
    for address in addresses {
        match address {
            IpAddr::V4(v4) => terms.push(format!("ip.src == {v4} or arp.src.proto_ipv4 == {v4}")),
            IpAddr::V6(v6) => terms.push(format!("ipv6.src == {v6}")),
        }
    }
    let fields = [
        "-T",
        "fields",
        "-e",
        "frame.time_epoch",
        "-e",
        "eth.src",
        "-e",
        "ip.src",
        "-e",
        "ipv6.src",
        "-e",
        "arp.src.proto_ipv4",
    ];
    let lines = tshark(&sent.file, &format!("({}) and not ({relayed})", terms.join(" or ")), &fields)?;
    lines
        .lines()
        .map(|line| {
            let (at, source) = line.split_once('\t').with_context(|| format!("tshark printed {line:?}"))?;
            let source = source.split('\t').filter(|field| !field.is_empty()).collect::<Vec<_>>().join(" ");
            let at = at.parse().with_context(|| format!("tshark printed the time {at:?}"))?;
            Ok(ServiceFrame { at, source })
        })
        .collect()
}

fn destination(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("ip.dst == {v4}"),
        IpAddr::V6(v6) => format!("ipv6.dst == {v6}"),
    }
}

/// What the old active still sent after the new one had begun.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// When the new active's first service frame passed, in seconds.
    pub new_began: f64,
    /// The old active's frames after that.
    pub late: Vec<ServiceFrame>,
}

/// Compares what two appliances sent since `since` (seconds since the epoch), over all links captured.
pub fn hand_over(old: &[Captured], new: &[Captured], since: f64) -> Result<HandOver> {
    let all = |captures: &[Captured]| -> Result<Vec<ServiceFrame>> {
        let mut frames = Vec::new();
        for capture in captures {
            frames.extend(service_frames(capture)?.into_iter().filter(|frame| frame.at >= since));
        }
        frames.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(frames)
    };
    let Some(first) = all(new)?.into_iter().next() else { bail!("the new active sent no service frame") };
    let late = all(old)?.into_iter().filter(|frame| frame.at > first.at).collect();
    Ok(HandOver { new_began: first.at, late })
}

/// Now, on the clock that captures use, in seconds since the epoch.
pub fn capture_clock() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
