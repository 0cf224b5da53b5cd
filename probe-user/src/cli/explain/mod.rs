//! `probe explain`: everything about one address, on one screen.

mod bundle;
mod collect;

use std::{io::Write as _, net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use probe_cluster::explain::{Explanation, Situation, explain};
use probe_common::wire::Vlan;
use probe_datapath::capabilities;
use probe_model::{FindingOrigin, to_json};
use probe_render::Terminal;
use tokio::runtime;

use self::{
    bundle::{BundleDestination, HostSnapshot},
    collect::InputCollector,
};
use super::{
    Exit,
    cluster::ClusterArguments,
    doctor,
    output::{OutputFormat, is_closed, print_status},
    session::{StopSignal, init_logging},
};
use crate::daemon::serve::DEFAULT_PATH;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 it is as it should be, as far as that is known; 1 a conflict; 2 usage; 3 not as it should \
                  be: a service has it and nobody answers, or no node does, or somebody has it and nobody should; 4 it \
                  could not be found out."
)]
pub struct ExplainArguments {
    /// Which address
    #[arg(value_name = "IP")]
    ip: IpAddr,

    /// How it is written
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// Ask nobody on the network: only what the daemon and the cluster know
    #[arg(long)]
    no_probe: bool,

    /// The interface to ask through, instead of the one that the route leads to
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,

    /// The VLAN to ask in, for interfaces that carry tagged frames: 100, or 100.200 (200 inside 100)
    #[arg(long, value_name = "VID", default_value_t = Vlan::UNTAGGED, hide_default_value = true)]
    vlan: Vlan,

    /// The socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,

    /// Whether a cluster is asked whose address it is
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = KubernetesLookup::Auto)]
    kubernetes: KubernetesLookup,

    #[command(flatten)]
    cluster: ClusterArguments,

    /// Write all of it into this tar archive as well, for a ticket: this text, frames as pcapng, neighbours, bindings,
    /// history, the objects of the cluster, and what probe doctor says; `-` is standard output, and the text goes to
    /// standard error then
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    /// Let --bundle replace a file that is there
    #[arg(long, requires = "bundle")]
    force: bool,
}

/// Whether a cluster is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KubernetesLookup {
    /// If the daemon follows one, or a kubeconfig or a pod's account is at hand
    Auto,
    /// Not at all
    Off,
}

pub fn run(arguments: &ExplainArguments) -> anyhow::Result<Exit> {
    init_logging("error");
    // One thread: capabilities belong to threads.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(explain_address(arguments))
}

async fn explain_address(arguments: &ExplainArguments) -> anyhow::Result<Exit> {
    let stop = StopSignal::listen()?;
    // What it takes to load programs is let go of right after.
    let doctor = match &arguments.bundle {
        Some(_) => Some(doctor::report().await),
        None => None,
    };
    capabilities::drop_all_but_net_raw().context("cannot let go of capabilities")?;
    // Before all the work, and before anything is sent.
    let bundle = match &arguments.bundle {
        Some(path) => Some(BundleDestination::begin(path, arguments.force)?),
        None => None,
    };
    let gathered = InputCollector::new(arguments, stop).collect().await?;
    let explanation = explain(&gathered.inputs);
    let screen = render_text(&explanation)?;
    if let (Some(bundle), Some(doctor)) = (bundle, doctor) {
        let host = HostSnapshot::read(doctor).await?;
        let text = match arguments.output {
            OutputFormat::Human => screen.clone(),
            OutputFormat::Json => to_json(&explanation),
        };
        let Some(path) = bundle.write(&gathered, &explanation, &screen, &host)? else {
            // Nobody may be reading it.
            let _ = writeln!(anstream::stderr().lock(), "{}", text.trim_end());
            return Ok(exit(&explanation, gathered.probe_failed));
        };
        print_status(&format!("probe: wrote {}", path.display()));
    }
    let mut out = anstream::stdout().lock();
    let written = match arguments.output {
        OutputFormat::Human => out.write_all(screen.as_bytes()),
        OutputFormat::Json => writeln!(out, "{}", to_json(&explanation)),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if !is_closed(&error) => {
            return Err(error).context("cannot write to standard output");
        }
        _ => {}
    }
    Ok(exit(&explanation, gathered.probe_failed))
}

/// As people read it.
fn render_text(explanation: &Explanation) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let terminal = Terminal::of_stdout(FindingOrigin::Attached);
    terminal
        .explanation(&mut text, explanation)
        .context("cannot lay it out")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// How the program ends: what is not as it should be comes before what could not be found out.
fn exit(explanation: &Explanation, probe_failed: bool) -> Exit {
    match explanation.situation {
        Situation::Conflict => Exit::Conflict,
        Situation::UnassignedOwner | Situation::Silent | Situation::Claimed => {
            Exit::ExpectationFailed
        }
        Situation::Unknown => Exit::Failed,
        Situation::Healthy | Situation::Free | Situation::NotLocal if probe_failed => Exit::Failed,
        Situation::Healthy | Situation::Free | Situation::NotLocal => Exit::Success,
    }
}
