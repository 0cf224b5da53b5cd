//! Watches services, pools and advertisements.
//!
//! A task for each resource lists it once and then watches it. A watch that ends is continued from the last version;
//! only if that is too old is the resource listed again. While the API server is unreachable, the last known objects
//! stay, marked as stale.
//!
//! `kube::runtime::watcher` is not used. It buffers and parses a list as a whole, without a limit; after 410 all nodes
//! of a fleet would list at once; and a watch to which a restored etcd responds with 504 for ever (the version is in
//! its future) is retried but never listed again.

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
use probe_model::Backoff;
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
    health::{ApiRequestKind, ResourceHealth},
    read::{LOAD_BALANCERS, path, state_of_error},
    request::{ResponseCompression, chunks, error_text},
    timings::{ApiTimings, jittered, up_to},
};

/// The largest event: etcd stores objects of up to 1.5 MiB.
const MAX_LINE_BYTES: usize = 8 << 20;

/// Events that wait to be applied.
const UPDATE_QUEUE: usize = 64;

/// A watch that lasted this long worked.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How often in a row a forbidden resource is tried again soon.
const IMMEDIATE_RETRIES: u32 = 3;

/// How often in a row a watch may fail with a server error before the resource is listed again.
const MAX_WATCH_ERRORS: u32 = 20;

/// Building snapshots takes at most one in this many parts of the time.
const MAX_DUTY_CYCLE: u32 = 20;

/// Unknown fields that are logged.
const MAX_LOGGED_FIELDS: usize = 64;

/// The annotations that show that MetalLB is installed, before its resources were found.
const ALLOCATED_FROM: &str = "metallb.io~1ip-allocated-from-pool";
const FORMER_ALLOCATED_FROM: &str = "metallb.universe.tf~1ip-allocated-from-pool";

enum StoreUpdate {
    /// All objects of a resource.
    Listed(ResourceStore),
    /// A new or changed object.
    Applied(Resource, Value),
    /// A deleted object.
    Deleted(Resource, Value),
    /// The resource is watched again.
    Resumed(Resource),
    /// A request failed.
    Failed(Resource, ApiRequestError),
}

/// Watches a cluster until the task is dropped.
pub async fn watch_cluster(
    connection: ApiConnection,
    timings: ApiTimings,
    cluster: watch::Sender<Arc<ClusterSnapshot>>,
) {
    let (sender, updates) = mpsc::channel(UPDATE_QUEUE);
    let found = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    for &resource in Resource::ALL {
        let watcher = ResourceWatcher {
            connection: connection.clone(),
            resource,
            timings: timings.clone(),
            updates: sender.clone(),
            found: found.clone(),
            label_selector: true,
            forbidden: 0,
        };
        tasks.spawn(watcher.run());
    }
    drop(sender);
    let mut updater = StoreUpdater {
        stores: Resource::ALL
            .iter()
            .map(|&resource| (resource, ResourceStore::new(resource)))
            .collect(),
        health: connection.health(),
        found,
        cluster,
        logged_fields: BTreeSet::new(),
    };
    updater.run(updates, timings.batch_window).await;
}

