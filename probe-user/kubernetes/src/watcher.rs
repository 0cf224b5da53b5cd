//! Follows what services, pools and advertisements there are.
//!
//! A task for each resource lists it once and then watches it. A watch that ends goes on from the version that was
//! heard last; only if the API server no longer knows that version is everything listed anew. While the API server is
//! away, what is known is kept, and said to be stale.
//!
//! kube's own `watcher` is not used: it keeps whole objects, ends a list at the first that does not fit its type, and
//! has no word for a resource that is missing or forbidden for good.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use probe_cluster::{
    object, resource_store,
    resource_store::ResourceStore,
    snapshot::{ClusterSnapshot, Freshness, Resource, ResourceState},
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
    ApiConnection, ApiHealth, ApiRequestError,
    backoff::{ApiBackoff, jittered, up_to},
    health::{ApiRequestKind, ResourceHealth},
    rate_limit::ApiTimings,
    read::{LOAD_BALANCERS, path, state_of_error},
    request::{ResponseCompression, chain, chunks},
};

/// One change is no longer than this: etcd takes objects of 1.5 MiB.
const MAX_LINE_BYTES: usize = 8 << 20;

/// News that wait to be taken in.
const UPDATE_QUEUE: usize = 64;

/// A watch that lasted so long worked.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// So often in a row it is tried again soon what is forbidden.
const IMMEDIATE_RETRIES: u32 = 3;

/// So often in a row a watch may be answered with an error of the server's before everything is listed anew.
const SEND_TIMEOUT: u32 = 20;

/// Handing out what is known costs at most this part of the time.
const MAX_DUTY_CYCLE: u32 = 20;

/// Unknown fields that are logged.
const MAX_LOGGED_FIELDS: usize = 64;

/// What says that MetalLB is there, before its own resources were found.
const ALLOCATED_FROM: &str = "metallb.io~1ip-allocated-from-pool";
const ALLOCATED_FROM_BEFORE: &str = "metallb.universe.tf~1ip-allocated-from-pool";

enum StoreUpdate {
    /// All there is.
    Listed(ResourceStore),
    /// New or changed.
    Applied(Resource, Value),
    /// Gone.
    Deleted(Resource, Value),
    /// It works again.
    Resumed(Resource),
    /// It does not.
    Failed(Resource, ApiRequestError),
}

/// Follows a cluster until the task is dropped.
pub async fn follow(
    connection: ApiConnection,
    pace: ApiTimings,
    cluster: watch::Sender<Arc<ClusterSnapshot>>,
) {
    let (sender, updates) = mpsc::channel(UPDATE_QUEUE);
    let found = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    for &resource in Resource::ALL {
        let follower = ResourceWatcher {
            connection: connection.clone(),
            resource,
            pace: pace.clone(),
            updates: sender.clone(),
            found: found.clone(),
            label_selector: true,
            forbidden: 0,
        };
        tasks.spawn(follower.run());
    }
    drop(sender);
    let mut keeper = StoreUpdater {
        stores: Resource::ALL
            .iter()
            .map(|&resource| (resource, ResourceStore::new(resource)))
            .collect(),
        health: connection.health(),
        found,
        cluster,
        logged_fields: BTreeSet::new(),
    };
    keeper.run(updates, pace.batch_window).await;
}

/// Owns what is known.
struct StoreUpdater {
    stores: BTreeMap<Resource, ResourceStore>,
    health: Arc<ApiHealth>,
    found: Arc<Notify>,
    cluster: watch::Sender<Arc<ClusterSnapshot>>,
    /// Fields that this version does not know and that were logged.
    logged_fields: BTreeSet<(Resource, String)>,
}

