//! What a service manager is told of this process, by the protocol of `sd_notify(3)`: datagrams of `KEY=value` lines to the
//! unix socket that `NOTIFY_SOCKET` names. Nothing, where it names none.
//!
//! Runs in the master thread, with its turns, and never waits: what the socket has no room for is said again later. In: how
//! things stand. Out: `READY=1` once the control interface answers and the liveness thread has said how things are;
//! `STATUS=` whenever that changes; `WATCHDOG=1` while master and liveness thread both go on; `STOPPING=1`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::base::time::{Duration, Instant};
use crate::failover::FailoverStatus;

/// Between two looks at how things stand, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How things stand.
#[derive(Debug)]
pub struct Standing {
    /// What the liveness thread said last, if anything.
    pub status: Option<FailoverStatus>,
    /// How often the liveness thread went round.
    pub rounds: u64,
}

/// What was said last, and with that what is to be said next.
#[derive(Clone, Debug)]
struct Said {
    ready: bool,
    stopping: bool,
    status: String,
    /// When the watchdog is to be fed; never, if there is none.
    feed_at: Instant,
    /// The liveness thread's rounds when it was fed.
    rounds: u64,
}

/// The service manager, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Between two feedings of the watchdog; `None`: there is none.
    feed_interval: Option<Duration>,
    said: Said,
    look_at: Instant,
    complained: bool,
}

impl ServiceManager {
    /// As this process's environment names it. A socket that cannot be is said in the log.
    pub fn from_environment() -> ServiceManager {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| match reach(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!(
                    "the service manager is not told anything: NOTIFY_SOCKET {}: {error}",
                    Path::new(&name).display()
                );
                None
            }
        });
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        ServiceManager::new(socket, number("WATCHDOG_USEC").filter(|_| ours).map(Duration::from_micros))
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>, watchdog: Option<Duration>) -> ServiceManager {
        let feed_interval = watchdog.filter(|limit| *limit > Duration::ZERO).map(|limit| limit / 2);
        let feed_at = if feed_interval.is_some() { Instant::ZERO } else { Instant::FAR_FUTURE };
        let said = Said { ready: false, stopping: false, status: String::new(), feed_at, rounds: 0 };
        ServiceManager { socket, feed_interval, said, look_at: Instant::ZERO, complained: false }
    }

    /// Looks and says, some times in a second, and once more when the process is asked to end (`stopping`).
    pub fn turn(&mut self, now: Instant, stopping: bool, standing: impl FnOnce() -> Standing) {
        let Some((socket, address)) = &self.socket else { return };
        if now < self.look_at && stopping == self.said.stopping {
            return;
        }
        self.look_at =
            now + self.feed_interval.map_or(LOOK_INTERVAL, |interval| LOOK_INTERVAL.min(interval / 2));
        let (text, next) = self.said.and_now(now, stopping, &standing(), self.feed_interval);
        if text.is_empty() {
            return;
        }
        match socket.send_to_addr(text.as_bytes(), address) {
            Ok(_) => self.said = next,
            Err(error) => {
                if !core::mem::replace(&mut self.complained, true) {
                    log::warn!("the service manager cannot be told how things are: {error}");
                }
            }
        }
    }
}

