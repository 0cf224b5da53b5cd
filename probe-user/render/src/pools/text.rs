//! Findings in words. A message stands by itself: in a review, nothing else is shown of a finding.

use std::borrow::Cow;

use probe_pools::{
    AddressPlan, InvalidRangeEntry, PoolFinding, PoolFindingCode, PoolInventory, PoolKind,
    ReservedRange, finding::PoolRange, interval::Interval,
};

/// Of what somebody wrote, so many letters are shown.
const MAX_TEXT_CHARS: usize = 120;
/// So many clusters of a plan are named.
const MAX_CLUSTERS: usize = 10;

/// Of a pool with addresses that has none to hand out.
const RESERVED_TEXT: &str =
    "hands out no address: all of them end in .0 or .255, which avoidBuggyIPs keeps back";

/// What a finding says.
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
            "{} and {} both have {}",
            pool(one.pool),
            pool(other.pool),
            range_text(common),
        ),
        PoolFinding::ReservedOverlap {
            range,
            reserved,
            common,
        } => format!(
            "{} has {}, which the plan keeps for {}",
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
            "{} has {} outside of what the plan gives to cluster {}",
            pool(range.pool),
            range_text_truncated(first, addresses),
            cluster_name(inventory, inventory.pools[range.pool].cluster),
        ),
        PoolFinding::NotInPlan { pool } => unknown_cluster(inventory, plan, pool),
        PoolFinding::InvalidRange { pool: of, fault } => {
            let fault = &inventory.pools[of].faults[fault];
            format!("{} lists {}", pool(of), invalid_range_text(fault))
        }
        PoolFinding::InvalidPlanRange { fault } => {
            let fault = &plan.faults[fault];
            format!("the plan lists {}", invalid_range_text(fault))
        }
        PoolFinding::MissingPrefix { range } => format!(
            "{} lists {} without a prefix length, which is refused; write {}",
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
        PoolFinding::DuplicatePool { again, .. } => format!(
            "{} is defined twice; the one that is applied last replaces the other",
            pool(again),
        ),
        PoolFinding::AvoidedAddress {
            range,
            first,
            addresses,
        } => format!(
            "{} hands out {}, {} in .0 or .255, which old equipment takes for a broadcast and drops",
            pool(range.pool),
            first.first(),
            which_end(addresses),
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
            let whose = advertisement_name(inventory, advertisement);
            let name = shortened(name);
            format!("{whose} names the pool {name}, which is not there")
        }
        PoolFinding::IdleSelector { advertisement, .. } => format!(
            "a selector of {} selects no pool",
            advertisement_name(inventory, advertisement),
        ),
        PoolFinding::Unadvertised { pool: of } => format!(
            "no advertisement announces {}: services get its addresses, and nobody answers for them",
            pool(of),
        ),
    }
}

/// What to do about a finding.
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

/// `probe pools exclude` writes resources, and no `ConfigMap`.
const fn next_of_overlap(one: PoolKind, other: Option<PoolKind>) -> &'static str {
    let is_written = match other {
        Some(other) => [one.is_resource(), other.is_resource()],
        None => [one.is_resource(), one.is_resource()],
    };
    match is_written {
        [true, true] => {
            "take the addresses out of one pool; probe pools exclude prints it without them"
        }
        [true, false] | [false, true] => {
            "take the addresses out of one pool; of the one that is no ConfigMap, probe pools exclude prints what is left"
        }
        [false, false] => "take the addresses out of one pool, in its ConfigMap",
    }
}

