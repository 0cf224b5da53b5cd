//! Whose turn it is to tell. Pure: what is heard and when goes in, what is to be told comes out.
//!
//! In a cluster every daemon hears of conflicts and one tells, the holder of a lease. A new holder must not tell
//! again what was told for hours, and must tell what nobody did: what happened while nobody held the lease, and what
//! the holders before could not see or did not get to. So each daemon keeps what it hears of others' conflicts, and
//! holders leave to each other what they have told. What is not among it, and what happened in the time that a change of
//! holder takes, the new holder tells: some of it is told twice then, and nothing is lost.
//!
//! While the API server is away nobody can hold the lease, and a conflict on its own address may be why. What nobody
//! can have been given the lease to tell is told by the last holder, when a new one would long be there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use probe_cluster::drift::Drift;
use probe_kubernetes::{Before, Digest, handover::MOST_TOLD};
use probe_model::{FindingRecord, Severity};
use tokio::time::Instant;

use super::{
    drifts::Drifts,
    news::{Kind, News, Selection, Subject},
    queue::{CAPACITY, Queue},
};

/// What a change of holder takes at most: until the lease of 15 s runs out, until somebody has seen that, and until
/// they have it.
pub const HANDOVER: Duration = Duration::from_mins(1);

/// A new holder has found within this time what there is to find, besides how long drifts have to last: an address that
/// no service should have is asked for every five minutes.
const SETTLED: Duration = Duration::from_mins(10);

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// This daemon.
    Ours,
    /// Another one, or nobody yet.
    Others,
}

/// Where news arrive.
#[derive(Debug)]
pub struct Desk {
    selection: Selection,
    duty: Duty,
    /// Whether nobody is known to have taken over from us.
    is_last: bool,
    drifts: Drifts,
    /// How long it takes to find what there is.
    settling: Duration,
    /// What others tell, or nobody, as long as we may have to.
    kept: VecDeque<(Instant, News)>,
    /// And the last of each subject before that: we may have to tell it if nobody did.
    past: BTreeMap<Subject, News>,
    /// What the holder before us told and is not found yet, and until when it may be.
    inherited: (BTreeSet<Digest>, Option<Instant>),
    /// What we tell. What was ours to tell stays so when another takes over.
    pub queue: Queue,
}

impl Desk {
    /// For what matters at least so much, where drifts are such after this time.
    pub fn new(least: Severity, duty: Duty, drift_after: Duration) -> Self {
        Self {
            selection: Selection::new(least),
            duty,
            is_last: false,
            drifts: Drifts::default(),
            settling: SETTLED.saturating_add(drift_after),
            kept: VecDeque::new(),
            past: BTreeMap::new(),
            inherited: (BTreeSet::new(), None),
            queue: Queue::default(),
        }
    }

    /// A finding. Returns the number of news that did not fit.
    pub fn hear(&mut self, record: Arc<FindingRecord>, now: Instant) -> u64 {
        self.settle(now);
        let was_open = self.selection.has(&record);
        let Some(news) = self.selection.choose(record) else {
            return 0;
        };
        // As with drifts: whoever was told of it was not told of its end, and so knows that it is open. What comes after
        // that about a conflict that we know, as another owner, is news.
        if news.kind == Kind::Conflict && !was_open && self.inherited.0.remove(&news.digest()) {
            return 0;
        }
        self.take(news, now)
    }

    fn take(&mut self, news: News, now: Instant) -> u64 {
        if !news.is_open() {
            self.inherited.0.remove(&news.digest());
        }
        match self.duty {
            Duty::Ours => u64::from(!self.queue.push(news)),
            Duty::Others => {
                self.kept.push_back((now, news));
                // More than fits into the queue could not be told one by one anyway.
                if self.kept.len() > CAPACITY {
                    self.kept.pop_front();
                }
                0
            }
        }
    }

    /// The drifts that there are. Returns the number of news that did not fit.
    pub fn look(&mut self, drifts: &[Drift], now: Instant, time: Timestamp) -> u64 {
        if self.duty == Duty::Others {
            return 0;
        }
        self.settle(now);
        let (least, told) = (self.selection.least(), &mut self.inherited.0);
        let news = self.drifts.look(drifts, least, told, now, time);
        news.into_iter().map(|news| self.take(news, now)).sum()
    }

