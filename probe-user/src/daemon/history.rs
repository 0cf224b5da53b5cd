//! The last findings of the daemon, numbered. Readers have no queue of their own: each stores the number of the last
//! finding that it read, so a slow or dead reader costs nothing, and the number of missed findings is known.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use probe_model::FindingRecord;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

/// Maximum number of stored findings.
pub const CAPACITY: usize = 10_000;
/// Maximum number of findings per read.
const BATCH: usize = 256;

/// A finding with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequencedRecord<R> {
    /// The number, from 1. Lost findings leave a gap.
    pub sequence: u64,
    /// The finding.
    #[serde(flatten)]
    pub record: R,
}

/// The position at which a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryStart {
    /// After the finding with this number.
    Sequence(u64),
    /// From this time on.
    Time(Timestamp),
    /// Only new findings.
    Now,
}

/// An entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryEntry {
    /// A finding.
    Finding(SequencedRecord<Arc<FindingRecord>>),
    /// The number of findings that are not, or were never, in memory.
    Missed(u64),
}

/// The findings. Clones share them.
#[derive(Clone, Debug)]
pub struct FindingHistory {
    state: Arc<Mutex<HistoryState>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct HistoryState {
    records: VecDeque<SequencedRecord<Arc<FindingRecord>>>,
    newest: u64,
}

impl Default for FindingHistory {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            newest: watch::Sender::new(0),
        }
    }
}

impl FindingHistory {
    /// Records findings until the monitor ends.
    pub async fn record_findings(self, mut findings: broadcast::Receiver<Arc<FindingRecord>>) {
        loop {
            match findings.recv().await {
                Ok(record) => self.push(record),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.skip(missed),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// A reader that starts at this position.
    pub fn reader(&self, since: HistoryStart) -> HistoryReader {
        let cursor = match since {
            HistoryStart::Sequence(sequence) => sequence,
            HistoryStart::Now => self.lock().newest,
            HistoryStart::Time(time) => {
                let state = self.lock();
                let first = state
                    .records
                    .iter()
                    .find(|records| records.record.time >= time);
                first.map_or(state.newest, |first| first.sequence - 1)
            }
        };
        HistoryReader {
            history: self.clone(),
            newest: self.newest.subscribe(),
            cursor,
        }
    }

    fn push(&self, record: Arc<FindingRecord>) {
        let mut state = self.lock();
        state.newest += 1;
        let sequence = state.newest;
        if state.records.len() == CAPACITY {
            state.records.pop_front();
        }
        state
            .records
            .push_back(SequencedRecord { sequence, record });
        drop(state);
        self.newest.send_replace(sequence);
    }

    fn skip(&self, missed: u64) {
        self.lock().newest += missed;
    }

    fn lock(&self) -> MutexGuard<'_, HistoryState> {
        // The value is consistent at any time, even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads findings in order.
#[derive(Debug)]
pub struct HistoryReader {
    history: FindingHistory,
    newest: watch::Receiver<u64>,
    cursor: u64,
}

impl HistoryReader {
    /// The entries after the last read; empty if there are none yet.
    pub fn read(&mut self) -> Vec<HistoryEntry> {
        // Findings that arrive during the read wake the next wait.
        self.newest.mark_unchanged();
        let state = self.history.lock();
        let start = state
            .records
            .partition_point(|records| records.sequence <= self.cursor);
        let mut entries = Vec::new();
        for records in state.records.iter().skip(start).take(BATCH) {
            let missed = records.sequence - self.cursor - 1;
            if missed > 0 {
                entries.push(HistoryEntry::Missed(missed));
            }
            entries.push(HistoryEntry::Finding(records.clone()));
            self.cursor = records.sequence;
        }
        entries
    }

    /// Waits for new entries. Returns false if there will be none.
    pub async fn wait(&mut self) -> bool {
        self.newest.changed().await.is_ok()
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
                "suppressed":0}}}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    fn read_all(reader: &mut HistoryReader) -> (Vec<u64>, u64) {
        let (mut numbers, mut missed) = (Vec::new(), 0);
        loop {
            let entries = reader.read();
            if entries.is_empty() {
                return (numbers, missed);
            }
            for entry in entries {
                match entry {
                    HistoryEntry::Finding(finding) => numbers.push(finding.sequence),
                    HistoryEntry::Missed(number) => missed += number,
                }
            }
        }
    }

    #[test]
    fn reader_starts_at_the_requested_position() {
        let history = FindingHistory::default();
        for second in 1..=5 {
            history.push(record(second));
        }
        for (since, expected) in [
            (HistoryStart::Sequence(0), &[1, 2, 3, 4, 5, 6][..]),
            (HistoryStart::Sequence(3), &[4, 5, 6]),
            (HistoryStart::Sequence(99), &[]),
            (HistoryStart::Time(record(4).time), &[4, 5, 6]),
            (HistoryStart::Time(record(30).time), &[6]),
            (HistoryStart::Now, &[6]),
        ] {
            let history = FindingHistory {
                state: Arc::new(Mutex::new(HistoryState {
                    records: history.lock().records.clone(),
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
    fn memory_is_bounded_and_missed_findings_are_counted() {
        let history = FindingHistory::default();
        let mut slow = history.reader(HistoryStart::Now);
        for _ in 0..CAPACITY + 7 {
            history.push(record(1));
        }
        assert_eq!(history.lock().records.len(), CAPACITY);
        let (numbers, missed) = read_all(&mut slow);
        assert_eq!((numbers.len(), numbers[0], missed), (CAPACITY, 8, 7));
        assert_eq!(read_all(&mut slow), (vec![], 0));
    }

    #[test]
    fn findings_missed_by_the_daemon_are_counted_too() {
        let history = FindingHistory::default();
        let mut reader = history.reader(HistoryStart::Now);
        history.push(record(1));
        history.skip(3);
        history.push(record(2));
        assert_eq!(read_all(&mut reader), (vec![1, 5], 3));
    }

    #[tokio::test]
    async fn waiting_reader_wakes_on_the_next_finding() {
        let history = FindingHistory::default();
        let mut reader = history.reader(HistoryStart::Now);
        assert!(reader.read().is_empty());
        history.push(record(1));
        assert!(reader.wait().await);
        assert_eq!(reader.read().len(), 1);
    }

    #[test]
    fn a_numbered_finding_is_a_finding_with_a_number() {
        let numbered = SequencedRecord {
            sequence: 7,
            record: (*record(1)).clone(),
        };
        let line = serde_json::to_string(&numbered).unwrap();
        assert!(line.starts_with(r#"{"sequence":7,"time":""#), "{line}");
        let read: SequencedRecord<FindingRecord> = serde_json::from_str(&line).unwrap();
        assert_eq!(read, numbered);
    }
}