impl StoreUpdater {
    async fn run(&mut self, mut updates: mpsc::Receiver<StoreUpdate>, batch_window: Duration) {
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
                    self.log_unknown_fields();
                    self.publish().await;
                    rest = started.elapsed() * MAX_DUTY_CYCLE;
                }
                updates = updates.recv() => {
                    let Some(updates) = updates else { return };
                    if self.apply(updates) && due.is_none() {
                        due = Some(tokio::time::Instant::now() + batch_window.max(rest));
                    }
                }
            }
        }
    }

    /// Takes something in. Whether that makes a difference to anybody.
    fn apply(&mut self, updates: StoreUpdate) -> bool {
        match updates {
            StoreUpdate::Listed(mut shelf) => {
                let resource = shelf.resource();
                if let Some(previous) = self.stores.remove(&resource) {
                    shelf.inherit_announcers(previous, Timestamp::now());
                }
                let health = ResourceHealth {
                    objects: shelf.len(),
                    invalid: shelf.invalid(),
                    freshness: current(),
                };
                let before = self.health.resource(resource).freshness.known;
                if resource == Resource::IpAddressPools && before != ResourceState::Current {
                    self.found.notify_waiters();
                }
                tracing::info!(%resource, objects = health.objects, invalid = health.invalid, "read the cluster's objects");
                self.stores.insert(resource, shelf);
                self.health.set_resource(resource, health);
                true
            }
            StoreUpdate::Applied(resource, object) => {
                if resource == Resource::Services && self.is_first_metallb_service(&object) {
                    self.found.notify_waiters();
                }
                self.change(resource, |shelf| shelf.apply(object, Timestamp::now()))
            }
            StoreUpdate::Deleted(resource, object) => {
                self.change(resource, |shelf| shelf.remove(&object, Timestamp::now()))
            }
            StoreUpdate::Resumed(resource) => {
                let mut health = self.health.resource(resource);
                let was = health.freshness.known;
                health.freshness = current();
                self.health.set_resource(resource, health);
                if was != ResourceState::Current {
                    tracing::info!(%resource, "the cluster's objects are followed again");
                }
                was != ResourceState::Current
            }
            StoreUpdate::Failed(resource, error) => self.failed(resource, &error),
        }
    }

    fn change(
        &mut self,
        resource: Resource,
        change: impl FnOnce(&mut ResourceStore) -> bool,
    ) -> bool {
        let Some(shelf) = self.stores.get_mut(&resource) else {
            return false;
        };
        let is_news = change(shelf);
        if is_news {
            let (objects, invalid) = (shelf.len(), shelf.invalid());
            self.health.set_counts(resource, objects, invalid);
        }
        is_news
    }

    fn failed(&mut self, resource: Resource, error: &ApiRequestError) -> bool {
        let mut health = self.health.resource(resource);
        let before = health.freshness.clone();
        let was_read = matches!(before.known, ResourceState::Current | ResourceState::Stale);
        health.freshness.known = match state_of_error(error) {
            // An API server that starts refuses everybody for a moment: what was read stays what is known.
            ResourceState::NeverRead | ResourceState::Forbidden if was_read => ResourceState::Stale,
            ResourceState::NeverRead => before.known,
            known => known,
        };
        health.freshness.error = Some(error.to_string());
        if health.freshness.known == ResourceState::NotInstalled {
            self.stores.insert(resource, ResourceStore::new(resource));
            (health.objects, health.invalid) = (0, 0);
        }
        let after = health.freshness.clone();
        self.health.set_resource(resource, health);
        if before.known != after.known || before.error.is_none() {
            // Once, however often it is tried.
            match after.known {
                ResourceState::NotInstalled => {
                    tracing::info!(%resource, "the cluster has no such resource: it is asked for again now and then");
                }
                _ => {
                    tracing::warn!(%resource, state = %after.known, %error, "cannot follow the cluster's objects");
                }
            }
        }
        before != after
    }

    /// Logs each field once that this version does not know: what follows from it is not known either.
    fn log_unknown_fields(&mut self) {
        for store in self.stores.values() {
            let resource = store.resource();
            for field in store.unknown_fields() {
                if self.logged_fields.len() < MAX_LOGGED_FIELDS
                    && self.logged_fields.insert((resource, field.to_owned()))
                {
                    tracing::warn!(%resource, field, "objects have a field that this version does not know: drift and causes may miss what it means");
                }
            }
        }
    }

    /// Whether a service shows that MetalLB has come, which was not there.
    fn is_first_metallb_service(&self, service: &Value) -> bool {
        let known = self
            .health
            .resource(Resource::IpAddressPools)
            .freshness
            .known;
        let has = |key| {
            let pointer = format!("/metadata/annotations/{key}");
            service.pointer(&pointer).is_some()
        };
        known == ResourceState::NotInstalled && (has(ALLOCATED_FROM) || has(ALLOCATED_FROM_BEFORE))
    }

    /// Hands out what is known.
    async fn publish(&self) {
        let stores = self.stores.values().map(|shelf| {
            let freshness = self.health.resource(shelf.resource()).freshness;
            (shelf, freshness)
        });
        let objects = resource_store::objects(stores);
        // Thousands of services take a while: not where frames are waited for.
        match tokio::task::spawn_blocking(move || ClusterSnapshot::from(objects)).await {
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
        known: ResourceState::Current,
        heard: Some(Timestamp::now()),
        error: None,
    }
}

