//! Sequence numbers by hand, and of two ends that talk over a wire that loses and reorders.

use super::*;
use crate::base::rng::Rng;
use Direction::{FromClient, FromServer};

const CLIENT: u32 = 1_000;
const SERVER: u32 = 9_000;

fn ack(seq: u32, ack: u32) -> Numbers {
    Numbers { seq, ack, has_ack: true, window: 1_000, ..Numbers::default() }
}

fn data(seq: u32, ack_number: u32, payload_len: u32) -> Numbers {
    Numbers { payload_len, ..ack(seq, ack_number) }
}

fn fin(seq: u32, ack_number: u32) -> Numbers {
    Numbers { fin: true, ..ack(seq, ack_number) }
}

fn reset(seq: u32) -> Numbers {
    Numbers { seq, rst: true, ..Numbers::default() }
}

/// A connection after its handshake, windows of 1,000 bytes and these shifts.
fn open(client_scale: Option<u8>, server_scale: Option<u8>) -> Sequences {
    let mut numbers = Sequences::NEW;
    let syn =
        Numbers { seq: CLIENT, syn: true, window: 1_000, window_scale: client_scale, ..Numbers::default() };
    let syn_ack = Numbers { syn: true, window_scale: server_scale, ..ack(SERVER, CLIENT + 1) };
    assert_eq!(numbers.see(FromClient, &syn), Seen::Nothing);
    assert_eq!(numbers.see(FromServer, &syn_ack), Seen::Nothing);
    assert_eq!(numbers.see(FromClient, &ack(CLIENT + 1, SERVER + 1)), Seen::Nothing);
    numbers
}

#[test]
fn an_orderly_end_is_told_once_when_the_last_fin_is_acknowledged() {
    let mut numbers = open(None, None);
    assert_eq!(numbers.see(FromClient, &data(1_001, 9_001, 100)), Seen::Nothing);
    assert_eq!(numbers.see(FromServer, &data(9_001, 1_101, 500)), Seen::Nothing);
    assert_eq!(numbers.see(FromClient, &fin(1_101, 9_501)), Seen::Nothing);
    assert_eq!(numbers.see(FromServer, &fin(9_501, 1_102)), Seen::Nothing);
    // Of another byte than the FIN it says nothing.
    assert_eq!(numbers.see(FromClient, &ack(1_102, 9_501)), Seen::Nothing);
    assert_eq!(numbers.see(FromClient, &ack(1_102, 9_502)), Seen::Closed);
    assert_eq!(numbers.see(FromClient, &ack(1_102, 9_502)), Seen::Nothing);
    assert_eq!(numbers.see(FromServer, &fin(9_501, 1_102)), Seen::Nothing);
}

#[test]
fn fins_without_acknowledgements_end_nothing() {
    let mut numbers = open(None, None);
    for _ in 0..3 {
        assert_eq!(numbers.see(FromClient, &fin(1_001, 9_001)), Seen::Nothing);
        assert_eq!(numbers.see(FromServer, &fin(9_001, 1_001)), Seen::Nothing);
    }
    assert_eq!(numbers.see(FromServer, &ack(9_002, 1_002)), Seen::Nothing);
    assert_eq!(numbers.see(FromClient, &ack(1_002, 9_002)), Seen::Closed);
}

#[test]
fn a_fin_counts_inside_the_window_only() {
    for (seq, expected) in [
        (1_000, Seen::FinOutside),
        (1_001, Seen::Nothing),
        (2_001, Seen::Nothing),
        (2_002, Seen::FinOutside),
        (0x8000_0000, Seen::FinOutside),
    ] {
        let mut numbers = open(None, None);
        if seq == 1_000 {
            assert_eq!(numbers.see(FromServer, &ack(9_001, 1_001)), Seen::Nothing);
            assert_eq!(numbers.see(FromClient, &data(1_001, 9_001, 10)), Seen::Nothing);
        }
        assert_eq!(numbers.see(FromClient, &fin(seq, 9_001)), expected, "{seq}");
        assert_eq!(numbers.ends[0].has(FIN), expected == Seen::Nothing, "{seq}");
    }
}

