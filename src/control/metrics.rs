//! Metrics in Prometheus' text format, version 0.0.4: every counter by owner,
//! and the gauges that an operator alarms on.

use std::fmt::{Display, Write};

use crate::control::report::{
    CounterReport, LatencyReport, MirrorPeerReport, MirrorReport, PortReport, StatusReport, WorkerReport,
    role_text,
};
use crate::control::rss::SpreadBy;
use crate::failover::State;
use crate::failover::role::Role;

/// What a scrape is told that it gets.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of all metrics.
pub fn text(
    status: &StatusReport,
    counters: &CounterReport,
    mirror: &MirrorReport,
    ports: &PortReport,
) -> String {
    let mut page = Page(String::new());
    page.gauge("info", "Which appliance this is.");
    let labels = format!("name=\"{}\",node=\"{}\",version=\"{}\"", status.name, status.node, status.version);
    page.sample("info", &labels, 1);
    page.gauge("role", "1 for the role that the appliance has.");
    for role in Role::ALL {
        page.sample("role", &format!("role=\"{}\"", role_text(role)), u8::from(role == status.role));
    }
    page.gauge("state", "1 for what that comes to for the operator: see `baton status`.");
    for state in State::ALL {
        page.sample("state", &format!("state=\"{state}\""), u8::from(state == status.state));
    }
    for (name, help, value) in [
        ("degraded", "1 when it was promoted outside the in-sync set.", u64::from(status.degraded)),
        ("takeovers", "How often it took over from a leader, since its start.", status.takeovers),
        (
            "waits_for_operator",
            "1 when only the operator can promote it, in a partition.",
            status.waits_for_operator.into(),
        ),
        ("can_lead", "1 unless terms cannot be reserved in failover.state_dir.", status.can_lead.into()),
        ("maintenance", "1 while it is out of service: see `baton maintenance`.", status.maintenance.into()),
        (
            "ailments",
            "Things tracked by failover.track and the pools that are wrong.",
            status.ailments.len() as u64,
        ),
        ("term", "The counter of the term that it follows.", status.term.counter),
        ("configuration_generation", "The generation of its configuration.", status.generation),
        ("uptime_seconds", "Since its process started.", status.uptime_ms / 1000),
        ("flows", "Flows in the table.", status.flows.active),
        ("flows_max", "Room in the flow table.", status.flows.max),
        ("flows_protected", "Flows that every in-sync member has acknowledged.", status.flows.protected),
        ("flows_unprotected", "Mirrored flows that are not acknowledged.", status.flows.unprotected),
        ("flows_left_out", "Flows that are not mirrored, by choice.", status.flows.left_out),
        (
            "flows_unprotected_oldest_milliseconds",
            "For how long the oldest unprotected flow has been so.",
            status.flows.oldest_unprotected_ms,
        ),
        ("source_nat_ports_resting", "Source-NAT ports at rest.", status.flows.ports_resting),
        ("buffers", "Packet buffers in the pool.", status.buffers.total),
        ("buffers_in_use", "Packet buffers in use.", status.buffers.in_use),
        ("held_packets", "Packets held until their flow is acknowledged.", mirror.hold.held),
    ] {
        page.gauge(name, help);
        page.sample(name, "", value);
    }
    if let Some(witness) = &status.witness {
        for (name, help, value) in [
            ("witness_heard", "1 while the witness answers.", witness.heard),
            ("witness_grants", "1 while the witness lets this appliance send.", witness.grants),
        ] {
            page.gauge(name, help);
            page.sample(name, "", u8::from(value));
        }
    }
    workers(&mut page, status);
    page.gauge("peer_in_sync", "1 when the peer is in the in-sync set.");
    for peer in &status.peers {
        page.sample("peer_in_sync", &format!("node=\"{}\"", peer.node), u8::from(peer.in_sync));
    }
    page.gauge("peer_same_services", "1 when the peer goes by the same configuration of services.");
    for peer in &status.peers {
        if let Some(same) = peer.same_services {
            page.sample("peer_same_services", &format!("node=\"{}\"", peer.node), u8::from(same));
        }
    }
    digests(&mut page, mirror);
    streams(&mut page, mirror);
    hold_latency(&mut page, mirror);
    port_rss(&mut page, ports);
    for counter in &counters.counters {
        let name = format!("{}_total", counter.name);
        page.head(&name, &counter.help, "counter");
        for (owner, value) in counters.owners.iter().zip(&counter.values) {
            page.sample(&name, &format!("owner=\"{owner}\""), *value);
        }
    }
    page.0
}

