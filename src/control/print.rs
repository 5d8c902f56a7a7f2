//! Reports for people: the command line prints them, and a failing test may.

use std::fmt::{self, Display};
use std::time::{Duration, UNIX_EPOCH};

use crate::control::report::{
    CounterReport, DigestReport, DisbelievedReport, Done, EventReport, FlowReport, HoldReport, LatencyReport,
    MirrorPeerReport, MirrorReport, PoolReport, PortReport, ServerLine, StatusReport, role_text,
};
use crate::failover::State;

use crate::failover::status::WitnessView;
use crate::failover::witness::words::Verdict;

/// Rows under headings, columns as wide as they need; numbers to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> = (0..columns)
            .map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let number = |cell: &String| cell == "-" || cell.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let numeric: Vec<bool> = (0..columns).map(|column| cells(column).skip(1).all(number)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line +=
                    &if numeric[column] { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A value, or a dash where there is none.
fn or_dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// As [`or_dash`], with one digit behind the point.
fn tenths_or_dash(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{value:.1}")))
}

fn yes_no(truth: bool) -> &'static str {
    if truth { "yes" } else { "no" }
}

/// Names in one column; a dash for none.
fn joined(names: impl IntoIterator<Item = impl Display>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

fn span(millis: u64) -> impl Display {
    humantime::format_duration(Duration::from_millis(millis))
}

fn witness_text(witness: &WitnessView) -> String {
    let heard = match witness.heard_ago_us {
        None => "never heard".to_owned(),
        Some(ago) if witness.heard => format!("heard {} ms ago", ago / 1000),
        Some(ago) => format!("silent for {}", span(ago / 1000)),
    };
    let says = match witness.verdict {
        _ if witness.grants => format!("grants it for {} ms yet", witness.grant_left_us / 1000),
        None | Some(Verdict::Granted | Verdict::Noted | Verdict::Challenge) => {
            "is asked for nothing".to_owned()
        }
        Some(Verdict::Held) => format!("grants to node {} instead", or_dash(witness.holder)),
        Some(Verdict::Starting) => "started just now, and grants nothing yet".to_owned(),
        Some(Verdict::TooShort) => {
            format!("grants for {} ms, and takeover_after_ms is longer", witness.hold_ms)
        }
    };
    if witness.heard { format!("{heard}, {says}") } else { heard }
}

impl Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusReport { name, node, version, role, term, generation, flows, buffers, .. } = self;
        let degraded = if self.degraded { " (degraded: promoted outside the in-sync set)" } else { "" };
        writeln!(f, "{name} (node {node}), baton {version}, up {}", span(self.uptime_ms))?;
        writeln!(f, "role        {}{degraded}, term {term}, configuration {generation}", role_text(*role))?;
        writeln!(f, "state       {}", self.state.words())?;
        writeln!(f, "leader      node {}, takeovers by this one: {}", or_dash(self.leader), self.takeovers)?;
        if self.waits_for_operator {
            writeln!(
                f,
                "            no peer is heard, and partition = \"safety\": it leads after `baton promote`"
            )?;
        }
        if !self.can_lead {
            writeln!(
                f,
                "            it cannot take the lead: no term can be reserved in failover.state_dir"
            )?;
        }
        if self.maintenance {
            writeln!(f, "            under maintenance: it does not lead before `baton maintenance off`")?;
        }
        for (number, ailment) in self.ailments.iter().enumerate() {
            let head = if number == 0 { "ailments" } else { "" };
            writeln!(f, "{head:<12}{ailment}")?;
        }
        match self.lease_ms {
            Some(lease) => writeln!(f, "lease       {lease} ms left")?,
            None => writeln!(f, "lease       none: it sends nothing for the service")?,
        }
        if let Some(witness) = &self.witness {
            writeln!(f, "witness     {}", witness_text(witness))?;
        }
        let members: Vec<String> = self.in_sync.iter().map(ToString::to_string).collect();
        writeln!(f, "in sync     {}", if members.is_empty() { "-".to_owned() } else { members.join(", ") })?;
        writeln!(
            f,
            "flows       {} of {}: {} protected, {} unprotected (oldest for {} ms), {} not mirrored by choice",
            flows.active,
            flows.max,
            flows.protected,
            flows.unprotected,
            flows.oldest_unprotected_ms,
            flows.left_out
        )?;
        writeln!(f, "ports       {} at rest after their flow's end", flows.ports_resting)?;
        writeln!(f, "buffers     {} of {} in use", buffers.in_use, buffers.total)?;
        let mut workers = Table::new(&[
            "worker",
            "cpu",
            "roles",
            "shards",
            "moved",
            "flows",
            "load %",
            "cycles/packet",
            "moving",
        ]);
        for w in &self.workers {
            let (load, cycles) = (tenths_or_dash(w.load_percent), tenths_or_dash(w.cycles_per_packet));
            let roles = joined(w.roles.iter().map(|role| role.text()));
            let moving = yes_no(w.progressing);
            workers.row(&[&w.worker, &w.cpu, &roles, &w.shards, &w.moved, &w.flows, &load, &cycles, &moving]);
        }
        write!(f, "\n{workers}")?;
        if let Some(skew) = self.skew {
            writeln!(f, "skew: the busiest has {skew:.2} times the flows of the mean")?;
        }
        if self.peers.is_empty() {
            return writeln!(f, "\nno peers");
        }
        let mut peers = Table::new(&[
            "peer",
            "state",
            "in sync",
            "can lead",
            "ailments",
            "configuration",
            "heard ms ago",
            "port",
            "heard ms ago",
            "two-way",
        ]);
        for p in &self.peers {
            let role = or_dash(p.state.map(State::name));
            let in_sync = if p.only.is_empty() { yes_no(p.in_sync) } else { "partial" };
            let heard = or_dash(p.heard_ms_ago);
            let able = match p.maintenance {
                Some(true) => "maintenance".to_owned(),
                Some(false) | None => or_dash(p.can_lead.map(yes_no)),
            };
            let ailing = or_dash(p.ailing);
            let differs = if p.same_services == Some(false) { ", differs" } else { "" };
            let configuration = format!("{}{differs}", or_dash(p.configuration));
            let mut row = |[port, path_heard, two_way]: [&dyn Display; 3]| {
                let columns: [&dyn Display; 7] =
                    [&p.node, &role, &in_sync, &able, &ailing, &configuration, &heard];
                peers.row(&[&columns[..], &[port, path_heard, two_way]].concat());
            };
            for path in &p.paths {
                row([&path.port, &or_dash(path.heard_ms_ago), &yes_no(path.two_way)]);
            }
            if p.paths.is_empty() {
                row([&"-"; 3]);
            }
        }
        write!(f, "\n{peers}")?;
        for p in &self.peers {
            if let Some(hindrance) = &p.hindrance {
                writeln!(f, "peer {} is not synchronized: {hindrance}", p.node)?;
            }
            match (&p.own_key, &p.key) {
                (Some(own), Some(key)) if own == key => {
                    writeln!(f, "peer {} and this one prove key {key}", p.node)?
                }
                (Some(own), Some(key)) => writeln!(f, "peer {} proves key {key}, this one {own}", p.node)?,
                (Some(own), None) if p.other_key => {
                    writeln!(f, "peer {} proves a key that is not accepted here, this one {own}", p.node)?;
                }
                (Some(own), None) => {
                    writeln!(f, "peer {} does not say which key it proves, this one proves {own}", p.node)?;
                }
                (None, _) => {}
            }
            if p.accepted_keys.len() > 1 {
                writeln!(f, "  accepted of it: {}", p.accepted_keys.join(", "))?;
            }
            if let Some(disbelieved) = &p.disbelieved {
                writeln!(f, "peer {}: {disbelieved}", p.node)?;
            }
            if let Some(theirs) = p.term.filter(|theirs| theirs != term) {
                writeln!(f, "peer {} is in term {theirs}", p.node)?;
            }
        }
        Ok(())
    }
}

