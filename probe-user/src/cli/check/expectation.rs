//! The expectation of `probe check` for each address.

use probe_common::wire::MacAddr;
use probe_model::CheckStatus;
use probe_prober::check::{CheckMode, CheckResult, CheckedHost};

/// The number of probes that an owner may miss at the start and the end of a watch, because frames get lost.
const MIN_REPLY_SHARE: u32 = 3;

/// The expectation for each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckExpectation {
    /// None.
    Nothing,
    /// Exactly one owner.
    Owner,
    /// No owner.
    Free,
    /// This MAC, and no other owner.
    Mac(MacAddr),
}

impl CheckExpectation {
    /// The expectation in words.
    pub fn describe(self, mode: CheckMode) -> String {
        let all_the_time = match mode {
            CheckMode::Once => "",
            CheckMode::Continuous => ", all the time",
        };
        match self {
            Self::Nothing => "the same owner throughout".to_owned(),
            Self::Owner => format!("exactly one owner{all_the_time}"),
            Self::Free => "no reply".to_owned(),
            Self::Mac(mac) => format!("{mac} and no other owner{all_the_time}"),
        }
    }

    /// Whether the expectation is met; `None` without one. With [`CheckMode::Continuous`] the owner has to reply during
    /// the whole watch.
    pub fn is_met(self, result: &CheckResult, mode: CheckMode, probes_sent: u32) -> Option<bool> {
        let one_owner = || {
            let owner = result.hosts.first();
            let there = owner.and_then(CheckedHost::probe_range);
            let is_there = match (mode, there) {
                (CheckMode::Once, _) | (CheckMode::Continuous, None) => true,
                (CheckMode::Continuous, Some((first, last))) => {
                    first <= MIN_REPLY_SHARE && last + MIN_REPLY_SHARE > probes_sent
                }
            };
            owner.filter(|_| result.status == CheckStatus::OneOwner && is_there)
        };
        match self {
            // The purpose of watching is to see whether an address moves, and two masters are never as expected.
            Self::Nothing
                if matches!(result.status, CheckStatus::Moved | CheckStatus::Contested) =>
            {
                Some(false)
            }
            Self::Nothing => None,
            Self::Owner => Some(one_owner().is_some()),
            Self::Free => Some(result.status == CheckStatus::NoReply),
            Self::Mac(mac) => Some(one_owner().is_some_and(|owner| owner.macs().contains(&mac))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use probe_detect::DetectConfig;
    use probe_model::Timestamp;
    use probe_prober::check::{AddressResponses, CheckEvaluator, RespondingMac, SharedReplies};
    use smallvec::{SmallVec, smallvec};

    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn replying(mac: MacAddr, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            mac,
            replies: to - from + 1,
            requests_answered: 0,
            replies_to_others: 0,
            sources: SmallVec::new(),
            repeats: 0,
            probe_range: Some((from, to)),
            announcements: 0,
            requests: 0,
            first: Timestamp(u64::from(from)),
            last: Timestamp(u64::from(to)),
            response_times: None,
        }
    }

    fn evaluated(mode: CheckMode, responses: &AddressResponses) -> CheckResult {
        CheckEvaluator::new(DetectConfig::default(), mode).evaluate(
            responses,
            None,
            &HashSet::new(),
            &SharedReplies::default(),
        )
    }

    #[test]
    fn expectations_of_one_no_or_a_specific_owner() {
        let one = AddressResponses {
            responders: smallvec![replying(A, 1, 3)],
            more: 0,
        };
        let nobody = AddressResponses::default();
        for (expectation, of_one, of_nobody) in [
            (CheckExpectation::Nothing, None, None),
            (CheckExpectation::Owner, Some(true), Some(false)),
            (CheckExpectation::Free, Some(false), Some(true)),
            (CheckExpectation::Mac(A), Some(true), Some(false)),
            (CheckExpectation::Mac(B), Some(false), Some(false)),
        ] {
            let met = |responses| {
                expectation.is_met(&evaluated(CheckMode::Once, responses), CheckMode::Once, 3)
            };
            assert_eq!(met(&one), of_one, "{expectation:?}");
            assert_eq!(met(&nobody), of_nobody, "{expectation:?}");
        }
    }

    #[test]
    fn expected_owner_must_be_present_during_the_whole_watch() {
        for (from, to, met) in [(1, 60, true), (3, 58, true), (4, 60, false), (1, 57, false)] {
            let responses = AddressResponses {
                responders: smallvec![replying(A, from, to)],
                more: 0,
            };
            let result = evaluated(CheckMode::Continuous, &responses);
            let is_met = CheckExpectation::Owner.is_met(&result, CheckMode::Continuous, 60);
            assert_eq!(is_met, Some(met), "{from} {to}");
        }
        let moved = AddressResponses {
            responders: smallvec![replying(A, 1, 20), replying(B, 30, 60)],
            more: 0,
        };
        let result = evaluated(CheckMode::Continuous, &moved);
        let is_met = CheckExpectation::Nothing.is_met(&result, CheckMode::Continuous, 60);
        assert_eq!(is_met, Some(false));
    }

    #[test]
    fn two_masters_on_one_virtual_mac_are_two_owners() {
        let virtual_mac = MacAddr([0, 0, 0x5e, 0, 1, 7]);
        let two_masters = RespondingMac {
            replies: 6,
            repeats: 3,
            ..replying(virtual_mac, 1, 3)
        };
        let responses = AddressResponses {
            responders: smallvec![two_masters],
            more: 0,
        };
        let result = evaluated(CheckMode::Once, &responses);
        for expectation in [
            CheckExpectation::Nothing,
            CheckExpectation::Owner,
            CheckExpectation::Mac(virtual_mac),
            CheckExpectation::Free,
        ] {
            let is_met = expectation.is_met(&result, CheckMode::Once, 3);
            assert_eq!(is_met, Some(false), "{expectation:?}");
        }
    }
}
