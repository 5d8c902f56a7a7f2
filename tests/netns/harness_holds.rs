//! The harness itself, with a plain Linux router where an appliance will be: it
//! sees what is there, and does not see what is not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netns_harness::capture::{Capture, Depth, Direction, stop_all};
use netns_harness::command::wait_until;
use netns_harness::config::{self, Settings};
use netns_harness::downloads::{Downloads, Outcome, Request};
use netns_harness::probe::{Echo, Probe};
use netns_harness::process::Process;
use netns_harness::web::Web;
use netns_harness::{Link, Result, Side, World, analysis, appliance, cleanup, dns, plan};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::one_at_a_time;
use crate::router::{self, ACK, Checksum, RST, Tcp};

const LIMIT: Duration = Duration::from_secs(60);

fn request(web: &Web, server: &str, file: &str, rate: &str) -> Result<Request> {
    let (length, checksum) = web.file(file)?;
    let url = format!("http://{server}/{file}?rate={rate}");
    Ok(Request { kind: server.to_owned(), url, length, checksum })
}

/// Each of both servers over both families, equally often.
fn requests(web: &Web, file: &str, rate: &str, count: usize) -> Result<Vec<Request>> {
    let servers = ["10.2.0.10", "10.2.0.11", "[fd02::10]", "[fd02::11]"];
    servers.iter().cycle().take(count).map(|server| request(web, server, file, rate)).collect()
}

#[test]
fn twenty_downloads_through_a_router_arrive_whole_and_their_capture_is_clean() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(2)?;
    router::route(&world, Side::A)?;
    let web = Web::start(&world, &[("file", 300_000)])?;
    let captures = vec![
        Capture::start(&world, Side::A, Link::Client, Direction::Both, Depth::Whole)?,
        Capture::start(&world, Side::A, Link::Server, Direction::Both, Depth::Whole)?,
        Capture::start(&world, Side::B, Link::Client, Direction::Sent, Depth::Whole)?,
    ];
    let outcomes = Downloads::start(&world, requests(&web, "file", "", 20)?, LIMIT)?.finish(LIMIT)?;
    let bad: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.whole()).collect();
    assert!(outcomes.len() == 20 && bad.is_empty(), "{bad:#?}");
    let captures = stop_all(captures)?;
    for capture in &captures[..2] {
        assert!(analysis::count(capture, "tcp.len > 0")? > 20 * 100, "the downloads are in the capture");
        assert_eq!(analysis::broken_frames(capture)?, Vec::<String>::new());
        assert_eq!(analysis::resets(capture)?, Vec::<String>::new());
    }
    assert_eq!(analysis::count(&captures[2], "")?, 0, "an idle appliance's kernel says nothing");
    Ok(())
}

#[test]
fn a_download_with_other_content_or_without_its_end_is_not_whole() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    router::route(&world, Side::A)?;
    let mut web = Web::start(&world, &[("file", 1_000_000)])?;
    let mut other = request(&web, "10.2.0.10", "file", "")?;
    other.checksum = [7; 32];
    let outcomes = Downloads::start(&world, vec![other], LIMIT)?.finish(LIMIT)?;
    assert!(outcomes[0].exit == 0 && !outcomes[0].whole(), "{outcomes:?}");

    let slow = request(&web, "10.2.0.10", "file", "100k")?;
    let downloads = Downloads::start(&world, vec![slow], LIMIT)?;
    wait_until("a part of it", LIMIT, || Ok(downloads.progress()[0] > 0.05))?;
    assert!(downloads.progress()[0] < 0.9, "the throttle holds");
    web.processes()[0].kill()?;
    let outcomes = downloads.finish(LIMIT)?;
    assert!(outcomes[0].exit != 0 && !outcomes[0].whole(), "{outcomes:?}");
    Ok(())
}

#[test]
fn a_bad_checksum_and_a_reset_are_found() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    router::place_on_client_network(&world, Side::A)?;
    let capture = Capture::start(&world, Side::A, Link::Client, Direction::Sent, Depth::Whole)?;
    let (from, to) = (plan::client4(Side::A.host()), plan::client4(plan::CLIENT_HOST));
    router::send(&world, "a", &Tcp { from, to, flags: RST, checksum: Checksum::Right })?;
    router::send(&world, "a", &Tcp { from, to, flags: ACK, checksum: Checksum::ZeroAsOnes })?;
    let clean = capture.stop()?;
    assert_eq!(analysis::broken_frames(&clean)?, Vec::<String>::new());
    assert_eq!(analysis::resets(&clean)?.len(), 1);
    assert_eq!(analysis::count(&clean, "tcp.checksum == 0xffff")?, 1, "it is there, and good");

    let capture = Capture::start(&world, Side::A, Link::Client, Direction::Sent, Depth::Whole)?;
    router::send(&world, "a", &Tcp { from, to, flags: RST, checksum: Checksum::Wrong })?;
    let broken = capture.stop()?;
    assert_eq!(analysis::broken_frames(&broken)?.len(), 1);
    Ok(())
}

