//! Findings in words. A message stands by itself: in a review, nothing else is shown of a finding.

use crate::pools::{
    Code, Finding, Inventory, Kept, Plan, PoolKind, finding::PoolRange, interval::Interval,
};

/// What a finding says.
pub fn message(inventory: &Inventory, plan: &Plan, finding: &Finding) -> String {
    let pool = |pool| pool_name(inventory, pool);
    let written = |range: PoolRange| inventory.range(range).text.as_str();
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
            plan.shares[one.share].cluster,
            plan.shares[other.share].cluster,
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
            inventory.clusters[inventory.pools[range.pool].cluster],
        ),
        Finding::NotInPlan { pool } => {
            let cluster = &inventory.clusters[inventory.pools[pool].cluster];
            format!("the plan gives nothing to cluster {cluster}, which has pools")
        }
        Finding::InvalidRange { pool: of, fault } => {
            let fault = &inventory.pools[of].faults[fault];
            format!("{} lists {:?}: {}", pool(of), fault.text, fault.error)
        }
        Finding::InvalidPlanRange { fault } => {
            let fault = &plan.faults[fault];
            format!("the plan lists {:?}: {}", fault.text, fault.error)
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
        Finding::EmptyPool { pool: of } => format!("{} has no addresses", pool(of)),
        Finding::UnknownPool {
            advertisement,
            name,
        } => {
            let (name, _) = &inventory.advertisements[advertisement].pools[name];
            let whose = advertisement_name(inventory, advertisement);
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

/// What to do.
pub const fn next(code: Code) -> &'static str {
    match code {
        Code::ClusterOverlap | Code::PoolOverlap | Code::KeptOverlap => {
            "take the addresses out of one pool; probe pools exclude prints it without them"
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
        Code::EmptyPool => "list addresses, or delete the pool",
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
        Code::NotInPlan => "The plan says nothing of a cluster that has pools.",
        Code::HostBits => "A CIDR begins before the address it is written with.",
        Code::BuggyAddress => "A pool hands out IPv4 addresses that end in .0 or .255.",
        Code::EmptyPool => "A pool has no addresses.",
        Code::UnknownPool => "An advertisement names a pool that is not there.",
        Code::IdleSelector => "A selector of an advertisement selects no pool.",
        Code::Unadvertised => "No advertisement announces a pool.",
    }
}

fn pool_name(inventory: &Inventory, pool: usize) -> String {
    let pool = &inventory.pools[pool];
    let cluster = &inventory.clusters[pool.cluster];
    let kind = match pool.kind {
        PoolKind::KubeVip => "kube-vip's pool",
        PoolKind::Cilium => "Cilium's pool",
        PoolKind::IpAddressPool | PoolKind::AddressPool | PoolKind::MetallbConfigMap => "pool",
    };
    match pool.name.as_str() {
        "" => format!("a {kind} without a name of cluster {cluster}"),
        name => format!("{kind} {name} of cluster {cluster}"),
    }
}

fn advertisement_name(inventory: &Inventory, advertisement: usize) -> String {
    let found = &inventory.advertisements[advertisement];
    let cluster = &inventory.clusters[found.cluster];
    format!("{} {} of cluster {cluster}", found.kind, found.name)
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
        (Some(name), _) => format!("{} ({name})", kept.purpose),
        (None, Some(cluster)) => format!("{} of cluster {cluster}", kept.purpose),
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
