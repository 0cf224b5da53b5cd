//! A station that is made of frames: it hears what is on the wire, answers, and does things in its time.

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

/// Between two looks for orders. Short beside everything that a station does in its time.
const ATTENTION: Duration = Duration::from_millis(5);

/// What a station does, and when: a state machine, so that the thread around it is the same for all.
pub(crate) trait Behaviour: Send + 'static {
    /// What it can be told.
    type Order: Send + 'static;

    /// Takes an order.
    fn obey(&mut self, order: Self::Order, now: Instant);

    /// When it does the next thing of its own accord.
    fn due(&self) -> Option<Instant>;

    /// Does that thing: what it sends.
    fn act(&mut self, now: Instant) -> Vec<Frame>;

    /// What it sends back to a frame that it heard.
    fn answer(&self, heard: &ArpFrame) -> Option<Frame>;
}

/// The order of a station that cannot be told anything.
#[derive(Debug)]
pub(crate) enum Never {}

/// A running station. It falls silent when dropped.
#[derive(Debug)]
pub(crate) struct Station<O> {
    orders: Sender<O>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    acted: AtomicU64,
    answered: AtomicU64,
}

impl<O: Send + 'static> Station<O> {
    /// Starts one at a host's network card. The host's own kernel takes no part.
    pub fn start(host: &Host, mut behaviour: impl Behaviour<Order = O>) -> anyhow::Result<Self> {
        let (socket, capture) = (host.sender()?, host.capture()?);
        let (orders, inbox) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let thread = thread::spawn(move || {
            loop {
                let now = Instant::now();
                match inbox.try_recv() {
                    Ok(order) => behaviour.obey(order, now),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
                let due = behaviour.due();
                if due.is_some_and(|due| due <= now) {
                    for frame in behaviour.act(now) {
                        socket.send(&frame)?;
                        counted.acted.fetch_add(1, Ordering::Relaxed);
                    }
                    continue;
                }
                let wait = due.map_or(ATTENTION, |due| ATTENTION.min(due - now));
                let heard = capture.next(wait)?.filter(|heard| !heard.sent);
                let heard = heard.and_then(|heard| heard.arp());
                if let Some(answer) = heard.and_then(|heard| behaviour.answer(&heard)) {
                    socket.send(&answer)?;
                    counted.answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            orders,
            counts,
            thread: Some(thread),
        })
    }

    /// Tells it something.
    pub fn tell(&self, order: O) -> anyhow::Result<()> {
        self.orders
            .send(order)
            .map_err(|_| anyhow::anyhow!("the station has fallen silent"))
    }

    /// How many frames it has sent of its own accord.
    pub fn acted(&self) -> u64 {
        self.counts.acted.load(Ordering::Relaxed)
    }

    /// How many frames it has sent as answers.
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Waits until it has sent this many frames of its own accord.
    pub fn wait_until_acted(&mut self, frames: u64, within: Duration) -> anyhow::Result<()> {
        self.wait_until("act", within, |station| station.acted() >= frames)
    }

    /// Waits until it has sent this many answers.
    pub fn wait_until_answered(&mut self, frames: u64, within: Duration) -> anyhow::Result<()> {
        self.wait_until("answer", within, |station| station.answered() >= frames)
    }

    fn wait_until(
        &mut self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<()> {
        eventually(&format!("a station to {what}"), within, || {
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                self.end().context("a station fell silent")?;
                bail!("a station fell silent");
            }
            Ok(done(self).then_some(()))
        })
    }

    /// Ends it, and says how that went.
    fn end(&mut self) -> anyhow::Result<()> {
        // Nobody can tell it anything any more: that ends it.
        drop(mem::replace(&mut self.orders, mpsc::channel().0));
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => bail!("a station panicked"),
        }
    }
}

impl<O> Drop for Station<O> {
    fn drop(&mut self) {
        drop(mem::replace(&mut self.orders, mpsc::channel().0));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
