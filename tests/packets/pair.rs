//! An active and a standby worker, joined by their mirror frames.

use std::sync::Arc;

use baton::base::ids::{BootId, GroupId, NodeId, PortId};
use baton::base::time::Instant;
use baton::seal::handshake::{Handled, Handshake};
use baton::seal::{Key, MemberInfo, Session};
use baton::worker::message::Command;
use baton::worker::message::Role;

use crate::bench::*;

pub const MIRROR_PORT: PortId = PortId(2);

fn member(node: u16, workers: u16) -> MemberInfo {
    MemberInfo {
        group: GroupId(0),
        node: NodeId(node),
        boot: BootId(u64::from(node)),
        version_min: 1,
        version_max: 1,
        capabilities: 0,
        workers,
        shards: 256,
        hash_keys: 0,
        udp_port: 0,
        generation: 1,
        mirroring: Default::default(),
    }
}

/// One session, as each side sees it.
pub fn sessions() -> (Arc<Session>, Arc<Session>) {
    sessions_of([1, 1])
}

/// The same between members with so many workers.
pub fn sessions_of(workers: [u16; 2]) -> (Arc<Session>, Arc<Session>) {
    let key = Key::generate().expect("entropy");
    let mut a = Handshake::new(&key, member(1, workers[0]), NodeId(2));
    let mut b = Handshake::new(&key, member(2, workers[1]), NodeId(1));
    let hello = a.poll(Instant::ZERO, true).expect("a hello");
    let Handled::Reply(answer) = b.handle_hello(Instant::ZERO, &hello) else { panic!("an answer") };
    let Handled::Completed(ours) = a.handle_answer(&answer) else { panic!("a session") };
    (ours, b.confirm().expect("the same session"))
}

pub struct Pair {
    pub active: Bench,
    pub standby: Bench,
}

impl Pair {
    /// A session between both, and the standby up to date and in sync.
    pub fn in_sync() -> Pair {
        Pair::of(Bench::active())
    }

    /// The same, of this active.
    pub fn of(active: Bench) -> Pair {
        let mut pair = Pair { active, standby: Bench::new(2, 0, 1) };
        pair.standby.know_neighbours();
        pair.standby.command(Command::Role { epoch: 1, role: Role::Standby, term: TERM });
        pair.join();
        pair
    }

    pub fn join(&mut self) {
        let (ours, theirs) = sessions();
        self.active.command(Command::PeerSession { node: NodeId(2), session: ours });
        self.standby.command(Command::PeerSession { node: NodeId(1), session: theirs });
        self.exchange(200);
        self.active.command(Command::InSync { epoch: 2, term: TERM, peers: vec![NodeId(2)] });
        self.active.events();
    }

    /// Carries mirror frames to and fro for `turns` milliseconds; returns what
    /// the active sent besides.
    pub fn exchange(&mut self, turns: usize) -> Vec<Sent> {
        self.exchange_but(turns, |_, _| true)
    }

    /// As `exchange`, but only of frames that `carried` lets through; it is told
    /// whether the frame is the active's.
    pub fn exchange_but(&mut self, turns: usize, mut carried: impl FnMut(bool, &Sent) -> bool) -> Vec<Sent> {
        let mut others = Vec::new();
        for _ in 0..turns {
            let (mirror, other) = split(self.active.poll_after(1));
            others.extend(other);
            let mut answers = Vec::new();
            for frame in mirror.into_iter().filter(|frame| carried(true, frame)) {
                answers.extend(self.standby.handle(MIRROR_PORT, &to(&frame.bytes, 2)));
            }
            answers.extend(self.standby.poll_after(1));
            for frame in answers.into_iter().filter(|frame| carried(false, frame)) {
                let (mirror, other) = split(self.active.handle(MIRROR_PORT, &to(&frame.bytes, 1)));
                assert!(mirror.is_empty(), "frames leave in polls");
                others.extend(other);
            }
        }
        others
    }
}

/// The frame as its receiver gets it: to that port's own link address.
pub fn to(frame: &[u8], _node: u16) -> Vec<u8> {
    [&OWN_MACS[2][..], &frame[6..]].concat()
}

pub fn split(sent: Vec<Sent>) -> (Vec<Sent>, Vec<Sent>) {
    sent.into_iter().partition(|sent| sent.port == MIRROR_PORT)
}
