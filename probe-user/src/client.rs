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
const LONGEST_LINE: usize = 1 << 20;
/// What a daemon knows of a cluster is not longer: ten thousand services are some megabytes.
const LONGEST_RECORD: usize = 256 << 20;
/// How much of an error is shown.
const LONGEST_ERROR: usize = 1 << 12;

/// Why the daemon gave no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon answers at {}: start it with `probe run`, or name its socket with --socket PATH",
        .0.display()
    )]
    NoDaemon(PathBuf),
    /// Not allowed.
    #[error("the socket {} is not for this user: run as root, or as a member of its group", .0.display())]
    Denied(PathBuf),
    /// It refused.
    #[error("the daemon at {}: {said}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// Its words.
        said: String,
    },
    /// It went away in the middle, or is something else.
    #[error("the daemon at {} cannot be understood: {why} (is it of another version?)", path.display())]
    Garbled {
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
    pub async fn get(&self, target: &str) -> Result<Answer, ClientError> {
        self.request(Method::GET, target).await
    }

    /// Wants something done, and gives the answer as it comes.
    pub async fn post(&self, target: &str) -> Result<Answer, ClientError> {
        self.request(Method::POST, target).await
    }

    async fn request(&self, method: Method, target: &str) -> Result<Answer, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Denied(self.path.clone()),
                _ => ClientError::NoDaemon(self.path.clone()),
            })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.garbled(&error))?;
        // Ends with the answer: what goes wrong there is seen in it.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.garbled(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.garbled(&error))?;
        let status = response.status();
        let mut answer = Answer {
            client: self.clone(),
            body: response.into_body(),
            read: BytesMut::new(),
        };
        if status.is_success() {
            return Ok(answer);
        }
        let mut said = Vec::new();
        while said.len() < LONGEST_ERROR {
            match answer.piece().await {
                Ok(Some(piece)) => said.extend(piece),
                _ => break,
            }
        }
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(ClientError::Refused {
            path: self.path.clone(),
            said: if said.is_empty() {
                status.to_string()
            } else {
                said
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
    pub async fn one<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let mut answer = self.get(target).await?;
        let mut text = Vec::new();
        while let Some(piece) = answer.piece().await? {
            if text.len() + piece.len() > LONGEST_RECORD {
                return Err(self.garbled(&"a record without end"));
            }
            text.extend_from_slice(&piece);
        }
        serde_json::from_slice(&text).map_err(|error| self.garbled(&error))
    }

    fn garbled(&self, why: &impl ToString) -> ClientError {
        ClientError::Garbled {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }
}

/// What the daemon answers, as it comes. Every wait can be dropped without losing anything.
#[derive(Debug)]
pub struct Answer {
    client: Client,
    body: Incoming,
    read: BytesMut,
}

impl Answer {
    /// The next line, as a record; `None` at the end.
    pub async fn record<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let Some(line) = self.line().await? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&line);
        record
            .map(Some)
            .map_err(|error| self.client.garbled(&error))
    }

    async fn line(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line = self.read.split_to(end).freeze();
                self.read.advance(1);
                return Ok(Some(line));
            }
            if self.read.len() > LONGEST_LINE {
                return Err(self.client.garbled(&"a line without end"));
            }
            match self.piece().await? {
                Some(piece) => self.read.extend_from_slice(&piece),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(self.client.garbled(&"it ended in the middle of a line")),
            }
        }
    }

    /// The next bytes, not to be mixed with lines; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.client.garbled(&error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
