//! The last findings of the daemon, numbered. Readers have no queue of their own: each has the number of
//! the last finding that it read, so a slow or dead one costs nothing, and whoever comes too late for some
//! can be told how many.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use probe_model::FindingRecord;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

/// How many findings are kept.
pub const KEPT: usize = 10_000;
/// Findings that are handed out at once.
const BATCH: usize = 256;

/// A finding with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered<R> {
    /// From 1, one more for each. What could not be kept leaves a gap.
    pub sequence: u64,
    /// The finding.
    #[serde(flatten)]
    pub record: R,
}

/// From where on somebody wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// After the finding with this number.
    Sequence(u64),
    /// From this time on.
    Time(Timestamp),
    /// Only what comes.
    Now,
}

/// What there is to read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A finding.
    Finding(Numbered<Arc<FindingRecord>>),
    /// So many findings are no longer, or never were, in memory.
    Missed(u64),
}

/// The findings. Clones share them.
#[derive(Clone, Debug)]
pub struct History {
    state: Arc<Mutex<State>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Numbered<Arc<FindingRecord>>>,
    newest: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            newest: watch::Sender::new(0),
        }
    }
}

impl History {
    /// Keeps what is found from now on, until the monitor ends.
    pub async fn follow(self, mut findings: broadcast::Receiver<Arc<FindingRecord>>) {
        loop {
            match findings.recv().await {
                Ok(record) => self.push(record),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.skip(missed),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// A reader that begins there.
    pub fn reader(&self, since: Since) -> Reader {
        let cursor = match since {
            Since::Sequence(sequence) => sequence,
            Since::Now => self.lock().newest,
            Since::Time(time) => {
                let state = self.lock();
                let first = state.kept.iter().find(|kept| kept.record.time >= time);
                first.map_or(state.newest, |first| first.sequence - 1)
            }
        };
        Reader {
            history: self.clone(),
            news: self.newest.subscribe(),
            cursor,
        }
    }

    fn push(&self, record: Arc<FindingRecord>) {
        let mut state = self.lock();
        state.newest += 1;
        let sequence = state.newest;
        if state.kept.len() == KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(Numbered { sequence, record });
        drop(state);
        self.newest.send_replace(sequence);
    }

    fn skip(&self, missed: u64) {
        self.lock().newest += missed;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is ever half done in there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads findings in their order.
#[derive(Debug)]
pub struct Reader {
    history: History,
    news: watch::Receiver<u64>,
    cursor: u64,
}

impl Reader {
    /// What there is after what was read last; empty if there is nothing yet.
    pub fn read(&mut self) -> Vec<Entry> {
        // What comes while this reads is news for the next wait.
        self.news.mark_unchanged();
        let state = self.history.lock();
        let start = state
            .kept
            .partition_point(|kept| kept.sequence <= self.cursor);
        let mut entries = Vec::new();
        for kept in state.kept.iter().skip(start).take(BATCH) {
            let missed = kept.sequence - self.cursor - 1;
            if missed > 0 {
                entries.push(Entry::Missed(missed));
            }
            entries.push(Entry::Finding(kept.clone()));
            self.cursor = kept.sequence;
        }
        entries
    }

    /// Waits until there is something to read. Returns whether there can be.
    pub async fn wait(&mut self) -> bool {
        self.news.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(second: u64) -> Arc<FindingRecord> {
        let text = format!(
            r#"{{"time":"2026-11-20T02:00:{second:02}Z","finding":"moved","severity":"notice",
                "interface":"eth0","vlan":"0","ip":"192.0.2.10","since":"2026-11-20T02:00:00Z",
                "owners":[],"counts":{{"duplicate_replies":0,"returns":0,"local":0,"confirmed":0,
                "held_back":0}}}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    fn read_all(reader: &mut Reader) -> (Vec<u64>, u64) {
        let (mut numbers, mut missed) = (Vec::new(), 0);
        loop {
            let entries = reader.read();
            if entries.is_empty() {
                return (numbers, missed);
            }
            for entry in entries {
                match entry {
                    Entry::Finding(finding) => numbers.push(finding.sequence),
                    Entry::Missed(number) => missed += number,
                }
            }
        }
    }

    #[test]
    fn a_reader_begins_where_it_wants() {
        let history = History::default();
        for second in 1..=5 {
            history.push(record(second));
        }
        for (since, expected) in [
            (Since::Sequence(0), &[1, 2, 3, 4, 5, 6][..]),
            (Since::Sequence(3), &[4, 5, 6]),
            (Since::Sequence(99), &[]),
            (Since::Time(record(4).time), &[4, 5, 6]),
            (Since::Time(record(30).time), &[6]),
            (Since::Now, &[6]),
        ] {
            let history = History {
                state: Arc::new(Mutex::new(State {
                    kept: history.lock().kept.clone(),
                    newest: 5,
                })),
                newest: watch::Sender::new(5),
            };
            let mut reader = history.reader(since);
            history.push(record(6));
            assert_eq!(read_all(&mut reader).0, expected, "{since:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_gone_is_told() {
        let history = History::default();
        let mut slow = history.reader(Since::Now);
        for _ in 0..KEPT + 7 {
            history.push(record(1));
        }
        assert_eq!(history.lock().kept.len(), KEPT);
        let (numbers, missed) = read_all(&mut slow);
        assert_eq!((numbers.len(), numbers[0], missed), (KEPT, 8, 7));
        assert_eq!(read_all(&mut slow), (vec![], 0));
    }

    #[test]
    fn what_the_daemon_missed_itself_is_told_too() {
        let history = History::default();
        let mut reader = history.reader(Since::Now);
        history.push(record(1));
        history.skip(3);
        history.push(record(2));
        assert_eq!(read_all(&mut reader), (vec![1, 5], 3));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_the_next_finding() {
        let history = History::default();
        let mut reader = history.reader(Since::Now);
        assert!(reader.read().is_empty());
        history.push(record(1));
        assert!(reader.wait().await);
        assert_eq!(reader.read().len(), 1);
    }

    #[test]
    fn a_numbered_finding_is_a_finding_with_a_number() {
        let numbered = Numbered {
            sequence: 7,
            record: (*record(1)).clone(),
        };
        let line = serde_json::to_string(&numbered).unwrap();
        assert!(line.starts_with(r#"{"sequence":7,"time":""#), "{line}");
        let read: Numbered<FindingRecord> = serde_json::from_str(&line).unwrap();
        assert_eq!(read, numbered);
    }
}
