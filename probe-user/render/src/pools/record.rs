//! The report with names instead of indices, as it is written in JSON.

use std::net::IpAddr;

use probe_model::escape_untrusted;
use probe_pools::{
    AddressPlan, PoolFinding, PoolFindingCode, PoolFindingLevel, PoolInventory, PoolsEvaluation,
    SourceLocation,
    finding::{PoolRange, ShareRange},
    interval::Interval,
    usage,
    usage::FamilyCounts,
};
use serde::Serialize;

use super::text;

/// The report of `probe pools check`: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, Serialize)]
pub struct PoolsReport {
    /// Whether everything could be read.
    pub complete: bool,
    /// The findings.
    pub findings: Vec<PoolFindingRecord>,
    /// The number of overlaps that are not listed.
    pub more: u64,
    /// The parts that could not be read.
    pub unread: Vec<UnreadRecord>,
    /// The clusters, in the order of reading.
    pub clusters: Vec<ClusterPoolsRecord>,
    /// Their pools, in the order of reading.
    pub pools: Vec<PoolUsageRecord>,
}

/// A finding.
#[derive(Clone, Debug, Serialize)]
pub struct PoolFindingRecord {
    /// Its code.
    pub finding: PoolFindingCode,
    /// Its level.
    pub level: PoolFindingLevel,
    /// The message, in one sentence.
    pub message: String,
    /// The first address that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<IpAddr>,
    /// The last address that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<IpAddr>,
    /// The locations: the subject, then the colliding entry.
    pub locations: Vec<LocationRecord>,
    /// The next step.
    pub next: &'static str,
}

/// A location in a file, and the object there.
#[derive(Clone, Debug, Serialize)]
pub struct LocationRecord {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The cluster of the object, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The kind of the object.
    pub kind: &'static str,
    /// The name of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The range as written, if it is a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
}

/// A file or a part of it that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct UnreadRecord {
    /// The file.
    pub file: String,
    /// The line, from 1; absent if the whole file could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The reason.
    pub reason: String,
}

/// Numbers of addresses, each counted once, limited to 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UsageRecord {
    /// IPv4 addresses.
    pub ipv4: u64,
    /// IPv6 addresses.
    pub ipv6: u64,
}

/// The pools of a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterPoolsRecord {
    /// Its name.
    pub cluster: String,
    /// The number of its pools.
    pub pools: usize,
    /// The addresses of its pools.
    pub addresses: UsageRecord,
    /// The addresses that the plan gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<UsageRecord>,
    /// The number of planned addresses that are in its pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_used: Option<UsageRecord>,
    #[serde(skip)]
    pub(super) exact: ExactCounts,
}

/// Numbers without a limit, for the text output.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExactCounts {
    pub amount: FamilyCounts,
    pub planned: Option<FamilyCounts>,
    pub planned_used: FamilyCounts,
}

/// The usage of a pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolUsageRecord {
    /// Its cluster.
    pub cluster: String,
    /// The kind of the object.
    pub kind: &'static str,
    /// Its namespace, if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
    /// The line of its name, from 1.
    pub line: usize,
    /// Its addresses.
    pub addresses: UsageRecord,
    #[serde(skip)]
    pub(super) exact: FamilyCounts,
}

impl PoolsReport {
    /// Resolves the indices of an evaluation to names.
    pub fn new(
        inventory: &PoolInventory,
        plan: &AddressPlan,
        evaluation: &PoolsEvaluation,
    ) -> Self {
        let named = RecordBuilder { inventory, plan };
        let unread = inventory.unread.iter().map(|unread| UnreadRecord {
            file: inventory.files[unread.file].clone(),
            line: unread.mark.map(|mark| mark.line),
            column: unread.mark.map(|mark| mark.column),
            reason: escape_untrusted(&unread.error.to_string()).into_owned(),
        });
        Self {
            complete: inventory.unread.is_empty(),
            findings: evaluation
                .findings
                .iter()
                .map(|one| named.finding(one))
                .collect(),
            more: evaluation.more,
            unread: unread.collect(),
            clusters: named.clusters(),
            pools: named.pools(),
        }
    }

