//! Packets in DPDK's buffers.
//!
//! A [`Packet`]'s bytes are its own: it is made of an mbuf that nobody else refers to,
//! and a second reference to it is a copy, since what is sent twice is as a rule
//! rewritten in between. So writing cannot fail for want of a buffer.

use dpdk::mbuf::{self, Checksum, Outgoing, TxOffload};
use dpdk::port::{Offload, Offloads};
use dpdk::{Mbuf, Mempool, Unique};

use crate::base::buffer::{Buffer, ChecksumStatus, Handed, NoRoom, RxMeta, TxMeta};
use crate::base::ids::PortId;
use crate::driver::checksum::{Capabilities, L4, Unsendable, plan};

/// What a port does for the packets that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxAbilities {
    /// Checksums that it computes.
    pub checksums: Capabilities,
    /// Whether it sends packets of several segments.
    pub segments: bool,
}

impl TxAbilities {
    /// What a port does that was configured with these offloads.
    pub fn of(offloads: Offloads) -> TxAbilities {
        TxAbilities {
            checksums: Capabilities {
                ip: offloads.contains(Offload::TxIpChecksum),
                tcp: offloads.contains(Offload::TxTcpChecksum),
                udp: offloads.contains(Offload::TxUdpChecksum),
                l2_len_max: mbuf::L2_LEN_MAX,
                l3_len_max: mbuf::L3_LEN_MAX,
            },
            segments: offloads.contains(Offload::TxMultiSegment),
        }
    }
}

/// A packet: a pointer. What is asked of the port that will send it is kept in the mbuf.
#[derive(Debug)]
#[repr(transparent)]
pub struct Packet {
    mbuf: Unique,
}

const _: () = assert!(size_of::<Option<Packet>>() == size_of::<usize>());

/// A [`TxMeta`] in one word; zero asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked(u64);

impl Asked {
    fn of(tx: TxMeta) -> Asked {
        let sums = u64::from(tx.ip_checksum) << 24 | u64::from(tx.l4_checksum) << 25;
        Asked(u64::from(tx.l2_len) | u64::from(tx.l3_len) << 8 | sums)
    }

    fn meta(self) -> TxMeta {
        TxMeta {
            l2_len: self.0 as u8,
            l3_len: (self.0 >> 8) as u16,
            ip_checksum: self.0 >> 24 & 1 == 1,
            l4_checksum: self.0 >> 25 & 1 == 1,
        }
    }
}

impl Packet {
    /// An empty packet; `None` when the pool is exhausted.
    #[inline]
    pub fn alloc(pool: &Mempool) -> Option<Packet> {
        Some(Packet { mbuf: Unique::new(pool.alloc()?).ok()? })
    }

    /// A packet that a port received. One whose bytes another packet shares (a
    /// device that passes buffers on within the process) is copied; `None` when the
    /// pool has no buffer for that.
    #[inline(always)]
    pub fn received(mbuf: Mbuf, port: PortId) -> Option<Packet> {
        let mut mbuf = Unique::new(mbuf).ok()?;
        mbuf.set_port(port.0);
        Some(Packet { mbuf })
    }

    /// A copy that cannot be written; `None` when the pool is exhausted.
    pub fn share(&self, pool: &Mempool) -> Option<SharedPacket> {
        Some(SharedPacket(Packet { mbuf: self.mbuf.copy(pool)? }))
    }

    /// Whether a port's queue can take it as it is.
    #[inline(always)]
    fn is_ready(&self, port: &TxAbilities) -> bool {
        !self.mbuf.has_wish() && (port.segments || self.mbuf.segment_count() == 1)
    }

    /// What the port's queue takes, if nothing is to be done for that.
    #[inline(always)]
    pub fn ready(self, port: &TxAbilities) -> Result<Outgoing, Packet> {
        if self.is_ready(port) { Ok(Outgoing::from(self.mbuf)) } else { Err(self) }
    }

