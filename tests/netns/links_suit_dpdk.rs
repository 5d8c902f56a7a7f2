//! The links of a world with DPDK's own test program in an appliance's place: what passes through packet sockets
//! arrives whole.

use std::time::Duration;

use netns_harness::capture::{Capture, Depth, Direction, stop_all};
use netns_harness::command::ip;
use netns_harness::downloads::{Downloads, Outcome, Request};
use netns_harness::process::Process;
use netns_harness::web::Web;
use netns_harness::{Link, Result, Side, World, analysis};

use crate::one_at_a_time;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn downloads_through_testpmd_as_a_wire_arrive_whole() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    let web = Web::start(&world, &[("file", 300_000)])?;
    // Through a wire, client and server are neighbours.
    ip(&world.namespace("client"), "addr add 10.2.0.50/24 dev eth0\naddr add fd02::50/64 dev eth0 nodad\n")?;
    let device = |number: u32, link: Link| format!("net_af_packet{number},iface={}", link.interface(Side::A));
    let (client, server) = (device(0, Link::Client), device(1, Link::Server));
    // Without hugepages, so that this does not depend on what others have reserved.
    let args = [
        "-oL",
        "dpdk-testpmd",
        "--lcores",
        "0@0,1@0",
        "--no-pci",
        "--no-huge",
        "-m",
        "128",
        "--no-telemetry",
        "--file-prefix",
        world.prefix(),
        "--vdev",
        &client,
        "--vdev",
        &server,
        "--",
        "--forward-mode=io",
        "--total-num-mbufs=8192",
        // With a period it runs until a signal, not until the end of its input.
        "--stats-period=1",
    ];
    let mut testpmd = Process::spawn(world.directory(), &world.namespace("a"), "testpmd", "stdbuf", &args)?;
    testpmd.wait_ready(LIMIT, |process| Ok(process.log().contains("start packet forwarding")))?;

    let captures = Link::ALL[..2]
        .iter()
        .map(|link| Capture::start(&world, Side::A, *link, Direction::Both, Depth::Whole));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    let (length, checksum) = web.file("file")?;
    let request = |server: &str| Request {
        kind: server.to_owned(),
        url: format!("http://{server}/file"),
        length,
        checksum,
    };
    let requests =
        ["10.2.0.10", "[fd02::10]"].iter().cycle().take(10).map(|server| request(server)).collect();
    let outcomes = Downloads::start(&world, requests, LIMIT)?.finish(LIMIT)?;
    let bad: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.whole()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    for capture in stop_all(captures)? {
        assert!(analysis::count(&capture, "tcp.len > 0")? > 10 * 100, "the downloads are in the capture");
        assert_eq!(analysis::broken_frames(&capture)?, Vec::<String>::new());
    }
    Ok(())
}
