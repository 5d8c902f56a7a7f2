//! Memory as the packet path wants it: huge pages for large tables, lines fetched before they are
//! needed, sixteen tags compared at once. The one place outside `dpdk-bindings/` with unsafe code.
//!
//! Owned by no thread. In: lengths, references, indices. Out: values, never pointers.
//!
//! - [`Slab`]: an array of fixed length in huge pages, zeroed, touched when first used;
//! - [`Plain`]: the types that may stand in one;
//! - [`prefetch`], [`prefetch_write`]: hints that never fault and change nothing but speed;
//! - [`match_tags`]: which of sixteen tags are equal to one;
//! - [`WholeLines`]: the allocator of everything else.
//!
//! `cargo +nightly miri test --no-default-features --lib base::memory` runs its tests under Miri.
//!
//! Not yet: pages of 1 GiB, a choice of NUMA node.

#![allow(unsafe_code)]

mod lines;
mod pages;
mod prefetch;
mod slab;
mod tags;

pub use lines::{LINES, WholeLines};
pub use pages::{NoMemory, PageSize, Pages};
pub use prefetch::{prefetch, prefetch_write};
pub use slab::Slab;
pub use tags::{TAGS, match_tags};

/// Types of which all-zero bytes are a valid value: what a [`Slab`] holds. Derived as any trait:
/// `#[derive(Plain)]`; the compiler refuses it for a type with a field that is not plain itself.
pub use zerocopy::FromZeros as Plain;
