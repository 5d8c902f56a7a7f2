//! The master's ageing sweep over the times that flows were last seen, alone: no worker writes to
//! them meanwhile.

use anyhow::{Result, ensure};
use baton::base::ids::WorkerId;
use baton::base::memory::Slab;
use baton::base::time::{Duration, Instant};
use baton::config::checked::Flows;
use baton::flow::FlowIndex;
use baton::flow::aging::{LastSeen, TimeoutClass};
use baton::master::sweep::AgingSweep;
use core::hint::black_box;
use dpdk::clock::tsc;

use crate::case::{Case, Context};
use crate::figure::Figure;
use crate::regime;

/// Places, all of them with flows.
const PLACES: u32 = 10_000_000;
/// One flow in so many has expired, where some have.
const EXPIRED_ONE_IN: u32 = 1000;

/// The case.
pub fn case() -> Case {
    Case::new("sweep", "the master's ageing sweep over 10 million flows", measure).essential()
}

fn measure(context: &Context) -> Result<Vec<Figure>> {
    regime::pin(1)?;
    let seconds = Duration::from_secs;
    let flows = Flows {
        max: PLACES,
        tcp_handshake_timeout: seconds(60),
        tcp_established_timeout: seconds(7440),
        tcp_closing_timeout: seconds(60),
        udp_timeout: seconds(300),
        port_quarantine: seconds(5),
    };
    let start = Instant::ZERO + seconds(10_000);
    let words: Slab<u32> = Slab::new(PLACES as usize)?;
    let mut figures = Vec::new();
    for some_expired in [false, true] {
        let last_seen = LastSeen::new(PLACES)?;
        for place in 0..PLACES {
            let class = if some_expired && place % EXPIRED_ONE_IN == 0 {
                TimeoutClass::Closing
            } else {
                TimeoutClass::Established
            };
            last_seen.touch(FlowIndex(place), class, start);
        }
        let mut now = start + seconds(100);
        let mut sweep = AgingSweep::new(now, &flows, vec![(WorkerId(0), last_seen)]);
        let wanted = if some_expired { PLACES.div_ceil(EXPIRED_ONE_IN) as usize } else { 0 };
        let (mut swept, mut read) = (Vec::new(), Vec::new());
        for _ in 0..context.samples {
            // A hundred slices are a round over all places.
            let (mut expired, begin) = (Vec::new(), tsc());
            for _ in 0..100 {
                now += Duration::from_millis(10);
                sweep.poll(now, &mut expired);
            }
            swept.push((tsc() - begin) as f64 / f64::from(PLACES));
            ensure!(expired.len() == wanted, "{} of {wanted} flows were named", expired.len());
            let begin = tsc();
            let sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
            read.push((tsc() - begin) as f64 / f64::from(PLACES));
            ensure!(black_box(sum) == 0, "the words are zeros");
        }
        let metric = if some_expired { "one flow in 1000 expired" } else { "no flow expired" };
        let figure = Figure::of("sweep", metric, "cycles/place", &swept);
        figures.push(figure.against("the same memory summed up", &read));
    }
    Ok(figures)
}
