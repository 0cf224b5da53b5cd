//! An API server for tests: lists, watches and optimistic locking like the real one, and injected faults.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header::CONNECTION},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use http_body_util::BodyExt as _;
use kube::Config;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinHandle,
    time::timeout,
};

use super::ApiConnection;

/// A test that waits longer than this has failed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An API server.
pub struct FakeApiServer {
    address: SocketAddr,
    shared: Arc<FakeShared>,
    server: Mutex<Option<JoinHandle<()>>>,
}

struct FakeShared {
    state: Mutex<FakeState>,
    /// The collection and the line of each change.
    changes: broadcast::Sender<(String, u64, String)>,
    /// Watches of another generation end.
    generation: watch::Sender<u64>,
    /// One more for each request.
    request_count: watch::Sender<usize>,
}

#[derive(Default)]
struct FakeState {
    version: u64,
    /// Changes before this version have been compacted.
    oldest: u64,
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    changes: Vec<(String, u64, String)>,
    /// Injected responses, by prefix of path and query.
    faults: BTreeMap<String, (u16, String)>,
    requests: Vec<String>,
}

impl FakeApiServer {
    /// A server without objects.
    pub async fn start() -> Self {
        let mut fake = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            shared: Arc::new(FakeShared {
                state: Mutex::default(),
                changes: broadcast::channel(4_096).0,
                generation: watch::Sender::new(0),
                request_count: watch::Sender::new(0),
            }),
            server: Mutex::default(),
        };
        fake.address = fake.serve().await;
        fake
    }

    /// Connects a client.
    pub fn connect(&self) -> ApiConnection {
        let url = format!("http://{}", self.address).parse().unwrap();
        ApiConnection::with(Config::new(url)).unwrap()
    }

    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(handle)
            .with_state(self.shared.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        *self.server.lock().unwrap() = Some(server);
        address
    }

    /// Stops the server.
    pub fn stop(&self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
        self.end_watches();
    }

    /// Starts the server again.
    pub async fn resume(&self) {
        // The port is free as soon as the task has ended.
        while TcpListener::bind(self.address).await.is_err() {
            tokio::task::yield_now().await;
        }
        self.serve().await;
    }

    /// Creates or changes an object in the collection at this path.
    pub fn apply(&self, collection: &str, object: Value) {
        self.shared
            .state
            .lock()
            .unwrap()
            .apply(&self.shared, collection, object);
    }

    /// Deletes an object.
    pub fn remove(&self, collection: &str, name: &str) {
        let mut state = self.shared.state.lock().unwrap();
        let objects = state.objects.get_mut(collection).unwrap();
        let key = objects
            .keys()
            .find(|key| key.ends_with(&format!("/{name}")))
            .unwrap()
            .clone();
        let object = objects.remove(&key).unwrap();
        state.publish(&self.shared, collection, "DELETED", object);
    }

    /// Sends a line to every watch of a collection.
    pub fn send_line(&self, collection: &str, line: &str) {
        let version = self.shared.state.lock().unwrap().version + 1;
        let change = (collection.to_owned(), version, format!("{line}\n"));
        let _ = self.shared.changes.send(change);
    }

    /// Forgets all changes so far.
    pub fn compact(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.version += 10;
        state.oldest = state.version;
        state.changes.clear();
    }

    /// Ends every watch.
    pub fn end_watches(&self) {
        self.shared
            .generation
            .send_modify(|generation| *generation += 1);
    }

    /// Responds to requests with this prefix with an error, until [`FakeApiServer::clear_fault`].
    pub fn fail_with(&self, start: &str, code: u16, body: &str) {
        let mut state = self.shared.state.lock().unwrap();
        state
            .faults
            .insert(start.to_owned(), (code, body.to_owned()));
    }

    /// Removes an injected error.
    pub fn clear_fault(&self, start: &str) {
        self.shared.state.lock().unwrap().faults.remove(start);
    }

    /// The requests so far, with their methods.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// The current state of an object.
    pub fn object(&self, collection: &str, key: &str) -> Option<Value> {
        let state = self.shared.state.lock().unwrap();
        state.objects.get(collection)?.get(key).cloned()
    }

    /// Waits for `times` requests with this prefix.
    pub async fn wait_for_requests(&self, start: &str, times: usize) {
        let count = || {
            let requests = self.requests();
            requests
                .iter()
                .filter(|request| request.starts_with(start))
                .count()
        };
        let mut request_count = self.shared.request_count.subscribe();
        let waiting = request_count.wait_for(|_| count() >= times);
        timeout(TIMEOUT, waiting)
            .await
            .unwrap_or_else(|_| panic!("{start} {times} times, not {:?}", self.requests()))
            .unwrap();
    }
}

impl Drop for FakeApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until the value fulfils the condition.
pub async fn wait_until<T>(receiver: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) {
    timeout(TIMEOUT, receiver.wait_for(is_so))
        .await
        .expect("the condition was not met in time")
        .unwrap();
}

impl FakeState {
    fn apply(&mut self, shared: &FakeShared, collection: &str, object: Value) -> Value {
        let text = |pointer| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let key = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
        let objects = self.objects.entry(collection.to_owned()).or_default();
        let kind = if objects.contains_key(&key) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let object = self.publish(shared, collection, kind, object);
        let objects = self.objects.entry(collection.to_owned()).or_default();
        objects.insert(key, object.clone());
        object
    }

