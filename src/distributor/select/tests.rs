//! Who is selected, by what was reported.

use super::*;
use crate::base::rng::Rng;
use crate::config::checked::{Class, HashMethod, Method};

const EVERY: [ChosenMethod; 8] = [
    ChosenMethod::RoundRobin,
    ChosenMethod::StaticRatio,
    ChosenMethod::DynamicRatio,
    ChosenMethod::LeastConnections,
    ChosenMethod::PacketRate,
    ChosenMethod::CompletionRate,
    ChosenMethod::QualityOfService,
    ChosenMethod::Topology,
];

fn config(ratio: &[u32], classes: &[(&[u8], &[u16])]) -> Distributor {
    let class = |(dscp, managers): &(&[u8], &[u16])| Class {
        dscp: dscp.to_vec(),
        managers: managers.iter().map(|number| WorkerId(*number)).collect(),
    };
    Distributor {
        select: Method::Hash(HashMethod::Source),
        ratio: ratio.to_vec(),
        classes: classes.iter().map(class).collect(),
        keys: Vec::new(),
        remembers: true,
        max_keys: 256,
        route_to_servers: false,
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A selector with the time, so that a test is about who is chosen.
struct Case {
    selector: Selector,
    now: Instant,
}

impl Case {
    fn of(config: &Distributor, zones: &[u8]) -> Case {
        Case { selector: Selector::new(at(0), config, zones), now: at(0) }
    }

    fn plain(managers: usize) -> Case {
        Case::of(&config(&vec![1; managers], &[]), &vec![0; managers])
    }

    fn report(&mut self, manager: u16, load: Load) {
        self.selector.report(self.now, WorkerId(manager), load);
    }

    fn select(&mut self, method: ChosenMethod) -> u16 {
        self.ask(method, Asked::default())
    }

    fn ask(&mut self, method: ChosenMethod, asked: Asked) -> u16 {
        self.selector.select(self.now, method, asked).0
    }

    fn times(&mut self, count: usize, method: ChosenMethod) -> Vec<u16> {
        (0..count).map(|_| self.select(method)).collect()
    }
}

fn flows(flows: u32) -> Load {
    Load { flows, ..Load::default() }
}

fn busy(busy_per_mille: u16) -> Load {
    Load { busy_per_mille, ..Load::default() }
}

fn packets(flows: u32, received: u32) -> Load {
    Load { flows, received, ..Load::default() }
}

fn completed(received: u32, completed: u32) -> Load {
    Load { received, completed, ..Load::default() }
}

/// How often each of so many was chosen.
fn counts(chosen: &[u16], managers: usize) -> Vec<usize> {
    (0..managers).map(|number| chosen.iter().filter(|one| usize::from(**one) == number).count()).collect()
}

#[test]
fn round_robin_takes_turns_whatever_is_reported() {
    let mut case = Case::plain(3);
    assert_eq!(case.times(4, ChosenMethod::RoundRobin), [0, 1, 2, 0]);
    case.report(1, Load { flows: 1000, received: 1000, completed: 0, busy_per_mille: 1000 });
    case.now = at(5000);
    assert_eq!(case.times(4, ChosenMethod::RoundRobin), [1, 2, 0, 1]);
    // Other methods' turns are their own.
    case.select(ChosenMethod::StaticRatio);
    case.select(ChosenMethod::LeastConnections);
    assert_eq!(case.times(2, ChosenMethod::RoundRobin), [2, 0]);
}

#[test]
fn one_manager_is_everyones_choice() {
    let mut case = Case::of(&config(&[5], &[(&[46], &[0])]), &[3]);
    for round in 0..3 {
        for method in EVERY {
            assert_eq!(case.ask(method, Asked { dscp: round, zone: round }), 0, "{method:?}");
        }
        case.now = at(u64::from(round) * 2000);
        case.report(0, Load { received: 5, busy_per_mille: 1000, ..flows(u32::MAX) });
    }
}

#[test]
fn a_static_ratio_is_kept_in_every_round_and_spread_out() {
    let mut case = Case::of(&config(&[5, 1, 1], &[]), &[0; 3]);
    assert_eq!(case.times(7, ChosenMethod::StaticRatio), [0, 0, 1, 0, 2, 0, 0]);
    let mut rng = Rng::with_seed(2);
    for _ in 0..100 {
        let managers = rng.usize(1..=WORKERS_MAX);
        let mut ratio: Vec<u32> =
            (0..managers).map(|_| if rng.bool() { rng.u32(..8) } else { rng.u32(..1000) }).collect();
        ratio[rng.usize(..managers)] += 1;
        let sum = ratio.iter().sum::<u32>() as usize;
        let mut case = Case::of(&config(&ratio, &[]), &vec![0; managers]);
        let chosen = case.times(sum * 2, ChosenMethod::StaticRatio);
        for round in chosen.chunks(sum) {
            let counts = counts(round, managers);
            assert!(counts.iter().zip(&ratio).all(|(count, weight)| *count == *weight as usize), "{ratio:?}");
        }
        let mut so_far = vec![0; managers];
        for (len, one) in chosen.iter().enumerate() {
            so_far[usize::from(*one)] += 1;
            for (count, weight) in so_far.iter().zip(&ratio) {
                let due = (len + 1) as f64 * f64::from(*weight) / sum as f64;
                let off = (f64::from(*count) - due).abs();
                assert!(off < managers as f64, "{ratio:?}: {count} of {len}, and {due} are due");
            }
        }
    }
}

#[test]
fn a_dynamic_ratio_follows_idle_time() {
    let mut case = Case::plain(3);
    for (manager, per_mille) in [(0, 400), (1, 800), (2, 800)] {
        case.report(manager, busy(per_mille));
    }
    assert_eq!(counts(&case.times(500, ChosenMethod::DynamicRatio), 3), [300, 100, 100]);
    // Who has no time left still gets a little: it would else have to be known by others that it has some again.
    case.now = at(2000);
    for (manager, per_mille) in [(0, 1000), (1, 1), (2, 1)] {
        case.report(manager, busy(per_mille));
    }
    assert_eq!(counts(&case.times(1999, ChosenMethod::DynamicRatio), 3), [1, 999, 999]);
    for manager in 0..3 {
        case.report(manager, busy(u16::MAX));
    }
    case.times(3, ChosenMethod::DynamicRatio);
}

#[test]
fn a_dynamic_ratio_is_smoothed() {
    let mut case = Case::plain(2);
    case.report(0, busy(0));
    case.report(1, busy(0));
    let share = |case: &mut Case| counts(&case.times(1000, ChosenMethod::DynamicRatio), 2)[0];
    let mut last = share(&mut case);
    assert_eq!(last, 500);
    for n in 1..60 {
        case.now = at(n * 10);
        case.report(0, busy(900));
        case.report(1, busy(0));
        let now = share(&mut case);
        assert!(now <= last + 1 && last < now + 40, "report {n}: {last} and then {now}");
        last = now;
    }
    assert!((89..=93).contains(&last), "a hundred of eleven hundred: {last}");
    // One that has been silent is believed at once.
    case.now = at(10_000);
    case.report(0, busy(0));
    case.report(1, busy(0));
    assert!((499..=501).contains(&share(&mut case)));
}

#[test]
fn weights_of_yesterday_give_no_turns_in_a_row() {
    let mut case = Case::plain(2);
    case.report(0, busy(0));
    case.report(1, busy(0));
    assert_eq!(case.select(ChosenMethod::DynamicRatio), 0);
    case.now = at(2000);
    case.report(0, busy(999));
    case.report(1, busy(999));
    assert_eq!(case.times(6, ChosenMethod::DynamicRatio), [1, 0, 1, 0, 1, 0]);
}

#[test]
fn least_connections_counts_what_was_selected_since_the_report() {
    let mut case = Case::plain(3);
    for (manager, count) in [(0, 10), (1, 7), (2, 9)] {
        case.report(manager, flows(count));
    }
    let chosen = case.times(6, ChosenMethod::LeastConnections);
    assert_eq!(chosen, [1, 1, 2, 1, 2, 0], "10 7 9, 10 8 9, 10 9 9, 10 9 10, 10 10 10, 10 10 11");
    // Its report holds what was selected before.
    case.report(1, flows(8));
    assert_eq!(case.times(2, ChosenMethod::LeastConnections), [1, 1]);
    // What other methods select counts too.
    let mut case = Case::plain(2);
    case.select(ChosenMethod::RoundRobin);
    assert_eq!(case.select(ChosenMethod::LeastConnections), 1);
}

#[test]
fn equals_are_chosen_in_turn() {
    for method in EVERY {
        let mut case = Case::plain(4);
        assert_eq!(counts(&case.times(400, method), 4), [100; 4], "{method:?} without reports");
        for round in 1..=100 {
            case.now = at(round * 10);
            for manager in 0..4 {
                case.report(manager, Load { flows: 5, received: 10, completed: 8, busy_per_mille: 7 });
            }
            let mut four = case.times(4, method);
            four.sort_unstable();
            assert_eq!(four, [0, 1, 2, 3], "{method:?} with equal reports");
        }
    }
}

#[test]
fn connections_that_come_and_go_stay_level() {
    let mut rng = Rng::with_seed(7);
    for managers in [2, 3, 5, 16] {
        let mut case = Case::plain(managers);
        let mut held = vec![0_u32; managers];
        for n in 0..20_000 {
            if n % 50 == 0 {
                case.now += Duration::from_millis(10);
                for (manager, count) in held.iter().enumerate() {
                    case.report(manager as u16, flows(*count));
                }
            }
            let chosen = usize::from(case.select(ChosenMethod::LeastConnections));
            let least = held.iter().copied().min().unwrap_or(0);
            // Between reports only ends are not known: 50 at most.
            assert!(held[chosen] <= least + 50, "{chosen} of {held:?}");
            held[chosen] += 1;
            let ending = rng.usize(..managers);
            held[ending] = held[ending].saturating_sub(1);
        }
        let (least, most) = (held.iter().min().copied(), held.iter().max().copied());
        assert!(most.unwrap_or(0) - least.unwrap_or(0) < 60, "{held:?}");
    }
}

#[test]
fn packet_rate_prefers_the_quiet() {
    let mut case = Case::plain(3);
    // 40 packets per second are a connection's share of all.
    for (manager, load) in [(0, packets(10, 600)), (1, packets(10, 100)), (2, packets(10, 500))] {
        case.report(manager, load);
    }
    let chosen = case.times(10, ChosenMethod::PacketRate);
    assert_eq!(chosen, [1; 10], "100 to 460");
    assert_eq!(case.times(2, ChosenMethod::PacketRate), [2, 1], "500, and 500 again");
}

#[test]
fn a_packet_rate_that_does_not_show_new_connections_yet_draws_no_crowd() {
    let mut case = Case::plain(2);
    case.report(0, packets(100, 1000));
    case.report(1, packets(100, 990));
    // As long as reports lag behind, both get about as many.
    let mut chosen = Vec::new();
    for n in 1..=50 {
        case.now = at(n * 10);
        case.report(0, packets(100, 1000));
        case.report(1, packets(100, 990));
        chosen.extend(case.times(20, ChosenMethod::PacketRate));
    }
    let counts = counts(&chosen, 2);
    assert!(counts[0] > 450 && counts[1] > 450, "{counts:?}");
    // A second later they are in the rate or gone.
    case.now = at(1500);
    case.report(0, packets(100, 1000));
    case.report(1, packets(100, 990));
    assert_eq!(case.select(ChosenMethod::PacketRate), 1);
}

#[test]
fn completion_rate_prefers_who_loses_least() {
    let mut case = Case::plain(4);
    case.report(0, completed(1000, 900));
    case.report(1, completed(10, 10));
    case.report(2, completed(1_000_000, 999_500));
    case.report(3, completed(0, 0));
    assert_eq!(
        counts(&case.times(30, ChosenMethod::CompletionRate), 4),
        [0, 10, 10, 10],
        "a thousandth is told"
    );
    for manager in 1..4 {
        case.report(manager, completed(1000, 899));
    }
    assert_eq!(case.times(3, ChosenMethod::CompletionRate), [0; 3]);
    // What was received in one second may be forwarded in the next.
    case.report(1, completed(u32::MAX, 0));
    case.report(2, completed(5, u32::MAX));
    assert_eq!(case.times(3, ChosenMethod::CompletionRate), [2; 3]);
}

#[test]
fn a_class_has_its_managers() {
    let mut case = Case::of(&config(&[1; 4], &[(&[46, 34], &[1, 3]), (&[0], &[2])]), &[0; 4]);
    let ask = |case: &mut Case, dscp| case.ask(ChosenMethod::QualityOfService, Asked { dscp, zone: 0 });
    assert_eq!([(); 4].map(|()| ask(&mut case, 46)), [1, 3, 1, 3]);
    case.report(1, flows(100));
    assert_eq!([(); 3].map(|()| ask(&mut case, 34)), [3, 3, 3], "within it least connections");
    assert_eq!([(); 2].map(|()| ask(&mut case, 0)), [2, 2]);
    // No class: all, and what is no DSCP value is in none.
    case.report(3, flows(100));
    case.report(2, flows(100));
    assert_eq!([10, 63, 64, 255].map(|dscp| ask(&mut case, dscp)), [0; 4]);
}

#[test]
fn a_zone_has_its_managers() {
    let mut case = Case::of(&config(&[1; 4], &[]), &[0, 1, 0, 1]);
    let ask = |case: &mut Case, zone| case.ask(ChosenMethod::Topology, Asked { dscp: 0, zone });
    assert_eq!([(); 4].map(|()| ask(&mut case, 1)), [1, 3, 1, 3]);
    assert_eq!([(); 4].map(|()| ask(&mut case, 0)), [0, 2, 0, 2]);
    case.report(0, flows(100));
    assert_eq!([(); 3].map(|()| ask(&mut case, 0)), [2; 3], "within it least connections");
    case.report(1, flows(100));
    case.report(2, flows(100));
    assert_eq!([(); 2].map(|()| ask(&mut case, 9)), [3; 2], "a zone without managers: all");
}

#[test]
fn who_has_not_reported_for_a_second_is_passed_over() {
    let by_load = [
        ChosenMethod::DynamicRatio,
        ChosenMethod::LeastConnections,
        ChosenMethod::PacketRate,
        ChosenMethod::CompletionRate,
        ChosenMethod::QualityOfService,
        ChosenMethod::Topology,
    ];
    for method in by_load {
        let mut case = Case::plain(3);
        case.report(0, flows(0));
        case.now = at(999);
        let worse = Load { flows: 9000, received: 9000, completed: 0, busy_per_mille: 1000 };
        case.report(1, worse);
        case.report(2, worse);
        assert!(case.times(3000, method).contains(&0), "{method:?}: it counts for a second");
        case.now = at(1000);
        assert!(!case.times(30_000, method).contains(&0), "{method:?}: it is stale");
        // Of all that are silent, what they said last is the best that is known.
        case.now = at(9000);
        assert!(case.times(30_000, method).contains(&0), "{method:?}: all are stale");
        case.report(1, worse);
        assert_eq!(case.times(3, method), [1; 3], "{method:?}: the only one heard of");
    }
}

#[test]
fn a_class_or_zone_is_kept_to_even_when_it_is_silent() {
    let mut case = Case::of(&config(&[1; 2], &[(&[7], &[1])]), &[0, 1]);
    case.now = at(5000);
    case.report(0, flows(0));
    assert_eq!(case.ask(ChosenMethod::QualityOfService, Asked { dscp: 7, zone: 0 }), 1);
    assert_eq!(case.ask(ChosenMethod::Topology, Asked { dscp: 0, zone: 1 }), 1);
}

#[test]
fn whatever_is_reported_the_answer_is_a_manager_that_serves_the_packet() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let managers = rng.usize(1..=WORKERS_MAX);
        let zones: Vec<u8> = (0..managers).map(|_| rng.u8(..4)).collect();
        let ratio: Vec<u32> = (0..managers).map(|_| rng.u32(1..=1000)).collect();
        let members: Vec<u16> = (0..managers as u16).filter(|_| rng.bool()).chain([0]).collect();
        let config = config(&ratio, &[(&[1, 63], &members)]);
        let mut case = Case::of(&config, &zones);
        for _ in 0..500 {
            match rng.u8(..4) {
                0 => {
                    case.now +=
                        Duration::from_millis(if rng.bool() { rng.u64(..20) } else { rng.u64(..1500) })
                }
                1 => {
                    let mut any = |max| if rng.u8(..8) == 0 { u32::MAX } else { rng.u32(..max) };
                    let load = Load {
                        flows: any(1000),
                        received: any(100_000),
                        completed: any(100_000),
                        busy_per_mille: any(1001) as u16,
                    };
                    case.report(rng.u16(..managers as u16), load);
                }
                _ => {
                    let (method, asked) =
                        (EVERY[rng.usize(..8)], Asked { dscp: rng.u8(..66), zone: rng.u8(..6) });
                    let chosen = case.ask(method, asked);
                    assert!(
                        usize::from(chosen) < managers,
                        "seed {seed}: {method:?} chose {chosen} of {managers}"
                    );
                    if method == ChosenMethod::QualityOfService && [1, 63].contains(&asked.dscp) {
                        assert!(members.contains(&chosen), "seed {seed}: {chosen} is not in the class");
                    }
                    if method == ChosenMethod::Topology && zones.contains(&asked.zone) {
                        assert_eq!(zones[usize::from(chosen)], asked.zone, "seed {seed}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_same_history_makes_the_same_choices() {
    let run = |seed| {
        let (mut rng, mut case) = (Rng::with_seed(seed), Case::plain(5));
        let mut chosen = Vec::new();
        for n in 0..500 {
            case.now = at(n);
            case.report(rng.u16(..5), packets(rng.u32(..50), rng.u32(..5000)));
            chosen.push(case.select(EVERY[rng.usize(..8)]));
        }
        chosen
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
