//! Sends messages by HTTP POST.
//!
//! Invariants: certificates are verified, redirections are not followed, no proxy is used, no URL and no token is
//! logged, and neither a slow receiver nor a large response costs more than a bound.

mod error;
mod files;
mod trust;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use jiff::Timestamp;
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect,
};

pub use self::{
    error::{WebhookError, WebhookUrlError},
    files::parse_url,
};
use super::{
    counts::NotificationChannel,
    message::{self, MessageReporter, WebhookFormat},
    queue::{NotificationBatch, NotificationQueue},
    sink::{DeliveryOutcome, DeliveryReport, NotificationSink},
};

/// Time limit for the name lookup, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The bytes of an error response that are logged.
const MAX_EXCERPT_BYTES: usize = 200;

/// The source of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookUrlSource {
    /// On the command line, readable by every user of this host.
    Url(Url),
    /// In a file: the URL of a chat is a secret.
    File(PathBuf),
}

/// How messages are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The source of the URL.
    pub url_source: WebhookUrlSource,
    /// The file with the token (`Authorization: Bearer …`).
    pub token_file: Option<PathBuf>,
    /// The file with the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// The inputs of one request.
struct PreparedWebhook {
    client: Client,
    url: Url,
    token: Option<HeaderValue>,
    /// Whether the response may repeat a secret, and must not be logged.
    is_secret: bool,
}

/// A client, and the certificate authorities that it trusts.
#[derive(Debug)]
struct CachedClient {
    ca_file: Option<Vec<u8>>,
    client: Client,
}

/// An HTTP client for one URL.
#[derive(Debug)]
pub struct Webhook {
    settings: WebhookSettings,
    cached_client: Option<CachedClient>,
}

impl Webhook {
    /// A webhook with these settings. Files are read for each message: they may be replaced at any time.
    pub const fn new(settings: WebhookSettings) -> Self {
        Self {
            settings,
            cached_client: None,
        }
    }

    /// Checks that the settings and the files are usable now.
    pub fn check(&mut self) -> Result<(), WebhookError> {
        self.prepare().map(drop)
    }

    /// Sends one message.
    async fn send(mut self, body: String) -> (Self, DeliveryOutcome, Option<WebhookError>) {
        // Files may be on a disk that hangs.
        let preparing = tokio::task::spawn_blocking(move || {
            let prepared = self.prepare();
            (self, prepared)
        });
        let (webhook, prepared) = match preparing.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => std::future::pending().await,
            },
        };
        match prepared {
            Ok(prepared) => {
                let (outcome, error) = deliver(prepared, body).await;
                (webhook, outcome, error)
            }
            // The file may be replaced.
            Err(error) => (webhook, DeliveryOutcome::Retry { after: None }, Some(error)),
        }
    }

    fn prepare(&mut self) -> Result<PreparedWebhook, WebhookError> {
        let url = match &self.settings.url_source {
            WebhookUrlSource::Url(url) => url.clone(),
            WebhookUrlSource::File(path) => files::read_url(path)?,
        };
        let token = self.settings.token_file.as_deref().map(files::bearer);
        let token = token.transpose()?;
        // A URL in a file is a secret.
        let is_secret = token.is_some()
            || matches!(self.settings.url_source, WebhookUrlSource::File(_))
            || url.password().is_some();
        if is_secret && url.scheme() == "http" && !is_this_host(&url) {
            return Err(WebhookUrlError::NotEncrypted.into());
        }
        let client = self.client()?;
        Ok(PreparedWebhook {
            client,
            url,
            token,
            is_secret,
        })
    }

    /// The cached client, or a new one if the certificate authorities have changed.
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
            // Messages are rare, and load balancers drop idle connections.
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

/// Sends notifications to a webhook.
#[derive(Debug)]
pub struct WebhookSink {
    webhook: Webhook,
    format: WebhookFormat,
    reporter: MessageReporter,
}

impl WebhookSink {
    /// Sends messages of this format, in the name of `reporter`.
    pub const fn new(
        settings: WebhookSettings,
        format: WebhookFormat,
        reporter: MessageReporter,
    ) -> Self {
        Self {
            webhook: Webhook::new(settings),
            format,
            reporter,
        }
    }
}

impl NotificationSink for WebhookSink {
    const CHANNEL: NotificationChannel = NotificationChannel::Webhook;

    fn next_batch(&self, queue: &NotificationQueue) -> NotificationBatch {
        queue.batch(self.format.max_listed())
    }

    async fn deliver(self, batch: NotificationBatch) -> (Self, DeliveryReport) {
        let body = message::body(self.format, &batch, &self.reporter, Timestamp::now());
        let (webhook, outcome, error) = self.webhook.send(body).await;
        let dropped = match outcome {
            DeliveryOutcome::Refused => batch.listed.len(),
            DeliveryOutcome::Delivered | DeliveryOutcome::Retry { .. } => 0,
        };
        let report = DeliveryReport {
            outcome,
            error: error.map(|error| error.to_string()),
            dropped: u64::try_from(dropped).unwrap_or(u64::MAX),
            blocked: BTreeSet::new(),
        };
        (Self { webhook, ..self }, report)
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
    if let Some(token) = prepared.token {
        request = request.header(AUTHORIZATION, token);
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
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok());
    let outcome = DeliveryOutcome::of_status(status, retry_after, Timestamp::now());
    let error = match status {
        200..=299 => None,
        300..=399 => Some(WebhookError::Redirection { host, status }),
        _ => {
            let excerpt = if prepared.is_secret {
                String::new()
            } else {
                response_excerpt(response).await
            };
            Some(WebhookError::Status {
                host,
                status,
                excerpt,
            })
        }
    };
    (outcome, error)
}

/// The start of a response, printable, after a colon.
async fn response_excerpt(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_EXCERPT_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
        bytes.truncate(MAX_EXCERPT_BYTES);
    }
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}
