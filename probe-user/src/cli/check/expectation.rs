//! What whoever checks expects of each address.

use probe_common::wire::MacAddr;
use probe_model::Verdict;
use probe_prober::check::{Judgement, Machine, Manner};

/// Questions of a watch that an owner may miss at its beginning and at its end: frames get lost.
const MISSED: u32 = 3;

/// What is expected of each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing in particular.
    Nothing,
    /// Exactly one owner.
    Owner,
    /// Nobody.
    Free,
    /// This MAC, and nobody else.
    Mac(MacAddr),
}

impl Expectation {
    /// What it is, in words.
    pub fn words(self, manner: Manner) -> String {
        let all_the_time = match manner {
            Manner::Once => "",
            Manner::Watched => ", all the time",
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
    pub fn is_met(self, judgement: &Judgement, manner: Manner, asked: u32) -> Option<bool> {
        let one_owner = || {
            let owner = judgement.machines.first();
            let there = owner.and_then(Machine::questions);
            let is_there = match (manner, there) {
                (Manner::Once, _) | (Manner::Watched, None) => true,
                (Manner::Watched, Some((first, last))) => first <= MISSED && last + MISSED > asked,
            };
            owner.filter(|_| judgement.verdict == Verdict::OneOwner && is_there)
        };
        match self {
            // Watching is to see whether an address stays where it is.
            Self::Nothing if judgement.verdict == Verdict::Moved => Some(false),
            Self::Nothing => None,
            Self::Owner => Some(one_owner().is_some()),
            Self::Free => Some(judgement.verdict == Verdict::Nobody),
            Self::Mac(mac) => Some(one_owner().is_some_and(|owner| owner.macs().contains(&mac))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use probe_detect::DetectConfig;
    use probe_model::Timestamp;
    use probe_prober::check::{Judge, Sighting, Station};
    use smallvec::smallvec;

    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn answers(mac: MacAddr, from: u32, to: u32) -> Station {
        Station {
            mac,
            answers: to - from + 1,
            repeats: 0,
            questions: Some((from, to)),
            announcements: 0,
            requests: 0,
            first: Timestamp(u64::from(from)),
            last: Timestamp(u64::from(to)),
            took: None,
        }
    }

    fn judged(manner: Manner, sighting: &Sighting) -> Judgement {
        Judge::new(DetectConfig::default(), manner).judge(sighting, None, &HashSet::new())
    }

    #[test]
    fn one_owner_nobody_or_a_certain_one() {
        let one = Sighting {
            stations: smallvec![answers(A, 1, 3)],
            more: 0,
        };
        let nobody = Sighting::default();
        for (expectation, of_one, of_nobody) in [
            (Expectation::Nothing, None, None),
            (Expectation::Owner, Some(true), Some(false)),
            (Expectation::Free, Some(false), Some(true)),
            (Expectation::Mac(A), Some(true), Some(false)),
            (Expectation::Mac(B), Some(false), Some(false)),
        ] {
            let met =
                |sighting| expectation.is_met(&judged(Manner::Once, sighting), Manner::Once, 3);
            assert_eq!(met(&one), of_one, "{expectation:?}");
            assert_eq!(met(&nobody), of_nobody, "{expectation:?}");
        }
    }

    #[test]
    fn an_owner_that_is_watched_is_there_from_the_beginning_to_the_end() {
        for (from, to, met) in [(1, 60, true), (3, 58, true), (4, 60, false), (1, 57, false)] {
            let sighting = Sighting {
                stations: smallvec![answers(A, from, to)],
                more: 0,
            };
            let judgement = judged(Manner::Watched, &sighting);
            let is_met = Expectation::Owner.is_met(&judgement, Manner::Watched, 60);
            assert_eq!(is_met, Some(met), "{from} {to}");
        }
        let moved = Sighting {
            stations: smallvec![answers(A, 1, 20), answers(B, 30, 60)],
            more: 0,
        };
        let judgement = judged(Manner::Watched, &moved);
        let is_met = Expectation::Nothing.is_met(&judgement, Manner::Watched, 60);
        assert_eq!(is_met, Some(false));
    }
}
