//! The store by signals and packets.

use super::*;
use crate::base::rng::Rng;
use crate::flow::key::{TCP, UDP};

const KEY: Key = Key {
    src: Address::v4([192, 0, 2, 1]),
    dst: Address::v4([198, 51, 100, 2]),
    src_port: 40000,
    dst_port: 21,
    vlan: 0,
    protocol: TCP,
};
const SHARD: ShardId = ShardId(7);
const START: Instant = Instant::from_millis(1_000_000);
const HELD: What = What::Memorize(Lifetime::Held);
const CHOSEN: What = What::Memorize(Lifetime::Chosen);

const fn idle(secs: u64) -> What {
    What::Memorize(Lifetime::Idle(Duration::from_secs(secs)))
}

const fn once(secs: u64) -> What {
    What::Memorize(Lifetime::Once(Duration::from_secs(secs)))
}

const fn signal(what: What, shape: Shape) -> Signal {
    Signal { what, shape, key: KEY, shard: SHARD, sides: Sides::Both, mirror: false }
}

fn full(what: What) -> Signal {
    signal(what, Shape::Full)
}

fn after(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

fn store(capacity: u32) -> Store {
    Store::new(capacity, 3).expect("memory")
}

/// A store that was given these signals at the start.
fn store_with(signals: &[Signal]) -> Store {
    let mut store = store(64);
    for signal in signals {
        assert_eq!(store.take(START, signal).outcome, Outcome::Done, "{signal:?}");
    }
    store
}

fn state(store: &mut Store, now: Instant, shape: Shape) -> State {
    let key = shape.of(&KEY);
    store.entries(now, 0, u32::MAX).find(|known| known.shape == shape && known.key == key).map_or(
        State::Absent,
        |known| {
            assert_eq!(known.shard, SHARD);
            known.state
        },
    )
}

/// What there is, wherever it lies.
fn shown(store: &Store, now: Instant) -> Vec<(Shape, Key, ShardId, State)> {
    let all = store.entries(now, 0, u32::MAX);
    let mut shown: Vec<_> = all.map(|known| (known.shape, known.key, known.shard, known.state)).collect();
    shown.sort_by_key(|known| (known.0, known.1));
    shown
}

/// What was found, whether or not it is of a flow that a traffic manager said it has.
fn shard_of(found: Found) -> Found {
    match found {
        Found::Flow(shard) | Found::Chosen(shard) => Found::Shard(shard),
        Found::Nothing | Found::Shard(_) | Found::Ignored | Found::Learned { .. } => found,
    }
}

#[test]
fn only_a_full_key_that_a_traffic_manager_holds_is_of_a_flow() {
    for (what, is_flow) in
        [(HELD, true), (CHOSEN, false), (What::Memorize(Lifetime::Idle(Duration::from_secs(60))), false)]
    {
        for shape in Shape::ORDER {
            let mut store = store(64);
            assert_eq!(store.take(START, &signal(what, shape)).outcome, Outcome::Done);
            let is_flow = is_flow && shape == Shape::Full;
            let expected = match what {
                _ if is_flow => Found::Flow(SHARD),
                CHOSEN => Found::Chosen(SHARD),
                _ => Found::Shard(SHARD),
            };
            assert_eq!(store.look_up(START, &KEY, true), expected, "{what:?} {shape}");
            // While it closes, its flow is still there.
            assert_eq!(store.take(START, &signal(What::Age, shape)).outcome, Outcome::Done);
            assert_eq!(
                matches!(store.look_up(START, &KEY, true), Found::Flow(_)),
                is_flow || shape == Shape::Full
            );
        }
    }
}

#[test]
fn an_empty_store_knows_nothing() {
    let mut store = store(64);
    store.prefetch(&KEY);
    assert!(store.is_empty());
    assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Nothing);
    assert_eq!((store.sweep(START), store.entries(START, 0, 64).count()), (None, 0));
}

