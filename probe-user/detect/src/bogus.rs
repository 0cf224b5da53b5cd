//! Frames without a valid claim: one report for each sender and reason, then only counts for a while.

use probe_common::wire::MacAddr;
use probe_model::{BogusReason, Segment, Timestamp};

use super::{BogusFrame, DetectConfig, recent::RecentMap};

/// How many senders are remembered.
const MAX_SENDERS: usize = 4096;

/// The senders of bogus frames that were reported lately, with the number of frames suppressed since.
#[derive(Debug, Default)]
pub(super) struct BogusSenders(RecentMap<(Segment, MacAddr, BogusReason), u64, MAX_SENDERS>);

impl BogusSenders {
    /// Whether a bogus frame is to be reported, and then how many before it were not.
    pub fn report(
        &mut self,
        segment: Segment,
        frame: &BogusFrame,
        at: Timestamp,
        config: &DetectConfig,
    ) -> Option<u64> {
        let key = (segment, frame.eth_src, frame.reason);
        let mut suppressed = 0;
        if let Some((reported, suppressed_since)) = self.0.get_mut(&key) {
            if at.since(*reported) < config.bogus_interval {
                *suppressed_since += 1;
                return None;
            }
            suppressed = *suppressed_since;
        }
        self.0.insert(key, at, 0);
        Some(suppressed)
    }

    /// Forgets everything: the clock was set back.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
