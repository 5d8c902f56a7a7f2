//! VRRP, with keepalived as another router of the same virtual router.

use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::capture::{Capture, Captured, Depth, Direction, stop_all};
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::keepalived::Keepalived;
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage, counter};
use netns_harness::stall::StallWatch;
use netns_harness::{Link, Result, Side, World, analysis, ensure};

use crate::{on_stage, one_at_a_time};

/// Lower than that of either appliance.
const LOWER: u8 = 50;
/// Longer than a backup waits: three intervals of a second, and (256 - 50) / 256 of one more (RFC 9568 section 6.1).
const SILENCE: Duration = Duration::from_millis(4500);
/// Two heartbeat intervals.
const DEAF: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(15);

fn captures(world: &World) -> Result<Vec<Capture>> {
    let of = |side| {
        let filter = "ip proto 112 or ip6 proto 112 or arp";
        Capture::start_filtered(world, side, Link::Client, Direction::Sent, Depth::Whole, filter)
    };
    Side::BOTH.into_iter().map(of).collect()
}

/// tshark finds nothing to complain of in what the appliances advertised, and every checksum right.
fn judge(captures: &[Captured]) -> Result<usize> {
    let mut all = 0;
    for capture in captures {
        let count = |filter: &str| analysis::count(capture, filter);
        let advertised = count("vrrp")?;
        all += advertised;
        ensure!(count("vrrp and vrrp.checksum.status == 1")? == advertised, "a checksum is not verified");
        ensure!(count("vrrp and (_ws.expert or _ws.malformed)")? == 0, "tshark complains");
        ensure!(count("vrrp and ip and not (ip.ttl == 255 and ip.dst == 224.0.0.18)")? == 0, "an address");
        ensure!(
            count("vrrp and ipv6 and not (ipv6.hlim == 255 and ipv6.dst == ff02::12)")? == 0,
            "an address"
        );
        let virtual_mac = "(eth.src == 00:00:5e:00:01:33 or eth.src == 00:00:5e:00:02:33)";
        ensure!(count(&format!("vrrp.prio > 0 and not {virtual_mac}"))? == 0, "from another MAC");
        ensure!(
            count(&format!("vrrp.prio == 0 and {virtual_mac}"))? == 0,
            "a resignation from the virtual MAC"
        );
        ensure!(analysis::broken_frames(capture)?.is_empty(), "a broken frame");
    }
    Ok(all)
}

#[test]
fn keepalived_stays_back_while_anybody_of_the_pair_leads_and_takes_over_afterwards() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let captures = captures(&stage.world)?;
        let keepalived = Keepalived::start(&stage.world, LOWER)?;
        std::thread::sleep(SILENCE);
        let stayed = |when: &str| {
            ensure!(keepalived.promotions() == 0, "it took over {when}:\n{}", keepalived.log());
            Ok(())
        };
        stayed("while the active advertised")?;

        let first = stage.active()?;
        stage.pair[first].command(&["switchover"])?;
        stage.pair[1 - first].wait_role(Role::Active, ROLES_LIMIT)?;
        std::thread::sleep(SILENCE);
        stayed("at a planned role change")?;

        let active = stage.active()?;
        stage.pair[active].kill()?;
        stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
        std::thread::sleep(SILENCE);
        stayed("when one was killed and the other followed")?;

        // The last one leaves in order, and says so: a wait of silence would be three seconds at least.
        let last = 1 - active;
        ensure!(stage.pair[last].terminate(LIMIT)?.success(), "it did not end in order");
        let took = keepalived.wait_promotions(2, LIMIT)?;
        ensure!(took < Duration::from_secs(2), "it waited for {took:?} after the resignation");

        stage.pair[last].start()?;
        stage.pair[last].wait_role(Role::Active, ROLES_LIMIT)?;
        keepalived.wait_backups(4, LIMIT)?;
        std::thread::sleep(Duration::from_millis(1500));
        stage.pair[last].kill()?;
        let took = keepalived.wait_promotions(4, LIMIT)?;
        ensure!(took > Duration::from_millis(1500), "{took:?} is not the wait of silence");

        let captures = stop_all(captures)?;
        let advertised = judge(&captures)?;
        ensure!(advertised > 30, "{advertised} advertisements are in the captures");
        let resigned =
            captures.iter().map(|c| analysis::count(c, "vrrp.prio == 0")).sum::<Result<usize>>()?;
        ensure!(resigned == 4, "{resigned} resignations: two times, in both families");
        // It compares the addresses with its own, too.
        let log = keepalived.log();
        for complaint in ["nvalid", "not present", "mismatch", "isconfig"] {
            ensure!(!log.contains(complaint), "keepalived complains:\n{log}");
        }
        Ok(())
    })
}

