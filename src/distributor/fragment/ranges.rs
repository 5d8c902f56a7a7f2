//! Which pieces of a datagram have come.

use crate::base::limits::FRAGMENTS_PER_DATAGRAM_MAX;

/// What a piece is to those that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is new.
    New,
    /// It came before, from the same place to the same place.
    Duplicate,
    /// It overlaps another one: the datagram is to be dropped (RFC 5722 section 4; RFC 1858 for IPv4).
    Overlap,
    /// It lies where, by the last piece, the datagram has ended; or says that it ends elsewhere.
    Contradiction,
    /// The datagram is in more pieces than are followed.
    TooMany,
}

/// The pieces of one datagram.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// Where each begins and ends.
    pieces: [(u16, u16); FRAGMENTS_PER_DATAGRAM_MAX],
    count: u8,
    /// Bytes in all of them.
    bytes: u16,
    /// Where the furthest one ends.
    end: u16,
    /// Whether the last one has come, so that `end` is the datagram's length.
    ended: bool,
}

const _: () = assert!(FRAGMENTS_PER_DATAGRAM_MAX <= u8::MAX as usize);

impl Default for Ranges {
    fn default() -> Ranges {
        Ranges { pieces: [(0, 0); FRAGMENTS_PER_DATAGRAM_MAX], count: 0, bytes: 0, end: 0, ended: false }
    }
}

impl Ranges {
    /// None has come.
    pub fn clear(&mut self) {
        (self.count, self.bytes, self.end, self.ended) = (0, 0, 0, false);
    }

    /// Notes a piece of `len` bytes, more than none, that ends before 65,536; `more` follow behind it. Only a new piece
    /// changes anything.
    pub fn take(&mut self, offset: u16, len: u16, more: bool) -> Piece {
        let end = offset.saturating_add(len);
        let taken = &self.pieces[..usize::from(self.count)];
        if taken.contains(&(offset, end)) {
            let was_last = self.ended && end == self.end;
            return if was_last == more { Piece::Contradiction } else { Piece::Duplicate };
        }
        if taken.iter().any(|(other, other_end)| offset < *other_end && *other < end) {
            return Piece::Overlap;
        }
        let beyond = if more { self.ended && end >= self.end } else { self.ended || end < self.end };
        if beyond {
            return Piece::Contradiction;
        }
        let Some(place) = self.pieces.get_mut(usize::from(self.count)) else { return Piece::TooMany };
        *place = (offset, end);
        self.count += 1;
        self.bytes += len;
        self.end = self.end.max(end);
        self.ended |= !more;
        Piece::New
    }

    /// How many have come.
    pub fn pieces(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether all have come.
    pub fn are_whole(&self) -> bool {
        // Pieces do not overlap and none lies beyond the end: so many bytes leave no hole.
        self.ended && self.bytes == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of pieces that come in this order.
    fn came(pieces: &[(u16, u16, bool)]) -> (Vec<Piece>, bool) {
        let mut ranges = Ranges::default();
        (pieces.iter().map(|(at, len, more)| ranges.take(*at, *len, *more)).collect(), ranges.are_whole())
    }

    #[test]
    fn each_piece_is_judged_by_those_before_it() {
        use Piece::*;
        type Case = (&'static str, &'static [(u16, u16, bool)], &'static [Piece], bool);
        let table: &[Case] = &[
            ("in order", &[(0, 8, true), (8, 8, true), (16, 3, false)], &[New, New, New], true),
            ("backwards", &[(16, 3, false), (8, 8, true), (0, 8, true)], &[New, New, New], true),
            ("with a hole", &[(0, 8, true), (16, 3, false)], &[New, New], false),
            ("without an end", &[(0, 8, true), (8, 8, true)], &[New, New], false),
            ("the largest", &[(0, 65_528, true), (65_528, 7, false)], &[New, New], true),
            ("twice the same", &[(0, 8, true), (0, 8, true)], &[New, Duplicate], false),
            ("twice the last", &[(8, 3, false), (8, 3, false)], &[New, Duplicate], false),
            ("the last again, as if more came", &[(8, 8, false), (8, 8, true)], &[New, Contradiction], false),
            ("one again, as if it were last", &[(8, 8, true), (8, 8, false)], &[New, Contradiction], false),
            ("shorter than before", &[(0, 16, true), (0, 8, true)], &[New, Overlap], false),
            ("longer than before", &[(0, 8, true), (0, 16, true)], &[New, Overlap], false),
            ("across an edge", &[(0, 16, true), (8, 16, true)], &[New, Overlap], false),
            ("around another", &[(8, 8, true), (0, 24, true)], &[New, Overlap], false),
            ("within another", &[(0, 24, true), (8, 8, true)], &[New, Overlap], false),
            ("behind the end", &[(8, 8, false), (16, 8, true)], &[New, Contradiction], false),
            ("an end behind the end", &[(8, 8, false), (16, 8, false)], &[New, Contradiction], false),
            ("an end before others", &[(16, 8, true), (0, 8, false)], &[New, Contradiction], false),
            ("up to the end, yet more", &[(16, 3, false), (8, 8, true)], &[New, New], false),
        ];
        for (name, pieces, expected, whole) in table {
            assert_eq!(came(pieces), (expected.to_vec(), *whole), "{name}");
        }
    }

    #[test]
    fn pieces_are_bounded_and_a_refused_one_changes_nothing() {
        let mut ranges = Ranges::default();
        for piece in 0..FRAGMENTS_PER_DATAGRAM_MAX as u16 {
            assert_eq!(ranges.take(piece * 8, 8, true), Piece::New);
        }
        let end = FRAGMENTS_PER_DATAGRAM_MAX as u16 * 8;
        assert_eq!(ranges.take(end, 8, false), Piece::TooMany);
        assert_eq!((ranges.are_whole(), ranges.pieces()), (false, FRAGMENTS_PER_DATAGRAM_MAX));
        ranges.clear();
        assert_eq!(ranges.take(0, 8, false), Piece::New);
        assert!(ranges.are_whole());
    }
}
