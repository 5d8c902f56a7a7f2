//! The configuration changes while packets come (REQ C10): flows that exist go on as they were, new ones are made by what
//! is configured then.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::{ServerId, VirtualServerId, id_of_name};
use baton::base::io::TxClass;
use baton::base::limits::NEIGHBOURS_MAX;
use baton::config::checked::Checked;
use baton::config::reload::{reload, without_idle};
use baton::config::snapshot::Snapshot;
use baton::traffic::routes::NextHop;
use baton::worker::Generation;
use baton::worker::message::{Command, Event};

use crate::bench::*;
use crate::pair::Pair;

const NEW_SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 11];

/// A running configuration, and how it changes.
struct Running {
    started: String,
    snapshot: Arc<Snapshot>,
}

impl Running {
    fn new(node: u16) -> Running {
        Running { started: file(node), snapshot: snapshot(node) }
    }

    /// With these texts of the file replaced.
    fn change(&mut self, replaced: &[(&str, &str)]) -> Command {
        let mut text = self.started.clone();
        for (old, new) in replaced {
            assert!(text.contains(old), "{old}");
            text = text.replace(old, new);
        }
        let path = Path::new("bench.toml");
        let (checked, _) = reload(path, &self.started, &self.snapshot.checked, &text).expect("a good file");
        self.take(checked)
    }

    fn take(&mut self, checked: Checked) -> Command {
        self.snapshot = Arc::new(Snapshot { generation: self.snapshot.generation + 1, checked });
        Command::Configure(Generation::new(Arc::clone(&self.snapshot), 1))
    }
}

const OLD_SERVER: &str = "server = [ { address = \"10.2.0.10:8080\" } ]";
const NEW_SERVER: &str = "server = [ { address = \"10.2.0.11:8080\" } ]";
const BOTH_SERVERS: &str =
    "server = [ { address = \"10.2.0.10:8080\", weight = 1 }, { address = \"10.2.0.11:8080\", weight = 3 } ]";

const FULL: &str = r#"[[virtual_server]]
name = "full"
address = "10.1.0.101:80"
protocol = "tcp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.2.0.100"]
mirror = { mode = "checkpoint", commit = "async" }
"#;

/// A bench that leads, and knows a server that is not configured yet.
fn bench() -> Bench {
    let mut bench = Bench::active();
    know_new_server(&mut bench);
    bench
}

fn know_new_server(bench: &mut Bench) {
    let hop = NextHop { port: SERVER_PORT, address: "10.2.0.11".parse().expect("an address") };
    bench.command(Command::Neighbour { hop, link: Some(NEW_SERVER_MAC) });
}

/// A connection that begins; its first packet as the server gets it.
fn begin(bench: &mut Bench, port: u16, to: &str) -> Packet {
    let sent = bench.handle(CLIENT_PORT, &from_client(port, to, 80, Some(SYN)).bytes());
    only(&sent, SERVER_PORT, TxClass::Service)
}

/// A packet of the connection each way: it goes on as it began.
fn goes_on(bench: &mut Bench, port: u16, to: &str, began: &Packet) {
    let request = from_client(port, to, 80, Some(ACK));
    let sent = bench.handle(CLIENT_PORT, &request.bytes());
    let forwarded = only(&sent, SERVER_PORT, TxClass::Service);
    assert_eq!((forwarded.from, forwarded.to, forwarded.to_mac), (began.from, began.to, began.to_mac));
    let sent = bench.handle(SERVER_PORT, &began.answer(Some(ACK)).bytes());
    let answer = only(&sent, CLIENT_PORT, TxClass::Service);
    assert_eq!((answer.from, answer.to, answer.to_mac), (request.to, request.from, CLIENT_MAC));
}

fn servers_of(bench: &mut Bench, ports: core::ops::Range<u16>) -> Vec<String> {
    ports.map(|port| begin(bench, port, "10.1.0.103").to.0.to_string()).collect()
}

/// What the worker gave back.
fn given_back(bench: &mut Bench) -> Vec<u64> {
    let numbers = bench.events().into_iter().filter_map(|event| match event {
        Event::Configured(generation) => Some(generation.number()),
        _ => None,
    });
    numbers.collect()
}

