use super::*;
use crate::base::ids::{NodeId, ServerId, Term, VirtualServerId};
use crate::config::checked::{Server, VirtualServer};
use crate::master::samples::{CLIENT, SERVER, checked, ip, standby};

const NOW: Instant = Instant::from_millis(5000);
const TERM: Term = Term { counter: 7, node: NodeId(1) };

/// The frames that it sends within a second, in whose there is this IPv4 address: (port, in whose name).
fn sent_about(master: &mut Master, since: Instant, address: [u8; 4]) -> Vec<(PortId, TxClass)> {
    let mut about = Vec::new();
    for at in 0..10 {
        master.poll(since + Duration::from_millis(100 * at));
        while let Some(output) = master.poll_output() {
            if let MasterOutput::Inject { port, frame, class } = output
                && frame.windows(4).any(|bytes| bytes == address)
            {
                about.push((port, class));
            }
        }
    }
    about
}

/// How many of these frames it sends within a second.
fn announced(master: &mut Master, since: Instant, frames: &[(PortId, Vec<u8>)]) -> usize {
    let mut count = 0;
    for at in 0..10 {
        master.poll(since + Duration::from_millis(100 * at));
        while let Some(output) = master.poll_output() {
            let MasterOutput::Inject { port, frame, .. } = output else { continue };
            count += usize::from(frames.contains(&(port, frame)));
        }
    }
    count
}

#[test]
fn addresses_and_servers_of_another_configuration_are_announced_and_asked_for_and_others_are_not() {
    let mut config = checked();
    let new = VirtualServer {
        id: VirtualServerId(9),
        address: ip("10.1.0.111"),
        ..config.virtual_servers[0].clone()
    };
    config.virtual_servers.insert(0, new);
    let server = Server { id: ServerId(9), address: ip("10.2.0.77"), ..config.pools[0].servers[0].clone() };
    config.pools[0].servers.insert(0, server);
    for serves in [true, false] {
        let mut master = standby();
        if serves {
            master.handle_role(Instant::ZERO, true);
            master.handle_event(Instant::ZERO, &FailoverEvent::Serving { term: TERM });
        }
        sent_about(&mut master, Instant::ZERO, [0; 4]);
        // Only a weight is another one.
        let mut weights = checked();
        weights.pools[0].servers[0].weight = 7;
        master.configure(NOW, &weights);
        let announcements = master.announcements().to_vec();
        assert_eq!(announced(&mut master, NOW, &announcements), 0, "serves: {serves}");

        let later = NOW + Duration::from_secs(5);
        master.configure(later, &config);
        // What a new active says from now on.
        let announcements = master.announcements().to_vec();
        let new: Vec<_> = announcements
            .into_iter()
            .filter(|(port, frame)| *port == CLIENT && frame.windows(4).any(|bytes| bytes == [10, 1, 0, 111]))
            .collect();
        assert!(!new.is_empty());
        assert_eq!(announced(&mut master, later, &new), if serves { new.len() } else { 0 });
        // Asked for at once, and so in the first second, over and over.
        let mut again = standby();
        again.configure(NOW, &config);
        let asked = sent_about(&mut again, NOW, [10, 2, 0, 77]);
        assert!(asked.contains(&(SERVER, TxClass::Own)), "{asked:?}");
        assert_eq!(sent_about(&mut standby(), NOW, [10, 2, 0, 77]), []);
    }
}
