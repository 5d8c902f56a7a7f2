//! Since when a flow has waited.

use super::*;

fn lose(sync: &mut Sync, flow: u32, since: Instant) {
    assert_eq!(sync.flow_settled(ShardId(0), flow, Fate::Lost, since), Settled::Nothing);
}

#[test]
fn a_flow_whose_first_state_is_lost_while_a_later_one_is_queued_has_waited_since_the_first() {
    let at = Instant::from_millis;
    let mut sync = Sync::new(16).expect("memory");
    sync.changed(at(1), ShardId(0), FlowIndex(3));
    sync.changed(at(2), ShardId(0), FlowIndex(4));
    assert_eq!(sync.take_dirty().map(|dirty| dirty.flow), Some(3));
    assert_eq!(sync.take_dirty().map(|dirty| dirty.flow), Some(4));
    sync.changed(at(5), ShardId(0), FlowIndex(3));
    lose(&mut sync, 3, at(1));
    assert_eq!(sync.oldest_since(), Some(at(1)));
    // The other one is sent again first.
    lose(&mut sync, 4, at(2));
    sync.changed(at(6), ShardId(0), FlowIndex(5));
    let sent: Vec<_> = core::iter::from_fn(|| sync.take_dirty()).map(|d| (d.flow, d.since)).collect();
    assert_eq!(sent, [(4, at(1)), (3, at(1)), (5, at(6))]);
    assert_eq!(sync.oldest_since(), None);
}

#[test]
fn a_later_state_of_a_flow_that_the_peer_knows_waits_only_since_it_came() {
    let at = Instant::from_millis;
    let mut sync = Sync::new(16).expect("memory");
    sync.flow_settled(ShardId(0), 3, Fate::Applied, at(1));
    sync.changed(at(5), ShardId(0), FlowIndex(3));
    lose(&mut sync, 3, at(2));
    assert_eq!(sync.oldest_since(), Some(at(5)));
}
