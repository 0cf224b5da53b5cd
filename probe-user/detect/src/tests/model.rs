//! The same rules once more, slow and obvious: every claim is kept for ever, and every question is answered by looking
//! through all of them. Hosts only, no probes, nothing is known of the own host.

use std::collections::{BTreeMap, BTreeSet};

use probe_common::wire::MacAddr;
use probe_model::{FindingKind, Timestamp};

use crate::{Claim, ClaimFlags, DetectConfig, RequestId};

/// What is compared: when, which address, what.
pub type Told = (Timestamp, std::net::IpAddr, FindingKind);

#[derive(Default)]
pub struct Model {
    config: DetectConfig,
    addresses: BTreeMap<std::net::IpAddr, Address>,
    pub told: Vec<Told>,
}

#[derive(Default)]
struct Address {
    claims: Vec<Said>,
    /// The first claim, every takeover since, and the owner that was left when a conflict ended.
    holders: Vec<Takeover>,
    /// When all but these left the stage.
    left: Vec<(Timestamp, BTreeSet<MacAddr>)>,
    /// When a single MAC left the stage.
    absent: Vec<(Timestamp, MacAddr)>,
    /// When a conflict ended, and with it what had led to it.
    amnesty: Timestamp,
    settled: bool,
    /// Since when only the holder claims the address.
    silent_since: Timestamp,
    /// The start-up announcements that were undone.
    undone: Vec<(Timestamp, MacAddr)>,
    contested: Vec<Timestamp>,
    conflict: Option<Conflict>,
}

#[derive(Clone, Copy)]
struct Said {
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
    fn holder(&self) -> Takeover {
        *self.holders.last().unwrap()
    }

    /// When a MAC last left the stage.
    fn left(&self, mac: MacAddr) -> Timestamp {
        let others = self.left.iter().filter(|(_, stay)| !stay.contains(&mac));
        let alone = self.absent.iter().filter(|(_, absent)| *absent == mac);
        let times = others.map(|(at, _)| *at).chain(alone.map(|&(at, _)| at));
        times.max().unwrap_or_default()
    }

    fn present(&self) -> BTreeSet<MacAddr> {
        let on_stage = self
            .claims
            .iter()
            .filter(|said| said.at >= self.left(said.mac));
        on_stage.map(|said| said.mac).collect()
    }

    fn claims_of(&self, mac: MacAddr) -> impl Iterator<Item = &Said> {
        self.claims.iter().filter(move |said| said.mac == mac)
    }

    fn last_claim(&self, mac: MacAddr) -> Timestamp {
        self.claims_of(mac).map(|said| said.at).max().unwrap()
    }

    /// Where the contest begins among the takeovers.
    fn opening(&self) -> Option<usize> {
        let opening = self.holders.iter().rposition(|takeover| takeover.opens);
        opening.filter(|_| !self.settled)
    }

    /// The counted returns within the contest.
    fn contest_returns(&self) -> usize {
        let takeovers = self.opening().map_or(&[][..], |at| &self.holders[at..]);
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
            .holders
            .iter()
            .filter(|takeover| takeover.at >= self.amnesty);
        let counted = recent.filter(|takeover| {
            takeover
                .returns
                .is_some_and(|it| it.state == State::Counted)
        });
        counted.map(|takeover| takeover.at).collect()
    }

    fn pending(&self) -> Option<usize> {
        self.holders.iter().rposition(|takeover| {
            let state = takeover.returns.map(|it| it.state);
            state == Some(State::Pending)
        })
    }

