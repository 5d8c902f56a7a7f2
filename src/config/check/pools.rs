//! `[[pool]]` (REQ C3).

use crate::base::ids::{PoolId, ServerId, id_of_name};
use crate::config::check::addresses::{Addresses, Use};
use crate::config::check::{blame, names};
use crate::config::checked::{Health, Pool, Server};
use crate::config::file::{File, HealthFile, PoolFile};
use crate::config::report::Report;

pub fn check(file: &File, addresses: &mut Addresses, report: &mut Report) -> Option<Vec<Pool>> {
    let names =
        file.pool.elements().filter_map(|(_, pool)| Some((&pool.name.place, pool.name.get()?.0.clone())));
    names::unique(names, "pool name", report);
    unique_servers(file, report);
    for (_, pool) in file.pool.elements() {
        servers(pool, addresses, report);
        let used = |name: &str| {
            let mut users = file.virtual_server.elements().filter_map(|(_, server)| server.pool.get());
            users.any(|user| user.0 == name)
        };
        if pool.name.get().is_some_and(|name| !used(&name.0)) {
            report.warn(&pool.name.place, "no virtual server uses this pool");
        }
        if let Some(health) = pool.health.get() {
            report.warn(
                &pool.health.place,
                "health checks are accepted but not run yet: servers are taken as up",
            );
            timeouts(health, report);
        }
    }
    file.pool.all()?.into_iter().map(|(_, pool)| build(pool)).collect()
}

/// What a server's id follows from, the same on every member.
pub fn server_name(pool: &str, address: core::net::SocketAddr) -> String {
    format!("{pool}/{address}")
}

fn build(pool: &PoolFile) -> Option<Pool> {
    let name = pool.name.get()?.0.clone();
    let servers = pool.server.all()?.into_iter().map(|(_, server)| {
        let at = server.address.get()?.0;
        Some(Server {
            id: ServerId(id_of_name(&server_name(&name, at))),
            address: at.ip(),
            port: at.port(),
            weight: server.weight.get()?.u32(),
            retired: false,
        })
    });
    let health = match pool.health.optional()? {
        None => None,
        Some(health) => Some(Health {
            check: *health.check.get()?,
            interval: health.interval_ms.get()?.millis(),
            timeout: health.timeout_ms.get()?.millis(),
            rise: health.rise.get()?.u32(),
            fall: health.fall.get()?.u32(),
        }),
    };
    Some(Pool {
        id: PoolId(id_of_name(&name)),
        balance: *pool.balance.get()?,
        health,
        least_servers: pool.least_servers.get()?.u32(),
        servers: servers.collect::<Option<_>>()?,
        name,
        retired: false,
    })
}

/// One server once in a pool, and no two servers of the file with one id. Two
/// pools of one name are told as that, not once more for each of their servers.
fn unique_servers(file: &File, report: &mut Report) {
    let mut pools: Vec<&str> = Vec::new();
    let mut servers = Vec::new();
    for (_, pool) in file.pool.elements() {
        let Some(name) = pool.name.get() else { continue };
        if pools.contains(&name.0.as_str()) {
            continue;
        }
        pools.push(&name.0);
        for (_, server) in pool.server.elements() {
            if let Some(at) = server.address.get() {
                servers.push((&server.address.place, server_name(&name.0, at.0)));
            }
        }
    }
    names::unique(servers.into_iter(), "server", report);
}

fn servers(pool: &PoolFile, addresses: &mut Addresses, report: &mut Report) {
    if pool.server.get().is_some_and(Vec::is_empty) {
        report.refuse(&pool.server.place, "at least one server");
    }
    for (_, server) in pool.server.elements() {
        let Some(at) = server.address.get() else { continue };
        addresses.claim(at.0.ip(), Use::Server, &server.address.place, report);
        addresses.require_reachable(at.0.ip(), &server.address.place, report);
    }
    let weights =
        || pool.server.elements().map(|(_, server)| server.weight.get().map_or(1, |weight| weight.u32()));
    if let Some(least) = pool.least_servers.get() {
        let most = weights().filter(|weight| *weight > 0).count();
        if least.u32() as usize > most && pool.server.all().is_some() {
            report.refuse(
                &pool.least_servers.place,
                format!("at most the number of the pool's servers that take new flows, {most}"),
            );
        }
    }
    if weights().sum::<u32>() == 0 && pool.server.elements().next().is_some() {
        report.warn(&pool.server.place, "every weight is 0: the pool takes no new flows");
    }
}

fn timeouts(health: &HealthFile, report: &mut Report) {
    if let (Some(interval), Some(timeout)) = (health.interval_ms.get(), health.timeout_ms.get()) {
        if timeout.u32() >= interval.u32() {
            report.refuse(
                blame(&[&health.timeout_ms.place, &health.interval_ms.place]),
                format!("timeout_ms ({}) to be less than interval_ms ({})", timeout.u32(), interval.u32()),
            );
        }
    }
}
