//! Writes the file of `watch --write`.

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

/// Maximum number of chunks that wait for a slow disk.
const PIECES: usize = 64;
/// The pause after the end after which all chunks of the daemon are assumed to have arrived.
const GRACE: Duration = Duration::from_millis(200);

/// A capture file that is being written.
pub struct CaptureFile {
    path: PathBuf,
    source: JoinHandle<io::Result<RecordingSummary>>,
    /// The writer until it has ended.
    writer: Option<JoinHandle<io::Result<()>>>,
    /// Dropped to end the stream from the daemon.
    ending: oneshot::Sender<()>,
}

impl CaptureFile {
    /// Creates the file, and starts to write the frames of new findings of the feed.
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
            (None, Feed::Attached(_)) => anyhow::bail!("the monitor has ended"),
        };
        Ok(Self {
            path: path.to_owned(),
            source,
            writer: Some(spawn_blocking(move || write(file, receiver))),
            ending,
        })
    }

    /// Completes when the file cannot be written any more. Cancel safe.
    pub async fn failure(&mut self) -> anyhow::Error {
        let Some(writer) = &mut self.writer else {
            return std::future::pending().await;
        };
        let ended = writer.await;
        self.writer = None;
        let error = match ended {
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
            // The source has ended, which is reported with the end of the feed.
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

/// Copies whole blocks from the daemon until `stop` completes.
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
        // The writer ends early only with an error of its own.
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
