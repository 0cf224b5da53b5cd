//! The flags of the metrics.

use clap::{Args, builder::RangedU64ValueParser};

use crate::daemon::segments::SegmentName;

/// What the metrics say of single addresses.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsArguments {
    /// What a network is called across nodes; repeat it for each. Without it: the connected network, like
    /// 192.0.2.0/24
    #[arg(long = "segment", value_name = "IFACE[.VID]=NAME")]
    pub segments: Vec<SegmentName>,

    /// Addresses of each kind (in conflict, contested, tracked) that get series of their own; what does not fit
    /// is counted
    #[arg(long = "metrics-addresses", value_name = "N", default_value_t = 10_000, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    pub addresses: usize,
}
