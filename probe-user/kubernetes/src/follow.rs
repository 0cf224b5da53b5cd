//! Follows what services, pools and advertisements there are.
//!
//! A task for each resource lists it once and then watches it. A watch that ends goes on from the version that was
//! heard last; only if the API server no longer knows that version is everything listed anew. While the API server is
//! away, what is known is kept, and said to be stale.
//!
//! kube's own `watcher` is not used: it keeps whole objects, ends a list at the first that does not fit its type, and
//! has no word for a resource that is missing or forbidden for good.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use probe_cluster::{
    model::{Cluster, Freshness, Known, Resource},
    object, shelf,
    shelf::Shelf,
};
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};

use super::{
    Connection, Health, ReadError,
    backoff::{Backoff, jittered, up_to},
    health::{Request, ResourceHealth},
    pace::Pace,
    read::{LOAD_BALANCERS, path, unknown},
    request::{Packing, chain, chunks},
};

/// One change is no longer than this: etcd takes objects of 1.5 MiB.
const LONGEST_LINE: usize = 8 << 20;

/// News that wait to be taken in.
const WAITING: usize = 64;

/// A watch that lasted so long worked.
const WORKED: Duration = Duration::from_secs(10);

/// So often in a row it is tried again soon what is forbidden.
const QUICK_TRIES: u32 = 3;

/// So often in a row a watch may be answered with an error of the server's before everything is listed anew.
const PATIENCE: u32 = 20;

/// Handing out what is known costs at most this part of the time.
const SHARE_OF_TIME: u32 = 20;

/// What says that MetalLB is there, before its own resources were found.
const ALLOCATED_FROM: &str = "metallb.io~1ip-allocated-from-pool";
const ALLOCATED_FROM_BEFORE: &str = "metallb.universe.tf~1ip-allocated-from-pool";

enum News {
    /// All there is.
    Listed(Shelf),
    /// New or changed.
    Put(Resource, Value),
    /// Gone.
    Removed(Resource, Value),
    /// It works again.
    Back(Resource),
    /// It does not.
    Failed(Resource, ReadError),
}

/// Follows a cluster until the task is dropped.
pub async fn follow(connection: Connection, pace: Pace, cluster: watch::Sender<Arc<Cluster>>) {
    let (sender, news) = mpsc::channel(WAITING);
    let found = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    for &resource in Resource::ALL {
        let follower = Follower {
            connection: connection.clone(),
            resource,
            pace: pace.clone(),
            news: sender.clone(),
            found: found.clone(),
            by_selector: true,
            forbidden: 0,
        };
        tasks.spawn(follower.run());
    }
    drop(sender);
    let mut keeper = Keeper {
        shelves: Resource::ALL
            .iter()
            .map(|&resource| (resource, Shelf::new(resource)))
            .collect(),
        health: connection.health(),
        found,
        cluster,
    };
    keeper.keep(news, pace.gather).await;
}

/// Owns what is known.
struct Keeper {
    shelves: BTreeMap<Resource, Shelf>,
    health: Arc<Health>,
    found: Arc<Notify>,
    cluster: watch::Sender<Arc<Cluster>>,
}

impl Keeper {
    async fn keep(&mut self, mut news: mpsc::Receiver<News>, gather: Duration) {
        let mut due = None;
        let mut rest = Duration::ZERO;
        loop {
            let until = due.unwrap_or_else(tokio::time::Instant::now);
            tokio::select! {
                // What is there is taken in first: it is handed out together.
                biased;
                () = sleep_until(until), if due.is_some() => {
                    due = None;
                    let started = Instant::now();
                    self.publish().await;
                    rest = started.elapsed() * SHARE_OF_TIME;
                }
                news = news.recv() => {
                    let Some(news) = news else { return };
                    if self.take(news) && due.is_none() {
                        due = Some(tokio::time::Instant::now() + gather.max(rest));
                    }
                }
            }
        }
    }

