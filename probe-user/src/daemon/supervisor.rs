//! Supervises the long-running tasks of the daemon. The end of an essential task ends the process: a daemon without one
//! of its parts must not look healthy.
//!
//! Each task has a heartbeat. The supervisor polls the task at least once a second, so the heartbeat stops when the
//! task blocks its thread, and `/healthz`, `/readyz` and the watchdog of systemd see it.

use std::{
    any::Any,
    collections::HashMap,
    env,
    fmt::Display,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinError, JoinSet},
    time::{Interval, MissedTickBehavior, interval},
};

/// Maximum interval between polls of a task.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The time without a heartbeat after which a task counts as stuck.
pub const STALL_LIMIT: Duration = Duration::from_secs(5);

/// The same limit for a task that waits for drivers, which may take seconds to attach a program.
pub const DRIVER_STALL_LIMIT: Duration = Duration::from_secs(30);

/// Makes one task fail one second after its start, to test supervision and alerting: `TASK=panic`, `TASK=end` or
/// `TASK=stall`.
const FAULT_VARIABLE: &str = "PROBE_INJECT_FAULT";

/// The delay of the fault after the start of its task.
const FAULT_DELAY: Duration = Duration::from_secs(1);

/// The time for which [`Fault::Stall`] blocks the thread of its task.
const STALL_DURATION: Duration = Duration::from_secs(12);

/// The consequence of the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskImportance {
    /// The process ends.
    Essential,
    /// The end is logged.
    Optional,
}

/// The end of an essential task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task {task} {cause}; the daemon cannot work without it")]
pub struct TaskFailure {
    /// The name of the task.
    pub task: String,
    /// How it ended.
    pub cause: TaskEnd,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnd {
    /// It returned, which it should not.
    #[error("ended unexpectedly")]
    Returned,
    /// It returned an error.
    #[error("failed: {0}")]
    Failed(String),
    /// It panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

/// The tasks of the daemon. Dropping it aborts all of them.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<tokio::task::Id, (String, TaskImportance)>,
    heartbeats: Heartbeats,
    fault: Option<(String, Fault)>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            names: HashMap::new(),
            heartbeats: Heartbeats::default(),
            fault: Fault::from_environment(),
        }
    }
}

impl Supervisor {
    /// Runs an essential task.
    pub fn spawn(
        &mut self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.spawn_fallible(name, STALL_LIMIT, async {
            task.await;
            Ok::<_, String>(())
        })
    }

