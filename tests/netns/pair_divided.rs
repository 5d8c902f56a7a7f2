//! Pairs whose appliances have distributors and traffic managers on lcores of their own.

use netns_harness::campaign::kills::{self, Load, Plan};
use netns_harness::config::{Lcores, Settings};
use netns_harness::stage::{Stage, counter};
use netns_harness::{Context, Result, dns, ensure};

use crate::{on_stage, one_at_a_time};

fn divided() -> Settings {
    Settings { lcores: [Lcores::DIVIDED; 2], ..Settings::default() }
}

#[test]
fn downloads_survive_the_active_whose_roles_are_divided() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&divided(), |stage| {
        let killed = kills::round(stage, Load { downloads: 24, rate: "80k" }, Plan::Active)?;
        assert_eq!((killed.at_kills.len(), killed.whole()), (1, 24));
        killed.violations.judge()
    })
}

/// An appliance with one worker and one with four lcores, which chooses among its traffic managers by what they hold: each
/// takes over from the other (REQ A1, D2, D9).
fn downloads_pass_between(lcores: Lcores, select: &str) -> Result<()> {
    let more = format!("[distributor]\nselect = \"{select}\"\n");
    let settings = Settings { lcores: [lcores, Lcores::FUSED], more, ..Settings::default() };
    on_stage(&settings, |stage| {
        let killed = kills::round(stage, Load { downloads: 16, rate: "60k" }, Plan::Twice)?;
        assert_eq!((killed.at_kills.len(), killed.whole()), (2, 16));
        // With violations, nobody was started again.
        killed.violations.judge()?;
        for appliance in &stage.pair {
            let counters = appliance.ask("counters")?;
            for name in ["keys_refused", "drop_keys_full", "drop_tell_full"] {
                ensure!(counter(&counters, name)? == 0, "{name}: {counters}");
            }
        }
        Ok(())
    })
}

#[test]
fn downloads_survive_takeovers_between_one_worker_and_four() -> Result<()> {
    let _one = one_at_a_time();
    downloads_pass_between(Lcores { workers: 4, managers: 0, distributors: 0 }, "least-connections")
}

#[test]
fn downloads_survive_takeovers_between_one_worker_and_two_of_each_role() -> Result<()> {
    let _one = one_at_a_time();
    downloads_pass_between(Lcores { workers: 0, managers: 2, distributors: 2 }, "round-robin")
}

/// What the active counted at one of its lcores.
fn counted_by(stage: &Stage, active: usize, owner: &str, name: &str) -> Result<u64> {
    let report = stage.pair[active].ask("counters")?;
    let owners = report["owners"].as_array().context("no owners")?;
    let place = owners.iter().position(|is| is == owner).with_context(|| format!("nobody is {owner}"))?;
    let counters = report["counters"].as_array().context("no counters")?;
    let line = counters.iter().find(|line| line["name"] == name).with_context(|| format!("no {name}"))?;
    line["values"][place].as_u64().context("no number")
}

#[test]
fn packets_come_to_the_distributor_and_leave_by_the_traffic_manager() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&divided(), |stage| {
        let _servers = dns::start_servers(&stage.world)?;
        let (round, violations) = netns_harness::campaign::dns::round(stage, 200)?;
        assert_eq!(round.asked, 8 * 200);
        violations.judge()?;
        let active = stage.active()?;

        let status = stage.pair[active].ask("status")?;
        let roles = |worker: usize| status["workers"][worker]["roles"].to_string();
        ensure!(roles(0) == r#"["traffic-manager","mirror"]"#, "worker 0 is {}", roles(0));
        ensure!(roles(1) == r#"["distributor"]"#, "worker 1 is {}", roles(1));
        let flows = |worker: usize| status["workers"][worker]["flows"].as_u64();
        ensure!(flows(0) > Some(0) && flows(1) == Some(0), "flows are with the traffic manager: {status}");
        let ports = stage.pair[active].ask("ports")?;
        for port in ports["ports"].as_array().context("no ports")? {
            let queues = [&port["received_by"], &port["sent_by"]].map(ToString::to_string);
            ensure!(queues == ["[1]", "[0]"], "{port}");
            ensure!(port["rss"]["by"] == "one-queue", "one distributor has nothing to spread: {port}");
        }

        let (manager, distributor) = ("worker0", "distributor1");
        let count = |owner, name| counted_by(stage, active, owner, name);
        ensure!(
            count(manager, "rx_packets")? == 0 && count(distributor, "tx_packets")? == 0,
            "roles are mixed"
        );
        let (received, handed) = (count(distributor, "rx_packets")?, count(distributor, "handed_over")?);
        ensure!(handed > 0 && handed < received, "{handed} of {received} packets were handed over");
        ensure!(count(manager, "handed_over")? == 0, "a single traffic manager hands over");
        ensure!(count(manager, "tx_packets")? > 0, "nothing was sent");
        ensure!(
            counter(&stage.pair[active].ask("counters")?, "drop_hand_over_full")? == 0,
            "a ring was full"
        );
        Ok(())
    })
}

/// Three workers that do everything, on two CPUs; the other appliance has one.
#[test]
fn downloads_survive_shards_that_move_and_then_the_loss_of_the_active() -> Result<()> {
    let _one = one_at_a_time();
    let three = Lcores { workers: 3, managers: 0, distributors: 0 };
    let settings = Settings { lcores: [three, Lcores::FUSED], ..Settings::default() };
    on_stage(&settings, |stage| {
        let active = stage.active()?;
        ensure!(active == 0, "the one with three workers is not the active");
        let ports = stage.pair[active].ask("ports")?;
        for port in ports["ports"].as_array().context("no ports")? {
            let (by, why) = (&port["rss"]["by"], &port["rss"]["why"]);
            ensure!(by == "software" && why == "it has one receive queue", "{port}");
        }
        let killed = kills::round_after(stage, Load { downloads: 24, rate: "80k" }, Plan::Active, |stage| {
            let mut moved = 0;
            for shard in 0..16_u16 {
                let to = ((shard % 3) + 1) % 3;
                let words = ["rebalance", "--shard", &shard.to_string(), "--to", &to.to_string()];
                let said = stage.pair[active].command(&words)?;
                ensure!(said.contains(" went from worker "), "{said}");
                moved += 1;
            }
            stage.pair[active].command(&["rebalance"])?;
            let status = stage.pair[active].ask("status")?;
            let of = |worker: usize| status["workers"][worker]["moved"].as_u64().unwrap_or(0);
            ensure!(of(0) + of(1) + of(2) + 8 >= moved, "few shards have moved: {status}");
            ensure!(status["skew"].as_f64().is_some_and(|skew| skew < 3.0), "{}", status["skew"]);
            let counters = stage.pair[active].ask("counters")?;
            ensure!(counter(&counters, "flows_moved")? > 0, "no flow moved");
            ensure!(counter(&counters, "drop_parked_full")? == 0, "packets were dropped while shards moved");
            Ok(())
        })?;
        assert_eq!((killed.at_kills.len(), killed.whole()), (1, 24));
        killed.violations.judge()
    })
}
