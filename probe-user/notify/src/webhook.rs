//! Sends messages over HTTP, and takes care of what is secret about that.
//!
//! What always holds: certificates are verified, redirections are not followed, no proxy is used, no address and no
//! secret is in a log, and neither a slow receiver nor a large answer costs more than a bound.

mod error;
mod files;
mod trust;

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use jiff::Timestamp;
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect,
};

pub use self::{
    error::{WebhookError, WebhookUrlError},
    files::address,
};
use super::retry::DeliveryOutcome;

/// From looking up the name until there is a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the whole of it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Of an answer that says what is wrong, so many bytes are logged.
const MAX_EXCERPT_BYTES: usize = 200;

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookUrlSource {
    /// Known to everybody who may look at this host.
    Url(Url),
    /// In this file: whoever knows the address of a chat may write there.
    File(PathBuf),
}

/// How messages are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where to.
    pub url_source: WebhookUrlSource,
    /// The file with the secret that goes along (`Authorization: Bearer …`).
    pub secret: Option<PathBuf>,
    /// The file with the certificates that are trusted, instead of those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Everything that one message takes.
struct PreparedWebhook {
    client: Client,
    url: Url,
    secret: Option<HeaderValue>,
    /// Whether what the receiver says of the request is better not repeated.
    is_encrypted: bool,
}

/// A client, and the certificates that it was made with.
#[derive(Debug)]
struct CachedClient {
    ca_file: Option<Vec<u8>>,
    client: Client,
}

/// Sends messages.
#[derive(Debug)]
pub struct Webhook {
    settings: WebhookSettings,
    cached_client: Option<CachedClient>,
}

impl Webhook {
    /// By these settings. Files are read for each message: they may be exchanged at any time.
    pub const fn new(settings: WebhookSettings) -> Self {
        Self {
            settings,
            cached_client: None,
        }
    }

    /// Whether what a message takes can be had now.
    pub fn check(&mut self) -> Result<(), WebhookError> {
        self.prepare().map(drop)
    }

    /// Sends one message: what came of it, and what was wrong.
    pub async fn send(mut self, body: String) -> (Self, DeliveryOutcome, Option<WebhookError>) {
        // Files may be on a disk that hangs.
        let preparing = tokio::task::spawn_blocking(move || {
            let prepared = self.prepare();
            (self, prepared)
        });
        let (webhook, prepared) = match preparing.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and nobody waits for what comes of this.
                Err(_) => std::future::pending().await,
            },
        };
        match prepared {
            Ok(prepared) => {
                let (outcome, error) = deliver(prepared, body).await;
                (webhook, outcome, error)
            }
            // Whoever wrote the file may write it again.
            Err(error) => (webhook, DeliveryOutcome::Retry { after: None }, Some(error)),
        }
    }

    fn prepare(&mut self) -> Result<PreparedWebhook, WebhookError> {
        let url = match &self.settings.url_source {
            WebhookUrlSource::Url(url) => url.clone(),
            WebhookUrlSource::File(path) => files::address_in(path)?,
        };
        let secret = self.settings.secret.as_deref().map(files::bearer);
        let secret = secret.transpose()?;
        // Who has a file for the address has one because it is a secret.
        let is_encrypted = secret.is_some()
            || matches!(self.settings.url_source, WebhookUrlSource::File(_))
            || url.password().is_some();
        if is_encrypted && url.scheme() == "http" && !is_this_host(&url) {
            return Err(WebhookUrlError::NotEncrypted.into());
        }
        let client = self.client()?;
        Ok(PreparedWebhook {
            client,
            url,
            secret,
            is_encrypted,
        })
    }

    /// The client there is; a new one, if other certificates are trusted now.
    fn client(&mut self) -> Result<Client, WebhookError> {
        let path = self.settings.ca_file.as_deref();
        let ca_file = path.map(trust::read).transpose()?;
        if let Some(cached_client) = &self.cached_client
            && cached_client.ca_file == ca_file
        {
            return Ok(cached_client.client.clone());
        }
        let config = trust::config(path.zip(ca_file.as_deref()))?;
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(concat!("arp-monitor/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // Messages are rare, and whoever balances the load forgets connections.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(WebhookError::Client)?;
        self.cached_client = Some(CachedClient {
            ca_file,
            client: client.clone(),
        });
        Ok(client)
    }
}

fn is_this_host(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
        None => false,
    }
}

async fn deliver(
    prepared: PreparedWebhook,
    body: String,
) -> (DeliveryOutcome, Option<WebhookError>) {
    let host = prepared.url.host_str().unwrap_or_default().to_owned();
    let mut request = prepared
        .client
        .post(prepared.url)
        .header(CONTENT_TYPE, "application/json")
        .body(body);
    if let Some(secret) = prepared.secret {
        request = request.header(AUTHORIZATION, secret);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            let source = error.without_url();
            let error = WebhookError::Unreachable { host, source };
            return (DeliveryOutcome::Retry { after: None }, Some(error));
        }
    };
    let status = response.status().as_u16();
    let wish = response.headers().get(RETRY_AFTER);
    let wish = wish.and_then(|wish| wish.to_str().ok());
    let outcome = DeliveryOutcome::of_status(status, wish, Timestamp::now());
    let error = match status {
        200..=299 => None,
        300..=399 => Some(WebhookError::Redirection { host, status }),
        _ => {
            // Many say again what they were asked, the address and the secret among it.
            let said = if prepared.is_encrypted {
                String::new()
            } else {
                response_excerpt(response).await
            };
            Some(WebhookError::Status { host, status, said })
        }
    };
    (outcome, error)
}

/// The beginning of an answer, printable.
async fn response_excerpt(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_EXCERPT_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        let room = MAX_EXCERPT_BYTES - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    let mut said = String::new();
    if !text.is_empty() {
        let _ = write!(said, ": {text}");
    }
    said
}