impl Display for DisbelievedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} ago; frames not believed: {})", self.what, span(self.ms_ago), self.count)
    }
}

impl Display for FlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            "proto",
            "client",
            "virtual",
            "name",
            "source NAT",
            "server",
            "state",
            "idle ms",
            "shard",
            "worker",
            "version",
            "protected",
            "mirrored",
            "because",
        ]);
        for flow in &self.flows {
            table.row(&[
                &flow.protocol,
                &flow.client,
                &flow.virtual_address,
                &flow.virtual_server,
                &or_dash(flow.source_nat),
                &flow.server,
                &flow.state,
                &flow.idle_ms,
                &flow.shard,
                &flow.worker,
                &flow.version,
                &yes_no(flow.protected),
                &yes_no(flow.mirrored),
                &flow.because,
            ]);
        }
        write!(f, "{table}")?;
        writeln!(f, "{} of {} flows", self.flows.len(), self.matching)
    }
}

impl Display for CounterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut headings = vec!["counter", "sum"];
        headings.extend(self.owners.iter().map(String::as_str));
        headings.push("");
        let mut table = Table::new(&headings);
        for counter in &self.counters {
            let mut cells: Vec<&dyn Display> = vec![&counter.name, &counter.sum];
            cells.extend(counter.values.iter().map(|value| value as &dyn Display));
            cells.push(&counter.help);
            table.row(&cells);
        }
        write!(f, "{table}")
    }
}

