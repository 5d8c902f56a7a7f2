//! Real hosts that speak to a real server's own address, past the virtual ones, by way of the active (REQ D10).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::{ip, wait_until};
use netns_harness::config::{AF_XDP, ECHO_PORT, Lcores, Settings};
use netns_harness::downloads::{Downloads, Request};
use netns_harness::plan::{self, Family, Translation, virtual_address};
use netns_harness::stage::{FILE, LONG_FILE, ROLES_LIMIT, Stage, counter};
use netns_harness::{Result, ensure};

use crate::pair_fragments::{client_of, echo, ping};
use crate::{on_stage, one_at_a_time};

/// How long downloads may take.
const LIMIT: Duration = Duration::from_secs(30);

fn settings(lcores: Lcores) -> Settings {
    let more = "[distributor]\nroute_to_servers = true\n".to_owned();
    Settings { device: AF_XDP, lcores: [lcores; 2], more, ..Settings::default() }
}

/// The addresses of the first server and of the client.
fn ends() -> [(IpAddr, IpAddr); 2] {
    let server = plan::FIRST_SERVER_HOST;
    [
        (plan::server4(server).into(), plan::client4(plan::CLIENT_HOST).into()),
        (plan::server6(server).into(), plan::client6(plan::CLIENT_HOST).into()),
    ]
}

/// The client's way to the servers' networks: by the virtual router.
fn lead_clients(stage: &Stage) -> Result<()> {
    let by = [Family::V4, Family::V6].map(|family| virtual_address(Translation::Nat, family));
    ip(
        &stage.world.namespace("client"),
        &format!("route replace 10.2.0.0/24 via {}\nroute replace fd02::/64 via {}\n", by[0], by[1]),
    )
}

/// A download of each server's file from the first server itself.
fn downloads(stage: &Stage, file: &str, query: &str) -> Result<Downloads> {
    let (length, checksum) = stage.web.file(file)?;
    let requests = ends().map(|(server, _)| {
        let url = format!("http://{}/{file}{query}", SocketAddr::new(server, 80));
        Request { kind: "direct".to_owned(), url, length, checksum }
    });
    Downloads::start(&stage.world, requests.into(), LIMIT)
}

fn whole(downloads: Downloads) -> Result<()> {
    for outcome in downloads.finish(LIMIT)? {
        ensure!(outcome.whole(), "{outcome:?}");
    }
    Ok(())
}

fn speak(stage: &Stage) -> Result<()> {
    for (server, client) in ends() {
        for len in [56, 4000] {
            let data: Vec<u8> = (0..len).map(|at| (at / 3) as u8).collect();
            ensure!(ping(&stage.world, "client", server, &data)? == data, "{server} echoes something else");
            ensure!(ping(&stage.world, "s1", client, &data)? == data, "{client} echoes something else");
            let socket = client_of(&stage.world, SocketAddr::new(server, ECHO_PORT))?;
            ensure!(echo(&socket, &data)? == data, "{server} sends something else back");
        }
    }
    whole(downloads(stage, FILE.0, "")?)
}

fn hosts_reach_servers_past_the_virtual_addresses(lcores: Lcores) -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&settings(lcores), |stage| {
        let active = stage.active()?;
        lead_clients(stage)?;
        speak(stage)?;
        // Whoever leads next knows nothing of what is under way, and need not.
        let under_way = downloads(stage, LONG_FILE.0, "?rate=1000k")?;
        wait_until("downloads", LIMIT, || Ok(under_way.progress_range().0 > 0.1))?;
        stage.still_leads(active)?;
        let counters = stage.pair[active].ask("counters")?;
        ensure!(counter(&counters, "routed")? > 100, "{counters}");
        ensure!(counter(&counters, "flows_made")? == 0, "{counters}");
        stage.pair[active].command(&["switchover"])?;
        stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
        whole(under_way)?;
        speak(stage)?;
        ensure!(counter(&stage.pair[1 - active].ask("counters")?, "routed")? > 100, "it went another way");
        Ok(())
    })
}

#[test]
fn pings_datagrams_and_downloads_reach_a_server_itself() -> Result<()> {
    hosts_reach_servers_past_the_virtual_addresses(Lcores::FUSED)
}

#[test]
fn pings_datagrams_and_downloads_reach_a_server_itself_where_roles_are_divided() -> Result<()> {
    hosts_reach_servers_past_the_virtual_addresses(Lcores { workers: 0, managers: 2, distributors: 1 })
}
