//! The threads that run the operator's commands, as far as there are such.
//!
//! They are started before the EAL pins the starting thread to its CPU: commands run where the operator started this process.

use core::sync::atomic::AtomicBool;
use std::io;
use std::sync::Arc;

use crate::base::counters::Counters;
use crate::config::checked::Checked;
use crate::driver::clock::Clock;
use crate::driver::events::EventLog;
use crate::driver::fence::{FenceSetup, FenceThread, Fencer};
use crate::driver::notify::{Notifier, NotifySetup, NotifyThread};
use crate::driver::track::{Results, TrackSetup, TrackThread};

/// They end when this is dropped.
pub struct Helpers {
    /// The one of `failover.notify`.
    notify: Option<NotifyThread>,
    /// The one of `failover.track_script`.
    track: Option<TrackThread>,
    /// The one of `failover.fence`.
    fence: Option<FenceThread>,
    /// What asks that one, until the liveness thread has it.
    fencer: Option<Fencer>,
}

impl Helpers {
    /// Starts those that the configuration wants.
    pub fn start(
        checked: &Checked,
        clock: Clock,
        events: &Arc<EventLog>,
        broken: &Arc<AtomicBool>,
    ) -> io::Result<Helpers> {
        let (node, group) = (checked.appliance.node, checked.appliance.group);
        let failover = &checked.failover;
        let notify = failover.notify.clone().map(|notify| {
            let (events, broken) = (Arc::clone(events), Arc::clone(broken));
            NotifyThread::start(NotifySetup { notify, node, group, clock, events, broken })
        });
        let track = failover.track.script.clone().map(|script| {
            TrackThread::start(TrackSetup { script, node, group, clock, events: Arc::clone(events) })
        });
        let fence = failover.fence.clone().map(|fence| {
            FenceThread::start(FenceSetup { fence, node, group, clock, events: Arc::clone(events) })
        });
        let (fence, fencer) = fence.transpose()?.unzip();
        Ok(Helpers { notify: notify.transpose()?, track: track.transpose()?, fence, fencer })
    }

    /// Who tells the command of changes of role.
    pub fn notifier(&self) -> Option<Notifier> {
        self.notify.as_ref().map(NotifyThread::notifier)
    }

    /// Who says how runs of the tracking script ended.
    pub fn results(&self) -> Option<Results> {
        self.track.as_ref().map(TrackThread::results)
    }

    /// Who has members fenced; once.
    pub fn take_fencer(&mut self) -> Option<Fencer> {
        self.fencer.take()
    }

    /// What they count, by their names.
    pub fn counters(&self) -> impl Iterator<Item = (String, Arc<Counters>)> {
        let notify = self.notify.iter().map(|thread| ("notify".to_owned(), thread.counters()));
        let track = self.track.iter().map(|thread| ("track".to_owned(), thread.counters()));
        let fence = self.fence.iter().map(|thread| ("fence".to_owned(), thread.counters()));
        notify.chain(track).chain(fence)
    }

    /// The process ends: the tracking script is killed, and the command of changes of role is told, which is waited for.
    /// A fencing that is under way goes on by itself.
    pub fn end(self) {
        drop(self.track);
        if let Some(notify) = self.notify {
            notify.end();
        }
    }
}
