//! What checking pools concludes.

use probe_common::label_enum;

use super::{
    interval::Interval,
    model::{PoolInventory, SourceLocation, WrittenRange},
    plan::AddressPlan,
};

label_enum! {
    /// The kinds of finding.
    pub enum PoolFindingCode {
        /// Pools of two clusters have addresses in common.
        ClusterOverlap = "cluster_overlap",
        /// Two pools of a cluster have addresses in common.
        PoolOverlap = "pool_overlap",
        /// Two ranges of a pool have addresses in common.
        RangeOverlap = "range_overlap",
        /// A pool has addresses that the plan keeps for something else.
        ReservedOverlap = "reserved_overlap",
        /// The plan gives the same addresses to two clusters.
        PlanOverlap = "plan_overlap",
        /// A pool has addresses that the plan does not give to its cluster.
        OutsidePlan = "outside_plan",
        /// A range that is none.
        InvalidRange = "invalid_range",
        /// An address where a CIDR has to be: it is refused.
        MissingPrefix = "missing_prefix",
        /// Two pools of a cluster have the same name: one replaces the other.
        DuplicatePool = "duplicate_pool",
        /// The plan says nothing of this cluster.
        NotInPlan = "not_in_plan",
        /// A CIDR that begins before the address it is written with.
        HostBits = "host_bits",
        /// A pool hands out addresses that end in .0 or .255.
        AvoidedAddress = "buggy_address",
        /// A pool without addresses.
        EmptyPool = "empty_pool",
        /// An advertisement names a pool that is not there.
        UnknownPool = "unknown_pool",
        /// A selector of an advertisement selects no pool.
        IdleSelector = "unmatched_selector",
        /// No advertisement announces this pool.
        Unadvertised = "unadvertised_pool",
    }
}

label_enum! {
    /// How bad a finding is; SARIF's words.
    pub enum PoolFindingLevel {
        /// It breaks the network, or is refused: the exit status is 1.
        Error = "error",
        /// Hardly what was meant.
        Warning = "warning",
    }
}

impl PoolFindingCode {
    /// How bad it is.
    pub const fn level(self) -> PoolFindingLevel {
        match self {
            Self::ClusterOverlap
            | Self::PoolOverlap
            | Self::RangeOverlap
            | Self::ReservedOverlap
            | Self::PlanOverlap
            | Self::OutsidePlan
            | Self::InvalidRange
            | Self::MissingPrefix
            | Self::DuplicatePool
            // A folder with another name would turn the plan off.
            | Self::NotInPlan => PoolFindingLevel::Error,
            Self::HostBits
            | Self::AvoidedAddress
            | Self::EmptyPool
            | Self::UnknownPool
            | Self::IdleSelector
            | Self::Unadvertised => PoolFindingLevel::Warning,
        }
    }
}

/// A finding. Things are named by their numbers in what was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolFinding {
    /// Two ranges of pools have addresses in common: of one pool, of one cluster, or of two.
    Overlap {
        /// Pool and range.
        one: PoolRange,
        /// Pool and range.
        other: PoolRange,
        /// The addresses.
        common: Interval,
    },
    /// A range of a pool has addresses that the plan keeps for something else.
    ReservedOverlap {
        /// Pool and range.
        range: PoolRange,
        /// Which of the plan's kept ranges.
        reserved: usize,
        /// The addresses.
        common: Interval,
    },
    /// The plan gives the same addresses to two clusters.
    PlanOverlap {
        /// Share and range.
        one: ShareRange,
        /// Share and range.
        other: ShareRange,
        /// The addresses.
        common: Interval,
    },
    /// A range of a pool is not, or not all, in what the plan gives to the cluster.
    OutsidePlan {
        /// Pool and range.
        range: PoolRange,
        /// Which share of the plan.
        share: usize,
        /// The first addresses that are not.
        first: Interval,
        /// How many are not.
        addresses: u128,
    },
    /// The plan has shares, and none for this cluster.
    NotInPlan {
        /// Its first pool.
        pool: usize,
    },
    /// A pool has something that is no range.
    InvalidRange {
        /// The pool.
        pool: usize,
        /// Which of its faults.
        fault: usize,
    },
    /// The plan has something that is no range.
    InvalidPlanRange {
        /// Which of its faults.
        fault: usize,
    },
    /// An address where a CIDR has to be.
    MissingPrefix {
        /// Pool and range.
        range: PoolRange,
    },
    /// A CIDR that begins before the address it is written with.
    HostBits {
        /// Pool and range.
        range: PoolRange,
    },
    /// Two pools of a cluster have one name.
    DuplicatePool {
        /// The first.
        first: usize,
        /// The one that has its name too.
        again: usize,
    },
    /// A pool hands out addresses that end in .0 or .255.
    AvoidedAddress {
        /// Pool, and its first range with such an address.
        range: PoolRange,
        /// The first of them.
        first: Interval,
        /// How many.
        addresses: u128,
    },
    /// A pool without addresses.
    EmptyPool {
        /// The pool.
        pool: usize,
    },
    /// An advertisement names a pool that is not there.
    UnknownPool {
        /// The advertisement.
        advertisement: usize,
        /// Which of its names.
        name: usize,
    },
    /// A selector selects no pool.
    IdleSelector {
        /// The advertisement.
        advertisement: usize,
        /// Which of its selectors.
        selector: usize,
    },
    /// Nothing announces a pool.
    Unadvertised {
        /// The pool.
        pool: usize,
    },
}