impl Display for MirrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for peer in &self.peers {
            let session = peer.session.as_deref().unwrap_or("none");
            let in_sync = if peer.in_sync { "in sync" } else { "not in sync" };
            writeln!(f, "peer {}: {}, {in_sync}, session {session}", peer.node, peer.state.text())?;
            if !peer.only.is_empty() {
                writeln!(f, "  tracks only: {}", peer.only.join(", "))?;
            }
            if let Some(hindrance) = &peer.hindrance {
                writeln!(f, "  not synchronized: {hindrance}")?;
            }
            if let Some(disbelieved) = &peer.disbelieved {
                writeln!(f, "  {disbelieved}")?;
            }
            if let Some(walk) = &peer.walk {
                writeln!(
                    f,
                    "  walk: {} of {} shards, {} records",
                    walk.shards_done, walk.shards, walk.records
                )?;
            }
            if let Some(DigestReport { agreed_ms, differing, found }) = &peer.digests {
                let agreed = match agreed_ms {
                    Some(agreed_ms) => format!("all agreed {agreed_ms} ms ago"),
                    None => "not all compared yet".to_owned(),
                };
                writeln!(f, "  digests: {agreed}, {differing} shards differ, {found} differences found")?;
            }
            match (peer.unprotected, peer.oldest_unprotected_ms) {
                (Some(flows), Some(ms)) => {
                    writeln!(f, "  unprotected: {flows} flows, the oldest change for {ms} ms")?;
                }
                (Some(flows), None) => writeln!(f, "  unprotected: {flows} flows")?,
                (None, Some(ms)) => writeln!(f, "  not acknowledged: the oldest change for {ms} ms")?,
                (None, None) => {}
            }
            streams(f, peer)?;
        }
        if self.peers.is_empty() {
            writeln!(f, "no peers: nothing is mirrored\n")?;
        }
        if let Some(latency) = &self.protection {
            writeln!(f, "flows became known to a peer: {latency}")?;
        }
        let HoldReport { held, released, timeouts, latency, waited } = &self.hold;
        writeln!(f, "held packets: {held} now, {released} released, {timeouts} timed out")?;
        if let Some(waited) = waited {
            writeln!(f, "flows whose first packet was held: {waited}")?;
        }
        let mut table = Table::new(&["waited at most us", "flows"]);
        for bucket in &latency.buckets {
            table.row(&[&or_dash(bucket.up_to_us), &bucket.count]);
        }
        if latency.buckets.is_empty() { Ok(()) } else { write!(f, "{table}") }
    }
}

