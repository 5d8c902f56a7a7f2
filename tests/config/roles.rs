//! What the configuration says of an appliance's role.

use std::path::Path;

use baton::config::load;

use crate::{GOOD, one_error};

#[test]
fn an_appliance_starts_in_service_unless_the_file_says_otherwise() {
    let with =
        |lines: &str| GOOD.replace("virtual_router_id = 51", &format!("virtual_router_id = 51\n{lines}"));
    assert!(!load(Path::new("a.toml"), GOOD).expect("it is good").failover.maintenance);
    let out = load(Path::new("a.toml"), &with("maintenance = true")).expect("it is good");
    assert!(out.failover.maintenance);
    one_error(&with("maintenance = \"on\""), "maintenance", "failover.maintenance", "true or false");
}

#[test]
fn an_appliance_gives_way_to_other_vrrp_routers_only_if_the_file_says_so() {
    use baton::config::checked::VrrpUse;
    let with =
        |lines: &str| GOOD.replace("virtual_router_id = 51", &format!("virtual_router_id = 51\n{lines}"));
    let vrrp = |text: &str| load(Path::new("a.toml"), text).expect("it is good").failover.vrrp;
    assert_eq!(vrrp(GOOD), VrrpUse::Output);
    assert_eq!(vrrp(&with("vrrp = \"yield\"")), VrrpUse::Yield);
    one_error(&with("vrrp = true"), "vrrp", "failover.vrrp", "\"output\" or \"yield\"");
}
