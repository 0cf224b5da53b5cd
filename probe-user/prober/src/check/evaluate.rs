//! What was heard of an address, judged by the rules of detection on who is one machine.

use std::{cmp::Reverse, collections::HashSet, time::Duration};

use probe_common::wire::MacAddr;
use probe_detect::{DetectConfig, OwnerIdentity, OwnerRules};
use probe_model::{CheckVerdict, Hint, Timestamp};

use super::{AddressResponses, RespondingMac};

/// How it was checked, which decides what it means that two machines did not answer the same question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMode {
    /// Within a moment: nothing moves in that time.
    Once,
    /// Over a time, in which an address may move.
    Continuous,
}

/// One machine that has to do with an address: its MACs, and what all of them did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedHost {
    /// What was heard of it, the MAC that was heard last first. Empty of this host, which does not hear itself.
    pub responders: Vec<RespondingMac>,
    /// The MAC that this host holds the address with.
    pub held: Option<MacAddr>,
    /// Whether it is this host.
    pub local: bool,
}

/// What was heard of an address, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// What is known.
    pub verdict: CheckVerdict,
    /// Who has it: those who answered first, of these the one heard last first.
    pub machines: Vec<CheckedHost>,
    /// What may be the cause.
    pub hint: Option<Hint>,
}

/// Judges.
#[derive(Debug)]
pub struct CheckEvaluator {
    rules: OwnerRules,
    manner: CheckMode,
    overlap: Duration,
}

impl CheckEvaluator {
    /// Goes by these rules on who is one machine.
    pub fn new(config: DetectConfig, manner: CheckMode) -> Self {
        let overlap = config.takeover_grace;
        Self {
            rules: OwnerRules::new(config),
            manner,
            overlap,
        }
    }

    /// Judges what was heard, given the MACs of this host and the one it holds the address with.
    pub fn evaluate(
        &self,
        sighting: &AddressResponses,
        held: Option<MacAddr>,
        own: &HashSet<MacAddr>,
    ) -> CheckResult {
        let machines = self.hosts(sighting, held, own);
        let verdict = self.verdict(&machines);
        let hint = self.hint(&machines, verdict);
        CheckResult {
            verdict,
            machines,
            hint,
        }
    }

    /// As on a binding in detection: physical MACs beside a virtual-router MAC belong to it.
    fn hosts(
        &self,
        sighting: &AddressResponses,
        held: Option<MacAddr>,
        own: &HashSet<MacAddr>,
    ) -> Vec<CheckedHost> {
        let responders = sighting.responders.iter();
        let router = responders
            .clone()
            .filter(|station| self.rules.is_virtual_router(station.mac))
            .max_by_key(|station| (station.last, station.mac))
            .map(|station| OwnerIdentity::VirtualRouter(station.mac));
        let owner_of = |mac| match (self.rules.identify(mac), router) {
            (OwnerIdentity::Host(_), Some(router)) => router,
            (identity, _) => identity,
        };
        let mut machines: Vec<(OwnerIdentity, CheckedHost)> = Vec::new();
        for station in responders {
            let machine = host_of(&mut machines, owner_of(station.mac));
            machine.local |= own.contains(&station.mac);
            machine.responders.push(station.clone());
        }
        if let Some(mac) = held {
            let machine = host_of(&mut machines, owner_of(mac));
            machine.held = Some(mac);
            machine.local = true;
        }
        let mut machines: Vec<_> = machines.into_iter().map(|(_, machine)| machine).collect();
        for machine in &mut machines {
            machine
                .responders
                .sort_by_key(|station| (Reverse(station.last), station.mac));
        }
        machines.sort_by_key(|machine| (!machine.has(), Reverse(machine.last())));
        machines
    }

