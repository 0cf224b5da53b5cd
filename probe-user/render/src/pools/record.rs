//! A verdict with the names that the world outside knows.

use std::net::IpAddr;

use probe_model::escape_untrusted;
use probe_pools::{
    AddressPlan, PoolFinding, PoolFindingCode, PoolFindingLevel, PoolInventory, PoolsVerdict,
    SourceLocation,
    finding::{PoolRange, ShareRange},
    interval::Interval,
    usage,
    usage::FamilyCounts,
};
use serde::Serialize;

use super::text;

/// Everything that checking pools has to say: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, Serialize)]
pub struct PoolsReport {
    /// Whether everything could be read.
    pub complete: bool,
    /// What is wrong.
    pub findings: Vec<PoolFindingRecord>,
    /// Overlaps that are not among them, because there are too many.
    pub more: u64,
    /// What could not be read.
    pub unread: Vec<UnreadRecord>,
    /// The clusters, in the order of reading.
    pub clusters: Vec<ClusterPoolsRecord>,
    /// Their pools, in the order of reading.
    pub pools: Vec<PoolUsageRecord>,
}

/// A finding.
#[derive(Clone, Debug, Serialize)]
pub struct PoolFindingRecord {
    /// Which.
    pub finding: PoolFindingCode,
    /// How bad.
    pub level: PoolFindingLevel,
    /// In words.
    pub message: String,
    /// The first of the addresses that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<IpAddr>,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<IpAddr>,
    /// Where: what it is about, then what that collides with.
    pub places: Vec<PlaceRecord>,
    /// What to do.
    pub next: &'static str,
}

/// A place in a file, and what is there.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceRecord {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The cluster it belongs to, if it belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// What defines it.
    pub kind: &'static str,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is written there, if it is a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
}

/// Something that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct UnreadRecord {
    /// The file.
    pub file: String,
    /// From 1; missing where the whole file could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// In characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Why.
    pub reason: String,
}

/// Numbers of addresses, each counted once. Larger numbers than 2^64 - 1 are that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UsageRecord {
    /// IPv4 addresses.
    pub ipv4: u64,
    /// IPv6 addresses.
    pub ipv6: u64,
}

/// A cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterPoolsRecord {
    /// Its name.
    pub cluster: String,
    /// How many pools it has.
    pub pools: usize,
    /// Their addresses.
    pub addresses: UsageRecord,
    /// What the plan gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<UsageRecord>,
    /// How much of that is in its pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_used: Option<UsageRecord>,
    #[serde(skip)]
    pub(super) exact: ExactCounts,
}

/// What people see: numbers without a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExactCounts {
    pub amount: FamilyCounts,
    pub planned: Option<FamilyCounts>,
    pub planned_used: FamilyCounts,
}

/// A pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolUsageRecord {
    /// Its cluster.
    pub cluster: String,
    /// What defines it.
    pub kind: &'static str,
    /// Where it lives, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
    /// Where its name stands, from 1.
    pub line: usize,
    /// Its addresses.
    pub addresses: UsageRecord,
    #[serde(skip)]
    pub(super) exact: FamilyCounts,
}

impl PoolsReport {
    /// Puts names to a verdict.
    pub fn new(inventory: &PoolInventory, plan: &AddressPlan, verdict: &PoolsVerdict) -> Self {
        let named = RecordBuilder { inventory, plan };
        let unread = inventory.unread.iter().map(|unread| UnreadRecord {
            file: inventory.files[unread.file].clone(),
            line: unread.mark.map(|mark| mark.line),
            column: unread.mark.map(|mark| mark.column),
            reason: escape_untrusted(&unread.error.to_string()).into_owned(),
        });
        Self {
            complete: inventory.unread.is_empty(),
            findings: verdict
                .findings
                .iter()
                .map(|one| named.finding(one))
                .collect(),
            more: verdict.more,
            unread: unread.collect(),
            clusters: named.clusters(),
            pools: named.pools(),
        }
    }

