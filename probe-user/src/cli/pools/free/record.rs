//! The free addresses, as text and JSON (`docs/free.schema.json`).

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use probe_common::wire::MacAddr;
use probe_model::{CheckRecord, escape_untrusted};
use probe_pools::{PoolInventory, PoolKind, interval::Interval, usage::FamilyCounts};
use probe_render::layout;
use serde::Serialize;

/// The free addresses: one JSON object. Names are stable; fields may be added.
#[derive(Debug, Serialize)]
pub struct FreeRecord {
    /// Whether they were probed; otherwise hosts may use some of them.
    pub probed: bool,
    /// Whether the assigned addresses are known.
    pub assignments_known: bool,
    /// Whether everything could be read and probed.
    pub complete: bool,
    /// The pools.
    pub pools: Vec<FreePoolRecord>,
    /// Addresses that no service has and a host replies for.
    pub in_use: Vec<InUseRecord>,
}

/// A pool.
#[derive(Debug, Serialize)]
pub struct FreePoolRecord {
    /// Its cluster.
    pub cluster: String,
    /// What defines it.
    pub kind: PoolKind,
    /// Its namespace, if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The path.
    pub name: String,
    /// The number of free IPv4 and IPv6 addresses.
    pub addresses: u64,
    /// Which.
    pub free: Vec<FreeRangeRecord>,
}

/// A range of free addresses.
#[derive(Debug, Serialize)]
pub struct FreeRangeRecord {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
}

/// An address that a host replies for.
#[derive(Debug, Serialize)]
pub struct InUseRecord {
    /// Which.
    pub ip: Ipv4Addr,
    /// The MACs that replied.
    pub macs: Vec<MacAddr>,
}

impl FreePoolRecord {
    /// The free ranges of a pool, by its index.
    pub fn new(inventory: &PoolInventory, pool: usize, free: Vec<Interval>) -> Self {
        let pool = &inventory.pools[pool];
        let ranges = free.iter().map(|range| FreeRangeRecord {
            first: range.first(),
            last: range.last(),
        });
        Self {
            cluster: inventory.clusters[pool.cluster].clone(),
            kind: pool.kind,
            namespace: pool.namespace.clone(),
            name: pool.name.clone(),
            free: ranges.collect(),
            addresses: u64::try_from(FamilyCounts::of(free).all()).unwrap_or(u64::MAX),
        }
    }

    fn ranges(&self) -> impl Iterator<Item = Interval> {
        let ranges = self.free.iter();
        ranges.filter_map(|range| Interval::new(range.first, range.last).ok())
    }
}

impl InUseRecord {
    /// The address and MACs of a check.
    pub fn new(record: &CheckRecord) -> Self {
        let macs = record.owners.iter().flat_map(|owner| owner.macs.clone());
        Self {
            ip: record.ip,
            macs: macs.collect(),
        }
    }
}

impl FreeRecord {
    /// One address a line, for scripts.
    pub fn lines(&self, out: &mut impl io::Write) -> io::Result<()> {
        let ranges = self.pools.iter().flat_map(FreePoolRecord::ranges);
        for address in ranges.flat_map(addresses) {
            writeln!(out, "{address}")?;
        }
        Ok(())
    }

    /// One range a line, by pool.
    pub fn table(&self, out: &mut impl io::Write) -> io::Result<()> {
        let mut rows = Vec::new();
        let clusters = self.pools.iter().map(|pool| &pool.cluster);
        let several = clusters.collect::<HashSet<_>>().len() > 1;
        for pool in &self.pools {
            let name = match (&pool.namespace, several) {
                (_, true) => format!("{} {}", pool.cluster, pool.name),
                (Some(namespace), false) => format!("{namespace}/{}", pool.name),
                (None, false) => pool.name.clone(),
            };
            let name = escape_untrusted(&name).into_owned();
            if pool.free.is_empty() {
                rows.push(("none".to_owned(), name.clone(), "0".to_owned()));
            }
            for range in pool.ranges() {
                let number = range.count().to_string();
                rows.push((range.describe(), name.clone(), number));
            }
        }
        let width = |cell: fn(&(String, String, String)) -> &str| {
            let widths = rows.iter().map(|row| layout::width_of(cell(row)));
            widths.max().unwrap_or_default()
        };
        let (first, second) = (width(|row| &row.0), width(|row| &row.1));
        for (range, name, number) in &rows {
            // Pad by columns: characters may be wider than one column.
            let room = second - layout::width_of(name);
            writeln!(out, "{range:<first$}  {name}{:room$}  {number:>6}", "")?;
        }
        Ok(())
    }
}

