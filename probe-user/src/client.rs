//! Talks to the daemon on its Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

/// A longer line is no line of ours.
const MAX_LINE_BYTES: usize = 1 << 20;
/// What a daemon knows of a cluster is not longer: ten thousand services are some megabytes.
const MAX_RECORD_BYTES: usize = 256 << 20;
/// How much of an error is shown.
const MAX_ERROR_BYTES: usize = 1 << 12;

/// Why the daemon gave no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon answers at {}: start it with `probe run`, or name its socket with --socket PATH",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// Not allowed.
    #[error("the socket {} is not for this user: run as root, or as a member of its group", .0.display())]
    Denied(PathBuf),
    /// It refused.
    #[error("the daemon at {}: {response}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// Its words.
        response: String,
    },
    /// It went away in the middle, or is something else.
    #[error("the daemon at {} cannot be understood: {why} (is it of another version?)", path.display())]
    MalformedResponse {
        /// Where.
        path: PathBuf,
        /// What happened.
        why: String,
    },
}

/// A daemon.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The daemon at this socket, if there is one.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Asks for something, and gives the answer as it comes.
    pub async fn get(&self, target: &str) -> Result<ResponseStream, ClientError> {
        self.request(Method::GET, target).await
    }

    /// Wants something done, and gives the answer as it comes.
    pub async fn post(&self, target: &str) -> Result<ResponseStream, ClientError> {
        self.request(Method::POST, target).await
    }

    async fn request(&self, method: Method, target: &str) -> Result<ResponseStream, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Denied(self.path.clone()),
                _ => ClientError::NotRunning(self.path.clone()),
            })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) =
            handshake.map_err(|error| self.malformed_response(&error))?;
        // Ends with the answer: what goes wrong there is seen in it.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.malformed_response(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.malformed_response(&error))?;
        let status = response.status();
        let mut answer = ResponseStream {
            client: self.clone(),
            body: response.into_body(),
            read: BytesMut::new(),
        };
        if status.is_success() {
            return Ok(answer);
        }
        let mut response = Vec::new();
        while response.len() < MAX_ERROR_BYTES {
            match answer.next_chunk().await {
                Ok(Some(piece)) => response.extend(piece),
                _ => break,
            }
        }
        let response = String::from_utf8_lossy(&response).trim().to_owned();
        Err(ClientError::Refused {
            path: self.path.clone(),
            response: if response.is_empty() {
                status.to_string()
            } else {
                response
            },
        })
    }

    /// Asks for records and reads them all.
    pub async fn list<T: DeserializeOwned>(&self, target: &str) -> Result<Vec<T>, ClientError> {
        let mut answer = self.get(target).await?;
        let mut records = Vec::new();
        while let Some(record) = answer.record().await? {
            records.push(record);
        }
        Ok(records)
    }

    /// Asks for one record, which may be long.
    pub async fn get_one<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let mut answer = self.get(target).await?;
        let mut text = Vec::new();
        while let Some(piece) = answer.next_chunk().await? {
            if text.len() + piece.len() > MAX_RECORD_BYTES {
                return Err(self.malformed_response(&"a record without end"));
            }
            text.extend_from_slice(&piece);
        }
        serde_json::from_slice(&text).map_err(|error| self.malformed_response(&error))
    }

    fn malformed_response(&self, why: &impl ToString) -> ClientError {
        ClientError::MalformedResponse {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }
}

/// What the daemon answers, as it comes. Every wait can be dropped without losing anything.
#[derive(Debug)]
pub struct ResponseStream {
    client: Client,
    body: Incoming,
    read: BytesMut,
}

impl ResponseStream {
    /// The next line, as a record; `None` at the end.
    pub async fn record<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let Some(line) = self.line().await? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&line);
        record
            .map(Some)
            .map_err(|error| self.client.malformed_response(&error))
    }

    async fn line(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line = self.read.split_to(end).freeze();
                self.read.advance(1);
                return Ok(Some(line));
            }
            if self.read.len() > MAX_LINE_BYTES {
                return Err(self.client.malformed_response(&"a line without end"));
            }
            match self.next_chunk().await? {
                Some(piece) => self.read.extend_from_slice(&piece),
                None if self.read.is_empty() => return Ok(None),
                None => {
                    return Err(self
                        .client
                        .malformed_response(&"it ended in the middle of a line"));
                }
            }
        }
    }

    /// The next bytes, not to be mixed with lines; `None` at the end.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.client.malformed_response(&error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
