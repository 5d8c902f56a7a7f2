//! Sixteen tags against one, as the buckets of a flow index hold them: half a line.

/// Tags that are compared at once.
pub const TAGS: usize = 16;

/// Which tags are equal to `tag`: bit `n` for `tags[n]`, and no bit above.
#[inline(always)]
pub fn match_tags(tags: &[u16; TAGS], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2(tags, tag);
    #[cfg(not(target_arch = "x86_64"))]
    return portable(tags, tag);
}

/// With SSE2, which every x86_64 processor has: six instructions and two loads.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sse2(tags: &[u16; TAGS], tag: u16) -> u32 {
    use core::arch::x86_64::{
        __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    };
    let halves = tags.as_ptr().cast::<__m128i>();
    // SAFETY: the sixteen tags are 32 bytes, so both halves of 16 lie within the array; `loadu` asks for no
    // alignment; SSE2 is part of x86_64.
    let mask = unsafe {
        let wanted = _mm_set1_epi16(tag as i16);
        let low = _mm_cmpeq_epi16(_mm_loadu_si128(halves), wanted);
        let high = _mm_cmpeq_epi16(_mm_loadu_si128(halves.add(1)), wanted);
        // Lanes of 16 ones become bytes of 8 ones: saturating -1 gives -1.
        _mm_movemask_epi8(_mm_packs_epi16(low, high))
    };
    mask as u32
}

/// The same in plain words; what the fast form is held against.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(tags: &[u16; TAGS], tag: u16) -> u32 {
    tags.iter().enumerate().fold(0, |mask, (lane, &own)| mask | (u32::from(own == tag) << lane))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn each_lane_has_its_bit() {
        for lane in 0..TAGS {
            for tag in [1, 0x7fff, 0x8000, 0xffff] {
                let mut tags = [0; TAGS];
                tags[lane] = tag;
                assert_eq!(match_tags(&tags, tag), 1 << lane, "lane {lane}, tag {tag:#x}");
                assert_eq!(match_tags(&tags, 0), 0xffff & !(1 << lane));
            }
        }
        assert_eq!(match_tags(&[3; TAGS], 3), 0xffff);
    }

    #[test]
    fn both_forms_agree() {
        let mut rng = Rng::with_seed(3);
        let rounds = if cfg!(miri) { 100 } else { 100_000 };
        for _ in 0..rounds {
            // Few values, near each other in their bytes: many lanes are equal, many nearly.
            let values = [0, 1, 0x100, 0x101, 0x7fff, 0x8000, 0xff00, 0xffff, rng.u16(..)];
            let mut draw = || values[rng.usize(..values.len())];
            let tags: [u16; TAGS] = core::array::from_fn(|_| draw());
            let tag = draw();
            assert_eq!(match_tags(&tags, tag), portable(&tags, tag), "{tag:#x} in {tags:x?}");
        }
    }
}
