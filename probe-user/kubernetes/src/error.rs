//! What goes wrong between here and an API server, and what to do about it.

use std::path::PathBuf;

use probe_common::label_enum;

/// Why there is no connection to speak of.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// This program cannot.
    #[error(
        "this probe was built without Kubernetes: use a build with the feature `kubernetes` (the default), or \
         `--kubernetes off`"
    )]
    NotBuilt,
    /// No service account, no kubeconfig.
    #[error(
        "no cluster to ask: this is no pod with a service account's token, and there is no kubeconfig at {}; set \
         KUBECONFIG to one",
        .0.display()
    )]
    NoCluster(PathBuf),
    /// The pod's own credentials cannot be read.
    #[error(
        "cannot use this pod's service account: {0} (is its token mounted? See automountServiceAccountToken in \
         the manifests)"
    )]
    InCluster(String),
    /// The kubeconfig cannot be used.
    #[error(
        "cannot use the kubeconfig{context}: {error} (`kubectl config get-contexts` lists what it has)"
    )]
    Kubeconfig {
        /// ` for the context NAME`, or nothing.
        context: String,
        /// What is wrong.
        error: String,
    },
    /// Certificates, keys or the address are bad.
    #[error("cannot set up the connection to the API server: {0}")]
    Setup(String),
}

label_enum! {
    /// How a request ended.
    pub enum ApiOutcome {
        /// Answered.
        Ok = "ok",
        /// The credentials are not accepted.
        Unauthorized = "unauthorized",
        /// RBAC forbids it.
        Forbidden = "forbidden",
        /// There is no such thing.
        NotFound = "missing",
        /// Somebody else was faster.
        Conflict = "conflict",
        /// The version that was asked for is too old.
        Gone = "gone",
        /// The request is not understood.
        Refused = "refused",
        /// Too many requests, or an error of the server's.
        Unavailable = "unavailable",
        /// No connection, or no answer in time.
        Unreachable = "unreachable",
        /// The answer makes no sense.
        InvalidResponse = "garbage",
    }
}

/// Why the API server's answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiRequestError {
    /// 401.
    #[error("the API server does not accept the credentials: {0}")]
    Unauthorized(String),
    /// 403.
    #[error("the API server forbids it: {0} (apply the ClusterRole and Role of the manifests)")]
    Forbidden(String),
    /// 404.
    #[error("the API server has no such resource: {0}")]
    NotFound(String),
    /// 409.
    #[error("somebody else changed it first: {0}")]
    Conflict(String),
    /// 410, or a watch that says so.
    #[error("the API server no longer knows the version to go on from: {0}")]
    Gone(String),
    /// 400, 405, 406, 422 and the like.
    #[error("the API server does not understand the request: {0}")]
    Refused(String),
    /// 429 and 5xx.
    #[error("the API server cannot answer now: {0}")]
    Unavailable(String),
    /// No connection, or no answer in time.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The answer makes no sense.
    #[error("the API server's answer makes no sense: {0}")]
    InvalidResponse(String),
}

impl ApiRequestError {
    /// As it is counted.
    pub const fn outcome(&self) -> ApiOutcome {
        match self {
            Self::Unauthorized(_) => ApiOutcome::Unauthorized,
            Self::Forbidden(_) => ApiOutcome::Forbidden,
            Self::NotFound(_) => ApiOutcome::NotFound,
            Self::Conflict(_) => ApiOutcome::Conflict,
            Self::Gone(_) => ApiOutcome::Gone,
            Self::Refused(_) => ApiOutcome::Refused,
            Self::Unavailable(_) => ApiOutcome::Unavailable,
            Self::Unreachable(_) => ApiOutcome::Unreachable,
            Self::InvalidResponse(_) => ApiOutcome::InvalidResponse,
        }
    }

    /// What an HTTP status or the `code` of a `Status` object means.
    pub fn from_status(code: u16, message: String) -> Self {
        match code {
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            404 => Self::NotFound(message),
            409 => Self::Conflict(message),
            410 => Self::Gone(message),
            429 | 500.. => Self::Unavailable(message),
            _ => Self::Refused(message),
        }
    }
}
