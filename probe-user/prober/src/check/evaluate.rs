//! Decides from the replies to a check who owns an address, by the rules of detection on which MACs are one host.
//!
//! `check`, `check --kubernetes` and `explain` all use this module. An address that this host has configured,
//! or that a speaker on it was observed to reply for, counts as owned by this host: its own probes do not show that.

use std::{cmp::Reverse, collections::HashSet, time::Duration};

use probe_common::wire::MacAddr;
use probe_detect::{DetectConfig, OwnerIdentity, OwnerRules};
use probe_model::{CheckStatus, Hint, Timestamp};

use super::{AddressResponses, RespondingMac, SharedReplies};

/// The duration of a check, which determines whether two hosts that replied to different probes are a conflict or a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMode {
    /// Within a second: an address does not move in that time.
    Once,
    /// Over a time in which an address may move.
    Continuous,
}

/// How this host has an address, which its own probes do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalOwnership {
    /// The address is configured on an interface with this MAC.
    Configured(MacAddr),
    /// A speaker on this host announces the address with this MAC, as its daemon observed.
    Announced(MacAddr),
}

impl LocalOwnership {
    /// The MAC that this host has the address with.
    pub const fn mac(self) -> MacAddr {
        match self {
            Self::Configured(mac) | Self::Announced(mac) => mac,
        }
    }
}

/// One host that owns or claims an address: its MACs, and the frames of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedHost {
    /// Its MACs with what was received from each, the one observed last first. Empty for this host, which does not
    /// receive its own frames.
    pub responders: Vec<RespondingMac>,
    /// How this host has the address; `None` for other hosts.
    pub held: Option<LocalOwnership>,
    /// Whether it is this host.
    pub local: bool,
}

/// The result of checking one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Whether the address has one owner, several, or none.
    pub status: CheckStatus,
    /// The owners, the one observed last first, and behind them hosts that only claimed the address.
    pub hosts: Vec<CheckedHost>,
    /// The likely cause.
    pub hint: Option<Hint>,
}

/// Evaluates the responses to a check.
#[derive(Debug)]
pub struct CheckEvaluator {
    rules: OwnerRules,
    mode: CheckMode,
    overlap: Duration,
}

impl CheckEvaluator {
    /// An evaluator with these rules on which MACs are one host.
    pub fn new(config: DetectConfig, mode: CheckMode) -> Self {
        let overlap = config.takeover_grace;
        Self {
            rules: OwnerRules::new(config),
            mode,
            overlap,
        }
    }

    /// Evaluates the responses for one address, given how this host has it, the MACs of this host, and which MACs
    /// reply for the same addresses.
    pub fn evaluate(
        &self,
        responses: &AddressResponses,
        held: Option<LocalOwnership>,
        own: &HashSet<MacAddr>,
        shared: &SharedReplies,
    ) -> CheckResult {
        let hosts = self.hosts(responses, held, own);
        let router_hint = self.router_hint(&hosts);
        let status = self.status(&hosts, router_hint);
        let hint = router_hint.or_else(|| hint(&hosts, status, shared));
        CheckResult {
            status,
            hosts,
            hint,
        }
    }

    /// Groups the MACs by host. As in detection, physical MACs belong to a virtual-router MAC that replies too.
    fn hosts(
        &self,
        responses: &AddressResponses,
        held: Option<LocalOwnership>,
        own: &HashSet<MacAddr>,
    ) -> Vec<CheckedHost> {
        let responders = responses.responders.iter();
        let router = responders
            .clone()
            .filter(|responder| self.rules.is_virtual_router(responder.mac))
            .max_by_key(|responder| (responder.last, responder.mac))
            .map(|responder| OwnerIdentity::VirtualRouter(responder.mac));
        let owner_of = |mac| match (self.rules.identify(mac), router) {
            (OwnerIdentity::Host(_), Some(router)) => router,
            (identity, _) => identity,
        };
        let mut hosts: Vec<(OwnerIdentity, CheckedHost)> = Vec::new();
        for responder in responders {
            let host = host_of(&mut hosts, owner_of(responder.mac));
            host.local |= own.contains(&responder.mac);
            host.responders.push(responder.clone());
        }
        if let Some(held) = held {
            let host = host_of(&mut hosts, owner_of(held.mac()));
            host.held = Some(held);
            host.local = true;
        }
        let mut hosts: Vec<_> = hosts.into_iter().map(|(_, host)| host).collect();
        for host in &mut hosts {
            host.responders
                .sort_by_key(|responder| (Reverse(responder.last), responder.mac));
        }
        hosts.sort_by_key(|host| (!host.is_owner(), Reverse(host.last())));
        hosts
    }

