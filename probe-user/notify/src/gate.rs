//! Decides which notifications this agent sends. Pure: findings, drifts and changes of the leader go in, the queue comes
//! out.
//!
//! In a cluster every agent detects conflicts, and the leader sends notifications. Delivery is at least once: a new
//! leader sends every open conflict and drift that it has, and all events since the last renewal of its predecessor.
//! Notifications that another agent may have sent suppress nothing. Only a conflict that this process itself delivered,
//! for the same address and owners, is not sent again, and only if no other agent was the leader in between.
//!
//! While the API server is unreachable no agent can become the leader, and a conflict on its own address may be why:
//! after the time in which a new leader would have been elected, the last leader sends.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;
use probe_cluster::drift::Drift;
use probe_model::{FindingRecord, Predecessor, Severity};
use tokio::time::Instant;

use super::{
    conflicts::OpenConflicts,
    drifts::DriftGate,
    notification::{Notification, NotificationKind},
    queue::{CAPACITY, NotificationBatch, NotificationQueue},
};

/// The longest time that a change of the leader takes: the Lease of 15 s runs out, a follower observes that and
/// acquires it. Clock differences between nodes up to this value lose no notification.
pub const TAKEOVER_WINDOW: Duration = Duration::from_mins(1);

/// Whether this agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateRole {
    /// It sends.
    Leader,
    /// Another agent sends, or none yet.
    Follower,
}

/// Whether the API server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiServerState {
    /// It is reachable, or there is no cluster.
    Reachable,
    /// It is unreachable: there is no election.
    Unreachable,
}

/// The gate before the queue. Methods return the number of notifications that did not fit into the queue.
#[derive(Debug)]
pub struct NotificationGate {
    role: GateRole,
    conflicts: OpenConflicts,
    drifts: DriftGate,
    /// The notifications of the time as follower, with their times of arrival.
    recent: VecDeque<(Instant, Notification)>,
    /// Whether this agent was the leader last, as far as it knows.
    is_last_leader: bool,
    /// The queue of this agent. Its notifications stay when another agent becomes the leader.
    pub queue: NotificationQueue,
}

impl NotificationGate {
    /// A gate for conflicts and drifts of at least this severity.
    pub fn new(min_severity: Severity, role: GateRole) -> Self {
        Self {
            role,
            conflicts: OpenConflicts::new(min_severity),
            drifts: DriftGate::default(),
            recent: VecDeque::new(),
            is_last_leader: false,
            queue: NotificationQueue::default(),
        }
    }

    /// Whether this agent sends.
    pub const fn role(&self) -> GateRole {
        self.role
    }

    /// Accepts a finding.
    pub fn accept_finding(&mut self, record: Arc<FindingRecord>, now: Instant) -> u64 {
        let Some(notification) = self.conflicts.select(record) else {
            return 0;
        };
        match self.role {
            GateRole::Leader => self.queue.push_all([notification]),
            GateRole::Follower => {
                self.recent.push_back((now, notification));
                // More than fits into the queue could not be sent one by one anyway.
                if self.recent.len() > CAPACITY {
                    self.recent.pop_front();
                }
                0
            }
        }
    }

    /// Updates the current drifts.
    pub fn update_drifts(&mut self, drifts: &[Drift], now: Instant, time: Timestamp) -> u64 {
        if self.role == GateRole::Follower {
            return 0;
        }
        let min_severity = self.conflicts.min_severity();
        let notifications = self.drifts.update(drifts, min_severity, now, time);
        self.queue.push_all(notifications)
    }

    /// Handles that this agent becomes the leader.
    pub fn become_leader(&mut self, predecessor: Predecessor, now: Instant) -> u64 {
        if self.role == GateRole::Leader {
            return 0;
        }
        self.role = GateRole::Leader;
        if predecessor != Predecessor::ThisProcess {
            self.conflicts.clear_delivered();
        }
        let mut notifications: Vec<_> = std::mem::take(&mut self.recent)
            .into_iter()
            .filter(|(arrived, notification)| {
                now.duration_since(*arrived) <= TAKEOVER_WINDOW
                    || may_be_unsent(notification, predecessor)
            })
            .map(|(_, notification)| notification)
            .collect();
        for open in self.conflicts.undelivered() {
            if !self.queue.contains(&open.subject) && !notifications.contains(open) {
                notifications.push(open.clone());
            }
        }
        notifications.sort_by_key(Notification::time);
        let overflow = u64::try_from(self.conflicts.overflow()).unwrap_or(u64::MAX);
        if overflow > 0 {
            self.queue.count_only(NotificationKind::Conflict, overflow);
        }
        self.queue.push_all(notifications) + overflow
    }

