//! What the binary concludes from what real announcers do.
//!
//! Each scenario is a test, by its name. They are a list and no functions with an attribute because they
//! spend nearly all their time waiting for protocols, so that more of them fit side by side than there are
//! processors, unlike other tests.

mod addresses;
mod asking;
mod dhcp;
mod keepalived;
mod kube_vip;
mod metallb;
mod ucarp;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use probe_tests::Scenario;

/// The network of all scenarios (TEST-NET-1, RFC 5737): who asks…
const CLIENT: &str = "192.0.2.1";

/// …the first of two that matter…
const FIRST: &str = "192.0.2.11";

/// …the second…
const SECOND: &str = "192.0.2.12";

/// …and the address that they share, hand over or quarrel about.
const SHARED: &str = "192.0.2.10";

/// The same, as frames have it.
const SHARED_BYTES: [u8; 4] = [192, 0, 2, 10];

/// As many as two processors can start within the time that protocols give each other.
const SIDE_BY_SIDE: usize = 8;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(SIDE_BY_SIDE);
    let scenarios = [
        keepalived::SCENARIOS,
        ucarp::SCENARIOS,
        metallb::SCENARIOS,
        kube_vip::SCENARIOS,
        dhcp::SCENARIOS,
        addresses::SCENARIOS,
    ]
    .concat();
    let trial = |scenario: Scenario, hold: fn(&Scenario) -> anyhow::Result<()>| {
        Trial::test(scenario.name, move || {
            hold(&scenario).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let listened = scenarios.into_iter().map(|it| trial(it, Scenario::hold));
    let asking = asking::SCENARIOS.iter();
    let asked = asking.map(|&it| trial(it, Scenario::hold_asking));
    let trials = listened.chain(asked).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// With the prefix length of the network.
fn in_network(address: &str) -> String {
    format!("{address}/24")
}