/// Applies events, and publishes snapshots.
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
        let mut pause = Duration::ZERO;
        loop {
            let until = due.unwrap_or_else(tokio::time::Instant::now);
            tokio::select! {
                biased;
                () = sleep_until(until), if due.is_some() => {
                    due = None;
                    let started = Instant::now();
                    self.log_unknown_fields();
                    self.publish().await;
                    pause = started.elapsed() * MAX_DUTY_CYCLE;
                }
                update = updates.recv() => {
                    let Some(update) = update else { return };
                    if self.apply(update) && due.is_none() {
                        due = Some(tokio::time::Instant::now() + batch_window.max(pause));
                    }
                }
            }
        }
    }

    /// Applies an update. Returns whether the snapshot changes.
    fn apply(&mut self, update: StoreUpdate) -> bool {
        match update {
            StoreUpdate::Listed(mut store) => {
                let resource = store.resource();
                if let Some(previous) = self.stores.remove(&resource) {
                    store.inherit_announcers(previous, Timestamp::now());
                }
                let health = ResourceHealth {
                    objects: store.len(),
                    invalid: store.invalid(),
                    freshness: current(),
                };
                let before = self.health.resource(resource).freshness.state;
                if resource == Resource::IpAddressPools && before != ResourceState::Current {
                    self.found.notify_waiters();
                }
                tracing::info!(%resource, objects = health.objects, invalid = health.invalid, "listed");
                self.stores.insert(resource, store);
                self.health.set_resource(resource, health);
                true
            }
            StoreUpdate::Applied(resource, object) => {
                if resource == Resource::Services && self.is_first_metallb_service(&object) {
                    self.found.notify_waiters();
                }
                self.change(resource, |store| store.apply(object, Timestamp::now()))
            }
            StoreUpdate::Deleted(resource, object) => {
                self.change(resource, |store| store.remove(&object, Timestamp::now()))
            }
            StoreUpdate::Resumed(resource) => {
                let mut health = self.health.resource(resource);
                let was = health.freshness.state;
                health.freshness = current();
                self.health.set_resource(resource, health);
                if was != ResourceState::Current {
                    tracing::info!(%resource, "watching again");
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
        let Some(store) = self.stores.get_mut(&resource) else {
            return false;
        };
        let is_changed = change(store);
        if is_changed {
            let (objects, invalid) = (store.len(), store.invalid());
            self.health.set_counts(resource, objects, invalid);
        }
        is_changed
    }

    fn failed(&mut self, resource: Resource, error: &ApiRequestError) -> bool {
        let mut health = self.health.resource(resource);
        let before = health.freshness.clone();
        let was_read = matches!(before.state, ResourceState::Current | ResourceState::Stale);
        health.freshness.state = match state_of_error(error) {
            // A starting API server forbids everything for a moment: the last known objects stay.
            ResourceState::NeverRead | ResourceState::Forbidden if was_read => ResourceState::Stale,
            ResourceState::NeverRead => before.state,
            state => state,
        };
        health.freshness.error = Some(error.to_string());
        if health.freshness.state == ResourceState::NotInstalled {
            self.stores.insert(resource, ResourceStore::new(resource));
            (health.objects, health.invalid) = (0, 0);
        }
        let after = health.freshness.clone();
        self.health.set_resource(resource, health);
        if before.state != after.state || before.error.is_none() {
            // Logged once, however often it is retried.
            match after.state {
                ResourceState::NotInstalled => {
                    tracing::info!(%resource, "not installed, retrying occasionally");
                }
                _ => {
                    tracing::warn!(%resource, state = %after.state, %error, "cannot watch");
                }
            }
        }
        before != after
    }

    /// Logs each unknown field once, because drift and causes may miss its meaning.
    fn log_unknown_fields(&mut self) {
        for store in self.stores.values() {
            let resource = store.resource();
            for field in store.unknown_fields() {
                if self.logged_fields.len() < MAX_LOGGED_FIELDS
                    && self.logged_fields.insert((resource, field.to_owned()))
                {
                    tracing::warn!(%resource, field, "objects have an unknown field: drift and causes may be incomplete; update arp-monitor");
                }
            }
        }
    }

    /// Whether a service is the first to show that MetalLB has been installed.
    fn is_first_metallb_service(&self, service: &Value) -> bool {
        let state = self
            .health
            .resource(Resource::IpAddressPools)
            .freshness
            .state;
        let has = |key| {
            let pointer = format!("/metadata/annotations/{key}");
            service.pointer(&pointer).is_some()
        };
        state == ResourceState::NotInstalled && (has(ALLOCATED_FROM) || has(FORMER_ALLOCATED_FROM))
    }

    /// Publishes a snapshot.
    async fn publish(&self) {
        let stores = self.stores.values().map(|store| {
            let freshness = self.health.resource(store.resource()).freshness;
            (store, freshness)
        });
        let objects = resource_store::objects(stores);
        // Thousands of services take a while: not on the threads that read frames.
        match tokio::task::spawn_blocking(move || ClusterSnapshot::from(objects)).await {
            Ok(cluster) => {
                self.cluster.send_replace(Arc::new(cluster));
            }
            Err(error) => {
                tracing::error!(%error, "cannot build a snapshot of the cluster");
            }
        }
    }
}

fn current() -> Freshness {
    Freshness {
        state: ResourceState::Current,
        last_update: Some(Timestamp::now()),
        error: None,
    }
}

/// Watches one resource.
struct ResourceWatcher {
    connection: ApiConnection,
    resource: Resource,
    timings: ApiTimings,
    updates: mpsc::Sender<StoreUpdate>,
    /// Notified when MetalLB may have been installed.
    found: Arc<Notify>,
    label_selector: bool,
    /// How often in a row it was forbidden.
    forbidden: u32,
}

/// How a watch ended.
enum WatchEnd {
    /// At its timeout, or with the connection.
    Ended,
    /// With an error.
    Failed(ApiRequestError),
    /// The receiver of updates is gone.
    ReceiverClosed,
}

impl ResourceWatcher {
    async fn run(mut self) {
        sleep(up_to(self.timings.start)).await;
        let mut backoff = self.timings.backoff();
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
                    tracing::debug!(resource = %self.resource, %error, "listing again");
                    // All nodes of the fleet may have got the same error at once.
                    sleep(up_to(self.timings.relist).max(backoff.next_delay(fastrand::f64())))
                        .await;
                }
                Err(ApiRequestError::Refused(_)) if self.selects() => self.label_selector = false,
                Err(error) => self.back_off(error, &mut backoff).await,
            }
        }
    }

    /// Whether the server selects the services.
    fn selects(&self) -> bool {
        self.resource == Resource::Services && self.label_selector
    }

    async fn send(&self, update: StoreUpdate) -> Result<(), WatchEnd> {
        self.updates
            .send(update)
            .await
            .map_err(|_| WatchEnd::ReceiverClosed)
    }

    /// Reports a failure, and waits.
    async fn back_off(&mut self, error: ApiRequestError, backoff: &mut Backoff) {
        let state = state_of_error(&error);
        self.forbidden = match state {
            ResourceState::Forbidden => self.forbidden.saturating_add(1),
            _ => 0,
        };
        // The loop notices that the receiver is gone.
        let _ = self.send(StoreUpdate::Failed(self.resource, error)).await;
        match state {
            ResourceState::NotInstalled => self.wait_until_found().await,
            // A starting API server forbids everything for a moment.
            ResourceState::Forbidden if self.forbidden > IMMEDIATE_RETRIES => {
                sleep(jittered(self.timings.forbidden)).await;
            }
            ResourceState::Forbidden
            | ResourceState::Current
            | ResourceState::Stale
            | ResourceState::NeverRead => {
                sleep(backoff.next_delay(fastrand::f64())).await;
            }
        }
    }

    /// Waits until a missing resource may have been installed. One is tried regularly; when it is there, the others may be
    /// as well.
    async fn wait_until_found(&self) {
        let health = self.connection.health();
        let pools = health.resource(Resource::IpAddressPools).freshness.state;
        let wait = match self.resource {
            Resource::IpAddressPools | Resource::Services => self.timings.missing,
            // The installation may still be going on.
            Resource::L2Advertisements | Resource::BgpAdvertisements
                if pools == ResourceState::Current =>
            {
                self.timings.missing
            }
            Resource::L2Advertisements
            | Resource::BgpAdvertisements
            | Resource::ServiceL2Statuses => self.timings.missing_others,
        };
        if timeout(jittered(wait), self.found.notified()).await.is_ok() {
            // Not all nodes at once; and one resource is installed after the other.
            sleep(self.timings.retry + up_to(self.timings.start)).await;
        }
    }

    /// Watches from a version until the resource has to be listed again, and returns why; `None` if the receiver is gone.
    async fn watch(
        &mut self,
        mut version: String,
        backoff: &mut Backoff,
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
                        // A server that ends every watch at once.
                        sleep(backoff.next_delay(fastrand::f64())).await;
                    }
                }
                Err(WatchEnd::Failed(
                    error @ (ApiRequestError::Unreachable(_)
                    | ApiRequestError::Unavailable(_)
                    | ApiRequestError::Unauthorized(_)),
                )) => {
                    // The server may be unable to serve the version, for example after etcd was restored.
                    if matches!(error, ApiRequestError::Unavailable(_))
                        && failed >= MAX_WATCH_ERRORS
                    {
                        return Some(error);
                    }
                    failed += 1;
                    self.back_off(error, backoff).await;
                }
                // The version is too old, or the response is invalid.
                Err(WatchEnd::Failed(error)) => {
                    // A version that is too old is no failure.
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

    /// Watches once. `version` follows the events.
    async fn watch_once(&self, version: &mut String, failed: bool) -> Result<(), WatchEnd> {
        // Jittered, so that the watches of a fleet do not end at once.
        let seconds = (self.timings.watch / 2 + up_to(self.timings.watch / 2)).as_secs();
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
        let reader = StreamReader::new(chunks(body, Some(jittered(self.timings.idle_timeout))));
        let codec = LinesCodec::new_with_max_length(MAX_LINE_BYTES);
        let mut lines = FramedRead::new(reader, codec);
        while let Some(line) = lines.next().await {
            let line = match line {
                Ok(line) => line,
                // The connection ended, or is dead: the next watch shows which.
                Err(LinesCodecError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                    tracing::debug!(resource = %self.resource, %error, "watch cut off");
                    return Err(WatchEnd::Ended);
                }
                Err(error) => return Err(self.invalid_response(error_text(&error))),
            };
            self.change(&line, version).await?;
        }
        Ok(())
    }

    /// Handles one event of a watch.
    async fn change(&self, line: &str, version: &mut String) -> Result<(), WatchEnd> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let mut change: Value = match serde_json::from_str(line) {
            Ok(change) => change,
            // The connection ended in the middle of it.
            Err(error) if error.is_eof() => return Err(WatchEnd::Ended),
            Err(error) => return Err(self.invalid_response(error_text(&error))),
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
            let message = message.unwrap_or("an error without a message").to_owned();
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
        if let Some(new_version) = object::version(&object) {
            new_version.clone_into(version);
        }
        match kind {
            "ADDED" | "MODIFIED" => self.send(StoreUpdate::Applied(self.resource, object)).await,
            "DELETED" => self.send(StoreUpdate::Deleted(self.resource, object)).await,
            "BOOKMARK" => Ok(()),
            other => Err(self.invalid_response(format!("an event of type {other:?}"))),
        }
    }

    /// Counts an invalid response.
    fn invalid_response(&self, error: String) -> WatchEnd {
        let error = ApiRequestError::InvalidResponse(error);
        self.connection.count(ApiRequestKind::Watch, Some(&error));
        WatchEnd::Failed(error)
    }
}
