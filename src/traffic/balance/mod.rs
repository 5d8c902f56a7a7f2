//! Choosing a real server of a pool for a new flow.
//!
//! Owner: a worker, one balancer for each of its pools; the master makes a new one
//! when a server changes (rebuilding a large Maglev table takes milliseconds) and
//! hands each worker a clone, which shares the table.
//!
//! In: the pool's servers, and for each new flow a hash. Out: the index of a server
//! that is up and has weight, or that there is none.
//!
//! A method is one file here, one arm of [`Balancer`], one value of the
//! configuration's [`Balance`]. Not yet: methods that measure (least connections,
//! rates; REQ D2).

use crate::base::ids::ServerId;
use crate::config::checked::Balance;

pub mod maglev;
pub mod round_robin;

use maglev::Maglev;
use round_robin::RoundRobin;

/// A real server, as far as choosing needs it. Its place in the slice is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSlot {
    /// The same on every member.
    pub id: ServerId,
    /// Its share; 0: no new flows.
    pub weight: u32,
    /// Whether it is well.
    pub up: bool,
}

impl ServerSlot {
    /// Whether new flows may go there.
    pub const fn takes_flows(&self) -> bool {
        self.up && self.weight > 0
    }
}

/// One pool's method with its state.
#[derive(Clone, Debug)]
pub enum Balancer {
    /// Each in turn.
    RoundRobin(RoundRobin),
    /// By consistent hash.
    Maglev(Maglev),
}

impl Balancer {
    /// A balancer over these servers.
    pub fn new(method: Balance, servers: &[ServerSlot]) -> Balancer {
        match method {
            Balance::RoundRobin => Balancer::RoundRobin(RoundRobin::new(servers)),
            Balance::Maglev => Balancer::Maglev(Maglev::new(servers)),
        }
    }

    /// Asks for the memory that [`Balancer::choose`] will look at.
    pub fn prefetch(&self, hash: u64) {
        match self {
            Balancer::RoundRobin(_) => {} // It looks at all of its own.
            Balancer::Maglev(method) => method.prefetch(hash),
        }
    }

    /// The index of the server for a new flow; `None`: no server takes flows.
    ///
    /// `hash` is what the flow is told by. For members of a group to choose alike it
    /// must be equal on all of them ([`Key::shared_hash`](crate::flow::Key::shared_hash));
    /// methods that count ignore it.
    pub fn choose(&mut self, hash: u64) -> Option<usize> {
        match self {
            Balancer::RoundRobin(method) => method.choose(),
            Balancer::Maglev(method) => method.choose(hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// What holds for every method, whatever else it does.
    #[test]
    fn only_servers_that_are_up_and_have_weight_are_chosen_and_all_of_them_are() {
        let mut rng = Rng::with_seed(1);
        for method in [Balance::RoundRobin, Balance::Maglev] {
            for count in [0, 1, 2, 5, 20] {
                let servers: Vec<ServerSlot> = (0..count)
                    .map(|_| ServerSlot { id: ServerId(rng.u32(..)), weight: rng.u32(0..4), up: rng.bool() })
                    .collect();
                let mut balancer = Balancer::new(method, &servers);
                let mut chosen = vec![false; servers.len()];
                for _ in 0..2000 {
                    match balancer.choose(rng.u64(..)) {
                        Some(index) => chosen[index] = true,
                        None => assert!(!servers.iter().any(ServerSlot::takes_flows)),
                    }
                }
                let expected: Vec<bool> = servers.iter().map(ServerSlot::takes_flows).collect();
                assert_eq!(chosen, expected, "{method:?}");
            }
        }
    }

    #[test]
    fn the_configured_method_is_the_one_that_runs() {
        let servers = [1, 2].map(|id| ServerSlot { id: ServerId(id), weight: 1, up: true });
        let mut by_turn = Balancer::new(Balance::RoundRobin, &servers);
        let mut by_hash = Balancer::new(Balance::Maglev, &servers);
        assert_ne!(by_turn.choose(5), by_turn.choose(5));
        assert_eq!(by_hash.choose(5), by_hash.choose(5));
    }
}
