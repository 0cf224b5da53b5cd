//! One request to the API server: bounded in time, its end counted.

use std::{error::Error, io, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_TYPE},
};
use kube::client::Body;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::{ApiConnection, ApiOutcome, ApiRequestError, health};

/// An answer begins within this time: the server's own limit for a request that is no watch is a minute.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);

/// While an answer is read, there is never silence for longer than this.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a whole list may take: the largest clusters' come in seconds.
const LIST_TIMEOUT: Duration = Duration::from_mins(5);

/// A single object, or an error, is no longer than this.
const MAX_RESPONSE_BYTES: usize = 4 << 20;

/// So much of what went wrong is told.
const MAX_ERROR_BYTES: usize = 300;

/// The body of an answer, as it comes.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Whether the answer may be packed: what comes line by line must not wait for the packer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCompression {
    /// It may.
    Allowed,
    /// It comes as it is.
    None,
}

impl ApiConnection {
    /// Asks for something whose answer is read as it comes. Counted when the answer begins; if it breaks off, by
    /// whoever reads it.
    pub(super) async fn get(
        &self,
        request: health::ApiRequestKind,
        path: &str,
        packing: ResponseCompression,
    ) -> Result<Body, ApiRequestError> {
        let answer = self.send(Method::GET, path, None, packing).await;
        self.count(request, answer.as_ref().err());
        answer
    }

    /// Asks for one object, or sends one: the object that comes back.
    pub async fn call(
        &self,
        request: health::ApiRequestKind,
        method: Method,
        path: &str,
        object: Option<&Value>,
    ) -> Result<Value, ApiRequestError> {
        let answer = match self
            .send(method, path, object, ResponseCompression::Allowed)
            .await
        {
            Ok(body) => read_body(body).await.and_then(|text| {
                serde_json::from_slice(&text)
                    .map_err(|error| ApiRequestError::InvalidResponse(chain(&error)))
            }),
            Err(error) => Err(error),
        };
        self.count(request, answer.as_ref().err());
        answer
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
        packing: ResponseCompression,
    ) -> Result<Body, ApiRequestError> {
        let refused = |error: hyper::http::Error| ApiRequestError::Refused(chain(&error));
        let mut request = hyper::Request::builder().method(&method).uri(path);
        if packing == ResponseCompression::None {
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
            .map_err(|_| ApiRequestError::Unreachable("no answer within a minute".to_owned()))?
            .map_err(|error| ApiRequestError::Unreachable(chain(&error)))?;
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

/// A patch is merged: what it does not name stays as it is.
fn content_type(method: &Method) -> &'static str {
    if *method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    }
}

/// What the server says of an error, or only its number.
fn message(status: StatusCode, text: &[u8]) -> String {
    let object: Option<Value> = serde_json::from_slice(text).ok();
    let message = object.as_ref().and_then(|object| object.get("message"));
    match message.and_then(Value::as_str) {
        Some(message) => shorten(message.to_owned()),
        None => status.to_string(),
    }
}

/// An answer as a whole, if it is not too long.
async fn read_body(body: Body) -> Result<Bytes, ApiRequestError> {
    let body = Limited::new(body, MAX_RESPONSE_BYTES);
    match timeout(CHUNK_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(ApiRequestError::Unreachable(chain(&*error))),
        Err(_) => Err(ApiRequestError::Unreachable(
            "the answer broke off".to_owned(),
        )),
    }
}

/// An answer as it comes; silence of this length ends it with an error.
pub fn chunks(body: Body, idle_timeout: Option<Duration>) -> Chunks {
    // A watch goes on for as long as it is alive; a list that comes byte by byte is none.
    let ends = idle_timeout
        .is_none()
        .then(|| Instant::now() + LIST_TIMEOUT);
    let idle_timeout = idle_timeout.unwrap_or(CHUNK_TIMEOUT);
    let data = Box::pin(body.into_data_stream());
    Box::pin(stream::unfold(Some(data), move |data| async move {
        let mut data = data?;
        let until = Instant::now() + idle_timeout;
        let until = ends.map_or(until, |ends| ends.min(until));
        match timeout_at(until, data.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(data))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    }))
}

/// An error and what is behind it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    // Errors that contain themselves are possible, if only by mistake.
    for _ in 0..8 {
        let Some(source) = next else { break };
        let words = source.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = source.source();
    }
    shorten(text)
}

fn shorten(mut text: String) -> String {
    if text.len() > MAX_ERROR_BYTES {
        let end = text.floor_char_boundary(MAX_ERROR_BYTES);
        text.truncate(end);
        text.push('…');
    }
    text
}
