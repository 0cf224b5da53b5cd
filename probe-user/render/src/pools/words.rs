//! Findings in words. A message stands by itself: in a review, nothing else is shown of a finding.

use std::borrow::Cow;

use probe_pools::{
    Code, Fault, Finding, Inventory, Kept, Plan, PoolKind, finding::PoolRange, interval::Interval,
};

/// Of what somebody wrote, so many letters are shown.
const LONGEST: usize = 120;
/// So many clusters of a plan are named.
const MOST_CLUSTERS: usize = 10;

/// Of a pool with addresses that has none to hand out.
const KEPT_BACK: &str =
    "hands out no address: all of them end in .0 or .255, which avoidBuggyIPs keeps back";

/// What a finding says.
pub fn message(inventory: &Inventory, plan: &Plan, finding: &Finding) -> String {
    let pool = |pool| pool_name(inventory, pool);
    let written = |range: PoolRange| shortened(&inventory.range(range).text);
    match *finding {
        Finding::Overlap { one, other, common } if one.pool == other.pool => format!(
            "{} lists {} and {}, which have {} in common",
            pool(one.pool),
            written(one),
            written(other),
            several(common),
        ),
        Finding::Overlap { one, other, common } => format!(
            "{} and {} both have {}",
            pool(one.pool),
            pool(other.pool),
            several(common),
        ),
        Finding::Kept {
            range,
            kept,
            common,
        } => format!(
            "{} has {}, which the plan keeps for {}",
            pool(range.pool),
            several(common),
            purpose(&plan.kept[kept]),
        ),
        Finding::PlanOverlap { one, other, common } => format!(
            "the plan gives {} to cluster {} and to cluster {}",
            several(common),
            shortened(&plan.shares[one.share].cluster),
            shortened(&plan.shares[other.share].cluster),
        ),
        Finding::OutsidePlan {
            range,
            first,
            addresses,
            ..
        } => format!(
            "{} has {} outside of what the plan gives to cluster {}",
            pool(range.pool),
            several_and_more(first, addresses),
            cluster_name(inventory, inventory.pools[range.pool].cluster),
        ),
        Finding::NotInPlan { pool } => unknown_cluster(inventory, plan, pool),
        Finding::InvalidRange { pool: of, fault } => {
            let fault = &inventory.pools[of].faults[fault];
            format!("{} lists {}", pool(of), faulty(fault))
        }
        Finding::InvalidPlanRange { fault } => {
            let fault = &plan.faults[fault];
            format!("the plan lists {}", faulty(fault))
        }
        Finding::MissingPrefix { range } => format!(
            "{} lists {} without a prefix length, which is refused; write {}",
            pool(range.pool),
            written(range),
            inventory.range(range).interval,
        ),
        Finding::HostBits { range } => format!(
            "{} lists {}, which means all of {}",
            pool(range.pool),
            written(range),
            several(inventory.range(range).interval),
        ),
        Finding::DuplicatePool { again, .. } => format!(
            "{} is defined twice; the one that is applied last replaces the other",
            pool(again),
        ),
        Finding::BuggyAddress {
            range,
            first,
            addresses,
        } => format!(
            "{} hands out {}, {} in .0 or .255, which old equipment takes for a broadcast and drops",
            pool(range.pool),
            first.first(),
            which_end(addresses),
        ),
        Finding::EmptyPool { pool: of } if inventory.pools[of].ranges.is_empty() => {
            format!("{} has no addresses", pool(of))
        }
        Finding::EmptyPool { pool: of } => format!("{} {KEPT_BACK}", pool(of)),
        Finding::UnknownPool {
            advertisement,
            name,
        } => {
            let (name, _) = &inventory.advertisements[advertisement].pools[name];
            let whose = advertisement_name(inventory, advertisement);
            let name = shortened(name);
            format!("{whose} names the pool {name}, which is not there")
        }
        Finding::IdleSelector { advertisement, .. } => format!(
            "a selector of {} selects no pool",
            advertisement_name(inventory, advertisement),
        ),
        Finding::Unadvertised { pool: of } => format!(
            "no advertisement announces {}: services get its addresses, and nobody answers for them",
            pool(of),
        ),
    }
}

