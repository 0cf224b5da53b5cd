//! The flags of the metrics.

use clap::{Args, builder::RangedU64ValueParser};

use crate::daemon::segments::SegmentName;

/// The settings of per-address metrics.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsArguments {
    /// Name of a network across nodes; repeatable [default: the connected network, like 192.0.2.0/24]
    #[arg(long = "segment", value_name = "IFACE[.VID]=NAME")]
    pub segments: Vec<SegmentName>,

    /// Maximum number of addresses with series of their own, for each of: in conflict, contested, tracked
    #[arg(long = "metrics-addresses", value_name = "N", default_value_t = 10_000, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    pub addresses: usize,
}
