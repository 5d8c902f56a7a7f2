//! A witness on a real socket of this machine, asked by an appliance's link.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::link::WitnessLink;
use super::{WitnessError, question, run};
use crate::base::ids::{BootId, GroupId, NodeId, Term};
use crate::base::time::Duration;
use crate::driver::clock::Clock;
use crate::failover::witness::words::{ANSWER_MAX, Answer, Asks, Kind, REQUEST_LEN, Request, Verdict};
use crate::seal::Key;
use crate::seal::datagram::{DatagramKey, DatagramSealer, Direction};

const HOLD: Duration = Duration::from_millis(20);
/// Nothing takes so long that works.
const LONG: Duration = Duration::from_secs(60);

struct Running {
    at: SocketAddr,
    key: Key,
    key_file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), WitnessError>>>,
}

impl Running {
    fn start(name: &str) -> Running {
        let key_file = std::env::temp_dir().join(format!("baton-witness-{name}-{}", std::process::id()));
        let key = Key::generate().unwrap();
        fs::write(&key_file, key.to_text()).unwrap();
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
        // A port that was free just now.
        let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (file, stopped) = (key_file.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || run(at, &file, HOLD, &stopped));
        Running { at, key, key_file, stop, thread: Some(thread) }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.thread.take().map(JoinHandle::join));
        drop(fs::remove_file(&self.key_file));
    }
}

#[test]
fn it_answers_on_its_socket_grants_and_tells_how_things_are() {
    let running = Running::start("answers");
    let key = DatagramKey::new(&running.key);
    let mut sealer = DatagramSealer::new(&key, Direction::ToWitness, BootId(5));
    let mut link = WitnessLink::new(running.at);
    let (mut challenge, clock) = (0, Clock::start());
    loop {
        assert!(clock.uptime() < LONG, "it does not grant");
        let request = Request {
            group: GroupId(0),
            node: NodeId(1),
            asks: Asks::AsLeader,
            challenge,
            term: Term { counter: 3, node: NodeId(1) },
            takeover_after: HOLD,
        };
        let mut datagram = [0; REQUEST_LEN];
        sealer.seal(Kind::Request.code(), &request.encode(), &mut datagram).unwrap();
        // It may not listen yet: refused, and asked again.
        drop(link.send(&datagram));
        thread::sleep(core::time::Duration::from_millis(2));
        let mut buffer = [0; ANSWER_MAX + 1];
        let Some(answer) = link.receive(&mut buffer) else { continue };
        let opened = key.open(Direction::FromWitness, answer).unwrap();
        let answer = Answer::decode(opened.payload).unwrap();
        match answer.verdict {
            Verdict::Granted => break,
            Verdict::Challenge => challenge = answer.challenge,
            Verdict::Starting => {}
            Verdict::Held | Verdict::Noted | Verdict::TooShort => panic!("{answer:?}"),
        }
    }
    let status = question::ask(running.at, &running.key_file).unwrap();
    assert_eq!((status.hold_ms, status.groups.len()), (20, 1));
    assert!(status.counts.granted >= 1, "{status:?}");
    running.end();
}

#[test]
fn one_with_another_key_does_not_answer_and_one_that_is_not_there_is_said() {
    let (running, other) = (Running::start("key"), Running::start("other-key"));
    let error = question::ask(running.at, &other.key_file).unwrap_err().to_string();
    assert!(error.contains("no witness with this key answers"), "{error}");
    let at = running.at;
    let clock = Clock::start();
    while question::ask(at, &running.key_file).is_err() {
        assert!(clock.uptime() < LONG, "it does not listen");
    }
    let error = run(at, &running.key_file, HOLD, &AtomicBool::new(true)).unwrap_err().to_string();
    assert!(error.contains("cannot listen on"), "{error}");
    running.end();
    let error = question::ask(at, &other.key_file).unwrap_err().to_string();
    assert!(error.contains("no witness"), "{error}");
}