#[test]
fn the_most_specific_key_decides_and_each_less_specific_one_when_it_is_gone() {
    let mut store = store(64);
    for (shape, shard) in Shape::ORDER.into_iter().zip(1..) {
        let took = store.take(START, &Signal { shard: ShardId(shard), ..signal(HELD, shape) });
        assert_eq!(took.outcome, Outcome::Done);
    }
    assert_eq!(store.len(), 6);
    for (shape, shard) in Shape::ORDER.into_iter().zip(1..) {
        store.prefetch(&KEY);
        assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Shard(ShardId(shard)), "{shape}");
        assert_eq!(store.len_of(shape), 1);
        let forget = Signal { shard: ShardId(shard), ..signal(What::Forget, shape) };
        assert_eq!(store.take(START, &forget).outcome, Outcome::Done);
        assert_eq!(store.len_of(shape), 0);
    }
    assert_eq!((shard_of(store.look_up(START, &KEY, true)), store.len()), (Found::Nothing, 0));
}

#[test]
fn each_shape_fits_packets_that_differ_where_it_does_not_count() {
    let other = Key { src: Address::v6([9; 16]), dst: Address::v6([8; 16]), src_port: 1, dst_port: 2, ..KEY };
    // Whether it still fits when source, source port, destination port, destination are another.
    let fits = [
        (Shape::Full, [false, false, false, false]),
        (Shape::NoSourcePort, [false, true, false, false]),
        (Shape::NoDestinationPort, [false, false, true, false]),
        (Shape::Addresses, [false, true, true, false]),
        (Shape::Service, [true, true, false, false]),
        (Shape::Destination, [true, true, true, false]),
    ];
    for (shape, expected) in fits {
        let mut store = store_with(&[signal(HELD, shape)]);
        let packets = [
            Key { src: other.src, ..KEY },
            Key { src_port: other.src_port, ..KEY },
            Key { dst_port: other.dst_port, ..KEY },
            Key { dst: other.dst, ..KEY },
        ];
        let found = packets.map(|key| shard_of(store.look_up(START, &key, true)) == Found::Shard(SHARD));
        assert_eq!(found, expected, "{shape}");
        for key in [Key { vlan: 5, ..KEY }, Key { protocol: UDP, ..KEY }] {
            assert_eq!(shard_of(store.look_up(START, &key, true)), Found::Nothing, "{shape}");
        }
    }
}

#[test]
fn a_full_key_without_ports_is_not_a_pair_of_addresses() {
    let bare = Key { src_port: 0, dst_port: 0, ..KEY };
    let mut store = store_with(&[Signal { key: bare, ..full(HELD) }]);
    assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Nothing);
    assert_eq!(shard_of(store.look_up(START, &bare, true)), Found::Shard(SHARD));
    let pair = Signal { shard: ShardId(9), ..signal(HELD, Shape::Addresses) };
    assert_eq!(store.take(START, &pair).outcome, Outcome::Done);
    assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Shard(ShardId(9)));
    assert_eq!(shard_of(store.look_up(START, &bare, true)), Found::Shard(SHARD));
}

#[test]
fn the_first_packet_that_fits_an_expected_key_teaches_the_missing_fields() {
    for shape in [Shape::NoSourcePort, Shape::NoDestinationPort, Shape::Addresses, Shape::Service] {
        let mut store = store_with(&[signal(once(30), shape)]);
        let before = shard_of(store.look_up(after(10), &KEY, false));
        assert_eq!(
            (before, store.len_of(shape)),
            (Found::Shard(SHARD), 1),
            "an error message learns nothing"
        );
        let Found::Learned { shard, signals: [memorize, forget] } =
            shard_of(store.look_up(after(20), &KEY, true))
        else {
            panic!("{shape} learned nothing");
        };
        assert_eq!(shard, SHARD);
        assert_eq!(memorize, full(CHOSEN));
        assert_eq!(forget, Signal { key: shape.of(&KEY), ..signal(What::Forget, shape) });
        assert_eq!((store.len(), store.len_of(Shape::Full), store.len_of(shape)), (1, 1, 0));
        // The same flow goes on; another one that would have fitted is nobody's.
        assert_eq!(shard_of(store.look_up(after(30), &KEY, true)), Found::Shard(SHARD));
        let other = Key { src_port: KEY.src_port ^ 1, dst_port: KEY.dst_port ^ 1, ..KEY };
        assert_eq!(shard_of(store.look_up(after(30), &other, true)), Found::Nothing);
        // Another distributor that is told the same knows the same.
        let mut second = store_with(&[signal(once(30), shape)]);
        let outcomes = [memorize, forget].map(|signal| second.take(after(20), &signal).outcome);
        assert_eq!(outcomes, [Outcome::Done; 2]);
        assert_eq!(shown(&second, after(20)), shown(&store, after(20)));
    }
}

