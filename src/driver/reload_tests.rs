//! What is answered to who has the file read again, and what is handed on, in each role; before a master that does what it
//! is told at once.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::base::ids::{BootId, GroupId, Term, VirtualServerId, id_of_name};
use crate::config::load;
use crate::driver::clock::Clock;
use crate::failover::keys::{KeyStatus, Proven};
use crate::failover::{Members, State};
use crate::seal::credentials::Sealing;
use crate::seal::key::KeyName;
use crate::seal::node::NodeKey;
use crate::seal::{Key, KeyRing};

const NODE: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

const FILE: &str = r#"
[appliance]
name = "a"
node = 1
[eal]
file_prefix = "a"
[lcores]
master_cpu = 0
worker = [ { cpu = 0 } ]
idle = "sleep"
[[port]]
name = "client"
device = "net_null0"
addresses = ["10.1.0.2/24"]
[[port]]
name = "mirror"
device = "net_null1"
addresses = ["10.9.0.1/24"]
[[pool]]
name = "web"
server = [ { address = "10.1.0.10:80", weight = 1 } ]
[[virtual_server]]
name = "www"
address = "10.1.0.100:80"
protocol = "tcp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.1.0.99"]
[mirror]
port = "mirror"
peers = [ { node = 2, address = "10.9.0.2" } ]
key_file = "k"
[failover]
virtual_router_id = 51
priority = 200
state_dir = "s"
[control]
socket = "a.sock"
"#;

fn file_with_weight(weight: u32) -> String {
    FILE.replace("weight = 1", &format!("weight = {weight}"))
}

/// The thread, and what it talks to.
struct Place {
    reloading: Reloading,
    configured: Receiver<Next>,
    asked: Receiver<Question>,
    path: PathBuf,
    /// What the liveness thread took, and to how many offers it says no.
    taken: RefCell<Option<Keys>>,
    refusals: Cell<u32>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path.with_file_name(""));
    }
}

impl Place {
    fn new(name: &str) -> Place {
        let directory = std::env::temp_dir().join(format!("baton-reload-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory can be made");
        let path = directory.join("baton.toml");
        let ring = KeyRing::generate().expect("entropy");
        let checked = load(&path, FILE).unwrap_or_else(|errors| panic!("{}", sentence("it", &errors)));
        let (configurations, configured) = channel();
        let (questions, asked) = channel();
        let setup = ReloadSetup {
            path: path.clone(),
            started: FILE.to_owned(),
            published: Published::new(Arc::new(Snapshot { generation: 1, checked })),
            configurations,
            questions,
            board: Board::new(Arc::new(AtomicBool::new(false))),
            events: Arc::new(EventLog::new(NODE, Clock::start())),
            keys: Mutex::new(ring.clone().into()),
        };
        let place = Place {
            reloading: Reloading { setup, apart: Vec::new(), idle: Idle::default() },
            configured,
            asked,
            path,
            taken: RefCell::default(),
            refusals: Cell::default(),
        };
        place.setup().say(words_of(&place.setup().published.newest()));
        place.write(&file_with_weight(2));
        place.write_keys(&ring);
        place
    }

    fn setup(&self) -> &ReloadSetup {
        &self.reloading.setup
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).expect("a file can be written");
    }

    fn write_keys(&self, ring: &KeyRing) {
        let path = self.path.with_file_name("k");
        fs::write(&path, ring.to_text()).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    }

    /// In this role; the leader is the peer where it is somebody else. The peer goes by what it does.
    fn is(&self, role: Role, peer: Option<Edition>) {
        let leader = if role == Role::Standby { PEER } else { NODE };
        *self.setup().board.status.lock() = Some(status(role, Some(leader), peer));
    }

    fn own(&self) -> Edition {
        self.setup().board.services.lock().as_ref().expect("it says something").0
    }

    /// Reloads, before a master and workers that take it at once; what was handed.
    fn reload(&self) -> (Answer, Vec<u64>) {
        let setup = self.setup();
        thread::scope(|scope| {
            let reloading = scope.spawn(|| setup.reload());
            let mut handed = Vec::new();
            while !reloading.is_finished() {
                if let Ok(next) = self.configured.recv_timeout(StdDuration::from_millis(1)) {
                    handed.push(next.snapshot.generation);
                    next.answer.send(()).expect("it is waited for");
                }
                if let Some(OtherKeys { keys, answer }) = setup.board.keys.lock().take() {
                    let refused = self.refusals.get() > 0;
                    self.refusals.set(self.refusals.get().saturating_sub(1));
                    let proven = Proven::Key(KeyName(0x5eed));
                    answer
                        .send(if refused { Err(KeysRefused { node: PEER, proven }) } else { Ok(()) })
                        .expect("it waits");
                    if !refused {
                        *self.taken.borrow_mut() = Some(keys);
                    }
                }
            }
            (reloading.join().expect("it does not panic"), handed)
        })
    }

