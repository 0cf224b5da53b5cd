//! `probe pools free`: addresses of pools that no service has and no host replies for.

mod record;

use std::{
    io::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::Args;
use probe_cluster::Resource;
use probe_common::wire::Vlan;
use probe_datapath::capabilities;
use probe_model::{CheckStatus, escape_untrusted, to_json};
use probe_pools::{
    PoolInventory,
    free::free_spans,
    interval::{Interval, IpFamily, merged},
    offer::AddressSpan,
    usage::FamilyCounts,
};
use probe_prober::check::{HostNetwork, HostNetworkError, Target, TargetRanges, cluster_targets};
use tokio::runtime;

use self::record::{FreePoolRecord, FreeRecord, InUseRecord, addresses};
use super::{ManifestSource, files::ManifestFileReader, parse_cluster, record_unread, sources};
use crate::{
    cli::{
        Exit,
        check::{collect, kubernetes::announcements},
        cluster::ClusterArguments,
        exit::print_error,
        output::{OutputFormat, is_closed, print_status},
        session::{StopSignal, init_logging},
    },
    client::Client,
    daemon::serve::DEFAULT_PATH,
};

/// The number of addresses per batch of probes if only a few are requested.
const BATCH: usize = 10;
/// Maximum number of listed ranges.
const MAX_RUNS: u128 = 1 << 17;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 found, with --count all requested; 2 usage; 3 fewer found, or none; 4 not everything could be read or probed."
)]
pub struct PoolsFreeArguments {
    /// Manifests with the pools, instead of those of the cluster: a file, a directory, or - for standard input. The
    /// assigned addresses are unknown then
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Manifests of the cluster of this name
    #[arg(long = "cluster", value_name = "NAME=PATH", value_parser = parse_cluster)]
    clusters: Vec<ManifestSource>,

    #[command(flatten)]
    cluster: ClusterArguments,

    /// Only the pool with this name
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,

    /// List this number of addresses, one a line, and send only as many probes as necessary
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,

    /// Send no probes; a listed address may then be in use by another host
    #[arg(long)]
    no_probe: bool,

    /// The interface to send probes on, instead of the one by the route
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,

    /// The VLAN to send probes in, for interfaces that carry tagged frames: 100, or 100.200 (200 inside 100)
    #[arg(long, value_name = "VID", default_value_t = Vlan::UNTAGGED, hide_default_value = true)]
    vlan: Vlan,

    /// Probes a second. More than the default can cut this host off: switches with Dynamic ARP Inspection shut a port
    /// above 15 ARP frames a second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// The socket of the daemon, which may watch the cluster
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, hide_short_help = true)]
    socket: PathBuf,
}

/// Pools and their assigned addresses.
struct KnownPools {
    inventory: PoolInventory,
    /// `None` if unknown.
    assigned: Option<Vec<Interval>>,
}

/// The results of probing.
#[derive(Default)]
struct ProbedRanges {
    free: Vec<Interval>,
    in_use: Vec<InUseRecord>,
    complete: bool,
}

pub fn run(arguments: &PoolsFreeArguments) -> anyhow::Result<Exit> {
    init_logging("error");
    // One thread: capabilities belong to threads.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    match runtime.block_on(find(arguments)) {
        Err(error)
            if error
                .downcast_ref::<HostNetworkError>()
                .is_some_and(HostNetworkError::is_usage_error) =>
        {
            print_error(&error.context("narrow it with --pool or --count"));
            Ok(Exit::Usage)
        }
        result => result,
    }
}