    /// Takes something in. Whether that makes a difference to anybody.
    fn take(&mut self, news: News) -> bool {
        match news {
            News::Listed(shelf) => {
                let resource = shelf.resource();
                let health = ResourceHealth {
                    objects: shelf.len(),
                    broken: shelf.broken(),
                    freshness: current(),
                };
                let before = self.health.resource(resource).freshness.known;
                if resource == Resource::IpAddressPools && before != Known::Current {
                    self.found.notify_waiters();
                }
                tracing::info!(%resource, objects = health.objects, broken = health.broken, "read the cluster's objects");
                self.shelves.insert(resource, shelf);
                self.health.set_resource(resource, health);
                true
            }
            News::Put(resource, object) => {
                if resource == Resource::Services && self.is_metallb_news(&object) {
                    self.found.notify_waiters();
                }
                self.change(resource, |shelf| shelf.put(object))
            }
            News::Removed(resource, object) => self.change(resource, |shelf| shelf.remove(&object)),
            News::Back(resource) => {
                let mut health = self.health.resource(resource);
                let was = health.freshness.known;
                health.freshness = current();
                self.health.set_resource(resource, health);
                if was != Known::Current {
                    tracing::info!(%resource, "the cluster's objects are followed again");
                }
                was != Known::Current
            }
            News::Failed(resource, error) => self.failed(resource, &error),
        }
    }

    fn change(&mut self, resource: Resource, change: impl FnOnce(&mut Shelf) -> bool) -> bool {
        let Some(shelf) = self.shelves.get_mut(&resource) else {
            return false;
        };
        let is_news = change(shelf);
        if is_news {
            let (objects, broken) = (shelf.len(), shelf.broken());
            self.health.set_counts(resource, objects, broken);
        }
        is_news
    }

    fn failed(&mut self, resource: Resource, error: &ReadError) -> bool {
        let mut health = self.health.resource(resource);
        let before = health.freshness.clone();
        let was_read = matches!(before.known, Known::Current | Known::Stale);
        health.freshness.known = match unknown(error) {
            // An API server that starts refuses everybody for a moment: what was read stays what is known.
            Known::Never | Known::Forbidden if was_read => Known::Stale,
            Known::Never => before.known,
            known => known,
        };
        health.freshness.error = Some(error.to_string());
        if health.freshness.known == Known::Missing {
            self.shelves.insert(resource, Shelf::new(resource));
            (health.objects, health.broken) = (0, 0);
        }
        let after = health.freshness.clone();
        self.health.set_resource(resource, health);
        if before.known != after.known || before.error.is_none() {
            // Once, however often it is tried.
            match after.known {
                Known::Missing => {
                    tracing::info!(%resource, "the cluster has no such resource: it is asked for again now and then");
                }
                _ => {
                    tracing::warn!(%resource, state = %after.known, %error, "cannot follow the cluster's objects");
                }
            }
        }
        before != after
    }

    /// Whether a service shows that MetalLB has come, which was not there.
    fn is_metallb_news(&self, service: &Value) -> bool {
        let known = self
            .health
            .resource(Resource::IpAddressPools)
            .freshness
            .known;
        let has = |key| {
            let pointer = format!("/metadata/annotations/{key}");
            service.pointer(&pointer).is_some()
        };
        known == Known::Missing && (has(ALLOCATED_FROM) || has(ALLOCATED_FROM_BEFORE))
    }

    /// Hands out what is known.
    async fn publish(&self) {
        let shelves = self.shelves.values().map(|shelf| {
            let freshness = self.health.resource(shelf.resource()).freshness;
            (shelf, freshness)
        });
        let objects = shelf::objects(shelves);
        // Thousands of services take a while: not where frames are waited for.
        match tokio::task::spawn_blocking(move || Cluster::from(objects)).await {
            Ok(cluster) => {
                self.cluster.send_replace(Arc::new(cluster));
            }
            Err(error) => {
                tracing::error!(%error, "cannot put together what is known of the cluster");
            }
        }
    }
}

fn current() -> Freshness {
    Freshness {
        known: Known::Current,
        heard: Some(Timestamp::now()),
        error: None,
    }
}

