//! Somebody on the appliances' LANs who has recorded what they said, and forges more: refused, counted and named, and neither
//! the lead nor a connection is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use baton::base::ids::{BootId, GroupId, NodeId, Term};
use baton::failover::Role as Leading;
use baton::failover::heartbeat::{self, Beat, Kind};
use baton::seal::{Key, MemberInfo, Mirroring, Session, StreamId};
use baton::wire::MacAddress;
use netns_harness::appliance::Role;
use netns_harness::capture::{Capture, Depth, Direction};
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::inject::{Injector, frames};
use netns_harness::plan::Link;
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage, counter};
use netns_harness::{Context, Result, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(180);

/// What an appliance counts and says of the other one.
struct Told {
    counters: serde_json::Value,
    status: String,
    mirror: String,
    log: String,
}

fn told(stage: &mut Stage, index: usize) -> Result<Told> {
    Ok(Told {
        counters: stage.pair[index].ask("counters")?,
        status: stage.pair[index].command(&["status"])?,
        mirror: stage.pair[index].command(&["mirror"])?,
        log: stage.pair[index].process()?.log(),
    })
}

/// Waits until an appliance has counted more of this than before, and names it in log, status and `baton mirror`.
fn names(stage: &mut Stage, index: usize, before: &Told, counted: &[&str], words: &str) -> Result<()> {
    let more = |now: &Told| -> Result<bool> {
        let mut risen =
            counted.iter().map(|name| Ok(counter(&now.counters, name)? > counter(&before.counters, name)?));
        risen.try_fold(true, |all, more: Result<bool>| Ok(all && more?))
    };
    let what = format!("appliance {index} to count {counted:?} and to name {words:?}");
    wait_until(&what, ROLES_LIMIT, || {
        let now = told(stage, index)?;
        Ok(more(&now)? && [&now.status, &now.mirror, &now.log].into_iter().all(|text| text.contains(words)))
    })
}

/// One that has led since before goes on, with no other one beside it.
fn leads_on(stage: &Stage, index: usize) -> Result<()> {
    ensure!(stage.pair[index].role()? == Role::Active, "appliance {index} does not lead any more");
    ensure!(stage.pair[1 - index].role().ok() != Some(Role::Active), "both lead");
    Ok(())
}

/// Of the frames that an appliance sent to the other one: those of liveness, of this kind.
fn liveness(all: &[Vec<u8>], kind: Kind) -> Vec<Vec<u8>> {
    let is_it = |frame: &&Vec<u8>| heartbeat::parse(&mut frame.to_vec()).is_some_and(|it| it.kind == kind);
    all.iter().filter(is_it).cloned().collect()
}

/// The rest that goes to the other one over IPv4: mirror frames.
fn mirrored(all: &[Vec<u8>]) -> Vec<Vec<u8>> {
    all.iter()
        .filter(|frame| frame.get(12..14) == Some(&[8, 0][..]) && frame.get(23) == Some(&17))
        .cloned()
        .collect()
}

/// A claim to a much higher term in the name of the sender of a recorded beat, under the same session, by someone who does not have
/// its key.
fn forged(beat: &[u8], number: u64) -> Result<Vec<u8>> {
    let mut recorded = beat.to_vec();
    let envelope = heartbeat::parse(&mut recorded).context("no liveness frame")?;
    let (from, to) = (envelope.from, envelope.to);
    let (session, stream) = envelope.beat_of().context("no beat")?;
    let member = |node: NodeId| MemberInfo {
        group: GroupId(0),
        node,
        boot: BootId(1),
        version_min: 1,
        version_max: 1,
        capabilities: 0,
        workers: 1,
        shards: 256,
        hash_keys: 1,
        udp_port: 1,
        generation: 1,
        mirroring: Mirroring::default(),
    };
    let claim = Beat {
        group: GroupId(0),
        node: from,
        boot: BootId(1),
        beat: 1 << 40,
        echo: 0,
        term: Term { counter: 1 << 30, node: from },
        role: Leading::Active,
        priority: 255,
        in_sync: false,
        preempts: true,
        can_lead: true,
        maintenance: false,
        successor: NodeId(0),
        members: baton::failover::Members::NONE,
        leader_age_us: 0,
        hears: u16::MAX,
        edition: baton::config::mirrored::Edition::default(),
        failed: 0,
    };
    let (stranger, _) = Session::agree_in_memory(member(from), member(to)).context("no entropy")?;
    let mac = MacAddress(beat[6..12].try_into()?);
    let mut frame = heartbeat::beat_frame(mac, from, to, session, stream, &claim.encode());
    let (header, content) = heartbeat::beat_parts_mut(&mut frame);
    let mut sealer = stranger.sealer(StreamId(stream.0)).context("no sealer")?;
    sealer.seal_in_place(header, content).map_err(|_| netns_harness::anyhow!("it does not seal"))?;
    // Above all that were accepted, so that it is opened, and not taken for an old one.
    frame[34..42].copy_from_slice(&number.to_be_bytes());
    Ok(frame.to_vec())
}

fn send(injector: &Injector, frames: &[Vec<u8>]) -> Result<()> {
    injector.send(frames.iter().map(Vec::as_slice))
}

/// What the standby-to-be sends while the lead goes to it and comes back.
fn record(stage: &Stage, index: usize) -> Result<Vec<Vec<u8>>> {
    let side = stage.pair[index].side();
    let capture = Capture::start(&stage.world, side, Link::Mirror, Direction::Sent, Depth::Whole)?;
    for (from, to) in [(1 - index, index), (index, 1 - index)] {
        stage.pair[from].command(&["switchover"])?;
        stage.pair[to].wait_role(Role::Active, ROLES_LIMIT)?;
        stage.pair[to].wait_synchronized(ROLES_LIMIT)?;
    }
    // What is said then is recorded too.
    std::thread::sleep(Duration::from_secs(1));
    frames(&capture.stop()?.file)
}

/// Gives the standby a key of its own, as an operator does who mistook one file for another.
fn mistake_the_key(stage: &Stage, index: usize) -> Result<()> {
    let paths = stage.pair[index].paths();
    let wrong = paths.config.with_file_name("wrong.key");
    fs::write(&wrong, Key::generate().context("no entropy")?.to_text())?;
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600))?;
    let text = fs::read_to_string(&paths.config)?;
    ensure!(text.contains("mirror.key"), "{text}");
    Ok(fs::write(&paths.config, text.replace("mirror.key", "wrong.key"))?)
}

