//! The state of an address whose ownership is disputed, or was lately.

use std::{collections::VecDeque, time::Duration};

use probe_common::wire::MacAddr;
use probe_model::Timestamp;
use smallvec::SmallVec;

use super::{ObservedClaim, claimants::AnnouncementOperations, conflict::OpenConflict};
use crate::{DetectConfig, owner::OwnerIdentity};

/// The state of a disputed address.
#[derive(Debug, Default)]
pub(super) struct Dispute {
    /// A takeover that has not settled.
    pub contest: Option<Contest>,
    /// The open conflict.
    pub conflict: Option<OpenConflict>,
    /// The times of the counted returns, oldest first; as many as alternation needs.
    pub returns: VecDeque<Timestamp>,
    /// The last return, which is not counted yet.
    pub pending: Option<PendingReturn>,
    /// The last sign of a contested address, within an episode that has been reported.
    pub contested: Option<Timestamp>,
    /// The physical MAC that was last seen beside a virtual-router MAC.
    pub concurrent: Option<ConcurrentClaimant>,
    /// The last takeover, while it may be a start-up announcement.
    pub start_up: Option<StartUpAnnouncement>,
    /// The start-up announcements that were undone, with their time.
    undone: SmallVec<[(OwnerIdentity, Timestamp); 2]>,
    /// When more owners had claimed the address lately than are remembered.
    pub surplus: Option<Timestamp>,
    /// When two hosts last replied with one virtual-router MAC.
    pub two_masters: Option<Timestamp>,
    /// When claims were last not emitted because of the kernel's rate limit.
    pub rate_limited: Option<Timestamp>,
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
    /// The owner when the address was last settled.
    pub settled_owner: MacAddr,
    /// The owner before the last takeover.
    pub previous: MacAddr,
    /// The time of the first takeover.
    pub began: Timestamp,
    /// Since when only the current owner claims the address: the last takeover, or a later reply of another owner to our
    /// ARP probe.
    pub silent_since: Timestamp,
    /// Counted returns since it began.
    pub returns: u64,
    /// The replies to our ARP probes about the last takeover, by round.
    pub rounds: [Option<TakeoverConfirmation>; 2],
}

/// Which owners replied in one round of ARP probes about a takeover.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakeoverConfirmation {
    /// The owner before.
    pub previous: bool,
    /// The owner that took over.
    pub current_owner: bool,
}

/// A return that counts as soon as another owner claims the address again. If none does, it was a failback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingReturn {
    /// The time of the return.
    pub at: Timestamp,
    /// What it returned from.
    pub kind: ReturnKind,
}

/// What an owner returned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReturnKind {
    /// From a settled owner, perhaps long after: one more failover, which counts for slow alternation only.
    FromSettled,
    /// So soon after it lost the address that it may not have noticed yet.
    Late,
    /// From an owner that has not settled.
    Unsettled,
}

/// A physical MAC beside a virtual-router MAC.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConcurrentClaimant {
    /// The MAC that was seen last.
    pub mac: MacAddr,
    /// Since when it is that MAC.
    pub since: Timestamp,
}

/// A takeover by a single announcement in both forms. A `MetalLB` speaker that starts announces every service until
/// it has joined its peers, some ten milliseconds later, and then leaves the addresses of the others alone. If the
/// previous owner goes on, the takeover is undone from this.
#[derive(Clone, Debug)]
pub(super) struct StartUpAnnouncement {
    /// The owner that took over.
    pub by: OwnerIdentity,
    /// The time of the takeover.
    pub at: Timestamp,
    /// The forms in which it has announced the address since.
    pub operations: AnnouncementOperations,
    /// Whether it took part in the dispute before.
    pub was_present: bool,
    /// The MAC of the owner before.
    pub current_owner: MacAddr,
    /// Since when that owner had it.
    pub owner_since: Timestamp,
    /// The contest before.
    pub contest: Option<Contest>,
    /// The uncounted return before.
    pub pending: Option<PendingReturn>,
}

impl StartUpAnnouncement {
    /// Takes a further claim of the MAC that took over; `None` if it shows that the MAC means to keep the address.
    fn continued(mut self, claim: &ObservedClaim, window: Duration) -> Option<Self> {
        if !claim.form.is_broadcast_announcement() || claim.at.since(self.at) > window {
            return None;
        }
        self.operations.record(claim.form);
        Some(self)
    }
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
    pub const fn renew(&mut self, previous: MacAddr, at: Timestamp) {
        self.previous = previous;
        self.silent_since = at;
        self.rounds = [None; 2];
    }

    /// Whether in the last round of probes the previous owner replied and the one that took over did not.
    pub fn is_kept_by_previous(&self) -> bool {
        let last = self.rounds.iter().rev().flatten().next();
        last.is_some_and(|round| round.previous && !round.current_owner)
    }
}