/// Follows one resource.
struct Follower {
    connection: Connection,
    resource: Resource,
    pace: Pace,
    news: mpsc::Sender<News>,
    /// Told when MetalLB's resources may have come.
    found: Arc<Notify>,
    by_selector: bool,
    /// How often in a row it was forbidden.
    forbidden: u32,
}

/// How a watch ended.
enum End {
    /// As it should: in time, or because the connection did.
    Fine,
    /// The API server has something against it.
    Failed(ReadError),
    /// Nobody listens.
    Closed,
}

impl Follower {
    async fn run(mut self) {
        sleep(up_to(self.pace.start)).await;
        let mut backoff = Backoff::new(self.pace.retry);
        while !self.news.is_closed() {
            let listed = self
                .connection
                .list_resource(self.resource, self.by_selector);
            match listed.await {
                Ok(listed) => {
                    if self.tell(News::Listed(listed.state)).await.is_err() {
                        return;
                    }
                    let Some(error) = self.watch(listed.version, &mut backoff).await else {
                        return;
                    };
                    tracing::debug!(resource = %self.resource, %error, "listing anew");
                    // Whatever it was, it is not asked for at once by all that had it.
                    sleep(up_to(self.pace.relist).max(backoff.next())).await;
                }
                Err(ReadError::Refused(_)) if self.selects() => self.by_selector = false,
                Err(error) => self.wait_after(error, &mut backoff).await,
            }
        }
    }

    /// Whether the server is asked to select.
    fn selects(&self) -> bool {
        self.resource == Resource::Services && self.by_selector
    }

    async fn tell(&self, news: News) -> Result<(), End> {
        self.news.send(news).await.map_err(|_| End::Closed)
    }

    /// Tells of a failure, and waits as long as that is worth.
    async fn wait_after(&mut self, error: ReadError, backoff: &mut Backoff) {
        let known = unknown(&error);
        self.forbidden = match known {
            Known::Forbidden => self.forbidden.saturating_add(1),
            _ => 0,
        };
        // Whoever is gone is noticed by the loop.
        let _ = self.tell(News::Failed(self.resource, error)).await;
        match known {
            Known::Missing => self.wait_for_it().await,
            // An API server that has just started forbids everything for a moment.
            Known::Forbidden if self.forbidden > QUICK_TRIES => {
                sleep(jittered(self.pace.forbidden)).await;
            }
            Known::Forbidden | Known::Current | Known::Stale | Known::Never => {
                sleep(backoff.next()).await;
            }
        }
    }

    /// Waits until what is missing may be there. One resource is asked for; when it comes, the others may have as well.
    async fn wait_for_it(&self) {
        let health = self.connection.health();
        let pools = health.resource(Resource::IpAddressPools).freshness.known;
        let wait = match self.resource {
            Resource::IpAddressPools | Resource::Services => self.pace.missing,
            // It is being installed.
            Resource::L2Advertisements | Resource::BgpAdvertisements if pools == Known::Current => {
                self.pace.missing
            }
            Resource::L2Advertisements
            | Resource::BgpAdvertisements
            | Resource::ServiceL2Statuses => self.pace.missing_others,
        };
        if timeout(jittered(wait), self.found.notified()).await.is_ok() {
            // Not all nodes at once; and one resource comes after the other.
            sleep(self.pace.retry + up_to(self.pace.start)).await;
        }
    }