/// Follows one resource.
struct ResourceWatcher {
    connection: ApiConnection,
    resource: Resource,
    pace: ApiTimings,
    updates: mpsc::Sender<StoreUpdate>,
    /// Told when MetalLB's resources may have come.
    found: Arc<Notify>,
    label_selector: bool,
    /// How often in a row it was forbidden.
    forbidden: u32,
}

/// How a watch ended.
enum WatchEnd {
    /// As it should: in time, or because the connection did.
    Ended,
    /// The API server has something against it.
    Failed(ApiRequestError),
    /// Nobody listens.
    ReceiverClosed,
}

impl ResourceWatcher {
    async fn run(mut self) {
        sleep(up_to(self.pace.start)).await;
        let mut backoff = ApiBackoff::new(self.pace.retry);
        while !self.updates.is_closed() {
            let listed = self
                .connection
                .list_resource(self.resource, self.label_selector);
            match listed.await {
                Ok(listed) => {
                    if self.send(StoreUpdate::Listed(listed.state)).await.is_err() {
                        return;
                    }
                    let Some(error) = self.watch(listed.version, &mut backoff).await else {
                        return;
                    };
                    tracing::debug!(resource = %self.resource, %error, "listing anew");
                    // Whatever it was, it is not asked for at once by all that had it.
                    sleep(up_to(self.pace.relist).max(backoff.next())).await;
                }
                Err(ApiRequestError::Refused(_)) if self.selects() => self.label_selector = false,
                Err(error) => self.back_off(error, &mut backoff).await,
            }
        }
    }

    /// Whether the server is asked to select.
    fn selects(&self) -> bool {
        self.resource == Resource::Services && self.label_selector
    }

    async fn send(&self, updates: StoreUpdate) -> Result<(), WatchEnd> {
        self.updates
            .send(updates)
            .await
            .map_err(|_| WatchEnd::ReceiverClosed)
    }

    /// Tells of a failure, and waits as long as that is worth.
    async fn back_off(&mut self, error: ApiRequestError, backoff: &mut ApiBackoff) {
        let known = state_of_error(&error);
        self.forbidden = match known {
            ResourceState::Forbidden => self.forbidden.saturating_add(1),
            _ => 0,
        };
        // Whoever is gone is noticed by the loop.
        let _ = self.send(StoreUpdate::Failed(self.resource, error)).await;
        match known {
            ResourceState::NotInstalled => self.wait_until_found().await,
            // An API server that has just started forbids everything for a moment.
            ResourceState::Forbidden if self.forbidden > IMMEDIATE_RETRIES => {
                sleep(jittered(self.pace.forbidden)).await;
            }
            ResourceState::Forbidden
            | ResourceState::Current
            | ResourceState::Stale
            | ResourceState::NeverRead => {
                sleep(backoff.next()).await;
            }
        }
    }