fn reach(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

impl Said {
    /// What is new, as lines, and what is said with that.
    fn and_now(
        &self,
        now: Instant,
        stopping: bool,
        standing: &Standing,
        feed_interval: Option<Duration>,
    ) -> (String, Said) {
        let (mut text, mut next) = (String::new(), self.clone());
        if let Some(status) = &standing.status {
            if !self.ready {
                next.ready = true;
                text += "READY=1\n";
            }
            next.status = sentence(status);
            if next.status != self.status {
                text += &format!("STATUS={}\n", next.status);
            }
        }
        if stopping && !self.stopping {
            next.stopping = true;
            text += "STOPPING=1\n";
        }
        // The master goes on, or this would not be running.
        if let Some(interval) = feed_interval
            && now >= self.feed_at
            && standing.rounds != self.rounds
        {
            (next.feed_at, next.rounds) = (now + interval, standing.rounds);
            text += "WATCHDOG=1\n";
        }
        (text, next)
    }
}

/// One line.
fn sentence(status: &FailoverStatus) -> String {
    let FailoverStatus { role, state, term, peers, .. } = status;
    if peers.is_empty() {
        return format!("{role} in term {term}");
    }
    if role.claims() {
        let in_sync = peers.iter().filter(|peer| peer.in_sync).count();
        return format!("{state} in term {term}, peers in sync: {in_sync} of {}", peers.len());
    }
    format!("{state} in term {term}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{BootId, GroupId, NodeId, Term};
    use crate::failover::{Members, Role, State};

    const WATCHDOG: Duration = Duration::from_secs(10);

    fn status(role: Role) -> FailoverStatus {
        FailoverStatus {
            group: GroupId(0),
            node: NodeId(1),
            boot: BootId(1),
            role,
            state: State::Booting,
            term: Term { counter: 3, node: NodeId(1) },
            leader: None,
            degraded: false,
            in_sync: false,
            members: Members::default(),
            members_changing: false,
            lease_left_us: 0,
            waits_for_operator: false,
            witness: None,
            can_lead: true,
            maintenance: false,
            maintenance_changes: 0,
            edition: crate::config::mirrored::Edition::default(),
            failed: 0,
            leaving: false,
            workers_stuck: Vec::new(),
            promotions: 0,
            takeovers: 0,
            reserved: 0,
            peers: Vec::new(),
        }
    }

    /// A manager that listens at an abstract name, what it hears, and what it is told.
    struct Heard {
        manager: ServiceManager,
        listener: UnixDatagram,
    }

    impl Heard {
        fn new(name: &str, watchdog: Option<Duration>) -> Heard {
            let name = format!("baton-service-{name}-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            listener.set_nonblocking(true).unwrap();
            let socket = reach(OsStr::new(&format!("@{name}"))).unwrap();
            Heard { manager: ServiceManager::new(Some(socket), watchdog), listener }
        }

        fn at(&mut self, ms: u64, role: Option<Role>, rounds: u64, stopping: bool) -> String {
            let standing = Standing { status: role.map(status), rounds };
            self.manager.turn(Instant::from_millis(ms), stopping, || standing);
            let mut bytes = [0; 1024];
            let len = self.listener.recv(&mut bytes).unwrap_or(0);
            String::from_utf8_lossy(&bytes[..len]).into_owned()
        }
    }

    #[test]
    fn it_is_ready_once_when_the_liveness_thread_has_spoken_and_says_each_status_once() {
        let mut heard = Heard::new("ready", None);
        assert_eq!(heard.at(1000, None, 1, false), "");
        assert_eq!(heard.at(2000, Some(Role::Booting), 2, false), "READY=1\nSTATUS=booting in term 3.1\n");
        assert_eq!(heard.at(3000, Some(Role::Booting), 3, false), "");
        assert_eq!(heard.at(4000, Some(Role::Active), 4, false), "STATUS=active in term 3.1\n");
        assert_eq!(heard.at(4001, Some(Role::Active), 5, true), "STOPPING=1\n", "at once");
        assert_eq!(heard.at(6000, Some(Role::Active), 6, true), "");
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_and_only_while_the_liveness_thread_goes_round() {
        let mut heard = Heard::new("watchdog", Some(WATCHDOG));
        assert_eq!(heard.at(1000, None, 0, false), "", "it has not begun");
        assert_eq!(heard.at(2000, None, 7, false), "WATCHDOG=1\n");
        assert_eq!(heard.at(6900, None, 8, false), "");
        assert_eq!(heard.at(7000, None, 9, false), "WATCHDOG=1\n");
        for ms in [12_000, 20_000, 100_000] {
            assert_eq!(heard.at(ms, None, 9, false), "", "it stands still");
        }
        assert_eq!(heard.at(101_000, None, 10, false), "WATCHDOG=1\n");
    }

    #[test]
    fn what_the_socket_did_not_take_is_said_again() {
        let mut heard = Heard::new("again", None);
        let name = heard.listener.local_addr().unwrap();
        heard.listener = UnixDatagram::unbound().unwrap();
        heard.listener.set_nonblocking(true).unwrap();
        assert_eq!(heard.at(1000, Some(Role::Standby), 1, false), "");
        heard.listener = UnixDatagram::bind_addr(&name).unwrap();
        heard.listener.set_nonblocking(true).unwrap();
        assert_eq!(heard.at(2000, Some(Role::Standby), 2, false), "READY=1\nSTATUS=standby in term 3.1\n");
    }

    #[test]
    fn what_is_no_socket_is_said() {
        for name in ["relative", ""] {
            let why = reach(OsStr::new(name)).unwrap_err().to_string();
            assert!(why.contains("neither a path nor an abstract name"), "{why}");
        }
    }
}
