//! `probe explain`: everything about one address, on one screen.

mod bundle;
mod collect;

use std::{io::Write as _, net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use probe_cluster::explain::{AddressStatus, Explanation, explain};
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
    after_help = "Exit status: 0 as expected, as far as known; 1 conflict; 2 usage; 3 not as expected: a service has it and no \
                  host replies, or its owner is no node, or a host owns an address that no service has, or it is \
                  contested; 4 unknown."
)]
pub struct ExplainArguments {
    /// The address
    #[arg(value_name = "IP")]
    ip: IpAddr,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// Send no probes; use only the data of the daemon and the cluster
    #[arg(long)]
    no_probe: bool,

    /// The interface to send probes on, instead of the one by the route
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,

    /// The VLAN to send probes in, for interfaces that carry tagged frames: 100, or 100.200 (200 inside 100)
    #[arg(long, value_name = "VID", default_value_t = Vlan::UNTAGGED, hide_default_value = true)]
    vlan: Vlan,

    /// The socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,

    /// Whether to look the address up in a cluster
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = KubernetesLookup::Auto)]
    kubernetes: KubernetesLookup,

    #[command(flatten)]
    cluster: ClusterArguments,

    /// Also write a support bundle (tar): this text, frames as pcapng, neighbours, bindings, history, the objects of
    /// the cluster, and the output of probe doctor; `-` is standard output, and the text goes to standard error then
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    /// Let --bundle replace an existing file
    #[arg(long, requires = "bundle")]
    force: bool,
}

/// Whether to look an address up in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KubernetesLookup {
    /// If the daemon watches one, or with a kubeconfig or the service account of a pod
    Auto,
    /// Never
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
    // Before the capabilities to load programs are dropped.
    let doctor = match &arguments.bundle {
        Some(_) => Some(doctor::report().await),
        None => None,
    };
    capabilities::drop_all_but_net_raw().context("cannot drop capabilities")?;
    // Before anything is sent.
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
            // Standard error may be closed.
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

/// The explanation as text.
fn render_text(explanation: &Explanation) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let terminal = Terminal::of_stdout(FindingOrigin::Attached);
    terminal
        .explanation(&mut text, explanation)
        .context("cannot render the explanation")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The exit status: an unexpected result takes precedence over an unknown one.
fn exit(explanation: &Explanation, probe_failed: bool) -> Exit {
    match explanation.status {
        AddressStatus::Conflict => Exit::Conflict,
        AddressStatus::Contested
        | AddressStatus::WrongOwner
        | AddressStatus::Silent
        | AddressStatus::Claimed => Exit::ExpectationFailed,
        AddressStatus::Unknown => Exit::Failed,
        AddressStatus::OneOwner | AddressStatus::Free | AddressStatus::NotLocal if probe_failed => {
            Exit::Failed
        }
        AddressStatus::OneOwner | AddressStatus::Free | AddressStatus::NotLocal => Exit::Success,
    }
}
