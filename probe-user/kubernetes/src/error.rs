//! Errors of the connection to the API server, with the next step.

use std::path::PathBuf;

use probe_common::label_enum;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The program was built without the feature.
    #[error(
        "this probe was built without Kubernetes: use a build with the feature `kubernetes` (the default), or \
         `--kubernetes off`"
    )]
    NotBuilt,
    /// No service account, no kubeconfig.
    #[error(
        "Kubernetes: not configured (no service account, and no kubeconfig at {}); set KUBECONFIG",
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
        "cannot use the kubeconfig{context}: {error} (`kubectl config get-contexts` lists its contexts)"
    )]
    Kubeconfig {
        /// ` for the context NAME`, or nothing.
        context: String,
        /// The cause.
        error: String,
    },
    /// Certificates, keys or the URL are invalid.
    #[error("cannot set up the connection to the API server: {0}")]
    Setup(String),
}

label_enum! {
    /// The outcome of a request.
    pub enum ApiOutcome {
        /// A response.
        Ok = "ok",
        /// The credentials are rejected.
        Unauthorized = "unauthorized",
        /// RBAC forbids it.
        Forbidden = "forbidden",
        /// There is no such object or resource.
        NotFound = "missing",
        /// Another client wrote the object first.
        Conflict = "conflict",
        /// The resource version is too old.
        Gone = "gone",
        /// The request is invalid to the server.
        Refused = "refused",
        /// Too many requests, or a server error.
        Unavailable = "unavailable",
        /// No connection, or no response in time.
        Unreachable = "unreachable",
        /// The response is invalid.
        InvalidResponse = "garbage",
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiRequestError {
    /// 401.
    #[error("the API server rejects the credentials: {0}")]
    Unauthorized(String),
    /// 403.
    #[error("the API server forbids it: {0} (apply the ClusterRole and Role of the manifests)")]
    Forbidden(String),
    /// 404.
    #[error("the API server has no such resource: {0}")]
    NotFound(String),
    /// 409.
    #[error("another client changed it first: {0}")]
    Conflict(String),
    /// 410, or a watch event with this code.
    #[error("the resource version is too old: {0}")]
    Gone(String),
    /// 400, 405, 406, 422 and the like.
    #[error("the API server rejects the request: {0}")]
    Refused(String),
    /// 429 and 5xx.
    #[error("the API server is unavailable: {0}")]
    Unavailable(String),
    /// No connection, or no response in time.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The response is invalid.
    #[error("invalid response of the API server: {0}")]
    InvalidResponse(String),
}

impl ApiRequestError {
    /// The outcome as a label.
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

    /// The error for an HTTP status, or the `code` of a `Status` object.
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
