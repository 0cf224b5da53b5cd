//! Why a frame is not a valid claim.

use probe_common::wire::Bogus;
use serde::Serialize;

/// Why a frame makes no valid claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BogusReason {
    /// The frame alone says so.
    Frame(Bogus),
    /// spa is the broadcast address of a connected network.
    SpaNetworkBroadcast,
}

impl BogusReason {
    /// The word used in metrics, JSON and the docs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Frame(reason) => reason.label(),
            Self::SpaNetworkBroadcast => "spa_network_broadcast",
        }
    }
}

impl Serialize for BogusReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}