    fn status(&self, hosts: &[CheckedHost], router_hint: Option<Hint>) -> CheckStatus {
        let mut pairs = hosts
            .iter()
            .enumerate()
            .flat_map(|(index, one)| hosts[index + 1..].iter().map(move |other| (one, other)));
        if pairs.any(|(one, other)| self.overlap_in_time(one, other)) {
            return CheckStatus::Conflict;
        }
        match hosts {
            [] => CheckStatus::NoReply,
            // The MACs are one owner by definition, and yet two hosts reply with them.
            _ if router_hint.is_some() => CheckStatus::Contested,
            // A host that claimed the address while another one replied, but too briefly for a conflict, is listed.
            [first, second, ..]
                if self.mode == CheckMode::Continuous
                    && first.held.is_none()
                    && !second.sends_only_requests() =>
            {
                CheckStatus::Moved
            }
            _ => CheckStatus::OneOwner,
        }
    }

    /// Whether two hosts have the address at the same time.
    fn overlap_in_time(&self, one: &CheckedHost, other: &CheckedHost) -> bool {
        if one.sends_only_requests() || other.sends_only_requests() {
            // A bond in mode balance-alb sends requests with one MAC and replies with another.
            return false;
        }
        if one.is_owner() && other.is_owner() {
            let is_held = one.held.is_some() || other.held.is_some();
            match (self.mode, one.probe_range(), other.probe_range()) {
                (CheckMode::Once, ..) => return true,
                (CheckMode::Continuous, Some(one), Some(other)) => {
                    return one.0 <= other.1 && other.0 <= one.1;
                }
                (CheckMode::Continuous, ..) if is_held => return true,
                // One of them replied to other hosts only: the times decide.
                (CheckMode::Continuous, ..) => {}
            }
        }
        // One of them only announces. It overlaps with the other for a short time in a handover, so it must continue
        // after that; and it must claim an address of this host twice.
        let continues = |one: &CheckedHost, other: &CheckedHost| {
            let from = if other.held.is_some() { one } else { other };
            one.held.is_some() || one.last() > from.first() + self.overlap
        };
        continues(one, other) && continues(other, one)
    }

    /// Two hosts that reply with the MACs of one virtual router, or two routers.
    fn router_hint(&self, hosts: &[CheckedHost]) -> Option<Hint> {
        let is_router = |responder: &&RespondingMac| self.rules.is_virtual_router(responder.mac);
        let routers = hosts
            .iter()
            .filter(|host| host.responders.iter().any(|one| is_router(&one)));
        if routers.clone().count() > 1 {
            return Some(Hint::TwoRouterGroups);
        }
        routers.into_iter().find_map(|host| {
            let replying = || host.responders.iter().filter(|one| one.replies > 0);
            if replying().any(|one| is_router(&one) && one.repeats > 0) {
                Some(Hint::TwoMasters)
            } else if replying().any(|one| is_router(&one))
                && !replying().all(|one| is_router(&one))
            {
                Some(Hint::RouterAndHost)
            } else {
                None
            }
        })
    }
}