async fn find(arguments: &PoolsFreeArguments) -> anyhow::Result<Exit> {
    capabilities::drop_all_but_net_raw().context("cannot drop capabilities")?;
    let known = load_pools(arguments).await?;
    let inventory = &known.inventory;
    let mut complete = inventory.unread.is_empty();
    for unread in &inventory.unread {
        record_unread(&inventory.files[unread.file], unread.mark, &unread.error);
    }
    if let Some(name) = &arguments.pool
        && !inventory.pools.iter().any(|pool| pool.name == *name)
    {
        let mut names: Vec<_> = inventory.pools.iter().map(|pool| &*pool.name).collect();
        names.sort_unstable();
        names.dedup();
        let names = names.join(", ");
        print_error(&anyhow::anyhow!(
            "unknown pool {}; the pools are {}",
            escape_untrusted(name),
            escape_untrusted(&names)
        ));
        return Ok(Exit::Usage);
    }
    let assignments_known = known.assigned.is_some();
    if !assignments_known {
        print_status("the assigned addresses are unknown: manifests do not contain them");
    }
    let left = free_spans(inventory, known.assigned.unwrap_or_default(), |pool| {
        let wanted = arguments.pool.as_ref();
        wanted.is_none_or(|name| pool.name == *name)
    });
    let spans = left.iter().flat_map(|left| &left.spans);
    let runs = spans.fold(0_u128, |sum, one| sum.saturating_add(one.max_runs()));
    if arguments.count.is_none() && runs > MAX_RUNS {
        print_error(&anyhow::anyhow!(
            "more than {MAX_RUNS} free ranges: narrow it with --pool or --count"
        ));
        return Ok(Exit::Usage);
    }
    let mut room = arguments.count.map_or(u128::MAX, u128::from);
    let mut in_use = Vec::new();
    let pools = if arguments.no_probe {
        print_status("no probes were sent: hosts may use some of these addresses");
        let pools = left.iter().map(|left| {
            let runs = left.spans.iter().flat_map(|span| span.runs());
            // Addresses reserved in another pool may be adjacent to those of this pool.
            let free = merged(take_first(runs, &mut room));
            FreePoolRecord::new(inventory, left.pool, free)
        });
        pools.collect()
    } else {
        let candidates = left.iter().flat_map(|pool| &pool.spans);
        let probed = collect(arguments, candidates.copied()).await?;
        complete &= probed.complete;
        in_use = probed.in_use;
        let pools = left.iter().map(|left| {
            let spans = left.spans.iter();
            let free = spans.flat_map(|span| span.intersections(&probed.free));
            // Merge by address: addresses in between may belong to another pool.
            let free = merged(free.flat_map(AddressSpan::runs).collect());
            FreePoolRecord::new(inventory, left.pool, take_first(free, &mut room))
        });
        pools.collect()
    };
    for one in &in_use {
        let macs: Vec<_> = one.macs.iter().map(ToString::to_string).collect();
        print_status(&format!(
            "{} is in use: no service has it, and {} replies",
            one.ip,
            macs.join(", ")
        ));
    }
    let record = FreeRecord {
        probed: !arguments.no_probe,
        assignments_known,
        complete,
        pools,
        in_use,
    };
    write(arguments, &record)?;
    let number = record
        .pools
        .iter()
        .fold(0_u64, |sum, pool| sum.saturating_add(pool.addresses));
    let enough = number >= arguments.count.map_or(1, u64::from);
    Ok(match (enough, complete) {
        // The requested number was found, so the result is complete.
        (true, true) => Exit::Success,
        (true, false) if arguments.count.is_some() => Exit::Success,
        (_, false) => Exit::Failed,
        (false, true) => {
            print_status(&format!("only {number} free addresses"));
            Exit::ExpectationFailed
        }
    })
}

/// The first addresses of these ranges, up to `room`, which is reduced.
fn take_first(ranges: impl IntoIterator<Item = Interval>, room: &mut u128) -> Vec<Interval> {
    let mut ranges = ranges.into_iter();
    let mut first = Vec::new();
    while *room > 0
        && let Some(range) = ranges.next()
    {
        first.extend(range.first_addresses(*room));
        *room -= range.count().min(*room);
    }
    first
}

fn single_address(address: IpAddr) -> Option<Interval> {
    Interval::new(address, address).ok()
}

async fn load_pools(arguments: &PoolsFreeArguments) -> anyhow::Result<KnownPools> {
    let sources = sources(&arguments.paths, &arguments.clusters);
    if !sources.is_empty() {
        let mut inventory = PoolInventory::default();
        for source in &sources {
            ManifestFileReader::new(&mut inventory, &source.cluster).read_source(&source.path);
        }
        return Ok(KnownPools {
            inventory,
            assigned: None,
        });
    }
    let client = Client::new(&arguments.socket);
    let known = arguments
        .cluster
        .look(&client)
        .await
        .context("no pools: name manifests, or a cluster with --context")?;
    known.warn_if_stale();
    let cluster = known.cluster();
    for needed in [Resource::Services, Resource::IpAddressPools] {
        if !cluster.is_known(needed) {
            let freshness = cluster.objects().freshness.get(&needed);
            let error = freshness.and_then(|freshness| freshness.error.as_deref());
            bail!(
                "{needed} could not be read, so the free addresses are unknown: {}",
                error.unwrap_or("no error was reported")
            );
        }
    }
    let assigned = Some(cluster.addresses().filter_map(single_address).collect());
    Ok(KnownPools {
        inventory: cluster.into_inventory(),
        assigned,
    })
}

