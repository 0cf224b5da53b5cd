//! A simulated host: it receives frames, replies to them, and sends frames on a schedule.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use probe_common::wire::ArpFrame;

use crate::{frame::Frame, host::Host, wait::eventually};

/// The time between two checks for commands. It is short compared with every interval of a simulated host.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The behaviour of a simulated host as a state machine, so that all share the thread that runs it.
pub(crate) trait Behaviour: Send + 'static {
    /// The commands that a test can send.
    type Command: Send + 'static;

    /// Handles a command.
    fn handle_command(&mut self, command: Self::Command, now: Instant);

    /// The time of the next scheduled frames.
    fn next_send(&self) -> Option<Instant>;

    /// Returns the frames that are due.
    fn send_due(&mut self, now: Instant) -> Vec<Frame>;

    /// Returns the reply to a received frame.
    fn reply(&self, received: &ArpFrame) -> Option<Frame>;
}

/// The command type of a simulated host without commands.
#[derive(Debug)]
pub(crate) enum NoCommand {}

/// A running simulated host. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct SimulatedHost<O> {
    commands: Sender<O>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    scheduled_sent: AtomicU64,
    replied: AtomicU64,
}

impl<O: Send + 'static> SimulatedHost<O> {
    /// Starts a simulated host on the interface of a host. The kernel of the host does not take part.
    pub fn start(host: &Host, mut behaviour: impl Behaviour<Command = O>) -> anyhow::Result<Self> {
        let (socket, capture) = (host.sender()?, host.capture()?);
        let (commands, inbox) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let thread = thread::spawn(move || {
            loop {
                let now = Instant::now();
                match inbox.try_recv() {
                    Ok(command) => behaviour.handle_command(command, now),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
                let next_send = behaviour.next_send();
                if next_send.is_some_and(|next_send| next_send <= now) {
                    for frame in behaviour.send_due(now) {
                        socket.send(&frame)?;
                        counted.scheduled_sent.fetch_add(1, Ordering::Relaxed);
                    }
                    continue;
                }
                let wait = next_send.map_or(POLL_INTERVAL, |next_send| {
                    POLL_INTERVAL.min(next_send - now)
                });
                let received = capture.next(wait)?.filter(|received| !received.sent);
                let received = received.and_then(|received| received.arp());
                if let Some(reply) = received.and_then(|received| behaviour.reply(&received)) {
                    socket.send(&reply)?;
                    counted.replied.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            commands,
            counts,
            thread: Some(thread),
        })
    }

    /// Sends a command to the simulated host.
    pub fn send_command(&self, command: O) -> anyhow::Result<()> {
        self.commands
            .send(command)
            .map_err(|_| anyhow::anyhow!("the simulated host has stopped"))
    }

    /// The number of scheduled frames sent.
    pub fn scheduled_sent(&self) -> u64 {
        self.counts.scheduled_sent.load(Ordering::Relaxed)
    }

    /// The number of replies sent.
    pub fn replied(&self) -> u64 {
        self.counts.replied.load(Ordering::Relaxed)
    }

    /// Waits until this many scheduled frames were sent.
    pub fn wait_until_sent(&mut self, frames: u64, within: Duration) -> anyhow::Result<()> {
        self.wait_until("send scheduled frames", within, |simulated_host| {
            simulated_host.scheduled_sent() >= frames
        })
    }

    /// Waits until this many replies were sent.
    pub fn wait_until_replied(&mut self, frames: u64, within: Duration) -> anyhow::Result<()> {
        self.wait_until("send replies", within, |simulated_host| {
            simulated_host.replied() >= frames
        })
    }

    fn wait_until(
        &mut self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<()> {
        eventually(&format!("a simulated host to {what}"), within, || {
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                self.end().context("a simulated host stopped")?;
                bail!("a simulated host stopped");
            }
            Ok(done(self).then_some(()))
        })
    }

    /// Stops the thread and returns its result.
    fn end(&mut self) -> anyhow::Result<()> {
        // Closing the command channel ends the thread.
        drop(mem::replace(&mut self.commands, mpsc::channel().0));
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => bail!("a simulated host panicked"),
        }
    }
}

impl<O> Drop for SimulatedHost<O> {
    fn drop(&mut self) {
        drop(mem::replace(&mut self.commands, mpsc::channel().0));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
