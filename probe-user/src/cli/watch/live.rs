//! Live watching.

use std::{path::Path, pin::pin, time::Duration};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use probe_model::FindingOrigin;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    NO_SOCKET, WatchArguments, WatchPrinter,
    feed::{Feed, FeedItem},
    write::CaptureFile,
};
use crate::cli::{Exit, output::print_status, session::StopSignal, status_line};

/// The interval at which the status line is redrawn.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

pub async fn run(arguments: &WatchArguments) -> anyhow::Result<Exit> {
    let mut stop = StopSignal::listen()?;
    let mut timeout = pin!(elapsed(arguments.duration));
    let mut feed = open(arguments).await?;
    let origin = match &feed {
        Feed::Attached(_) => FindingOrigin::Attached,
        Feed::Daemon(_) => FindingOrigin::Daemon,
    };
    let mut show = WatchPrinter::new(arguments, origin)?;
    let mut file = match &arguments.write {
        Some(path) => Some(CaptureFile::create(path, &feed, &show.filter).await?),
        None => None,
    };
    feed.start_monitor();
    print_start(arguments, &feed).await?;
    for binding in feed.open_conflicts().await? {
        if let Some(finding) = binding.as_finding() {
            show.finding(&finding, None)?;
        }
    }
    show.flush()?;

    let mut status = interval(STATUS_INTERVAL);
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        if show.is_done() {
            break Ok(());
        }
        let file_failure = async {
            match &mut file {
                Some(file) => file.failure().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.received() => break Ok(()),
            () = &mut timeout => break Ok(()),
            _ = status.tick(), if show.printer.status.is_possible() => {
                if let Ok(now) = feed.status().await {
                    show.printer.status.show(&status_line::text(&now, Timestamp::now()));
                }
            }
            item = feed.next() => match item {
                Ok(Some(item)) => show_item(&mut show, item)?,
                Ok(None) => break Err(anyhow::anyhow!("detection ended")),
                Err(error) => break Err(error),
            },
            error = file_failure => break Err(error),
        }
    };
    let end = Timestamp::now();
    let undecided = match (feed.stop().await, &outcome) {
        (Ok(undecided), _) => undecided,
        // A daemon that has ended cannot list them; its end is the error.
        (Err(_), Err(_)) => Vec::new(),
        (Err(error), Ok(())) => return Err(error),
    };
    for item in feed.drain_remaining() {
        show_item(&mut show, item)?;
    }
    show.undecided(&undecided, end)
        .context("cannot write to standard output")?;
    if let (Some(file), true) = (file, outcome.is_ok()) {
        let recorded = file.finish().await?;
        show.summary.add_missed(recorded.missed);
        if show.printer.is_human_output() {
            show.printer.status.clear();
            print_status(&format!("{} frames written", recorded.frames));
        }
    }
    let exit = show.end().context("cannot write to standard output")?;
    outcome.map(|()| exit)
}

/// Opens the daemon, if it responds, else attaches in this process.
async fn open(arguments: &WatchArguments) -> anyhow::Result<Feed> {
    let socket: &Path = &arguments.socket;
    if socket.as_os_str() != NO_SOCKET
        && let Some(feed) = Feed::daemon(socket, &arguments.filter()?, arguments.claims).await?
    {
        return Ok(feed);
    }
    ensure!(
        arguments.filter()?.services.is_empty(),
        "--service needs a daemon that watches the cluster (probe run)"
    );
    Feed::attach(&arguments.source, arguments.claims).await
}

/// Prints what is watched and how, so that no output does not look like a failure.
async fn print_start(arguments: &WatchArguments, feed: &Feed) -> anyhow::Result<()> {
    match feed {
        Feed::Attached(_) => {
            let status = feed.status().await?;
            let names = status.interfaces.iter().map(|interface| {
                let mode = interface.mode.as_deref().unwrap_or("not yet");
                format!("{} ({mode})", interface.interface)
            });
            print_status(&format!(
                "watching {}",
                names.collect::<Vec<_>>().join(", ")
            ));
        }
        Feed::Daemon(_) => print_status(&format!(
            "watching through the daemon at {} with its settings (--socket none attaches instead)",
            arguments.socket.display()
        )),
    }
    Ok(())
}

fn show_item(show: &mut WatchPrinter, item: FeedItem) -> anyhow::Result<()> {
    match item {
        FeedItem::Finding(record, sequence) => show.finding(&record, sequence),
        FeedItem::Claim(record) => show.claim(&record),
        FeedItem::Missed(missed) => {
            show.summary.add_missed(missed);
            Ok(())
        }
    }
    .and_then(|()| show.flush())
    .context("cannot write to standard output")
}

async fn elapsed(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => std::future::pending().await,
    }
}
