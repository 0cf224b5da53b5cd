//! What checking pools concludes.

use probe_common::label_enum;

use super::{
    interval::Interval,
    model::{Inventory, Place, Range},
    plan::Plan,
};

label_enum! {
    /// The kinds of finding.
    pub enum Code {
        /// Pools of two clusters have addresses in common.
        ClusterOverlap = "cluster_overlap",
        /// Two pools of a cluster have addresses in common.
        PoolOverlap = "pool_overlap",
        /// Two ranges of a pool have addresses in common.
        RangeOverlap = "range_overlap",
        /// A pool has addresses that the plan keeps for something else.
        KeptOverlap = "kept_overlap",
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
        BuggyAddress = "buggy_address",
        /// A pool without addresses.
        EmptyPool = "empty_pool",
        /// An advertisement names a pool that is not there.
        UnknownPool = "unknown_pool",
        /// A selector of an advertisement selects no pool.
        IdleSelector = "idle_selector",
        /// No advertisement announces this pool.
        Unadvertised = "unadvertised_pool",
    }
}

label_enum! {
    /// How bad a finding is; SARIF's words.
    pub enum Level {
        /// It breaks the network, or is refused: the exit status is 1.
        Error = "error",
        /// Hardly what was meant.
        Warning = "warning",
    }
}

impl Code {
    /// How bad it is.
    pub const fn level(self) -> Level {
        match self {
            Self::ClusterOverlap
            | Self::PoolOverlap
            | Self::RangeOverlap
            | Self::KeptOverlap
            | Self::PlanOverlap
            | Self::OutsidePlan
            | Self::InvalidRange
            | Self::MissingPrefix
            | Self::DuplicatePool
            // A folder with another name would turn the plan off.
            | Self::NotInPlan => Level::Error,
            Self::HostBits
            | Self::BuggyAddress
            | Self::EmptyPool
            | Self::UnknownPool
            | Self::IdleSelector
            | Self::Unadvertised => Level::Warning,
        }
    }
}

/// A finding. Things are named by their numbers in what was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
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
    Kept {
        /// Pool and range.
        range: PoolRange,
        /// Which of the plan's kept ranges.
        kept: usize,
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
    BuggyAddress {
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

impl Inventory {
    /// A range of a pool.
    pub fn range(&self, range: PoolRange) -> &Range {
        &self.pools[range.pool].ranges[range.range]
    }
}

impl Finding {
    /// Its kind.
    pub fn code(&self, inventory: &Inventory) -> Code {
        match self {
            Self::Overlap { one, other, .. } => {
                let [one_cluster, other_cluster] =
                    [one, other].map(|range| inventory.pools[range.pool].cluster);
                if one_cluster != other_cluster {
                    Code::ClusterOverlap
                } else if one.pool != other.pool {
                    Code::PoolOverlap
                } else {
                    Code::RangeOverlap
                }
            }
            Self::Kept { .. } => Code::KeptOverlap,
            Self::PlanOverlap { .. } => Code::PlanOverlap,
            Self::OutsidePlan { .. } => Code::OutsidePlan,
            Self::NotInPlan { .. } => Code::NotInPlan,
            Self::InvalidRange { .. } | Self::InvalidPlanRange { .. } => Code::InvalidRange,
            Self::MissingPrefix { .. } => Code::MissingPrefix,
            Self::HostBits { .. } => Code::HostBits,
            Self::DuplicatePool { .. } => Code::DuplicatePool,
            Self::BuggyAddress { .. } => Code::BuggyAddress,
            Self::EmptyPool { .. } => Code::EmptyPool,
            Self::UnknownPool { .. } => Code::UnknownPool,
            Self::IdleSelector { .. } => Code::IdleSelector,
            Self::Unadvertised { .. } => Code::Unadvertised,
        }
    }

    /// Where it is: what it is about, and what that collides with.
    pub fn places(&self, inventory: &Inventory, plan: &Plan) -> (Place, Option<Place>) {
        let range = |range| inventory.range(range).place;
        let pool = |pool: usize| inventory.pools[pool].place;
        let share = |of: ShareRange| plan.shares[of.share].ranges[of.range].place;
        match *self {
            Self::Overlap { one, other, .. } => (range(one), Some(range(other))),
            Self::Kept {
                range: of, kept, ..
            } => (range(of), Some(plan.kept[kept].range.place)),
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
            | Self::BuggyAddress { range: of, .. } => (range(of), None),
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