/// Gauges over the last second where there is one to show, and totals, of which a reader makes rates of its own.
fn workers(page: &mut Page, status: &StatusReport) {
    let label = |worker: &WorkerReport| format!("worker=\"{}\"", worker.worker);
    page.gauge("worker_load_percent", "Time of the last second in which the worker had something to do.");
    for worker in &status.workers {
        if let Some(load) = worker.load_percent {
            page.sample("worker_load_percent", &label(worker), load);
        }
    }
    page.gauge("worker_cycles_per_packet", "Cycles that a packet of the last second took.");
    for worker in &status.workers {
        if let Some(cycles) = worker.cycles_per_packet {
            page.sample("worker_cycles_per_packet", &label(worker), cycles);
        }
    }
    type Total = fn(&WorkerReport) -> u64;
    let totals: [(&str, &str, Total); 5] = [
        ("worker_turns_total", "Rounds of the worker's loop.", |of| of.turns),
        ("worker_busy_turns_total", "Rounds that found something to do.", |of| of.busy_turns),
        ("worker_busy_microseconds_total", "Time in those.", |of| of.busy_us),
        ("worker_empty_microseconds_total", "Time in the others, rests included.", |of| of.empty_us),
        ("worker_packets_total", "Packets taken from ports and from other lcores.", |of| of.packets),
    ];
    for (name, help, total) in totals {
        page.head(name, help, "counter");
        for worker in &status.workers {
            page.sample(name, &label(worker), total(worker));
        }
    }
}

/// Of ports that have packets to spread.
fn port_rss(page: &mut Page, ports: &PortReport) {
    page.gauge("port_rss", "1 when the port spreads packets by RSS as asked, 0 when lcores hand them over.");
    for port in &ports.ports {
        let by_port = match port.rss.by {
            SpreadBy::OneQueue => continue,
            SpreadBy::Port => 1,
            SpreadBy::Software => 0,
        };
        page.sample("port_rss", &format!("port=\"{}\"", port.name), by_port);
    }
}

/// Of peers that this appliance tells of its flows.
fn digests(page: &mut Page, mirror: &MirrorReport) {
    let told = || mirror.peers.iter().filter_map(|peer| Some((peer.node, peer.digests.as_ref()?)));
    page.gauge("peer_shards_differing", "Shards of which the peer has other flows than it was told.");
    for (node, digests) in told() {
        page.sample("peer_shards_differing", &format!("node=\"{node}\""), digests.differing);
    }
    page.head("peer_differences_total", "Times that a shard of the peer was found to differ.", "counter");
    for (node, digests) in told() {
        page.sample("peer_differences_total", &format!("node=\"{node}\""), digests.found);
    }
}

