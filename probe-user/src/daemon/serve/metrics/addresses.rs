//! The metrics of single addresses: conflicts, contested addresses and tracked addresses. Bounded; the overflow is
//! counted.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use probe_common::{
    label_enum,
    wire::{MacAddr, Vlan},
};
use probe_datapath::clock::wall_clock_offset_ns;
use probe_detect::{AddressGroup, AddressView, DetectorStatistics, TableCursor};
use probe_model::{
    BindingKey, BindingRecord, BindingView, FindingRecord, Links, Timestamp, on_link,
    vendor::vendor, watched::WatchedInterfaces,
};
use probe_network::neighbours::NeighbourTable;

use super::{
    family::{MetricFamily, SecondsSinceEpoch, bool_value},
    list,
};
use crate::daemon::{
    address_statistics::{AddressCounts, CountedKind},
    annotate::{ClusterView, holder_of},
    monitor::{MonitorHandle, MonitorSnapshot, MonitorStopped},
};

label_enum! {
    /// The kinds of series with a limit.
    pub enum AddressSeries {
        /// Series of open conflicts.
        Conflicts = "conflicts",
        /// Series of contested addresses.
        Contested = "contested",
        /// Series of tracked addresses.
        Tracked = "tracked",
    }
}

impl AddressSeries {
    const fn group(self) -> AddressGroup {
        match self {
            Self::Conflicts => AddressGroup::Conflicts,
            Self::Contested => AddressGroup::Contested,
            Self::Tracked => AddressGroup::Tracked,
        }
    }

    /// The number of addresses.
    const fn all(self, statistics: &DetectorStatistics) -> usize {
        match self {
            Self::Conflicts => statistics.open_conflicts,
            Self::Contested => statistics.contested,
            Self::Tracked => statistics.tracked,
        }
    }
}

/// The addresses with series of their own.
#[derive(Debug, Default)]
pub struct AddressMetrics {
    groups: [Vec<(AddressView, AddressCounts)>; AddressSeries::COUNT],
    beyond: [usize; AddressSeries::COUNT],
}

impl AddressMetrics {
    /// Reads them page by page, at most `most` of each group.
    pub async fn read(
        monitor: &MonitorHandle,
        statistics: &DetectorStatistics,
        most: usize,
    ) -> Result<Self, MonitorStopped> {
        let mut addresses = Self::default();
        for &series in AddressSeries::ALL {
            let index = usize::from(series.number());
            let read = group(monitor, series.group(), most).await?;
            // Addresses may have been added since the count.
            let all = series.all(statistics);
            addresses.beyond[index] = all.saturating_sub(read.len().max(most));
            addresses.groups[index] = read;
        }
        Ok(addresses)
    }

    /// Whether any of them is tracked.
    pub fn any_tracked(&self) -> bool {
        !self.of(AddressSeries::Tracked).is_empty()
    }

    fn of(&self, series: AddressSeries) -> &[(AddressView, AddressCounts)] {
        &self.groups[usize::from(series.number())]
    }
}

/// The first addresses of a group, sorted.
async fn group(
    monitor: &MonitorHandle,
    group: AddressGroup,
    most: usize,
) -> Result<Vec<(AddressView, AddressCounts)>, MonitorStopped> {
    let mut addresses = Vec::new();
    let mut cursor = Some(TableCursor::default());
    while let Some(from) = cursor
        && addresses.len() < most
    {
        let page = monitor.addresses(group, from).await?;
        let room = most - addresses.len();
        addresses.extend(page.addresses.into_iter().take(room));
        cursor = page.next;
    }
    // An address that moved during the read occurs twice, and duplicate series invalidate a scrape.
    addresses.sort_unstable_by_key(|(address, _)| address.key);
    addresses.dedup_by_key(|(address, _)| address.key);
    Ok(addresses)
}

/// The context for the labels of addresses.
#[derive(Clone, Copy)]
pub struct MetricsContext<'a> {
    pub snapshot: &'a MonitorSnapshot,
    pub watched: &'a WatchedInterfaces,
    pub links: &'a Links,
    pub neighbours: &'a NeighbourTable,
    pub drill: Option<&'a FindingRecord>,
    pub knowledge: Option<&'a ClusterView>,
}

/// The labels for segment, service and pool of an address.
struct AddressLabels<'a> {
    segment: &'a str,
    interface: &'a str,
    vlan: String,
    ip: String,
    namespace: &'a str,
    service: &'a str,
    pool: &'a str,
}

