//! A fake API server whose responses a test defines.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::access::Access;
use crate::host::Host;

/// Timeout for each read and write.
const DEADLINE: Duration = Duration::from_mins(1);

/// A response of the fake server.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status code, a content type and a body.
    Response(u16, &'static str, String),
    /// The beginning of a body that is shorter than its content length; then the connection is closed.
    TruncatedBody(String),
    /// The beginning of a body, followed by a text that is repeated until the client closes the connection.
    EndlessBody(String, String),
    /// A body whose connection is kept open without more data.
    HeldOpen(String),
    /// Bytes that are not HTTP.
    NotHttp,
    /// No response; the connection is kept open.
    NoResponse,
}

type Script = Box<dyn Fn(&str) -> Fault + Send>;

/// A server on a host whose script defines the response to each request.
pub struct FaultyServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Host {
    /// Starts a fake server on the loopback interface of this host. The script gets the path with the query.
    pub fn faulty_server(
        &self,
        script: impl Fn(&str) -> Fault + Send + 'static,
    ) -> anyhow::Result<FaultyServer> {
        let listener = self.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let faulty_server = FaultyServer {
            address: listener.local_addr()?,
            script: Arc::new(Mutex::new(Box::new(script))),
            requests: Arc::default(),
        };
        let (script, requests) = (
            Arc::clone(&faulty_server.script),
            Arc::clone(&faulty_server.requests),
        );
        // The thread and its connections end with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
                thread::spawn(move || {
                    // The client may close the connection at any time.
                    let _ = serve(stream, &script, &requests);
                });
            }
        });
        Ok(faulty_server)
    }
}

impl FaultyServer {
    /// Access to this server for programs on the host.
    pub fn access(&self) -> anyhow::Result<Access> {
        Access::to(&format!("http://{}", self.address))
    }

    /// Replaces the script.
    pub fn set(&self, script: impl Fn(&str) -> Fault + Send + 'static) {
        *lock(&self.script) = Box::new(script);
    }

    /// The requests so far: method, path and query.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handles one request.
fn serve(
    stream: TcpStream,
    script: &Mutex<Script>,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    // Unread data makes the kernel reset the connection, which can lose the response.
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    lock(requests).push(format!("{method} {path}"));
    let fault = lock(script)(path);
    let mut stream = reader.into_inner();
    let json = "Content-Type: application/json\r\nConnection: close";
    match fault {
        Fault::Response(status, kind, body) => write!(
            stream,
            "HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        Fault::TruncatedBody(body) => write!(
            stream,
            "HTTP/1.1 200 OK\r\n{json}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len() + 1000
        ),
        Fault::EndlessBody(start, more) => {
            write!(stream, "HTTP/1.1 200 OK\r\n{json}\r\n\r\n{start}")?;
            loop {
                stream.write_all(more.as_bytes())?;
            }
        }
        Fault::HeldOpen(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\n{json}\r\n\r\n{body}")?;
            wait_for_close(stream)
        }
        Fault::NotHttp => stream.write_all(&[0, 159, 146, 150, 13, 10, 255, 255]),
        Fault::NoResponse => wait_for_close(stream),
    }
}

/// Waits until the client closes the connection.
fn wait_for_close(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(None)?;
    BufReader::new(stream)
        .read_line(&mut String::new())
        .map(drop)
}