#[test]
fn a_second_sender_of_a_virtual_address_is_found() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    for side in Side::BOTH {
        router::place_on_client_network(&world, side)?;
    }
    let service =
        |from| Tcp { from, to: plan::client4(plan::CLIENT_HOST), flags: ACK, checksum: Checksum::Right };
    let virtual_address = plan::client4(plan::VIRTUAL_NAT_HOST);
    let start = |side| Capture::start(&world, side, Link::Client, Direction::Sent, Depth::Headers);

    // The old one sends, then the new one; the old one says only what is its own.
    let (old, new) = (start(Side::A)?, start(Side::B)?);
    router::send(&world, "a", &service(virtual_address))?;
    router::send(&world, "b", &service(virtual_address))?;
    router::send(&world, "a", &service(plan::client4(Side::A.host())))?;
    let clean = analysis::hand_over(&[old.stop()?], &[new.stop()?], 0.0)?;
    assert_eq!(clean.late, vec![]);

    let (old, new) = (start(Side::A)?, start(Side::B)?);
    router::send(&world, "b", &service(virtual_address))?;
    router::send(&world, "a", &service(virtual_address))?;
    let double = analysis::hand_over(&[old.stop()?], &[new.stop()?], 0.0)?;
    assert_eq!(double.late.len(), 1, "{double:?}");
    assert!(double.late[0].source.contains(&virtual_address.to_string()), "{double:?}");
    Ok(())
}

#[test]
fn the_probe_sees_a_cut_of_a_hundred_milliseconds_and_no_other() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    router::route(&world, Side::A)?;
    for address in
        [plan::server4(plan::FIRST_SERVER_HOST).into(), plan::server6(plan::FIRST_SERVER_HOST).into()]
    {
        let address = SocketAddr::new(address, 7);
        let echo = Echo::start(&world, "s1", address)?;
        let probe = Probe::start(&world, address, Duration::from_millis(1))?;
        wait_until("answers", LIMIT, || Ok(echo.answered() > 200))?;
        let begin = Instant::now();
        world.cut(Side::A, Link::Client)?;
        let cut = Instant::now();
        std::thread::sleep(Duration::from_millis(100));
        let least = cut.elapsed();
        world.mend(Side::A, Link::Client)?;
        let before = echo.answered();
        wait_until("answers again", LIMIT, || Ok(echo.answered() > before + 200))?;
        let most = begin.elapsed();
        let report = probe.finish()?;
        assert!(
            report.largest_gap >= least && report.largest_gap <= most,
            "{least:?} to {most:?}: {report:?}"
        );
        assert!(report.sent - report.answered >= 50, "what was sent meanwhile is lost: {report:?}");
    }
    Ok(())
}

#[test]
fn every_question_is_answered_and_a_cut_link_answers_none() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(2)?;
    router::route(&world, Side::A)?;
    let _servers = dns::start_servers(&world)?;
    for host in [plan::server4(10).into(), plan::server6(11).into()] {
        let answers = dns::Load::start(&world, host, 2, 200)?.finish(LIMIT)?;
        assert_eq!(answers, dns::Answers { right: 400, unanswered: 0, other: 0 });
    }
    world.cut(Side::A, Link::Server)?;
    let answers = dns::Load::start(&world, plan::server4(10).into(), 2, 1)?.finish(LIMIT)?;
    assert_eq!((answers.right, answers.unanswered), (0, 2));
    Ok(())
}

#[test]
fn the_configurations_written_for_a_pair_are_good() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(2)?;
    config::write(&world, &Settings::default())?;
    for side in Side::BOTH {
        let path = config::paths(&world, side).config;
        let text = std::fs::read_to_string(&path)?;
        match baton::config::load_with_warnings(&path, &text) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings:?}"),
            Err(errors) => panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>()),
        }
    }
    Ok(())
}