/// Probes the candidates; with `--count` only as many as necessary.
async fn collect(
    arguments: &PoolsFreeArguments,
    candidates: impl Iterator<Item = AddressSpan>,
) -> anyhow::Result<ProbedRanges> {
    let mut stop = StopSignal::listen()?;
    let mut probed = ProbedRanges {
        complete: true,
        ..ProbedRanges::default()
    };
    let (v4, v6): (Vec<_>, Vec<_>) =
        candidates.partition(|span| span.interval().family() == IpFamily::V4);
    let runs = v4.into_iter().flat_map(AddressSpan::runs);
    if !v6.is_empty() {
        print_status(
            "IPv6 has no ARP: IPv6 addresses are skipped (--no-probe lists unassigned ones)",
        );
    }
    let Some(count) = arguments.count else {
        let targets: Vec<_> = runs.filter_map(cluster_targets::target).collect();
        probe_batch(arguments, &targets, &mut probed, &mut stop).await?;
        return Ok(probed);
    };
    let mut addresses = runs.flat_map(addresses);
    // Bounded, because off-link addresses yield no result.
    for _ in 0..TargetRanges::MAX_TARGETS / BATCH as u64 {
        let found = FamilyCounts::of(probed.free.clone()).v4;
        let batch: Vec<_> = addresses
            .by_ref()
            .take(BATCH)
            .filter_map(|address| match address {
                IpAddr::V4(address) => Some(Target::Address(address)),
                IpAddr::V6(_) => None,
            })
            .collect();
        if found >= u128::from(count) || batch.is_empty() || !probed.complete {
            break;
        }
        probe_batch(arguments, &batch, &mut probed, &mut stop).await?;
    }
    Ok(probed)
}

async fn probe_batch(
    arguments: &PoolsFreeArguments,
    targets: &[Target],
    probed: &mut ProbedRanges,
    stop: &mut StopSignal,
) -> anyhow::Result<()> {
    let mut around = HostNetwork::read().await?;
    let interface = arguments.interface.as_deref();
    let (lots, elsewhere) = around
        .resolve_on_link(targets, interface, arguments.vlan)
        .await?;
    let is_reserved = |target: &Target| matches!(target, Target::Address(_)) && !lots.is_empty();
    if let Some(first) = elsewhere.iter().find(|target| !is_reserved(target)) {
        probed.complete = false;
        print_status(&format!(
            "{first} cannot be probed: it is not on-link here. Run this on a host in its network, or name the interface with -i"
        ));
    }
    if lots.is_empty() {
        return Ok(());
    }
    // A speaker on this host does not receive its probes.
    let speaker = announcements(&Client::new(&arguments.socket), false).await;
    let collector = collect::collect(around, lots, arguments.rate, None, speaker, stop).await?;
    let mut free = Vec::new();
    for record in collector.records {
        match record.status {
            CheckStatus::NoReply => free.extend(single_address(record.ip.into())),
            CheckStatus::NotProbed => probed.complete = false,
            CheckStatus::OneOwner
            | CheckStatus::Conflict
            | CheckStatus::Contested
            | CheckStatus::Moved => {
                probed.in_use.push(InUseRecord::new(&record));
            }
        }
    }
    probed.free = merged([std::mem::take(&mut probed.free), free].concat());
    Ok(())
}

fn write(arguments: &PoolsFreeArguments, record: &FreeRecord) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(anstream::stdout());
    let written = match (arguments.output, arguments.count) {
        (OutputFormat::Json, _) => writeln!(out, "{}", to_json(record)),
        (OutputFormat::Human, Some(_)) => record.lines(&mut out),
        (OutputFormat::Human, None) => record.table(&mut out),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if !is_closed(&error) => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_page_is_filled_up_to_the_limit() {
        let ranges = ["192.0.2.1-192.0.2.3", "192.0.2.9", "10.0.0.0/8"]
            .map(|text| Interval::parse(text).unwrap().0);
        let mut room = 6;
        let first: Vec<_> = take_first(ranges, &mut room)
            .iter()
            .map(Interval::describe)
            .collect();
        assert_eq!(
            first,
            ["192.0.2.1-192.0.2.3", "192.0.2.9", "10.0.0.0-10.0.0.1"].map(|text| Interval::parse(
                text
            )
            .unwrap()
            .0
            .describe())
        );
        assert_eq!(room, 0);
    }
}
