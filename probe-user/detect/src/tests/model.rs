//! A reference model of the same rules, slow and simple: it keeps every claim for ever and evaluates each rule by
//! iterating over all of them. Only hosts, each with one MAC; `properties.rs` compares several MACs of one owner with one MAC.

use std::collections::{BTreeMap, BTreeSet};

use probe_common::wire::MacAddr;
use probe_model::{FindingKind, Timestamp};

use crate::{Claim, ClaimFlags, DetectConfig, RequestId};

/// The compared part of a finding: time, address, kind.
pub type ReportedFinding = (Timestamp, std::net::IpAddr, FindingKind);

#[derive(Default)]
pub struct Model {
    pub config: DetectConfig,
    /// The address that this host has, with the MAC.
    pub local: Option<(std::net::IpAddr, MacAddr)>,
    addresses: BTreeMap<std::net::IpAddr, Address>,
    probes: Vec<Probe>,
    /// The denials that were reported: when, to which host, of which address.
    denials: Vec<(Timestamp, MacAddr, std::net::IpAddr)>,
    pub reported: Vec<ReportedFinding>,
}

/// An ARP probe, and whether its host had claimed no address before.
#[derive(Clone, Copy)]
struct Probe {
    at: Timestamp,
    ip: std::net::IpAddr,
    prober: MacAddr,
    is_unknown: bool,
}

#[derive(Default)]
struct Address {
    claims: Vec<ModelClaim>,
    /// The first claim, every takeover since, and the owner that was left when a conflict ended.
    takeovers: Vec<Takeover>,
    /// When these became the only present owners.
    left: Vec<(Timestamp, BTreeSet<MacAddr>)>,
    /// When a single MAC was no present owner any more.
    absent: Vec<(Timestamp, MacAddr)>,
    /// When a conflict ended. Returns before that do not count.
    ended: Timestamp,
    settled: bool,
    /// Since when only the current owner claims the address.
    silent_since: Timestamp,
    /// The start-up announcements that were undone.
    undone: Vec<(Timestamp, MacAddr)>,
    contested: Vec<Timestamp>,
    conflict: Option<Conflict>,
    /// The MAC that this host has the address with.
    local: Option<MacAddr>,
    /// The MAC of this host, whether it has the address or not.
    host: Option<MacAddr>,
    /// Since when the address is silent.
    silent: Option<Timestamp>,
}

#[derive(Clone, Copy)]
struct ModelClaim {
    at: Timestamp,
    mac: MacAddr,
    form: ClaimFlags,
    request: Option<RequestId>,
}

#[derive(Clone, Copy)]
struct Takeover {
    at: Timestamp,
    mac: MacAddr,
    /// It took the address from an owner that had settled.
    opens: bool,
    /// It took part before.
    was_present: bool,
    /// Its place among the claims.
    claim: usize,
    returns: Option<Return>,
    /// The return that this takeover made count.
    counts: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Return {
    kind: Kind,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    FromSettled,
    Late,
    Unsettled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Counted,
    Dropped,
}

struct Conflict {
    evidence: Timestamp,
    quiet: Option<Timestamp>,
    owners: usize,
    /// How often it reopened after it had become quiet.
    reopened: u32,
}

impl Address {
    fn current_owner(&self) -> Takeover {
        *self.takeovers.last().unwrap()
    }

    /// When a MAC last ceased to be present.
    fn left(&self, mac: MacAddr) -> Timestamp {
        let others = self.left.iter().filter(|(_, stay)| !stay.contains(&mac));
        let alone = self.absent.iter().filter(|(_, absent)| *absent == mac);
        let times = others.map(|(at, _)| *at).chain(alone.map(|&(at, _)| at));
        times.max().unwrap_or_default()
    }

    fn present(&self) -> BTreeSet<MacAddr> {
        let present = self
            .claims
            .iter()
            .filter(|observed| observed.at >= self.left(observed.mac));
        present.map(|observed| observed.mac).collect()
    }

    /// The owners that take part, this host included if it has the address.
    fn parties(&self) -> BTreeSet<MacAddr> {
        self.present().into_iter().chain(self.local).collect()
    }

    fn is_local(&self, mac: MacAddr) -> bool {
        self.local == Some(mac)
    }