impl<'a> MetricsContext<'a> {
    /// The labels of an address; `None` if its interface no longer exists.
    fn labels(&self, key: BindingKey) -> Option<AddressLabels<'a>> {
        let interface = &self.watched.get(key.segment.interface)?.name;
        let known = self.knowledge;
        let (service, pool) = known.map_or((None, None), |known| holder_of(&known.cluster, key.ip));
        Some(AddressLabels {
            segment: self.snapshot.segments.name(key.segment, key.ip),
            interface,
            vlan: key.segment.vlan.to_string(),
            ip: key.ip.to_string(),
            namespace: service.map_or("", |service| &service.namespace),
            service: service.map_or("", |service| &service.name),
            pool: pool.unwrap_or_default(),
        })
    }

    /// The node of an owner with these MACs, as a label.
    fn node_of(&self, ip: IpAddr, macs: &[MacAddr]) -> &'a str {
        let known = self.knowledge;
        known
            .and_then(|known| known.node_of(ip, macs, false))
            .unwrap_or_default()
    }

    /// The cause and scope of a dispute about an address of the cluster, as labels.
    fn cause(&self, address: &AddressView) -> [&'static str; 2] {
        let cause = self.knowledge.and_then(|known| {
            let view = BindingView {
                key: address.key,
                tracked: address.tracked,
                ignored: address.ignored,
                owners: address.parties.clone()?,
                silent_since: None,
                conflict: address.conflict,
                takeover: None,
            };
            // The name of the interface does not matter here.
            let mut record =
                BindingRecord::new(&view, String::new(), probe_datapath::clock::MONOTONIC);
            known.annotate_binding(&mut record, Some(address.key.segment));
            record.cluster?.cause
        });
        cause.map_or(["", ""], |cause| [cause.kind.label(), cause.scope.label()])
    }
}

const fn bool_label(is_so: bool) -> &'static str {
    if is_so { "true" } else { "false" }
}

/// The series of all addresses.
pub fn families(addresses: &AddressMetrics, context: MetricsContext<'_>) -> Vec<String> {
    let mut beyond = MetricFamily::new(list::NOT_EXPORTED);
    for &series in AddressSeries::ALL {
        let count = addresses.beyond[usize::from(series.number())];
        beyond.add([series.label()], count);
    }
    let mut families = conflicts(addresses.of(AddressSeries::Conflicts), context);
    families.push(contested(addresses.of(AddressSeries::Contested), context));
    families.push(claims(addresses.of(AddressSeries::Tracked), context));
    families.extend(tracked(addresses.of(AddressSeries::Tracked), context));
    families.push(beyond.finish());
    families
}

fn conflicts(
    addresses: &[(AddressView, AddressCounts)],
    context: MetricsContext<'_>,
) -> Vec<String> {
    let mut owner_counts = MetricFamily::new(list::CONFLICT_OWNERS);
    let mut info = MetricFamily::new(list::CONFLICT_OWNER_INFO);
    let mut add = |labels: &AddressLabels<'_>,
                   address: IpAddr,
                   tracked: bool,
                   owners: &[Vec<MacAddr>],
                   drill: &str,
                   cause: [&str; 2]| {
        let AddressLabels {
            segment,
            interface,
            vlan,
            ip,
            namespace,
            service,
            pool,
        } = labels;
        let (tracked, [cause, scope]) = (bool_label(tracked), cause);
        owner_counts.add(
            [
                segment, interface, vlan, ip, tracked, drill, namespace, service, pool, cause,
                scope,
            ],
            owners.len(),
        );
        let mut macs: Vec<_> = owners.iter().flatten().collect();
        macs.sort_unstable();
        macs.dedup();
        for &mac in macs {
            let vendor = vendor(mac).unwrap_or_default();
            let node = context.node_of(address, &[mac]);
            let mac = mac.to_string();
            info.add(
                [segment, interface, vlan, ip, &mac, &vendor, drill, node],
                1,
            );
        }
    };
    for (address, _) in addresses {
        let Some(owners) = address.parties.as_ref().filter(|_| !address.ignored) else {
            continue;
        };
        if let Some(labels) = context.labels(address.key) {
            let owners: Vec<_> = owners.iter().map(|owner| owner.macs.clone()).collect();
            let ip = address.key.ip;
            add(
                &labels,
                ip,
                address.tracked,
                &owners,
                "",
                context.cause(address),
            );
        }
    }
    if let Some(drill) = context.drill {
        let labels = AddressLabels {
            segment: drill.segment.as_deref().unwrap_or_default(),
            interface: &drill.interface,
            vlan: drill.vlan.to_string(),
            ip: drill.ip.to_string(),
            namespace: "",
            service: "",
            pool: "",
        };
        let owners: Vec<_> = drill
            .owners
            .iter()
            .map(|owner| owner.macs.clone())
            .collect();
        add(&labels, drill.ip, true, &owners, "true", ["", ""]);
    }
    vec![owner_counts.finish(), info.finish()]
}

