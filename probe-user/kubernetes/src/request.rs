//! Requests to the API server: bounded in time and size, and counted by outcome.

use std::{error::Error, io, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_TYPE},
};
use kube::client::Body;
use probe_model::{error_chain, truncate};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::{ApiConnection, ApiOutcome, ApiRequestError, health};

/// A response begins within this time: the server's own limit for a request that is not a watch is a minute.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);

/// The longest time between two chunks of a response.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time for a whole list: those of the largest clusters take seconds.
const LIST_TIMEOUT: Duration = Duration::from_mins(5);

/// The largest object or error.
const MAX_RESPONSE_BYTES: usize = 4 << 20;

/// The longest text of an error.
const MAX_ERROR_BYTES: usize = 300;

/// The body of a response.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Whether the response may be compressed: the lines of a watch must not wait for the compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCompression {
    /// It may be.
    Allowed,
    /// It must not be.
    None,
}

impl ApiConnection {
    /// Requests something whose response is read while it arrives. Counted when the response begins; if it is cut off,
    /// the reader counts that.
    pub(super) async fn get(
        &self,
        request: health::ApiRequestKind,
        path: &str,
        compression: ResponseCompression,
    ) -> Result<Body, ApiRequestError> {
        let response = self.send(Method::GET, path, None, compression).await;
        self.count(request, response.as_ref().err());
        response
    }

    /// Requests or writes one object, and returns the object of the response.
    pub async fn call(
        &self,
        request: health::ApiRequestKind,
        method: Method,
        path: &str,
        object: Option<&Value>,
    ) -> Result<Value, ApiRequestError> {
        let response = match self
            .send(method, path, object, ResponseCompression::Allowed)
            .await
        {
            Ok(body) => read_body(body).await.and_then(|text| {
                serde_json::from_slice(&text)
                    .map_err(|error| ApiRequestError::InvalidResponse(error_text(&error)))
            }),
            Err(error) => Err(error),
        };
        self.count(request, response.as_ref().err());
        response
    }

    pub(super) fn count(&self, request: health::ApiRequestKind, error: Option<&ApiRequestError>) {
        let outcome = error.map_or(ApiOutcome::Ok, ApiRequestError::outcome);
        self.health().count(request, outcome);
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        object: Option<&Value>,
        compression: ResponseCompression,
    ) -> Result<Body, ApiRequestError> {
        let refused = |error: hyper::http::Error| ApiRequestError::Refused(error_text(&error));
        let mut request = hyper::Request::builder().method(&method).uri(path);
        if compression == ResponseCompression::None {
            request = request.header(ACCEPT_ENCODING, "identity");
        }
        let body = match object {
            Some(object) => {
                request = request.header(CONTENT_TYPE, content_type(&method));
                Body::from(object.to_string().into_bytes())
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(refused)?;
        let response = timeout(RESPONSE_TIMEOUT, self.client().send(request))
            .await
            .map_err(|_| ApiRequestError::Unreachable("no response within a minute".to_owned()))?
            .map_err(|error| ApiRequestError::Unreachable(error_text(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let text = read_body(response.into_body()).await.unwrap_or_default();
        Err(ApiRequestError::from_status(
            status.as_u16(),
            message(status, &text),
        ))
    }
}

/// A patch is merged: fields that it does not name are unchanged.
fn content_type(method: &Method) -> &'static str {
    if *method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    }
}

/// The message of an error response, or else its status.
fn message(status: StatusCode, text: &[u8]) -> String {
    let object: Option<Value> = serde_json::from_slice(text).ok();
    let message = object.as_ref().and_then(|object| object.get("message"));
    match message.and_then(Value::as_str) {
        Some(message) => truncate(message.to_owned(), MAX_ERROR_BYTES),
        None => status.to_string(),
    }
}

/// The whole body, if it is not too large.
async fn read_body(body: Body) -> Result<Bytes, ApiRequestError> {
    let body = Limited::new(body, MAX_RESPONSE_BYTES);
    match timeout(CHUNK_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(ApiRequestError::Unreachable(error_text(&*error))),
        Err(_) => Err(ApiRequestError::Unreachable(
            "the response was cut off".to_owned(),
        )),
    }
}

/// A body as a stream; a pause longer than `idle_timeout` ends it with an error.
pub fn chunks(body: Body, idle_timeout: Option<Duration>) -> Chunks {
    // A watch lasts as long as it is alive; a list that arrives byte by byte is cut off.
    let deadline = idle_timeout
        .is_none()
        .then(|| Instant::now() + LIST_TIMEOUT);
    let idle_timeout = idle_timeout.unwrap_or(CHUNK_TIMEOUT);
    let data = Box::pin(body.into_data_stream());
    Box::pin(stream::unfold(Some(data), move |data| async move {
        let mut data = data?;
        let until = Instant::now() + idle_timeout;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        match timeout_at(until, data.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(data))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    }))
}

/// An error with its sources, in bounded length.
pub fn error_text(error: &dyn Error) -> String {
    truncate(error_chain(error), MAX_ERROR_BYTES)
}
