//! What whoever checks expects of each address.

use probe_common::wire::MacAddr;
use probe_model::CheckVerdict;
use probe_prober::check::{CheckMode, CheckResult, CheckedHost};

/// Questions of a watch that an owner may miss at its beginning and at its end: frames get lost.
const MIN_REPLY_SHARE: u32 = 3;

/// What is expected of each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVerdict {
    /// Nothing in particular.
    Nothing,
    /// Exactly one owner.
    Owner,
    /// Nobody.
    Free,
    /// This MAC, and nobody else.
    Mac(MacAddr),
}

impl ExpectedVerdict {
    /// What it is, in words.
    pub fn describe(self, manner: CheckMode) -> String {
        let all_the_time = match manner {
            CheckMode::Once => "",
            CheckMode::Continuous => ", all the time",
        };
        match self {
            Self::Nothing => "that it stays where it is".to_owned(),
            Self::Owner => format!("exactly one owner{all_the_time}"),
            Self::Free => "nobody".to_owned(),
            Self::Mac(mac) => format!("{mac} and nobody else{all_the_time}"),
        }
    }

    /// Whether it is met; `None` if nothing was expected. Of an owner that was watched, that it was there all the
    /// time is expected, too.
    pub fn is_met(self, judgement: &CheckResult, manner: CheckMode, asked: u32) -> Option<bool> {
        let one_owner = || {
            let owner = judgement.machines.first();
            let there = owner.and_then(CheckedHost::probe_range);
            let is_there = match (manner, there) {
                (CheckMode::Once, _) | (CheckMode::Continuous, None) => true,
                (CheckMode::Continuous, Some((first, last))) => {
                    first <= MIN_REPLY_SHARE && last + MIN_REPLY_SHARE > asked
                }
            };
            owner.filter(|_| judgement.verdict == CheckVerdict::OneOwner && is_there)
        };
        match self {
            // Watching is to see whether an address stays where it is.
            Self::Nothing if judgement.verdict == CheckVerdict::Moved => Some(false),
            Self::Nothing => None,
            Self::Owner => Some(one_owner().is_some()),
            Self::Free => Some(judgement.verdict == CheckVerdict::NoReply),
            Self::Mac(mac) => Some(one_owner().is_some_and(|owner| owner.macs().contains(&mac))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use probe_detect::DetectConfig;
    use probe_model::Timestamp;
    use probe_prober::check::{AddressResponses, CheckEvaluator, RespondingMac};
    use smallvec::smallvec;

    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn answers(mac: MacAddr, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            mac,
            answers: to - from + 1,
            repeats: 0,
            probe_range: Some((from, to)),
            announcements: 0,
            requests: 0,
            first: Timestamp(u64::from(from)),
            last: Timestamp(u64::from(to)),
            took: None,
        }
    }

    fn judged(manner: CheckMode, sighting: &AddressResponses) -> CheckResult {
        CheckEvaluator::new(DetectConfig::default(), manner).evaluate(
            sighting,
            None,
            &HashSet::new(),
        )
    }

    #[test]
    fn one_owner_nobody_or_a_certain_one() {
        let one = AddressResponses {
            responders: smallvec![answers(A, 1, 3)],
            more: 0,
        };
        let nobody = AddressResponses::default();
        for (expectation, of_one, of_nobody) in [
            (ExpectedVerdict::Nothing, None, None),
            (ExpectedVerdict::Owner, Some(true), Some(false)),
            (ExpectedVerdict::Free, Some(false), Some(true)),
            (ExpectedVerdict::Mac(A), Some(true), Some(false)),
            (ExpectedVerdict::Mac(B), Some(false), Some(false)),
        ] {
            let met = |sighting| {
                expectation.is_met(&judged(CheckMode::Once, sighting), CheckMode::Once, 3)
            };
            assert_eq!(met(&one), of_one, "{expectation:?}");
            assert_eq!(met(&nobody), of_nobody, "{expectation:?}");
        }
    }

    #[test]
    fn an_owner_that_is_watched_is_there_from_the_beginning_to_the_end() {
        for (from, to, met) in [(1, 60, true), (3, 58, true), (4, 60, false), (1, 57, false)] {
            let sighting = AddressResponses {
                responders: smallvec![answers(A, from, to)],
                more: 0,
            };
            let judgement = judged(CheckMode::Continuous, &sighting);
            let is_met = ExpectedVerdict::Owner.is_met(&judgement, CheckMode::Continuous, 60);
            assert_eq!(is_met, Some(met), "{from} {to}");
        }
        let moved = AddressResponses {
            responders: smallvec![answers(A, 1, 20), answers(B, 30, 60)],
            more: 0,
        };
        let judgement = judged(CheckMode::Continuous, &moved);
        let is_met = ExpectedVerdict::Nothing.is_met(&judgement, CheckMode::Continuous, 60);
        assert_eq!(is_met, Some(false));
    }
}