    /// The first claim of a MAC since it last ceased to be present.
    fn since(&self, mac: MacAddr) -> Timestamp {
        let left = self.left(mac);
        let claims = self.claims_of(mac).map(|observed| observed.at);
        claims.filter(|&at| at >= left).min().unwrap()
    }

    /// Whether an owner took the address back since it last settled.
    fn has_returned(&self) -> bool {
        let kind = self.pending().and_then(|at| self.takeovers[at].returns);
        let pending = kind.is_some_and(|it| it.kind != Kind::FromSettled);
        self.opening().is_some() && (self.contest_returns() > 0 || pending)
    }

    /// Whether a claim by `mac` shows that it and this host both have the address.
    fn is_local_evidence(
        &self,
        mac: MacAddr,
        was_present: bool,
        at: Timestamp,
        config: &DetectConfig,
    ) -> bool {
        let mut since = self.since(mac);
        if self.has_returned() && self.current_owner().mac == mac {
            since = since.max(self.current_owner().at);
        }
        let is_other = self.local.is_some_and(|local| local != mac);
        is_other && was_present && at.since(since) >= config.local_grace
    }

    fn silent_at(&self, config: &DetectConfig) -> Option<Timestamp> {
        let last = self.claims.iter().map(|observed| observed.at).max()?;
        let is_silent = self.local.is_some() || self.silent.is_some();
        Some(last + config.silent_after.filter(|_| !is_silent)?)
    }

    fn claims_of(&self, mac: MacAddr) -> impl Iterator<Item = &ModelClaim> {
        self.claims
            .iter()
            .filter(move |observed| observed.mac == mac)
    }

    fn last_claim(&self, mac: MacAddr) -> Timestamp {
        self.claims_of(mac)
            .map(|observed| observed.at)
            .max()
            .unwrap()
    }

    /// Where the contest begins among the takeovers.
    fn opening(&self) -> Option<usize> {
        let opening = self.takeovers.iter().rposition(|takeover| takeover.opens);
        opening.filter(|_| !self.settled)
    }

    /// The counted returns within the contest.
    fn contest_returns(&self) -> usize {
        let takeovers = self.opening().map_or(&[][..], |at| &self.takeovers[at..]);
        let counted = |takeover: &&Takeover| {
            takeover
                .returns
                .is_some_and(|it| it.state == State::Counted && it.kind != Kind::FromSettled)
        };
        takeovers.iter().filter(counted).count()
    }

    /// The times of the counted returns.
    fn returns(&self) -> Vec<Timestamp> {
        let recent = self
            .takeovers
            .iter()
            .filter(|takeover| takeover.at >= self.ended);
        let counted = recent.filter(|takeover| {
            takeover
                .returns
                .is_some_and(|it| it.state == State::Counted)
        });
        counted.map(|takeover| takeover.at).collect()
    }

    fn pending(&self) -> Option<usize> {
        self.takeovers.iter().rposition(|takeover| {
            let state = takeover.returns.map(|it| it.state);
            state == Some(State::Pending)
        })
    }

    fn set(&mut self, takeover: usize, state: State) {
        self.takeovers[takeover].returns.as_mut().unwrap().state = state;
    }

    fn settles_at(&self, config: &DetectConfig) -> Option<Timestamp> {
        self.opening()?;
        Some(self.silent_since + config.settle)
    }

    fn expire_conflict(&self, config: &DetectConfig) -> Option<Timestamp> {
        let conflict = self.conflict.as_ref()?;
        Some(match conflict.quiet {
            None => {
                let delay = config.quiet_after * 2_u32.pow(conflict.reopened.min(3));
                conflict.evidence + delay.min(config.expire_after)
            }
            Some(quiet) => {
                let last_claim = |mac| {
                    if self.is_local(mac) {
                        Timestamp(u64::MAX)
                    } else {
                        self.last_claim(mac)
                    }
                };
                let mut last: Vec<_> = self.parties().into_iter().map(last_claim).collect();
                last.sort_unstable();
                quiet.max(last[last.len() - 2] + config.expire_after)
            }
        })
    }

