//! `probe pools free`: addresses of pools that no service has and nobody answers for.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::Args;
use probe_common::wire::{MacAddr, Vlan};
use serde::Serialize;
use tokio::runtime;

use super::{Source, files::Reader, parse_cluster, sources};
use crate::{
    check::{Lots, Surroundings, SurroundingsError, Target, Verdict, demand},
    cli::{
        Exit,
        check::quiet,
        cluster::ClusterArguments,
        exit::complain,
        output::{Output, is_closed, say},
        session::{StopSignal, init_logging},
    },
    client::Client,
    cluster::Resource,
    kernel::capabilities,
    pools::{
        Inventory,
        free::left,
        interval::{Interval, merged},
        usage::Amount,
    },
    report::{CheckRecord, to_json},
    serve::DEFAULT_PATH,
};

/// Addresses that are asked about at once where a few are wanted: as many as are asked in a moment.
const BATCH: usize = 10;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 there are some, and with --count as many; 2 usage; 3 there are fewer, or none; 4 not all \
                  could be read or asked."
)]
pub struct FreeArguments {
    /// Manifests with the pools, instead of the cluster's: a file, a folder, or - for standard input. Which addresses services have is
    /// not known then
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Manifests of the cluster of this name
    #[arg(long = "cluster", value_name = "NAME=PATH", value_parser = parse_cluster)]
    clusters: Vec<Source>,

    #[command(flatten)]
    cluster: ClusterArguments,

    /// Only of the pool of this name
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,

    /// So many addresses, one a line, and no more questions than it takes to find them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,

    /// Ask nobody on the network: what no service has may still be somebody's
    #[arg(long)]
    no_ask: bool,

    /// The interface to ask through, instead of the one that the route leads to
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,

    /// The VLAN to ask in, for interfaces that carry tagged frames: 100, or 100.200 (200 inside 100)
    #[arg(long, value_name = "VID", default_value_t = Vlan::UNTAGGED, hide_default_value = true)]
    vlan: Vlan,

    /// Questions a second. More than the default can cut this host off: switches with Dynamic ARP Inspection shut a
    /// port above 15 ARP frames a second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Human)]
    output: Output,

    /// The socket of the daemon, who may know the cluster
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, hide_short_help = true)]
    socket: PathBuf,
}

/// What is free: one JSON object. Names are stable; fields may be added.
#[derive(Debug, Serialize)]
struct FreeRecord {
    /// Whether they were asked about; else somebody may have them.
    asked: bool,
    /// Whether it is known which addresses services have.
    assigned_known: bool,
    /// Whether everything could be read and asked.
    complete: bool,
    /// The pools.
    pools: Vec<PoolRecord>,
    /// Addresses that no service has, and that somebody answers for.
    taken: Vec<TakenRecord>,
}

#[derive(Debug, Serialize)]
struct PoolRecord {
    cluster: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    /// How many IPv4 and IPv6 addresses are free.
    addresses: u64,
    free: Vec<RangeRecord>,
}

#[derive(Debug, Serialize)]
struct RangeRecord {
    first: IpAddr,
    last: IpAddr,
}

#[derive(Debug, Serialize)]
struct TakenRecord {
    ip: Ipv4Addr,
    macs: Vec<MacAddr>,
}

/// Pools, and what services have of them.
struct Known {
    inventory: Inventory,
    /// `None` where nobody says.
    assigned: Option<Vec<Interval>>,
}

/// What asking came to.
#[derive(Default)]
struct Asked {
    free: Vec<Interval>,
    taken: Vec<TakenRecord>,
    complete: bool,
}

pub fn run(arguments: &FreeArguments) -> anyhow::Result<Exit> {
    init_logging("error");
    // One thread: capabilities belong to threads.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    match runtime.block_on(find(arguments)) {
        Err(error)
            if error
                .downcast_ref::<SurroundingsError>()
                .is_some_and(SurroundingsError::is_usage) =>
        {
            complain(&error.context("--pool and --count make it less"));
            Ok(Exit::Usage)
        }
        result => result,
    }
}