/// The streams to and from a peer: how far they are, how fast, and what went wrong on them.
fn streams(f: &mut fmt::Formatter<'_>, peer: &MirrorPeerReport) -> fmt::Result {
    let mut progress = Table::new(&[
        "from",
        "to",
        "sent",
        "checkpoints",
        "acknowledged",
        "in flight",
        "credit",
        "lost",
        "rtt us",
        "dirty",
        "refused",
    ]);
    let mut pace = Table::new(&[
        "from",
        "to",
        "acknowledged in us: 50 %",
        "99 %",
        "all",
        "sent/s: records",
        "bytes",
        "received/s: records",
        "bytes",
    ]);
    for s in &peer.streams {
        let rtt = or_dash(s.rtt_us);
        progress.row(&[
            &s.from,
            &s.to,
            &s.sent,
            &s.checkpoints,
            &s.acknowledged,
            &s.in_flight,
            &s.credit,
            &s.lost,
            &rtt,
            &s.dirty,
            &s.refused,
        ]);
        let took = |of: fn(&LatencyReport) -> f64| tenths_or_dash(s.latency.as_ref().map(of));
        let (half, most, all) = (took(|l| l.p50_us), took(|l| l.p99_us), took(|l| l.max_us));
        let (sent, received) = (&s.sent_per_second, &s.received_per_second);
        pace.row(&[
            &s.from,
            &s.to,
            &half,
            &most,
            &all,
            &sent.records,
            &sent.bytes,
            &received.records,
            &received.bytes,
        ]);
    }
    writeln!(f, "{progress}\n{pace}")?;
    for s in &peer.streams {
        if let Some(why) = &s.refusal {
            writeln!(f, "  from {} to {}: a flow was refused, last because {why}", s.from, s.to)?;
        }
        if let Some(error) = &s.last_error {
            writeln!(f, "  from {} to {}: last error {} ms ago: {}", s.from, s.to, error.ago_ms, error.what)?;
        }
    }
    Ok(())
}

impl Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencyReport { count, p50_us, p99_us, max_us } = self;
        write!(
            f,
            "{count}; half within {p50_us:.1} us, 99 % within {p99_us:.1} us, all within {max_us:.1} us"
        )
    }
}

impl Display for EventReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            // A time past the year 9999 cannot be written: it is shown as the start of time.
            let micros = if event.unix_us < 253_402_300_800_000_000 { event.unix_us } else { 0 };
            let at = humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(micros));
            write!(f, "{:>5}  {at}  {:<10}  {}", event.number, event.kind, event.message)?;
            if let Some(silence) = event.silence_us {
                write!(f, " (for {silence} us)")?;
            }
            if let Some(since) = event.since_decision_us {
                write!(f, " ({since} us after the decision)")?;
            }
            writeln!(f)?;
        }
        if self.events.is_empty() { writeln!(f, "nothing happened yet") } else { Ok(()) }
    }
}

impl Display for PortReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            "port",
            "link",
            "mac",
            "received by",
            "sent by",
            "rx packets",
            "rx bytes",
            "rx missed",
            "rx errors",
            "tx packets",
            "tx bytes",
            "tx errors",
            "rss",
            "device",
        ]);
        for p in &self.ports {
            let (received_by, sent_by) = (joined(&p.received_by), joined(&p.sent_by));
            let link = if p.link_up { "up" } else { "down" };
            table.row(&[
                &p.name,
                &link,
                &p.mac,
                &received_by,
                &sent_by,
                &p.rx_packets,
                &p.rx_bytes,
                &p.rx_missed,
                &p.rx_errors,
                &p.tx_packets,
                &p.tx_bytes,
                &p.tx_errors,
                &p.rss.short(),
                &p.device,
            ]);
        }
        write!(f, "{table}")?;
        for port in &self.ports {
            if let Some(why) = &port.rss.why {
                writeln!(f, "rss of {}: {}: {why}", port.name, port.rss.short())?;
            }
        }
        Ok(())
    }
}

fn server_state(server: &ServerLine) -> &'static str {
    match (server.retired, server.up) {
        (true, _) => "retired",
        (false, true) => "up",
        (false, false) => "down",
    }
}

impl Display for PoolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut servers = Table::new(&["pool", "server", "weight", "state", "flows"]);
        for pool in &self.pools {
            for s in &pool.servers {
                servers.row(&[&pool.name, &s.address, &s.weight, &server_state(s), &s.flows]);
            }
        }
        writeln!(f, "{servers}")?;
        let mut virtual_servers = Table::new(&["virtual server", "address", "proto", "pool", "flows"]);
        for v in &self.virtual_servers {
            let pool = if v.retired { "retired" } else { &v.pool };
            virtual_servers.row(&[&v.name, &v.address, &v.protocol, &pool, &v.flows]);
        }
        write!(f, "{virtual_servers}")?;
        if self.source_nat.is_empty() {
            return Ok(());
        }
        let mut ports = Table::new(&["source NAT", "server", "in use", "resting", "exhausted"]);
        for s in &self.source_nat {
            ports.row(&[&s.address, &s.server, &s.in_use, &s.resting, &s.exhausted]);
        }
        write!(f, "\n{ports}")
    }
}

impl Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)
    }
}
