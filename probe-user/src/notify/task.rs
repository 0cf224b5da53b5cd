//! The one task that joins the parts of a webhook: hears, waits its turn, sends. It owns everything that it changes;
//! while a message is on its way it goes on hearing, so that nothing waits for a receiver.

use std::{future, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    counts::{Channel, Counts, Ending},
    desk::{Desk, Duty},
    message::{self, Format, Reporter},
    news::Kind,
    queue::Batch,
    retry::{Backoff, Outcome, Pace},
    webhook::{Webhook, WebhookError, WebhookSettings},
};
use crate::{detect::Severity, report::FindingRecord};

/// What comes in a burst is one message.
const GATHERS: Duration = Duration::from_secs(1);
/// For a last message when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// How and what to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierSettings {
    /// How messages are sent.
    pub webhook: WebhookSettings,
    /// As what.
    pub format: Format,
    /// What matters at least so much is told.
    pub least: Severity,
    /// So many messages a minute at most.
    pub per_minute: usize,
}

/// A webhook that is served by a task of its own.
#[derive(Debug)]
pub struct Notifier {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Notifier {
    /// Tells what is found from now on, while it is this daemon's turn; without a word on turns it always is.
    pub fn start(
        settings: NotifierSettings,
        findings: broadcast::Receiver<Arc<FindingRecord>>,
        holder: Option<watch::Receiver<bool>>,
        counts: Arc<Counts>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let duty = match &holder {
            Some(holder) if !*holder.borrow() => Duty::Others,
            _ => Duty::Ours,
        };
        let task = Task {
            desk: Desk::new(settings.least, duty),
            pace: Pace::new(settings.per_minute),
            backoff: Backoff::default(),
            due: None,
            on_its_way: None,
            webhook: Some(Webhook::new(settings.webhook)),
            format: settings.format,
            reporter: Reporter::this_host(),
            counts,
        };
        Self {
            stop,
            task: tokio::spawn(task.run(findings, holder, stopped)),
        }
    }

