//! LANs: a switch that learns, and its weather: loss, delay, duplicates, reordering,
//! flipped bits, cuts in one or both directions.

use std::collections::{BTreeMap, BTreeSet};

use crate::agenda::{Agenda, Happening, MS, Nanos, Station, US};

/// The clients' LAN, the servers' LAN and the link between the mirror ports, by place.
pub const CLIENTS: usize = 0;
pub const SERVERS: usize = 1;
pub const MIRROR: usize = 2;

/// How often things go wrong, in a million frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u32,
    pub duplicate: u32,
    /// Frames that come up to 3 ms late, behind others.
    pub reorder: u32,
    /// Frames that come up to [`STRAGGLE_MAX`] late.
    pub straggle: u32,
    /// Frames of appliances among themselves of which a bit is flipped.
    pub flip: u32,
}

#[derive(Default)]
pub struct Lan {
    pub stations: Vec<Station>,
    pub weather: Weather,
    learned: BTreeMap<[u8; 6], Station>,
    /// From the first to the second nothing passes.
    pub cut: BTreeSet<(Station, Station)>,
    /// When the newest frame reaches the switch, and each station: the rest stays behind it.
    to_switch: BTreeMap<Station, Nanos>,
    to_station: BTreeMap<Station, Nanos>,
    /// Ways to stations that carry little.
    pub narrow: BTreeMap<Station, Narrow>,
}

/// What a way carries.
#[derive(Clone, Copy, Debug)]
pub struct Narrow {
    /// How long a byte takes.
    pub byte: Nanos,
    /// What would come later than this is dropped.
    pub late_max: Nanos,
}

/// The latest that a frame comes.
pub const STRAGGLE_MAX: Nanos = 2_500 * MS;

/// EtherType of heartbeats and handshakes.
pub const LIVENESS: [u8; 2] = [0x88, 0xb5];

impl Lan {
    /// A station sends a frame.
    pub fn send(&mut self, number: usize, from: Station, mut frame: Vec<u8>, agenda: &mut Agenda) {
        let Weather { loss, duplicate, reorder, straggle, flip } = self.weather;
        if agenda.chance(loss) {
            return;
        }
        // A flipped bit of ARP, which has no checksum of its own, is the frame check sequence's affair.
        let sealed = match frame.get(12..14) {
            Some(kind) if kind == LIVENESS => true,
            Some([0x08, 0x00]) => number == MIRROR,
            _ => false,
        };
        if sealed && agenda.chance(flip) {
            let bit = agenda.rng.usize(14 * 8..frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        if agenda.chance(duplicate) {
            let later = agenda.now + agenda.span(10 * US, 5 * MS);
            agenda.at(later, Happening::AtSwitch { lan: number, from, frame: frame.clone() });
        }
        let late = if agenda.chance(straggle) {
            agenda.span(5 * MS, STRAGGLE_MAX)
        } else if agenda.chance(reorder) {
            agenda.span(50 * US, 3 * MS)
        } else {
            let last = self.to_switch.entry(from).or_default();
            *last = (agenda.now + agenda.span(3 * US, 30 * US)).max(*last + 1);
            let at = *last;
            return agenda.at(at, Happening::AtSwitch { lan: number, from, frame });
        };
        agenda.at(agenda.now + late, Happening::AtSwitch { lan: number, from, frame });
    }

    /// A frame is at the switch.
    pub fn switch(&mut self, from: Station, frame: &[u8], agenda: &mut Agenda) {
        let (Some(to), Some(source)) = (frame.first_chunk::<6>(), frame.get(6..12)) else { return };
        let is_group = |mac: &[u8]| mac[0] & 1 == 1;
        if let (Ok(source), false) = (source.try_into(), is_group(source)) {
            self.learned.insert(source, from);
        }
        let known = self.learned.get(to).filter(|_| !is_group(to));
        let targets: Vec<Station> = match known {
            Some(station) => vec![*station],
            None => self.stations.clone(),
        };
        for target in targets {
            // Hosts are in no group of liveness frames: their port would not take them.
            let in_group =
                matches!(target, Station::Appliance { .. }) || frame.get(12..14) != Some(&LIVENESS);
            if target != from && in_group && !self.cut.contains(&(from, target)) {
                let last = self.to_station.entry(target).or_default();
                let mut at = (agenda.now + agenda.span(3 * US, 30 * US)).max(*last + 1);
                if let Some(Narrow { byte, late_max }) = self.narrow.get(&target) {
                    at += byte * frame.len() as Nanos;
                    if at > agenda.now + late_max {
                        continue;
                    }
                }
                *last = at;
                agenda.at(at, Happening::AtStation { to: target, frame: frame.to_vec() });
            }
        }
    }

    /// Cuts, or mends, the way from one station to another.
    pub fn set_cut(&mut self, from: Station, to: Station, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// Frames come to a station and none leaves it, or none comes and they leave.
    pub fn cut_one_way(&mut self, station: Station, inwards: bool) {
        for other in self.stations.clone() {
            let (from, to) = if inwards { (station, other) } else { (other, station) };
            self.set_cut(from, to, true);
        }
    }

    /// Forgets which addresses are where: frames go everywhere until they are learned again.
    pub fn forget(&mut self) {
        self.learned.clear();
    }

    /// Whether something passes between a station and any other one.
    pub fn has_link(&self, station: Station) -> bool {
        let cut = |from, to| self.cut.contains(&(from, to));
        self.stations.iter().any(|other| *other != station && !(cut(station, *other) && cut(*other, station)))
    }

    /// Pulls the cable of a station.
    pub fn pull_cable(&mut self, station: Station) {
        for other in self.stations.clone() {
            self.set_cut(station, other, true);
            self.set_cut(other, station, true);
        }
    }
}
