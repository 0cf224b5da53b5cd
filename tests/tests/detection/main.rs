//! What the binary concludes from what hosts and announcers do.
//!
//! Each entry of the lists below is a test, by its name. They are lists and no functions with an attribute because
//! they spend nearly all their time waiting for protocols: unlike other tests, more of them run side by side than
//! there are processors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is tests, which the attribute would tell clippy"
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

/// Functions that panic when what they hold is not so, as tests by their names.
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
    arguments.test_threads.get_or_insert(SIDE_BY_SIDE);
    let trial = |scenario: Scenario, hold: fn(&Scenario) -> anyhow::Result<()>| {
        Trial::test(scenario.name, move || {
            hold(&scenario).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let functions = functions![
        one_minute: [
            two_owners_who_alternate_twenty_times_a_second_are_both_seen_to_the_end_of_a_minute,
            a_double_answer_to_the_first_request_after_a_quiet_minute_is_evidence_at_once,
        ],
        conflicts: [
            two_hosts_with_one_address_are_a_conflict_within_a_second_that_names_both,
            one_conflict_is_reported_once_however_often_it_shows,
            a_host_that_has_its_address_alone_is_no_conflict,
            owners_that_go_on_claiming_an_address_in_turn_are_a_conflict,
            a_failover_by_gratuitous_arp_is_a_move_and_no_conflict,
            a_conflict_ends_some_time_after_the_rival_has_gone,
            a_conflict_stays_open_while_both_owners_answer,
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
    let scenarios = scenarios.into_iter().map(|it| trial(it, Scenario::hold));
    let with_probing = with_probing::SCENARIOS.iter();
    let with_probing = with_probing.map(|&it| trial(it, Scenario::hold_asking));
    let trials = functions.into_iter().chain(scenarios).chain(with_probing);
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// With the prefix length of the network.
fn in_network(address: &str) -> String {
    format!("{address}/24")
}
