//! Choices, made by the bytes of an input one after the other.

/// What is left of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of it.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// The next byte, until there is none.
    pub fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte, or 0.
    pub fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// One of so many.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// A number: small ones most of the time, now and then one at the end of its range.
    pub fn number(&mut self, max: u64) -> u64 {
        match self.byte() {
            byte @ 0..240 => u64::from(byte % 16).min(max),
            byte => max - u64::from(byte - 240) % 4,
        }
    }

    /// The next bytes, as many as there are of so many.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        first
    }
}