    fn verdict(&self, machines: &[CheckedHost]) -> CheckVerdict {
        let mut pairs = machines
            .iter()
            .enumerate()
            .flat_map(|(place, one)| machines[place + 1..].iter().map(move |other| (one, other)));
        if pairs.any(|(one, other)| self.overlap_in_time(one, other)) {
            return CheckVerdict::Conflict;
        }
        match machines {
            [] => CheckVerdict::NoReply,
            // Who claimed the address while another one answered, but not for long enough to be a rival, is named.
            [first, second, ..]
                if self.manner == CheckMode::Continuous
                    && first.held.is_none()
                    && !second.sends_only_requests() =>
            {
                CheckVerdict::Moved
            }
            _ => CheckVerdict::OneOwner,
        }
    }

    /// Whether two machines have the address at the same time.
    fn overlap_in_time(&self, one: &CheckedHost, other: &CheckedHost) -> bool {
        if one.sends_only_requests() || other.sends_only_requests() {
            // A bond in mode balance-alb asks with one MAC and answers with another.
            return false;
        }
        if one.has() && other.has() {
            return match (self.manner, one.probe_range(), other.probe_range()) {
                (CheckMode::Continuous, Some(one), Some(other)) => {
                    one.0 <= other.1 && other.0 <= one.1
                }
                (CheckMode::Once, ..)
                | (CheckMode::Continuous, None, _)
                | (CheckMode::Continuous, _, None) => true,
            };
        }
        // One of them only announces. In a handover it overlaps with the other for a moment, and of what this
        // host holds it has to claim it again.
        let goes_on = |one: &CheckedHost, other: &CheckedHost| {
            let from = if other.held.is_some() { one } else { other };
            one.held.is_some() || one.last() > from.first() + self.overlap
        };
        goes_on(one, other) && goes_on(other, one)
    }

    /// The same words as detection has for the same things.
    fn hint(&self, machines: &[CheckedHost], verdict: CheckVerdict) -> Option<Hint> {
        let is_router = |station: &RespondingMac| self.rules.is_virtual_router(station.mac);
        let having = machines.iter().filter(|machine| machine.has());
        let routers = machines
            .iter()
            .filter(|machine| machine.responders.iter().any(is_router));
        if routers.clone().count() > 1 {
            return Some(Hint::TwoRouterGroups);
        }
        for machine in routers {
            let answering = machine
                .responders
                .iter()
                .filter(|station| station.answers > 0);
            let [virtual_ones, physical] = [true, false].map(|wanted| {
                let responders = answering.clone();
                responders
                    .filter(|station| is_router(station) == wanted)
                    .count()
            });
            if machine
                .responders
                .iter()
                .any(|station| is_router(station) && station.repeats > 0)
            {
                return Some(Hint::TwoMasters);
            } else if virtual_ones > 0 && physical > 0 {
                return Some(Hint::RouterAndHost);
            }
        }
        if verdict != CheckVerdict::Conflict {
            let asking = machines.iter().any(CheckedHost::sends_only_requests);
            return (asking && machines.len() > 1).then_some(Hint::BalanceAlb);
        }
        if machines.iter().all(|machine| machine.local) {
            Some(Hint::ArpFlux)
        } else if having.count() > 2 {
            Some(Hint::IpvsStrictArp)
        } else {
            None
        }
    }
}

fn host_of(
    machines: &mut Vec<(OwnerIdentity, CheckedHost)>,
    owner: OwnerIdentity,
) -> &mut CheckedHost {
    let place = machines.iter().position(|(known, _)| *known == owner);
    let place = place.unwrap_or_else(|| {
        let machine = CheckedHost {
            responders: Vec::new(),
            held: None,
            local: false,
        };
        machines.push((owner, machine));
        machines.len() - 1
    });
    &mut machines[place].1
}

impl CheckedHost {
    /// Its MACs, the one heard last first.
    pub fn macs(&self) -> Vec<MacAddr> {
        let heard = self.responders.iter().map(|station| station.mac);
        let held = self
            .held
            .filter(|held| heard.clone().all(|mac| mac != *held));
        heard.chain(held).collect()
    }

    /// Whether it answered, or is this host and holds the address.
    pub fn has(&self) -> bool {
        self.held.is_some() || self.responders.iter().any(|station| station.answers > 0)
    }