    /// Runs an essential task that may fail, and that counts as stuck after `stall_limit` without a heartbeat.
    pub fn spawn_fallible<E: Display>(
        &mut self,
        name: &str,
        stall_limit: Duration,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> AbortHandle {
        let runtime = Handle::current();
        self.spawn_with(&runtime, name, TaskImportance::Essential, stall_limit, task)
    }

    /// Runs an essential task on another runtime.
    pub fn spawn_on(
        &mut self,
        runtime: &Handle,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.spawn_with(
            runtime,
            name,
            TaskImportance::Essential,
            STALL_LIMIT,
            async {
                task.await;
                Ok::<_, String>(())
            },
        )
    }

    /// Runs an optional task.
    pub fn spawn_optional(
        &mut self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let runtime = Handle::current();
        self.spawn_with(
            &runtime,
            name,
            TaskImportance::Optional,
            STALL_LIMIT,
            async {
                task.await;
                Ok::<_, String>(())
            },
        )
    }

    fn spawn_with<E: Display>(
        &mut self,
        runtime: &Handle,
        name: &str,
        importance: TaskImportance,
        stall_limit: Duration,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> AbortHandle {
        let fault = self
            .fault
            .as_ref()
            .filter(|(task, _)| task == name)
            .map(|&(_, fault)| (fault, Instant::now() + FAULT_DELAY));
        let heartbeat = self.heartbeats.add(name, stall_limit);
        let supervised = {
            // Its timer is of the same runtime.
            let _entered = runtime.enter();
            SupervisedTask {
                task: Box::pin(async { task.await.map_err(|error| error.to_string()) }),
                beats: beats(),
                heartbeat,
                fault,
            }
        };
        let handle = self.tasks.spawn_on(supervised, runtime);
        self.names
            .insert(handle.id(), (name.to_owned(), importance));
        handle
    }

    /// Waits until an essential task has ended. Cancel safe.
    pub async fn failure(&mut self) -> TaskFailure {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let (id, cause) = task_end(ended);
            let Some((task, importance)) = self.names.remove(&id) else {
                continue;
            };
            self.heartbeats.remove(&task);
            let failure = TaskFailure { task, cause };
            match importance {
                TaskImportance::Essential => return failure,
                TaskImportance::Optional => {
                    tracing::warn!(task = failure.task, cause = %failure.cause, "an optional task ended");
                }
            }
        }
    }

    /// Waits for the end of a task that was asked to end. The end of other tasks is no failure during shutdown.
    pub async fn join(&mut self, task: &AbortHandle) -> Result<(), TaskFailure> {
        // It may have ended while another one was waited for.
        while self.names.contains_key(&task.id()) {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                break;
            };
            let (id, cause) = task_end(ended);
            let name = self.names.remove(&id);
            if id == task.id() {
                let task = name.map(|(name, _)| name).unwrap_or_default();
                return match cause {
                    TaskEnd::Returned => Ok(()),
                    cause => Err(TaskFailure { task, cause }),
                };
            }
        }
        Ok(())
    }

    /// The heartbeats of all tasks.
    pub fn heartbeats(&self) -> Heartbeats {
        self.heartbeats.clone()
    }
}