#[test]
fn new_connections_are_shared_out_by_the_new_weights_and_old_ones_keep_their_server() {
    let (mut bench, mut running) = (bench(), Running::new(1));
    let began = begin(&mut bench, 1000, "10.1.0.101");
    let change = running.change(&[(OLD_SERVER, BOTH_SERVERS)]);
    bench.command(change);
    assert_eq!(given_back(&mut bench), [1]);
    let chosen = servers_of(&mut bench, 2000..2008);
    assert_eq!(chosen.iter().filter(|server| *server == "10.2.0.11").count(), 6, "{chosen:?}");
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
    let change = running.change(&[]);
    bench.command(change);
    assert_eq!(given_back(&mut bench), [2]);
    assert_eq!(servers_of(&mut bench, 3000..3004), ["10.2.0.10"; 4]);
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
}

#[test]
fn connections_to_a_server_that_is_removed_go_on_until_they_end() {
    let (mut bench, mut running) = (bench(), Running::new(1));
    let to = ["10.1.0.100", "10.1.0.101"];
    let began = to.map(|to| begin(&mut bench, 1000, to));
    let change = running.change(&[(OLD_SERVER, NEW_SERVER)]);
    bench.command(change);
    assert_eq!(servers_of(&mut bench, 2000..2004), ["10.2.0.11"; 4]);
    for (to, began) in to.iter().zip(&began) {
        goes_on(&mut bench, 1000, to, began);
    }
    let id = ServerId(id_of_name("web/10.2.0.10:8080"));
    let status = bench.status();
    assert!(status.by_server.contains(&(id.0, 2)), "{:?}", status.by_server);
    assert!(without_idle(&running.snapshot.checked, |_| false, |server| server == id).is_none());

    // They end, and the server is forgotten.
    let flows: Vec<_> = bench.worker.flows().table.iter().map(|(place, _)| place).collect();
    bench.now += baton::base::time::Duration::from_secs(100_000);
    flows.into_iter().for_each(|flow| bench.command(Command::Expire { flow }));
    bench.poll_after(1);
    let left = without_idle(&running.snapshot.checked, |_| false, |_| false).expect("less");
    let change = running.take(left);
    bench.command(change);
    let status = bench.status();
    assert!(status.by_server.iter().all(|(of, _)| *of != id.0), "{:?}", status.by_server);
    assert_eq!(running.snapshot.checked.retired(), 0);
}

#[test]
fn connections_of_a_virtual_server_that_is_removed_go_on_and_none_begins() {
    let (mut bench, mut running) = (bench(), Running::new(1));
    let began = begin(&mut bench, 1000, "10.1.0.101");
    let change = running.change(&[(FULL, "")]);
    bench.command(change);
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
    let syn = from_client(1001, "10.1.0.101", 80, Some(SYN)).bytes();
    assert!(bench.handle(CLIENT_PORT, &syn).is_empty());
    // In a burst with one that is served.
    let other = from_client(1002, "10.1.0.103", 80, Some(SYN)).bytes();
    let mut burst: Vec<_> = [&syn, &other].map(|frame| frame_received(CLIENT_PORT, frame)).into();
    bench.worker.handle_burst(bench.now, &mut burst, &mut bench.io);
    assert_eq!(bench.take_sent().len(), 1);
    assert_eq!(bench.count(Counter::DropNoListener), 2);
    let id = VirtualServerId(id_of_name("full"));
    assert!(bench.status().by_virtual_server.contains(&(id.0, 1)));
    goes_on(&mut bench, 1000, "10.1.0.101", &began);

    // It comes back.
    let change = running.change(&[]);
    bench.command(change);
    begin(&mut bench, 1003, "10.1.0.101");
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
    assert!(bench.status().by_virtual_server.contains(&(id.0, 2)));
}

#[test]
fn a_connection_goes_on_with_a_source_address_that_is_taken_from_its_virtual_server() {
    let (mut bench, mut running) = (bench(), Running::new(1));
    let began = begin(&mut bench, 1000, "10.1.0.101");
    let change = running.change(&[("snat_addresses = [\"10.2.0.100\"]", "snat_addresses = [\"10.2.0.99\"]")]);
    bench.command(change);
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
    let sources: BTreeSet<_> =
        (2000..2010).map(|port| begin(&mut bench, port, "10.1.0.101").from.0.to_string()).collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["10.2.0.99"]);
}