#[test]
fn what_an_appliance_says_is_understood() {
    use baton::control::report::{MirrorPeerReport, MirrorReport, MirrorState};
    use baton::failover::role::Role;
    let role = |role: Role| appliance::role_in(&serde_json::json!({ "role": role }));
    assert_eq!(role(Role::Active), appliance::Role::Active);
    assert_eq!(role(Role::Standby), appliance::Role::Standby);
    for other in [Role::Booting, Role::Installing, Role::Silenced] {
        assert_eq!(role(other), appliance::Role::Neither);
    }
    let synchronized = |peers: &[(MirrorState, bool)]| {
        let peer = |(state, in_sync): &(MirrorState, bool)| MirrorPeerReport {
            state: *state,
            in_sync: *in_sync,
            ..MirrorPeerReport::default()
        };
        let report = MirrorReport { peers: peers.iter().map(peer).collect(), ..MirrorReport::default() };
        appliance::synchronized_in(&serde_json::to_value(report).expect("JSON"))
    };
    assert!(synchronized(&[(MirrorState::Synchronized, true)]));
    for not in [(MirrorState::Synchronized, false), (MirrorState::Walking, true), (MirrorState::Down, false)]
    {
        assert!(!synchronized(&[not]) && !synchronized(&[(MirrorState::Synchronized, true), not]), "{not:?}");
    }
    assert!(!synchronized(&[]), "alone");
}

#[test]
fn two_worlds_stand_side_by_side_and_leave_nothing() -> Result<()> {
    let _one = one_at_a_time();
    let (first, second) = (World::new(1)?, World::new(2)?);
    let sleeper = Process::spawn(first.directory(), &first.namespace("a"), "sleep", "sleep", &["1000"])?;
    let (prefixes, directory) =
        ([first.prefix().to_owned(), second.prefix().to_owned()], first.directory().to_owned());
    assert_eq!(cleanup::namespaces_of(&prefixes[0]).len(), 5);
    assert_eq!(cleanup::namespaces_of(&prefixes[1]).len(), 6);
    drop(first);
    assert_eq!(cleanup::namespaces_of(&prefixes[0]), Vec::<String>::new());
    assert!(!directory.exists());
    assert!(!cleanup::runs(sleeper.pid() as i32), "what ran inside is gone too");
    assert_eq!(cleanup::namespaces_of(&prefixes[1]).len(), 6, "the other world is untouched");
    drop(second);
    assert_eq!(cleanup::namespaces_of(&prefixes[1]), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_panic_leaves_the_logs_and_nothing_else() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    let (prefix, directory) = (world.prefix().to_owned(), world.directory().to_owned());
    let panicked = std::thread::spawn(move || {
        let _world = world;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.join().is_err());
    assert_eq!(cleanup::namespaces_of(&prefix), Vec::<String>::new());
    let kept = directory.with_extension("failed");
    assert!(kept.is_dir() && !directory.exists());
    std::fs::remove_dir_all(kept)?;
    Ok(())
}

/// Names the file in which the held world's prefix is told to the test that ends this process.
const HOLD: &str = "NETNS_HOLD_A_WORLD";

/// Runs twice: as a test, it starts itself as another process that holds a world, and ends that process.
#[test]
fn sigterm_leaves_nothing_and_what_sigkill_leaves_is_swept() -> Result<()> {
    if let Ok(tell) = std::env::var(HOLD) {
        return hold(Path::new(&tell));
    }
    let _one = one_at_a_time();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let tell = std::env::temp_dir().join(format!("bt-hold-{}", std::process::id()));
        let mut holder = Command::new(std::env::current_exe()?)
            .args(["--exact", "harness_holds::sigterm_leaves_nothing_and_what_sigkill_leaves_is_swept"])
            .env(HOLD, &tell)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        wait_until("the other process's world", LIMIT, || Ok(tell.exists()))?;
        let told = std::fs::read_to_string(&tell)?;
        std::fs::remove_file(&tell)?;
        let mut told = told.lines();
        let (Some(prefix), Some(directory), Some(inside)) = (told.next(), told.next(), told.next()) else {
            panic!("the holder said too little");
        };
        let (directory, inside): (PathBuf, u32) = (directory.into(), inside.parse()?);
        assert_eq!(cleanup::namespaces_of(prefix).len(), 5);
        kill(Pid::from_raw(holder.id() as i32), signal)?;
        holder.wait()?;
        wait_until("the end of what ran inside", LIMIT, || Ok(!cleanup::runs(inside as i32)))?;
        if signal == Signal::SIGKILL {
            assert_eq!(cleanup::namespaces_of(prefix).len(), 5, "nobody could clean up");
            drop(World::new(1)?);
        }
        assert_eq!(cleanup::namespaces_of(prefix), Vec::<String>::new(), "after {signal}");
        assert!(!directory.exists(), "after {signal}");
    }
    Ok(())
}

fn hold(tell: &Path) -> Result<()> {
    let world = World::new(1)?;
    let sleeper = Process::spawn(world.directory(), &world.namespace("a"), "sleep", "sleep", &["1000"])?;
    let told = format!("{}\n{}\n{}\n", world.prefix(), world.directory().display(), sleeper.pid());
    let part = tell.with_extension("part");
    std::fs::write(&part, told)?;
    std::fs::rename(part, tell)?;
    std::thread::sleep(LIMIT);
    Ok(())
}