    /// Whether nothing is known of it but that it asked others with the address as its own.
    fn sends_only_requests(&self) -> bool {
        !self.has()
            && self
                .responders
                .iter()
                .all(|station| station.announcements == 0)
    }

    /// When it was first heard.
    pub fn first(&self) -> Timestamp {
        let first = self.responders.iter().map(|station| station.first).min();
        first.unwrap_or_default()
    }

    /// When it was last heard.
    pub fn last(&self) -> Timestamp {
        let last = self.responders.iter().map(|station| station.last).max();
        last.unwrap_or_default()
    }

    /// The first and the last question that it answered; `None` of this host, which has it all the time.
    pub fn probe_range(&self) -> Option<(u32, u32)> {
        if self.held.is_some() {
            return None;
        }
        let answered = self
            .responders
            .iter()
            .filter_map(|station| station.probe_range);
        answered.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;

    const A: &str = "02:00:00:00:00:0a";
    const B: &str = "02:00:00:00:00:0b";
    const C: &str = "02:00:00:00:00:0c";
    const VRRP: &str = "00:00:5e:00:01:07";

    fn mac(text: &str) -> MacAddr {
        text.parse().unwrap()
    }

    fn second(number: u32) -> Timestamp {
        Timestamp(u64::from(number) * 1_000_000_000)
    }

    /// Heard from this second to that one.
    fn station(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            mac: mac(name),
            answers: 0,
            repeats: 0,
            probe_range: None,
            announcements: 0,
            requests: 0,
            first: second(from),
            last: second(to),
            took: None,
        }
    }