    /// Two hosts of which one has only ever sent requests, and the other only unicast replies, one of them without a request.
    fn balanced(&self) -> bool {
        let only = |mac, reply| {
            self.claims_of(mac)
                .all(|observed| observed.form.reply == reply)
        };
        let announces = |mac| {
            self.claims_of(mac)
                .any(|observed| observed.form.announcement && !observed.form.unicast)
        };
        let unsolicited = |mac| {
            self.claims_of(mac)
                .any(|observed| !observed.form.announcement && observed.request.is_none())
        };
        let present: Vec<_> = self.present().into_iter().collect();
        let [one, other] = present[..] else {
            return false;
        };
        let bond = |requests, replies| {
            only(requests, false) && only(replies, true) && unsolicited(replies)
        };
        let silent = !announces(one) && !announces(other);
        let apart = (self.host == Some(one)) != (self.host == Some(other));
        silent && !apart && (bond(one, other) || bond(other, one))
    }

    /// Whether the last takeover was a start-up announcement, and `mac` is the owner before it.
    fn is_start_up(&self, mac: MacAddr, at: Timestamp, config: &DetectConfig) -> bool {
        let [.., before, last] = self.takeovers[..] else {
            return false;
        };
        let observed: Vec<_> = self.claims[last.claim..]
            .iter()
            .filter(|observed| observed.mac == last.mac)
            .collect();
        let round = observed.iter().all(|observed| {
            let announced = observed.form.announcement && !observed.form.unicast;
            announced && observed.at.since(last.at) <= config.start_up_window
        });
        let has = |reply| observed.iter().any(|observed| observed.form.reply == reply);
        let lately = |&&(undone, by): &&(Timestamp, MacAddr)| {
            by == last.mac && at.since(undone) < config.quiet_after
        };
        let repeated = self.undone.iter().find(lately).is_some();
        let disputed = !self.settled && self.conflict.is_none();
        disputed && before.mac == mac && round && has(true) && has(false) && !repeated
    }

    fn undo(&mut self, at: Timestamp) {
        let last = self.takeovers.pop().unwrap();
        let before = self.current_owner();
        if let Some(counted) = last.counts {
            self.set(counted, State::Pending);
        }
        self.undone.push((at, last.mac));
        self.silent_since = at;
        if !last.was_present {
            self.absent.push((at, last.mac));
        }
        if last.opens {
            self.settled = true;
            self.left.push((at, [before.mac].into()));
        }
    }
}

impl Model {
    /// Takes one claim, in the order of time.
    pub fn observe(&mut self, at: Timestamp, claim: &Claim) {
        self.wait(at);
        self.take_over(at, claim);
        self.deny(at, claim);
    }

    /// An ARP probe for an address.
    pub fn probe(&mut self, at: Timestamp, ip: std::net::IpAddr, prober: MacAddr) {
        self.wait(at);
        let mut addresses = self.addresses.values();
        let is_known = addresses.any(|address| address.claims_of(prober).next().is_some());
        self.probes.push(Probe {
            at,
            ip,
            prober,
            is_unknown: !is_known,
        });
    }

    /// A reply to an ARP probe denies its host the address.
    fn deny(&mut self, at: Timestamp, claim: &Claim) {
        let Some(reply) = claim.reply.filter(|reply| reply.to_probe) else {
            return;
        };
        let unknown = |probe: &&Probe| probe.ip == claim.ip && probe.is_unknown;
        let Some(probe) = self.probes.iter().rev().find(unknown) else {
            return;
        };
        let to_it = probe.prober == reply.requester && reply.requester != claim.mac;
        let in_time = at.since(probe.at) <= self.config.probe_denied_window;
        let lately = self.denials.iter().any(|&(denied, prober, ip)| {
            (prober, ip) == (reply.requester, claim.ip)
                && at.since(denied) < self.config.probe_denied_interval
        });
        if to_it && in_time && !lately {
            self.denials.push((at, reply.requester, claim.ip));
            self.report(at, claim.ip, FindingKind::ProbeDenied);
        }
    }

    /// Disputes about an ignored address are not reported.
    fn report(&mut self, at: Timestamp, ip: std::net::IpAddr, kind: FindingKind) {
        let is_ignored = self.config.ignored(ip, at).is_some();
        if !(is_ignored && kind.is_dispute()) {
            self.reported.push((at, ip, kind));
        }
    }