    /// Does what was asked of the port, or asks it, and gives what the port's queue takes.
    #[inline(never)]
    pub fn finish(mut self, port: &TxAbilities) -> Result<Outgoing, Unsendable> {
        if self.is_ready(port) {
            return Ok(Outgoing::from(self.mbuf));
        }
        if !port.segments && self.mbuf.segment_count() > 1 {
            self.mbuf.linearize().map_err(|_| Unsendable::Segments)?;
        }
        let tx = Asked(self.mbuf.wish()).meta();
        let mut offload = TxOffload { l2_len: tx.l2_len, l3_len: tx.l3_len, ..TxOffload::default() };
        if tx.ip_checksum || tx.l4_checksum {
            let total_len = self.mbuf.total_len();
            let tail = self.mbuf.segments().skip(1);
            let plan = plan(self.mbuf.head(), tail, total_len, &tx, &port.checksums)?;
            plan.apply(self.mbuf.head_mut());
            offload.ipv6 = plan.ask.ipv6;
            offload.ip_checksum = plan.ask.ip;
            offload.l4_checksum = plan.ask.l4.map(|l4| match l4 {
                L4::Tcp => mbuf::L4::Tcp,
                L4::Udp => mbuf::L4::Udp,
            });
        }
        if offload.ip_checksum || offload.l4_checksum.is_some() {
            // The plan asks nothing of a port that cannot be told these lengths.
            self.mbuf.set_tx_offload(&offload).map_err(|_| Unsendable::Headers)?;
        } else {
            self.mbuf.clear_tx_offload();
        }
        Ok(Outgoing::from(self.mbuf))
    }
}

#[inline(always)]
fn status(checksum: Checksum) -> ChecksumStatus {
    match checksum {
        Checksum::Good => ChecksumStatus::Good,
        Checksum::Bad => ChecksumStatus::Bad,
        // Without a sum in the field, software finds it wrong, as it must: nobody could
        // update it. Ports of guests have to compute theirs.
        Checksum::Unknown | Checksum::Unset => ChecksumStatus::Unknown,
    }
}

impl Buffer for Packet {
    #[inline(always)]
    fn head(&self) -> &[u8] {
        self.mbuf.head()
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        self.mbuf.head_mut()
    }

    #[inline(always)]
    fn total_len(&self) -> usize {
        self.mbuf.total_len()
    }

    #[inline(always)]
    fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        self.mbuf.prepend(len).map_err(|mbuf::NoRoom| NoRoom)
    }

    #[inline(always)]
    fn trim_front(&mut self, len: usize) -> Result<(), NoRoom> {
        self.mbuf.trim_front(len).map_err(|mbuf::NoRoom| NoRoom)
    }

    #[inline(always)]
    fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        self.mbuf.set_len(len).map_err(|mbuf::NoRoom| NoRoom)
    }

    #[inline(always)]
    fn rx(&self) -> RxMeta {
        RxMeta {
            port: PortId(self.mbuf.port()),
            ip_checksum: status(self.mbuf.rx_ip_checksum()),
            l4_checksum: status(self.mbuf.rx_l4_checksum()),
        }
    }

    #[inline(always)]
    fn rx_checksums(&self) -> ChecksumStatus {
        status(self.mbuf.rx_checksums())
    }

    #[inline(always)]
    fn set_handed(&mut self, handed: Handed) {
        self.mbuf.set_mark(handed.bits());
    }

    #[inline(always)]
    fn handed(&self) -> Handed {
        Handed::from_bits(self.mbuf.mark())
    }

    fn set_tx(&mut self, tx: TxMeta) {
        self.mbuf.set_wish(Asked::of(tx).0);
    }
}

/// A packet that cannot be written any more, only sent.
#[derive(Debug)]
pub struct SharedPacket(Packet);

impl SharedPacket {
    /// The bytes of the first segment.
    pub fn head(&self) -> &[u8] {
        self.0.head()
    }

    /// As [`Packet::finish`].
    pub fn finish(self, port: &TxAbilities) -> Result<Outgoing, Unsendable> {
        self.0.finish(port)
    }
}