async fn find(arguments: &FreeArguments) -> anyhow::Result<Exit> {
    capabilities::drop_all_but_asking().context("cannot let go of capabilities")?;
    let known = know(arguments).await?;
    let inventory = &known.inventory;
    let mut complete = inventory.unread.is_empty();
    for unread in &inventory.unread {
        let file = &inventory.files[unread.file];
        say(&format!("probe: cannot read {file}: {}", unread.error));
    }
    if let Some(name) = &arguments.pool
        && !inventory.pools.iter().any(|pool| pool.name == *name)
    {
        let mut names: Vec<_> = inventory.pools.iter().map(|pool| &*pool.name).collect();
        names.sort_unstable();
        names.dedup();
        complain(&anyhow::anyhow!(
            "there is no pool {name}; there are {}",
            names.join(", ")
        ));
        return Ok(Exit::Usage);
    }
    let assigned_known = known.assigned.is_some();
    if !assigned_known {
        say("which addresses services have is not known: manifests do not say");
    }
    let mut left = left(inventory, known.assigned.unwrap_or_default(), |pool| {
        let wanted = arguments.pool.as_ref();
        wanted.is_none_or(|name| pool.name == *name)
    });
    let mut taken = Vec::new();
    if arguments.no_ask {
        say("nobody was asked: somebody may have them all the same");
        if let Some(count) = arguments.count {
            let mut room = u128::from(count);
            for pool in &mut left {
                pool.ranges = first(&pool.ranges, &mut room);
            }
        }
    } else {
        let candidates = left.iter().flat_map(|pool| pool.ranges.clone()).collect();
        let asked = ask(arguments, candidates).await?;
        complete &= asked.complete;
        taken = asked.taken;
        let mut room = arguments.count.map_or(u128::MAX, u128::from);
        for pool in &mut left {
            let parts = pool.ranges.iter().flat_map(|range| {
                let parts = asked.free.iter();
                parts.filter_map(|part| part.common(range))
            });
            pool.ranges = first(&merged(parts.collect()), &mut room);
        }
    }
    for one in &taken {
        let macs: Vec<_> = one.macs.iter().map(ToString::to_string).collect();
        say(&format!(
            "{} is taken: no service has it, and {} answers",
            one.ip,
            macs.join(", ")
        ));
    }
    let pools = left.iter().map(|left| {
        let pool = &inventory.pools[left.pool];
        let amount = Amount::of(left.ranges.clone());
        let ranges = left.ranges.iter().map(|range| RangeRecord {
            first: range.first(),
            last: range.last(),
        });
        PoolRecord {
            cluster: inventory.clusters[pool.cluster].clone(),
            kind: pool.kind.label(),
            namespace: pool.namespace.clone(),
            name: pool.name.clone(),
            addresses: u64::try_from(amount.v4.saturating_add(amount.v6)).unwrap_or(u64::MAX),
            free: ranges.collect(),
        }
    });
    let record = FreeRecord {
        asked: !arguments.no_ask,
        assigned_known,
        complete,
        pools: pools.collect(),
        taken,
    };
    write(arguments, &record)?;
    let number = record
        .pools
        .iter()
        .fold(0_u64, |sum, pool| sum.saturating_add(pool.addresses));
    let enough = number >= arguments.count.map_or(1, u64::from);
    Ok(match (enough, complete) {
        // As many as were wanted are as many as were wanted.
        (true, true) => Exit::Fine,
        (true, false) if arguments.count.is_some() => Exit::Fine,
        (_, false) => Exit::Failed,
        (false, true) => {
            say(&format!("{number} free addresses, and that is all"));
            Exit::Unmet
        }
    })
}

