//! What is remembered of an address while its ownership is, or was lately, in doubt.

use std::collections::VecDeque;

use probe_common::wire::MacAddr;
use probe_model::Timestamp;

use super::conflict::OpenConflict;
use crate::{DetectConfig, owner::OwnerIdentity};

/// Everything that a settled address does without.
#[derive(Debug, Default)]
pub(super) struct Dispute {
    /// A takeover that has not settled.
    pub contest: Option<Contest>,
    /// The open conflict.
    pub conflict: Option<OpenConflict>,
    /// When owners took the address back, oldest first; as many as alternation needs.
    pub returns: VecDeque<Timestamp>,
    /// The last sign of a contested address, within an episode that has been reported.
    pub contested: Option<Timestamp>,
    /// The physical MAC that was last seen beside a virtual-router MAC.
    pub concurrent: Option<ConcurrentClaimant>,
    /// An announcement that neighbour caches may still hold, by a host that does not reply for the address.
    pub stale: Option<StaleAnnouncement>,
}

/// An announcement by a host that does not reply for the address, while its owner does.
#[derive(Clone, Copy, Debug)]
pub(super) struct StaleAnnouncement {
    /// The host that announced the address.
    pub by: OwnerIdentity,
    /// When it last did.
    pub last: Timestamp,
}

/// A takeover that has not settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contest {
    /// Who had the address when it was last settled.
    pub settled_owner: MacAddr,
    /// Who had it just before the last takeover.
    pub previous: MacAddr,
    /// When the first takeover was.
    pub began: Timestamp,
    /// Since when everybody but the holder keeps silent: the last takeover, or a later answer by another
    /// owner to our own asking.
    pub silent_since: Timestamp,
    /// Returns since it began.
    pub returns: u64,
    /// Answers to our asking about the last takeover, by round.
    pub rounds: [Option<TakeoverConfirmation>; 2],
}

/// Who answered in one round about a takeover.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakeoverConfirmation {
    /// The owner before.
    pub previous: bool,
    /// The owner that took over.
    pub holder: bool,
}

/// A physical MAC beside a virtual-router MAC.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConcurrentClaimant {
    /// The one seen last.
    pub mac: MacAddr,
    /// Since when it is that one.
    pub since: Timestamp,
}

impl Contest {
    /// The first takeover, from a settled owner.
    pub const fn new(settled_owner: MacAddr, at: Timestamp) -> Self {
        Self {
            settled_owner,
            previous: settled_owner,
            began: at,
            silent_since: at,
            returns: 0,
            rounds: [None; 2],
        }
    }

    /// A further takeover, from an owner that had not settled.
    pub const fn renew(&mut self, previous: MacAddr, at: Timestamp, is_return: bool) {
        self.previous = previous;
        self.silent_since = at;
        self.returns += is_return as u64;
        self.rounds = [None; 2];
    }

    /// Whether in the last round of probes the previous owner replied and the one that took over did not.
    pub fn is_kept_by_previous(&self) -> bool {
        let last = self.rounds.iter().rev().flatten().next();
        last.is_some_and(|round| round.previous && !round.holder)
    }
}

impl Dispute {
    /// Remembers a return.
    pub fn record_return(&mut self, at: Timestamp, config: &DetectConfig) {
        self.returns.push_back(at);
        let enough = config
            .alternation_returns
            .max(config.slow_alternation_returns);
        while self.returns.len() > enough {
            self.returns.pop_front();
        }
    }

    /// Whether owners alternate so fast, or so long, that it is a conflict.
    ///
    /// The fast criterion counts returns since the address was last settled: the takeover that opens a
    /// contest is none, even by a station that had the address last week.
    pub fn alternates(&self, at: Timestamp, config: &DetectConfig) -> bool {
        let within = |returns, window| {
            self.returns
                .iter()
                .rev()
                .nth(returns - 1)
                .is_some_and(|&first| at.since(first) < window)
        };
        let in_contest = self.contest.map_or(0, |contest| contest.returns);
        let fast = in_contest >= config.alternation_returns as u64
            && within(config.alternation_returns, config.alternation_window);
        fast || within(
            config.slow_alternation_returns,
            config.slow_alternation_window,
        )
    }

    /// The address is settled, and what led there does not count any more.
    pub fn settle(&mut self) {
        *self = Self {
            concurrent: self.concurrent,
            ..Self::default()
        };
    }

    /// When there is nothing left in it that matters; `None` while there is.
    pub fn returns_expire_at(&self, config: &DetectConfig) -> Option<Timestamp> {
        let is_in_use = self.contest.is_some()
            || self.conflict.is_some()
            || self.concurrent.is_some()
            || self.stale.is_some();
        if is_in_use {
            return None;
        }
        let returns = self.returns.back().copied().unwrap_or_default();
        let contested = self.contested.unwrap_or_default();
        let slow = returns + config.slow_alternation_window;
        Some(slow.max(contested + config.quiet_after))
    }

    /// Nothing lies in the future: called when the clock was set back to `now`.
    pub fn forget_future(&mut self, now: Timestamp) {
        let clamp = |at: &mut Timestamp| *at = now.min(*at);
        self.returns.iter_mut().for_each(clamp);
        if let Some(contest) = &mut self.contest {
            clamp(&mut contest.began);
            clamp(&mut contest.silent_since);
        }
        if let Some(concurrent) = &mut self.concurrent {
            clamp(&mut concurrent.since);
        }
        if let Some(contested) = &mut self.contested {
            clamp(contested);
        }
        if let Some(stale) = &mut self.stale {
            clamp(&mut stale.last);
        }
        if let Some(conflict) = &mut self.conflict {
            conflict.forget_future(now);
        }
    }
}