    /// Watches from a version on until everything has to be listed anew, because of what is returned; nothing if
    /// nobody listens any more.
    async fn watch(&mut self, mut version: String, backoff: &mut Backoff) -> Option<ReadError> {
        let mut failed = 0;
        loop {
            let started = Instant::now();
            let end = self.watch_once(&mut version, failed > 0).await;
            if started.elapsed() >= WORKED {
                backoff.reset();
            }
            match end {
                Err(End::Closed) => return None,
                Ok(()) | Err(End::Fine) => {
                    failed = 0;
                    if started.elapsed() < WORKED {
                        // A server that ends every watch at once is not asked in a loop.
                        sleep(backoff.next()).await;
                    }
                }
                Err(End::Failed(
                    error @ (ReadError::Unreachable(_)
                    | ReadError::Unavailable(_)
                    | ReadError::Unauthorized(_)),
                )) => {
                    // It may be the version that it cannot serve, as after etcd was restored.
                    if matches!(error, ReadError::Unavailable(_)) && failed >= PATIENCE {
                        return Some(error);
                    }
                    failed += 1;
                    self.wait_after(error, backoff).await;
                }
                // The version is too old, or the answer makes no sense.
                Err(End::Failed(error)) => {
                    // What is old is nothing wrong. Others are told, and the list says more.
                    let is_wrong = !matches!(error, ReadError::Gone(_));
                    if is_wrong
                        && self
                            .tell(News::Failed(self.resource, error.clone()))
                            .await
                            .is_err()
                    {
                        return None;
                    }
                    return Some(error);
                }
            }
        }
    }

    /// Watches once. The version is moved on with what is heard.
    async fn watch_once(&self, version: &mut String, failed: bool) -> Result<(), End> {
        // From half of it on, so that the watches of a fleet do not end at once.
        let seconds = (self.pace.watch / 2 + up_to(self.pace.watch / 2)).as_secs();
        let mut path = format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}",
            path(self.resource),
        );
        if self.selects() {
            path.push('&');
            path.push_str(LOAD_BALANCERS);
        }
        let body = self
            .connection
            .get(Request::Watch, &path, Packing::None)
            .await
            .map_err(End::Failed)?;
        if failed {
            self.tell(News::Back(self.resource)).await?;
        }
        let reader = StreamReader::new(chunks(body, Some(jittered(self.pace.silence))));
        let codec = LinesCodec::new_with_max_length(LONGEST_LINE);
        let mut lines = FramedRead::new(reader, codec);
        while let Some(line) = lines.next().await {
            let line = match line {
                Ok(line) => line,
                // The connection ended, or is dead: the next watch says whether that matters.
                Err(LinesCodecError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                    tracing::debug!(resource = %self.resource, %error, "a watch broke off");
                    return Err(End::Fine);
                }
                Err(error) => return Err(self.garbage(chain(&error))),
            };
            self.change(&line, version).await?;
        }
        Ok(())
    }

    /// Takes one line of a watch.
    async fn change(&self, line: &str, version: &mut String) -> Result<(), End> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let mut change: Value = match serde_json::from_str(line) {
            Ok(change) => change,
            // The connection ended in the middle of it.
            Err(error) if error.is_eof() => return Err(End::Fine),
            Err(error) => return Err(self.garbage(chain(&error))),
        };
        let object = change
            .get_mut("object")
            .map(Value::take)
            .unwrap_or_default();
        let kind = change
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if kind == "ERROR" {
            let code = object.get("code").and_then(Value::as_u64);
            let message = object.get("message").and_then(Value::as_str);
            let message = message.unwrap_or("an error without words").to_owned();
            let code = code.and_then(|code| u16::try_from(code).ok());
            let Some(code) = code else {
                return Err(self.garbage(message));
            };
            let error = ReadError::from_status(code, message);
            self.connection.count(Request::Watch, Some(&error));
            return Err(End::Failed(error));
        }
        self.connection
            .health()
            .heard(self.resource, Timestamp::now());
        if let Some(heard) = object::version(&object) {
            heard.clone_into(version);
        }
        match kind {
            "ADDED" | "MODIFIED" => self.tell(News::Put(self.resource, object)).await,
            "DELETED" => self.tell(News::Removed(self.resource, object)).await,
            "BOOKMARK" => Ok(()),
            other => Err(self.garbage(format!("a change of the sort {other:?}"))),
        }
    }

    /// Something that makes no sense, counted.
    fn garbage(&self, error: String) -> End {
        let error = ReadError::Garbage(error);
        self.connection.count(Request::Watch, Some(&error));
        End::Failed(error)
    }
}
