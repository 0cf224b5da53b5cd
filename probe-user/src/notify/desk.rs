//! Whose turn it is to tell. Pure: what is heard and when goes in, what is to be told comes out.
//!
//! In a cluster every daemon hears of conflicts and one tells, the holder of a lease. A new holder must not tell
//! again what was told for hours, and must tell what opened while nobody held the lease. So each daemon keeps what it
//! heard in the time that a change of holder takes, and tells it when it becomes the holder: what the holder before
//! could still tell is told twice then, and nothing is lost.
//!
//! While the API server is away nobody can hold the lease, and a conflict on its own address may be why. What nobody
//! can have been given the lease to tell is told by the last holder, when a new one would long be there.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    drifts::Drifts,
    news::{News, Selection},
    queue::{CAPACITY, Queue},
};
use crate::{cluster::drift::Drift, detect::Severity, report::FindingRecord};

/// What a change of holder takes at most: until the lease of 15 s runs out, until somebody has seen that, and until
/// they have it.
pub const HANDOVER: Duration = Duration::from_mins(1);

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
    /// What others tell, or nobody, as long as we may have to.
    kept: VecDeque<(Instant, News)>,
    /// What we tell. What was ours to tell stays so when another takes over.
    pub queue: Queue,
}

impl Desk {
    /// For what matters at least so much.
    pub fn new(least: Severity, duty: Duty) -> Self {
        Self {
            selection: Selection::new(least),
            duty,
            is_last: false,
            drifts: Drifts::default(),
            kept: VecDeque::new(),
            queue: Queue::default(),
        }
    }

    /// A finding. Returns the number of news that did not fit.
    pub fn hear(&mut self, record: Arc<FindingRecord>, now: Instant) -> u64 {
        let chosen = self.selection.choose(record);
        chosen.map_or(0, |news| self.take(news, now))
    }

    fn take(&mut self, news: News, now: Instant) -> u64 {
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
        let least = self.selection.least();
        let news = self.drifts.look(drifts, least, now, time);
        news.into_iter().map(|news| self.take(news, now)).sum()
    }

    /// It is somebody's turn from now on. Returns the number of news that did not fit.
    pub fn turn(&mut self, duty: Duty, now: Instant, time: Timestamp) -> u64 {
        if self.duty == duty {
            return 0;
        }
        self.is_last = self.duty == Duty::Ours;
        self.duty = duty;
        match duty {
            Duty::Ours => self.drifts.begin(time),
            Duty::Others => self.drifts.end(),
        }
        self.forget(now);
        let kept = std::mem::take(&mut self.kept);
        kept.into_iter().map(|(_, news)| self.take(news, now)).sum()
    }

    /// Time has passed; the API server may be away. Returns the number of news that did not fit.
    pub fn tick(&mut self, now: Instant, time: Timestamp, is_away: bool) -> u64 {
        let gone = self.drifts.tick(now, time);
        let mut dropped: u64 = gone.into_iter().map(|news| self.take(news, now)).sum();
        while let Some(news) = self.forgotten(now) {
            if self.is_last && is_away {
                dropped += u64::from(!self.queue.push(news));
            } else {
                // Somebody could take over meanwhile.
                self.is_last = false;
            }
        }
        dropped
    }

    /// When there is something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let kept = self.kept.front().map(|(heard, _)| *heard + HANDOVER);
        [kept, self.drifts.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Who tells.
    pub const fn duty(&self) -> Duty {
        self.duty
    }

    fn forget(&mut self, now: Instant) {
        while self.forgotten(now).is_some() {}
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

#[cfg(test)]
mod tests {
    use super::{
        super::news::{Kind, tests::record},
        *,
    };
    use crate::detect::FindingKind;

    struct Lab {
        desk: Desk,
        start: Instant,
    }

    impl Lab {
        fn new(duty: Duty) -> Self {
            Self {
                desk: Desk::new(Severity::Warning, duty),
                start: Instant::now(),
            }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn opens(&mut self, last: u8, second: u64) {
            let record = record(last, FindingKind::Conflict, Severity::Critical);
            self.desk.hear(record, self.at(second));
        }

        fn ends(&mut self, last: u8, second: u64) {
            let record = record(last, FindingKind::ConflictResolved, Severity::Notice);
            self.desk.hear(record, self.at(second));
        }

        fn turn(&mut self, duty: Duty, second: u64) {
            self.desk.turn(duty, self.at(second), Timestamp::now());
        }

        fn tick(&mut self, second: u64, is_away: bool) {
            self.desk.tick(self.at(second), Timestamp::now(), is_away);
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

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_what_opened_during_the_change_and_nothing_older() {
        let mut lab = Lab::new(Duty::Others);
        lab.opens(1, 0);
        lab.opens(2, 100);
        lab.opens(3, 120);
        assert_eq!(lab.told(), []);
        lab.turn(Duty::Ours, 159);
        let conflict = (Kind::Conflict, Kind::Conflict);
        assert_eq!(lab.told(), [conflict, conflict]);
        // Once.
        lab.turn(Duty::Ours, 160);
        assert_eq!(lab.told(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_the_end_of_what_the_one_before_told() {
        let mut lab = Lab::new(Duty::Others);
        lab.opens(1, 0);
        lab.turn(Duty::Ours, 3_600);
        assert_eq!(lab.told(), []);
        lab.ends(1, 3_700);
        let end = (Kind::ConflictResolved, Kind::ConflictResolved);
        assert_eq!(lab.told(), [end]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_on_is_told_by_who_took_it_on() {
        let mut lab = Lab::new(Duty::Ours);
        lab.opens(1, 0);
        lab.turn(Duty::Others, 1);
        lab.opens(2, 2);
        assert_eq!(lab.told(), [(Kind::Conflict, Kind::Conflict)]);
        // It comes back before the time is over: then it may be that nobody told the second.
        lab.turn(Duty::Ours, 20);
        assert_eq!(lab.told(), [(Kind::Conflict, Kind::Conflict)]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_api_server_is_away_the_last_holder_tells() {
        let mut lab = Lab::new(Duty::Ours);
        lab.turn(Duty::Others, 10);
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
    }
}
