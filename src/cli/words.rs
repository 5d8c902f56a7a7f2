//! The command's words, from which help, man pages and completions are made.

use core::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::base::limits::FLOWS_SHOWN_MAX;
use crate::seal::key::KeyName;

/// The package's version and the revision that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BATON_REVISION"), ")");

/// A traffic manager on DPDK that never drops a connection.
///
/// Exit status: 0; 1 when it failed; 2 when it was asked wrongly, a broken
/// configuration file included.
#[derive(Debug, Parser)]
#[command(name = "baton", version = VERSION, propagate_version = true, max_term_width = 100)]
pub struct Baton {
    /// What to do.
    #[command(subcommand)]
    pub word: Word,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Word {
    /// Run an appliance until SIGTERM or SIGINT
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file: print a summary, or everything that is wrong with it
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show who leads, who is in sync, what the workers do and how busy they are, and how the peers are
    Status(Query),
    /// List flows and say of each why it is mirrored or not, or choose that for one of them
    Flows(Flows),
    /// Show every counter, by owner and in sum
    Counters(Query),
    /// Show where mirroring with each peer stands and what hinders it, its streams, and held packets
    Mirror(Query),
    /// Show what happened lately
    Events(Query),
    /// Show ports, the workers that receive and send by them, and their counters
    Ports(Query),
    /// Show pools, their servers, virtual servers and source-NAT ports
    Pools(Query),
    /// Read the configuration file again and go on by it, without touching connections
    ///
    /// Pools, their servers and weights, virtual servers, the idle time-outs of [flows], the key file and pinned keys may
    /// change; services all or nothing. Keys are each appliance's own, a standby's too: they are taken first, and stay when
    /// services then cannot change, which the answer says. Whatever
    /// else has changed since the start is an error that names file, line and key, and so is what is wrong in the file
    /// (exit status 2): then nothing changes. New connections are made as the file says now. Those that exist go on, also
    /// to servers and by virtual servers that are gone from the file: these are retired, and shown by `baton pools` until
    /// their last connection has ended.
    ///
    /// Peers take them from the active, before it goes by them itself: if one that is in sync cannot, it is named, and
    /// no service changes. A standby checks its file, says in what that differs, and goes by its active's.
    ///
    /// SIGHUP does the same; what came of it is in the log and in `baton events`.
    Reload(Query),
    /// Move shards of flows between workers while packets come: one, or as many as even out the load
    Rebalance(Rebalance),
    /// Hand the lead to a peer that is in sync; nothing that is mirrored is lost
    ///
    /// Flows that rules left out are mirrored before it, as far as that takes a fifth of a second at most. Lost is what is left
    /// out by then: what an operator chose, and virtual servers with mirror.mode = "off".
    Switchover(Query),
    /// Take the appliance out of service, or put it back
    ///
    /// `on`: if it leads, it hands over as planned, to a standby that is in sync; if there is none, that is refused, and
    /// --force ends service instead. From then on it follows and is mirrored to as before, but never leads: not when the
    /// leader is silent, not at a boot of the group, not by `baton promote` or `baton switchover`. So while the
    /// only other appliance is under maintenance, a failure of the active one ends service.
    ///
    /// `off`: it may lead again, at once or by `failover.preempt`.
    ///
    /// A restart of baton ends it too. To start under maintenance, set failover.maintenance in the configuration file.
    Maintenance(MaintenanceWish),
    /// Lead, though the leader's silence proves nothing: with `partition = "safety"`, when no leader is heard
    ///
    /// With `partition = "safety"` a standby that no longer hears its leader waits, because the leader may be
    /// alive and merely cut off; `baton status` says that it waits, and so do `baton events` and the metric
    /// baton_waits_for_operator. Make sure that the old leader sends nothing any more: that its process has ended, that
    /// its machine is off, or that its ports on the side of the clients and of the servers are down. Then ask the
    /// standby to lead with this word. It serves at once with all the flows that it knows.
    ///
    /// If the old leader is alive after all, two appliances send from the same addresses until they hear each other
    /// again, and connections break; then the old leader, whose term is lower, follows, and the changes of flows that it
    /// made meanwhile are lost.
    ///
    /// Refused while a leader is heard (hand over there, with `baton switchover`), and by an appliance that leads already.
    Promote(Query),
    /// Bear witness for a group of appliances, on a third machine, until SIGTERM or SIGINT
    ///
    /// Members with `failover.witness` ask it several times a second who may send; it grants that to one of them at a time, so
    /// that there is one sender even when the members do not hear each other at all. It needs neither DPDK nor privileges, keeps
    /// nothing on disk, and grants nothing for the time of one grant after its start. The loss of the witness alone
    /// changes nothing, as long as the members hear each other; but nobody takes over without it.
    Witness(WitnessWords),
    /// Write a new key for the members of a group to share
    Keygen {
        /// The file to write; it must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Change the key that members share while they run, or make and show a node's own key
    ///
    /// To change the shared key: `add` at one member, copy the file to all others and to the witness, and `baton reload` at each
    /// member; then the same with `first FILE NAME`, and then with `drop`. Do each step at one member alone, and copy: `add` at two members
    /// makes two keys that differ. After each step look at `baton status` of every member: after `add` all of them are to accept the new
    /// key, after `first` all are to prove it. If each step is done at all before the next, no session and no connection is lost. `baton reload` refuses
    /// keys with which a session with a peer that is heard would end, names the peer, and changes nothing; a peer that is stopped is no hindrance. A
    /// witness reads the file at its start: start it again after each step.
    ///
    /// With keys of their own members do not share one: `generate` at each node, mirror.node_key_file, and the public key of every
    /// other node in mirror.peers. While members run, in three steps, each at all of them with `baton reload` before the next:
    /// mirror.sealing = "receive-only", "permissive", "enforce". The shared key stays, for the hashes of flows and for a witness.
    Keys {
        /// What to do
        #[command(subcommand)]
        word: KeyWord,
    },
    /// Print the man page, or write that of each word into a directory
    Man {
        /// Where to write them
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
    /// Print a shell's completions
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyWord {
    /// Show the names of the keys in a group's key file, and what each is for
    Show {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Add a new key to a group's key file, at one member: from the next reload on it is accepted
    Add {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Put a key of a group's key file first: from the next reload on it is proven, and the others are accepted
    First {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Its name, as `baton keys show` prints it
        #[arg(value_name = "NAME", value_parser = key_name)]
        name: KeyName,
    },
    /// Drop all keys of a group's key file but the first: from the next reload on they are not accepted
    Drop {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write a new key of a node's own, and print the public key that belongs to it
    Generate {
        /// The file to write; it must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the public key that belongs to a node's own key
    Public {
        /// The node's own key file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn key_name(text: &str) -> Result<KeyName, String> {
    KeyName::parse(text)
        .ok_or_else(|| "expected 8 hexadecimal digits, as `baton keys show` prints them".to_owned())
}

/// Whom to ask, and how to print.
#[derive(Args, Debug)]
pub struct Query {
    /// The control socket of the appliance (control.socket in its configuration file)
    #[arg(long, value_name = "SOCKET", default_value = "/run/baton.sock")]
    pub socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is asked of maintenance.
#[derive(Args, Debug)]
pub struct MaintenanceWish {
    /// Whom to ask.
    #[command(flatten)]
    pub query: Query,
    /// Out of service, or back
    #[arg(value_enum, value_name = "STATE")]
    pub state: InOrOut,
    /// Go out of service though no standby is in sync: flows may be lost, and service ends if nobody takes over
    #[arg(long)]
    pub force: bool,
}

/// A state of maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InOrOut {
    /// Under maintenance: it does not lead
    On,
    /// In service
    Off,
}

/// Where to bear witness, or which witness to ask.
#[derive(Args, Debug)]
pub struct WitnessWords {
    /// The address and port to listen on: those that the members have as failover.witness
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "status", conflicts_with = "status")]
    pub listen: Option<SocketAddr>,
    /// The group's key file, the members' mirror.key_file
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// For how many milliseconds it grants: the members' longest failover.takeover_after_ms
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(3..=120_000))]
    pub hold_ms: u32,
    /// Ask the witness at this address how things are, and print it
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "hold_ms")]
    pub status: Option<SocketAddr>,
    /// Print JSON
    #[arg(long, requires = "status")]
    pub json: bool,
}

/// Which shards to move.
#[derive(Args, Debug)]
pub struct Rebalance {
    /// Whom to ask.
    #[command(flatten)]
    pub query: Query,
    /// Move this shard alone
    #[arg(long, value_name = "SHARD", requires = "to")]
    pub shard: Option<u16>,
    /// To this worker
    #[arg(long, value_name = "WORKER", requires = "shard")]
    pub to: Option<u16>,
    /// Say what would be moved, and move nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Flows.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Flows {
    /// Which to list.
    #[command(flatten)]
    pub list: FlowQuery,
    /// What else to do.
    #[command(subcommand)]
    pub word: Option<FlowWord>,
}

/// What to do with a flow.
#[derive(Debug, Subcommand)]
pub enum FlowWord {
    /// Choose whether one flow is mirrored; ask the active
    ///
    /// `on`: peers are told of it, whatever the rules of its virtual server say. `off`: they are told to forget it, and it goes on
    /// here; if this appliance fails or hands over, it breaks. That is refused of a flow that came with a takeover and has a
    /// source-NAT port of another member, which has to know of it. `auto`: the rules decide again, if the flow began here under
    /// the rules of now; otherwise it is mirrored, if its virtual server is. What an operator wants goes with the flow to
    /// whoever takes over, and ends with it: if the client opens it again, it is another one.
    Mirror(FlowMirror),
}

/// Which flow to mirror, or not.
#[derive(Args, Debug)]
pub struct FlowMirror {
    /// Whom to ask.
    #[command(flatten)]
    pub query: Query,
    /// What is wanted
    #[arg(value_enum, value_name = "CHOICE")]
    pub choice: OnOffAuto,
    /// tcp or udp
    #[arg(value_enum, value_name = "PROTOCOL")]
    pub protocol: TcpOrUdp,
    /// The client's address and port, as `baton flows` shows them
    #[arg(value_name = "CLIENT")]
    pub client: SocketAddr,
    /// The virtual server's address and port, likewise
    #[arg(value_name = "VIRTUAL")]
    pub to: SocketAddr,
}

/// What is wanted of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOffAuto {
    /// It is mirrored
    On,
    /// It is not
    Off,
    /// As the rules of its virtual server say, if it began under them; otherwise as its virtual server
    Auto,
}

/// A flow's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TcpOrUdp {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Which flows to list.
#[derive(Args, Debug)]
pub struct FlowQuery {
    /// Whom to ask.
    #[command(flatten)]
    pub query: Query,
    /// At most as many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = limit)]
    pub limit: usize,
    /// Of this virtual server alone
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub virtual_server: Option<String>,
    /// Of this client alone
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
    /// To this real server alone
    #[arg(long, value_name = "ADDRESS")]
    pub server: Option<IpAddr>,
    /// Those alone that are to be mirrored and are not protected yet
    #[arg(long)]
    pub unprotected: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| *limit <= FLOWS_SHOWN_MAX);
    limit.ok_or_else(|| format!("expected a whole number up to {FLOWS_SHOWN_MAX}"))
}

/// The characters that the configuration allows in names need no escaping in a query.
fn name(text: &str) -> Result<String, String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !text.is_empty() && text.bytes().all(known) {
        Ok(text.to_owned())
    } else {
        Err("expected letters, digits, '-', '_' and '.'".to_owned())
    }
}