#[test]
fn a_virtual_server_and_a_pool_that_are_new_are_served_at_once() {
    let (mut bench, mut running) = (bench(), Running::new(1));
    let syn = || from_client(1000, "10.1.0.110", 80, Some(SYN)).bytes();
    assert!(bench.handle(CLIENT_PORT, &syn()).is_empty());
    let new = format!(
        "[[pool]]\nname = \"new\"\nbalance = \"maglev\"\n{NEW_SERVER}\n{}\n[flows]",
        FULL.replace("full\"\n", "new\"\n").replace("10.1.0.101", "10.1.0.110").replace("\"web\"", "\"new\"")
    );
    let change = running.change(&[("[flows]", &new)]);
    bench.command(change);
    let began = begin(&mut bench, 1000, "10.1.0.110");
    assert_eq!((began.to.0.to_string(), began.to_mac), ("10.2.0.11".to_owned(), NEW_SERVER_MAC));
    goes_on(&mut bench, 1000, "10.1.0.110", &began);
}

#[test]
fn records_of_what_is_retired_are_taken_by_a_standby_and_served_after_a_takeover() {
    let mut pair = Pair::in_sync();
    know_new_server(&mut pair.active);
    let (mut ours, mut theirs) = (Running::new(1), Running::new(2));
    let mut began = Vec::new();
    for round in 0..2 {
        let port = 1000 + round;
        let sent = pair.active.handle(CLIENT_PORT, &from_client(port, "10.1.0.101", 80, Some(SYN)).bytes());
        began.push(only(&sent, SERVER_PORT, TxClass::Service));
        if round == 0 {
            pair.exchange(10);
        }
    }
    // The second connection's record comes when both know that its virtual server and its server are gone.
    let gone = [(FULL, ""), (OLD_SERVER, NEW_SERVER)];
    let change = ours.change(&gone);
    pair.active.command(change);
    let change = theirs.change(&gone);
    pair.standby.command(change);
    pair.exchange(10);
    assert_eq!(pair.standby.worker.flows().table.len(), 2);
    assert_eq!(pair.active.status().protected, 2);
    let standby = &mut pair.standby;
    let term = baton::base::ids::Term { counter: 2, node: baton::base::ids::NodeId(2) };
    standby.command(Command::Role { epoch: 2, role: baton::worker::message::Role::Active, term });
    for (port, began) in (1000..).zip(&began) {
        goes_on(standby, port, "10.1.0.101", began);
    }
}

#[test]
fn neighbours_of_a_configuration_that_is_gone_give_their_places_free() {
    let (mut bench, mut running) = (bench(), Running::new(1));
    let began = begin(&mut bench, 1000, "10.1.0.101");
    for _ in 0..3 {
        let change = running.change(&[(OLD_SERVER, NEW_SERVER)]);
        bench.command(change);
        let change = running.change(&[]);
        bench.command(change);
    }
    let left = without_idle(&running.snapshot.checked, |_| true, |_| false).expect("it has no connections");
    let change = running.take(left);
    bench.command(change);
    assert_eq!(given_back(&mut bench), [1, 2, 3, 4, 5, 6, 7]);
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
    // More neighbours than there are places for: those that neither flows nor the configuration use lose theirs.
    for n in 0..2 * NEIGHBOURS_MAX as u32 {
        let address = core::net::Ipv4Addr::from_bits(0x0a02_1000 + n).into();
        bench.command(Command::Neighbour { hop: NextHop { port: SERVER_PORT, address }, link: Some([9; 6]) });
    }
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
    let change = running.change(&[(OLD_SERVER, NEW_SERVER)]);
    bench.command(change);
    let syn = from_client(1001, "10.1.0.103", 80, Some(SYN)).bytes();
    assert!(bench.handle(CLIENT_PORT, &syn).is_empty(), "it has to be asked for");
    know_new_server(&mut bench);
    assert_eq!(bench.take_sent().len(), 1);
}