    fn publish(
        &mut self,
        shared: &FakeShared,
        collection: &str,
        kind: &str,
        mut object: Value,
    ) -> Value {
        self.version += 1;
        if object.get("metadata").is_some_and(Value::is_object) {
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        let change = (collection.to_owned(), self.version, line);
        self.changes.push(change.clone());
        let _ = shared.changes.send(change);
        object
    }
}

async fn handle(State(shared): State<Arc<FakeShared>>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    let method = request.method().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = respond(&shared, &method, &path, &body);
    // Connections are closed, so that a stopped server is not reached through an old one.
    response
        .headers_mut()
        .insert(CONNECTION, "close".parse().unwrap());
    shared
        .request_count
        .send_modify(|request_count| *request_count += 1);
    response
}

fn respond(shared: &Arc<FakeShared>, method: &Method, path: &str, body: &Bytes) -> Response {
    let mut state = shared.state.lock().unwrap();
    state.requests.push(format!("{method} {path}"));
    let fault = state
        .faults
        .iter()
        .find(|(start, _)| path.starts_with(*start));
    if let Some((_, (code, text))) = fault {
        return (StatusCode::from_u16(*code).unwrap(), text.clone()).into_response();
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if query.contains("watch=1") {
        return respond_watch(shared, &state, path, query);
    }
    match *method {
        Method::POST | Method::PUT => write(shared, &mut state, method, path, body),
        _ => match path.rsplit_once("/leases/") {
            Some((before, name)) => {
                let key = key(before, name);
                let leases = state.objects.get(&format!("{before}/leases"));
                match leases.and_then(|leases| leases.get(&key)) {
                    Some(lease) => lease.to_string().into_response(),
                    None => StatusCode::NOT_FOUND.into_response(),
                }
            }
            None => list(&state, path, query),
        },
    }
}

/// `NAMESPACE/NAME` of a path that ends with the namespace.
fn key(before: &str, name: &str) -> String {
    let (_, namespace) = before.rsplit_once('/').unwrap();
    format!("{namespace}/{name}")
}

fn list(state: &FakeState, path: &str, query: &str) -> Response {
    let objects = state
        .objects
        .get(path)
        .into_iter()
        .flat_map(BTreeMap::values);
    let is_selected = |object: &&Value| {
        !query.contains("fieldSelector=spec.type%3DLoadBalancer")
            || object.pointer("/spec/type") == Some(&json!("LoadBalancer"))
    };
    let objects: Vec<_> = objects.filter(is_selected).collect();
    let version = state.version.max(1).to_string();
    let list = json!({
        "kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": objects,
    });
    list.to_string().into_response()
}

fn write(
    shared: &FakeShared,
    state: &mut FakeState,
    method: &Method,
    path: &str,
    body: &Bytes,
) -> Response {
    let object: Value = serde_json::from_slice(body).unwrap();
    let name = object["metadata"]["name"].as_str().unwrap();
    let collection = match *method {
        Method::PUT => path.strip_suffix(&format!("/{name}")).unwrap(),
        _ => path,
    };
    let key = key(collection.rsplit_once('/').unwrap().0, name);
    let current = state
        .objects
        .get(collection)
        .and_then(|objects| objects.get(&key));
    let is_good = match (current, method) {
        (None, &Method::POST) => true,
        (Some(current), &Method::PUT) => {
            current["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"]
        }
        _ => false,
    };
    if !is_good {
        return StatusCode::CONFLICT.into_response();
    }
    let collection = collection.to_owned();
    state
        .apply(shared, &collection, object)
        .to_string()
        .into_response()
}

/// Responds with the changes since a version, and then with new ones.
fn respond_watch(shared: &Arc<FakeShared>, state: &FakeState, path: &str, query: &str) -> Response {
    let (_, since) = query.split_once("resourceVersion=").unwrap();
    let since: u64 = since.split('&').next().unwrap().parse().unwrap();
    if since < state.oldest {
        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}});
        return format!("{gone}\n").into_response();
    }
    let changes = state.changes.iter();
    let past: Vec<_> = changes
        .filter(|(collection, version, _)| collection == path && *version > since)
        .map(|(_, _, line)| line.clone())
        .collect();
    let path = path.to_owned();
    let future = shared.changes.subscribe();
    let mut generation = shared.generation.subscribe();
    generation.mark_unchanged();
    let lines = stream::unfold(
        (past.into_iter(), future, generation),
        move |(mut past, mut future, mut generation)| {
            let path = path.clone();
            async move {
                loop {
                    if let Some(line) = past.next() {
                        return Some((Ok::<_, io::Error>(line), (past, future, generation)));
                    }
                    tokio::select! {
                        _ = generation.changed() => return None,
                        change = future.recv() => {
                            let (collection, _, line) = change.ok()?;
                            if collection == path {
                                return Some((Ok(line), (past, future, generation)));
                            }
                        }
                    }
                }
            }
        },
    );
    Body::from_stream(lines).into_response()
}