    fn take_over(&mut self, at: Timestamp, claim: &Claim) {
        let config = self.config.clone();
        let ip = claim.ip;
        let address = self.addresses.entry(ip).or_default();
        let local = self.local.filter(|&(local, _)| local == ip);
        address.local = local.map(|(_, mac)| mac);
        address.host = self.local.map(|(_, mac)| mac);
        address.silent = None;
        let mac = claim.mac;
        let known = address.claims_of(mac).next().is_some();
        let was_present = address.present().contains(&mac);
        let request = claim.reply.and_then(|reply| reply.request);
        let request = request.filter(|request| at.since(request.0) <= config.reply_window);
        address.claims.push(ModelClaim {
            at,
            mac,
            form: claim.form,
            request,
        });
        let takeover = Takeover {
            at,
            mac,
            opens: false,
            was_present,
            claim: address.claims.len() - 1,
            returns: None,
            counts: None,
        };
        if address.takeovers.is_empty() {
            address.takeovers.push(takeover);
            address.settled = true;
            self.report(at, ip, FindingKind::NewBinding);
            return;
        }
        let rival = address.claims.iter().any(|observed| {
            let requester = claim.reply.map(|reply| reply.requester);
            request.is_some()
                && observed.request == request
                && observed.mac != mac
                && requester != Some(mac)
                && requester != Some(observed.mac)
        });
        if rival {
            self.evidence(at, ip);
        }
        let address = self.addresses.get_mut(&ip).unwrap();
        let overlap_reply = claim.form.reply && claim.form.unicast && claim.form.announcement;
        let tenure = at.since(address.current_owner().at);
        let overlap = tenure < config.takeover_grace;
        if mac == address.current_owner().mac {
            if address.is_local_evidence(mac, was_present, at, &config) {
                self.evidence(at, ip);
            }
            return;
        }
        if overlap && (known || overlap_reply) {
            return;
        }
        self.change_owner(at, claim, takeover);
        let address = &self.addresses[&ip];
        if address.is_local_evidence(mac, was_present, at, &config) {
            self.evidence(at, ip);
        }
    }

    /// Another owner claims the address.
    fn change_owner(&mut self, at: Timestamp, claim: &Claim, takeover: Takeover) {
        let config = self.config.clone();
        let (ip, mac, was_present) = (claim.ip, claim.mac, takeover.was_present);
        let address = self.addresses.get_mut(&ip).unwrap();
        let known = address.claims_of(mac).count() > 1;
        let tenure = at.since(address.current_owner().at);
        if !claim.form.unicast && address.is_start_up(mac, at, &config) {
            address.undo(at);
            return;
        }
        let opens = address.settled;
        let kind = if opens {
            known.then_some(Kind::FromSettled)
        } else if !was_present {
            None
        } else if tenure < config.takeover_grace * 3 / 2 {
            Some(Kind::Late)
        } else {
            Some(Kind::Unsettled)
        };
        let counts = kind.and_then(|_| address.pending());
        let counted = counts.map(|counted| {
            address.set(counted, State::Counted);
            address.takeovers[counted].returns.unwrap().kind
        });
        let returns = kind.map(|kind| Return {
            kind,
            state: State::Pending,
        });
        address.settled = false;
        address.silent_since = at;
        address.takeovers.push(Takeover {
            opens,
            returns,
            counts,
            ..takeover
        });
        let times = address.returns();
        let often = |enough: usize, window| {
            times.len() >= enough && at.since(times[times.len() - enough]) < window
        };
        let in_succession = [counted, kind] == [Some(Kind::Unsettled); 2];
        let enough = config.alternation_returns - usize::from(in_succession);
        let fast = address.contest_returns() >= enough && often(enough, config.alternation_window);
        let slow = often(
            config.slow_alternation_returns,
            config.slow_alternation_window,
        );
        let alternates = counted.is_some() && (fast || slow);
        let announced = claim.form.announcement && !claim.form.unicast;
        let sign = counted == Some(Kind::Unsettled) || kind == Some(Kind::Unsettled) && !announced;
        if alternates && !address.balanced() {
            self.evidence(at, ip);
        } else if alternates || sign {
            self.contested(at, ip);
        }
    }

