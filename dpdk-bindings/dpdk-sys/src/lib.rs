//! Raw bindings to the libdpdk that pkg-config finds (22.11 or newer), made by
//! bindgen at build time, with a C shim for what DPDK's headers define inline.
//!
//! Nothing here is safe, and nothing outside the `dpdk` crate uses it.

#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals, unsafe_code)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, unnecessary_transmutes, improper_ctypes)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
