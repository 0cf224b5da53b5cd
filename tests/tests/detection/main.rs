//! Scenarios: findings about real and simulated hosts and announcers.
//!
//! Each entry of the lists below is a test. They are lists and not functions with an attribute because they spend
//! nearly all their time waiting for protocols: more of them run in parallel than there are CPUs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the whole file is tests, but has no test attribute that clippy recognises"
)]

mod addresses;
mod conflicts;
mod dhcp;
mod keepalived;
mod kube_vip;
mod metallb;
mod one_minute;
mod ucarp;
mod with_probing;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use probe_tests::Scenario;

/// The client in the network of all scenarios (TEST-NET-1, RFC 5737).
const CLIENT: &str = "192.0.2.1";

/// The first host.
const FIRST: &str = "192.0.2.11";

/// The second host.
const SECOND: &str = "192.0.2.12";

/// The address that the hosts share or hand over.
const SHARED: &str = "192.0.2.10";

/// [`SHARED`] as bytes.
const SHARED_BYTES: [u8; 4] = [192, 0, 2, 10];

/// The number of parallel tests: as many as two CPUs can start within the timing of the protocols.
const PARALLEL_TESTS: usize = 8;

/// Tests from functions that panic on failure; the name of the function is the name of the test.
macro_rules! functions {
    ($($module:ident: [$($function:ident),+ $(,)?]),+ $(,)?) => {
        [$($(Trial::test(stringify!($function), || {
            $module::$function();
            Ok(())
        }),)+)+]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL_TESTS);
    let trial = |scenario: Scenario, run_passively: fn(&Scenario) -> anyhow::Result<()>| {
        Trial::test(scenario.name, move || {
            run_passively(&scenario).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let functions = functions![
        one_minute: [
            two_owners_that_alternate_fast_are_both_observed_for_a_minute,
            two_replies_after_a_quiet_minute_are_immediate_evidence,
        ],
        conflicts: [
            two_hosts_with_one_address_are_a_conflict_of_both_within_a_second,
            one_conflict_is_reported_once,
            one_owner_is_no_conflict,
            two_owners_that_alternate_are_a_conflict,
            a_failover_by_gratuitous_arp_is_a_move_and_no_conflict,
            a_conflict_expires_after_the_duplicate_is_removed,
            a_conflict_stays_open_while_both_owners_reply,
            one_address_in_two_vlans_is_no_conflict,
        ],
    ];
    let scenarios = [
        keepalived::SCENARIOS,
        ucarp::SCENARIOS,
        metallb::SCENARIOS,
        kube_vip::SCENARIOS,
        dhcp::SCENARIOS,
        addresses::SCENARIOS,
    ]
    .concat();
    let scenarios = scenarios
        .into_iter()
        .map(|it| trial(it, Scenario::run_passively));
    let with_probing = with_probing::SCENARIOS.iter();
    let with_probing = with_probing.map(|&it| trial(it, Scenario::run_with_probing));
    let trials = functions.into_iter().chain(scenarios).chain(with_probing);
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Appends the prefix length of the network.
fn in_network(address: &str) -> String {
    format!("{address}/24")
}
