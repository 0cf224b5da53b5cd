//! The reasons for which a frame is bogus.

use probe_common::wire::BogusFrameReason;
use serde::Serialize;

/// Why a frame is bogus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BogusReason {
    /// A reason in the frame itself.
    Frame(BogusFrameReason),
    /// The sender protocol address is the broadcast address of a connected network.
    SpaNetworkBroadcast,
}

impl BogusReason {
    /// The label in metrics, JSON and the docs.
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
