//! What one configuration has that another has not, in sentences for people.

use core::net::SocketAddr;

use crate::config::checked::{Checked, Forwarding, Pool, Server, VirtualServer};
use crate::config::mirrored;
use crate::config::reload::without_idle;

/// What is otherwise in `now` than it was in `before`, of pools, servers, virtual servers and time-outs. Retired things
/// count as gone.
pub fn differences(before: &Checked, now: &Checked) -> Vec<String> {
    let mut said = Vec::new();
    let pools = |checked: &Checked| -> Vec<Pool> {
        checked.pools.iter().filter(|pool| !pool.retired).cloned().collect()
    };
    let (old_pools, new_pools) = (pools(before), pools(now));
    for pool in &new_pools {
        match old_pools.iter().find(|old| old.id == pool.id) {
            Some(old) => of_pool(old, pool, &mut said),
            None => said.push(format!("pool {} added, servers: {}", pool.name, own(pool).count())),
        }
    }
    for old in &old_pools {
        if new_pools.iter().all(|pool| pool.id != old.id) {
            said.push(format!("pool {} removed", old.name));
        }
    }
    let servers = |checked: &Checked| -> Vec<VirtualServer> {
        checked.virtual_servers.iter().filter(|server| !server.retired).cloned().collect()
    };
    let (old_servers, new_servers) = (servers(before), servers(now));
    for server in &new_servers {
        let pool = pool_of(now, server);
        match old_servers.iter().find(|old| old.id == server.id) {
            Some(old) => of_virtual_server(old, pool_of(before, old), server, pool, &mut said),
            None => {
                let at = SocketAddr::new(server.address, server.port);
                said.push(format!(
                    "virtual server {} added: {at}/{} -> {pool}",
                    server.name, server.protocol
                ));
            }
        }
    }
    for old in &old_servers {
        if new_servers.iter().all(|server| server.id != old.id) {
            said.push(format!("virtual server {} removed", old.name));
        }
    }
    let timeouts = |checked: &Checked| {
        let flows = &checked.flows;
        [
            flows.tcp_handshake_timeout,
            flows.tcp_established_timeout,
            flows.tcp_closing_timeout,
            flows.udp_timeout,
        ]
    };
    if timeouts(before) != timeouts(now) {
        said.push("idle time-outs of flows changed".to_owned());
    }
    // What has no sentence of its own is a difference, too: peers would not take it for the same.
    let text = |checked: &Checked| {
        let left = without_idle(checked, |_| false, |_| false);
        mirrored::text(left.as_ref().unwrap_or(checked))
    };
    if said.is_empty() && text(before) != text(now) {
        said.push("the order of servers or virtual servers changed".to_owned());
    }
    said
}

fn own(pool: &Pool) -> impl Iterator<Item = &Server> {
    pool.servers.iter().filter(|server| !server.retired)
}

fn pool_of<'c>(checked: &'c Checked, server: &VirtualServer) -> &'c str {
    checked.pools.get(server.pool).map_or("", |pool| &pool.name)
}

fn of_pool(before: &Pool, now: &Pool, said: &mut Vec<String>) {
    let name = &now.name;
    for server in own(now) {
        let at = SocketAddr::new(server.address, server.port);
        match own(before).find(|old| old.id == server.id) {
            Some(old) if old.weight == server.weight => {}
            Some(old) => {
                said.push(format!("pool {name}: server {at}: weight {}, was {}", server.weight, old.weight));
            }
            None => said.push(format!("pool {name}: server {at} added, weight {}", server.weight)),
        }
    }
    for old in own(before) {
        if own(now).all(|server| server.id != old.id) {
            said.push(format!("pool {name}: server {} removed", SocketAddr::new(old.address, old.port)));
        }
    }
    let is_same = before.balance == now.balance
        && before.least_servers == now.least_servers
        && before.health == now.health;
    if !is_same {
        said.push(format!("pool {name}: settings changed"));
    }
}

fn of_virtual_server(
    before: &VirtualServer,
    old_pool: &str,
    now: &VirtualServer,
    pool: &str,
    said: &mut Vec<String>,
) {
    let name = &now.name;
    if pool != old_pool {
        said.push(format!("virtual server {name}: pool {pool}, was {old_pool}"));
    }
    let forwarding = |server: &VirtualServer| match server.forwarding {
        Forwarding::Nat => "nat",
        Forwarding::FullNat(_) => "full-nat",
    };
    if forwarding(before) != forwarding(now) {
        said.push(format!("virtual server {name}: {}, was {}", forwarding(now), forwarding(before)));
    } else if before.sources() != now.sources() {
        said.push(format!("virtual server {name}: source-NAT addresses changed"));
    }
    if before.mirror != now.mirror {
        said.push(format!("virtual server {name}: mirror {}, was {}", now.mirror, before.mirror));
    }
    if before.rules != now.rules {
        let (rules, were) = (now.rules.len(), before.rules.len());
        said.push(format!("virtual server {name}: other rules of what is mirrored: {rules}, were {were}"));
    }
    if before.select != now.select {
        said.push(format!(
            "virtual server {name}: select {}, was {}",
            now.select.text(),
            before.select.text()
        ));
    }
}