/// The first addresses of these, as far as there is room.
fn first(ranges: &[Interval], room: &mut u128) -> Vec<Interval> {
    let mut first = Vec::new();
    for range in ranges {
        if *room == 0 {
            break;
        }
        if range.count() <= *room {
            *room -= range.count();
            first.push(*range);
            continue;
        }
        first.extend(range.beginning(*room));
        *room = 0;
    }
    first
}

fn single(address: IpAddr) -> Option<Interval> {
    Interval::new(address, address).ok()
}

/// Each address, in order.
fn addresses(range: Interval) -> impl Iterator<Item = IpAddr> {
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
                    .map(|number| std::net::Ipv6Addr::from(number).into()),
            };
        }
        Some(address)
    })
}

async fn know(arguments: &FreeArguments) -> anyhow::Result<Known> {
    let sources = sources(&arguments.paths, &arguments.clusters);
    if !sources.is_empty() {
        let mut inventory = Inventory::default();
        for source in &sources {
            Reader::new(&mut inventory, &source.cluster).source(&source.path);
        }
        return Ok(Known {
            inventory,
            assigned: None,
        });
    }
    let client = Client::new(&arguments.socket);
    let known = arguments.cluster.look(&client).await.context(
        "there are no pools to look at: name manifests, or a cluster's context with --context",
    )?;
    known.say_how_old();
    let cluster = known.cluster();
    for needed in [Resource::Services, Resource::IpAddressPools] {
        if !cluster.is_known(needed) {
            let freshness = cluster.objects().freshness.get(&needed);
            let error = freshness.and_then(|freshness| freshness.error.as_deref());
            bail!(
                "{needed} could not be read, so nothing can be said to be free: {}",
                error.unwrap_or("nothing was said")
            );
        }
    }
    let assigned = Some(cluster.addresses().filter_map(single).collect());
    Ok(Known {
        inventory: cluster.into_inventory(),
        assigned,
    })
}

/// Asks who has these; where a few are wanted, no more of them than it takes.
async fn ask(arguments: &FreeArguments, candidates: Vec<Interval>) -> anyhow::Result<Asked> {
    let mut stop = StopSignal::listen()?;
    let mut asked = Asked {
        complete: true,
        ..Asked::default()
    };
    let (v4, v6): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|range| range.first().is_ipv4());
    if !v6.is_empty() {
        say("IPv6 has no ARP: IPv6 addresses are left out (--no-ask lists what no service has)");
    }
    let Some(count) = arguments.count else {
        let targets: Vec<_> = v4.into_iter().filter_map(demand::target).collect();
        ask_some(arguments, &targets, &mut asked, &mut stop).await?;
        return Ok(asked);
    };
    let mut addresses = v4.into_iter().flat_map(addresses);
    // What is off-link is not gone through one by one for ever.
    for _ in 0..Lots::MOST / BATCH as u64 {
        let found = Amount::of(asked.free.clone()).v4;
        let batch: Vec<_> = addresses
            .by_ref()
            .take(BATCH)
            .filter_map(|address| match address {
                IpAddr::V4(address) => Some(Target::One(address)),
                IpAddr::V6(_) => None,
            })
            .collect();
        if found >= u128::from(count) || batch.is_empty() || !asked.complete {
            break;
        }
        ask_some(arguments, &batch, &mut asked, &mut stop).await?;
    }
    Ok(asked)
}

