//! The messages of findings. Each message is self-contained, because code hosts show nothing else.

use std::borrow::Cow;

use probe_pools::{
    AddressPlan, InvalidRangeEntry, PoolFinding, PoolFindingCode, PoolInventory, PoolKind,
    ReservedRange, finding::PoolRange, interval::Interval,
};

/// Maximum number of characters of a quoted text.
const MAX_TEXT_CHARS: usize = 120;
/// Maximum number of listed clusters of a plan.
const MAX_CLUSTERS: usize = 10;

/// The message for a pool that has addresses but none to assign.
const RESERVED_TEXT: &str =
    "assigns no address: all of them end in .0 or .255, which avoidBuggyIPs reserves";

/// The message of a finding.
pub fn message(inventory: &PoolInventory, plan: &AddressPlan, finding: &PoolFinding) -> String {
    let pool = |pool| pool_name(inventory, pool);
    let written = |range: PoolRange| shortened(&inventory.range(range).text);
    match *finding {
        PoolFinding::Overlap { one, other, common } if one.pool == other.pool => format!(
            "{} lists {} and {}, which have {} in common",
            pool(one.pool),
            written(one),
            written(other),
            range_text(common),
        ),
        PoolFinding::Overlap { one, other, common } => format!(
            "{} and {} both contain {}",
            pool(one.pool),
            pool(other.pool),
            range_text(common),
        ),
        PoolFinding::ReservedOverlap {
            range,
            reserved,
            common,
        } => format!(
            "{} contains {}, which the plan reserves for {}",
            pool(range.pool),
            range_text(common),
            purpose(&plan.reserved[reserved]),
        ),
        PoolFinding::PlanOverlap { one, other, common } => format!(
            "the plan gives {} to cluster {} and to cluster {}",
            range_text(common),
            shortened(&plan.shares[one.share].cluster),
            shortened(&plan.shares[other.share].cluster),
        ),
        PoolFinding::OutsidePlan {
            range,
            first,
            addresses,
            ..
        } => format!(
            "{} contains {} outside the ranges of the plan for cluster {}",
            pool(range.pool),
            range_text_truncated(first, addresses),
            cluster_name(inventory, inventory.pools[range.pool].cluster),
        ),
        PoolFinding::NotInPlan { pool } => unknown_cluster(inventory, plan, pool),
        PoolFinding::InvalidRange { pool: of, range } => {
            let range = &inventory.pools[of].invalid_ranges[range];
            format!("{} lists {}", pool(of), invalid_range_text(range))
        }
        PoolFinding::InvalidPlanRange { range } => {
            let range = &plan.invalid_ranges[range];
            format!("the plan lists {}", invalid_range_text(range))
        }
        PoolFinding::MissingPrefix { range } => format!(
            "{} lists {} without a prefix length, which the controller rejects; write {}",
            pool(range.pool),
            written(range),
            inventory.range(range).interval,
        ),
        PoolFinding::HostBits { range } => format!(
            "{} lists {}, which means all of {}",
            pool(range.pool),
            written(range),
            range_text(inventory.range(range).interval),
        ),
        PoolFinding::DuplicatePool { duplicate, .. } => format!(
            "{} is defined twice; the one that is applied last replaces the other",
            pool(duplicate),
        ),
        PoolFinding::AvoidedAddress {
            range,
            first,
            addresses,
        } => format!(
            "{} assigns {}, {} in .0 or .255, which old equipment drops as a broadcast",
            pool(range.pool),
            first.first(),
            ends_clause(addresses),
        ),
        PoolFinding::EmptyPool { pool: of } if inventory.pools[of].ranges.is_empty() => {
            format!("{} has no addresses", pool(of))
        }
        PoolFinding::EmptyPool { pool: of } => format!("{} {RESERVED_TEXT}", pool(of)),
        PoolFinding::UnknownPool {
            advertisement,
            name,
        } => {
            let (name, _) = &inventory.advertisements[advertisement].pools[name];
            let advertisement_title = advertisement_name(inventory, advertisement);
            let name = shortened(name);
            format!("{advertisement_title} names the pool {name}, which does not exist")
        }
        PoolFinding::IdleSelector { advertisement, .. } => format!(
            "a selector of {} selects no pool",
            advertisement_name(inventory, advertisement),
        ),
        PoolFinding::Unadvertised { pool: of } => format!(
            "no advertisement announces {}: services get its addresses, and no host replies for them",
            pool(of),
        ),
    }
}