    /// Follows, before a master that takes it at once.
    fn follow(&self, followed: Followed) {
        let setup = self.setup();
        thread::scope(|scope| {
            let following = scope.spawn(|| setup.follow(followed));
            while !following.is_finished() {
                if let Ok(next) = self.configured.recv_timeout(StdDuration::from_millis(1)) {
                    next.answer.send(()).expect("it is waited for");
                }
            }
        });
    }

    fn generation(&self) -> u64 {
        self.setup().published.newest().generation
    }
}

fn status(role: Role, leader: Option<NodeId>, peer: Option<Edition>) -> FailoverStatus {
    let term = Term { counter: 3, node: NODE };
    let mut members = Members::NONE;
    [NODE, PEER].into_iter().for_each(|node| members.insert(node));
    let peer = PeerStatus {
        node: PEER,
        boot: None,
        session: true,
        heard: true,
        heard_ago_us: Some(0),
        role: None,
        state: None,
        term: Some(term),
        can_lead: None,
        maintenance: None,
        failed: None,
        edition: peer,
        priority: None,
        in_sync: true,
        only: Vec::new(),
        walk_done: true,
        dirty: 0,
        disbelieved: None,
        key: KeyStatus { own: KeyName(1), accepted: Vec::new(), proven: Proven::Nothing },
        paths: Vec::new(),
    };
    FailoverStatus {
        group: GroupId(0),
        node: NODE,
        boot: BootId(1),
        role,
        state: State::Booting,
        term,
        leader,
        degraded: false,
        in_sync: true,
        members,
        members_changing: false,
        lease_left_us: 0,
        waits_for_operator: false,
        witness: None,
        can_lead: true,
        maintenance: false,
        maintenance_changes: 0,
        edition: Edition::default(),
        failed: 0,
        leaving: false,
        workers_stuck: Vec::new(),
        promotions: 0,
        takeovers: 0,
        reserved: 0,
        peers: vec![peer],
    }
}

#[test]
fn an_active_whose_peer_goes_by_it_too_goes_by_its_file() {
    let place = Place::new("active");
    // The peer takes what it is told.
    let board = Arc::clone(&place.setup().board);
    place.is(Role::Active, Some(place.own()));
    let follow = move || {
        for _ in 0..2000 {
            let told = board.services.lock().as_ref().map(|(edition, _)| *edition);
            *board.status.lock() = Some(status(Role::Active, Some(NODE), told));
            if told.is_some_and(|told| told.generation == 2) {
                return;
            }
            thread::sleep(StdDuration::from_millis(1));
        }
    };
    let peer = thread::spawn(follow);
    let (answer, handed) = place.reload();
    peer.join().expect("it does not panic");
    let report = answer.expect("it is good");
    assert_eq!(report.changes, ["pool web: server 10.1.0.10:80: weight 2, was 1"]);
    assert_eq!((report.generation, handed, place.generation()), (2, vec![2], 2));
    assert_eq!(report.warnings, [""; 0]);
    // It says nothing new then.
    let (answer, handed) = place.reload();
    assert_eq!((answer.expect("it is good").generation, handed), (2, vec![]));
}

#[test]
fn a_peer_in_sync_that_does_not_go_by_it_keeps_the_file_from_being_taken() {
    let place = Place::new("refused");
    let before = place.own();
    place.is(Role::Active, Some(before));
    let (answer, handed) = place.reload();
    let Err(NotReloaded::Failed(why)) = answer else { panic!("{answer:?}") };
    assert!(
        why.contains("node 2 is in sync and does not go by it") && why.contains("no services have changed"),
        "{why}"
    );
    assert_eq!((handed, place.generation(), place.own()), (vec![], 1, before));
    // One that went by others before is no hindrance, but named.
    place.is(Role::Active, Some(Edition { generation: 9, digest: 9 }));
    let (answer, handed) = place.reload();
    let report = answer.expect("it is good");
    assert!(report.warnings[0].contains("node 2 goes by other services still"), "{report:?}");
    assert_eq!((report.generation, handed), (2, vec![2]));
    // One of an earlier version, which says nothing of services, is not waited for.
    place.write(FILE);
    place.is(Role::Active, None);
    let (answer, handed) = place.reload();
    assert_eq!(
        (answer.map(|report| (report.generation, report.warnings)), handed),
        (Ok((3, vec![])), vec![3])
    );
}