fn contested(addresses: &[(AddressView, AddressCounts)], context: MetricsContext<'_>) -> String {
    let mut family = MetricFamily::new(list::CONTESTED);
    for (address, _) in addresses {
        if !address.contested || address.ignored {
            continue;
        }
        if let Some(labels) = context.labels(address.key) {
            let AddressLabels {
                segment,
                interface,
                vlan,
                ip,
                namespace,
                service,
                pool,
            } = &labels;
            let tracked = bool_label(address.tracked);
            family.add(
                [
                    segment, interface, vlan, ip, tracked, namespace, service, pool,
                ],
                1,
            );
        }
    }
    family.finish()
}

/// A last claim, sorted by its series, the latest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LastClaim<'a> {
    segment: &'a str,
    vlan: Vlan,
    ip: IpAddr,
    owner: MacAddr,
    at: Reverse<Timestamp>,
    node: &'a str,
}

impl LastClaim<'_> {
    const fn series(&self) -> (&str, Vlan, IpAddr, MacAddr) {
        (self.segment, self.vlan, self.ip, self.owner)
    }
}

/// The last claims by segment: an address observed on two interfaces of one segment occurs once.
fn claims(addresses: &[(AddressView, AddressCounts)], context: MetricsContext<'_>) -> String {
    let mut last: Vec<LastClaim<'_>> = addresses
        .iter()
        .filter_map(|(address, _)| {
            let holder = address.current_owner.as_ref()?;
            let BindingKey { segment, ip } = address.key;
            context.watched.get(segment.interface)?;
            Some(LastClaim {
                segment: context.snapshot.segments.name(segment, ip),
                vlan: segment.vlan,
                ip,
                owner: holder.canonical,
                at: Reverse(holder.last_claim),
                node: context.node_of(ip, &holder.macs),
            })
        })
        .collect();
    last.sort_unstable();
    last.dedup_by(|later, first| later.series() == first.series());
    let since_1970 = wall_clock_offset_ns();
    let mut family = MetricFamily::with_room(list::TRACKED_CLAIM, last.len());
    for claim in last {
        let nanos = claim.at.0.0.saturating_add(since_1970);
        family.add(
            [
                claim.segment,
                &claim.vlan.to_string(),
                &claim.ip.to_string(),
                &claim.owner.to_string(),
                claim.node,
            ],
            SecondsSinceEpoch { nanos },
        );
    }
    family.finish()
}

fn tracked(addresses: &[(AddressView, AddressCounts)], context: MetricsContext<'_>) -> Vec<String> {
    let mut silent = MetricFamily::with_room(list::TRACKED_SILENT, addresses.len());
    let mut limited = MetricFamily::with_room(list::TRACKED_RATE_LIMITED, addresses.len());
    let mut stale = MetricFamily::with_room(list::TRACKED_STALE, addresses.len());
    let mut findings =
        MetricFamily::with_room(list::TRACKED_FINDINGS, addresses.len() * CountedKind::COUNT);
    let mut mismatches = MetricFamily::new(list::NEIGHBOR_MISMATCH);
    let trusted = trusted_neighbours(context, addresses);
    for (address, summary) in addresses {
        let Some(labels) = context.labels(address.key) else {
            continue;
        };
        let AddressLabels {
            segment,
            interface,
            vlan,
            ip,
            namespace,
            service,
            pool,
        } = &labels;
        let labels: [&str; 7] = [segment, interface, vlan, ip, namespace, service, pool];
        silent.add(labels, bool_value(address.silent));
        limited.add(labels, bool_value(address.rate_limited));
        stale.add(
            labels,
            bool_value(address.stale_announcement && !address.ignored),
        );
        for (counted, count) in CountedKind::ALL.iter().zip(summary) {
            let finding = counted.label();
            findings.add(
                [
                    segment, interface, vlan, ip, finding, namespace, service, pool,
                ],
                count,
            );
        }
        if let (Some(holder), Some(mac)) = (&address.current_owner, trusted.get(&address.key)) {
            let differs = bool_value(!holder.macs.contains(mac));
            mismatches.add([segment, interface, vlan, ip], differs);
        }
    }
    vec![
        silent.finish(),
        limited.finish(),
        stale.finish(),
        findings.finish(),
        mismatches.finish(),
    ]
}

/// The neighbour entries of the kernel for these addresses, which are sorted. The entries are on the interface with an
/// address of the network, which may be stacked on a watched one.
fn trusted_neighbours(
    context: MetricsContext<'_>,
    addresses: &[(AddressView, AddressCounts)],
) -> HashMap<BindingKey, MacAddr> {
    let mut trusted = HashMap::new();
    for (&(ifindex, ip), &mac) in context.neighbours {
        let Some(link) = context.links.get(ifindex) else {
            continue;
        };
        let segments = on_link::segments(context.links, link, &|index| {
            context.watched.contains(index)
        });
        for segment in segments {
            let key = BindingKey { segment, ip };
            let found = addresses.binary_search_by_key(&key, |(address, _)| address.key);
            if found.is_ok() {
                trusted.insert(key, mac);
            }
        }
    }
    trusted
}
