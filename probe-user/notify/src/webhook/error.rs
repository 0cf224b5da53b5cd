//! Why a message could not be sent. No address and no secret is in what it says: both go to the log.

use std::{error::Error, io, path::PathBuf};

/// Why a message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A file is not to be read.
    #[error("cannot read {what} from {}: {error}", path.display())]
    Unreadable {
        /// What should be in it.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no address in the file. What is there is not said: it may be a secret.
    #[error(
        "{} has no address of a webhook in it: one line like https://hooks.example.org/…",
        .0.display()
    )]
    NoUrl(PathBuf),
    /// The address cannot be used.
    #[error(transparent)]
    InvalidUrl(#[from] WebhookUrlError),
    /// The secret cannot go into a header.
    #[error("{} has no secret in it that a header can carry: one line, no control characters", .0.display())]
    NoSecret(PathBuf),
    /// There is no certificate in the file.
    #[error("{} has no certificate in it: PEM, from BEGIN CERTIFICATE on", .0.display())]
    NoCertificate(PathBuf),
    /// TLS is not to be had.
    #[error("cannot prepare for TLS: {0}")]
    Tls(rustls::Error),
    /// The client is not to be had.
    #[error("cannot make an HTTP client: {}", chain(.0))]
    Client(reqwest::Error),
    /// It did not get there.
    #[error("cannot reach {host}: {}", with_advice(chain(source)))]
    Unreachable {
        /// Without what may be secret of the address.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The receiver says no.
    #[error("{host} answered {status}{said}")]
    Status {
        /// The receiver.
        host: String,
        /// What it answered.
        status: u16,
        /// And what it said of it.
        said: String,
    },
    /// The receiver sends us elsewhere.
    #[error(
        "{host} answered {status}, a redirection, and those are not followed: what is secret would go along; give the \
         address that it leads to"
    )]
    Redirection {
        /// The receiver.
        host: String,
        /// What it answered.
        status: u16,
    },
}

/// Why an address cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    /// It is none.
    #[error("no address of a webhook: one like https://hooks.example.org/…")]
    Malformed,
    /// It is no HTTP.
    #[error("a webhook is reached by https:// or http://")]
    Scheme,
    /// A secret would be readable on its way.
    #[error(
        "a secret goes by https:// only, or to this host: over http:// everybody on the way can read it"
    )]
    NotEncrypted,
}

/// What to do about what can be told by its words only: the libraries say it in no other way.
fn with_advice(mut text: String) -> String {
    if text.contains("certificate") {
        text.push_str(" (authorities of your own are named by --webhook-ca-file)");
    }
    text
}

/// An error with what led to it: HTTP clients say least at the top.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some repeat what they wrap.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