#[test]
fn a_fin_that_more_data_contradicts_was_none() {
    let mut numbers = open(None, None);
    assert_eq!(numbers.see(FromClient, &fin(1_050, 9_001)), Seen::Nothing);
    assert_eq!(numbers.see(FromClient, &fin(1_060, 9_001)), Seen::FinOutside, "there is one only");
    assert_eq!(numbers.see(FromClient, &data(1_001, 9_001, 200)), Seen::Nothing);
    assert_eq!(numbers.see(FromServer, &ack(9_001, 1_201)), Seen::Nothing);
    assert!(!numbers.ends[0].has(FIN));
    assert_eq!(numbers.see(FromClient, &fin(1_150, 9_001)), Seen::FinOutside, "so much was acknowledged");
    assert_eq!(numbers.see(FromClient, &fin(1_201, 9_001)), Seen::Nothing);
}

#[test]
fn an_rst_ends_inside_the_window_and_changes_nothing_outside() {
    let mut numbers = open(None, None);
    let _ = numbers.see(FromServer, &ack(9_001, 1_101));
    let before = numbers;
    // 1,101 is acknowledged, and 1,000 more are allowed; a byte beyond may ask whether that is still so.
    for (seq, expected) in [
        (1_100, Seen::ResetOutside),
        (1_101, Seen::Reset),
        (1_500, Seen::Reset),
        (2_102, Seen::Reset),
        (2_103, Seen::ResetOutside),
        (0, Seen::ResetOutside),
        (0x8000_0000, Seen::ResetOutside),
    ] {
        assert_eq!(numbers.see(FromClient, &reset(seq)), expected, "{seq}");
        assert_eq!(numbers, before);
    }
    // An acknowledgement does not help, once the SYN was answered.
    assert_eq!(numbers.see(FromClient, &Numbers { rst: true, ..ack(0, 9_001) }), Seen::ResetOutside);
}

#[test]
fn bounds_go_forward_only() {
    let mut numbers = open(None, None);
    let _ = numbers.see(FromServer, &ack(9_001, 1_101));
    // An acknowledgement overtaken by a later one, and a window that shrinks while data is under way.
    let _ = numbers.see(FromServer, &ack(9_001, 1_051));
    let _ = numbers.see(FromServer, &Numbers { window: 10, ..ack(9_001, 1_101) });
    assert_eq!(numbers.see(FromClient, &reset(1_060)), Seen::ResetOutside);
    assert_eq!(numbers.see(FromClient, &reset(2_101)), Seen::Reset);
    // Nobody acknowledges more than the largest window ahead.
    let before = numbers;
    let _ = numbers.see(FromServer, &ack(9_001, 1_101 + WINDOW_MAX + 1));
    assert_eq!(numbers, before);
}

#[test]
fn what_is_sent_again_acknowledges_anew() {
    let mut numbers = open(None, None);
    let _ = numbers.see(FromServer, &fin(9_001, 1_001));
    let _ = numbers.see(FromClient, &data(1_001, 9_001, 100));
    let _ = numbers.see(FromClient, &fin(1_101, 9_001));
    let _ = numbers.see(FromServer, &ack(9_002, 1_102));
    // The client's data once more: what acknowledged it was lost behind here.
    assert_eq!(numbers.see(FromClient, &data(1_001, 9_002, 100)), Seen::Closed);
}

#[test]
fn another_syn_before_an_answer_leads_nothing_astray() {
    for late in [500_000, 0_u32.wrapping_sub(500_000)] {
        let mut numbers = Sequences::NEW;
        for seq in [CLIENT, late] {
            let _ = numbers.see(FromClient, &Numbers { seq, syn: true, ..Numbers::default() });
        }
        let _ = numbers.see(FromServer, &Numbers { syn: true, ..ack(SERVER, CLIENT + 1) });
        assert_eq!(numbers.see(FromClient, &fin(1_001, 9_001)), Seen::Nothing);
        assert_eq!(numbers.see(FromServer, &fin(9_001, 1_002)), Seen::Nothing);
        assert_eq!(numbers.see(FromClient, &ack(1_002, 9_002)), Seen::Closed);
    }
}

#[test]
fn an_answer_to_a_syn_counts_whatever_an_earlier_connection_left() {
    let mut numbers = Sequences::NEW;
    let _ = numbers.see(FromClient, &Numbers { seq: CLIENT, syn: true, ..Numbers::default() });
    // RFC 5961 section 4: the server still has the earlier one, and says where that stands.
    let _ = numbers.see(FromServer, &ack(77_000_000, CLIENT + 1));
    let _ = numbers.see(FromServer, &Numbers { syn: true, ..ack(SERVER, CLIENT + 1) });
    assert_eq!(numbers.see(FromServer, &fin(9_001, 1_001)), Seen::Nothing);
    assert_eq!(numbers.see(FromServer, &reset(77_000_000)), Seen::ResetOutside);
}

