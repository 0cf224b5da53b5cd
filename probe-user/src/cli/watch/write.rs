//! The file of `watch --write`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use probe_capture::{BlockSplitter, statistics_block};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::feed::Feed;
use crate::{client::ResponseStream, daemon::recording::RecordingSummary, filter::RecordFilter};

/// Pieces that wait for a slow disk.
const PIECES: usize = 64;
/// How long the daemon may send nothing after the end, until all of its pieces are taken to have come.
const GRACE: Duration = Duration::from_millis(200);

/// A file that is being written.
pub struct CaptureFile {
    path: PathBuf,
    source: JoinHandle<io::Result<RecordingSummary>>,
    /// Until it has ended.
    writer: Option<JoinHandle<io::Result<()>>>,
    /// Dropped to end what comes from the daemon.
    ending: oneshot::Sender<()>,
}

impl CaptureFile {
    /// Creates it, and writes what the feed finds from now on.
    pub async fn create(path: &Path, feed: &Feed, filter: &RecordFilter) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (sender, receiver) = mpsc::channel(PIECES);
        let (ending, ended) = oneshot::channel();
        let source = match (feed.recording(filter), feed) {
            (Some(recording), _) => tokio::spawn(recording.run(sender)),
            (None, Feed::Daemon(daemon)) => {
                let (client, query) = daemon.client();
                let answer = client.get(&format!("/v1/frames{query}")).await?;
                tokio::spawn(copy(answer, sender, ended))
            }
            (None, Feed::Attached(_)) => anyhow::bail!("it has ended"),
        };
        Ok(Self {
            path: path.to_owned(),
            source,
            writer: Some(spawn_blocking(move || write(file, receiver))),
            ending,
        })
    }

    /// Waits until the file cannot be written any more. Safe to drop at any point.
    pub async fn failure(&mut self) -> anyhow::Error {
        let Some(writer) = &mut self.writer else {
            return std::future::pending().await;
        };
        let ended = writer.await;
        self.writer = None;
        let error = match ended {
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
            // Its source has ended: that is reported with the end of the feed.
            Ok(Ok(())) => return std::future::pending().await,
        };
        anyhow::Error::context(error, format!("cannot write {}", self.path.display()))
    }

    /// Writes the rest, once the feed has been stopped.
    pub async fn finish(self) -> anyhow::Result<RecordingSummary> {
        let Self {
            path,
            source,
            writer,
            ending,
        } = self;
        drop(ending);
        let recorded = source.await;
        let failed = || format!("cannot write {}", path.display());
        if let Some(writer) = writer {
            writer.await.with_context(failed)?.with_context(failed)?;
        }
        recorded.with_context(failed)?.with_context(failed)
    }
}

fn write(mut file: File, mut pieces: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece)?;
    }
    Ok(())
}

/// Copies whole blocks from the daemon until it is told to end.
async fn copy(
    mut answer: ResponseStream,
    out: mpsc::Sender<Vec<u8>>,
    mut ended: oneshot::Receiver<()>,
) -> io::Result<RecordingSummary> {
    let mut blocks = BlockSplitter::default();
    let mut ending = false;
    loop {
        let silence = async {
            if ending {
                sleep(GRACE).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let piece = tokio::select! {
            piece = answer.next_chunk() => piece,
            () = silence => break,
            _ = &mut ended, if !ending => {
                ending = true;
                continue;
            }
        };
        let Some(piece) = piece.map_err(io::Error::other)? else {
            break;
        };
        // The writer is gone only with an error of its own.
        if out.send(blocks.split(&piece)).await.is_err() {
            break;
        }
    }
    let now = jiff::Timestamp::now().as_nanosecond();
    let end = statistics_block(0, u64::try_from(now).unwrap_or(0))?;
    let _ = out.send(end).await;
    Ok(RecordingSummary {
        frames: blocks.packets(),
        missed: blocks.missed(),
    })
}