impl Dispute {
    /// Counts the pending return: another owner has claimed the address again.
    pub fn count_pending(&mut self, config: &DetectConfig) -> Option<ReturnKind> {
        let pending = self.pending.take()?;
        self.returns.push_back(pending.at);
        let enough = config
            .alternation_returns
            .max(config.slow_alternation_returns);
        while self.returns.len() > enough {
            self.returns.pop_front();
        }
        if let Some(conflict) = &mut self.conflict {
            conflict.counts.returns += 1;
        }
        if let Some(contest) = &mut self.contest
            && pending.kind != ReturnKind::FromSettled
        {
            contest.returns += 1;
        }
        Some(pending.kind)
    }

    /// The address is back with the owner that it had before the contest. If no other owner claimed it in between
    /// more than once, it was not disputed.
    pub fn drop_excursion(&mut self, contest: &Contest) {
        self.pending = None;
        if contest.returns == 0 {
            self.returns.retain(|&at| at != contest.began);
        }
    }

    /// Whether owners alternate so fast, or for so long, that it is a conflict, now that a return is counted.
    ///
    /// The fast criterion counts returns since the address was last settled: the takeover that opens a contest is
    /// none, even by a host that had the address last week. A return that was just counted by another, neither of them
    /// late, makes two at once: no failover takes an address, loses it and takes it again so soon.
    pub fn alternates(&self, counted: ReturnKind, at: Timestamp, config: &DetectConfig) -> bool {
        let within = |returns, window| {
            self.returns
                .iter()
                .rev()
                .nth(returns - 1)
                .is_some_and(|&first| at.since(first) < window)
        };
        let in_succession = counted == ReturnKind::Unsettled
            && self.pending.map(|pending| pending.kind) == Some(counted);
        let enough = config.alternation_returns - usize::from(in_succession);
        let enough = enough.max(1);
        let in_contest = self.contest.map_or(0, |contest| contest.returns);
        let fast = in_contest >= enough as u64 && within(enough, config.alternation_window);
        fast || within(
            config.slow_alternation_returns,
            config.slow_alternation_window,
        )
    }

    /// The address has moved: a return within the contest is one more failover now.
    pub const fn record_move(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.kind = ReturnKind::FromSettled;
        }
    }

    /// Processes a further claim of the current owner.
    pub fn observe_current_owner(&mut self, claim: &ObservedClaim, config: &DetectConfig) {
        let start_up = self.start_up.take();
        self.start_up =
            start_up.and_then(|start_up| start_up.continued(claim, config.start_up_window));
    }

    /// Takes the start-up announcement that a claim of the previous owner at `at` shows the last takeover to be. A MAC
    /// starts up once in a while: what repeats it faster is no start-up.
    pub fn take_start_up(
        &mut self,
        at: Timestamp,
        config: &DetectConfig,
    ) -> Option<StartUpAnnouncement> {
        let start_up = self.start_up.take()?;
        self.undone
            .retain(|&mut (_, undone)| at.since(undone) < config.quiet_after);
        let repeated = self.undone.iter().any(|&(by, _)| by == start_up.by);
        if repeated || !start_up.operations.in_both_forms() {
            return None;
        }
        if self.undone.len() >= config.max_macs {
            self.undone.remove(0);
        }
        self.undone.push((start_up.by, at));
        Some(start_up)
    }

    /// Resets the state to that of a settled address.
    pub fn settle(&mut self) {
        *self = Self {
            concurrent: self.concurrent,
            rate_limited: self.rate_limited,
            ..Self::default()
        };
    }

    /// When the state can be dropped; `None` while it is in use.
    pub fn returns_expire_at(&self, config: &DetectConfig) -> Option<Timestamp> {
        let is_in_use = self.contest.is_some()
            || self.conflict.is_some()
            || self.concurrent.is_some()
            || self.stale.is_some();
        if is_in_use {
            return None;
        }
        let counted = self.returns.back().copied().unwrap_or_default();
        let pending = self.pending.map_or(counted, |pending| pending.at);
        let undone = self.undone.last().map(|&(_, at)| at).unwrap_or_default();
        let surplus = self.surplus.unwrap_or_default();
        let slow = counted.max(pending).max(surplus) + config.slow_alternation_window;
        let recent = self.contested.max(self.rate_limited).unwrap_or_default();
        Some(slow.max(recent.max(undone) + config.quiet_after))
    }

    /// Moves times in the future to `now`, to which the clock was set back.
    pub fn forget_future(&mut self, now: Timestamp) {
        let clamp = |at: &mut Timestamp| *at = now.min(*at);
        self.returns.iter_mut().for_each(clamp);
        self.undone.iter_mut().for_each(|(_, at)| clamp(at));
        self.start_up = None;
        if let Some(pending) = &mut self.pending {
            clamp(&mut pending.at);
        }
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
        for at in [
            &mut self.surplus,
            &mut self.rate_limited,
            &mut self.two_masters,
        ] {
            at.iter_mut().for_each(clamp);
        }
        if let Some(stale) = &mut self.stale {
            clamp(&mut stale.last);
        }
        if let Some(conflict) = &mut self.conflict {
            conflict.forget_future(now);
        }
    }
}