    /// Tells what there is, if the receiver takes it at once, and ends.
    pub async fn end(self) {
        // The task may have ended with the monitor.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

type Sent = (Webhook, Outcome, Option<WebhookError>);

struct Task {
    desk: Desk,
    pace: Pace,
    backoff: Backoff,
    /// When the next message is due.
    due: Option<Instant>,
    /// The message that is being sent, and the task that sends it.
    on_its_way: Option<(Batch, JoinHandle<Sent>)>,
    /// Here, unless it is being used.
    webhook: Option<Webhook>,
    format: Format,
    reporter: Reporter,
    counts: Arc<Counts>,
}

impl Task {
    async fn run(
        mut self,
        mut findings: broadcast::Receiver<Arc<FindingRecord>>,
        mut holder: Option<watch::Receiver<bool>>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                heard = findings.recv() => match heard {
                    Ok(record) => self.hear(record),
                    Err(broadcast::error::RecvError::Lagged(missed)) => self.miss(missed),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                duty = turn(&mut holder) => self.turn(duty),
                sent = arrival(&mut self.on_its_way) => self.conclude(sent),
                () = at(self.due) => self.send(),
            }
            self.plan();
        }
        // What was heard last: a conflict may be why the daemon ends.
        while let Ok(record) = findings.try_recv() {
            self.hear(record);
        }
        if timeout(FAREWELL, self.say_farewell()).await.is_err() || !self.desk.queue.is_empty() {
            let news = self.desk.queue.len();
            tracing::warn!(news, "the webhook was not told everything before the end");
        }
    }

    fn hear(&mut self, record: Arc<FindingRecord>) {
        let dropped = self.desk.hear(record, Instant::now());
        self.counts.lose(Channel::Webhook, dropped);
    }

    /// Findings came faster than they could be heard: which, nobody knows.
    fn miss(&mut self, missed: u64) {
        tracing::warn!(missed, "findings came faster than they could be told");
        self.counts.lose(Channel::Webhook, missed);
        if self.desk.duty() == Duty::Ours {
            self.desk.queue.count_only(Kind::Missed, missed);
        }
    }

    fn turn(&mut self, duty: Duty) {
        let dropped = self.desk.turn(duty, Instant::now());
        self.counts.lose(Channel::Webhook, dropped);
        match duty {
            Duty::Ours => tracing::info!("this daemon tells the webhook from now on"),
            Duty::Others => tracing::info!("another daemon tells the webhook from now on"),
        }
    }

    /// Decides when the next message is due.
    fn plan(&mut self) {
        self.counts.wait(Channel::Webhook, self.desk.queue.len());
        if self.desk.queue.is_empty() || self.on_its_way.is_some() {
            self.due = None;
        } else if self.due.is_none() {
            let gathered = Instant::now() + GATHERS;
            let allowed = self.pace.next();
            self.due = Some(allowed.map_or(gathered, |allowed| allowed.max(gathered)));
        }
    }

    fn send(&mut self) {
        self.due = None;
        let Some(webhook) = self.webhook.take() else {
            return;
        };
        let batch = self.desk.queue.batch(self.format.listed());
        let body = message::body(self.format, &batch, &self.reporter, Timestamp::now());
        self.pace.note(Instant::now());
        self.on_its_way = Some((batch, tokio::spawn(webhook.send(body))));
    }

    fn conclude(&mut self, (batch, sent): (Batch, Sent)) {
        let (webhook, outcome, error) = sent;
        self.webhook = Some(webhook);
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        match outcome {
            Outcome::Taken => {
                if self.backoff.failures() > 0 {
                    tracing::info!("the webhook takes messages again");
                }
                self.backoff.succeed();
                self.done(&batch, Ending::Sent);
                tracing::debug!(news = batch.listed.len(), "told the webhook");
            }
            Outcome::Again { after } => {
                self.counts.count(Channel::Webhook, Ending::Retried);
                let wait = self.backoff.fail(after, fastrand::f64());
                let again = Instant::now() + wait;
                let allowed = self.pace.next();
                self.due = Some(allowed.map_or(again, |allowed| allowed.max(again)));
                tracing::warn!(
                    error,
                    again_in = ?wait,
                    waiting = self.desk.queue.len(),
                    "the webhook was not told"
                );
            }
            Outcome::Refused => {
                self.backoff.succeed();
                self.done(&batch, Ending::Refused);
                let lost = batch.listed.len();
                self.counts
                    .lose(Channel::Webhook, u64::try_from(lost).unwrap_or(u64::MAX));
                tracing::error!(
                    error,
                    lost,
                    "the webhook refuses the message, which is not sent again: see its address, secret and format"
                );
            }
        }
    }

    fn done(&mut self, batch: &Batch, ending: Ending) {
        self.counts.count(Channel::Webhook, ending);
        self.counts.lose(Channel::Webhook, batch.crowded_out());
        self.desk.queue.done(batch);
    }

    async fn say_farewell(&mut self) {
        // Whoever does not answer is not waited for at the end.
        if self.backoff.failures() == 0 {
            loop {
                if self.on_its_way.is_none() {
                    if self.desk.queue.is_empty() {
                        return;
                    }
                    self.send();
                }
                let sent = arrival(&mut self.on_its_way).await;
                self.conclude(sent);
                if self.backoff.failures() > 0 {
                    return;
                }
            }
        }
    }
}

async fn turn(holder: &mut Option<watch::Receiver<bool>>) -> Duty {
    if let Some(watched) = holder
        && watched.changed().await.is_ok()
    {
        return if *watched.borrow_and_update() {
            Duty::Ours
        } else {
            Duty::Others
        };
    }
    // Nobody says any more: it stays as it is.
    *holder = None;
    future::pending().await
}

async fn arrival(on_its_way: &mut Option<(Batch, JoinHandle<Sent>)>) -> (Batch, Sent) {
    let Some((_, task)) = on_its_way else {
        return future::pending().await;
    };
    let sent = match task.await {
        Ok(sent) => sent,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let batch = on_its_way.take().map(|(batch, _)| batch);
    (batch.unwrap_or_default(), sent)
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}
