//! `probe drill`: a simulated conflict, to test alerts and notifications.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use probe_model::{FindingOrigin, FindingRecord};
use tokio::runtime;

use super::{
    Exit,
    output::{OutputFormat, Printer, is_closed, print_status},
    session::StopSignal,
    source::duration,
};
use crate::{client::Client, daemon::serve::DEFAULT_PATH};

#[derive(Debug, Args)]
pub struct DrillArguments {
    /// Duration; long enough for a scrape, an alert rule and a page. Ctrl-C ends it earlier
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    duration: Duration,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,
}

pub fn run(arguments: &DrillArguments) -> anyhow::Result<Exit> {
    let seconds = arguments.duration.as_secs();
    ensure!(
        seconds > 0,
        "a drill must last at least one second, for example --for 5m"
    );
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(run_drill(arguments, seconds))
}

async fn run_drill(arguments: &DrillArguments, seconds: u64) -> anyhow::Result<Exit> {
    let mut stop = StopSignal::listen()?;
    let client = Client::new(&arguments.socket);
    let mut answer = client.post(&format!("/v1/drill?for={seconds}")).await?;
    let mut printer = Printer::new(arguments.output, FindingOrigin::Daemon);
    let mut has_begun = false;
    loop {
        let record = tokio::select! {
            record = answer.record::<FindingRecord>() => record?,
            // The daemon ends the drill when this connection closes.
            () = stop.received() => {
                print_status("DRILL: ended");
                return Ok(Exit::Success);
            }
        };
        let Some(record) = record else {
            ensure!(
                has_begun,
                "the daemon sent no response: it may have another version"
            );
            return Ok(Exit::Success);
        };
        let written = printer
            .finding(&record, None)
            .and_then(|()| printer.flush());
        match written {
            // The drill continues: alerts do not depend on this output.
            Err(error) if !is_closed(&error) => {
                return Err(error).context("cannot write to standard output");
            }
            _ => {}
        }
        if !has_begun {
            has_begun = true;
            print_status(&format!(
                "DRILL: {} has two owners for {seconds} s, or until Ctrl-C; check alerts and notifications meanwhile",
                probe_model::drill::ADDRESS
            ));
        }
    }
}