#[test]
fn who_does_not_lead_does_not_go_by_its_file() {
    let place = Place::new("roles");
    for role in
        [Role::Booting, Role::Installing, Role::Quiescing, Role::Resigning, Role::Silenced, Role::Left]
    {
        place.is(role, None);
        let (answer, handed) = place.reload();
        assert!(matches!(answer, Err(NotReloaded::Failed(_))), "{role}: {answer:?}");
        assert_eq!((handed, place.generation()), (vec![], 1), "{role}");
    }
    *place.setup().board.status.lock() = Some(status(Role::Standby, None, None));
    let (answer, _) = place.reload();
    assert!(matches!(answer, Err(NotReloaded::Failed(_))), "in doubt: {answer:?}");
    place.is(Role::Standby, Some(place.own()));
    let (answer, handed) = place.reload();
    let report = answer.expect("the file is good");
    assert!(report.changes.is_empty() && report.warnings[0].contains("node 2 leads"), "{report:?}");
    assert!(report.warnings[0].contains("weight 2, was 1"), "{report:?}");
    assert_eq!((handed, place.generation()), (vec![], 1));
    // Its leader says nothing of services.
    place.is(Role::Standby, None);
    let (answer, handed) = place.reload();
    assert_eq!((answer.map(|report| report.generation), handed), (Ok(2), vec![2]));
}

