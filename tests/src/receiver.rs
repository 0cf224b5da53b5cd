//! The receiver of a webhook, over TLS and with a certificate of the test's own making, on a host of the lab.

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

/// For each step of a conversation.
const DEADLINE: Duration = Duration::from_secs(30);
/// Messages are smaller.
const LONGEST: u64 = 1 << 20;
/// What an answer without end is made of.
const CHUNK: [u8; 16 << 10] = [b'x'; 16 << 10];
/// An answer without end has one, in case somebody reads it: 1 GiB.
const CHUNKS: usize = 1 << 16;

/// Who signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// One that nobody knows.
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

    /// Its own certificate, for those who are to trust it.
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

/// What a receiver answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status, with these headers (each with its end of line) and this body.
    Status(u16, &'static str, &'static str),
    /// This status, and a body that does not end.
    Endless(u16),
    /// Nothing, until the other end gives up.
    Silence,
    /// The end of the connection.
    End,
}

/// What a receiver was told.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    /// The method and the path.
    pub request: String,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The message.
    pub body: Value,
    /// When all of it was read, before it was answered.
    pub arrived: Instant,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    messages: Vec<ReceivedMessage>,
}

/// A receiver that is there until the test process ends.
#[derive(Clone, Debug)]
pub struct Receiver {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Host {
    /// A port of this host's loopback on which nobody listens.
    pub fn free_port(&self) -> anyhow::Result<u16> {
        let listener = self.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        Ok(listener.local_addr()?.port())
    }

    /// A receiver on this host's loopback, at this port (0 for any), with a certificate of this authority. It gives
    /// these answers, and after them 200.
    pub fn receiver(
        &self,
        authority: &Authority,
        port: u16,
        answers: impl IntoIterator<Item = Answer>,
    ) -> anyhow::Result<Receiver> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = self.enter(|| Ok(TcpListener::bind(address)?))?;
        let receiver = Receiver {
            port: listener.local_addr()?.port(),
            state: Arc::new(Mutex::new(State {
                answers: answers.into_iter().collect(),
                messages: Vec::new(),
            })),
        };
        let (config, state) = (authority.server()?, receiver.state.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, state) = (config.clone(), state.clone());
                // A connection that waits does not block the others. What goes wrong shows as a missing message.
                thread::spawn(move || converse(stream, config, &state));
            }
        });
        Ok(receiver)
    }
}

impl Receiver {
    /// Its address, by a name that its certificate has.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/hook", self.port)
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<ReceivedMessage> {
        lock(&self.state).messages.clone()
    }

    /// Gives this answer next.
    pub fn answer(&self, answer: Answer) {
        lock(&self.state).answers.push_back(answer);
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

fn converse(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    state: &Mutex<State>,
) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let message = read(&mut stream)?;
    let answer = {
        let mut state = lock(state);
        state.messages.push(message);
        let answer = state.answers.pop_front();
        answer.unwrap_or(Answer::Status(200, "", "ok"))
    };
    match answer {
        Answer::Status(status, headers, body) => write!(
            stream,
            "HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?,
        Answer::Endless(status) => {
            write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n\r\n")?;
            for _ in 0..CHUNKS {
                stream.write_all(&CHUNK)?;
            }
        }
        Answer::Silence => {
            // Until the other end gives up.
            let _ = stream.read(&mut [0]);
        }
        Answer::End => return Ok(()),
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
        let (name, value) = line.split_once(':').context("no header")?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").context("no length")?;
    let length: u64 = length.parse()?;
    ensure!(length < LONGEST, "too long");
    let mut body = vec![0; usize::try_from(length)?];
    reader.read_exact(&mut body)?;
    Ok(ReceivedMessage {
        request: request.trim_end().to_owned(),
        headers,
        body: serde_json::from_slice(&body)?,
        arrived: Instant::now(),
    })
}