/// What to do about findings of a kind.
pub const fn next(code: PoolFindingCode) -> &'static str {
    match code {
        PoolFindingCode::ClusterOverlap
        | PoolFindingCode::PoolOverlap
        | PoolFindingCode::ReservedOverlap => {
            "take the addresses out of one pool; if it is no ConfigMap, probe pools exclude prints it without them"
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
        PoolFindingCode::DuplicatePool => "give one of them another name",
        PoolFindingCode::NotInPlan => {
            "add the cluster to the plan, or see that its name is the plan's"
        }
        PoolFindingCode::HostBits => "write the whole network, or a range for a part of it",
        PoolFindingCode::AvoidedAddress => {
            "set avoidBuggyIPs: true in the pool's spec, or leave these addresses out"
        }
        PoolFindingCode::EmptyPool => "list addresses that it may hand out, or delete the pool",
        PoolFindingCode::UnknownPool => "correct the name, or add the pool",
        PoolFindingCode::IdleSelector => "correct the selector, or the labels of the pools",
        PoolFindingCode::Unadvertised => "add it to an L2Advertisement or a BGPAdvertisement",
    }
}

/// What a kind of finding is, for those who know only its name.
pub const fn description(code: PoolFindingCode) -> &'static str {
    match code {
        PoolFindingCode::ClusterOverlap => "Pools of two clusters have addresses in common.",
        PoolFindingCode::PoolOverlap => "Two pools of a cluster have addresses in common.",
        PoolFindingCode::RangeOverlap => "Two ranges of a pool have addresses in common.",
        PoolFindingCode::ReservedOverlap => {
            "A pool has addresses that the plan keeps for something else."
        }
        PoolFindingCode::PlanOverlap => "The plan gives the same addresses to two clusters.",
        PoolFindingCode::OutsidePlan => {
            "A pool has addresses that the plan does not give to its cluster."
        }
        PoolFindingCode::InvalidRange => {
            "A range is none: bad syntax, reversed, or of two families."
        }
        PoolFindingCode::MissingPrefix => "An address stands where a CIDR has to be.",
        PoolFindingCode::DuplicatePool => "Two pools of a cluster have the same name.",
        PoolFindingCode::NotInPlan => "The plan does not know a cluster that has pools.",
        PoolFindingCode::HostBits => "A CIDR begins before the address it is written with.",
        PoolFindingCode::AvoidedAddress => {
            "A pool hands out IPv4 addresses that end in .0 or .255."
        }
        PoolFindingCode::EmptyPool => "A pool has no addresses that it hands out.",
        PoolFindingCode::UnknownPool => "An advertisement names a pool that is not there.",
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
        "the plan does not know cluster {cluster}, which has pools; it knows {}",
        clusters(plan)
    )
}

/// The clusters of a plan, as a sentence has them.
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

/// What should be a range and is none, and why.
fn invalid_range_text(fault: &InvalidRangeEntry) -> String {
    let text = shortened(&fault.text);
    let why = fault.error.to_string();
    // An address that is none is the whole text, or too long to be told twice.
    format!("{text:?}: {}", shortened(&why))
}

/// As much of a text as a sentence can take.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// So many addresses end in something.
fn which_end(addresses: u128) -> String {
    match addresses {
        1 => "which ends".to_owned(),
        many => format!("one of {} addresses that end", amount(many)),
    }
}

/// What a range is kept for.
fn purpose(reserved: &ReservedRange) -> String {
    match (&reserved.name, &reserved.cluster) {
        (Some(name), _) => format!("{} ({})", reserved.purpose, shortened(name)),
        (None, Some(cluster)) => format!("{} of cluster {}", reserved.purpose, shortened(cluster)),
        (None, None) => reserved.purpose.to_string(),
    }
}

/// Addresses, and how many there are beside them.
fn range_text_truncated(first: Interval, all: u128) -> String {
    match all.saturating_sub(first.count()) {
        0 => range_text(first),
        more => format!("{} and {} more", range_text(first), amount(more)),
    }
}

/// Addresses, and how many they are.
fn range_text(interval: Interval) -> String {
    match interval.count() {
        1 => interval.spoken(),
        many => format!("{interval} ({} addresses)", amount(many)),
    }
}

/// A number of addresses as people read it.
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