/// Of what each peer is told and acknowledges, all workers together; latencies of the slowest stream.
fn streams(page: &mut Page, mirror: &MirrorReport) {
    page.gauge("peer_state", "1 for where mirroring with the peer stands.");
    for peer in &mirror.peers {
        let labels = format!("node=\"{}\",state=\"{}\"", peer.node, peer.state.text());
        page.sample("peer_state", &labels, 1);
    }
    type Gauge = fn(&MirrorPeerReport) -> Option<u64>;
    let gauges: [(&str, &str, Gauge); 6] = [
        ("peer_flows_unprotected", "Mirrored flows that the peer does not know.", |peer| peer.unprotected),
        (
            "peer_unprotected_oldest_milliseconds",
            "For how long the oldest change that the peer has not acknowledged has waited.",
            // Where this appliance leads, of a peer that tracks a part, too.
            |peer| peer.walk.as_ref().map(|_| peer.oldest_unprotected_ms.unwrap_or(0)),
        ),
        ("peer_credit", "Frames that the peer takes at once, of the stream that takes fewest.", |peer| {
            peer.streams.iter().map(|stream| stream.credit.into()).min()
        }),
        ("peer_frames_in_flight", "Frames that the peer has not acknowledged.", |peer| {
            Some(peer.streams.iter().map(|stream| stream.in_flight).sum())
        }),
        ("peer_sent_bytes_per_second", "Mirror frames to the peer, without headers from UDP down.", |peer| {
            Some(peer.streams.iter().map(|stream| stream.sent_per_second.bytes).sum())
        }),
        ("peer_received_bytes_per_second", "Mirror frames from the peer, likewise.", |peer| {
            Some(peer.streams.iter().map(|stream| stream.received_per_second.bytes).sum())
        }),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help);
        for peer in &mirror.peers {
            if let Some(value) = value(peer) {
                page.sample(name, &format!("node=\"{}\"", peer.node), value);
            }
        }
    }
    page.head("peer_records_sent_total", "State records sent to the peer, under this session.", "counter");
    for peer in &mirror.peers {
        let sent: u64 = peer.streams.iter().map(|stream| stream.sent).sum();
        page.sample("peer_records_sent_total", &format!("node=\"{}\"", peer.node), sent);
    }
    page.head(
        "peer_checkpoints_sent_total",
        "State records sent that nobody is asked to acknowledge (mirror.checkpoints = \"periodic\").",
        "counter",
    );
    for peer in &mirror.peers {
        let sent: u64 = peer.streams.iter().map(|stream| stream.checkpoints).sum();
        page.sample("peer_checkpoints_sent_total", &format!("node=\"{}\"", peer.node), sent);
    }
    let name = "peer_acknowledgement_microseconds";
    page.gauge(
        name,
        "Within which such a share of the frames to the peer was acknowledged, on the slowest stream.",
    );
    for peer in &mirror.peers {
        let latencies = || peer.streams.iter().filter_map(|stream| stream.latency);
        for (quantile, of) in QUANTILES {
            if let Some(slowest) = latencies().map(|latency| of(&latency)).reduce(f64::max) {
                let labels = format!("node=\"{}\",quantile=\"{quantile}\"", peer.node);
                page.sample(name, &labels, slowest);
            }
        }
    }
}

type Percentile = fn(&LatencyReport) -> f64;

/// Shares that are told of, and where they stand.
const QUANTILES: [(&str, Percentile); 3] =
    [("0.5", |latency| latency.p50_us), ("0.99", |latency| latency.p99_us), ("1", |latency| latency.max_us)];

/// Prometheus' histograms are cumulative.
fn hold_latency(page: &mut Page, mirror: &MirrorReport) {
    let name = "hold_microseconds_bucket";
    page.head("hold_microseconds", "How long the first packets of flows were held.", "histogram");
    let mut count = 0;
    for bucket in &mirror.hold.latency.buckets {
        count += bucket.count;
        if let Some(bound) = bucket.up_to_us {
            page.sample(name, &format!("le=\"{bound}\""), count);
        }
    }
    page.sample(name, "le=\"+Inf\"", count);
    page.sample("hold_microseconds_count", "", count);
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', " ");
        let _ = write!(self.0, "# HELP baton_{name} {help}\n# TYPE baton_{name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, help, "gauge");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "baton_{name} {value}"),
            labels => writeln!(self.0, "baton_{name}{{{labels}}} {value}"),
        };
    }
}
