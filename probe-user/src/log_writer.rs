//! Writes lines to standard output or standard error on a thread of its own.
//!
//! A full pipe or a full disk blocks or fails that thread alone: the queue is bounded, and lines that do not fit or
//! cannot be written are dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum number of queued lines.
const QUEUE_LINES: usize = 1_024;

/// Maximum length of a line in bytes; with the queue, this bounds the memory of a writer.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Time limit of [`LogWriter::flush`] at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes lines without ever blocking. Clones share the queue.
#[derive(Clone, Debug)]
pub struct LogWriter {
    queue: SyncSender<Vec<u8>>,
    state: Arc<LogWriterState>,
}

/// The state of a writer.
#[derive(Debug)]
struct LogWriterState {
    name: &'static str,
    dropped: AtomicU64,
    pending: AtomicU64,
    /// The start of a write that has not returned.
    writing_since: Mutex<Option<Instant>>,
    /// The error of the last write, if it failed.
    error: Mutex<Option<String>>,
}

/// The health of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWriterHealth {
    /// `stdout` or `stderr`.
    pub name: &'static str,
    /// Lines that were dropped.
    pub dropped: u64,
    /// The duration of a write that has not returned.
    pub blocked_for: Option<Duration>,
    /// The error of the last write, if it failed.
    pub error: Option<String>,
}

impl LogWriter {
    /// Starts the thread of a writer.
    pub fn start(name: &'static str, out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let state = Arc::new(LogWriterState {
            name,
            dropped: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            writing_since: Mutex::default(),
            error: Mutex::default(),
        });
        let thread_state = state.clone();
        thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || thread_state.write_lines(&lines, out))?;
        Ok(Self { queue, state })
    }

    /// Queues a line that ends with a newline, or drops it if the queue is full.
    pub fn write_line(&self, line: &[u8]) {
        self.state.pending.fetch_add(1, Ordering::Relaxed);
        match self.queue.try_send(cut(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.state.pending.fetch_sub(1, Ordering::Relaxed);
                self.state.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until all lines are written, at most one second.
    pub fn flush(&self) {
        const STEP: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        while self.state.pending.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(STEP);
        }
    }

    /// The health of this writer.
    pub fn health(&self) -> LogWriterHealth {
        let writing = self.state.writing_since.lock();
        let writing = *writing.unwrap_or_else(PoisonError::into_inner);
        let error = self.state.error.lock();
        LogWriterHealth {
            name: self.state.name,
            dropped: self.state.dropped.load(Ordering::Relaxed),
            blocked_for: writing.map(|since| since.elapsed()),
            error: error.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// Truncates a line to [`MAX_LINE_BYTES`].
fn cut(line: &[u8]) -> Vec<u8> {
    if line.len() <= MAX_LINE_BYTES {
        return line.to_vec();
    }
    let mut line = line[..MAX_LINE_BYTES - 1].to_vec();
    line.push(b'\n');
    line
}

impl LogWriterState {
    fn write_lines(&self, lines: &Receiver<Vec<u8>>, mut out: impl Write) {
        // Whether the last write ended in the middle of a line.
        let mut broken_line = false;
        let mut reported = 0;
        while let Ok(line) = lines.recv() {
            self.set_writing(Some(Instant::now()));
            let written = write_whole(&mut out, &line, &mut broken_line);
            self.set_writing(None);
            let failed = written.is_err();
            self.set_error(written.err().map(|error| error.to_string()));
            self.pending.fetch_sub(1, Ordering::Relaxed);
            if failed {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > reported {
                // To standard error by its own writer: a queued line, so nothing waits here.
                tracing::warn!(
                    stream = self.name,
                    lines = dropped - reported,
                    "log lines were dropped: the reader was too slow, or writing failed"
                );
                reported = dropped;
            }
        }
    }

    fn set_writing(&self, since: Option<Instant>) {
        *self
            .writing_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// Writes a line. An incomplete previous line is terminated first.
fn write_whole(out: &mut impl Write, line: &[u8], broken_line: &mut bool) -> io::Result<()> {
    if *broken_line {
        out.write_all(b"\n")?;
        *broken_line = false;
    }
    let mut rest = line;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                rest = &rest[written..];
                *broken_line = !rest.is_empty();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine {
            writer: self,
            line: Vec::new(),
        }
    }
}

/// A line that is queued when it is dropped.
#[derive(Debug)]
pub struct LogLine<'a> {
    writer: &'a LogWriter,
    line: Vec<u8>,
}

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.writer.write_line(&self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A stream that accepts a write only when allowed: `Ok` accepts this number of bytes, `Err` fails.
    struct Gate {
        allowed: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = self
                .allowed
                .recv()
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
            let in_use = &bytes[..bytes.len().min(most)];
            self.written.send(in_use.to_vec()).unwrap();
            Ok(in_use.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogWriter, Sender<io::Result<usize>>, Receiver<Vec<u8>>) {
        let (allow, allowed) = channel();
        let (written, in_use) = channel();
        let writer = LogWriter::start("stdout", Gate { allowed, written }).unwrap();
        (writer, allow, in_use)
    }

    #[test]
    fn a_blocked_stream_costs_a_bounded_queue_and_drops_are_counted() {
        let (writer, _allow, _taken) = gated();
        for _ in 0..QUEUE_LINES + 50 {
            writer.write_line(b"line\n");
        }
        let health = writer.health();
        // The thread may hold one line.
        assert!((49..=50).contains(&health.dropped), "{health:?}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while writer.health().blocked_for.is_none() {
            assert!(Instant::now() < deadline, "not reported as blocked");
            thread::yield_now();
        }
    }

    #[test]
    fn line_after_a_full_disk_is_written_completely() {
        let (writer, allow, in_use) = gated();
        allow.send(Ok(2)).unwrap();
        allow.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        writer.write_line(b"first\n");
        assert_eq!(in_use.recv().unwrap(), b"fi");
        let deadline = Instant::now() + Duration::from_secs(10);
        while writer.health().error.is_none() {
            assert!(Instant::now() < deadline, "the error was not reported");
            thread::yield_now();
        }
        assert_eq!(writer.health().dropped, 1);
        for _ in 0..2 {
            allow.send(Ok(100)).unwrap();
        }
        writer.write_line(b"second\n");
        assert_eq!(in_use.recv().unwrap(), b"\n");
        assert_eq!(in_use.recv().unwrap(), b"second\n");
        writer.flush();
        assert_eq!(writer.health().error, None);
    }

    #[test]
    fn long_line_is_truncated_and_ends_with_a_newline() {
        let line = cut(&vec![b'x'; MAX_LINE_BYTES + 1]);
        assert_eq!(line.len(), MAX_LINE_BYTES);
        assert!(line.ends_with(b"x\n"));
    }
}