/// The next step for a finding.
pub fn next_of(inventory: &PoolInventory, finding: &PoolFinding) -> &'static str {
    let kind = |range: PoolRange| inventory.pools[range.pool].kind;
    match *finding {
        PoolFinding::Overlap { one, other, .. } if one.pool != other.pool => {
            next_of_overlap(kind(one), Some(kind(other)))
        }
        PoolFinding::ReservedOverlap { range, .. } => next_of_overlap(kind(range), None),
        _ => next(finding.code(inventory)),
    }
}

/// The next step for overlapping pools. `probe pools exclude` supports custom resources, not `ConfigMap`s.
const fn next_of_overlap(one: PoolKind, other: Option<PoolKind>) -> &'static str {
    let is_written = match other {
        Some(other) => [one.is_resource(), other.is_resource()],
        None => [one.is_resource(), one.is_resource()],
    };
    match is_written {
        [true, true] => {
            "exclude the addresses from one pool; probe pools exclude prints the new manifest"
        }
        [true, false] | [false, true] => {
            "exclude the addresses from one pool; for the custom resource, probe pools exclude prints the new manifest"
        }
        [false, false] => "remove the addresses from one pool, in its ConfigMap",
    }
}

/// The next step for findings with this code.
pub const fn next(code: PoolFindingCode) -> &'static str {
    match code {
        PoolFindingCode::ClusterOverlap
        | PoolFindingCode::PoolOverlap
        | PoolFindingCode::ReservedOverlap => {
            "exclude the addresses from one pool; for custom resources, probe pools exclude prints the new manifest"
        }
        PoolFindingCode::RangeOverlap => "list each address once",
        PoolFindingCode::PlanOverlap => "give each address to one cluster",
        PoolFindingCode::OutsidePlan => {
            "move the pool into the cluster's ranges, or change the plan"
        }
        PoolFindingCode::InvalidRange => {
            "write a CIDR (192.0.2.0/24) or a range (192.0.2.1-192.0.2.9)"
        }
        PoolFindingCode::MissingPrefix => "add /32, or /128 for IPv6",
        PoolFindingCode::DuplicatePool => "rename one of them",
        PoolFindingCode::NotInPlan => "add the cluster to the plan, or correct its name",
        PoolFindingCode::HostBits => "write the whole network, or a range for a part of it",
        PoolFindingCode::AvoidedAddress => {
            "set avoidBuggyIPs: true in the pool's spec, or leave these addresses out"
        }
        PoolFindingCode::EmptyPool => "list addresses that it may assign, or delete the pool",
        PoolFindingCode::UnknownPool => "correct the name, or add the pool",
        PoolFindingCode::IdleSelector => "correct the selector, or the labels of the pools",
        PoolFindingCode::Unadvertised => "add it to an L2Advertisement or a BGPAdvertisement",
    }
}

/// The description of a finding code, for SARIF rules.
pub const fn description(code: PoolFindingCode) -> &'static str {
    match code {
        PoolFindingCode::ClusterOverlap => "Pools of two clusters have addresses in common.",
        PoolFindingCode::PoolOverlap => "Two pools of a cluster have addresses in common.",
        PoolFindingCode::RangeOverlap => "Two ranges of a pool have addresses in common.",
        PoolFindingCode::ReservedOverlap => {
            "A pool contains addresses that the plan reserves for another use."
        }
        PoolFindingCode::PlanOverlap => "The plan gives the same addresses to two clusters.",
        PoolFindingCode::OutsidePlan => {
            "A pool contains addresses that the plan does not give to its cluster."
        }
        PoolFindingCode::InvalidRange => {
            "A range is invalid: bad syntax, reversed, or of two address families."
        }
        PoolFindingCode::MissingPrefix => "An address is listed where a CIDR is required.",
        PoolFindingCode::DuplicatePool => "Two pools of a cluster have the same name.",
        PoolFindingCode::NotInPlan => "The plan does not contain a cluster that has pools.",
        PoolFindingCode::HostBits => "A CIDR has host bits set.",
        PoolFindingCode::AvoidedAddress => "A pool assigns IPv4 addresses that end in .0 or .255.",
        PoolFindingCode::EmptyPool => "A pool has no assignable addresses.",
        PoolFindingCode::UnknownPool => "An advertisement names a pool that does not exist.",
        PoolFindingCode::IdleSelector => "A selector of an advertisement selects no pool.",
        PoolFindingCode::Unadvertised => "No advertisement announces a pool.",
    }
}