#[test]
fn a_syn_that_comes_late_narrows_nothing() {
    let mut numbers = Sequences::NEW;
    let syn_ack = Numbers { syn: true, window_scale: Some(2), ..ack(SERVER, CLIENT + 1) };
    let _ = numbers.see(FromServer, &syn_ack);
    let _ = numbers.see(FromClient, &Numbers { seq: CLIENT, syn: true, ..Numbers::default() });
    assert_eq!(numbers.see(FromClient, &fin(1_801, 9_001)), Seen::Nothing);
}

#[test]
fn an_old_syn_does_not_bound_what_was_allowed_unseen() {
    let mut numbers = Sequences::NEW;
    let _ = numbers.see(FromServer, &Numbers { syn: true, ..ack(SERVER, CLIENT + 1) });
    // No client was seen to allow this.
    assert_eq!(numbers.see(FromServer, &data(9_400, 1_900, 800)), Seen::Nothing);
    assert_eq!(numbers.see(FromServer, &fin(10_200, 1_900)), Seen::Nothing);
}

#[test]
fn acknowledgements_close_a_gap_however_wide() {
    let mut numbers = Sequences::NEW;
    let _ = numbers.see(FromClient, &data(1_001, 9_001, 100));
    for step in 1..20 {
        let _ = numbers.see(FromServer, &ack(9_001, 1_101 + step * 200_000));
    }
    assert_eq!(numbers.see(FromClient, &fin(1_101 + 20 * 200_000, 9_001)), Seen::Nothing);
}

#[test]
fn a_refused_syn_is_answered_by_what_the_rst_acknowledges() {
    for (acknowledged, expected) in [(CLIENT + 1, Seen::Reset), (CLIENT, Seen::ResetOutside)] {
        let mut numbers = Sequences::NEW;
        let syn = Numbers { seq: CLIENT, syn: true, ..Numbers::default() };
        assert_eq!(numbers.see(FromClient, &syn), Seen::Nothing);
        let refusal = Numbers { rst: true, ..ack(0, acknowledged) };
        assert_eq!(numbers.see(FromServer, &refusal), expected);
        assert_eq!(numbers.see(FromServer, &reset(0)), Seen::ResetUnproven);
    }
}

#[test]
fn windows_are_scaled_if_both_ends_say_so() {
    for (client, server, width) in
        [(None, None, 1_000), (Some(3), None, 1_000), (None, Some(3), 1_000), (Some(0), Some(3), 8_000)]
    {
        let mut numbers = open(client, server);
        // The SYN-ACK's own window is not scaled.
        assert_eq!(numbers.see(FromClient, &reset(1_001 + 1_002)), Seen::ResetOutside);
        let _ = numbers.see(FromServer, &ack(9_001, 1_001));
        assert_eq!(numbers.see(FromClient, &reset(1_001 + width)), Seen::Reset);
        assert_eq!(numbers.see(FromClient, &reset(1_001 + width + 2)), Seen::ResetOutside);
    }
    let mut numbers = open(Some(200), Some(200));
    let _ = numbers.see(FromServer, &ack(9_001, 1_001));
    assert_eq!(numbers.see(FromClient, &reset(1_001 + (1_000 << 14))), Seen::Reset);
    assert_eq!(numbers.see(FromClient, &reset(1_001 + (1_000 << 14) + 2)), Seen::ResetOutside);
}

#[test]
fn numbers_from_outside_lead_nothing_astray() {
    let mut numbers = open(Some(2), Some(2));
    let mut rng = Rng::with_seed(4);
    let before = numbers;
    for _ in 0..200_000 {
        let segment = Numbers {
            seq: rng.u32(..),
            ack: rng.u32(..),
            has_ack: rng.bool(),
            window: rng.u16(..),
            payload_len: rng.u32(0..1_460),
            syn: rng.u8(0..8) == 0,
            fin: rng.u8(0..8) == 0,
            rst: false,
            window_scale: Some(14),
        };
        let base = if rng.bool() { (FromClient, 1_001) } else { (FromServer, 9_001) };
        // Near the window it may be right by chance.
        if distance(base.1, segment.seq).unsigned_abs() > 200_000 {
            let seen = numbers.see(base.0, &segment);
            assert_eq!(seen, if segment.fin { Seen::FinOutside } else { Seen::Nothing });
            assert_eq!(numbers, before, "{segment:?}");
        }
    }
}

