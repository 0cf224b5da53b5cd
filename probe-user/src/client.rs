//! The client of the daemon's API on its Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};

/// Time limit for a response of the daemon, and for the next chunk of a list.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of a line in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Maximum size of a record in bytes; the data of ten thousand services is a few megabytes.
const MAX_RECORD_BYTES: usize = 256 << 20;
/// Maximum length of a shown error in bytes.
const MAX_ERROR_BYTES: usize = 1 << 12;

/// Why there is no response of the daemon.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No daemon listens on the socket.
    #[error(
        "no daemon at {}: start it with `probe run`, or name its socket with --socket PATH",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// Access to the socket is denied.
    #[error("permission denied on the socket {}: run as root, or as a member of its group", .0.display())]
    Denied(PathBuf),
    /// The daemon does not reply.
    #[error(
        "the daemon at {} has not replied for {} s: it is stopped or overloaded (check its state and log)",
        .0.display(),
        REPLY_TIMEOUT.as_secs()
    )]
    Timeout(PathBuf),
    /// The daemon closed the connection before the end of the response.
    #[error("the daemon at {} ended, or disconnected this client", .0.display())]
    Ended(PathBuf),
    /// The daemon rejected the request.
    #[error("the daemon at {}: {response}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// The text of the response.
        response: String,
    },
    /// The response is invalid.
    #[error("invalid response of the daemon at {}: {why} (it may have another version)", path.display())]
    MalformedResponse {
        /// Where.
        path: PathBuf,
        /// The error.
        why: String,
    },
}

/// A client of a daemon.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the daemon at this socket.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Sends a GET request; the response is streamed.
    pub async fn get(&self, target: &str) -> Result<ResponseStream, ClientError> {
        self.request(Method::GET, target).await
    }

    /// Sends a POST request; the response is streamed.
    pub async fn post(&self, target: &str) -> Result<ResponseStream, ClientError> {
        self.request(Method::POST, target).await
    }

    async fn request(&self, method: Method, target: &str) -> Result<ResponseStream, ClientError> {
        let response = timeout(REPLY_TIMEOUT, self.request_unbounded(method, target)).await;
        response.map_err(|_| ClientError::Timeout(self.path.clone()))?
    }

    async fn request_unbounded(
        &self,
        method: Method,
        target: &str,
    ) -> Result<ResponseStream, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Denied(self.path.clone()),
                // The listen backlog of the daemon is full.
                io::ErrorKind::WouldBlock => ClientError::Timeout(self.path.clone()),
                _ => ClientError::NotRunning(self.path.clone()),
            })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken_response(&error))?;
        // The connection task ends with the response, which reports its errors.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.malformed_response(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.broken_response(&error))?;
        let status = response.status();
        let mut answer = ResponseStream {
            client: self.clone(),
            body: response.into_body(),
            read: BytesMut::new(),
            idle: ResponseIdle::Unbounded,
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

    /// Requests records, and reads all of them.
    pub async fn list<T: DeserializeOwned>(&self, target: &str) -> Result<Vec<T>, ClientError> {
        self.get(target).await?.records().await
    }

    /// Sends a POST request, and reads all records of the response.
    pub async fn post_list<T: DeserializeOwned>(
        &self,
        target: &str,
    ) -> Result<Vec<T>, ClientError> {
        self.post(target).await?.records().await
    }

    /// Requests one record, which may be long.
    pub async fn get_one<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let mut answer = self.get(target).await?.without_pauses();
        let mut text = Vec::new();
        while let Some(piece) = answer.next_chunk().await? {
            if text.len() + piece.len() > MAX_RECORD_BYTES {
                return Err(self.malformed_response(&"a record without end"));
            }
            text.extend_from_slice(&piece);
        }
        serde_json::from_slice(&text).map_err(|error| self.malformed_response(&error))
    }

    /// The error for a closed connection or an invalid HTTP response.
    fn broken_response(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() {
            self.malformed_response(error)
        } else {
            ClientError::Ended(self.path.clone())
        }
    }

    fn malformed_response(&self, why: &impl ToString) -> ClientError {
        ClientError::MalformedResponse {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }
}

/// A streamed response of the daemon. All methods are cancel safe.
#[derive(Debug)]
pub struct ResponseStream {
    client: Client,
    body: Incoming,
    read: BytesMut,
    idle: ResponseIdle,
}

/// Whether long pauses are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseIdle {
    /// Pauses are allowed: records arrive when something happens.
    Unbounded,
    /// Pauses are not allowed: all records exist already.
    Bounded,
}

impl ResponseStream {
    /// The same response without pauses, for a list whose records exist already.
    #[must_use]
    pub fn without_pauses(self) -> Self {
        Self {
            idle: ResponseIdle::Bounded,
            ..self
        }
    }

    /// Reads all records, without pauses.
    async fn records<T: DeserializeOwned>(self) -> Result<Vec<T>, ClientError> {
        let mut response = self.without_pauses();
        let mut records = Vec::new();
        while let Some(record) = response.record().await? {
            records.push(record);
        }
        Ok(records)
    }

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
                None => return Err(ClientError::Ended(self.client.path.clone())),
            }
        }
    }

    /// The next bytes, not to be mixed with lines; `None` at the end.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.next_frame().await? {
            let frame = frame.map_err(|error| self.client.broken_response(&error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn next_frame(
        &mut self,
    ) -> Result<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>, ClientError> {
        let frame = self.body.frame();
        match self.idle {
            ResponseIdle::Unbounded => Ok(frame.await),
            ResponseIdle::Bounded => match timeout(REPLY_TIMEOUT, frame).await {
                Ok(frame) => Ok(frame),
                Err(_) => Err(ClientError::Timeout(self.client.path.clone())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    /// Reads a list from a daemon that sends `sent` and then keeps or closes the connection.
    async fn list_from(sent: &'static str, keeps: bool) -> Result<Vec<u32>, ClientError> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("probe.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(sent.as_bytes()).await.unwrap();
            if keeps {
                std::future::pending::<()>().await;
            }
        });
        let list = Client::new(&path).list("/v1/list").await;
        server.abort();
        list
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_does_not_reply_is_a_timeout() {
        for sent in [
            "",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n1\n\r\n",
        ] {
            let error = list_from(sent, true).await.unwrap_err();
            assert!(
                matches!(error, ClientError::Timeout(_)),
                "{sent:?}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn end_of_the_daemon_is_reported() {
        for sent in ["", HEAD] {
            let error = list_from(sent, false).await.unwrap_err();
            assert!(
                error.to_string().contains(" ended, or disconnected"),
                "{sent:?}: {error}"
            );
        }
        let error = list_from("no HTTP\r\n\r\n", false).await.unwrap_err();
        assert!(
            matches!(error, ClientError::MalformedResponse { .. }),
            "{error}"
        );
    }
}