    fn set(&mut self, takeover: usize, state: State) {
        self.holders[takeover].returns.as_mut().unwrap().state = state;
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
                let mut last: Vec<_> = self
                    .present()
                    .into_iter()
                    .map(|mac| self.last_claim(mac))
                    .collect();
                last.sort_unstable();
                quiet.max(last[last.len() - 2] + config.expire_after)
            }
        })
    }

    /// Two hosts of which one has only ever asked, and the other only ever replied by unicast, once of itself.
    fn balanced(&self) -> bool {
        let only = |mac, reply| self.claims_of(mac).all(|said| said.form.reply == reply);
        let announces = |mac| {
            self.claims_of(mac)
                .any(|said| said.form.announcement && !said.form.unicast)
        };
        let unasked = |mac| {
            self.claims_of(mac)
                .any(|said| !said.form.announcement && said.request.is_none())
        };
        let present: Vec<_> = self.present().into_iter().collect();
        let [one, other] = present[..] else {
            return false;
        };
        let bond = |asks, replies| only(asks, false) && only(replies, true) && unasked(replies);
        let silent = !announces(one) && !announces(other);
        silent && (bond(one, other) || bond(other, one))
    }

    /// Whether the last takeover was a start-up announcement, and `mac` is the owner before it.
    fn is_start_up(&self, mac: MacAddr, at: Timestamp, config: &DetectConfig) -> bool {
        let [.., before, last] = self.holders[..] else {
            return false;
        };
        let said: Vec<_> = self.claims[last.claim..]
            .iter()
            .filter(|said| said.mac == last.mac)
            .collect();
        let round = said.iter().all(|said| {
            let announced = said.form.announcement && !said.form.unicast;
            announced && said.at.since(last.at) <= config.start_up_window
        });
        let has = |reply| said.iter().any(|said| said.form.reply == reply);
        let lately = |&&(undone, by): &&(Timestamp, MacAddr)| {
            by == last.mac && at.since(undone) < config.quiet_after
        };
        let repeated = self.undone.iter().find(lately).is_some();
        let disputed = !self.settled && self.conflict.is_none();
        disputed && before.mac == mac && round && has(true) && has(false) && !repeated
    }

    fn undo(&mut self, at: Timestamp) {
        let last = self.holders.pop().unwrap();
        let before = self.holder();
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
        let config = self.config.clone();
        let ip = claim.ip;
        let address = self.addresses.entry(ip).or_default();
        let mac = claim.mac;
        let known = address.claims_of(mac).next().is_some();
        let was_present = address.present().contains(&mac);
        let request = claim.reply.and_then(|reply| reply.request);
        let request = request.filter(|request| at.since(request.0) <= config.reply_window);
        address.claims.push(Said {
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
        if address.holders.is_empty() {
            address.holders.push(takeover);
            address.settled = true;
            self.told.push((at, ip, FindingKind::NewBinding));
            return;
        }
        let rival = address.claims.iter().any(|said| {
            let asker = claim.reply.map(|reply| reply.asker);
            request.is_some()
                && said.request == request
                && said.mac != mac
                && asker != Some(mac)
                && asker != Some(said.mac)
        });
        if rival {
            self.evidence(at, ip);
        }
        let address = self.addresses.get_mut(&ip).unwrap();
        let overlap_reply = claim.form.reply && claim.form.unicast && claim.form.announcement;
        let tenure = at.since(address.holder().at);
        let overlap = tenure < config.takeover_grace;
        if mac == address.holder().mac || overlap && (known || overlap_reply) {
            return;
        }
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
            address.holders[counted].returns.unwrap().kind
        });
        let returns = kind.map(|kind| Return {
            kind,
            state: State::Pending,
        });
        address.settled = false;
        address.silent_since = at;
        address.holders.push(Takeover {
            opens,
            returns,
            counts,
            ..takeover
        });
        let times = address.returns();
        let often = |enough: usize, window| {
            times.len() >= enough && at.since(times[times.len() - enough]) < window
        };
        let in_turn = [counted, kind] == [Some(Kind::Unsettled); 2];
        let enough = config.alternation_returns - usize::from(in_turn);
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
            stay.retain(|&mac| at.since(address.last_claim(mac)) < quiet_after);
            if stay.len() > 1 {
                address.left.push((at, stay));
            }
        }
        let owners = address.present().len();
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
        let news = before.is_none_or(|before| before.quiet.is_some() || owners > before.owners);
        if news {
            self.told.push((at, ip, FindingKind::Conflict));
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
            self.told.push((at, ip, FindingKind::Contested));
        }
    }

    /// Nothing happens until `now`.
    pub fn wait(&mut self, now: Timestamp) {
        let config = self.config.clone();
        loop {
            let due = |address: &Address| {
                let due = [
                    address.settles_at(&config),
                    address.expire_conflict(&config),
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
                let told = address.settle(at);
                self.told.extend(told.map(|kind| (at, ip, kind)));
                continue;
            }
            let holder = address.holder();
            let conflict = address.conflict.as_mut().unwrap();
            if conflict.quiet.is_none() {
                conflict.quiet = Some(at);
                self.told.push((at, ip, FindingKind::ConflictQuiet));
            } else {
                address.conflict = None;
                address.settled = true;
                address.contested.clear();
                address.undone.clear();
                address.amnesty = at;
                address.left.push((at, [holder.mac].into()));
                if let Some(pending) = address.pending() {
                    address.set(pending, State::Dropped);
                }
                address.holders.push(Takeover {
                    at,
                    opens: false,
                    returns: None,
                    counts: None,
                    ..holder
                });
                self.told.push((at, ip, FindingKind::ConflictExpired));
            }
        }
    }
}

impl Address {
    /// Nobody but the holder has claimed the address for long enough.
    fn settle(&mut self, at: Timestamp) -> Option<FindingKind> {
        let opening = self.opening().unwrap();
        let in_contest = self.contest_returns();
        let (before, holder) = (self.holders[opening - 1].mac, self.holder().mac);
        self.settled = true;
        if self.conflict.is_none() {
            self.left.push((at, [holder].into()));
        }
        let pending = self.pending();
        if self.conflict.is_none() && before == holder {
            if let Some(pending) = pending {
                self.set(pending, State::Dropped);
            }
            if in_contest == 0 && self.holders[opening].returns.is_some() {
                self.set(opening, State::Dropped);
            }
        } else if let Some(pending) = pending {
            self.holders[pending].returns.as_mut().unwrap().kind = Kind::FromSettled;
        }
        (self.conflict.is_none() && before != holder).then_some(FindingKind::Moved)
    }
}