fn pool_name(inventory: &PoolInventory, pool: usize) -> String {
    let pool = &inventory.pools[pool];
    let cluster = cluster_name(inventory, pool.cluster);
    let kind = match pool.kind {
        PoolKind::KubeVip => "kube-vip's pool",
        PoolKind::Cilium => "Cilium's pool",
        PoolKind::IpAddressPool | PoolKind::AddressPool | PoolKind::MetallbConfigMap => "pool",
    };
    match pool.name.as_str() {
        "" => format!("a {kind} without a name of cluster {cluster}"),
        name => format!("{kind} {} of cluster {cluster}", shortened(name)),
    }
}

fn advertisement_name(inventory: &PoolInventory, advertisement: usize) -> String {
    let found = &inventory.advertisements[advertisement];
    let cluster = cluster_name(inventory, found.cluster);
    let name = shortened(&found.name);
    format!("{} {name} of cluster {cluster}", found.kind)
}

fn cluster_name(inventory: &PoolInventory, cluster: usize) -> Cow<'_, str> {
    shortened(&inventory.clusters[cluster])
}

fn unknown_cluster(inventory: &PoolInventory, plan: &AddressPlan, pool: usize) -> String {
    let cluster = cluster_name(inventory, inventory.pools[pool].cluster);
    format!(
        "the plan does not contain cluster {cluster}, which has pools; it contains {}",
        clusters(plan)
    )
}

/// Joins the clusters of a plan for a sentence.
fn clusters(plan: &AddressPlan) -> String {
    let names = plan.shares.iter().take(MAX_CLUSTERS);
    let mut names: Vec<_> = names.map(|share| shortened(&share.cluster)).collect();
    let more = plan.shares.len() - names.len();
    if more > 0 {
        names.push(format!("{more} more").into());
    }
    match names.split_last() {
        Some((last, [])) => last.to_string(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}

/// An invalid range with its error.
fn invalid_range_text(range: &InvalidRangeEntry) -> String {
    let text = shortened(&range.text);
    let why = range.error.to_string();
    // The error may repeat the whole text, so it is shortened as well.
    format!("{text:?}: {}", shortened(&why))
}

/// Truncates a text for a sentence.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// The clause for addresses with an avoided last byte.
fn ends_clause(addresses: u128) -> String {
    match addresses {
        1 => "which ends".to_owned(),
        many => format!("one of {} addresses that end", amount(many)),
    }
}

/// The purpose of a reserved range.
fn purpose(reserved: &ReservedRange) -> String {
    match (&reserved.name, &reserved.cluster) {
        (Some(name), _) => format!("{} ({})", reserved.purpose, shortened(name)),
        (None, Some(cluster)) => format!("{} of cluster {}", reserved.purpose, shortened(cluster)),
        (None, None) => reserved.purpose.to_string(),
    }
}

/// Formats the first addresses of a larger set, with the number of the others.
fn range_text_truncated(first: Interval, all: u128) -> String {
    match all.saturating_sub(first.count()) {
        0 => range_text(first),
        more => format!("{} and {} more", range_text(first), amount(more)),
    }
}

/// Formats an interval, with its number of addresses.
fn range_text(interval: Interval) -> String {
    match interval.count() {
        1 => interval.describe(),
        many => format!("{interval} ({} addresses)", amount(many)),
    }
}

/// Formats a number of addresses for people.
pub fn amount(number: u128) -> String {
    const LARGE: u128 = 10_000_000_000;
    if number < LARGE {
        number.to_string()
    } else if number == u128::MAX {
        "2^128".to_owned()
    } else if number.is_power_of_two() {
        format!("2^{}", number.ilog2())
    } else {
        format!("over 2^{}", number.ilog2())
    }
}