/// The likely cause, by the same rules as in detection.
fn hint(hosts: &[CheckedHost], status: CheckStatus, shared: &SharedReplies) -> Option<Hint> {
    if status != CheckStatus::Conflict {
        let requests = hosts.iter().any(CheckedHost::sends_only_requests);
        return (requests && hosts.len() > 1).then_some(Hint::BalanceAlb);
    }
    if hosts.iter().all(|host| host.local) {
        return Some(Hint::ArpFlux);
    }
    let owners: Vec<_> = hosts.iter().filter(|host| host.is_owner()).collect();
    match &owners[..] {
        [one, other] if are_one_host(one, other, shared) => Some(Hint::ArpFlux),
        [_, _, _, ..] => Some(Hint::IpvsStrictArp),
        _ => None,
    }
}

/// Whether two owners reply for each other's addresses: one host, several interfaces, one network.
fn are_one_host(one: &CheckedHost, other: &CheckedHost, shared: &SharedReplies) -> bool {
    match (&one.responders[..], &other.responders[..]) {
        ([one], [other]) => shared.are_one_host(one.mac, other.mac),
        _ => false,
    }
}

fn host_of(
    hosts: &mut Vec<(OwnerIdentity, CheckedHost)>,
    owner: OwnerIdentity,
) -> &mut CheckedHost {
    let index = hosts.iter().position(|(known, _)| *known == owner);
    let index = index.unwrap_or_else(|| {
        let host = CheckedHost {
            responders: Vec::new(),
            held: None,
            local: false,
        };
        hosts.push((owner, host));
        hosts.len() - 1
    });
    &mut hosts[index].1
}

impl CheckedHost {
    /// Its MACs, the one observed last first.
    pub fn macs(&self) -> Vec<MacAddr> {
        let observed = self.responders.iter().map(|responder| responder.mac);
        let held = self.held.map(LocalOwnership::mac);
        let held = held.filter(|held| observed.clone().all(|mac| mac != *held));
        observed.chain(held).collect()
    }

    /// Whether it owns the address: it was observed to reply for it, to anyone, or is this host and has it.
    pub fn is_owner(&self) -> bool {
        self.held.is_some() || self.responders.iter().any(RespondingMac::is_replying)
    }

    /// Whether it only sent requests with the address as the sender's.
    fn sends_only_requests(&self) -> bool {
        !self.is_owner()
            && self
                .responders
                .iter()
                .all(|responder| responder.announcements == 0)
    }

    /// When it was first observed.
    pub fn first(&self) -> Timestamp {
        let first = self.responders.iter().map(|responder| responder.first);
        first.min().unwrap_or_default()
    }

    /// When it was last observed.
    pub fn last(&self) -> Timestamp {
        let last = self.responders.iter().map(|responder| responder.last);
        last.max().unwrap_or_default()
    }

    /// The first and the last probe that it replied to; `None` for this host, which has the address all the time.
    pub fn probe_range(&self) -> Option<(u32, u32)> {
        if self.held.is_some() {
            return None;
        }
        let ranges = self
            .responders
            .iter()
            .filter_map(|responder| responder.probe_range);
        ranges.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
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

    /// Observed from this second to that one.
    fn observed(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            mac: mac(name),
            replies: 0,
            repeats: 0,
            probe_range: None,
            requests_answered: 0,
            replies_to_others: 0,
            sources: SmallVec::new(),
            announcements: 0,
            requests: 0,
            first: second(from),
            last: second(to),
            response_times: None,
        }
    }

