//! `probe pools`: address pools as they are written down. Reads files; asks nobody.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory as _, Subcommand, ValueEnum, error::ErrorKind};

use super::{
    Exit,
    output::{is_closed, say},
};
use crate::{
    pools::{
        Inventory, Level, Plan, ReadError,
        exclude::exclude,
        interval::Interval,
        judge, manifest,
        report::{Page, Report, sarif},
    },
    report::{terminal::width_of_stdout, to_json},
};

/// Larger files are no manifests.
const LARGEST_MIB: u64 = 64;
/// Folders in folders in folders are followed this deep.
const DEEPEST_FOLDER: usize = 64;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Find overlaps between pools, clusters and the plan of the network, and pools that are not what they
    /// seem; ends with 1 if there are errors
    Check(CheckArguments),
    /// Print MetalLB's pools in a file without some addresses, ready for kubectl apply
    Exclude(ExcludeArguments),
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Manifests: a file, a folder with all in it, or - for standard input. Each is one cluster, which has
    /// the name of the file or folder
    #[arg(value_name = "PATH", required_unless_present = "clusters")]
    paths: Vec<PathBuf>,

    /// Manifests of the cluster of this name; repeat it for more clusters, or for more of one
    #[arg(long = "cluster", value_name = "NAME=PATH", value_parser = parse_cluster)]
    clusters: Vec<Source>,

    /// The plan of the network: the ranges of each cluster, of nodes and of DHCP, and reserved ones
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,

    /// How the verdict is written
    #[arg(short, long, value_enum, default_value_t = Output::Human)]
    output: Output,

    /// End with 1 for warnings too
    #[arg(long)]
    strict: bool,

    /// List not more overlaps than this; the others are counted
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

#[derive(Debug, Args)]
pub struct ExcludeArguments {
    /// What to take out: an address, a CIDR or a range (192.0.2.1-192.0.2.9)
    #[arg(value_name = "IP|CIDR|RANGE", value_parser = parse_interval)]
    addresses: Interval,

    /// The manifests of the pools, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people
    Human,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, which code hosts show beside the lines
    Sarif,
}

/// The manifests of a cluster, or some of them.
#[derive(Clone, Debug)]
struct Source {
    cluster: String,
    path: PathBuf,
}

pub fn run(verb: &Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Check(arguments) => check(arguments),
        Verb::Exclude(arguments) => print_excluded(arguments),
    }
}

fn check(arguments: &CheckArguments) -> anyhow::Result<Exit> {
    let sources = arguments.sources();
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
    let mut inventory = Inventory::default();
    for source in &sources {
        Reader {
            inventory: &mut inventory,
            cluster: &source.cluster,
            seen: HashSet::new(),
        }
        .source(&source.path);
    }
    let plan = arguments
        .plan
        .as_deref()
        .map(|path| read_plan(&mut inventory, path));
    let plan = plan.unwrap_or_default();
    let verdict = judge(&inventory, &plan, arguments.limit);
    let report = Report::new(&inventory, &plan, &verdict);
    print(arguments.output, &report)?;

    let worst = if arguments.strict {
        Level::Warning
    } else {
        Level::Error
    };
    Ok(if !report.complete {
        Exit::Failed
    } else if verdict.is(&inventory, worst) {
        Exit::Conflict
    } else if report.pools.is_empty() {
        // A pipe whose other end failed must not look fine.
        say("probe: there is no pool in what was given");
        Exit::Unmet
    } else {
        Exit::Fine
    })
}

fn print(output: Output, report: &Report) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(anstream::stdout());
    let written = match output {
        Output::Human => Page::new(width_of_stdout()).write(&mut out, report),
        Output::Json => writeln!(out, "{}", to_json(report)),
        Output::Sarif => writeln!(out, "{:#}", sarif(report)),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if !is_closed(&error) => Err(error).context("cannot write the verdict"),
        _ => Ok(()),
    }
}

fn print_excluded(arguments: &ExcludeArguments) -> anyhow::Result<Exit> {
    let name = display_name(&arguments.file);
    let text = read(&arguments.file).with_context(|| format!("cannot read {name}"))?;
    let excluded = exclude(&text, arguments.addresses).with_context(|| name.clone())?;
    for broken in &excluded.broken {
        let place = format!("{name}:{}:{}", broken.mark.line, broken.mark.column);
        say(&format!("probe: cannot read {place}: {}", broken.error));
    }
    if excluded.manifests.is_empty() {
        bail!(
            "{} is in no IPAddressPool that could be read",
            arguments.addresses.spoken()
        );
    }
    for range in &excluded.not_there {
        say(&format!(
            "probe: {} is in none of the pools anyway",
            range.spoken()
        ));
    }
    let text = excluded.manifests.join("---\n");
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if !is_closed(&error) => Err(error).context("cannot write the pools")?,
        _ => {}
    }
    Ok(if excluded.broken.is_empty() {
        Exit::Fine
    } else {
        Exit::Failed
    })
}

