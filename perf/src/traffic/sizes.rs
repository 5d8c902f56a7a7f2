//! Frame lengths, in bytes without the frame check sequence, as ports of virtual devices and
//! `testpmd` count them.

use core::str::FromStr;

/// The lengths of a traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 64 bytes.
    Smallest,
    /// Seven of 64, four of 590, one of 1514 in twelve: 362 on average ("simple IMIX").
    Imix,
    /// IP packets of 1500 bytes.
    Largest,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let sizes = [Size::Smallest, Size::Imix, Size::Largest];
        sizes.into_iter().find(|size| size.name() == text).ok_or("64, imix or 1500".to_owned())
    }
}

/// The lengths of one round of the mix, in an order that spreads the long ones.
const IMIX: [u16; 12] = [64, 590, 64, 64, 590, 64, 1514, 64, 590, 64, 590, 64];

impl Size {
    /// One round of lengths.
    pub const fn round(self) -> &'static [u16] {
        match self {
            Size::Smallest => &[64],
            Size::Imix => &IMIX,
            Size::Largest => &[1514],
        }
    }

    /// What it is called in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Size::Smallest => "64",
            Size::Imix => "imix",
            Size::Largest => "1500",
        }
    }
}
