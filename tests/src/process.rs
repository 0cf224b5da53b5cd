//! A program on a host and its output.

use std::{
    fmt, fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::wait::eventually;

/// The unit of CPU time in `/proc` (`USER_HZ`), the same on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// The output stream of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a program wrote.
#[derive(Clone, Debug)]
struct Line {
    stream: Stream,
    text: String,
    arrived: SystemTime,
}

/// A running program. It is killed and reaped on drop. During a panic its output is printed, because the test's own
/// message rarely explains a failure of the program.
#[derive(Debug)]
pub struct Process {
    title: String,
    child: Child,
    /// A pidfd: readable when the program exits, and never refers to another process.
    handle: OwnedFd,
    output: Arc<Output>,
}

/// What a program has written so far.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    open_streams: usize,
}

/// The status and output of a program that has exited.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command and its host.
    pub title: String,
    /// The exit status.
    pub status: ExitStatus,
    /// The standard output.
    pub stdout: String,
    /// The standard error output.
    pub stderr: String,
}

impl Process {
    /// Starts a program; `title` is its name in messages.
    pub(crate) fn spawn(title: String, mut command: Command) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {title}"))?;
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            Output::collect(&output, Stream::Stdout, stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            Output::collect(&output, Stream::Stderr, stderr);
        }
        match open_handle(&child) {
            Ok(handle) => Ok(Self {
                title,
                child,
                handle,
                output,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context(format!("cannot watch {title}")))
            }
        }
    }

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line of a stream, including past lines, for which `pick` returns a value.
    pub fn wait_for<T>(
        &self,
        stream: Stream,
        within: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + within;
        let mut seen = 0;
        let mut state = self.output.lock();
        loop {
            let found = state.lines[seen..]
                .iter()
                .filter(|line| line.stream == stream)
                .find_map(|line| pick(&line.text));
            if let Some(found) = found {
                return Ok(found);
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open_streams == 0 {
                let how = if left.is_zero() {
                    format!("within {within:?}")
                } else {
                    "before it ended".to_owned()
                };
                let output = state.to_string();
                drop(state);
                bail!(
                    "{} did not print the expected line {how}:\n{output}",
                    self.title
                );
            }
            state = self.output.wait(state, left);
        }
    }

    /// Waits for the first line of a stream, including past lines, that `wanted` accepts.
    pub fn wait_for_line(
        &self,
        stream: Stream,
        within: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> anyhow::Result<String> {
        self.wait_for(stream, within, |line| wanted(line).then(|| line.to_owned()))
    }

    /// The lines of one stream so far.
    pub fn lines(&self, stream: Stream) -> Vec<String> {
        self.output.lock().of(stream).map(str::to_owned).collect()
    }

    /// The lines of one stream so far with their arrival times.
    pub fn arrivals(&self, stream: Stream) -> Vec<(SystemTime, String)> {
        let state = self.output.lock();
        let lines = state.lines.iter().filter(|line| line.stream == stream);
        lines
            .map(|line| (line.arrived, line.text.clone()))
            .collect()
    }

    /// The output so far, for error messages.
    pub fn written_output(&self) -> String {
        self.output.lock().to_string()
    }

    /// Whether the program has exited: both output streams are closed.
    pub fn has_ended(&self) -> bool {
        self.output.lock().open_streams == 0
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) -> anyhow::Result<()> {
        self.signal(Signal::INT)
    }

    /// Sends SIGKILL.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends SIGHUP, which makes a daemon reload its configuration.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.signal(Signal::HUP)
    }

    /// Sends SIGUSR1.
    pub fn user_signal(&self) -> anyhow::Result<()> {
        self.signal(Signal::USR1)
    }

    /// Stops the program with SIGSTOP and waits until all its threads are stopped.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let what = format!("{} to be stopped", self.title);
        eventually(&what, Duration::from_secs(5), || {
            let states = self.threads("State")?;
            Ok(states
                .iter()
                .all(|state| state.starts_with('T'))
                .then_some(()))
        })
    }

    /// Continues the program after [`Self::pause`].
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// The value of this field in `/proc/PID/task/TID/status` of each thread (`proc_pid_status(5)`).
    pub fn threads(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let tasks = format!("/proc/{}/task", self.id());
        let mut values = Vec::new();
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
            // A thread may exit while it is read.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
                continue;
            };
            let value = status
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find_map(|(key, value)| (key == name).then(|| value.trim().to_owned()));
            values.push(value.with_context(|| format!("a thread without the field {name}"))?);
        }
        Ok(values)
    }

    /// The CPU time used so far.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The name in parentheses may contain any character; `utime` and `stime` are the 12th and 13th fields after
        // it.
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        pidfd_send_signal(&self.handle, signal)
            .with_context(|| format!("cannot signal {}", self.title))
    }

    /// Waits until the program exits and returns its status.
    pub fn exit_status(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        if !self.ends(Instant::now() + within)? {
            bail!(
                "{} still runs after {within:?}:\n{}",
                self.title,
                self.output.lock()
            );
        }
        let status = self.child.wait()?;
        // The last lines may still be in the pipes.
        let deadline = Instant::now() + within;
        let mut state = self.output.lock();
        while state.open_streams > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "{} exited, but a child process keeps its output open",
                    self.title
                );
            }
            state = self.output.wait(state, left);
        }
        Ok(status)
    }

    /// Waits until the program exits and returns status and output.
    pub fn finish(mut self, within: Duration) -> anyhow::Result<Finished> {
        let status = self.exit_status(within)?;
        let state = self.output.lock();
        Ok(Finished {
            title: self.title.clone(),
            status,
            stdout: state.text(Stream::Stdout),
            stderr: state.text(Stream::Stderr),
        })
    }

    /// Whether the program exits before the deadline.
    fn ends(&self, deadline: Instant) -> anyhow::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut events = [PollFd::new(&self.handle, PollFlags::IN)];
            match poll(&mut events, Some(&Timespec::try_from(left)?)) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error).context("cannot wait for a process"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            #[allow(
                clippy::print_stderr,
                reason = "shown by the test runner with the failure"
            )]
            {
                eprintln!("--- output of {}:\n{}", self.title, self.output.lock());
            }
        }
    }
}