#[test]
fn a_blind_rst_is_right_as_seldom_as_its_window_is_small() {
    let mut numbers = open(Some(10), Some(10));
    let _ = numbers.see(FromServer, &Numbers { window: 65_535, ..ack(9_001, 1_001) });
    let mut rng = Rng::with_seed(5);
    let rounds = 200_000;
    let hits = (0..rounds).filter(|_| numbers.see(FromClient, &reset(rng.u32(..))) == Seen::Reset).count();
    // A window of 2^26 is a 64th of all numbers.
    assert!((rounds / 70..rounds / 58).contains(&hits), "{hits}");
    // And picked up in the middle, 2^18 and what is under way.
    let mut numbers = Sequences::NEW;
    let _ = numbers.see(FromClient, &data(1_001, 9_001, 1_000));
    let _ = numbers.see(FromServer, &ack(9_001, 1_001));
    let rounds = 2_000_000;
    let hits = (0..rounds).filter(|_| numbers.see(FromClient, &reset(rng.u32(..))) == Seen::Reset).count();
    assert!((60..200).contains(&hits), "{hits}");
}

#[test]
fn of_what_was_never_seen_nothing_is_proven() {
    let mut numbers = Sequences::NEW;
    assert_eq!(numbers.see(FromServer, &reset(5)), Seen::ResetUnproven);
    let _ = numbers.see(FromClient, &data(1_001, 9_001, 1_000));
    // What the client acknowledged bounds the server.
    assert_eq!(numbers.see(FromServer, &reset(9_000)), Seen::ResetOutside);
    assert_eq!(numbers.see(FromServer, &reset(9_001)), Seen::Reset);
}

/// One end: what it sends counted from its SYN on, so that only the wire has numbers in a circle.
struct Peer {
    start: u32,
    /// Behind its FIN.
    len: u64,
    acked: u64,
    next: u64,
    /// How far the other lets it go.
    edge: u64,
    /// What it expects from the other, and pieces behind a gap.
    expects: u64,
    pieces: Vec<(u64, u64)>,
    window: u32,
    scale: Option<u8>,
    scales: bool,
}

/// A segment as sent: from where to where in its sender's count, and what it acknowledges in the other's.
#[derive(Clone, Copy)]
struct Sent {
    from: u64,
    to: u64,
    ack: u64,
    edge: u64,
    rst: bool,
    numbers: Numbers,
}

impl Peer {
    fn new(rng: &mut Rng) -> Peer {
        let near_the_end = 0_u32.wrapping_sub(rng.u32(0..100_000));
        Peer {
            start: if rng.bool() { near_the_end } else { rng.u32(..) },
            len: rng.u64(2..60_000),
            acked: 0,
            next: 0,
            edge: 1,
            expects: 0,
            pieces: Vec::new(),
            window: rng.u32(1_500..200_000),
            scale: rng.bool().then(|| rng.u8(3..9)),
            scales: false,
        }
    }

    fn shift(&self) -> u8 {
        if self.scales { self.scale.unwrap_or(0) } else { 0 }
    }

    fn segment(&self, from: u64, to: u64, other_start: u32, rst: bool) -> Sent {
        let (syn, fin) = (from == 0 && to > 0, to == self.len && to > from);
        let shift = if syn { 0 } else { self.shift() };
        let window = (self.window >> shift).min(65_535) as u16;
        let numbers = Numbers {
            seq: self.start.wrapping_add(from as u32),
            ack: other_start.wrapping_add(self.expects as u32),
            has_ack: self.expects > 0,
            window,
            payload_len: (to - from) as u32 - u32::from(syn) - u32::from(fin),
            syn,
            fin,
            rst,
            window_scale: self.scale.filter(|_| syn),
        };
        let edge = self.expects + (u64::from(window) << shift);
        Sent { from, to, ack: self.expects, edge, rst, numbers }
    }

    /// What it sends next, if anything.
    fn send(&mut self, rng: &mut Rng, other_start: u32) -> Option<Sent> {
        let chunk = rng.u64(1..1_461);
        let (from, to) = match rng.u8(0..8) {
            // The SYN goes alone.
            _ if self.next == 0 => (0, 1),
            0..=3 if self.expects > 0 => (self.next, (self.next + chunk).min(self.len).min(self.edge)),
            4 | 5 => {
                let to = (self.acked + chunk).min(self.next);
                (self.acked, if self.acked == 0 { 1 } else { to })
            }
            // It asks whether the other one lives.
            6 if self.acked > 1 && self.acked < self.len => (self.next - 1, self.next - 1),
            _ if self.expects > 0 => (self.next, self.next),
            _ => return None,
        };
        let (from, to) = (from, to.max(from));
        self.next = self.next.max(to);
        Some(self.segment(from, to, other_start, false))
    }