#[test]
fn forged_and_recorded_frames_and_a_wrong_key_are_refused_counted_and_named() -> Result<()> {
    let _one = one_at_a_time();
    // One that hears nobody it believes does not lead.
    let settings = Settings { partition: "safety", ..Settings::default() };
    on_stage(&settings, |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        let (node, side) = (stage.pair[standby].side().node(), stage.pair[active].side());
        let downloads = through_virtual_servers(&stage.web, FILE.0, "8k", 4)?;
        let downloads = Downloads::start(&stage.world, downloads, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.01))?;
        let recorded = record(stage, standby)?;
        let (beats, mirrored) = (liveness(&recorded, Kind::Beat), mirrored(&recorded));
        ensure!(beats.len() > 200 && mirrored.len() > 10, "{} beats, {} frames", beats.len(), mirrored.len());
        let injector = Injector::new(&stage.world, side, Link::Mirror)?;

        // The promotion that was recorded, and all that was mirrored under it.
        let before = told(stage, active)?;
        send(&injector, &beats)?;
        let again = format!("at port 2 in the name of node {node} are refused: accepted before");
        names(stage, active, &before, &["liveness_replayed"], &again)?;
        // More often than a network doubles frames by itself.
        for _ in 0..3 {
            send(&injector, &mirrored)?;
        }
        let again = format!("mirror frames in the name of node {node} are refused: accepted before");
        names(stage, active, &before, &["mirror_refused"], &again)?;
        leads_on(stage, active)?;

        // A promotion that nobody said: with another key, and with bits changed.
        let before = told(stage, active)?;
        let newest = beats.last().context("a beat")?;
        let claims = (0..20).map(|n| forged(newest, (1 << 20) + n)).collect::<Result<Vec<_>>>()?;
        send(&injector, &claims)?;
        let changed = |(at, frame): (usize, &Vec<u8>)| {
            let mut frame = frame.clone();
            // The sequence, so that it is none that was accepted, and a bit of what is sealed.
            (frame[38], frame[42 + at % 80]) = (1, frame[42 + at % 80] ^ 0x10);
            frame
        };
        send(&injector, &beats.iter().rev().take(50).enumerate().map(changed).collect::<Vec<_>>())?;
        let not_sealed = format!("at port 2 in the name of node {node} are refused: not sealed with");
        names(stage, active, &before, &["liveness_forged"], &not_sealed)?;
        let changed: Vec<_> = mirrored
            .iter()
            .map(|frame| {
                let mut frame = frame.clone();
                // The sequence of the mirror's header, behind Ethernet, IPv4 and UDP; its checksum is not looked at.
                (frame[42 + 78], frame[40], frame[41]) = (1, 0, 0);
                frame
            })
            .collect();
        send(&injector, &changed)?;
        let not_sealed = format!("mirror frames in the name of node {node} are refused: not sealed with");
        names(stage, active, &before, &["mirror_refused"], &not_sealed)?;
        leads_on(stage, active)?;

        // The same recording when its session is over.
        ensure!(stage.pair[standby].terminate(ROLES_LIMIT)?.success(), "it ended badly");
        stage.revive(standby)?;
        std::thread::sleep(Duration::from_secs(2));
        let before = told(stage, active)?;
        send(&injector, &recorded)?;
        send(&injector, &liveness(&recorded, Kind::Hello))?;
        let over = format!("in the name of node {node} are refused: of a session that is over");
        names(stage, active, &before, &["liveness_unknown_session", "mirror_unknown_peer"], &over)?;
        leads_on(stage, active)?;
        ensure!(stage.pair[active].synchronized()?, "the standby is not in sync any more");

        // A peer with a wrong key.
        ensure!(stage.pair[standby].terminate(ROLES_LIMIT)?.success(), "it ended badly");
        mistake_the_key(stage, standby)?;
        let before = told(stage, active)?;
        stage.pair[standby].start()?;
        let unproven = format!("speaks as node {node} without");
        names(stage, active, &before, &["handshake_forged"], &unproven)?;
        let there = told(stage, standby)?;
        let other = format!("speaks as node {} without", stage.pair[active].side().node());
        ensure!(there.status.contains(&other), "{}", there.status);
        leads_on(stage, active)?;

        let outcomes = downloads.finish(LIMIT)?;
        ensure!(outcomes.len() == 4 && outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
        leads_on(stage, active)
    })
}