    /// It is ours from now on, after somebody who has told this. Returns the number of news that did not fit.
    pub fn begin(&mut self, before: Before, now: Instant) -> u64 {
        if self.duty == Duty::Ours {
            return 0;
        }
        self.is_last = false;
        self.duty = Duty::Ours;
        self.forget(now);
        let past = std::mem::take(&mut self.past).into_values();
        let mut past: Vec<_> = past.filter(|news| is_untold(news, &before)).collect();
        past.sort_by_key(News::time);
        let kept = std::mem::take(&mut self.kept).into_iter();
        let all = past.into_iter().chain(kept.map(|(_, news)| news));
        self.inherited = (before.told, now.checked_add(self.settling));
        all.map(|news| self.take(news, now)).sum()
    }

    /// It is another's from now on, or nobody's.
    pub fn end(&mut self) {
        self.is_last = self.duty == Duty::Ours;
        self.duty = Duty::Others;
        self.drifts.end();
        self.inherited = (BTreeSet::new(), None);
    }

    /// What was told of what is so now, for the next holder; what still waits was not.
    pub fn told(&mut self, now: Instant) -> BTreeSet<Digest> {
        self.settle(now);
        let conflicts = self.selection.open();
        let conflicts = conflicts.filter(|(subject, _)| !self.queue.has(subject));
        let drifts = self.drifts.known();
        let drifts = drifts.filter(|(subject, _)| !self.queue.has(subject));
        let all = conflicts.map(|(_, digest)| digest);
        let all = all.chain(drifts.map(|(_, digest)| digest));
        let all = all.chain(self.inherited.0.iter().copied());
        all.take(MOST_TOLD).collect()
    }

    /// What the holder before us told, and is not there after all that time, is over.
    fn settle(&mut self, now: Instant) {
        if self.inherited.1.is_some_and(|end| now >= end) {
            self.inherited = (BTreeSet::new(), None);
        }
    }

    /// Time has passed; the API server may be away. Returns the number of news that did not fit.
    pub fn tick(&mut self, now: Instant, time: Timestamp, is_away: bool) -> u64 {
        self.settle(now);
        let gone = self.drifts.tick(now, time);
        let mut dropped: u64 = gone.into_iter().map(|news| self.take(news, now)).sum();
        while let Some(news) = self.forgotten(now) {
            if self.is_last && is_away {
                dropped += u64::from(!self.queue.push(news));
            } else {
                // Somebody could take over meanwhile.
                self.is_last = false;
                self.remember(news);
            }
        }
        dropped
    }

    /// When there is something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let kept = self.kept.front().map(|(heard, _)| *heard + HANDOVER);
        [kept, self.drifts.next_deadline(), self.inherited.1]
            .into_iter()
            .flatten()
            .min()
    }

    /// Who tells.
    pub const fn duty(&self) -> Duty {
        self.duty
    }

    fn forget(&mut self, now: Instant) {
        while let Some(news) = self.forgotten(now) {
            self.remember(news);
        }
    }

    /// What is open counts for as long as it is; what is over goes first where there is no room.
    fn remember(&mut self, news: News) {
        let before = self.past.get(&news.subject);
        if news.kind == Kind::ConflictQuiet && before.is_some_and(News::is_open) {
            // How it opened says more.
            return;
        }
        if before.is_none() && self.past.len() >= CAPACITY {
            let over = self.past.iter().find(|(_, news)| !news.is_open());
            let over = over.map(|(subject, _)| subject.clone());
            let Some(over) = over.filter(|_| news.is_open()) else {
                return;
            };
            self.past.remove(&over);
        }
        self.past.insert(news.subject.clone(), news);
    }

    /// What was kept for long enough.
    fn forgotten(&mut self, now: Instant) -> Option<News> {
        let (heard, _) = self.kept.front()?;
        if now.duration_since(*heard) < HANDOVER {
            return None;
        }
        self.kept.pop_front().map(|(_, news)| news)
    }
}

