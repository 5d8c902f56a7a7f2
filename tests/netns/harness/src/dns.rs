//! dnsmasq as a server and dig as its clients.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::command::{ip, run, wait_until};
use crate::plan;
use crate::process::Process;
use crate::world::World;

/// The answer to every question below `example.test`.
const ANSWER: &str = "192.0.2.53";

/// Starts dnsmasq in every server's namespace, on port 53 of both families.
pub fn start_servers(world: &World) -> Result<Vec<Process>> {
    let mut servers = Vec::new();
    for (name, host) in world.server_names().iter().zip(world.server_hosts()) {
        let namespace = world.namespace(name);
        let answer = format!("--address=/example.test/{ANSWER}");
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (plan::server4(host), plan::server6(host));
        let (listen4, listen6) = (format!("--listen-address={v4}"), format!("--listen-address={v6}"));
        let args = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--log-facility=-",
            "--cache-size=0",
            "--dns-forward-max=10000",
            &listen4,
            &listen6,
            &answer,
        ];
        let process =
            Process::spawn(world.directory(), &namespace, &format!("dnsmasq-{name}"), "dnsmasq", &args)?;
        wait_until("dnsmasq to answer", Duration::from_secs(5), || Ok(ask(&namespace, v4.into()).is_ok()))?;
        servers.push(process);
    }
    Ok(servers)
}

fn ask(namespace: &str, server: IpAddr) -> Result<String> {
    let at = format!("@{server}");
    run(
        "ip",
        &["netns", "exec", namespace, "dig", &at, "+short", "+tries=1", "+time=1", "ready.example.test"],
    )
}

/// A load of questions under way: several clients, each with one question in flight.
#[derive(Debug)]
pub struct Load {
    clients: Vec<Process>,
}

/// What became of the questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Questions that were answered right.
    pub right: usize,
    /// Questions without an answer in time: each was tried once.
    pub unanswered: usize,
    /// Anything else that was printed.
    pub other: usize,
}

impl Load {
    /// Starts `clients` clients (8 at most) that ask `questions` questions each; every question is a flow of its own.
    ///
    /// Each has an address of its own: dig lets the kernel give two sockets of one address the same port, and then
    /// one gets the other's answer.
    pub fn start(world: &World, server: IpAddr, clients: usize, questions: usize) -> Result<Load> {
        let names = world.directory().join("questions");
        fs::write(&names, (0..questions).map(|n| format!("q{n}.example.test A\n")).collect::<String>())?;
        let (at, names) = (format!("@{server}"), names.display().to_string());
        let hosts = plan::DNS_CLIENT_HOSTS;
        ensure!(clients <= hosts.len(), "at most {} clients, not {clients}", hosts.len());
        let namespace = world.namespace("client");
        let clients = hosts.take(clients).map(|host| {
            let (from, length): (IpAddr, u8) = match server {
                IpAddr::V4(_) => (plan::client4(host).into(), 24),
                IpAddr::V6(_) => (plan::client6(host).into(), 64),
            };
            ip(&namespace, &format!("addr replace {from}/{length} dev eth0 nodad\n"))?;
            let from = from.to_string();
            let args = [&at, "-b", &from, "+short", "+tries=1", "+time=1", "-f", &names];
            Process::spawn(world.directory(), &namespace, &format!("dig-{from}"), "dig", &args)
        });
        Ok(Load { clients: clients.collect::<Result<_>>()? })
    }

    /// How many questions have been answered or given up so far.
    pub fn done(&self) -> usize {
        self.clients.iter().map(|client| judge(&client.log())).map(|a| a.right + a.unanswered).sum()
    }

    /// Waits until all questions were asked.
    pub fn finish(self, limit: Duration) -> Result<Answers> {
        let mut sum = Answers::default();
        for mut client in self.clients {
            // dig's status is 9 when any question went unanswered: the lines tell.
            client.wait(limit)?;
            let answers = judge(&client.log());
            sum.right += answers.right;
            sum.unanswered += answers.unanswered;
            sum.other += answers.other;
        }
        Ok(sum)
    }
}

fn judge(log: &str) -> Answers {
    let mut answers = Answers::default();
    for line in log.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line {
            ANSWER => answers.right += 1,
            // One question without an answer prints both of these.
            _ if line.contains("no servers could be reached") => answers.unanswered += 1,
            _ if line.starts_with(";;") && line.contains("timed out") => {}
            _ => answers.other += 1,
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_counted_once() {
        let log = "192.0.2.53\n;; communications error to 10.1.0.100#53: timed out\n\n\
                   ;; no servers could be reached\n\n192.0.2.53\nsurprise\n";
        assert_eq!(judge(log), Answers { right: 2, unanswered: 1, other: 1 });
    }
}
