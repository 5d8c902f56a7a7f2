//! What goes wrong in a world, and what an operator asks for.

use baton::failover::Operator;

use crate::agenda::{Happening, Nanos, Station, US};
use crate::appliance::Disk;
use crate::lcore::Slow;
use crate::link::{Lan, Narrow};
use crate::world::{ALL, World, name};

impl World {
    /// Everything in memory is lost; the disk stays.
    pub fn crash(&mut self, at: usize) {
        self.say(|| format!("** {} crashes", name(at)));
        self.exit(at);
    }

    pub fn pause(&mut self, at: usize) {
        self.say(|| format!("** {} is stopped", name(at)));
        let node = &mut self.nodes[at];
        if let Some(appliance) = &mut node.up {
            node.bursts = appliance.pause(&mut self.agenda);
        }
    }

    pub fn go_on(&mut self, at: usize) {
        self.say(|| format!("** {} is continued", name(at)));
        let node = &mut self.nodes[at];
        let Some(appliance) = &mut node.up else { return };
        if !appliance.paused {
            return;
        }
        appliance.go_on(&mut self.agenda);
        let bursts = std::mem::take(&mut node.bursts);
        for what in std::mem::take(&mut node.deferred) {
            if !matches!(what, Happening::Turn { .. }) {
                let when = self.agenda.now + self.agenda.span(US, 2000 * US);
                self.agenda.at(when, what);
            }
        }
        self.send_all(at, bursts, true);
    }

    /// A thread of the process fails: one that runs an lcore, the liveness thread or the master.
    pub fn break_thread(&mut self, at: usize) {
        let Some(appliance) = &mut self.nodes[at].up else { return };
        let what = appliance.break_thread(&mut self.agenda);
        self.say(|| format!("** a thread of {} fails: {what}", name(at)));
    }

    pub fn operator(&mut self, at: usize, operator: Operator) {
        self.say(|| format!("** the operator asks {} for {operator:?}", name(at)));
        if let Some(appliance) = &mut self.nodes[at].up {
            let result = appliance.operator(operator, &mut self.agenda);
            self.say(|| format!("** {result:?}"));
        }
        self.take_notes(at);
    }