/// Whether the holder before us cannot have told it, or says that it has not. Where nobody is known to have held the lease,
/// only what is still so is news: what is over may have been told days ago.
fn is_untold(news: &News, before: &Before) -> bool {
    match before.until {
        Some(until) if news.time() > until => true,
        Some(_) => news.is_open() && !before.told.contains(&news.digest()),
        None => news.is_open(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use probe_model::FindingKind;

    use super::{
        super::{
            drifts::tests::drift,
            news::{digest_of_drift, tests::record},
        },
        *,
    };

    struct Lab {
        desk: Desk,
        start: Instant,
    }

    impl Lab {
        fn new(duty: Duty) -> Self {
            Self {
                desk: Desk::new(Severity::Warning, duty, Duration::from_mins(2)),
                start: Instant::now(),
            }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn time(second: u64) -> Timestamp {
            let start: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
            start + SignedDuration::from_secs(second.try_into().unwrap())
        }

        fn hear(&mut self, last: u8, kind: FindingKind, severity: Severity, second: u64) {
            let mut record = (*record(last, kind, severity)).clone();
            record.time = Self::time(second);
            self.desk.hear(Arc::new(record), self.at(second));
        }

        fn opens(&mut self, last: u8, second: u64) {
            self.hear(last, FindingKind::Conflict, Severity::Critical, second);
        }

        fn ends(&mut self, last: u8, second: u64) {
            self.hear(
                last,
                FindingKind::ConflictResolved,
                Severity::Notice,
                second,
            );
        }

        /// After a holder that renewed until this second, and left what another has told.
        fn begins(&mut self, second: u64, until: Option<u64>, told: BTreeSet<Digest>) {
            let until = until.map(Self::time);
            self.desk.begin(Before { told, until }, self.at(second));
        }

        fn looks(&mut self, second: u64, drifts: &[Drift]) {
            self.desk.look(drifts, self.at(second), Self::time(second));
        }

        fn leaves(&mut self, second: u64) -> BTreeSet<Digest> {
            self.desk.told(self.at(second))
        }

        fn tick(&mut self, second: u64, is_away: bool) {
            self.desk.tick(self.at(second), Self::time(second), is_away);
        }

        fn told(&mut self) -> Vec<(Kind, Kind)> {
            let batch = self.desk.queue.batch(50);
            self.desk.queue.done(&batch);
            let listed = batch.listed.iter();
            listed
                .map(|waiting| (waiting.first.kind, waiting.last.kind))
                .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_tells() {
        let mut lab = Lab::new(Duty::Ours);
        lab.opens(1, 0);
        assert_eq!(lab.told(), [(Kind::Conflict, Kind::Conflict)]);
    }

    /// What has opened, and is told as such.
    const OPENED: (Kind, Kind) = (Kind::Conflict, Kind::Conflict);

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_what_opened_during_the_change_and_what_is_left_untold() {
        let mut before = Lab::new(Duty::Others);
        before.begins(0, None, BTreeSet::new());
        before.opens(1, 0);
        before.opens(2, 0);
        assert_eq!(before.told(), [OPENED, OPENED]);
        let told = before.leaves(10);
        assert_eq!(told.len(), 2);

        let mut lab = Lab::new(Duty::Others);
        lab.opens(1, 0);
        lab.opens(2, 0);
        // The other one does not see this.
        lab.opens(3, 10);
        lab.opens(4, 120);
        assert_eq!(lab.told(), []);
        lab.begins(159, Some(140), told);
        assert_eq!(lab.told(), [OPENED, OPENED]);
        // Once.
        lab.begins(160, None, BTreeSet::new());
        assert_eq!(lab.told(), []);
        assert_eq!(lab.leaves(160).len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happened_while_nobody_held_the_lease_is_told_however_long_that_was() {
        let mut lab = Lab::new(Duty::Others);
        let told = BTreeSet::from([1, 2, 3, 5].map(|last| {
            let record = record(last, FindingKind::Conflict, Severity::Critical);
            let news = Selection::new(Severity::Info).choose(record);
            news.unwrap().digest()
        }));
        // Told, and over before the last renewal: that was told as well.
        lab.opens(1, 0);
        lab.ends(1, 50);
        // Told, and over after it.
        lab.opens(2, 0);
        lab.ends(2, 200);
        // Told, and nothing has changed.
        lab.opens(5, 0);
        // Began and ended while nobody held the lease.
        lab.opens(4, 300);
        lab.ends(4, 400);
        // Told, and it may be another one by now.
        lab.opens(3, 0);
        lab.opens(3, 3_000);
        lab.begins(7_200, Some(100), told.clone());
        let over = (Kind::ConflictResolved, Kind::ConflictResolved);
        assert_eq!(lab.told(), [over, over, OPENED]);

        // Where nobody is known to have held it all that is so is news, and what is over is not.
        let mut lab = Lab::new(Duty::Others);
        lab.opens(1, 0);
        lab.ends(1, 50);
        lab.opens(3, 0);
        lab.begins(7_200, None, told);
        assert_eq!(lab.told(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_became_quiet_is_told_as_it_opened() {
        let mut lab = Lab::new(Duty::Others);
        lab.opens(1, 0);
        lab.hear(1, FindingKind::ConflictQuiet, Severity::Notice, 600);
        lab.begins(7_200, Some(7_190), BTreeSet::new());
        assert_eq!(lab.told(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_the_drifts_that_nobody_told_whenever_they_began() {
        let drift_told = (Kind::Drift, Kind::Drift);
        let mut first = Lab::new(Duty::Others);
        let old = drift("old");
        first.looks(0, std::slice::from_ref(&old));
        assert_eq!(first.told(), [], "it is not its turn");
        // The lease is new: all that there is is news.
        first.begins(10, None, BTreeSet::new());
        first.looks(20, std::slice::from_ref(&old));
        assert_eq!(first.leaves(20), BTreeSet::new(), "it is not told yet");
        assert_eq!(first.told(), [drift_told]);
        let told = first.leaves(30);
        assert_eq!(told, BTreeSet::from([digest_of_drift(&old)]));

        // Another one, which has not found it yet, leaves it to a third one as it was.
        let mut second = Lab::new(Duty::Others);
        second.begins(100, Some(90), told.clone());
        assert_eq!(second.leaves(110), told);
        second.looks(120, &[drift("new"), old.clone()]);
        assert_eq!(second.told(), [drift_told]);
        assert_eq!(second.leaves(130).len(), 2);
        second.looks(140, &[]);
        second.tick(160, false);
        assert_eq!(second.told().len(), 2, "their ends");
        assert_eq!(second.leaves(160), BTreeSet::new());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_holder_does_not_find_for_long_is_over() {
        let old = drift("old");
        let told = BTreeSet::from([digest_of_drift(&old)]);
        let mut lab = Lab::new(Duty::Others);
        lab.begins(0, Some(0), told.clone());
        assert_eq!(lab.leaves(719), told);
        assert_eq!(lab.leaves(720), BTreeSet::new());
        lab.looks(800, &[old]);
        assert_eq!(lab.told().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_holder_does_not_find_is_taken_back_though_nothing_happens() {
        let mut lab = Lab::new(Duty::Others);
        lab.begins(0, Some(0), BTreeSet::from([7]));
        let end = lab.desk.next_deadline().unwrap();
        assert_eq!(end, lab.at(720));
        lab.tick(720, false);
        assert_eq!(lab.desk.inherited.0, BTreeSet::new());
        assert_eq!(lab.desk.next_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_was_told_and_is_found_again_is_no_news_but_what_becomes_of_it_is() {
        let mut before = Lab::new(Duty::Ours);
        before.opens(1, 0);
        before.opens(2, 0);
        before.opens(3, 0);
        before.told();
        let told = before.leaves(0);

        // It is new, as after a restart, and finds the first and the second again.
        let mut lab = Lab::new(Duty::Others);
        lab.begins(30, Some(20), told.clone());
        lab.opens(1, 40);
        lab.opens(2, 40);
        lab.opens(4, 40);
        assert_eq!(lab.told(), [OPENED], "only the fourth is new");
        assert!(lab.leaves(50).is_superset(&told));
        // Another owner joins.
        lab.opens(2, 60);
        assert_eq!(lab.told(), [OPENED]);
        lab.ends(1, 70);
        let over = (Kind::ConflictResolved, Kind::ConflictResolved);
        assert_eq!(lab.told(), [over]);
        lab.opens(1, 80);
        assert_eq!(lab.told(), [OPENED]);
        // Whoever finds the third so late does not know whether it is the same.
        lab.opens(3, 750);
        assert_eq!(lab.told(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_to_the_next_one_is_bounded() {
        let mut lab = Lab::new(Duty::Ours);
        let drifts: Vec<_> = (0..300).map(|number| drift(&number.to_string())).collect();
        lab.looks(0, &drifts);
        let batch = lab.desk.queue.first(1_000);
        lab.desk.queue.done(&batch);
        assert_eq!(lab.leaves(0).len(), MOST_TOLD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_the_end_of_what_the_one_before_told() {
        let mut lab = Lab::new(Duty::Others);
        lab.opens(1, 0);
        let mut before = Lab::new(Duty::Ours);
        before.opens(1, 0);
        before.told();
        lab.begins(3_600, Some(3_590), before.leaves(10));
        assert_eq!(lab.told(), []);
        lab.ends(1, 3_700);
        let end = (Kind::ConflictResolved, Kind::ConflictResolved);
        assert_eq!(lab.told(), [end]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_on_is_told_by_who_took_it_on() {
        let mut lab = Lab::new(Duty::Ours);
        lab.opens(1, 0);
        lab.desk.end();
        lab.opens(2, 2);
        assert_eq!(lab.told(), [(Kind::Conflict, Kind::Conflict)]);
        // It comes back before the time is over: then it may be that nobody told the second.
        lab.begins(20, Some(1), BTreeSet::new());
        assert_eq!(lab.told(), [(Kind::Conflict, Kind::Conflict)]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_api_server_is_away_the_last_holder_tells() {
        let mut lab = Lab::new(Duty::Ours);
        lab.desk.end();
        lab.opens(1, 20);
        lab.tick(79, true);
        assert_eq!(lab.told(), []);
        assert_eq!(lab.desk.next_deadline(), Some(lab.at(80)));
        lab.tick(80, true);
        let conflict = (Kind::Conflict, Kind::Conflict);
        assert_eq!(lab.told(), [conflict]);
        // It is back: whoever has the lease now tells.
        lab.opens(2, 100);
        lab.tick(160, false);
        assert_eq!(lab.told(), []);
        // Away again: another one was the last.
        lab.opens(3, 200);
        lab.tick(260, true);
        assert_eq!(lab.told(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_held_the_lease_does_not_tell_while_the_api_server_is_away() {
        let mut lab = Lab::new(Duty::Others);
        lab.opens(1, 0);
        lab.tick(60, true);
        assert_eq!(lab.told(), []);
        assert_eq!(lab.desk.next_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_while_others_tell() {
        let mut lab = Lab::new(Duty::Others);
        for number in 0..=u8::MAX {
            for _ in 0..5 {
                lab.opens(number, 0);
            }
        }
        assert_eq!(lab.desk.kept.len(), CAPACITY);
        let mut lab = Lab::new(Duty::Others);
        let many = |lab: &mut Lab, kind, count: u32, second| {
            for number in 0..count {
                let mut record = (*record(1, kind, Severity::Critical)).clone();
                record.ip = std::net::IpAddr::V4(number.into());
                lab.desk.hear(Arc::new(record), lab.at(second));
                lab.tick(second + 60, false);
            }
        };
        many(&mut lab, FindingKind::Conflict, 1_500, 100);
        assert_eq!(lab.desk.past.len(), CAPACITY);
        assert!(lab.desk.past.values().all(News::is_open));
        many(&mut lab, FindingKind::ConflictResolved, 500, 200);
        assert_eq!(lab.desk.past.len(), CAPACITY);
        // What is over makes room for what is not.
        lab.opens(77, 300);
        lab.tick(400, false);
        assert_eq!(lab.desk.past.len(), CAPACITY);
        let open = lab.desk.past.values().filter(|news| news.is_open());
        assert_eq!(open.count(), 501);
    }
}
