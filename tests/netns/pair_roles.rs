//! Role changes between the same two processes.

use netns_harness::Result;
use netns_harness::campaign::roles;

use crate::{on_stage, one_at_a_time};

#[test]
fn after_ten_role_changes_everything_is_back_where_it_began() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&roles::settings(), |stage| {
        let changes = roles::changes(stage, 10, |_| ())?;
        assert_eq!(changes.planned.len(), 5);
        changes.violations.judge()
    })
}