    fn receive(&mut self, sent: &Sent) {
        if sent.numbers.syn {
            self.scales = self.scale.is_some() && sent.numbers.window_scale.is_some();
        }
        if sent.to > sent.from {
            self.pieces.push((sent.from, sent.to));
            while let Some(at) =
                self.pieces.iter().position(|piece| piece.0 <= self.expects && piece.1 > self.expects)
            {
                self.expects = self.pieces.swap_remove(at).1;
            }
            self.pieces.retain(|piece| piece.1 > self.expects);
        }
        if sent.numbers.has_ack {
            self.acked = self.acked.max(sent.ack);
            self.edge = self.edge.max(sent.edge);
        }
    }
}

const DIRECTIONS: [Direction; 2] = [FromClient, FromServer];

/// Two ends talk, from the first packet on or seen from somewhere in the middle, and end by FINs or by an RST.
fn talk(seed: u64) -> (bool, bool) {
    let mut rng = Rng::with_seed(seed);
    let mut peers = [Peer::new(&mut rng), Peer::new(&mut rng)];
    let starts = [peers[0].start, peers[1].start];
    let mut numbers = Sequences::NEW;
    // Packets before the one between, and behind it.
    let mut before: Vec<(usize, Sent)> = Vec::new();
    let mut behind: Vec<(usize, Sent)> = Vec::new();
    let unseen = if seed % 3 == 0 { rng.usize(0..60) } else { 0 };
    let reset_at = if seed % 4 == 0 { rng.usize(0..600) } else { usize::MAX };
    let (mut passed, mut closed) = (0, 0);
    for step in 0..200_000 {
        let is_loser = rng.u8(0..10) == 0;
        match rng.u8(0..3) {
            0 if step >= reset_at
                && rng.u8(0..4) == 0
                && before.len() < 12
                && peers.iter().all(|peer| peer.expects > 0) =>
            {
                let this = rng.usize(..2);
                let peer = &peers[this];
                // Of its own accord, or in answer to what it does not know.
                let at = if rng.bool() { peer.next } else { peer.acked };
                before.push((this, peer.segment(at, at, starts[1 - this], true)));
            }
            0 if before.len() < 12 => {
                // A server speaks once it was spoken to.
                let this = if peers[1].expects == 0 { 0 } else { rng.usize(..2) };
                before.extend(peers[this].send(&mut rng, starts[1 - this]).map(|sent| (this, sent)));
            }
            1 if !before.is_empty() => {
                let (from, sent) = before.swap_remove(rng.usize(..before.len()));
                passed += 1;
                if is_loser {
                    continue;
                }
                if passed > unseen {
                    let seen = numbers.see(DIRECTIONS[from], &sent.numbers);
                    assert_ne!(seen, Seen::FinOutside, "seed {seed}, step {step}");
                    closed += u32::from(seen == Seen::Closed);
                    if sent.rst {
                        let is_taken = sent.from >= peers[1 - from].expects;
                        if seen == Seen::ResetOutside {
                            assert!(!is_taken, "seed {seed}, step {step}: a genuine RST is refused");
                        }
                        if seen == Seen::Reset {
                            return (true, false);
                        }
                        continue;
                    }
                }
                behind.push((from, sent));
            }
            2 if !behind.is_empty() => {
                let (from, sent) = behind.swap_remove(rng.usize(..behind.len()));
                if !is_loser && !sent.rst {
                    peers[1 - from].receive(&sent);
                }
            }
            _ => {}
        }
        if peers.iter().all(|peer| peer.acked == peer.len) && behind.is_empty() {
            // What ended before it was looked at is not known.
            assert!(closed == 1 || unseen > 0, "seed {seed}: {closed}");
            return (false, closed == 1);
        }
    }
    panic!("seed {seed}: the ends did not end");
}

#[test]
fn genuine_fins_and_rsts_are_never_refused() {
    let ends: Vec<_> = (0..2_000).map(talk).collect();
    let resets = ends.iter().filter(|end| end.0).count();
    let closed = ends.iter().filter(|end| end.1).count();
    assert!(resets > 200 && closed > 1_200, "{resets} {closed}");
}
