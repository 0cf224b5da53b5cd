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

use super::{Connection, Outcome, ReadError, health};

/// An answer begins within this time: the server's own limit for a request that is no watch is a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// While an answer is read, there is never silence for longer than this.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a whole list may take: the largest clusters' come in seconds.
const LIST_TIMEOUT: Duration = Duration::from_mins(5);

/// A single object, or an error, is no longer than this.
const LONGEST_ANSWER: usize = 4 << 20;

/// So much of what went wrong is told.
const LONGEST_ERROR: usize = 300;

/// The body of an answer, as it comes.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Whether the answer may be packed: what comes line by line must not wait for the packer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// It may.
    Allowed,
    /// It comes as it is.
    None,
}

impl Connection {
    /// Asks for something whose answer is read as it comes. Counted when the answer begins; if it breaks off, by
    /// whoever reads it.
    pub(super) async fn get(
        &self,
        request: health::Request,
        path: &str,
        packing: Packing,
    ) -> Result<Body, ReadError> {
        let answer = self.send(Method::GET, path, None, packing).await;
        self.count(request, answer.as_ref().err());
        answer
    }

    /// Asks for one object, or sends one: the object that comes back.
    pub async fn call(
        &self,
        request: health::Request,
        method: Method,
        path: &str,
        object: Option<&Value>,
    ) -> Result<Value, ReadError> {
        let answer = match self.send(method, path, object, Packing::Allowed).await {
            Ok(body) => whole(body).await.and_then(|text| {
                serde_json::from_slice(&text).map_err(|error| ReadError::Garbage(chain(&error)))
            }),
            Err(error) => Err(error),
        };
        self.count(request, answer.as_ref().err());
        answer
    }

    pub(super) fn count(&self, request: health::Request, error: Option<&ReadError>) {
        let outcome = error.map_or(Outcome::Ok, ReadError::outcome);
        self.health().count(request, outcome);
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        object: Option<&Value>,
        packing: Packing,
    ) -> Result<Body, ReadError> {
        let refused = |error: hyper::http::Error| ReadError::Refused(chain(&error));
        let mut request = hyper::Request::builder().method(&method).uri(path);
        if packing == Packing::None {
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
        let response = timeout(ANSWER_TIMEOUT, self.client().send(request))
            .await
            .map_err(|_| ReadError::Unreachable("no answer within a minute".to_owned()))?
            .map_err(|error| ReadError::Unreachable(chain(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let text = whole(response.into_body()).await.unwrap_or_default();
        Err(ReadError::from_status(
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
async fn whole(body: Body) -> Result<Bytes, ReadError> {
    let body = Limited::new(body, LONGEST_ANSWER);
    match timeout(CHUNK_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(ReadError::Unreachable(chain(&*error))),
        Err(_) => Err(ReadError::Unreachable("the answer broke off".to_owned())),
    }
}

/// An answer as it comes; silence of this length ends it with an error.
pub fn chunks(body: Body, silence: Option<Duration>) -> Chunks {
    // A watch goes on for as long as it is alive; a list that comes byte by byte is none.
    let ends = silence.is_none().then(|| Instant::now() + LIST_TIMEOUT);
    let silence = silence.unwrap_or(CHUNK_TIMEOUT);
    let data = Box::pin(body.into_data_stream());
    Box::pin(stream::unfold(Some(data), move |data| async move {
        let mut data = data?;
        let until = Instant::now() + silence;
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
    if text.len() > LONGEST_ERROR {
        let end = text.floor_char_boundary(LONGEST_ERROR);
        text.truncate(end);
        text.push('…');
    }
    text
}
