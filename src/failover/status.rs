//! How things are, for `baton status` and the metrics.

use serde::{Deserialize, Serialize};

use super::Failover;
use super::distrust::DisbelievedStatus;
use super::insync::Change;
use super::keys::KeyStatus;
use super::members::Members;
use super::role::Role;
use super::state::{Facts, State};
use super::witness::words::Verdict;
use crate::base::ids::{BootId, GroupId, NodeId, PortId, Term, WorkerId};
use crate::base::time::{Duration, Instant};
use crate::config::mirrored::Edition;

/// How things are with this appliance and its peers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailoverStatus {
    /// Its group.
    pub group: GroupId,
    /// Its number in the group.
    pub node: NodeId,
    /// This start of its process.
    pub boot: BootId,
    /// What it is.
    pub role: Role,
    /// What that comes to.
    pub state: State,
    /// The term that it leads or follows.
    pub term: Term,
    /// Who leads, as far as is known.
    pub leader: Option<NodeId>,
    /// It leads without having been in sync: some flows may have been lost.
    pub degraded: bool,
    /// As a standby: it is in its leader's in-sync set.
    pub in_sync: bool,
    /// As a leader: who is in sync with it.
    pub members: Members,
    /// The in-sync set is being changed.
    pub members_changing: bool,
    /// How long the lease lasts yet, in microseconds; zero: it sends nothing.
    pub lease_left_us: u64,
    /// In a partition, with `safety`: only the operator can promote it.
    pub waits_for_operator: bool,
    /// It could take a term: its term file can be written.
    pub can_lead: bool,
    /// Its operator has taken it out of service, or is about to have.
    pub maintenance: bool,
    /// How often that changed, since its start.
    pub maintenance_changes: u64,
    /// The services that it goes by, as it says to others.
    pub edition: Edition,
    /// Things tracked by the operator that have failed, as it says to others.
    pub failed: u8,
    /// It is leaving the group.
    pub leaving: bool,
    /// Workers that make no progress.
    pub workers_stuck: Vec<WorkerId>,
    /// Terms that it took to lead, since its start.
    pub promotions: u64,
    /// Those of them that it took as a standby.
    pub takeovers: u64,
    /// Counters up to this one are durably reserved.
    pub reserved: u64,
    /// How things are with the witness, if there is one.
    pub witness: Option<WitnessView>,
    /// Every configured peer.
    pub peers: Vec<PeerStatus>,
}

/// How things are with the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessView {
    /// It answers.
    pub heard: bool,
    /// Microseconds since it was last heard.
    pub heard_ago_us: Option<u64>,
    /// It lets this appliance send.
    pub grants: bool,
    /// For how long yet, in microseconds.
    pub grant_left_us: u64,
    /// What it said last to who asked for its grant.
    pub verdict: Option<Verdict>,
    /// Who has the grant, as it said then.
    pub holder: Option<NodeId>,
    /// For how long it grants, in milliseconds; 0: it was not heard yet.
    pub hold_ms: u64,
}

/// How things are with a peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Its number.
    pub node: NodeId,
    /// Its newest boot that was proven.
    pub boot: Option<BootId>,
    /// There is a session with it and mirror streams under it.
    pub session: bool,
    /// It is heard and hears us.
    pub heard: bool,
    /// Microseconds since it was last heard.
    pub heard_ago_us: Option<u64>,
    /// What it last said to be.
    pub role: Option<Role>,
    /// What that comes to.
    pub state: Option<State>,
    /// The term that it last said to lead or follow.
    pub term: Option<Term>,
    /// Whether it last said that it could take a term.
    pub can_lead: Option<bool>,
    /// Whether it last said to be out of service.
    pub maintenance: Option<bool>,
    /// How many of the things tracked there failed, as it last said.
    pub failed: Option<u8>,
    /// The services that it goes by, as it last said, if it says so.
    pub edition: Option<Edition>,
    /// Its priority.
    pub priority: Option<u8>,
    /// It is in our in-sync set.
    pub in_sync: bool,
    /// The virtual servers that it tracks, by id; none: all.
    pub only: Vec<u32>,
    /// All that existed when it came was sent and acknowledged.
    pub walk_done: bool,
    /// Flows with changes that it has not acknowledged.
    pub dirty: u64,
    /// What was heard in its name and not believed, since the start; `None`: nothing that is worth a word.
    pub disbelieved: Option<DisbelievedStatus>,
    /// What both prove to each other.
    pub key: KeyStatus,
    /// Every port, as a path to it.
    pub paths: Vec<PathStatus>,
}

