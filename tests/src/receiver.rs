//! A webhook receiver with TLS and a test certificate, on a host of the lab.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::Value;

use crate::{host::Host, wait::eventually};

/// Timeout for each read and write.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest message that is accepted, in bytes.
const LONGEST: u64 = 1 << 20;
/// The repeated part of an endless response.
const CHUNK: [u8; 16 << 10] = [b'x'; 16 << 10];
/// The limit of an endless response in chunks (1 GiB), in case the client reads it all.
const CHUNKS: usize = 1 << 16;

/// A certificate authority.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Creates an authority that no client trusts by default.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    /// The authority's certificate in PEM format.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn server(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["localhost".to_owned()])?;
        let certificate = params.signed_by(&key, &self.0)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Arc::new(config))
    }
}

/// A response of the receiver.
#[derive(Clone, Debug)]
pub enum ReceiverResponse {
    /// A status code, headers (each with its line ending) and a body.
    Status(u16, &'static str, &'static str),
    /// A status code and an endless body.
    Endless(u16),
    /// No response until the client closes the connection.
    NoResponse,
    /// Closes the connection without a response.
    Close,
}

/// A message that the receiver got.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    /// The method and the path.
    pub request: String,
    /// The headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The JSON body.
    pub body: Value,
    /// The time at which the message was read completely, before the response.
    pub arrived: Instant,
}

#[derive(Debug, Default)]
struct State {
    responses: VecDeque<ReceiverResponse>,
    messages: Vec<ReceivedMessage>,
}

/// A webhook receiver that runs until the test process ends.
#[derive(Clone, Debug)]
pub struct Receiver {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Host {
    /// A free port on the loopback interface of this host.
    pub fn free_port(&self) -> anyhow::Result<u16> {
        let listener = self.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        Ok(listener.local_addr()?.port())
    }

    /// Starts a receiver on this host's loopback interface at this port (0 for any) with a certificate of this
    /// authority. It sends these responses in order, and then status 200.
    pub fn receiver(
        &self,
        authority: &Authority,
        port: u16,
        responses: impl IntoIterator<Item = ReceiverResponse>,
    ) -> anyhow::Result<Receiver> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = self.enter(|| Ok(TcpListener::bind(address)?))?;
        let receiver = Receiver {
            port: listener.local_addr()?.port(),
            state: Arc::new(Mutex::new(State {
                responses: responses.into_iter().collect(),
                messages: Vec::new(),
            })),
        };
        let (config, state) = (authority.server()?, receiver.state.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, state) = (config.clone(), state.clone());
                // Each connection has its own thread, so that one without response does not block others. Errors
                // show as missing messages.
                thread::spawn(move || handle_connection(stream, config, &state));
            }
        });
        Ok(receiver)
    }
}

impl Receiver {
    /// The URL of the receiver, with a host name of its certificate.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/hook", self.port)
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<ReceivedMessage> {
        lock(&self.state).messages.clone()
    }

    /// Adds a response for the next message.
    pub fn respond_with(&self, response: ReceiverResponse) {
        lock(&self.state).responses.push_back(response);
    }

    /// Waits for this number of messages, and returns all of them.
    pub fn wait_for(&self, times: usize, within: Duration) -> anyhow::Result<Vec<ReceivedMessage>> {
        let what = format!("{times} messages");
        eventually(&what, within, || {
            let messages = self.messages();
            Ok((messages.len() >= times).then_some(messages))
        })
        .with_context(|| format!("received: {:#?}", self.messages()))
    }

    /// Waits for a notification that `wanted` accepts, and returns it.
    pub fn wait_for_notification(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        eventually(what, within, || {
            Ok(self
                .notifications()
                .into_iter()
                .find(|notification| wanted(notification)))
        })
        .with_context(|| format!("received: {:#?}", self.messages()))
    }

    /// The notifications of all messages.
    pub fn notifications(&self) -> Vec<Value> {
        let messages = self.messages();
        let lists = messages
            .iter()
            .filter_map(|message| message.body["notifications"].as_array());
        lists.flatten().cloned().collect()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handle_connection(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    state: &Mutex<State>,
) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let message = read(&mut stream)?;
    let response = {
        let mut state = lock(state);
        state.messages.push(message);
        let response = state.responses.pop_front();
        response.unwrap_or(ReceiverResponse::Status(200, "", "ok"))
    };
    match response {
        ReceiverResponse::Status(status, headers, body) => write!(
            stream,
            "HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?,
        ReceiverResponse::Endless(status) => {
            write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n\r\n")?;
            for _ in 0..CHUNKS {
                stream.write_all(&CHUNK)?;
            }
        }
        ReceiverResponse::NoResponse => {
            // Waits until the client closes the connection.
            let _ = stream.read(&mut [0]);
        }
        ReceiverResponse::Close => return Ok(()),
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn read(stream: &mut impl Read) -> anyhow::Result<ReceivedMessage> {
    let mut reader = BufReader::new(stream).take(LONGEST);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "no end of headers");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("an invalid header")?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").context("no content-length")?;
    let length: u64 = length.parse()?;
    ensure!(length < LONGEST, "the message is too long");
    let mut body = vec![0; usize::try_from(length)?];
    reader.read_exact(&mut body)?;
    Ok(ReceivedMessage {
        request: request.trim_end().to_owned(),
        headers,
        body: serde_json::from_slice(&body)?,
        arrived: Instant::now(),
    })
}
