//! Each server in turn, as often as its weight says, the turns of a heavy server
//! spread out between those of the others ("smooth" weighted round robin, as nginx
//! has it): with each choice every server gains its weight, the one that has most is
//! chosen and pays the sum of all weights.
//!
//! A choice looks at every server of the pool.

use super::ServerSlot;

/// The turns of one pool on one worker.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    turns: Vec<Turn>,
    weights_sum: i64,
}

#[derive(Clone, Debug)]
struct Turn {
    /// The server's index.
    server: usize,
    weight: i64,
    /// What it has gained and not paid.
    credit: i64,
}

impl RoundRobin {
    /// Nobody has had a turn.
    pub fn new(servers: &[ServerSlot]) -> RoundRobin {
        let taking = servers.iter().enumerate().filter(|(_, slot)| slot.takes_flows());
        let turns: Vec<Turn> =
            taking.map(|(server, slot)| Turn { server, weight: i64::from(slot.weight), credit: 0 }).collect();
        let weights_sum = turns.iter().map(|turn| turn.weight).sum();
        RoundRobin { turns, weights_sum }
    }

    /// Whose turn it is.
    pub fn choose(&mut self) -> Option<usize> {
        for turn in &mut self.turns {
            turn.credit += turn.weight;
        }
        // Of equals the first: `max_by_key` would take the last.
        let next = self.turns.iter_mut().rev().max_by_key(|turn| turn.credit)?;
        next.credit -= self.weights_sum;
        Some(next.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ServerId;

    fn servers(weights: &[u32]) -> Vec<ServerSlot> {
        let slots = (0..).zip(weights);
        slots.map(|(id, weight)| ServerSlot { id: ServerId(id), weight: *weight, up: true }).collect()
    }

    fn choices(weights: &[u32], count: usize) -> Vec<usize> {
        let mut balancer = RoundRobin::new(&servers(weights));
        (0..count).filter_map(|_| balancer.choose()).collect()
    }

    #[test]
    fn equal_servers_take_turns() {
        assert_eq!(choices(&[1, 1, 1], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_heavy_servers_turns_are_spread_out() {
        assert_eq!(choices(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn over_a_round_each_server_has_as_many_turns_as_its_weight() {
        let weights = [7, 0, 3, 10, 1];
        let chosen = choices(&weights, 21 * 3);
        for (server, weight) in weights.into_iter().enumerate() {
            assert_eq!(chosen.iter().filter(|c| **c == server).count(), weight as usize * 3);
        }
    }

    #[test]
    fn a_server_that_is_down_is_left_out() {
        let mut slots = servers(&[1, 1, 1]);
        slots[1].up = false;
        let mut balancer = RoundRobin::new(&slots);
        assert_eq!([(); 4].map(|()| balancer.choose()), [Some(0), Some(2), Some(0), Some(2)]);
        assert_eq!(RoundRobin::new(&[]).choose(), None);
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let chosen = choices(&[u32::MAX; 100], 200);
        assert_eq!(chosen[..100], (0..100).collect::<Vec<_>>());
        assert_eq!(chosen[100..], chosen[..100]);
    }
}
