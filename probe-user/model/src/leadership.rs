//! Whether this agent is the leader of its cluster, and which agent was it before.

use jiff::Timestamp;

/// The role of this agent in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Another agent is the leader, or none is.
    #[default]
    Follower,
    /// This agent is the leader.
    Leader(Predecessor),
}

/// The agent that was the leader before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// There is no record of any: the Lease is new.
    Unknown,
    /// This process: no other agent was the leader in between.
    ThisProcess,
    /// Another agent.
    Other {
        /// When it last renewed the Lease, by its own clock.
        last_renewal: Timestamp,
    },
}