    /// Handles that another agent becomes the leader, or none is.
    pub fn become_follower(&mut self) {
        self.is_last_leader = self.role == GateRole::Leader;
        self.role = GateRole::Follower;
        self.drifts.clear();
    }

    /// Records that a batch was delivered.
    pub fn record_delivered(&mut self, batch: &NotificationBatch) {
        self.conflicts.record_delivered(batch);
    }

    /// Advances the time to `now`.
    pub fn tick(&mut self, now: Instant, time: Timestamp, api_server: ApiServerState) -> u64 {
        let ended = self.drifts.tick(now, time);
        let mut dropped = self.queue.push_all(ended);
        while self
            .recent_deadline()
            .is_some_and(|deadline| now >= deadline)
        {
            if api_server == ApiServerState::Reachable {
                // Another agent may have become the leader.
                self.is_last_leader = false;
            } else if let Some((_, notification)) = self.recent.pop_front() {
                dropped += self.queue.push_all([notification]);
            }
        }
        dropped
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.recent_deadline(), self.drifts.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// When the last leader sends the oldest of the recent notifications, if no election was possible.
    fn recent_deadline(&self) -> Option<Instant> {
        let (arrived, _) = self.recent.front().filter(|_| self.is_last_leader)?;
        Some(*arrived + TAKEOVER_WINDOW)
    }
}

/// Whether the predecessor may not have sent this: it happened after its last renewal of the Lease.
fn may_be_unsent(notification: &Notification, predecessor: Predecessor) -> bool {
    match predecessor {
        Predecessor::ThisProcess => true,
        Predecessor::Other { last_renewal } => notification.time() + TAKEOVER_WINDOW > last_renewal,
        // Resolved conflicts may have been sent long ago; open ones are sent anyway.
        Predecessor::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use probe_model::FindingKind;

    use super::{
        super::testing::{drift, record},
        *,
    };

    const REACHABLE: ApiServerState = ApiServerState::Reachable;
    const UNREACHABLE: ApiServerState = ApiServerState::Unreachable;

    /// First and last kind of an entry in the queue: of a conflict that opened…
    const OPENED: (NotificationKind, NotificationKind) =
        (NotificationKind::Conflict, NotificationKind::Conflict);
    /// …of one that ended…
    const ENDED: (NotificationKind, NotificationKind) = (
        NotificationKind::ConflictResolved,
        NotificationKind::ConflictResolved,
    );
    /// …of one that did both…
    const OPENED_AND_ENDED: (NotificationKind, NotificationKind) = (
        NotificationKind::Conflict,
        NotificationKind::ConflictResolved,
    );
    /// …and of a drift.
    const DRIFTED: (NotificationKind, NotificationKind) =
        (NotificationKind::Drift, NotificationKind::Drift);

    /// The gate of one process, with a test clock in seconds.
    struct Agent {
        gate: NotificationGate,
        start: Instant,
    }

    impl Agent {
        fn new(role: GateRole) -> Self {
            Self {
                gate: NotificationGate::new(Severity::Warning, role),
                start: Instant::now(),
            }
        }

        fn follower() -> Self {
            Self::new(GateRole::Follower)
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn time(second: u64) -> Timestamp {
            let start: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
            start + SignedDuration::from_secs(second.try_into().unwrap())
        }

        fn finding(&mut self, last: u8, kind: FindingKind, second: u64) {
            self.changed_finding(last, kind, second, |_| {});
        }

        fn changed_finding(
            &mut self,
            last: u8,
            kind: FindingKind,
            second: u64,
            change: impl FnOnce(&mut FindingRecord),
        ) {
            let severity = match kind {
                FindingKind::Conflict => Severity::Critical,
                _ => Severity::Notice,
            };
            let mut record = (*record(last, kind, severity)).clone();
            record.time = Self::time(second);
            change(&mut record);
            self.gate.accept_finding(Arc::new(record), self.at(second));
        }

        fn opens(&mut self, last: u8, second: u64) {
            self.finding(last, FindingKind::Conflict, second);
        }

        /// A conflict on the same address between other hosts.
        fn opens_with_other_owners(&mut self, last: u8, second: u64) {
            self.changed_finding(last, FindingKind::Conflict, second, |record| {
                for mac in record.owners.iter_mut().flat_map(|owner| &mut owner.macs) {
                    mac.0[5] ^= 0x55;
                }
            });
        }

        fn ends(&mut self, last: u8, second: u64) {
            self.finding(last, FindingKind::ConflictResolved, second);
        }

        /// Becomes the leader after another agent, which last renewed at this second.
        fn leads_after(&mut self, last_renewal: u64, second: u64) {
            let last_renewal = Self::time(last_renewal);
            self.leads(Predecessor::Other { last_renewal }, second);
        }

        fn leads(&mut self, predecessor: Predecessor, second: u64) {
            self.gate.become_leader(predecessor, self.at(second));
        }

        fn drifts(&mut self, second: u64, drifts: &[Drift]) {
            self.gate
                .update_drifts(drifts, self.at(second), Self::time(second));
        }

        fn tick(&mut self, second: u64, api_server: ApiServerState) {
            self.gate
                .tick(self.at(second), Self::time(second), api_server);
        }

        /// Delivers the queue.
        fn sent(&mut self) -> Vec<(NotificationKind, NotificationKind)> {
            let batch = self.gate.queue.batch(2 * CAPACITY);
            self.gate.queue.remove_sent(&batch);
            self.gate.record_delivered(&batch);
            let listed = batch.listed.iter();
            listed
                .map(|queued| (queued.first.kind, queued.last.kind))
                .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_cluster_every_agent_sends() {
        let mut agent = Agent::new(GateRole::Leader);
        agent.opens(1, 0);
        assert_eq!(agent.sent(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn new_conflict_is_sent_regardless_of_notifications_before_a_restart() {
        for minutes in [1, 11, 20] {
            let mut before = Agent::follower();
            before.leads(Predecessor::Unknown, 0);
            before.opens(1, 0);
            assert_eq!(before.sent(), [OPENED]);
            // All agents restart before they see its end.
            let mut agent = Agent::follower();
            agent.leads_after(20, 30);
            agent.opens_with_other_owners(1, 30 + 60 * minutes);
            assert_eq!(agent.sent(), [OPENED], "after {minutes} min");
            agent.ends(1, 40 + 60 * minutes);
            assert_eq!(agent.sent(), [ENDED]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn open_conflict_is_sent_again_after_a_restart() {
        let mut agent = Agent::follower();
        agent.leads_after(20, 30);
        agent.opens(1, 40);
        assert_eq!(agent.sent(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_sends_every_open_conflict_once() {
        let mut agent = Agent::follower();
        agent.opens(1, 0);
        agent.opens(2, 120);
        assert_eq!(agent.sent(), []);
        agent.leads_after(3_590, 3_600);
        assert_eq!(agent.sent(), [OPENED, OPENED]);
        agent.leads_after(3_590, 3_601);
        assert_eq!(agent.sent(), []);
        agent.ends(1, 3_700);
        assert_eq!(agent.sent(), [ENDED]);
    }

    #[tokio::test(start_paused = true)]
    async fn new_leader_sends_all_events_since_the_last_renewal() {
        let mut agent = Agent::follower();
        // Opened and ended before the last renewal: the predecessor sent both.
        agent.opens(1, 0);
        agent.ends(1, 50);
        // Ended after it.
        agent.opens(2, 0);
        agent.ends(2, 1_200);
        // Opened and ended after it.
        agent.opens(3, 1_300);
        agent.ends(3, 1_400);
        // Other owners after it.
        agent.opens(4, 0);
        agent.opens_with_other_owners(4, 3_000);
        agent.leads_after(1_000, 7_200);
        assert_eq!(agent.sent(), [ENDED, OPENED_AND_ENDED, OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_skew_below_the_takeover_window_loses_no_notification() {
        let mut agent = Agent::follower();
        agent.opens(1, 941);
        agent.ends(1, 942);
        agent.leads_after(1_000, 7_200);
        assert_eq!(agent.sent(), [OPENED_AND_ENDED]);
    }

    #[tokio::test(start_paused = true)]
    async fn first_leader_sends_open_and_recently_resolved_conflicts() {
        let mut agent = Agent::follower();
        agent.opens(1, 0);
        agent.ends(1, 50);
        agent.opens(2, 0);
        agent.opens(3, 7_000);
        agent.ends(3, 7_170);
        agent.leads(Predecessor::Unknown, 7_200);
        assert_eq!(agent.sent(), [OPENED, ENDED]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_became_quiet_is_sent_as_it_opened() {
        let mut agent = Agent::follower();
        agent.opens(1, 0);
        agent.finding(1, FindingKind::ConflictQuiet, 600);
        agent.leads_after(7_190, 7_200);
        assert_eq!(agent.sent(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn leader_that_reacquires_its_lease_sends_only_undelivered_notifications() {
        let mut agent = Agent::new(GateRole::Leader);
        agent.opens(1, 0);
        assert_eq!(agent.sent(), [OPENED]);
        agent.gate.become_follower();
        agent.opens(2, 500);
        agent.leads(Predecessor::ThisProcess, 1_000);
        assert_eq!(agent.sent(), [OPENED], "the second");
        // Other owners are another conflict.
        agent.gate.become_follower();
        agent.opens_with_other_owners(1, 1_100);
        agent.leads(Predecessor::ThisProcess, 2_000);
        assert_eq!(agent.sent(), [OPENED], "the first");
        // Another agent may have sent more about them.
        agent.gate.become_follower();
        agent.leads_after(3_000, 3_010);
        assert_eq!(agent.sent(), [OPENED, OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn queued_notifications_are_sent_when_another_agent_becomes_the_leader() {
        let mut agent = Agent::new(GateRole::Leader);
        agent.opens(1, 0);
        agent.gate.become_follower();
        agent.opens(2, 2);
        assert_eq!(agent.sent(), [OPENED]);
        agent.leads_after(1, 20);
        assert_eq!(agent.sent(), [OPENED, OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_leader_sends_drifts_and_a_new_leader_sends_all_that_it_finds() {
        let mut agent = Agent::follower();
        let old = drift("old");
        agent.drifts(0, std::slice::from_ref(&old));
        assert_eq!(agent.sent(), []);
        agent.leads_after(5, 10);
        agent.drifts(20, std::slice::from_ref(&old));
        assert_eq!(agent.sent(), [DRIFTED]);
        agent.drifts(30, &[]);
        assert_eq!(agent.gate.next_deadline(), Some(agent.at(45)));
        agent.tick(45, REACHABLE);
        let gone = (NotificationKind::DriftGone, NotificationKind::DriftGone);
        assert_eq!(agent.sent(), [gone]);
        agent.drifts(50, std::slice::from_ref(&old));
        assert_eq!(agent.sent(), [DRIFTED]);
        agent.gate.become_follower();
        agent.tick(100, REACHABLE);
        agent.leads(Predecessor::ThisProcess, 110);
        agent.drifts(120, &[old]);
        assert_eq!(agent.sent(), [DRIFTED], "at least once");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_api_server_is_unreachable_the_last_leader_sends() {
        let mut agent = Agent::new(GateRole::Leader);
        agent.gate.become_follower();
        agent.opens(1, 20);
        agent.tick(79, UNREACHABLE);
        assert_eq!(agent.sent(), []);
        assert_eq!(agent.gate.next_deadline(), Some(agent.at(80)));
        agent.tick(80, UNREACHABLE);
        assert_eq!(agent.sent(), [OPENED]);
        // The API server is reachable again: the elected leader sends.
        agent.opens(2, 100);
        agent.tick(160, REACHABLE);
        assert_eq!(agent.sent(), []);
        // Unreachable again: another agent was the last leader.
        agent.opens(3, 200);
        agent.tick(260, UNREACHABLE);
        assert_eq!(agent.sent(), []);
        assert_eq!(agent.gate.next_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn follower_sends_nothing_while_the_api_server_is_unreachable() {
        let mut agent = Agent::follower();
        agent.opens(1, 0);
        agent.tick(60, UNREACHABLE);
        assert_eq!(agent.sent(), []);
        assert_eq!(agent.gate.next_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_overflow_is_sent_as_a_count() {
        let mut agent = Agent::follower();
        for number in 0..1_500_u32 {
            agent.changed_finding(1, FindingKind::Conflict, 100, |record| {
                record.ip = std::net::IpAddr::V4(number.into());
            });
        }
        assert_eq!(agent.gate.recent.len(), CAPACITY);
        let dropped = agent
            .gate
            .become_leader(Predecessor::Unknown, agent.at(7_200));
        assert_eq!(dropped, 500);
        let batch = agent.gate.queue.batch(2 * CAPACITY);
        assert_eq!((batch.listed.len(), batch.unlisted()), (CAPACITY, 500));
    }
}