impl Finished {
    /// Returns the standard output if the program succeeded.
    pub fn success(self) -> anyhow::Result<String> {
        if !self.status.success() {
            bail!(
                "{} ended with {}:\n{}{}",
                self.title,
                self.status,
                self.stdout,
                self.stderr
            );
        }
        Ok(self.stdout)
    }
}

impl Output {
    /// Reads a stream until it is closed, on a separate thread.
    fn collect(output: &Arc<Self>, stream: Stream, source: impl Read + Send + 'static) {
        output.lock().open_streams += 1;
        let output = Arc::clone(output);
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let arrived = SystemTime::now();
                let text = String::from_utf8_lossy(&line).into_owned();
                output.lock().lines.push(Line {
                    stream,
                    text,
                    arrived,
                });
                output.changed.notify_all();
            }
            output.lock().open_streams -= 1;
            output.changed.notify_all();
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Lines are only appended, so a panic while the lock was held leaves a consistent state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, within: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, within)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

impl State {
    fn of(&self, stream: Stream) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(move |line| line.stream == stream)
            .map(|line| line.text.as_str())
    }

    fn text(&self, stream: Stream) -> String {
        self.of(stream).flat_map(|line| [line, "\n"]).collect()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return f.write_str("    (nothing)");
        }
        for line in &self.lines {
            let prefix = match line.stream {
                Stream::Stdout => "out",
                Stream::Stderr => "err",
            };
            writeln!(f, "    {prefix}: {}", line.text)?;
        }
        Ok(())
    }
}

fn open_handle(child: &Child) -> anyhow::Result<OwnedFd> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a process without a number")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);

    fn script(text: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        Process::spawn("the script".to_owned(), command).unwrap()
    }

    #[test]
    fn waiting_for_a_line_reads_only_the_given_stream() {
        let process = script("echo wanted >&2; echo other; echo wanted, too; exec sleep 60");
        let line = process.wait_for_line(Stream::Stdout, MINUTE, |line| line.contains("wanted"));
        assert_eq!(line.unwrap(), "wanted, too");
    }

    #[test]
    fn waiting_for_a_line_fails_as_soon_as_the_process_ends() {
        let process = script("echo something else");
        let error = process
            .wait_for_line(Stream::Stdout, MINUTE, |line| line == "wanted")
            .unwrap_err();
        assert!(error.to_string().contains("before it ended"), "{error}");
        assert!(error.to_string().contains("something else"), "{error}");
    }

    #[test]
    fn a_signal_ends_the_process_with_its_status() {
        let mut process =
            script("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        process
            .wait_for_line(Stream::Stdout, MINUTE, |line| line == "ready")
            .unwrap();
        assert!(process.exit_status(Duration::ZERO).is_err());
        process.terminate().unwrap();
        assert_eq!(process.exit_status(MINUTE).unwrap().code(), Some(7));
        assert_eq!(process.lines(Stream::Stdout), ["ready", "bye"]);
    }

    #[test]
    fn a_dropped_process_is_killed_and_reaped() {
        let process = script("echo ready; exec sleep 60");
        process
            .wait_for_line(Stream::Stdout, MINUTE, |line| line == "ready")
            .unwrap();
        let entry = format!("/proc/{}", process.id());
        drop(process);
        assert!(!std::path::Path::new(&entry).exists());
    }

    #[test]
    fn finish_returns_the_complete_output() {
        let finished = script("seq 1 5000; echo warning >&2; exit 3")
            .finish(10 * SECOND)
            .unwrap();
        assert_eq!(finished.stdout.lines().count(), 5000);
        assert_eq!(finished.stderr, "warning\n");
        assert_eq!(finished.status.code(), Some(3));
        assert!(
            finished
                .success()
                .unwrap_err()
                .to_string()
                .contains("warning")
        );
    }
}
