//! The little of HTTP that a scrape takes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, ensure};

/// For each step: connecting, sending, each piece of the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// A server that sends more than this is broken.
const LIMIT: u64 = 16 << 20;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 and so on.
    pub status: u16,
    /// Without the headers.
    pub body: String,
}

/// Connects from the namespace of the calling thread.
pub fn connect(server: SocketAddr) -> anyhow::Result<TcpStream> {
    TcpStream::connect_timeout(&server, DEADLINE)
        .with_context(|| format!("cannot connect to {server}"))
}

/// Asks for one page and closes the connection.
pub fn get(stream: TcpStream, path: &str) -> anyhow::Result<Response> {
    set_deadlines(&stream)?;
    request(stream, &format!("GET {path}"), &[], "")
}

/// Lets no step take for ever.
pub fn set_deadlines(stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(())
}

/// Asks for something (`GET /path`) and reads the answer to its end.
pub fn request(
    mut stream: impl Read + Write,
    what: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Response> {
    // Version 1.0, so that the answer's end is the connection's end and there are no chunks to join.
    let mut head = format!("{what} HTTP/1.0\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head = format!("{head}{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head = format!("{head}Content-Length: {}\r\n", body.len());
    }
    write!(stream, "{head}\r\n{body}")?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(LIMIT).read_to_end(&mut answer) {
        // A server that closes a TLS connection without a word: whether that is all, the body has to tell.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        end => drop(end.with_context(|| format!("no complete answer to {what}"))?),
    }
    let answer = String::from_utf8(answer).context("an answer that is no text")?;
    parse(&answer).with_context(|| format!("not an HTTP answer to {what}: {answer:?}"))
}

fn parse(answer: &str) -> anyhow::Result<Response> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of headers")?;
    let mut status_line = head.split(' ');
    let version = status_line.next().unwrap_or_default();
    ensure!(version.starts_with("HTTP/1."), "unknown version {version}");
    let status = status_line.next().context("no status")?;
    Ok(Response {
        status: status.parse().context("the status is no number")?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let response = parse("HTTP/1.0 503 Service Unavailable\r\nx: y\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!(
            response,
            Response {
                status: 503,
                body: "no\r\n\r\n".to_owned()
            }
        );
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for bad in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