    /// The number of findings of this level; unlisted overlaps count as errors.
    pub fn number(&self, level: PoolFindingLevel) -> u64 {
        let messages = self
            .findings
            .iter()
            .filter(|one| one.level == level)
            .count() as u64;
        match level {
            PoolFindingLevel::Error => messages + self.more,
            PoolFindingLevel::Warning => messages,
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
            // Text from manifests must not forge lines of a log.
            message: escape_untrusted(&text::message(inventory, plan, finding)).into_owned(),
            first: addresses.map(|interval| interval.first()),
            last: addresses.map(|interval| interval.last()),
            locations: self.locations(finding),
            next: text::next_of(inventory, finding),
        }
    }

    fn locations(self, finding: &PoolFinding) -> Vec<LocationRecord> {
        let Self { inventory, plan } = self;
        match *finding {
            PoolFinding::Overlap { one, other, .. } => vec![self.range(one), self.range(other)],
            PoolFinding::ReservedOverlap {
                range, reserved, ..
            } => {
                let reserved = &plan.reserved[reserved];
                let name = reserved.name.clone();
                let written = Some(reserved.range.text.clone());
                let mut record = self.plan_location(reserved.range.location, written);
                record.name = name.or_else(|| Some(reserved.purpose.label().to_owned()));
                record.cluster.clone_from(&reserved.cluster);
                vec![self.range(range), record]
            }
            PoolFinding::PlanOverlap { one, other, .. } => vec![self.share(one), self.share(other)],
            PoolFinding::OutsidePlan { range, share, .. } => {
                let share = &plan.shares[share];
                let mut record = self.plan_location(share.location, None);
                record.cluster = Some(share.cluster.clone());
                vec![self.range(range), record]
            }
            PoolFinding::MissingPrefix { range }
            | PoolFinding::HostBits { range }
            | PoolFinding::AvoidedAddress { range, .. } => vec![self.range(range)],
            PoolFinding::InvalidRange { pool, range } => {
                let range = &inventory.pools[pool].invalid_ranges[range];
                vec![LocationRecord {
                    range: Some(range.text.clone()),
                    ..self.pool_at(pool, range.location)
                }]
            }
            PoolFinding::InvalidPlanRange { range } => {
                let range = &plan.invalid_ranges[range];
                vec![self.plan_location(range.location, Some(range.text.clone()))]
            }
            PoolFinding::DuplicatePool { first, duplicate } => {
                vec![self.pool(duplicate), self.pool(first)]
            }
            PoolFinding::NotInPlan { pool }
            | PoolFinding::EmptyPool { pool }
            | PoolFinding::Unadvertised { pool } => vec![self.pool(pool)],
            PoolFinding::UnknownPool { advertisement, .. }
            | PoolFinding::IdleSelector { advertisement, .. } => {
                let found = &inventory.advertisements[advertisement];
                let (location, _) = finding.locations(inventory, plan);
                vec![LocationRecord {
                    cluster: Some(inventory.clusters[found.cluster].clone()),
                    kind: found.kind.label(),
                    name: Some(found.name.clone()),
                    ..self.location(location)
                }]
            }
        }
    }

    fn range(self, range: PoolRange) -> LocationRecord {
        let written = self.inventory.range(range);
        LocationRecord {
            range: Some(written.text.clone()),
            ..self.pool_at(range.pool, written.location)
        }
    }

    fn share(self, of: ShareRange) -> LocationRecord {
        let share = &self.plan.shares[of.share];
        let written = &share.ranges[of.range];
        LocationRecord {
            cluster: Some(share.cluster.clone()),
            ..self.plan_location(written.location, Some(written.text.clone()))
        }
    }

    fn pool(self, pool: usize) -> LocationRecord {
        self.pool_at(pool, self.inventory.pools[pool].location)
    }

    fn pool_at(self, pool: usize, location: SourceLocation) -> LocationRecord {
        let pool = &self.inventory.pools[pool];
        LocationRecord {
            cluster: Some(self.inventory.clusters[pool.cluster].clone()),
            kind: pool.kind.label(),
            name: Some(pool.name.clone()),
            ..self.location(location)
        }
    }

    fn plan_location(self, location: SourceLocation, range: Option<String>) -> LocationRecord {
        LocationRecord {
            range,
            ..self.location(location)
        }
    }

    /// A location in the plan; callers override its fields for other objects.
    fn location(self, location: SourceLocation) -> LocationRecord {
        LocationRecord {
            file: self.inventory.files[location.file].clone(),
            line: location.mark.line,
            column: location.mark.column,
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
                    file: self.inventory.files[pool.location.file].clone(),
                    line: pool.location.mark.line,
                    addresses: amount.into(),
                    exact: amount,
                }
            })
            .collect()
    }
}

/// The addresses that a finding is about, if any.
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