#[test]
fn what_was_learned_ends_soon_unless_the_traffic_manager_confirms_it() {
    for confirms in [false, true] {
        let mut store = store_with(&[signal(once(30), Shape::NoSourcePort)]);
        assert!(matches!(shard_of(store.look_up(START, &KEY, true)), Found::Learned { .. }));
        if confirms {
            assert_eq!(store.take(after(100), &full(HELD)).outcome, Outcome::Done);
        }
        // Packets do not prolong it.
        assert_eq!(shard_of(store.look_up(after(9_900), &KEY, true)), Found::Shard(SHARD));
        let expected = if confirms { Found::Shard(SHARD) } else { Found::Nothing };
        assert_eq!(shard_of(store.look_up(after(10_200), &KEY, true)), expected);
        assert_eq!((store.len(), store.chosen()), (u32::from(confirms), 0));
    }
}

#[test]
fn an_expectation_is_given_up_in_its_time() {
    let mut store = store_with(&[signal(once(30), Shape::NoSourcePort)]);
    assert_eq!(shard_of(store.look_up(after(30_000), &KEY, false)), Found::Shard(SHARD));
    assert_eq!(shard_of(store.look_up(after(30_200), &KEY, true)), Found::Nothing);
    assert!(store.is_empty());
}

#[test]
fn a_full_key_that_is_expected_has_nothing_to_learn() {
    let mut store = store_with(&[full(once(30))]);
    assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Shard(SHARD));
    assert_eq!(state(&mut store, START, Shape::Full), State::Idle);
}

#[test]
fn an_idle_key_lives_by_packets_that_refresh() {
    let mut store = store_with(&[full(idle(5))]);
    assert_eq!(shard_of(store.look_up(after(4_900), &KEY, true)), Found::Shard(SHARD));
    assert_eq!(shard_of(store.look_up(after(9_800), &KEY, false)), Found::Shard(SHARD));
    assert_eq!(
        shard_of(store.look_up(after(9_900), &KEY, false)),
        Found::Shard(SHARD),
        "the fragment refreshed nothing"
    );
    assert_eq!(shard_of(store.look_up(after(10_100), &KEY, true)), Found::Nothing);
}

#[test]
fn a_held_key_ends_by_a_signal_only() {
    let mut store = store_with(&[full(HELD)]);
    assert_eq!(shard_of(store.look_up(after(1 << 40), &KEY, true)), Found::Shard(SHARD));
    assert_eq!(store.take(after(1 << 40), &full(What::Forget)).outcome, Outcome::Done);
    assert_eq!(store.take(after(1 << 40), &full(What::Forget)).outcome, Outcome::Unchanged);
    assert!(store.is_empty());
}

#[test]
fn an_aged_key_ends_though_it_is_used() {
    let mut store = store_with(&[full(idle(300)), full(What::Age)]);
    for millis in [5_000, 9_900] {
        assert_eq!(shard_of(store.look_up(after(millis), &KEY, true)), Found::Shard(SHARD));
        // Said again, it takes no longer.
        assert_eq!(store.take(after(millis), &full(What::Age)).outcome, Outcome::Unchanged);
    }
    assert_eq!(shard_of(store.look_up(after(10_200), &KEY, true)), Found::Nothing);
    // Memorized again before its end, it stays.
    let mut store = store_with(&[full(HELD), full(What::Age), full(HELD)]);
    assert_eq!(shard_of(store.look_up(after(20_000), &KEY, true)), Found::Shard(SHARD));
}