/// A range of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRange {
    /// Which pool.
    pub pool: usize,
    /// Which of its ranges.
    pub range: usize,
}

/// A range that the plan gives to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareRange {
    /// Which share.
    pub share: usize,
    /// Which of its ranges.
    pub range: usize,
}

impl PoolInventory {
    /// A range of a pool.
    pub fn range(&self, range: PoolRange) -> &WrittenRange {
        &self.pools[range.pool].ranges[range.range]
    }
}

impl PoolFinding {
    /// Its kind.
    pub fn code(&self, inventory: &PoolInventory) -> PoolFindingCode {
        match self {
            Self::Overlap { one, other, .. } => {
                let [one_cluster, other_cluster] =
                    [one, other].map(|range| inventory.pools[range.pool].cluster);
                if one_cluster != other_cluster {
                    PoolFindingCode::ClusterOverlap
                } else if one.pool != other.pool {
                    PoolFindingCode::PoolOverlap
                } else {
                    PoolFindingCode::RangeOverlap
                }
            }
            Self::ReservedOverlap { .. } => PoolFindingCode::ReservedOverlap,
            Self::PlanOverlap { .. } => PoolFindingCode::PlanOverlap,
            Self::OutsidePlan { .. } => PoolFindingCode::OutsidePlan,
            Self::NotInPlan { .. } => PoolFindingCode::NotInPlan,
            Self::InvalidRange { .. } | Self::InvalidPlanRange { .. } => {
                PoolFindingCode::InvalidRange
            }
            Self::MissingPrefix { .. } => PoolFindingCode::MissingPrefix,
            Self::HostBits { .. } => PoolFindingCode::HostBits,
            Self::DuplicatePool { .. } => PoolFindingCode::DuplicatePool,
            Self::AvoidedAddress { .. } => PoolFindingCode::AvoidedAddress,
            Self::EmptyPool { .. } => PoolFindingCode::EmptyPool,
            Self::UnknownPool { .. } => PoolFindingCode::UnknownPool,
            Self::IdleSelector { .. } => PoolFindingCode::IdleSelector,
            Self::Unadvertised { .. } => PoolFindingCode::Unadvertised,
        }
    }

    /// Where it is: what it is about, and what that collides with.
    pub fn locations(
        &self,
        inventory: &PoolInventory,
        plan: &AddressPlan,
    ) -> (SourceLocation, Option<SourceLocation>) {
        let range = |range| inventory.range(range).place;
        let pool = |pool: usize| inventory.pools[pool].place;
        let share = |of: ShareRange| plan.shares[of.share].ranges[of.range].place;
        match *self {
            Self::Overlap { one, other, .. } => (range(one), Some(range(other))),
            Self::ReservedOverlap {
                range: of,
                reserved,
                ..
            } => (range(of), Some(plan.reserved[reserved].range.place)),
            Self::PlanOverlap { one, other, .. } => (share(one), Some(share(other))),
            Self::OutsidePlan {
                range: of,
                share: whose,
                ..
            } => (range(of), Some(plan.shares[whose].place)),
            Self::InvalidRange { pool, fault } => (inventory.pools[pool].faults[fault].place, None),
            Self::InvalidPlanRange { fault } => (plan.faults[fault].place, None),
            Self::MissingPrefix { range: of }
            | Self::HostBits { range: of }
            | Self::AvoidedAddress { range: of, .. } => (range(of), None),
            Self::DuplicatePool { first, again } => (pool(again), Some(pool(first))),
            Self::NotInPlan { pool: of }
            | Self::EmptyPool { pool: of }
            | Self::Unadvertised { pool: of } => (pool(of), None),
            Self::UnknownPool {
                advertisement,
                name,
            } => (inventory.advertisements[advertisement].pools[name].1, None),
            Self::IdleSelector {
                advertisement,
                selector,
            } => {
                let selectors = &inventory.advertisements[advertisement].selectors;
                (selectors[selector].place, None)
            }
        }
    }
}
