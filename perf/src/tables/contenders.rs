//! The tables, behind one interface: two keys lead to one flow, whose line of 64 bytes is what a
//! look-up is for.

use anyhow::{Result, anyhow};
use baton::base::memory::Slab;
use baton::flow::image::{Image, Imager};
use baton::flow::table::{Insert, Table};
use baton::flow::{Direction, Flow, FlowIndex};
use dpdk::hash::Hash;
use hashbrown::HashTable;

/// Keys or flows handled together.
pub const BURST: usize = 32;

/// Seed of every contender's hash.
pub const SEED: u64 = 0x5851_f42d_4c95_7f2d;

/// A table of flows.
pub trait Contender {
    /// Its name.
    fn name(&self) -> &'static str;
    /// How many of its index's slots are in use, 0.0 to 1.0.
    fn load(&self) -> f64;
    /// The lines of these keys; how many there are.
    fn look_up(&mut self, images: &[Image; BURST]) -> usize;
    /// Puts flows in, at most a burst; appends their places.
    fn insert(&mut self, flows: &[Flow], places: &mut Vec<u32>) -> Result<()>;
    /// Takes flows out, at most a burst; how many there were.
    fn remove(&mut self, places: &[u32]) -> usize;
}

/// baton's own.
pub struct Ours(Table);

impl Ours {
    /// For so many flows.
    pub fn new(flows: u32) -> Result<Ours> {
        Ok(Ours(Table::new(flows, SEED)?))
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "baton"
    }

    fn load(&self) -> f64 {
        let (used, slots) = self.0.load();
        used as f64 / slots as f64
    }

    /// As the worker does for a burst: every bucket is asked for, then every line, then compared.
    fn look_up(&mut self, images: &[Image; BURST]) -> usize {
        let table = &mut self.0;
        let spots = images.map(|image| {
            let spot = table.spot(image);
            table.prefetch(spot);
            spot
        });
        let candidates = spots.map(|spot| {
            let candidate = table.candidate(spot);
            table.prefetch_flow(candidate.flow());
            candidate
        });
        let mut found = 0;
        for (image, candidate) in images.iter().zip(candidates) {
            found += usize::from(table.hot_at(candidate, *image).is_some() || again(table, *image));
        }
        found
    }

    fn insert(&mut self, flows: &[Flow], places: &mut Vec<u32>) -> Result<()> {
        for flow in flows {
            for key in [flow.client, flow.server] {
                let image = self.0.imager().of(&key);
                self.0.prefetch(self.0.spot(image));
            }
        }
        for flow in flows {
            match self.0.insert(flow) {
                Insert::Done(place) => places.push(place.0),
                refused => return Err(anyhow!("baton's table: {refused:?}")),
            }
        }
        Ok(())
    }

    fn remove(&mut self, places: &[u32]) -> usize {
        for place in places {
            self.0.prefetch_flow(FlowIndex(*place));
        }
        places.iter().filter(|place| self.0.remove(FlowIndex(**place)).is_some()).count()
    }
}

/// The sure look-up, when the first candidate was another flow.
#[cold]
fn again(table: &Table, image: Image) -> bool {
    image.v4_key().is_some_and(|key| table.lookup(&key).is_some())
}

/// Lines of flows, and which are empty: what the others' indexes lead to.
struct Lines {
    /// Both keys' images in the first four words.
    lines: Slab<[u64; 8]>,
    free: Vec<u32>,
}

impl Lines {
    fn new(flows: u32) -> Result<Lines> {
        Ok(Lines { lines: Slab::new(flows as usize)?, free: (0..flows).rev().collect() })
    }

    fn image(&self, place: u32, direction: Direction) -> Image {
        let line = &self.lines[place as usize];
        match direction {
            Direction::FromClient => Image(line[0], line[1]),
            Direction::FromServer => Image(line[2], line[3]),
        }
    }

    fn take(&mut self, images: [Image; 2]) -> Result<u32> {
        let place = self.free.pop().ok_or_else(|| anyhow!("no line is left"))?;
        let [client, server] = images;
        self.lines[place as usize] = [client.0, client.1, server.0, server.1, 1, 1, 1, 1];
        Ok(place)
    }

    fn give(&mut self, place: u32) {
        self.lines[place as usize] = [0; 8];
        self.free.push(place);
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::FromClient, Direction::FromServer];

/// Place and direction in one number, as in baton's index.
const fn value(place: u32, direction: Direction) -> u32 {
    place << 1 | direction as u32
}

const fn direction_of(value: u32) -> Direction {
    DIRECTIONS[(value & 1) as usize]
}

/// `hashbrown`, which holds place and direction; the keys are in the lines.
pub struct Brown {
    index: HashTable<u32>,
    lines: Lines,
    imager: Imager,
}

impl Brown {
    /// For so many flows. With more than half of its capacity in use, tombstones make it grow in
    /// the middle of a burst; so it gets twice what it is to hold.
    pub fn new(flows: u32) -> Result<Brown> {
        Ok(Brown {
            index: HashTable::with_capacity(4 * flows as usize),
            lines: Lines::new(flows)?,
            imager: Imager::with_seed(SEED),
        })
    }

    fn find(&self, image: Image, hash: u64) -> Option<u32> {
        let is = |value: &u32| self.lines.image(*value >> 1, direction_of(*value)) == image;
        self.index.find(hash, is).copied()
    }
}

impl Contender for Brown {
    fn name(&self) -> &'static str {
        "hashbrown"
    }

