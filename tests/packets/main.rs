//! A worker, packet in and packet out, on plain buffers: no EAL, no clock.

mod bench;
mod bursts;
mod conversations;
mod divided;
mod ends;
mod first;
mod fragments;
mod group;
mod mirrored;
mod moved;
mod moves;
mod named;
mod pair;
mod pieces;
mod placed;
mod policy;
mod policy_changes;
mod recorded;
mod reloaded;
mod routed;
mod selection;
mod stragglers;
mod told;
mod translated;
mod watched;
mod workers;
