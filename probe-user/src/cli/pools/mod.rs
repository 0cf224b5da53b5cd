//! `probe pools`: address pools in manifests and live clusters. Only `free` sends probes.

mod contexts;
mod files;
mod free;

use std::{
    collections::HashSet,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory as _, Subcommand, ValueEnum, error::ErrorKind};
use probe_model::{escape_untrusted, to_json};
use probe_pools::{
    ManifestError, PoolFindingLevel, PoolInventory, YamlMark, check_pools, exclude::exclude,
    interval::Interval,
};
use probe_render::{
    pools::{PoolsReport, ReportPrinter, sarif},
    terminal::width_of_stdout,
};

use self::files::{ManifestFileReader, display_name, is_stdin, read, read_plan};
use super::{
    Exit,
    output::{is_closed, print_status},
};

#[derive(Debug, Subcommand)]
pub enum PoolsCommand {
    /// Find overlaps between pools, clusters and the address plan, and mistakes in pools; exits 1 if there are errors
    Check(PoolsCheckArguments),
    /// List addresses of pools that no service has and no host replies for
    Free(free::PoolsFreeArguments),
    /// Print MetalLB or Cilium pools from a file without some addresses, ready for kubectl apply
    Exclude(PoolsExcludeArguments),
}

#[derive(Debug, Args)]
pub struct PoolsCheckArguments {
    /// Manifests: a file, a directory with all files in it, or - for standard input. Each is one cluster, named after
    /// the file or directory
    #[arg(value_name = "PATH", required_unless_present_any = ["clusters", "contexts"])]
    paths: Vec<PathBuf>,

    /// Manifests of the cluster of this name; repeat it for more clusters, or for more of one
    #[arg(long = "cluster", value_name = "NAME=PATH", value_parser = parse_cluster)]
    clusters: Vec<ManifestSource>,

    /// A live cluster, by the name of its context in kubeconfig; repeat it for more
    #[arg(long = "context", value_name = "NAME")]
    contexts: Vec<String>,

    /// The address plan: the ranges of each cluster, of nodes and of DHCP, and reserved ones
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,

    /// Output format of the report
    #[arg(short, long, value_enum, default_value_t = PoolsOutput::Human)]
    output: PoolsOutput,

    /// Exit 1 for warnings too
    #[arg(long)]
    strict: bool,

    /// List at most this number of overlaps; further ones are counted
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

#[derive(Debug, Args)]
pub struct PoolsExcludeArguments {
    /// The addresses to exclude: an address, a CIDR or a range (192.0.2.1-192.0.2.9)
    #[arg(value_name = "IP|CIDR|RANGE", value_parser = parse_interval)]
    addresses: Interval,

    /// The manifests of the pools, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PoolsOutput {
    /// Lines for people
    Human,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, which code hosts show beside the lines
    Sarif,
}

/// The manifests of a cluster, or some of them.
#[derive(Clone, Debug)]
struct ManifestSource {
    cluster: String,
    path: PathBuf,
}

pub fn run(verb: &PoolsCommand) -> anyhow::Result<Exit> {
    match verb {
        PoolsCommand::Check(arguments) => check(arguments),
        PoolsCommand::Free(arguments) => free::run(arguments),
        PoolsCommand::Exclude(arguments) => print_excluded(arguments),
    }
}

fn check(arguments: &PoolsCheckArguments) -> anyhow::Result<Exit> {
    let sources = sources(&arguments.paths, &arguments.clusters);
    let from_stdin = sources.iter().map(|source| &source.path);
    let from_stdin = from_stdin
        .chain(&arguments.plan)
        .filter(|path| is_stdin(path));
    if from_stdin.count() > 1 {
        let message = "standard input (-) can be read only once";
        super::Cli::command()
            .error(ErrorKind::ValueValidation, message)
            .exit();
    }
    let mut inventory = PoolInventory::default();
    for source in &sources {
        ManifestFileReader::new(&mut inventory, &source.cluster).read_source(&source.path);
    }
    contexts::read(&mut inventory, &arguments.contexts)?;
    let plan = arguments
        .plan
        .as_deref()
        .map(|path| read_plan(&mut inventory, path));
    let plan = plan.unwrap_or_default();
    let evaluation = check_pools(&inventory, &plan, arguments.limit);
    let report = PoolsReport::new(&inventory, &plan, &evaluation);
    print(arguments.output, &report)?;

    let worst = if arguments.strict {
        PoolFindingLevel::Warning
    } else {
        PoolFindingLevel::Error
    };
    Ok(if !report.complete {
        Exit::Failed
    } else if evaluation.has_level(&inventory, worst) {
        Exit::Conflict
    } else if report.pools.is_empty() {
        // Empty input from a failed pipe must not succeed.
        print_status("probe: the input contains no pool");
        Exit::ExpectationFailed
    } else {
        Exit::Success
    })
}

fn print(output: PoolsOutput, report: &PoolsReport) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(anstream::stdout());
    let written = match output {
        PoolsOutput::Human => ReportPrinter::new(width_of_stdout()).write(&mut out, report),
        PoolsOutput::Json => writeln!(out, "{}", to_json(report)),
        PoolsOutput::Sarif => writeln!(out, "{:#}", sarif(report)),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if !is_closed(&error) => Err(error).context("cannot write the report"),
        _ => Ok(()),
    }
}