    fn load(&self) -> f64 {
        // It keeps an eighth of its slots empty.
        self.index.len() as f64 / (self.index.capacity().max(1) as f64 * 8.0 / 7.0)
    }

    /// It has no prefetch. The first slot with the right tag is taken for the key's until all
    /// lines have been asked for: so at least those are waited for together.
    fn look_up(&mut self, images: &[Image; BURST]) -> usize {
        let hashes = images.map(|image| self.imager.hash(image));
        let candidates = hashes.map(|hash| {
            let candidate = self.index.find(hash, |_| true).copied();
            if let Some(value) = candidate {
                self.lines.lines.prefetch_write((value >> 1) as usize);
            }
            candidate
        });
        let mut found = 0;
        for ((image, hash), candidate) in images.iter().zip(hashes).zip(candidates) {
            let hit = candidate.is_some_and(|v| self.lines.image(v >> 1, direction_of(v)) == *image);
            found += usize::from(hit || self.find(*image, hash).is_some());
        }
        found
    }

    fn insert(&mut self, flows: &[Flow], places: &mut Vec<u32>) -> Result<()> {
        for flow in flows {
            let images = [flow.client, flow.server].map(|key| self.imager.of(&key));
            let hashes = images.map(|image| self.imager.hash(image));
            if self.find(images[0], hashes[0]).is_some() || self.find(images[1], hashes[1]).is_some() {
                return Err(anyhow!("hashbrown: a key is taken"));
            }
            let place = self.lines.take(images)?;
            for (hash, direction) in hashes.into_iter().zip(DIRECTIONS) {
                let Brown { index, lines, imager } = self;
                index.insert_unique(hash, value(place, direction), |value| {
                    imager.hash(lines.image(*value >> 1, direction_of(*value)))
                });
            }
            places.push(place);
        }
        Ok(())
    }

    fn remove(&mut self, places: &[u32]) -> usize {
        for place in places {
            self.lines.lines.prefetch_write(*place as usize);
        }
        let mut removed = 0;
        for place in places {
            for direction in DIRECTIONS {
                let hash = self.imager.hash(self.lines.image(*place, direction));
                let wanted = value(*place, direction);
                if let Ok(entry) = self.index.find_entry(hash, |value| *value == wanted) {
                    entry.remove();
                    removed += 1;
                }
            }
            self.lines.give(*place);
        }
        removed / 2
    }
}

/// `rte_hash`, which holds keys, and place and direction as their data.
pub struct Rte {
    index: Hash,
    lines: Lines,
    imager: Imager,
    /// A power of two.
    slots: u32,
    used: u32,
}

impl Rte {
    /// For so many flows. Like hashbrown's, its slots are a power of two with some to spare: at more
    /// than seven eighths it begins to refuse keys.
    pub fn new(eal: &dpdk::Eal, flows: u32) -> Result<Rte> {
        let slots = (2 * flows).div_ceil(7).saturating_mul(8).next_power_of_two();
        Ok(Rte {
            index: Hash::new(eal, "flows", slots)?,
            lines: Lines::new(flows)?,
            imager: Imager::with_seed(SEED),
            slots,
            used: 0,
        })
    }

    /// Its hashes are of 32 bits.
    fn hash(&self, image: Image) -> u32 {
        (self.imager.hash(image) >> 32) as u32
    }
}

impl Contender for Rte {
    fn name(&self) -> &'static str {
        "rte_hash"
    }

    fn load(&self) -> f64 {
        f64::from(self.used) / f64::from(self.slots)
    }

    fn look_up(&mut self, images: &[Image; BURST]) -> usize {
        let hashes = images.map(|image| self.hash(image));
        let keys = images.map(|image| [image.0, image.1]);
        let mut values = [0; BURST];
        let hits = self.index.find(&keys, &hashes, &mut values);
        for value in values {
            self.lines.lines.prefetch_write(value >> 1);
        }
        // It has compared the keys itself, in a line of its own: the flow's is yet to be read.
        let mut found = 0;
        for (at, value) in values.into_iter().enumerate() {
            let read = self.lines.lines[value >> 1][4] == 1;
            found += usize::from(read && hits >> at & 1 == 1);
        }
        found
    }

    fn insert(&mut self, flows: &[Flow], places: &mut Vec<u32>) -> Result<()> {
        for flow in flows {
            let images = [flow.client, flow.server].map(|key| self.imager.of(&key));
            let place = self.lines.take(images)?;
            for (image, direction) in images.into_iter().zip(DIRECTIONS) {
                let value = value(place, direction) as usize;
                if !self.index.insert(&[image.0, image.1], self.hash(image), value) {
                    return Err(anyhow!("rte_hash refuses a key at a load of {:.2}", self.load()));
                }
            }
            self.used += 2;
            places.push(place);
        }
        Ok(())
    }

    fn remove(&mut self, places: &[u32]) -> usize {
        for place in places {
            self.lines.lines.prefetch_write(*place as usize);
        }
        let mut removed = 0;
        for place in places {
            for direction in DIRECTIONS {
                let image = self.lines.image(*place, direction);
                removed += usize::from(self.index.remove(&[image.0, image.1], self.hash(image)));
            }
            self.lines.give(*place);
            self.used -= 2;
        }
        removed / 2
    }
}