#[test]
fn ageing_prolongs_nothing() {
    let mut store = store_with(&[signal(once(3), Shape::Addresses), signal(What::Age, Shape::Addresses)]);
    assert_eq!(shard_of(store.look_up(after(3_200), &KEY, true)), Found::Nothing);
}

#[test]
fn an_ignored_key_hides_less_specific_ones_and_learns_nothing() {
    let expected = signal(once(30), Shape::NoSourcePort);
    let mut store = store_with(&[signal(HELD, Shape::Service), expected, full(What::Ignore)]);
    assert_eq!(shard_of(store.look_up(after(1_000_000), &KEY, true)), Found::Ignored);
    assert_eq!(store.len_of(Shape::NoSourcePort), 1);
    // Of whatever shard, it is forgotten.
    let forget = Signal { shard: ShardId(200), ..full(What::Forget) };
    assert_eq!(store.take(after(1_000_000), &forget).outcome, Outcome::Done);
    assert_eq!(shard_of(store.look_up(after(1_000_000), &KEY, true)), Found::Shard(SHARD));
    // Aged, it ends by itself.
    let mut store = store_with(&[full(What::Ignore), full(What::Age)]);
    assert_eq!(shard_of(store.look_up(after(9_900), &KEY, true)), Found::Ignored);
    assert_eq!(shard_of(store.look_up(after(10_200), &KEY, true)), Found::Nothing);
}

#[test]
fn a_signal_of_an_owner_before_changes_nothing() {
    for what in [What::Forget, What::Age, What::Used] {
        let mut store = store_with(&[full(idle(5))]);
        let stale = Signal { shard: ShardId(8), mirror: true, ..full(what) };
        let took = store.take(after(1_000), &stale);
        // Others may know better.
        assert_eq!(
            took,
            Took { outcome: Outcome::Unchanged, pass_on: Some(Signal { mirror: false, ..stale }) }
        );
        assert_eq!(shard_of(store.look_up(after(4_900), &KEY, false)), Found::Shard(SHARD));
        assert_eq!(shard_of(store.look_up(after(5_200), &KEY, false)), Found::Nothing);
    }
}

#[test]
fn of_two_choices_the_lower_shard_stands_in_whatever_order_they_come() {
    let choices = [3, 9].map(|shard| Signal { shard: ShardId(shard), ..full(CHOSEN) });
    for [first, second] in [choices, [choices[1], choices[0]]] {
        let mut store = store_with(&[first, second]);
        assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Shard(ShardId(3)));
        // A traffic manager's word stands against both.
        assert_eq!(store.take(START, &Signal { shard: ShardId(9), ..full(HELD) }).outcome, Outcome::Done);
        assert_eq!(store.take(START, &choices[0]).outcome, Outcome::Unchanged);
        assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Shard(ShardId(9)));
    }
}

#[test]
fn what_is_mirrored_is_passed_on_once() {
    let mut stores = [store(64), store(64)];
    for what in [HELD, idle(5), once(5), CHOSEN, What::Ignore, What::Forget, What::Age] {
        let signal = Signal { sides: Sides::Server, mirror: true, ..signal(what, Shape::Service) };
        let copy = stores[0].take(START, &signal).pass_on.expect("a copy");
        assert_eq!(copy, Signal { key: Shape::Service.of(&KEY), mirror: false, ..signal });
        assert_eq!(stores[1].take(START, &copy).pass_on, None);
        assert!(stores[0].entries(START, 0, 64).eq(stores[1].entries(START, 0, 64)));
    }
}

#[test]
fn what_is_known_is_told_when_asked_for() {
    let told = |signals: &[Signal], shape: Shape| {
        let took = store_with(signals).take(after(1_000), &signal(What::Mirror, shape));
        took.pass_on.map(|told| (told.what, told.shape, told.key, told.shard, told.mirror))
    };
    for what in [HELD, idle(5), CHOSEN, What::Ignore] {
        assert_eq!(told(&[full(what)], Shape::Full), Some((what, Shape::Full, KEY, SHARD, false)));
    }
    assert_eq!(told(&[full(HELD), full(What::Age)], Shape::Full).map(|told| told.0), Some(What::Age));
    let expected = signal(once(5), Shape::Service);
    assert_eq!(told(&[expected], Shape::Service).map(|told| told.0), Some(once(4)), "a second is gone");
    assert_eq!(told(&[expected], Shape::Full), None);
}

