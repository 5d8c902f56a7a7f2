//! Receive-side scaling asked of ports, and read back: `net_null` keeps a hash, a key and a table like a network card, and
//! spreads nothing by them; a ring has several queues and none of that.

use std::sync::Mutex;

use baton::base::ids::PortId;
use baton::control::rss::SpreadBy;
use baton::driver::ports::{self, OpenPort, Queues};
use baton::driver::rss::{Ends, Wish, table};
use baton::driver::secrets::Secrets;
use dpdk::rss::{Field, Fields, Hashing, Key};
use dpdk::{Eal, Mempool};
use log::{LevelFilter, Log, Metadata, Record};

use crate::common::with_eal;
use crate::{pool, port_config};

const NULL: &[&str] = &["--lcores=0@0", "--vdev=net_null0"];
const RING: &[&str] = &["--lcores=0@0", "--vdev=net_ring0"];

/// What the log said of baton's own.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("baton")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            SAID.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

fn listen() {
    log::set_logger(&Listener).unwrap();
    log::set_max_level(LevelFilter::Info);
}

/// What was said that has these words.
fn said(words: &str) -> Vec<String> {
    SAID.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
}

fn open(eal: &Eal, device: &str, queues: u16, wish: Wish<'_>, pool: &Mempool) -> OpenPort {
    ports::open(eal, PortId(0), &port_config(device, 1500), Queues::both(queues), wish, pool).unwrap()
}

#[test]
fn a_port_gets_the_groups_key_and_a_queue_for_each_bucket_and_says_so_itself() {
    let name = "rss::a_port_gets_the_groups_key_and_a_queue_for_each_bucket_and_says_so_itself";
    with_eal(name, NULL, |eal| {
        listen();
        let pool = pool(&eal);
        let secrets = Secrets::gather(None).unwrap();
        let key = secrets.toeplitz.key();
        let port = open(&eal, "net_null0", 3, Wish { ends: Ends::Both, key }, &pool);
        assert_eq!((port.rx.len(), port.configured.rx_queues), (3, 3));

        // Asked of DPDK itself, not of what was reported.
        let does = port.port.rss_hash().unwrap();
        assert_eq!(does.key.0, key, "the group's key, and not the device's");
        for field in [Field::TcpV4, Field::UdpV4, Field::TcpV6, Field::UdpV6, Field::OtherIp] {
            assert!(does.fields.contains(field), "{field:?}");
        }
        let leads = port.port.rss_table().unwrap();
        assert_eq!(leads.len(), 128);
        assert_eq!(leads, table(128, 3));
        assert_eq!(leads[..4], [0, 1, 2, 0]);

        assert_eq!(port.rss.to_string(), "source and destination of TCP and UDP; 3 queues, 128 buckets");
        let line = said("RSS");
        assert_eq!(line.len(), 1, "{line:?}");
        assert!(line[0].starts_with("INFO port client: RSS with the group's key by source and"), "{line:?}");
    });
}

#[test]
fn a_port_without_the_source_alone_hashes_both_ends_and_says_it_once() {
    let name = "rss::a_port_without_the_source_alone_hashes_both_ends_and_says_it_once";
    with_eal(name, NULL, |eal| {
        listen();
        let pool = pool(&eal);
        let secrets = Secrets::gather(None).unwrap();
        let port =
            open(&eal, "net_null0", 2, Wish { ends: Ends::Source, key: secrets.toeplitz.key() }, &pool);
        assert!(!port.port.info().unwrap().rss.fields.contains(Field::SourceOnly));
        assert_eq!(port.rss.by, SpreadBy::Port);
        assert_eq!(
            port.rss.to_string(),
            "source and destination of TCP and UDP; 2 queues, 128 buckets: it does not hash the source alone"
        );
        assert_eq!(said("it does not hash the source alone").len(), 1);
    });
}

