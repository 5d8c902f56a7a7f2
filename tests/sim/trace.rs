//! What a readable trace says of a frame.

use core::fmt;

use baton::mirror::header::Header;
use baton::wire::parse;

use crate::link::LIVENESS;

/// A frame, with what can be seen from outside of heartbeats and mirror frames.
pub struct Trace<'a>(pub &'a [u8]);

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        let number = |at: usize, len: usize| {
            frame.get(at..at + len).unwrap_or_default().iter().fold(0u64, |n, b| n << 8 | u64::from(*b))
        };
        if frame.get(12..14) == Some(&LIVENESS[..]) {
            return match number(17, 1) {
                1 => write!(f, "hello {:016x}", number(22, 8)),
                2 => write!(f, "answer {:016x}", number(22, 8)),
                _ => write!(f, "beat in session {:016x}, sequence {}", number(22, 8), number(34, 8)),
            };
        }
        write!(f, "{}", parse::Trace(frame))?;
        let to_mirror = number(12, 2) == 0x0800 && number(23, 1) == 17 && number(36, 2) / 100 == 73;
        match frame.get(42..).and_then(Header::read) {
            Some(header) if to_mirror => write!(
                f,
                " mirror stream {:#x} sequence {} term {} walk {} received {}{}",
                header.stream,
                header.sequence,
                header.term,
                header.walk,
                header.acknowledgement.next,
                if header.elicits { " with records" } else { "" }
            ),
            _ => Ok(()),
        }
    }
}
