//! What becomes of frames on their way.

use super::*;

fn sent(flow: u32) -> Sent {
    Sent {
        named: Named::Flow { shard: ShardId(1), flow, version: Version(1), in_full: Some(0) },
        since: Instant::ZERO,
    }
}

fn ack(sequences: &[u64]) -> Acknowledgement {
    let mut acknowledgement = Acknowledgement::default();
    sequences.iter().for_each(|s| acknowledgement.note(*s));
    acknowledgement
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

#[test]
fn a_frame_is_settled_once() {
    let mut in_flight = InFlight::default();
    in_flight.note(at(0), 0, &[sent(1), sent(2)], false);
    in_flight.note(at(0), 1, &[], false);
    in_flight.note(at(0), 2, &[sent(3)], false);
    let mut fates = Vec::new();
    in_flight.acknowledge(at(1), &ack(&[0]), |s, f| fates.extend(s.iter().map(|s| (*s, f))));
    in_flight.acknowledge(at(1), &ack(&[0]), |s, f| fates.extend(s.iter().map(|s| (*s, f))));
    assert_eq!(fates, vec![(sent(1), Fate::Applied), (sent(2), Fate::Applied)]);
    assert_eq!(in_flight.waiting(), 1);
    assert_eq!(in_flight.round_trip(), Some(Duration::from_millis(1)));
}

#[test]
fn a_frame_is_lost_by_time_and_its_late_acknowledgement_says_nothing() {
    let mut in_flight = InFlight::default();
    in_flight.note(at(0), 0, &[sent(1)], false);
    let mut fates = Vec::new();
    in_flight.time_out(at(19), |_, f| fates.push(f));
    assert!(fates.is_empty());
    assert_eq!(in_flight.next_deadline(), Some(at(20)));
    in_flight.time_out(at(20), |_, f| fates.push(f));
    in_flight.acknowledge(at(21), &ack(&[0]), |_, f| fates.push(f));
    assert_eq!(fates, vec![Fate::Lost]);
    assert_eq!((in_flight.next_deadline(), in_flight.may_have_strays()), (None, true));
}

#[test]
fn a_lost_frame_may_come_until_the_peer_has_shut_it_out() {
    let floor = |sequence| Sent { named: Named::Floor { sequence }, since: Instant::ZERO };
    let mut in_flight = InFlight::default();
    (0..3).for_each(|sequence| in_flight.note(at(0), sequence, &[sent(1)], false));
    in_flight.acknowledge(at(1), &ack(&[2]), |_, _| {});
    assert!(!in_flight.may_have_strays(), "they wait");
    assert_eq!(in_flight.lowest(3), 0);
    in_flight.time_out(at(30), |_, _| {});
    assert!(in_flight.may_have_strays());
    assert_eq!(in_flight.lowest(3), 3);
    in_flight.note(at(30), 3, &[floor(1)], false);
    in_flight.acknowledge(at(31), &ack(&[2, 3]), |_, _| {});
    assert!(in_flight.may_have_strays(), "the second one may come");
    in_flight.note(at(32), 4, &[sent(1), floor(4)], false);
    in_flight.refuse(4, 0b10, |_, _| {});
    assert!(in_flight.may_have_strays(), "it was refused");
    in_flight.note(at(33), 5, &[floor(5)], false);
    in_flight.acknowledge(at(34), &ack(&[2, 3, 5]), |_, _| {});
    assert!(!in_flight.may_have_strays());
    in_flight.note(at(35), 6, &[sent(1)], false);
    in_flight.begin_anew();
    assert!(in_flight.may_have_strays());
    in_flight.clear();
    assert!(!in_flight.may_have_strays());
}

#[test]
fn a_frame_is_lost_when_many_later_ones_arrived() {
    let mut in_flight = InFlight::default();
    for sequence in 0..40 {
        in_flight.note(at(0), sequence, &[sent(sequence as u32)], false);
    }
    let received: Vec<u64> = (1..40).collect();
    let mut lost = Vec::new();
    in_flight.acknowledge(at(1), &ack(&received), |s, f| {
        if f == Fate::Lost {
            lost.extend_from_slice(s);
        }
    });
    assert_eq!(lost, vec![sent(0)]);
    assert_eq!(in_flight.waiting(), 0);
}

#[test]
fn what_is_forgotten_is_waited_for_no_longer() {
    let mut in_flight = InFlight::default();
    in_flight.note(at(0), 0, &[sent(1), sent(2)], false);
    in_flight.note(at(0), 1, &[sent(1)], false);
    let one = |named: &Named| matches!(named, Named::Flow { flow: 1, .. });
    assert!(in_flight.has(one));
    in_flight.forget(one);
    assert!(!in_flight.has(one) && in_flight.may_have_strays());
    assert_eq!(in_flight.waiting(), 1);
    let mut fates = Vec::new();
    in_flight.acknowledge(at(1), &ack(&[0, 1]), |s, f| fates.extend(s.iter().map(|s| (*s, f))));
    let nothing = Sent { named: Named::Nothing, ..sent(1) };
    assert_eq!(
        (&fates[..], in_flight.waiting()),
        (&[(nothing, Fate::Applied), (sent(2), Fate::Applied)][..], 0)
    );
    // A refusal names records by their places in the frame.
    in_flight.note(at(0), 2, &[sent(1), sent(2), sent(3)], false);
    in_flight.forget(one);
    fates.clear();
    in_flight.refuse(2, 0b10, |sent, fate| fates.push((sent, fate)));
    assert_eq!(fates, [(nothing, Fate::Applied), (sent(2), Fate::Refused), (sent(3), Fate::Applied)]);
}

#[test]
fn refused_records_are_told_from_applied_ones() {
    let mut in_flight = InFlight::default();
    in_flight.note(at(0), 0, &[sent(1), sent(2)], false);
    let mut fates = Vec::new();
    in_flight.refuse(0, 0b10, |_, f| fates.push(f));
    assert_eq!(fates, vec![Fate::Applied, Fate::Refused]);
}

/// A standby sends acknowledgements for months, and looks for late frames in every turn.
#[test]
fn frames_without_records_leave_nothing_to_look_at() {
    let mut in_flight = InFlight::default();
    for sequence in 1..100_000 {
        in_flight.note(at(0), sequence, &[], false);
    }
    assert!(in_flight.span().is_empty(), "{:?}", in_flight.span());
    in_flight.note(at(1), 100_000, &[sent(1)], false);
    for sequence in 100_001..200_000 {
        in_flight.note(at(1), sequence, &[], false);
    }
    assert!(in_flight.span().count() <= ACK_SPAN);
    let mut fates = Vec::new();
    in_flight.time_out(at(1000), |_, fate| fates.push(fate));
    assert_eq!((fates, in_flight.waiting()), (vec![Fate::Lost], 0));
    assert!(in_flight.span().is_empty());
    in_flight.note(at(2000), 200_000, &[sent(2)], false);
    assert_eq!(in_flight.next_deadline(), Some(at(2040)));
}

#[test]
fn a_walk_has_more_frames_on_their_way_while_they_are_acknowledged_in_time() {
    let micros = |micros: u64| Instant::from_nanos(micros * 1000);
    let mut in_flight = InFlight::default();
    let mut send = |sequence: u64, round_trip: u64| {
        in_flight.note(micros(0), sequence, &[sent(1)], true);
        in_flight.acknowledge(micros(round_trip), &ack(&[sequence]), |_, _| {});
        in_flight.walk_room(256)
    };
    assert_eq!(send(0, 100), 4);
    assert_eq!((1..=160).map(|sequence| send(sequence, 150 + sequence % 50)).last(), Some(14));
    assert_eq!((161..=5000).map(|sequence| send(sequence, 120)).last(), Some(128));
    // Frames wait for each other.
    assert_eq!((5001..=5100).map(|sequence| send(sequence, 201)).last(), Some(4));
    assert_eq!((5101..=5132).map(|sequence| send(sequence, 120)).last(), Some(6));
    in_flight.begin_anew();
    assert_eq!(in_flight.walk_room(256), 4);
    // What is new passes them at the peer, and says nothing of how long they wait there.
    (6000..7000).for_each(|sequence| {
        in_flight.note(micros(0), sequence, &[sent(1)], false);
        in_flight.acknowledge(micros(10), &ack(&[sequence]), |_, _| {});
    });
    assert_eq!(in_flight.walk_room(256), 4);
}

#[test]
fn what_was_measured_is_of_the_whole_session_however_often_it_begins_anew() {
    let micros = |micros: u64| Instant::from_nanos(micros * 1000);
    let mut in_flight = InFlight::default();
    let send = |in_flight: &mut InFlight, sequence: u64, round_trip: u64| {
        in_flight.note(micros(0), sequence, &[sent(1)], true);
        in_flight.acknowledge(micros(round_trip), &ack(&[sequence]), |_, _| {});
    };
    send(&mut in_flight, 0, 100);
    in_flight.begin_anew();
    let at_first = in_flight.walk_room(256);
    // Frames wait for each other, as those before know.
    (1..=100).for_each(|sequence| send(&mut in_flight, sequence, 201));
    assert_eq!((in_flight.latency().count(), in_flight.walk_room(256)), (101, at_first));
    in_flight.clear();
    assert_eq!(in_flight.latency().count(), 0, "another session");
}

#[test]
fn a_full_span_has_no_room() {
    let mut in_flight = InFlight::default();
    in_flight.note(at(0), 5, &[sent(1)], false);
    assert!(in_flight.has_room(5 + ACK_SPAN as u64 - 1, 256));
    assert!(!in_flight.has_room(5 + ACK_SPAN as u64, 256));
}

#[test]
fn the_peers_credit_bounds_what_is_on_its_way_and_one_frame_always_may_be() {
    let mut in_flight = InFlight::default();
    assert!(in_flight.has_room(0, 0), "else nobody would hear of more credit");
    in_flight.note(at(0), 0, &[sent(1)], false);
    assert!(!in_flight.has_room(1, 1) && in_flight.has_room(1, 2));
    in_flight.note(at(0), 1, &[sent(2)], false);
    assert!(!in_flight.has_room(2, 2));
    in_flight.acknowledge(at(1), &ack(&[0]), |_, _| {});
    assert!(in_flight.has_room(2, 2));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_ignored() {
    let mut in_flight = InFlight::default();
    in_flight.note(at(0), 0, &[sent(1)], false);
    in_flight.acknowledge(at(1), &ack(&[0, 9]), |_, _| panic!("nothing to settle"));
    assert_eq!(in_flight.waiting(), 1);
}

#[test]
fn frames_of_a_walk_make_no_room_for_others_and_take_none() {
    let mut in_flight = InFlight::default();
    (0..100).for_each(|sequence| in_flight.note(at(0), sequence, &[sent(1)], false));
    assert!(in_flight.may_walk(256), "what is new does not count");
    (100..104).for_each(|sequence| in_flight.note(at(0), sequence, &[sent(1)], true));
    assert!(!in_flight.may_walk(256) && in_flight.has_room(104, 256));
    in_flight.acknowledge(at(1), &ack(&[50]), |_, _| {});
    assert!(!in_flight.may_walk(256));
    in_flight.acknowledge(at(1), &ack(&[102]), |_, _| {});
    assert!(in_flight.may_walk(256));
    in_flight.note(at(1), 104, &[sent(2)], true);
    in_flight.forget(|named| *named == sent(2).named);
    in_flight.refuse(103, 1, |_, _| {});
    assert!(in_flight.may_walk(256) && in_flight.walking == 2);
    in_flight.time_out(at(2000), |_, _| {});
    assert_eq!((in_flight.walking, in_flight.waiting()), (0, 0));
    in_flight.note(at(2000), 105, &[sent(1)], true);
    in_flight.clear();
    assert_eq!(in_flight.walking, 0);
}

#[test]
fn a_frame_of_a_walk_is_passed_by_more_than_others_before_it_is_taken_for_lost() {
    for (walks, passed) in [(false, 32), (true, 128)] {
        let mut in_flight = InFlight::default();
        in_flight.note(at(0), 0, &[sent(1)], walks);
        let mut fates = Vec::new();
        for sequence in 1..=passed {
            in_flight.note(at(0), sequence, &[sent(2)], false);
            assert!(in_flight.has_room(sequence + 1, 256), "others are not kept back");
            assert!(fates.is_empty(), "{walks}: after {sequence}");
            in_flight.acknowledge(at(1), &ack(&[sequence]), |records, fate| {
                if records[0] == sent(1) {
                    fates.push(fate);
                }
            });
        }
        assert_eq!(fates, [Fate::Lost]);
    }
}
