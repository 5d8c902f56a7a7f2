//! The configuration changes while packets come (REQ C10): flows that exist go on as they were, new ones are made by what
//! is configured then.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::{ServerId, VirtualServerId, id_of_name};
use baton::base::io::TxClass;
use baton::base::limits::NEIGHBOURS_MAX;
use baton::config::checked::{Checked, ChosenMethod, Method};
use baton::config::reload::{reload, without_idle};
use baton::config::snapshot::Snapshot;
use baton::traffic::routes::NextHop;
use baton::worker::Generation;
use baton::worker::message::{Command, Event};

use crate::bench::*;
use crate::moved::{all_pass, opened, shard_with};
use crate::pair::Pair;
use crate::workers::{FULL_NAT, Workers};

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
    know_server(bench, "10.2.0.11", NEW_SERVER_MAC);
}

fn know_server(bench: &mut Bench, address: &str, mac: [u8; 6]) {
    let hop = NextHop { port: SERVER_PORT, address: address.parse().expect("an address") };
    bench.command(Command::Neighbour { hop, link: Some(mac) });
}

/// The standby of a pair leads.
fn take_over(pair: &mut Pair) {
    let term = baton::base::ids::Term { counter: 2, node: baton::base::ids::NodeId(2) };
    pair.standby.command(Command::Role { epoch: 2, role: baton::worker::message::Role::Active, term });
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
fn a_virtual_server_under_another_name_takes_the_place_of_one_that_goes_and_not_its_connections() {
    let (mut bench, mut running) = (bench(), Running::new(1));
    let began = begin(&mut bench, 1000, "10.1.0.101");
    let change = running.change(&[("name = \"full\"\n", "name = \"other\"\n")]);
    bench.command(change);
    begin(&mut bench, 1001, "10.1.0.101");
    goes_on(&mut bench, 1000, "10.1.0.101", &began);
    let flows = bench.status().by_virtual_server;
    let of = |name: &str| flows.iter().find(|(id, _)| *id == id_of_name(name)).map(|(_, flows)| *flows);
    assert_eq!(["full", "other"].map(of), [Some(1); 2]);
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
    take_over(&mut pair);
    for (port, began) in (1000..).zip(&began) {
        goes_on(&mut pair.standby, port, "10.1.0.101", began);
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

/// Bug: a flow that a standby refused, since it did not go by its leader's services yet, was never told again.
#[test]
fn flows_of_services_that_a_standby_gets_behind_them_are_told_again() {
    let new = FULL.replace("full\"\n", "new\"\n").replace("10.1.0.101", "10.1.0.110") + "[flows]";
    for joins_late in [false, true] {
        let (mut ours, mut theirs) = (Running::new(1), Running::new(2));
        let mut active = Bench::active();
        let (began, mut pair) = if joins_late {
            active.command(ours.change(&[("[flows]", &new)]));
            let began = begin(&mut active, 1000, "10.1.0.110");
            (began, Pair::of(active))
        } else {
            let mut pair = Pair::of(active);
            pair.active.command(ours.change(&[("[flows]", &new)]));
            (begin(&mut pair.active, 1000, "10.1.0.110"), pair)
        };
        pair.exchange(200);
        assert_eq!(pair.standby.worker.flows().table.len(), 0);
        assert!(pair.standby.count(Counter::MirrorRecordUnknownService) > 0);
        pair.standby.command(theirs.change(&[("[flows]", &new)]));
        pair.exchange(200);
        assert_eq!(pair.standby.worker.flows().table.len(), 1, "joins late: {joins_late}");
        assert_eq!(pair.active.status().protected, 1);
        // Once: the next configuration is taken with everything in place.
        let sent = |pair: &mut Pair| pair.active.status().streams[0].statistics.records_sent;
        let before = sent(&mut pair);
        pair.standby.command(theirs.change(&[]));
        pair.exchange(20);
        assert_eq!(sent(&mut pair), before);
        take_over(&mut pair);
        goes_on(&mut pair.standby, 1000, "10.1.0.110", &began);
    }
}

#[test]
fn servers_and_virtual_servers_that_come_in_between_move_no_connection_also_not_at_a_takeover() {
    const SERVERS: [(&str, [u8; 6]); 4] = [
        ("10.2.0.9", [2, 0, 0, 0, 2, 9]),
        ("10.2.0.10", SERVER_MAC),
        ("10.2.0.11", NEW_SERVER_MAC),
        ("10.2.0.12", [2, 0, 0, 0, 2, 12]),
    ];
    let servers = |which: &[usize]| {
        let one = |at: &usize| format!("{{ address = \"{}:8080\" }}", SERVERS[*at].0);
        format!("server = [ {} ]", which.iter().map(one).collect::<Vec<_>>().join(", "))
    };
    let mut pair = Pair::in_sync();
    for (address, mac) in SERVERS {
        know_server(&mut pair.active, address, mac);
        know_server(&mut pair.standby, address, mac);
    }
    let (mut ours, mut theirs) = (Running::new(1), Running::new(2));
    let mut change = |pair: &mut Pair, replaced: &[(&str, &str)]| {
        pair.standby.command(theirs.change(replaced));
        pair.active.command(ours.change(replaced));
    };
    change(&mut pair, &[(OLD_SERVER, &servers(&[1, 3]))]);
    let to = "10.1.0.101";
    let mut began: Vec<Packet> = (1000..1004).map(|port| begin(&mut pair.active, port, to)).collect();
    pair.exchange(20);

    // A virtual server before all others, with a pool of its own before theirs; servers before and between those that are there.
    let front = format!(
        "[[virtual_server]]\nname = \"front\"\naddress = \"10.1.0.110:80\"\nprotocol = \"tcp\"\npool = \"first\"\n\
         forwarding = \"nat\"\nmirror = {{ mode = \"checkpoint\", commit = \"async\" }}\n\
         [[pool]]\nname = \"first\"\n{}\n[[pool]]\nname = \"web\"\n",
        servers(&[0])
    );
    let all = servers(&[0, 1, 2, 3]);
    change(&mut pair, &[("[[pool]]\nname = \"web\"\n", &front), (OLD_SERVER, &all)]);
    began.extend((1004..1012).map(|port| begin(&mut pair.active, port, to)));
    let of_front = begin(&mut pair.active, 3000, "10.1.0.110");
    for (port, began) in (1000..).zip(&began) {
        goes_on(&mut pair.active, port, to, began);
    }
    pair.exchange(20);
    assert_eq!(pair.active.status().protected, 13);
    assert_eq!(pair.standby.count(Counter::MirrorRecordUnknownService), 0);

    take_over(&mut pair);
    for (port, began) in (1000..).zip(&began) {
        goes_on(&mut pair.standby, port, to, began);
    }
    goes_on(&mut pair.standby, 3000, "10.1.0.110", &of_front);
    let chosen: BTreeSet<_> = servers_of(&mut pair.standby, 4000..4008).into_iter().collect();
    assert_eq!(chosen.len(), 4, "{chosen:?}");
    // Each server's connections are counted as its own.
    let status = pair.standby.status();
    for (address, _) in SERVERS {
        let id = ServerId(id_of_name(&format!("web/{address}:8080")));
        let of_it = began.iter().filter(|began| began.to.0.to_string() == address).count() as u64 + 2;
        assert!(status.by_server.contains(&(id.0, of_it)), "{address}: {:?}", status.by_server);
    }
}

/// Workers swap at different times. One that has swapped and one that has not find the same flows, also those of a virtual
/// server and a server that are retired for one of them; and shards move between them.
#[test]
fn connections_pass_while_workers_go_by_different_generations_and_shards_move() {
    const COUNT: u16 = 3;
    let mut workers = Workers::new(COUNT, Method::Chosen(ChosenMethod::RoundRobin), |_| ());
    let began = opened(&mut workers, FULL_NAT, 2000..2120);
    let mut running = Running::new(1);
    let mut checked = running.snapshot.checked.clone();
    checked.lcores.workers = vec![checked.lcores.workers[0].clone(); usize::from(COUNT)];
    checked.distributor.remembers = true;
    running.snapshot = Arc::new(Snapshot { generation: 1, checked });
    for replaced in [&[(FULL, ""), (OLD_SERVER, NEW_SERVER)][..], &[]] {
        running.change(replaced);
        let generation = Generation::new(Arc::clone(&running.snapshot), COUNT);
        for number in 0..usize::from(COUNT) {
            workers.benches[number].command(Command::Configure(generation.clone()));
            all_pass(&mut workers, FULL_NAT, &began);
            let shard = shard_with(&workers, 2000 + 7 * number as u16);
            let owns = |bench: &Bench| bench.worker.flows().owned().has(shard);
            let owner = workers.benches.iter().position(owns).expect("it has an owner") as u16;
            workers.move_shard(shard, (owner + 1) % COUNT, |_| ());
            all_pass(&mut workers, FULL_NAT, &began);
        }
        let of_it = |bench: &mut Bench| {
            let id = id_of_name("full");
            let of = |all: &[(u32, u64)]| all.iter().find(|(of, _)| *of == id).map_or(0, |(_, flows)| *flows);
            of(&bench.status().by_virtual_server)
        };
        assert_eq!(workers.benches.iter_mut().map(of_it).sum::<u64>(), 120);
    }
    let after = opened(&mut workers, FULL_NAT, 5000..5010);
    all_pass(&mut workers, FULL_NAT, &after);
}
