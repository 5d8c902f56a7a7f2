//! VLAN tags: IEEE 802.1Q clause 9.6.

use core::fmt;
use core::ops::Range;

use crate::wire::{EtherType, Malformed};

/// Length of what follows the tag's own EtherType: control information and the
/// EtherType of what is tagged. A tag makes a frame so much longer.
pub const HEADER_LEN: usize = 4;

/// The largest VLAN id that a frame may carry (4095 is reserved).
pub const ID_MAX: u16 = 4094;

const CONTROL: Range<usize> = 0..2;
const ETHERTYPE: Range<usize> = 2..4;

view! {
    /// A tag, without its own EtherType (which is the Ethernet header's).
    Tag
}

impl<T: AsRef<[u8]>> Tag<T> {
    /// A view with a whole tag.
    pub fn new_checked(buffer: T) -> Result<Tag<T>, Malformed> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Malformed::VlanTruncated);
        }
        Ok(Tag { buffer })
    }

    /// The VLAN; 0: none, the tag only carries a priority.
    pub fn id(&self) -> u16 {
        self.be16(CONTROL) & 0x0fff
    }

    /// Priority, 0 to 7.
    pub fn priority(&self) -> u8 {
        (self.be16(CONTROL) >> 13) as u8
    }

    /// What is tagged.
    pub fn ethertype(&self) -> EtherType {
        EtherType(self.be16(ETHERTYPE))
    }

    /// What follows the tag.
    pub fn payload(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Tag<T> {
    /// Sets the VLAN (its low 12 bits) and priority (its low 3).
    pub fn set_control(&mut self, id: u16, priority: u8) {
        self.put(CONTROL, &(u16::from(priority & 7) << 13 | id & 0x0fff).to_be_bytes());
    }

    /// Sets what is tagged.
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        self.put(ETHERTYPE, &ethertype.0.to_be_bytes());
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Tag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("vlan, cut off");
        }
        write!(f, "vlan {} {}", self.id(), self.ethertype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_was_written() {
        let mut bytes = [0; 4];
        let mut tag = Tag::new_checked(&mut bytes[..]).unwrap();
        tag.set_control(4094, 5);
        tag.set_ethertype(EtherType::IPV6);
        assert_eq!((tag.id(), tag.priority(), tag.ethertype()), (4094, 5, EtherType::IPV6));
        assert_eq!(tag.to_string(), "vlan 4094 ipv6");
        assert_eq!(bytes, [0xaf, 0xfe, 0x86, 0xdd]);
        assert_eq!(Tag::new_checked([0; 3]).unwrap_err(), Malformed::VlanTruncated);
    }
}
