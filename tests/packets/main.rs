//! A worker, packet in and packet out, on plain buffers: no EAL, no clock.

mod bench;
mod bursts;
mod ends;
mod first;
mod mirrored;
mod pair;
mod translated;
