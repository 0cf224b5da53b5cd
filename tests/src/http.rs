//! A minimal HTTP client.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, ensure};

/// Timeout for each step: connect, send, and each read of the response.
const DEADLINE: Duration = Duration::from_secs(5);

/// The largest response that is accepted, in bytes.
const LIMIT: u64 = 16 << 20;

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body without the headers.
    pub body: String,
}

/// Connects from the namespace of the calling thread.
pub fn connect(server: SocketAddr) -> anyhow::Result<TcpStream> {
    TcpStream::connect_timeout(&server, DEADLINE)
        .with_context(|| format!("cannot connect to {server}"))
}

/// Sends a GET request and closes the connection.
pub fn get(stream: TcpStream, path: &str) -> anyhow::Result<Response> {
    set_deadlines(&stream)?;
    request(stream, &format!("GET {path}"), &[], "")
}

/// Sets the read and write timeouts of a connection.
pub fn set_deadlines(stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(())
}

/// Sends a request (`GET /path`) and reads the complete response.
pub fn request(
    mut stream: impl Read + Write,
    what: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Response> {
    // HTTP/1.0, so that the end of the connection ends the response and there are no chunks to join.
    let mut head = format!("{what} HTTP/1.0\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head = format!("{head}{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head = format!("{head}Content-Length: {}\r\n", body.len());
    }
    write!(stream, "{head}\r\n{body}")?;
    stream.flush()?;
    let mut response = Vec::new();
    match stream.take(LIMIT).read_to_end(&mut response) {
        // The server closed the TLS connection without `close_notify`. Whether the response is complete depends on
        // the body.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        end => drop(end.with_context(|| format!("no complete response to {what}"))?),
    }
    let response = String::from_utf8(response).context("the response is not UTF-8")?;
    parse(&response).with_context(|| format!("not an HTTP response to {what}: {response:?}"))
}

fn parse(response: &str) -> anyhow::Result<Response> {
    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("no end of headers")?;
    let mut status_line = head.split(' ');
    let version = status_line.next().unwrap_or_default();
    ensure!(version.starts_with("HTTP/1."), "unknown version {version}");
    let status = status_line.next().context("no status")?;
    Ok(Response {
        status: status.parse().context("the status is not a number")?,
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
    fn a_response_that_is_not_http_is_an_error() {
        for bad in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