#[test]
fn a_lead_that_is_lost_while_peers_are_waited_for_leaves_all_as_it_was() {
    let place = Place::new("lost");
    let (before, board) = (place.own(), Arc::clone(&place.setup().board));
    place.is(Role::Active, Some(before));
    let lose = move || {
        thread::sleep(StdDuration::from_millis(100));
        *board.status.lock() = Some(status(Role::Standby, Some(PEER), Some(before)));
    };
    let losing = thread::spawn(lose);
    let (answer, handed) = place.reload();
    losing.join().expect("it does not panic");
    let Err(NotReloaded::Failed(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("the lead was lost"), "{why}");
    assert_eq!((handed, place.generation(), place.own()), (vec![], 1, before));
}

#[test]
fn a_follower_goes_by_its_leaders_services_says_so_in_their_words_and_a_leader_by_nobodys() {
    let place = Place::new("follow");
    let theirs = load(Path::new("theirs.toml"), &file_with_weight(7)).expect("it is good");
    // In words that this version would not choose.
    let text = format!("# As another version says it.\n{}", mirrored::text(&theirs)).into_bytes();
    let edition = Edition::of(5, &text);
    let followed = || Followed { from: PEER, edition, text: text.clone() };
    let before = place.own();
    place.is(Role::Active, Some(edition));
    place.follow(followed());
    assert_eq!((place.generation(), place.own()), (1, before), "it leads");
    place.is(Role::Standby, Some(edition));
    place.follow(Followed { text: b"nonsense".to_vec(), ..followed() });
    assert_eq!((place.generation(), place.own()), (1, before), "it is wrong");
    place.follow(followed());
    assert_eq!((place.generation(), place.own()), (5, edition));
    assert_eq!(place.setup().published.newest().checked.pools[0].servers[0].weight, 7);
    let messages: Vec<_> =
        place.setup().events.report().events.into_iter().map(|event| event.message).collect();
    let [leads, wrong, taken] = &messages[..] else { panic!("{messages:?}") };
    assert!(leads.contains("leads by now") && wrong.contains("node 2 has an error"), "{messages:?}");
    assert!(taken.starts_with("goes by configuration 5 of node 2: pool web: server"), "{taken}");
}

/// REQ B8.
#[test]
fn a_member_follows_its_leader_and_reloads_without_what_it_tracks_and_says_so() {
    let mut place = Place::new("gone");
    place.reloading.setup.started = FILE.replace("key_file", "only = [\"www\"]\nkey_file");
    let renamed = |text: &str| text.replace("\"www\"\naddress", "\"shop\"\naddress");
    let theirs = load(Path::new("theirs.toml"), &renamed(FILE)).expect("it is good");
    let text = mirrored::text(&theirs).into_bytes();
    let edition = Edition::of(5, &text);
    place.is(Role::Standby, Some(edition));
    place.follow(Followed { from: PEER, edition, text });
    assert_eq!((place.generation(), place.own()), (5, edition));
    let messages: Vec<_> =
        place.setup().events.report().events.into_iter().map(|event| event.message).collect();
    let [gone, taken] = &messages[..] else { panic!("{messages:?}") };
    let words = "mirror.only[0]: the leader has no virtual server \"www\"";
    assert!(gone.contains(words) && taken.starts_with("goes by"), "{messages:?}");
    place.write(&renamed(&place.setup().started));
    let report = place.reload().0.expect("it is good");
    let words = "mirror.only[0]: the file has no virtual server \"www\" any more";
    assert!(report.warnings[0].contains(words), "{report:?}");
}

#[test]
fn what_is_retired_is_forgotten_when_it_had_no_connections_at_two_looks_in_a_row() {
    let mut place = Place::new("retired");
    place.is(Role::Active, None);
    place.write(&FILE.replace("\"www\"", "\"shop\""));
    let (answer, _) = place.reload();
    assert_eq!(answer.map(|report| report.generation), Ok(2));
    let retired = |place: &Place| place.setup().published.newest().checked.retired();
    assert_eq!(retired(&place), 1);
    let id = VirtualServerId(id_of_name("www")).0;
    // Of two workers: its connections at one of them.
    let look = |place: &mut Place, flows: [u64; 2]| {
        let Place { reloading, configured, asked, .. } = place;
        thread::scope(|scope| {
            let looking = scope.spawn(|| reloading.forget_retired());
            while !looking.is_finished() {
                if let Ok(Question::Status(answer)) = asked.try_recv() {
                    let status =
                        |flows| WorkerStatus { by_virtual_server: vec![(id, flows)], ..Default::default() };
                    answer.send(flows.map(status).to_vec()).expect("it is waited for");
                }
                if let Ok(next) = configured.recv_timeout(StdDuration::from_millis(1)) {
                    next.answer.send(()).expect("it is waited for");
                }
            }
        });
        retired(place)
    };
    // On its way from one to the other it is counted by neither.
    for flows in [[1, 0], [0, 0], [0, 1], [0, 0]] {
        assert_eq!(look(&mut place, flows), 1, "{flows:?}");
    }
    place.is(Role::Standby, None);
    assert_eq!(look(&mut place, [0, 0]), 1, "it does not lead");
    place.is(Role::Active, None);
    assert_eq!(look(&mut place, [0, 0]), 1);
    let before = place.own();
    assert_eq!(look(&mut place, [0, 0]), 0);
    assert_eq!(place.generation(), 2, "nothing that an operator would name has changed");
    assert_ne!(place.own(), before, "but the peers have to know");
}

#[test]
fn another_key_is_taken_at_the_leader_and_at_who_follows_and_a_broken_key_file_by_nobody() {
    let place = Place::new("keys");
    place.write(FILE);
    let mut ring = place.setup().keys.lock().ring().clone();
    let taken = || place.taken.borrow_mut().take().map(|keys| keys.ring().first().name());
    for role in [Role::Active, Role::Standby] {
        place.is(role, Some(place.own()));
        match role {
            Role::Active => ring.add(Key::generate().expect("entropy")).expect("there is room"),
            _ => ring.put_first(ring.keys()[1].name()).expect("there are two"),
        }
        place.write_keys(&ring);
        let (answer, handed) = place.reload();
        let report = answer.expect("it is good");
        assert!(report.changes.len() == 1 && report.changes[0].starts_with("sealing: key "), "{report:?}");
        assert_eq!((report.generation, handed.len()), (1, 0), "no services have changed");
        assert_eq!(taken(), Some(ring.first().name()));
        let (answer, _) = place.reload();
        assert_eq!((answer.expect("it is good").changes.len(), taken()), (0, None));
    }
    fs::write(place.path.with_file_name("k"), "0123").expect("a file can be written");
    let (answer, _) = place.reload();
    let Err(NotReloaded::Wrong(why)) = answer else { panic!("it was taken: {answer:?}") };
    assert!(
        why.contains("k: line 1: expected one line of 64 hexadecimal digits, found 4 characters"),
        "{why}"
    );
    place.write_keys(&KeyRing::generate().expect("entropy"));
    let (answer, _) = place.reload();
    let Err(NotReloaded::Wrong(why)) = answer else { panic!("it was taken: {answer:?}") };
    assert!(
        why.contains("the hashes of flows would be derived from another key") && taken().is_none(),
        "{why}"
    );
}

#[test]
fn keys_that_would_end_a_session_are_refused_and_can_be_taken_later() {
    let place = Place::new("refused-keys");
    place.write(FILE);
    let before = place.setup().keys.lock().clone();
    let mut ring = before.ring().clone();
    ring.add(Key::generate().expect("entropy")).expect("there is room");
    place.write_keys(&ring);
    place.is(Role::Active, Some(place.own()));
    place.refusals.set(u32::MAX);
    let (answer, _) = place.reload();
    let Err(NotReloaded::Failed(why)) = answer else { panic!("it was taken: {answer:?}") };
    assert!(why.contains("node 2 proves key 00005eed, which would not be accepted any more"), "{why}");
    assert!(place.setup().keys.lock().are_as(&before) && place.setup().board.keys.lock().is_none());
    // The peer proves the other one a moment later.
    place.refusals.set(3);
    let (answer, _) = place.reload();
    assert_eq!(answer.expect("it is good").changes.len(), 1);
    assert!(place.taken.borrow().as_ref().is_some_and(|keys| keys.ring().keys().len() == 2));
}

#[test]
fn with_pinned_keys_alone_other_keys_of_the_key_file_are_taken_for_the_witness() {
    let place = Place::new("pinned-keys");
    place.write(FILE);
    let [own, theirs] = [(); 2].map(|()| NodeKey::generate().expect("entropy"));
    let mut ring = place.setup().keys.lock().ring().clone();
    let pinned = |ring: &KeyRing| {
        Keys::pinned(ring.clone(), Sealing::Enforce, &own, &[(PEER, theirs.public())]).expect("keys")
    };
    *place.setup().keys.lock() = pinned(&ring);
    place.is(Role::Active, Some(place.own()));
    let path = place.path.with_file_name("own");
    fs::write(&path, own.to_text()).expect("a file can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    let peer = format!("address = \"10.9.0.2\", public_key = \"{}\" }}", theirs.public());
    let text = FILE
        .replace("address = \"10.9.0.2\" }", &peer)
        .replace("key_file", "node_key_file = \"own\"\nkey_file");
    place.write(&text);
    let (answer, _) = place.reload();
    assert_eq!(answer.expect("it is good").changes, Vec::<String>::new());
    ring.add(Key::generate().expect("entropy")).expect("there is room");
    place.write_keys(&ring);
    let (answer, _) = place.reload();
    assert!(answer.expect("it is good").changes[0].starts_with("sealing: pinned keys alone: "));
    assert!(place.taken.borrow().as_ref().is_some_and(|keys| keys.are_as(&pinned(&ring))));
}

#[test]
fn one_that_hears_of_no_leader_takes_other_keys_since_its_own_may_be_wrong() {
    let place = Place::new("lone-keys");
    place.write(FILE);
    let lone = || {
        let mut alone = status(Role::Standby, None, None);
        alone.peers[0].heard = false;
        *place.setup().board.status.lock() = Some(alone);
    };
    lone();
    let (answer, _) = place.reload();
    assert!(matches!(answer, Err(NotReloaded::Failed(_))), "there is nothing else to do: {answer:?}");
    let mut ring = place.setup().keys.lock().ring().clone();
    ring.add(Key::generate().expect("entropy")).expect("there is room");
    place.write_keys(&ring);
    let report = place.reload().0.expect("keys are its own");
    assert!(
        report.changes[0].starts_with("sealing: ") && report.warnings[0].contains("it hears of no active"),
        "{report:?}"
    );
    // Services are none that it can change now.
    ring.put_first(ring.keys()[1].name()).expect("it is there");
    place.write_keys(&ring);
    place.write(&file_with_weight(2));
    let (answer, handed) = place.reload();
    let Err(NotReloaded::Failed(why)) = answer else { panic!("it was taken: {answer:?}") };
    assert!(
        why.contains("it hears of no active") && why.contains("other keys were taken: sealing: key "),
        "{why}"
    );
    assert!(
        handed.is_empty()
            && place
                .taken
                .borrow()
                .as_ref()
                .is_some_and(|keys| keys.ring().first().name() == ring.first().name())
    );
}