fn beats() -> Interval {
    let mut beats = interval(BEAT_INTERVAL);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

fn task_end(
    ended: Result<(tokio::task::Id, Result<(), String>), JoinError>,
) -> (tokio::task::Id, TaskEnd) {
    match ended {
        Ok((id, Ok(()))) => (id, TaskEnd::Returned),
        Ok((id, Err(error))) => (id, TaskEnd::Failed(error)),
        Err(error) => {
            let id = error.id();
            let cause = match error.try_into_panic() {
                Ok(panic) => TaskEnd::Panicked(panic_text(&*panic)),
                // The task was aborted, which only this program does.
                Err(_) => TaskEnd::Returned,
            };
            (id, cause)
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// The heartbeats of the tasks. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(Arc<Mutex<Vec<Arc<Heartbeat>>>>);

/// The heartbeat of one task.
#[derive(Debug)]
struct Heartbeat {
    task: String,
    stall_limit: Duration,
    started: Instant,
    /// Milliseconds from `started` to the last beat.
    last: AtomicU64,
}

/// The age of the last heartbeat of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatAge {
    /// The name of the task.
    pub task: String,
    /// The time since its last heartbeat.
    pub age: Duration,
    /// Whether that exceeds the limit.
    pub stuck: bool,
}

impl Heartbeats {
    fn add(&self, task: &str, stall_limit: Duration) -> Arc<Heartbeat> {
        let heartbeat = Arc::new(Heartbeat {
            task: task.to_owned(),
            stall_limit,
            started: Instant::now(),
            last: AtomicU64::new(0),
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(heartbeat.clone());
        heartbeat
    }

    fn remove(&self, task: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|heartbeat| heartbeat.task != task);
    }

    /// The ages of all heartbeats.
    pub fn ages(&self) -> Vec<HeartbeatAge> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|heartbeat| heartbeat.age()).collect()
    }

    /// Whether no task is stuck.
    pub fn are_all_recent(&self) -> bool {
        self.ages().iter().all(|heartbeat| !heartbeat.stuck)
    }
}

impl Heartbeat {
    fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    fn age(&self) -> HeartbeatAge {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let age = self.started.elapsed().saturating_sub(last);
        HeartbeatAge {
            task: self.task.clone(),
            age,
            stuck: age > self.stall_limit,
        }
    }
}

/// An injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Panic,
    End,
    Stall,
}

impl Fault {
    fn from_environment() -> Option<(String, Self)> {
        let text = env::var(FAULT_VARIABLE).ok()?;
        let (task, fault) = text.split_once('=')?;
        let fault = match fault {
            "panic" => Self::Panic,
            "end" => Self::End,
            "stall" => Self::Stall,
            _ => return None,
        };
        Some((task.to_owned(), fault))
    }
}

/// A task with its heartbeat.
struct SupervisedTask {
    task: Pin<Box<dyn Future<Output = Result<(), String>> + Send>>,
    beats: Interval,
    heartbeat: Arc<Heartbeat>,
    fault: Option<(Fault, Instant)>,
}

impl SupervisedTask {
    #[expect(clippy::panic, reason = "the injected fault")]
    fn inject_fault(&mut self) -> Poll<Result<(), String>> {
        let Some((fault, _)) = self.fault.take_if(|(_, at)| Instant::now() >= *at) else {
            return Poll::Pending;
        };
        match fault {
            Fault::Panic => panic!("{FAULT_VARIABLE}"),
            Fault::End => Poll::Ready(Ok(())),
            Fault::Stall => {
                std::thread::sleep(STALL_DURATION);
                Poll::Pending
            }
        }
    }
}

impl Future for SupervisedTask {
    type Output = Result<(), String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        while self.beats.poll_tick(context).is_ready() {}
        self.heartbeat.beat();
        if let Poll::Ready(end) = self.inject_fault() {
            return Poll::Ready(end);
        }
        self.task.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn end_of_an_essential_task_is_a_failure_with_its_cause() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("ends", async {});
        assert_eq!(
            supervisor.failure().await.to_string(),
            "the task ends ended unexpectedly; the daemon cannot work without it"
        );
        supervisor.spawn_fallible("fails", STALL_LIMIT, async { Err("no ring") });
        let failure = supervisor.failure().await;
        assert_eq!(failure.cause, TaskEnd::Failed("no ring".to_owned()));
        supervisor.spawn("panics", async { panic!("for number {}", 7) });
        let failure = supervisor.failure().await;
        assert_eq!(failure.cause, TaskEnd::Panicked("for number 7".to_owned()));
        assert_eq!(failure.task, "panics");
    }

    #[tokio::test(start_paused = true)]
    async fn end_of_an_optional_task_is_no_failure() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn_optional("optional", async {});
        supervisor.spawn("essential", pending());
        let failure = tokio::time::timeout(Duration::from_mins(1), supervisor.failure()).await;
        assert!(failure.is_err(), "{failure:?}");
    }

    #[tokio::test]
    async fn task_that_ends_on_request_is_no_failure() {
        let mut supervisor = Supervisor::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let aborted = supervisor.spawn("aborted", pending());
        let told = supervisor.spawn("told", async {
            let _ = stopped.await;
        });
        aborted.abort();
        supervisor.join(&aborted).await.unwrap();
        drop(stop);
        supervisor.join(&told).await.unwrap();
        supervisor.join(&told).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_the_task_that_blocks_its_thread_is_stuck() {
        let mut supervisor = Supervisor::default();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let limit = Duration::from_millis(1);
        let short = supervisor.spawn_fallible("blocked", limit, async move {
            let _ = blocked.recv();
            Ok::<_, String>(())
        });
        supervisor.spawn("waits", pending());
        let heartbeats = supervisor.heartbeats();
        let deadline = Instant::now() + Duration::from_secs(10);
        while heartbeats.are_all_recent() && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        let stuck: Vec<_> = heartbeats
            .ages()
            .into_iter()
            .filter(|age| age.stuck)
            .collect();
        assert_eq!(stuck.len(), 1, "{stuck:?}");
        assert_eq!(stuck[0].task, "blocked");
        drop(release);
        supervisor.join(&short).await.unwrap();
    }
}