    /// Answered every question from this one to that one.
    fn answers(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            answers: to - from + 1,
            probe_range: Some((from, to)),
            ..station(name, from, to)
        }
    }

    fn announces(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            announcements: to - from + 1,
            ..station(name, from, to)
        }
    }

    fn asks(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            requests: 1,
            ..station(name, from, to)
        }
    }

    fn judged_by(
        judge: &CheckEvaluator,
        responders: &[RespondingMac],
        held: Option<&str>,
        own: &[&str],
    ) -> (CheckVerdict, usize, Option<Hint>) {
        let sighting = AddressResponses {
            responders: SmallVec::from_vec(responders.to_vec()),
            more: 0,
        };
        let own = own.iter().map(|name| mac(name)).collect();
        let judgement = judge.evaluate(&sighting, held.map(mac), &own);
        (judgement.verdict, judgement.machines.len(), judgement.hint)
    }

    fn once(responders: &[RespondingMac]) -> (CheckVerdict, usize, Option<Hint>) {
        let judge = CheckEvaluator::new(DetectConfig::default(), CheckMode::Once);
        judged_by(&judge, responders, None, &[])
    }

    fn watched(responders: &[RespondingMac]) -> (CheckVerdict, usize, Option<Hint>) {
        let judge = CheckEvaluator::new(DetectConfig::default(), CheckMode::Continuous);
        judged_by(&judge, responders, None, &[])
    }

    #[test]
    fn who_answers_has_the_address() {
        use probe_model::CheckVerdict::{Conflict, NoReply, OneOwner};
        assert_eq!(once(&[]), (NoReply, 0, None));
        assert_eq!(once(&[answers(A, 1, 3)]), (OneOwner, 1, None));
        let two = [answers(A, 1, 3), answers(B, 1, 3)];
        assert_eq!(once(&two), (Conflict, 2, None));
        let three = [answers(A, 1, 1), answers(B, 2, 2), answers(C, 3, 3)];
        assert_eq!(once(&three), (Conflict, 3, Some(Hint::IpvsStrictArp)));
        let repeating = RespondingMac {
            answers: 9,
            repeats: 8,
            ..answers(A, 1, 1)
        };
        assert_eq!(once(&[repeating]), (OneOwner, 1, None));
    }

    #[test]
    fn what_this_host_holds_it_owns() {
        use probe_model::CheckVerdict::{Conflict, OneOwner};
        let judge = CheckEvaluator::new(DetectConfig::default(), CheckMode::Continuous);
        assert_eq!(judged_by(&judge, &[], Some(A), &[A]), (OneOwner, 1, None));
        let stranger = [answers(B, 5, 5)];
        assert_eq!(
            judged_by(&judge, &stranger, Some(A), &[A]),
            (Conflict, 2, None)
        );
        let announcer = [announces(B, 5, 5)];
        assert_eq!(
            judged_by(&judge, &announcer, Some(A), &[A]).0,
            OneOwner,
            "once is no rival"
        );
        let flux = Some(Hint::ArpFlux);
        assert_eq!(
            judged_by(&judge, &[answers(B, 5, 5)], Some(A), &[A, B]),
            (Conflict, 2, flux)
        );
    }

    #[test]
    fn the_macs_of_one_machine_are_no_conflict() {
        use probe_model::CheckVerdict::OneOwner;
        let both = [answers(VRRP, 1, 3), answers(A, 1, 3)];
        assert_eq!(once(&both), (OneOwner, 1, Some(Hint::RouterAndHost)));
        assert_eq!(
            once(&[answers(VRRP, 1, 3), asks(A, 2, 2)]),
            (OneOwner, 1, None)
        );
        let twice = RespondingMac {
            answers: 6,
            repeats: 3,
            ..answers(VRRP, 1, 3)
        };
        assert_eq!(once(&[twice]), (OneOwner, 1, Some(Hint::TwoMasters)));
        let glbp = [
            answers("00:07:b4:00:0a:01", 1, 3),
            answers("00:07:b4:00:0a:02", 1, 3),
        ];
        assert_eq!(once(&glbp), (OneOwner, 1, None));
        let bond = [answers(A, 1, 3), asks(B, 1, 3)];
        assert_eq!(once(&bond), (OneOwner, 2, Some(Hint::BalanceAlb)));
        let config = DetectConfig {
            same_owner: vec![vec![mac(A), mac(B)]],
            ..DetectConfig::default()
        };
        let judge = CheckEvaluator::new(config, CheckMode::Once);
        let declared = [answers(A, 1, 3), answers(B, 1, 3)];
        assert_eq!(judged_by(&judge, &declared, None, &[]), (OneOwner, 1, None));
        let groups = [answers(VRRP, 1, 3), answers("00:00:5e:00:01:08", 1, 3)];
        let two_groups = Some(Hint::TwoRouterGroups);
        assert_eq!(once(&groups), (CheckVerdict::Conflict, 2, two_groups));
    }

    #[test]
    fn over_a_time_an_address_may_move_once_and_not_back() {
        use probe_model::CheckVerdict::{Conflict, Moved, OneOwner};
        let moved = [answers(A, 1, 20), answers(B, 21, 60)];
        assert_eq!(watched(&moved), (Moved, 2, None));
        let there_and_back = [answers(A, 1, 60), answers(B, 20, 25)];
        assert_eq!(watched(&there_and_back).0, Conflict);
        assert_eq!(
            watched(&[answers(A, 1, 20), answers(B, 20, 60)]).0,
            Conflict
        );
        assert_eq!(watched(&[answers(A, 1, 60)]).0, OneOwner);
        assert_eq!(watched(&[answers(A, 1, 60), asks(B, 3, 50)]).0, OneOwner);
    }

    #[test]
    fn who_only_announces_is_a_rival_if_both_go_on() {
        use probe_model::CheckVerdict::{Conflict, Moved, OneOwner};
        assert_eq!(
            watched(&[answers(A, 1, 60), announces(B, 3, 50)]).0,
            Conflict
        );
        // The burst of a handover, and the answer of the owner before.
        assert_eq!(watched(&[answers(A, 1, 20), announces(B, 20, 25)]).0, Moved);
        assert_eq!(once(&[answers(A, 1, 1), announces(B, 1, 1)]).0, OneOwner);
        assert_eq!(once(&[announces(A, 1, 1)]).0, OneOwner);
    }
}
