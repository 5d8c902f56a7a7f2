//! An appliance's socket to its witness: the kernel's, on the machine's management network, since the ports are DPDK's.
//!
//! Owned by the liveness thread. Nothing here waits: what cannot be sent at once is not sent, and is asked again in a moment.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;
use std::net::UdpSocket;

use crate::failover::witness::words::ANSWER_MAX;

/// The socket, while there is one.
#[derive(Debug)]
pub struct WitnessLink {
    witness: SocketAddr,
    socket: Option<UdpSocket>,
}

impl WitnessLink {
    /// To the witness at this address. Whether there is a way to it is found out when something is sent.
    pub fn new(witness: SocketAddr) -> WitnessLink {
        WitnessLink { witness, socket: None }
    }

    /// Sends a datagram; an error means that it was not.
    pub fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(self.witness)?,
        };
        match socket.send(datagram) {
            Ok(_) => {
                self.socket = Some(socket);
                Ok(())
            }
            Err(error) => {
                // Nobody listened there lately, or the queue is full: the socket is as good as another one. Else the way
                // there may have changed, and with it this machine's address on it.
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) {
                    self.socket = Some(socket);
                }
                Err(error)
            }
        }
    }

    /// A datagram of the witness that has come, if one has.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; ANSWER_MAX + 1]) -> Option<&'a mut [u8]> {
        let socket = self.socket.as_ref()?;
        // An error that waited is that of an earlier datagram, and the next look finds what waits behind it.
        let len = socket.recv(buffer).or_else(|_| socket.recv(buffer)).ok()?;
        Some(&mut buffer[..len])
    }
}

/// Others than the witness are not heard by it, whatever they send.
fn open(witness: SocketAddr) -> io::Result<UdpSocket> {
    let any = match witness.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(witness)?;
    Ok(socket)
}