/// All addresses of a range, in order.
pub fn addresses(range: Interval) -> impl Iterator<Item = IpAddr> {
    let mut next = Some(range.first());
    let last = range.last();
    std::iter::from_fn(move || {
        let address = next.take()?;
        if address < last {
            next = match address {
                IpAddr::V4(address) => u32::from(address)
                    .checked_add(1)
                    .map(|number| Ipv4Addr::from(number).into()),
                IpAddr::V6(address) => u128::from(address)
                    .checked_add(1)
                    .map(|number| Ipv6Addr::from(number).into()),
            };
        }
        Some(address)
    })
}

#[cfg(test)]
mod tests {
    use probe_model::{
        schema::{Schema, fields},
        to_json,
    };
    use probe_pools::manifest;
    use serde_json::Value;

    use super::*;

    const SCHEMA: &str = include_str!("../../../../../docs/free.schema.json");
    const POOLS: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: default, namespace: metallb-system}
spec: {addresses: [192.0.2.0/28, '2001:db8::/56']}
---
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: \"a\\e[31m\\nb\"}
spec: {blocks: [{cidr: 198.51.100.0/31}]}
";

    fn record() -> FreeRecord {
        let mut inventory = PoolInventory::default();
        manifest::read(&mut inventory, "east", "pools.yaml", POOLS);
        let pools = inventory.pools.iter().enumerate().map(|(number, pool)| {
            let ranges = pool.ranges.iter().map(|range| range.interval);
            FreePoolRecord::new(&inventory, number, ranges.collect())
        });
        FreeRecord {
            probed: true,
            assignments_known: false,
            complete: true,
            pools: pools.collect(),
            in_use: vec![InUseRecord {
                ip: Ipv4Addr::new(192, 0, 2, 9),
                macs: vec!["02:00:00:00:00:01".parse().unwrap()],
            }],
        }
    }

    #[test]
    fn written_record_matches_the_schema() {
        let schema = Schema::new(SCHEMA);
        let mut empty = record();
        empty.pools[0].free.clear();
        empty.in_use.clear();
        let written: Vec<Value> = [record(), empty]
            .iter()
            .map(|record| serde_json::from_str(&to_json(record)).unwrap())
            .collect();
        schema.assert_valid(&written);
        assert_eq!(written[0]["pools"][0]["addresses"], u64::MAX);
        for (described, list) in [
            ("/properties", ""),
            ("/$defs/pool/properties", "pools"),
            ("/$defs/in_use/properties", "in_use"),
        ] {
            let objects = written.iter().flat_map(|record| match list {
                "" => vec![record],
                list => record[list].as_array().unwrap().iter().collect(),
            });
            assert_eq!(fields(objects), schema.fields(described), "{list}");
        }
        let ranges = written[0].pointer("/pools/0/free/0").unwrap();
        assert_eq!(fields([ranges]), schema.fields("/$defs/range/properties"));
        assert_eq!(
            schema.labels("/$defs/pool/properties/kind/enum"),
            PoolKind::LABELS
        );
        let mut invalid = written[0].clone();
        invalid["pools"][0]["free"][0]["first"] = "192.0.2.256".into();
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema.0)
            .unwrap();
        assert!(!validator.is_valid(&invalid));
    }

    #[test]
    fn a_table_has_a_line_for_each_range_whatever_pools_are_called() {
        let mut out = Vec::new();
        record().table(&mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        let expected = "\
192.0.2.0/28     metallb-system/default      16
2001:db8::/56    metallb-system/default  4722366482869645213696
198.51.100.0/31  a\\u{1b}[31m\\nb               2
";
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn the_last_address_of_all_is_one_too() {
        let range = Interval::parse("255.255.255.254-255.255.255.255").unwrap();
        assert_eq!(addresses(range.0).count(), 2);
    }
}