    /// How many findings are this bad; overlaps that are not told one by one are errors too.
    pub fn number(&self, level: PoolFindingLevel) -> u64 {
        let told = self
            .findings
            .iter()
            .filter(|one| one.level == level)
            .count() as u64;
        match level {
            PoolFindingLevel::Error => told + self.more,
            PoolFindingLevel::Warning => told,
        }
    }
}

impl From<FamilyCounts> for UsageRecord {
    fn from(amount: FamilyCounts) -> Self {
        let number = |exact| u64::try_from(exact).unwrap_or(u64::MAX);
        Self {
            ipv4: number(amount.v4),
            ipv6: number(amount.v6),
        }
    }
}

#[derive(Clone, Copy)]
struct RecordBuilder<'a> {
    inventory: &'a PoolInventory,
    plan: &'a AddressPlan,
}

impl RecordBuilder<'_> {
    fn finding(self, finding: &PoolFinding) -> PoolFindingRecord {
        let Self { inventory, plan } = self;
        let addresses = addresses(inventory, finding);
        let code = finding.code(inventory);
        PoolFindingRecord {
            finding: code,
            level: code.level(),
            // Whoever writes manifests writes no lines of a log.
            message: escape_untrusted(&text::message(inventory, plan, finding)).into_owned(),
            first: addresses.map(|interval| interval.first()),
            last: addresses.map(|interval| interval.last()),
            places: self.locations(finding),
            next: text::next_of(inventory, finding),
        }
    }

    fn locations(self, finding: &PoolFinding) -> Vec<PlaceRecord> {
        let Self { inventory, plan } = self;
        match *finding {
            PoolFinding::Overlap { one, other, .. } => vec![self.range(one), self.range(other)],
            PoolFinding::ReservedOverlap {
                range, reserved, ..
            } => {
                let reserved = &plan.reserved[reserved];
                let name = reserved.name.clone();
                let written = Some(reserved.range.text.clone());
                let mut record = self.plan_place(reserved.range.place, written);
                record.name = name.or_else(|| Some(reserved.purpose.label().to_owned()));
                record.cluster.clone_from(&reserved.cluster);
                vec![self.range(range), record]
            }
            PoolFinding::PlanOverlap { one, other, .. } => vec![self.share(one), self.share(other)],
            PoolFinding::OutsidePlan { range, share, .. } => {
                let share = &plan.shares[share];
                let mut record = self.plan_place(share.place, None);
                record.cluster = Some(share.cluster.clone());
                vec![self.range(range), record]
            }
            PoolFinding::MissingPrefix { range }
            | PoolFinding::HostBits { range }
            | PoolFinding::AvoidedAddress { range, .. } => vec![self.range(range)],
            PoolFinding::InvalidRange { pool, fault } => {
                let fault = &inventory.pools[pool].faults[fault];
                vec![PlaceRecord {
                    range: Some(fault.text.clone()),
                    ..self.pool_at(pool, fault.place)
                }]
            }
            PoolFinding::InvalidPlanRange { fault } => {
                let fault = &plan.faults[fault];
                vec![self.plan_place(fault.place, Some(fault.text.clone()))]
            }
            PoolFinding::DuplicatePool { first, again } => vec![self.pool(again), self.pool(first)],
            PoolFinding::NotInPlan { pool }
            | PoolFinding::EmptyPool { pool }
            | PoolFinding::Unadvertised { pool } => vec![self.pool(pool)],
            PoolFinding::UnknownPool { advertisement, .. }
            | PoolFinding::IdleSelector { advertisement, .. } => {
                let found = &inventory.advertisements[advertisement];
                let (place, _) = finding.locations(inventory, plan);
                vec![PlaceRecord {
                    cluster: Some(inventory.clusters[found.cluster].clone()),
                    kind: found.kind.label(),
                    name: Some(found.name.clone()),
                    ..self.place(place)
                }]
            }
        }
    }

    fn range(self, range: PoolRange) -> PlaceRecord {
        let written = self.inventory.range(range);
        PlaceRecord {
            range: Some(written.text.clone()),
            ..self.pool_at(range.pool, written.place)
        }
    }

    fn share(self, of: ShareRange) -> PlaceRecord {
        let share = &self.plan.shares[of.share];
        let written = &share.ranges[of.range];
        PlaceRecord {
            cluster: Some(share.cluster.clone()),
            ..self.plan_place(written.place, Some(written.text.clone()))
        }
    }

    fn pool(self, pool: usize) -> PlaceRecord {
        self.pool_at(pool, self.inventory.pools[pool].place)
    }

    fn pool_at(self, pool: usize, place: SourceLocation) -> PlaceRecord {
        let pool = &self.inventory.pools[pool];
        PlaceRecord {
            cluster: Some(self.inventory.clusters[pool.cluster].clone()),
            kind: pool.kind.label(),
            name: Some(pool.name.clone()),
            ..self.place(place)
        }
    }

    fn plan_place(self, place: SourceLocation, range: Option<String>) -> PlaceRecord {
        PlaceRecord {
            range,
            ..self.place(place)
        }
    }

    /// A place of the plan, until it is told to be something else.
    fn place(self, place: SourceLocation) -> PlaceRecord {
        PlaceRecord {
            file: self.inventory.files[place.file].clone(),
            line: place.mark.line,
            column: place.mark.column,
            cluster: None,
            kind: "plan",
            name: None,
            range: None,
        }
    }

    fn clusters(self) -> Vec<ClusterPoolsRecord> {
        let usage = usage::of_clusters(self.inventory, self.plan).into_iter();
        usage
            .map(|usage| ClusterPoolsRecord {
                cluster: self.inventory.clusters[usage.cluster].clone(),
                pools: usage.pools,
                addresses: usage.amount.into(),
                planned: usage.planned.map(Into::into),
                planned_used: usage.planned.map(|_| usage.planned_used.into()),
                exact: ExactCounts {
                    amount: usage.amount,
                    planned: usage.planned,
                    planned_used: usage.planned_used,
                },
            })
            .collect()
    }

    fn pools(self) -> Vec<PoolUsageRecord> {
        let pools = self.inventory.pools.iter();
        pools
            .map(|pool| {
                let amount = FamilyCounts::of_pool(pool);
                PoolUsageRecord {
                    cluster: self.inventory.clusters[pool.cluster].clone(),
                    kind: pool.kind.label(),
                    namespace: pool.namespace.clone(),
                    name: pool.name.clone(),
                    file: self.inventory.files[pool.place.file].clone(),
                    line: pool.place.mark.line,
                    addresses: amount.into(),
                    exact: amount,
                }
            })
            .collect()
    }
}

/// The addresses that a finding is about, if it is about addresses.
fn addresses(inventory: &PoolInventory, finding: &PoolFinding) -> Option<Interval> {
    match *finding {
        PoolFinding::Overlap { common, .. }
        | PoolFinding::ReservedOverlap { common, .. }
        | PoolFinding::PlanOverlap { common, .. } => Some(common),
        PoolFinding::OutsidePlan { first, .. } | PoolFinding::AvoidedAddress { first, .. } => {
            Some(first)
        }
        PoolFinding::MissingPrefix { range } | PoolFinding::HostBits { range } => {
            Some(inventory.range(range).interval)
        }
        PoolFinding::InvalidRange { .. }
        | PoolFinding::InvalidPlanRange { .. }
        | PoolFinding::DuplicatePool { .. }
        | PoolFinding::NotInPlan { .. }
        | PoolFinding::EmptyPool { .. }
        | PoolFinding::UnknownPool { .. }
        | PoolFinding::IdleSelector { .. }
        | PoolFinding::Unadvertised { .. } => None,
    }
}