fn print_excluded(arguments: &PoolsExcludeArguments) -> anyhow::Result<Exit> {
    let name = display_name(&arguments.file);
    let shown = escape_untrusted(&name).into_owned();
    let text = read(&arguments.file).with_context(|| format!("cannot read {shown}"))?;
    let excluded = exclude(&text, arguments.addresses).with_context(|| shown.clone())?;
    for (mark, error) in &excluded.invalid {
        record_unread(&name, Some(*mark), error);
    }
    for (range, pool) in &excluded.manual_ranges {
        print_status(&format!(
            "probe: {} is in {pool}: remove it there manually",
            range.describe()
        ));
    }
    if excluded.manifests.is_empty() && excluded.manual_ranges.is_empty() {
        bail!(
            "{} is in none of the readable pools",
            arguments.addresses.describe()
        );
    }
    for range in &excluded.not_in_pools {
        print_status(&format!(
            "probe: {} is in none of the pools",
            range.describe()
        ));
    }
    let text = excluded.manifests.join("---\n");
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if !is_closed(&error) => Err(error).context("cannot write the pools")?,
        _ => {}
    }
    Ok(
        if excluded.invalid.is_empty() && excluded.manual_ranges.is_empty() {
            Exit::Success
        } else {
            Exit::Failed
        },
    )
}

/// Prints on one line that something could not be read.
fn record_unread(file: &str, mark: Option<YamlMark>, error: &ManifestError) {
    let location = mark.map(|mark| format!(":{}:{}", mark.line, mark.column));
    let text = format!(
        "cannot read {file}{}: {error}",
        location.unwrap_or_default()
    );
    print_status(&format!("probe: {}", escape_untrusted(&text)));
}

/// The sources of all manifests. A cluster is named after the last part of its path, or after the whole path if two
/// names would be equal.
fn sources(paths: &[PathBuf], clusters: &[ManifestSource]) -> Vec<ManifestSource> {
    let mut names = HashSet::new();
    let mut twice = HashSet::new();
    for path in paths {
        let name = cluster_name(path);
        if !names.insert(name.clone()) {
            twice.insert(name);
        }
    }
    let paths = paths.iter().map(|path| {
        let name = cluster_name(path);
        let cluster = if twice.contains(&name) {
            display_name(path)
        } else {
            name
        };
        ManifestSource {
            cluster,
            path: path.clone(),
        }
    });
    paths.chain(clusters.iter().cloned()).collect()
}

/// The cluster name of a path: its last part without extension.
fn cluster_name(path: &Path) -> String {
    if is_stdin(path) {
        return "stdin".to_owned();
    }
    let whole = path.canonicalize();
    let whole = whole.as_deref().unwrap_or(path);
    let name = if whole.is_dir() {
        whole.file_name()
    } else {
        path.file_stem()
    };
    match name {
        Some(name) => name.to_string_lossy().into_owned(),
        None => display_name(path),
    }
}

fn parse_cluster(text: &str) -> Result<ManifestSource, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(ManifestSource {
            cluster: name.to_owned(),
            path: path.into(),
        }),
        _ => Err("not a name and a path like east=clusters/east".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<Interval, String> {
    Interval::parse(text)
        .map(|(interval, _)| interval)
        .map_err(|error| error.to_string())
}