#[test]
fn a_port_without_rss_opens_with_all_its_queues_and_says_software_once() {
    let name = "rss::a_port_without_rss_opens_with_all_its_queues_and_says_software_once";
    with_eal(name, RING, |eal| {
        listen();
        let pool = pool(&eal);
        let secrets = Secrets::gather(None).unwrap();
        let mut port =
            open(&eal, "net_ring0", 2, Wish { ends: Ends::Source, key: secrets.toeplitz.key() }, &pool);
        assert_eq!((port.rx.len(), port.configured.rss), (2, Fields::NONE));
        assert_eq!(port.rss.to_string(), "software: it offers no RSS");
        let line = said("software distribution");
        assert_eq!(
            line,
            [
                "WARN port client: asked for RSS with the group's key by the source of TCP and UDP, but it offers no \
              RSS: software distribution: packets are handed over between lcores (counter handed_over)"
            ]
        );
        // And DPDK itself knows of none.
        assert!(port.port.rss_hash().unwrap_err().is_unsupported());
        assert!(port.port.rss_table().unwrap_err().is_unsupported());
        assert!(port.port.set_rss_table(&[0, 1]).unwrap_err().is_unsupported());
    });
}

#[test]
fn one_queue_is_nothing_to_ask_for() {
    with_eal("rss::one_queue_is_nothing_to_ask_for", NULL, |eal| {
        listen();
        let pool = pool(&eal);
        let secrets = Secrets::gather(None).unwrap();
        let port =
            open(&eal, "net_null0", 1, Wish { ends: Ends::Source, key: secrets.toeplitz.key() }, &pool);
        assert_eq!((port.rss.to_string(), port.configured.rss), ("one queue".to_owned(), Fields::NONE));
        assert_eq!(said("RSS"), [""; 0]);
        assert!(port.port.rss_hash().unwrap().key.0 != secrets.toeplitz.key(), "it was not touched");
    });
}

#[test]
fn a_hash_and_a_table_that_do_not_fit_are_refused_and_change_nothing() {
    let name = "rss::a_hash_and_a_table_that_do_not_fit_are_refused_and_change_nothing";
    with_eal(name, NULL, |eal| {
        let pool = pool(&eal);
        let secrets = Secrets::gather(None).unwrap();
        let wish = Wish { ends: Ends::Both, key: secrets.toeplitz.key() };
        let mut port = open(&eal, "net_null0", 2, wish, &pool).port;
        let error = port.set_rss_table(&[0; 64]).unwrap_err().to_string();
        assert!(error.ends_with("it has 128 buckets, not 64 (errno 22)"), "{error}");
        assert!(port.set_rss_table(&[2; 128]).is_err(), "there is no third queue");
        let long = Hashing { fields: Field::TcpV4.into(), key: Key(vec![1; 256]) };
        assert!(port.set_rss_hash(&long).unwrap_err().to_string().contains("a key of 256 bytes"));
        assert_eq!(port.rss_table().unwrap(), table(128, 2));
        assert_eq!(port.rss_hash().unwrap().key.0, wish.key);
    });
}

#[test]
fn a_port_that_accepts_a_key_and_keeps_its_own_is_found_out() {
    // In DPDK 22.11 a bond has a key as long as its members say that theirs are, and `net_null` does not say.
    let bond = "--vdev=net_bonding0,mode=0,slave=net_null0,slave=net_null1";
    let devices = ["--lcores=0@0", "--vdev=net_null0", "--vdev=net_null1", bond];
    with_eal("rss::a_port_that_accepts_a_key_and_keeps_its_own_is_found_out", &devices, |eal| {
        listen();
        let pool = pool(&eal);
        let secrets = Secrets::gather(None).unwrap();
        let key = secrets.toeplitz.key();
        let port = open(&eal, "net_bonding0", 2, Wish { ends: Ends::Both, key }, &pool);
        assert_eq!(port.port.rss_table().unwrap(), table(128, 2));
        let (report, warned) = if port.port.info().unwrap().rss.key_bytes == 0 {
            assert!(port.port.rss_hash().unwrap().key.0 != key);
            ("software: its key is not the group's", 1)
        } else {
            assert!(port.port.rss_hash().unwrap().key.0 == key);
            ("source and destination of TCP and UDP; 2 queues, 128 buckets", 0)
        };
        assert_eq!(port.rss.to_string(), report);
        assert_eq!(said("software distribution").len(), warned);
    });
}
