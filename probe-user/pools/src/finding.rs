//! The findings of checking pools.

use probe_common::label_enum;

use super::{
    interval::Interval,
    model::{PoolInventory, SourceLocation, WrittenRange},
    plan::AddressPlan,
};

label_enum! {
    /// The code of a finding.
    pub enum PoolFindingCode {
        /// Pools of two clusters have addresses in common.
        ClusterOverlap = "cluster_overlap",
        /// Two pools of a cluster have addresses in common.
        PoolOverlap = "pool_overlap",
        /// Two ranges of a pool have addresses in common.
        RangeOverlap = "range_overlap",
        /// A pool contains addresses that the plan reserves for another use.
        ReservedOverlap = "reserved_overlap",
        /// The plan gives the same addresses to two clusters.
        PlanOverlap = "plan_overlap",
        /// A pool contains addresses that the plan does not give to its cluster.
        OutsidePlan = "outside_plan",
        /// An invalid range.
        InvalidRange = "invalid_range",
        /// An address where a CIDR is required; the controller rejects it.
        MissingPrefix = "missing_prefix",
        /// Two pools of a cluster have the same name: one replaces the other.
        DuplicatePool = "duplicate_pool",
        /// The plan does not contain this cluster.
        NotInPlan = "not_in_plan",
        /// A CIDR with host bits set.
        HostBits = "host_bits",
        /// A pool assigns addresses that end in .0 or .255.
        AvoidedAddress = "buggy_address",
        /// A pool without addresses.
        EmptyPool = "empty_pool",
        /// An advertisement names a pool that does not exist.
        UnknownPool = "unknown_pool",
        /// A selector of an advertisement selects no pool.
        IdleSelector = "unmatched_selector",
        /// No advertisement announces this pool.
        Unadvertised = "unadvertised_pool",
    }
}

label_enum! {
    /// The level of a finding, with the values of SARIF.
    pub enum PoolFindingLevel {
        /// It breaks the network, or is rejected: the exit status is 1.
        Error = "error",
        /// Probably not intended.
        Warning = "warning",
    }
}

impl PoolFindingCode {
    /// The level of findings with this code.
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
            // Otherwise a renamed directory would disable the plan.
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

/// A finding. It refers to pools, ranges and plan entries by their indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolFinding {
    /// Two ranges of pools overlap: in one pool, one cluster, or two clusters.
    Overlap {
        /// Pool and range.
        one: PoolRange,
        /// Pool and range.
        other: PoolRange,
        /// The common addresses.
        common: Interval,
    },
    /// A range of a pool contains addresses that the plan reserves for another use.
    ReservedOverlap {
        /// Pool and range.
        range: PoolRange,
        /// The index of the reserved range in the plan.
        reserved: usize,
        /// The common addresses.
        common: Interval,
    },
    /// The plan gives the same addresses to two clusters.
    PlanOverlap {
        /// Share and range.
        one: ShareRange,
        /// Share and range.
        other: ShareRange,
        /// The common addresses.
        common: Interval,
    },
    /// A range of a pool is not, or not completely, in the ranges that the plan gives to the cluster.
    OutsidePlan {
        /// Pool and range.
        range: PoolRange,
        /// The index of the share in the plan.
        share: usize,
        /// The first addresses outside the plan.
        first: Interval,
        /// The number of addresses outside the plan.
        addresses: u128,
    },
    /// The plan has shares, but none for this cluster.
    NotInPlan {
        /// Its first pool.
        pool: usize,
    },
    /// A pool has an invalid range.
    InvalidRange {
        /// The pool.
        pool: usize,
        /// The index of the invalid range.
        range: usize,
    },
    /// The plan has an invalid range.
    InvalidPlanRange {
        /// The index of the invalid range.
        range: usize,
    },
    /// An address where a CIDR is required.
    MissingPrefix {
        /// Pool and range.
        range: PoolRange,
    },
    /// A CIDR with host bits set.
    HostBits {
        /// Pool and range.
        range: PoolRange,
    },
    /// Two pools of a cluster have one name.
    DuplicatePool {
        /// The first.
        first: usize,
        /// The later pool with the same name.
        duplicate: usize,
    },
    /// A pool assigns addresses that end in .0 or .255.
    AvoidedAddress {
        /// The pool, and its first range with such an address.
        range: PoolRange,
        /// The first such addresses.
        first: Interval,
        /// The number of such addresses.
        addresses: u128,
    },
    /// A pool without addresses.
    EmptyPool {
        /// The pool.
        pool: usize,
    },
    /// An advertisement names a pool that does not exist.
    UnknownPool {
        /// The advertisement.
        advertisement: usize,
        /// The index of the name in the advertisement.
        name: usize,
    },
    /// A selector selects no pool.
    IdleSelector {
        /// The advertisement.
        advertisement: usize,
        /// The index of the selector in the advertisement.
        selector: usize,
    },
    /// No advertisement announces a pool.
    Unadvertised {
        /// The pool.
        pool: usize,
    },
}

/// A range of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRange {
    /// The index of the pool.
    pub pool: usize,
    /// The index of the range.
    pub range: usize,
}

/// A range that the plan gives to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareRange {
    /// The index of the share.
    pub share: usize,
    /// The index of the range.
    pub range: usize,
}

impl PoolInventory {
    /// A range of a pool.
    pub fn range(&self, range: PoolRange) -> &WrittenRange {
        &self.pools[range.pool].ranges[range.range]
    }
}

impl PoolFinding {
    /// The code of the finding.
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

    /// The locations of the finding: the subject first, then the colliding entry.
    pub fn locations(
        &self,
        inventory: &PoolInventory,
        plan: &AddressPlan,
    ) -> (SourceLocation, Option<SourceLocation>) {
        let range = |range| inventory.range(range).location;
        let pool = |pool: usize| inventory.pools[pool].location;
        let share = |of: ShareRange| plan.shares[of.share].ranges[of.range].location;
        match *self {
            Self::Overlap { one, other, .. } => (range(one), Some(range(other))),
            Self::ReservedOverlap {
                range: of,
                reserved,
                ..
            } => (range(of), Some(plan.reserved[reserved].range.location)),
            Self::PlanOverlap { one, other, .. } => (share(one), Some(share(other))),
            Self::OutsidePlan {
                range: of,
                share: whose,
                ..
            } => (range(of), Some(plan.shares[whose].location)),
            Self::InvalidRange { pool, range } => {
                (inventory.pools[pool].invalid_ranges[range].location, None)
            }
            Self::InvalidPlanRange { range } => (plan.invalid_ranges[range].location, None),
            Self::MissingPrefix { range: of }
            | Self::HostBits { range: of }
            | Self::AvoidedAddress { range: of, .. } => (range(of), None),
            Self::DuplicatePool { first, duplicate } => (pool(duplicate), Some(pool(first))),
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
                (selectors[selector].location, None)
            }
        }
    }
}