impl CheckArguments {
    /// All manifests. A path is called as its last part; where two would have the same name, each is called
    /// as it was typed.
    fn sources(&self) -> Vec<Source> {
        let mut names = HashSet::new();
        let mut twice = HashSet::new();
        for path in &self.paths {
            let name = cluster_name(path);
            if !names.insert(name.clone()) {
                twice.insert(name);
            }
        }
        let paths = self.paths.iter().map(|path| {
            let name = cluster_name(path);
            let cluster = if twice.contains(&name) {
                display_name(path)
            } else {
                name
            };
            Source {
                cluster,
                path: path.clone(),
            }
        });
        paths.chain(self.clusters.iter().cloned()).collect()
    }
}

/// Reads the files of a cluster.
struct Reader<'a> {
    inventory: &'a mut Inventory,
    cluster: &'a str,
    /// The folders that were read, as they are without symbolic links: none is read twice, or for ever.
    seen: HashSet<PathBuf>,
}

impl Reader<'_> {
    /// What somebody named: a file is read whatever it is.
    fn source(&mut self, path: &Path) {
        // A cluster without pools is one as well.
        self.inventory.cluster(self.cluster);
        if !is_stdin(path) && path.is_dir() {
            self.folder(path, DEEPEST_FOLDER);
        } else {
            match read(path) {
                Ok(text) => {
                    manifest::read(self.inventory, self.cluster, &display_name(path), &text);
                }
                Err(error) => self.cannot_read(path, error),
            }
        }
    }

    /// A folder: what looks like manifests, in the order of names.
    fn folder(&mut self, folder: &Path, depth: usize) {
        match folder.canonicalize() {
            Ok(whole) => {
                if !self.seen.insert(whole) {
                    return;
                }
            }
            Err(error) => return self.cannot_read(folder, ReadError::Io(error.to_string())),
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.cannot_read(folder, ReadError::Io(error.to_string())),
        };
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            let kind = entry.file_type();
            // What a link leads to may be out of reach; a folder is one in any case.
            if kind.is_ok_and(|kind| kind.is_dir()) || path.is_dir() {
                match depth.checked_sub(1) {
                    Some(depth) => self.folder(&path, depth),
                    None => self.cannot_read(&path, ReadError::Io("nested too deeply".into())),
                }
            } else if is_manifest(&path) {
                self.file(&path);
            }
        }
    }

    /// A file in a folder: nobody's business unless it may define pools.
    fn file(&mut self, path: &Path) {
        match read(path) {
            Ok(text) if manifest::is_relevant(&text) => {
                manifest::read(self.inventory, self.cluster, &display_name(path), &text);
            }
            Ok(_) => {}
            Err(error) => self.cannot_read(path, error),
        }
    }

    fn cannot_read(&mut self, path: &Path, error: ReadError) {
        let file = self.inventory.file(&display_name(path));
        self.inventory.cannot_read(file, None, error);
    }
}

fn read_plan(inventory: &mut Inventory, path: &Path) -> Plan {
    match read(path) {
        Ok(text) => Plan::read(inventory, &display_name(path), &text),
        Err(error) => {
            let file = inventory.file(&display_name(path));
            inventory.cannot_read(file, None, error);
            Plan::default()
        }
    }
}

/// The text of a file, or of standard input.
fn read(path: &Path) -> Result<String, ReadError> {
    let source: io::Result<Box<dyn Read>> = if is_stdin(path) {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let limit = LARGEST_MIB << 20;
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| ReadError::Io(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { limit: LARGEST_MIB });
    }
    String::from_utf8(bytes).map_err(|_| ReadError::NotUtf8)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// What a path is called in messages: as it was typed.
fn display_name(path: &Path) -> String {
    if is_stdin(path) {
        return "stdin".to_owned();
    }
    path.display().to_string().trim_end_matches('/').to_owned()
}

/// What the cluster of a path is called: the last part, without an extension.
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

fn parse_cluster(text: &str) -> Result<Source, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Source {
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
