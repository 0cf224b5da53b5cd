//! The same rules once more, slow and obvious: every claim is kept for ever, and every question is answered
//! by looking through all of them. Stations only, nobody asks, nothing is known of the host.

use std::collections::{BTreeMap, BTreeSet};

use probe_common::wire::MacAddr;
use probe_model::{FindingKind, Timestamp};

use crate::{Claim, DetectConfig, RequestId};

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
    /// When a conflict ended, and with it what had led to it.
    amnesty: Timestamp,
    settled: bool,
    contested: Vec<Timestamp>,
    conflict: Option<Conflict>,
}

#[derive(Clone, Copy)]
struct Said {
    at: Timestamp,
    mac: MacAddr,
    reply: bool,
    request: Option<RequestId>,
}

#[derive(Clone, Copy)]
struct Takeover {
    at: Timestamp,
    mac: MacAddr,
    /// It had claimed the address before.
    is_return: bool,
    /// It took the address from an owner that had settled.
    opens: bool,
}

struct Conflict {
    evidence: Timestamp,
    quiet: Option<Timestamp>,
    owners: usize,
}

impl Address {
    fn holder(&self) -> Takeover {
        *self.holders.last().unwrap()
    }

    /// When a MAC last left the stage.
    fn left(&self, mac: MacAddr) -> Timestamp {
        let times = self.left.iter().filter(|(_, stay)| !stay.contains(&mac));
        times.map(|(at, _)| *at).max().unwrap_or_default()
    }

    fn present(&self) -> BTreeSet<MacAddr> {
        let on_stage = self
            .claims
            .iter()
            .filter(|said| said.at >= self.left(said.mac));
        on_stage.map(|said| said.mac).collect()
    }

    fn last_claim(&self, mac: MacAddr) -> Timestamp {
        let claims = self.claims.iter().filter(|said| said.mac == mac);
        claims.map(|said| said.at).max().unwrap()
    }

    /// The takeovers since the address was last settled.
    fn contest(&self) -> Vec<Takeover> {
        if self.settled {
            return Vec::new();
        }
        let opening = self.holders.iter().rposition(|takeover| takeover.opens);
        opening.map_or(Vec::new(), |opening| self.holders[opening..].to_vec())
    }

    fn returns(&self) -> Vec<Takeover> {
        let recent = self
            .holders
            .iter()
            .filter(|takeover| takeover.at >= self.amnesty);
        recent
            .filter(|takeover| takeover.is_return)
            .copied()
            .collect()
    }

    fn settles_at(&self, config: &DetectConfig) -> Option<Timestamp> {
        let last = *self.contest().last()?;
        Some(last.at + config.settle)
    }

    fn expire_conflict(&self, config: &DetectConfig) -> Option<Timestamp> {
        let conflict = self.conflict.as_ref()?;
        Some(match conflict.quiet {
            None => conflict.evidence + config.quiet_after,
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

    fn balanced(&self) -> bool {
        let only = |mac, reply| {
            let mut claims = self
                .claims
                .iter()
                .filter(|said| said.mac == mac && said.at >= self.left(mac));
            claims.all(|said| said.reply == reply)
        };
        let present: Vec<_> = self.present().into_iter().collect();
        match present[..] {
            [one, other] => {
                only(one, true) && only(other, false) || only(one, false) && only(other, true)
            }
            _ => false,
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
        let known = address.claims.iter().any(|said| said.mac == mac);
        let request = claim.reply.and_then(|reply| reply.request);
        let request = request.filter(|request| at.since(request.0) <= config.reply_window);
        address.claims.push(Said {
            at,
            mac,
            reply: claim.form.reply,
            request,
        });
        if address.holders.is_empty() {
            address.holders.push(Takeover {
                at,
                mac,
                is_return: false,
                opens: false,
            });
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
        let courtesy = claim.form.reply && claim.form.unicast && claim.form.announcement;
        let overlap = at.since(address.holder().at) < config.takeover_grace;
        if mac == address.holder().mac || overlap && (known || courtesy) {
            return;
        }
        let opens = address.settled;
        address.settled = false;
        address.holders.push(Takeover {
            at,
            mac,
            is_return: known,
            opens,
        });
        let often = |returns: &[Takeover], enough: usize, window| {
            returns.len() >= enough && at.since(returns[returns.len() - enough].at) < window
        };
        let contest: Vec<_> = address
            .contest()
            .into_iter()
            .skip(1)
            .filter(|takeover| takeover.is_return)
            .collect();
        let fast = often(
            &contest,
            config.alternation_returns,
            config.alternation_window,
        );
        let slow = often(
            &address.returns(),
            config.slow_alternation_returns,
            config.slow_alternation_window,
        );
        if (fast || slow) && !address.balanced() {
            self.evidence(at, ip);
        } else if fast || slow || known && !opens {
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
        let before = address.conflict.replace(Conflict {
            evidence: at,
            quiet: None,
            owners,
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
                let contest = address.contest();
                let before = address.holders[address.holders.len() - contest.len() - 1].mac;
                let holder = address.holder().mac;
                address.settled = true;
                if address.conflict.is_none() {
                    address.left.push((at, [holder].into()));
                    if before != holder {
                        self.told.push((at, ip, FindingKind::Moved));
                    }
                }
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
                address.amnesty = at;
                address.left.push((at, [holder.mac].into()));
                address.holders.push(Takeover {
                    at,
                    is_return: false,
                    opens: false,
                    ..holder
                });
                self.told.push((at, ip, FindingKind::ConflictExpired));
            }
        }
    }
}
