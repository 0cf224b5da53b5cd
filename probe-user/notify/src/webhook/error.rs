//! Why a message could not be sent. No error contains the URL or the token: errors are logged.

use std::{io, path::PathBuf};

use probe_model::error_chain;

/// Why a message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A file cannot be read.
    #[error("cannot read {what} from {}: {error}", path.display())]
    Unreadable {
        /// Its expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The file contains no URL. Its content is not shown: it may be a secret.
    #[error(
        "{} contains no webhook URL: one line like https://hooks.example.org/…",
        .0.display()
    )]
    NoUrl(PathBuf),
    /// The URL cannot be used.
    #[error(transparent)]
    InvalidUrl(#[from] WebhookUrlError),
    /// The token cannot be a header value.
    #[error("{} contains no token that a header can carry: one line, no control characters", .0.display())]
    NoToken(PathBuf),
    /// The file contains no certificate.
    #[error("{} contains no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
    /// The HTTP client cannot be set up.
    #[error("cannot set up an HTTP client: {}", error_chain(.0))]
    Client(reqwest::Error),
    /// The receiver cannot be reached.
    #[error("cannot reach {host}: {}", with_advice(error_chain(source)))]
    Unreachable {
        /// The host of the URL, which is not secret.
        host: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The receiver rejects the message.
    #[error("{host} answered {status}{excerpt}")]
    Status {
        /// The receiver.
        host: String,
        /// The status of the response.
        status: u16,
        /// The start of the response, after a colon.
        excerpt: String,
    },
    /// The receiver redirects.
    #[error(
        "{host} answered {status}, a redirection, which is not followed because the token would go along; use the URL \
         that it leads to"
    )]
    Redirection {
        /// The receiver.
        host: String,
        /// The status of the response.
        status: u16,
    },
}

/// Why a URL cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    /// It is not a URL.
    #[error("not a webhook URL: it looks like https://hooks.example.org/…")]
    Malformed,
    /// It is not HTTP.
    #[error("a webhook URL starts with https:// or http://")]
    Scheme,
    /// A secret would be sent in clear text.
    #[error("a secret is sent by https:// or to this host only: http:// is clear text")]
    NotEncrypted,
}

/// Adds the next step for untrusted certificates: the libraries report them as text only.
fn with_advice(mut text: String) -> String {
    if text.contains("certificate") {
        text.push_str(" (set your own certificate authority with --webhook-ca-file)");
    }
    text
}