    /// Cuts all ways from one appliance to all others on these LANs, and those to it if asked for.
    pub fn cut_from(&mut self, at: usize, lans: &[usize], both_ways: bool) {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.cut(at, other, lans);
            if both_ways {
                self.cut(other, at, lans);
            }
        }
    }

    /// Cuts all ways from one appliance to another on these LANs.
    fn cut(&mut self, from: usize, to: usize, lans: &[usize]) {
        self.say(|| format!("** {} hears {} no more on {lans:?}", name(to), name(from)));
        for lan in lans {
            let station = |at| Station::Appliance { at, port: *lan };
            self.lans[*lan].set_cut(station(from), station(to), true);
        }
    }

    /// Between two appliances no liveness path works both ways, nor is there a third one that both hear, as may be in runs
    /// of this kind.
    pub fn is_parted(&self) -> bool {
        let kind = self.scenario.kind;
        if !kind.may_part() || kind.is_safe() {
            return false;
        }
        let all = 0..self.nodes.len();
        let joined = |a: usize, b: usize| {
            ALL.iter().any(|lan| {
                let [a, b] = [a, b].map(|at| Station::Appliance { at, port: *lan });
                let cut = &self.lans[*lan].cut;
                !cut.contains(&(a, b)) && !cut.contains(&(b, a))
            })
        };
        let near = |a: usize, b: usize| joined(a, b) || all.clone().any(|c| joined(a, c) && joined(c, b));
        all.clone().any(|a| all.clone().any(|b| a < b && !near(a, b)))
    }

    /// The ports of an appliance give flows to other lcores from now on.
    pub fn rehash(&mut self, at: usize) {
        self.say(|| format!("** the ports of {at} change their hash"));
        if let Some(appliance) = &mut self.nodes[at].up {
            appliance.rehash(&mut self.agenda);
        }
    }

    /// Some lcores of an appliance stand still, each for as long as `span` at most; the first one for all of it.
    pub fn stall(&mut self, at: usize, count: usize, span: Nanos) {
        let Some(appliance) = &mut self.nodes[at].up else { return };
        let all = appliance.lcores.len();
        let first = self.agenda.rng.usize(..all);
        for nth in 0..count.min(all) {
            let lasts = if nth == 0 { span } else { self.agenda.span(0, span) };
            appliance.stall((first + nth) % all, self.agenda.now + lasts);
        }
        self.say(|| {
            format!("** {count} lcores of {} from {first} on stand still for {} us", name(at), span / US)
        });
    }

    /// Frames pass a port in one direction only: in, or else out.
    pub fn cut_one_way(&mut self, at: usize, lan: usize, inwards: bool) {
        let way = if inwards { "come in" } else { "leave" };
        self.say(|| format!("** frames of {} in {lan} only {way}", name(at)));
        self.lans[lan].cut_one_way(Station::Appliance { at, port: lan }, inwards);
    }

    /// A flow of an appliance that is mirrored is suddenly in another state.
    pub fn damage(&mut self, at: usize) {
        let World { nodes, agenda, .. } = self;
        let Some(appliance) = &mut nodes[at].up else { return };
        let damaged = appliance.damage(&mut agenda.rng);
        self.say(|| format!("** {} has another state of {damaged:?}", name(at)));
    }

    /// An operator says of some flows of an appliance whether they are mirrored.
    pub fn choose(&mut self, at: usize, count: usize) {
        for _ in 0..count {
            let World { nodes, agenda, .. } = self;
            let Some(appliance) = &mut nodes[at].up else { return };
            let said = appliance.choose(agenda);
            self.say(|| format!("** an operator of {} chooses: {said:?}", name(at)));
        }
    }

    pub fn forget_addresses(&mut self) {
        self.say(|| "** switches forget which addresses are where".to_owned());
        self.lans.iter_mut().for_each(Lan::forget);
    }

    pub fn disk(&mut self, at: usize, fails: bool) {
        self.say(|| format!("** the disk of {} {}", name(at), if fails { "fails" } else { "works" }));
        self.nodes[at].disk_fails = fails;
    }

    /// Pulls the cable of a port.
    pub fn pull_cable(&mut self, at: usize, lan: usize) {
        self.say(|| format!("** the cable of {} in {lan} is pulled", name(at)));
        self.lans[lan].pull_cable(Station::Appliance { at, port: lan });
    }

    /// The lcores of an appliance take few frames at a time, and long for it.
    pub fn slow_lcores(&mut self, at: usize, slow: Slow) {
        self.say(|| format!("** the lcores of {} are {slow:?}", name(at)));
        let lcores = self.nodes[at].up.iter_mut().flat_map(|up| &mut up.lcores);
        lcores.for_each(|lcore| lcore.slow = Some(slow));
    }

    /// The way to a port of an appliance carries little.
    pub fn narrow_link(&mut self, at: usize, lan: usize, narrow: Narrow) {
        self.say(|| format!("** the way to {} in {lan} is {narrow:?}", name(at)));
        self.lans[lan].narrow.insert(Station::Appliance { at, port: lan }, narrow);
    }

    /// Everything that was written on the disk is lost: it must be started again to find that out.
    pub fn lose_disk(&mut self, at: usize) {
        self.say(|| format!("** {} loses its disk", name(at)));
        self.nodes[at].disk = Disk::default();
    }

    /// Everything that was cut is whole again, and what was slow as fast as before.
    pub fn mend(&mut self) {
        self.say(|| "** all is mended".to_owned());
        for lan in &mut self.lans {
            lan.cut.clear();
            lan.narrow.clear();
        }
        let lcores = self.nodes.iter_mut().flat_map(|node| &mut node.up).flat_map(|up| &mut up.lcores);
        lcores.for_each(|lcore| lcore.slow = None);
        self.witness.mend();
    }

    pub fn fair_weather(&mut self) {
        self.lans.iter_mut().for_each(|lan| lan.weather = Default::default());
    }
}