    /// Replied to every probe from this one to that one.
    fn replying(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            replies: to - from + 1,
            probe_range: Some((from, to)),
            ..observed(name, from, to)
        }
    }

    fn announcing(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            announcements: to - from + 1,
            ..observed(name, from, to)
        }
    }

    fn requesting(name: &str, from: u32, to: u32) -> RespondingMac {
        RespondingMac {
            requests: 1,
            ..observed(name, from, to)
        }
    }

    fn evaluated(
        evaluator: &CheckEvaluator,
        responders: &[RespondingMac],
        held: Option<&str>,
        own: &[&str],
    ) -> (CheckStatus, usize, Option<Hint>) {
        let responses = AddressResponses {
            responders: SmallVec::from_vec(responders.to_vec()),
            more: 0,
        };
        let own = own.iter().map(|name| mac(name)).collect();
        let held = held.map(|name| LocalOwnership::Configured(mac(name)));
        let result = evaluator.evaluate(&responses, held, &own, &SharedReplies::default());
        (result.status, result.hosts.len(), result.hint)
    }

    fn once(responders: &[RespondingMac]) -> (CheckStatus, usize, Option<Hint>) {
        let evaluator = CheckEvaluator::new(DetectConfig::default(), CheckMode::Once);
        evaluated(&evaluator, responders, None, &[])
    }

    fn watched(responders: &[RespondingMac]) -> (CheckStatus, usize, Option<Hint>) {
        let evaluator = CheckEvaluator::new(DetectConfig::default(), CheckMode::Continuous);
        evaluated(&evaluator, responders, None, &[])
    }

    #[test]
    fn a_host_that_replies_owns_the_address() {
        use probe_model::CheckStatus::{Conflict, NoReply, OneOwner};
        assert_eq!(once(&[]), (NoReply, 0, None));
        assert_eq!(once(&[replying(A, 1, 3)]), (OneOwner, 1, None));
        let two = [replying(A, 1, 3), replying(B, 1, 3)];
        assert_eq!(once(&two), (Conflict, 2, None));
        let three = [replying(A, 1, 1), replying(B, 2, 2), replying(C, 3, 3)];
        assert_eq!(once(&three), (Conflict, 3, Some(Hint::IpvsStrictArp)));
        let repeating = RespondingMac {
            replies: 9,
            repeats: 8,
            ..replying(A, 1, 1)
        };
        assert_eq!(once(&[repeating]), (OneOwner, 1, None));
    }

    #[test]
    fn this_host_owns_its_configured_addresses() {
        use probe_model::CheckStatus::{Conflict, OneOwner};
        let evaluator = CheckEvaluator::new(DetectConfig::default(), CheckMode::Continuous);
        assert_eq!(
            evaluated(&evaluator, &[], Some(A), &[A]),
            (OneOwner, 1, None)
        );
        let other = [replying(B, 5, 5)];
        assert_eq!(
            evaluated(&evaluator, &other, Some(A), &[A]),
            (Conflict, 2, None)
        );
        let announcer = [announcing(B, 5, 5)];
        assert_eq!(
            evaluated(&evaluator, &announcer, Some(A), &[A]).0,
            OneOwner,
            "one announcement is no conflict"
        );
        let flux = Some(Hint::ArpFlux);
        assert_eq!(
            evaluated(&evaluator, &[replying(B, 5, 5)], Some(A), &[A, B]),
            (Conflict, 2, flux)
        );
    }

    #[test]
    fn the_macs_of_one_host_are_no_conflict() {
        use probe_model::CheckStatus::{Contested, OneOwner};
        let both = [replying(VRRP, 1, 3), replying(A, 1, 3)];
        assert_eq!(once(&both), (Contested, 1, Some(Hint::RouterAndHost)));
        assert_eq!(
            once(&[replying(VRRP, 1, 3), requesting(A, 2, 2)]),
            (OneOwner, 1, None)
        );
        let twice = RespondingMac {
            replies: 6,
            repeats: 3,
            ..replying(VRRP, 1, 3)
        };
        assert_eq!(once(&[twice]), (Contested, 1, Some(Hint::TwoMasters)));
        let glbp = [
            replying("00:07:b4:00:0a:01", 1, 3),
            replying("00:07:b4:00:0a:02", 1, 3),
        ];
        assert_eq!(once(&glbp), (OneOwner, 1, None));
        let bond = [replying(A, 1, 3), requesting(B, 1, 3)];
        assert_eq!(once(&bond), (OneOwner, 2, Some(Hint::BalanceAlb)));
        let config = DetectConfig {
            same_owner: vec![vec![mac(A), mac(B)]],
            ..DetectConfig::default()
        };
        let evaluator = CheckEvaluator::new(config, CheckMode::Once);
        let declared = [replying(A, 1, 3), replying(B, 1, 3)];
        assert_eq!(
            evaluated(&evaluator, &declared, None, &[]),
            (OneOwner, 1, None)
        );
        let groups = [replying(VRRP, 1, 3), replying("00:00:5e:00:01:08", 1, 3)];
        let two_groups = Some(Hint::TwoRouterGroups);
        assert_eq!(once(&groups), (CheckStatus::Conflict, 2, two_groups));
    }

    #[test]
    fn in_a_continuous_check_an_address_may_move_once_and_not_back() {
        use probe_model::CheckStatus::{Conflict, Moved, OneOwner};
        let moved = [replying(A, 1, 20), replying(B, 21, 60)];
        assert_eq!(watched(&moved), (Moved, 2, None));
        let there_and_back = [replying(A, 1, 60), replying(B, 20, 25)];
        assert_eq!(watched(&there_and_back).0, Conflict);
        assert_eq!(
            watched(&[replying(A, 1, 20), replying(B, 20, 60)]).0,
            Conflict
        );
        assert_eq!(watched(&[replying(A, 1, 60)]).0, OneOwner);
        assert_eq!(
            watched(&[replying(A, 1, 60), requesting(B, 3, 50)]).0,
            OneOwner
        );
    }

    #[test]
    fn a_host_that_only_announces_is_a_conflict_if_both_continue() {
        use probe_model::CheckStatus::{Conflict, Moved, OneOwner};
        assert_eq!(
            watched(&[replying(A, 1, 60), announcing(B, 3, 50)]).0,
            Conflict
        );
        // The burst of a handover, and a reply of the previous owner.
        assert_eq!(
            watched(&[replying(A, 1, 20), announcing(B, 20, 25)]).0,
            Moved
        );
        assert_eq!(once(&[replying(A, 1, 1), announcing(B, 1, 1)]).0, OneOwner);
        assert_eq!(once(&[announcing(A, 1, 1)]).0, OneOwner);
    }

    /// A speaker does not receive this host's own probes, but replies to other hosts.
    #[test]
    fn a_host_that_replies_to_others_owns_the_address_too() {
        use probe_model::CheckStatus::{Conflict, Moved, OneOwner};
        let speaker = |from, to| RespondingMac {
            replies_to_others: 1,
            ..observed(A, from, to)
        };
        assert_eq!(once(&[speaker(1, 1)]).0, OneOwner);
        assert_eq!(once(&[speaker(1, 1), replying(B, 1, 3)]).0, Conflict);
        assert_eq!(watched(&[speaker(1, 60), replying(B, 5, 50)]).0, Conflict);
        assert_eq!(watched(&[speaker(1, 5), replying(B, 10, 50)]).0, Moved);
        let evaluator = CheckEvaluator::new(DetectConfig::default(), CheckMode::Once);
        let responses = AddressResponses {
            responders: SmallVec::from_vec(vec![replying(B, 1, 3)]),
            more: 0,
        };
        let announced = Some(LocalOwnership::Announced(mac(A)));
        let result = evaluator.evaluate(
            &responses,
            announced,
            &HashSet::new(),
            &SharedReplies::default(),
        );
        assert_eq!(result.status, Conflict);
    }

    #[test]
    fn two_macs_that_reply_for_each_others_addresses_are_one_host_with_arp_flux() {
        let evaluator = CheckEvaluator::new(DetectConfig::default(), CheckMode::Once);
        let responses = AddressResponses {
            responders: SmallVec::from_vec(vec![replying(A, 1, 3), replying(B, 1, 3)]),
            more: 0,
        };
        let mut shared = SharedReplies::default();
        for address in [[192, 0, 2, 10], [192, 0, 2, 11]] {
            shared.record(mac(A), address.into());
            shared.record(mac(B), address.into());
        }
        let evaluate = |shared: &SharedReplies| {
            evaluator
                .evaluate(&responses, None, &HashSet::new(), shared)
                .hint
        };
        assert_eq!(evaluate(&shared), Some(Hint::ArpFlux));
        shared.record(mac(A), [192, 0, 2, 12].into());
        assert_eq!(evaluate(&shared), None);
    }
}