    fn evidence(&mut self, at: Timestamp, ip: std::net::IpAddr) {
        let quiet_after = self.config.quiet_after;
        let address = self.addresses.get_mut(&ip).unwrap();
        if address
            .conflict
            .as_ref()
            .is_some_and(|conflict| conflict.quiet.is_some())
        {
            let mut stay = address.present();
            stay.retain(|&mac| {
                address.host == Some(mac) || at.since(address.last_claim(mac)) < quiet_after
            });
            let parties: BTreeSet<_> = stay.iter().copied().chain(address.local).collect();
            if parties.len() > 1 {
                address.left.push((at, stay));
            }
        }
        let owners = address.parties().len();
        assert!(owners >= 2, "evidence needs two");
        let before = address.conflict.take();
        let reopened = before.as_ref().map_or(0, |before| {
            before.reopened + u32::from(before.quiet.is_some())
        });
        address.conflict = Some(Conflict {
            evidence: at,
            quiet: None,
            owners,
            reopened,
        });
        let apply = before.is_none_or(|before| before.quiet.is_some() || owners > before.owners);
        if apply {
            self.report(at, ip, FindingKind::Conflict);
        }
    }

    fn contested(&mut self, at: Timestamp, ip: std::net::IpAddr) {
        let quiet = self.config.quiet_after;
        let address = self.addresses.get_mut(&ip).unwrap();
        if address.conflict.is_some() {
            return;
        }
        let last = address.contested.last().copied();
        address.contested.push(at);
        if last.is_none_or(|last| at.since(last) >= quiet) {
            self.report(at, ip, FindingKind::Contested);
        }
    }

    /// No claim is observed until `now`.
    pub fn wait(&mut self, now: Timestamp) {
        let config = self.config.clone();
        loop {
            let due = |address: &Address| {
                let due = [
                    address.settles_at(&config),
                    address.expire_conflict(&config),
                    address.silent_at(&config),
                ];
                due.into_iter().flatten().min()
            };
            let next = self
                .addresses
                .iter()
                .filter_map(|(&ip, address)| Some((due(address)?, ip)));
            let Some((at, ip)) = next.min().filter(|&(at, _)| at <= now) else {
                return;
            };
            let address = self.addresses.get_mut(&ip).unwrap();
            if address.settles_at(&config) == Some(at) {
                match address.settle(at) {
                    Some(FindingKind::Contested) => self.contested(at, ip),
                    Some(kind) => self.report(at, ip, kind),
                    None => {}
                }
                continue;
            }
            if address.expire_conflict(&config) != Some(at) {
                address.silent = Some(at);
                self.report(at, ip, FindingKind::Silent);
                continue;
            }
            let current_owner = address.current_owner();
            let conflict = address.conflict.as_mut().unwrap();
            if conflict.quiet.is_none() {
                conflict.quiet = Some(at);
                self.report(at, ip, FindingKind::ConflictQuiet);
            } else {
                address.conflict = None;
                address.settled = true;
                address.contested.clear();
                address.undone.clear();
                address.ended = at;
                address.left.push((at, [current_owner.mac].into()));
                if let Some(pending) = address.pending() {
                    address.set(pending, State::Dropped);
                }
                address.takeovers.push(Takeover {
                    at,
                    opens: false,
                    returns: None,
                    counts: None,
                    ..current_owner
                });
                self.report(at, ip, FindingKind::ConflictExpired);
            }
        }
    }
}

impl Address {
    /// Only the current owner has claimed the address for long enough.
    fn settle(&mut self, at: Timestamp) -> Option<FindingKind> {
        let opening = self.opening().unwrap();
        let in_contest = self.contest_returns();
        let (before, current_owner) = (self.takeovers[opening - 1].mac, self.current_owner().mac);
        self.settled = true;
        if self.conflict.is_none() && self.is_local(before) && !self.is_local(current_owner) {
            // This host still has the address.
            if let Some(pending) = self.pending() {
                self.takeovers[pending].returns.as_mut().unwrap().kind = Kind::FromSettled;
            }
            self.takeovers.push(Takeover {
                mac: before,
                opens: false,
                returns: None,
                counts: None,
                ..self.current_owner()
            });
            return Some(FindingKind::Contested);
        }
        if self.conflict.is_none() {
            self.left.push((at, [current_owner].into()));
        }
        let pending = self.pending();
        if self.conflict.is_none() && before == current_owner {
            if let Some(pending) = pending {
                self.set(pending, State::Dropped);
            }
            if in_contest == 0 && self.takeovers[opening].returns.is_some() {
                self.set(opening, State::Dropped);
            }
        } else if let Some(pending) = pending {
            self.takeovers[pending].returns.as_mut().unwrap().kind = Kind::FromSettled;
        }
        (self.conflict.is_none() && before != current_owner).then_some(FindingKind::Moved)
    }
}
