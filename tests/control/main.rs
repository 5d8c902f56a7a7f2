//! The control interface over real sockets, asked by the real command.

mod fake;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use baton::control::Backend;
use baton::control::client::{AskError, ask};
use baton::control::report::*;
use baton::control::server::{ServeError, Server};

use fake::{Fake, fake, flow, flows};

/// A directory of its own for each test, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("baton-control-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Scratch(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("baton.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn baton(words: &[&str], socket: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(words).arg("--socket").arg(socket).output().expect("baton starts")
}

/// What it prints, having succeeded.
#[track_caller]
fn prints(words: &[&str], socket: &Path) -> String {
    let output = baton(words, socket);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "baton {words:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_question_is_answered_as_a_table_and_as_json() {
    let scratch = Scratch::new("questions");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    for (word, words) in [
        (
            "status",
            &[
                "baton-a (node 1)",
                "active",
                "term 3.1",
                "peer 2: mirror frames in the name of node 2 are refused (1s 500ms ago; frames not believed: 7)",
                "peer 2 is not synchronized: it has answered nothing for 700 ms",
                "peer 2 is in term 2.2",
                "peer 2 proves key 5eed0002, this one 5eed0001",
                "  accepted of it: 5eed0001, 5eed0002",
                "31 ms left",
                "up 1m 1s",
                "takeovers by this one: 1",
                "96 of 16384",
                "under maintenance",
                "active alone: no standby is in sync",
                "synchronizing  yes",
                "load %  cycles/packet",
                "42.5          131.0",
                "1 protected, 1 unprotected (oldest for 4 ms), 5 not mirrored by choice",
                "3, differs",
            ][..],
        ),
        (
            "flows",
            &[
                "10.1.0.7:1024",
                "[fd01::7]:1025",
                "www",
                "10.2.0.100:4000",
                "established",
                "rule 2",
                "operator",
                "3 of 3 flows",
            ],
        ),
        ("counters", &["rx_packets", "42", "worker1", "Packets received from a port."]),
        (
            "mirror",
            &[
                "peer 2: walking, not in sync",
                "12 of 256 shards",
                "last because its table is full",
                "  not synchronized: it is being told of the flows of 244 shards",
                "all agreed 410 ms ago, 1 shards differ, 3 differences found",
                "1 now, 9 released, 0 timed out",
                "unprotected: 31 flows, the oldest change for 4 ms",
                "  tracks only: www\n",
                "not acknowledged: the oldest change for 6 ms",
                "from 0 to 0: last error 70 ms ago: a frame was lost",
                "sent  checkpoints  acknowledged",
                "50           12            36",
                "in flight  credit  lost",
                "2     256     0",
                "21.5  90.3  412.0             1200  99000                    0      0",
                "flows became known to a peer: 48; half within 70.5 us, 99 % within 120.0 us, all within 131.2 us",
                "flows whose first packet was held: 9; half within 60.0 us",
            ],
        ),
        (
            "events",
            &["2023-11-14T22:13:20.123456Z", "promoted: node 2 was not heard for 50 ms (for 50007 us)"],
        ),
        (
            "ports",
            &[
                "client",
                "up",
                "source of TCP and UDP; 2 queues, 128 buckets",
                "rss of server: software: it offers no RSS",
                "one queue",
            ],
        ),
        ("pools", &["web", "10.2.0.10:80"]),
    ] {
        let table = prints(&[word], &socket);
        for expected in words {
            assert!(table.contains(expected), "baton {word} lacks {expected:?}:\n{table}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&prints(&[word, "--json"], &socket)).expect("JSON");
        assert!(json.is_object(), "{json}");
    }
    let status: StatusReport =
        serde_json::from_str(&prints(&["status", "--json"], &socket)).expect("a report");
    assert_eq!(status, Fake::default().status(), "JSON carries the whole report");
    let mirror: MirrorReport =
        serde_json::from_str(&prints(&["mirror", "--json"], &socket)).expect("a report");
    assert_eq!(mirror, Fake::default().mirror(), "JSON carries the whole report");
}

#[test]
fn flows_are_filtered_by_the_appliance() {
    let scratch = Scratch::new("filter");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    let listed = |words: &[&str]| -> FlowReport {
        serde_json::from_str(&prints(&[&["flows", "--json"], words].concat(), &socket)).expect("a report")
    };
    assert_eq!(listed(&[]).flows, flows());
    assert_eq!(listed(&["--client", "fd01::7"]).flows, [flow("[fd01::7]:1025", false)]);
    let [_, _, waiting] = flows();
    assert_eq!(listed(&["--unprotected"]).flows, [waiting], "what is left out lacks no protection");
    assert_eq!(listed(&["--server", "10.2.0.11"]).flows.len(), 0);
    assert_eq!(listed(&["--virtual-server", "dns"]).flows.len(), 0);
    let cut = listed(&["--limit", "1"]);
    assert_eq!((cut.flows.len(), cut.matching), (1, 3));
    assert_eq!(baton(&["flows", "--limit", "10001"], &socket).status.code(), Some(2));
    assert_eq!(baton(&["flows", "--client", "nobody"], &socket).status.code(), Some(2));
}

#[test]
fn an_operator_chooses_whether_a_flow_is_mirrored_or_hears_why_not() {
    let scratch = Scratch::new("choice");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    let words = |choice| ["flows", "mirror", choice, "tcp", "10.1.0.7:1024", "10.1.0.100:80"];
    assert_eq!(prints(&words("off"), &socket), "Off 10.1.0.7:1024 to 10.1.0.100:80\n");
    assert_eq!(
        prints(&["flows", "mirror", "on", "udp", "[fd01::7]:1", "[fd01::100]:2"], &socket),
        "On [fd01::7]:1 to [fd01::100]:2\n"
    );
    let refused = baton(&words("auto"), &socket);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "baton: there is no such flow\n");
    let mixed = baton(&["flows", "mirror", "on", "tcp", "10.1.0.7:1024", "[fd01::100]:80"], &socket);
    assert_eq!(mixed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&mixed.stderr).contains("both of IPv4, or both of IPv6"));
    for wrong in [
        &["flows", "mirror", "maybe", "tcp", "10.1.0.7:1024", "10.1.0.100:80"][..],
        &["flows", "mirror", "on", "tcp", "10.1.0.7", "10.1.0.100:80"],
        &["flows", "mirror", "on", "tcp", "10.1.0.7:1024"],
        &["flows", "--unprotected", "mirror", "on", "tcp", "10.1.0.7:1024", "10.1.0.100:80"],
    ] {
        assert_eq!(baton(wrong, &socket).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_switchover_is_done_or_refused_with_a_sentence() {
    let scratch = Scratch::new("switchover");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    assert_eq!(prints(&["switchover"], &socket), "node 2 leads\n");
    let refused = baton(&["switchover"], &socket);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "baton: this appliance does not lead\n");
}

#[test]
fn maintenance_begins_and_ends_or_is_refused_with_a_sentence() {
    let scratch = Scratch::new("maintenance");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    let refused = baton(&["maintenance", "on"], &socket);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "baton: no standby is in sync\n");
    assert_eq!(prints(&["maintenance", "on", "--force"], &socket), "it is under maintenance\n");
    assert_eq!(prints(&["maintenance", "off"], &socket), "it is in service\n");
    for wrong in [&["maintenance"][..], &["maintenance", "perhaps"], &["maintenance", "off", "--force"]] {
        assert_eq!(baton(wrong, &socket).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_promotion_is_done_or_refused_with_a_sentence() {
    let scratch = Scratch::new("promote");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    assert_eq!(prints(&["promote"], &socket), "it leads in term 4.1\n");
    let refused = baton(&["promote"], &socket);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "baton: it leads already\n");
}

#[test]
fn shards_are_moved_as_they_are_named_or_refused_with_a_sentence() {
    let scratch = Scratch::new("rebalance");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    assert!(prints(&["rebalance"], &socket).starts_with("no shard is to be moved\n"));
    let one = prints(&["rebalance", "--shard", "7", "--to", "2", "--dry-run"], &socket);
    assert!(one.starts_with("shard 7 would go from worker 0 to worker 2, with 9 flows\n"), "{one}");
    let refused = baton(&["rebalance", "--shard", "256", "--to", "2"], &socket);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "baton: there is no such shard\n");
    assert_eq!(baton(&["rebalance", "--shard", "7"], &socket).status.code(), Some(2));
}

#[test]
fn a_reload_says_what_changed_and_whose_fault_it_is_when_nothing_did() {
    let scratch = Scratch::new("reload");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    let text = prints(&["reload"], &socket);
    assert_eq!(text, "configuration 2\n  pool web: server 10.2.0.10:80: weight 3, was 1\n");
    let wrong = baton(&["reload"], &socket);
    assert_eq!(wrong.status.code(), Some(2));
    let told = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(told, "baton: a.toml has an error:\n  a.toml:3: eal.buffers\n");
    assert_eq!(baton(&["reload"], &socket).status.code(), Some(1));
}

#[test]
fn asking_where_nobody_listens_fails() {
    let scratch = Scratch::new("nobody");
    let output = baton(&["status"], &scratch.socket());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no baton answers on"));
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
    let scratch = Scratch::new("mode");
    let socket = scratch.0.join("made").join("baton.sock");
    let server = Server::control(&socket, fake()).expect("it makes the directory");
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(server);
    assert!(!socket.exists());
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_stale_one_is_replaced() {
    let scratch = Scratch::new("stale");
    let socket = scratch.socket();
    let first = Server::control(&socket, fake()).expect("it listens");
    assert!(matches!(Server::control(&socket, fake()), Err(ServeError::InUse(_))));
    assert!(prints(&["status"], &socket).contains("baton-a"), "the first still answers");
    drop(first);
    // A listener that dies without cleaning up leaves its file behind.
    drop(UnixListener::bind(&socket).expect("it binds"));
    assert!(socket.exists());
    let second = Server::control(&socket, fake()).expect("nobody listened any more");
    assert!(prints(&["status"], &socket).contains("baton-a"));
    drop(second);
    std::fs::write(&socket, "precious").expect("it is written");
    assert!(matches!(Server::control(&socket, fake()), Err(ServeError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&socket).expect("it is there"), "precious");
}

#[test]
fn what_is_not_a_request_of_the_interface_is_refused_and_harms_nobody() {
    let scratch = Scratch::new("refused");
    let socket = scratch.socket();
    let _server = Server::control(&socket, fake()).expect("it listens");
    let status_of = |bytes: &[u8]| -> String {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        stream.write_all(bytes).expect("it is read");
        let mut answer = String::new();
        // The server closes with unread bytes in its queue when a request is too large.
        drop(stream.read_to_string(&mut answer));
        answer.lines().next().unwrap_or("").to_owned()
    };
    assert_eq!(status_of(b"\x00\x01\x02\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(status_of(b"GET /v1/nothing HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status_of(b"GET /v1/switchover HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status_of(b"GET /v1/promote HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status_of(b"GET /v1/reload HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status_of(b"POST /v1/status HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status_of(b"GET /v1/flows?limit=x HTTP/1.1\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    let long = [&b"GET /"[..], &[b'a'; 4096 - 5]].concat();
    assert_eq!(status_of(&long), "HTTP/1.1 413 Content Too Large");
    // Connections that say nothing are given up, so that the next is served.
    let _silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    assert!(prints(&["status"], &socket).contains("baton-a"));
    let refused = ask::<StatusReport>(&socket, "GET", "/v1/nothing");
    assert!(matches!(refused, Err(AskError::Refused(404, _))));
}

#[test]
fn metrics_are_served_on_tcp_and_nothing_else_is() {
    let server = Server::metrics("127.0.0.1:0".parse().expect("an address"), fake()).expect("it listens");
    let get = |path: &str| -> String {
        let mut stream = TcpStream::connect(server.address().expect("it is TCP")).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: baton\r\n\r\n").expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    let page = get("/metrics");
    for line in [
        "Content-Type: text/plain; version=0.0.4; charset=utf-8",
        "# TYPE baton_rx_packets_total counter",
        "baton_rx_packets_total{owner=\"worker0\"} 40",
        "baton_rx_packets_total{owner=\"worker1\"} 2",
        "baton_role{role=\"active\"} 1",
        "baton_role{role=\"standby\"} 0",
        "baton_flows_unprotected 1",
        "baton_flows_left_out 5",
        "baton_worker_load_percent{worker=\"0\"} 42.5",
        "baton_worker_cycles_per_packet{worker=\"0\"} 131",
        "baton_worker_busy_microseconds_total{worker=\"0\"} 425000",
        "baton_worker_empty_microseconds_total{worker=\"0\"} 575000",
        "baton_worker_busy_turns_total{worker=\"0\"} 400",
        "baton_worker_turns_total{worker=\"0\"} 900",
        "baton_worker_packets_total{worker=\"0\"} 8435000",
        "baton_peer_in_sync{node=\"2\"} 1",
        "baton_peer_same_services{node=\"2\"} 0",
        "baton_port_rss{port=\"client\"} 1",
        "baton_port_rss{port=\"server\"} 0",
        "baton_peer_state{node=\"2\",state=\"walking\"} 1",
        "baton_peer_flows_unprotected{node=\"2\"} 31",
        "baton_peer_unprotected_oldest_milliseconds{node=\"2\"} 4",
        "baton_peer_shards_differing{node=\"2\"} 1",
        "baton_peer_differences_total{node=\"2\"} 3",
        "baton_peer_credit{node=\"2\"} 256",
        "baton_peer_frames_in_flight{node=\"2\"} 2",
        "baton_peer_sent_bytes_per_second{node=\"2\"} 99000",
        "baton_peer_unprotected_oldest_milliseconds{node=\"3\"} 6",
        "baton_peer_records_sent_total{node=\"2\"} 50",
        "baton_peer_checkpoints_sent_total{node=\"2\"} 12",
        "baton_peer_acknowledgement_microseconds{node=\"2\",quantile=\"0.99\"} 90.3",
        "baton_hold_microseconds_bucket{le=\"100\"} 8",
        "baton_hold_microseconds_bucket{le=\"+Inf\"} 9",
    ] {
        assert!(page.lines().any(|l| l.trim_end() == line), "no line {line:?} in\n{page}");
    }
    assert!(!page.contains("baton_port_rss{port=\"mirror\"}"), "one queue has nothing to spread:\n{page}");
    let of_all = "baton_peer_flows_unprotected{node=\"3\"}";
    assert!(!page.contains(of_all), "it is told of a part alone:\n{page}");
    assert!(get("/v1/status").starts_with("HTTP/1.1 404 "));
    assert!(get("/v1/switchover").starts_with("HTTP/1.1 404 "));
    assert!(get("/v1/promote").starts_with("HTTP/1.1 404 "));
}
