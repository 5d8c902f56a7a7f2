//! The distributor: what a packet is and which worker it belongs to (REQ E2, D10).
//!
//! Called by the worker that received the packet. In: parsed packets, the
//! services of the configuration. Out: a [`classify::Class`] for each. Fragments
//! go through [`fragment::Reassembly`] and come out with their datagram's ports (REQ D4).
//! Not yet: lcores of its own, the connection store with its signals.

pub mod classify;
pub mod fragment;
pub mod services;