#[test]
fn a_key_that_one_distributor_sees_is_not_idle_for_the_others() {
    let mut stores = [store_with(&[full(idle(4))]), store_with(&[full(idle(4))])];
    let mut told = 0;
    for tenth in 0..3_000 {
        let now = after(tenth * 100);
        assert_eq!(shard_of(stores[0].look_up(now, &KEY, true)), Found::Shard(SHARD));
        if let Some(used) = stores[0].sweep(now) {
            told += 1;
            assert_eq!((used.what, used.mirror), (What::Used, false));
            assert_eq!(stores[1].take(now, &used).outcome, Outcome::Done);
        }
        assert_eq!(stores[1].sweep(now), None, "who sees nothing has nothing to tell");
        assert_eq!(stores[1].len(), 1);
    }
    // Each quarter of four seconds in five minutes.
    assert_eq!(told, 299);
    // What is forgotten does not come back.
    assert_eq!(stores[1].take(after(300_000), &full(What::Forget)).outcome, Outcome::Done);
    assert_eq!(stores[1].take(after(300_000), &full(What::Used)).outcome, Outcome::Unchanged);
    assert!(stores[1].is_empty());
}

#[test]
fn a_key_that_nobody_uses_is_not_said_to_be_used() {
    let mut store = store_with(&[full(idle(4))]);
    for tenth in 0..=40 {
        assert_eq!((store.sweep(after(tenth * 100)), store.len()), (None, 1));
    }
    assert_eq!((store.sweep(after(4_100)), store.len()), (None, 0));
}

fn numbered(n: u32) -> Key {
    let mut octets = [0x20; 16];
    octets[12..].copy_from_slice(&n.to_be_bytes());
    Key { src: Address::v6(octets), dst: Address::v6([0x21; 16]), ..KEY }
}

#[test]
fn a_full_store_refuses_and_keeps_what_it_has() {
    let mut store = store(100);
    let held = |n| Signal { key: numbered(n), mirror: true, ..full(HELD) };
    for n in 0..100 {
        assert_eq!(store.take(START, &held(n)).outcome, Outcome::Done);
    }
    let refused = store.take(START, &held(100));
    assert_eq!((refused.outcome, refused.pass_on.is_some()), (Outcome::Full, true));
    for n in 0..100 {
        assert_eq!(shard_of(store.look_up(START, &numbered(n), true)), Found::Shard(SHARD));
        // What is known already needs no room.
        assert_eq!(store.take(START, &held(n)).outcome, Outcome::Done);
    }
    assert_eq!(shard_of(store.look_up(START, &numbered(100), true)), Found::Nothing);
    assert_eq!(store.take(START, &Signal { what: What::Forget, ..held(50) }).outcome, Outcome::Done);
    assert_eq!(store.take(START, &held(100)).outcome, Outcome::Done);
}

#[test]
fn what_has_timed_out_gives_way_in_a_full_store() {
    let mut store = store(20);
    for n in 0..20 {
        let what = if n == 13 { idle(1) } else { HELD };
        assert_eq!(store.take(START, &Signal { key: numbered(n), ..full(what) }).outcome, Outcome::Done);
    }
    let more = Signal { key: numbered(20), ..full(HELD) };
    assert_eq!(store.take(after(1_000), &more).outcome, Outcome::Full);
    assert_eq!(store.take(after(1_200), &more).outcome, Outcome::Done);
    assert_eq!(shard_of(store.look_up(after(1_200), &numbered(13), true)), Found::Nothing);
    assert_eq!(store.len(), 20);
}

