//! How specific a connection key is: which of its fields count (REQ D6, D7).
//!
//! A packet's key is looked for in every shape, the most specific first. Protocol and VLAN always count, so a key of one
//! VLAN never matches a packet of another.

use core::fmt;

use crate::base::memory::Plain;
use crate::flow::key::{Address, Key};

/// Which fields of a key count, besides protocol and VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Plain)]
#[repr(u8)]
pub enum Shape {
    /// All: one direction of one connection.
    Full = 0,
    /// Source address, destination address and port: of a flow that is expected, whose end has yet to choose its port.
    NoSourcePort = 1,
    /// Source address and port, destination address.
    NoDestinationPort = 2,
    /// Source and destination address: related flows, such as control and data of FTP (REQ D5).
    Addresses = 3,
    /// Destination address and port.
    Service = 4,
    /// Destination address.
    Destination = 5,
}

impl Shape {
    /// Every shape, in the order in which a packet's key is looked for.
    pub const ORDER: [Shape; 6] = [
        Shape::Full,
        Shape::NoSourcePort,
        Shape::NoDestinationPort,
        Shape::Addresses,
        Shape::Service,
        Shape::Destination,
    ];

    /// The key in this shape: fields that do not count are zero.
    #[must_use]
    pub const fn of(self, key: &Key) -> Key {
        let full = *key;
        match self {
            Shape::Full => full,
            Shape::NoSourcePort => Key { src_port: 0, ..full },
            Shape::NoDestinationPort => Key { dst_port: 0, ..full },
            Shape::Addresses => Key { src_port: 0, dst_port: 0, ..full },
            Shape::Service => Key { src: Address::UNSPECIFIED, src_port: 0, ..full },
            Shape::Destination => Key { src: Address::UNSPECIFIED, src_port: 0, dst_port: 0, ..full },
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Shape::Full => "full",
            Shape::NoSourcePort => "no source port",
            Shape::NoDestinationPort => "no destination port",
            Shape::Addresses => "addresses",
            Shape::Service => "service",
            Shape::Destination => "destination",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::key::TCP;

    const KEY: Key = Key {
        src: Address::v4([192, 0, 2, 1]),
        dst: Address::v4([198, 51, 100, 2]),
        src_port: 40000,
        dst_port: 21,
        vlan: 7,
        protocol: TCP,
    };

    #[test]
    fn each_shape_keeps_its_fields_and_protocol_and_vlan() {
        let fields = Shape::ORDER.map(|shape| {
            let key = shape.of(&KEY);
            assert_eq!((key.protocol, key.vlan, key.dst), (KEY.protocol, KEY.vlan, KEY.dst), "{shape}");
            (key.src == KEY.src, key.src_port == KEY.src_port, key.dst_port == KEY.dst_port)
        });
        let expected = [
            (true, true, true),
            (true, false, true),
            (true, true, false),
            (true, false, false),
            (false, false, true),
            (false, false, false),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn the_order_has_every_shape_once_by_its_number() {
        assert_eq!(Shape::ORDER.map(|shape| shape as usize), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_was_taken_away_stays_so() {
        for shape in Shape::ORDER {
            assert_eq!(shape.of(&shape.of(&KEY)), shape.of(&KEY));
            assert_eq!(Shape::Destination.of(&shape.of(&KEY)), Shape::Destination.of(&KEY));
        }
    }
}
