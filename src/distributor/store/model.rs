//! The store against a model that knows no index, no places and no time left over: whatever signals and packets come, both
//! say the same of every packet, and know the same.

use std::collections::BTreeMap;

use super::*;
use crate::base::rng::Rng;
use crate::flow::key::{TCP, UDP};

const START: Instant = Instant::from_millis(1_000_000);
const HELD: What = What::Memorize(Lifetime::Held);
const CHOSEN: What = What::Memorize(Lifetime::Chosen);

/// What the model knows of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Memory {
    shard: u16,
    kind: Kind,
    /// The tick when its time began, and how many it has.
    from: u64,
    span: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Chosen,
    Said { prolongs: bool },
    Awaited,
    Closed,
    PassedOver,
}

/// The store as it is meant, without bounds: a map and an order.
#[derive(Default)]
struct Model(BTreeMap<(Shape, Key), Memory>);

impl Model {
    fn forget_what_is_over(&mut self, tick: u64) {
        self.0.retain(|_, memory| memory.span.is_none_or(|span| tick - memory.from <= span));
    }

    fn packet(&mut self, tick: u64, key: &Key, refreshes: bool) -> Option<Memory> {
        self.forget_what_is_over(tick);
        let known = Shape::ORDER.map(|shape| (shape, shape.of(key)));
        let name = known.into_iter().find(|name| self.0.contains_key(name))?;
        let memory = self.0[&name];
        if refreshes && matches!(memory.kind, Kind::Said { prolongs: true }) {
            self.0.insert(name, Memory { from: tick, ..memory });
        }
        if refreshes && memory.kind == Kind::Awaited {
            self.0.remove(&name);
            let learned = Memory { kind: Kind::Chosen, from: tick, span: Some(100), ..memory };
            self.0.insert((Shape::Full, *key), learned);
        }
        Some(memory)
    }

    fn signal(&mut self, tick: u64, signal: &Signal) {
        self.forget_what_is_over(tick);
        let name = (signal.shape, signal.shape.of(&signal.key));
        let before = self.0.get(&name).copied();
        let shard = signal.shard.0;
        let said = |kind, span| Memory { shard, kind, from: tick, span };
        let is_mine = before.is_some_and(|b| b.shard == shard || b.kind == Kind::PassedOver);
        let in_ticks = |span: Duration| Some(span.nanos().div_ceil(100_000_000));
        let next = match signal.what {
            What::Memorize(Lifetime::Held) => Some(said(Kind::Said { prolongs: true }, None)),
            What::Memorize(Lifetime::Once(span)) if signal.shape != Shape::Full => {
                Some(said(Kind::Awaited, in_ticks(span)))
            }
            What::Memorize(Lifetime::Idle(span) | Lifetime::Once(span)) => {
                Some(said(Kind::Said { prolongs: true }, in_ticks(span)))
            }
            What::Memorize(Lifetime::Chosen) => match before {
                Some(b) if b.kind == Kind::Chosen => {
                    Some(Memory { shard: b.shard.min(shard), from: tick, ..b })
                }
                Some(b) if b.kind != Kind::Closed => Some(b),
                _ => Some(said(Kind::Chosen, Some(100))),
            },
            What::Forget => before.filter(|_| !is_mine),
            What::Ignore => Some(said(Kind::PassedOver, None)),
            What::Age if is_mine => before.map(|b| {
                let left = b.span.map_or(100, |span| (span - (tick - b.from)).min(100));
                match b.kind {
                    Kind::Closed => b,
                    Kind::Awaited | Kind::PassedOver => Memory { from: tick, span: Some(left), ..b },
                    Kind::Chosen | Kind::Said { .. } => {
                        Memory { from: tick, span: Some(left), kind: Kind::Closed, ..b }
                    }
                }
            }),
            What::Used if is_mine => before.map(|b| match b.kind {
                Kind::Said { .. } => Memory { from: tick, ..b },
                Kind::Chosen | Kind::Awaited | Kind::Closed | Kind::PassedOver => b,
            }),
            What::Age | What::Used | What::Mirror => before,
        };
        match next {
            Some(memory) => self.0.insert(name, memory),
            None => self.0.remove(&name),
        };
    }
}

fn draw_key(rng: &mut Rng) -> Key {
    let address = |n: u8| if n == 3 { Address::v6([n; 16]) } else { Address::v4([10, 0, 0, n]) };
    Key {
        src: address(rng.u8(1..4)),
        dst: address(rng.u8(1..4)),
        src_port: rng.u16(0..3),
        dst_port: rng.u16(0..3),
        vlan: rng.u16(0..2),
        protocol: if rng.u8(0..4) == 0 { UDP } else { TCP },
    }
}

fn draw_signal(rng: &mut Rng) -> Signal {
    let span = Duration::from_millis(rng.u64(0..20_000));
    let what = match rng.u8(0..12) {
        0 | 1 => HELD,
        2 | 3 => What::Memorize(Lifetime::Idle(span)),
        4 | 5 => What::Memorize(Lifetime::Once(span)),
        6 => CHOSEN,
        7 => What::Forget,
        8 => What::Age,
        9 => What::Ignore,
        10 => What::Used,
        _ => What::Mirror,
    };
    let shape = Shape::ORDER[rng.usize(..6)];
    let shard = ShardId(rng.u16(0..3));
    Signal { what, shape, key: draw_key(rng), shard, sides: Sides::Both, mirror: rng.bool() }
}

#[test]
fn it_does_as_the_model_does() {
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let mut model = Model::default();
        // Room for every key there is, also in the half for choices.
        let mut store = Store::new(1_400, seed).expect("memory");
        let mut now = START;
        for step in 0..2_000 {
            now += Duration::from_millis(rng.u64(0..400) * u64::from(rng.u8(0..4) == 0));
            let tick = now.nanos() / 100_000_000;
            if rng.u8(0..3) == 0 {
                let signal = draw_signal(&mut rng);
                model.signal(tick, &signal);
                assert_ne!(store.take(now, &signal).outcome, Outcome::Full);
            } else {
                let (key, refreshes) = (draw_key(&mut rng), rng.bool());
                let expected = model.packet(tick, &key, refreshes);
                let found = match store.look_up(now, &key, refreshes) {
                    Found::Nothing => None,
                    Found::Ignored => Some((None, false)),
                    Found::Shard(shard) | Found::Flow(shard) | Found::Chosen(shard) => {
                        Some((Some(shard.0), false))
                    }
                    Found::Learned { shard, .. } => Some((Some(shard.0), true)),
                };
                let expected = expected.map(|m| {
                    let is_to_a_shard = m.kind != Kind::PassedOver;
                    (is_to_a_shard.then_some(m.shard), m.kind == Kind::Awaited && refreshes)
                });
                assert_eq!(found, expected, "seed {seed}, step {step}, {key}");
            }
            if rng.bool() {
                let _ = store.sweep(now);
            }
            if step % 100 == 99 {
                model.forget_what_is_over(tick);
                let mut shown: Vec<_> =
                    store.entries(now, 0, u32::MAX).map(|k| (k.shape, k.key, k.shard.0)).collect();
                shown.sort();
                let expected: Vec<_> = model.0.iter().map(|(name, m)| (name.0, name.1, m.shard)).collect();
                assert_eq!(shown, expected, "seed {seed}, step {step}");
            }
        }
    }
}