#[test]
fn choices_leave_half_of_the_places_to_traffic_managers() {
    let mut store = store(100);
    let chosen = |n| Signal { key: numbered(n), ..full(CHOSEN) };
    for n in 0..50 {
        assert_eq!(store.take(START, &chosen(n)).outcome, Outcome::Done);
    }
    assert_eq!(store.take(START, &chosen(50)).outcome, Outcome::Full);
    assert_eq!(store.take(START, &Signal { key: numbered(50), ..full(HELD) }).outcome, Outcome::Done);
    // A confirmed one is no choice any more, and what timed out makes room.
    assert_eq!(store.take(START, &Signal { key: numbered(0), ..full(HELD) }).outcome, Outcome::Done);
    assert_eq!(store.take(START, &chosen(51)).outcome, Outcome::Done);
    assert_eq!(store.take(after(10_200), &chosen(52)).outcome, Outcome::Done);
    assert_eq!((store.chosen(), store.len()), (50, 52));
}

#[test]
fn packets_alone_never_make_more_keys() {
    let mut store = store(100);
    for n in 0..100 {
        let expected = Signal { key: numbered(n), ..signal(once(30), Shape::NoSourcePort) };
        assert_eq!(store.take(START, &expected).outcome, Outcome::Done);
    }
    let mut rng = Rng::with_seed(1);
    for _ in 0..10_000 {
        let key = Key { src_port: rng.u16(..), ..numbered(rng.u32(0..120)) };
        let _ = shard_of(store.look_up(START, &key, true));
        assert_eq!(store.len(), 100);
    }
    assert_eq!((store.chosen(), store.len_of(Shape::NoSourcePort)), (100, 0));
}

#[test]
fn what_another_distributor_learned_finds_room_in_a_full_store() {
    let mut store = store(2);
    let partial = Shape::NoSourcePort;
    let other = Signal { key: numbered(1), ..signal(once(30), partial) };
    assert_eq!(store.take(START, &other).outcome, Outcome::Done);
    assert_eq!(store.take(START, &signal(once(30), partial)).outcome, Outcome::Done);
    assert_eq!(store.take(START, &full(CHOSEN)).outcome, Outcome::Done);
    assert_eq!(store.take(START, &signal(What::Forget, partial)).outcome, Outcome::Unchanged);
    assert_eq!(shard_of(store.look_up(START, &KEY, true)), Found::Shard(SHARD));
    // Of another shard it was not expected.
    let foreign = Signal { key: numbered(1), shard: ShardId(8), ..full(CHOSEN) };
    assert_eq!(store.take(START, &foreign).outcome, Outcome::Full);
    assert_eq!(store.len_of(partial), 1);
}

#[test]
fn a_sweep_looks_at_so_many_places_and_comes_by_all() {
    let mut store = store(1_000);
    for n in 0..1_000 {
        assert_eq!(store.take(START, &Signal { key: numbered(n), ..full(idle(1)) }).outcome, Outcome::Done);
    }
    let mut turns = 0;
    while !store.is_empty() {
        let before = store.len();
        assert_eq!(store.sweep(after(2_000)), None);
        assert!(before - store.len() <= KEYS_SWEPT_MAX);
        turns += 1;
    }
    assert_eq!(turns, 1_000_u32.div_ceil(KEYS_SWEPT_MAX));
    // Every place serves again.
    for n in 0..1_000 {
        assert_eq!(
            store.take(after(2_000), &Signal { key: numbered(n), ..full(HELD) }).outcome,
            Outcome::Done
        );
    }
}

#[test]
fn keys_are_shown_in_slices() {
    let mut store = store(100);
    for n in 0..50 {
        assert_eq!(store.take(START, &Signal { key: numbered(n), ..full(idle(60)) }).outcome, Outcome::Done);
    }
    let slice = |from| store.entries(after(30_000), from, 20).collect::<Vec<_>>();
    assert_eq!([0, 20, 40, 60, 90].map(|from| slice(from).len()), [20, 20, 10, 0, 0]);
    let known = slice(20)[0];
    assert_eq!((known.key, known.place, known.state), (numbered(20), 20, State::Idle));
    assert_eq!((known.idle, known.left), (Duration::from_secs(30), Some(Duration::from_secs(30))));
}