/// One liveness path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathStatus {
    /// Our port.
    pub port: PortId,
    /// It is the dedicated mirror port.
    pub mirror: bool,
    /// Microseconds since the peer was heard by it.
    pub heard_ago_us: Option<u64>,
    /// The peer hears what we send by it.
    pub hears_us: bool,
}

impl Failover {
    /// How things are, as of the newest poll.
    pub fn status(&self) -> FailoverStatus {
        let now = self.polled_at;
        let leads = self.role.claims();
        let followed = self.role == Role::Standby && self.leader_lives(now);
        FailoverStatus {
            group: self.member.group,
            node: self.node(),
            boot: self.member.boot,
            role: self.role,
            state: self.state(),
            term: self.terms.current(),
            leader: (leads || followed).then_some(self.terms.current().node),
            degraded: self.degraded,
            in_sync: self.role == Role::Standby && self.believes_in_sync(),
            members: self.insync.told,
            members_changing: self.insync.change != Change::None,
            lease_left_us: (self.lease.until() - now).micros(),
            waits_for_operator: self.waits_for_operator,
            can_lead: self.has_term(),
            edition: self.services.own(),
            failed: self.failed(),
            maintenance: self.maintenance.on,
            maintenance_changes: self.maintenance.changes,
            leaving: self.leaving,
            workers_stuck: (0..self.lcores as u16)
                .filter(|worker| self.worker_stuck & 1 << worker != 0)
                .map(WorkerId)
                .collect(),
            promotions: self.promotions,
            takeovers: self.takeovers,
            reserved: self.terms.reserved(),
            witness: self.witness_view(now),
            peers: self.peers.iter().map(|peer| self.peer_status(now, peer)).collect(),
        }
    }

    /// What it is, for the operator.
    pub(super) fn state(&self) -> State {
        let in_sync = self.role == Role::Standby && self.believes_in_sync();
        let followed = !self.insync.told.is_empty();
        let (maintenance, outranked) = (self.maintenance.on, self.outranked);
        State::of(self.role, Facts { in_sync, followed, maintenance, outranked })
    }

    fn peer_status(&self, now: Instant, peer: &super::Peer) -> PeerStatus {
        let takeover_after = self.config.takeover_after;
        let ago = |at: Instant| (at != Instant::ZERO).then(|| (now - at).micros());
        let reports = || peer.synced[..self.workers].iter();
        let hears = peer.said.map_or(0, |said| said.hears);
        let fresh = peer.heard_within(now, takeover_after.max(Duration::from_millis(1)));
        PeerStatus {
            node: peer.node,
            boot: peer.boot,
            session: peer.open,
            heard: peer.present,
            heard_ago_us: peer.said.and_then(|_| ago(peer.heard_at)),
            role: peer.said.map(|said| said.role),
            state: peer.said.map(|said| said.state()),
            term: peer.said.map(|said| said.term),
            can_lead: peer.said.map(|said| said.can_lead),
            maintenance: peer.said.map(|said| said.maintenance),
            failed: peer.said.map(|said| said.failed),
            edition: peer.said.map(|said| said.edition).filter(Edition::is_said),
            priority: peer.said.map(|said| said.priority),
            in_sync: self.insync.told.contains(peer.node),
            only: peer.tracked.named().iter().map(|id| id.0).collect(),
            walk_done: reports().all(|synced| synced.is_some_and(|synced| synced.walk_done)),
            dirty: reports().flatten().map(|synced| u64::from(synced.dirty)).sum(),
            disbelieved: peer.disbelieved.status(now),
            key: self.key_status(peer),
            paths: self
                .ports
                .iter()
                .map(|port| PathStatus {
                    port: port.setup.id,
                    mirror: port.setup.mirror,
                    heard_ago_us: ago(peer.heard_by[usize::from(port.setup.id.0)]),
                    hears_us: fresh && hears & 1 << port.setup.id.0 != 0,
                })
                .collect(),
        }
    }
}