    /// Waits until what is missing may be there. One resource is asked for; when it comes, the others may have as well.
    async fn wait_until_found(&self) {
        let health = self.connection.health();
        let pools = health.resource(Resource::IpAddressPools).freshness.known;
        let wait = match self.resource {
            Resource::IpAddressPools | Resource::Services => self.pace.missing,
            // It is being installed.
            Resource::L2Advertisements | Resource::BgpAdvertisements
                if pools == ResourceState::Current =>
            {
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
    async fn watch(
        &mut self,
        mut version: String,
        backoff: &mut ApiBackoff,
    ) -> Option<ApiRequestError> {
        let mut failed = 0;
        loop {
            let started = Instant::now();
            let end = self.watch_once(&mut version, failed > 0).await;
            if started.elapsed() >= HEALTHY_AFTER {
                backoff.reset();
            }
            match end {
                Err(WatchEnd::ReceiverClosed) => return None,
                Ok(()) | Err(WatchEnd::Ended) => {
                    failed = 0;
                    if started.elapsed() < HEALTHY_AFTER {
                        // A server that ends every watch at once is not asked in a loop.
                        sleep(backoff.next()).await;
                    }
                }
                Err(WatchEnd::Failed(
                    error @ (ApiRequestError::Unreachable(_)
                    | ApiRequestError::Unavailable(_)
                    | ApiRequestError::Unauthorized(_)),
                )) => {
                    // It may be the version that it cannot serve, as after etcd was restored.
                    if matches!(error, ApiRequestError::Unavailable(_)) && failed >= SEND_TIMEOUT {
                        return Some(error);
                    }
                    failed += 1;
                    self.back_off(error, backoff).await;
                }
                // The version is too old, or the answer makes no sense.
                Err(WatchEnd::Failed(error)) => {
                    // What is old is nothing wrong. Others are told, and the list says more.
                    let is_wrong = !matches!(error, ApiRequestError::Gone(_));
                    if is_wrong
                        && self
                            .send(StoreUpdate::Failed(self.resource, error.clone()))
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
    async fn watch_once(&self, version: &mut String, failed: bool) -> Result<(), WatchEnd> {
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
            .get(ApiRequestKind::Watch, &path, ResponseCompression::None)
            .await
            .map_err(WatchEnd::Failed)?;
        if failed {
            self.send(StoreUpdate::Resumed(self.resource)).await?;
        }
        let reader = StreamReader::new(chunks(body, Some(jittered(self.pace.idle_timeout))));
        let codec = LinesCodec::new_with_max_length(MAX_LINE_BYTES);
        let mut lines = FramedRead::new(reader, codec);
        while let Some(line) = lines.next().await {
            let line = match line {
                Ok(line) => line,
                // The connection ended, or is dead: the next watch says whether that matters.
                Err(LinesCodecError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                    tracing::debug!(resource = %self.resource, %error, "a watch broke off");
                    return Err(WatchEnd::Ended);
                }
                Err(error) => return Err(self.invalid_response(chain(&error))),
            };
            self.change(&line, version).await?;
        }
        Ok(())
    }

    /// Takes one line of a watch.
    async fn change(&self, line: &str, version: &mut String) -> Result<(), WatchEnd> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let mut change: Value = match serde_json::from_str(line) {
            Ok(change) => change,
            // The connection ended in the middle of it.
            Err(error) if error.is_eof() => return Err(WatchEnd::Ended),
            Err(error) => return Err(self.invalid_response(chain(&error))),
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
                return Err(self.invalid_response(message));
            };
            let error = ApiRequestError::from_status(code, message);
            self.connection.count(ApiRequestKind::Watch, Some(&error));
            return Err(WatchEnd::Failed(error));
        }
        self.connection
            .health()
            .record_contact(self.resource, Timestamp::now());
        if let Some(heard) = object::version(&object) {
            heard.clone_into(version);
        }
        match kind {
            "ADDED" | "MODIFIED" => self.send(StoreUpdate::Applied(self.resource, object)).await,
            "DELETED" => self.send(StoreUpdate::Deleted(self.resource, object)).await,
            "BOOKMARK" => Ok(()),
            other => Err(self.invalid_response(format!("a change of the sort {other:?}"))),
        }
    }

    /// Something that makes no sense, counted.
    fn invalid_response(&self, error: String) -> WatchEnd {
        let error = ApiRequestError::InvalidResponse(error);
        self.connection.count(ApiRequestKind::Watch, Some(&error));
        WatchEnd::Failed(error)
    }
}
