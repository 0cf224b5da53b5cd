//! What answers as if it were an API server, with whatever a test wishes.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::access::Access;
use crate::host::Host;

/// For each step of a connection.
const DEADLINE: Duration = Duration::from_mins(1);

/// An answer.
#[derive(Clone, Debug)]
pub enum Lie {
    /// A status, a type of content and a body.
    Says(u16, &'static str, String),
    /// The beginning of a body that is announced as longer, and then the connection's end.
    BreaksOff(String),
    /// The beginning of a body, and then this again and again until nobody reads it any more.
    Endless(String, String),
    /// This head, and a body of one piece that is never followed by another.
    StaysOpen(String),
    /// Bytes that are no HTTP.
    Noise,
    /// Nothing at all, and the connection stays open.
    Silence,
}

type Script = Box<dyn Fn(&str) -> Lie + Send>;

/// A server on a host that answers by a script, whatever it is asked.
pub struct Liar {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Host {
    /// Starts such a server on this host, for programs on it. The script gets the path with the query.
    pub fn liar(&self, script: impl Fn(&str) -> Lie + Send + 'static) -> anyhow::Result<Liar> {
        let listener = self.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let liar = Liar {
            address: listener.local_addr()?,
            script: Arc::new(Mutex::new(Box::new(script))),
            requests: Arc::default(),
        };
        let (script, requests) = (Arc::clone(&liar.script), Arc::clone(&liar.requests));
        // It ends with the test's process, as do all its connections.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
                thread::spawn(move || {
                    // Whoever is lied to may well break off.
                    let _ = serve(stream, &script, &requests);
                });
            }
        });
        Ok(liar)
    }
}

impl Liar {
    /// Lets programs on the host ask it.
    pub fn access(&self) -> anyhow::Result<Access> {
        Access::to(&format!("http://{}", self.address))
    }

    /// From now on it answers by this.
    pub fn set(&self, script: impl Fn(&str) -> Lie + Send + 'static) {
        *lock(&self.script) = Box::new(script);
    }

    /// What it was asked for so far: method, path and query.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one request.
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
    // What is left unread makes the kernel reset the connection, and the answer may be lost.
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    lock(requests).push(format!("{method} {path}"));
    let lie = lock(script)(path);
    let mut stream = reader.into_inner();
    let json = "Content-Type: application/json\r\nConnection: close";
    match lie {
        Lie::Says(status, kind, body) => write!(
            stream,
            "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        Lie::BreaksOff(body) => write!(
            stream,
            "HTTP/1.1 200 OK\r\n{json}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len() + 1000
        ),
        Lie::Endless(start, more) => {
            write!(stream, "HTTP/1.1 200 OK\r\n{json}\r\n\r\n{start}")?;
            loop {
                stream.write_all(more.as_bytes())?;
            }
        }
        Lie::StaysOpen(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\n{json}\r\n\r\n{body}")?;
            wait_for_the_end(stream)
        }
        Lie::Noise => stream.write_all(&[0, 159, 146, 150, 13, 10, 255, 255]),
        Lie::Silence => wait_for_the_end(stream),
    }
}

/// Waits until the other side has enough.
fn wait_for_the_end(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(None)?;
    BufReader::new(stream)
        .read_line(&mut String::new())
        .map(drop)
}