async fn ask_some(
    arguments: &FreeArguments,
    targets: &[Target],
    asked: &mut Asked,
    stop: &mut StopSignal,
) -> anyhow::Result<()> {
    let mut around = Surroundings::look().await?;
    let interface = arguments.interface.as_deref();
    let (lots, elsewhere) = around
        .place_what_is_here(targets, interface, arguments.vlan)
        .await?;
    let is_reserved = |target: &Target| matches!(target, Target::One(_)) && !lots.is_empty();
    if let Some(first) = elsewhere.iter().find(|target| !is_reserved(target)) {
        asked.complete = false;
        say(&format!(
            "{first} cannot be asked about: it is not on-link here. Run this on a host that is in its network, or name \
             the interface with -i"
        ));
    }
    if lots.is_empty() {
        return Ok(());
    }
    let keeper = quiet::ask(around, lots, arguments.rate, None, stop).await?;
    let mut free = Vec::new();
    for record in keeper.records {
        match record.verdict {
            Verdict::Nobody => free.extend(single(record.ip.into())),
            Verdict::NotAsked => asked.complete = false,
            Verdict::OneOwner | Verdict::Conflict | Verdict::Moved => {
                asked.taken.push(taken(&record));
            }
        }
    }
    asked.free = merged([std::mem::take(&mut asked.free), free].concat());
    Ok(())
}

fn taken(record: &CheckRecord) -> TakenRecord {
    let macs = record.owners.iter().flat_map(|owner| owner.macs.clone());
    TakenRecord {
        ip: record.ip,
        macs: macs.collect(),
    }
}

fn write(arguments: &FreeArguments, record: &FreeRecord) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(anstream::stdout());
    let written = match (arguments.output, arguments.count) {
        (Output::Json, _) => writeln!(out, "{}", to_json(record)),
        (Output::Human, Some(_)) => lines(&mut out, record),
        (Output::Human, None) => table(&mut out, record),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if !is_closed(&error) => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// One address a line, for scripts.
fn lines(out: &mut impl io::Write, record: &FreeRecord) -> io::Result<()> {
    let ranges = record.pools.iter().flat_map(|pool| &pool.free);
    let ranges = ranges.filter_map(|range| Interval::new(range.first, range.last).ok());
    for address in ranges.flat_map(addresses) {
        writeln!(out, "{address}")?;
    }
    Ok(())
}

/// One range a line, by pool.
fn table(out: &mut impl io::Write, record: &FreeRecord) -> io::Result<()> {
    let mut rows = Vec::new();
    let clusters = record.pools.iter().map(|pool| &pool.cluster);
    let several = clusters.collect::<HashSet<_>>().len() > 1;
    for pool in &record.pools {
        let name = match (&pool.namespace, several) {
            (_, true) => format!("{} {}", pool.cluster, pool.name),
            (Some(namespace), false) => format!("{namespace}/{}", pool.name),
            (None, false) => pool.name.clone(),
        };
        if pool.free.is_empty() {
            rows.push(("none".to_owned(), name.clone(), "0".to_owned()));
        }
        for range in &pool.free {
            if let Ok(range) = Interval::new(range.first, range.last) {
                let number = Amount::of(vec![range]);
                let number = number.v4.saturating_add(number.v6);
                rows.push((range.spoken(), name.clone(), number.to_string()));
            }
        }
    }
    let width = rows.iter().map(|(range, ..)| range.len()).max();
    let named = rows.iter().map(|(_, name, _)| name.len()).max();
    for (range, name, number) in &rows {
        writeln!(
            out,
            "{range:<first$}  {name:<second$}  {number:>6}",
            first = width.unwrap_or_default(),
            second = named.unwrap_or_default()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_are_as_many_as_there_is_room_for() {
        let ranges = ["192.0.2.1-192.0.2.3", "192.0.2.9", "10.0.0.0/8"]
            .map(|text| Interval::parse(text).unwrap().0);
        let mut room = 6;
        let first: Vec<_> = first(&ranges, &mut room)
            .iter()
            .map(Interval::spoken)
            .collect();
        assert_eq!(
            first,
            ["192.0.2.1-192.0.2.3", "192.0.2.9", "10.0.0.0-10.0.0.1"].map(|text| Interval::parse(
                text
            )
            .unwrap()
            .0
            .spoken())
        );
        assert_eq!(room, 0);
    }

    #[test]
    fn the_last_address_of_all_is_one_too() {
        let range = Interval::parse("255.255.255.254-255.255.255.255").unwrap();
        assert_eq!(addresses(range.0).count(), 2);
    }
}