#[test]
fn a_rival_of_higher_priority_is_an_alarm_and_the_addresses_are_announced_again() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage: &mut Stage| {
        let active = stage.active()?;
        // The announcements of the takeover are over by then.
        std::thread::sleep(Duration::from_secs(3));
        let captures = captures(&stage.world)?;
        let rival = Keepalived::start(&stage.world, 250)?;
        rival.wait_promotions(2, LIMIT)?;
        let told = || {
            let events = stage.pair[active].ask("events")?;
            let all = events["events"].as_array().cloned().unwrap_or_default();
            Ok(all.iter().any(|event| {
                let text = event["message"].as_str().unwrap_or_default();
                event["kind"] == "rival" && text.contains("priority 250")
            }))
        };
        wait_until("the rival to be told", LIMIT, told)?;
        let counters = stage.pair[active].ask("counters")?;
        ensure!(counter(&counters, "vrrp_rivals")? > 0, "it is not counted");
        stage.still_leads(active)?;
        let standby = stage.pair[1 - active].ask("counters")?;
        ensure!(counter(&standby, "vrrp_rivals")? == 0, "a standby has no rivals");
        ensure!(counter(&standby, "vrrp_heard")? > 0, "the standby hears the active");

        let captures = stop_all(captures)?;
        judge(&captures)?;
        let again = "arp.isgratuitous and arp.src.proto_ipv4 == 10.1.0.100 and eth.src == 00:00:5e:00:01:33";
        let announced = captures.iter().map(|c| analysis::count(c, again)).sum::<Result<usize>>()?;
        ensure!(announced > 0, "the addresses were not announced again");
        Ok(())
    })
}

/// With `failover.vrrp = "yield"`, and a keepalived of more priority than both appliances: it serves while it is there, and the
/// pair before and after, whether it resigned or was killed.
#[test]
fn a_pair_that_yields_gives_way_to_a_router_of_more_priority_and_serves_again_when_that_is_gone() -> Result<()>
{
    let _one = one_at_a_time();
    let settings = Settings { failover: "vrrp = \"yield\"\n".to_owned(), ..Settings::default() };
    on_stage(&settings, |stage: &mut Stage| {
        let state = |stage: &Stage, index: usize| -> Result<String> {
            Ok(stage.pair[index].status()?["state"].as_str().unwrap_or_default().to_owned())
        };
        for resigns in [true, false] {
            let active = stage.active()?;
            let keepalived = Keepalived::start(&stage.world, 250)?;
            let watch = StallWatch::start();
            keepalived.wait_promotions(2, LIMIT)?;
            let both = || Ok(state(stage, 0)? == "yielding" && state(stage, 1)? == "yielding");
            wait_until("both to give way", LIMIT, both)?;
            std::thread::sleep(SILENCE);
            ensure!(both()?, "they did not stay away");
            ensure!(keepalived.promotions() == 2, "it lost the lead:\n{}", keepalived.log());
            let events = stage.pair[active].ask("events")?.to_string();
            ensure!(events.contains("gives way to another VRRP router, of priority 250"), "{events}");
            keepalived.stop(resigns)?;
            let led = netns_harness::appliance::wait_for_roles(&stage.pair, LIMIT)?;
            let stalls = watch.finish();
            let downloads = through_virtual_servers(&stage.web, FILE.0, "2000k", 4)?;
            let outcomes = Downloads::start(&stage.world, downloads, LIMIT)?.finish(LIMIT)?;
            ensure!(outcomes.iter().all(|outcome| outcome.whole()), "by {led}: {outcomes:?}");
            let status = stage.pair[led].status()?;
            // While nobody leads, who stands still for two intervals no longer believes to be in sync.
            ensure!(status["degraded"] == false || stalls.longest > DEAF, "{status}, {stalls}");
        }
        Ok(())
    })
}