/// What to do about a finding.
pub fn next_of(inventory: &Inventory, finding: &Finding) -> &'static str {
    let kind = |range: PoolRange| inventory.pools[range.pool].kind;
    match *finding {
        Finding::Overlap { one, other, .. } if one.pool != other.pool => {
            next_of_overlap(kind(one), Some(kind(other)))
        }
        Finding::Kept { range, .. } => next_of_overlap(kind(range), None),
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
pub const fn next(code: Code) -> &'static str {
    match code {
        Code::ClusterOverlap | Code::PoolOverlap | Code::KeptOverlap => {
            "take the addresses out of one pool; if it is no ConfigMap, probe pools exclude prints it without them"
        }
        Code::RangeOverlap => "list each address once",
        Code::PlanOverlap => "give each address to one cluster",
        Code::OutsidePlan => "move the pool into the cluster's ranges, or change the plan",
        Code::InvalidRange => "write a CIDR (192.0.2.0/24) or a range (192.0.2.1-192.0.2.9)",
        Code::MissingPrefix => "add /32, or /128 for IPv6",
        Code::DuplicatePool => "give one of them another name",
        Code::NotInPlan => "add the cluster to the plan, or see that its name is the plan's",
        Code::HostBits => "write the whole network, or a range for a part of it",
        Code::BuggyAddress => {
            "set avoidBuggyIPs: true in the pool's spec, or leave these addresses out"
        }
        Code::EmptyPool => "list addresses that it may hand out, or delete the pool",
        Code::UnknownPool => "correct the name, or add the pool",
        Code::IdleSelector => "correct the selector, or the labels of the pools",
        Code::Unadvertised => "add it to an L2Advertisement or a BGPAdvertisement",
    }
}

/// What a kind of finding is, for those who know only its name.
pub const fn about(code: Code) -> &'static str {
    match code {
        Code::ClusterOverlap => "Pools of two clusters have addresses in common.",
        Code::PoolOverlap => "Two pools of a cluster have addresses in common.",
        Code::RangeOverlap => "Two ranges of a pool have addresses in common.",
        Code::KeptOverlap => "A pool has addresses that the plan keeps for something else.",
        Code::PlanOverlap => "The plan gives the same addresses to two clusters.",
        Code::OutsidePlan => "A pool has addresses that the plan does not give to its cluster.",
        Code::InvalidRange => "A range is none: bad syntax, reversed, or of two families.",
        Code::MissingPrefix => "An address stands where a CIDR has to be.",
        Code::DuplicatePool => "Two pools of a cluster have the same name.",
        Code::NotInPlan => "The plan does not know a cluster that has pools.",
        Code::HostBits => "A CIDR begins before the address it is written with.",
        Code::BuggyAddress => "A pool hands out IPv4 addresses that end in .0 or .255.",
        Code::EmptyPool => "A pool has no addresses that it hands out.",
        Code::UnknownPool => "An advertisement names a pool that is not there.",
        Code::IdleSelector => "A selector of an advertisement selects no pool.",
        Code::Unadvertised => "No advertisement announces a pool.",
    }
}

fn pool_name(inventory: &Inventory, pool: usize) -> String {
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

fn advertisement_name(inventory: &Inventory, advertisement: usize) -> String {
    let found = &inventory.advertisements[advertisement];
    let cluster = cluster_name(inventory, found.cluster);
    let name = shortened(&found.name);
    format!("{} {name} of cluster {cluster}", found.kind)
}

fn cluster_name(inventory: &Inventory, cluster: usize) -> Cow<'_, str> {
    shortened(&inventory.clusters[cluster])
}

fn unknown_cluster(inventory: &Inventory, plan: &Plan, pool: usize) -> String {
    let cluster = cluster_name(inventory, inventory.pools[pool].cluster);
    format!(
        "the plan does not know cluster {cluster}, which has pools; it knows {}",
        clusters(plan)
    )
}

/// The clusters of a plan, as a sentence has them.
fn clusters(plan: &Plan) -> String {
    let names = plan.shares.iter().take(MOST_CLUSTERS);
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
fn faulty(fault: &Fault) -> String {
    let text = shortened(&fault.text);
    let why = fault.error.to_string();
    // An address that is none is the whole text, or too long to be told twice.
    format!("{text:?}: {}", shortened(&why))
}

/// As much of a text as a sentence can take.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
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
fn purpose(kept: &Kept) -> String {
    match (&kept.name, &kept.cluster) {
        (Some(name), _) => format!("{} ({})", kept.purpose, shortened(name)),
        (None, Some(cluster)) => format!("{} of cluster {}", kept.purpose, shortened(cluster)),
        (None, None) => kept.purpose.to_string(),
    }
}

/// Addresses, and how many there are beside them.
fn several_and_more(first: Interval, all: u128) -> String {
    match all.saturating_sub(first.count()) {
        0 => several(first),
        more => format!("{} and {} more", several(first), amount(more)),
    }
}

/// Addresses, and how many they are.
fn several(interval: Interval) -> String {
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
