//! How a packet is changed on its way to a real server and back. `translate`
//! serves both NAT and full NAT: a flow's two keys say all. Not yet: DSR,
//! IP-in-IP, GUE.

pub mod hop;
pub mod translate;
